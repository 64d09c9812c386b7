//! The certificates that the TLS port shows: which one to whom, and fresh ones while it runs.
//!
//! A certificate of our own (or one given by files) goes to everybody; one that an ACME server gave
//! goes to those who name the host that it is for. So `localhost`, addresses, and nodes that came
//! before a public name was there go on seeing what they trust.

mod acme;
mod chain;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) use acme::{Acme, AcmeError};
pub use acme::{AcmeSettings, LETS_ENCRYPT};

use crate::outbound::system_roots;
use crate::pki::{Pki, PkiError, PkiFiles};
use crate::start::{Clock, ENDPOINT_CERT_FILE};
use crate::trust;

/// Who asks for this protocol checks that a name is ours, and says nothing more (RFC 8737).
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";
/// How often files and dates are looked at.
const LOOK: Duration = Duration::from_secs(60);

/// A chain and its key.
type Given = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What is shown now.
#[derive(Debug)]
pub(crate) struct Shown {
    faces: RwLock<Faces>,
}

#[derive(Debug)]
struct Faces {
    /// To everybody …
    usual: Arc<CertifiedKey>,
    /// … but those who ask for one of these names, in small letters.
    public: Option<(Vec<String>, Arc<CertifiedKey>)>,
    /// To an ACME server that checks a name, while it does.
    challenges: BTreeMap<String, Arc<CertifiedKey>>,
}

impl Shown {
    /// Shows this to everybody. An error: the key is another's.
    pub(crate) fn new(given: Given) -> Result<Shown, rustls::Error> {
        let faces =
            Faces { usual: certified(given)?, public: None, challenges: BTreeMap::default() };
        Ok(Shown { faces: RwLock::new(faces) })
    }

    /// How the listener does TLS.
    pub(crate) fn tls(self: &Arc<Shown>) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
        // Devices offer a certificate of their own; proxies strip it, so nobody may depend on it.
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec(), ACME_TLS.to_vec()];
        Ok(Arc::new(config))
    }

    /// The certificate for everybody.
    pub(crate) fn leaf(&self) -> Option<CertificateDer<'static>> {
        self.read(|f| f.usual.cert.first().cloned())
    }

    /// Shows another one to everybody from now on; whether it is another.
    fn show(&self, given: Given) -> Result<bool, rustls::Error> {
        if self.read(|f| f.usual.cert == given.0) {
            return Ok(false);
        }
        let new = certified(given)?;
        self.change(|f| f.usual = new);
        Ok(true)
    }

    fn show_to(&self, names: &[String], given: Given) -> Result<(), rustls::Error> {
        let new = certified(given)?;
        let names = names.iter().map(|n| n.to_ascii_lowercase()).collect();
        self.change(|f| f.public = Some((names, new)));
        Ok(())
    }

    fn prove(&self, name: &str, (chain, key): Given) -> Result<(), rustls::Error> {
        // Not compared with its key: what makes it a proof is critical, and nobody else reads it.
        let key = provider().key_provider.load_private_key(key)?;
        let new = Arc::new(CertifiedKey::new(chain, key));
        self.change(|f| f.challenges.insert(name.to_ascii_lowercase(), new));
        Ok(())
    }

    fn prove_no_more(&self) {
        self.change(|f| f.challenges.clear());
    }

    fn read<T>(&self, look: impl FnOnce(&Faces) -> T) -> T {
        look(&self.faces.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Faces) -> T) {
        change(&mut self.faces.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn of(&self, name: Option<&str>, checks: bool) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        self.read(|f| match (name, &f.public) {
            (name, _) if checks => f.challenges.get(&name?).cloned(),
            (Some(name), Some((names, public))) if names.contains(&name) => Some(public.clone()),
            _ => Some(f.usual.clone()),
        })
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let checks = hello.alpn().is_some_and(|mut all| all.any(|one| one == ACME_TLS));
        self.of(hello.server_name(), checks)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certified((chain, key): Given) -> Result<Arc<CertifiedKey>, rustls::Error> {
    CertifiedKey::from_der(chain, key, &provider()).map(Arc::new)
}

/// What people on this machine are to know the listener by, if that is not the root of nodes: the
/// certificates that were given to it, or that an ACME server gave; PEM.
pub(crate) fn note_shown(shown: &Shown, source: &Source) -> Result<(), PkiError> {
    let given = source.files.tls_cert.is_some();
    let all = shown.read(|f| {
        let usual = given.then_some(&f.usual);
        let all = usual.into_iter().chain(f.public.as_ref().map(|(_, public)| public));
        all.filter_map(|face| face.cert.first().cloned()).collect::<Vec<_>>()
    });
    let text: String = all.iter().map(|der| trust::pem(der)).collect();
    let there = std::fs::read_to_string(source.data.join(ENDPOINT_CERT_FILE)).unwrap_or_default();
    if there == text {
        return Ok(());
    }
    if text.is_empty() {
        return store::remove(&source.data, ENDPOINT_CERT_FILE).map_err(PkiError::Save);
    }
    store::save(&source.data, ENDPOINT_CERT_FILE, text.as_bytes()).map_err(PkiError::Save)
}

/// Says what is shown to everybody: that it lacks something, and with `anew` that it is new.
fn say_shown(shown: &Shown, source: &Source, pki: &Pki, anew: bool) {
    let chain = shown.read(|f| f.usual.cert.clone());
    if let Some(leaf) = chain.first().filter(|_| anew) {
        tracing::info!("the listener shows a new certificate: {}", chain::said(leaf));
    }
    let Some(path) = &source.files.tls_cert else { return };
    let mut roots = system_roots();
    if let Ok(root) = CertificateDer::from_pem_slice(pki.root.cert_pem.as_bytes()) {
        roots.add_parsable_certificates([root]);
    }
    if let Some(issuer) = chain::missing(&chain, &roots) {
        tracing::warn!(
            "the chain in {} ends at a certificate of \"{issuer}\", which is neither in it nor a root \
             that nodes or this system know: if that is an intermediate, put it behind the others in \
             the file, or nodes and browsers refuse to connect",
            path.display()
        );
    }
}

/// Where certificates come from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) data: PathBuf,
    pub(crate) files: PkiFiles,
    /// Of our own certificate.
    pub(crate) names: Vec<String>,
    pub(crate) acme: Option<Acme>,
}

/// Keeps what is shown fresh; ends never.
pub(crate) async fn keep(shown: &Shown, source: &Source, pki: &Pki, clock: Clock) {
    let acme = async {
        match &source.acme {
            Some(acme) => acme.keep(shown, source, clock).await,
            None => std::future::pending().await,
        }
    };
    say_shown(shown, source, pki, false);
    tokio::join!(keep_own(shown, source, pki, clock), acme);
}

/// Takes over files that were replaced, and makes our own anew in time.
async fn keep_own(shown: &Shown, source: &Source, pki: &Pki, clock: Clock) {
    let mut said = String::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let wrong = match look_again(shown, source, pki, clock) {
            Ok(new) => {
                if new {
                    say_shown(shown, source, pki, true);
                }
                // Again if it could not be written the last time.
                let noted = note_shown(shown, source);
                noted.err().map(|e| {
                    format!("people on this machine may not know it: {}", model::chain(&e))
                })
            }
            // Between two files that are being replaced, for example.
            Err(e) => Some(format!(
                "the listener goes on with the certificate it has: {}",
                model::chain(&*e)
            )),
        };
        let wrong = wrong.unwrap_or_default();
        if wrong != said && !wrong.is_empty() {
            tracing::warn!("{wrong}");
        }
        said = wrong;
    }
}

/// Shows what the files hold now; whether that is something new.
fn look_again(
    shown: &Shown,
    source: &Source,
    pki: &Pki,
    clock: Clock,
) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    Ok(shown.show(pki.tls(&source.data, &source.files, &source.names, clock())?)?)
}

#[cfg(test)]
mod tests {
    use model::UnixMillis;

    use super::*;

    fn given(name: &str) -> Given {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    #[test]
    fn each_sees_the_certificate_that_is_for_it() {
        let (usual, public, proof) = (given("localhost"), given("a.example"), given("a.example"));
        let der = |given: &Given| given.0[0].clone();
        let (u, p, c) = (der(&usual), der(&public), der(&proof));
        let shown = Shown::new(usual).unwrap();
        let of = |name, checks| Some(shown.of(name, checks)?.cert[0].clone());
        assert_eq!(of(Some("a.example"), false), Some(u.clone()), "there is no other yet");
        shown.show_to(&["A.example".into()], public).unwrap();
        assert_eq!(of(Some("a.Example"), false), Some(p));
        assert_eq!(of(Some("b.example"), false), Some(u.clone()));
        assert_eq!(of(None, false), Some(u.clone()));
        assert_eq!(of(Some("a.example"), true), None, "nobody checks");
        shown.prove("a.example", proof).unwrap();
        assert_eq!(of(Some("a.example"), true), Some(c));
        assert_eq!(of(None, true), None);
        shown.prove_no_more();
        assert_eq!(of(Some("a.example"), true), None);
        let (mixed, other) = (given("x"), given("x"));
        assert!(shown.show((mixed.0, other.1)).is_err(), "another's key");
        assert_eq!(shown.leaf(), Some(u));
    }

    const DAY: u64 = 24 * 3600 * 1000;
    const START: u64 = 1_770_000_000_000;

    #[test]
    fn files_that_are_replaced_are_shown_and_halves_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path(), &PkiFiles::default(), UnixMillis(START)).unwrap();
        let tls_cert = dir.path().join("tls.cert.pem");
        let write = |file: &str, text: &str| {
            store::save(dir.path(), file, text.as_bytes()).unwrap();
        };
        let pair = || {
            let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
            (made.cert.pem(), made.signing_key.serialize_pem())
        };
        let ((first, first_key), (second, second_key)) = (pair(), pair());
        write("tls.cert.pem", &first);
        write("tls.key.pem", &first_key);
        let files = PkiFiles { tls_cert: Some(tls_cert), ..PkiFiles::default() };
        let source = Source { data: dir.path().into(), files, names: Vec::new(), acme: None };
        let clock: Clock = || UnixMillis(START);
        let shown = Shown::new(pki.tls(dir.path(), &source.files, &[], clock()).unwrap()).unwrap();
        let before = shown.leaf();
        assert!(!look_again(&shown, &source, &pki, clock).unwrap(), "nothing changed");
        write("tls.cert.pem", &second);
        look_again(&shown, &source, &pki, clock).expect_err("the key is still the first one's");
        assert_eq!(shown.leaf(), before);
        write("tls.key.pem", &second_key);
        assert!(look_again(&shown, &source, &pki, clock).unwrap());
        assert_ne!(shown.leaf(), before);
    }

    #[test]
    fn our_own_is_made_anew_before_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let files = PkiFiles::default();
        let pki = Pki::open(dir.path(), &files, UnixMillis(START)).unwrap();
        let names = vec!["localhost".to_owned()];
        let first = pki.tls(dir.path(), &files, &names, UnixMillis(START)).unwrap();
        let shown = Shown::new(first).unwrap();
        let source = Source { data: dir.path().into(), files, names, acme: None };
        assert!(!look_again(&shown, &source, &pki, || UnixMillis(START + 330 * DAY)).unwrap());
        assert!(look_again(&shown, &source, &pki, || UnixMillis(START + 340 * DAY)).unwrap());
        let end = api::end_of(&shown.leaf().unwrap()).unwrap();
        assert!(end > UnixMillis(START + 700 * DAY));
    }
}
