//! Writing an image, from its first byte to its last.

use std::io::{self, Read, Write};

use model::{Bytes, Sector512};

use super::entry::Overflow;
use super::folder::{Listing, Places, root_record};
use super::{
    BOOT, BOOTABLE, DESCRIPTORS, Date, EL_TORITO, LAST, PLATFORM_EFI, PRIMARY, SECTOR,
    SECTOR_LENGTH, STANDARD, Volume, WriteError, both16, both32,
};
use crate::Extent;
use crate::field::put;
use crate::gpt::Gpt;
use crate::tree::{Content, Contents, Kind, Tree};

/// Partitions start at multiples of this many bytes.
const ALIGNMENT: u64 = 1 << 20;
/// Empty sectors at the end: drives that read ahead fail there, and the second partition table
/// stands in the last of them.
const TAIL: u64 = 150;

/// Writes an image of a tree. What the tree has of extended attributes is lost. The same volume and
/// tree give the same bytes.
pub fn write<C, W: Write>(
    volume: &Volume,
    tree: &Tree<C>,
    contents: &dyn Contents<C>,
    out: W,
) -> Result<(), WriteError> {
    check(volume, tree)?;
    let layout = Layout::of(volume, tree)?;
    let table = layout.table(volume, tree)?;
    let extents = table.as_ref().map(Gpt::to_extents).unwrap_or_default();
    let mut out = Out { out, at: 0 };
    out.put(&covered(&extents, 0, DESCRIPTORS * SECTOR))?;
    out.put(&layout.descriptors(volume, tree))?;
    out.pad_to(layout.path_tables_at)?;
    for big in [false, true] {
        out.put(&layout.path_table(big))?;
        out.pad_to(out.at.div_ceil(SECTOR))?;
    }
    if let Some(boot) = &volume.boot {
        out.put(&catalog(layout.file(boot), size(tree, boot)))?;
    }
    let mut overflow = Overflow { at: layout.overflow_at, bytes: Vec::new() };
    for number in 0..layout.listing.folders.len() {
        out.put(&layout.listing.records(number, &layout.places, &mut overflow))?;
    }
    out.put(&overflow.bytes)?;
    for (path, content, at) in &layout.files {
        out.pad_to(*at)?;
        let read = |source| WriteError::Read { path: path.to_vec(), source };
        let mut file = contents.open(&content.at).map_err(read)?;
        out.copy(&mut *file, content.size.0, &read)?;
    }
    out.pad_to(layout.end - TAIL)?;
    out.put(&covered(&extents, (layout.end - TAIL) * SECTOR, TAIL * SECTOR))?;
    out.out.flush().map_err(WriteError::Write)
}

fn check<C>(volume: &Volume, tree: &Tree<C>) -> Result<(), WriteError> {
    let good = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    if !(1..=32).contains(&volume.id.len()) || !volume.id.bytes().all(good) {
        return Err(WriteError::Id(volume.id.clone()));
    }
    let named = volume.boot.iter().chain(volume.parts.iter().map(|part| &part.path));
    let is_file =
        |path: &&Vec<u8>| !matches!(tree.get(path), Some(n) if matches!(n.kind, Kind::File(_)));
    match named.into_iter().find(is_file) {
        Some(path) => Err(WriteError::Missing(path.clone())),
        None => Ok(()),
    }
}

/// What lies where, in sectors.
struct Layout<'a, C> {
    listing: Listing<'a, C>,
    places: Places<'a>,
    path_tables_at: u64,
    path_table: usize,
    catalog_at: u64,
    overflow_at: u32,
    /// Files with something in them: path, content, first sector; in the order of their places.
    files: Vec<(&'a [u8], &'a Content<C>, u64)>,
    end: u64,
}

impl<'a, C> Layout<'a, C> {
    fn of(volume: &Volume, tree: &'a Tree<C>) -> Result<Layout<'a, C>, WriteError> {
        let listing = Listing::of(tree, &volume.hidden);
        let mut layout = Layout {
            listing,
            places: Places::default(),
            // Two descriptors, and one that says where to boot.
            path_tables_at: DESCRIPTORS + 2 + u64::from(volume.boot.is_some()),
            path_table: 0,
            catalog_at: 0,
            overflow_at: 0,
            files: Vec::new(),
            end: 0,
        };
        layout.path_table = layout.path_table(false).len();
        let path_tables = 2 * (layout.path_table as u64).div_ceil(SECTOR);
        layout.catalog_at = layout.path_tables_at + path_tables;
        let mut at = layout.catalog_at + u64::from(volume.boot.is_some());
        // Lengths do not depend on places: the records are made once to measure them.
        let mut overflow = Overflow::default();
        let mut folders = Vec::new();
        for number in 0..layout.listing.folders.len() {
            let records = layout.listing.records(number, &layout.places, &mut overflow);
            let length = u32::try_from(records.len()).unwrap_or(u32::MAX);
            folders.push((sector32(at)?, length));
            at += records.len() as u64 / SECTOR;
        }
        layout.places.folders = folders;
        layout.overflow_at = sector32(at)?;
        at += (overflow.bytes.len() as u64).div_ceil(SECTOR);
        layout.place_files(volume, tree, at)?;
        Ok(layout)
    }

    fn place_files(
        &mut self,
        volume: &Volume,
        tree: &'a Tree<C>,
        mut at: u64,
    ) -> Result<(), WriteError> {
        let is_part = |path: &[u8]| volume.parts.iter().any(|part| part.path == path);
        let all = tree.iter().filter_map(|(path, node)| match &node.kind {
            Kind::File(content) if content.size.0 > 0 => Some((path, content)),
            _ => None,
        });
        let (parts, others): (Vec<_>, Vec<_>) = all.partition(|(path, _)| is_part(path));
        for (path, content) in others.into_iter().chain(parts) {
            if is_part(path) {
                at = at.next_multiple_of(ALIGNMENT / SECTOR);
            }
            self.places.files.insert(path, sector32(at)?);
            self.files.push((path, content, at));
            at = at.saturating_add(content.size.0.div_ceil(SECTOR));
        }
        self.end = at.saturating_add(TAIL);
        sector32(self.end).map(|_| ())
    }

    fn file(&self, path: &[u8]) -> u32 {
        self.places.files.get(path).copied().unwrap_or(0)
    }

    /// The table of partitions, if there are any.
    fn table(&self, volume: &Volume, tree: &Tree<C>) -> Result<Option<Gpt>, WriteError> {
        if volume.parts.is_empty() {
            return Ok(None);
        }
        let failed = |path: &[u8]| {
            let path = path.to_vec();
            move |source| WriteError::Part { path, source }
        };
        let disk = Gpt::new(volume.disk, Bytes(self.end * SECTOR));
        let mut table = disk.map_err(failed(b""))?;
        for part in &volume.parts {
            let first = u64::from(self.file(&part.path)) * SECTOR / 512;
            let sectors = size(tree, &part.path).div_ceil(512).max(1);
            let mut partition = part.partition.clone();
            partition.first = Sector512(first);
            partition.last = Sector512(first + sectors - 1);
            table.add(part.number, partition).map_err(failed(&part.path))?;
        }
        Ok(Some(table))
    }

    fn descriptors(&self, volume: &Volume, tree: &Tree<C>) -> Vec<u8> {
        let mut all = descriptor(PRIMARY);
        let root = self.places.folders.first().copied().unwrap_or_default();
        let path_table = u32::try_from(self.path_table).unwrap_or(u32::MAX);
        let little = u32::try_from(self.path_tables_at).unwrap_or(u32::MAX);
        let big = little + path_table.div_ceil(1 << 11);
        let date = Date::of(volume.time).long();
        let never = *b"0000000000000000\0";
        for (from, to) in [(8, 72), (190, 813)] {
            all[from..to].fill(b' ');
        }
        put(&mut all, 40, volume.id.as_bytes());
        put(&mut all, 80, &both32(u32::try_from(self.end).unwrap_or(u32::MAX)));
        for (at, n) in [(120, 1), (124, 1), (128, 2048)] {
            put(&mut all, at, &both16(n)); // volumes, which one, bytes of a sector
        }
        put(&mut all, 132, &both32(path_table));
        put(&mut all, 140, &little.to_le_bytes());
        put(&mut all, 148, &big.to_be_bytes());
        put(&mut all, 156, &root_record(root.0, root.1, tree.root().mtime));
        for (at, date) in [(813, date), (830, date), (847, never), (864, date)] {
            put(&mut all, at, &date); // made, changed, expires, counts from
        }
        all[881] = 1;
        if volume.boot.is_some() {
            let mut boot = descriptor(BOOT);
            put(&mut boot, 7, EL_TORITO);
            let at = u32::try_from(self.catalog_at).unwrap_or(u32::MAX);
            put(&mut boot, 71, &at.to_le_bytes());
            all.extend(boot);
        }
        all.extend(descriptor(LAST));
        all
    }

    /// The table of all folders, with numbers in one order of bytes or the other.
    fn path_table(&self, big: bool) -> Vec<u8> {
        let mut table = Vec::new();
        for (number, folder) in self.listing.folders.iter().enumerate() {
            let id = folder.plain.id();
            let at = self.places.folders.get(number).map_or(0, |(at, _)| *at);
            // More than 65535 folders cannot be numbered here; nobody of today reads this table.
            let parent = u16::try_from(folder.parent + 1).unwrap_or(u16::MAX);
            table.extend([u8::try_from(id.len()).unwrap_or(0), 0]);
            table.extend(if big { at.to_be_bytes() } else { at.to_le_bytes() });
            table.extend(if big { parent.to_be_bytes() } else { parent.to_le_bytes() });
            table.extend(&id);
            table.resize(table.len().next_multiple_of(2), 0);
        }
        table
    }
}

fn descriptor(kind: u8) -> Vec<u8> {
    let mut descriptor = vec![0; SECTOR_LENGTH];
    descriptor[0] = kind;
    put(&mut descriptor, 1, STANDARD);
    descriptor[6] = 1;
    descriptor
}

/// The boot catalog: one entry, for UEFI.
fn catalog(at: u32, size: u64) -> Vec<u8> {
    let mut catalog = vec![0; SECTOR_LENGTH];
    catalog[0] = 1;
    catalog[1] = PLATFORM_EFI;
    put(&mut catalog, 30, &[0x55, 0xAA]);
    let words = catalog[..32].as_chunks::<2>().0.iter().map(|word| u16::from_le_bytes(*word));
    let sum = words.fold(0u16, u16::wrapping_add);
    put(&mut catalog, 28, &sum.wrapping_neg().to_le_bytes());
    catalog[32] = BOOTABLE;
    // Sectors of 512 bytes; 0 stands for all up to the end of the disc (UEFI 2.10, 13.3.2.1).
    let sectors = u16::try_from(size.div_ceil(512)).unwrap_or(0);
    put(&mut catalog, 38, &sectors.to_le_bytes());
    put(&mut catalog, 40, &at.to_le_bytes());
    catalog
}

fn size<C>(tree: &Tree<C>, path: &[u8]) -> u64 {
    match tree.get(path).map(|node| &node.kind) {
        Some(Kind::File(content)) => content.size.0,
        _ => 0,
    }
}

/// The bytes of a stretch that these extents cover; what none covers is zero.
fn covered(extents: &[Extent<'_>], from: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    for extent in extents.iter().filter(|e| (from..from + length).contains(&e.at)) {
        put(&mut bytes, usize::try_from(extent.at - from).unwrap_or(0), &extent.bytes);
    }
    bytes
}

fn sector32(sector: u64) -> Result<u32, WriteError> {
    u32::try_from(sector).map_err(|_| WriteError::TooLarge(Bytes(sector.saturating_mul(SECTOR))))
}

/// An image that grows.
struct Out<W> {
    out: W,
    /// In bytes.
    at: u64,
}

impl<W: Write> Out<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes).map_err(WriteError::Write)
    }

    /// Zeroes up to this sector.
    fn pad_to(&mut self, sector: u64) -> Result<(), WriteError> {
        let length = (sector * SECTOR).saturating_sub(self.at);
        self.at += length;
        let zeroes = &mut io::repeat(0).take(length);
        io::copy(zeroes, &mut self.out).map_err(WriteError::Write).map(|_| ())
    }

    fn copy(
        &mut self,
        file: &mut dyn Read,
        size: u64,
        read: &dyn Fn(io::Error) -> WriteError,
    ) -> Result<(), WriteError> {
        let mut buffer = vec![0; 1 << 18];
        let mut rest = size;
        while rest > 0 {
            let here = usize::try_from(rest).unwrap_or(buffer.len()).min(buffer.len());
            file.read_exact(&mut buffer[..here]).map_err(read)?;
            self.put(&buffer[..here])?;
            rest -= here as u64;
        }
        Ok(())
    }
}
