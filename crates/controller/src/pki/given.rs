//! Certificates that others made: the controller serves them instead of its own.

use std::fs;
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Pair, Pki, PkiError, file};

/// Files with certificates, PEM. A key stands in the file of its certificate, or beside it under the
/// same name with `key` in the place of `cert` (`signing.cert.pem`, `signing.key.pem`; `tls.crt`,
/// `tls.key`), or where the `_key` field says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PkiFiles {
    /// The root that nodes trust, and intermediates if it has some.
    pub ca: Option<PathBuf>,
    /// The listener's certificate, then its intermediates.
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
    /// The certificate that signs what nodes are told.
    pub signing_cert: Option<PathBuf>,
    /// Its key.
    pub signing_key: Option<PathBuf>,
    /// The certificate for key exchange with nodes; P-256.
    pub ecdh_cert: Option<PathBuf>,
    /// Its key.
    pub ecdh_key: Option<PathBuf>,
}

/// A certificate as it came, those that follow it in its file, and its key.
struct Chain {
    leaf: Pair,
    rest: Vec<String>,
}

impl PkiFiles {
    /// Puts what is given in the place of what is in `own`. Signing, key exchange and root belong
    /// together: a node checks them against each other.
    pub(super) fn over(&self, own: Pki) -> Result<Pki, PkiError> {
        let given = [&self.ca, &self.signing_cert, &self.ecdh_cert];
        if given.iter().all(|g| g.is_none()) {
            return Ok(own);
        }
        let [Some(ca), Some(signing), Some(ecdh)] = given.map(Option::as_ref) else {
            return Err(PkiError::Incomplete);
        };
        let mut authorities = certificates(ca)?.into_iter();
        let root = authorities.next().ok_or_else(|| damaged(ca, "it holds no certificate"))?;
        let signing = chain(signing, self.signing_key.as_deref())?;
        let ecdh = chain(ecdh, self.ecdh_key.as_deref())?;
        let mut intermediates: Vec<String> = authorities.collect();
        intermediates.extend(signing.rest);
        intermediates.extend(ecdh.rest);
        // A listener under the same root often brings the intermediate along.
        if let Some(tls) = &self.tls_cert {
            intermediates.extend(certificates(tls)?.into_iter().skip(1));
        }
        intermediates.sort();
        intermediates.dedup_by(|a, b| a.trim() == b.trim());
        intermediates.retain(|i| i.trim() != root.trim());
        Ok(Pki {
            root: Pair { cert_pem: root, key_pem: String::new() },
            intermediates,
            signing: signing.leaf,
            ecdh: ecdh.leaf,
            onboard: own.onboard,
            issuer: own.issuer,
        })
    }

    /// The listener's chain and key, if they are given.
    pub(super) fn tls(
        &self,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, PkiError> {
        let Some(path) = &self.tls_cert else { return Ok(None) };
        let given = chain(path, self.tls_key.as_deref())?;
        let all = std::iter::once(&given.leaf.cert_pem).chain(&given.rest);
        let parsed = |pem: &String| CertificateDer::from_pem_slice(pem.as_bytes());
        let chain = all.map(parsed).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|e| damaged(path, &e.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(given.leaf.key_pem.as_bytes())
            .map_err(|e| damaged(path, &e.to_string()))?;
        Ok(Some((chain, key)))
    }
}

fn chain(path: &Path, key: Option<&Path>) -> Result<Chain, PkiError> {
    let mut certificates = certificates(path)?;
    if certificates.is_empty() {
        return Err(damaged(path, "it holds no certificate"));
    }
    let rest = certificates.split_off(1);
    let cert_pem = certificates.pop().unwrap_or_default();
    Ok(Chain { leaf: Pair { cert_pem, key_pem: key_of(path, key)? }, rest })
}

/// The key of a certificate: where it was said to be, in the same file, or beside it.
fn key_of(path: &Path, said: Option<&Path>) -> Result<String, PkiError> {
    let own = text(path)?;
    if said.is_none() && sections(&own).iter().any(|s| s.contains("PRIVATE KEY-----")) {
        let keys = sections(&own);
        return Ok(keys.into_iter().find(|s| s.contains("PRIVATE KEY-----")).unwrap_or_default());
    }
    let beside = || {
        let name = path.file_name()?.to_str()?;
        let key = match name.rsplit_once("cert") {
            Some((before, after)) => format!("{before}key{after}"),
            None => format!("{}.key", name.rsplit_once('.').map_or(name, |(stem, _)| stem)),
        };
        Some(path.with_file_name(key))
    };
    let key = said.map(Path::to_owned).or_else(beside);
    let key = key.ok_or_else(|| damaged(path, "nobody said where its key is"))?;
    text(&key)
}

/// The certificates of a file, each as it stands there. One that is alone keeps every byte of its
/// file: nodes find the signer by a hash over these.
fn certificates(path: &Path) -> Result<Vec<String>, PkiError> {
    let whole = text(path)?;
    let mut found: Vec<String> = sections(&whole);
    let other = found.len();
    found.retain(|s| s.starts_with("-----BEGIN CERTIFICATE-----"));
    if found.len() == 1 && other == 1 {
        return Ok(vec![whole]);
    }
    Ok(found)
}

/// The PEM sections of a text, each with one newline at its end.
fn sections(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut section: Option<String> = None;
    for line in text.lines() {
        if line.starts_with("-----BEGIN ") {
            section = Some(String::new());
        }
        if let Some(open) = &mut section {
            open.push_str(line.trim_end());
            open.push('\n');
            if line.starts_with("-----END ") {
                all.extend(section.take());
            }
        }
    }
    all
}

fn text(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|e| file("read", path, e))
}

fn damaged(path: &Path, why: &str) -> PkiError {
    PkiError::Damaged { path: path.to_owned(), why: why.to_owned() }
}
