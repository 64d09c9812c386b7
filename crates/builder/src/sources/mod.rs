//! The sources that an image was made of: a manifest, an archive of them, and whether manifest and
//! bill of materials agree.
//!
//! Debian's source packages come from the mirror by the digests of its signed index, Rust's crates
//! from cargo's cache by the checksums of Cargo.lock. What cannot be had is named; nothing similar
//! is taken for it.

mod check;
mod collect;
mod manifest;

use std::io;
use std::path::PathBuf;

use model::{Diagnose, Diagnosis, Who};

pub use check::{Unmatched, check};
pub use collect::{Collected, collect};
pub use manifest::{Manifest, Row};

use crate::pkg::PkgError;

/// Why sources cannot be had, or told.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// A line of a manifest is none.
    #[error("line {line} of the manifest is not `type,name@version,commit,path`")]
    Row {
        /// From 1.
        line: usize,
    },
    /// A bill of materials that is none.
    #[error("the bill of materials is no JSON")]
    Bill(#[from] serde_json::Error),
    /// A bill of materials in a format that we do not read.
    #[error("the bill of materials is neither SPDX nor CycloneDX")]
    Format,
    /// Debian's sources cannot be had.
    #[error("cannot get Debian's sources")]
    Debian(#[from] PkgError),
    /// Sources that nobody has any more, and they were all asked for.
    #[error("{} sources cannot be had: {}", .names.len(), .names.join(", "))]
    Missing {
        /// Type, name and version.
        names: Vec<String>,
    },
    /// A file cannot be read or written.
    #[error("cannot {doing} {path}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Diagnose for SourcesError {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self {
            SourcesError::Debian(cause) => return cause.diagnose(),
            SourcesError::Row { .. } => "give a manifest that `eve sources` wrote",
            SourcesError::Bill(_) | SourcesError::Format => {
                "give a document of `eve sbom`, SPDX or CycloneDX as JSON"
            }
            SourcesError::Missing { .. } => {
                "for crates run `cargo fetch --locked`; for Debian packages name an archive of old \
                 versions with --snapshot"
            }
            SourcesError::File { .. } => "check that the path is right and may be used",
        };
        Diagnosis::of(Who::Operator, advice)
    }
}
