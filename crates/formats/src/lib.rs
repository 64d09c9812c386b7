//! Bytes to values and back: disk tables, file systems, archives, executables.
//!
//! No paths, clocks or randomness: seed and time are arguments. Every parser has a bound and a fuzz
//! target.

pub mod cpio;
pub mod deb822;
pub mod disk;
pub mod efi;
pub mod elf;
pub mod ext4;
pub mod fat;
mod field;
pub mod gcp;
pub mod gpt;
mod guess;
pub mod gzip;
pub mod iso;
pub mod layout;
pub mod mbr;
mod parallel;
pub mod parallels;
pub mod qcow2;
pub mod slot;
pub mod squashfs;
pub mod tree;
pub mod uki;
pub mod vdi;
pub mod verity;
pub mod vhdx;
pub mod vmdk;

use std::borrow::Cow;

/// Bytes and where they go. What no extent covers is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent<'a> {
    /// Offset in bytes from the start of the volume.
    pub at: u64,
    /// What stands there.
    pub bytes: Cow<'a, [u8]>,
}
