//! The CONFIG partition: a small FAT volume that the owner fills before the first boot.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use formats::fat::{self, Files, ReadError, Volume, WriteError};
use formats::gpt::{self, Gpt, ParseError};
use formats::layout::Role;
use model::{Bytes, Diagnose, Diagnosis, Who};

/// The label of the volume.
pub(super) const LABEL: &str = "EVE";
/// The file of the default folder that explains it and stays out of the partition.
pub(super) const EXPLANATION: &str = "README.md";

const SERIAL: u32 = 0x4556_4544;
/// No file of a CONFIG partition is larger.
const FILE_MAX: u64 = 4 << 20;
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
    /// The files do not make a volume.
    #[error("cannot make the CONFIG partition")]
    Volume(#[from] WriteError),
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
            ConfigError::Unfit { .. } | ConfigError::Volume(_) => {
                "take the file out of the folder given with --conf"
            }
            ConfigError::Table { .. } | ConfigError::None(_) | ConfigError::Old { .. } => {
                "give a raw disk image that `eve build live` made"
            }
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

/// The files of a folder and all below, by path, but for its [`EXPLANATION`].
pub fn read_folder(folder: &Path) -> Result<Files, ConfigError> {
    let mut files = Files::new();
    collect(folder, "", 0, &mut files)?;
    files.remove(EXPLANATION);
    Ok(files)
}

/// A CONFIG volume with these files. All its times are `time`, in seconds since 1970.
pub(super) fn volume(size: Bytes, time: u64) -> Volume {
    Volume { size, label: LABEL.to_owned(), serial: SERIAL, time }
}

/// The files in the CONFIG partition of a finished raw disk.
pub fn get_config(disk: &Path) -> Result<Files, ConfigError> {
    let mut file = File::open(disk).map_err(ConfigError::file("open", disk))?;
    read_partition(&mut file, disk).map(|(_, _, files)| files)
}

/// Adds these files to the CONFIG partition of a finished raw disk, or replaces those that are
/// there. Nothing else on the disk changes. The disk must not be in use.
pub fn set_config(disk: &Path, files: &Files) -> Result<(), ConfigError> {
    let write = ConfigError::file("write", disk);
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(disk)
        .map_err(ConfigError::file("open", disk))?;
    let (at, volume, mut all) = read_partition(&mut file, disk)?;
    all.extend(files.iter().map(|(path, body)| (path.clone(), body.clone())));
    let bytes = fat::render(&volume, &all)?;
    file.seek(SeekFrom::Start(at.0)).map_err(&write)?;
    file.write_all(&bytes).map_err(&write)?;
    file.sync_all().map_err(&write)
}

fn read_partition(file: &mut File, disk: &Path) -> Result<(Bytes, Volume, Files), ConfigError> {
    let read = ConfigError::file("read", disk);
    let size = file.seek(SeekFrom::End(0)).map(Bytes).map_err(&read)?;
    let head = read_at(file, Bytes(0), gpt::HEAD).map_err(&read)?;
    let table = Gpt::parse(&head, size)
        .map_err(|source| ConfigError::Table { path: disk.to_owned(), source })?;
    let found = table.by_name(Role::Config.name());
    let (_, partition) = found.ok_or_else(|| ConfigError::None(disk.to_owned()))?;
    let (at, length) = (partition.offset(), partition.length());
    let bytes = read_at(file, at, length).map_err(&read)?;
    let old = |source| ConfigError::Old { path: disk.to_owned(), source };
    let (volume, files) = fat::read(&bytes).map_err(old)?;
    Ok((at, volume, files))
}

fn read_at(file: &mut File, at: Bytes, length: Bytes) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at.0))?;
    let mut bytes = Vec::new();
    file.take(length.0).read_to_end(&mut bytes)?;
    Ok(bytes)
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
