//! The files of the log: `/persist/newlog`, and beside it what nobody wanted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use device::log::{File, Source, over_quota, upload::SET_ASIDE_MAX};
use model::{Bytes, Diagnose, Diagnosis, UnixMillis, Who};
use store::SaveError;

/// Files that the controller refused.
const ASIDE: &str = "failed";
/// Where in the kernel's log we are.
const KERNEL_PLACE: &str = "kernel-place.json";
/// The place is two short words.
const PLACE_MAX: Bytes = Bytes::kib(1);
/// EVE's hard limit of a log file is 64 KiB; we make smaller ones, and send also what others left.
const FILE_MAX: Bytes = Bytes::mib(1);
/// Logs may take this part of /persist at most.
const PART_OF_DISK: u64 = 10;

/// Why a file could not be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    #[error("cannot make a log file")]
    Pack { source: api::newlogs::NewlogsError },
    #[error(transparent)]
    Save(#[from] SaveError),
    #[error("cannot {doing} {path}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

impl Diagnose for FilesError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Pack { .. } => Diagnosis::of(Who::Developer, "report this"),
            Self::Save(_) | Self::Io { .. } => {
                Diagnosis::of(Who::Operator, "free space on the node's disk, or check it")
            }
        }
    }
}

/// The folder.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
}

impl Files {
    pub(super) fn open(dir: PathBuf) -> io::Result<Files> {
        fs::create_dir_all(dir.join(ASIDE))?;
        Ok(Files { dir })
    }

    /// Keeps a file under the next free name.
    pub(super) fn add(
        &self,
        source: Source,
        stays: bool,
        made: UnixMillis,
        bytes: &[u8],
    ) -> Result<(), FilesError> {
        let mut made = made;
        loop {
            let name = File::name_of(source, stays, made);
            if !self.dir.join(&name).exists() {
                return Ok(store::save(&self.dir, &name, bytes)?);
            }
            made = UnixMillis(made.0 + 1);
        }
    }

    /// All files.
    pub(super) fn list(&self) -> Vec<File> {
        list(&self.dir)
    }

    pub(super) fn read(&self, file: &File) -> Result<Vec<u8>, FilesError> {
        let path = self.dir.join(&file.name);
        store::read_bounded(&path, FILE_MAX).map_err(|source| FilesError::Io {
            doing: "read",
            path,
            source,
        })
    }

    pub(super) fn remove(&self, file: &File) -> Result<(), FilesError> {
        Ok(store::remove(&self.dir, &file.name)?)
    }

    /// Out of the way of others, but not lost yet.
    pub(super) fn set_aside(&self, file: &File) -> Result<(), FilesError> {
        let (path, aside) = (self.dir.join(&file.name), self.dir.join(ASIDE));
        fs::rename(&path, aside.join(&file.name)).map_err(|source| FilesError::Io {
            doing: "set aside",
            path,
            source,
        })?;
        for name in over_quota(&list(&aside), SET_ASIDE_MAX) {
            store::remove(&aside, &name)?;
        }
        Ok(())
    }

    /// Removes what is more than `wanted`, or than a tenth of the disk. So many files went.
    pub(super) fn keep_quota(&self, wanted: Bytes) -> Result<u64, FilesError> {
        let disk = rustix::fs::statvfs(&self.dir).map_or(u64::MAX, |s| s.f_blocks * s.f_frsize);
        let quota = Bytes(wanted.0.min(disk / PART_OF_DISK));
        let mut gone = 0;
        for name in over_quota(&self.list(), quota) {
            tracing::warn!(name, "log file removed: more than {quota} of logs");
            store::remove(&self.dir, &name)?;
            gone += 1;
        }
        Ok(gone)
    }

    /// The kernel's record that was read last, if that was in this boot.
    pub(super) fn kernel_place(&self, boot: &str) -> Option<u64> {
        let text = store::read_bounded(&self.dir.join(KERNEL_PLACE), PLACE_MAX).ok()?;
        let (saved, number): (String, u64) = serde_json::from_slice(&text).ok()?;
        (saved == boot).then_some(number)
    }

    pub(super) fn save_kernel_place(&self, boot: &str, number: u64) -> Result<(), FilesError> {
        let text = serde_json::to_vec(&(boot, number)).unwrap_or_default();
        Ok(store::save(&self.dir, KERNEL_PLACE, &text)?)
    }
}

fn list(dir: &Path) -> Vec<File> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let one = |entry: fs::DirEntry| {
        let size = Bytes(entry.metadata().ok()?.len());
        File::parse(entry.file_name().to_str()?, size)
    };
    entries.filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_of_one_moment_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path().to_owned()).unwrap();
        for _ in 0..3 {
            files.add(Source::Device, false, UnixMillis(5), b"x").unwrap();
        }
        let mut made: Vec<u64> = files.list().iter().map(|f| f.made.0).collect();
        made.sort_unstable();
        assert_eq!(made, [5, 6, 7]);
    }

    #[test]
    fn the_quota_holds_and_what_is_set_aside_is_out_of_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path().to_owned()).unwrap();
        for at in [1, 2, 3] {
            files.add(Source::Device, false, UnixMillis(at), &[0; 100]).unwrap();
        }
        assert_eq!(files.keep_quota(Bytes(250)).unwrap(), 1);
        let left = files.list();
        assert_eq!(left.len(), 2);
        files.set_aside(&left[0]).unwrap();
        assert_eq!(files.list().len(), 1);
        assert!(dir.path().join(ASIDE).join(&left[0].name).exists());
    }

    #[test]
    fn the_place_in_the_kernels_log_is_of_one_boot() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path().to_owned()).unwrap();
        files.save_kernel_place("a", 7).unwrap();
        assert_eq!((files.kernel_place("a"), files.kernel_place("b")), (Some(7), None));
    }
}
