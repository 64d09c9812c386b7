//! What can go wrong with content, and who can act.

use std::io;
use std::path::PathBuf;

use model::{Bytes, Diagnose, Diagnosis, Digest, Who};

use crate::SaveError;

/// What failed in a content store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// The operation, as a verb.
        doing: &'static str,
        /// Its object.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file could not be replaced.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The folder is no OCI layout.
    #[error("{path} is no OCI layout: {why}")]
    NoLayout {
        /// The folder.
        path: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// A blob that something refers to is not there.
    #[error("blob {digest} is not in {root}")]
    Missing {
        /// The blob.
        digest: Digest,
        /// The layout.
        root: PathBuf,
    },
    /// A stored blob is not what its name says.
    #[error("blob {digest} in {root} is corrupt: its bytes make {got}")]
    Corrupt {
        /// The blob.
        digest: Digest,
        /// The layout.
        root: PathBuf,
        /// What its bytes make.
        got: Digest,
    },
    /// A stored blob has another size than its descriptor says.
    #[error("blob {digest} holds {} bytes, its descriptor says {}", got.0, want.0)]
    WrongSize {
        /// The blob.
        digest: Digest,
        /// The size of the file.
        got: Bytes,
        /// The size that the descriptor names.
        want: Bytes,
    },
    /// Bytes that were written are not the ones expected.
    #[error("received content makes {got}, expected {want}")]
    Mismatch {
        /// What was expected.
        want: Digest,
        /// What the bytes make.
        got: Digest,
    },
    /// More bytes than the reader allows.
    #[error("{what} is larger than {limit}")]
    TooLong {
        /// Which content.
        what: String,
        /// The most we take.
        limit: Bytes,
    },
    /// A JSON document that is not of its kind.
    #[error("cannot read {what}")]
    Parse {
        /// Which document.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A document that is JSON of its kind and still makes no sense.
    #[error("{what}: {why}")]
    Nonsense {
        /// Which document.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// No reference of that name.
    #[error("image {name} is not in {root}")]
    NoImage {
        /// The full name that was looked for.
        name: String,
        /// The layout.
        root: PathBuf,
    },
    /// The image exists, for other machines.
    #[error("image {name} is for {have}, not for {want}")]
    NoPlatform {
        /// The image.
        name: String,
        /// The platform that was asked for.
        want: String,
        /// The platforms it has.
        have: String,
    },
    /// A layer's archive is damaged or hostile.
    #[error("layer {layer}: {why}")]
    Layer {
        /// The layer's blob.
        layer: Digest,
        /// What is wrong, with the member's name where one is to blame.
        why: String,
    },
    /// A layer's archive could not be read or a member not be written.
    #[error("layer {layer}: cannot {doing} {member}")]
    Member {
        /// The layer's blob.
        layer: Digest,
        /// The operation, as a verb.
        doing: &'static str,
        /// The member's path in the layer.
        member: String,
        /// The operating system's or the decompressor's reason.
        source: io::Error,
    },
}

impl StoreError {
    /// For `map_err`: what was being done, to what.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.into();
        move |source| StoreError::Io { doing, path, source }
    }
}

impl Diagnose for StoreError {
    fn diagnose(&self) -> Diagnosis {
        use Who::{Developer, Hardware, Network, Operator};
        let full = |e: &io::Error| e.kind() == io::ErrorKind::StorageFull;
        match self {
            Self::Io { source, .. } | Self::Member { source, .. } if full(source) => {
                Diagnosis::of(Operator, "free space on this disk, or give it more")
            }
            Self::Save(e) if full(e.io()) => {
                Diagnosis::of(Operator, "free space on this disk, or give it more")
            }
            Self::Io { .. } | Self::Member { .. } | Self::Save(_) => {
                Diagnosis::of(Hardware, "check the disk if this repeats")
            }
            Self::NoLayout { .. } => Diagnosis::of(Operator, "name the folder of an OCI layout"),
            Self::Missing { .. } | Self::NoImage { .. } => {
                Diagnosis::of(Operator, "build, pull or import the image first")
            }
            Self::Corrupt { .. } | Self::WrongSize { .. } => {
                Diagnosis::of(Hardware, "remove the blob and fetch it again; check the disk")
            }
            Self::Mismatch { .. } => {
                Diagnosis::of(Network, "the source sends other bytes than it announced: check it")
            }
            Self::TooLong { .. } => Diagnosis::of(Operator, "use a smaller image"),
            Self::NoPlatform { .. } => {
                Diagnosis::of(Operator, "choose an image built for this architecture")
            }
            Self::Parse { .. } | Self::Nonsense { .. } | Self::Layer { .. } => {
                Diagnosis::of(Developer, "whoever built the image must repair it")
            }
        }
    }
}
