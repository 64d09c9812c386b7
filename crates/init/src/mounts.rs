//! The file systems that are there before any service.

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use crate::console;
use crate::failure::{Doing, Failure};

/// What is mounted, where, how, and whether the node can do without.
struct Mount {
    kind: &'static str,
    at: &'static str,
    flags: MountFlags,
    options: &'static str,
    must: bool,
}

const fn entry(
    kind: &'static str,
    at: &'static str,
    flags: MountFlags,
    options: &'static str,
    must: bool,
) -> Mount {
    Mount { kind, at, flags, options, must }
}

const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
const DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);
const MEMORY: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Needed to look around.
const FIRST: &[Mount] = &[
    entry("proc", "/proc", PLAIN, "", true),
    entry("sysfs", "/sys", PLAIN, "", true),
    entry("devtmpfs", "/dev", DEVICES, "mode=0755", true),
];

/// Needed by services and apps. The tmpfs sizes are bounds, not reservations.
const REST: &[Mount] = &[
    entry("devpts", "/dev/pts", DEVICES, "mode=0620,gid=5,ptmxmode=0666", true),
    entry("tmpfs", "/dev/shm", MEMORY, "mode=1777,size=64m", true),
    entry("mqueue", "/dev/mqueue", PLAIN, "", false),
    // Bundles of apps are programs' folders: /run may hold what is executed.
    entry("tmpfs", "/run", MEMORY, "mode=0755,size=64m", true),
    entry("tmpfs", "/tmp", MEMORY, "mode=1777,size=64m", true),
    entry("cgroup2", "/sys/fs/cgroup", PLAIN, "nsdelegate,memory_recursiveprot", true),
    entry("securityfs", "/sys/kernel/security", PLAIN, "", false),
    entry("efivarfs", "/sys/firmware/efi/efivars", PLAIN, "", false),
    entry("pstore", "/sys/fs/pstore", PLAIN, "", false),
];

/// Mounts /proc, /sys and /dev, unless the initrd has left them to us.
pub(crate) fn first() -> Result<(), Failure> {
    if Path::new("/proc/self").exists() {
        return Ok(());
    }
    FIRST.iter().try_for_each(one)
}

/// Mounts everything that is not on a disk.
pub(crate) fn rest() -> Result<(), Failure> {
    first()?;
    // What services mount (/persist, /run/netns) is seen by all of them.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)
        .doing(|| "share mounts under /".to_owned())?;
    REST.iter().try_for_each(one)
}

fn one(m: &Mount) -> Result<(), Failure> {
    // /dev/pts and the like lie in file systems that were just mounted.
    if !Path::new(m.at).exists() {
        let _ = fs::create_dir_all(m.at);
    }
    let options = std::ffi::CString::new(m.options).unwrap_or_default();
    let done = match mount(m.kind, m.at, m.kind, m.flags, Some(options.as_c_str())) {
        // Mounted by the initrd, or by the kernel itself.
        Err(Errno::BUSY) => Ok(()),
        other => other.map_err(io::Error::from),
    };
    match done.doing(|| format!("mount {} at {}", m.kind, m.at)) {
        Err(failure) if m.must => Err(failure),
        Err(failure) => {
            // No such hardware or no such kernel: not worth an operator's time.
            if !matches!(failure.io().raw_os_error(), Some(2 | 19)) {
                console::note(failure);
            }
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
