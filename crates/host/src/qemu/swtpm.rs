//! A TPM 2.0 in software beside a virtual machine.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::error::QemuError;
use super::guest::bound_to_us;
use crate::detached::Detached;
use crate::process::{Tool, ToolError};

/// It takes a few milliseconds; a loaded machine takes longer.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A running swtpm. It ends with the machine that uses it, and with this value.
#[derive(Debug)]
pub struct Swtpm {
    child: Child,
    socket: PathBuf,
}

impl Swtpm {
    /// Starts one with its state in `dir/tpm` and its control socket at `dir/tpm.sock`.
    pub fn start(dir: &Path) -> Result<Swtpm, QemuError> {
        let (mut command, socket) = prepare(dir)?;
        bound_to_us(&mut command);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| ToolError::Spawn { tool: Tool::Swtpm, source })?;
        let swtpm = Swtpm { child, socket };
        wait_for(&swtpm.socket)?;
        Ok(swtpm)
    }

    /// Starts one that outlives us. Returns its control socket too.
    pub fn start_detached(dir: &Path) -> Result<(Detached, PathBuf), QemuError> {
        let (command, socket) = prepare(dir)?;
        let log = dir.join("swtpm.log");
        let started = Detached::spawn(command, &log)
            .map_err(|source| ToolError::Spawn { tool: Tool::Swtpm, source })?;
        wait_for(&socket)?;
        Ok((started, socket))
    }

    /// The control socket, for [`super::Machine::tpm`].
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        // It may have ended with its machine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn prepare(dir: &Path) -> Result<(Command, PathBuf), QemuError> {
    // Absolute: swtpm takes a relative state folder for a broken TPM.
    let dir = std::path::absolute(dir).map_err(QemuError::file("find", dir))?;
    let (state, socket) = (dir.join("tpm"), dir.join("tpm.sock"));
    std::fs::create_dir_all(&state).map_err(QemuError::file("create", &state))?;
    // Left by an earlier one that was killed.
    let _ = std::fs::remove_file(&socket);
    let mut command = Tool::Swtpm.command();
    command.args(["socket", "--tpm2", "--terminate", "--flags", "startup-clear"]);
    command.args(["--tpmstate", &format!("dir={}", state.display())]);
    command.args(["--ctrl", &format!("type=unixio,path={}", socket.display())]);
    Ok((command, socket))
}

fn wait_for(socket: &Path) -> Result<(), QemuError> {
    let until = Instant::now() + START_LIMIT;
    while !socket.exists() {
        if Instant::now() >= until {
            let what = "the control socket of swtpm".to_owned();
            return Err(QemuError::Timeout { what, limit: START_LIMIT });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
