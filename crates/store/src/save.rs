//! Replacing files whole.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What failed while a file was replaced. The old file is still whole.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}")]
pub struct SaveError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl SaveError {
    /// The operating system's reason.
    pub fn io(&self) -> &io::Error {
        &self.source
    }
}

/// The file that is meant by `path` where something is to be written: links are followed, and what is
/// there must be a file, which another one can replace, or nothing.
pub fn replaceable(path: &Path) -> io::Result<PathBuf> {
    let about = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(path.to_owned()),
        about => about?,
    };
    // A link to nothing is told as that: what it should become is not ours to guess.
    let path = if about.is_symlink() { path.canonicalize()? } else { path.to_owned() };
    let kind = fs::metadata(&path)?.file_type();
    if kind.is_file() {
        return Ok(path);
    }
    let what = if kind.is_dir() { "a folder" } else { "a device or pipe" };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a file")))
}

/// Replaces `dir/name` as one step: after a power cut the file holds the old bytes or the new.
pub fn save(dir: &Path, name: &str, body: &[u8]) -> Result<(), SaveError> {
    let new = dir.join(format!(".{name}.new"));
    let step = |doing, path: &Path, result: io::Result<()>| {
        result.map_err(|source| SaveError { doing, path: path.to_owned(), source })
    };
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(body)?;
        file.sync_all() // the bytes are durable
    };
    let outcome = step("write", &new, write())
        .and_then(|()| step("rename", &new, fs::rename(&new, dir.join(name)))) // the name moves
        .and_then(|()| step("sync", dir, sync_dir(dir))); // the move is durable
    if outcome.is_err() {
        // A full disk must not stay full of our own leavings; the first error is the one to tell.
        let _ = fs::remove_file(&new);
    }
    outcome
}

/// A file that is being written beside the one it will replace, for what is too large to hand over
/// at once. Dropped without [`Draft::commit`], it leaves the old file and nothing else.
#[derive(Debug)]
pub struct Draft {
    file: File,
    dir: PathBuf,
    new: PathBuf,
    name: PathBuf,
    committed: bool,
}

impl Draft {
    /// Starts the next content of `path`, whose folder must be there. One file has one draft at a
    /// time; what an earlier one left after a power cut is overwritten.
    pub fn of(path: &Path) -> Result<Draft, SaveError> {
        let fail = |source| SaveError { doing: "create", path: path.to_owned(), source };
        let path = &replaceable(path).map_err(fail)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(fail(io::ErrorKind::InvalidFilename.into()));
        };
        let dir = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(".new");
        let new = dir.join(hidden);
        let file = File::create(&new).map_err(fail)?;
        let (dir, name) = (dir.to_owned(), path.to_owned());
        Ok(Draft { file, dir, new, name, committed: false })
    }

    /// Puts the draft in the place of the file, durably.
    pub fn commit(mut self) -> Result<(), SaveError> {
        let step = |doing, path: &Path, result: io::Result<()>| {
            result.map_err(|source| SaveError { doing, path: path.to_owned(), source })
        };
        step("write", &self.new, self.file.sync_all())?;
        step("rename", &self.new, fs::rename(&self.new, &self.name))?;
        self.committed = true;
        step("sync", &self.dir, sync_dir(&self.dir))
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.committed {
            // The next draft overwrites what this cannot remove.
            let _ = fs::remove_file(&self.new);
        }
    }
}

/// Removes `dir/name`, durably. A name that is not there is no error.
pub fn remove(dir: &Path, name: &str) -> Result<(), SaveError> {
    let path = dir.join(name);
    let done = match fs::remove_file(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.and_then(|()| sync_dir(dir)),
    };
    done.map_err(|source| SaveError { doing: "remove", path, source })
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), "x", b"old").unwrap();
        save(dir.path(), "x", b"new").unwrap();
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_file_is_not_replaced_and_a_link_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let (link, file) = (dir.path().join("link"), dir.path().join("file"));
        save(dir.path(), "file", b"old").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let mut draft = Draft::of(&link).unwrap();
        draft.write_all(b"new").unwrap();
        draft.commit().unwrap();
        assert!(link.is_symlink() && fs::read(&file).unwrap() == b"new");
        for other in ["/dev/null", "/"] {
            let error = Draft::of(Path::new(other)).unwrap_err();
            assert_eq!(error.io().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_draft_shows_when_it_is_committed_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        save(dir.path(), "x", b"old").unwrap();
        let mut dropped = Draft::of(&path).unwrap();
        dropped.write_all(b"half").unwrap();
        drop(dropped);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let mut draft = Draft::of(&path).unwrap();
        draft.write_all(b"new").unwrap();
        draft.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), "x", b"old").unwrap();
        fs::create_dir(dir.path().join(".x.new")).unwrap(); // the new file cannot be made
        assert!(save(dir.path(), "x", b"new").is_err());
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"old");
    }
}
