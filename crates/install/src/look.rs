//! What is there: disks with what they hold, and the files of the medium that was booted.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use device::install::{Disk, Found, Transport, recognize};
use formats::fat::{self, Files};
use formats::layout::Role;
use host::block::{self, BlockError};
use host::disks::{Medium, Seen};
use model::installer::{CONFIG, MEDIUM};
use model::{Bytes, Diagnose, Diagnosis, Who};

/// No volume of files is larger that is read whole.
const VOLUME_MAX: u64 = 256 << 20;

/// Why something cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// Reading failed.
    #[error("cannot read {path}")]
    Read {
        /// What.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is neither a file nor a whole disk.
    #[error("{path} {what}")]
    NoDisk {
        /// The path.
        path: PathBuf,
        /// What it is, as a verb.
        what: &'static str,
    },
    /// The table of the medium cannot be used.
    #[error(transparent)]
    Medium(#[from] BlockError),
    /// The files of a volume cannot be read.
    #[error("cannot read the files of {path}")]
    Volume {
        /// The partition or file.
        path: PathBuf,
        /// Why not.
        source: fat::ReadError,
    },
}

impl Diagnose for LookError {
    fn diagnose(&self) -> Diagnosis {
        Diagnosis::of(
            Who::Operator,
            match self {
                LookError::Read { .. } => "check that the path is right and may be used",
                LookError::NoDisk { .. } => "give a whole disk, as in /dev/sda, or a file",
                LookError::Medium(_) | LookError::Volume { .. } => {
                    "write the installer to its medium anew"
                }
            },
        )
    }
}

/// Every disk of this machine.
pub fn disks(medium: Option<&Medium>) -> Vec<Disk> {
    host::disks::all().iter().map(|seen| known(seen, medium)).collect()
}

fn known(seen: &Seen, medium: Option<&Medium>) -> Disk {
    Disk {
        name: seen.name.clone(),
        size: seen.size,
        sector: seen.sector,
        transport: seen.transport,
        read_only: seen.read_only,
        medium: medium.is_some_and(|m| m.name() == seen.name),
        in_use: seen.in_use.clone(),
        found: found(&seen.path()),
    }
}

/// One disk: a device, or a file that stands for one. Its name is its path.
pub fn look_at(path: &Path) -> Result<Disk, LookError> {
    let read = |source| LookError::Read { path: path.to_owned(), source };
    let no_disk = |what| LookError::NoDisk { path: path.to_owned(), what };
    let real = path.canonicalize().map_err(read)?;
    let about = std::fs::metadata(&real).map_err(read)?;
    if about.is_file() {
        return Ok(Disk {
            name: path.display().to_string(),
            size: Bytes(about.len()),
            sector: 512,
            transport: Transport::Virtual,
            read_only: about.permissions().readonly(),
            medium: false,
            in_use: None,
            found: found(&real),
        });
    }
    if !about.file_type().is_block_device() {
        return Err(no_disk("is neither a disk nor a file"));
    }
    let all = host::disks::all();
    let seen = all.iter().find(|s| s.path() == real);
    let seen = seen.ok_or_else(|| no_disk("is no whole disk with a medium in it"))?;
    Ok(Disk { name: path.display().to_string(), ..known(seen, None) })
}

/// What is on a disk. One that cannot be read holds something: it is not called blank.
fn found(path: &Path) -> Found {
    let head = || -> io::Result<[u8; 512]> {
        let mut head = [0; 512];
        File::open(path)?.read_exact_at(&mut head, 0)?;
        Ok(head)
    };
    match head() {
        Ok(head) => recognize(block::Disk::at(path).table().ok(), &head),
        Err(error) => Found::Other(format!("what cannot be read ({error})")),
    }
}

/// The files of CONFIG on the medium that was booted. `None`: it has none of its own.
pub fn medium_files(medium: &Medium) -> Result<Option<Files>, LookError> {
    match medium {
        Medium::Iso(_) => {
            let path = Path::new(MEDIUM).join(CONFIG);
            if path.exists() { files_of(&path).map(Some) } else { Ok(None) }
        }
        Medium::Disk(name) => {
            let disk = block::Disk::at(Path::new("/dev").join(name));
            let table = disk.table()?;
            let found = Role::InstallerConfig.find(&table).or_else(|| Role::Config.find(&table));
            found.map(|(number, _)| files_of(&disk.partition(number))).transpose()
        }
    }
}

/// The files of a FAT volume: a partition, or a file that is one.
pub fn files_of(path: &Path) -> Result<Files, LookError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(VOLUME_MAX).read_to_end(&mut bytes))
        .map_err(|source| LookError::Read { path: path.to_owned(), source })?;
    let bad = |source| LookError::Volume { path: path.to_owned(), source };
    fat::read(&bytes).map(|(_, files)| files).map_err(bad)
}
