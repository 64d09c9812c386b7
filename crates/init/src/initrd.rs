//! The initrd's part: find the slot, check it, become its `/sbin/eve-init`.

use std::convert::Infallible;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use model::installer::{ISO_SYSTEM, MEDIUM};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};

use crate::cmdline::{self, Boot, INSTALLER};
use crate::failure::{Doing, Failure};
use crate::partition::{self, Partition};
use crate::{console, medium, modules, mounts, verity};

/// Disks on slow buses take seconds; a disk that takes longer is not there.
const DISK_PATIENCE: Duration = Duration::from_secs(30);
const NEW_ROOT: &str = "/root";
const NEXT: &str = "/sbin/eve-init";

/// Returns only if the node cannot boot; the kernel then panics, which is how it stops.
pub(crate) fn run() -> ExitCode {
    let Err(why) = boot();
    console::alarm(&why);
    console::alarm("this slot cannot boot; the node stops here");
    ExitCode::FAILURE
}

/// Returns only what went wrong.
fn boot() -> Result<Infallible, Failure> {
    mounts::first()?;
    console::unlimited();
    console::milestone("initrd");
    let line = fs::read_to_string("/proc/cmdline").doing(|| "read /proc/cmdline".to_owned())?;
    let boot = cmdline::parse(&line)
        .map_err(|why| Failure::new("boot", format!("the kernel command line {why}")))?;

    let failures = modules::load_list(Path::new(crate::INITRD_MARK), Path::new("/"))?;
    failures.iter().for_each(console::warn);

    // At least one; or the failure to find any.
    let sys = Path::new("/sys");
    let found = match boot.slot.as_str() {
        INSTALLER => medium::wait_for(sys, DISK_PATIENCE)?,
        slot => partition::wait_for(sys, slot, DISK_PATIENCE)?,
    };
    // A second disk may hold a slot of this name, an installer's for one: the root hash knows ours.
    let (last, others) =
        found.split_last().ok_or_else(|| Failure::new("boot", "there is no disk"))?;
    for partition in others {
        match open_root(&boot, partition) {
            Ok(()) => return switch_root(),
            Err(why) => console::warn(why),
        }
    }
    open_root(&boot, last)?;
    switch_root()
}

/// Mounts the slot's root file system, or says what is wrong with it and leaves nothing of it: the
/// next partition is tried under the same names.
fn open_root(boot: &Boot, partition: &Partition) -> Result<(), Failure> {
    let (node, slot) = (partition.node(), &boot.slot);
    let opened = verity::open(&node, &boot.verity)
        .and_then(|device| check_root(boot, &node, &device))
        // From here on nobody stands beside each read: a bad block stops the node.
        .and_then(|()| verity::harden(&node, &boot.verity));
    if opened.is_err() {
        // Whatever of it was not there yet is no matter.
        let _ = unmount(NEW_ROOT, UnmountFlags::empty());
        let _ = verity::close();
    } else {
        console::milestone(&format!("root file system of {slot} on {} checked", node.display()));
    }
    opened
}

/// Mounts the root file system and reads what must be right in it.
fn check_root(boot: &Boot, node: &Path, device: &Path) -> Result<(), Failure> {
    let checked = read_first(device)
        .and_then(|first| {
            let kind = file_system(&first);
            mount(device, NEW_ROOT, kind, MountFlags::RDONLY, None).map_err(Into::into)
        })
        // The next program is read whole, so that it is we who meet a bad block in it.
        .and_then(|()| read_all(&Path::new(NEW_ROOT).join(NEXT.trim_start_matches('/'))));
    let (slot, node) = (&boot.slot, node.display());
    match checked {
        Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
            let root = &boot.verity.root;
            let why = format!(
                "it is corrupt: blocks of {node} do not match the root hash {root}; write the image anew"
            );
            Err(Failure::new(format!("use the root file system of {slot}"), why))
        }
        other => other.doing(|| format!("use the root file system of {slot} on {node}")),
    }
}

fn read_first(device: &Path) -> io::Result<[u8; 4096]> {
    let mut first = [0; 4096];
    File::open(device)?.read_exact(&mut first).map(|()| first)
}

/// What the root file system is, from its first bytes: an ext4 where its mark is and squashfs has none.
fn file_system(first: &[u8; 4096]) -> &'static CStr {
    const EXT4_MARK: [u8; 2] = [0x53, 0xef];
    let is_ext4 = first[1080..1082] == EXT4_MARK && !first.starts_with(b"hsqs");
    if is_ext4 { c"ext4" } else { c"squashfs" }
}

fn read_all(path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Becomes the next program. Returns only on failure.
fn switch_root() -> Result<Infallible, Failure> {
    for folder in ["dev", "proc", "sys"] {
        let to = format!("{NEW_ROOT}/{folder}");
        mount_move(format!("/{folder}"), &to).doing(|| format!("move /{folder} to {to}"))?;
    }
    // What lies on it beside the system is for the installer to read.
    if Path::new(medium::ISO_AT).join(ISO_SYSTEM).exists() {
        let to = format!("{NEW_ROOT}{MEDIUM}");
        mount_move(medium::ISO_AT, &to).doing(|| format!("move {} to {to}", medium::ISO_AT))?;
    }
    forget_initrd();
    rustix::process::chdir(NEW_ROOT).doing(|| format!("enter {NEW_ROOT}"))?;
    mount_move(".", "/").doing(|| "move the new root to /".to_owned())?;
    rustix::process::chroot(".").doing(|| "make the new root the root".to_owned())?;
    rustix::process::chdir("/").doing(|| "enter the new root".to_owned())?;
    #[expect(
        clippy::disallowed_methods,
        reason = "init may not use host: it has a door of its own"
    )]
    let error = Command::new(NEXT).exec();
    Err(error).doing(|| format!("start {NEXT}"))
}

/// Frees the memory of what the initrd brought. Its only program runs on, without a name.
fn forget_initrd() {
    let _ = fs::remove_file(crate::INITRD_MARK);
    let _ = fs::remove_file("/init");
    let _ = fs::remove_dir_all("/lib");
    let _ = fs::remove_dir_all("/usr");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_file_system_is_told_by_its_marks() {
        let mut first = [0; 4096];
        assert_eq!(file_system(&first), c"squashfs", "the kernel says what is wrong with it");
        first[1080..1082].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(file_system(&first), c"ext4");
        first[..4].copy_from_slice(b"hsqs");
        assert_eq!(file_system(&first), c"squashfs", "the mark of an ext4 is chance in there");
    }
}
