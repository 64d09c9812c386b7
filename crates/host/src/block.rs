//! Disks: the one we booted from, its partition table, and the file system of /persist.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use formats::gpt::{Gpt, HEAD, ParseError, TAIL};
use formats::mbr::Mbr;
use model::{Bytes, Sector512};
use rustix::mount::{MountFlags, mount};

use crate::process::{self, Tool, ToolError};

/// Why a disk could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Nothing in sysfs says where the root file system comes from.
    #[error("cannot find the disk that the root file system is on")]
    NoBootDisk,
    /// The device could not be read or written.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Neither of the two partition tables can be used. The error is that of the first.
    #[error("cannot use the partition table of {path}")]
    Table {
        /// The disk.
        path: PathBuf,
        /// Why.
        source: ParseError,
    },
    /// A file system tool failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// A disk of this machine, or a file that stands for one.
#[derive(Debug, Clone)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// The disk at this path.
    pub fn at(path: impl Into<PathBuf>) -> Disk {
        Disk { path: path.into() }
    }

    /// The disk that the root file system comes from: its device-mapper device names the partition
    /// below, and that lies in the folder of its disk.
    pub fn booted_from() -> Result<Disk, BlockError> {
        let find = || -> Option<Disk> {
            let root = rustix::fs::stat("/").ok()?;
            let (major, minor) = (rustix::fs::major(root.st_dev), rustix::fs::minor(root.st_dev));
            let slaves = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/slaves"));
            let partition = fs::read_dir(slaves).ok()?.flatten().next()?.path();
            let disk = fs::canonicalize(partition).ok()?.parent()?.file_name()?.to_owned();
            Some(Disk { path: Path::new("/dev").join(disk) })
        };
        find().ok_or(BlockError::NoBootDisk)
    }

    /// Its node in /dev.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node of a partition: `vda9`, but `nvme0n1p9`.
    pub fn partition(&self, number: u32) -> PathBuf {
        let name = self.path.to_string_lossy();
        let p = if name.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
        PathBuf::from(format!("{name}{p}{number}"))
    }

    /// Its partition table: the first, or if that is broken the one at the end.
    pub fn table(&self) -> Result<Gpt, BlockError> {
        let fail = |doing| move |source| self.io(doing, source);
        let file = File::open(&self.path).map_err(fail("open"))?;
        let size = size(&file).map_err(fail("measure"))?;
        let read = |at: u64, length: Bytes| -> Result<Vec<u8>, BlockError> {
            let mut bytes = vec![0; usize::try_from(length.0).unwrap_or_default()];
            file.read_exact_at(&mut bytes, at).map_err(fail("read"))?;
            Ok(bytes)
        };
        let head = read(0, HEAD)?;
        match Gpt::parse(&head, size) {
            Ok(table) => Ok(table),
            Err(source) => {
                let end = size.0 / 512 * 512;
                let tail = read(end.saturating_sub(TAIL.0), TAIL)?;
                Gpt::parse_backup(&tail, size)
                    .map(|table| table.guarded_by(Mbr::parse(&head)))
                    .map_err(|_| BlockError::Table { path: self.path.clone(), source })
            }
        }
    }

    /// Writes a table, each extent durable before the next begins.
    pub fn write_table(&self, table: &Gpt) -> Result<(), BlockError> {
        let write = || -> io::Result<()> {
            let file = OpenOptions::new().write(true).open(&self.path)?;
            for extent in table.to_extents() {
                file.write_all_at(&extent.bytes, extent.at)?;
                file.sync_all()?;
            }
            Ok(())
        };
        write().map_err(|source| self.io("write the partition table of", source))
    }

    /// Makes the kernel know a partition that is in the table; others may be in use meanwhile. One
    /// that it knows already is left as it is.
    pub fn announce(&self, number: u32, first: Sector512, length: Bytes) -> Result<(), BlockError> {
        if self.partition(number).exists() {
            return Ok(());
        }
        let add = || -> io::Result<()> {
            add_partition(&File::open(&self.path)?, number, first.bytes(), length)
        };
        add().map_err(|source| self.io("announce a new partition of", source))
    }

    fn io(&self, doing: &'static str, source: io::Error) -> BlockError {
        BlockError::Io { doing, path: self.path.clone(), source }
    }
}

/// A stretch of bytes on a device that looks empty if all these are zero.
const EDGE: u64 = 8 << 20;

/// The first 128 KiB of a device, and whether its first and last 8 MiB are all zero.
pub fn look(path: &Path) -> Result<(Vec<u8>, bool), BlockError> {
    let read = || -> io::Result<(Vec<u8>, bool)> {
        let file = File::open(path)?;
        let size = size(&file)?.0;
        let mut head = vec![0; usize::try_from(size.min(128 << 10)).unwrap_or_default()];
        file.read_exact_at(&mut head, 0)?;
        let blank = is_zero(&file, 0, size.min(EDGE))?
            && is_zero(&file, size.saturating_sub(EDGE), size.min(EDGE))?;
        Ok((head, blank))
    };
    read().map_err(|source| BlockError::Io { doing: "read", path: path.to_owned(), source })
}

fn is_zero(file: &File, from: u64, length: u64) -> io::Result<bool> {
    let mut buffer = vec![0_u8; 1 << 20];
    let mut done = 0;
    while done < length {
        let part = usize::try_from((length - done).min(1 << 20)).unwrap_or(1 << 20);
        file.read_exact_at(&mut buffer[..part], from + done)?;
        if buffer[..part].iter().any(|b| *b != 0) {
            return Ok(false);
        }
        done += part as u64;
    }
    Ok(true)
}

/// Makes an ext4 file system named P3, with room for encrypted folders (fscrypt), and makes it
/// durable.
pub fn make_ext4(path: &Path) -> Result<(), BlockError> {
    let device = path.to_string_lossy();
    // The first 8 MiB are written zero first: what a half-made file system left there is gone.
    let args = ["-q", "-F", "-t", "ext4", "-O", "encrypt", "-m", "1", "-L", "P3", &device];
    process::run(Tool::Mke2fs, &args)?;
    let sync = File::open(path).and_then(|file| file.sync_all());
    sync.map_err(|source| BlockError::Io { doing: "sync", path: path.to_owned(), source })
}

/// Checks an ext4 file system and repairs what needs no decision. Returns what was repaired, in
/// e2fsck's words; empty if it was clean.
pub fn check_ext4(path: &Path) -> Result<String, BlockError> {
    let device = path.to_string_lossy();
    let args = ["-p", &device];
    let out = Tool::E2fsck
        .command()
        .args(args)
        .output()
        .map_err(|source| ToolError::Spawn { tool: Tool::E2fsck, source })?;
    // e2fsck(8): 1 is "errors corrected", 2 "corrected, reboot" (only for a mounted one).
    match out.status.code() {
        Some(0) => Ok(String::new()),
        Some(1 | 2) => Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned()),
        _ => {
            // It tells on stdout.
            let (status, stderr) = (out.status, out.stdout);
            let out = std::process::Output { status, stdout: Vec::new(), stderr };
            process::finish(Tool::E2fsck, &args, out)?;
            Ok(String::new())
        }
    }
}

/// Mounts an ext4 file system.
pub fn mount_ext4(device: &Path, at: &Path) -> Result<(), BlockError> {
    let flags = MountFlags::NOATIME | MountFlags::NODEV;
    mount(device, at, "ext4", flags, None).map_err(|errno| BlockError::Io {
        doing: "mount",
        path: device.to_owned(),
        source: errno.into(),
    })
}

/// The size of a device or a file. Both can be measured by seeking.
pub(crate) fn size(mut file: &File) -> io::Result<Bytes> {
    use std::io::Seek;
    file.seek(io::SeekFrom::End(0)).map(Bytes)
}

/// `struct blkpg_partition` (linux/blkpg.h).
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: i32,
    names: [u8; 128],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct BlkpgArg {
    op: i32,
    flags: i32,
    length: i32,
    data: *mut BlkpgPartition,
}

fn add_partition(disk: &File, number: u32, start: Bytes, length: Bytes) -> io::Result<()> {
    const BLKPG: rustix::ioctl::Opcode = rustix::ioctl::opcode::none(0x12, 105);
    const ADD: i32 = 1;
    let number_or = |n: u64| i64::try_from(n).map_err(|_| io::Error::other("beyond any disk"));
    let mut partition = BlkpgPartition {
        start: number_or(start.0)?,
        length: number_or(length.0)?,
        number: i32::try_from(number).map_err(|_| io::Error::other("no partition number"))?,
        names: [0; 128],
    };
    let size = i32::try_from(size_of::<BlkpgPartition>()).unwrap_or_default();
    let mut arg = BlkpgArg { op: ADD, flags: 0, length: size, data: &raw mut partition };
    debug_assert!(disk.as_raw_fd() >= 0);
    // SAFETY: BLKPG reads a blkpg_ioctl_arg and the blkpg_partition it points to; both live until
    // the call returns.
    #[expect(unsafe_code, reason = "partitions are announced by ioctl")]
    unsafe { rustix::ioctl::ioctl(disk, rustix::ioctl::Updater::<BLKPG, BlkpgArg>::new(&mut arg)) }
        .map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use formats::layout::{DISK, Role};

    use super::*;

    fn file(dir: &tempfile::TempDir, size: Bytes) -> PathBuf {
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(size.0).unwrap();
        path
    }

    #[test]
    fn a_broken_first_table_is_read_from_the_end_of_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::at(file(&dir, Bytes::mib(64)));
        let mut table = Gpt::new(DISK, Bytes::mib(64)).unwrap();
        table.add_in_largest_gap(2, Role::ImgA.partition(), Some(Bytes::mib(8))).unwrap();
        disk.write_table(&table).unwrap();
        assert_eq!(disk.table().unwrap().partitions(), table.partitions());

        let raw = OpenOptions::new().write(true).open(disk.path()).unwrap();
        raw.write_all_at(&[0xff; 512], 512).unwrap();
        assert_eq!(disk.table().unwrap().partitions(), table.partitions());
    }

    #[test]
    fn partitions_are_named_as_the_kernel_names_them() {
        assert_eq!(Disk::at("/dev/vda").partition(9), Path::new("/dev/vda9"));
        assert_eq!(Disk::at("/dev/nvme0n1").partition(9), Path::new("/dev/nvme0n1p9"));
    }

    #[test]
    fn a_made_file_system_is_clean_and_a_damaged_one_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, Bytes::mib(64));
        assert!(look(&path).unwrap().1, "blank");
        make_ext4(&path).unwrap();
        assert!(!look(&path).unwrap().1, "not blank any more");
        assert_eq!(check_ext4(&path).unwrap(), "");
        // Both superblock and group descriptors of the first group gone: not for e2fsck -p alone.
        let raw = OpenOptions::new().write(true).open(&path).unwrap();
        raw.write_all_at(&[0xff; 8192], 1024).unwrap();
        assert!(check_ext4(&path).is_err());
    }
}
