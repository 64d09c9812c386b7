//! Going through a disk block by block, and writing what is not zero.

use std::io::{self, Seek, SeekFrom, Write};

use crc32fast::Hasher;
use model::Bytes;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Disk, Error, Format};

/// Zeroes shorter than this are written as they are.
const HOLE: usize = 4096;
static ZEROES: [u8; HOLE] = [0; HOLE];

/// The blocks of a disk that are not all zero, in their order.
pub(crate) struct Blocks<'a> {
    disk: &'a mut dyn Disk,
    block: u64,
    /// The next block to look at.
    next: u64,
    /// Blocks before this one may hold something.
    end: u64,
}

impl<'a> Blocks<'a> {
    pub(crate) fn new(disk: &'a mut dyn Disk, block: usize) -> Blocks<'a> {
        Blocks { disk, block: block as u64, next: 0, end: 0 }
    }

    /// Fills `buf`, which is one block long, with the next block; returns its number. The last
    /// block of a disk may have zeroes behind the end.
    pub(crate) fn next(&mut self, buf: &mut [u8]) -> Result<Option<u64>, Error> {
        loop {
            if self.next >= self.end {
                let Some(data) = self.disk.next_data(self.next * self.block)? else {
                    return Ok(None);
                };
                self.next = data.start / self.block;
                self.end = data.end.div_ceil(self.block);
            }
            let number = self.next;
            self.next += 1;
            self.disk.read_at(number * self.block, buf)?;
            if !is_zero(buf) {
                return Ok(Some(number));
            }
        }
    }
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(HOLE).all(|piece| piece == &ZEROES[..piece.len()])
}

/// What images of a disk are called by: numbers that follow from what is on it.
pub(crate) struct Identity(Sha256);

impl Identity {
    pub(crate) fn new(format: Format, size: Bytes) -> Identity {
        let mut hash = Sha256::new();
        hash.update(format.name());
        hash.update(size.0.to_le_bytes());
        Identity(hash)
    }

    /// Adds a block. Its checksum stands for it: names need not withstand anybody's malice.
    pub(crate) fn add(&mut self, number: u64, bytes: &[u8]) {
        let mut sum = Hasher::new();
        sum.update(bytes);
        self.0.update(number.to_le_bytes());
        self.0.update(sum.finalize().to_le_bytes());
    }

    /// One of the identity's names: `what` tells them apart.
    pub(crate) fn uuid(&self, what: &str) -> Uuid {
        let mut hash = self.0.clone();
        hash.update(what);
        let bytes: [u8; 32] = hash.finalize().into();
        let mut first = [0; 16];
        first.copy_from_slice(&bytes[..16]);
        uuid::Builder::from_custom_bytes(first).into_uuid()
    }
}

/// A file that is written here and there. What is zero stays a hole, as far as the file system has
/// holes.
#[derive(Debug)]
pub struct SparseOut<W> {
    out: W,
    format: Format,
    /// Where the last bytes written end.
    end: u64,
}

impl<W: Write + Seek> SparseOut<W> {
    /// `out` is empty, or zero; `format` is for messages.
    pub fn new(out: W, format: Format) -> SparseOut<W> {
        SparseOut { out, format, end: 0 }
    }

    /// Writes these bytes at this place, where nothing was written yet.
    pub fn put(&mut self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        let mut rest = bytes;
        let mut at = at;
        while !rest.is_empty() {
            let zeroes = run(rest, true);
            let data = run(&rest[zeroes..], false);
            at += zeroes as u64;
            if data > 0 {
                self.put_data(at, &rest[zeroes..zeroes + data])
                    .map_err(Error::write(self.format))?;
                at += data as u64;
            }
            rest = &rest[zeroes + data..];
        }
        Ok(())
    }

    /// Ends the file, which becomes `length` long.
    pub fn finish(mut self, length: u64) -> Result<(), Error> {
        let write = Error::write(self.format);
        if self.end < length {
            self.put_data(length - 1, &[0]).map_err(&write)?;
        }
        self.out.flush().map_err(write)
    }

    fn put_data(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.out.seek(SeekFrom::Start(at))?;
        self.out.write_all(bytes)?;
        self.end = self.end.max(at + bytes.len() as u64);
        Ok(())
    }
}

/// How many bytes at the start lie in pieces that are zero, or in pieces that are not.
fn run(bytes: &[u8], zero: bool) -> usize {
    bytes.chunks(HOLE).take_while(|piece| is_zero(piece) == zero).map(<[u8]>::len).sum()
}

/// What [`pack`] did.
pub(crate) struct Packed {
    /// For each block of the disk 0 if it is all zeroes, or which of the blocks written it is,
    /// counted from 1.
    pub(crate) map: Vec<u32>,
    /// How many blocks were written.
    pub(crate) count: u32,
    pub(crate) identity: Identity,
}

/// Writes the blocks of a disk that are not zero one behind the other from `data_at`.
pub(crate) fn pack<W: Write + Seek>(
    disk: &mut dyn Disk,
    block: usize,
    out: &mut SparseOut<W>,
    data_at: u64,
) -> Result<Packed, Error> {
    let size = disk.size();
    let blocks = usize::try_from(size.0.div_ceil(block as u64)).unwrap_or(usize::MAX);
    let mut packed =
        Packed { map: vec![0; blocks], count: 0, identity: Identity::new(out.format, size) };
    let mut buf = vec![0; block];
    let mut source = Blocks::new(disk, block);
    while let Some(number) = source.next(&mut buf)? {
        out.put(data_at + u64::from(packed.count) * block as u64, &buf)?;
        packed.count += 1;
        packed.identity.add(number, &buf);
        let place = usize::try_from(number).ok().and_then(|n| packed.map.get_mut(n));
        *place.ok_or_else(|| behind_the_end(out.format))? = packed.count;
    }
    Ok(packed)
}

/// A disk told of data behind its own end.
pub(crate) fn behind_the_end(format: Format) -> Error {
    Error::write(format)(io::Error::new(io::ErrorKind::InvalidInput, "data behind the disk's end"))
}

/// The size of a disk in whole sectors of 512 bytes, for formats that know only those. Fails if it
/// is more than `max`.
pub(crate) fn whole_sectors(size: Bytes, format: Format, max: Bytes) -> Result<Bytes, Error> {
    if size > max {
        return Err(Error::TooLarge { format, size, max });
    }
    Ok(size.round_up(Bytes(512)))
}
