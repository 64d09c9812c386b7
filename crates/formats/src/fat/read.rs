//! From a volume to a value.

use std::collections::BTreeSet;

use model::Bytes;

use super::name::{self, LongName, Short};
use super::{ATTR_FOLDER, ATTR_LABEL, ATTR_LONG, DEPTH_MAX, ENTRY, Files, SECTOR, Volume, Width};
use crate::field::{le16, le32, take};

/// Why bytes are no FAT volume that can be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The boot sector is not one.
    #[error("the boot sector's {field} is {value}")]
    Boot {
        /// Which field.
        field: &'static str,
        /// What it says.
        value: u64,
    },
    /// The volume says it is larger than what was given.
    #[error("the volume takes {need}, got {got}")]
    Short {
        /// So many.
        need: Bytes,
        /// But so many came.
        got: Bytes,
    },
    /// A chain of clusters that leaves the volume, runs in a circle or meets another.
    #[error("the clusters of {path:?} are broken at {cluster}")]
    Chain {
        /// Whose.
        path: String,
        /// Where.
        cluster: u32,
    },
    /// The file says another length than its clusters have.
    #[error("{path:?} says it has {says}, its clusters have {has}")]
    Length {
        /// Whose.
        path: String,
        /// In its entry.
        says: Bytes,
        /// In its clusters.
        has: Bytes,
    },
    /// A name that cannot be, or stands there twice.
    #[error("the name {0:?} cannot be")]
    Name(String),
    /// Folders in folders in folders.
    #[error("{0:?} lies too deep")]
    Deep(String),
}

/// Reads a whole volume. What it returns can be changed and written back; `time` is that of the
/// label (0 if there is none).
pub fn read(bytes: &[u8]) -> Result<(Volume, Files), ReadError> {
    let mut reader = Reader::open(bytes)?;
    let mut files = Files::new();
    let root = reader.root()?;
    reader.folder(&root, "", 0, &mut files)?;
    let volume = Volume {
        size: Bytes(reader.sectors * SECTOR),
        label: reader.label,
        serial: reader.serial,
        time: reader.time,
    };
    Ok((volume, files))
}

/// Which bytes of a volume are in use behind its boot sector.
pub(super) struct Taken {
    /// Where its tables start.
    pub start: u64,
    /// Where its last used cluster ends.
    pub end: u64,
    /// What the boot sector says of the volume's length.
    pub size: u64,
    /// Whether it is FAT32.
    pub large: bool,
}

/// Reads a whole volume to see what it uses.
pub(super) fn taken(bytes: &[u8]) -> Result<Taken, ReadError> {
    let mut reader = Reader::open(bytes)?;
    let root = reader.root()?;
    reader.folder(&root, "", 0, &mut Files::new())?;
    let data = reader.root_at + reader.root_sectors * SECTOR;
    let used = reader.seen.last().map_or(0, |last| u64::from(*last) - 1);
    Ok(Taken {
        start: reader.table_at as u64,
        end: data + used * reader.per_cluster * SECTOR,
        size: reader.sectors * SECTOR,
        large: reader.width == Width::Fat32,
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    width: Width,
    sectors: u64,
    per_cluster: u64,
    table_at: usize,
    root_at: u64,
    root_sectors: u64,
    root_cluster: u32,
    clusters: u64,
    label: String,
    serial: u32,
    time: u64,
    /// Clusters met so far: each belongs to one chain, once.
    seen: BTreeSet<u32>,
}

impl<'a> Reader<'a> {
    fn open(bytes: &'a [u8]) -> Result<Reader<'a>, ReadError> {
        let short = || ReadError::Short { need: Bytes(SECTOR), got: Bytes(bytes.len() as u64) };
        let word = |at| le16(bytes, at).map(u64::from).ok_or_else(short);
        let long = |at| le32(bytes, at).map(u64::from).ok_or_else(short);
        let byte = |at: usize| bytes.get(at).copied().map(u64::from).ok_or_else(short);
        let expect = |field, value, good: bool| {
            if good { Ok(value) } else { Err(ReadError::Boot { field, value }) }
        };
        let mark = word(510)?;
        expect("signature", mark, mark == 0xAA55)?;
        let sector = word(11)?;
        expect("sector size", sector, sector == SECTOR)?;
        let per_cluster = byte(13)?;
        expect("cluster size", per_cluster, per_cluster.is_power_of_two())?;
        let reserved = word(14)?;
        expect("number of reserved sectors", reserved, reserved > 0)?;
        let tables = byte(16)?;
        expect("number of tables", tables, (1..=2).contains(&tables))?;
        let root_entries = word(17)?;
        let sectors = if word(19)? != 0 { word(19)? } else { long(32)? };
        let old_table = word(22)?;
        let table = if old_table != 0 { old_table } else { long(36)? };
        let need = Bytes(sectors * SECTOR);
        if need.0 > bytes.len() as u64 {
            return Err(ReadError::Short { need, got: Bytes(bytes.len() as u64) });
        }
        let root_sectors = (root_entries * ENTRY as u64).div_ceil(SECTOR);
        let before = reserved + tables * table + root_sectors;
        let data = sectors.checked_sub(before);
        let data = data.ok_or(ReadError::Boot { field: "number of sectors", value: sectors })?;
        let clusters = data / per_cluster;
        let width = Width::of(clusters);
        let big = width == Width::Fat32;
        expect("number of root entries", root_entries, (root_entries == 0) == big)?;
        let enough = width.table_bytes(clusters + 2) <= table * SECTOR;
        expect("table size", table, enough)?;
        let root_cluster = if big { le32(bytes, 44).ok_or_else(short)? } else { 0 };
        let serial = le32(bytes, if big { 67 } else { 39 }).ok_or_else(short)?;
        Ok(Reader {
            bytes,
            width,
            sectors,
            per_cluster,
            // Both lie inside `need` bytes, which are all there.
            table_at: usize::try_from(reserved * SECTOR).map_err(|_| short())?,
            root_at: (reserved + tables * table) * SECTOR,
            root_sectors,
            root_cluster,
            clusters,
            label: String::new(),
            serial,
            time: 0,
            seen: BTreeSet::new(),
        })
    }

    fn root(&mut self) -> Result<Vec<u8>, ReadError> {
        if self.width == Width::Fat32 {
            return self.chain(self.root_cluster, "");
        }
        Ok(self.slice(self.root_at, self.root_sectors * SECTOR).to_vec())
    }

    fn folder(
        &mut self,
        entries: &[u8],
        path: &str,
        depth: usize,
        files: &mut Files,
    ) -> Result<(), ReadError> {
        let mut long = LongName::default();
        let entries = entries.as_chunks::<ENTRY>().0;
        for entry in entries.iter().take_while(|e| e[0] != 0) {
            let attributes = entry[11];
            if entry[0] == 0xE5 {
                long = LongName::default();
            } else if attributes & 0x3F == ATTR_LONG {
                long.piece(entry);
            } else if attributes & ATTR_LABEL != 0 {
                self.label_entry(entry, depth);
                long = LongName::default();
            } else {
                self.entry(entry, &mut long, path, depth, files)?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        entry: &[u8; ENTRY],
        long: &mut LongName,
        folder: &str,
        depth: usize,
        files: &mut Files,
    ) -> Result<(), ReadError> {
        let short = short_name(entry);
        let name = long.finish(&short).unwrap_or_else(|| name::show_short(&short, entry[12]));
        let is_folder = entry[11] & ATTR_FOLDER != 0;
        if is_folder && (name == "." || name == "..") {
            return Ok(());
        }
        if !name::is_valid(&name) {
            return Err(ReadError::Name(name));
        }
        let path = format!("{folder}{name}");
        let cluster = self.first_cluster(entry);
        if is_folder {
            let path = path + "/";
            if depth >= DEPTH_MAX {
                return Err(ReadError::Deep(path));
            }
            let inside = self.chain(cluster, &path)?;
            let before = files.len();
            self.folder(&inside, &path, depth + 1, files)?;
            if files.len() == before && files.insert(path.clone(), Vec::new()).is_some() {
                return Err(ReadError::Name(path));
            }
            return Ok(());
        }
        let says = le32(entry, 28).unwrap_or(0);
        let mut body = if cluster == 0 { Vec::new() } else { self.chain(cluster, &path)? };
        let (length, has) = (says as usize, body.len());
        let unit = self.cluster_bytes();
        if length > has || has - length >= unit && has > 0 {
            let (says, has) = (Bytes(says.into()), Bytes(has as u64));
            return Err(ReadError::Length { path, says, has });
        }
        body.truncate(length);
        match files.insert(path.clone(), body) {
            None => Ok(()),
            Some(_) => Err(ReadError::Name(path)),
        }
    }

    fn label_entry(&mut self, entry: &[u8; ENTRY], depth: usize) {
        if depth == 0 && self.label.is_empty() {
            self.label = String::from_utf8_lossy(&entry[..11]).trim_end().to_owned();
            self.time = seconds(le16(entry, 24).unwrap_or(0), le16(entry, 22).unwrap_or(0));
        }
    }

    fn first_cluster(&self, entry: &[u8; ENTRY]) -> u32 {
        let low = le16(entry, 26).map_or(0, u32::from);
        let high = le16(entry, 20).map_or(0, u32::from);
        // The upper half is something else on small volumes.
        if self.width == Width::Fat32 { low | high << 16 } else { low }
    }

    /// The bytes of a chain. Each step marks a cluster that no other step may meet, so the number
    /// of clusters bounds the work.
    fn chain(&mut self, first: u32, path: &str) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::new();
        let mut cluster = first;
        loop {
            let inside = cluster >= 2 && u64::from(cluster) < self.clusters + 2;
            if !inside || !self.seen.insert(cluster) {
                return Err(ReadError::Chain { path: path.to_owned(), cluster });
            }
            let data = self.root_at + self.root_sectors * SECTOR;
            let unit = self.per_cluster * SECTOR;
            bytes.extend_from_slice(self.slice(data + u64::from(cluster - 2) * unit, unit));
            cluster = self.next(cluster);
            if cluster >= self.width.end() & !7 {
                return Ok(bytes);
            }
        }
    }

    fn next(&self, cluster: u32) -> u32 {
        let index = cluster as usize;
        let table = &self.bytes[self.table_at..];
        // `open` saw that the table names every cluster; a missing entry would end the chain.
        let end = self.width.end();
        match self.width {
            Width::Fat12 => le16(table, index + index / 2).map_or(end, |pair| {
                u32::from(if index.is_multiple_of(2) { pair & 0xFFF } else { pair >> 4 })
            }),
            Width::Fat16 => le16(table, index * 2).map_or(end, u32::from),
            Width::Fat32 => le32(table, index * 4).map_or(end, |n| n & 0x0FFF_FFFF),
        }
    }

    /// A piece of the volume that `open` saw to be there.
    fn slice(&self, at: u64, length: u64) -> &'a [u8] {
        let range = usize::try_from(at).ok().zip(usize::try_from(at + length).ok());
        range.and_then(|(from, to)| self.bytes.get(from..to)).unwrap_or(&[])
    }

    fn cluster_bytes(&self) -> usize {
        usize::try_from(self.per_cluster * SECTOR).unwrap_or(usize::MAX)
    }
}

fn short_name(entry: &[u8; ENTRY]) -> Short {
    let mut short: Short = take(entry, 0).unwrap_or([b' '; 11]);
    // 0xE5 as a first character is written as 5, since 0xE5 marks what is deleted.
    if short[0] == 0x05 {
        short[0] = 0xE5;
    }
    short
}

/// Seconds since 1970 of a directory entry's date and time; 0 if they are none.
fn seconds(date: u16, time: u16) -> u64 {
    let (year, month, day) = (u64::from(date >> 9), date >> 5 & 15, u64::from(date & 31));
    if !(1..=12).contains(&month) || day == 0 {
        return 0;
    }
    let leap = |year: u64| year.is_multiple_of(4) && year != 120;
    let years: u64 = (0..year).map(|y| if leap(y) { 366 } else { 365 }).sum();
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let months: u64 = lengths.iter().take(usize::from(month) - 1).sum();
    let clock =
        u64::from(time >> 11) * 3600 + u64::from(time >> 5 & 63) * 60 + u64::from(time & 31) * 2;
    315_532_800 + (years + months + day - 1) * 86_400 + clock
}
