//! Files that not everybody may read.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::StoreError;

/// Like [`crate::save`], for a file with exactly these permission bits (as in `0o600`), whatever the
/// umask: nobody else could open it for a moment even while it was being written.
pub fn save_with_mode(dir: &Path, name: &str, body: &[u8], mode: u32) -> Result<(), StoreError> {
    let new = dir.join(format!(".{name}.new"));
    // What a power cut left may have other bits, and readers. The new file is another one.
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::io("remove", &new)(e));
        }
        _ => {}
    }
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.set_permissions(Permissions::from_mode(mode))?; // gives back what the umask took
        file.write_all(body)?;
        file.sync_all()
    };
    let outcome = write()
        .map_err(StoreError::io("write", &new))
        .and_then(|()| fs::rename(&new, dir.join(name)).map_err(StoreError::io("rename", &new)))
        .and_then(|()| {
            File::open(dir).and_then(|d| d.sync_all()).map_err(StoreError::io("sync", dir))
        });
    if outcome.is_err() {
        // Half a secret is one too; the first error is the one to tell.
        let _ = fs::remove_file(&new);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_its_mode_and_replaces_what_a_power_cut_left() {
        let dir = tempfile::tempdir().unwrap();
        crate::save(dir.path(), ".key.new", b"half").unwrap(); // with the usual mode
        for (body, mode) in [(b"one", 0o600), (b"two", 0o640), (b"all", 0o666)] {
            save_with_mode(dir.path(), "key", body, mode).unwrap();
            let path = dir.path().join("key");
            assert_eq!(fs::read(&path).unwrap(), body);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_secret_that_cannot_be_written_keeps_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        save_with_mode(dir.path(), "key", b"old", 0o600).unwrap();
        fs::create_dir(dir.path().join(".key.new")).unwrap();
        assert!(save_with_mode(dir.path(), "key", b"new", 0o600).is_err());
        assert_eq!(fs::read(dir.path().join("key")).unwrap(), b"old");
    }
}
