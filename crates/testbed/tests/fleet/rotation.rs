//! Certificates of the controller that change while devices live.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use controller::client::Client;
use controller::pki::PkiFiles;
use controller::{Running, Settings};
use model::UnixMillis;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use testbed::sim::http::Session;
use testbed::sim::{Conf, Device, Line, Polled, Way};

/// An authority of an operator's own, with its files in a folder.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an operator's own root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority { folder, issuer: Issuer::new(params, key) };
        authority.save("root.pem", &root.pem());
        authority
    }

    fn save(&self, name: &str, text: &str) {
        store::save(self.folder.path(), name, text.as_bytes()).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate with its key beside it.
    fn leaf(&self, name: &str) -> PathBuf {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        self.save(&format!("{name}.cert.pem"), &made.pem());
        self.save(&format!("{name}.key.pem"), &key.serialize_pem());
        self.file(&format!("{name}.cert.pem"))
    }

    /// A controller with the certificates `signing` and `ecdh`, its operator, and what devices need
    /// to find it.
    pub(crate) async fn begin(&self) -> Site {
        let data = tempfile::tempdir().unwrap();
        let files = self.files("signing", "ecdh");
        let running = serve(data.path(), ([127, 0, 0, 1], 0).into(), files).await;
        let address = running.address;
        let root = std::fs::read(self.file("root.pem")).unwrap();
        let token = std::fs::read_to_string(data.path().join("admin.token")).unwrap();
        let server = format!("localhost:{}", address.port());
        let operator = Client::new(&format!("https://{server}"), &token, &root).unwrap();
        let mut conf = controller::conf(data.path(), &server, "").unwrap();
        conf.insert("root-certificate.pem".to_owned(), root);
        let conf = Arc::new(Conf::from_files(&conf, address, Session::Full).unwrap());
        Site { data, running, operator, conf }
    }

    /// What to serve: the listener's certificate stays.
    pub(crate) fn files(&self, signing: &str, ecdh: &str) -> PkiFiles {
        let kept = |name: &str| {
            let path = self.file(&format!("{name}.cert.pem"));
            if path.exists() { path } else { self.leaf(name) }
        };
        PkiFiles {
            ca: Some(self.file("root.pem")),
            tls_cert: Some(kept("tls")),
            signing_cert: Some(kept(signing)),
            ecdh_cert: Some(kept(ecdh)),
            ..PkiFiles::default()
        }
    }
}

/// A controller that uses an authority's certificates.
pub(crate) struct Site {
    pub(crate) data: tempfile::TempDir,
    pub(crate) running: Running,
    pub(crate) operator: Client,
    pub(crate) conf: Arc<Conf>,
}

impl Site {
    /// Stops, and serves with other certificates under the same address.
    pub(crate) async fn change(self, files: PkiFiles) -> Site {
        let address = self.running.address;
        self.running.stop().await;
        let running = serve(self.data.path(), address, files).await;
        Site { running, ..self }
    }
}

async fn serve(data: &Path, listen: SocketAddr, files: PkiFiles) -> Running {
    let settings = Settings { files, listen, ..Settings::new(data.to_owned(), host::clock::now) };
    controller::serve(settings).await.unwrap()
}

fn now() -> UnixMillis {
    host::clock::now()
}

/// A device that has its config, before and after the controller serves other certificates: how it
/// polls from then on until nothing changes, and how often it fetched certificates.
async fn change(signing: &str, ecdh: &str) -> (Vec<Polled>, u64, Device) {
    let authority = Authority::new();
    let site = authority.begin().await;
    site.operator.allow_serial("*").await.unwrap();
    let conf = site.conf.clone();
    let mut line = Line::new(conf.clone(), Way::Close);
    let mut device = Device::new(1, 1);
    assert_eq!(device.round(&mut line, now()).await.unwrap(), Polled::Applied);
    assert_eq!(device.round(&mut line, now()).await.unwrap(), Polled::Unchanged);
    let fetched = conf.fetched();

    let site = site.change(authority.files(signing, ecdh)).await;
    let mut polls = Vec::new();
    while polls.last() != Some(&Polled::Unchanged) && polls.len() < 6 {
        polls.push(device.round(&mut line, now()).await.unwrap());
    }
    site.running.stop().await;
    (polls, conf.fetched() - fetched, device)
}

#[tokio::test]
async fn ctrl_cert_change() {
    // One poll is lost at most, and the certificates are fetched once, not in a loop.
    let (polls, fetched, _) = change("signing-next", "ecdh").await;
    assert_eq!(polls, [Polled::Lost, Polled::Applied, Polled::Unchanged]);
    assert!((1..=2).contains(&fetched), "{fetched}");
}

#[tokio::test]
async fn ctrl_encrypt_cert_change() {
    // Signatures do not tell of it: the config's hash of the certificates does.
    let (polls, fetched, device) = change("signing", "ecdh-next").await;
    assert_eq!(polls, [Polled::Applied, Polled::Unchanged]);
    assert_eq!(fetched, 1);
    assert!(!device.node.told().unwrap().controllercert_confighash.is_empty());
}
