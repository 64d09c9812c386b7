//! A DNS server that answers some names itself and passes other questions on, by UDP and TCP
//! (RFC 1035, RFC 7766). Answers from elsewhere travel as they came.
//!
//! It keeps no cache. Work is bounded: what comes while [`BUSY_MAX`] questions are open is dropped,
//! and the client asks again.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::NetError;

/// Questions and connections that are open at once.
pub const BUSY_MAX: usize = 64;
/// A question by TCP may be so long: a name has 255 bytes, options a few hundred.
const QUESTION_MAX: usize = 4096;
/// The largest datagram that servers send.
const DATAGRAM_MAX: usize = 4096;
/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many servers are asked, twice each.
const SERVERS_MAX: usize = 3;
/// A client's connection without a question is closed after so long.
const IDLE: Duration = Duration::from_secs(10);
const PORT: u16 = 53;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// Anything else.
    Other,
}

/// What to do with a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// These are the addresses, for so many seconds; none: the name has none of that kind.
    Known(Vec<IpAddr>, u32),
    /// There is no such name.
    Unknown,
    /// These servers know, in order. The marks come back with what they say.
    Ask(Vec<IpAddr>, Vec<String>),
}

/// Who knows what to answer.
pub trait Policy: Send + Sync + 'static {
    /// What to do with a question for `name`, in ASCII with a dot at its end.
    fn decide(&self, name: &str, kind: Kind) -> Decision;

    /// What a server said to a question with marks, before the client hears it: addresses, and
    /// for how many seconds they hold.
    fn learned(
        &self,
        marks: Vec<String>,
        addresses: Vec<Ipv4Addr>,
        seconds: u32,
    ) -> impl Future<Output = ()> + Send;
}

/// A server on one address.
#[derive(Debug)]
pub struct DnsServer {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In a datagram; so goes the answer.
    Udp,
    /// On a connection; so goes the answer.
    Tcp,
}

impl DnsServer {
    /// Takes port 53 of an address that the node has.
    pub async fn bind(address: Ipv4Addr) -> Result<DnsServer, NetError> {
        let open = || async {
            let udp = Arc::new(UdpSocket::bind((address, PORT)).await?);
            let tcp = TcpListener::bind((address, PORT)).await?;
            Ok(DnsServer { udp, tcp })
        };
        open().await.map_err(|e: io::Error| NetError::new(format!("serve DNS on {address}"), e))
    }

    /// Answers for ever; dropped, it stops at once.
    pub async fn serve<P: Policy>(self, policy: Arc<P>) {
        let mut busy = JoinSet::new();
        let mut buffer = [0_u8; DATAGRAM_MAX];
        loop {
            tokio::select! {
                Some(_) = busy.join_next() => {}
                got = self.udp.recv_from(&mut buffer) => match got {
                    Ok((length, client)) if busy.len() < BUSY_MAX => {
                        let (udp, policy) = (self.udp.clone(), policy.clone());
                        let question = buffer[..length].to_vec();
                        busy.spawn(async move {
                            if let Some(answer) = respond(&question, Way::Udp, &*policy).await {
                                // A client that is gone does not mind.
                                let _ = udp.send_to(&answer, client).await;
                            }
                        });
                    }
                    Ok(_) => {}
                    Err(e) => pause("receive", &e).await,
                },
                got = self.tcp.accept() => match got {
                    // Half of the room is kept for UDP.
                    Ok((stream, _)) if busy.len() < BUSY_MAX / 2 => {
                        let policy = policy.clone();
                        busy.spawn(async move {
                            let _ = converse(stream, &*policy).await;
                        });
                    }
                    Ok(_) => {}
                    Err(e) => pause("accept", &e).await,
                },
            }
        }
    }
}

/// An error that repeats at once must not turn into a busy loop.
async fn pause(doing: &str, error: &io::Error) {
    tracing::debug!("DNS: cannot {doing}: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Question after question on one connection.
async fn converse<P: Policy>(mut stream: TcpStream, policy: &P) -> io::Result<()> {
    loop {
        let length = usize::from(timeout(IDLE, stream.read_u16()).await??);
        if length > QUESTION_MAX {
            return Ok(());
        }
        let mut question = vec![0; length];
        timeout(IDLE, stream.read_exact(&mut question)).await??;
        let Some(answer) = respond(&question, Way::Tcp, policy).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let whole = [&length.to_be_bytes()[..], &answer].concat();
        timeout(IDLE, stream.write_all(&whole)).await??;
    }
}

/// The answer to a question, as bytes of DNS both. `None`: it is none.
pub async fn respond<P: Policy>(bytes: &[u8], way: Way, policy: &P) -> Option<Vec<u8>> {
    let question = Message::from_vec(bytes).ok()?;
    if question.metadata.message_type != MessageType::Query {
        return None;
    }
    let [query] = question.queries.as_slice() else {
        return refuse(&question, ResponseCode::FormErr);
    };
    if question.metadata.op_code != OpCode::Query || query.query_class() != DNSClass::IN {
        return refuse(&question, ResponseCode::NotImp);
    }
    let kind = match query.query_type() {
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        _ => Kind::Other,
    };
    match policy.decide(&query.name().to_ascii(), kind) {
        Decision::Known(addresses, seconds) => {
            let mut answer = reply(&question, ResponseCode::NoError);
            answer.metadata.authoritative = true;
            answer.answers = addresses
                .into_iter()
                .map(|ip| {
                    let data = match ip {
                        IpAddr::V4(v4) => RData::A(A(v4)),
                        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
                    };
                    Record::from_rdata(query.name().clone(), seconds, data)
                })
                .collect();
            answer.to_vec().ok()
        }
        Decision::Unknown => refuse(&question, ResponseCode::NXDomain),
        Decision::Ask(servers, marks) => match ask_any(&servers, bytes, &question, way).await {
            Ok((bytes, answer)) => {
                if !marks.is_empty() {
                    let (addresses, seconds) = addresses_in(&answer);
                    if !addresses.is_empty() {
                        policy.learned(marks, addresses, seconds).await;
                    }
                }
                Some(bytes)
            }
            Err(e) => {
                tracing::debug!("DNS: no server answered: {e}");
                refuse(&question, ResponseCode::ServFail)
            }
        },
    }
}

fn reply(question: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.queries.clone_from(&question.queries);
    answer
}

fn refuse(question: &Message, code: ResponseCode) -> Option<Vec<u8>> {
    reply(question, code).to_vec().ok()
}

/// IPv4 addresses in an answer and the shortest time that one of them holds.
fn addresses_in(answer: &Message) -> (Vec<Ipv4Addr>, u32) {
    let found = answer.answers.iter().filter_map(|record| match &record.data {
        RData::A(a) => Some((a.0, record.ttl)),
        _ => None,
    });
    let (addresses, times): (Vec<Ipv4Addr>, Vec<u32>) = found.unzip();
    (addresses, times.into_iter().min().unwrap_or_default())
}

async fn ask_any(
    servers: &[IpAddr],
    bytes: &[u8],
    question: &Message,
    way: Way,
) -> io::Result<(Vec<u8>, Message)> {
    let servers = &servers[..servers.len().min(SERVERS_MAX)];
    let mut last = io::Error::new(io::ErrorKind::NotConnected, "no DNS server is known");
    for server in servers.iter().cycle().take(servers.len() * 2) {
        match timeout(PATIENCE, ask((*server, PORT).into(), bytes, question, way)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(e)) => last = e,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// Passes a question on under a number of our own, which is harder to guess than the client's.
async fn ask(
    server: SocketAddr,
    bytes: &[u8],
    question: &Message,
    way: Way,
) -> io::Result<(Vec<u8>, Message)> {
    let mut id = [0_u8; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    let mut bytes = bytes.to_vec();
    let theirs = [bytes[0], bytes[1]]; // it was parsed: there is a header
    bytes[..2].copy_from_slice(&id);
    let fits = |got: &[u8]| {
        let answer = Message::from_vec(got).ok()?;
        let ours = answer.metadata.id == u16::from_be_bytes(id)
            && answer.metadata.message_type == MessageType::Response
            && answer.queries == question.queries;
        let mut whole = got.to_vec();
        whole[..2].copy_from_slice(&theirs);
        ours.then_some((whole, answer))
    };
    match way {
        Way::Udp => {
            let any: SocketAddr = match server {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any).await?; // a fresh port each time
            socket.connect(server).await?;
            socket.send(&bytes).await?;
            let mut buffer = [0_u8; DATAGRAM_MAX];
            loop {
                let length = socket.recv(&mut buffer).await?;
                if let Some(answer) = fits(&buffer[..length]) {
                    return Ok(answer);
                }
            }
        }
        Way::Tcp => {
            let mut stream = TcpStream::connect(server).await?;
            let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await?;
            let mut long = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut long).await?;
            fits(&long).ok_or_else(|| io::ErrorKind::InvalidData.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;
    use hickory_proto::rr::Name;

    use super::*;

    struct Fixed;

    impl Policy for Fixed {
        fn decide(&self, name: &str, kind: Kind) -> Decision {
            match (name, kind) {
                ("db.local.", Kind::A) => Decision::Known(vec![[10, 1, 0, 9].into()], 600),
                ("db.local.", _) => Decision::Known(Vec::new(), 600),
                ("away.example.", _) => Decision::Ask(Vec::new(), Vec::new()),
                _ => Decision::Unknown,
            }
        }

        async fn learned(&self, _: Vec<String>, _: Vec<Ipv4Addr>, _: u32) {}
    }

    fn question(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    #[tokio::test]
    async fn a_question_gets_an_answer_of_its_own() {
        for (name, kind, code, answers) in [
            ("db.local.", RecordType::A, ResponseCode::NoError, 1),
            ("db.local.", RecordType::AAAA, ResponseCode::NoError, 0),
            ("db.", RecordType::A, ResponseCode::NXDomain, 0),
            ("away.example.", RecordType::A, ResponseCode::ServFail, 0),
        ] {
            let bytes = question(name, kind);
            let answer = respond(&bytes, Way::Udp, &Fixed).await.unwrap();
            let answer = Message::from_vec(&answer).unwrap();
            assert_eq!((answer.metadata.id, answer.queries.len()), (7, 1));
            assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, answers));
        }
    }

    #[tokio::test]
    async fn what_is_no_question_gets_no_answer() {
        let good = question("db.local.", RecordType::A);
        for length in 0..good.len() {
            let _ = respond(&good[..length], Way::Udp, &Fixed).await; // must not panic
        }
        let mut answer = good;
        answer[2] |= 0x80; // it is an answer itself
        assert_eq!(respond(&answer, Way::Udp, &Fixed).await, None);
        assert_eq!(respond(&[0xff; 64], Way::Udp, &Fixed).await, None);
    }
}
