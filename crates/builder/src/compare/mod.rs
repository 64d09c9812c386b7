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

use formats::ext4;
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
    /// Nothing that can be taken apart.
    #[error("{path} {what}")]
    NoImage {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, as a verb.
        what: &'static str,
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
        let advice = match self {
            CompareError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "check the path, or build an image with `eve build live`"
            }
            CompareError::NoImage { what, .. } if *what == EXT4 => {
                "compare the archives that they were made of, rootfs.tar; cmp tells whether their \
                 bytes are the same"
            }
            CompareError::NoImage { .. } => {
                "give disks, ISOs, slot images, file systems, archives or folders; of other files \
                 cmp or diff tells more"
            }
            _ => "check that both are whole and may be read",
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

const EXT4: &str = "is an ext4, which is not read here";

/// Compares two files or folders. Both are looked at before anything is compared, the first first.
pub fn compare(one: &Path, two: &Path) -> Result<Comparison, CompareError> {
    let (first, second) = (look(one)?, look(two)?);
    let mut walk = walk::Walk::default();
    walk.opened("", first, second)?;
    Ok(walk.finish())
}

/// A file or folder, taken apart.
fn look(path: &Path) -> Result<(Option<Piece>, Opened), CompareError> {
    let read = |source| CompareError::Read { path: path.to_owned(), source };
    if path.is_dir() {
        return Ok((None, open_folder(path).map_err(read)?));
    }
    let piece = Piece::of_file(path).map_err(read)?;
    let opened = open(&piece).map_err(read)?;
    if matches!(opened, Opened::Plain) {
        let head = piece.head(ext4::HEAD as u64).map_err(read)?;
        let what = match () {
            () if head.is_empty() => "is empty",
            () if ext4::is_marked(&head) => EXT4,
            () => "is nothing that can be taken apart",
        };
        return Err(CompareError::NoImage { path: path.to_owned(), what });
    }
    Ok((Some(piece), opened))
}
