//! What can go wrong when one looks into an image.

use std::io;
use std::path::{Path, PathBuf};

use model::{Diagnose, Diagnosis, Who};

use crate::contents::ContentsError;

/// Why one cannot look into an image.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder of builds in which nothing was built.
    #[error("{folder} holds no image: none of {}", .names.join(", "))]
    Empty {
        /// Which folder.
        folder: PathBuf,
        /// What was looked for.
        names: Vec<&'static str>,
    },
    /// Nothing that we know.
    #[error("{path} is nothing that holds a root file system")]
    Unknown {
        /// Which.
        path: PathBuf,
    },
    /// A file system that we make and do not read.
    #[error("the root file system in {path} is an ext4, which is not read here")]
    Ext4 {
        /// Which image.
        path: PathBuf,
    },
    /// It is what it seems, and broken.
    #[error("{path}, {part}: {what}")]
    Broken {
        /// Which.
        path: PathBuf,
        /// What part of it.
        part: String,
        /// What is wrong.
        what: String,
    },
    /// The record beside it cannot be used.
    #[error("cannot use the record of what is in {path}")]
    Contents {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: ContentsError,
    },
}

impl InspectError {
    pub(super) fn read(path: &Path) -> impl Fn(io::Error) -> InspectError {
        move |source| InspectError::Read { path: path.to_owned(), source }
    }
}

impl Diagnose for InspectError {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self {
            InspectError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "check the path, or build an image with `eve build live`"
            }
            InspectError::Read { .. } => "check that the file is whole and may be read",
            InspectError::Empty { .. } => "build an image with `eve build live`",
            InspectError::Unknown { .. } => {
                "give a root file system (tar, squashfs, slot.img), a disk, or a folder of dist"
            }
            InspectError::Ext4 { .. } => {
                "give the rootfs.tar that it was made of: `eve build rootfs`"
            }
            InspectError::Broken { .. } => "make the image again",
            InspectError::Contents { .. } => "remove the record; a build writes it again",
        };
        Diagnosis::of(Who::Operator, advice)
    }
}
