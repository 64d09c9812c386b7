//! Never panics; what is answered without asking anybody is a DNS message and answers the question.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::task::{Context, Poll, Waker};

use hickory_proto::op::{Message, MessageType};
use host::net::dns::{Decision, Kind, Policy, Way, respond};
use libfuzzer_sys::fuzz_target;

/// Knows every name with an even number of bytes.
struct Half;

impl Policy for Half {
    fn decide(&self, name: &str, kind: Kind) -> Decision {
        match kind {
            _ if name.len() % 2 == 1 => Decision::Unknown,
            Kind::A => Decision::Known(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], 1),
            Kind::Aaaa | Kind::Other => Decision::Known(Vec::new(), 1),
        }
    }

    async fn learned(&self, _: Vec<String>, _: Vec<Ipv4Addr>, _: u32) {}
}

fuzz_target!(|bytes: &[u8]| {
    for way in [Way::Udp, Way::Tcp] {
        let answering = std::pin::pin!(respond(bytes, way, &Half));
        let Poll::Ready(answer) = answering.poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("nobody has to be asked");
        };
        if let Some(answer) = answer {
            let question = Message::from_vec(bytes).expect("it was understood");
            let answer = Message::from_vec(&answer).expect("we wrote it");
            assert_eq!(answer.metadata.message_type, MessageType::Response);
            assert_eq!(answer.metadata.id, question.metadata.id);
        }
    }
});
