//! HTTP/1.1 as devices speak it: over TLS, one request after the other, a new connection for each
//! (what EVE does) or a kept one. Client and the reading half of a server; no redirects, no
//! compression, no cookies.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// So long a dial may take (`timer.dial.timeout`).
const DIAL: Duration = Duration::from_secs(10);
/// So long a whole exchange may take (`timer.send.timeout`).
pub const SEND: Duration = Duration::from_secs(120);
/// Heads are a few hundred bytes.
const HEAD_MAX: usize = 64 << 10;
/// Bodies: the largest config that devices must survive fits.
const BODY_MAX: usize = 64 << 20;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `GET` or `POST`.
    pub method: String,
    /// From the first slash on.
    pub path: String,
    /// Without `Host`, `Content-Length` and `Connection`: those follow from the connection.
    pub headers: Vec<(String, String)>,
    /// The body; may be empty.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `Content-Type`, if there is one.
    pub content_type: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Where a controller is and whom to believe there.
#[derive(Clone)]
pub struct Endpoint {
    address: SocketAddr,
    host: String,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .field("host", &self.host)
            .finish()
    }
}

/// How TLS sessions begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// Each with a full handshake.
    Full,
    /// Resumed where the server gives tickets, which EVE does.
    Resumed,
}

impl Endpoint {
    /// The controller called `host` (`name:port`) in requests, reached at `address`; its
    /// certificate must chain to `root_pem`. TLS 1.3, the newest that EVE speaks.
    pub fn new(
        host: &str,
        address: SocketAddr,
        root_pem: &[u8],
        session: Session,
    ) -> anyhow::Result<Endpoint> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(root_pem) {
            roots.add(certificate.context("the root certificate is no PEM")?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        if session == Session::Full {
            tls.resumption = Resumption::disabled();
        }
        let bare = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let bare = bare.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).context("the controller's name")?;
        Ok(Endpoint { address, host: host.to_owned(), name, tls: Arc::new(tls) })
    }

    /// Where it is dialled.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same controller by the same name at another address: a proxy, or after a restart.
    pub fn at(&self, address: SocketAddr) -> Endpoint {
        Endpoint { address, ..self.clone() }
    }

    /// Opens a connection.
    pub async fn connect(&self) -> io::Result<Connection> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "nobody answers");
        let dial = async {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(self.tls.clone()).connect(self.name.clone(), stream).await
        };
        let stream = tokio::time::timeout(DIAL, dial).await.map_err(late)??;
        Ok(Connection { stream, host: self.host.clone(), read: Vec::new() })
    }

    /// One request on a connection of its own, with `Connection: close`.
    pub async fn once(&self, call: &Call) -> io::Result<Answer> {
        self.connect().await?.exchange(call, true).await
    }
}

/// A connection that may be used again.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    host: String,
    /// What was read beyond the last answer.
    read: Vec<u8>,
}

impl Connection {
    /// Sends a request and reads its answer; `last` asks the server to close afterwards.
    pub async fn exchange(&mut self, call: &Call, last: bool) -> io::Result<Answer> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the answer does not come");
        tokio::time::timeout(SEND, async {
            let mut bytes = self.head(call, call.body.len() as u64, last);
            bytes.extend_from_slice(&call.body);
            self.stream.write_all(&bytes).await?;
            self.answer().await
        })
        .await
        .map_err(late)?
    }

    /// Sends a request whose body is `length` zeros, until it is through or refused.
    pub async fn send_zeros(&mut self, call: &Call, length: u64) -> io::Result<Answer> {
        let head = self.head(call, length, true);
        self.stream.write_all(&head).await?;
        let piece = vec![0; 64 << 10];
        let mut left = length;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            // A server may answer and close while we still send: then its answer counts.
            let part = piece.get(..now).unwrap_or_default();
            if self.stream.write_all(part).await.is_err() {
                break;
            }
            left -= now as u64;
        }
        self.answer().await
    }

    fn head(&self, call: &Call, length: u64, last: bool) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", call.method, call.path, self.host);
        for (name, value) in &call.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if call.method != "GET" {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        if last {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    async fn answer(&mut self) -> io::Result<Answer> {
        let head = read_head(&mut self.stream, &mut self.read).await?;
        let mut words = head.first.split(' ');
        let version = words.next().unwrap_or_default();
        let status = words.next().and_then(|s| s.parse().ok());
        let (true, Some(status)) = (version.starts_with("HTTP/1."), status) else {
            return Err(broken(format!("{:?} is no status line", head.first)));
        };
        let body = if status == 204 || status == 304 {
            Vec::new()
        } else {
            read_body(&mut self.stream, &mut self.read, &head, true).await?
        };
        let content_type = head.get("content-type").map(str::to_owned);
        Ok(Answer { status, content_type, body })
    }
}

/// The first line of a message and its headers.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) first: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
}

impl Head {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Reads up to the empty line; what comes behind it stays in `read`.
pub(super) async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    read: &mut Vec<u8>,
) -> io::Result<Head> {
    let end = loop {
        if let Some(at) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if read.len() > HEAD_MAX {
            return Err(broken("the head is too long".to_owned()));
        }
        if stream.read_buf(read).await? == 0 {
            let what = "the connection ended before the head did";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
    };
    let text = String::from_utf8_lossy(read.get(..end).unwrap_or_default()).into_owned();
    read.drain(..end + 4);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Head { first, headers })
}

/// Reads a body of a known length or in chunks; of an answer without either, up to the end.
pub(super) async fn read_body<S: AsyncRead + Unpin>(
    stream: &mut S,
    read: &mut Vec<u8>,
    head: &Head,
    is_answer: bool,
) -> io::Result<Vec<u8>> {
    if head.get("transfer-encoding").is_some_and(|t| t.eq_ignore_ascii_case("chunked")) {
        return read_chunks(stream, read).await;
    }
    match head.get("content-length").map(str::parse::<usize>) {
        Some(Ok(length)) if length <= BODY_MAX => {
            fill(stream, read, length).await?;
            Ok(read.drain(..length).collect())
        }
        Some(_) => Err(broken("the length of the body is none, or too long".to_owned())),
        None if is_answer => {
            let room = u64::try_from(BODY_MAX).unwrap_or(u64::MAX);
            stream.take(room).read_to_end(read).await?;
            Ok(std::mem::take(read))
        }
        None => Ok(Vec::new()),
    }
}

async fn read_chunks<S: AsyncRead + Unpin>(
    stream: &mut S,
    read: &mut Vec<u8>,
) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = read.windows(2).position(|w| w == b"\r\n") {
                break at;
            }
            fill(stream, read, read.len() + 1).await?;
        };
        let line = String::from_utf8_lossy(read.get(..end).unwrap_or_default()).into_owned();
        let size = line.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16)
            .ok()
            .filter(|size| body.len() + size <= BODY_MAX)
            .ok_or_else(|| broken(format!("{line:?} is no length of a chunk")))?;
        read.drain(..end + 2);
        fill(stream, read, size + 2).await?;
        body.extend(read.drain(..size));
        read.drain(..2);
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Reads until there are at least `length` bytes.
async fn fill<S: AsyncRead + Unpin>(
    stream: &mut S,
    read: &mut Vec<u8>,
    length: usize,
) -> io::Result<()> {
    while read.len() < length {
        if stream.read_buf(read).await? == 0 {
            let what = "the connection ended before the body did";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
    }
    Ok(())
}

/// Writes an answer.
pub(super) async fn write_answer<S: AsyncWrite + Unpin>(
    stream: &mut S,
    answer: &Answer,
) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} \r\n", answer.status);
    if let Some(kind) = &answer.content_type {
        head.push_str(&format!("Content-Type: {kind}\r\n"));
    }
    if answer.status != 304 && answer.status != 204 {
        head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    head.push_str("Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&answer.body).await?;
    stream.flush().await?;
    stream.shutdown().await
}

fn broken(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Host and port of an URL `https://HOST:PORT`.
pub fn host_of(url: &str) -> anyhow::Result<&str> {
    match url.trim().trim_end_matches('/').strip_prefix("https://") {
        Some(host) if !host.is_empty() => Ok(host),
        _ => bail!("{url:?} is no address of a controller"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_end_where_they_say() {
        for (text, want, rest) in [
            ("Content-Length: 3\r\n\r\nabcX", "abc", "X"),
            ("Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\nX", "abc", "X"),
            ("\r\nabc", "abc", ""),
        ] {
            let bytes = format!("HTTP/1.1 200 OK\r\n{text}");
            let (mut stream, mut read) = (bytes.as_bytes(), Vec::new());
            let head = read_head(&mut stream, &mut read).await.unwrap();
            let body = read_body(&mut stream, &mut read, &head, true).await.unwrap();
            assert_eq!(
                (String::from_utf8(body).unwrap().as_str(), &read[..]),
                (want, rest.as_bytes())
            );
        }
    }

    #[tokio::test]
    async fn a_message_cut_short_is_an_error() {
        for text in ["HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"] {
            let (mut stream, mut read) = (text.as_bytes(), Vec::new());
            let got = async {
                let head = read_head(&mut stream, &mut read).await?;
                read_body(&mut stream, &mut read, &head, true).await
            };
            assert_eq!(got.await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
