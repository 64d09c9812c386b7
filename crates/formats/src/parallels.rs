//! Parallels' disk image (QEMU's docs/interop/parallels.txt, prl-xml.txt): a file `.hds` with a
//! header, a table and blocks of 1 MiB, and the description that stands beside it in a folder.
//!
//! Written in the extended variant, read in both; the description is written, of one read only the
//! name of its file is taken. No snapshots, no format extensions.

use std::io::{Read, Seek, Write};

use model::Bytes;
use uuid::Uuid;

use crate::disk::{
    Disk, Error, Format, Head, HeaderError, MAP_MAX, Map, Mapped, SparseOut, pack, read_head,
    read_words, whole_sectors,
};
use crate::field::put;

/// Bytes that [`Header::parse`] looks at.
pub const HEADER: usize = 64;
/// The largest disk that we write.
pub const SIZE_MAX: Bytes = Bytes(MAP_MAX * BLOCK as u64);
/// The name of the description in its folder.
pub const DESCRIPTION: &str = "DiskDescriptor.xml";
/// The snapshot that every disk of ours is in; it is part of the name of the disk's file.
pub const SNAPSHOT: &str = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";

const FORMAT: Format = Format::Parallels;
const BLOCK: usize = 1 << 20;
const SECTOR: u64 = 512;
const OLD: &[u8; 16] = b"WithoutFreeSpace";
const EXTENDED: &[u8; 16] = b"WithouFreSpacExt";
const VERSION: u32 = 2;
/// The state of an image that a program has open.
const IN_USE: u32 = 0x746F_6E59;
/// What guests are told of the disk's mechanics.
const HEADS: u64 = 16;
const SECTORS_PER_TRACK: u64 = 32;
/// A description is smaller.
const DESCRIPTION_MAX: usize = 64 << 10;

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The size of the disk inside.
    pub size: Bytes,
    /// Bytes of a block.
    pub block: Bytes,
    /// How many blocks the disk has.
    pub blocks: u32,
    /// What the table counts in: blocks or sectors.
    unit: u64,
}

impl Header {
    /// Reads the header at the start of an image.
    pub fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
        let head = Head::new(FORMAT, bytes, HEADER)?;
        let extended = bytes.starts_with(EXTENDED);
        if !extended && !bytes.starts_with(OLD) {
            return Err(HeaderError::Magic(FORMAT));
        }
        let word = |at| head.word(at).map(u64::from);
        let version = word(16)?;
        head.check("version", version, version == u64::from(VERSION))?;
        let track = word(28)?;
        head.check("block size", track, track > 0 && track <= 1 << 20)?;
        let sectors = if extended { head.long(36)? } else { word(36)? };
        head.check("number of sectors", sectors, sectors <= u64::MAX / SECTOR)?;
        let blocks = word(32)?;
        let enough = sectors.div_ceil(track) <= blocks && blocks <= MAP_MAX;
        head.check("number of blocks", blocks, enough)?;
        let state = word(44)?;
        if state == u64::from(IN_USE) {
            let what = "is in use or was not closed well";
            return Err(HeaderError::Unsupported { format: FORMAT, what });
        }
        Ok(Header {
            size: Bytes(sectors * SECTOR),
            block: Bytes(track * SECTOR),
            blocks: u32::try_from(blocks).unwrap_or(0), // it was read from 32 bits
            unit: if extended { track * SECTOR } else { SECTOR },
        })
    }
}

/// Opens the disk in an image.
pub fn open<F: Read + Seek>(mut file: F) -> Result<impl Disk, Error> {
    let header = Header::parse(&read_head(&mut file, FORMAT, HEADER)?)?;
    let places = read_words(&mut file, FORMAT, HEADER as u64, header.blocks.into())?;
    Mapped::new(
        file,
        Map {
            format: FORMAT,
            size: header.size.0,
            block: header.block.0,
            places,
            base: header.unit, // entry 1 is the first unit of the file
            unit: header.unit,
            deflated: false,
        },
    )
}

/// Writes an image of `disk` to `out`, which is empty and not flushed to storage. The same disk
/// gives the same bytes. Returns the disk's identity, for its description.
pub fn write<W: Write + Seek>(disk: &mut dyn Disk, out: W) -> Result<Uuid, Error> {
    let size = whole_sectors(disk.size(), FORMAT, SIZE_MAX)?;
    let too_large = |_| Error::TooLarge { format: FORMAT, size, max: SIZE_MAX };
    let sectors = size.0 / SECTOR;
    let blocks = u32::try_from(size.0.div_ceil(BLOCK as u64)).map_err(too_large)?;
    let mut out = SparseOut::new(out, FORMAT);
    let data_at = (HEADER as u64 + u64::from(blocks) * 4).next_multiple_of(BLOCK as u64);
    let packed = pack(disk, BLOCK, &mut out, data_at)?;
    let first = u32::try_from(data_at / BLOCK as u64).map_err(too_large)?;

    let mut head = vec![0; HEADER];
    put(&mut head, 0, EXTENDED);
    let cylinders = u32::try_from(sectors.div_ceil(HEADS * SECTORS_PER_TRACK)).unwrap_or(u32::MAX);
    let data_sector = u32::try_from(data_at / SECTOR).map_err(too_large)?;
    for (at, word) in [
        (16, VERSION),
        (20, 16), // HEADS
        (24, cylinders),
        (28, 2048), // sectors of a block
        (32, blocks),
        (48, data_sector),
    ] {
        put(&mut head, at, &word.to_le_bytes());
    }
    put(&mut head, 36, &sectors.to_le_bytes());
    let place = |n: &u32| if *n == 0 { 0 } else { first + n - 1 };
    head.extend(packed.map.iter().flat_map(|n| place(n).to_le_bytes()));
    out.put(0, &head)?;
    out.finish(data_at + u64::from(packed.count) * BLOCK as u64)?;
    Ok(packed.identity.uuid("disk"))
}

/// The name of the disk's file in a folder called `name` and `.parallels`.
pub fn file_name(name: &str) -> String {
    format!("{name}.0.{SNAPSHOT}.hds")
}

/// The description of a disk of this size whose file is [`file_name`] of `name`.
pub fn description(name: &str, size: Bytes, id: Uuid) -> String {
    let sectors = size.0.div_ceil(SECTOR);
    let cylinders = sectors / HEADS / SECTORS_PER_TRACK;
    let file = file_name(name);
    let nobody = Uuid::nil();
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<Parallels_disk_image Version="1.0">
  <Disk_Parameters>
    <Disk_size>{sectors}</Disk_size>
    <Cylinders>{cylinders}</Cylinders>
    <PhysicalSectorSize>512</PhysicalSectorSize>
    <Heads>{HEADS}</Heads>
    <Sectors>{SECTORS_PER_TRACK}</Sectors>
    <Padding>0</Padding>
    <Encryption>
      <Engine>{{{nobody}}}</Engine>
      <Data></Data>
    </Encryption>
    <UID>{{{id}}}</UID>
    <Name>eve</Name>
    <Miscellaneous>
      <CompatLevel>level2</CompatLevel>
      <Bootable>1</Bootable>
      <SuspendState>0</SuspendState>
    </Miscellaneous>
  </Disk_Parameters>
  <StorageData>
    <Storage>
      <Start>0</Start>
      <End>{sectors}</End>
      <Blocksize>2048</Blocksize>
      <Image>
        <GUID>{SNAPSHOT}</GUID>
        <Type>Compressed</Type>
        <File>{file}</File>
      </Image>
    </Storage>
  </StorageData>
  <Snapshots>
    <Shot>
      <GUID>{SNAPSHOT}</GUID>
      <ParentGUID>{{{nobody}}}</ParentGUID>
    </Shot>
  </Snapshots>
</Parallels_disk_image>
"#
    )
}

/// The name of the disk's file in a description of one disk in one file. `None` if there is none, or
/// several, or it lies elsewhere.
pub fn described_file(description: &str) -> Option<&str> {
    let text = description.get(..description.len().min(DESCRIPTION_MAX))?;
    let (_, rest) = text.split_once("<File>")?;
    let (name, rest) = rest.split_once("</File>")?;
    let plain = !name.is_empty() && !name.contains(['/', '\\', '<', '&', '\0']) && name != "..";
    (plain && !rest.contains("<File>")).then_some(name)
}
