//! Reads an image as a tree. Bytes may be foreign: everything is bounded, and what does not fit
//! together is refused.

mod content;
mod folder;
mod table;
mod unpack;

use std::io::{self, Read, Seek};
use std::sync::{Arc, Mutex, MutexGuard};

use model::{Bytes, Diagnose, Diagnosis, Who};

use self::content::Fragments;
use self::table::Source;
use super::number::STORED;
use super::{Codec, ParseError, SUPERBLOCK, Superblock};
use crate::field::le32;
use crate::tree::{InsertError, Tree};

/// What the tree of one image may take of memory, its paths, block lists and attributes together:
/// enough for millions of files.
pub const MEMORY_MAX: Bytes = Bytes::mib(512);

/// A squashfs image that is open for reading. Contents are read when somebody wants them.
#[derive(Debug)]
pub struct Image<R> {
    superblock: Superblock,
    source: Mutex<Source<R>>,
    fragments: Mutex<Fragments>,
}

/// Where a file's bytes are in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    start: u64,
    size: u64,
    blocks: Arc<[u32]>,
    fragment: Option<(u32, u32)>,
}

impl Place {
    /// How long the file is.
    pub fn size(&self) -> Bytes {
        Bytes(self.size)
    }

    /// What the file's own blocks take in the image, packed.
    pub fn packed(&self) -> Bytes {
        Bytes(self.blocks.iter().map(|b| u64::from(b & !STORED)).sum())
    }

    /// The end of the file, if it stands in a block with others: the block's number, where it is
    /// there, and how long it is.
    pub fn tail(&self, block: Bytes) -> Option<(u32, u32, Bytes)> {
        let (number, at) = self.fragment?;
        Some((number, at, Bytes(self.size % block.0.max(1))))
    }

    /// Where the file's own blocks start; 0 if it has none.
    pub fn start(&self) -> u64 {
        if self.blocks.is_empty() { 0 } else { self.start }
    }
}

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The input failed.
    #[error("cannot read the squashfs at byte {at}")]
    Read {
        /// Where, from the start of the image.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// There is none.
    #[error("cannot read the squashfs")]
    Superblock(#[from] ParseError),
    /// Packed in a way that we do not unpack.
    #[error("the squashfs is packed with {}; gzip, xz and zstd can be read", .0.name())]
    Codec(Codec),
    /// Bytes that make no sense.
    #[error("the squashfs is damaged: {what} at byte {at}")]
    Damaged {
        /// What was found there.
        what: &'static str,
        /// Where, from the start of the image.
        at: u64,
    },
    /// More than any root file system has.
    #[error("the tree of the squashfs takes more than {} of memory", MEMORY_MAX)]
    TooLarge,
    /// Paths that make no tree.
    #[error("the squashfs is damaged")]
    Tree(#[from] InsertError),
}

impl Diagnose for ReadError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            ReadError::Read { .. } => {
                Diagnosis::of(Who::Operator, "look at the file or disk it is read from")
            }
            ReadError::Codec(_) => {
                Diagnosis::of(Who::Operator, "pack it with gzip, xz or zstd: eve mkfs squashfs")
            }
            _ => Diagnosis::of(Who::Operator, "make or fetch the image again"),
        }
    }
}

fn damaged(what: &'static str, at: u64) -> ReadError {
    ReadError::Damaged { what, at }
}

impl<R: Read + Seek> Image<R> {
    /// Opens the image that starts where `input` stands.
    pub fn open(mut input: R) -> Result<Image<R>, ReadError> {
        let read = |source| ReadError::Read { at: 0, source };
        let base = input.stream_position().map_err(read)?;
        let mut head = Vec::new();
        input.by_ref().take(SUPERBLOCK as u64).read_to_end(&mut head).map_err(read)?;
        let superblock = Superblock::parse(&head)?;
        unpack::check(superblock.codec)?;
        let source = Mutex::new(Source::new(input, base, superblock));
        Ok(Image { superblock, source, fragments: Mutex::default() })
    }

    /// What the superblock says.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Everything that is in the image. Inodes with several names are hard links to the first of
    /// these in the order of paths.
    pub fn tree(&self) -> Result<Tree<Place>, ReadError> {
        folder::walk(&mut *self.source()?, &self.superblock)
    }

    /// What a block of several files' ends takes, packed.
    pub fn shared(&self, number: u32) -> Result<Bytes, ReadError> {
        let index = self.superblock.tables.fragments;
        if number >= self.superblock.fragments {
            return Err(damaged("fragment", index));
        }
        let entry: [u8; 16] = self.source()?.entry(index, number.into())?;
        let size = le32(&entry, 8).ok_or_else(|| damaged("fragment", index))?;
        Ok(Bytes(u64::from(size & !STORED)))
    }

    fn source(&self) -> Result<MutexGuard<'_, Source<R>>, ReadError> {
        // Another thread panicked while reading: what it left may be anything.
        self.source.lock().map_err(|_| damaged("reader", 0))
    }
}
