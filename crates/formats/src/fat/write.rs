//! From a value to a volume.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use model::Bytes;

use super::name::{self, Short};
use super::{ATTR_FILE, ATTR_FOLDER, ATTR_LABEL, DEPTH_MAX, ENTRY, Files, SECTOR, Volume, Width};
use crate::Extent;
use crate::field::put;

/// Why a volume cannot be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The files do not fit.
    #[error("the files take {need}, the volume has room for {have}")]
    Full {
        /// With their folders, in whole clusters.
        need: Bytes,
        /// In whole clusters.
        have: Bytes,
    },
    /// A size that no volume has.
    #[error("a volume cannot have {0}")]
    Size(Bytes),
    /// Not ASCII in upper case, or more than 11 characters.
    #[error("{0:?} cannot be a volume label")]
    Label(String),
    /// A name with forbidden characters, too long, or too deep.
    #[error("{0:?} cannot be a path in a FAT volume")]
    Path(String),
    /// Two names that differ in case only, or a file where another path needs a folder.
    #[error("{0:?} is there twice; case makes no difference in a FAT volume")]
    Twice(String),
    /// The root of a small volume holds 512 entries.
    #[error("the root folder holds {have} entries, {need} are needed")]
    RootFull {
        /// Long names take several.
        need: usize,
        /// So many.
        have: usize,
    },
    /// A file of 4 GiB or more.
    #[error("{path:?} has {size}, more than a FAT volume can say")]
    Large {
        /// The file.
        path: String,
        /// Its size.
        size: Bytes,
    },
}

/// The volume as extents in ascending order; all else is zero.
pub fn write<'a>(volume: &Volume, files: &'a Files) -> Result<Vec<Extent<'a>>, WriteError> {
    write_behind(volume, files, None)
}

/// The same with so many sectors in front of the tables; `None`: as few as there must be.
pub(super) fn write_behind<'a>(
    volume: &Volume,
    files: &'a Files,
    reserved: Option<u16>,
) -> Result<Vec<Extent<'a>>, WriteError> {
    let label = label_of(&volume.label)?;
    let shape = Shape::of(volume.size, reserved)?;
    let root = tree(files)?;
    let mut writer = Writer {
        stamp: stamp(volume.time),
        table: vec![0xFFFF_FFF8, 0xFFFF_FFFF],
        extents: Vec::new(),
        shape,
    };
    writer.root(&root, label)?;
    Ok(writer.finish(volume, label))
}

/// The volume as one piece, zeroes and all.
pub fn render(volume: &Volume, files: &Files) -> Result<Vec<u8>, WriteError> {
    let extents = write(volume, files)?;
    let size = usize::try_from(volume.size.0).map_err(|_| WriteError::Size(volume.size))?;
    let mut bytes = vec![0; size];
    for extent in extents {
        let at = usize::try_from(extent.at).map_err(|_| WriteError::Size(volume.size))?;
        put(&mut bytes, at, &extent.bytes);
    }
    Ok(bytes)
}

/// Where a volume's clusters begin.
pub(super) fn data_at(volume: &Volume, reserved: u16) -> Result<u64, WriteError> {
    let shape = Shape::of(volume.size, Some(reserved))?;
    Ok(shape.root_at() + u64::from(shape.root) * SECTOR)
}

/// Where the parts of a volume lie, in sectors.
#[derive(Debug, Clone, Copy)]
struct Shape {
    width: Width,
    sectors: u32,
    reserved: u32,
    per_cluster: u8,
    /// Of each of the two tables.
    table: u32,
    /// Of the root folder; 0 if it is an ordinary one (FAT32).
    root: u32,
    clusters: u32,
}

impl Shape {
    fn of(size: Bytes, reserved: Option<u16>) -> Result<Shape, WriteError> {
        let bad = || WriteError::Size(size);
        let sectors = size.to_sectors().ok_or_else(bad)?.0;
        // The sizes of clusters are those that mkfs.fat gives to fixed disks.
        let (big, per_cluster) = match size {
            s if s < Bytes::mib(2) => (false, 1),
            s if s < Bytes::mib(33) => (false, 4),
            s if s <= Bytes::mib(260) => (true, 1),
            s if s <= Bytes::gib(8) => (true, 8),
            s if s <= Bytes::gib(32) => (true, 32),
            _ => return Err(bad()),
        };
        let (least, root) = if big { (32, 0) } else { (1, 32) };
        let reserved = reserved.unwrap_or(least).max(least);
        let fixed = u64::from(reserved) + u64::from(root);
        // The smallest table that can name every cluster which the table itself leaves room for.
        let mut table = 1;
        let (width, clusters) = loop {
            let data = sectors.checked_sub(fixed + 2 * table).ok_or_else(bad)?;
            let clusters = data / u64::from(per_cluster);
            let width = if big { Width::Fat32 } else { Width::of(clusters) };
            if width.table_bytes(clusters + 2) <= table * SECTOR {
                break (width, clusters);
            }
            table += 1;
        };
        if clusters == 0 || Width::of(clusters) != width {
            return Err(bad());
        }
        let narrow = |n: u64| u32::try_from(n).map_err(|_| bad());
        Ok(Shape {
            width,
            sectors: narrow(sectors)?,
            reserved: reserved.into(),
            per_cluster,
            table: narrow(table)?,
            root,
            clusters: narrow(clusters)?,
        })
    }

    fn cluster_bytes(&self) -> usize {
        usize::from(self.per_cluster) * 512
    }

    fn root_at(&self) -> u64 {
        (u64::from(self.reserved) + 2 * u64::from(self.table)) * SECTOR
    }

    /// Where a cluster lies. The first has number 2.
    fn at(&self, cluster: u32) -> u64 {
        let data = self.root_at() + u64::from(self.root) * SECTOR;
        data + u64::from(cluster - 2) * u64::from(self.per_cluster) * SECTOR
    }
}

enum Node<'a> {
    File(&'a [u8]),
    Folder(Folder<'a>),
}

type Folder<'a> = BTreeMap<&'a str, Node<'a>>;

fn tree(files: &Files) -> Result<Folder<'_>, WriteError> {
    let mut root = Folder::new();
    for (path, bytes) in files {
        let bad = || WriteError::Path(path.clone());
        let (folders, file) = match path.strip_suffix('/') {
            Some(folder) => (Some(folder), None),
            None => match path.rsplit_once('/') {
                Some((folders, file)) => (Some(folders), Some(file)),
                None => (None, Some(path.as_str())),
            },
        };
        if u32::try_from(bytes.len()).is_err() {
            let size = Bytes(bytes.len() as u64);
            return Err(WriteError::Large { path: path.clone(), size });
        }
        let mut here = &mut root;
        for (depth, part) in folders.into_iter().flat_map(|f| f.split('/')).enumerate() {
            if !name::is_valid(part) || depth >= DEPTH_MAX {
                return Err(bad());
            }
            let next = here.entry(part).or_insert_with(|| Node::Folder(Folder::new()));
            let Node::Folder(folder) = next else {
                return Err(WriteError::Twice(path.clone()));
            };
            here = folder;
        }
        if let Some(file) = file {
            if !name::is_valid(file) {
                return Err(bad());
            }
            if here.insert(file, Node::File(bytes)).is_some() {
                return Err(WriteError::Twice(path.clone()));
            }
        }
    }
    Ok(root)
}

struct Writer<'a> {
    shape: Shape,
    /// Date and time of every entry.
    stamp: (u16, u16),
    /// The allocation table; its length is the next free cluster.
    table: Vec<u32>,
    extents: Vec<Extent<'a>>,
}

impl<'a> Writer<'a> {
    fn root(&mut self, root: &Folder<'a>, label: Short) -> Result<(), WriteError> {
        let mut first = vec![self.entry(label, ATTR_LABEL, 0, 0)];
        let names = named(root)?;
        let count = 1 + count_entries(&names);
        let (at, cluster) = match self.shape.width {
            Width::Fat32 => {
                let cluster = self.chain(count * ENTRY);
                (self.shape.at(cluster), cluster)
            }
            _ => (self.shape.root_at(), 0),
        };
        let have = self.shape.root as usize * 512 / ENTRY;
        if cluster == 0 && count > have {
            return Err(WriteError::RootFull { need: count, have });
        }
        self.fill(at, &mut first, names, root, 0)
    }

    fn folder(&mut self, folder: &Folder<'a>, parent: u32) -> Result<u32, WriteError> {
        let names = named(folder)?;
        let cluster = self.chain((2 + count_entries(&names)) * ENTRY);
        let dot = self.entry(*b".          ", ATTR_FOLDER, cluster, 0);
        let up = self.entry(*b"..         ", ATTR_FOLDER, parent, 0);
        self.fill(self.shape.at(cluster), &mut vec![dot, up], names, folder, cluster)?;
        Ok(cluster)
    }

    /// Writes a folder's entries at `at`, and what they name. `own` is what children call their
    /// parent: 0 for the root.
    fn fill(
        &mut self,
        at: u64,
        entries: &mut Vec<[u8; ENTRY]>,
        names: Vec<Named<'a>>,
        folder: &Folder<'a>,
        own: u32,
    ) -> Result<(), WriteError> {
        // The folder stands before its children, so that extents ascend.
        let place = self.extents.len();
        self.extents.push(Extent { at, bytes: Cow::Borrowed(&[]) });
        for named in names {
            entries.extend(named.long);
            let entry = match &folder[named.name] {
                Node::Folder(child) => {
                    let cluster = self.folder(child, own)?;
                    self.entry(named.short, ATTR_FOLDER, cluster, 0)
                }
                Node::File(bytes) => {
                    let cluster = self.file(bytes);
                    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    self.entry(named.short, ATTR_FILE, cluster, length)
                }
            };
            entries.push(entry);
        }
        self.extents[place].bytes = Cow::Owned(entries.concat());
        self.check_room()
    }

    fn file(&mut self, bytes: &'a [u8]) -> u32 {
        if bytes.is_empty() {
            return 0;
        }
        let cluster = self.chain(bytes.len());
        self.extents.push(Extent { at: self.shape.at(cluster), bytes: Cow::Borrowed(bytes) });
        cluster
    }

    /// Takes clusters for so many bytes, one behind the other; returns the first. Whether they
    /// exist is asked once a folder is done, so that the error can say how much is missing.
    fn chain(&mut self, bytes: usize) -> u32 {
        let first = self.next();
        let count = bytes.div_ceil(self.shape.cluster_bytes()).max(1);
        for _ in 1..count {
            self.table.push(self.next() + 1);
        }
        self.table.push(self.shape.width.end());
        first
    }

    fn next(&self) -> u32 {
        u32::try_from(self.table.len()).unwrap_or(u32::MAX)
    }

    fn check_room(&self) -> Result<(), WriteError> {
        let unit = self.shape.cluster_bytes() as u64;
        let need = Bytes((self.table.len() as u64 - 2) * unit);
        let have = Bytes(u64::from(self.shape.clusters) * unit);
        if need > have { Err(WriteError::Full { need, have }) } else { Ok(()) }
    }

    fn entry(&self, short: Short, attributes: u8, cluster: u32, length: u32) -> [u8; ENTRY] {
        let (date, time) = self.stamp;
        let cluster = cluster.to_le_bytes();
        let mut entry = [0; ENTRY];
        put(&mut entry, 0, &short);
        entry[11] = attributes;
        put(&mut entry, 14, &time.to_le_bytes());
        put(&mut entry, 16, &date.to_le_bytes());
        put(&mut entry, 18, &date.to_le_bytes());
        put(&mut entry, 20, &cluster[2..]);
        put(&mut entry, 22, &time.to_le_bytes());
        put(&mut entry, 24, &date.to_le_bytes());
        put(&mut entry, 26, &cluster[..2]);
        put(&mut entry, 28, &length.to_le_bytes());
        entry
    }

    fn finish(self, volume: &Volume, label: Short) -> Vec<Extent<'a>> {
        let shape = self.shape;
        let boot = boot_sector(&shape, volume.serial, label);
        let mut start = vec![Extent { at: 0, bytes: boot.clone().into() }];
        if shape.width == Width::Fat32 {
            let info = info_sector(&shape, self.next());
            start.push(Extent { at: SECTOR, bytes: info.clone().into() });
            start.push(Extent { at: 6 * SECTOR, bytes: boot.into() });
            start.push(Extent { at: 7 * SECTOR, bytes: info.into() });
        }
        let table = pack(shape.width, &self.table);
        for copy in 0..2 {
            let at = (u64::from(shape.reserved) + copy * u64::from(shape.table)) * SECTOR;
            start.push(Extent { at, bytes: table.clone().into() });
        }
        start.extend(self.extents);
        start
    }
}

/// A name with what a folder needs to say it.
struct Named<'a> {
    name: &'a str,
    short: Short,
    /// Empty if the short name says it all.
    long: Vec<[u8; ENTRY]>,
}

fn named<'a>(folder: &Folder<'a>) -> Result<Vec<Named<'a>>, WriteError> {
    let mut folded = BTreeSet::new();
    // Names that are short already are taken first, whatever their order.
    let mut taken: BTreeSet<Short> = folder.keys().filter_map(|n| name::as_short(n)).collect();
    let mut names = Vec::new();
    for name in folder.keys().copied() {
        if !folded.insert(name.to_uppercase()) {
            return Err(WriteError::Twice(name.to_owned()));
        }
        let (short, long) = match name::as_short(name) {
            Some(short) => (short, Vec::new()),
            None => {
                let short = name::make_short(name, &taken)
                    .ok_or_else(|| WriteError::Path(name.to_owned()))?;
                (short, name::long_entries(name, &short))
            }
        };
        taken.insert(short);
        names.push(Named { name, short, long });
    }
    Ok(names)
}

fn count_entries(names: &[Named<'_>]) -> usize {
    names.iter().map(|n| n.long.len() + 1).sum()
}

fn label_of(label: &str) -> Result<Short, WriteError> {
    let ok = |b: u8| {
        b.is_ascii_graphic() && !b.is_ascii_lowercase() && !b"\"*+,./:;<=>?[\\]|".contains(&b)
    };
    if label.is_empty() || label.len() > 11 || !label.bytes().all(|b| ok(b) || b == b' ') {
        return Err(WriteError::Label(label.to_owned()));
    }
    let mut short = [b' '; 11];
    put(&mut short, 0, label.as_bytes());
    Ok(short)
}

fn boot_sector(shape: &Shape, serial: u32, label: Short) -> Vec<u8> {
    let big = shape.width == Width::Fat32;
    let mut boot = vec![0; 512];
    put(&mut boot, 0, if big { &[0xEB, 0x58, 0x90] } else { &[0xEB, 0x3C, 0x90] });
    put(&mut boot, 3, b"EVE-OS  ");
    put(&mut boot, 11, &512u16.to_le_bytes());
    boot[13] = shape.per_cluster;
    put(&mut boot, 14, &shape.reserved.to_le_bytes()[..2]);
    boot[16] = 2; // tables
    let root_entries = shape.root * 16;
    put(&mut boot, 17, &root_entries.to_le_bytes()[..2]);
    match u16::try_from(shape.sectors) {
        Ok(few) if !big => put(&mut boot, 19, &few.to_le_bytes()),
        _ => put(&mut boot, 32, &shape.sectors.to_le_bytes()),
    }
    boot[21] = 0xF8; // a fixed disk
    put(&mut boot, 24, &63u16.to_le_bytes());
    put(&mut boot, 26, &255u16.to_le_bytes());
    let extended = if big {
        put(&mut boot, 36, &shape.table.to_le_bytes());
        boot[44] = 2; // cluster of the root folder
        boot[48] = 1; // sector of the free counts
        boot[50] = 6; // sector of the copy of this one
        64
    } else {
        put(&mut boot, 22, &shape.table.to_le_bytes()[..2]);
        36
    };
    boot[extended] = 0x80; // first disk
    boot[extended + 2] = 0x29; // the next three fields exist
    put(&mut boot, extended + 3, &serial.to_le_bytes());
    put(&mut boot, extended + 7, &label);
    let kind = match shape.width {
        Width::Fat12 => b"FAT12   ",
        Width::Fat16 => b"FAT16   ",
        Width::Fat32 => b"FAT32   ",
    };
    put(&mut boot, extended + 18, kind);
    put(&mut boot, 510, &[0x55, 0xAA]);
    boot
}

/// How much is free, and from where (FAT32 only).
fn info_sector(shape: &Shape, next: u32) -> Vec<u8> {
    let mut info = vec![0; 512];
    put(&mut info, 0, b"RRaA");
    put(&mut info, 484, b"rrAa");
    put(&mut info, 488, &(shape.clusters + 2).saturating_sub(next).to_le_bytes());
    put(&mut info, 492, &(next - 1).to_le_bytes());
    put(&mut info, 510, &[0x55, 0xAA]);
    info
}

fn pack(width: Width, table: &[u32]) -> Vec<u8> {
    match width {
        Width::Fat12 => table
            .chunks(2)
            .flat_map(|pair| {
                let (low, high) = (pair[0] & 0xFFF, pair.get(1).map_or(0, |n| n & 0xFFF));
                let bytes = (low | high << 12).to_le_bytes();
                [bytes[0], bytes[1], bytes[2]]
            })
            .collect(),
        Width::Fat16 => {
            table.iter().flat_map(|n| [n.to_le_bytes()[0], n.to_le_bytes()[1]]).collect()
        }
        Width::Fat32 => table.iter().flat_map(|n| (n & 0x0FFF_FFFF).to_le_bytes()).collect(),
    }
}

/// Date and time of a directory entry.
fn stamp(seconds: u64) -> (u16, u16) {
    /// 1980-01-01, where FAT begins, and 2108-01-01, where it ends.
    const RANGE: (u64, u64) = (315_532_800, 4_354_819_200);
    let seconds = seconds.clamp(RANGE.0, RANGE.1 - 1);
    let (mut days, rest) = ((seconds - RANGE.0) / 86_400, seconds % 86_400);
    let mut year = 0u16;
    // 1980 was a leap year and so is every fourth after it up to 2108, but not 2100.
    let length = |year: u16| if year.is_multiple_of(4) && year != 120 { 366 } else { 365 };
    while days >= length(year) {
        days -= length(year);
        year += 1;
    }
    let february = length(year) - 337;
    let mut month = 1u16;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let small = |n: u64| u16::try_from(n).unwrap_or(0);
    let date = year << 9 | month << 5 | (small(days) + 1);
    let time = small(rest / 3600) << 11 | small(rest / 60 % 60) << 5 | small(rest % 60 / 2);
    (date, time)
}
