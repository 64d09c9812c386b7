//! Changing a finished volume in place, so that a power cut leaves the old content or the new.
//!
//! A boot sector says how many sectors in front of the tables are reserved. The new tables, folders
//! and files are written where the old ones are not, behind or in front of them; then the boot
//! sector, one sector, leads to them instead. A volume must therefore hold its old and its new
//! content side by side. FAT32 keeps copies of its boot sector, so this is for FAT12 and FAT16 only.

use std::borrow::Cow;

use model::Bytes;

use super::read::{self, ReadError};
use super::write::{self, WriteError};
use super::{Files, SECTOR, Volume};
use crate::Extent;
use crate::field::put;

/// What turns a volume into one with other files. Written in this order, each durable before the
/// next begins, it is one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// The new content, where the old volume has nothing.
    pub body: Extent<'static>,
    /// The boot sector that leads to it.
    pub switch: Extent<'static>,
    /// Zeroes over the old content.
    pub wipe: Extent<'static>,
}

/// Why a volume cannot be changed in place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// What is there is no volume.
    #[error("the volume cannot be read")]
    Old(#[from] ReadError),
    /// The files do not make a volume.
    #[error("the files do not fit")]
    New(#[from] WriteError),
    /// Old and new content do not fit side by side.
    #[error("the new content takes {need}; beside the old one there are {have}")]
    Room {
        /// With tables and folders.
        need: Bytes,
        /// In the larger of the two places.
        have: Bytes,
    },
    /// A FAT32 volume.
    #[error("a FAT32 volume cannot be changed in place")]
    Large,
}

/// How to turn the volume `old` into one that holds these files, with its label, serial and time
/// from `volume`; its size stays.
pub fn replace(old: &[u8], volume: &Volume, files: &Files) -> Result<Replacement, ReplaceError> {
    let taken = read::taken(old)?;
    if taken.start < SECTOR || taken.large {
        return Err(ReplaceError::Large);
    }
    let size = Bytes(taken.size);
    let volume = Volume { size, ..volume.clone() };
    let mut need = Bytes(0);
    for (reserved, end) in [(1, taken.start), (taken.end.div_ceil(SECTOR), size.0)] {
        let Ok(reserved) = u16::try_from(reserved) else { continue };
        match render(&volume, files, reserved) {
            Ok((body, switch)) => {
                let length = body.bytes.len() as u64;
                if body.at + length <= end {
                    let zeroes = usize::try_from(taken.end - taken.start).unwrap_or(0);
                    let wipe = Extent { at: taken.start, bytes: vec![0; zeroes].into() };
                    return Ok(Replacement { body, switch, wipe });
                }
                need = Bytes(length);
            }
            // Behind the old content there may be too little even for the tables.
            Err(ReplaceError::New(WriteError::Full { .. } | WriteError::Size(_))) if need.0 > 0 => {
            }
            Err(other) => return Err(other),
        }
    }
    let have = Bytes((taken.start - SECTOR).max(size.0.saturating_sub(taken.end)));
    Err(ReplaceError::Room { need, have })
}

/// The volume's content as one piece, and its boot sector.
fn render(
    volume: &Volume,
    files: &Files,
    reserved: u16,
) -> Result<(Extent<'static>, Extent<'static>), ReplaceError> {
    let extents = write::write_behind(volume, files, Some(reserved))?;
    let from = u64::from(reserved) * SECTOR;
    let (front, back): (Vec<_>, Vec<_>) = extents.into_iter().partition(|e| e.at < from);
    let mut front = front.into_iter();
    // FAT32 has more than one sector in front.
    let (Some(boot), None) = (front.next(), front.next()) else { return Err(ReplaceError::Large) };
    let end = back.iter().map(|e| e.at + e.bytes.len() as u64).max().unwrap_or(from);
    let span = |n: u64| usize::try_from(n - from).unwrap_or(usize::MAX);
    // Tables and folders count on zeroes behind what they say, and here may be old content. All of
    // the tables and the root folder is covered: what is behind them has an extent.
    let mut bytes =
        vec![0; span(end.max(write::data_at(volume, reserved)?).next_multiple_of(SECTOR))];
    for extent in &back {
        put(&mut bytes, span(extent.at), &extent.bytes);
    }
    let switch = Extent { at: boot.at, bytes: Cow::Owned(boot.bytes.into_owned()) };
    Ok((Extent { at: from, bytes: bytes.into() }, switch))
}
