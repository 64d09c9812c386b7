//! The session of a reference device, replayed: TLS 1.3, HTTP/1.1, a connection a request, the golden
//! vectors' keys, certificates and payloads, against a controller that serves the vectors' own
//! certificates.
//!
//! Where the controller chooses (the device's id, the nonce, the token), the recorded message is
//! changed in that field and signed again with the device's recorded key; all else is replayed to the
//! byte. The vectors stand in `$EVE_API_VECTORS`, or beside the checkout.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use api::envelope;
use api::pb::attest::ZAttestReq;
use api::pb::config::ConfigRequest;
use api::pb::flowlog::FlowMessage;
use api::pb::hardwarehealth::ZHardwareHealth;
use api::pb::info::ZInfoMsg;
use api::pb::metrics::ZMetricMsg;
use api::pb::register::ZRegisterMsg;
use api::{Certificate, SigningKey, limits, wire};
use controller::client::Client;
use controller::pki::PkiFiles;
use controller::view::NewDevice;
use controller::{Running, Settings};
use model::UnixMillis;
use testbed::sim::http::{Answer, Session};
use testbed::sim::quote::Tpm;
use testbed::sim::{Attested, Conf, Device, Line, Mode, Polled, Way};

const DEFAULT: &str = "../shared/vectors/eve-api";

/// The folder of the vectors; who has only the repository has none.
fn vectors() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = std::env::var_os("EVE_API_VECTORS");
    let path = root.join(named.as_ref().map_or_else(|| DEFAULT.into(), PathBuf::from));
    if path.exists() {
        return Some(path);
    }
    assert!(named.is_none(), "$EVE_API_VECTORS names {}, which is not there", path.display());
    println!("skipped: there is no {DEFAULT} beside the checkout, and no $EVE_API_VECTORS");
    None
}

fn now() -> UnixMillis {
    host::clock::now()
}

/// The reference device and its controller.
struct Reference {
    folder: PathBuf,
    _data: tempfile::TempDir,
    running: Running,
    operator: Client,
    line: Line,
    device: Device,
}

impl Reference {
    async fn start() -> Option<Reference> {
        let folder = vectors()?;
        let file = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let pki = |name: &str| Some(folder.join("pki").join(name));
        let data = tempfile::tempdir().unwrap();
        let files = PkiFiles {
            ca: pki("root-certificate.pem"),
            tls_cert: pki("tls-server.cert.pem"),
            signing_cert: pki("controller-signing.cert.pem"),
            ecdh_cert: pki("controller-ecdh.cert.pem"),
            ..PkiFiles::default()
        };
        let settings =
            Settings { files, ..Settings::new(data.path().to_owned(), host::clock::now) };
        let running = controller::serve(settings).await.unwrap();
        let endpoint = format!("https://localhost:{}", running.address.port());
        let token = std::fs::read_to_string(data.path().join("admin.token")).unwrap();
        let operator = Client::new(&endpoint, &token, &file("pki/root-certificate.pem")).unwrap();

        // What the reference device has in CONFIG.
        let mut conf = BTreeMap::from([(
            "server".to_owned(),
            format!("localhost:{}\n", running.address.port()).into_bytes(),
        )]);
        for name in ["root-certificate.pem", "onboard.cert.pem", "onboard.key.pem"] {
            conf.insert(name.to_owned(), file(&format!("pki/{name}")));
        }
        let conf = Conf::from_files(&conf, running.address, Session::Resumed).unwrap();
        let line = Line::new(Arc::new(conf), Way::Close);

        let register: ZRegisterMsg =
            wire::decode(&file("envelope/zregistermsg.pb"), limits::ONBOARDING).unwrap();
        let device =
            Device::new(0, 0).with_serials(&register.serial, &register.soft_serial).with_identity(
                SigningKey::from_pem(&file("pki/device.key.pem")).unwrap(),
                Certificate::from_pem(&file("pki/device.cert.pem")).unwrap(),
            );
        // `eve device add --onboard-cert FILE --serial S`
        let expected = NewDevice {
            name: "reference".to_owned(),
            serial: register.serial.clone(),
            onboard_cert: Some(String::from_utf8(file("pki/onboard.cert.pem")).unwrap()),
            ..NewDevice::default()
        };
        operator.add_device(&expected).await.unwrap();
        let document = format!(
            "{{kind: Device, name: reference, spec: {{serial: {}, attestation: true}}}}",
            register.serial
        );
        operator.apply(&document, false).await.unwrap();
        Some(Reference { folder, _data: data, running, operator, line, device })
    }

    fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(name)).unwrap()
    }

    /// The payload in a recorded envelope.
    fn payload(&self, name: &str) -> Vec<u8> {
        let received = envelope::open(&self.file(name), limits::CONFIG).unwrap();
        received.unverified_payload().to_vec()
    }

    /// Posts a recorded body to the byte.
    async fn replay(&mut self, path: &str, name: &str) -> Answer {
        let body = self.file(name);
        self.device.post_body(&mut self.line, path, body, Mode::FirstAnswer).await.unwrap()
    }

    /// Posts a recorded body under the device's id.
    async fn replay_named(&mut self, rest: &str, name: &str) -> Answer {
        let path = self.device.path(rest).unwrap();
        self.replay(&path, name).await
    }

    /// Posts a payload, signed by the device.
    async fn send(&mut self, rest: &str, payload: &[u8]) -> Answer {
        let path = self.device.path(rest).unwrap();
        let mode = Mode::FirstAnswer;
        self.device.post(&mut self.line, &path, payload, mode, now()).await.unwrap()
    }

    /// certs, register, uuid.
    async fn onboard(&mut self) {
        assert_eq!(self.device.fetch_certs(&mut self.line, now()).await.unwrap(), 200);
        for status in [201, 200] {
            let registered =
                self.replay("/register", "envelope/req-register.AuthContainer.pb").await;
            assert_eq!(registered.status, status);
        }
        let named = self.replay("/uuid", "envelope/req-uuid-empty-payload.AuthContainer.pb").await;
        assert_eq!(named.status, 200);
        assert_eq!(named.content_type.as_deref(), Some("application/x-proto-binary"));
        assert_eq!(self.device.ask_uuid(&mut self.line, now()).await.unwrap(), 200);
    }

    /// Config with a token, then all that a device reports.
    async fn live(&mut self) {
        let id = self.device.id().unwrap().to_string();
        assert_eq!(self.device.poll(&mut self.line, now()).await.unwrap(), Polled::Applied);
        assert_eq!(self.device.poll(&mut self.line, now()).await.unwrap(), Polled::Unchanged);
        let wrong =
            ConfigRequest { integrity_token: b"another".to_vec(), ..ConfigRequest::default() };
        assert_eq!(self.send("config", &wire::encode(&wrong)).await.status, 403);

        let mut info: ZInfoMsg =
            wire::decode(&self.payload("telemetry/req-info-device.AuthContainer.pb"), limits::INFO)
                .unwrap();
        info.dev_id.clone_from(&id);
        assert_eq!(self.send("info", &wire::encode(&info)).await.status, 201);
        let mut app: ZInfoMsg =
            wire::decode(&self.payload("telemetry/req-info-app.AuthContainer.pb"), limits::INFO)
                .unwrap();
        app.dev_id.clone_from(&id);
        assert_eq!(self.send("info", &wire::encode(&app)).await.status, 201);
        let mut metrics: ZMetricMsg =
            wire::decode(&self.payload("telemetry/req-metrics.AuthContainer.pb"), limits::METRICS)
                .unwrap();
        metrics.dev_id.clone_from(&id);
        assert_eq!(self.send("metrics", &wire::encode(&metrics)).await.status, 201);
        let mut health: ZHardwareHealth = wire::decode(
            &self.payload("telemetry/req-hardwarehealth.AuthContainer.pb"),
            limits::METRICS,
        )
        .unwrap();
        health.dev_id.clone_from(&id);
        let status = self.send("hardwarehealth", &wire::encode(&health)).await.status;
        assert!(matches!(status, 200 | 201), "{status}");
        let mut flow: FlowMessage =
            wire::decode(&self.payload("telemetry/req-flowlog.AuthContainer.pb"), limits::METRICS)
                .unwrap();
        flow.dev_id.clone_from(&id);
        assert_eq!(self.send("flowlog", &wire::encode(&flow)).await.status, 201);

        // A message that names another device than its signer is none of its own.
        info.dev_id = "6ba7b810-9dad-41d1-80b4-00c04fd430c9".to_owned();
        let status = self.send("info", &wire::encode(&info)).await.status;
        assert!((400..500).contains(&status), "{status}");

        let shown = self.operator.device("reference").await.unwrap();
        let version = shown.version.as_str();
        assert!(!version.is_empty() && self.recorded(version), "{version}");
        let port = &shown.ports[0];
        assert!(port.up && self.recorded(&port.addresses[0]), "{port:?}");
    }

    /// Whether a text stands in the recorded device info.
    fn recorded(&self, text: &str) -> bool {
        let json = String::from_utf8(self.file("telemetry/info-device.json")).unwrap();
        json.contains(text)
    }

    async fn refuses_forgeries(&mut self) {
        for name in ["bad-signature", "unknown-device", "no-hash"] {
            let body = format!("envelope/neg-req-config-{name}.AuthContainer.pb");
            let status = self.replay_named("config", &body).await.status;
            // 400 and 404 would make a device ask for another name.
            let refused = (401..500).contains(&status) && status != 404;
            assert!(refused, "{name}: {status}");
        }
    }
}

#[tokio::test]
async fn a_reference_device_without_a_tpm_onboards_and_stays_healthy() {
    let Some(mut reference) = Reference::start().await else { return };
    reference.onboard().await;
    // Only what a device without a TPM shows: the certificate for key exchange.
    let shown: ZAttestReq =
        wire::decode(&reference.file("attest/1-req-certs.ZAttestReq.pb"), limits::ATTEST).unwrap();
    let ecdh = shown.certs.into_iter().filter(|c| c.r#type == 13).collect();
    let Reference { device, line, .. } = &mut reference;
    assert_eq!(device.show_these(line, ecdh, now()).await.unwrap(), 201);
    assert_eq!(device.poll(line, now()).await.unwrap(), Polled::Refused(403));
    device.nonce(line, now()).await.unwrap().unwrap();
    let quote: ZAttestReq = wire::decode(
        &reference.payload("attest/3-req-quote-no-tpm.AuthContainer.pb"),
        limits::ATTEST,
    )
    .unwrap();
    let Reference { device, line, .. } = &mut reference;
    let went = device.send_quote(line, quote.quote.unwrap(), now()).await.unwrap();
    assert_eq!(went, Attested::Yes);
    reference.live().await;
    reference.refuses_forgeries().await;
    reference.running.stop().await;
}

#[tokio::test]
async fn a_reference_device_with_a_tpm_onboards_and_stays_healthy() {
    let Some(mut reference) = Reference::start().await else { return };
    reference.onboard().await;
    let certs = reference.replay_named("attest", "attest/1-req-certs.AuthContainer.pb").await;
    assert_eq!(certs.status, 201);
    let asked = reference.replay_named("attest", "attest/2-req-nonce.AuthContainer.pb").await;
    assert_eq!(asked.status, 201);
    // A quote that was recorded has another nonce.
    let old = reference.payload("attest/3-req-quote.AuthContainer.pb");
    let old: ZAttestReq = wire::decode(&old, limits::ATTEST).unwrap();
    let key = reference.file("pki/device-attest.key.pem");
    let Reference { device, line, .. } = &mut reference;
    let went = device.send_quote(line, old.quote.unwrap(), now()).await.unwrap();
    assert_eq!(went, Attested::Refused(2));

    let key = SigningKey::from_pem(&key).unwrap();
    // What runs is proven, and trusted once somebody has accepted it.
    for went in [Attested::Refused(4), Attested::Yes] {
        let Reference { device, line, .. } = &mut reference;
        let nonce = device.nonce(line, now()).await.unwrap().unwrap();
        let quote = Tpm::booted("reference").quote(&nonce, &key).unwrap();
        assert_eq!(device.send_quote(line, quote, now()).await.unwrap(), went);
        reference.operator.ask_device("reference", "accept").await.unwrap();
    }
    reference.live().await;
    reference.running.stop().await;
}
