//! Asking PID 1 to end this boot.

use std::io;
use std::path::Path;

use model::boot::{POWER_REQUEST, PowerRequest};
use rustix::process::{Pid, Signal, kill_process};

/// Leaves the request where PID 1 looks for it, in the folder `run`, and tells it. Needs CAP_KILL.
pub fn ask(run: &Path, request: &PowerRequest) -> io::Result<()> {
    store::save(run, POWER_REQUEST, request.text().as_bytes()).map_err(io::Error::other)?;
    Ok(kill_process(Pid::INIT, Signal::TERM)?)
}
