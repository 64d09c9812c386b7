//! Where an installer runs from: a partition named INSTALLER, or the file `installer.img` in an ISO
//! on a CD or a stick, or in memory when it came over the network. The kernel reads the ISO; the file
//! becomes a loop device.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::installer::{ISO_IN_MEMORY, ISO_SYSTEM};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::cmdline::INSTALLER;
use crate::console;
use crate::failure::{Doing, Failure};
use crate::partition::{self, Partition};

/// Where the initrd mounts an ISO. Later it is at [`model::installer::MEDIUM`].
pub(crate) const ISO_AT: &str = "/iso";

/// The volume descriptor of an ISO (ECMA-119, 8.4), and what ours says in it.
const DESCRIPTOR_AT: u64 = 16 * 2048;
const MAGIC: &[u8] = b"CD001";
const VOLUME: std::ops::Range<usize> = 40..72;
const VOLUME_NAME: &[u8] = b"EVEISO";

/// Waits for either. A stick and a CD may both be there: the root hash knows ours.
pub(crate) fn wait_for(sys: &Path, patience: Duration) -> Result<Vec<Partition>, Failure> {
    let in_memory = Path::new(ISO_IN_MEMORY);
    if in_memory.exists() {
        let device = loop_device(in_memory).doing(|| format!("make a disk of {ISO_IN_MEMORY}"))?;
        return Ok(vec![attach(&device)?]);
    }
    let step = Duration::from_millis(200);
    let mut waited = Duration::ZERO;
    loop {
        let missing = match partition::wait_for(sys, INSTALLER, Duration::ZERO) {
            Ok(found) => return Ok(found),
            Err(missing) => missing,
        };
        for disk in disks(sys).into_iter().filter(|disk| is_ours(&Path::new("/dev").join(disk))) {
            match attach(&disk) {
                Ok(found) => return Ok(vec![found]),
                Err(why) => console::warn(why),
            }
        }
        if waited >= patience {
            return Err(missing);
        }
        std::thread::sleep(step);
        waited += step;
    }
}

/// Whole disks and drives, by name.
fn disks(sys: &Path) -> Vec<String> {
    let devices = fs::read_dir(sys.join("class/block")).into_iter().flatten().flatten();
    let is_disk = |path: PathBuf| {
        let uevent = fs::read_to_string(path.join("uevent")).unwrap_or_default();
        uevent.lines().any(|line| line == "DEVTYPE=disk") && !path.join("loop").exists()
    };
    let mut found: Vec<String> = devices
        .filter(|entry| is_disk(entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !["loop", "ram", "dm-"].iter().any(|kind| name.starts_with(kind)))
        .collect();
    found.sort();
    found
}

/// A drive without a medium answers with an error: it has none of ours.
fn is_ours(device: &Path) -> bool {
    let mut descriptor = [0; 2048];
    let read = File::open(device).and_then(|f| f.read_exact_at(&mut descriptor, DESCRIPTOR_AT));
    read.is_ok() && says_ours(&descriptor)
}

fn says_ours(descriptor: &[u8]) -> bool {
    let name = descriptor.get(VOLUME).unwrap_or_default().trim_ascii_end();
    descriptor.get(1..6) == Some(MAGIC) && name == VOLUME_NAME
}

/// Mounts the ISO and makes a loop device of the system in it.
fn attach(disk: &str) -> Result<Partition, Failure> {
    let device = Path::new("/dev").join(disk);
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    fs::create_dir_all(ISO_AT).doing(|| format!("make {ISO_AT}"))?;
    mount(&device, ISO_AT, "iso9660", flags, c"")
        .doing(|| format!("mount the ISO on {}", device.display()))?;
    let system = Path::new(ISO_AT).join(ISO_SYSTEM);
    let made = loop_device(&system).doing(|| format!("make a disk of {}", system.display()));
    match made {
        Ok(device) => Ok(Partition { disk: disk.to_owned(), device, name: INSTALLER.to_owned() }),
        Err(why) => {
            let _ = unmount(ISO_AT, UnmountFlags::empty());
            Err(why)
        }
    }
}

/// `struct loop_config` (linux/loop.h): file descriptor, block size, a `struct loop_info64` of 232
/// bytes, eight reserved words.
#[repr(C)]
struct LoopConfig {
    file: u32,
    block: u32,
    info: [u64; 29],
    reserved: [u64; 8],
}

/// The flags of a `loop_info64` stand at its byte 52, in the upper half of this word.
const FLAGS_WORD: usize = 6;
const READ_ONLY: u64 = 1;

/// A file as a block device, read-only; its name in /dev. The first that nobody has.
fn loop_device(file: &Path) -> io::Result<String> {
    use rustix::ioctl::{Opcode, Setter, ioctl};
    const CONFIGURE: Opcode = 0x4C0A;
    /// The kernel makes so many by itself.
    const LOOPS: u32 = 8;
    let file = File::open(file)?;
    for number in 0..LOOPS {
        let name = format!("loop{number}");
        let device = File::open(Path::new("/dev").join(&name))?;
        let mut config = LoopConfig {
            file: u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?,
            block: 0,
            info: [0; 29],
            reserved: [0; 8],
        };
        config.info[FLAGS_WORD] = READ_ONLY << 32;
        // SAFETY: LOOP_CONFIGURE reads a `struct loop_config`, which this is.
        #[expect(unsafe_code, reason = "loop devices are made by ioctl")]
        let made = unsafe { ioctl(&device, Setter::<CONFIGURE, LoopConfig>::new(config)) };
        match made {
            Ok(()) => return Ok(name),
            Err(Errno::BUSY) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::BUSY.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_iso_of_ours_is_taken() {
        let mut descriptor = [0; 2048];
        descriptor[1..6].copy_from_slice(MAGIC);
        descriptor[VOLUME].fill(b' ');
        assert!(!says_ours(&descriptor));
        descriptor[40..46].copy_from_slice(VOLUME_NAME);
        assert!(says_ours(&descriptor));
        descriptor[46] = b'X';
        assert!(!says_ours(&descriptor));
        assert!(!says_ours(&[]));
    }

    #[test]
    fn the_kernel_s_structure_has_this_size_and_its_flags_are_there() {
        assert_eq!(size_of::<LoopConfig>(), 304);
        // device, inode, rdevice, offset, sizelimit: 40 bytes; number, encrypt type and key size: 12.
        assert_eq!(FLAGS_WORD * 8 + 4, 40 + 12);
    }
}
