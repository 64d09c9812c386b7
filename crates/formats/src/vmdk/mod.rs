//! VMware's disk image in one file (the "Virtual Disk Format 5.0" note, QEMU's block/vmdk.c): a
//! header, a description as text, tables in two levels and grains of 64 KiB.
//!
//! Written as `monolithicSparse`, which programs run, and as `streamOptimized`, which is compressed
//! and travels; both are read. No split images, no differences to other images.

mod read;
mod stream;
mod write;

use model::Bytes;
use uuid::Uuid;

use crate::disk::{Format, Head, HeaderError};
use crate::field::put;

pub use read::open;
pub use stream::write as write_stream;
pub use write::write;

/// Bytes that [`Header::parse`] looks at.
pub const HEADER: usize = 512;
/// The largest disk: that of VMware.
pub const SIZE_MAX: Bytes = Bytes::gib(2048);

const FORMAT: Format = Format::Vmdk;
const SECTOR: u64 = 512;
/// Bytes of a grain that we write, and sectors.
const GRAIN: usize = 1 << 16;
const GRAIN_SECTORS: u64 = 128;
/// Entries of a grain table that we write, and the sectors it takes.
const TABLE: u32 = 512;
const TABLE_SECTORS: u64 = 4;
/// Where the text stands, and how much room it has.
const TEXT_AT: u64 = 1;
const TEXT_SECTORS: u64 = 20;
const MAGIC: &[u8; 4] = b"KDMV";
/// The line ends that follow are right; the second tables are there; grains are compressed; they
/// have markers.
const LINE_ENDS: u32 = 1;
const SECOND_TABLES: u32 = 2;
const COMPRESSED: u32 = 1 << 16;
const MARKERS: u32 = 1 << 17;
/// The directory's place when the footer knows it.
const AT_END: u64 = u64::MAX;
const DEFLATE: u16 = 1;

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The size of the disk inside.
    pub size: Bytes,
    /// Bytes of a grain.
    pub grain: Bytes,
    /// Whether grains are compressed.
    pub compressed: bool,
    /// Entries of a table.
    per_table: u32,
    /// Where the directory stands, in sectors.
    directory: u64,
}

impl Header {
    /// Reads the header at the start of an image, or the one in its footer.
    pub fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
        let head = Head::new(FORMAT, bytes, HEADER)?;
        if !bytes.starts_with(MAGIC) {
            return Err(HeaderError::Magic(FORMAT));
        }
        let version = head.word(4)?;
        head.check("version", version, (1..=3).contains(&version))?;
        let flags = head.word(8)?;
        let packing = head.half(77)?;
        let compressed = flags & COMPRESSED != 0;
        head.check("way of compression", packing, packing == u16::from(compressed))?;
        let sectors = head.long(12)?;
        head.check("capacity", sectors, sectors <= SIZE_MAX.0 / SECTOR)?;
        let grain = head.long(20)?;
        let good = (8..=2048).contains(&grain) && grain.is_power_of_two();
        head.check("grain size", grain, good)?;
        let per_table = head.word(44)?;
        head.check("entries of a table", per_table, (1..=4096).contains(&per_table))?;
        let directory = head.long(56)?;
        let good = directory > 0 && (directory == AT_END || directory < u64::MAX / SECTOR);
        head.check("place of the directory", directory, good)?;
        Ok(Header {
            size: Bytes(sectors * SECTOR),
            grain: Bytes(grain * SECTOR),
            compressed,
            per_table,
            directory,
        })
    }
}

/// A header as we write it.
struct Layout {
    sectors: u64,
    flags: u32,
    version: u32,
    second_directory: u64,
    directory: u64,
    /// Sectors before the first grain.
    overhead: u64,
}

impl Layout {
    fn header(&self) -> Vec<u8> {
        let mut header = vec![0; HEADER];
        put(&mut header, 0, MAGIC);
        put(&mut header, 4, &self.version.to_le_bytes());
        put(&mut header, 8, &self.flags.to_le_bytes());
        put(&mut header, 44, &TABLE.to_le_bytes());
        for (at, long) in [
            (12, self.sectors),
            (20, GRAIN_SECTORS),
            (28, TEXT_AT),
            (36, TEXT_SECTORS),
            (48, self.second_directory),
            (56, self.directory),
            (64, self.overhead),
        ] {
            put(&mut header, at, &long.to_le_bytes());
        }
        put(&mut header, 73, b"\n \r\n");
        if self.flags & COMPRESSED != 0 {
            put(&mut header, 77, &DEFLATE.to_le_bytes());
        }
        header
    }
}

/// The text of an image: what it is, which file holds the disk, what guests are told of it.
fn text(kind: &str, name: &str, sectors: u64, id: Uuid) -> Vec<u8> {
    // What a text says before another program changed the disk: any number but the last one.
    let id = u32::try_from(id.as_u128() >> 96).unwrap_or(0).min(0xFFFF_FFFD);
    let cylinders = (sectors / (16 * 63)).clamp(1, 16_383);
    let name: String = name.chars().filter(|c| !c.is_control() && *c != '"').take(200).collect();
    format!(
        "# Disk DescriptorFile\n\
         version=1\n\
         CID={id:08x}\n\
         parentCID=ffffffff\n\
         createType=\"{kind}\"\n\
         \n\
         # Extent description\n\
         RW {sectors} SPARSE \"{name}\"\n\
         \n\
         # The Disk Data Base\n\
         #DDB\n\
         \n\
         ddb.virtualHWVersion = \"4\"\n\
         ddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"16\"\n\
         ddb.geometry.sectors = \"63\"\n\
         ddb.adapterType = \"ide\"\n"
    )
    .into_bytes()
}
