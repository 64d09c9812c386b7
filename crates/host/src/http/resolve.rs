//! Names to addresses, by asking the DNS servers of a `resolv.conf`.
//!
//! The node's programs are static: there is no name service of the C library to ask. No cache, no
//! search list, no mDNS; `localhost` and plain addresses need no server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long one server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often all servers are asked before we give up.
const ROUNDS: usize = 2;
/// A `resolv.conf` is read up to here.
const RESOLV_MAX: usize = 16 * 1024;
/// So many servers are asked, as resolvers usually do.
const SERVERS_MAX: usize = 3;

/// Where the servers of this machine are listed.
#[derive(Debug, Clone)]
pub struct Resolver {
    files: Vec<PathBuf>,
}

/// Why a name has no address for us.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The text is no host name.
    #[error("{0:?} is no host name")]
    BadName(String),
    /// There is no server to ask.
    #[error("no DNS server is known")]
    NoServer,
    /// The servers say that the name does not exist, or has no address.
    #[error("DNS knows no address of {0}")]
    Unknown(String),
    /// No server answered.
    #[error("no DNS server answered for {name}")]
    NoAnswer {
        /// Which name.
        name: String,
        /// What the last server did.
        source: io::Error,
    },
}

impl Default for Resolver {
    /// The node's own list; on other machines the usual place.
    fn default() -> Self {
        Resolver { files: vec!["/run/resolv.conf".into(), "/etc/resolv.conf".into()] }
    }
}

impl Resolver {
    /// Reads the servers from this file at every look-up.
    pub fn of(file: impl Into<PathBuf>) -> Resolver {
        Resolver { files: vec![file.into()] }
    }

    /// The addresses of `host`, at least one, IPv4 first.
    pub async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(literal) = bare.parse() {
            return Ok(vec![literal]);
        }
        if bare.eq_ignore_ascii_case("localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let mut name =
            Name::from_ascii(bare).map_err(|_| ResolveError::BadName(bare.to_owned()))?;
        name.set_fqdn(true);
        let servers = self.servers();
        if servers.is_empty() {
            return Err(ResolveError::NoServer);
        }
        let (four, six) = tokio::join!(
            ask_all(&servers, &name, RecordType::A),
            ask_all(&servers, &name, RecordType::AAAA)
        );
        match (four, six) {
            (Err(source), Err(_)) => Err(ResolveError::NoAnswer { name: bare.to_owned(), source }),
            (four, six) => {
                let all: Vec<IpAddr> =
                    four.unwrap_or_default().into_iter().chain(six.unwrap_or_default()).collect();
                if all.is_empty() { Err(ResolveError::Unknown(bare.to_owned())) } else { Ok(all) }
            }
        }
    }

    /// The first file that names a server wins: `/run` is the node's own.
    fn servers(&self) -> Vec<SocketAddr> {
        let lists = self.files.iter().map(|f| servers_in(&std::fs::read(f).unwrap_or_default()));
        lists.into_iter().find(|l| !l.is_empty()).unwrap_or_default()
    }
}

/// The `nameserver` lines of a `resolv.conf`.
fn servers_in(text: &[u8]) -> Vec<SocketAddr> {
    let text = String::from_utf8_lossy(&text[..text.len().min(RESOLV_MAX)]);
    let values = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    let addresses = values.filter_map(|v| v.parse::<IpAddr>().ok());
    addresses.take(SERVERS_MAX).map(|ip| SocketAddr::new(ip, 53)).collect()
}

async fn ask_all(servers: &[SocketAddr], name: &Name, kind: RecordType) -> io::Result<Vec<IpAddr>> {
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
        match tokio::time::timeout(PATIENCE, ask(*server, name, kind)).await {
            Ok(Ok(addresses)) => return Ok(addresses),
            Ok(Err(e)) => last = e,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

async fn ask(server: SocketAddr, name: &Name, kind: RecordType) -> io::Result<Vec<IpAddr>> {
    let mut id = [0_u8; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    let mut question = Message::new(u16::from_ne_bytes(id), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    let bytes = question.to_vec().map_err(io::Error::other)?;

    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?; // a fresh port: harder to answer for someone else
    socket.connect(server).await?;
    socket.send(&bytes).await?;
    let mut buffer = [0_u8; 4096];
    loop {
        let got = socket.recv(&mut buffer).await?;
        match read_answer(&buffer[..got], &question) {
            Some(Answer::Truncated) => break,
            Some(Answer::Whole(result)) => return result,
            None => {} // not the answer to our question
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&bytes).await?;
    let mut long = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut long).await?;
    match read_answer(&long, &question) {
        Some(Answer::Whole(result)) => result,
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// What a server says.
#[derive(Debug)]
pub enum Answer {
    /// It does not fit into a datagram: ask by TCP.
    Truncated,
    /// All addresses, or what went wrong on its side.
    Whole(io::Result<Vec<IpAddr>>),
}

/// Reads what came from a server. `None` if this is not an answer to `question`.
pub fn read_answer(bytes: &[u8], question: &Message) -> Option<Answer> {
    let answer = Message::from_vec(bytes).ok()?;
    if answer.metadata.id != question.metadata.id
        || answer.metadata.message_type != MessageType::Response
        || answer.queries != question.queries
    {
        return None;
    }
    if answer.metadata.truncation {
        return Some(Answer::Truncated);
    }
    Some(Answer::Whole(match answer.metadata.response_code {
        // The records of an alias' target come in the same answer from a recursive server.
        ResponseCode::NoError => Ok(answer
            .answers
            .iter()
            .filter_map(|record| match &record.data {
                RData::A(a) => Some(IpAddr::V4(a.0)),
                RData::AAAA(a) => Some(IpAddr::V6(a.0)),
                _ => None,
            })
            .collect()),
        ResponseCode::NXDomain => Ok(Vec::new()),
        other => Err(io::Error::other(format!("the server says {other}"))),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_a_server_and_nothing_else() {
        let text = b"# nameserver 1.1.1.1\nsearch x\nnameserver 10.0.2.3\nnameserver fe80::1\n\
                     nameserver nonsense\nnameserver";
        let found: Vec<String> = servers_in(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.2.3:53", "[fe80::1]:53"]);
    }

    #[tokio::test]
    async fn addresses_and_localhost_need_no_server() {
        let nobody = Resolver::of("/nonexistent");
        assert_eq!(nobody.resolve("192.0.2.1").await.unwrap()[0].to_string(), "192.0.2.1");
        assert_eq!(nobody.resolve("[::1]").await.unwrap()[0].to_string(), "::1");
        assert_eq!(nobody.resolve("localhost").await.unwrap().len(), 2);
        assert!(matches!(nobody.resolve("example.org").await, Err(ResolveError::NoServer)));
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let name = Name::from_ascii("a.example.").unwrap();
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(name.clone(), RecordType::A));
        let mut answer = Message::new(7, MessageType::Response, OpCode::Query);
        answer.add_query(Query::query(name, RecordType::AAAA));
        assert!(read_answer(&answer.to_vec().unwrap(), &question).is_none());
        answer.queries.clone_from(&question.queries);
        assert!(read_answer(&answer.to_vec().unwrap(), &question).is_some());
        assert!(read_answer(b"\x00\x07", &question).is_none());
    }
}
