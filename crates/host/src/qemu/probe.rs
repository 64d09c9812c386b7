//! Finding out whether KVM really runs guests here.
//!
//! `/dev/kvm` may exist, open, and yet not run an ordinary guest (nested virtual machines, kernels
//! with a partial KVM: the guest hangs or dies). So a guest is run: a boot sector that does what
//! the start of a kernel does, and a loop that only a real processor gets through in time.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use model::Arch;
use serde::{Deserialize, Serialize};

use super::error::QemuError;
use super::machine::Accel;
use crate::process::{Tool, ToolError, run};

/// Overrides the probe: `kvm` or `tcg`.
const OVERRIDE: &str = "EVE_ACCEL";

/// With a working KVM the probe takes about 0.3 s.
const LIMIT: Duration = Duration::from_secs(5);

/// What the boot sector writes to the debug exit device, and what QEMU makes of it.
const EXIT_STATUS: i32 = (0x2a << 1) | 1;

/// The boot sector's code: 16 bit code that enters long mode (page tables at 0x1000, one large
/// page), then `lock cmpxchg16b`, a BMI2 instruction if the processor claims to have them, a loop
/// of 200 million turns (0.1 s on a processor; hours where each instruction is interpreted), and
/// `out 0xf4, 0x2a`. Whatever fails on the way ends in `hlt`.
#[rustfmt::skip]
const CODE: [u8; 222] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xfc, 0x66, 0xbf, 0x00,
    0x10, 0x00, 0x00, 0x0f, 0x22, 0xdf, 0x66, 0x31, 0xc0, 0x66, 0xb9, 0x00, 0x0c, 0x00, 0x00, 0x66,
    0xf3, 0xab, 0x66, 0xc7, 0x06, 0x00, 0x10, 0x03, 0x20, 0x00, 0x00, 0x66, 0xc7, 0x06, 0x00, 0x20,
    0x03, 0x30, 0x00, 0x00, 0x66, 0xc7, 0x06, 0x00, 0x30, 0x83, 0x00, 0x00, 0x00, 0x0f, 0x20, 0xe0,
    0x66, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0, 0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x66,
    0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30, 0x0f, 0x20, 0xc0, 0x66, 0x0d, 0x01, 0x00, 0x00, 0x80,
    0x0f, 0x22, 0xc0, 0x0f, 0x01, 0x16, 0xd8, 0x7c, 0xea, 0x6d, 0x7c, 0x08, 0x00, 0x31, 0xc0, 0x8e,
    0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0x31, 0xd2, 0x31, 0xc9, 0xbb, 0x01, 0x00, 0x00, 0x00, 0xbf, 0x00,
    0x50, 0x00, 0x00, 0x48, 0x89, 0x07, 0x48, 0x89, 0x47, 0x08, 0xf0, 0x48, 0x0f, 0xc7, 0x0f, 0x75,
    0x32, 0xb8, 0x07, 0x00, 0x00, 0x00, 0x31, 0xc9, 0x0f, 0xa2, 0xf7, 0xc3, 0x00, 0x01, 0x00, 0x00,
    0x74, 0x14, 0xb8, 0x01, 0x00, 0x00, 0x00, 0xb9, 0x04, 0x00, 0x00, 0x00, 0xc4, 0xe2, 0x71, 0xf7,
    0xc0, 0x83, 0xf8, 0x10, 0x75, 0x0d, 0xb9, 0x00, 0xc2, 0xeb, 0x0b, 0xff, 0xc9, 0x75, 0xfc, 0xb0,
    0x2a, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd, 0x66, 0x90, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x9a, 0x20, 0x00, 0x0f, 0x00, 0xc8, 0x7c, 0x00, 0x00,
];

/// What was found out, and for which kernel and QEMU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    kernel: String,
    qemu: String,
    accel: Accel,
    why: String,
}

/// The acceleration to use for guests of `arch`, and why, in words. Asks the environment variable
/// `EVE_ACCEL`, then what an earlier probe of the same kernel and QEMU left in `cache`, then a guest.
pub fn accel(cache: &Path, arch: Arch) -> Result<(Accel, String), QemuError> {
    if Arch::of_host() != Some(arch) {
        return Ok((Accel::Tcg, format!("this machine's processor is not {arch}")));
    }
    match std::env::var(OVERRIDE).as_deref() {
        Ok("kvm") => return Ok((Accel::Kvm, format!("{OVERRIDE} says so"))),
        Ok("tcg") => return Ok((Accel::Tcg, format!("{OVERRIDE} says so"))),
        _ => {}
    }
    if arch != Arch::Amd64 {
        return Ok((Accel::Tcg, format!("no probe for {arch}; {OVERRIDE}=kvm tries it")));
    }
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let qemu = version(arch)?;
    let name = "accel.json";
    let earlier = std::fs::read(cache.join(name))
        .ok()
        .and_then(|body| serde_json::from_slice::<Found>(&body).ok())
        .filter(|found| found.kernel == kernel && found.qemu == qemu);
    if let Some(found) = earlier {
        return Ok((found.accel, found.why));
    }
    std::fs::create_dir_all(cache).map_err(QemuError::file("create", cache))?;
    let (accel, why) = look(cache)?;
    let found = Found { kernel, qemu, accel, why };
    store::save(cache, name, &serde_json::to_vec_pretty(&found).unwrap_or_default())?;
    Ok((found.accel, found.why))
}

/// QEMU's version, as it says it.
pub fn version(arch: Arch) -> Result<String, QemuError> {
    let said = run(Tool::Qemu(arch), &["--version"])?;
    let said = String::from_utf8_lossy(&said);
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

fn look(dir: &Path) -> Result<(Accel, String), QemuError> {
    if !Path::new("/dev/kvm").exists() {
        return Ok((Accel::Tcg, "there is no /dev/kvm".into()));
    }
    let tcg = |why: &str| (Accel::Tcg, format!("/dev/kvm is there, but {why}"));
    Ok(match run_sector(dir, Accel::Kvm, LIMIT)? {
        Ran::Well(_) => (Accel::Kvm, "a guest ran to its end under KVM".into()),
        Ran::Badly(said) => tcg(&format!("a guest fails under it: {said}")),
        Ran::TooLong => tcg("a guest hangs under it"),
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Ran {
    Well(Duration),
    Badly(String),
    TooLong,
}

fn run_sector(dir: &Path, accel: Accel, limit: Duration) -> Result<Ran, QemuError> {
    // Two probes at once do not share a disk.
    let name = format!("probe-{}.img", std::process::id());
    store::save(dir, &name, &sector())?;
    let disk = dir.join(&name);
    let outcome = run_disk(accel, &disk, limit);
    let _ = std::fs::remove_file(&disk);
    outcome
}

fn run_disk(accel: Accel, disk: &Path, limit: Duration) -> Result<Ran, QemuError> {
    let (accel, cpu) = match accel {
        Accel::Kvm => ("kvm", "host"),
        Accel::Tcg => ("tcg", "max"),
    };
    let drive = format!("if=ide,format=raw,readonly=off,file={}", disk.display());
    let started = Instant::now();
    let mut command = Tool::Qemu(Arch::Amd64).command();
    command.args(["-nodefaults", "-display", "none", "-no-reboot", "-m", "16", "-M", "pc"]);
    command.args(["-accel", accel, "-cpu", cpu, "-drive", &drive]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    super::guest::bound_to_us(&mut command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| ToolError::Spawn { tool: Tool::Qemu(Arch::Amd64), source })?;
    loop {
        let ended = child
            .try_wait()
            .map_err(|source| QemuError::Monitor { doing: "look after QEMU".into(), source })?;
        match ended {
            Some(status) if status.code() == Some(EXIT_STATUS) => {
                return Ok(Ran::Well(started.elapsed()));
            }
            Some(status) => return Ok(Ran::Badly(status.to_string())),
            None if started.elapsed() > limit => {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(Ran::TooLong);
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// One sector of 512 bytes with the signature that makes a BIOS boot it.
fn sector() -> [u8; 512] {
    let mut sector = [0; 512];
    sector[..CODE.len()].copy_from_slice(&CODE);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_passes_where_guests_run() {
        let dir = tempfile::tempdir().unwrap();
        // QEMU's translator runs every guest; it needs about a second for the loop.
        let ran = run_sector(dir.path(), Accel::Tcg, Duration::from_secs(60)).unwrap();
        assert!(matches!(ran, Ran::Well(_)), "{ran:?}");
    }

    #[test]
    fn a_guest_that_does_not_end_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let ran = run_sector(dir.path(), Accel::Tcg, Duration::ZERO).unwrap();
        assert_eq!(ran, Ran::TooLong);
    }

    #[test]
    fn an_answer_is_kept_for_the_same_kernel_and_qemu_only() {
        let cache = tempfile::tempdir().unwrap();
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let keep = |kernel: &str| {
            let (accel, why) = (Accel::Kvm, "kept".to_owned());
            let found =
                Found { kernel: kernel.into(), qemu: version(Arch::Amd64).unwrap(), accel, why };
            let body = serde_json::to_vec(&found).unwrap();
            store::save(cache.path(), "accel.json", &body).unwrap();
        };
        keep(&kernel);
        assert_eq!(accel(cache.path(), Arch::Amd64).unwrap().1, "kept");
        keep("another kernel");
        assert_ne!(accel(cache.path(), Arch::Amd64).unwrap().1, "kept");
    }
}
