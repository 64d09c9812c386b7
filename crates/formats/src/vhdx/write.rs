//! Writing an image from a disk.

use std::io::{Seek, Write};

use model::Bytes;
use uuid::Uuid;

use super::{
    BLOCK, DISK_ID, DISK_SIZE, FORMAT, HEADER, HEADERS, ITEMS_AT, LOGICAL_SECTOR, METADATA_REGION,
    MIB, PARAMETERS, PHYSICAL_SECTOR, PRESENT, REGION, REGIONS, SECTOR, SIGNATURE, SIZE_MAX,
    TABLE_REGION, checksum, chunk,
};
use crate::disk::{Disk, Error, SparseOut, pack, whole_sectors};
use crate::field::put;

const CREATOR: &str = "EVE";
/// The log lies in the second MiB and is empty.
const LOG_AT: u64 = MIB;
const LOG: u64 = MIB;
const METADATA_AT: u64 = 2 * MIB;
const TABLE_AT: u64 = 3 * MIB;
/// Entries that must be understood; those that belong to the disk, not to the file.
const REQUIRED: u32 = 4;
const OF_DISK: u32 = 2;

/// Writes an image of `disk` to `out`, which is empty and not flushed to storage. The same disk
/// gives the same bytes, its identity included.
pub fn write<W: Write + Seek>(disk: &mut dyn Disk, out: W) -> Result<(), Error> {
    let size = whole_sectors(disk.size(), FORMAT, SIZE_MAX)?;
    let mut out = SparseOut::new(out, FORMAT);
    let blocks = size.0.div_ceil(BLOCK as u64);
    let per_chunk = chunk(BLOCK as u64, SECTOR.into());
    let entries = blocks + blocks.saturating_sub(1) / per_chunk;
    let table_length = (entries * 8).next_multiple_of(MIB).max(MIB);
    let data_at = TABLE_AT + table_length;
    let packed = pack(disk, BLOCK, &mut out, data_at)?;

    let mut table = Vec::new();
    for (number, place) in packed.map.iter().enumerate() {
        if number > 0 && (number as u64).is_multiple_of(per_chunk) {
            table.extend([0; 8]); // the bitmap of the chunk before, which only differences need
        }
        let place = u64::from(*place).checked_sub(1);
        let entry = place.map_or(0, |n| (data_at + n * BLOCK as u64) | PRESENT);
        table.extend(entry.to_le_bytes());
    }
    out.put(TABLE_AT, &table)?;
    out.put(METADATA_AT, &metadata(size, packed.identity.uuid("disk")))?;
    let regions = regions(table_length);
    for at in REGIONS {
        out.put(at as u64, &regions)?;
    }
    let ids = [packed.identity.uuid("file write"), packed.identity.uuid("data write")];
    for (sequence, at) in (1..).zip(HEADERS) {
        out.put(at as u64, &header(sequence, ids))?;
    }
    let creator: Vec<u8> = CREATOR.encode_utf16().flat_map(u16::to_le_bytes).collect();
    out.put(0, &[SIGNATURE, &creator[..]].concat())?;
    out.finish(data_at + u64::from(packed.count) * BLOCK as u64)
}

fn header(sequence: u64, ids: [Uuid; 2]) -> Vec<u8> {
    let mut header = vec![0; HEADER];
    put(&mut header, 0, b"head");
    put(&mut header, 8, &sequence.to_le_bytes());
    put(&mut header, 16, &ids[0].to_bytes_le());
    put(&mut header, 32, &ids[1].to_bytes_le());
    put(&mut header, 66, &1u16.to_le_bytes()); // version of the format
    put(&mut header, 68, &LOG.to_le_bytes()[..4]);
    put(&mut header, 72, &LOG_AT.to_le_bytes());
    seal(header)
}

fn regions(table_length: u64) -> Vec<u8> {
    let mut regions = vec![0; REGION];
    put(&mut regions, 0, b"regi");
    put(&mut regions, 8, &2u32.to_le_bytes());
    let entries = [(TABLE_REGION, TABLE_AT, table_length), (METADATA_REGION, METADATA_AT, MIB)];
    for (n, (kind, at, length)) in entries.into_iter().enumerate() {
        let entry = 16 + n * 32;
        put(&mut regions, entry, &kind.to_bytes_le());
        put(&mut regions, entry + 16, &at.to_le_bytes());
        put(&mut regions, entry + 24, &length.to_le_bytes()[..4]);
        put(&mut regions, entry + 28, &1u32.to_le_bytes()); // required
    }
    seal(regions)
}

fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&bytes);
    put(&mut bytes, 4, &sum.to_le_bytes());
    bytes
}

fn metadata(size: Bytes, id: Uuid) -> Vec<u8> {
    let block = (BLOCK as u64).to_le_bytes(); // and no flags behind its four bytes
    let sector = SECTOR.to_le_bytes();
    let items: [(Uuid, u32, &[u8]); 5] = [
        (PARAMETERS, REQUIRED, &block),
        (DISK_SIZE, REQUIRED | OF_DISK, &size.0.to_le_bytes()),
        (DISK_ID, REQUIRED | OF_DISK, &id.to_bytes_le()),
        (LOGICAL_SECTOR, REQUIRED | OF_DISK, &sector),
        (PHYSICAL_SECTOR, REQUIRED | OF_DISK, &sector),
    ];
    let mut table = vec![0; ITEMS_AT as usize];
    put(&mut table, 0, b"metadata");
    put(&mut table, 10, &5u16.to_le_bytes());
    let mut values = Vec::new();
    for (n, (kind, flags, value)) in items.into_iter().enumerate() {
        let entry = 32 + n * 32;
        let at = ITEMS_AT + u32::try_from(values.len()).unwrap_or(0);
        put(&mut table, entry, &kind.to_bytes_le());
        put(&mut table, entry + 16, &at.to_le_bytes());
        put(&mut table, entry + 20, &u32::try_from(value.len()).unwrap_or(0).to_le_bytes());
        put(&mut table, entry + 24, &flags.to_le_bytes());
        values.extend(value);
    }
    [table, values].concat()
}
