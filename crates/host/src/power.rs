//! Asking PID 1 to end this boot.

use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// Leaves the request where PID 1 looks for it (`<run>/power`: `reboot` or `poweroff`, then
/// `<boot reason>: <words>`) and tells it. Needs CAP_KILL.
pub fn ask(run: &Path, kind: &str, reason: &str) -> io::Result<()> {
    let text = format!("{kind}\n{}\n", reason.replace('\n', " "));
    store::save(run, "power", text.as_bytes()).map_err(io::Error::other)?;
    Ok(kill_process(Pid::INIT, Signal::TERM)?)
}
