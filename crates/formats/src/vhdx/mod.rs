//! Hyper-V's disk image (MS-VHDX 8.0): two headers, two tables of regions, a log, and the regions: a
//! block table and metadata. Each stands at a multiple of 1 MiB, as the blocks do.
//!
//! Written and read without differences to other images. An image whose log waits to be applied is
//! refused.

mod read;
mod write;

use model::Bytes;
use uuid::{Uuid, uuid};

use crate::disk::{Format, HeaderError, MAP_MAX};
use crate::field::{le16, le32, le64, take};

pub use read::open;
pub use write::write;

/// Bytes that [`Header::parse`] looks at: the start of the file up to the first region.
pub const HEAD: usize = 320 << 10;
/// The largest disk that we write.
pub const SIZE_MAX: Bytes = Bytes(MAP_MAX / 4 * BLOCK as u64);

const FORMAT: Format = Format::Vhdx;
/// Bytes of a block that we write: the smallest there is, for the least waste.
const BLOCK: usize = 1 << 20;
const BLOCK_MAX: u32 = 256 << 20;
const SECTOR: u32 = 512;
const MIB: u64 = 1 << 20;
const SIGNATURE: &[u8; 8] = b"vhdxfile";
/// Places of the two headers and of the two tables of regions, and their lengths.
const HEADERS: [usize; 2] = [64 << 10, 128 << 10];
const HEADER: usize = 4 << 10;
const REGIONS: [usize; 2] = [192 << 10, 256 << 10];
const REGION: usize = 64 << 10;
const TABLE_REGION: Uuid = uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08");
const METADATA_REGION: Uuid = uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e");
/// Items of the metadata.
const PARAMETERS: Uuid = uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
const DISK_SIZE: Uuid = uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
const DISK_ID: Uuid = uuid!("beca12ab-b2e6-4523-93ef-c309e000c746");
const LOGICAL_SECTOR: Uuid = uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f");
const PHYSICAL_SECTOR: Uuid = uuid!("cda348c7-445d-4471-9cc9-e9885251c556");
/// Where items start in their region: behind a table of this length.
const ITEMS_AT: u32 = 64 << 10;
const ITEMS_MAX: u16 = 2047;
/// States of a block: all of it is there; all of it is in the image's parent or nowhere.
const PRESENT: u64 = 6;
const PARTLY_PRESENT: u64 = 7;
const STATE: u64 = 7;

/// What an image says of itself, as far as that stands at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Which of the two headers counts: the one with the higher number.
    pub sequence: u64,
    /// Where the table of blocks stands, and how long it is.
    table: (u64, u64),
    /// Where the metadata stand, and how long they are.
    metadata: (u64, u64),
}

impl Header {
    /// Reads the start of an image.
    pub fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
        let (need, got) = (Bytes(HEAD as u64), Bytes(bytes.len() as u64));
        let bytes = bytes.get(..HEAD).ok_or(HeaderError::Short { format: FORMAT, need, got })?;
        if !bytes.starts_with(SIGNATURE) {
            return Err(HeaderError::Magic(FORMAT));
        }
        let field = |field, value| HeaderError::Field { format: FORMAT, field, value };
        let headers = HEADERS.iter().filter_map(|at| checked(bytes, *at, HEADER, b"head"));
        let header = headers.max_by_key(|h| le64(h, 8)).ok_or(field("checksum", 0))?;
        let version = le16(header, 66).unwrap_or(0);
        if version != 1 {
            return Err(field("version", version.into()));
        }
        if header[48..64].iter().any(|b| *b != 0) {
            let what = "has a log that waits to be applied";
            return Err(HeaderError::Unsupported { format: FORMAT, what });
        }
        let mut regions = REGIONS.iter().filter_map(|at| checked(bytes, *at, REGION, b"regi"));
        let regions = regions.next().ok_or(field("checksum of the regions", 0))?;
        let count = le32(regions, 8).unwrap_or(0);
        if count > 2047 {
            return Err(field("number of regions", count.into()));
        }
        let (mut table, mut metadata) = (None, None);
        for at in (0..count as usize).map(|n| 16 + n * 32) {
            let kind = guid(regions, at);
            let place = le64(regions, at + 16).unwrap_or(0);
            let length = u64::from(le32(regions, at + 24).unwrap_or(0));
            if place < MIB || !place.is_multiple_of(MIB) || place > u64::MAX / 2 {
                return Err(field("place of a region", place));
            }
            match kind {
                Some(TABLE_REGION) => table = Some((place, length)),
                Some(METADATA_REGION) => metadata = Some((place, length)),
                _ if le32(regions, at + 28) == Some(0) => {}
                _ => {
                    let what = "has regions from the future";
                    return Err(HeaderError::Unsupported { format: FORMAT, what });
                }
            }
        }
        Ok(Header {
            sequence: le64(header, 8).unwrap_or(0),
            table: table.ok_or(field("number of block tables", 0))?,
            metadata: metadata.ok_or(field("number of metadata regions", 0))?,
        })
    }
}

/// A structure with its signature and checksum right.
fn checked<'a>(bytes: &'a [u8], at: usize, length: usize, signature: &[u8]) -> Option<&'a [u8]> {
    let found = bytes.get(at..at + length)?;
    let right = found.starts_with(signature) && le32(found, 4)? == checksum(found);
    right.then_some(found)
}

/// CRC-32C of a structure whose checksum, at byte 4, counts as zero.
fn checksum(bytes: &[u8]) -> u32 {
    let bytes = bytes.iter().enumerate().map(|(n, b)| if (4..8).contains(&n) { 0 } else { *b });
    !bytes.fold(u32::MAX, |crc, b| CASTAGNOLI[usize::from(b ^ crc.to_le_bytes()[0])] ^ (crc >> 8))
}

/// The remainders of all bytes divided by Castagnoli's polynomial, which no crate of ours knows.
static CASTAGNOLI: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
            bit += 1;
        }
        table[n as usize] = crc;
        n += 1;
    }
    table
};

/// Three numbers of a GUID are little-endian here.
fn guid(bytes: &[u8], at: usize) -> Option<Uuid> {
    take(bytes, at).map(Uuid::from_bytes_le)
}

/// How many blocks share a bitmap, which takes an entry of the table between theirs.
fn chunk(block: u64, sector: u64) -> u64 {
    (sector << 23) / block
}
