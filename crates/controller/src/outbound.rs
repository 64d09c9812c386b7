//! Other people's servers, asked by HTTP: identity providers, webhooks, SCEP servers.
//!
//! One connection a question; it is bounded in time, its answer in size.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::trust;

/// The certificates that Debian trusts.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why a server was not asked, or did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboundError {
    /// The certificates to trust are of no use.
    #[error("the certificates to trust cannot be used: {0}")]
    Trust(String),
    /// No connection, no trust in who answers, or no HTTP.
    #[error("it cannot be reached")]
    Reach(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No whole answer in time.
    #[error("it does not answer within {} seconds", .0.as_secs())]
    Slow(Duration),
}

impl OutboundError {
    /// Whether the other end answered, and its certificate is not believed.
    pub(crate) fn distrusts(&self) -> bool {
        let OutboundError::Reach(source) = self else { return false };
        let inner = source.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = inner.and_then(|e| e.downcast_ref::<rustls::Error>());
        matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
    }
}

/// An address, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Whether it is https.
    pub(crate) tls: bool,
    host: String,
    port: u16,
    /// Host and port as they were written: the header `Host`.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
}

impl Address {
    /// Of an http or https URL without a user; `None`: it is none.
    pub(crate) fn parse(url: &str) -> Option<Address> {
        let uri: Uri = url.parse().ok()?;
        let (tls, usual) = match uri.scheme_str()? {
            "https" => (true, 443),
            "http" => (false, 80),
            _ => return None,
        };
        let authority = uri.authority().filter(|a| !a.as_str().contains('@'))?;
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host)?.strip_prefix(':') {
            None => usual,
            Some(port) => port.parse().ok()?,
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        Some(Address {
            tls,
            host: (!host.is_empty()).then_some(host)?,
            port,
            authority: authority.as_str().to_owned(),
            path: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
        })
    }

    /// Whether nobody can listen in: TLS, or this machine itself.
    pub(crate) fn is_private(&self) -> bool {
        self.tls || ["localhost", "127.0.0.1", "::1"].contains(&self.host.as_str())
    }
}

/// The certificates of a PEM text; an error if there is none.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, OutboundError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all.map_err(|e| OutboundError::Trust(e.to_string()))? {
        none if none.is_empty() => Err(OutboundError::Trust("there is none in it".to_owned())),
        all => Ok(all),
    }
}

/// Whom to believe: the certificates of `own` (PEM), and those of the system if `system`.
///
/// A certificate of `own` may also be the server's very own.
pub(crate) fn trusting(own: &[u8], system: bool) -> Result<Arc<ClientConfig>, OutboundError> {
    let own = if own.is_empty() { Vec::new() } else { certificates(own)? };
    let mut roots = if system { system_roots() } else { RootCertStore::empty() };
    // Bundles of systems hold some that nobody can use.
    roots.add_parsable_certificates(own.iter().cloned());
    trust::led(roots, own).map_err(|e| OutboundError::Trust(e.to_string()))
}

/// The system's certificates, read again when their file changes.
pub(crate) fn system_roots() -> RootCertStore {
    static READ: Mutex<Option<(SystemTime, RootCertStore)>> = Mutex::new(None);
    let Ok(changed) = std::fs::metadata(SYSTEM_ROOTS).and_then(|m| m.modified()) else {
        return RootCertStore::empty();
    };
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, roots)) = read.as_ref().filter(|(when, _)| *when == changed) {
        return roots.clone();
    }
    let mut roots = RootCertStore::empty();
    if let Ok(system) = CertificateDer::pem_file_iter(SYSTEM_ROOTS) {
        roots.add_parsable_certificates(system.flatten());
    }
    *read = Some((changed, roots.clone()));
    roots
}

/// Asks once: `tls` is used if the address is https; the answer's body has `most` bytes at most, and
/// is not read at all if that is 0.
pub(crate) async fn ask(
    address: &Address,
    tls: Arc<ClientConfig>,
    request: Request<Full<Bytes>>,
    patience: Duration,
    most: usize,
) -> Result<Response<Bytes>, OutboundError> {
    let asked = tokio::time::timeout(patience, once(address, tls, request, most)).await;
    asked.map_err(|_| OutboundError::Slow(patience))?.map_err(OutboundError::Reach)
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

async fn once(
    address: &Address,
    tls: Arc<ClientConfig>,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<Response<Bytes>, Fault> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    if !address.tls {
        return over(stream, request, most).await;
    }
    let name = ServerName::try_from(address.host.clone())?;
    over(TlsConnector::from(tls).connect(name, stream).await?, request, most).await
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<Response<Bytes>, Fault> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with this question, also when nobody waits for the answer any more.
    let mut connections = tokio::task::JoinSet::new();
    connections.spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    if most == 0 {
        return Ok(Response::from_parts(head, Bytes::new()));
    }
    let body = Limited::new(body, most).collect().await?.to_bytes();
    Ok(Response::from_parts(head, body))
}

#[cfg(test)]
mod tests {
    use rustls::ServerConfig;
    use rustls_pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let address = Address::parse("https://ca.example/scep?x=1").unwrap();
        assert_eq!((address.tls, address.port), (true, 443));
        assert_eq!((address.host.as_str(), address.path.as_str()), ("ca.example", "/scep?x=1"));
        let here = Address::parse("http://[::1]:8080").unwrap();
        assert_eq!((here.host.as_str(), here.port, here.path.as_str()), ("::1", 8080, "/"));
        assert!(here.is_private() && !Address::parse("http://id.example").unwrap().is_private());
        let none = ["ftp://ca.example/", "https://a@b/", "ca.example", "", "x y", "https://"];
        for wrong in none.into_iter().chain(["https://a:99999/", "https://:443/"]) {
            assert_eq!(Address::parse(wrong), None, "{wrong}");
        }
    }

    fn params(ca: bool, names: &[&str]) -> rcgen::CertificateParams {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        if ca {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        params
    }

    /// A server with a certificate of its own that says `ca`; its address and the certificate.
    async fn server(ca: bool, names: &[&str]) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params(ca, names).self_signed(&key).unwrap();
        serving(certificate, &key).await
    }

    async fn serving(certificate: rcgen::Certificate, key: &rcgen::KeyPair) -> (String, String) {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/x", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(stream).await else { continue };
                let mut seen = Vec::new();
                while !seen.ends_with(b"\r\n\r\n") {
                    seen.push(tls.read_u8().await.unwrap());
                }
                tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
            }
        });
        (url, certificate.pem())
    }

    async fn asked(url: &str, trust: &[u8], most: usize) -> Result<Bytes, String> {
        let address = Address::parse(url).unwrap();
        let request = Request::get(&address.path).body(Full::default()).unwrap();
        let tls = trusting(trust, true).unwrap();
        let answer = ask(&address, tls, request, Duration::from_secs(10), most).await;
        answer.map(Response::into_body).map_err(|e| model::chain(&e))
    }

    #[tokio::test]
    async fn a_server_may_show_the_very_certificate_that_was_named() {
        for ca in [true, false] {
            let (url, pem) = server(ca, &["localhost"]).await;
            assert_eq!(asked(&url, pem.as_bytes(), 5).await.unwrap(), "hello", "ca: {ca}");
            asked(&url, b"", 5).await.expect_err("nobody named it");
            let (_, other) = server(ca, &["localhost"]).await;
            asked(&url, other.as_bytes(), 5).await.expect_err("another was named");
            asked(&url, pem.as_bytes(), 4).await.expect_err("it says too much");
            assert_eq!(asked(&url, pem.as_bytes(), 0).await.unwrap(), "", "nobody reads it");
        }
        // Issued by somebody who is not known; and one that has ended.
        let [own, issuers] = [(); 2].map(|()| rcgen::KeyPair::generate().unwrap());
        let issuer = rcgen::Issuer::new(params(true, &["ca.example"]), issuers);
        let issued = params(false, &["localhost"]).signed_by(&own, &issuer).unwrap();
        let (url, pem) = serving(issued, &own).await;
        assert_eq!(asked(&url, pem.as_bytes(), 5).await.unwrap(), "hello");
        let mut ended = params(true, &["localhost"]);
        ended.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let (url, pem) = serving(ended.self_signed(&own).unwrap(), &own).await;
        let said = asked(&url, pem.as_bytes(), 5).await.expect_err("it has ended");
        assert!(said.contains("expired"), "{said}");
        let (url, pem) = server(true, &["elsewhere.example"]).await;
        let said = asked(&url, pem.as_bytes(), 5).await.expect_err("it is somebody else's");
        assert!(said.contains("not valid for name"), "{said}");
    }

    #[tokio::test]
    async fn who_is_not_believed_is_told_from_who_is_not_there() {
        let (url, _) = server(true, &["localhost"]).await;
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        for (url, distrusts) in
            [(url, true), (format!("https://localhost:{}/", free.port()), false)]
        {
            let address = Address::parse(&url).unwrap();
            let request = Request::get("/").body(Full::default()).unwrap();
            let tls = trusting(b"", true).unwrap();
            let refused =
                ask(&address, tls, request, Duration::from_secs(10), 9).await.unwrap_err();
            assert_eq!(refused.distrusts(), distrusts, "{refused:?}");
        }
    }

    #[tokio::test]
    async fn who_says_nothing_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port());
        let address = Address::parse(&url).unwrap();
        let request = Request::get("/").body(Full::default()).unwrap();
        let tls = trusting(b"", true).unwrap();
        let patience = Duration::from_millis(50);
        let said = ask(&address, tls, request, patience, 9).await;
        assert!(matches!(said, Err(OutboundError::Slow(_))), "{said:?}");
    }
}
