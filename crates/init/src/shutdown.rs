//! The orderly end: services in stages, then whatever still runs, then disks, then the machine.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use model::boot::{PowerKind, PowerRequest, REBOOT_REASON, reason_text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::system::{RebootCommand, reboot};

use crate::console;
use crate::node::Node;
use crate::power;
use crate::supervise::stop_stages;

/// Ends this boot. Returns only if the kernel refuses.
pub(crate) fn run(node: &mut Node, request: &PowerRequest) {
    let (reason, words) = (request.reason.name(), &request.words);
    console::milestone(&format!("going down ({:?}: {reason}: {words})", request.kind));
    node.watchdog.last_feed();
    // Before anything else: if the rest hangs, the next boot still knows why.
    if let Err(error) = record(request) {
        console::warn(format_args!("the reason is not recorded: {error}"));
    }
    power::announce(request);
    for (services, patience) in stop_stages(model::services::ALL) {
        let pids: Vec<i32> = services.iter().filter_map(|s| node.table.pid(*s)).collect();
        stop(node, &pids, patience);
    }
    everyone(node);
    console::milestone("services stopped");
    leave_disks();
    console::milestone("disks left");
    let command = match request.kind {
        PowerKind::Reboot => RebootCommand::Restart,
        PowerKind::PowerOff => RebootCommand::PowerOff,
    };
    if let Err(error) = reboot(command) {
        console::alarm(format_args!("the kernel refuses to {:?}: {error}", request.kind));
    }
}

/// Asks these processes to end, and ends those that do not.
fn stop(node: &mut Node, pids: &[i32], patience: Duration) {
    let signal = |pids: &[i32], which| {
        for pid in pids {
            let _ = kill(Pid::from_raw(*pid), which);
        }
    };
    signal(pids, Signal::SIGTERM);
    let mut left = node.wait_until_gone(pids, patience);
    if !left.is_empty() {
        for pid in &left {
            let name = node.table.service(*pid).map_or("a process", |s| s.name());
            console::warn(format_args!("{name} did not end in time and is killed"));
        }
        signal(&left, Signal::SIGKILL);
        left = node.wait_until_gone(&left, Duration::from_secs(2));
    }
    for pid in left {
        console::warn(format_args!("process {pid} does not end even when killed"));
    }
}

/// Ends all other processes: what services left behind, containers first of all.
fn everyone(node: &mut Node) {
    for (signal, patience) in [(Signal::SIGTERM, 2), (Signal::SIGKILL, 2)] {
        if !others_run() {
            return;
        }
        // -1: every process but this one.
        let _ = kill(Pid::from_raw(-1), signal);
        for _ in 0..patience * 20 {
            node.reap();
            if !others_run() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Whether there is any other program. The kernel's own threads and the dead have no command line.
fn others_run() -> bool {
    fs::read_dir("/proc").into_iter().flatten().flatten().any(|entry| {
        let name = entry.file_name();
        let other = name.to_str().and_then(|n| n.parse::<u32>().ok()).is_some_and(|pid| pid != 1);
        other && fs::read(entry.path().join("cmdline")).is_ok_and(|line| !line.is_empty())
    })
}

/// Tells the next boot why it happened. Whole or not at all.
fn record(request: &PowerRequest) -> io::Result<()> {
    let folder = Path::new("/persist/health");
    if !folder.exists() {
        return Err(io::Error::other("/persist is not there"));
    }
    let new = folder.join(format!(".{REBOOT_REASON}.new"));
    let mut file = File::create(&new)?;
    file.write_all(reason_text(request.reason, &request.words).as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, folder.join(REBOOT_REASON))?;
    File::open(folder)?.sync_all()
}

/// Unmounts what is on disks, innermost first; what is still busy becomes read-only.
fn leave_disks() {
    rustix::fs::sync();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for at in on_disks(&mounts) {
        if unmount(at, UnmountFlags::empty()).is_err() {
            let _ = mount_remount(at, MountFlags::RDONLY, c"");
            console::note(format_args!("{at} was busy and is read-only now"));
        }
    }
    rustix::fs::sync();
}

/// Mount points of real file systems and of what lies over them, last mounted first. The root stays:
/// it is read-only.
fn on_disks(mounts: &str) -> Vec<&str> {
    let of_interest = |at: &str, kind: &str| {
        at != "/" && matches!(kind, "ext4" | "vfat" | "overlay" | "xfs" | "squashfs" | "nsfs")
    };
    let mut found: Vec<&str> = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (_, at, kind) = (words.next()?, words.next()?, words.next()?);
            of_interest(at, kind).then_some(at)
        })
        .collect();
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_left_innermost_first_and_the_root_stays() {
        let mounts = "/dev/dm-0 / squashfs ro 0 0\nproc /proc proc rw 0 0\n\
                      /dev/vda5 /persist ext4 rw 0 0\noverlay /run/eve-apps/x/rootfs overlay rw 0 0\n";
        assert_eq!(on_disks(mounts), ["/run/eve-apps/x/rootfs", "/persist"]);
    }
}
