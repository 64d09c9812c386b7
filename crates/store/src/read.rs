//! Reading small files that others may have made large.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use model::Bytes;

/// All of a file, which is an error (`FileTooLarge`) if it holds more than `limit`. The read itself is
/// bounded: a length that was looked at before says nothing of a file that grows, or of a device.
pub fn read_bounded(path: &Path, limit: Bytes) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let expected = file.metadata()?.len().min(limit.0);
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or_default());
    file.take(limit.0.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit.0 {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit_and_refused_beyond() {
        let dir = tempfile::tempdir().unwrap();
        crate::save(dir.path(), "x", b"four").unwrap();
        let path = dir.path().join("x");
        assert_eq!(read_bounded(&path, Bytes(4)).unwrap(), b"four");
        let why = read_bounded(&path, Bytes(3)).unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::FileTooLarge);
        let missing = read_bounded(&dir.path().join("y"), Bytes(4)).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_says_it_is_empty_and_never_ends_is_refused_too() {
        let why = read_bounded(Path::new("/dev/zero"), Bytes(4096)).unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::FileTooLarge);
    }
}
