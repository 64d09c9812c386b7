//! One question and its answer over UDP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

/// No answer that we ask for is longer.
const ANSWER_MAX: usize = 1500;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answered {
    /// What came.
    pub bytes: Vec<u8>,
    /// At which address of ours.
    pub own: IpAddr,
    /// So long after the question went out.
    pub spent: Duration,
}

/// Asks `to`, and waits so long for what comes back from there; others are not heard.
pub async fn ask(to: SocketAddr, question: &[u8], patience: Duration) -> io::Result<Answered> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(to).await?;
    let own = socket.local_addr()?.ip();
    let mut bytes = vec![0; ANSWER_MAX];
    let begun = Instant::now();
    socket.send(question).await?;
    let length = timeout(patience, socket.recv(&mut bytes)).await??;
    let spent = begun.elapsed();
    bytes.truncate(length);
    Ok(Answered { bytes, own, spent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_comes_from_whom_was_asked() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = server.local_addr().unwrap();
        let answers = tokio::spawn(async move {
            let mut asked = [0; 16];
            let (length, from) = server.recv_from(&mut asked).await.unwrap();
            let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            stranger.send_to(b"no", from).await.unwrap();
            server.send_to(&asked[..length], from).await.unwrap();
            server
        });
        let got = ask(to, b"what?", Duration::from_secs(5)).await.unwrap();
        assert_eq!((got.bytes.as_slice(), got.own), (&b"what?"[..], to.ip()));
        let _server = answers.await.unwrap();
        let silent = ask(to, b"what?", Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
    }
}
