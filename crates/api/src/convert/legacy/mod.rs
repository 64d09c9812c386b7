//! What a node may be told by EVE's old files on its CONFIG partition, before it ever had a config:
//! settings ([`items`]) and ports ([`ports`]). Nobody signs them; `api::bootstrap` is what came after.
//!
//! Both are EVE's own structures in the JSON that Go writes: numbers where the API has enums, names
//! read without regard to case, unknown names passed over. Facts: EVE's docs/CONFIG.md and
//! pkg/pillar/types (`ConfigItemValueMap`, `DevicePortConfig`), Eden's sdn/examples.

mod fields;
mod items;
mod ports;

use model::{Bytes, Diagnose, Diagnosis, Who};
use serde_json::Value;

pub use items::items;
pub use ports::{LegacyPorts, ports};

use super::refuse::Rejected;

/// EVE's largest table of settings takes some 30 KiB, a port with its certificates a few.
pub const FILE_MAX: Bytes = Bytes::kib(256);

/// Why such a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum LegacyError {
    /// It is longer than [`FILE_MAX`].
    #[error("it has {got}, more than {FILE_MAX}")]
    TooLong {
        /// Its length.
        got: Bytes,
    },
    /// It is no JSON.
    #[error("it is no JSON")]
    Json(#[from] serde_json::Error),
    /// A field of it, named in the text, is not what it should be.
    #[error("{0}")]
    Field(String),
    /// Under such ports nobody would be reached.
    #[error("Ports: none is a good port for management; the first that is not: {0}")]
    NoManagement(String),
}

impl Diagnose for LegacyError {
    fn diagnose(&self) -> Diagnosis {
        Diagnosis::of(Who::Operator, "correct the file on CONFIG, or take it away")
    }
}

impl From<Rejected> for LegacyError {
    fn from(why: Rejected) -> LegacyError {
        LegacyError::Field(why.text())
    }
}

/// `None`: there is nothing in the file; some tools write one always.
fn json(file: &[u8]) -> Result<Option<Value>, LegacyError> {
    let got = Bytes(file.len() as u64);
    if got > FILE_MAX {
        return Err(LegacyError::TooLong { got });
    }
    if file.trim_ascii().is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(file)?))
}
