//! The A/B states of a finished raw disk: which slot boots, and what is in it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use formats::gpt::{Attributes, Gpt};
use formats::layout::Role;
use formats::slot::{self, Descriptor};
use host::block::{BlockError, Disk};
use model::{Bytes, Diagnose, Diagnosis, Who};

/// Slots, and the installer's, whose state is kept alike.
const ROLES: [Role; 3] = [Role::ImgA, Role::ImgB, Role::Installer];

/// What is read of a verity superblock and of a slot's descriptor.
const SECTOR: usize = 512;
const DESCRIPTOR: usize = 4096;

/// A slot of a disk.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SlotState {
    /// The partition: IMGA, IMGB or INSTALLER.
    pub name: String,
    /// Its size.
    pub size: Bytes,
    /// What the loader makes of it; `None`: bits that nobody of ours sets.
    pub mark: Option<SlotMark>,
    /// 0 to 15; of the slots that may boot, the one with the highest boots.
    pub priority: u8,
    /// How often it may still be tried.
    pub tries: u8,
    /// Whether it ever proved itself.
    pub successful: bool,
    /// The version of the image in it; `None`: there is no image of ours.
    pub version: Option<String>,
}

/// What a slot is to the loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotMark {
    /// It runs, and is known to work.
    Active,
    /// The next boot tries it once.
    Updating,
    /// Its try is under way.
    InProgress,
    /// It is not booted.
    Unused,
}

impl SlotMark {
    /// All of them.
    pub const ALL: [SlotMark; 4] =
        [SlotMark::Active, SlotMark::Updating, SlotMark::InProgress, SlotMark::Unused];

    /// As it is typed and shown.
    pub const fn name(self) -> &'static str {
        match self {
            SlotMark::Active => "active",
            SlotMark::Updating => "updating",
            SlotMark::InProgress => "inprogress",
            SlotMark::Unused => "unused",
        }
    }

    const fn attributes(self) -> Attributes {
        match self {
            SlotMark::Active => Attributes::ACTIVE,
            SlotMark::Updating => Attributes::slot(3, 1, false),
            SlotMark::InProgress => Attributes::slot(3, 0, false),
            SlotMark::Unused => Attributes::NONE,
        }
    }

    fn of(attributes: Attributes) -> Option<SlotMark> {
        SlotMark::ALL.into_iter().find(|s| s.attributes().0 >> 48 == attributes.0 >> 48)
    }
}

/// Why slots cannot be shown or set.
#[derive(Debug, thiserror::Error)]
pub enum SlotsError {
    /// The disk has no table that can be used, or could not be written.
    #[error("cannot use the disk")]
    Disk(#[from] BlockError),
    /// There is no such slot.
    #[error("{path} has no partition {name}")]
    None {
        /// The disk.
        path: PathBuf,
        /// The slot.
        name: String,
    },
    /// There is nothing in the slot that could boot.
    #[error("the slot {name} of {path} is empty: nothing in it could be {mark}", mark = mark.name())]
    Empty {
        /// The disk.
        path: PathBuf,
        /// The slot.
        name: String,
        /// What it was to become.
        mark: SlotMark,
    },
    /// No slot would boot.
    #[error("no slot of {0} would boot")]
    Nothing(PathBuf),
    /// The disk could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The disk.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Diagnose for SlotsError {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self {
            SlotsError::Disk(_) | SlotsError::Read { .. } => "give a raw disk image or a disk",
            SlotsError::Empty { .. } => {
                "install a node onto the disk with `eve install`, or give it an update by its \
                 controller; `eve slot show` tells what is in its slots"
            }
            SlotsError::None { .. } => "see what is there with `eve slot show`",
            SlotsError::Nothing(_) => "make another slot active first, or in the same command",
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

/// The slots of a raw disk.
pub fn slots(path: &Path) -> Result<Vec<SlotState>, SlotsError> {
    let table = Disk::at(path).table()?;
    let read = |source| SlotsError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let mut all = Vec::new();
    for role in ROLES {
        let Some((_, partition)) = role.find(&table) else { continue };
        let bits = partition.attributes;
        let version = version(&mut file, partition.offset(), partition.length()).map_err(read)?;
        all.push(SlotState {
            name: partition.name.clone(),
            size: partition.length(),
            mark: SlotMark::of(bits),
            priority: bits.priority(),
            tries: bits.tries(),
            successful: bits.successful(),
            version,
        });
    }
    Ok(all)
}

/// Sets the states of these slots of a raw disk in one step; refuses to leave none that boots, and to
/// have one booted that holds no root file system. A power cut leaves the old table or the new: the backup is written and synced first, then the
/// primary.
pub fn set_slots(path: &Path, states: &[(String, SlotMark)]) -> Result<(), SlotsError> {
    let disk = Disk::at(path);
    let mut table = disk.table()?;
    let read = |source| SlotsError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    for (name, state) in states {
        let role = ROLES.into_iter().find(|r| r.name() == name);
        let found = role.and_then(|role| role.find(&table));
        let found = found.map(|(n, p)| (n, p.attributes, p.offset(), p.length()));
        let none = || SlotsError::None { path: path.to_owned(), name: name.clone() };
        let (number, have, at, length) = found.ok_or_else(none)?;
        if *state != SlotMark::Unused && root(&mut file, at, length).map_err(read)?.is_none() {
            return Err(SlotsError::Empty {
                path: path.to_owned(),
                name: name.clone(),
                mark: *state,
            });
        }
        let others = have.0 & 0x0000_FFFF_FFFF_FFFF;
        table.set_attributes(number, Attributes(others | state.attributes().0));
    }
    if !boots(&table) {
        return Err(SlotsError::Nothing(path.to_owned()));
    }
    Ok(disk.write_table(&table)?)
}

fn boots(table: &Gpt) -> bool {
    let may = |bits: Attributes| bits.priority() > 0 && (bits.successful() || bits.tries() > 0);
    ROLES.iter().any(|role| role.find(table).is_some_and(|(_, p)| may(p.attributes)))
}

/// Where the root file system of a slot ends; `None` if there is none, of ours or of others.
fn root(file: &mut File, at: Bytes, length: Bytes) -> io::Result<Option<Bytes>> {
    let start = read_at(file, (at, length), Bytes(0), slot::HEAD)?;
    Ok(start.and_then(|start| slot::verity_at(&start).ok()))
}

/// Bytes of a partition; `None` if it ends before.
fn read_at(
    file: &mut File,
    (at, length): (Bytes, Bytes),
    from: Bytes,
    count: usize,
) -> io::Result<Option<Vec<u8>>> {
    if from.0.saturating_add(count as u64) > length.0 {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(at.0 + from.0))?;
    let mut bytes = vec![0; count];
    file.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

/// The version that the descriptor in a slot tells; `None` if there is none. What cannot be read as
/// a slot is an empty one: only the disk itself may fail.
fn version(file: &mut File, at: Bytes, length: Bytes) -> io::Result<Option<String>> {
    let Some(verity_at) = root(file, at, length)? else { return Ok(None) };
    let mut read = |from, count| read_at(file, (at, length), from, count);
    let Some(superblock) = read(verity_at, SECTOR)? else { return Ok(None) };
    let Ok(descriptor_at) = slot::descriptor_at(verity_at, &superblock) else { return Ok(None) };
    let Some(bytes) = read(descriptor_at, DESCRIPTOR)? else { return Ok(None) };
    Ok(Descriptor::parse(&bytes).ok().map(|d| d.version))
}
