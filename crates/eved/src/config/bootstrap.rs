//! The bootstrap file: ports and settings of a node that never had a config.
//!
//! It counts from each start until a config of the controller is saved, and never again after that:
//! what the controller said last is newer, whatever the times in it.

use std::io;
use std::path::PathBuf;

use api::bootstrap::{self, BootstrapError};
use api::convert::config::ConfigError;
use model::desired::Device;
use model::{Bytes, Diagnose, Diagnosis, UnixMillis, Who};

use crate::service::Paths;

/// In the CONFIG partition (EVE API, bootstrap and local overrides).
pub(super) const FILE: &str = "bootstrap-config.pb";
/// Of the root certificate.
const ROOT_MAX: Bytes = Bytes::kib(64);

/// Why a bootstrap file says nothing to us.
#[derive(Debug, thiserror::Error)]
pub(super) enum BootstrapTrouble {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{FILE} is refused")]
    Refused(#[from] BootstrapError),
    #[error("{FILE} has no config for us")]
    Config(#[from] ConfigError),
}

impl Diagnose for BootstrapTrouble {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Read { .. } => Diagnosis::of(Who::Hardware, "check the disk with CONFIG"),
            Self::Refused(e) => e.diagnose(),
            Self::Config(e) => e.diagnose(),
        }
    }
}

/// What the file says. `None`: there is none, or it has had its time.
pub(super) fn read(paths: &Paths, now: UnixMillis) -> Result<Option<Device>, BootstrapTrouble> {
    if paths.persist.join("checkpoint").join(super::checkpoint::CONFIG).exists() {
        return Ok(None);
    }
    let read = |name: &str, most| {
        let path = paths.config.join(name);
        match store::read_bounded(&path, most) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BootstrapTrouble::Read { path, source }),
            Ok(bytes) => Ok(Some(bytes)),
        }
    };
    let Some(file) = read(FILE, bootstrap::FILE_MAX)? else { return Ok(None) };
    // Without a root nothing is believed, and the error says so.
    let root = read("root-certificate.pem", ROOT_MAX)?.unwrap_or_default();
    let mut device = bootstrap::open(&file, &root, now)?.device()?;
    device::able::limit(&mut device);
    Ok(Some(device))
}
