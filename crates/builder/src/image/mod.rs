//! Images: a root file system to slot images, CONFIG volumes and live disks.
//!
//! ```text
//! packages ─▶ composition ─▶ tree ─▶ squashfs or ext4 ─▶ slot.img ─▶ live.raw ─▶ live.qcow2
//!                 │            └──▶ initrd, kernel ─▶ UKI ──┘   ▲
//!                 └──▶ rootfs.tar, for those who ask for it     │
//! conf/ ─▶ config.img ──────────────────────────────────────────┘
//! ```
//!
//! [`rootfs`], [`slot`], [`config`] and [`live`] each go as far as their name says and return
//! [`Facts`]. The expensive steps are kept by the digest of what went in (see [`cache`]); the same
//! inputs give the same bytes, with the cache or without. Packages and composition are made
//! elsewhere; this module asks for them.

/// What the makers of single file systems share with images.
pub(crate) mod mkfs {
    pub(crate) use super::disk::own_name;
    pub(crate) use super::rootfs::{Archive, Offset, RootfsError};
    pub(crate) use super::squashfs::{Recipe, SquashfsError, write_keeping as write_squashfs};
}

mod account;
mod bios;
mod blocks;
mod boards;
pub mod cache;
mod config;
pub mod convert;
mod disk;
mod error;
mod esp;
mod grub;
mod initrd;
mod installer;
mod iso;
mod known;
mod machine;
mod names;
pub mod net;
mod pipeline;
mod rootfs;
mod slot;
mod slots;
mod source;
mod squashfs;
mod update;
mod version;

use std::path::PathBuf;

use formats::fat::Files;
use formats::layout::Profile;
use formats::squashfs::Method;
use model::{Bytes, Digest};

use crate::describe::Selection;

pub use crate::pkg::{Arch, Progress};
pub use bios::BiosError;
pub use boards::{Board, BoardError, Boards};
pub use config::{ConfigError, edit_config, get_config, read_folder, set_config};
pub use convert::{ConvertError, Format};
pub use disk::DiskError;
pub use error::ImageError;
pub use grub::GrubError;
pub use initrd::InitrdError;
pub use iso::IsoError;
pub use known::Unusable;
pub use machine::arch_of;
pub use pipeline::{config, installer, live, rootfs, slot, usb_config};
pub use rootfs::RootfsError;
pub use slot::{BuildSlotError, SlotFacts};
pub use slots::{SlotMark, SlotState, SlotsError, set_slots, slots};
pub use squashfs::SquashfsError;
pub use version::{Flavor, State, StateError, ask, full_version, version};

/// What is to be built.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where the repository lies: recipes, `images/`, `conf/`.
    pub repository: PathBuf,
    /// What can be made again: finished steps, packages.
    pub cache: PathBuf,
    /// Where `<arch>/<version>/` comes to lie.
    pub out: PathBuf,
    /// Which machines it is for.
    pub arch: Arch,
    /// The hypervisor: `kvm`.
    pub hv: String,
    /// The platform: `generic`.
    pub platform: String,
    /// Sizes of the disk's partitions.
    pub profile: Profile,
    /// Folders with the firmware of boards; in each later one a file counts more.
    pub firmware: Vec<PathBuf>,
    /// Whether the licences of that firmware are accepted.
    pub accept_licence: bool,
    /// With the debug package, and lines of the services on the console.
    pub debug: bool,
    /// An image with another kernel than the platform's.
    pub kernel: Option<String>,
    /// A kernel that takes the place of that in the kernel's image.
    pub kernel_image: Option<PathBuf>,
    /// Its version.
    pub version: String,
    /// Where the root file system comes from.
    pub source: Source,
    /// The root file system of an installer, a tar in linuxkit layout; what it installs is added.
    /// `None`: that of `images/`.
    pub installer: Option<PathBuf>,
    /// systemd's EFI stub. `None`: that of the package `uefi`.
    pub stub: Option<PathBuf>,
    /// iPXE as a program of UEFI. `None`: that of the package `ipxe`.
    pub ipxe: Option<PathBuf>,
    /// The folder i386-pc of GRUB, for machines with a BIOS. `None`: that of the package `grub`, if
    /// the image is made of packages and for amd64.
    pub grub: Option<PathBuf>,
    /// Folders of files for the CONFIG partition; the last that has a file counts.
    pub conf: Vec<PathBuf>,
    /// Single files for it, which count more.
    pub set: Files,
    /// What becomes of the disk.
    pub formats: Vec<Format>,
    /// Whether a live disk that is there is changed into what it would be if it were built anew.
    pub update: bool,
    /// Size of a virtual disk. `None`: that of the profile.
    pub media: Option<Bytes>,
    /// All times that are not those of files, in seconds since 1970. `None`: the latest time of a
    /// file in the root file system.
    pub time: Option<u64>,
    /// How hard the root file system is packed, if it is.
    pub packing: Packing,
    /// The file system that the root of the node is; that of an installer is always packed.
    pub root: RootFormat,
}

impl Request {
    /// For what machine it is.
    pub fn selection(&self) -> Selection {
        Selection {
            arch: self.arch.name().to_owned(),
            hv: self.hv.clone(),
            platform: self.platform.clone(),
            dev: self.debug,
            version: Some(full_version(&self.version, &self.hv, self.arch.name())),
            kernel: self.kernel.clone(),
        }
    }
}

/// Where a root file system comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The packages and `images/` of the repository.
    Compose {
        /// Whether pinned packages that have vanished are an error.
        locked: bool,
    },
    /// This tar in linuxkit layout.
    Tar(PathBuf),
}

/// The file system that the root of a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RootFormat {
    /// squashfs: packed.
    #[default]
    Squash,
    /// ext4 without a journal: not packed, and read only all the same, since dm-verity guards it.
    Ext4,
}

/// How hard something is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// For trying things out: a tenth larger, several times faster.
    Fast,
    /// For images that travel.
    Small,
}

impl Packing {
    fn method(self) -> Method {
        match self {
            Packing::Fast => Method::Zstd(3),
            Packing::Small => Method::Zstd(15),
        }
    }
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Facts {
    /// Its version.
    pub version: String,
    /// Which machines it is for.
    pub arch: Arch,
    /// The folder of the files.
    pub folder: PathBuf,
    /// The files that were written, in the order of their making.
    pub files: Vec<FileFacts>,
    /// The slot image, if one was made.
    pub slot: Option<SlotFacts>,
    /// The steps that led there.
    pub steps: Vec<StepFacts>,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FileFacts {
    /// Its name in the folder.
    pub name: String,
    /// Its size; a disk's includes its holes.
    pub size: Bytes,
    /// What it hashes to, where that is known.
    pub digest: Option<Digest>,
}

/// A step that was done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StepFacts {
    /// What it was.
    pub name: String,
    /// How long it took.
    pub millis: u64,
    /// Whether the result was there already.
    pub cached: bool,
}
