//! The hardware watchdog (Documentation/watchdog/watchdog-api.rst): if PID 1 stops going round, the
//! machine resets.

use std::fs::File;
use std::io::Write;

use rustix::ioctl::{Getter, Updater, opcode};

use crate::console;

const DEVICE: &str = "/dev/watchdog";
/// Seconds after the last sign of life.
const TIMEOUT_S: i32 = 60;
/// … while the node goes down: apps have their time to stop.
const SHUTDOWN_TIMEOUT_S: i32 = 180;

/// The device, once a driver has brought it.
#[derive(Debug, Default)]
pub(crate) struct Watchdog(Option<File>);

impl Watchdog {
    /// Opens the device if it is there and not yet open. Returns whether the last boot ended by it.
    pub(crate) fn open(&mut self) -> Option<bool> {
        if self.0.is_some() {
            return None;
        }
        let file = File::options().write(true).open(DEVICE).ok()?;
        set_timeout(&file, TIMEOUT_S);
        let fired = boot_status(&file) != 0;
        self.0 = Some(file);
        console::note(format_args!("{DEVICE} is fed; it resets after {TIMEOUT_S} s of silence"));
        Some(fired)
    }

    /// A sign of life.
    pub(crate) fn feed(&mut self) {
        if let Some(file) = &mut self.0 {
            let _ = file.write_all(b"\0");
        }
    }

    /// Gives the shutdown its time. It stays armed: a shutdown that hangs ends in a reset.
    pub(crate) fn last_feed(&mut self) {
        if let Some(file) = &self.0 {
            set_timeout(file, SHUTDOWN_TIMEOUT_S);
        }
        self.feed();
    }
}

fn set_timeout(file: &File, seconds: i32) {
    const SET_TIMEOUT: rustix::ioctl::Opcode = opcode::read_write::<i32>(b'W', 6);
    let mut value = seconds;
    // SAFETY: WDIOC_SETTIMEOUT reads and writes an int.
    #[expect(unsafe_code, reason = "the watchdog is set by ioctl")]
    let set = unsafe { rustix::ioctl::ioctl(file, Updater::<SET_TIMEOUT, i32>::new(&mut value)) };
    if let Err(error) = set {
        console::note(format_args!("{DEVICE} keeps its own timeout: {error}"));
    }
}

fn boot_status(file: &File) -> i32 {
    const BOOT_STATUS: rustix::ioctl::Opcode = opcode::read::<i32>(b'W', 2);
    // SAFETY: WDIOC_GETBOOTSTATUS writes an int.
    #[expect(unsafe_code, reason = "the watchdog is asked by ioctl")]
    let status = unsafe { rustix::ioctl::ioctl(file, Getter::<BOOT_STATUS, i32>::new()) };
    status.unwrap_or(0)
}
