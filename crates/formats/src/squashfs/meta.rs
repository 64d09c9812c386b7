//! Metadata: a stream of bytes in blocks of 8 KiB, each packed by itself behind its size.

use super::number::{META, META_STORED};
use super::pack::{PackError, Packer};

/// A place in a metadata stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// Where its block starts, in packed bytes from the start of the table.
    pub block: u32,
    /// Where it is in the unpacked block.
    pub offset: u16,
}

impl Place {
    /// As one number, the way inodes are named.
    pub(super) fn reference(self) -> u64 {
        u64::from(self.block) << 16 | u64::from(self.offset)
    }
}

/// Metadata being written. It stays in memory: tens of bytes a file.
#[derive(Debug, Default)]
pub(super) struct Stream {
    packed: Vec<u8>,
    /// Where each block starts in `packed`.
    starts: Vec<u32>,
    pending: Vec<u8>,
    scratch: Vec<u8>,
}

/// Finished metadata.
#[derive(Debug)]
pub(super) struct Table {
    pub bytes: Vec<u8>,
    /// Where each block starts in `bytes`.
    pub starts: Vec<u32>,
}

impl Stream {
    /// Where the next byte comes to lie.
    pub(super) fn place(&self) -> Result<Place, PackError> {
        let block = u32::try_from(self.packed.len()).map_err(|_| PackError::Metadata)?;
        // A block is packed when it is full: fewer than 8192 bytes are pending.
        let offset = u16::try_from(self.pending.len()).map_err(|_| PackError::Metadata)?;
        Ok(Place { block, offset })
    }

    pub(super) fn push(&mut self, mut bytes: &[u8], packer: &mut Packer) -> Result<(), PackError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(META - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == META {
                self.pack(packer)?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self, packer: &mut Packer) -> Result<Table, PackError> {
        if !self.pending.is_empty() {
            self.pack(packer)?;
        }
        Ok(Table { bytes: self.packed, starts: self.starts })
    }

    fn pack(&mut self, packer: &mut Packer) -> Result<(), PackError> {
        self.starts.push(self.place()?.block);
        let shrunk = packer.pack(&self.pending, &mut self.scratch)?;
        let (bytes, mark) = if shrunk { (&self.scratch, 0) } else { (&self.pending, META_STORED) };
        let size = u16::try_from(bytes.len()).map_err(|_| PackError::Metadata)?;
        self.packed.extend((size | mark).to_le_bytes());
        self.packed.extend_from_slice(bytes);
        self.pending.clear();
        Ok(())
    }
}

impl Table {
    /// Where each block starts, for a table that itself lies at `base`: eight bytes each.
    pub(super) fn index(&self, base: u64) -> Vec<u8> {
        self.starts.iter().flat_map(|start| (base + u64::from(*start)).to_le_bytes()).collect()
    }
}
