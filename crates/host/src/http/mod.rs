//! A small HTTP/1.1 client over TCP or TLS.
//!
//! One connection a request, bounded bodies, a limit on every wait. TLS is rustls with aws-lc-rs and
//! checks the server's name always. It retries nothing, follows only redirects of a `GET`, and knows
//! no cookies and no proxies.

mod resolve;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{StatusCode, Uri};
use hyper_util::rt::TokioIo;
use model::{Diagnose, Diagnosis, Who};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

pub use hyper::Method;
pub use resolve::{ResolveError, Resolver};

/// How long a TCP connection may take (EVE: `timer.dial.timeout`).
const DIAL: Duration = Duration::from_secs(10);
/// How long a whole small request may take (EVE: `timer.send.timeout`).
const WHOLE: Duration = Duration::from_secs(120);
/// How long a download may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// So many redirects are followed.
const REDIRECTS: usize = 5;
/// A bundle of certificates is read up to here; Debian's takes 220 KiB.
const BUNDLE_MAX: u64 = 4 << 20;

/// Where a system keeps the certificates it trusts.
pub const SYSTEM_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Whom we believe to be who they say they are.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Also the certificates of the system, if it has some.
    pub system: bool,
    /// PEM texts; each may hold several certificates.
    pub pem: Vec<String>,
}

/// One question.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST`, `HEAD`.
    pub method: Method,
    /// `http://…` or `https://…`.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(&'static str, String)>,
    /// May be empty.
    pub body: Bytes,
    /// The answer's body may not be larger than so many bytes.
    pub limit: usize,
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: hyper::HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// An answer whose body comes in pieces.
#[derive(Debug)]
pub struct Download {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: hyper::HeaderMap,
    body: Incoming,
    url: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The text is no address of ours.
    #[error("{url:?} is no http or https address")]
    Url {
        /// The text.
        url: String,
    },
    /// A certificate to trust could not be read.
    #[error("a trusted certificate is not valid PEM: {why}")]
    Trust {
        /// What is wrong with it.
        why: String,
    },
    /// The name has no address.
    #[error("cannot find {host}")]
    Resolve {
        /// Which host.
        host: String,
        /// Why.
        source: ResolveError,
    },
    /// No TCP connection.
    #[error("cannot connect to {to}")]
    Connect {
        /// Address and port.
        to: String,
        /// Why.
        source: io::Error,
    },
    /// No TLS connection; a wrong certificate among others.
    #[error("no TLS with {host}")]
    Tls {
        /// Which host.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or what came is no HTTP.
    #[error("the exchange with {url} broke")]
    Exchange {
        /// Which address.
        url: String,
        /// Why.
        source: hyper::Error,
    },
    /// Too slow.
    #[error("{url} took longer than {} s to {what}", limit.as_secs())]
    Slow {
        /// Which address.
        url: String,
        /// What it did not do.
        what: &'static str,
        /// In so long.
        limit: Duration,
    },
    /// The answer is larger than we read.
    #[error("the answer of {url} is larger than {limit} bytes")]
    TooLarge {
        /// Which address.
        url: String,
        /// The limit.
        limit: usize,
    },
    /// It sends us in circles.
    #[error("{url} redirects more than {REDIRECTS} times")]
    Redirects {
        /// Which address.
        url: String,
    },
}

impl HttpError {
    /// Whether TLS failed because a certificate is outside its time.
    pub fn is_certificate_time(&self) -> bool {
        let HttpError::Tls { source, .. } = self else { return false };
        let text = source.to_string();
        text.contains("Expired") || text.contains("NotValidYet")
    }

    /// Whether somebody refused the connection: a server that is down for a moment.
    pub fn is_refused(&self) -> bool {
        matches!(self, HttpError::Connect { source, .. }
            if source.kind() == io::ErrorKind::ConnectionRefused)
    }
}

impl Diagnose for HttpError {
    fn diagnose(&self) -> Diagnosis {
        use Who::{Network, Operator};
        match self {
            Self::Url { .. } => Diagnosis::of(Operator, "correct the address"),
            Self::Trust { .. } => Diagnosis::of(Operator, "correct the certificate"),
            Self::Resolve { .. } => Diagnosis::of(Network, "check the network's DNS, and the name"),
            Self::Connect { .. } | Self::Slow { .. } | Self::Exchange { .. } => {
                Diagnosis::of(Network, "check the way to the server, and the server")
            }
            Self::Tls { .. } if self.is_certificate_time() => {
                Diagnosis::of(Operator, "check this machine's clock and the server's certificate")
            }
            Self::Tls { .. } => Diagnosis::of(
                Operator,
                "check that the server's certificate names it and comes from a trusted root",
            ),
            Self::TooLarge { .. } | Self::Redirects { .. } => {
                Diagnosis::of(Operator, "check that this is the right server")
            }
        }
    }
}

/// A client with one set of trusted certificates. TLS sessions are resumed.
#[derive(Debug, Clone)]
pub struct Client {
    tls: Arc<ClientConfig>,
    resolver: Resolver,
    source: Option<IpAddr>,
}

impl Client {
    /// A client that trusts these.
    pub fn new(trust: &Trust, resolver: Resolver) -> Result<Client, HttpError> {
        let mut roots = RootCertStore::empty();
        if trust.system {
            // One bad certificate of a hundred must not take the others with it.
            let bundle = read_bounded(Path::new(SYSTEM_BUNDLE)).unwrap_or_default();
            roots.add_parsable_certificates(
                CertificateDer::pem_slice_iter(&bundle).filter_map(Result::ok),
            );
        }
        let bad = |why: String| HttpError::Trust { why };
        for pem in &trust.pem {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|e| bad(e.to_string()))?;
                roots.add(certificate).map_err(|e| bad(e.to_string()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| bad(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Client { tls: Arc::new(tls), resolver, source: None })
    }

    /// The same client, speaking from this address of ours.
    #[must_use]
    pub fn from_address(&self, source: IpAddr) -> Client {
        Client { source: Some(source), ..self.clone() }
    }

    /// Asks, and reads the whole answer.
    pub async fn send(&self, request: Request) -> Result<Response, HttpError> {
        let (url, limit) = (request.url.clone(), request.limit);
        let whole = async {
            let download = self.open(request).await?;
            let (status, headers) = (download.status, download.headers.clone());
            Ok(Response { status, headers, body: download.whole(limit).await? })
        };
        let slow = |_| HttpError::Slow { url, what: "answer", limit: WHOLE };
        timeout(WHOLE, whole).await.map_err(slow)?
    }

    /// Asks, and returns as soon as the head of the answer is here.
    pub async fn open(&self, mut request: Request) -> Result<Download, HttpError> {
        for _ in 0..=REDIRECTS {
            let url = request.url.clone();
            let slow = |_| HttpError::Slow { url: url.clone(), what: "begin", limit: SILENCE };
            let answer = timeout(SILENCE, self.once(&request)).await.map_err(slow)??;
            let moved = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
            let to = answer.headers.get("location").and_then(|v| v.to_str().ok());
            match to {
                Some(to) if moved && request.method == Method::GET => {
                    let from = request.url.clone();
                    request.url = join(&from, to);
                    if host_of(&from) != host_of(&request.url) {
                        // What proves us to one host is no business of another.
                        request.headers.retain(|(name, _)| *name != "authorization");
                    }
                }
                _ => return Ok(answer),
            }
        }
        Err(HttpError::Redirects { url: request.url })
    }

    async fn once(&self, request: &Request) -> Result<Download, HttpError> {
        let bad = || HttpError::Url { url: request.url.clone() };
        let uri: Uri = request.url.parse().map_err(|_| bad())?;
        let host = uri.host().ok_or_else(bad)?.to_owned();
        let (secure, usual) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(bad()),
        };
        let stream = self.dial(&host, uri.port_u16().unwrap_or(usual)).await?;

        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let authority = uri.authority().map_or("", |a| a.as_str());
        let mut head = hyper::Request::builder()
            .method(request.method.clone())
            .uri(path)
            .header("host", authority)
            .header("connection", "close")
            .header("user-agent", concat!("eve/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &request.headers {
            let value = HeaderValue::from_str(value).map_err(|_| bad())?;
            head = head.header(HeaderName::from_static(name), value);
        }
        let head = head.body(Full::new(request.body.clone())).map_err(|_| bad())?;
        if !secure {
            return exchange(TokioIo::new(stream), head, &request.url).await;
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(|_| bad())?;
        let stream = tokio_rustls::TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await
            .map_err(|source| HttpError::Tls { host, source })?;
        exchange(TokioIo::new(stream), head, &request.url).await
    }

    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, HttpError> {
        let addresses = self
            .resolver
            .resolve(host)
            .await
            .map_err(|source| HttpError::Resolve { host: host.to_owned(), source })?;
        let mut last = HttpError::Url { url: host.to_owned() };
        for address in addresses {
            let to = SocketAddr::new(address, port);
            let dialled = timeout(DIAL, dial_one(to, self.source)).await;
            match dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => return Ok(stream),
                Err(source) => last = HttpError::Connect { to: to.to_string(), source },
            }
        }
        Err(last)
    }
}

impl Request {
    /// A `GET` without special headers.
    pub fn get(url: impl Into<String>, limit: usize) -> Request {
        let url = url.into();
        Request { method: Method::GET, url, headers: Vec::new(), body: Bytes::new(), limit }
    }

    /// The same with one more header; the name in lower case.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Request {
        self.headers.push((name, value.into()));
        self
    }
}

impl Download {
    /// The next piece. `None`: that was all.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let url = || self.url.clone();
            let slow = |_| HttpError::Slow { url: url(), what: "go on", limit: SILENCE };
            match timeout(SILENCE, self.body.frame()).await.map_err(slow)? {
                None => return Ok(None),
                Some(Err(source)) => return Err(HttpError::Exchange { url: url(), source }),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The length the server promises.
    pub fn length(&self) -> Option<u64> {
        self.headers.get("content-length")?.to_str().ok()?.parse().ok()
    }

    /// Reads the rest, up to `limit` bytes.
    pub async fn whole(mut self, limit: usize) -> Result<Bytes, HttpError> {
        let mut all = Vec::new();
        while let Some(piece) = self.chunk().await? {
            if all.len() + piece.len() > limit {
                return Err(HttpError::TooLarge { url: self.url, limit });
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.into())
    }
}

impl Response {
    /// A header as text; `None` also if it is no text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The reason in words, for people.
    pub fn reason(&self) -> String {
        let known = StatusCode::from_u16(self.status).ok().and_then(|s| s.canonical_reason());
        format!("{} {}", self.status, known.unwrap_or_default()).trim_end().to_owned()
    }
}

/// Reads a file of certificates; larger ones than [`BUNDLE_MAX`] are refused.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let size = std::fs::metadata(path)?.len();
    if size > BUNDLE_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    std::fs::read(path)
}

async fn dial_one(to: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source.filter(|s| s.is_ipv4() == to.is_ipv4()) {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn exchange<S>(
    stream: TokioIo<S>,
    request: hyper::Request<Full<Bytes>>,
    url: &str,
) -> Result<Download, HttpError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let broke = |source| HttpError::Exchange { url: url.to_owned(), source };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(broke)?;
    // It moves the bytes; it ends with the body, or when the body is dropped.
    tokio::spawn(async move {
        if let Err(e) = connection.await {
            tracing::debug!("connection ended: {e}");
        }
    });
    let answer = sender.send_request(request).await.map_err(broke)?;
    let (head, body) = answer.into_parts();
    Ok(Download { status: head.status.as_u16(), headers: head.headers, body, url: url.to_owned() })
}

/// A redirect's target, seen from where it was said.
fn join(from: &str, to: &str) -> String {
    if to.contains("://") {
        return to.to_owned();
    }
    let after_scheme = from.find("://").map_or(0, |at| at + 3);
    let host_end = from[after_scheme..].find('/').map_or(from.len(), |at| after_scheme + at);
    if to.starts_with('/') {
        return format!("{}{to}", &from[..host_end]);
    }
    let folder = from.rfind('/').filter(|at| *at >= host_end).unwrap_or(host_end);
    format!("{}/{to}", &from[..folder])
}

fn host_of(url: &str) -> Option<String> {
    url.parse::<Uri>().ok()?.authority().map(|a| a.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A server on loopback that answers every connection with these bytes.
    async fn answering(answer: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 2048];
                let _ = stream.read(&mut asked).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        format!("http://{at}/a/b")
    }

    fn client() -> Client {
        Client::new(&Trust::default(), Resolver::of("/nonexistent")).unwrap()
    }

    #[tokio::test]
    async fn reads_a_whole_answer_and_refuses_a_larger_one() {
        let url = answering("HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nhello").await;
        let answer = client().send(Request::get(url.as_str(), 5)).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (201, &b"hello"[..]));
        let refused = client().send(Request::get(url, 4)).await.unwrap_err();
        assert!(matches!(refused, HttpError::TooLarge { limit: 4, .. }), "{refused}");
    }

    #[tokio::test]
    async fn an_answer_cut_short_is_an_error() {
        let url = answering("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhel").await;
        let cut = tokio::time::timeout(SILENCE, async {
            let mut download = client().open(Request::get(url, 0)).await.unwrap();
            while let Some(piece) = download.chunk().await? {
                assert_eq!(&piece[..], b"hel");
            }
            Ok::<(), HttpError>(())
        });
        assert!(cut.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn circles_end() {
        let url = answering("HTTP/1.1 302 Found\r\nlocation: /a/b\r\ncontent-length: 0\r\n\r\n");
        let refused = client().send(Request::get(url.await, 9)).await.unwrap_err();
        assert!(matches!(refused, HttpError::Redirects { .. }), "{refused}");
    }

    #[tokio::test]
    async fn nobody_there_is_told_apart() {
        let refused = client().send(Request::get("http://127.0.0.1:1/", 9)).await.unwrap_err();
        assert!(refused.is_refused(), "{refused}");
    }

    #[test]
    fn redirects_are_seen_from_where_they_were_said() {
        for (to, want) in [
            ("https://b.example/x", "https://b.example/x"),
            ("/x", "http://a.example:1/x"),
            ("x?y", "http://a.example:1/v2/x?y"),
        ] {
            assert_eq!(join("http://a.example:1/v2/blob", to), want);
        }
        assert_eq!(join("http://a.example", "x"), "http://a.example/x");
    }
}
