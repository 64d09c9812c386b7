//! Finding a partition by the name in the partition table, as the kernel shows it in sysfs
//! (`PARTNAME=` in a block device's uevent).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::Failure;

/// A partition the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Partition {
    /// The disk it is on, `vda`.
    pub(crate) disk: String,
    /// Its own name, `vda2`.
    pub(crate) device: String,
    /// Its name in the table, `IMGA`; may be empty.
    pub(crate) name: String,
}

impl Partition {
    /// Its node in /dev.
    pub(crate) fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.device)
    }
}

/// Every partition of every disk, ordered by device.
pub(crate) fn all(sys: &Path) -> Vec<Partition> {
    let devices = fs::read_dir(sys.join("class/block")).into_iter().flatten().flatten();
    let mut found: Vec<Partition> = devices
        .filter_map(|entry| {
            let uevent = fs::read_to_string(entry.path().join("uevent")).ok()?;
            let value = |key| uevent.lines().find_map(|line| line.strip_prefix(key));
            if value("DEVTYPE=") != Some("partition") {
                return None;
            }
            // …/devices/…/block/vda/vda2
            let place = fs::canonicalize(entry.path()).ok()?;
            let disk = place.parent()?.file_name()?.to_string_lossy().into_owned();
            Some(Partition {
                disk,
                device: entry.file_name().to_string_lossy().into_owned(),
                name: value("PARTNAME=").unwrap_or_default().to_owned(),
            })
        })
        .collect();
    found.sort();
    found
}

/// Waits until at least one partition of this name is there. Two disks may each have one.
pub(crate) fn wait_for(
    sys: &Path,
    name: &str,
    patience: Duration,
) -> Result<Vec<Partition>, Failure> {
    let step = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    loop {
        let every = all(sys);
        let found: Vec<Partition> = every.iter().filter(|p| p.name == name).cloned().collect();
        if !found.is_empty() {
            return Ok(found);
        }
        if waited >= patience {
            let seen: Vec<String> =
                every.iter().map(|p| format!("{}={}", p.device, p.name)).collect();
            let seen = if seen.is_empty() { "none".to_owned() } else { seen.join(" ") };
            let waited = patience.as_secs();
            let why = format!("none appeared within {waited} s; partitions seen: {seen}");
            return Err(Failure::new(format!("find a partition named {name}"), why));
        }
        std::thread::sleep(step);
        waited += step;
    }
}

/// The disk that the root file system comes from: the one whose partition is below the
/// device-mapper device of `/`.
pub(crate) fn boot_disk(sys: &Path) -> Option<String> {
    let root = rustix::fs::stat("/").ok()?;
    let (major, minor) = (rustix::fs::major(root.st_dev), rustix::fs::minor(root.st_dev));
    let slaves = sys.join(format!("dev/block/{major}:{minor}/slaves"));
    let below = fs::read_dir(slaves).ok()?.flatten().next()?.file_name();
    let below = below.to_string_lossy();
    all(sys).into_iter().find(|p| p.device == below).map(|p| p.disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sysfs of one disk, in a folder.
    fn sysfs(partitions: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path().join("class/block");
        fs::create_dir_all(&class).unwrap();
        for (device, name) in partitions {
            let real = dir.path().join("devices/block/vda").join(device);
            fs::create_dir_all(&real).unwrap();
            let text = format!("MAJOR=254\nDEVTYPE=partition\nPARTN=1\nPARTNAME={name}\n");
            put(&real.join("uevent"), &text);
            std::os::unix::fs::symlink(&real, class.join(device)).unwrap();
        }
        dir
    }

    fn put(path: &Path, text: &str) {
        use std::io::Write;
        fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_partition_is_found_by_its_name_in_the_table() {
        let sys = sysfs(&[("vda1", "EFI System"), ("vda2", "IMGA")]);
        let found = wait_for(sys.path(), "IMGA", Duration::ZERO).unwrap();
        assert_eq!(found[0].node(), Path::new("/dev/vda2"));
        assert_eq!(found[0].disk, "vda");
    }

    #[test]
    fn a_missing_partition_is_named_beside_those_that_are_there() {
        let sys = sysfs(&[("vda1", "EFI System")]);
        let error = wait_for(sys.path(), "IMGA", Duration::ZERO).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("IMGA") && error.contains("vda1=EFI System"), "{error}");
    }
}
