//! What processes, memory and disks are used for, as the kernel counts.

use std::fs;
use std::io;
use std::path::Path;

use model::Bytes;

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
}
