//! A small HTTP/1.1 client over TCP or TLS.
//!
//! One connection a request, bounded bodies, a limit on every wait. TLS is rustls with aws-lc-rs and
//! checks the server's name always. It retries nothing, follows only redirects of a `GET`, never one
//! from TLS to none, and knows no cookies and no proxies. No error shows an address' query: it may be
//! what opens the door (presigned downloads).

pub mod resolve;
mod ways;

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
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
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use hyper::Method;
pub use resolve::{ResolveError, Resolver};
pub use ways::Ways;

/// How long a whole small request may take, unless [`Ways::hurry`] says otherwise.
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
    silence: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The text is no address of ours.
    #[error("{url:?} is no http or https address")]
    Url {
        /// The text, as far as it may be shown (so all of `url` below: scheme, host and path).
        url: String,
    },
    /// A header cannot be sent. Its value is not told: it may be a secret.
    #[error("the value of header {name} holds what HTTP does not allow")]
    Header {
        /// Which.
        name: &'static str,
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
    /// It sends us from TLS to an address without.
    #[error("{from} redirects to {to}, which is not protected by TLS")]
    Downgrade {
        /// Which address.
        from: String,
        /// Where to.
        to: String,
    },
}

impl HttpError {
    /// Whether the machine was reached, and nobody there takes calls.
    pub fn is_refused(&self) -> bool {
        let refused = io::ErrorKind::ConnectionRefused;
        matches!(self, HttpError::Connect { source, .. } if source.kind() == refused)
    }

    /// Whether TLS failed because a certificate is outside its time.
    pub fn is_certificate_time(&self) -> bool {
        let HttpError::Tls { source, .. } = self else { return false };
        let text = source.to_string();
        text.contains("Expired") || text.contains("NotValidYet")
    }
}

impl Diagnose for HttpError {
    fn diagnose(&self) -> Diagnosis {
        use Who::{Network, Operator};
        match self {
            Self::Url { .. } => Diagnosis::of(Operator, "correct the address"),
            Self::Header { .. } => Diagnosis::of(Operator, "check the credentials for this server"),
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
            Self::TooLarge { .. } | Self::Redirects { .. } | Self::Downgrade { .. } => {
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
    ways: Ways,
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
        Ok(Client { tls: Arc::new(tls), resolver, ways: Ways::default() })
    }

    /// The same, which tries these ways when the kernel's own leads nowhere.
    #[must_use]
    pub fn with_ways(self, ways: Ways) -> Client {
        Client { ways, ..self }
    }

    /// Asks, and reads the whole answer.
    pub async fn send(&self, request: Request) -> Result<Response, HttpError> {
        let (url, limit) = (shown(&request.url), request.limit);
        let most = self.ways.whole().unwrap_or(WHOLE);
        let whole = async {
            let download = self.begin(request, most).await?;
            let (status, headers) = (download.status, download.headers.clone());
            Ok(Response { status, headers, body: download.whole(limit).await? })
        };
        let slow = |_| HttpError::Slow { url, what: "answer", limit: most };
        timeout(most, whole).await.map_err(slow)?
    }

    /// Asks, and returns as soon as the head of the answer is here.
    pub async fn open(&self, request: Request) -> Result<Download, HttpError> {
        self.begin(request, SILENCE).await
    }

    async fn begin(&self, mut request: Request, most: Duration) -> Result<Download, HttpError> {
        for _ in 0..=REDIRECTS {
            let url = || shown(&request.url);
            let slow = |_| HttpError::Slow { url: url(), what: "begin", limit: most };
            let answer = timeout(most, self.once(&request)).await.map_err(slow)??;
            let moved = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
            let to = answer.headers.get("location").and_then(|v| v.to_str().ok());
            match to {
                Some(to) if moved && request.method == Method::GET => {
                    let to = join(&request.url, to);
                    if !same_server(&request.url, &to)? {
                        // What proves us to one server is no business of another.
                        request.headers.retain(|(name, _)| *name != "authorization");
                    }
                    request.url = to;
                }
                _ => return Ok(answer),
            }
        }
        Err(HttpError::Redirects { url: shown(&request.url) })
    }

    async fn once(&self, request: &Request) -> Result<Download, HttpError> {
        let bad = || HttpError::Url { url: shown(&request.url) };
        let uri: Uri = request.url.parse().map_err(|_| bad())?;
        let Server { secure, host, port } = Server::of(&uri).ok_or_else(bad)?;
        let stream = self.dial(&host, port).await?;

        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let named = match uri.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        let mut head = hyper::Request::builder()
            .method(request.method.clone())
            .uri(path)
            .header("host", named)
            .header("connection", "close")
            .header("user-agent", concat!("eve/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &request.headers {
            let value = HeaderValue::from_str(value).map_err(|_| HttpError::Header { name })?;
            head = head.header(HeaderName::from_static(name), value);
        }
        let head = head.body(Full::new(request.body.clone())).map_err(|_| bad())?;
        if !secure {
            return exchange(TokioIo::new(stream), head, shown(&request.url)).await;
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(|_| bad())?;
        let stream = tokio_rustls::TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await
            .map_err(|source| HttpError::Tls { host, source })?;
        exchange(TokioIo::new(stream), head, shown(&request.url)).await
    }

    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, HttpError> {
        let addresses = self
            .resolver
            .resolve(host)
            .await
            .map_err(|source| HttpError::Resolve { host: host.to_owned(), source })?;
        let to: Vec<SocketAddr> = addresses.iter().map(|a| SocketAddr::new(*a, port)).collect();
        let dialled = self.ways.dial(&to).await;
        match dialled.ok_or_else(|| HttpError::Url { url: host.to_owned() })? {
            Ok(stream) => {
                // Only speed is lost where the kernel will not have it.
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Err((to, source)) => Err(HttpError::Connect { to: to.to_string(), source }),
        }
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
    /// The same, which may be silent for so long: a stream that speaks only when there is news.
    #[must_use]
    pub fn patient(self, silence: Duration) -> Download {
        Download { silence, ..self }
    }

    /// The next piece. `None`: that was all.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let url = || self.url.clone();
            let limit = self.silence;
            let slow = |_| HttpError::Slow { url: url(), what: "go on", limit };
            match timeout(limit, self.body.frame()).await.map_err(slow)? {
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
    let mut bundle = Vec::new();
    File::open(path)?.take(BUNDLE_MAX + 1).read_to_end(&mut bundle)?;
    if bundle.len() as u64 > BUNDLE_MAX {
        Err(io::ErrorKind::FileTooLarge.into())
    } else {
        Ok(bundle)
    }
}

async fn exchange<S>(
    stream: TokioIo<S>,
    request: hyper::Request<Full<Bytes>>,
    url: String,
) -> Result<Download, HttpError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let broke = |source| HttpError::Exchange { url: url.clone(), source };
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
    Ok(Download {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
        url,
        silence: SILENCE,
    })
}

/// Whom an address makes us speak to.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    /// With TLS.
    secure: bool,
    /// In lower case; IPv6 in brackets.
    host: String,
    port: u16,
}

impl Server {
    /// `None` if this is no address for us.
    fn of(uri: &Uri) -> Option<Server> {
        let (secure, usual) = match uri.scheme_str()? {
            "https" => (true, 443),
            "http" => (false, 80),
            _ => return None,
        };
        let host = uri.host()?.to_ascii_lowercase();
        Some(Server { secure, host, port: uri.port_u16().unwrap_or(usual) })
    }
}

/// Whether a redirect stays with the server that said it. One from TLS to none is refused: whoever
/// listens on the way must not learn what was asked, nor choose the answer.
fn same_server(from: &str, to: &str) -> Result<bool, HttpError> {
    let server = |url: &str| url.parse().ok().and_then(|uri| Server::of(&uri));
    let bad = || HttpError::Url { url: shown(to) };
    let (said, meant) = (server(from).ok_or_else(bad)?, server(to).ok_or_else(bad)?);
    if said.secure && !meant.secure {
        return Err(HttpError::Downgrade { from: shown(from), to: shown(to) });
    }
    Ok(said == meant)
}

/// A redirect's target, seen from where it was said (RFC 3986, 5.2, without dot segments).
fn join(from: &str, to: &str) -> String {
    let path_start = to.find(['/', '?', '#']).unwrap_or(to.len());
    if to[..path_start].contains(':') {
        return to.to_owned(); // it names a scheme
    }
    let from = &from[..from.find(['?', '#']).unwrap_or(from.len())];
    let after_scheme = from.find("://").map_or(0, |at| at + 3);
    let host_end = from[after_scheme..].find('/').map_or(from.len(), |at| after_scheme + at);
    if to.starts_with("//") {
        return format!("{}{to}", &from[..after_scheme.saturating_sub(2)]);
    }
    if to.starts_with('/') {
        return format!("{}{to}", &from[..host_end]);
    }
    if to.starts_with('?') {
        return format!("{from}{to}");
    }
    let folder = from.rfind('/').filter(|at| *at >= host_end).unwrap_or(host_end);
    format!("{}/{to}", &from[..folder])
}

/// What of an address may stand in an error: scheme, host and path. Name and password in front of
/// the host and the query behind the path may be secret.
pub(crate) fn shown(url: &str) -> String {
    let bare = &url[..url.find(['?', '#']).unwrap_or(url.len())];
    let Some((scheme, rest)) = bare.split_once("://") else { return bare.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
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
    async fn so_long_as_the_ways_allow_an_answer_is_waited_for() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        let ways = Ways::default();
        let client = client().with_ways(ways.clone());
        let most = Duration::from_millis(50);
        ways.hurry(Duration::ZERO, most);
        let slow = client.send(Request::get(url, 9)).await.unwrap_err();
        assert!(matches!(slow, HttpError::Slow { limit, .. } if limit == most), "{slow}");
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
        assert!(matches!(refused, HttpError::Connect { .. }), "{refused}");
    }

    /// A server on loopback that answers one question and tells what it was.
    async fn asked(answer: String) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let question = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 2048];
            let got = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..got]).into_owned()
        });
        (at, question)
    }

    #[tokio::test]
    async fn another_server_of_the_same_host_does_not_learn_our_token() {
        let (second, there) =
            asked("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
        let moved = format!(
            "HTTP/1.1 307 Moved\r\nlocation: http://{second}/x\r\ncontent-length: 0\r\n\r\n"
        );
        let (first, here) = asked(moved).await;
        let request = Request::get(format!("http://{first}/"), 9)
            .header("authorization", "Bearer secret")
            .header("accept", "text/plain");
        assert_eq!(client().send(request).await.unwrap().status, 200);
        assert!(here.await.unwrap().contains("Bearer secret"));
        let there = there.await.unwrap();
        assert!(there.contains("accept: text/plain") && !there.contains("secret"), "{there}");
    }

    #[test]
    fn a_server_is_its_scheme_host_and_port() {
        for (from, to, same) in [
            ("https://r.example/v2", "https://R.example:443/x", Some(true)),
            ("http://r.example:80/v2", "http://r.example/x", Some(true)),
            ("https://r.example/v2", "https://r.example:8443/x", Some(false)),
            ("https://r.example/v2", "https://s.example/x", Some(false)),
            ("http://r.example/v2", "https://r.example/x", Some(false)),
            ("https://r.example/v2", "http://r.example/x", None),
            ("https://r.example/v2", "http://r.example:443/x", None),
            ("https://r.example/v2", "ftp://r.example/x", None),
        ] {
            assert_eq!(same_server(from, to).ok(), same, "{from} {to}");
        }
    }

    #[test]
    fn no_error_shows_what_opens_a_door() {
        for (url, want) in [
            ("https://r.example:1/a/b?X-Signature=s3cret", "https://r.example:1/a/b"),
            ("https://user:s3cret@r.example/a#s3cret", "https://r.example/a"),
            ("https://r.example?next=https://x/@s3cret", "https://r.example"),
            ("not an address?s3cret", "not an address"),
        ] {
            assert_eq!(shown(url), want);
        }
        let from = "https://user:s3cret@r.example/a?s3cret";
        let refused = same_server(from, "http://r.example/b?s3cret").unwrap_err();
        assert!(!format!("{refused} {refused:?}").contains("s3cret"), "{refused:?}");
    }

    #[tokio::test]
    async fn a_header_that_cannot_be_sent_is_named_without_its_value() {
        let url = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let request = Request::get(url, 9).header("authorization", "Bearer s3cret\r\nx: y");
        let refused = client().send(request).await.unwrap_err();
        assert!(matches!(refused, HttpError::Header { name: "authorization" }), "{refused}");
        assert!(!format!("{refused:?}").contains("s3cret"));
    }

    #[test]
    fn redirects_are_seen_from_where_they_were_said() {
        for (to, want) in [
            ("https://b.example/x", "https://b.example/x"),
            ("/x", "http://a.example:1/x"),
            ("x?y", "http://a.example:1/v2/x?y"),
            ("/x?to=http://c.example", "http://a.example:1/x?to=http://c.example"),
            ("//c.example/x", "http://c.example/x"),
            ("?y", "http://a.example:1/v2/blob?y"),
        ] {
            assert_eq!(join("http://a.example:1/v2/blob?q=/a/b", to), want);
        }
        assert_eq!(join("http://a.example", "x"), "http://a.example/x");
    }
}
