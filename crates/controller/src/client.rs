//! The other end of the operator API, for `eve` and for tests.
//!
//! A connection for each call: operators call now and then. It trusts the controller's own root
//! certificate and nothing else.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use model::{Diagnose, Diagnosis, Digest, Secret, Who};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::access::TOKEN_FILE;
use crate::objects::{Key, Kind};
use crate::operator::HINT;
use crate::start::{ENDPOINT_CERT_FILE, ENDPOINT_FILE};
use crate::trust;
use crate::view;

const DIAL: Duration = Duration::from_secs(10);
/// For a whole call, dialling included.
const CALL: Duration = Duration::from_secs(60);
/// A list of a large fleet fits.
const ANSWER_MAX: usize = 64 << 20;

/// Talks to a controller.
#[derive(Debug, Clone)]
pub struct Client {
    url: String,
    host: String,
    port: u16,
    token: Secret,
    tls: Arc<rustls::ClientConfig>,
    /// Who is told what may not be meant in what was asked for.
    hint: fn(&str),
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file of the controller's data folder.
    #[error("cannot read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The address is none.
    #[error("{0:?} is no address of a controller; write https://HOST:PORT")]
    Url(String),
    /// The root certificate is none.
    #[error("the root certificate cannot be used: {0}")]
    Root(String),
    /// Nobody answers.
    #[error("cannot reach the controller at {url}")]
    Connect {
        /// Where.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody else answers, or not in HTTP.
    #[error("cannot talk to the controller at {url}")]
    Talk {
        /// Where.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It takes too long.
    #[error("the controller at {url} does not answer in time")]
    Slow {
        /// Where.
        url: String,
    },
    /// The token is wrong.
    #[error("the controller at {url} refuses the token")]
    Token {
        /// Where.
        url: String,
    },
    /// It refuses.
    #[error("{}", failure.error)]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it says.
        failure: view::Failure,
    },
    /// Its answer is not what it should be.
    #[error("the controller at {url} answers in words we do not know")]
    Answer {
        /// Where.
        url: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl Diagnose for ClientError {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self {
            ClientError::File { .. } => {
                "log in with `eve login URL`, or name the controller's data folder with --data"
            }
            ClientError::Url(_) => "give it as https://HOST:PORT",
            ClientError::Root(_) => "give the controller's root certificate with --ca",
            // Names that are not found have no kind of their own.
            ClientError::Connect { source, .. } if source.raw_os_error().is_none() => {
                "check that the name leads to it; on its own machine, let localhost be the first --name of `eve controller serve`"
            }
            ClientError::Connect { .. } | ClientError::Slow { .. } => {
                "start it with `eve controller serve`, or name another with --controller"
            }
            ClientError::Talk { .. } => {
                "check that --ca is this controller's root certificate and that it is known by this name (--name of `eve controller serve`)"
            }
            ClientError::Token { .. } => {
                "log in with `eve login`, or give a token with --token; on the controller's machine `eve controller token` makes a new one for the administrator"
            }
            ClientError::Refused { status: 401, .. } => "check name and password",
            ClientError::Refused { status: 403, .. } => {
                "ask an administrator for the role or the project; `eve whoami` shows yours"
            }
            ClientError::Refused { status: 404, .. } => {
                "check the name: `eve objects` lists what there is, `list` of each command the rest"
            }
            ClientError::Refused { status: 409, .. } => "look at it as it is now, and decide again",
            ClientError::Refused { status: 429, .. } => "wait as long as it says",
            ClientError::Refused { status: 502, .. } => {
                "look at the other server, or correct where it is said to be; then ask again"
            }
            ClientError::Refused { status: 503, .. } => "look into the controller's log",
            ClientError::Refused { .. } => "correct what you asked for",
            ClientError::Answer { .. } => "use an `eve` of the controller's version",
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

impl ClientError {
    /// Whether the same call may do better a little later.
    pub fn may_pass(&self) -> bool {
        match self {
            ClientError::Connect { .. } | ClientError::Talk { .. } | ClientError::Slow { .. } => {
                true
            }
            ClientError::Refused { status, .. } => *status == 429 || *status >= 500,
            ClientError::File { .. }
            | ClientError::Url(_)
            | ClientError::Root(_)
            | ClientError::Token { .. }
            | ClientError::Answer { .. } => false,
        }
    }
}

/// How documents are to be applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Apply {
    /// References may point to what is not there yet.
    pub allow_missing: bool,
    /// Only say what would change.
    pub dry_run: bool,
    /// Objects of these kinds that are not in the documents are removed.
    pub prune: Vec<Kind>,
    /// Objects that must still be of this generation; 0: that must not be there.
    pub expected: Vec<(Key, u64)>,
}

impl Apply {
    /// As the query of a call, from its `?` on.
    pub fn query(&self) -> String {
        let prune: Vec<&str> = self.prune.iter().map(|k| k.name()).collect();
        let expected = self.expected.iter();
        let expected: Vec<String> =
            expected.map(|(key, at)| format!("{}/{}@{at}", key.kind, key.name)).collect();
        format!(
            "?allow_missing={}&dry_run={}&prune={}&expect={}",
            self.allow_missing,
            self.dry_run,
            escaped(&prune.join(",")),
            escaped(&expected.join(","))
        )
    }
}

/// The certificates that the controller of a data folder on this machine is known by, PEM: the root
/// that its nodes trust, and what its listener shows if that was given to it.
pub fn trusted_in(data: &Path) -> Result<String, ClientError> {
    let text = |name: &str| {
        let path = data.join(name);
        std::fs::read_to_string(&path).map_err(|source| ClientError::File { path, source })
    };
    let root = text("root-certificate.pem").or_else(|_| text("pki/root.cert.pem"))?;
    let shown = text(ENDPOINT_CERT_FILE).unwrap_or_default();
    Ok(format!("{}\n{shown}", root.trim_end()))
}

impl Client {
    /// A client of the controller at `url` (`https://HOST:PORT`), trusting `root_pem`: roots, or the
    /// very certificate that it shows.
    pub fn new(url: &str, token: &str, root_pem: &[u8]) -> Result<Client, ClientError> {
        let (host, port) = split(url).ok_or_else(|| ClientError::Url(url.to_owned()))?;
        let unusable = |e: &dyn std::fmt::Display| ClientError::Root(e.to_string());
        let (mut roots, mut named) = (RootCertStore::empty(), Vec::new());
        for certificate in CertificateDer::pem_slice_iter(root_pem) {
            let certificate = certificate.map_err(|e| unusable(&e))?;
            roots.add(certificate.clone()).map_err(|e| unusable(&e))?;
            named.push(certificate);
        }
        if roots.is_empty() {
            return Err(unusable(&"there is no certificate in it"));
        }
        let tls = trust::led(roots, named).map_err(|e| unusable(&e))?;
        Ok(Client {
            url: url.trim_end_matches('/').to_owned(),
            host,
            port,
            token: Secret::new(token.trim()),
            tls,
            hint: |_| {},
        })
    }

    /// The same client, which tells `hint` what the controller thinks may not be meant in a call that
    /// it answers.
    #[must_use]
    pub fn hinting(self, hint: fn(&str)) -> Client {
        Client { hint, ..self }
    }

    /// A client of the controller whose data folder is on this machine.
    pub fn from_data(data: &Path) -> Result<Client, ClientError> {
        let text = |name: &str| {
            let path = data.join(name);
            std::fs::read_to_string(&path).map_err(|source| ClientError::File { path, source })
        };
        let url = text(ENDPOINT_FILE)?;
        Client::new(url.trim(), &text(TOKEN_FILE)?, trusted_in(data)?.as_bytes())
    }

    /// Where the controller is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The controller itself.
    pub async fn controller(&self) -> Result<view::Controller, ClientError> {
        self.get("/").await
    }

    /// All nodes.
    pub async fn devices(&self) -> Result<Vec<view::Device>, ClientError> {
        self.get("/devices").await
    }

    /// Nodes that match a query over labels.
    pub async fn devices_matching(&self, query: &str) -> Result<Vec<view::Device>, ClientError> {
        self.get(&format!("/devices?match={}", escaped(query))).await
    }

    /// The nodes of this name, else of this id, else of this serial number.
    pub async fn devices_named(&self, text: &str) -> Result<Vec<view::Device>, ClientError> {
        self.get(&format!("/devices?named={}", escaped(text))).await
    }

    /// A node, by name or id.
    pub async fn device(&self, name: &str) -> Result<view::Device, ClientError> {
        self.get(&format!("/devices/{}", escaped(name))).await
    }

    /// Makes a node known before it comes.
    pub async fn add_device(&self, new: &view::NewDevice) -> Result<view::Added, ClientError> {
        let answer = self.call(Method::POST, "/devices", json(new)).await?;
        self.read(&answer)
    }

    /// Asks something of a node: `shutdown`, `attest` or `resend`; or trusts what it proved: `accept`.
    pub async fn ask_device(&self, name: &str, what: &str) -> Result<(), ClientError> {
        self.post(&format!("/devices/{}/{what}", escaped(name))).await
    }

    /// What the last proof of a node said.
    pub async fn verdict(&self, name: &str) -> Result<view::Verdict, ClientError> {
        self.get(&format!("/devices/{}/verdict", escaped(name))).await
    }

    /// Keeps a node from its config for a reason, or no longer (`None`).
    pub async fn quarantine(&self, name: &str, reason: Option<&str>) -> Result<(), ClientError> {
        let path = format!("/devices/{}/quarantine", escaped(name));
        let (method, body) = match reason {
            Some(reason) => (Method::PUT, json(&view::Quarantine { reason: reason.to_owned() })),
            None => (Method::DELETE, Bytes::new()),
        };
        self.call(method, &path, body).await.map(drop)
    }

    /// What a node is told: an `EdgeDevConfig` in JSON.
    pub async fn device_config(&self, name: &str) -> Result<serde_json::Value, ClientError> {
        self.get(&format!("/devices/{}/config", escaped(name))).await
    }

    /// Tells a node this `EdgeDevConfig` (protobuf, or JSON from its `{` on) from now on, whatever
    /// its objects say.
    pub async fn give_config(
        &self,
        name: &str,
        config: impl Into<Bytes>,
    ) -> Result<view::ConfigGiven, ClientError> {
        let path = format!("/devices/{}/config", escaped(name));
        let answer = self.call(Method::PUT, &path, config.into()).await?;
        self.read(&answer)
    }

    /// Tells a node what its objects say again.
    pub async fn give_config_back(&self, name: &str) -> Result<(), ClientError> {
        self.remove(&format!("/devices/{}/config", escaped(name))).await
    }

    /// Reboots a node.
    pub async fn restart_device(&self, name: &str) -> Result<(), ClientError> {
        self.post(&format!("/devices/{}/restart", escaped(name))).await
    }

    /// All apps.
    pub async fn apps(&self) -> Result<Vec<view::App>, ClientError> {
        self.get("/apps").await
    }

    /// An app.
    pub async fn app(&self, name: &str) -> Result<view::App, ClientError> {
        self.get(&format!("/apps/{}", escaped(name))).await
    }

    /// Restarts an app on all its nodes.
    pub async fn restart_app(&self, name: &str) -> Result<(), ClientError> {
        self.post(&format!("/apps/{}/restart", escaped(name))).await
    }

    /// Restarts an app with fresh volumes.
    pub async fn purge_app(&self, name: &str) -> Result<(), ClientError> {
        self.post(&format!("/apps/{}/purge", escaped(name))).await
    }

    /// All networks.
    pub async fn networks(&self) -> Result<Vec<view::Network>, ClientError> {
        self.get("/networks").await
    }

    /// A network.
    pub async fn network(&self, name: &str) -> Result<view::Network, ClientError> {
        self.get(&format!("/networks/{}", escaped(name))).await
    }

    /// All objects, as they were written.
    pub async fn objects(&self) -> Result<Vec<view::Object>, ClientError> {
        self.get("/objects").await
    }

    /// Makes objects say what YAML or JSON documents say: all of them or none. With `allow_missing`
    /// also if they refer to objects that do not exist.
    pub async fn apply(
        &self,
        documents: &str,
        allow_missing: bool,
    ) -> Result<view::Applied, ClientError> {
        let how = Apply { allow_missing, ..Apply::default() };
        self.apply_as(documents, &how).await
    }

    /// The same with everything that can be said about how.
    pub async fn apply_as(
        &self,
        documents: &str,
        how: &Apply,
    ) -> Result<view::Applied, ClientError> {
        self.send(&format!("/objects{}", how.query()), documents).await
    }

    /// Says that somebody has seen an alert.
    pub async fn ack_alert(&self, id: u64) -> Result<(), ClientError> {
        self.post(&format!("/alerts/{id}/ack")).await
    }

    /// How much of a single file is there: of the content with this SHA-256. `None`: nothing.
    pub async fn image_file(
        &self,
        name: &str,
        sha256: &Digest,
    ) -> Result<Option<view::ImageFile>, ClientError> {
        let path = format!("/images/{}?sha256={}", escaped(name), sha256.hex());
        match self.get(&path).await {
            Err(ClientError::Refused { status: 404, .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Sends a part of a single file that begins at byte `first` of `total`; parts come in order.
    /// An empty part of an empty file is whole, too.
    pub async fn send_image_part(
        &self,
        name: &str,
        sha256: &Digest,
        (first, total): (u64, u64),
        part: Bytes,
    ) -> Result<view::ImageFile, ClientError> {
        let path = format!("/images/{}?sha256={}", escaped(name), sha256.hex());
        let last = first.saturating_add(part.len() as u64).checked_sub(1);
        let range = last.map(|last| format!("bytes {first}-{last}/{total}"));
        let answer = self.call_with(Method::PUT, &path, part, range).await?;
        self.read(&answer)
    }

    /// Removes an object; with `force` also if others refer to it.
    pub async fn delete(&self, kind: &str, name: &str, force: bool) -> Result<(), ClientError> {
        let path = format!("/objects/{}/{}?force={force}", escaped(kind), escaped(name));
        self.call(Method::DELETE, &path, Bytes::new()).await.map(drop)
    }

    /// The newest `limit` log lines after an id, oldest first: a node's own, or those of one of its
    /// apps.
    pub async fn logs(
        &self,
        device: &str,
        app: Option<&str>,
        after: u64,
        limit: u32,
    ) -> Result<Vec<view::LogRow>, ClientError> {
        let mut path = format!("/logs?device={}&after={after}&limit={limit}", escaped(device));
        if let Some(app) = app {
            path.push_str(&format!("&app={}", escaped(app)));
        }
        self.get(&path).await
    }

    /// The newest `limit` events after an id, oldest first.
    pub async fn events(&self, after: u64, limit: u32) -> Result<Vec<view::Event>, ClientError> {
        self.get(&format!("/events?after={after}&limit={limit}")).await
    }

    /// Lets a serial number register without an object of its own; `*` is any.
    pub async fn allow_serial(&self, serial: &str) -> Result<(), ClientError> {
        self.call(Method::PUT, &format!("/serials/{}", escaped(serial)), Bytes::new())
            .await
            .map(drop)
    }

    /// Lets a serial number register no longer. Nodes that did stay.
    pub async fn disallow_serial(&self, serial: &str) -> Result<(), ClientError> {
        let path = format!("/serials/{}", escaped(serial));
        self.call(Method::DELETE, &path, Bytes::new()).await.map(drop)
    }

    /// Asks for something below the operator API that is JSON; `path` is escaped already.
    pub async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.get(path).await
    }

    /// Sends something below the operator API and reads the answer; `path` is escaped already.
    pub async fn send<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &str,
    ) -> Result<T, ClientError> {
        let answer = self.call(Method::POST, path, body.to_owned().into()).await?;
        self.read(&answer)
    }

    /// Puts something below the operator API; `path` is escaped already.
    pub async fn put(&self, path: &str, body: &str) -> Result<(), ClientError> {
        self.call(Method::PUT, path, body.to_owned().into()).await.map(drop)
    }

    /// Removes something below the operator API; `path` is escaped already.
    pub async fn remove(&self, path: &str) -> Result<(), ClientError> {
        self.call(Method::DELETE, path, Bytes::new()).await.map(drop)
    }

    /// Asks something of the registry, `/v2/…` (OCI distribution spec); returns where it says that
    /// something lies (`Location`).
    pub async fn registry(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Option<String>, ClientError> {
        let talk = |source| ClientError::Talk { url: self.url.clone(), source };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token.reveal()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).map_err(|e| talk(e.into()))?;
        let exchange = tokio::time::timeout(CALL, self.exchanged(request)).await;
        let slow = |_| Err(ClientError::Slow { url: self.url.clone() });
        let (head, body) = exchange.unwrap_or_else(slow)?;
        if head.status.is_success() {
            let place = head.headers.get(header::LOCATION).and_then(|v| v.to_str().ok());
            return Ok(place.map(str::to_owned));
        }
        if head.status == StatusCode::UNAUTHORIZED {
            return Err(ClientError::Token { url: self.url.clone() });
        }
        let said: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        let said = said.as_ref().and_then(|v| v.pointer("/errors/0/message")?.as_str());
        let error = match said {
            Some(said) => said.to_owned(),
            None => format!("the registry answers {} to {method} {path}", head.status),
        };
        let failure = view::Failure { error, flaws: Vec::new() };
        Err(ClientError::Refused { status: head.status.as_u16(), failure })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = self.call(Method::GET, path, Bytes::new()).await?;
        self.read(&answer)
    }

    async fn post(&self, path: &str) -> Result<(), ClientError> {
        self.call(Method::POST, path, Bytes::new()).await.map(drop)
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, answer: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(answer)
            .map_err(|source| ClientError::Answer { url: self.url.clone(), source })
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, ClientError> {
        self.call_with(method, path, body, None).await
    }

    async fn call_with(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        range: Option<String>,
    ) -> Result<Bytes, ClientError> {
        let called = tokio::time::timeout(CALL, self.call_once(method, path, body, range)).await;
        called.unwrap_or_else(|_| Err(ClientError::Slow { url: self.url.clone() }))
    }

    async fn call_once(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        range: Option<String>,
    ) -> Result<Bytes, ClientError> {
        let talk = |source| ClientError::Talk { url: self.url.clone(), source };
        let mut request = Request::builder();
        if let Some(range) = range {
            request = request.header(header::CONTENT_RANGE, range);
        }
        let request = request
            .method(method)
            // `/` of the API is its name without a slash at the end.
            .uri(format!("/api/operator/v1{}", if path == "/" { "" } else { path }))
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token.reveal()))
            .body(Full::new(body))
            .map_err(|e| talk(e.into()))?;
        let (head, body) = self.exchanged(request).await?;
        let hints = head.headers.get_all(HINT).iter().filter_map(|value| value.to_str().ok());
        hints.for_each(self.hint);
        if head.status.is_success() {
            return Ok(body);
        }
        if head.status == StatusCode::UNAUTHORIZED && path != "/login" {
            return Err(ClientError::Token { url: self.url.clone() });
        }
        let status = head.status;
        let failure = serde_json::from_slice(&body).unwrap_or_else(|_| view::Failure {
            error: format!("the controller answers {status}"),
            flaws: Vec::new(),
        });
        Err(ClientError::Refused { status: status.as_u16(), failure })
    }

    /// One request on a connection of its own, and the whole answer.
    async fn exchanged(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(hyper::http::response::Parts, Bytes), ClientError> {
        let talk = |source| ClientError::Talk { url: self.url.clone(), source };
        let tls = self.connected().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|e| talk(e.into()))?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(|e| talk(e.into()))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(talk)?;
        connection.abort();
        Ok((head, body.to_bytes()))
    }

    /// A connection to a controller that is the one we trust.
    pub(crate) async fn connected(&self) -> Result<TlsStream<TcpStream>, ClientError> {
        let connect = |source| ClientError::Connect { url: self.url.clone(), source };
        let dial = TcpStream::connect((self.host.as_str(), self.port));
        let stream = tokio::time::timeout(DIAL, dial)
            .await
            .map_err(|_| ClientError::Slow { url: self.url.clone() })?
            .map_err(connect)?;
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| ClientError::Url(self.url.clone()))?;
        let shake = TlsConnector::from(self.tls.clone()).connect(name, stream);
        let shaken = tokio::time::timeout(DIAL, shake).await;
        shaken
            .map_err(|_| ClientError::Slow { url: self.url.clone() })?
            .map_err(|e| ClientError::Talk { url: self.url.clone(), source: e.into() })
    }
}

/// Host and port of `https://HOST[:PORT]`.
pub(crate) fn split(url: &str) -> Option<(String, u16)> {
    let rest = url.strip_prefix("https://")?.trim_end_matches('/');
    if rest.is_empty() || rest.contains(['/', '?', '#', '@']) {
        return None;
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (rest, 443),
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

fn json(value: &impl serde::Serialize) -> Bytes {
    // Texts and numbers: there is nothing in it that JSON could refuse.
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// A text as part of a path or query (RFC 3986: what is not unreserved is escaped).
pub fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (url, parts) in [
            ("https://localhost:8443", Some(("localhost", 8443))),
            ("https://edge.example/", Some(("edge.example", 443))),
            ("https://[::1]:9", Some(("::1", 9))),
            ("https://[::1]", Some(("::1", 443))),
            ("http://localhost", None),
            ("https://", None),
            ("https://a/b", None),
            ("https://a:x", None),
            ("localhost:8443", None),
        ] {
            let parts = parts.map(|(h, p)| (h.to_owned(), p));
            assert_eq!(split(url), parts, "{url}");
        }
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escaped("a b/ü*"), "a%20b%2F%C3%BC%2A");
    }
}
