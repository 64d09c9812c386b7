//! Reading the disk in an image.

use std::io::{Read, Seek};
use std::ops::Range;

use flate2::{Decompress, FlushDecompress};
use model::Bytes;

use super::{COMPRESSED, HEADER, Header, PLACE, Packing, ZERO};
use crate::disk::{Disk, Error, Format, HeaderError, read_exact_at};

/// The disk in an image.
#[derive(Debug)]
pub struct Reader<F> {
    pub(super) file: F,
    pub(super) header: Header,
    pub(super) l1: Vec<u64>,
    /// The L2 table that was read last, and which it is.
    pub(super) l2: Option<(u64, Vec<u64>)>,
    /// The compressed cluster that was read last, and its entry.
    unpacked: Option<(u64, Vec<u8>)>,
}

/// Where a cluster of the disk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: it is zero.
    Zero,
    /// At this offset in the file.
    At(u64),
    /// Compressed; the entry says where.
    Packed(u64),
}

impl<F: Read + Seek> Reader<F> {
    /// Reads header and L1 table. Fails for images of which we would see only a part.
    pub fn open(mut file: F) -> Result<Reader<F>, Error> {
        let read = Error::read(Format::Qcow2, 0);
        let length = file.seek(std::io::SeekFrom::End(0)).map_err(&read)?;
        let mut head = Vec::new();
        file.rewind().map_err(&read)?;
        file.by_ref().take(HEADER as u64).read_to_end(&mut head).map_err(&read)?;
        let header = Header::parse(&head)?;
        header.check()?;
        let (at, bytes) = (header.l1_at, u64::from(header.l1_entries) * 8);
        if at.checked_add(bytes).is_none_or(|end| end > length) {
            let format = Format::Qcow2;
            return Err(
                HeaderError::Field { format, field: "place of the L1 table", value: at }.into()
            );
        }
        let l1 = entries(&mut file, at, bytes)?;
        Ok(Reader { file, header, l1, l2: None, unpacked: None })
    }

    /// What the image says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The L2 table of this number. `None`: there is none, all of it is zero.
    pub(super) fn table(&mut self, number: u64) -> Result<Option<&mut Vec<u64>>, Error> {
        let l1_entry = usize::try_from(number).ok().and_then(|n| self.l1.get(n));
        let at = l1_entry.map_or(0, |entry| entry & PLACE);
        if at == 0 {
            return Ok(None);
        }
        if self.l2.as_ref().is_none_or(|(have, _)| *have != number) {
            let cluster = self.header.cluster();
            if !at.is_multiple_of(cluster) {
                return Err(damaged("place of an L2 table", at));
            }
            self.l2 = Some((number, entries(&mut self.file, at, cluster)?));
        }
        Ok(self.l2.as_mut().map(|(_, table)| table))
    }

    pub(super) fn place(&mut self, cluster: u64) -> Result<Place, Error> {
        let per_table = self.header.l2_entries();
        let (bytes, version) = (self.header.cluster(), self.header.version);
        let Some(table) = self.table(cluster / per_table)? else { return Ok(Place::Zero) };
        let slot = usize::try_from(cluster % per_table).unwrap_or(usize::MAX);
        let entry = table.get(slot).copied().unwrap_or(0);
        let at = entry & PLACE;
        if entry & COMPRESSED != 0 {
            Ok(Place::Packed(entry))
        } else if at == 0 || version == 3 && entry & ZERO != 0 {
            Ok(Place::Zero)
        } else if at.is_multiple_of(bytes) {
            Ok(Place::At(at))
        } else {
            Err(damaged("place of a cluster", at))
        }
    }

    /// The bytes of a compressed cluster.
    pub(super) fn unpack(&mut self, entry: u64) -> Result<&[u8], Error> {
        if self.unpacked.as_ref().is_none_or(|(have, _)| *have != entry) {
            let (at, length) = self.header.packed_place(entry);
            let read = Error::read(Format::Qcow2, at);
            // The last sector of a file may be cut.
            let mut packed = Vec::new();
            self.file.seek(std::io::SeekFrom::Start(at)).map_err(&read)?;
            self.file.by_ref().take(length).read_to_end(&mut packed).map_err(&read)?;
            let cluster = usize::try_from(self.header.cluster()).unwrap_or(0);
            let bytes = unpack(self.header.packing, &packed, cluster);
            let bytes = bytes.ok_or_else(|| damaged("compressed cluster", at))?;
            self.unpacked = Some((entry, bytes));
        }
        Ok(self.unpacked.as_ref().map_or(&[], |(_, bytes)| bytes))
    }
}

impl<F: Read + Seek> Disk for Reader<F> {
    fn size(&self) -> Bytes {
        self.header.size
    }

    fn read_at(&mut self, mut at: u64, mut buf: &mut [u8]) -> Result<(), Error> {
        let cluster = self.header.cluster();
        while !buf.is_empty() {
            if at >= self.header.size.0 {
                buf.fill(0);
                return Ok(());
            }
            let offset = at % cluster;
            let here = (cluster - offset).min(self.header.size.0 - at);
            let here = usize::try_from(here).unwrap_or(usize::MAX).min(buf.len());
            let (now, rest) = buf.split_at_mut(here);
            match self.place(at / cluster)? {
                Place::Zero => now.fill(0),
                Place::At(place) => {
                    let place = place + offset;
                    read_exact_at(&mut self.file, place, now)
                        .map_err(Error::read(Format::Qcow2, place))?;
                }
                Place::Packed(entry) => {
                    let from = usize::try_from(offset).unwrap_or(usize::MAX);
                    let bytes = self.unpack(entry)?;
                    now.copy_from_slice(&bytes[from..from + here]);
                }
            }
            at += here as u64;
            buf = rest;
        }
        Ok(())
    }

    fn next_data(&mut self, at: u64) -> Result<Option<Range<u64>>, Error> {
        let (cluster, per_table) = (self.header.cluster(), self.header.l2_entries());
        let size = self.header.size.0;
        let mut number = at / cluster;
        while at < size && number * cluster < size {
            if self.table(number / per_table)?.is_none() {
                number = (number / per_table + 1) * per_table;
            } else if self.place(number)? == Place::Zero {
                number += 1;
            } else {
                let (start, end) = (number * cluster, (number + 1) * cluster);
                return Ok(Some(start.max(at)..end.min(size)));
            }
        }
        Ok(None)
    }
}

fn entries<F: Read + Seek>(file: &mut F, at: u64, bytes: u64) -> Result<Vec<u64>, Error> {
    let length = usize::try_from(bytes).map_err(|_| damaged("table", at))?;
    let mut table = vec![0; length];
    read_exact_at(file, at, &mut table).map_err(Error::read(Format::Qcow2, at))?;
    Ok(table.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
}

/// A cluster's bytes from packed ones with something behind them. `None` if they do not make one.
fn unpack(packing: Packing, packed: &[u8], cluster: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; cluster];
    match packing {
        Packing::Plain | Packing::Zlib => {
            let mut inflate = Decompress::new_with_window_bits(false, 15);
            inflate.decompress(packed, &mut bytes, FlushDecompress::Finish).ok()?;
            (inflate.total_out() == cluster as u64).then_some(bytes)
        }
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(packed).ok()?.single_frame();
            decoder.read_exact(&mut bytes).ok()?;
            Some(bytes)
        }
    }
}

pub(super) fn damaged(what: &'static str, at: u64) -> Error {
    Error::Damaged { format: Format::Qcow2, what, at }
}
