//! The node of `eve up`: its disk, its machine, what its serial log tells of the boot.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;
use host::qemu::{
    Disk, DiskFormat, Firmware, Forward, Line, Machine, Nic, Serial, copy_sparse, grow,
};
use model::Bytes;

use super::state::{Folder, Mark, State};
use crate::out::OrAdvise;

/// The node's disk: room for two slots, and apps.
const DISK: Bytes = Bytes::gib(4);

/// The port of the node that leads to the app; apps/hello's object says so.
pub(super) const PAGE_PORT: u16 = 8080;

/// Tells an image from another at the same place: by the digest of its slot, if it lies where it was
/// built, so that one that was built again from the same things is the same; else by the file, since
/// images are replaced whole.
pub(super) fn stamp(image: &Path) -> anyhow::Result<String> {
    let meta = fs::metadata(image).with_context(|| format!("no image {}", image.display()))?;
    let facts = fs::read(image.with_file_name("image.json")).unwrap_or_default();
    let facts: serde_json::Value = serde_json::from_slice(&facts).unwrap_or_default();
    if let Some(digest) = facts["slot"]["digest"].as_str() {
        return Ok(format!("{digest}.{}", meta.len()));
    }
    Ok(format!("{}.{}.{}.{}", meta.dev(), meta.ino(), meta.len(), meta.mtime_nsec()))
}

/// A new disk for a new node: a copy of `image`, grown, with `conf` in its CONFIG partition.
pub(super) fn make_disk(image: &Path, folder: &Folder) -> anyhow::Result<()> {
    let dir = folder.node_dir();
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let disk = folder.disk();
    // Under another name until it is whole: a copy that was cut short is not taken for a disk.
    let new = disk.with_extension("new");
    copy_sparse(image, &new).or_advise()?;
    grow(&new, DISK).or_advise()?;
    fs::rename(&new, &disk).with_context(|| format!("cannot name {}", disk.display()))?;
    Ok(())
}

/// The machine.
pub(super) fn machine(
    state: &State,
    folder: &Folder,
    firmware: Firmware,
    memory: Bytes,
    cpus: Option<u8>,
) -> anyhow::Result<Machine> {
    let dir = folder.node_dir();
    let flash = firmware.in_folder(&dir).or_advise()?;
    Ok(Machine {
        arch: state.arch,
        accel: state.accel,
        memory,
        cpus,
        flash: Some(flash),
        disks: vec![Disk { path: folder.disk(), format: DiskFormat::Raw }],
        cd: None,
        stick: None,
        nics: vec![Nic::new(0, vec![page(state)])],
        serial: Serial::File(folder.serial_log()),
        debug: Some(dir.join("debug.sock")),
        watchdog: true,
        tpm: state.tpm.as_ref().map(|_| dir.join("tpm.sock")),
        serial_number: state.serial.clone(),
        qmp: folder.qmp(),
        pid_file: None,
        incoming: None,
        reboot: true,
    })
}

/// The app's page as seen from this machine.
pub(super) fn page(state: &State) -> Forward {
    Forward::local(state.page_port, PAGE_PORT)
}

/// What the serial log tells of a boot, in the order in which it came: firmware done, kernel,
/// init. A console that is told to be quiet leaves something out.
pub(super) fn marks(lines: &[Line]) -> Vec<Mark> {
    let firmware = |text: &str| text.contains("BdsDxe: starting");
    let kernel = |text: &str| text.contains("EFI stub:") || text.contains("Linux version");
    let mark = |what: &str, is_it: &dyn Fn(&str) -> bool| {
        let at = lines.iter().find(|line| is_it(&line.text))?.at.as_millis();
        Some(Mark { what: what.to_owned(), at_ms: u64::try_from(at).unwrap_or(u64::MAX) })
    };
    let found = [mark("firmware", &firmware), mark("kernel", &kernel), mark("init", &is_milestone)];
    found.into_iter().flatten().collect()
}

/// Whether eve-init says that a step of the boot is done, as in `eve-init: … after 3.91 s`.
pub(super) fn is_milestone(line: &str) -> bool {
    line.split_once("eve-init: ").is_some_and(|(_, said)| said.contains(" after "))
}

/// The end of a log, as text.
pub(super) fn tail(log: &Path, count: usize) -> Vec<String> {
    let body = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&body[body.len().saturating_sub(64 << 10)..]).into_owned();
    let clean = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
    let lines: Vec<String> = text.lines().map(clean).filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_boot_is_read_from_its_serial_log() {
        let lines: Vec<Line> = [
            (900, "BdsDxe: loading Boot0001"),
            (1500, "BdsDxe: starting Boot0001 \"UEFI Misc Device\""),
            (2800, "[    0.000000] Linux version 6.12"),
            (6800, "[    3.8] eve-init: module x is missing"),
            (6900, "[    3.9] eve-init: initrd started after 3.90 s"),
            (7400, "[    4.2] eve-init: services after 4.20 s"),
        ]
        .map(|(ms, text)| Line { at: Duration::from_millis(ms), text: text.into() })
        .into();
        let told: Vec<String> =
            marks(&lines).iter().map(|m| format!("{} {}", m.what, m.at_ms)).collect();
        assert_eq!(told, ["firmware 1500", "kernel 2800", "init 6900"]);
    }

    #[test]
    fn the_end_of_a_log_is_its_last_lines_without_colours() {
        let dir = tempfile::tempdir().unwrap();
        store::save(dir.path(), "log", b"a\n\x1b[2Jb\r\n\nc").unwrap();
        assert_eq!(tail(&dir.path().join("log"), 2), ["[2Jb", "c"]);
        assert!(tail(&dir.path().join("none"), 2).is_empty());
    }
}
