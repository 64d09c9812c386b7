//! The disks of this machine as sysfs shows them, who uses them, and which one this system was booted
//! from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use model::Bytes;
use model::installer::Transport;

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Seen {
    /// As the kernel calls it: `sda`.
    pub name: String,
    /// Its size.
    pub size: Bytes,
    /// Bytes of a logical sector.
    pub sector: u32,
    /// How it is attached.
    pub transport: Transport,
    /// What its maker calls it; may be empty.
    pub model: String,
    /// Its serial number; may be empty.
    pub serial: String,
    /// Whether it can be written to at all.
    pub read_only: bool,
    /// Who uses it or a partition of it, in words. `None`: nobody.
    pub in_use: Option<String>,
}

impl Seen {
    /// Its node in /dev.
    pub fn path(&self) -> PathBuf {
        // sysfs writes a slash in a name as an exclamation mark.
        Path::new("/dev").join(self.name.replace('!', "/"))
    }
}

/// Every disk with a size, by name. Optical drives and floppies are none.
pub fn all() -> Vec<Seen> {
    under(Path::new("/"))
}

/// The same of the machine whose root is at `root`.
pub(crate) fn under(root: &Path) -> Vec<Seen> {
    read(
        &root.join("sys"),
        &read_text(&root.join("proc/self/mountinfo")),
        &read_text(&root.join("proc/swaps")),
    )
}

fn read(sys: &Path, mounts: &str, swaps: &str) -> Vec<Seen> {
    let mounted = mounted(mounts);
    let mut found: Vec<Seen> = fs::read_dir(sys.join("block"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| one(&entry.path(), &mounted, swaps))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn one(link: &Path, mounted: &BTreeMap<String, String>, swaps: &str) -> Option<Seen> {
    let folder = fs::canonicalize(link).ok()?;
    let name = folder.file_name()?.to_str()?.to_owned();
    let number = |file: &str| read_text(&folder.join(file)).trim().parse::<u64>().ok();
    // Always in units of 512 bytes, whatever the disk's sectors are.
    let size = Bytes(number("size")?.checked_mul(512)?);
    let is_other = ["sr", "fd", "dm-", "md"].iter().any(|kind| {
        name.strip_prefix(kind).is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
    });
    if size.0 == 0 || is_other {
        return None;
    }
    let word = |file: &str| read_text(&folder.join(file)).trim().to_owned();
    Some(Seen {
        transport: transport(&folder.to_string_lossy()),
        sector: number("queue/logical_block_size").and_then(|n| n.try_into().ok()).unwrap_or(512),
        model: word("device/model"),
        serial: [word("device/serial"), word("serial")].concat(),
        read_only: number("ro") == Some(1),
        in_use: user(&folder, &name, mounted, swaps),
        name,
        size,
    })
}

/// By the way that sysfs leads to it.
fn transport(path: &str) -> Transport {
    for (part, transport) in [
        ("/devices/virtual/", Transport::Virtual),
        ("/usb", Transport::Usb),
        ("/nvme/", Transport::Nvme),
        ("/mmc_host/", Transport::Mmc),
        ("/virtio", Transport::Virtio),
    ] {
        if path.contains(part) {
            return transport;
        }
    }
    Transport::Sata
}

/// The first use of a disk or of a partition of it.
fn user(
    folder: &Path,
    name: &str,
    mounted: &BTreeMap<String, String>,
    swaps: &str,
) -> Option<String> {
    let below = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let partitions = below.filter(|path| path.join("partition").exists());
    let mut all: Vec<PathBuf> = std::iter::once(folder.to_owned()).chain(partitions).collect();
    all.sort();
    all.iter().find_map(|part| {
        let own = part.file_name()?.to_string_lossy();
        if let Some(at) = mounted.get(read_text(&part.join("dev")).trim()) {
            return Some(format!("{own} is mounted at {at}"));
        }
        let swap = format!("/dev/{own}");
        if swaps.lines().any(|line| line.split_whitespace().next() == Some(&swap)) {
            return Some(format!("{own} is swap space"));
        }
        let mut holders = fs::read_dir(part.join("holders")).into_iter().flatten().flatten();
        let holder = holders.next()?.file_name();
        Some(format!("{own} of {name} is part of {}", holder.to_string_lossy()))
    })
}

/// Mount points by device number, `8:1`.
fn mounted(mountinfo: &str) -> BTreeMap<String, String> {
    // proc_pid_mountinfo(5): ID, parent, major:minor, root, mount point, …
    let row = |line: &str| {
        let mut words = line.split(' ').skip(2);
        let device = words.next()?.to_owned();
        Some((device, words.nth(1)?.to_owned()))
    };
    mountinfo.lines().filter_map(row).collect()
}

/// What this system was booted from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Medium {
    /// A disk with partitions, by its name.
    Disk(String),
    /// A file system without partitions: an ISO on a CD or a stick, by the name of that, mounted
    /// where [`model::installer::MEDIUM`] says.
    Iso(String),
}

impl Medium {
    /// Its device's name.
    pub fn name(&self) -> &str {
        match self {
            Medium::Disk(name) | Medium::Iso(name) => name,
        }
    }
}

/// What this system was booted from. `None`: nothing says so.
pub fn medium() -> Option<Medium> {
    let mounts = read_text(Path::new("/proc/self/mounts"));
    iso(&mounts).map(Medium::Iso).or_else(|| {
        let disk = crate::block::Disk::booted_from().ok()?;
        Some(Medium::Disk(disk.path().file_name()?.to_string_lossy().into_owned()))
    })
}

fn iso(mounts: &str) -> Option<String> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (device, at, kind) = (words.next()?, words.next()?, words.next()?);
        let ours = at == model::installer::MEDIUM && kind == "iso9660";
        ours.then(|| device.strip_prefix("/dev/").unwrap_or(device).to_owned())
    })
}

fn read_text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sysfs of disks, given as paths below /sys/devices with the files in them.
    fn sysfs(disks: &[(&str, &[(&str, &str)])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("block")).unwrap();
        for (path, files) in disks {
            let real = dir.path().join("devices").join(path);
            fs::create_dir_all(&real).unwrap();
            for (name, text) in *files {
                let file = real.join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                store::save(
                    file.parent().unwrap(),
                    file.file_name().unwrap().to_str().unwrap(),
                    text.as_bytes(),
                )
                .unwrap();
            }
            let name = real.file_name().unwrap();
            std::os::unix::fs::symlink(&real, dir.path().join("block").join(name)).unwrap();
        }
        dir
    }

    const SIZE: (&str, &str) = ("size", "2048\n");

    #[test]
    fn disks_are_told_with_the_way_they_are_attached() {
        let sys = sysfs(&[
            ("pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda", &[SIZE]),
            ("pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host2/block/sdb", &[SIZE, ("ro", "1\n")]),
            (
                "pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1",
                &[SIZE, ("queue/logical_block_size", "4096\n")],
            ),
            ("pci0000:00/0000:00:05.0/virtio2/block/vda", &[SIZE]),
            ("virtual/block/loop0", &[SIZE]),
            ("virtual/block/loop1", &[("size", "0\n")]),
            ("pci0000:00/0000:00:1f.2/ata2/host1/block/sr0", &[SIZE]),
        ]);
        let seen = read(sys.path(), "", "");
        let told: Vec<_> =
            seen.iter().map(|d| (d.name.as_str(), d.transport, d.sector, d.read_only)).collect();
        let want = [
            ("loop0", Transport::Virtual, 512, false),
            ("nvme0n1", Transport::Nvme, 4096, false),
            ("sda", Transport::Sata, 512, false),
            ("sdb", Transport::Usb, 512, true),
            ("vda", Transport::Virtio, 512, false),
        ];
        assert_eq!(told, want);
        assert_eq!(seen[0].size, Bytes::mib(1));
    }

    #[test]
    fn whoever_uses_a_disk_is_named() {
        let (dev, partition) = (("dev", "8:0\n"), ("sda1/partition", "1\n"));
        let files = [SIZE, dev, partition, ("sda1/dev", "8:1\n")];
        let sys = sysfs(&[("pci/ata1/block/sda", &files)]);
        let user = |mounts: &str, swaps: &str| read(sys.path(), mounts, swaps)[0].in_use.clone();
        assert_eq!(user("", ""), None);
        let mounts = "36 35 8:1 / /mnt/x rw - ext4 /dev/sda1 rw\n";
        assert_eq!(user(mounts, "").as_deref(), Some("sda1 is mounted at /mnt/x"));
        let swaps = "Filename Type\n/dev/sda1 partition 1 0 -2\n";
        assert_eq!(user("", swaps).as_deref(), Some("sda1 is swap space"));

        let held = [SIZE, partition, ("sda1/holders/dm-0/x", "")];
        let sys = sysfs(&[("pci/ata1/block/sda", &held)]);
        let user = read(sys.path(), "", "")[0].in_use.clone();
        assert_eq!(user.as_deref(), Some("sda1 of sda is part of dm-0"));
    }

    #[test]
    fn an_iso_that_was_booted_is_where_init_mounted_it() {
        let mounts = "proc /proc proc rw 0 0\n/dev/sr0 /mnt iso9660 ro,relatime 0 0\n";
        assert_eq!(iso(mounts).as_deref(), Some("sr0"));
        assert_eq!(iso("/dev/sr0 /media iso9660 ro 0 0\n"), None);
    }
}
