//! ext4: enough of a superblock to say how long a file system is. `builder::mkfs` has them written by
//! e2fsprogs.

use model::Bytes;

use crate::field::{le16, le32};

/// Bytes from the start of a file system to the end of its superblock.
pub const HEAD: usize = 2048;
/// The largest file system taken: far above any slot.
pub const SIZE_MAX: Bytes = Bytes::gib(1024);

const SUPERBLOCK: usize = 1024;
const MAGIC: u16 = 0xef53;
/// The bit of the incompatible features that gives the number of blocks an upper half.
const IS_64_BIT: u32 = 0x80;

/// What the superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Size of a block: 1 KiB to 64 KiB.
    pub block: Bytes,
    /// Length of the file system, a whole number of blocks.
    pub used: Bytes,
}

/// Why bytes are no ext4 superblock that we take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Fewer than [`HEAD`] bytes.
    #[error("the superblock of an ext4 ends at 2048 bytes, got {0}")]
    Short(usize),
    /// Another file system.
    #[error("there is no ext4")]
    Magic,
    /// A value that cannot be.
    #[error("the ext4 superblock's {field} is {value}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        value: u64,
    },
}

/// Whether the mark of an ext4 (or of its older relatives) stands where it should.
pub fn is_marked(start: &[u8]) -> bool {
    le16(start, SUPERBLOCK + 0x38) == Some(MAGIC)
}

impl Superblock {
    /// Reads the superblock from the first [`HEAD`] bytes of a file system.
    pub fn parse(start: &[u8]) -> Result<Superblock, ParseError> {
        let short = || ParseError::Short(start.len());
        let head = start.get(SUPERBLOCK..HEAD).ok_or_else(short)?;
        if !is_marked(start) {
            return Err(ParseError::Magic);
        }
        let word = |at| le32(head, at).map(u64::from).ok_or_else(short);
        let power = word(0x18)?;
        if power > 6 {
            return Err(ParseError::Field { field: "block size", value: power });
        }
        let block = 1024 << power;
        let upper = if word(0x60)? & u64::from(IS_64_BIT) == 0 { 0 } else { word(0x150)? };
        let blocks = upper << 32 | word(0x4)?;
        let used = blocks.checked_mul(block).map(Bytes).filter(|used| *used <= SIZE_MAX);
        match used {
            Some(used) if used > Bytes(0) => Ok(Superblock { block: Bytes(block), used }),
            _ => Err(ParseError::Field { field: "number of blocks", value: blocks }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::put;

    /// The start of a file system of so many blocks of 1024 << `power` bytes.
    fn start(power: u32, low: u32, high: u32, features: u32) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        put(&mut bytes, 1024 + 0x38, &MAGIC.to_le_bytes());
        for (at, word) in [(0x18, power), (0x4, low), (0x60, features), (0x150, high)] {
            put(&mut bytes, 1024 + at, &word.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_file_system_is_as_long_as_its_blocks() {
        let used = |bytes: &[u8]| Superblock::parse(bytes).map(|s| s.used);
        assert_eq!(used(&start(2, 1000, 0, 0)), Ok(Bytes(4_096_000)));
        assert_eq!(
            used(&start(0, 7, 5, 0x40)),
            Ok(Bytes(7168)),
            "without the feature, no upper half"
        );
        assert_eq!(used(&start(0, 7, 0, 0x80)), Ok(Bytes(7168)));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let check = |bytes: &[u8], want| assert_eq!(Superblock::parse(bytes), Err(want));
        let blocks = |value| ParseError::Field { field: "number of blocks", value };
        check(&[0; 2047], ParseError::Short(2047));
        check(&[0; 4096], ParseError::Magic);
        check(&start(7, 1, 0, 0), ParseError::Field { field: "block size", value: 7 });
        check(&start(2, 0, 0, 0), blocks(0));
        check(&start(6, 1, u32::MAX, 0x80), blocks(u64::from(u32::MAX) << 32 | 1));
    }
}
