//! Changing a finished image in place.
//!
//! A plain cluster is overwritten; what was compressed or zero gets a new cluster at the end of the
//! file. Data and counts are written before the entry that finds them: a power cut loses at most
//! room, not what was there before.

use std::io::{self, Read, Seek, SeekFrom, Write};

use model::Bytes;

use super::read::{Place, Reader, damaged};
use super::{COMPRESSED, COPIED, DIRTY, PLACE};
use crate::disk::{Disk, Error, Format, HeaderError};

/// Bits of a count in the images that we change, as a power of two.
const COUNT_ORDER: u32 = 4;

/// An image that is being changed.
#[derive(Debug)]
pub struct Editor<F> {
    image: Reader<F>,
    /// Where the next cluster goes.
    end: u64,
}

impl<F: Read + Write + Seek> Editor<F> {
    /// Fails for images that [`Reader`] refuses, that have snapshots or counts of another width than
    /// 16 bits, or that were not closed.
    pub fn open(file: F) -> Result<Editor<F>, Error> {
        let mut image = Reader::open(file)?;
        let header = image.header();
        let refused = [
            (header.snapshots > 0, "has snapshots"),
            (header.count_order != COUNT_ORDER, "has counts of an odd width"),
            (header.incompatible & DIRTY != 0, "was not closed well"),
        ];
        if let Some((_, what)) = refused.into_iter().find(|(is, _)| *is) {
            return Err(HeaderError::Unsupported { format: Format::Qcow2, what }.into());
        }
        let end = image.file.seek(SeekFrom::End(0)).map_err(Error::read(Format::Qcow2, 0))?;
        let end = end.next_multiple_of(image.header().cluster());
        Ok(Editor { image, end })
    }

    /// The disk, to read.
    pub fn disk(&mut self) -> &mut dyn Disk {
        &mut self.image
    }

    /// Writes `bytes` from `at`. Fails, before anything is written, if they do not lie in the disk.
    pub fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        let size = self.image.size();
        let end = at.saturating_add(bytes.len() as u64);
        if end > size.0 {
            return Err(Error::Shrink { disk: Bytes(end), size });
        }
        let cluster = self.image.header().cluster();
        let (mut at, mut rest) = (at, bytes);
        while !rest.is_empty() {
            let here = usize::try_from(cluster - at % cluster).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at(here.min(rest.len()));
            self.write_part(at / cluster, at % cluster, now)?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Ends the editing. The file is not flushed to storage.
    pub fn finish(mut self) -> Result<F, Error> {
        self.image.file.flush().map_err(Error::write(Format::Qcow2))?;
        Ok(self.image.file)
    }

    /// Writes into one cluster.
    fn write_part(&mut self, number: u64, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let cluster = self.image.header().cluster();
        let place = self.image.place(number)?;
        let old = self.entry(number)?;
        if let Place::At(at) = place
            && old & COPIED != 0
        {
            return self.put(at + offset, bytes);
        }
        if place == Place::Zero && bytes.iter().all(|b| *b == 0) {
            return Ok(());
        }
        let length = usize::try_from(cluster).map_err(|_| damaged("cluster size", 0))?;
        let mut whole = vec![0; length];
        self.image.read_at(number * cluster, &mut whole)?;
        let from = usize::try_from(offset).unwrap_or(length);
        whole[from..from + bytes.len()].copy_from_slice(bytes);
        let at = self.take_cluster()?;
        self.put(at, &whole)?;
        self.set_entry(number, at | COPIED)?;
        if old & COMPRESSED != 0 {
            let (at, length) = self.image.header().packed_place(old);
            for used in at / cluster..=(at + length - 1) / cluster {
                self.count(used, |n| n.saturating_sub(1))?;
            }
        } else if old & PLACE != 0 {
            self.count((old & PLACE) / cluster, |n| n.saturating_sub(1))?;
        }
        Ok(())
    }

    fn entry(&mut self, number: u64) -> Result<u64, Error> {
        let per_table = self.image.header().l2_entries();
        let slot = usize::try_from(number % per_table).unwrap_or(usize::MAX);
        let table = self.image.table(number / per_table)?;
        Ok(table.and_then(|t| t.get(slot)).copied().unwrap_or(0))
    }

    fn set_entry(&mut self, number: u64, entry: u64) -> Result<(), Error> {
        let per_table = self.image.header().l2_entries();
        let table = number / per_table;
        let slot = usize::try_from(table).unwrap_or(usize::MAX);
        if self.image.table(table)?.is_none() {
            let at = self.take_cluster()?;
            let cluster = usize::try_from(self.image.header().cluster()).unwrap_or(0);
            self.put(at, &vec![0; cluster])?;
            let place = self.image.header().l1_at + table * 8;
            self.put(place, &(at | COPIED).to_be_bytes())?;
            self.image.l1[slot] = at | COPIED;
        }
        let place = (self.image.l1[slot] & PLACE) + number % per_table * 8;
        self.put(place, &entry.to_be_bytes())?;
        let slot = usize::try_from(number % per_table).unwrap_or(usize::MAX);
        if let Some(old) = self.image.table(table)?.and_then(|t| t.get_mut(slot)) {
            *old = entry;
        }
        Ok(())
    }

    /// A new cluster, used once.
    fn take_cluster(&mut self) -> Result<u64, Error> {
        let at = self.end;
        self.end += self.image.header().cluster();
        self.count(at / self.image.header().cluster(), |_| 1)?;
        Ok(at)
    }

    /// Changes how often a cluster of the file is used.
    fn count(&mut self, cluster: u64, change: fn(u16) -> u16) -> Result<(), Error> {
        let header = self.image.header();
        let (bytes, table_at) = (header.cluster(), header.counts_at);
        let per_block = bytes / 2;
        let entry_at = table_at + cluster / per_block * 8;
        if cluster / per_block * 8 >= u64::from(header.counts_clusters) * bytes {
            return Err(damaged("table of counts", entry_at));
        }
        let mut entry = [0; 8];
        self.get(entry_at, &mut entry)?;
        let mut block = u64::from_be_bytes(entry) & PLACE;
        if block == 0 {
            // The new block lies among the clusters that it or an earlier one counts.
            block = self.end;
            self.end += bytes;
            self.put(block, &vec![0; usize::try_from(bytes).unwrap_or(0)])?;
            self.put(entry_at, &block.to_be_bytes())?;
            self.count(block / bytes, |_| 1)?;
        }
        let at = block + cluster % per_block * 2;
        let mut count = [0; 2];
        self.get(at, &mut count)?;
        self.put(at, &change(u16::from_be_bytes(count)).to_be_bytes())
    }

    fn get(&mut self, at: u64, buf: &mut [u8]) -> Result<(), Error> {
        crate::disk::read_exact_at(&mut self.image.file, at, buf)
            .map_err(Error::read(Format::Qcow2, at))
    }

    /// Overwrites a part of the file. A table of a damaged image may lead anywhere: nothing is written
    /// behind the end, where a file would grow to whatever it says.
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        if at.checked_add(bytes.len() as u64).is_none_or(|end| end > self.end) {
            return Err(damaged("place of a cluster", at));
        }
        let mut put = || -> io::Result<()> {
            self.image.file.seek(SeekFrom::Start(at))?;
            self.image.file.write_all(bytes)
        };
        put().map_err(Error::write(Format::Qcow2))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::num::NonZero;

    use super::*;
    use crate::disk::Raw;
    use crate::qcow2::{Packing, write};

    #[test]
    fn a_place_behind_the_end_is_damage_and_nothing_grows() {
        let mut raw = Raw::new(Cursor::new(vec![7; 200_000]), None).unwrap();
        let mut image = Cursor::new(Vec::new());
        write(&mut raw, &mut image, Packing::Zlib, NonZero::<usize>::MIN).unwrap();
        let mut editor = Editor::open(image).unwrap();
        editor.write_at(70_000, b"plain from now on").unwrap();
        let mut bytes = editor.finish().unwrap().into_inner();
        let long = |bytes: &[u8], at: usize| {
            usize::try_from(u64::from_be_bytes(*bytes[at..].first_chunk().unwrap()) & PLACE)
                .unwrap()
        };
        // The header's place of the first table, that of the second, the entry of cluster 1.
        let entry = long(&bytes, long(&bytes, 40)) + 8;
        let far = COPIED | 0x00ff_0000_0000_0000;
        bytes[entry..entry + 8].copy_from_slice(&far.to_be_bytes());
        let length = bytes.len();
        let mut editor = Editor::open(Cursor::new(bytes)).unwrap();
        let error = editor.write_at(70_000, b"x").unwrap_err();
        assert!(matches!(error, Error::Damaged { what: "place of a cluster", .. }), "{error:?}");
        editor.write_at(140_000, b"elsewhere").unwrap();
        let after = editor.finish().unwrap().into_inner().len();
        assert!(after <= length.next_multiple_of(65_536) + 65_536, "{length} became {after}");
    }
}
