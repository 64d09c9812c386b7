//! What the installer leaves on its medium about the machine: a folder in the partition INVENTORY,
//! named by the machine's serial number, so that one stick can go round many machines.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use formats::fat::{self, Files};
use formats::layout::Role;
use host::block::{self, BlockError};
use host::disks::Medium;

/// The partition has 40 MiB.
const VOLUME_MAX: u64 = 256 << 20;
const SECTOR: usize = 512;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The medium cannot be written to, or has no such partition.
    #[error("the medium has no partition INVENTORY")]
    NoPlace,
    /// Its table cannot be used.
    #[error(transparent)]
    Medium(#[from] BlockError),
    /// Reading or writing failed.
    #[error("cannot {doing} {path}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// With which partition.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is there is no volume.
    #[error("cannot read the files in INVENTORY")]
    Old(#[from] fat::ReadError),
    /// There is no room for the report.
    #[error("cannot add to the files in INVENTORY")]
    New(#[from] fat::WriteError),
}

/// Adds `files` to the folder of this machine, and returns its name. What was there of other machines
/// and of earlier installations stays, but for files of the same name.
pub fn save(medium: &Medium, serial: &str, files: &Files) -> Result<String, ReportError> {
    let Medium::Disk(name) = medium else { return Err(ReportError::NoPlace) };
    let disk = block::Disk::at(Path::new("/dev").join(name));
    let table = disk.table()?;
    let (number, _) = Role::Inventory.find(&table).ok_or(ReportError::NoPlace)?;
    let folder = folder(serial);
    add(&disk.partition(number), &folder, files)?;
    Ok(folder)
}

/// A serial number as the name of a folder.
fn folder(serial: &str) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
    let name: String = serial.trim().chars().take(64).map(fit).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

fn add(path: &Path, folder: &str, files: &Files) -> Result<(), ReportError> {
    let failed = |doing| move |source| ReportError::File { doing, path: path.to_owned(), source };
    let file = File::options().read(true).write(true).open(path).map_err(failed("open"))?;
    let mut old = Vec::new();
    (&file).take(VOLUME_MAX).read_to_end(&mut old).map_err(failed("read"))?;
    let (volume, mut all) = fat::read(&old)?;
    // A folder that was empty has something in it now.
    all.remove(&format!("{folder}/"));
    all.extend(files.iter().map(|(name, body)| (format!("{folder}/{name}"), body.clone())));
    let new = fat::render(&volume, &all)?;
    for (at, (old, new)) in old.chunks(SECTOR).zip(new.chunks(SECTOR)).enumerate() {
        if old != new {
            file.write_all_at(new, (at * SECTOR) as u64).map_err(failed("write"))?;
        }
    }
    file.sync_all().map_err(failed("sync"))
}

#[cfg(test)]
mod tests {
    use model::Bytes;

    use super::*;

    #[test]
    fn each_machine_has_a_folder_and_the_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Role::Inventory.volume(Bytes::mib(40), 1_800_000_000).unwrap();
        let before = Files::from([
            ("OTHER/installer.log".to_owned(), b"x".to_vec()),
            ("S_1/".to_owned(), Vec::new()),
        ]);
        let image = fat::render(&volume, &before).unwrap();
        store::save(dir.path(), "inventory", &image).unwrap();
        let path = dir.path().join("inventory");
        let report = Files::from([("installer.log".to_owned(), vec![7; 10_000])]);
        add(&path, &folder("S/1 "), &report).unwrap();
        let (after, files) = fat::read(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(after, volume);
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["OTHER/installer.log", "S_1/installer.log"]);
        assert_eq!(folder("  "), "unknown");
    }
}
