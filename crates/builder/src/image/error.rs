//! What can go wrong on the way to an image.

use std::io;
use std::path::{Path, PathBuf};

use model::{Bytes, Diagnose, Diagnosis, Who};

use super::cache::CacheError;
use super::net::NetError;
use super::{
    BiosError, BoardError, BuildSlotError, ConfigError, ConvertError, DiskError, IsoError,
    RootfsError, SquashfsError,
};
use crate::compose::ComposeError;
use crate::describe::RepositoryError;
use crate::mkfs::MkfsError;
use crate::pkg::PkgError;
use crate::sizes::{LimitError, NoRoom, TooLarge};

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no description of it, or none for such a machine.
    #[error(transparent)]
    Describe(#[from] RepositoryError),
    /// A package was not built.
    #[error("cannot build the packages")]
    Packages(#[from] PkgError),
    /// The root file system was not composed.
    #[error("cannot compose the root file system")]
    Compose(#[from] ComposeError),
    /// A package that was built cannot be read.
    #[error("cannot use the package {package}")]
    Package {
        /// Its image.
        package: String,
        /// Why not.
        source: store::StoreError,
    },
    /// A package does not hold what is taken from it.
    #[error("the package {package} has no {file}")]
    NoFile {
        /// Its image.
        package: String,
        /// The file that was looked for.
        file: String,
    },
    /// The root file system cannot be read.
    #[error("cannot use the root file system")]
    Rootfs(#[from] RootfsError),
    /// It cannot be packed.
    #[error("cannot pack the root file system")]
    Squashfs(#[from] SquashfsError),
    /// It cannot be an ext4.
    #[error("cannot make an ext4 of the root file system")]
    Mkfs(#[from] MkfsError),
    /// No slot image.
    #[error("cannot make the slot")]
    Slot(#[from] BuildSlotError),
    /// No CONFIG partition.
    #[error("cannot fill the CONFIG partition")]
    Config(#[from] ConfigError),
    /// No disk.
    #[error("cannot make the disk")]
    Disk(#[from] DiskError),
    /// No disk of another format.
    #[error("cannot convert the disk")]
    Convert(#[from] ConvertError),
    /// No ISO.
    #[error("cannot make the ISO")]
    Iso(#[from] IsoError),
    /// No archive for a server.
    #[error("cannot make the archive for a boot server")]
    Net(#[from] NetError),
    /// The firmware of a board is not as it must be.
    #[error("cannot use the firmware of the platform")]
    Board(#[from] BoardError),
    /// No boot loader for BIOS machines.
    #[error("cannot make the disk bootable by a BIOS")]
    Bios(#[from] BiosError),
    /// The cache of steps cannot be used.
    #[error("cannot use the build cache")]
    Cache(#[from] CacheError),
    /// It is larger than it may be.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// It is larger than its place.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The virtual disk was to be smaller than what goes onto it.
    #[error("a disk of {asked} is too small: {name} takes {takes}")]
    Media {
        /// What was asked for.
        asked: Bytes,
        /// The disk.
        name: &'static str,
        /// What it takes.
        takes: Bytes,
    },
    /// What it may be cannot be told.
    #[error("cannot use {path}")]
    Limits {
        /// The rules.
        path: PathBuf,
        /// Why not.
        source: LimitError,
    },
    /// Some other file.
    #[error("cannot {doing} {path}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The facts could not be written.
    #[error("cannot note what was built")]
    Save(#[from] store::SaveError),
}

impl ImageError {
    pub(super) fn file(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> ImageError {
        move |source| ImageError::File { doing, path: path.to_owned(), source }
    }
}

impl Diagnose for ImageError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            ImageError::Describe(cause) => cause.diagnose(),
            ImageError::Packages(cause) => cause.diagnose(),
            ImageError::Compose(cause) => cause.diagnose(),
            ImageError::Rootfs(cause) => cause.diagnose(),
            ImageError::Squashfs(cause) => cause.diagnose(),
            ImageError::Mkfs(cause) => cause.diagnose(),
            ImageError::Slot(cause) => cause.diagnose(),
            ImageError::Config(cause) => cause.diagnose(),
            ImageError::Disk(cause) => cause.diagnose(),
            ImageError::Convert(cause) => cause.diagnose(),
            ImageError::Iso(cause) => cause.diagnose(),
            ImageError::Net(cause) => cause.diagnose(),
            ImageError::Board(cause) => cause.diagnose(),
            ImageError::Bios(cause) => cause.diagnose(),
            ImageError::Cache(cause) => cause.diagnose(),
            ImageError::Package { .. } => Diagnosis::of(
                Who::Operator,
                "remove the folder oci in the build cache; it is filled again",
            ),
            ImageError::NoFile { .. } => {
                Diagnosis::of(Who::Operator, "give the file itself: --stub, --ipxe")
            }
            ImageError::TooLarge(cause) => cause.diagnose(),
            ImageError::NoRoom(cause) => cause.diagnose(),
            ImageError::Media { takes, .. } => Diagnosis::of(
                Who::Operator,
                format!(
                    "give {} MiB or more (--media-size, MEDIA_SIZE), or choose a smaller --profile",
                    takes.0.div_ceil(1 << 20),
                ),
            ),
            ImageError::Limits { .. } => Diagnosis::of(Who::Operator, "correct the rules"),
            ImageError::File { .. } | ImageError::Save(_) => {
                Diagnosis::of(Who::Operator, "check that the path is right and may be used")
            }
        }
    }
}
