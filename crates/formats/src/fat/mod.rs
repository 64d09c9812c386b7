//! FAT12, FAT16 and FAT32 volumes (Microsoft's FAT specification 1.03), written whole and read
//! whole.
//!
//! A volume is a value: its [`Volume`] description and its files. Writing it gives extents, so that
//! free space stays a hole in a sparse disk; the same value gives the same bytes. To change a file
//! in a finished volume, read it, change the value and [`replace`] what is there. There is no time
//! other than the one the volume is given.

mod name;
mod read;
mod replace;
mod write;

use std::collections::BTreeMap;

use model::Bytes;

pub use read::{ReadError, read};
pub use replace::{ReplaceError, Replacement, replace};
pub use write::{WriteError, render, write};

/// Files by path: names joined by `/`, none in front. A path that ends in `/` is an empty folder;
/// folders with something in them are not named.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What a volume is, besides its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its size; whole sectors of 512 bytes. From 33 MiB it is FAT32, which some firmware insists
    /// on; below, FAT12 or FAT16.
    pub size: Bytes,
    /// At most 11 characters of ASCII, in upper case.
    pub label: String,
    /// The volume's serial number.
    pub serial: u32,
    /// Every time in the volume: seconds since 1970 in UTC, kept to two seconds. Before 1980 reads
    /// as 1980.
    pub time: u64,
}

/// The three widths of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

impl Width {
    /// The number of clusters alone says which it is (specification 3.5).
    fn of(clusters: u64) -> Width {
        match clusters {
            0..4085 => Width::Fat12,
            4085..65525 => Width::Fat16,
            _ => Width::Fat32,
        }
    }

    /// Bytes a table of so many entries takes.
    fn table_bytes(self, entries: u64) -> u64 {
        match self {
            Width::Fat12 => (entries * 3).div_ceil(2),
            Width::Fat16 => entries * 2,
            Width::Fat32 => entries * 4,
        }
    }

    /// Marks the last cluster of a chain.
    fn end(self) -> u32 {
        match self {
            Width::Fat12 => 0xFFF,
            Width::Fat16 => 0xFFFF,
            Width::Fat32 => 0x0FFF_FFFF,
        }
    }
}

const SECTOR: u64 = 512;
/// Bytes of a directory entry.
const ENTRY: usize = 32;
const ATTR_LABEL: u8 = 0x08;
const ATTR_FOLDER: u8 = 0x10;
const ATTR_FILE: u8 = 0x20;
/// Read-only, hidden, system and label together mark a piece of a long name.
const ATTR_LONG: u8 = 0x0F;
/// Folders inside folders; a volume of ours has three.
const DEPTH_MAX: usize = 16;

#[cfg(test)]
mod tests;
