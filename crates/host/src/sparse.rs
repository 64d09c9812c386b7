//! Where a file has data, and where holes.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// The stretches of a file that may hold something other than zeroes, ascending. A file system
/// without holes answers with one: the whole file. Moves the file's position.
pub fn stretches(file: &File) -> io::Result<Vec<Range<u64>>> {
    let size = file.metadata()?.len();
    let mut stretches = Vec::new();
    let mut at = 0;
    while let Some(start) = seek(file, SeekFrom::Data(at))? {
        at = seek(file, SeekFrom::Hole(start))?.unwrap_or(size);
        stretches.push(start..at);
    }
    Ok(stretches)
}

/// `None`: there is no such place behind that position.
fn seek(file: &File, to: SeekFrom) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn everything_that_was_written_lies_in_a_stretch() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(stretches(&file).unwrap(), []);
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"x", 5 << 20).unwrap();
        file.write_all_at(b"y", (64 << 20) - 1).unwrap();
        let found = stretches(&file).unwrap();
        assert!(found.iter().is_sorted_by_key(|s| s.start), "{found:?}");
        for written in [5 << 20, (64 << 20) - 1] {
            assert!(found.iter().any(|s| s.contains(&written)), "{written}: {found:?}");
        }
    }
}
