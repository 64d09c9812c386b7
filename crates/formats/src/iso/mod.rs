//! ISO 9660 images with Rock Ridge names (ECMA-119, SUSP and RRIP 1.12) that UEFI firmware starts:
//! from a CD through an El Torito entry, from a USB stick through a partition table in front.
//!
//! Files of an image can be partitions at the same time: their bytes lie in one piece, and the table
//! names the piece. So the firmware finds its FAT volume, the installer its system, and whoever
//! edits CONFIG of a disk edits that of an image. Files of any length, folders of any depth, links
//! and devices are kept; xattrs are not. No BIOS boot, no Joliet.

mod entry;
mod folder;
mod read;
mod write;

use std::collections::BTreeSet;

use model::Bytes;
use uuid::Uuid;

use crate::gpt::{AddError, Partition};

pub use read::{Image, Opened, Place, ReadError, read};
pub use write::write;

/// Bytes of a sector; everything starts on one.
pub const SECTOR: u64 = SECTOR_LENGTH as u64;

const SECTOR_LENGTH: usize = 2048;
/// The first descriptor; what comes before belongs to whoever boots.
const DESCRIPTORS: u64 = 16;
const STANDARD: &[u8; 5] = b"CD001";
const PRIMARY: u8 = 1;
const BOOT: u8 = 0;
const LAST: u8 = 255;
const EL_TORITO: &[u8] = b"EL TORITO SPECIFICATION";
/// UEFI, among the platforms of El Torito.
const PLATFORM_EFI: u8 = 0xEF;
const BOOTABLE: u8 = 0x88;
/// The length of a directory record without its name.
const RECORD: usize = 33;
/// Flags of a record: a folder; the file goes on in the next record.
const FOLDER: u8 = 2;
const MORE: u8 = 0x80;

/// What an image is, besides its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// At most 32 of `A` to `Z`, `0` to `9` and `_`.
    pub id: String,
    /// When it was made, in seconds since 1970.
    pub time: i64,
    /// The file that firmware starts: a FAT volume.
    pub boot: Option<Vec<u8>>,
    /// GUID of the disk in the partition table.
    pub disk: Uuid,
    /// Files that are partitions. `None` of them: there is no table.
    pub parts: Vec<Part>,
    /// Files that lie in the image, but in no folder.
    pub hidden: BTreeSet<Vec<u8>>,
}

/// A file that is a partition too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which file.
    pub path: Vec<u8>,
    /// Its number in the table.
    pub number: u32,
    /// Everything but the place.
    pub partition: Partition,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The volume id has other characters, or too many.
    #[error("the volume id {0:?} is not 1 to 32 of A to Z, 0 to 9 and _")]
    Id(String),
    /// A file that was named is not in the tree.
    #[error("there is no file {:?} to boot or to be a partition", crate::tree::show(.0))]
    Missing(Vec<u8>),
    /// A partition that does not fit into the table.
    #[error("{:?} cannot be a partition", crate::tree::show(.path))]
    Part {
        /// Which file.
        path: Vec<u8>,
        /// Why not.
        source: AddError,
    },
    /// More sectors than 32 bits count.
    #[error("the image would have {0}")]
    TooLarge(Bytes),
    /// A file could not be read.
    #[error("cannot read {:?}", crate::tree::show(.path))]
    Read {
        /// Which.
        path: Vec<u8>,
        /// Why not.
        source: std::io::Error,
    },
    /// The image could not be written.
    #[error("cannot write the image")]
    Write(#[source] std::io::Error),
}

/// A date as people write it, in UTC.
struct Date {
    year: i64,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl Date {
    /// Years 1900 to 2155, which is what seven bytes hold; others become the nearest.
    fn of(time: i64) -> Date {
        let time = time.clamp(-2_208_988_800, 5_869_583_999);
        let (days, seconds) = (time.div_euclid(86_400), time.rem_euclid(86_400));
        // Days since 1 March of the year 0; a year that starts in March ends with the odd day.
        let days = days + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let small = |n: i64| u8::try_from(n).unwrap_or(0);
        let year = year_of_era + era * 400 + i64::from(month >= 10);
        Date {
            year,
            month: small(if month < 10 { month + 3 } else { month - 9 }),
            day: small(day_of_year - (153 * month + 2) / 5 + 1),
            hour: small(seconds / 3600),
            minute: small(seconds / 60 % 60),
            second: small(seconds % 60),
        }
    }

    /// As records and Rock Ridge have it.
    fn short(&self) -> [u8; 7] {
        let year = u8::try_from(self.year - 1900).unwrap_or(0);
        [year, self.month, self.day, self.hour, self.minute, self.second, 0]
    }

    /// As descriptors have it.
    fn long(&self) -> [u8; 17] {
        let Date { year, month, day, hour, minute, second } = self;
        let text = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}00\0");
        text.as_bytes().first_chunk().copied().unwrap_or([0; 17])
    }

    /// Back to seconds since 1970. `None` if these bytes are no date.
    fn parse(bytes: [u8; 7]) -> Option<i64> {
        let [year, month, day, hour, minute, second, zone] = bytes.map(i64::from);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 {
            return None;
        }
        let year = year + 1900 - i64::from(month < 3);
        let month = (month + 9) % 12;
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * month + 2) / 5 + day - 1;
        let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100
            + day_of_year
            - 719_468;
        // Quarters of an hour east of Greenwich, as a signed byte.
        let zone = i64::from(u8::try_from(zone).unwrap_or(0).cast_signed());
        Some(days * 86_400 + hour * 3600 + minute * 60 + second - zone * 900)
    }
}

/// A number in both orders of bytes.
fn both32(n: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    bytes[4..].copy_from_slice(&n.to_be_bytes());
    bytes
}

/// A number in both orders of bytes.
fn both16(n: u16) -> [u8; 4] {
    let (le, be) = (n.to_le_bytes(), n.to_be_bytes());
    [le[0], le[1], be[0], be[1]]
}

#[cfg(test)]
mod tests;
