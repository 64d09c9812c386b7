//! A controller that says what the test wants, with the keys of the golden vectors.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use api::pb::config::{ConfigItem, ConfigResponse, EdgeDevConfig, UuiDandVersion};
use api::{Sender, SigningKey, envelope};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use model::DeviceId;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;

use super::Node;

/// Its controller's keys: the first, and the one it changes to.
pub(crate) const SIGNING: &str = "controller-signing";
pub(crate) const NEXT: &str = "controller-signing-next";

/// The folder of golden vectors beside the checkout, or `$EVE_API_VECTORS`. Who has only the
/// repository has none: a test that needs it then says so and ends.
pub(crate) fn golden() -> Option<PathBuf> {
    const DEFAULT: &str = "../shared/vectors/eve-api";
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = std::env::var_os("EVE_API_VECTORS");
    let folder = root.join(named.as_ref().map_or_else(|| DEFAULT.into(), PathBuf::from));
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(named.is_none(), "$EVE_API_VECTORS names {}, where is no folder", folder.display());
    println!("skipped: no {DEFAULT} beside the checkout, and $EVE_API_VECTORS is not set");
    None
}

/// A file among the golden vectors.
pub(crate) fn vector(name: &str) -> Vec<u8> {
    let path = golden().expect("the test asks `golden` first").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

/// Who the vectors' node is.
pub(crate) fn own() -> String {
    told("minimal-device").id.unwrap().uuid
}

/// A request, as far as tests look at it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// After `/api/v2/edgedevice/`, our id replaced by `{id}`.
    pub(crate) path: String,
    /// What the envelope holds.
    pub(crate) payload: Vec<u8>,
    pub(crate) at: tokio::time::Instant,
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Without a body.
    Status(u16),
    /// 200 with a payload, signed by the vectors' key of this name.
    Signed(Vec<u8>, &'static str),
    /// 200 with this body.
    Body(Vec<u8>),
}

type Rule = Box<dyn FnMut(&Asked) -> Option<Answer> + Send>;

pub(crate) struct Scripted {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    rule: Arc<Mutex<Rule>>,
}

impl Scripted {
    /// Answers by `rule`; where it says nothing, as a controller does to which all is well: it knows
    /// every node as [`own`], and has no config.
    pub(crate) async fn start(
        rule: impl FnMut(&Asked) -> Option<Answer> + Send + 'static,
    ) -> Scripted {
        let certs = CertificateDer::pem_slice_iter(&vector("pki/tls-server.cert.pem"))
            .collect::<Result<Vec<_>, _>>()
            .unwrap();
        let key = PrivateKeyDer::from_pem_slice(&vector("pki/tls-server.key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certs, key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(rule)));
        let (log, by) = (asked.clone(), rule.clone());
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, log, by) = (acceptor.clone(), log.clone(), by.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let serve = service_fn(|request| answer(request, log.clone(), by.clone()));
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(tls), serve).await;
                });
            }
        });
        Scripted { port, asked, rule }
    }

    /// Answers by another rule from now on.
    pub(crate) fn rule(&self, rule: impl FnMut(&Asked) -> Option<Answer> + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// Where it listens, on localhost.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What was asked under this path, the oldest first.
    pub(crate) fn asked(&self, path: &str) -> Vec<Asked> {
        let all = self.asked.lock().unwrap();
        all.iter().filter(|a| a.path == path).cloned().collect()
    }

    /// A node that was made for this controller, and never booted.
    pub(crate) fn node(&self) -> Node {
        let node = Node::bare();
        self.adopt(&node);
        node.has_a_port();
        node
    }

    /// Puts the files of this controller onto the CONFIG partition.
    pub(crate) fn adopt(&self, node: &Node) {
        for (name, bytes) in [
            ("server", format!("localhost:{}", self.port).into_bytes()),
            ("root-certificate.pem", vector("pki/root-certificate.pem")),
            ("onboard.cert.pem", vector("pki/onboard.cert.pem")),
            ("onboard.key.pem", vector("pki/onboard.key.pem")),
            ("soft_serial", b"soft-1".to_vec()),
        ] {
            store::save(&node.path("config"), name, &bytes).unwrap();
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    log: Arc<Mutex<Vec<Asked>>>,
    rule: Arc<Mutex<Rule>>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let path = request.uri().path().trim_start_matches("/api/v2/edgedevice/").to_owned();
    let path = match path.strip_prefix("id/").and_then(|rest| rest.split_once('/')) {
        Some((_, rest)) => format!("{{id}}/{rest}"),
        None => path,
    };
    let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let opened = envelope::open(&body, model::Bytes::mib(20));
    let payload = opened.map(|e| e.unverified_payload().to_vec()).unwrap_or_default();
    let asked = Asked { path, payload, at: tokio::time::Instant::now() };
    log.lock().unwrap().push(asked.clone());
    let told = rule.lock().unwrap()(&asked);
    let answer = told.unwrap_or_else(|| usual(&asked));
    let (status, body) = match answer {
        Answer::Status(status) => (status, Vec::new()),
        Answer::Signed(payload, by) => (200, sign(&payload, by)),
        Answer::Body(body) => (200, body),
    };
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/x-proto-binary")
        .body(Full::new(Bytes::from(body)));
    Ok(response.unwrap())
}

fn usual(asked: &Asked) -> Answer {
    use api::convert::attest::{Answer as Attest, Request};
    let signed = |answer: Attest| Answer::Signed(answer.to_payload(), SIGNING);
    match asked.path.as_str() {
        "{id}/attest" => match Request::from_payload(&asked.payload) {
            Ok(Request::Nonce) => signed(Attest::Nonce(vec![7; 16])),
            Ok(Request::Quote(_)) => signed(Attest::Quote(Ok(b"token".to_vec().into()))),
            _ => Answer::Status(201),
        },
        "certs" => Answer::Body(vector("envelope/resp-certs.AuthContainer.pb")),
        "uuid" => uuid(&own(), SIGNING),
        "{id}/config" => Answer::Status(304),
        _ => Answer::Status(201),
    }
}

/// An envelope of the controller.
pub(crate) fn sign(payload: &[u8], by: &str) -> Vec<u8> {
    let key = SigningKey::from_pem(&vector(&format!("pki/{by}.key.pem"))).unwrap();
    // As ZCert.cert carries it: without its last line break.
    let zcert = vector(&format!("pki/{by}.cert.pem"));
    let zcert = zcert.strip_suffix(b"\n").unwrap_or(&zcert);
    envelope::sign(payload, &Sender::controller(&key, zcert)).unwrap()
}

/// The answer to `uuid`.
pub(crate) fn uuid(id: &str, by: &'static str) -> Answer {
    let id: DeviceId = id.parse().unwrap();
    let named = api::onboarding::Named { id, manufacturer: String::new(), product: String::new() };
    Answer::Signed(named.to_payload(), by)
}

/// The payload of an answer to `config`.
pub(crate) fn config(hash: &str, config: EdgeDevConfig) -> Vec<u8> {
    api::wire::encode(&ConfigResponse { config: Some(config), config_hash: hash.to_owned() })
}

/// A config of the vectors.
pub(crate) fn told(name: &str) -> EdgeDevConfig {
    let bytes = vector(&format!("config/{name}.EdgeDevConfig.pb"));
    api::wire::decode(&bytes, model::Bytes::mib(1)).unwrap()
}

/// A config with nothing in it but a time, and settings.
pub(crate) fn empty(seconds: i64, items: &[(&str, &str)]) -> EdgeDevConfig {
    let item = |(key, value): &(&str, &str)| ConfigItem {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    let mut config = EdgeDevConfig {
        id: Some(UuiDandVersion { uuid: own(), version: String::new() }),
        config_items: items.iter().map(item).collect(),
        ..EdgeDevConfig::default()
    };
    config.config_timestamp = told("minimal-device").config_timestamp;
    if let Some(stamp) = &mut config.config_timestamp {
        stamp.seconds = seconds;
    }
    config
}
