//! Reading the disk in an image.

use std::io::{Read, Seek};

use super::{
    BLOCK_MAX, DISK_ID, DISK_SIZE, FORMAT, HEAD, Header, ITEMS_AT, ITEMS_MAX, LOGICAL_SECTOR, MIB,
    PARAMETERS, PARTLY_PRESENT, PHYSICAL_SECTOR, PRESENT, STATE, chunk, guid,
};
use crate::disk::{
    Disk, Error, HeaderError, MAP_MAX, Map, Mapped, read_exact_at, read_head, read_words,
};
use crate::field::{le16, le32, le64};

/// What the metadata say.
#[derive(Debug, Default)]
struct Metadata {
    block: u32,
    size: u64,
    sector: u32,
}

/// Opens the disk in an image.
pub fn open<F: Read + Seek>(mut file: F) -> Result<impl Disk, Error> {
    let header = Header::parse(&read_head(&mut file, FORMAT, HEAD)?)?;
    let facts = metadata(&mut file, header.metadata)?;
    let block = u64::from(facts.block);
    let blocks = facts.size.div_ceil(block);
    let per_chunk = chunk(block, facts.sector.into());
    let entries = blocks + blocks.saturating_sub(1) / per_chunk;
    let field = |field, value| HeaderError::Field { format: FORMAT, field, value };
    if blocks > MAP_MAX / 2 {
        return Err(field("disk size", facts.size).into());
    }
    if entries * 8 > header.table.1 {
        return Err(field("length of the block table", header.table.1).into());
    }
    let words = read_words(&mut file, FORMAT, header.table.0, entries * 2)?;
    let mut places = Vec::new();
    for (number, words) in words.as_chunks::<2>().0.iter().enumerate() {
        if number as u64 % (per_chunk + 1) == per_chunk {
            continue; // a bitmap
        }
        let entry = u64::from(words[0]) | u64::from(words[1]) << 32;
        let at = entry / MIB * MIB;
        places.push(match entry & STATE {
            PRESENT => {
                let place = u32::try_from(at / MIB).ok().filter(|place| *place > 0);
                place.ok_or(Error::Damaged { format: FORMAT, what: "place of a block", at })?
            }
            PARTLY_PRESENT => return Err(parent()),
            _ => 0,
        });
    }
    Mapped::new(
        file,
        Map {
            format: FORMAT,
            size: facts.size,
            block,
            places,
            base: MIB, // entry 1 is the second MiB
            unit: MIB,
            deflated: false,
        },
    )
}

fn metadata<F: Read + Seek>(file: &mut F, region: (u64, u64)) -> Result<Metadata, Error> {
    let (at, length) = region;
    let read = Error::read(FORMAT, at);
    let damaged = || Error::Damaged { format: FORMAT, what: "table of metadata", at };
    let mut table = vec![0; ITEMS_AT as usize];
    read_exact_at(file, at, &mut table).map_err(&read)?;
    let count = le16(&table, 10).unwrap_or(0);
    if !table.starts_with(b"metadata") || count > ITEMS_MAX {
        return Err(damaged());
    }
    let mut facts = Metadata::default();
    for entry in (0..usize::from(count)).map(|n| 32 + n * 32) {
        let word = |at| le32(&table, entry + at).ok_or_else(damaged);
        let (place, flags) = (u64::from(word(16)?), word(24)?);
        let mut value = [0; 8];
        if place + 8 <= length {
            read_exact_at(file, at + place, &mut value).map_err(&read)?;
        }
        match guid(&table, entry) {
            Some(PARAMETERS) => {
                facts.block = le32(&value, 0).unwrap_or(0);
                if value[4] & 2 != 0 {
                    return Err(parent());
                }
            }
            Some(DISK_SIZE) => facts.size = le64(&value, 0).unwrap_or(0),
            Some(LOGICAL_SECTOR) => facts.sector = le32(&value, 0).unwrap_or(0),
            Some(DISK_ID | PHYSICAL_SECTOR) => {}
            _ if flags & 4 == 0 => {} // it need not be understood
            _ => {
                let what = "has metadata from the future";
                return Err(HeaderError::Unsupported { format: FORMAT, what }.into());
            }
        }
    }
    let field = |field, value| HeaderError::Field { format: FORMAT, field, value };
    let good = (1 << 20..=BLOCK_MAX).contains(&facts.block) && facts.block.is_power_of_two();
    if !good {
        return Err(field("block size", facts.block.into()).into());
    }
    if facts.sector != 512 && facts.sector != 4096 {
        return Err(field("sector size", facts.sector.into()).into());
    }
    if facts.size > 64 << 40 {
        return Err(field("disk size", facts.size).into());
    }
    Ok(facts)
}

fn parent() -> Error {
    HeaderError::Unsupported { format: FORMAT, what: "stands on another image" }.into()
}
