//! A proxy between devices and a controller that answers, refuses or drops chosen requests, and
//! remembers all of them. Without a controller behind it, it is a scripted one.
//!
//! It ends TLS with a certificate of its own: devices must trust [`FaultProxy::root_pem`], too.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::http::{Answer, Call, Endpoint, read_body, read_head, write_answer};

/// A request that came by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What was asked; all its headers, names in lower case.
    pub call: Call,
    /// The status that was answered; `None` if the connection was dropped.
    pub status: Option<u16>,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It goes through.
    Pass,
    /// It is answered here and goes nowhere.
    Answer(Answer),
    /// The connection ends without an answer, and the controller never hears of it.
    Drop,
    /// The controller hears of it, but the connection ends without its answer.
    DropAnswer,
    /// The answer comes so much later.
    Slow(Duration),
}

impl Fault {
    /// Answered with a status and nothing else.
    pub fn status(status: u16) -> Fault {
        Fault::Answer(Answer { status, content_type: None, body: Vec::new() })
    }
}

type Rule = Box<dyn Fn(&Call) -> Fault + Send + Sync>;

struct Shared {
    upstream: Mutex<Option<Endpoint>>,
    rule: Mutex<Arc<Rule>>,
    seen: Mutex<Vec<Seen>>,
}

/// The proxy; it ends when it is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    root_pem: String,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

impl std::fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultProxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl FaultProxy {
    /// Starts on a free port of this machine and lets everything through to `upstream`. Without
    /// one, what no rule answers is dropped.
    pub async fn start(upstream: Option<Endpoint>) -> anyhow::Result<FaultProxy> {
        let (root_pem, chain, key) = certificate()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream),
            rule: Mutex::new(Arc::new(Box::new(|_: &Call| Fault::Pass))),
            seen: Mutex::default(),
        });
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let serving = tokio::spawn(serve(listener, acceptor, shared.clone()));
        Ok(FaultProxy { address, root_pem, shared, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The root of its certificate, for `root-certificate.pem` behind the controller's own.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// From now on this decides what becomes of a request.
    pub fn rule(&self, rule: impl Fn(&Call) -> Fault + Send + Sync + 'static) {
        *self.shared.rule.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(Box::new(rule));
    }

    /// Lets everything through again.
    pub fn pass(&self) {
        self.rule(|_| Fault::Pass);
    }

    /// The controller is elsewhere from now on.
    pub fn leads_to(&self, upstream: Endpoint) {
        *self.shared.upstream.lock().unwrap_or_else(PoisonError::into_inner) = Some(upstream);
    }

    /// Every request so far, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many requests so far had a path that ends like this.
    pub fn count(&self, ending: &str) -> usize {
        self.seen().iter().filter(|s| s.call.path.ends_with(ending)).count()
    }

    /// Forgets what it has seen.
    pub fn forget(&self) {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut open = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while open.try_join_next().is_some() {}
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        // What goes wrong on a connection is its device's to see.
        open.spawn(async move { connection(stream, &acceptor, &shared).await.ok() });
    }
}

/// One request a connection, which is what EVE sends.
async fn connection(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    shared: &Shared,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    let mut read = Vec::new();
    let head = read_head(&mut stream, &mut read).await?;
    let body = read_body(&mut stream, &mut read, &head, false).await?;
    let mut words = head.first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().to_owned();
    let call = Call { method, path, headers: head.headers, body };

    let rule = shared.rule.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let fault = rule(&call);
    let upstream = shared.upstream.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let through = async || match &upstream {
        Some(upstream) => upstream.once(&forwarded(&call)).await.ok(),
        None => None,
    };
    let answer = match fault {
        Fault::Pass => through().await,
        Fault::Answer(answer) => Some(answer),
        Fault::Drop => None,
        Fault::DropAnswer => {
            through().await;
            None
        }
        Fault::Slow(by) => {
            tokio::time::sleep(by).await;
            through().await
        }
    };
    let status = answer.as_ref().map(|a| a.status);
    shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { call, status });
    if let Some(answer) = answer {
        write_answer(&mut stream, &answer).await?;
    }
    Ok(())
}

/// What belongs to a connection stays with it.
fn forwarded(call: &Call) -> Call {
    let own = ["host", "connection", "content-length", "transfer-encoding"];
    let headers = call.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    Call { headers: headers.cloned().collect(), ..call.clone() }
}

/// A root of its own and a certificate for this machine's names.
fn certificate() -> anyhow::Result<(String, CertificateDer<'static>, PrivateKeyDer<'static>)> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "fault proxy");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate()?;
    let root_pem = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);

    let names = ["localhost", "127.0.0.1", "10.0.2.2"].map(str::to_owned).to_vec();
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::try_from(key.serialize_der());
    let key = key.map_err(anyhow::Error::msg).context("the key of the fault proxy")?;
    Ok((root_pem, leaf.der().clone(), key))
}
