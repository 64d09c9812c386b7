//! An existing raw disk changed into the one that a clean build would make: what is the same already
//! is not written.
//!
//! There is no state of its own: an update that was cut off is completed by the next, since each
//! compares everything. Only a disk that some build of ours made is touched, and not one that a node
//! has booted from and keeps things on.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use formats::gpt::{Gpt, HEAD, TAIL};
use formats::layout::{DISK, Role};
use model::Bytes;

use super::disk::{CHUNK, Content, Disk, DiskError, HOLE, Piece};

/// Makes the raw disk at `path` just what [`super::disk::write`] would make there. Returns how many
/// bytes were written.
pub(super) fn update(disk: &Disk<'_>, path: &Path) -> Result<Bytes, DiskError> {
    let (open, write) = (DiskError::file("open", path), DiskError::file("write", path));
    let file = File::options().read(true).write(true).open(path).map_err(open)?;
    may_change(disk, &file, path)?;
    let mut target = Target { file: &file, path, written: 0 };
    let have = file.metadata().map_err(&write)?.len();
    if have < disk.size().0 {
        file.set_len(disk.size().0).map_err(&write)?;
    }
    let mut pieces: Vec<&Piece<'_>> = disk.pieces().iter().collect();
    pieces.sort_by_key(|p| p.at);
    let mut done = 0;
    for piece in pieces {
        target.make_zero(done, piece.at)?;
        target.make_equal(piece)?;
        done = piece.at + piece.length;
    }
    target.make_zero(done, disk.size().0)?;
    file.set_len(disk.size().0).and_then(|()| file.sync_all()).map_err(&write)?;
    Ok(Bytes(target.written))
}

/// Whether a build of ours made the disk, and nobody has made more of it since.
fn may_change(disk: &Disk<'_>, file: &File, path: &Path) -> Result<(), DiskError> {
    let foreign = |what: &str| DiskError::Foreign { path: path.to_owned(), what: what.to_owned() };
    let old = table(file).map_err(DiskError::file("read", path))?;
    let old = old.ok_or_else(|| foreign("has no partition table, so it is no disk of ours"))?;
    if old.disk() != DISK {
        return Err(foreign("has the partition table of another system"));
    }
    let wanted: BTreeSet<u32> = disk.table().partitions().keys().copied().collect();
    for (number, partition) in old.partitions() {
        if *number == Role::Persist.number() {
            let what = "has been booted: its P3 holds what a node keeps, and would be erased";
            return Err(foreign(what));
        }
        if !wanted.contains(number) {
            return Err(foreign(&format!(
                "has the partition {}, which is not ours",
                partition.name
            )));
        }
    }
    Ok(())
}

/// The table of a disk, or its copy at the end: the first may be what an update was cut off in.
fn table(file: &File) -> io::Result<Option<Gpt>> {
    let size = Bytes(file.metadata()?.len() / 512 * 512);
    let read = |at: u64, length: Bytes| -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; usize::try_from(length.0).unwrap_or_default()];
        match file.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    };
    if let Some(table) = read(0, HEAD)?.and_then(|head| Gpt::parse(&head, size).ok()) {
        return Ok(Some(table));
    }
    let Some(at) = size.0.checked_sub(TAIL.0) else { return Ok(None) };
    Ok(read(at, TAIL)?.and_then(|tail| Gpt::parse_backup(&tail, size).ok()))
}

/// A disk that is being changed.
struct Target<'a> {
    file: &'a File,
    path: &'a Path,
    /// So many bytes.
    written: u64,
}

impl Target<'_> {
    fn make_equal(&mut self, piece: &Piece<'_>) -> Result<(), DiskError> {
        let (mut bytes, mut file);
        let (from, source): (&mut dyn Read, &Path) = match &piece.from {
            Content::Bytes(all) => {
                bytes = &all[..];
                (&mut bytes, self.path)
            }
            Content::File(path) => {
                file = File::open(path).map_err(DiskError::file("open", path))?;
                (&mut file, path)
            }
        };
        let mut buffer = vec![0; CHUNK];
        let mut at = piece.at;
        let end = piece.at + piece.length;
        while at < end {
            let part = &mut buffer[..length(end - at)];
            from.read_exact(part).map_err(DiskError::file("read", source))?;
            self.put(at, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn make_zero(&mut self, from: u64, to: u64) -> Result<(), DiskError> {
        let zeroes = vec![0; CHUNK];
        let mut at = from;
        while at < to {
            let part = &zeroes[..length(to - at)];
            self.put(at, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Writes those of `bytes` that differ from what is there.
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut have = vec![0; bytes.len()];
        self.file.read_exact_at(&mut have, at).map_err(DiskError::file("read", self.path))?;
        let mut at = at;
        for (want, have) in bytes.chunks(HOLE).zip(have.chunks(HOLE)) {
            if want != have {
                self.file.write_all_at(want, at).map_err(DiskError::file("write", self.path))?;
                self.written += want.len() as u64;
            }
            at += want.len() as u64;
        }
        Ok(())
    }
}

/// As much of what is left as goes into a buffer.
fn length(left: u64) -> usize {
    usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)
}
