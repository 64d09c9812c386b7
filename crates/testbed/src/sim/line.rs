//! How a simulated device reaches its controller: what its CONFIG partition says, and the habits of
//! EVE's sender.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use api::certs::{self, ControllerCerts};
use api::{Certificate, SigningKey};
use model::UnixMillis;

use super::http::{Answer, Call, Connection, Endpoint, Session};

/// In front of every path.
pub const BASE: &str = "/api/v2/edgedevice";
const PROTO: &str = "application/x-proto-binary";

/// What a CONFIG partition says, and the controller's certificates once they were fetched. Devices
/// of one fleet share it.
#[derive(Debug)]
pub struct Conf {
    endpoint: RwLock<Endpoint>,
    root_pem: Vec<u8>,
    onboard: Option<(SigningKey, Certificate)>,
    certs: RwLock<Option<Arc<ControllerCerts>>>,
    fetched: AtomicU64,
}

impl Conf {
    /// Reads the files `server`, `root-certificate.pem` and, if they are there, `onboard.cert.pem`
    /// and `onboard.key.pem`. The controller is dialled at `address`.
    pub fn from_files(
        files: &BTreeMap<String, Vec<u8>>,
        address: SocketAddr,
        session: Session,
    ) -> anyhow::Result<Conf> {
        let file = |name: &str| files.get(name).map(Vec::as_slice);
        let server = String::from_utf8_lossy(file("server").context("there is no file server")?);
        let root = file("root-certificate.pem").context("there is no root-certificate.pem")?;
        let onboard = match (file("onboard.key.pem"), file("onboard.cert.pem")) {
            (Some(key), Some(cert)) => {
                Some((SigningKey::from_pem(key)?, Certificate::from_pem(cert)?))
            }
            _ => None,
        };
        Ok(Conf {
            endpoint: RwLock::new(Endpoint::new(server.trim(), address, root, session)?),
            root_pem: root.to_vec(),
            onboard,
            certs: RwLock::default(),
            fetched: AtomicU64::new(0),
        })
    }

    /// Without the onboarding certificate: devices that were registered by others.
    pub fn without_onboarding(self) -> Conf {
        Conf { onboard: None, ..self }
    }

    /// Where the controller is.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The controller is dialled elsewhere from now on.
    pub fn move_to(&self, address: SocketAddr) {
        let mut endpoint = self.endpoint.write().unwrap_or_else(PoisonError::into_inner);
        *endpoint = endpoint.at(address);
    }

    /// What devices register with.
    pub fn onboard(&self) -> Option<&(SigningKey, Certificate)> {
        self.onboard.as_ref()
    }

    /// The controller's certificates, as last fetched.
    pub fn certs(&self) -> Option<Arc<ControllerCerts>> {
        self.certs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often certificates were fetched and believed.
    pub fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Believes the body of `/certs` if it chains to the root.
    pub(super) fn learn(&self, body: &[u8], now: UnixMillis) -> anyhow::Result<()> {
        let learnt = certs::learn(body, &self.root_pem, now)?;
        *self.certs.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(learnt));
        self.fetched.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Whether connections are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A connection a request, `Connection: close`: EVE.
    Close,
    /// One connection as long as it lasts.
    Kept,
}

/// What an error status means to the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Any error but 403 makes it repeat the request through the next port.
    EveryPort,
    /// The first answer counts.
    FirstAnswer,
}

/// A device's way to its controller.
#[derive(Debug)]
pub struct Line {
    conf: Arc<Conf>,
    way: Way,
    ports: u8,
    kept: Option<Connection>,
    sent: u64,
}

impl Line {
    /// A way with one management port.
    pub fn new(conf: Arc<Conf>, way: Way) -> Line {
        Line { conf, way, ports: 1, kept: None, sent: 0 }
    }

    /// EVE with so many management ports: requests that fail are repeated through each.
    pub fn with_ports(self, ports: u8) -> Line {
        Line { ports: ports.max(1), ..self }
    }

    /// What the CONFIG partition says.
    pub fn conf(&self) -> &Arc<Conf> {
        &self.conf
    }

    /// How many requests went out, repetitions included.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Opens the kept connection if it is not open.
    pub async fn open(&mut self) -> io::Result<()> {
        if self.way == Way::Kept && self.kept.is_none() {
            self.kept = Some(self.conf.endpoint().connect().await?);
        }
        Ok(())
    }

    /// Sends a request the way EVE does; the answer of the last port counts.
    pub async fn send(&mut self, call: &Call, mode: Mode) -> io::Result<Answer> {
        let mut last = Err(io::Error::new(io::ErrorKind::NotConnected, "there is no port"));
        for _ in 0..self.ports {
            last = self.send_once(call).await;
            let repeat = match &last {
                Err(_) => true,
                Ok(a) => mode == Mode::EveryPort && !is_good(a.status) && a.status != 403,
            };
            if !repeat {
                break;
            }
        }
        last
    }

    async fn send_once(&mut self, call: &Call) -> io::Result<Answer> {
        self.sent += 1;
        if self.way == Way::Close {
            return self.conf.endpoint().once(call).await;
        }
        // A server may have closed what was kept; that says nothing about the request.
        if let Some(mut kept) = self.kept.take()
            && let Ok(answer) = kept.exchange(call, false).await
        {
            self.kept = Some(kept);
            return Ok(answer);
        }
        let mut fresh = self.conf.endpoint().connect().await?;
        let answer = fresh.exchange(call, false).await?;
        self.kept = Some(fresh);
        Ok(answer)
    }
}

/// What counts as delivered.
pub fn is_good(status: u16) -> bool {
    matches!(status, 200 | 201 | 204 | 304)
}

/// A request to the device API: `path` is what comes behind [`BASE`].
pub fn call(
    method: &str,
    path: &str,
    id: &str,
    serials: Option<(&str, &str)>,
    body: Vec<u8>,
) -> Call {
    let mut headers = vec![("X-Request-Id".to_owned(), id.to_owned())];
    if method == "POST" {
        headers.push(("Content-Type".to_owned(), PROTO.to_owned()));
    }
    if let Some((serial, soft_serial)) = serials {
        headers.push(("X-Serial-Number".to_owned(), serial.to_owned()));
        headers.push(("X-Soft-Serial".to_owned(), soft_serial.to_owned()));
    }
    Call { method: method.to_owned(), path: format!("{BASE}{path}"), headers, body }
}
