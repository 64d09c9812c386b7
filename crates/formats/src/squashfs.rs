//! The superblock of a squashfs 4.0 file system: enough to say how long it is.

use model::Bytes;

use crate::field::{le16, le32, le64};

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
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
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

impl Superblock {
    /// Reads the superblock at the start of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Superblock, ParseError> {
        let short = || ParseError::Short(bytes.len());
        let head = bytes.first_chunk::<SUPERBLOCK>().ok_or_else(short)?;
        let word = |at| le32(head, at).ok_or_else(short);
        let half = |at| le16(head, at).ok_or_else(short);
        if !head.starts_with(b"hsqs") {
            return Err(ParseError::Magic);
        }
        let field = |field, value: u64, good: bool| {
            if good { Ok(value) } else { Err(ParseError::Field { field, value }) }
        };
        let version = half(28)?;
        field("version", version.into(), version == 4)?;
        let block = Bytes(word(12)?.into());
        let in_range = block.0.is_power_of_two() && (4096..=1 << 20).contains(&block.0);
        field("block size", block.0, in_range)?;
        let used = Bytes(le64(head, 40).ok_or_else(short)?);
        field("length", used.0, (SUPERBLOCK as u64..=SIZE_MAX.0).contains(&used.0))?;
        let codec = match half(20)? {
            1 => Codec::Gzip,
            2 => Codec::Lzma,
            3 => Codec::Lzo,
            4 => Codec::Xz,
            5 => Codec::Lz4,
            6 => Codec::Zstd,
            other => {
                return Err(ParseError::Field { field: "compression", value: other.into() });
            }
        };
        Ok(Superblock { inodes: word(4)?, made: word(8)?, block, codec, used })
    }
}
