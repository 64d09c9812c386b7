//! Steps that are done once: each result lies in a folder named by the digest of all that went in.
//!
//! A result appears under its name only when it is whole and on the disk, and is made anew when it was
//! damaged since. Two builds at once wait
//! for each other per step; a result in use is not removed. Results that were not used for long
//! make room: a few of each kind are kept.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use model::{Bytes, Diagnose, Diagnosis, Digest, Who};
use sha2::{Digest as _, Sha256};

/// Results of each step that are kept.
const KEEP: usize = 6;
/// What each file of a result was when it was made.
const SUMS: &str = "sums.json";
const SUMS_MAX: Bytes = Bytes::kib(64);

/// The folder of finished steps.
#[derive(Debug, Clone)]
pub struct Steps {
    root: PathBuf,
}

/// A finished step. Its folder stays as long as this value lives.
#[derive(Debug)]
pub struct Done {
    /// What the step made lies here. Nobody writes to it.
    pub folder: PathBuf,
    /// Whether it was there already.
    pub cached: bool,
    /// Shared: keeps whoever makes room away.
    _lock: File,
}

/// The cache cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}")]
pub struct CacheError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Diagnose for CacheError {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self.source.kind() {
            io::ErrorKind::StorageFull => "free some space, or set EVE_CACHE to a larger disk",
            io::ErrorKind::PermissionDenied => "set EVE_CACHE to a folder that you may write to",
            _ => "set EVE_CACHE to another folder",
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

impl CacheError {
    fn of(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
        move |source| CacheError { doing, path: path.to_owned(), source }
    }
}

impl Steps {
    /// The steps in `cache`; made if it is not there.
    pub fn open(cache: &Path) -> Result<Steps, CacheError> {
        let root = cache.join("steps");
        fs::create_dir_all(&root).map_err(CacheError::of("create", &root))?;
        Ok(Steps { root })
    }

    /// The result of the step `name` for these inputs: that of an earlier run, or what `make`
    /// leaves in the folder it is given. `inputs` say everything that the result depends on.
    pub fn step<E: From<CacheError>>(
        &self,
        name: &str,
        inputs: &[&str],
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Done, E> {
        let key = key(name, inputs);
        let folder = self.root.join(&key);
        let lock_path = self.root.join(format!("{key}.lock"));
        let mut make = Some(make);
        let mut cached = true;
        loop {
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&lock_path)
                .map_err(CacheError::of("open", &lock_path))?;
            lock.lock_shared().map_err(CacheError::of("lock", &lock_path))?;
            // What was just made needs no second look.
            if folder.is_dir() && (!cached || is_whole(&folder)) {
                self.mark_used(&folder);
                return Ok(Done { folder, cached, _lock: lock });
            }
            lock.unlock().map_err(CacheError::of("lock", &lock_path))?;
            lock.lock().map_err(CacheError::of("lock", &lock_path))?;
            if folder.is_dir() {
                if is_whole(&folder) {
                    continue; // another build made it while we waited
                }
                tracing::warn!("{} is damaged and made anew", folder.display());
                remove(&folder)?;
            }
            // Taken once: if what it made is gone already, someone removes results under us.
            let Some(make) = make.take() else {
                let gone = io::Error::other("it was removed while in use");
                return Err(CacheError::of("find", &folder)(gone).into());
            };
            self.make(&key, &folder, make)?;
            cached = false;
            self.make_room(name);
        }
    }

    fn make<E: From<CacheError>>(
        &self,
        key: &str,
        folder: &Path,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let new = self.root.join(format!(".new-{key}"));
        remove(&new)?; // a build that was cut off left it
        fs::create_dir(&new).map_err(CacheError::of("create", &new))?;
        if let Err(error) = make(&new) {
            // The first error is the one to tell; a full disk must not stay full of leavings.
            let _ = fs::remove_dir_all(&new);
            return Err(error);
        }
        write_sums(&new).map_err(CacheError::of("sum up", &new))?;
        sync(&new).map_err(CacheError::of("sync", &new))?;
        fs::rename(&new, folder).map_err(CacheError::of("rename", &new))?;
        let synced = File::open(&self.root).and_then(|root| root.sync_all());
        synced.map_err(CacheError::of("sync", &self.root))?;
        Ok(())
    }

    /// The folder's own time says when it was last used. A cache that cannot tell is still one.
    fn mark_used(&self, folder: &Path) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(host::clock::now().0);
        let _ = File::open(folder).and_then(|f| f.set_modified(now));
    }

    /// Removes what was not used for longest. What cannot be removed now is left for later.
    fn make_room(&self, name: &str) {
        let prefix = format!("{name}-");
        let Ok(entries) = fs::read_dir(&self.root) else { return };
        let mut found: Vec<(SystemTime, PathBuf)> = entries
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().starts_with(&prefix))
            .filter_map(|e| Some((e.metadata().ok().filter(|m| m.is_dir())?.modified().ok()?, e)))
            .map(|(time, entry)| (time, entry.path()))
            .collect();
        found.sort();
        let old = found.len().saturating_sub(KEEP);
        for (_, folder) in found.into_iter().take(old) {
            let Ok(lock) = File::options().write(true).open(folder.with_extension("lock")) else {
                continue;
            };
            match lock.try_lock() {
                Ok(()) => drop(fs::remove_dir_all(&folder)),
                Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
            }
        }
    }
}

fn key(name: &str, inputs: &[&str]) -> String {
    let mut hash = Sha256::new();
    for input in inputs {
        hash.update((input.len() as u64).to_le_bytes());
        hash.update(input);
    }
    format!("{name}-{}", &Digest(hash.finalize().into()).hex()[..32])
}

fn remove(folder: &Path) -> Result<(), CacheError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(CacheError::of("remove", folder)(e)),
        _ => Ok(()),
    }
}

/// Writes down how long each file of a result is and what its CRC-32 is: against faults of disks, not
/// against those who may write here.
fn write_sums(folder: &Path) -> io::Result<()> {
    let mut sums = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        sums.insert(entry.file_name().to_string_lossy().into_owned(), sum(&entry.path())?);
    }
    let bytes = serde_json::to_vec(&sums).map_err(io::Error::other)?;
    store::save(folder, SUMS, &bytes).map_err(io::Error::other)
}

/// Whether every file of a result is as it was.
fn is_whole(folder: &Path) -> bool {
    let whole = || -> Option<bool> {
        let bytes = store::read_bounded(&folder.join(SUMS), SUMS_MAX).ok()?;
        let sums: BTreeMap<String, (u64, u32)> = serde_json::from_slice(&bytes).ok()?;
        Some(sums.iter().all(|(name, want)| sum(&folder.join(name)).is_ok_and(|s| s == *want)))
    };
    whole().unwrap_or(false)
}

/// A file's length and CRC-32.
fn sum(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let (mut hash, mut length) = (crc32fast::Hasher::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((length, hash.finalize())),
            got => {
                hash.update(&buffer[..got]);
                length += got as u64;
            }
        }
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, text: &str) -> Result<(), CacheError> {
        store::save(folder, "out", text.as_bytes()).unwrap();
        Ok(())
    }

    #[test]
    fn a_step_is_done_once_for_the_same_inputs() {
        let dir = tempfile::tempdir().unwrap();
        let steps = Steps::open(dir.path()).unwrap();
        let first = steps.step("x", &["a", "b"], |f| write(f, "1")).unwrap();
        let again = steps.step("x", &["a", "b"], |f| write(f, "2")).unwrap();
        let other = steps.step("x", &["ab", ""], |f| write(f, "3")).unwrap();
        let read = |done: &Done| fs::read_to_string(done.folder.join("out")).unwrap();
        assert_eq!([read(&first), read(&again), read(&other)], ["1", "1", "3"]);
        assert_eq!([first.cached, again.cached, other.cached], [false, true, false]);
    }

    #[test]
    fn a_damaged_result_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let steps = Steps::open(dir.path()).unwrap();
        let done = steps.step("x", &[], |f| write(f, "first")).unwrap();
        let out = done.folder.join("out");
        drop(done);
        for damage in [b"fxrst".as_slice(), b"firs", b""] {
            fs::remove_file(&out).unwrap();
            io::Write::write_all(&mut File::create(&out).unwrap(), damage).unwrap();
            let again = steps.step("x", &[], |f| write(f, "first")).unwrap();
            assert!(!again.cached && fs::read(&out).unwrap() == b"first");
        }
        fs::remove_file(out).unwrap();
        assert!(!steps.step("x", &[], |f| write(f, "first")).unwrap().cached);
        assert!(steps.step("x", &[], |f| write(f, "first")).unwrap().cached);
    }

    #[test]
    fn a_step_that_failed_or_was_cut_off_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let steps = Steps::open(dir.path()).unwrap();
        let failed = steps.step("x", &[], |f| {
            write(f, "half")?;
            Err(CacheError::of("make", f)(io::ErrorKind::StorageFull.into()))
        });
        assert!(failed.is_err());
        let left = dir.path().join("steps").join(format!(".new-{}", key("x", &[])));
        assert!(!left.exists());
        fs::create_dir(&left).unwrap();
        write(&left, "cut off").unwrap();
        let done = steps.step("x", &[], |f| write(f, "whole")).unwrap();
        assert_eq!(fs::read_to_string(done.folder.join("out")).unwrap(), "whole");
    }

    #[test]
    fn two_builds_at_once_do_a_step_once() {
        let dir = tempfile::tempdir().unwrap();
        let runs = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let steps = Steps::open(dir.path()).unwrap();
                    let done = steps.step("x", &["same"], |f| {
                        runs.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(50));
                        write(f, "once")
                    });
                    done.unwrap();
                });
            }
        });
        assert_eq!(runs.into_inner(), 1);
    }

    #[test]
    fn old_results_make_room_but_not_those_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let steps = Steps::open(dir.path()).unwrap();
        let held = steps.step("x", &["0"], |f| write(f, "0")).unwrap();
        for n in 1..=KEEP + 2 {
            steps.step("x", &[&n.to_string()], |f| write(f, "n")).unwrap();
        }
        assert!(held.folder.join("out").exists());
        let folders = fs::read_dir(dir.path().join("steps")).unwrap().flatten();
        let count = folders.filter(|e| e.path().is_dir()).count();
        assert!((KEEP..=KEEP + 1).contains(&count), "{count}");
    }
}
