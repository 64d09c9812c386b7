//! The slot image: what the partition IMGA or IMGB holds.
//!
//! Root file system, dm-verity tree, descriptor, unified kernel image, one behind the other, each
//! at a multiple of 4 KiB. [`verity_at`] and [`descriptor_at`] find the descriptor by arithmetic, so a
//! loader needs neither file system code nor the partition's fill. The byte table is in
//! `decisions/0002-slot-layout.md`.

use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};

use crate::field::{le32, le64, put, take, text};
use crate::{ext4, squashfs, verity};

/// Bytes of the descriptor; every part starts at a multiple of it.
pub const BLOCK: u64 = 4096;
/// The version of the descriptor that we write.
pub const FORMAT: u32 = 1;
/// Bytes of a slot's start from which its root file system is told, and how long it is.
pub const HEAD: usize = ext4::HEAD;
/// The largest unified kernel image taken.
pub const UKI_MAX: Bytes = Bytes::gib(1);

const DESCRIPTOR: usize = 4096;
const MAGIC: &[u8; 8] = b"EVESLOT\0";
const SEAL_AT: usize = DESCRIPTOR - 32;
const ARCH: usize = 16;
const VERSION: usize = 256;

/// Where the parts of a slot image lie, and what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Length of the root file system without padding; it starts at 0.
    pub rootfs: Bytes,
    /// Where superblock and tree of dm-verity start: that file system with its padding is in front.
    pub verity_at: Bytes,
    /// Their length.
    pub verity: Bytes,
    /// Where the unified kernel image starts.
    pub uki_at: Bytes,
    /// Its length without padding.
    pub uki: Bytes,
    /// SHA-256 of everything in front of `verity_at`, padding included.
    pub rootfs_digest: Digest,
    /// SHA-256 of the unified kernel image without padding.
    pub uki_digest: Digest,
    /// dm-verity's root hash.
    pub root_hash: Digest,
    /// Architecture as in `eve build --arch`: at most 16 bytes.
    pub arch: String,
    /// Version of the image: at most 256 bytes.
    pub version: String,
}

/// Why a descriptor cannot be written or read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// Fewer bytes than a descriptor has.
    #[error("a slot descriptor has 4096 bytes, got {0}")]
    Short(usize),
    /// No descriptor stands there.
    #[error("there is no slot descriptor")]
    Magic,
    /// Made by a later version of ours.
    #[error("the slot descriptor has format {0}, this program knows {FORMAT}")]
    Format(u32),
    /// The descriptor does not match its own digest.
    #[error("the slot descriptor is damaged")]
    Seal,
    /// A value that cannot be.
    #[error("the slot descriptor's {field} is {value}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        value: String,
    },
}

/// The start of a slot image is not what it must be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocateError {
    /// At the start.
    #[error("the slot does not start with a root file system")]
    Squashfs(#[source] squashfs::ParseError),
    /// At the start, where an ext4 seems to be.
    #[error("the slot does not start with a root file system")]
    Ext4(#[source] ext4::ParseError),
    /// Behind the root file system.
    #[error("the root file system of the slot has no verity tree behind it")]
    Verity(#[source] verity::ParseError),
    /// The tree covers another length than the file system has.
    #[error("the verity tree covers {tree}, the root file system takes {rootfs}")]
    Covers {
        /// What the tree covers.
        tree: Bytes,
        /// What the file system takes, padded.
        rootfs: Bytes,
    },
}

/// How long the root file system is without padding, from the first [`HEAD`] bytes of a slot.
pub fn rootfs(start: &[u8]) -> Result<Bytes, LocateError> {
    // By chance a squashfs holds the mark of an ext4, but no ext4 that of a squashfs: what would be
    // its place is empty there.
    if !start.starts_with(squashfs::MAGIC) && ext4::is_marked(start) {
        let ext4 = ext4::Superblock::parse(start).map_err(LocateError::Ext4)?;
        return Ok(ext4.used);
    }
    let squashfs = squashfs::Superblock::parse(start).map_err(LocateError::Squashfs)?;
    Ok(squashfs.used)
}

/// Where the verity superblock lies, from the first [`HEAD`] bytes of a slot.
pub fn verity_at(start: &[u8]) -> Result<Bytes, LocateError> {
    rootfs(start).map(|used| used.round_up(Bytes(BLOCK)))
}

/// Where the descriptor lies, from [`verity_at`] and the 512 bytes that stand there.
pub fn descriptor_at(verity_at: Bytes, superblock: &[u8]) -> Result<Bytes, LocateError> {
    let verity = verity::Superblock::parse(superblock).map_err(LocateError::Verity)?;
    let tree = Bytes(verity.data_blocks * BLOCK);
    if tree != verity_at {
        return Err(LocateError::Covers { tree, rootfs: verity_at });
    }
    Ok(Bytes(verity_at.0 + verity.total_blocks() * BLOCK))
}

impl Descriptor {
    /// The whole image's length.
    pub fn total(&self) -> Bytes {
        Bytes(self.uki_at.0 + self.uki.round_up(Bytes(BLOCK)).0)
    }

    /// The descriptor as bytes. Fails if a text is too long or the parts do not follow each other.
    pub fn to_bytes(&self) -> Result<Vec<u8>, SlotError> {
        self.check()?;
        let mut bytes = vec![0; DESCRIPTOR];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 8, &FORMAT.to_le_bytes());
        put(&mut bytes, 12, &(BLOCK.to_le_bytes())[..4]);
        let places = [self.rootfs, self.verity_at, self.verity, self.uki_at, self.uki];
        for (at, place) in (16..).step_by(8).zip(places) {
            put(&mut bytes, at, &place.0.to_le_bytes());
        }
        put(&mut bytes, 64, &self.rootfs_digest.0);
        put(&mut bytes, 96, &self.uki_digest.0);
        put(&mut bytes, 128, &self.root_hash.0);
        put(&mut bytes, 160, self.arch.as_bytes());
        put(&mut bytes, 176, self.version.as_bytes());
        let seal = Sha256::digest(&bytes[..SEAL_AT]);
        put(&mut bytes, SEAL_AT, &seal);
        Ok(bytes)
    }

    /// Reads a descriptor.
    pub fn parse(bytes: &[u8]) -> Result<Descriptor, SlotError> {
        let short = || SlotError::Short(bytes.len());
        let bytes = bytes.get(..DESCRIPTOR).ok_or_else(short)?;
        if !bytes.starts_with(MAGIC) {
            return Err(SlotError::Magic);
        }
        let format = le32(bytes, 8).ok_or_else(short)?;
        if format != FORMAT {
            return Err(SlotError::Format(format));
        }
        if Sha256::digest(&bytes[..SEAL_AT])[..] != bytes[SEAL_AT..] {
            return Err(SlotError::Seal);
        }
        let place = |at| le64(bytes, at).map(Bytes).ok_or_else(short);
        let digest = |at| take(bytes, at).map(Digest).ok_or_else(short);
        let words = |field, range: std::ops::Range<usize>| {
            let bad = || SlotError::Field { field, value: "not UTF-8".to_owned() };
            text(&bytes[range]).map(ToOwned::to_owned).ok_or_else(bad)
        };
        let descriptor = Descriptor {
            rootfs: place(16)?,
            verity_at: place(24)?,
            verity: place(32)?,
            uki_at: place(40)?,
            uki: place(48)?,
            rootfs_digest: digest(64)?,
            uki_digest: digest(96)?,
            root_hash: digest(128)?,
            arch: words("architecture", 160..160 + ARCH)?,
            version: words("version", 176..176 + VERSION)?,
        };
        descriptor.check()?;
        Ok(descriptor)
    }

    /// Each part follows the one before it, and texts fit.
    fn check(&self) -> Result<(), SlotError> {
        let field = |field, value: &dyn ToString, good: bool| {
            if good { Ok(()) } else { Err(SlotError::Field { field, value: value.to_string() }) }
        };
        let small = self.rootfs <= squashfs::SIZE_MAX && self.verity <= squashfs::SIZE_MAX;
        field("length", &self.rootfs.0, small)?;
        let padded = self.rootfs.round_up(Bytes(BLOCK));
        field("verity offset", &self.verity_at.0, self.verity_at == padded)?;
        field("verity length", &self.verity.0, self.verity.0.is_multiple_of(BLOCK))?;
        let behind = Bytes(padded.0 + self.verity.0 + BLOCK);
        field("kernel offset", &self.uki_at.0, self.uki_at == behind)?;
        field("kernel length", &self.uki.0, self.uki > Bytes(0) && self.uki <= UKI_MAX)?;
        let clean = |text: &str, max| text.len() <= max && !text.contains('\0');
        field("architecture", &self.arch, clean(&self.arch, ARCH))?;
        field("version", &self.version, clean(&self.version, VERSION))
    }
}
