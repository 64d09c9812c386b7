//! The node's end of the debug channel's port, and what only the debug service may do: run any
//! program, set the clock.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use model::UnixMillis;

/// The name that the machine gives the port (`-device virtserialport,name=…`).
pub const PORT: &str = "org.lfedge.eve.debug";

/// The port's device, if this machine has one. The kernel tells names of ports in sysfs only; the
/// links under /dev/virtio-ports are udev's, which we do not have.
pub fn find() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    ports.flatten().find_map(|port| {
        let name = fs::read_to_string(port.path().join("name")).ok()?;
        (name.trim() == PORT).then(|| Path::new("/dev").join(port.file_name()))
    })
}

/// Opens the port for reading and writing. Reads return nothing while nobody is at the far end.
pub fn open(device: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(device)
}

/// A command that runs any program: whoever is at the debug channel owns the node anyway.
#[expect(clippy::disallowed_methods, reason = "the debug channel runs what it is told")]
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root").env("TERM", "dumb");
    command
}

/// Sets the wall clock, to the second: after a snapshot of the machine it is as old as the snapshot.
/// By the debug profile's `date`: nothing else on a node sets the clock this way.
pub fn set_clock(now: UnixMillis) -> io::Result<()> {
    let status = command("date").arg("-s").arg(format!("@{}", now.0 / 1000)).output()?;
    if status.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&status.stderr).trim().to_owned()))
}

/// Kills a process and all that are in its group.
pub fn kill_group(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It may just have ended by itself.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}
