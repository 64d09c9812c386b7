//! Writing `streamOptimized`: each grain compressed behind its number, each table behind its grains,
//! the directory and a second header at the end.

use std::io::{self, Seek, SeekFrom, Write};
use std::num::NonZero;

use flate2::{Compress, Compression, FlushCompress};

use super::{
    AT_END, COMPRESSED, FORMAT, GRAIN, GRAIN_SECTORS, LINE_ENDS, Layout, MARKERS, SECTOR, SIZE_MAX,
    TABLE, TABLE_SECTORS, TEXT_AT, TEXT_SECTORS, text,
};
use crate::disk::{Blocks, Disk, Error, Identity, whole_sectors};
use crate::field::put;
use crate::guess::is_noise;
use crate::parallel::in_order;

/// Where grains start: the end of the room for the text, rounded up to a grain.
const OVERHEAD: u64 = (TEXT_AT + TEXT_SECTORS).next_multiple_of(GRAIN_SECTORS);
/// Bytes of a grain's marker: its first sector and its length.
const MARKER: usize = 12;
const LEVEL: u32 = 6;
const END: u32 = 0;
const TABLE_FOLLOWS: u32 = 1;
const DIRECTORY_FOLLOWS: u32 = 2;
const FOOTER_FOLLOWS: u32 = 3;

/// Writes an image of `disk` to `out`, which is empty and not flushed to storage. `name` is what the
/// file will be called: the text inside says it. The same disk and name give the same bytes, on any
/// number of threads.
pub fn write<W: Write + Seek>(
    disk: &mut dyn Disk,
    mut out: W,
    name: &str,
    threads: NonZero<usize>,
) -> Result<(), Error> {
    let size = whole_sectors(disk.size(), FORMAT, SIZE_MAX)?;
    let sectors = size.0 / SECTOR;
    let failed = Error::write(FORMAT);
    let mut identity = Identity::new(FORMAT, size);
    out.seek(SeekFrom::Start(OVERHEAD * SECTOR)).map_err(&failed)?;
    let mut grains = Grains { out: &mut out, at: OVERHEAD, table: None, directory: Vec::new() };

    let mut blocks = Blocks::new(disk, GRAIN);
    let next = || {
        let mut grain = vec![0; GRAIN];
        let number = blocks.next(&mut grain)?;
        if let Some(number) = number {
            identity.add(number, &grain);
        }
        Ok(number.map(|number| (number, grain)))
    };
    let start = || {
        let mut deflate = Compress::new(Compression::new(LEVEL), true);
        let mut store = Compress::new(Compression::none(), true);
        move |(number, grain): (u64, Vec<u8>)| {
            let packer = if is_noise(&grain) { &mut store } else { &mut deflate };
            (number, pack(packer, number, &grain))
        }
    };
    in_order(threads, next, start, |(number, grain): (u64, io::Result<Vec<u8>>)| {
        grain.and_then(|grain| grains.put(number, &grain)).map_err(&failed)
    })?;
    let tables = sectors.div_ceil(GRAIN_SECTORS * u64::from(TABLE)).max(1);
    let directory = grains.finish(tables).map_err(&failed)?;

    let flags = LINE_ENDS | COMPRESSED | MARKERS;
    let (version, second_directory, overhead) = (3, 0, OVERHEAD);
    let layout =
        |directory| Layout { sectors, flags, version, second_directory, directory, overhead };
    let id = identity.uuid("content");
    let mut end = || -> io::Result<()> {
        out.write_all(&marker(1, FOOTER_FOLLOWS))?;
        out.write_all(&layout(directory).header())?;
        out.write_all(&marker(0, END))?;
        out.rewind()?;
        let mut head = layout(AT_END).header();
        head.extend(text("streamOptimized", name, sectors, id));
        head.resize(sector_bytes(OVERHEAD), 0);
        out.write_all(&head)?;
        out.flush()
    };
    end().map_err(failed)
}

struct Grains<'a, W> {
    out: &'a mut W,
    /// The next free sector.
    at: u64,
    /// The table whose grains are being written, and its number.
    table: Option<(u64, Vec<u32>)>,
    /// Where tables stand: number and sector.
    directory: Vec<(u64, u32)>,
}

impl<W: Write> Grains<'_, W> {
    fn put(&mut self, number: u64, grain: &[u8]) -> io::Result<()> {
        let (table, slot) = (number / u64::from(TABLE), number % u64::from(TABLE));
        if self.table.as_ref().is_some_and(|(have, _)| *have != table) {
            self.end_table()?;
        }
        let at = sector32(self.at)?;
        let (_, entries) = self.table.get_or_insert_with(|| (table, vec![0; TABLE as usize]));
        entries[usize::try_from(slot).unwrap_or(0)] = at;
        self.write(grain)
    }

    fn end_table(&mut self) -> io::Result<()> {
        let Some((number, entries)) = self.table.take() else { return Ok(()) };
        self.write(&marker(TABLE_SECTORS, TABLE_FOLLOWS))?;
        self.directory.push((number, sector32(self.at)?));
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        self.write(&bytes)
    }

    /// Writes what is open and the directory; returns its sector.
    fn finish(mut self, tables: u64) -> io::Result<u64> {
        self.end_table()?;
        let mut bytes = vec![0; usize::try_from(tables * 4).unwrap_or(usize::MAX)];
        for (number, sector) in std::mem::take(&mut self.directory) {
            let at = usize::try_from(number * 4).unwrap_or(usize::MAX);
            put(&mut bytes, at, &sector.to_le_bytes());
        }
        self.write(&marker((bytes.len() as u64).div_ceil(SECTOR), DIRECTORY_FOLLOWS))?;
        let directory = self.at;
        self.write(&bytes)?;
        Ok(directory)
    }

    /// Writes bytes and fills the last sector.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sectors = (bytes.len() as u64).div_ceil(SECTOR);
        self.out.write_all(bytes)?;
        self.out.write_all(&vec![0; sector_bytes(sectors) - bytes.len()])?;
        self.at += sectors;
        Ok(())
    }
}

/// A grain with its marker.
fn pack(deflate: &mut Compress, number: u64, grain: &[u8]) -> io::Result<Vec<u8>> {
    deflate.reset();
    // Deflate adds less than a thousandth to what does not shrink.
    let mut packed = Vec::with_capacity(MARKER + grain.len() + grain.len() / 512);
    packed.extend((number * GRAIN_SECTORS).to_le_bytes());
    packed.extend([0; 4]);
    deflate.compress_vec(grain, &mut packed, FlushCompress::Finish)?;
    let length = u32::try_from(packed.len() - MARKER).map_err(io::Error::other)?;
    put(&mut packed, MARKER - 4, &length.to_le_bytes());
    Ok(packed)
}

/// The sector before something that is no grain.
fn marker(sectors: u64, kind: u32) -> Vec<u8> {
    let mut marker = vec![0; sector_bytes(1)];
    put(&mut marker, 0, &sectors.to_le_bytes());
    put(&mut marker, 12, &kind.to_le_bytes());
    marker
}

fn sector32(sector: u64) -> io::Result<u32> {
    u32::try_from(sector).map_err(|_| io::Error::other("the image is larger than 2 TiB"))
}

fn sector_bytes(sectors: u64) -> usize {
    usize::try_from(sectors * SECTOR).unwrap_or(usize::MAX)
}
