//! A controller in this process, and a node that speaks the API as a real one does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::convert::config::{Answer, Request as ConfigRequest, read_answer};
use api::onboarding::{Named, Registration};
use api::{Certificate, Sender, SigningKey, certs, envelope, limits};
use bytes::Bytes;
use controller::client::Client;
use controller::{BlobLocation, Location, Running, Settings, conf, serve};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use model::{DeviceId, UnixMillis};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

/// The clock of all controllers in a test process: it moves when told.
static NOW: AtomicU64 = AtomicU64::new(1_770_000_000_000);

pub(crate) fn now() -> UnixMillis {
    UnixMillis(NOW.load(Ordering::SeqCst))
}

pub(crate) fn wait_ms(ms: u64) {
    NOW.fetch_add(ms, Ordering::SeqCst);
}

/// Somebody sets the clock back.
pub(crate) fn back_ms(ms: u64) {
    NOW.fetch_sub(ms, Ordering::SeqCst);
}

/// A controller in a temporary folder.
pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) images: PathBuf,
    /// `None`: SQLite.
    pub(crate) database: Option<Location>,
    /// `None`: in its folder.
    pub(crate) blobs: Option<BlobLocation>,
    pub(crate) running: Option<Running>,
    /// Changes what it is started with.
    pub(crate) settings: fn(&mut Settings),
}

impl Home {
    pub(crate) async fn start() -> Home {
        Home::on(None).await
    }

    /// One that keeps its data in this database.
    pub(crate) async fn on(database: Option<Location>) -> Home {
        let mut home = Home { database, ..Home::stopped() };
        home.again().await;
        home
    }

    /// Another controller of the same fleet: with the same certificates and database.
    pub(crate) async fn twin(&self) -> Home {
        let dir = tempfile::tempdir().unwrap();
        let images = self.images.clone();
        let database = self.database.clone();
        let blobs = self.blobs.clone();
        let mut twin = Home { dir, images, database, blobs, running: None, settings: |_| {} };
        let pki = twin.data().join("pki");
        std::fs::create_dir_all(&pki).unwrap();
        for file in std::fs::read_dir(self.data().join("pki")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), pki.join(file.file_name())).unwrap();
        }
        twin.again().await;
        twin
    }

    /// A folder for one.
    pub(crate) fn stopped() -> Home {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path().join("images");
        Home { dir, images, database: None, blobs: None, running: None, settings: |_| {} }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts it (again) on the same data.
    pub(crate) async fn again(&mut self) {
        self.again_with(|_| {}).await;
    }

    /// Starts it (again) with other settings.
    pub(crate) async fn again_with(&mut self, change: impl FnOnce(&mut Settings)) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
        let mut settings = Settings {
            registry: Some(self.images.clone()),
            database: self.database.clone(),
            blobs: self.blobs.clone(),
            ..Settings::new(self.data(), now)
        };
        (self.settings)(&mut settings);
        change(&mut settings);
        self.running = Some(serve(settings).await.unwrap());
    }

    pub(crate) fn port(&self) -> u16 {
        self.running.as_ref().unwrap().address.port()
    }

    pub(crate) fn operator(&self) -> Client {
        Client::from_data(&self.data()).unwrap()
    }

    pub(crate) fn node(&self, serial: &str) -> Node {
        Node::new(&self.data(), self.port(), serial)
    }
}

/// A TLS connection to a server of this machine that shows a certificate for `name`.
pub(crate) async fn dial_as(
    name: &'static str,
    port: u16,
    root_pem: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root_pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name).unwrap();
    TlsConnector::from(Arc::new(tls)).connect(name, stream).await
}

/// A node: its keys, and what it knows of the controller.
pub(crate) struct Node {
    pub(crate) port: u16,
    pub(crate) root_pem: Vec<u8>,
    pub(crate) onboard_key: SigningKey,
    pub(crate) onboard: Certificate,
    pub(crate) key: SigningKey,
    pub(crate) certificate: Certificate,
    pub(crate) serial: String,
}

impl Node {
    pub(crate) fn new(data: &Path, port: u16, serial: &str) -> Node {
        let files = conf(data, "localhost", serial).unwrap();
        let key = SigningKey::generate().unwrap();
        let certificate = api::device_certificate(&key, now()).unwrap();
        Node {
            port,
            root_pem: files["root-certificate.pem"].clone(),
            onboard_key: SigningKey::from_pem(&files["onboard.key.pem"]).unwrap(),
            onboard: Certificate::from_pem(&files["onboard.cert.pem"]).unwrap(),
            key,
            certificate,
            serial: serial.to_owned(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Bytes) {
        let (status, _, body) = self.http(Method::GET, path, &[], Bytes::new()).await;
        (status, body)
    }

    /// A TLS connection, if the controller takes one.
    pub(crate) async fn dial(
        &self,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
        dial_as("localhost", self.port, &self.root_pem).await
    }

    async fn connect<B>(
        &self,
    ) -> (
        hyper::client::conn::http1::SendRequest<B>,
        hyper::client::conn::http1::Connection<
            TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>,
            B,
        >,
    )
    where
        B: hyper::body::Body + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let tls = self.dial().await.unwrap();
        hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap()
    }

    /// Sends a body piece by piece and counts the bytes of the answer.
    pub(crate) async fn stream(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        pieces: impl Iterator<Item = Bytes> + Send + 'static,
    ) -> (StatusCode, u64) {
        let (mut sender, connection) = self.connect().await;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers.iter().chain(&[("host", "localhost")]) {
            request = request.header(*name, *value);
        }
        let frame = |piece| Ok::<_, std::io::Error>(hyper::body::Frame::data(piece));
        let frames = Box::pin(futures_util::stream::iter(pieces.map(frame)));
        let body = http_body_util::StreamBody::new(frames);
        let answer = sender.send_request(request.body(body).unwrap()).await.unwrap();
        let (head, mut body) = answer.into_parts();
        let mut got = 0;
        while let Some(frame) = body.frame().await {
            got += frame.unwrap().data_ref().map_or(0, |d| d.len() as u64);
        }
        connection.abort();
        (head.status, got)
    }

    /// An answer that does not end, and what keeps it coming.
    pub(crate) async fn opened_stream(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (hyper::body::Incoming, tokio::task::JoinHandle<hyper::Result<()>>) {
        let (mut sender, connection) = self.connect::<Full<Bytes>>().await;
        let connection = tokio::spawn(connection);
        let mut request = Request::get(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = sender.send_request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        (answer.into_body(), connection)
    }

    pub(crate) async fn http(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> (StatusCode, hyper::HeaderMap, Bytes) {
        let (mut sender, connection) = self.connect().await;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("localhost:{}", self.port));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        connection.abort();
        (head.status, head.headers, body)
    }

    /// Sends bytes to a path below the base of the API.
    pub(crate) async fn post_raw(&self, path: &str, body: impl Into<Bytes>) -> (StatusCode, Bytes) {
        let path = format!("/api/v2/edgedevice/{path}");
        let kind = [("content-type", "application/x-proto-binary")];
        let (status, _, body) = self.http(Method::POST, &path, &kind, body.into()).await;
        (status, body)
    }

    /// Signs a payload as this node and sends it.
    pub(crate) async fn post(&self, path: &str, payload: &[u8]) -> (StatusCode, Bytes) {
        self.post_raw(path, self.signed(payload)).await
    }

    pub(crate) fn signed(&self, payload: &[u8]) -> Vec<u8> {
        envelope::sign(payload, &Sender::device(&self.key, &self.certificate)).unwrap()
    }

    pub(crate) fn registration(&self) -> Vec<u8> {
        let what = Registration {
            certificate: self.certificate.clone(),
            serial: String::new(),
            soft_serial: self.serial.clone(),
        };
        let sender = Sender::onboarding(&self.onboard_key, &self.onboard);
        envelope::sign(&what.to_payload(), &sender).unwrap()
    }

    pub(crate) async fn register(&self) -> StatusCode {
        self.post_raw("register", self.registration()).await.0
    }

    pub(crate) async fn signer(&self) -> api::Signer {
        let (status, body) = self.get("/api/v2/edgedevice/certs").await;
        assert_eq!(status, StatusCode::OK);
        certs::learn(&body, &self.root_pem, now()).unwrap().signer().clone()
    }

    /// The payload of a signed answer.
    pub(crate) async fn opened(&self, body: &[u8]) -> Vec<u8> {
        let answer = envelope::open(body, limits::CONFIG).unwrap();
        answer.verify(&self.signer().await).unwrap().to_vec()
    }

    pub(crate) async fn uuid(&self) -> Result<DeviceId, StatusCode> {
        match self.post("uuid", &[]).await {
            (StatusCode::OK, body) => {
                Ok(Named::from_payload(&self.opened(&body).await).unwrap().id)
            }
            (status, _) => Err(status),
        }
    }

    /// Registers and learns its id.
    pub(crate) async fn onboard(&self) -> DeviceId {
        assert_eq!(self.register().await, StatusCode::CREATED);
        self.uuid().await.unwrap()
    }

    pub(crate) async fn config(
        &self,
        id: DeviceId,
        hash: &str,
        token: &[u8],
    ) -> Result<Option<(String, Box<model::desired::Device>)>, StatusCode> {
        let request = ConfigRequest { hash: hash.to_owned(), integrity_token: token.to_vec() };
        match self.post(&format!("id/{id}/config"), &request.to_payload()).await {
            (StatusCode::NOT_MODIFIED, body) => {
                assert!(body.is_empty());
                Ok(None)
            }
            (StatusCode::OK, body) => {
                match read_answer(&self.opened(&body).await, id, hash).unwrap() {
                    Answer::Changed { hash, device } => Ok(Some((hash, device))),
                    Answer::Unchanged => Ok(None),
                }
            }
            (status, _) => Err(status),
        }
    }
}

/// A device object for a node with this soft serial.
pub(crate) fn device(name: &str, serial: &str) -> String {
    format!("kind: Device\nname: {name}\nspec: {{soft_serial: {serial}}}\n---\n")
}
