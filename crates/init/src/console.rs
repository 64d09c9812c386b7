//! What PID 1 says goes to the kernel log: it is there before any file system, it is on the console,
//! and `eved log` takes it from there to the controller.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since the kernel started.
pub(crate) fn uptime_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds * 1000 + nanos / 1_000_000
}

/// A step of the boot, with the time it was reached. As loud as a warning: the console shows no
/// less (`loglevel=5`), and milestones are what a person looks for there.
pub(crate) fn milestone(what: &str) {
    let ms = uptime_ms();
    write(4, format_args!("{what} after {}.{:02} s", ms / 1000, ms % 1000 / 10));
}

/// Something worth a line.
pub(crate) fn note(what: impl fmt::Display) {
    write(6, format_args!("{what}"));
}

/// Something is not as it should be, and the node goes on.
pub(crate) fn warn(what: impl fmt::Display) {
    write(4, format_args!("{what}"));
}

/// The node cannot go on, or an operator must know. Shown even on a `quiet` console.
pub(crate) fn alarm(what: impl fmt::Display) {
    write(2, format_args!("{what}"));
}

/// Lifts the kernel's rate limit on what programs write into its log.
pub(crate) fn unlimited() {
    let _ = overwrite("/proc/sys/kernel/printk_devkmsg", "on\n");
}

fn write(level: u8, what: fmt::Arguments<'_>) {
    let line = format!("<{level}>eve-init: {what}\n");
    let sent = OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .and_then(|mut kmsg| kmsg.write_all(line.as_bytes()));
    if sent.is_err() {
        eprint!("{}", &line[3..]); // before /dev is there, or in a test
    }
}

/// Writes into a file that exists: for the kernel's knobs, never for data.
pub(crate) fn overwrite(path: &str, text: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}
