//! Images that are a table of where each block lies, and the blocks.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use flate2::{Decompress, FlushDecompress};
use model::Bytes;

use super::{Disk, Error, Format};
use crate::field::le32;

/// Blocks that an image may have: 128 MiB of table. That is 32 TiB in blocks of 1 MiB, and the
/// 2 TiB of a VMDK in grains of 64 KiB.
pub(crate) const MAP_MAX: u64 = 1 << 25;
const SECTOR: u64 = 512;

/// Where the blocks of a disk lie in a file.
#[derive(Debug)]
pub(crate) struct Map {
    pub(crate) format: Format,
    /// Of the disk.
    pub(crate) size: u64,
    /// Bytes of a block.
    pub(crate) block: u64,
    /// For each block 0 if it is all zeroes; else `n` if it stands at `base + (n - 1) * unit`.
    pub(crate) places: Vec<u32>,
    pub(crate) base: u64,
    pub(crate) unit: u64,
    /// Whether a block is a grain of a VMDK: 8 bytes of sector number, 4 of length, zlib.
    pub(crate) deflated: bool,
}

/// A disk behind a [`Map`].
#[derive(Debug)]
pub(crate) struct Mapped<F> {
    file: F,
    map: Map,
    /// The block that was inflated last.
    inflated: Option<(usize, Vec<u8>)>,
}

impl<F: Read + Seek> Mapped<F> {
    /// Fails if a block starts behind the end of the file.
    pub(crate) fn new(mut file: F, map: Map) -> Result<Mapped<F>, Error> {
        let length = file.seek(SeekFrom::End(0)).map_err(Error::read(map.format, 0))?;
        let last = map.places.iter().max().copied().unwrap_or(0);
        let at = map.place(last).unwrap_or(0);
        if at > length || last != 0 && at == length {
            return Err(Error::Damaged { format: map.format, what: "place of a block", at });
        }
        Ok(Mapped { file, map, inflated: None })
    }

    fn part(&mut self, number: usize, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        let entry = self.map.places.get(number).copied().unwrap_or(0);
        let Some(at) = self.map.place(entry) else {
            buf.fill(0);
            return Ok(());
        };
        if !self.map.deflated {
            let at = at + offset;
            return read_exact_at(&mut self.file, at, buf)
                .map_err(Error::read(self.map.format, at));
        }
        if self.inflated.as_ref().is_none_or(|(have, _)| *have != number) {
            let grain = self.inflate(at, number)?;
            self.inflated = Some((number, grain));
        }
        let grain = self.inflated.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = grain.get(from..).and_then(|b| b.get(..buf.len()));
        let damaged = Error::Damaged { format: self.map.format, what: "compressed block", at };
        buf.copy_from_slice(bytes.ok_or(damaged)?);
        Ok(())
    }

    fn inflate(&mut self, at: u64, number: usize) -> Result<Vec<u8>, Error> {
        let format = self.map.format;
        let read = Error::read(format, at);
        let damaged = || Error::Damaged { format, what: "compressed block", at };
        let mut marker = [0; 12];
        read_exact_at(&mut self.file, at, &mut marker).map_err(&read)?;
        let length = u64::from(le32(&marker, 8).unwrap_or(0));
        let sector = crate::field::le64(&marker, 0).unwrap_or(0);
        // Deflate never makes more than this of a block.
        if length == 0
            || length > self.map.block * 2
            || sector != number as u64 * (self.map.block / SECTOR)
        {
            return Err(damaged());
        }
        let mut packed = vec![0; usize::try_from(length).map_err(|_| damaged())?];
        read_exact_at(&mut self.file, at + 12, &mut packed).map_err(&read)?;
        let mut bytes = vec![0; usize::try_from(self.map.block).map_err(|_| damaged())?];
        let mut inflate = Decompress::new(true);
        inflate.decompress(&packed, &mut bytes, FlushDecompress::Finish).map_err(|_| damaged())?;
        // The last grain may end with the disk.
        Ok(bytes)
    }
}

impl Map {
    fn place(&self, entry: u32) -> Option<u64> {
        let number = u64::from(entry).checked_sub(1)?;
        Some(self.base.saturating_add(number.saturating_mul(self.unit)))
    }
}

impl<F: Read + Seek> Disk for Mapped<F> {
    fn size(&self) -> Bytes {
        Bytes(self.map.size)
    }

    fn read_at(&mut self, mut at: u64, mut buf: &mut [u8]) -> Result<(), Error> {
        while !buf.is_empty() {
            let offset = at % self.map.block;
            let here = usize::try_from(self.map.block - offset).unwrap_or(usize::MAX);
            let (now, rest) = buf.split_at_mut(here.min(buf.len()));
            let number = usize::try_from(at / self.map.block).unwrap_or(usize::MAX);
            // Where the disk ends inside a block, the image may end too.
            let inside = usize::try_from(self.map.size.saturating_sub(at)).unwrap_or(usize::MAX);
            let (inside, behind) = now.split_at_mut(inside.min(now.len()));
            behind.fill(0);
            if !inside.is_empty() {
                self.part(number, offset, inside)?;
            }
            at += (inside.len() + behind.len()) as u64;
            buf = rest;
        }
        Ok(())
    }

    fn next_data(&mut self, at: u64) -> Result<Option<Range<u64>>, Error> {
        let first = usize::try_from(at / self.map.block).unwrap_or(usize::MAX);
        let rest = self.map.places.get(first..).unwrap_or(&[]);
        let Some(skip) = rest.iter().position(|place| *place != 0) else { return Ok(None) };
        let count = rest[skip..].iter().take_while(|place| **place != 0).count();
        let start = (first + skip) as u64 * self.map.block;
        let end = (start + count as u64 * self.map.block).min(self.map.size);
        let stretch = start.max(at)..end;
        Ok((!stretch.is_empty()).then_some(stretch))
    }
}

/// Fills `buf` with what stands from `at`.
pub(crate) fn read_exact_at<F: Read + Seek>(
    file: &mut F,
    at: u64,
    buf: &mut [u8],
) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(buf)
}

/// `count` little-endian numbers of 32 bits from `at`, of which there are no more than [`MAP_MAX`].
pub(crate) fn read_words<F: Read + Seek>(
    file: &mut F,
    format: Format,
    at: u64,
    count: u64,
) -> Result<Vec<u32>, Error> {
    let read = Error::read(format, at);
    let damaged = || Error::Damaged { format, what: "table", at };
    if count > MAP_MAX {
        return Err(damaged());
    }
    file.seek(SeekFrom::Start(at)).map_err(&read)?;
    let mut bytes = Vec::new(); // grows with what is there, not with what the header says
    file.by_ref().take(count * 4).read_to_end(&mut bytes).map_err(&read)?;
    if (bytes.len() as u64) < count * 4 {
        return Err(damaged());
    }
    Ok(bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
}
