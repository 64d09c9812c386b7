//! A virtual machine that runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::error::QemuError;
use super::machine::{Machine, Serial};
use super::qmp::Qmp;
use crate::detached::Detached;
use crate::process::{Tool, ToolError};

/// QEMU opens its monitor before it runs the guest; this is for a machine under load.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A power button that was not felt is pressed again after this.
const PRESS_AGAIN: Duration = Duration::from_secs(3);

/// So much of what QEMU said is shown in an error.
const SAID_MAX: usize = 2000;

/// A guest that ends with this value, and with the thread that started it.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    output: PathBuf,
    qmp: PathBuf,
}

/// How a guest that was asked to power off ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerDown {
    /// By itself.
    Orderly,
    /// It took too long and was cut off.
    CutOff,
}

/// Starts `machine`. What QEMU itself says goes to `output`. On return its monitor answers; the
/// guest runs, or waits for [`Qmp::resume`] if it comes from a snapshot.
pub fn start(machine: &Machine, output: &Path) -> Result<Guest, QemuError> {
    let mut command = prepare(machine)?;
    let log = fs::File::create(output).map_err(QemuError::file("create", output))?;
    let copy = log.try_clone().map_err(QemuError::file("open", output))?;
    bound_to_us(&mut command);
    match machine.serial {
        // Its standard output is the guest's terminal.
        Serial::Terminal { .. } => command.stderr(log),
        Serial::File(_) => command.stdin(Stdio::null()).stdout(copy).stderr(log),
    };
    let child = command
        .spawn()
        .map_err(|source| ToolError::Spawn { tool: Tool::Qemu(machine.arch), source })?;
    let mut guest = Guest { child, output: output.to_owned(), qmp: machine.qmp.clone() };
    wait_for_monitor(&machine.qmp, || guest.has_ended())?;
    Ok(guest)
}

/// Starts `machine` such that it outlives us.
pub fn start_detached(machine: &Machine, output: &Path) -> Result<Detached, QemuError> {
    let command = prepare(machine)?;
    let _ = fs::remove_file(output);
    let started = Detached::spawn(command, output)
        .map_err(|source| ToolError::Spawn { tool: Tool::Qemu(machine.arch), source })?;
    wait_for_monitor(&machine.qmp, || {
        let ended = || QemuError::Ended { status: "at its start".into(), said: said(output) };
        if started.is_alive() { Ok(()) } else { Err(ended()) }
    })?;
    Ok(started)
}

impl Guest {
    /// The QEMU monitor.
    pub fn qmp(&self) -> Result<Qmp, QemuError> {
        Qmp::connect(&self.qmp, START_LIMIT)
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `Ok` while it runs.
    pub fn has_ended(&mut self) -> Result<(), QemuError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                Err(QemuError::Ended { status: status.to_string(), said: said(&self.output) })
            }
            Err(source) => Err(QemuError::Monitor { doing: "look after QEMU".into(), source }),
        }
    }

    /// Waits until QEMU ends by itself.
    pub fn wait(&mut self) -> Result<(), QemuError> {
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                Err(QemuError::Ended { status: status.to_string(), said: said(&self.output) })
            }
            Err(source) => Err(QemuError::Monitor { doing: "wait for QEMU".into(), source }),
        }
    }

    /// Takes the power away: what the guest has not flushed is lost.
    pub fn power_cut(mut self) {
        self.end();
    }

    /// Presses the power button, now and again, and waits: a guest that still boots does not feel
    /// the first press. One that has not powered off after `patience` is cut off.
    pub fn power_down(mut self, patience: Duration) -> Result<PowerDown, QemuError> {
        let mut qmp = self.qmp()?;
        let until = Instant::now() + patience;
        let mut press = Instant::now();
        while Instant::now() < until {
            if self.has_ended().is_err() {
                return Ok(PowerDown::Orderly);
            }
            if Instant::now() >= press {
                // Between the last look and now it may have gone: the next look tells.
                let _ = qmp.press_power_button();
                press += PRESS_AGAIN;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.end();
        Ok(PowerDown::CutOff)
    }

    fn end(&mut self) {
        // It may have ended by itself in the meantime.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.end();
    }
}

fn prepare(machine: &Machine) -> Result<Command, QemuError> {
    for forward in machine.forwards() {
        forward.check_free()?;
    }
    for path in machine.sockets() {
        // sockaddr_un holds 108 bytes, the last of them zero.
        if path.as_os_str().len() > 107 {
            return Err(QemuError::LongPath { path: path.clone() });
        }
    }
    // Left by an earlier one that was killed: it would answer for the new one.
    for socket in [Some(&machine.qmp), machine.debug.as_ref()].into_iter().flatten() {
        let _ = fs::remove_file(socket);
    }
    let mut command = Tool::Qemu(machine.arch).command();
    command.args(machine.args());
    Ok(command)
}

/// The end of the child comes with the end of the thread that starts it, however that happens: a
/// test that is killed leaves no machine behind.
#[expect(unsafe_code, reason = "the standard library marks what runs after fork as unsafe")]
pub(super) fn bound_to_us(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let ours = std::process::id();
    let bind = move || {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // Our parent may have ended before the line above.
        let parent = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        if parent == Some(ours) { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: `bind` makes two system calls and touches neither memory nor locks of ours.
    unsafe { command.pre_exec(bind) };
}

fn wait_for_monitor(
    socket: &Path,
    mut alive: impl FnMut() -> Result<(), QemuError>,
) -> Result<(), QemuError> {
    let until = Instant::now() + START_LIMIT;
    loop {
        alive()?;
        // The socket is there before QEMU has opened the disks; an answer comes only after.
        if socket.exists() && Qmp::connect(socket, Duration::from_millis(500)).is_ok() {
            return Ok(());
        }
        if Instant::now() >= until {
            let what = "the start of QEMU".to_owned();
            return Err(QemuError::Timeout { what, limit: START_LIMIT });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The end of what QEMU said.
fn said(output: &Path) -> String {
    let text = fs::read(output).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(SAID_MAX)..]).into_owned();
    if text.trim().is_empty() { "it said nothing".into() } else { text.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use model::Bytes;

    use super::*;
    use crate::qemu::{Accel, Disk, DiskFormat, SerialLog, Swtpm, overlay};

    /// A boot sector that says `a`, `b`, `c`, … on the serial port, a letter each 55 ms.
    #[rustfmt::skip]
    const ALPHABET: [u8; 32] = [
        0x31, 0xc0, 0x8e, 0xd8, 0xfb, 0xb3, 0x61, 0xba, 0xf8, 0x03, 0x88, 0xd8, 0xee, 0xb0, 0x0a, 0xee,
        0xfe, 0xc3, 0x66, 0xa1, 0x6c, 0x04, 0xf4, 0x66, 0x3b, 0x06, 0x6c, 0x04, 0x74, 0xf8, 0xeb, 0xe7,
    ];

    fn machine(dir: &Path, log: &str) -> Machine {
        Machine {
            arch: model::Arch::Amd64,
            accel: Accel::Tcg,
            memory: Bytes::mib(16),
            cpus: None,
            flash: None,
            disks: vec![Disk { path: dir.join("disk.qcow2"), format: DiskFormat::Qcow2 }],
            cd: None,
            stick: None,
            nics: vec![],
            serial: Serial::File(dir.join(log)),
            debug: None,
            watchdog: true,
            tpm: Some(dir.join("tpm.sock")),
            serial_number: "test".into(),
            qmp: dir.join("qmp.sock"),
            pid_file: None,
            incoming: None,
            reboot: false,
        }
    }

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_guest_goes_on_where_its_snapshot_was_taken() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        // A disk of one sector only is not booted.
        let mut sector = vec![0; 1 << 20];
        sector[..ALPHABET.len()].copy_from_slice(&ALPHABET);
        sector[510..512].copy_from_slice(&[0x55, 0xaa]);
        store::save(dir, "disk.raw", &sector).unwrap();
        overlay(&dir.join("disk.raw"), DiskFormat::Raw, &dir.join("disk.qcow2"), None).unwrap();

        let first = machine(dir, "first.log");
        let swtpm = Swtpm::start(dir).unwrap();
        let log = SerialLog::follow(&dir.join("first.log"));
        let mut guest = start(&first, &dir.join("qemu.log")).unwrap();
        log.wait_for("c", LIMIT).expect("the guest speaks");
        let mut qmp = guest.qmp().unwrap();
        qmp.save_memory(&dir.join("memory")).unwrap();
        qmp.quit().unwrap();
        guest.wait().unwrap();
        drop(swtpm);

        let second = Machine { incoming: Some(dir.join("memory")), ..machine(dir, "second.log") };
        let _swtpm = Swtpm::start(dir).unwrap();
        let log = SerialLog::follow(&dir.join("second.log"));
        let guest = start(&second, &dir.join("qemu.log")).unwrap();
        guest.qmp().unwrap().resume().unwrap();
        log.wait_for("f", LIMIT).expect("the guest goes on");
        assert_eq!(log.find("a"), None, "it started from the beginning");
        guest.power_cut();
    }

    #[test]
    fn a_machine_that_cannot_start_says_why_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine { tpm: None, ..machine(dir.path(), "log") };
        let error = start(&machine, &dir.path().join("qemu.log")).unwrap_err();
        assert!(error.to_string().contains("disk.qcow2"), "{error}");
    }

    #[test]
    fn a_detached_machine_is_found_again_and_stopped() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let machine = Machine { tpm: None, disks: vec![], ..machine(dir, "log") };
        let started = start_detached(&machine, &dir.join("qemu.log")).unwrap();
        assert_eq!(Detached::of(started.pid).as_ref(), Some(&started));
        Qmp::connect(&machine.qmp, START_LIMIT).unwrap();
        assert!(started.kill().unwrap());
    }
}
