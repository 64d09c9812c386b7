//! The superblock: enough to say how long an image is and where its tables lie.

use model::Bytes;

use super::{BLOCK_MAX, BLOCK_MIN};
use crate::field::{le16, le32, le64, put};

/// What an image starts with.
pub const MAGIC: &[u8] = b"hsqs";
/// Bytes of the superblock.
pub const SUPERBLOCK: usize = 96;
/// The largest file system taken: far above any slot.
pub const SIZE_MAX: Bytes = Bytes::gib(1024);

/// What the superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Number of files, folders and so on.
    pub inodes: u32,
    /// When it was made, in seconds since 1970.
    pub made: u32,
    /// Size of a data block.
    pub block: Bytes,
    /// How it is compressed.
    pub codec: Codec,
    /// Its length without padding.
    pub used: Bytes,
    /// Number of blocks that hold several small files.
    pub fragments: u32,
    /// Bits that say how it was written.
    pub flags: u16,
    /// Number of different owners and groups.
    pub ids: u16,
    /// Where the inode of the root folder is: in the upper 48 bits where its metadata block starts
    /// in the inode table, in the lower 16 where it starts in that block, unpacked.
    pub root: u64,
    /// Where the tables start.
    pub tables: Tables,
}

/// Where the tables start, in bytes from the superblock; all ones for one that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tables {
    /// Owners and groups.
    pub ids: u64,
    /// Extended attributes.
    pub xattrs: u64,
    /// Inodes.
    pub inodes: u64,
    /// What is in the folders.
    pub folders: u64,
    /// Fragment blocks.
    pub fragments: u64,
    /// Inodes by number.
    pub export: u64,
}

/// Compression methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// zlib.
    Gzip,
    /// LZMA, an old form that kernels do not read.
    Lzma,
    /// LZO.
    Lzo,
    /// xz.
    Xz,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Why bytes are no squashfs superblock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Fewer than 96 bytes.
    #[error("a squashfs superblock has 96 bytes, got {0}")]
    Short(usize),
    /// Another file system.
    #[error("there is no squashfs")]
    Magic,
    /// A value that we do not take.
    #[error("the squashfs superblock's {field} is {value}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        value: u64,
    },
}

/// The codecs in the order of their numbers, from 1.
const CODECS: [Codec; 6] =
    [Codec::Gzip, Codec::Lzma, Codec::Lzo, Codec::Xz, Codec::Lz4, Codec::Zstd];

impl Codec {
    /// Its name as mksquashfs writes it.
    pub fn name(self) -> &'static str {
        match self {
            Codec::Gzip => "gzip",
            Codec::Lzma => "lzma",
            Codec::Lzo => "lzo",
            Codec::Xz => "xz",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

impl Superblock {
    /// Reads the superblock at the start of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Superblock, ParseError> {
        let short = || ParseError::Short(bytes.len());
        let head = bytes.first_chunk::<SUPERBLOCK>().ok_or_else(short)?;
        let long = |at| le64(head, at).ok_or_else(short);
        let word = |at| le32(head, at).ok_or_else(short);
        let half = |at| le16(head, at).ok_or_else(short);
        if !head.starts_with(MAGIC) {
            return Err(ParseError::Magic);
        }
        let field = |field, value: u64, good: bool| {
            if good { Ok(value) } else { Err(ParseError::Field { field, value }) }
        };
        let version = half(28)?;
        field("version", version.into(), version == 4)?;
        let block = word(12)?;
        let in_range = block.is_power_of_two() && (BLOCK_MIN..=BLOCK_MAX).contains(&block);
        field("block size", block.into(), in_range)?;
        let used = Bytes(long(40)?);
        field("length", used.0, (SUPERBLOCK as u64..=SIZE_MAX.0).contains(&used.0))?;
        let codec = half(20)?;
        let known = usize::from(codec).checked_sub(1).and_then(|at| CODECS.get(at));
        let unknown = ParseError::Field { field: "compression", value: codec.into() };
        Ok(Superblock {
            inodes: word(4)?,
            made: word(8)?,
            block: Bytes(block.into()),
            codec: *known.ok_or(unknown)?,
            used,
            fragments: word(16)?,
            flags: half(24)?,
            ids: half(26)?,
            root: long(32)?,
            tables: Tables {
                ids: long(48)?,
                xattrs: long(56)?,
                inodes: long(64)?,
                folders: long(72)?,
                fragments: long(80)?,
                export: long(88)?,
            },
        })
    }

    /// The superblock as it stands at the start of an image.
    pub fn to_bytes(&self) -> [u8; SUPERBLOCK] {
        let mut bytes = [0; SUPERBLOCK];
        let block = u32::try_from(self.block.0).unwrap_or_default();
        let log = u16::try_from(block.trailing_zeros()).unwrap_or_default();
        let codec = CODECS.iter().zip(1u16..).find(|(codec, _)| **codec == self.codec);
        put(&mut bytes, 0, MAGIC);
        for (at, word) in [(4, self.inodes), (8, self.made), (12, block), (16, self.fragments)] {
            put(&mut bytes, at, &word.to_le_bytes());
        }
        let codec = codec.map_or(0, |(_, number)| number);
        let halves = [(20, codec), (22, log), (24, self.flags), (26, self.ids), (28, 4)];
        for (at, half) in halves {
            put(&mut bytes, at, &half.to_le_bytes());
        }
        let tables = &self.tables;
        let longs = [self.root, self.used.0, tables.ids, tables.xattrs, tables.inodes];
        let longs = longs.into_iter().chain([tables.folders, tables.fragments, tables.export]);
        for (long, at) in longs.zip((32..).step_by(8)) {
            put(&mut bytes, at, &long.to_le_bytes());
        }
        bytes
    }
}
