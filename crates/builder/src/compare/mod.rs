//! Two images, or two folders, next to each other: what one has and the other has not.
//!
//! Disks, partitions, file systems, archives and what is packed are taken apart on both sides as far
//! as both go; nothing is mounted. Times, signatures and the keys they are checked with are told
//! apart from everything else ([`Comparison::excused`]), and so are digests that only follow.

mod normal;
#[cfg(test)]
mod tests;
mod walk;

use std::io;
use std::path::{Path, PathBuf};

use model::{Diagnose, Diagnosis, Who};
use serde::Serialize;

use crate::inspect::{Opened, Piece, open, open_folder};

/// What two things differ in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// What makes them different.
    pub differences: Vec<Difference>,
    /// What two builds of the same may differ in: times, signatures, keys, and digests over those.
    pub excused: Vec<Difference>,
    /// How many files were looked at.
    pub files: usize,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    /// Where: from the outside in, as in `partition 2 IMGA / root file system / usr/bin/eved`.
    pub at: String,
    /// In what.
    pub what: What,
    /// What the first says; empty: nothing, or it is too long to be shown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub one: String,
    /// What the second says; empty: nothing, or it is too long to be shown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub two: String,
}

/// In what two things differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Only the first has it.
    Removed,
    /// Only the second has it.
    Added,
    /// One is a file, the other a folder, and so on.
    Kind,
    /// Permissions.
    Mode,
    /// User or group.
    Owner,
    /// An extended attribute.
    Attribute,
    /// Where a link leads.
    Target,
    /// The number of a device.
    Device,
    /// Its bytes, and with them their number.
    Size,
    /// Its bytes.
    Content,
    /// What a container says of itself.
    Fact,
    /// Last change.
    Time,
    /// A signature.
    Signature,
    /// A key that signatures are checked with.
    Key,
    /// A digest of something that differs itself.
    Digest,
}

impl What {
    /// The word for people.
    pub const fn name(self) -> &'static str {
        match self {
            What::Removed => "only in the first",
            What::Added => "only in the second",
            What::Kind => "kind",
            What::Mode => "mode",
            What::Owner => "owner",
            What::Attribute => "attribute",
            What::Target => "target",
            What::Device => "device",
            What::Size => "size",
            What::Content => "content",
            What::Fact => "fact",
            What::Time => "time",
            What::Signature => "signature",
            What::Key => "key",
            What::Digest => "digest",
        }
    }
}

/// Why two things cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// One cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something inside cannot be read.
    #[error("cannot compare {at}")]
    Inside {
        /// Where.
        at: String,
        /// Why.
        source: io::Error,
    },
}

impl Diagnose for CompareError {
    fn diagnose(&self) -> Diagnosis {
        Diagnosis::of(Who::Operator, "check that both are whole and may be read")
    }
}

/// Compares two files or folders.
pub fn compare(one: &Path, two: &Path) -> Result<Comparison, CompareError> {
    let read = |path: &Path| {
        let look = || -> io::Result<(Option<Piece>, Opened)> {
            if path.is_dir() {
                return Ok((None, open_folder(path)?));
            }
            let piece = Piece::of_file(path)?;
            let opened = open(&piece)?;
            Ok((Some(piece), opened))
        };
        look().map_err(|source| CompareError::Read { path: path.to_owned(), source })
    };
    let mut walk = walk::Walk::default();
    walk.opened("", read(one)?, read(two)?)?;
    Ok(walk.finish())
}
