//! The QCOW2 disk image (QEMU's docs/interop/qcow2.txt): clusters that a table in two levels finds,
//! compressed where that helps, absent where they are zero.
//!
//! A writer of version 3 with clusters of 64 KiB that goes through the disk once; a reader of
//! versions 2 and 3; and an editor that changes a finished image in place. No backing files,
//! encryption, external data or subclusters; of snapshots nothing is seen.

mod edit;
mod read;
mod write;

use model::Bytes;

use crate::disk::{Format, HeaderError};
use crate::field::{be32, be64};

pub use edit::Editor;
pub use read::Reader;
pub use write::{Packing, write};

/// Bytes of a cluster that we write.
pub const CLUSTER: usize = 1 << CLUSTER_BITS;
/// The largest disk we write: an L1 table of one cluster.
pub const SIZE_MAX: Bytes = Bytes(CLUSTER_U64 / 8 * L2_ENTRIES * CLUSTER_U64);
/// Bytes that [`Header::parse`] looks at.
pub const HEADER: usize = 112;

const CLUSTER_BITS: u32 = 16;
const CLUSTER_U64: u64 = 1 << CLUSTER_BITS;
/// Entries of an L2 table that we write, which fills a cluster.
const L2_ENTRIES: u64 = CLUSTER_U64 / 8;
/// Reference counts of 16 bits in a cluster that we write.
const COUNTS: u64 = CLUSTER_U64 / 2;
const MAGIC: u32 = 0x5146_49FB;
/// Bytes of a header of version 2, and of one of version 3 that names no way of compression.
const HEADER_2: u64 = 72;
const HEADER_3: u64 = 104;
/// The cluster is used exactly once.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// The cluster is zero, whatever stands at its place; version 3 only.
const ZERO: u64 = 1;
/// Where in a table's entry the place of a cluster stands.
const PLACE: u64 = 0x00FF_FFFF_FFFF_FE00;
/// Incompatible features: it was not closed well, its tables are broken, its data lie in another
/// file, it is compressed in another way than zlib's, its clusters have parts.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 2;
const EXTERNAL: u64 = 4;
const OTHER_PACKING: u64 = 8;
const SUBCLUSTERS: u64 = 16;
/// QEMU reads no larger L1 table.
const L1_MAX: u32 = (32 << 20) / 8;

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
    /// How clusters are compressed.
    pub packing: Packing,
    /// Entries of the L1 table, enough for the size.
    l1_entries: u32,
    l1_at: u64,
    counts_at: u64,
    counts_clusters: u32,
    /// Bits of a reference count, as a power of two.
    count_order: u32,
}

impl Header {
    /// Reads the header at the start of an image.
    pub fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
        let format = Format::Qcow2;
        let short = || HeaderError::Short {
            format,
            need: Bytes(HEADER as u64),
            got: Bytes(bytes.len() as u64),
        };
        let bytes = bytes.get(..HEADER).ok_or_else(short)?;
        let word = |at| be32(bytes, at).ok_or_else(short);
        let long = |at| be64(bytes, at).ok_or_else(short);
        if word(0)? != MAGIC {
            return Err(HeaderError::Magic(format));
        }
        let field = |field, value: u64, good: bool| {
            if good { Ok(()) } else { Err(HeaderError::Field { format, field, value }) }
        };
        let version = word(4)?;
        field("version", version.into(), (2..=3).contains(&version))?;
        let cluster_bits = word(20)?;
        field("cluster size", cluster_bits.into(), (9..=21).contains(&cluster_bits))?;
        let encryption = word(32)?;
        field("encryption", encryption.into(), encryption <= 2)?;
        let size = long(24)?;
        let per_table = 1u64 << (2 * cluster_bits - 3);
        let l1_entries = word(36)?;
        let enough = size.div_ceil(per_table) <= l1_entries.into() && l1_entries <= L1_MAX;
        field("length of the L1 table", l1_entries.into(), enough)?;
        let cluster = 1u64 << cluster_bits;
        let (l1_at, counts_at) = (long(40)?, long(48)?);
        field("place of the L1 table", l1_at, l1_at.is_multiple_of(cluster))?;
        field("place of the counts", counts_at, counts_at.is_multiple_of(cluster))?;
        let (incompatible, count_order, length) =
            if version == 3 { (long(72)?, word(96)?, word(100)?.into()) } else { (0, 4, HEADER_2) };
        field("width of a count", count_order.into(), count_order <= 6)?;
        let good = version == 2 || (HEADER_3..=cluster).contains(&length);
        field("header length", length, good)?;
        let packing = if length > HEADER_3 { bytes[104] } else { 0 };
        field("way of compression", packing.into(), packing <= 1)?;
        Ok(Header {
            version,
            size: Bytes(size),
            cluster_bits,
            backed: long(8)? != 0,
            encrypted: encryption != 0,
            snapshots: word(60)?,
            incompatible,
            packing: if packing == 1 { Packing::Zstd } else { Packing::Zlib },
            l1_entries,
            l1_at,
            counts_at,
            counts_clusters: word(56)?,
            count_order,
        })
    }

    /// Refuses what [`Reader`] cannot read.
    fn check(&self) -> Result<(), HeaderError> {
        let known = DIRTY | CORRUPT | EXTERNAL | OTHER_PACKING | SUBCLUSTERS;
        let refused = [
            (self.backed, "stands on another image"),
            (self.encrypted, "is encrypted"),
            (self.incompatible & CORRUPT != 0, "is marked as corrupt"),
            (self.incompatible & EXTERNAL != 0, "has its data in another file"),
            (self.incompatible & SUBCLUSTERS != 0, "has clusters in parts"),
            (self.incompatible & !known != 0, "has features from the future"),
        ];
        match refused.into_iter().find(|(is, _)| *is) {
            Some((_, what)) => Err(HeaderError::Unsupported { format: Format::Qcow2, what }),
            None => Ok(()),
        }
    }

    /// Bytes of a cluster.
    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries of an L2 table.
    fn l2_entries(&self) -> u64 {
        self.cluster() / 8
    }

    /// Where a compressed cluster starts, and how long the sectors are that hold it.
    fn packed_place(&self, entry: u64) -> (u64, u64) {
        let shift = sectors_shift(self.cluster_bits);
        let at = entry & ((1 << shift) - 1);
        let more_sectors = (entry & !(COPIED | COMPRESSED)) >> shift;
        (at, (more_sectors + 1) * 512 - at % 512)
    }
}

/// Where the number of further sectors stands in the entry of a compressed cluster.
const fn sectors_shift(cluster_bits: u32) -> u32 {
    62 - (cluster_bits - 8)
}
