//! Metadata of an image, block by block as it is asked for.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use super::unpack::unpack;
use super::{ReadError, damaged};
use crate::squashfs::Superblock;
use crate::squashfs::number::{META, META_STORED};

/// Unpacked metadata blocks that are kept: a listing and the inodes it names are near each other.
const KEEP: usize = 256;

/// The bytes of an image and the metadata blocks that were looked at last.
#[derive(Debug)]
pub(super) struct Source<R> {
    input: R,
    /// Where the image starts in the input.
    base: u64,
    /// Its length.
    used: u64,
    superblock: Superblock,
    blocks: HashMap<u64, Block>,
    uses: u64,
}

#[derive(Debug)]
struct Block {
    bytes: Arc<Vec<u8>>,
    /// Where the block behind it starts.
    next: u64,
    used: u64,
}

/// A place in the metadata that moves on as it is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    /// Where its block starts, from the start of the image.
    block: u64,
    offset: usize,
}

impl Cursor {
    /// The place in the table at `table` that a reference means: the block in the upper 48 bits,
    /// the offset in the lower 16.
    pub(super) fn new(table: u64, reference: u64) -> Result<Cursor, ReadError> {
        let block =
            table.checked_add(reference >> 16).ok_or_else(|| damaged("reference", table))?;
        let offset = usize::try_from(reference & 0xffff).unwrap_or(META);
        if offset >= META {
            return Err(damaged("reference", block));
        }
        Ok(Cursor { block, offset })
    }
}

impl<R: Read + Seek> Source<R> {
    pub(super) fn new(input: R, base: u64, superblock: Superblock) -> Source<R> {
        let used = superblock.used.0;
        Source { input, base, used, superblock, blocks: HashMap::new(), uses: 0 }
    }

    /// Bytes of the image as they stand there.
    pub(super) fn raw(&mut self, at: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let end = at.checked_add(length as u64).filter(|end| *end <= self.used);
        end.ok_or_else(|| damaged("block outside of the image", at))?;
        let mut bytes = vec![0; length];
        let read = |source| ReadError::Read { at, source };
        let from = SeekFrom::Start(self.base.saturating_add(at));
        self.input.seek(from).map_err(read)?;
        self.input.read_exact(&mut bytes).map_err(read)?;
        Ok(bytes)
    }

    /// The next `length` bytes of metadata.
    pub(super) fn read(&mut self, at: &mut Cursor, length: usize) -> Result<Vec<u8>, ReadError> {
        // Grows with what is there, not with what a number says.
        let mut bytes = Vec::with_capacity(length.min(META));
        while bytes.len() < length {
            let (block, next) = self.block(at.block)?;
            let here = block.get(at.offset..).filter(|here| !here.is_empty());
            let here = here.ok_or_else(|| damaged("metadata", at.block))?;
            let here = &here[..here.len().min(length - bytes.len())];
            bytes.extend_from_slice(here);
            at.offset += here.len();
            if at.offset == block.len() {
                *at = Cursor { block: next, offset: 0 };
            }
        }
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self, at: &mut Cursor) -> Result<[u8; N], ReadError> {
        let start = at.block;
        self.read(at, N)?.try_into().map_err(|_| damaged("metadata", start))
    }

    /// Entry `number` of a table that is found through an index of its blocks: `size` bytes.
    pub(super) fn entry<const N: usize>(
        &mut self,
        index: u64,
        number: u64,
    ) -> Result<[u8; N], ReadError> {
        let at = number.saturating_mul(N as u64);
        let (block, offset) = (at / META as u64, at % META as u64);
        let place = index.saturating_add(block.saturating_mul(8));
        let start = self.raw(place, 8)?.try_into().map_err(|_| damaged("index", place))?;
        self.array(&mut Cursor::new(u64::from_le_bytes(start), offset)?)
    }

    fn block(&mut self, at: u64) -> Result<(Arc<Vec<u8>>, u64), ReadError> {
        self.uses += 1;
        if let Some(block) = self.blocks.get_mut(&at) {
            block.used = self.uses;
            return Ok((Arc::clone(&block.bytes), block.next));
        }
        let head = self.raw(at, 2)?.try_into().map(u16::from_le_bytes);
        let head = head.map_err(|_| damaged("metadata", at))?;
        let size = usize::from(head & !META_STORED);
        let bytes = self.raw(at + 2, size)?;
        let bytes = match head & META_STORED {
            0 => unpack(self.superblock.codec, &bytes, META),
            _ => Some(bytes).filter(|bytes| bytes.len() <= META),
        };
        let bytes = Arc::new(bytes.ok_or_else(|| damaged("metadata", at))?);
        if self.blocks.len() >= KEEP {
            let oldest = self.blocks.iter().min_by_key(|(_, block)| block.used).map(|(at, _)| *at);
            oldest.map(|oldest| self.blocks.remove(&oldest));
        }
        let next = at + 2 + size as u64;
        let block = Block { bytes: Arc::clone(&bytes), next, used: self.uses };
        self.blocks.insert(at, block);
        Ok((bytes, next))
    }
}
