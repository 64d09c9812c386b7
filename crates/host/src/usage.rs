//! What processes, memory and disks are used for, as the kernel counts.

use std::fs;
use std::io;
use std::path::Path;

use std::collections::BTreeMap;

use model::Bytes;
use model::reported::{DiskTraffic, ProcessUse, Traffic, Way};

/// Where PID 1 puts each service.
const SERVICES: &str = "/sys/fs/cgroup/eve/services";

/// The processes of a service, the oldest first. Empty: it does not run.
pub fn processes(service: &str) -> Vec<u32> {
    let list = Path::new(SERVICES).join(service).join("cgroup.procs");
    let text = fs::read_to_string(list).unwrap_or_default();
    let mut pids: Vec<u32> = text.lines().filter_map(|l| l.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// The proportional set size of a process: its own memory and its share of what it shares
/// (`/proc/<pid>/smaps_rollup`). Needs CAP_SYS_PTRACE for processes of others.
pub fn pss(pid: u32) -> io::Result<Bytes> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    field(&text, "Pss:").ok_or_else(|| io::Error::other("smaps_rollup has no Pss"))
}

/// All memory, and what is free for use (`/proc/meminfo`).
pub fn memory() -> io::Result<(Bytes, Bytes)> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let both = field(&text, "MemTotal:").zip(field(&text, "MemAvailable:"));
    both.ok_or_else(|| io::Error::other("meminfo has no MemTotal or MemAvailable"))
}

/// Processor time of everything since boot, in nanoseconds (the root cgroup's `cpu.stat`).
pub fn cpu_ns() -> io::Result<u64> {
    let text = fs::read_to_string("/sys/fs/cgroup/cpu.stat")?;
    let line = text.lines().find_map(|l| l.strip_prefix("usage_usec "));
    let usec: Option<u64> = line.and_then(|n| n.trim().parse().ok());
    usec.map(|n| n.saturating_mul(1000)).ok_or_else(|| io::Error::other("cpu.stat has no usage"))
}

/// Size of the file system at `path`, and what is used of it.
pub fn disk(path: &Path) -> io::Result<(Bytes, Bytes)> {
    let stat = rustix::fs::statvfs(path)?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    Ok((Bytes(stat.f_blocks * stat.f_frsize), Bytes(used * stat.f_frsize)))
}

/// What went through each interface since it is there (`/sys/class/net/*/statistics`).
pub fn traffic() -> BTreeMap<String, Traffic> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let one = |entry: fs::DirEntry| {
        let folder = entry.path().join("statistics");
        let way = |start: &str| {
            let count = |what: &str| {
                let text = fs::read_to_string(folder.join(format!("{start}_{what}")));
                text.ok().and_then(|t| t.trim().parse().ok()).unwrap_or_default()
            };
            Way {
                bytes: Bytes(count("bytes")),
                packets: count("packets"),
                errors: count("errors"),
                drops: count("dropped"),
            }
        };
        let name = entry.file_name().into_string().ok()?;
        folder.is_dir().then(|| (name, Traffic { received: way("rx"), sent: way("tx") }))
    };
    entries.filter_map(one).collect()
}

/// Every disk of the machine, those of memory and of files left out (`/proc/diskstats`).
pub fn disks() -> io::Result<Vec<DiskTraffic>> {
    let text = fs::read_to_string("/proc/diskstats")?;
    let hardware = |disk: &DiskTraffic| {
        let entry = Path::new("/sys/block").join(&disk.device);
        entry.join("device").exists()
    };
    Ok(text.lines().filter_map(disk_line).map(|(_, disk)| sized(disk)).filter(hardware).collect())
}

/// The device that holds the file system at `path`. `None`: the kernel does not count for it.
pub fn disk_of(path: &Path) -> Option<DiskTraffic> {
    let device = rustix::fs::stat(path).ok()?.st_dev;
    let number = (rustix::fs::major(device), rustix::fs::minor(device));
    let text = fs::read_to_string("/proc/diskstats").ok()?;
    let mut disks = text.lines().filter_map(disk_line);
    disks.find(|(at, _)| *at == number).map(|(_, disk)| sized(disk))
}

/// A line of `/proc/diskstats` (kernel's Documentation/admin-guide/iostats.rst): major and minor
/// number, name, reads, …, sectors read, …, writes, …, sectors written. A sector is 512 bytes.
fn disk_line(line: &str) -> Option<((u32, u32), DiskTraffic)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let count = |at: usize| words.get(at)?.parse::<u64>().ok();
    let number = (words.first()?.parse().ok()?, words.get(1)?.parse().ok()?);
    let disk = DiskTraffic {
        device: (*words.get(2)?).to_owned(),
        size: Bytes(0),
        reads: count(3)?,
        read: Bytes(count(5)?.saturating_mul(512)),
        writes: count(7)?,
        written: Bytes(count(9)?.saturating_mul(512)),
    };
    Some((number, disk))
}

fn sized(disk: DiskTraffic) -> DiskTraffic {
    let text = fs::read_to_string(format!("/sys/class/block/{}/size", disk.device));
    let sectors: u64 = text.ok().and_then(|t| t.trim().parse().ok()).unwrap_or_default();
    DiskTraffic { size: Bytes(sectors.saturating_mul(512)), ..disk }
}

/// What a process uses (`/proc/<pid>/stat`, proc_pid_stat(5)).
pub fn process(pid: u32) -> io::Result<ProcessUse> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    process_line(&text).ok_or_else(|| io::Error::other("its stat is not understood"))
}

/// Ticks of the clock in a second, as the kernel shows times to programs: the same on all machines
/// that a node runs on (USER_HZ).
const TICKS: u64 = 100;

fn process_line(text: &str) -> Option<ProcessUse> {
    // The name, in parentheses, may hold anything; what follows it is numbers, from field 3 on.
    let (_, rest) = text.rsplit_once(')')?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| words.get(number.checked_sub(3)?)?.parse::<u64>().ok();
    let ms = |number| Some(field(number)?.saturating_mul(1000 / TICKS));
    Some(ProcessUse {
        threads: u32::try_from(field(20)?).unwrap_or(u32::MAX),
        user_ms: ms(14)?,
        system_ms: ms(15)?,
        started_ms: ms(22)?,
        virtual_size: Bytes(field(23)?),
    })
}

/// What the files below a folder take of its disk. A file with several names counts once, other
/// file systems that are mounted there do not count, and what goes away meanwhile counts as nothing.
pub fn tree(folder: &Path) -> Bytes {
    use std::os::unix::fs::MetadataExt as _;
    let mut seen = std::collections::BTreeSet::new();
    let mut todo = vec![folder.to_owned()];
    let home = fs::symlink_metadata(folder).map(|m| m.dev()).ok();
    let mut all = 0u64;
    while let Some(path) = todo.pop() {
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        if Some(about.dev()) != home
            || (about.nlink() > 1 && !about.is_dir() && !seen.insert(about.ino()))
        {
            continue;
        }
        all = all.saturating_add(about.blocks().saturating_mul(512));
        if about.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            todo.extend(entries.map(|entry| entry.path()));
        }
    }
    Bytes(all)
}

/// `<name> <number> kB` of a table of the kernel.
fn field(text: &str, name: &str) -> Option<Bytes> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Bytes(kib.saturating_mul(1024)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_a_disk() {
        let (total, available) = memory().unwrap();
        assert!(total > available && available > Bytes(0));
        let (size, used) = disk(Path::new("/")).unwrap();
        assert!(size > used);
        assert!(pss(std::process::id()).unwrap() > Bytes::kib(100));
    }

    #[test]
    fn this_process_has_threads_and_an_interface_counts() {
        let own = process(std::process::id()).unwrap();
        assert!(own.threads > 0 && own.started_ms > 0 && own.virtual_size > Bytes::mib(1));
        assert!(traffic().contains_key("lo"));
        assert!(disks().unwrap().iter().all(|disk| !disk.device.is_empty()));
    }

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line = "   8       1 sda1 10 1 200 5 20 2 400 7 0 9 12 0 0 0 0 0 0";
        let (number, disk) = disk_line(line).unwrap();
        assert_eq!((number, disk.device.as_str()), ((8, 1), "sda1"));
        assert_eq!(
            (disk.reads, disk.read, disk.writes, disk.written),
            (10, Bytes(102_400), 20, Bytes(204_800))
        );
        assert_eq!(disk_line("8 1 sda1 10 1"), None);
        let line = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 250 50 0 0 20 0 3 0 1234 8192 1";
        let own = process_line(line).unwrap();
        assert_eq!((own.user_ms, own.system_ms, own.threads), (2500, 500, 3));
        assert_eq!((own.started_ms, own.virtual_size), (12_340, Bytes(8192)));
        assert_eq!(process_line("7 nothing"), None);
    }

    #[test]
    fn a_file_with_two_names_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let empty = tree(dir.path());
        fs::create_dir(dir.path().join("below")).unwrap();
        let file = dir.path().join("below/file");
        store::save(&dir.path().join("below"), "file", &[1; 100_000]).unwrap();
        let one = tree(dir.path());
        assert!(one.0 - empty.0 >= 100_000, "{one:?}");
        fs::hard_link(&file, dir.path().join("other")).unwrap();
        assert!(tree(dir.path()).0 - one.0 < 50_000);
        assert_eq!(tree(Path::new("/nonexistent")), Bytes(0));
    }
}
