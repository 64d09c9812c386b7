//! What can go wrong in a composition.

use std::io;
use std::path::PathBuf;

use model::{Diagnose, Diagnosis, Who};
use store::StoreError;

use super::yaml::Place;

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComposeError {
    /// A mistake at a place in a file.
    #[error("{file}:{line}:{column}: {why}")]
    At {
        /// The file.
        file: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong.
        why: String,
    },
    /// A mistake of a whole file.
    #[error("{file}: {why}")]
    File {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// An image that nobody has brought.
    #[error(
        "{location}: image {image} is not in {}: build it with `eve pkg build`, or bring it with \
         `--image FILE.oci.tar`", root.display()
    )]
    NoImage {
        /// Where the description names it: `init[0]`.
        location: String,
        /// Its full name.
        image: String,
        /// Where it was looked for.
        root: PathBuf,
    },
    /// An image that cannot be used.
    #[error("{location}: cannot use {image}")]
    Image {
        /// Where the description names it: `init[0]`.
        location: String,
        /// Its full name.
        image: String,
        /// Why not.
        source: Box<StoreError>,
    },
    /// Something that the description says and that makes no sense.
    #[error("{location}: {why}")]
    Nonsense {
        /// Where: `services[0] (pillar)`.
        location: String,
        /// What is wrong.
        why: String,
    },
    /// A file of this machine that the description wants to have.
    #[error("{location}: cannot read {}", path.display())]
    Source {
        /// Where: `files[0]`.
        location: String,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A member could not be written.
    #[error("{location}: cannot put {member} into the archive")]
    Write {
        /// What it belongs to.
        location: String,
        /// The member's path.
        member: String,
        /// The reason.
        source: io::Error,
    },
}

impl ComposeError {
    pub(super) fn at(file: &str, at: Place, why: &str) -> ComposeError {
        let (file, why) = (file.to_owned(), why.to_owned());
        ComposeError::At { file, line: at.line, column: at.column, why }
    }
}

impl Diagnose for ComposeError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::At { .. } | Self::File { .. } | Self::Nonsense { .. } => {
                Diagnosis::of(Who::Operator, "correct the description")
            }
            Self::NoImage { .. } => Diagnosis::of(Who::Operator, "build or import the image"),
            Self::Image { source, .. } => source.diagnose(),
            Self::Source { .. } => {
                Diagnosis::of(Who::Operator, "name a file that can be read, or make it optional")
            }
            Self::Write { .. } => {
                Diagnosis::of(Who::Operator, "check the disk that the archive is written to")
            }
        }
    }
}
