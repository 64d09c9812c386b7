//! The one way to the controller: sign, post, verify.
//!
//! Used by `onboard`, `config` and `log`. It knows where things stand on the disk and what the
//! envelope wants; what to ask when is decided elsewhere.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use api::certs::{CertsError, ControllerCerts};
use api::envelope::{OpenError, Refusal};
use api::{Certificate, CertificateError, KeyError, Sender, Signer, SigningKey, envelope};
use host::http::{Client, HttpError, Request, Resolver, Response, Trust, Ways};
use host::topics::Table;
use model::desired::Properties;
use model::reported::CallCounts;
use model::topic::Ports;
use model::{Bytes, DeviceId, Diagnose, Diagnosis, UnixMillis, Who};
use tokio::time::Instant;

use crate::service::Paths;

/// A file of the CONFIG partition or a key is read up to here.
const SMALL_MAX: Bytes = Bytes::kib(64);
/// A checkpoint is an envelope as received.
const CHECKPOINT_MAX: Bytes = Bytes(api::limits::CONFIG.0 + (64 << 10));

/// Names in `/persist/certs`.
pub(crate) const DEVICE_KEY: &str = "device.key.pem";
/// Its certificate.
pub(crate) const DEVICE_CERTIFICATE: &str = "device.cert.pem";

/// The way to the controller, as this node.
#[derive(Debug)]
pub(crate) struct Link {
    client: Client,
    ways: Ways,
    /// Scheme and host; a console's may have a path.
    base: String,
    /// Host and optional port.
    pub(crate) server: String,
    root_pem: Vec<u8>,
    key: Arc<SigningKey>,
    /// Who this node is to the controller.
    pub(crate) certificate: Certificate,
    /// By port: those of a console too.
    counted: Arc<Mutex<BTreeMap<String, CallCounts>>>,
}

/// The onboarding identity; many nodes may share one.
#[derive(Debug)]
pub(crate) struct Onboarder {
    key: SigningKey,
    certificate: Certificate,
}

/// Why a call did not work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("cannot read {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is no usable key")]
    Key { path: PathBuf, source: KeyError },
    #[error("{path} is no usable certificate")]
    Certificate { path: PathBuf, source: CertificateError },
    #[error("{path} names no controller")]
    NoServer { path: PathBuf },
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the controller answers {call} with {reason}")]
    Status { call: &'static str, status: u16, reason: String },
    #[error("cannot sign")]
    Sign(#[from] KeyError),
    #[error("the answer to {call} is not of the controller's making")]
    Open { call: &'static str, source: OpenError },
    #[error("the answer to {call} is not believed")]
    Refused { call: &'static str, source: Refusal },
    #[error("the controller's certificates are not believed")]
    Certs(#[from] CertsError),
    #[error("the answer to {call} makes no sense")]
    Answer { call: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
}

impl CallError {
    /// The certificates that we know are not those the controller has now, or time says so.
    pub(crate) fn wants_certificates(&self) -> bool {
        match self {
            CallError::Refused { source, .. } => matches!(source, Refusal::UnknownSigner { .. }),
            CallError::Http(e) => e.is_certificate_time(),
            _ => false,
        }
    }

    /// Somebody was reached, though what they said is no good; a machine that refuses to talk counts.
    pub(crate) fn is_answer(&self) -> bool {
        match self {
            CallError::Status { .. }
            | CallError::Open { .. }
            | CallError::Refused { .. }
            | CallError::Certs(_)
            | CallError::Answer { .. } => true,
            CallError::Http(e) => e.is_refused(),
            _ => false,
        }
    }

    /// An answer came, and it is not the controller's.
    pub(crate) fn is_unverified(&self) -> bool {
        matches!(self, CallError::Open { .. } | CallError::Refused { .. })
    }

    /// The answer's status, if there was an answer.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            CallError::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

impl Diagnose for CallError {
    fn diagnose(&self) -> Diagnosis {
        use Who::{Developer, Hardware, Nobody, Operator};
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Diagnosis::of(Operator, "put the file onto the node's CONFIG partition")
            }
            Self::File { .. } | Self::Key { .. } => {
                Diagnosis::of(Hardware, "check the node's disk")
            }
            Self::Certificate { source, .. } => source.diagnose(),
            Self::NoServer { .. } => Diagnosis::of(Operator, "write the controller's host there"),
            Self::Http(e) => e.diagnose(),
            Self::Status { status: 401 | 403 | 404 | 409, .. } => {
                Diagnosis::of(Operator, "check what the controller knows of this node")
            }
            Self::Status { status: 500.., .. } => {
                Diagnosis::of(Operator, "look at the controller: it has trouble of its own")
            }
            Self::Status { .. } => {
                Diagnosis::of(Developer, "find out why the controller does not understand us")
            }
            Self::Sign(_) => Diagnosis::of(Nobody, "it is tried again"),
            Self::Open { .. } => Diagnosis::of(Operator, "check that this is the controller"),
            Self::Refused { source, .. } => source.diagnose(),
            Self::Certs(e) => e.diagnose(),
            Self::Answer { .. } => Diagnosis::of(Developer, "find out what the controller sent"),
        }
    }
}

impl Link {
    /// Reads who the controller is and who we are.
    pub(crate) fn open(paths: &Paths) -> Result<Link, CallError> {
        let dir = paths.persist.join("certs");
        let key = read_key(&dir.join(DEVICE_KEY))?;
        let certificate = read_certificate(&dir.join(DEVICE_CERTIFICATE))?;
        Link::new(paths, key, certificate)
    }

    /// The same with an identity at hand.
    pub(crate) fn new(
        paths: &Paths,
        key: SigningKey,
        certificate: Certificate,
    ) -> Result<Link, CallError> {
        let server = server(paths)?;
        let root_pem = read(&paths.config.join("root-certificate.pem"), SMALL_MAX)?;
        let pem = vec![String::from_utf8_lossy(&root_pem).into_owned()];
        let ways = Ways::default();
        let client = Client::new(&Trust { system: true, pem }, Resolver::default())?;
        let client = client.with_ways(ways.clone());
        let (base, key) = (format!("https://{server}"), Arc::new(key));
        let counted = Arc::default();
        Ok(Link { client, ways, base, server, root_pem, key, certificate, counted })
    }

    /// The same way to a console that stands in for the controller (`loc_config.loc_url`); without a
    /// scheme it is https.
    pub(crate) fn console(&self, url: &str) -> Link {
        let url = url.trim().trim_end_matches('/');
        Link {
            client: self.client.clone(),
            ways: self.ways.clone(),
            base: if url.contains("://") { url.to_owned() } else { format!("https://{url}") },
            server: self.server.clone(),
            root_pem: self.root_pem.clone(),
            key: self.key.clone(),
            certificate: self.certificate.clone(),
            counted: self.counted.clone(),
        }
    }

    /// Calls so far, by port.
    pub(crate) fn counted(&self) -> BTreeMap<String, CallCounts> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An answer was not the controller's.
    pub(crate) fn count_unverified(&self) {
        self.count(|counts| counts.unverified = counts.unverified.saturating_add(1));
    }

    fn count(&self, count: impl FnOnce(&mut CallCounts)) {
        let mut all = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        count(all.entry(self.ways.in_use().unwrap_or_default()).or_default());
    }

    async fn send(&self, request: Request) -> Result<Response, HttpError> {
        let (url, size) = (request.url.clone(), request.body.len());
        let begun = Instant::now();
        let answer = self.client.send(request).await;
        let (now, spent) = (host::clock::now(), begun.elapsed());
        let got = answer.as_ref().ok().map(|a| (a.status, a.body.len()));
        self.count(|counts| counts.note(&url, size, got, spent, now));
        answer
    }

    /// Through which ports the controller may be reached; the next call goes by that.
    pub(crate) fn go_through(&self, ports: &Table<Ports>) {
        self.ways.set(device::network::ways(ports));
    }

    /// How long it is waited for answers (`timer.dial.timeout`, `timer.send.timeout`).
    pub(crate) fn obey(&self, settings: &Properties) {
        self.ways.hurry(settings.dial_timeout, settings.send_timeout);
    }

    /// Asks for the controller's certificates and checks them. Returns the answer as received too.
    pub(crate) async fn certs(
        &self,
        now: UnixMillis,
    ) -> Result<(ControllerCerts, Vec<u8>), CallError> {
        let request = self.request("certs", Request::get("", limit(api::limits::CERTS)));
        let answer = well("certs", self.send(request).await?)?;
        let certs = self.check_certs(&answer.body, now)?;
        Ok((certs, answer.body.to_vec()))
    }

    /// Checks an answer to `certs`, as received, as of a time.
    pub(crate) fn check_certs(
        &self,
        body: &[u8],
        at: UnixMillis,
    ) -> Result<ControllerCerts, CallError> {
        Ok(api::certs::learn(body, &self.root_pem, at)?)
    }

    /// Registers this node with the onboarding identity.
    pub(crate) async fn register(
        &self,
        onboarder: &Onboarder,
        serial: &str,
        soft_serial: &str,
    ) -> Result<(), CallError> {
        let registration = api::onboarding::Registration {
            certificate: self.certificate.clone(),
            serial: serial.to_owned(),
            soft_serial: soft_serial.to_owned(),
        };
        let sender = Sender::onboarding(&onboarder.key, &onboarder.certificate);
        let body = envelope::sign(&registration.to_payload(), &sender)?;
        let request = self.body("register", body, limit(api::limits::ONBOARDING));
        let request = numbered(request, serial, soft_serial);
        well("register", self.send(request).await?).map(drop)
    }

    /// Asks who we are.
    pub(crate) async fn uuid(
        &self,
        signer: &Signer,
        serial: &str,
        soft_serial: &str,
    ) -> Result<DeviceId, CallError> {
        let body = envelope::sign(&[], &Sender::device(&self.key, &self.certificate))?;
        let request = self.body("uuid", body, limit(api::limits::ONBOARDING));
        let request = numbered(request, serial, soft_serial);
        let answer = well("uuid", self.send(request).await?)?;
        let payload = verify("uuid", &answer.body, signer, api::limits::ONBOARDING)?;
        let named = api::onboarding::Named::from_payload(&payload)
            .map_err(|e| CallError::Answer { call: "uuid", source: Box::new(e) })?;
        Ok(named.id)
    }

    /// Signs and posts a payload to `id/<our id>/<path>`. Every answer but a broken one comes back,
    /// whatever its status.
    pub(crate) async fn post(
        &self,
        id: DeviceId,
        path: &str,
        payload: &[u8],
        answer_limit: Bytes,
    ) -> Result<Response, CallError> {
        let body = envelope::sign(payload, &Sender::device(&self.key, &self.certificate))?;
        let request = self.body(&format!("id/{id}/{path}"), body, limit(answer_limit));
        Ok(self.send(request).await?)
    }

    fn body(&self, path: &str, body: Vec<u8>, limit: usize) -> Request {
        let post = Request {
            method: host::http::Method::POST,
            url: String::new(),
            headers: vec![("content-type", "application/x-proto-binary".to_owned())],
            body: body.into(),
            limit,
        };
        self.request(path, post)
    }

    fn request(&self, path: &str, request: Request) -> Request {
        let url = format!("{}/api/v2/edgedevice/{path}", self.base);
        Request { url, ..request }.header("x-request-id", uuid::Uuid::new_v4().to_string())
    }
}

impl Onboarder {
    /// `None`: there is no onboarding certificate, the controller knows the node already.
    pub(crate) fn open(paths: &Paths) -> Result<Option<Onboarder>, CallError> {
        let (key, certificate) =
            (paths.config.join("onboard.key.pem"), paths.config.join("onboard.cert.pem"));
        if !certificate.exists() {
            return Ok(None);
        }
        let (key, certificate) = (read_key(&key)?, read_certificate(&certificate)?);
        Ok(Some(Onboarder { key, certificate }))
    }
}

/// An answer of a status that means success; other statuses become errors.
pub(crate) fn well(call: &'static str, answer: Response) -> Result<Response, CallError> {
    match answer.status {
        200 | 201 | 204 | 304 => Ok(answer),
        status => Err(CallError::Status { call, status, reason: answer.reason() }),
    }
}

/// The payload of an envelope that the controller signed.
pub(crate) fn verify(
    call: &'static str,
    body: &[u8],
    signer: &Signer,
    limit: Bytes,
) -> Result<Vec<u8>, CallError> {
    let opened = envelope::open(body, limit).map_err(|source| CallError::Open { call, source })?;
    let payload = opened.verify(signer).map_err(|source| CallError::Refused { call, source })?;
    Ok(payload.to_vec())
}

/// The controller's host and optional port (`/config/server`).
pub(crate) fn server(paths: &Paths) -> Result<String, CallError> {
    let path = paths.config.join("server");
    let text = String::from_utf8_lossy(&read(&path, SMALL_MAX)?).trim().to_owned();
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    if text.is_empty() || !text.chars().all(plain) {
        return Err(CallError::NoServer { path });
    }
    Ok(text)
}

/// Reads a key.
pub(crate) fn read_key(path: &Path) -> Result<SigningKey, CallError> {
    let pem = read(path, SMALL_MAX)?;
    SigningKey::from_pem(&pem).map_err(|source| CallError::Key { path: path.to_owned(), source })
}

/// Reads a certificate.
pub(crate) fn read_certificate(path: &Path) -> Result<Certificate, CallError> {
    let pem = read(path, SMALL_MAX)?;
    Certificate::from_pem(&pem)
        .map_err(|source| CallError::Certificate { path: path.to_owned(), source })
}

/// Reads a checkpoint and when it was written: what it holds was judged at that time.
pub(crate) fn read_checkpoint(path: &Path) -> Result<(Vec<u8>, UnixMillis), CallError> {
    let file = |source| CallError::File { path: path.to_owned(), source };
    let written = std::fs::metadata(path).and_then(|m| m.modified()).map_err(file)?;
    let since = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let body = read(path, CHECKPOINT_MAX)?;
    Ok((body, UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))))
}

fn read(path: &Path, limit: Bytes) -> Result<Vec<u8>, CallError> {
    let file = |source| CallError::File { path: path.to_owned(), source };
    store::read_bounded(path, limit).map_err(file)
}

/// While our id is unknown, the serial numbers stand in for it (EVE API, headers).
fn numbered(request: Request, serial: &str, soft_serial: &str) -> Request {
    let plain = |text: &str| text.chars().filter(|c| c.is_ascii_graphic()).collect::<String>();
    request.header("x-serial-number", plain(serial)).header("x-soft-serial", plain(soft_serial))
}

fn limit(bytes: Bytes) -> usize {
    // An envelope adds a few hundred bytes to its payload.
    usize::try_from(bytes.0).unwrap_or(usize::MAX).saturating_add(16 << 10)
}
