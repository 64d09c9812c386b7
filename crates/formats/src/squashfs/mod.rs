//! squashfs 4.0: a packed file system that is only read.
//!
//! ```text
//! superblock · codec options · data blocks and fragment blocks · inodes · folders ·
//! fragment table · export table · owner table · xattr tables
//! ```
//!
//! [`write()`] makes one of a [tree](crate::tree), [`Image`] reads one as a tree, [`Superblock`] alone
//! tells how long one is.
//! Versions before 4.0 and big-endian images are refused.
//!
//! Format: Linux `Documentation/filesystems/squashfs.rst` and `fs/squashfs/squashfs_fs.h`.

mod superblock;

#[cfg(feature = "squashfs")]
mod data;
#[cfg(feature = "squashfs")]
mod digests;
#[cfg(feature = "squashfs")]
mod inode;
#[cfg(feature = "squashfs")]
mod meta;
#[cfg(feature = "squashfs")]
mod pack;
#[cfg(feature = "squashfs")]
mod plan;
#[cfg(feature = "squashfs")]
mod read;
#[cfg(feature = "squashfs")]
mod write;
#[cfg(feature = "squashfs")]
mod xattr;

pub use superblock::{Codec, MAGIC, ParseError, SIZE_MAX, SUPERBLOCK, Superblock, Tables};

#[cfg(feature = "squashfs")]
pub use data::{Blocks, Form};
#[cfg(feature = "squashfs")]
pub use pack::{Method, PackError};
#[cfg(feature = "squashfs")]
pub use read::{Image, MEMORY_MAX, Place, ReadError};
#[cfg(feature = "squashfs")]
pub use write::{Facts, Options, WriteError, write};

/// The smallest data blocks in bytes. Powers of two from here to [`BLOCK_MAX`] are valid.
pub const BLOCK_MIN: u32 = 4096;
/// The largest data blocks in bytes.
pub const BLOCK_MAX: u32 = 1 << 20;

#[cfg(feature = "squashfs")]
mod number {
    //! Numbers that reader and writer share.

    /// A table or block that is not there.
    pub(super) const NONE: u64 = u64::MAX;
    /// No fragment, or no extended attributes.
    pub(super) const NOWHERE: u32 = u32::MAX;
    /// In the size of a data block: its bytes stand there as they are.
    pub(super) const STORED: u32 = 1 << 24;
    /// Metadata comes in blocks of this many bytes before packing.
    pub(super) const META: usize = 8192;
    /// The same.
    pub(super) const META_SIZE: u32 = 8192;
    /// In the size of a metadata block: its bytes stand there as they are.
    pub(super) const META_STORED: u16 = 1 << 15;
    /// Prefixes of the names of extended attributes, by their number.
    pub(super) const XATTR_PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

    // Kinds of inodes. Those with more fields have `MORE` added.
    pub(super) const FOLDER: u16 = 1;
    pub(super) const FILE: u16 = 2;
    pub(super) const SYMLINK: u16 = 3;
    pub(super) const BLOCK: u16 = 4;
    pub(super) const CHAR: u16 = 5;
    pub(super) const FIFO: u16 = 6;
    pub(super) const SOCKET: u16 = 7;
    pub(super) const MORE: u16 = 7;
}
