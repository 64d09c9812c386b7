//! What a node's CONFIG partition must say to find this controller.

use std::collections::BTreeMap;
use std::path::Path;

use model::{Diagnose, Diagnosis, Who};

use crate::pki::{Pki, PkiError};

/// Why there is no config.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// The controller has never run.
    #[error("there is no controller in {0}")]
    NoController(std::path::PathBuf),
    /// Its certificates cannot be read.
    #[error("cannot read the controller's certificates")]
    Pki(#[from] PkiError),
}

impl Diagnose for ConfError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            ConfError::NoController(_) => {
                Diagnosis::of(Who::Operator, "start it once with `eve controller serve`")
            }
            ConfError::Pki(e) => e.diagnose(),
        }
    }
}

/// The files of a CONFIG partition: whom to call (`server`, host and port), whom to trust, and what
/// to register with. They hold a private key that lets nodes register.
pub fn conf(
    data: &Path,
    server: &str,
    soft_serial: &str,
) -> Result<BTreeMap<String, Vec<u8>>, ConfError> {
    if !data.join("pki").exists() {
        return Err(ConfError::NoController(data.to_owned()));
    }
    let pki = Pki::read(data)?;
    let files = [
        ("server", format!("{server}\n")),
        ("root-certificate.pem", Pki::read_root(data)?),
        ("onboard.cert.pem", pki.onboard.cert_pem),
        ("onboard.key.pem", pki.onboard.key_pem),
        ("soft_serial", format!("{soft_serial}\n")),
    ];
    Ok(files.into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes())).collect())
}
