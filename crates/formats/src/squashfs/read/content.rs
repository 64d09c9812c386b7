//! The bytes of a file, block by block.

use std::io::{self, Read, Seek};
use std::sync::Arc;

use super::unpack::unpack;
use super::{Image, Place, ReadError, damaged};
use crate::field::{le32, le64};
use crate::squashfs::number::STORED;
use crate::tree::Contents;

/// Unpacked fragment blocks that are kept: files that share one are read one after the other.
const KEEP: usize = 4;

/// Fragment blocks that were used last, the latest at the end.
#[derive(Debug, Default)]
pub(super) struct Fragments(Vec<(u32, Arc<Vec<u8>>)>);

impl<R: Read + Seek + Send> Contents<Place> for Image<R> {
    fn open<'a>(&'a self, at: &Place) -> io::Result<Box<dyn Read + 'a>> {
        let Place { start, size, ref blocks, fragment } = *at;
        let blocks = Arc::clone(blocks);
        let empty = Arc::new(Vec::new());
        let file = File {
            image: self,
            blocks,
            fragment,
            next: 0,
            at: start,
            left: size,
            now: empty,
            from: 0,
            to: 0,
        };
        Ok(Box::new(file))
    }
}

struct File<'a, R> {
    image: &'a Image<R>,
    /// Sizes as the inode says them.
    blocks: Arc<[u32]>,
    fragment: Option<(u32, u32)>,
    /// The block to be read next, and where it is.
    next: usize,
    at: u64,
    /// Bytes behind the current block.
    left: u64,
    /// The current block, and which part of it is still to be given.
    now: Arc<Vec<u8>>,
    from: usize,
    to: usize,
}

impl<R: Read + Seek> Read for File<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.from == self.to && self.left > 0 {
            self.advance().map_err(io::Error::other)?;
        }
        let count = into.len().min(self.to - self.from);
        into[..count].copy_from_slice(&self.now[self.from..self.from + count]);
        self.from += count;
        Ok(count)
    }
}

impl<R: Read + Seek> File<'_, R> {
    fn advance(&mut self) -> Result<(), ReadError> {
        let block = self.image.superblock.block.0;
        let length = usize::try_from(self.left.min(block)).unwrap_or_default();
        let bad = damaged("file", self.at);
        (self.now, self.from) = match (self.blocks.get(self.next), self.fragment) {
            (Some(0), _) => (Arc::new(vec![0; length]), 0),
            (Some(size), _) => {
                let bytes = self.image.block(self.at, *size)?;
                self.at += u64::from(size & !STORED);
                if bytes.len() != length {
                    return Err(bad);
                }
                (Arc::new(bytes), 0)
            }
            (None, Some((number, offset))) => {
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                (self.image.fragment(number)?, offset)
            }
            (None, None) => return Err(bad),
        };
        let end = self.from.checked_add(length).filter(|end| *end <= self.now.len());
        self.to = end.ok_or(bad)?;
        self.next += 1;
        self.left -= length as u64;
        Ok(())
    }
}

impl<R: Read + Seek> Image<R> {
    /// A data block, unpacked.
    fn block(&self, at: u64, size: u32) -> Result<Vec<u8>, ReadError> {
        let limit = usize::try_from(self.superblock.block.0).unwrap_or_default();
        let length = usize::try_from(size & !STORED).unwrap_or(usize::MAX);
        if length > limit {
            return Err(damaged("block that is too long", at));
        }
        let bytes = self.source()?.raw(at, length)?;
        match size & STORED {
            0 => unpack(self.superblock.codec, &bytes, limit).ok_or_else(|| damaged("block", at)),
            _ => Ok(bytes),
        }
    }

    fn fragment(&self, number: u32) -> Result<Arc<Vec<u8>>, ReadError> {
        let index = self.superblock.tables.fragments;
        let poisoned = || damaged("fragment", index);
        if let Some((_, bytes)) =
            self.fragments.lock().map_err(|_| poisoned())?.0.iter().find(|(n, _)| *n == number)
        {
            return Ok(Arc::clone(bytes));
        }
        if number >= self.superblock.fragments {
            return Err(damaged("fragment", index));
        }
        let entry: [u8; 16] = self.source()?.entry(index, number.into())?;
        let (start, size) = (le64(&entry, 0), le32(&entry, 8));
        let (start, size) = start.zip(size).ok_or_else(poisoned)?;
        let bytes = Arc::new(self.block(start, size)?);
        let mut kept = self.fragments.lock().map_err(|_| poisoned())?;
        if kept.0.len() >= KEEP {
            kept.0.remove(0);
        }
        kept.0.push((number, Arc::clone(&bytes)));
        Ok(bytes)
    }
}
