//! dm-verity: a tree of SHA-256 hashes over the blocks of a file system, and its superblock
//! (version 1, as `veritysetup` writes it; kernel documentation, device-mapper/verity).
//!
//! Blocks of data and of hashes have 4096 bytes. Nothing else is written or taken.

use std::io::{self, Read};
use std::num::NonZero;

use model::Digest;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::field::{le16, le32, le64, put, take, text};
use crate::parallel;

/// Bytes of a block, of data as of hashes.
pub const BLOCK: usize = 4096;
/// The most data that is taken: 4 TiB.
pub const DATA_BLOCKS_MAX: u64 = 1 << 30;

/// Hashes in a block, as a power of two.
const FAN_OUT_BITS: u32 = 7;
const HASH: usize = 32;
/// What a thread hashes at a time: whole blocks.
const PIECE: usize = 256 * BLOCK;
const SALT_MAX: usize = 256;

/// The superblock of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Identifies the tree; means nothing to the kernel.
    pub uuid: Uuid,
    /// How many blocks of data there are.
    pub data_blocks: u64,
    /// Goes into every hash; at most 256 bytes.
    pub salt: Vec<u8>,
}

/// A finished tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// What the tree is.
    pub superblock: Superblock,
    /// The hash that vouches for all data.
    pub root: Digest,
    /// The superblock in a block of its own, then the levels from the top.
    pub bytes: Vec<u8>,
}

/// Why bytes are no superblock that we take.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Fewer bytes than it has.
    #[error("a verity superblock has 512 bytes, got {0}")]
    Short(usize),
    /// None of dm-verity.
    #[error("there is no verity superblock")]
    Magic,
    /// A value that we do not take.
    #[error("the verity superblock's {field} is {value}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        value: u64,
    },
}

/// Data that cannot get a tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Not whole blocks, none, or too many.
    #[error("{0} bytes are no whole number of blocks between 1 and {DATA_BLOCKS_MAX}")]
    Length(u64),
    /// It cannot be read.
    #[error("cannot read the data")]
    Read(#[from] io::Error),
}

impl Superblock {
    /// Reads a superblock.
    pub fn parse(bytes: &[u8]) -> Result<Superblock, ParseError> {
        let short = || ParseError::Short(bytes.len());
        let head = bytes.first_chunk::<512>().ok_or_else(short)?;
        if !head.starts_with(b"verity\0\0") {
            return Err(ParseError::Magic);
        }
        let field = |field, value: u64, good: bool| {
            if good { Ok(value) } else { Err(ParseError::Field { field, value }) }
        };
        let word = |at| le32(head, at).map(u64::from).ok_or_else(short);
        field("version", word(8)?, word(8)? == 1)?;
        field("hash type", word(12)?, word(12)? == 1)?;
        if text(&head[32..64]) != Some("sha256") {
            return Err(ParseError::Field { field: "algorithm", value: 0 });
        }
        for (name, at) in [("data block size", 64), ("hash block size", 68)] {
            field(name, word(at)?, word(at)? == BLOCK as u64)?;
        }
        let data_blocks = le64(head, 72).ok_or_else(short)?;
        field("number of blocks", data_blocks, (1..=DATA_BLOCKS_MAX).contains(&data_blocks))?;
        let salt = usize::from(le16(head, 80).ok_or_else(short)?);
        field("salt length", salt as u64, salt <= SALT_MAX)?;
        Ok(Superblock {
            uuid: Uuid::from_bytes(take(head, 16).ok_or_else(short)?),
            data_blocks,
            salt: head[88..88 + salt].to_vec(),
        })
    }

    /// Blocks of the tree, the superblock's own included.
    pub fn total_blocks(&self) -> u64 {
        1 + levels(self.data_blocks).into_iter().sum::<u64>()
    }

    /// The superblock as bytes, padded to a block.
    fn to_block(&self) -> Vec<u8> {
        let size = (BLOCK as u64).to_le_bytes();
        let salt = (self.salt.len() as u64).to_le_bytes();
        let mut block = vec![0; BLOCK];
        put(&mut block, 0, b"verity\0\0");
        put(&mut block, 8, &1u32.to_le_bytes());
        put(&mut block, 12, &1u32.to_le_bytes());
        put(&mut block, 16, self.uuid.as_bytes());
        put(&mut block, 32, b"sha256");
        put(&mut block, 64, &size[..4]);
        put(&mut block, 68, &size[..4]);
        put(&mut block, 72, &self.data_blocks.to_le_bytes());
        put(&mut block, 80, &salt[..2]);
        put(&mut block, 88, &self.salt);
        block
    }
}

/// Makes the tree over all that `data` gives, with so many threads; their number shows in nothing.
///
/// `salt` and `uuid` make trees of equal data differ; take both from the data to have the same tree
/// each time.
pub fn tree_of(
    data: &mut dyn Read,
    uuid: Uuid,
    salt: [u8; 32],
    threads: NonZero<usize>,
) -> Result<Tree, TreeError> {
    let salted = Sha256::new_with_prefix(salt);
    let (mut length, mut hashes) = (0, Vec::new());
    let next = || {
        let mut piece = Vec::with_capacity(PIECE);
        data.take(PIECE as u64).read_to_end(&mut piece)?;
        length += piece.len() as u64;
        Ok((!piece.is_empty()).then_some(piece))
    };
    let work = || |piece: Vec<u8>| level_of(&piece, &salted);
    let take_level = |level: Vec<u8>| {
        hashes.extend(level);
        Ok::<_, TreeError>(())
    };
    parallel::in_order(threads, next, work, take_level)?;
    let data_blocks = length / BLOCK as u64;
    if length % BLOCK as u64 != 0 || !(1..=DATA_BLOCKS_MAX).contains(&data_blocks) {
        return Err(TreeError::Length(length));
    }
    // Level by level upward; a level of one block is vouched for by the root hash.
    let mut levels = Vec::new();
    while hashes.len() > HASH {
        let mut level = hashes;
        level.resize(level.len().next_multiple_of(BLOCK), 0);
        hashes = level_of(&level, &salted);
        levels.push(level);
    }
    let root = Digest(take(&hashes, 0).ok_or(TreeError::Length(length))?);
    let superblock = Superblock { uuid, data_blocks, salt: salt.to_vec() };
    let mut bytes = superblock.to_block();
    levels.iter().rev().for_each(|level| bytes.extend_from_slice(level));
    Ok(Tree { superblock, root, bytes })
}

/// The hashes of whole blocks, one after the other.
fn level_of(blocks: &[u8], salted: &Sha256) -> Vec<u8> {
    let hash = |block| salted.clone().chain_update(block).finalize();
    blocks.chunks_exact(BLOCK).flat_map(hash).collect()
}

/// Blocks of each level, the lowest first. None over a single block of data: its hash is the root.
fn levels(data_blocks: u64) -> Vec<u64> {
    let up = |below: &u64| (*below > 1).then(|| below.div_ceil(1 << FAN_OUT_BITS));
    std::iter::successors(up(&data_blocks), up).collect()
}
