//! The key that secrets are stored under (`pki/secrets.key`): 64 hexadecimal digits.

use std::path::Path;

use super::{FOLDER, PkiError, file, make_private, save_secret};

/// Its name in the folder of keys.
const FILE: &str = "secrets.key";

/// Reads the key under `data`; `fresh` becomes it if there is none.
pub(crate) fn secrets_key(data: &Path, fresh: &[u8; 32]) -> Result<[u8; 32], PkiError> {
    let dir = data.join(FOLDER);
    let path = dir.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let mut key = [0; 32];
            hex::decode_to_slice(text.trim(), &mut key)
                .map_err(|e| PkiError::Damaged { path, why: e.to_string() })?;
            Ok(key)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            make_private(&dir)?;
            save_secret(&dir, FILE, format!("{}\n", hex::encode(fresh)).as_bytes())?;
            Ok(*fresh)
        }
        Err(e) => Err(file("read", &path, e)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(secrets_key(dir.path(), &[1; 32]).unwrap(), [1; 32]);
        assert_eq!(secrets_key(dir.path(), &[2; 32]).unwrap(), [1; 32]);
        let path = dir.path().join("pki/secrets.key");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        store::save(&dir.path().join("pki"), "secrets.key", b"no key").unwrap();
        let e = secrets_key(dir.path(), &[3; 32]).unwrap_err().to_string();
        assert!(e.contains("secrets.key is damaged"), "{e}");
    }
}
