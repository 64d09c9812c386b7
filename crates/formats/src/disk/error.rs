//! What can go wrong with a disk image.

use std::io;

use model::{Bytes, Diagnose, Diagnosis, Who};

use super::Format;

/// Why bytes are no image of a format, or not one that we read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer bytes than the header has.
    #[error("a {format} header has {need}, got {got}")]
    Short {
        /// Of which format.
        format: Format,
        /// So many.
        need: Bytes,
        /// But so many came.
        got: Bytes,
    },
    /// The signature of the format is not there.
    #[error("there is no {0} signature")]
    Magic(Format),
    /// A value that cannot be.
    #[error("the {format} header's {field} is {value}")]
    Field {
        /// Of which format.
        format: Format,
        /// Which.
        field: &'static str,
        /// What it says.
        value: u64,
    },
    /// Part of the format, but not of what we read.
    #[error("the {format} image {what}, which we do not read")]
    Unsupported {
        /// Of which format.
        format: Format,
        /// What it has, as a verb.
        what: &'static str,
    },
    /// Another program's bytes, that would be nonsense as a raw disk.
    #[error("it is {0}, not a disk that we read")]
    Foreign(&'static str),
}

/// Why a disk was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The header is not one, or not one that we take.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The image could not be read.
    #[error("cannot read the {format} image at {at}")]
    Read {
        /// Its format.
        format: Format,
        /// Offset in bytes in the file.
        at: u64,
        /// Why not.
        source: io::Error,
    },
    /// The new image could not be written.
    #[error("cannot write the {format} image")]
    Write {
        /// Its format.
        format: Format,
        /// Why not.
        source: io::Error,
    },
    /// What the image's tables say cannot be.
    #[error("the {format} image is damaged: its {what} at {at} cannot be")]
    Damaged {
        /// Its format.
        format: Format,
        /// What is wrong.
        what: &'static str,
        /// Offset in bytes in the file.
        at: u64,
    },
    /// The format has no room for such a disk.
    #[error("the disk has {size}, {format} takes up to {max}")]
    TooLarge {
        /// The format.
        format: Format,
        /// The disk.
        size: Bytes,
        /// The limit.
        max: Bytes,
    },
    /// A disk is never cut.
    #[error("the disk has {disk} and does not fit into {size}")]
    Shrink {
        /// The disk.
        disk: Bytes,
        /// What was asked for.
        size: Bytes,
    },
}

impl Error {
    pub(crate) fn read(format: Format, at: u64) -> impl Fn(io::Error) -> Error {
        move |source| Error::Read { format, at, source }
    }

    pub(crate) fn write(format: Format) -> impl Fn(io::Error) -> Error {
        move |source| Error::Write { format, source }
    }
}

impl Diagnose for Error {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self {
            Error::Header(HeaderError::Foreign(_)) => "unpack it first, or give another file",
            Error::Header(HeaderError::Unsupported { .. }) => {
                "turn it into a plain image with the program that made it"
            }
            Error::Header(_) | Error::Damaged { .. } => "get the image again from where it came",
            Error::Read { .. } => "check that the file is whole and may be read",
            Error::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space, or write elsewhere"
            }
            Error::Write { .. } => "check that the path is right and may be written",
            Error::TooLarge { .. } => "choose another format",
            Error::Shrink { .. } => "ask for a larger size, or for none",
        };
        Diagnosis::of(Who::Operator, advice)
    }
}
