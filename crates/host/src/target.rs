//! A disk that is being written from end to end: nobody else has it, and what is read back comes from
//! the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use model::{Bytes, Digest};
use rustix::fs::{Advice, OFlags};
use sha2::{Digest as _, Sha256};

use crate::block::BlockError;

const CHUNK: usize = 1 << 20;

/// A disk, or a file that stands for one, open for us alone.
#[derive(Debug)]
pub struct Target {
    file: File,
    path: PathBuf,
    size: Bytes,
    device: bool,
}

impl Target {
    /// Opens a disk. Fails if it, or a partition of it, is mounted or held by somebody.
    pub fn open(path: &Path) -> Result<Target, BlockError> {
        let fail = |doing| move |source| BlockError::Io { doing, path: path.to_owned(), source };
        let device =
            std::fs::metadata(path).map_err(fail("look at"))?.file_type().is_block_device();
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if device {
            // For a block device this asks the kernel to let nobody else in (open(2)).
            let alone = OFlags::EXCL | OFlags::CLOEXEC;
            options.custom_flags(i32::try_from(alone.bits()).unwrap_or_default());
        }
        let file = options.open(path).map_err(fail("open"))?;
        if !device {
            file.try_lock().map_err(|e| fail("lock")(e.into()))?;
        }
        let size = crate::block::size(&file).map_err(fail("measure"))?;
        Ok(Target { file, path: path.to_owned(), size, device })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size.
    pub fn size(&self) -> Bytes {
        self.size
    }

    /// Makes a stretch zero. What is zero already is not written: a sparse file stays sparse.
    pub fn wipe(&self, at: Bytes, length: Bytes) -> Result<(), BlockError> {
        let zeroes = vec![0; CHUNK];
        self.pieces(at, length, |from, piece| {
            if piece.iter().any(|b| *b != 0) {
                self.file.write_all_at(&zeroes[..piece.len()], from)?;
            }
            Ok(())
        })
        .map_err(self.failed("wipe"))
    }

    /// Writes bytes.
    pub fn write(&self, at: Bytes, bytes: &[u8]) -> Result<(), BlockError> {
        self.file.write_all_at(bytes, at.0).map_err(self.failed("write"))
    }

    /// Copies `length` bytes; `tell` hears how many after each piece.
    pub fn copy(
        &self,
        at: Bytes,
        length: Bytes,
        mut from: impl Read,
        tell: &mut dyn FnMut(Bytes),
    ) -> Result<(), BlockError> {
        let mut buffer = vec![0; CHUNK];
        let mut done = 0;
        while done < length.0 {
            let part = usize::try_from((length.0 - done).min(CHUNK as u64)).unwrap_or(CHUNK);
            from.read_exact(&mut buffer[..part]).map_err(self.failed("read what goes onto"))?;
            self.write(Bytes(at.0 + done), &buffer[..part])?;
            done += part as u64;
            tell(Bytes(part as u64));
        }
        Ok(())
    }

    /// Reads bytes.
    pub fn read(&self, at: Bytes, length: usize) -> Result<Vec<u8>, BlockError> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, at.0).map_err(self.failed("read"))?;
        Ok(bytes)
    }

    /// What a stretch hashes to; `tell` hears how many bytes after each piece.
    pub fn digest(
        &self,
        at: Bytes,
        length: Bytes,
        tell: &mut dyn FnMut(Bytes),
    ) -> Result<Digest, BlockError> {
        let mut hash = Sha256::new();
        self.pieces(at, length, |_, piece| {
            hash.update(piece);
            tell(Bytes(piece.len() as u64));
            Ok(())
        })
        .map_err(self.failed("read back"))?;
        Ok(Digest(hash.finalize().into()))
    }

    /// Whether a stretch is zero.
    pub fn is_zero(&self, at: Bytes, length: Bytes) -> Result<bool, BlockError> {
        let mut zero = true;
        self.pieces(at, length, |_, piece| {
            zero &= piece.iter().all(|b| *b == 0);
            Ok(())
        })
        .map_err(self.failed("read back"))?;
        Ok(zero)
    }

    /// Makes everything durable and forgets it: what is read from now on comes from the disk.
    pub fn sync(&self) -> Result<(), BlockError> {
        self.file.sync_all().map_err(self.failed("sync"))?;
        // A file system that keeps its pages is no fault of ours: the bytes are right.
        let _ = rustix::fs::fadvise(&self.file, 0, NonZeroU64::new(self.size.0), Advice::DontNeed);
        Ok(())
    }

    /// Has the kernel read the partition table anew.
    pub fn announce(&self) -> Result<(), BlockError> {
        const BLKRRPART: rustix::ioctl::Opcode = rustix::ioctl::opcode::none(0x12, 95);
        if !self.device {
            return Ok(());
        }
        // SAFETY: BLKRRPART takes no argument.
        #[expect(unsafe_code, reason = "the kernel is asked by ioctl")]
        unsafe { rustix::ioctl::ioctl(&self.file, rustix::ioctl::NoArg::<BLKRRPART>::new()) }
            .map_err(|errno| self.failed("announce the partitions of")(errno.into()))
    }

    fn pieces(
        &self,
        at: Bytes,
        length: Bytes,
        mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut done = 0;
        while done < length.0 {
            let part = usize::try_from((length.0 - done).min(CHUNK as u64)).unwrap_or(CHUNK);
            self.file.read_exact_at(&mut buffer[..part], at.0 + done)?;
            each(at.0 + done, &buffer[..part])?;
            done += part as u64;
        }
        Ok(())
    }

    fn failed(&self, doing: &'static str) -> impl Fn(io::Error) -> BlockError {
        let path = self.path.clone();
        move |source| BlockError::Io { doing, path: path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn wiping_writes_only_what_is_not_zero() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(64 << 20).unwrap();
        let target = Target::open(&path).unwrap();
        target.write(Bytes::mib(8), b"old").unwrap();
        assert!(!target.is_zero(Bytes(0), Bytes::mib(16)).unwrap());
        target.wipe(Bytes(0), Bytes::mib(64)).unwrap();
        target.sync().unwrap();
        assert!(target.is_zero(Bytes(0), Bytes::mib(64)).unwrap());
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 <= 2 << 20, "it stays sparse");
    }

    #[test]
    fn what_was_copied_hashes_to_what_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(4 << 20).unwrap();
        let target = Target::open(&path).unwrap();
        let body: Vec<u8> = (0..3_000_001_u32).map(|n| n.to_le_bytes()[0]).collect();
        let (mut told, length) = (0, Bytes(body.len() as u64));
        target.copy(Bytes(512), length, &body[..], &mut |n| told += n.0).unwrap();
        assert_eq!(told, length.0);
        let digest = Digest(Sha256::digest(&body).into());
        assert_eq!(target.digest(Bytes(512), length, &mut |_| {}).unwrap(), digest);
        assert!(target.copy(Bytes(0), Bytes(10), &b"short"[..], &mut |_| {}).is_err());
    }

    #[test]
    fn two_do_not_write_one_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let first = Target::open(&path).unwrap();
        assert!(Target::open(&path).is_err());
        drop(first);
        assert!(Target::open(&path).is_ok());
    }
}
