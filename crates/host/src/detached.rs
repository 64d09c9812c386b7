//! Programs that outlive the one that started them, and are recognised again later.
//!
//! A process number alone is not enough to end a process by: the kernel gives it to others.
//! Together with the start time and the boot it names one process for ever.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process that was started by us, now or in an earlier run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Detached {
    /// The process number.
    pub pid: u32,
    /// When it started, in clock ticks since the boot of this machine (proc(5), stat, field 22).
    pub started_ticks: u64,
    /// The boot of this machine it belongs to.
    pub boot_id: String,
}

impl Detached {
    /// Starts a program in a process group of its own, without input, with its output appended to
    /// `log`. A Ctrl-C at our terminal does not reach it.
    pub fn spawn(mut command: Command, log: &Path) -> io::Result<Detached> {
        let output = File::options().create(true).append(true).open(log)?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Detached::of(child.id()).ok_or_else(|| io::Error::other("it ended at once"))
    }

    /// The process that has this number now. `None`: there is none, or it has ended and waits for
    /// its parent.
    pub fn of(pid: u32) -> Option<Detached> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let started_ticks = alive_since(&stat)?;
        Some(Detached { pid, started_ticks, boot_id: boot_id.trim().to_owned() })
    }

    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        Detached::of(self.pid).as_ref() == Some(self)
    }

    /// Asks it to end, waits for `patience`, then ends it. Returns `false` if it had ended before.
    pub fn stop(&self, patience: Duration) -> io::Result<bool> {
        if !self.signal(Signal::TERM)? {
            return Ok(false);
        }
        if !self.wait(patience) {
            self.signal(Signal::KILL)?;
            self.wait(Duration::from_secs(5));
        }
        Ok(true)
    }

    /// Ends it at once. Returns `false` if it had ended before.
    pub fn kill(&self) -> io::Result<bool> {
        let was_there = self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(5));
        Ok(was_there)
    }

    /// Waits until it has ended; `false` if it has not after `limit`.
    pub fn wait(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// `false`: it is gone.
    fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(false);
        };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(false);
        };
        // Asked after the handle was opened: the handle cannot come to mean another process.
        if !self.is_alive() {
            return Ok(false);
        }
        match pidfd_send_signal(&handle, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

/// The start time in a line of `/proc/<pid>/stat`; `None` for a process that has ended. The name
/// of the program, in parentheses, may hold anything.
fn alive_since(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    // The state is field 3, the start time field 22.
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X" | "x")).then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Tool;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let tail = "S 1 2 2 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 1000 5";
        assert_eq!(alive_since(&format!("7 (cat) {tail}")), Some(4711));
        assert_eq!(alive_since(&format!("7 (a) b) {tail}")), Some(4711));
        assert_eq!(alive_since(&format!("7 (cat) {}", tail.replacen('S', "Z", 1))), None);
        assert_eq!(alive_since("7 (cat"), None);
    }

    #[test]
    fn it_is_stopped_once_and_a_stranger_with_its_number_never() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Tool::Shell.command();
        command.args(["-c", "echo hello; exec sleep 1000"]);
        let process = Detached::spawn(command, &dir.path().join("log")).unwrap();
        assert!(process.is_alive());

        let stranger = Detached { started_ticks: process.started_ticks + 1, ..process.clone() };
        assert!(!stranger.stop(Duration::from_secs(1)).unwrap());
        assert!(process.is_alive());

        assert!(process.stop(Duration::from_secs(5)).unwrap());
        assert!(!process.is_alive());
        assert!(!process.stop(Duration::from_secs(5)).unwrap());
    }
}
