//! The CONFIG partition: copied into a small tmpfs at /config, which is then read-only. The partition
//! itself is never written and not kept mounted.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use model::services::KEY_GROUP;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::failure::{Doing, Failure};
use crate::partition;

const AT: &str = "/config";
const SOURCE: &str = "/run/config-partition";
/// The partition has 5 MiB; what is larger is not ours.
const TOTAL_MAX: u64 = 8 << 20;
const DEPTH_MAX: u32 = 4;

/// Fills /config. Without a CONFIG partition it stays empty: the node then waits for one to be
/// written, and says so in its onboarding status.
pub(crate) fn load() -> Result<(), Failure> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", AT, "tmpfs", flags, c"mode=0755,size=10m")
        .doing(|| format!("mount tmpfs at {AT}"))?;
    let copied = copy_partition(flags);
    let closed =
        mount_remount(AT, flags | MountFlags::RDONLY, c"").doing(|| format!("make {AT} read-only"));
    copied.and(closed)
}

fn copy_partition(flags: MountFlags) -> Result<(), Failure> {
    let sys = Path::new("/sys");
    let found = partition::wait_for(sys, "CONFIG", Duration::from_secs(5))?;
    // Of several disks, the one we booted from.
    let ours = partition::boot_disk(sys);
    let chosen = found.iter().find(|p| Some(&p.disk) == ours.as_ref()).unwrap_or(&found[0]);
    let node = chosen.node();
    fs::create_dir_all(SOURCE).doing(|| format!("make {SOURCE}"))?;
    mount(&node, SOURCE, "vfat", flags | MountFlags::RDONLY, c"")
        .doing(|| format!("mount {} (CONFIG)", node.display()))?;
    let mut room = TOTAL_MAX;
    let copied = copy(Path::new(SOURCE), Path::new(AT), DEPTH_MAX, &mut room)
        .doing(|| format!("copy {} (CONFIG) to {AT}", node.display()));
    let _ = unmount(SOURCE, UnmountFlags::empty());
    let _ = fs::remove_dir(SOURCE);
    copied
}

/// Files and folders, nothing else. Keys are for those who may use keys.
fn copy(from: &Path, to: &Path, depth: u32, room: &mut u64) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() && depth > 0 {
            fs::create_dir(&target)?;
            copy(&source, &target, depth - 1, room)?;
        } else if kind.is_file() {
            let mut bytes = Vec::new();
            File::open(&source)?.take(*room + 1).read_to_end(&mut bytes)?;
            *room = room
                .checked_sub(bytes.len() as u64)
                .ok_or_else(|| io::Error::other("more than 8 MiB in it"))?;
            let mut file = File::create(&target)?;
            file.write_all(&bytes)?;
            let secret = entry.file_name().to_string_lossy().ends_with("key.pem");
            if secret {
                chown(&target, Some(0), Some(KEY_GROUP))?;
            }
            let mode = if secret { 0o640 } else { 0o644 };
            file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path, bytes: &[u8]) {
        File::create(path).unwrap().write_all(bytes).unwrap();
    }

    #[test]
    fn files_are_copied_and_only_so_many_bytes() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        put(&from.path().join("server"), b"controller.example:443\n");
        fs::create_dir(from.path().join("GlobalConfig")).unwrap();
        put(&from.path().join("GlobalConfig/global.json"), b"{}");
        let mut room = 100;
        copy(from.path(), to.path(), 1, &mut room).unwrap();
        assert_eq!(fs::read(to.path().join("GlobalConfig/global.json")).unwrap(), b"{}");
        assert_eq!(room, 100 - 25);

        let again = tempfile::tempdir().unwrap();
        assert!(copy(from.path(), again.path(), 1, &mut 24).is_err());
    }
}
