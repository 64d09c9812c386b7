//! VirtualBox's disk image: a header, a table of blocks of 1 MiB and the blocks, those that are
//! zero left out. (Facts from VirtualBox's VDICore.h and QEMU's block/vdi.c.)
//!
//! Written and read in version 1.1 without differences to other images.

use std::io::{Read, Seek, Write};

use model::Bytes;

use crate::disk::{
    Disk, Error, Format, Head, HeaderError, MAP_MAX, Map, Mapped, SparseOut, pack, read_head,
    read_words, whole_sectors,
};
use crate::field::put;

/// Bytes that [`Header::parse`] looks at.
pub const HEADER: usize = 512;
/// The largest disk that we write.
pub const SIZE_MAX: Bytes = Bytes(MAP_MAX * BLOCK as u64);

const FORMAT: Format = Format::Vdi;
const BLOCK: usize = 1 << 20;
const TEXT: &[u8] = b"<<< Disk image of EVE >>>\n";
const SIGNATURE: u32 = 0xBEDA_107F;
const VERSION: u32 = 0x0001_0001;
/// What the header says of its own length, from byte 72 on.
const HEADER_LENGTH: u32 = 0x180;
const DYNAMIC: u32 = 1;
const FIXED: u32 = 2;
/// Where we put the table.
const TABLE_AT: u32 = 512;
/// Entries of blocks that are zero: never written, or given up.
const FREE: u32 = 0xFFFF_FFFF;
const ZERO: u32 = 0xFFFF_FFFE;

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The size of the disk inside.
    pub size: Bytes,
    /// How many blocks the disk has.
    pub blocks: u32,
    table_at: u32,
    data_at: u32,
}

impl Header {
    /// Reads the header at the start of an image.
    pub fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
        let head = Head::new(FORMAT, bytes, HEADER)?;
        if head.word(0x40)? != SIGNATURE {
            return Err(HeaderError::Magic(FORMAT));
        }
        let version = head.word(0x44)?;
        head.check("version", version, version == VERSION)?;
        let kind = head.word(0x4C)?;
        head.check("kind", kind, kind == DYNAMIC || kind == FIXED)?;
        let table_at = head.word(0x154)?;
        head.check("place of the table", table_at, table_at.is_multiple_of(512))?;
        let data_at = head.word(0x158)?;
        head.check("place of the data", data_at, data_at.is_multiple_of(512))?;
        let sector = head.word(0x168)?;
        head.check("sector size", sector, sector == 512)?;
        let block = head.word(0x178)?;
        head.check("block size", block, block as usize == BLOCK)?;
        let size = head.long(0x170)?;
        let blocks = head.word(0x180)?;
        let enough = size.div_ceil(BLOCK as u64) <= blocks.into() && u64::from(blocks) <= MAP_MAX;
        head.check("number of blocks", blocks, enough)?;
        // The identities of the image before and of the one that this one stands on.
        if head.bytes()[0x1A8..0x1C8].iter().any(|b| *b != 0) {
            let what = "stands on another image";
            return Err(HeaderError::Unsupported { format: FORMAT, what });
        }
        Ok(Header { size: Bytes(size), blocks, table_at, data_at })
    }
}

/// Opens the disk in an image.
pub fn open<F: Read + Seek>(mut file: F) -> Result<impl Disk, Error> {
    let header = Header::parse(&read_head(&mut file, FORMAT, HEADER)?)?;
    let mut places =
        read_words(&mut file, FORMAT, header.table_at.into(), u64::from(header.blocks))?;
    for place in &mut places {
        *place = if *place == FREE || *place == ZERO { 0 } else { *place + 1 };
    }
    Mapped::new(
        file,
        Map {
            format: FORMAT,
            size: header.size.0,
            block: BLOCK as u64,
            places,
            base: header.data_at.into(),
            unit: BLOCK as u64,
            deflated: false,
        },
    )
}

/// Writes an image of `disk` to `out`, which is empty and not flushed to storage. The same disk
/// gives the same bytes, its identity included.
pub fn write<W: Write + Seek>(disk: &mut dyn Disk, out: W) -> Result<(), Error> {
    let size = whole_sectors(disk.size(), FORMAT, SIZE_MAX)?;
    let mut out = SparseOut::new(out, FORMAT);
    let blocks = size.0.div_ceil(BLOCK as u64);
    // On a border that the blocks of the file system below share.
    let data_at = (u64::from(TABLE_AT) + blocks * 4).next_multiple_of(BLOCK as u64);
    let packed = pack(disk, BLOCK, &mut out, data_at)?;
    let table: Vec<u8> =
        packed.map.iter().flat_map(|n| n.checked_sub(1).unwrap_or(FREE).to_le_bytes()).collect();
    out.put(TABLE_AT.into(), &table)?;

    let too_large = |_| Error::TooLarge { format: FORMAT, size, max: SIZE_MAX };
    let data_at32 = u32::try_from(data_at).map_err(too_large)?;
    let blocks = u32::try_from(blocks).map_err(too_large)?;
    let mut header = vec![0; HEADER];
    put(&mut header, 0, TEXT);
    for (at, word) in [
        (0x40, SIGNATURE),
        (0x44, VERSION),
        (0x48, HEADER_LENGTH),
        (0x4C, DYNAMIC),
        (0x154, TABLE_AT),
        (0x158, data_at32),
        (0x168, 512),
        (0x178, 1 << 20),
        (0x180, blocks),
        (0x184, packed.count),
    ] {
        put(&mut header, at, &word.to_le_bytes());
    }
    put(&mut header, 0x170, &size.0.to_le_bytes());
    put(&mut header, 0x188, &packed.identity.uuid("image").to_bytes_le());
    put(&mut header, 0x198, &packed.identity.uuid("snapshot").to_bytes_le());
    out.put(0, &header)?;
    out.finish(data_at + u64::from(packed.count) * BLOCK as u64)
}
