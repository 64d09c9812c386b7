//! Disk images on this machine's file system: overlays, sparse copies.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use model::Bytes;

use super::error::QemuError;
use super::machine::DiskFormat;
use crate::process::{Tool, run};

/// Makes `at`, a qcow2 image that holds what differs from `base`. `base` must stay as it is. The
/// disk is as large as `base`, or at least `size` over a raw base.
pub fn overlay(
    base: &Path,
    base_format: DiskFormat,
    at: &Path,
    size: Option<Bytes>,
) -> Result<(), QemuError> {
    let base = base.canonicalize().map_err(QemuError::file("find", base))?;
    let length = std::fs::metadata(&base).map_err(QemuError::file("look at", &base))?.len();
    let size = size.filter(|size| base_format == DiskFormat::Raw && size.0 > length);
    let size = size.map(|size| size.0.to_string());
    let (base, at) = (base.to_string_lossy(), at.to_string_lossy());
    let head = ["create", "-q", "-f", "qcow2", "-F", base_format.name(), "-b", &base, &at];
    let args: Vec<&str> = head.into_iter().chain(size.as_deref()).collect();
    run(Tool::QemuImg, &args)?;
    Ok(())
}

/// Makes `at`, an empty qcow2 image of a disk. What was there is gone.
pub fn blank(at: &Path, size: Bytes) -> Result<(), QemuError> {
    let (at, size) = (at.to_string_lossy(), size.0.to_string());
    run(Tool::QemuImg, &["create", "-q", "-f", "qcow2", &at, &size])?;
    Ok(())
}

/// Copies a file, holes and all: a disk of 4 GiB that holds 100 MiB costs 100 MiB. `at` must not
/// exist yet.
pub fn copy_sparse(from: &Path, at: &Path) -> Result<(), QemuError> {
    let mut input = File::open(from).map_err(QemuError::file("open", from))?;
    let mut output = File::create_new(at).map_err(QemuError::file("create", at))?;
    copy_data(&mut input, &mut output).map_err(QemuError::file("write", at))
}

fn copy_data(input: &mut File, output: &mut File) -> io::Result<()> {
    let size = input.metadata()?.len();
    output.set_len(size)?;
    for stretch in crate::sparse::stretches(input)? {
        input.seek(SeekFrom::Start(stretch.start))?;
        output.seek(SeekFrom::Start(stretch.start))?;
        let length = stretch.end - stretch.start;
        if io::copy(&mut input.take(length), output)? < length {
            return Err(io::ErrorKind::UnexpectedEof.into()); // it shrank under our hands
        }
    }
    output.flush()
}

/// Makes a raw image at least `size` long; what is added is a hole.
pub fn grow(disk: &Path, size: Bytes) -> Result<(), QemuError> {
    let file = File::options().write(true).open(disk).map_err(QemuError::file("open", disk))?;
    let grown = file.metadata().and_then(|meta| file.set_len(meta.len().max(size.0)));
    grown.map_err(QemuError::file("grow", disk))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_copy_has_the_same_bytes_and_the_same_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        let mut file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        for (at, byte) in [(0, 1_u8), (20 << 20, 2), ((64 << 20) - 5, 3)] {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&[byte; 5]).unwrap();
        }
        copy_sparse(&from, &to).unwrap();
        assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap());
        let blocks = std::fs::metadata(&to).unwrap().blocks();
        assert!(blocks * 512 < 4 << 20, "{blocks} blocks for three stretches of data");
        assert!(copy_sparse(&from, &to).is_err(), "it never writes over a file");
    }
}
