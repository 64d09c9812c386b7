//! Writing `monolithicSparse`.

use std::io::{Seek, Write};

use super::{
    FORMAT, GRAIN, GRAIN_SECTORS, LINE_ENDS, Layout, SECOND_TABLES, SECTOR, SIZE_MAX, TABLE,
    TABLE_SECTORS, TEXT_AT, TEXT_SECTORS, text,
};
use crate::disk::{Disk, Error, SparseOut, pack, whole_sectors};

/// Writes an image of `disk` to `out`, which is empty and not flushed to storage. `name` is what the
/// file will be called: the text inside says it. The same disk and name give the same bytes.
pub fn write<W: Write + Seek>(disk: &mut dyn Disk, out: W, name: &str) -> Result<(), Error> {
    let size = whole_sectors(disk.size(), FORMAT, SIZE_MAX)?;
    let mut out = SparseOut::new(out, FORMAT);
    let sectors = size.0 / SECTOR;
    let tables = sectors.div_ceil(GRAIN_SECTORS * u64::from(TABLE)).max(1);
    // Twice: a directory and its tables behind it.
    let directory_sectors = (tables * 4).div_ceil(SECTOR);
    let once = directory_sectors + tables * TABLE_SECTORS;
    let second_directory = TEXT_AT + TEXT_SECTORS;
    let directory = second_directory + once;
    let overhead = (directory + once).next_multiple_of(GRAIN_SECTORS);
    let packed = pack(disk, GRAIN, &mut out, overhead * SECTOR)?;

    let too_large = |_| Error::TooLarge { format: FORMAT, size, max: SIZE_MAX };
    let sector32 = |sector: u64| u32::try_from(sector).map_err(too_large);
    let mut entries = Vec::with_capacity(packed.map.len() * 4);
    for place in &packed.map {
        let number = u64::from(*place).checked_sub(1);
        let sector = number.map_or(0, |n| overhead + n * GRAIN_SECTORS);
        entries.extend(sector32(sector)?.to_le_bytes());
    }
    for directory in [second_directory, directory] {
        let tables_at = directory + directory_sectors;
        let places = (0..tables).map(|n| sector32(tables_at + n * TABLE_SECTORS));
        let places = places.collect::<Result<Vec<u32>, Error>>()?;
        let places: Vec<u8> = places.iter().flat_map(|place| place.to_le_bytes()).collect();
        out.put(directory * SECTOR, &places)?;
        out.put(tables_at * SECTOR, &entries)?;
    }
    let id = packed.identity.uuid("content");
    out.put(TEXT_AT * SECTOR, &text("monolithicSparse", name, sectors, id))?;
    let flags = LINE_ENDS | SECOND_TABLES;
    let layout = Layout { sectors, flags, version: 1, second_directory, directory, overhead };
    out.put(0, &layout.header())?;
    out.finish(overhead * SECTOR + u64::from(packed.count) * GRAIN as u64)
}
