//! Writing an image from a disk.

use std::io::{self, Seek, SeekFrom, Write};
use std::num::NonZero;

use flate2::{Compress, Compression, FlushCompress, Status};
use model::Bytes;

use super::{
    CLUSTER, CLUSTER_BITS, CLUSTER_U64, COMPRESSED, COPIED, COUNTS, HEADER, L2_ENTRIES, MAGIC,
    OTHER_PACKING, SIZE_MAX, sectors_shift,
};
use crate::disk::{Blocks, Disk, Error, Format, behind_the_end};
use crate::field::put;
use crate::guess::is_noise;
use crate::parallel::in_order;

/// QEMU inflates with a window of 4 KiB.
pub(super) const WINDOW_BITS: u8 = 12;
const ZLIB_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// What becomes of clusters that are not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// They stay as they are: the largest image, the fastest disk.
    Plain,
    /// They are compressed so that every QEMU reads them.
    Zlib,
    /// They are compressed so that QEMU from 5.1 on reads them: smaller, and faster both ways.
    Zstd,
}

/// Writes an image of `disk` to `out`, which is empty and not flushed to storage. The same disk gives
/// the same bytes, on any number of threads.
pub fn write<W: Write + Seek>(
    disk: &mut dyn Disk,
    out: W,
    packing: Packing,
    threads: NonZero<usize>,
) -> Result<(), Error> {
    let mut writer = Writer::new(out, disk.size(), packing)?;
    let mut blocks = Blocks::new(disk, CLUSTER);
    let next = || {
        let mut cluster = vec![0; CLUSTER];
        Ok(blocks.next(&mut cluster)?.map(|number| (number, cluster)))
    };
    let start = || {
        let mut packer = Packer::new(packing);
        move |(number, cluster): (u64, Vec<u8>)| (number, packer.pack(cluster))
    };
    let failed = Error::write(Format::Qcow2);
    in_order(threads, next, start, |(number, cluster): (u64, io::Result<Cluster>)| {
        writer.cluster(number, &cluster.map_err(&failed)?)
    })?;
    writer.finish().map_err(failed)
}

/// A cluster as it will lie in the image.
pub(super) enum Cluster {
    Plain(Vec<u8>),
    Packed(Vec<u8>),
}

/// What a thread packs clusters with.
struct Packer {
    scratch: Vec<u8>,
    codec: Codec,
}

enum Codec {
    Plain,
    Zlib(Box<Compress>),
    Zstd(Box<io::Result<zstd::bulk::Compressor<'static>>>),
}

impl Packer {
    fn new(packing: Packing) -> Packer {
        let codec = match packing {
            Packing::Plain => Codec::Plain,
            Packing::Zlib => {
                let level = Compression::new(ZLIB_LEVEL);
                Codec::Zlib(Box::new(Compress::new_with_window_bits(level, false, WINDOW_BITS)))
            }
            Packing::Zstd => Codec::Zstd(Box::new(zstd::bulk::Compressor::new(ZSTD_LEVEL))),
        };
        Packer { scratch: vec![0; CLUSTER], codec }
    }

    fn pack(&mut self, cluster: Vec<u8>) -> io::Result<Cluster> {
        if is_noise(&cluster) {
            return Ok(Cluster::Plain(cluster));
        }
        let length = match &mut self.codec {
            Codec::Plain => None,
            Codec::Zlib(deflate) => {
                deflate.reset();
                let status =
                    deflate.compress(&cluster, &mut self.scratch, FlushCompress::Finish)?;
                let length = usize::try_from(deflate.total_out()).unwrap_or(CLUSTER);
                (status == Status::StreamEnd).then_some(length)
            }
            Codec::Zstd(zstd) => match zstd.as_mut() {
                // What does not fit has not shrunk.
                Ok(zstd) => zstd.compress_to_buffer(&cluster, &mut self.scratch[..]).ok(),
                Err(e) => return Err(io::Error::new(e.kind(), e.to_string())),
            },
        };
        Ok(match length.filter(|length| *length < CLUSTER) {
            Some(length) => Cluster::Packed(self.scratch[..length].to_vec()),
            None => Cluster::Plain(cluster),
        })
    }
}

struct Writer<W> {
    out: W,
    size: Bytes,
    packing: Packing,
    /// L2 tables by their number; absent ones have no cluster.
    l2: Vec<Option<Vec<u64>>>,
    /// How often each cluster of the image is used; its length is the image's, in clusters.
    counts: Vec<u16>,
    /// Where the next compressed cluster may go, and where this room ends. What lies between is
    /// part of one cluster.
    pack: (u64, u64),
}

impl<W: Write + Seek> Writer<W> {
    fn new(out: W, size: Bytes, packing: Packing) -> Result<Writer<W>, Error> {
        let too_large = || Error::TooLarge { format: Format::Qcow2, size, max: SIZE_MAX };
        if size > SIZE_MAX {
            return Err(too_large());
        }
        let tables = size.0.div_ceil(CLUSTER_U64 * L2_ENTRIES).max(1);
        let l1_clusters = (tables * 8).div_ceil(CLUSTER_U64);
        let count = usize::try_from(tables).map_err(|_| too_large())?;
        let (l2, counts) = (vec![None; count], Vec::new());
        let mut writer = Writer { out, size, packing, l2, counts, pack: (0, 0) };
        writer.take_clusters(1 + l1_clusters);
        Ok(writer)
    }

    /// Adds a cluster of the disk; numbers ascend.
    fn cluster(&mut self, number: u64, cluster: &Cluster) -> Result<(), Error> {
        let entry = match cluster {
            Cluster::Packed(bytes) => self.packed(bytes),
            Cluster::Plain(bytes) => {
                let at = self.take_clusters(1);
                self.write_at(at, bytes).map(|()| at | COPIED)
            }
        };
        let entry = entry.map_err(Error::write(Format::Qcow2))?;
        let (table, slot) = (number / L2_ENTRIES, number % L2_ENTRIES);
        let table = usize::try_from(table).ok().and_then(|n| self.l2.get_mut(n));
        let table = table.ok_or_else(|| behind_the_end(Format::Qcow2))?;
        let entries = table.get_or_insert_with(|| vec![0; CLUSTER / 8]);
        // `slot` is less than the length of a table.
        entries[usize::try_from(slot).unwrap_or(0)] = entry;
        Ok(())
    }

    /// Places a compressed cluster; returns the entry that finds it.
    fn packed(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let length = bytes.len() as u64;
        let (mut at, mut room) = self.pack;
        let at_end = room == self.end();
        if room - at < length && !(at_end && at < room) {
            (at, room) = (self.end(), self.end());
        }
        if room - at < length {
            self.take_fresh();
            room += CLUSTER_U64;
        }
        let last = at + length - 1;
        for cluster in at / CLUSTER_U64..=last / CLUSTER_U64 {
            self.counts[index(cluster)] += 1;
        }
        self.pack = (at + length, room);
        self.write_at(at, bytes)?;
        let more_sectors = last / 512 - at / 512;
        Ok(COMPRESSED | more_sectors << sectors_shift(CLUSTER_BITS) | at)
    }

    /// Writes what finds everything, and the header last: until then it is no image.
    fn finish(mut self) -> io::Result<()> {
        let mut l1 = Vec::new();
        for table in std::mem::take(&mut self.l2) {
            let Some(entries) = table else {
                l1.push(0);
                continue;
            };
            let at = self.take_clusters(1);
            self.write_at(at, &bytes_of(&entries))?;
            l1.push(at | COPIED);
        }
        let l1_length = l1.len();
        self.write_at(CLUSTER_U64, &bytes_of(&l1))?;

        // The counts count themselves and the table that finds them, which may need another block.
        let used = self.counts.len() as u64;
        let (mut blocks, mut tables) = (1, 1);
        while used + blocks + tables > blocks * COUNTS || blocks * 8 > tables * CLUSTER_U64 {
            blocks = (used + blocks + tables).div_ceil(COUNTS);
            tables = (blocks * 8).div_ceil(CLUSTER_U64);
        }
        let table_at = self.take_clusters(tables);
        let blocks_at = self.take_clusters(blocks);
        let table: Vec<u64> = (0..blocks).map(|n| blocks_at + n * CLUSTER_U64).collect();
        self.write_at(table_at, &bytes_of(&table))?;
        let mut counts: Vec<u8> = self.counts.iter().flat_map(|n| n.to_be_bytes()).collect();
        counts.resize(counts.len().next_multiple_of(CLUSTER), 0);
        self.write_at(blocks_at, &counts)?;

        let header = self.header(l1_length as u64, table_at, tables);
        self.write_at(0, &header)?;
        self.out.flush()
    }

    fn header(&self, l1_length: u64, table_at: u64, tables: u64) -> Vec<u8> {
        let mut header = vec![0; CLUSTER];
        let word = |n: u64| n.to_be_bytes();
        put(&mut header, 0, &MAGIC.to_be_bytes());
        put(&mut header, 4, &3u32.to_be_bytes());
        put(&mut header, 20, &CLUSTER_BITS.to_be_bytes());
        put(&mut header, 24, &word(self.size.0));
        put(&mut header, 36, &word(l1_length)[4..]);
        put(&mut header, 40, &word(CLUSTER_U64));
        put(&mut header, 48, &word(table_at));
        put(&mut header, 56, &word(tables)[4..]);
        put(&mut header, 96, &4u32.to_be_bytes()); // counts have 2^4 bits
        put(&mut header, 100, &word(HEADER as u64)[4..]);
        if self.packing == Packing::Zstd {
            put(&mut header, 72, &word(OTHER_PACKING));
            put(&mut header, 104, &[1]);
        }
        header
    }

    /// New clusters that are used once each; returns where they start.
    fn take_clusters(&mut self, count: u64) -> u64 {
        let at = self.end();
        self.counts.extend((0..count).map(|_| 1));
        at
    }

    /// A new cluster that nothing uses yet.
    fn take_fresh(&mut self) {
        self.counts.push(0);
    }

    fn end(&self) -> u64 {
        self.counts.len() as u64 * CLUSTER_U64
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.out.seek(SeekFrom::Start(at))?;
        self.out.write_all(bytes)
    }
}

fn bytes_of(entries: &[u64]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(|n| n.to_be_bytes()).collect();
    bytes.resize(bytes.len().next_multiple_of(CLUSTER), 0);
    bytes
}

/// Clusters are counted in a `Vec`, so their numbers fit.
fn index(cluster: u64) -> usize {
    usize::try_from(cluster).unwrap_or(usize::MAX)
}
