//! The CONFIG partition: a small FAT volume that the owner fills before the first boot.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use formats::disk::{Disk, Format};
use formats::fat::{self, Files, ReadError, ReplaceError, Volume};
use formats::gpt::{self, Gpt, ParseError};
use formats::layout::Role;
use model::{Bytes, Diagnose, Diagnosis, Who};

use super::Progress;
use super::convert::{self, Conversion, ConvertError};
use super::disk::own_name;
use super::known::{self, Unusable};

/// The file of the default folder that explains it and stays out of the partition.
pub(super) const EXPLANATION: &str = "README.md";

/// No file of a CONFIG partition is larger.
const FILE_MAX: u64 = 4 << 20;
/// No CONFIG partition is larger, in any profile.
const VOLUME_MAX: Bytes = Bytes::mib(32);
const DEPTH_MAX: usize = 8;

/// Why a CONFIG partition cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that goes into it, or the disk.
    #[error("cannot {doing} {path}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that does not belong there.
    #[error("{path} {what}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, as a verb.
        what: String,
    },
    /// A file that is known, with something in it that no node could use.
    #[error("a file would be of no use to a node")]
    Unusable(#[from] Unusable),
    /// The files do not go into the partition that is there.
    #[error("cannot change the CONFIG partition of {path}")]
    Replace {
        /// The disk.
        path: PathBuf,
        /// Why not.
        source: ReplaceError,
    },
    /// A file that was to be removed is not there.
    #[error("the CONFIG partition of {path} has no file {name}")]
    Missing {
        /// The disk.
        path: PathBuf,
        /// The file.
        name: String,
    },
    /// The disk has no table.
    #[error("{path} has no partition table that can be used")]
    Table {
        /// The disk.
        path: PathBuf,
        /// What is wrong.
        source: ParseError,
    },
    /// The table names no such partition.
    #[error("{0} has no CONFIG partition")]
    None(PathBuf),
    /// The image that holds the disk cannot be read.
    #[error("cannot read the disk in {path}")]
    Image {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: formats::disk::Error,
    },
    /// The image cannot be opened, or written anew.
    #[error("cannot use the image")]
    Convert(#[from] ConvertError),
    /// The partition is larger than any that was ever made.
    #[error("the CONFIG partition of {path} has {size}")]
    Large {
        /// The disk.
        path: PathBuf,
        /// How large it is.
        size: Bytes,
    },
    /// The partition holds something else.
    #[error("the CONFIG partition of {path} cannot be read")]
    Old {
        /// The disk.
        path: PathBuf,
        /// What is wrong.
        source: ReadError,
    },
}

impl ConfigError {
    fn file(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> ConfigError {
        move |source| ConfigError::File { doing, path: path.to_owned(), source }
    }
}

impl Diagnose for ConfigError {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self {
            ConfigError::File { .. } => "check that the path is right and may be used",
            ConfigError::Unfit { .. } => "take the file out of the folder given with --conf",
            ConfigError::Unusable(_) => "correct the file",
            ConfigError::Convert(cause) => return cause.diagnose(),
            ConfigError::Image { .. } => "check the image with qemu-img, or build it anew",
            ConfigError::Replace { .. } => "leave files out, or build the image anew with them",
            ConfigError::Missing { .. } => "see what is there with --list",
            ConfigError::Table { .. }
            | ConfigError::None(_)
            | ConfigError::Large { .. }
            | ConfigError::Old { .. } => {
                "give a disk image that `eve build live` or `eve build installer` made"
            }
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

/// The empty file that tells in a CONFIG partition of which day and version it is.
pub(super) fn origin(version: &str, time: u64) -> String {
    format!("origin.{}.{version}", day(time))
}

/// The day of a time in seconds since 1970, in UTC: `2026-11-22`.
fn day(time: u64) -> String {
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    // A later time is a mistake, and would be counted up to.
    const LAST: u64 = 253_402_300_799; // of the year 9999
    let (mut year, mut days) = (1970_u64, time.min(LAST) / 86_400);
    while days >= if leap(year) { 366 } else { 365 } {
        days -= if leap(year) { 366 } else { 365 };
        year += 1;
    }
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

/// The files of a folder and all below, by path, but for its [`EXPLANATION`].
pub fn read_folder(folder: &Path) -> Result<Files, ConfigError> {
    let mut files = Files::new();
    collect(folder, "", 0, &mut files)?;
    files.remove(EXPLANATION);
    Ok(files)
}

/// The files in the CONFIG partition of a finished disk of any format.
pub fn get_config(disk: &Path) -> Result<Files, ConfigError> {
    let (_, _, mut image) = convert::open(disk, None)?;
    let (_, bytes) = read_partition(&mut image, disk)?;
    parse(&bytes, disk).map(|(_, files)| files)
}

/// Adds these files to the CONFIG partition of a finished disk, or replaces those that are there.
/// Nothing else on the disk changes. The disk must not be in use.
pub fn set_config(disk: &Path, files: &Files) -> Result<(), ConfigError> {
    edit_config(disk, files, &[], &())
}

/// Adds, replaces and removes files in the CONFIG partition of a finished disk, or of an installer's.
/// Nothing else on the disk changes. The disk must not be in use.
///
/// A power cut leaves all of the old files or all of the new ones. On a raw disk the new volume is
/// written and synced beside the old one inside the partition, then one sector leads to it (see
/// [`fat::replace`]). An image of another format is written anew and takes the place of the old one
/// when it is whole.
pub fn edit_config(
    disk: &Path,
    set: &Files,
    remove: &[String],
    progress: &dyn Progress,
) -> Result<(), ConfigError> {
    known::check(set)?;
    let (path, format, image) = convert::open(disk, None)?;
    if format == Format::Raw {
        return edit_raw(image, &path, set, remove);
    }
    drop(image);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let raw = path.with_file_name(format!(".{name}.{}.raw", own_name()));
    let into =
        |to| Conversion { from: path.clone(), from_format: Some(format), to, size: None, time: 0 };
    let outcome = convert::convert(&into(Format::Raw), &raw, progress)
        .map_err(ConfigError::from)
        .and_then(|_| {
            let (_, _, image) = convert::open(&raw, Some(Format::Raw))?;
            edit_raw(image, &raw, set, remove)
        })
        .and_then(|()| {
            let back =
                Conversion { from: raw.clone(), from_format: Some(Format::Raw), ..into(format) };
            Ok(convert::convert(&back, &path, progress).map(|_| ())?)
        });
    // What it was needed for is done, or has failed and said why.
    let _ = fs::remove_file(&raw);
    outcome
}

fn edit_raw(
    mut image: Box<dyn Disk>,
    path: &Path,
    set: &Files,
    remove: &[String],
) -> Result<(), ConfigError> {
    let (at, bytes) = read_partition(&mut image, path)?;
    let (volume, mut all) = parse(&bytes, path)?;
    for name in remove {
        let missing = || ConfigError::Missing { path: path.to_owned(), name: name.clone() };
        all.remove(name).ok_or_else(missing)?;
    }
    all.extend(set.iter().map(|(path, body)| (path.clone(), body.clone())));
    let change = fat::replace(&bytes, &volume, &all)
        .map_err(|source| ConfigError::Replace { path: path.to_owned(), source })?;
    let file = File::options().write(true).open(path).map_err(ConfigError::file("open", path))?;
    for extent in [&change.body, &change.switch, &change.wipe] {
        file.write_all_at(&extent.bytes, at.0 + extent.at)
            .and_then(|()| file.sync_all())
            .map_err(ConfigError::file("write", path))?;
    }
    Ok(())
}

/// Where the partition lies, and its bytes.
fn read_partition(image: &mut dyn Disk, path: &Path) -> Result<(Bytes, Vec<u8>), ConfigError> {
    let size = image.size();
    let head = read_at(image, path, Bytes(0), gpt::HEAD)?;
    let table = Gpt::parse(&head, size)
        .map_err(|source| ConfigError::Table { path: path.to_owned(), source })?;
    let found = [Role::Config, Role::InstallerConfig].into_iter().find_map(|r| r.find(&table));
    let (_, partition) = found.ok_or_else(|| ConfigError::None(path.to_owned()))?;
    let (at, length) = (partition.offset(), partition.length());
    if length > VOLUME_MAX {
        return Err(ConfigError::Large { path: path.to_owned(), size: length });
    }
    Ok((at, read_at(image, path, at, length)?))
}

fn read_at(
    image: &mut dyn Disk,
    path: &Path,
    at: Bytes,
    length: Bytes,
) -> Result<Vec<u8>, ConfigError> {
    let mut bytes = vec![0; usize::try_from(length.0).unwrap_or_default()];
    let failed = |source| ConfigError::Image { path: path.to_owned(), source };
    image.read_at(at.0, &mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn parse(bytes: &[u8], disk: &Path) -> Result<(Volume, Files), ConfigError> {
    fat::read(bytes).map_err(|source| ConfigError::Old { path: disk.to_owned(), source })
}

fn collect(
    folder: &Path,
    prefix: &str,
    depth: usize,
    files: &mut Files,
) -> Result<(), ConfigError> {
    let read = ConfigError::file("read", folder);
    for entry in fs::read_dir(folder).map_err(&read)? {
        let path = entry.map_err(&read)?.path();
        let unfit = |what: &str| ConfigError::Unfit { path: path.clone(), what: what.to_owned() };
        let name = path.file_name().and_then(|n| n.to_str());
        let name =
            format!("{prefix}{}", name.ok_or_else(|| unfit("has a name that is not UTF-8"))?);
        let about = fs::metadata(&path).map_err(ConfigError::file("read", &path))?;
        if about.is_dir() {
            if depth >= DEPTH_MAX {
                return Err(unfit("lies too deep"));
            }
            collect(&path, &format!("{name}/"), depth + 1, files)?;
        } else if about.len() > FILE_MAX {
            return Err(unfit("is too large for the CONFIG partition"));
        } else {
            files.insert(name, fs::read(&path).map_err(ConfigError::file("read", &path))?);
        }
    }
    Ok(())
}
