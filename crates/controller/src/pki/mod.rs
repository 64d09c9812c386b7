//! The controller's certificates: its own root, an intermediate, one signing leaf, one key exchange
//! leaf, the certificate of its TLS listener, and the onboarding certificate of its nodes.
//!
//! All keys are P-256 (EVE API, controller certificates). Everything but the TLS certificate is made
//! once, in a folder that appears whole; the TLS certificate is made anew when its names change or
//! its end comes near. It decides nothing about devices.

mod given;
mod secrets;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{Diagnose, Diagnosis, UnixMillis, Who};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

pub use given::PkiFiles;
pub(crate) use secrets::secrets_key;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// As long as EVE gives its own device certificates.
const LONG: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// The listener's certificate is made anew at a start that finds less than [`TLS_RENEW`] left.
const TLS_LIFE: Duration = Duration::from_secs(398 * 24 * 3600);
const TLS_RENEW: Duration = Duration::from_secs(60 * 24 * 3600);

const FOLDER: &str = "pki";
const TLS_FOLDER: &str = "tls";
/// The root that was served last.
const ROOT_FILE: &str = "root-certificate.pem";

/// A certificate and its key, both as PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub cert_pem: String,
    /// The key, PKCS#8.
    pub key_pem: String,
}

/// Shows no key.
impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// What lasts as long as the controller.
#[derive(Debug, Clone)]
pub struct Pki {
    /// Signs the intermediate; nodes trust it (`root-certificate.pem`).
    pub root: Pair,
    /// What lies between the root and the leaves, PEM.
    pub intermediates: Vec<String>,
    /// Signs what nodes are told.
    pub signing: Pair,
    /// For key exchange with nodes (sealed secrets).
    pub ecdh: Pair,
    /// What new nodes register with.
    pub onboard: Pair,
    /// Our own intermediate: signs the listener's certificate.
    issuer: Pair,
}

/// Why certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file or folder.
    #[error("cannot {doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be replaced.
    #[error("cannot store the controller's certificates")]
    Save(#[from] store::SaveError),
    /// A secret could not be stored.
    #[error("cannot store a secret of the controller")]
    Secret(#[from] store::StoreError),
    /// A certificate could not be made.
    #[error("cannot make the {what} certificate")]
    Make {
        /// Which.
        what: &'static str,
        /// Why.
        source: rcgen::Error,
    },
    /// Some were given by files, others not.
    #[error("root, signing and key exchange certificates must be given together")]
    Incomplete,
    /// What was given by files would not be believed by nodes.
    #[error("nodes would not believe the certificates that were given")]
    Unbelievable(#[from] api::certs::CertsError),
    /// A key cannot be used.
    #[error("cannot use the {what} key")]
    Key {
        /// Which.
        what: &'static str,
        /// Why.
        source: api::KeyError,
    },
    /// A key does not go with its certificate.
    #[error("the {what} key does not belong to the {what} certificate")]
    ForeignKey {
        /// Which.
        what: &'static str,
    },
    /// A file holds no certificate or key.
    #[error("{path} is damaged: {why}")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl Diagnose for PkiError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            PkiError::File { source, doing: "read", .. }
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Diagnosis::of(Who::Operator, "check the name of the file")
            }
            PkiError::File { .. } | PkiError::Save(_) | PkiError::Secret(_) => {
                Diagnosis::of(Who::Operator, "make the controller's data folder writable")
            }
            PkiError::Make { .. } => {
                Diagnosis::of(Who::Operator, "check the names given by --name")
            }
            PkiError::Incomplete => {
                Diagnosis::of(Who::Operator, "give --ca, --signing-cert and --ecdh-cert, or none")
            }
            PkiError::Unbelievable(_) => Diagnosis::of(
                Who::Operator,
                "give certificates that chain to --ca, with their intermediates behind them",
            ),
            PkiError::ForeignKey { .. } | PkiError::Key { .. } => {
                Diagnosis::of(Who::Operator, "give the key that belongs to the certificate")
            }
            PkiError::Damaged { .. } => Diagnosis::of(
                Who::Operator,
                "give a PEM file; if it is one of the data folder, restore it from a backup",
            ),
        }
    }
}

impl Pki {
    /// Reads what is under `data`, or makes it all at the first start; what `files` give counts
    /// instead. The root is put where `eve` and [`Pki::read_root`] find it.
    pub fn open(data: &Path, files: &PkiFiles, now: UnixMillis) -> Result<Pki, PkiError> {
        let dir = data.join(FOLDER);
        if !dir.exists() {
            make(data, &dir, now)?;
        }
        let pki = files.over(Pki::read(data)?)?;
        pki.check(now)?;
        store::save(data, ROOT_FILE, pki.root.cert_pem.as_bytes())?;
        Ok(pki)
    }

    /// Whether there are certificates under `data`.
    pub(crate) fn is_in(data: &Path) -> bool {
        data.join(FOLDER).exists()
    }

    /// Reads what is under `data`; makes nothing.
    pub fn read(data: &Path) -> Result<Pki, PkiError> {
        let dir = data.join(FOLDER);
        let issuer = read_pair(&dir, "intermediate")?;
        Ok(Pki {
            root: read_pair(&dir, "root")?,
            intermediates: vec![issuer.cert_pem.clone()],
            signing: read_pair(&dir, "signing")?,
            ecdh: read_pair(&dir, "ecdh")?,
            onboard: read_pair(&dir, "onboard")?,
            issuer,
        })
    }

    /// The root that nodes and `eve` are to trust, PEM: that of the last start.
    pub fn read_root(data: &Path) -> Result<String, PkiError> {
        match fs::read_to_string(data.join(ROOT_FILE)) {
            Ok(pem) => Ok(pem),
            // A data folder of an older controller, which has not been started since.
            Err(_) => Ok(read_pair(&data.join(FOLDER), "root")?.cert_pem),
        }
    }

    /// The payload of `/certs`.
    pub fn published(&self) -> Vec<u8> {
        let intermediates: Vec<&[u8]> = self.intermediates.iter().map(|i| i.as_bytes()).collect();
        let (signing, ecdh) = (self.signing.cert_pem.as_bytes(), self.ecdh.cert_pem.as_bytes());
        api::certs::publish(signing, &[ecdh], &intermediates)
    }

    /// Looks at the certificates as a node will.
    fn check(&self, now: UnixMillis) -> Result<(), PkiError> {
        let need = api::certs::Need::Everything;
        api::certs::check(&self.published(), self.root.cert_pem.as_bytes(), now, need)?;
        for (what, pair) in [("signing", &self.signing), ("key exchange", &self.ecdh)] {
            // A key belongs to a certificate if that believes its signature.
            let key = api::SigningKey::from_pem(pair.key_pem.as_bytes())
                .map_err(|source| PkiError::Key { what, source })?;
            let sender = api::Sender::controller(&key, pair.cert_pem.as_bytes());
            let sample = api::envelope::sign(b"sample", &sender)
                .map_err(|source| PkiError::Key { what, source })?;
            let believed = api::Signer::controller(pair.cert_pem.as_bytes()).is_ok_and(|signer| {
                let opened = api::envelope::open(&sample, model::Bytes::kib(4));
                opened.is_ok_and(|o| o.verify(&signer).is_ok())
            });
            if !believed {
                return Err(PkiError::ForeignKey { what });
            }
        }
        Ok(())
    }

    /// The listener's certificate chain and key for `names` (host names and addresses), made anew
    /// when there is none for exactly these, or its end is near.
    pub fn tls(
        &self,
        data: &Path,
        files: &PkiFiles,
        names: &[String],
        now: UnixMillis,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
        if let Some(given) = files.tls()? {
            return Ok(given);
        }
        let dir = data.join(TLS_FOLDER);
        let made_for = fs::read(dir.join("made-for.json")).unwrap_or_default();
        let fits = serde_json::from_slice::<MadeFor>(&made_for).is_ok_and(|have| {
            have.names == names && have.until.since(now) > TLS_RENEW && now >= have.from
        });
        if !fits {
            make_private(&dir)?;
            // Removed first: a cut in between leaves a pair that is made again.
            store::remove(&dir, "made-for.json")?;
            let until = now.after(TLS_LIFE);
            let key = new_key("TLS")?;
            let mut params = leaf_params("EVE controller", now, TLS_LIFE);
            params.subject_alt_names = CertificateParams::new(names)
                .map_err(|source| PkiError::Make { what: "TLS", source })?
                .subject_alt_names;
            let issuer = self.intermediate_issuer(now)?;
            let cert = params
                .signed_by(&key, &issuer)
                .map_err(|source| PkiError::Make { what: "TLS", source })?;
            save_pair(&dir, "server", &cert.pem(), &key.serialize_pem())?;
            let note = MadeFor { names: names.to_vec(), from: now, until };
            store::save(&dir, "made-for.json", &serde_json::to_vec(&note).unwrap_or_default())?;
        }
        let pair = read_pair(&dir, "server")?;
        let damaged = |e: rustls_pki_types::pem::Error| PkiError::Damaged {
            path: dir.clone(),
            why: e.to_string(),
        };
        let chain = [&pair.cert_pem, &self.issuer.cert_pem]
            .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).map_err(damaged));
        let [leaf, intermediate] = chain;
        let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).map_err(damaged)?;
        Ok((vec![leaf?, intermediate?], key))
    }

    fn intermediate_issuer(&self, now: UnixMillis) -> Result<Issuer<'static, KeyPair>, PkiError> {
        let key = KeyPair::from_pem(&self.issuer.key_pem)
            .map_err(|source| PkiError::Make { what: "TLS", source })?;
        // Only the name and the key of the issuer go into what it signs.
        Ok(Issuer::new(authority_params(INTERMEDIATE_NAME, 0, now), key))
    }
}

/// What the listener's certificate was made for.
#[derive(Serialize, Deserialize)]
struct MadeFor {
    names: Vec<String>,
    from: UnixMillis,
    until: UnixMillis,
}

const ROOT_NAME: &str = "EVE controller root";
const INTERMEDIATE_NAME: &str = "EVE controller intermediate";

fn make(data: &Path, dir: &Path, now: UnixMillis) -> Result<(), PkiError> {
    let new = data.join(".pki.new");
    if new.exists() {
        // An earlier first start was cut off; nothing of it was ever used.
        fs::remove_dir_all(&new).map_err(|e| file("remove", &new, e))?;
    }
    make_private(&new)?;

    let root_params = authority_params(ROOT_NAME, 1, now);
    let root_key = new_key("root")?;
    let root = root_params
        .self_signed(&root_key)
        .map_err(|source| PkiError::Make { what: "root", source })?;
    save_pair(&new, "root", &root.pem(), &root_key.serialize_pem())?;
    let root = Issuer::new(root_params, root_key);

    let intermediate_params = authority_params(INTERMEDIATE_NAME, 0, now);
    let intermediate_key = new_key("intermediate")?;
    let intermediate = intermediate_params
        .signed_by(&intermediate_key, &root)
        .map_err(|source| PkiError::Make { what: "intermediate", source })?;
    save_pair(&new, "intermediate", &intermediate.pem(), &intermediate_key.serialize_pem())?;
    let intermediate = Issuer::new(intermediate_params, intermediate_key);

    for (name, what, usage) in [
        ("signing", "EVE controller signing", KeyUsagePurpose::DigitalSignature),
        ("ecdh", "EVE controller key exchange", KeyUsagePurpose::KeyAgreement),
    ] {
        let key = new_key(name)?;
        let mut params = leaf_params(what, now, LONG);
        params.key_usages = vec![usage];
        let cert = params
            .signed_by(&key, &intermediate)
            .map_err(|source| PkiError::Make { what: name, source })?;
        save_pair(&new, name, &cert.pem(), &key.serialize_pem())?;
    }

    // Self-signed, its name a UUID, as EVE's own onboarding certificates are.
    let key = new_key("onboarding")?;
    let params = leaf_params(&uuid::Uuid::new_v4().to_string(), now, LONG);
    let cert =
        params.self_signed(&key).map_err(|source| PkiError::Make { what: "onboarding", source })?;
    save_pair(&new, "onboard", &cert.pem(), &key.serialize_pem())?;

    fs::rename(&new, dir).map_err(|e| file("rename", dir, e))?;
    fs::File::open(data).and_then(|d| d.sync_all()).map_err(|e| file("sync", data, e))
}

/// Makes a folder that only its owner may enter.
pub(crate) fn make_private(dir: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| file("create folder", dir, e))
}

/// Saves a file that only its owner may read, from its first byte on.
pub(crate) fn save_secret(dir: &Path, name: &str, body: &[u8]) -> Result<(), PkiError> {
    Ok(store::save_with_mode(dir, name, body, 0o600)?)
}

fn new_key(what: &'static str) -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|source| PkiError::Make { what, source })
}

fn authority_params(name: &str, below: u8, now: UnixMillis) -> CertificateParams {
    let mut params = named(name, now, LONG);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(name: &str, now: UnixMillis, life: Duration) -> CertificateParams {
    let mut params = named(name, now, life);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Devices accept a leaf without extended usages or with serverAuth among them.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

fn named(name: &str, now: UnixMillis, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "EVE");
    params.distinguished_name.push(DnType::CommonName, name);
    // A day back: the clocks of nodes may lag ours.
    params.not_before = date(now) - DAY;
    params.not_after = date(now) + life;
    params
}

fn date(at: UnixMillis) -> OffsetDateTime {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn save_pair(dir: &Path, name: &str, cert_pem: &str, key_pem: &str) -> Result<(), PkiError> {
    save_secret(dir, &format!("{name}.key.pem"), key_pem.as_bytes())?;
    Ok(store::save(dir, &format!("{name}.cert.pem"), cert_pem.as_bytes())?)
}

fn read_pair(dir: &Path, name: &str) -> Result<Pair, PkiError> {
    let text = |suffix: &str| {
        let path = dir.join(format!("{name}.{suffix}.pem"));
        fs::read_to_string(&path).map_err(|e| file("read", &path, e))
    };
    Ok(Pair { cert_pem: text("cert")?, key_pem: text("key")? })
}

fn file(doing: &'static str, path: &Path, source: io::Error) -> PkiError {
    PkiError::File { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_770_000_000_000);

    #[test]
    fn a_second_start_finds_the_same_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open(dir.path(), &PkiFiles::default(), NOW).unwrap();
        let again = Pki::open(dir.path(), &PkiFiles::default(), NOW.after(DAY)).unwrap();
        assert_eq!(first.signing.cert_pem, again.signing.cert_pem);
        assert_eq!(first.onboard.key_pem, again.onboard.key_pem);
    }

    #[test]
    fn a_first_start_that_was_cut_off_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        make_private(&dir.path().join(".pki.new")).unwrap();
        store::save(&dir.path().join(".pki.new"), "root.key.pem", b"half").unwrap();
        let pki = Pki::open(dir.path(), &PkiFiles::default(), NOW).unwrap();
        assert!(pki.root.key_pem.contains("PRIVATE KEY"));
    }

    #[test]
    fn the_listener_gets_another_certificate_only_for_other_names_or_near_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path(), &PkiFiles::default(), NOW).unwrap();
        let leaf = |names: &[&str], now| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            pki.tls(dir.path(), &PkiFiles::default(), &names, now).unwrap().0[0].clone()
        };
        let first = leaf(&["localhost", "127.0.0.1"], NOW);
        assert_eq!(first, leaf(&["localhost", "127.0.0.1"], NOW.after(DAY)));
        let named = leaf(&["edge.example", "10.0.2.2"], NOW);
        assert_ne!(first, named);
        assert_ne!(named, leaf(&["edge.example", "10.0.2.2"], NOW.after(TLS_LIFE)));
    }

    #[test]
    fn keys_are_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        Pki::open(dir.path(), &PkiFiles::default(), NOW).unwrap();
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode();
        assert_eq!(mode("pki") & 0o777, 0o700);
        for name in ["root", "intermediate", "signing", "ecdh", "onboard"] {
            assert_eq!(mode(&format!("pki/{name}.key.pem")) & 0o777, 0o600, "{name}");
        }
    }
}
