//! The QCOW2 disk image, version 3 (QEMU's docs/interop/qcow2.txt): clusters of 64 KiB, compressed
//! with zlib where that helps, absent where they are zero.
//!
//! A writer that goes through the disk once, and a header parser. No backing files, snapshots,
//! encryption or external data.

use std::io::{self, Read, Seek, SeekFrom, Write};

use flate2::{Compress, Compression, FlushCompress, Status};
use model::Bytes;

use crate::field::{be32, be64, put};

/// Bytes of a cluster.
pub const CLUSTER: usize = 1 << CLUSTER_BITS;
/// The largest disk we write: an L1 table of one cluster.
pub const SIZE_MAX: Bytes = Bytes(CLUSTER_U64 / 8 * L2_ENTRIES * CLUSTER_U64);
/// Bytes that [`Header::parse`] looks at.
pub const HEADER: usize = 104;

const CLUSTER_BITS: u32 = 16;
const CLUSTER_U64: u64 = 1 << CLUSTER_BITS;
/// Entries of an L2 table, which fills a cluster.
const L2_ENTRIES: u64 = CLUSTER_U64 / 8;
/// Reference counts of 16 bits in a cluster.
const COUNTS: u64 = CLUSTER_U64 / 2;
const MAGIC: u32 = 0x5146_49FB;
/// The cluster is used exactly once.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Where the number of sectors stands in the entry of a compressed cluster.
const SECTORS_SHIFT: u32 = 62 - (CLUSTER_BITS - 8);
/// QEMU inflates with a window of 4 KiB.
const WINDOW_BITS: u8 = 12;

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// The size of the disk inside.
    pub size: Bytes,
    /// Bytes of a cluster, as a power of two: 9 to 21.
    pub cluster_bits: u32,
    /// Whether parts of the disk come from another image.
    pub backed: bool,
    /// Whether the content is encrypted.
    pub encrypted: bool,
    /// How many snapshots are inside.
    pub snapshots: u32,
    /// Features that a reader must know; 0 for version 2.
    pub incompatible: u64,
}

/// Why bytes are no QCOW2 header.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Fewer bytes than the header has.
    #[error("a QCOW2 header has 104 bytes, got {0}")]
    Short(usize),
    /// Another format.
    #[error("there is no QCOW2 signature")]
    Magic,
    /// A value that cannot be.
    #[error("the QCOW2 header's {field} is {value}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        value: u64,
    },
}

impl Header {
    /// Reads the header at the start of an image.
    pub fn parse(bytes: &[u8]) -> Result<Header, ParseError> {
        let short = || ParseError::Short(bytes.len());
        let bytes = bytes.get(..HEADER).ok_or_else(short)?;
        let word = |at| be32(bytes, at).ok_or_else(short);
        let long = |at| be64(bytes, at).ok_or_else(short);
        if word(0)? != MAGIC {
            return Err(ParseError::Magic);
        }
        let field = |field, value: u64, good: bool| {
            if good { Ok(()) } else { Err(ParseError::Field { field, value }) }
        };
        let version = word(4)?;
        field("version", version.into(), (2..=3).contains(&version))?;
        let cluster_bits = word(20)?;
        field("cluster size", cluster_bits.into(), (9..=21).contains(&cluster_bits))?;
        let encryption = word(32)?;
        field("encryption", encryption.into(), encryption <= 2)?;
        Ok(Header {
            version,
            size: Bytes(long(24)?),
            cluster_bits,
            backed: long(8)? != 0,
            encrypted: encryption != 0,
            snapshots: word(60)?,
            incompatible: if version == 3 { long(72)? } else { 0 },
        })
    }
}

/// Writes the disk that `disk` reads, enlarged with zeroes to `size`. `out` is empty; it is not
/// flushed to storage. The same disk gives the same bytes.
///
/// Fails if reading or writing does, and with `InvalidInput` if `size` is smaller than the disk or
/// larger than [`SIZE_MAX`].
pub fn write<R: Read, W: Write + Seek>(disk: &mut R, size: Bytes, out: W) -> io::Result<()> {
    let mut writer = Writer::new(out, size)?;
    let mut cluster = vec![0; CLUSTER];
    for index in 0.. {
        let got = read_full(disk, &mut cluster)?;
        if got == 0 {
            break;
        }
        if index * CLUSTER_U64 + got as u64 > size.0 {
            return Err(invalid("the disk is larger than the image"));
        }
        cluster[got..].fill(0);
        if !is_zero(&cluster[..got]) {
            writer.cluster(index, &cluster)?;
        }
    }
    writer.finish()
}

struct Writer<W> {
    out: W,
    size: Bytes,
    /// L2 tables by their number; absent ones have no cluster.
    l2: Vec<Option<Vec<u64>>>,
    /// How often each cluster of the image is used; its length is the image's, in clusters.
    counts: Vec<u16>,
    /// Where the next compressed cluster may go, and where this room ends. What lies between is
    /// part of one cluster.
    pack: (u64, u64),
    deflate: Compress,
    scratch: Vec<u8>,
}

impl<W: Write + Seek> Writer<W> {
    fn new(out: W, size: Bytes) -> io::Result<Writer<W>> {
        if size > SIZE_MAX {
            return Err(invalid("the image is too large"));
        }
        let tables = size.0.div_ceil(CLUSTER_U64 * L2_ENTRIES).max(1);
        let l1_clusters = (tables * 8).div_ceil(CLUSTER_U64);
        let count = usize::try_from(tables).map_err(|_| invalid("the image is too large"))?;
        let mut writer = Writer {
            out,
            size,
            l2: vec![None; count],
            counts: Vec::new(),
            pack: (0, 0),
            deflate: Compress::new_with_window_bits(Compression::new(6), false, WINDOW_BITS),
            scratch: vec![0; CLUSTER],
        };
        writer.take_clusters(1 + l1_clusters);
        Ok(writer)
    }

    /// Adds a cluster of the disk; numbers ascend.
    fn cluster(&mut self, index: u64, bytes: &[u8]) -> io::Result<()> {
        self.deflate.reset();
        let status = self.deflate.compress(bytes, &mut self.scratch, FlushCompress::Finish)?;
        let length = self.deflate.total_out();
        let entry = if status == Status::StreamEnd && length < CLUSTER_U64 {
            self.compressed(length)?
        } else {
            let at = self.take_clusters(1);
            self.write_at(at, bytes)?;
            at | COPIED
        };
        let (table, slot) = (index / L2_ENTRIES, index % L2_ENTRIES);
        let table = usize::try_from(table).ok().and_then(|n| self.l2.get_mut(n));
        let table = table.ok_or_else(|| invalid("a cluster behind the end of the disk"))?;
        let entries = table.get_or_insert_with(|| vec![0; CLUSTER / 8]);
        // `slot` is less than the length of a table.
        entries[usize::try_from(slot).unwrap_or(0)] = entry;
        Ok(())
    }

    /// Places `length` bytes of `scratch`; returns the entry that finds them.
    fn compressed(&mut self, length: u64) -> io::Result<u64> {
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
        let length = usize::try_from(length).unwrap_or(0);
        self.out.seek(SeekFrom::Start(at))?;
        self.out.write_all(&self.scratch[..length])?;
        let more_sectors = last / 512 - at / 512;
        Ok(COMPRESSED | more_sectors << SECTORS_SHIFT | at)
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

        let mut header = vec![0; CLUSTER];
        let word = |n: u64| n.to_be_bytes();
        put(&mut header, 0, &MAGIC.to_be_bytes());
        put(&mut header, 4, &3u32.to_be_bytes());
        put(&mut header, 20, &CLUSTER_BITS.to_be_bytes());
        put(&mut header, 24, &word(self.size.0));
        put(&mut header, 36, &word(l1_length as u64)[4..]);
        put(&mut header, 40, &word(CLUSTER_U64));
        put(&mut header, 48, &word(table_at));
        put(&mut header, 56, &word(tables)[4..]);
        put(&mut header, 96, &4u32.to_be_bytes()); // counts have 2^4 bits
        put(&mut header, 100, &word(HEADER as u64)[4..]);
        self.write_at(0, &header)?;
        self.out.flush()
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

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|w| u128::from_ne_bytes(*w) == 0) && rest.iter().all(|b| *b == 0)
}

fn read_full<R: Read>(from: &mut R, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match from.read(&mut buf[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}
