//! Booting once and going on from there.
//!
//! A snapshot is a folder: disk and firmware variables as overlays that nobody writes to any more,
//! the TPM's state, and the memory of a machine that was stopped. Each restored node writes into
//! overlays of its own over them. It is kept below `target/lab/snapshots` under a key made of the
//! image, the machine and QEMU's version; those of other images are removed when a new one is made.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::Context;
use host::qemu::{DiskFormat, overlay, probe};

use crate::device::Device;
use crate::image::{Image, lab_dir};
use crate::lab::{Lab, Setup};

/// Changes when what is kept in a snapshot changes.
const FORMAT: u32 = 1;

/// A node from the snapshot; the snapshot is made if need be.
pub(crate) fn boot(lab: &Lab, image: &Image, setup: &Setup) -> anyhow::Result<Device> {
    let root = lab_dir().join("snapshots");
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    let key = key(lab, image, setup)?;
    let kept = root.join(&key);
    let lock = open_lock(&root, &key)?;
    lock.lock_shared().context("cannot lock the snapshot")?;
    if !kept.exists() {
        lock.unlock().context("cannot unlock the snapshot")?;
        lock.lock().context("cannot lock the snapshot")?;
        // Another test may have made it while we waited.
        if !kept.exists() {
            remove_others(&root, &key);
            make(lab, image, setup, &kept)?;
        }
    }
    // The node's overlays lie over the snapshot's files: nobody removes them while it lives.
    lock.lock_shared().context("cannot lock the snapshot")?;
    let mut device = restore(lab, setup, &kept)?;
    device.holds = Some(lock);
    Ok(device)
}

/// Boots, stops, and moves what there is into `kept`.
fn make(lab: &Lab, image: &Image, setup: &Setup, kept: &Path) -> anyhow::Result<()> {
    let mut device = lab.cold_boot(image, setup)?;
    let new = kept.with_extension("new");
    let _ = fs::remove_dir_all(&new); // of one that was cut short
    fs::create_dir_all(&new).with_context(|| format!("cannot create {}", new.display()))?;
    device.sh("sync")?;
    let mut qmp = device.qmp()?;
    qmp.save_memory(&new.join("memory"))?;
    qmp.quit()?;
    drop(qmp);
    device.power_cut();
    let from = &device.place.scratch;
    // The overlay's base is a private copy of the image: it moves along, under its final name.
    let base = from.join("disk.raw");
    if base.exists() {
        move_file(&base, &new.join("disk.raw"))?;
        let final_base = kept.join("disk.raw");
        rebase(&from.join("disk.qcow2"), &final_base)?;
    }
    for name in ["disk.qcow2", "vars.qcow2"] {
        move_file(&from.join(name), &new.join(name))?;
    }
    if setup.tpm {
        copy_dir(&from.join("tpm"), &new.join("tpm"))?;
    }
    fs::rename(&new, kept).context("cannot name the snapshot")
}

fn restore(lab: &Lab, setup: &Setup, kept: &Path) -> anyhow::Result<Device> {
    let place = lab.place()?;
    for name in ["disk.qcow2", "vars.qcow2"] {
        overlay(&kept.join(name), DiskFormat::Qcow2, &place.scratch.join(name), None)?;
    }
    if setup.tpm {
        copy_dir(&kept.join("tpm"), &place.scratch.join("tpm"))?;
    }
    let mut device = Device::on(lab, setup, place)?;
    device.machine.incoming = Some(kept.join("memory"));
    device.power_on()?;
    // The next start is a boot.
    device.machine.incoming = None;
    device.qmp()?.resume()?;
    device.set_clock()?;
    Ok(device)
}

fn key(lab: &Lab, image: &Image, setup: &Setup) -> anyhow::Result<String> {
    let mut hasher = DefaultHasher::new();
    (FORMAT, image.stamp()?, probe::version(lab.arch())?).hash(&mut hasher);
    format!("{setup:?} {:?}", lab.accel()).hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

fn open_lock(root: &Path, key: &str) -> anyhow::Result<File> {
    let path = root.join(format!("{key}.lock"));
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    opened.with_context(|| format!("cannot open {}", path.display()))
}

/// Removes snapshots of other images or machines that no test uses.
fn remove_others(root: &Path, key: &str) {
    let names = fs::read_dir(root).into_iter().flatten().flatten();
    for name in names.filter_map(|e| e.file_name().into_string().ok()) {
        let other = name.split('.').next().unwrap_or_default();
        if other == key || !name.ends_with(".lock") {
            continue;
        }
        let unused = open_lock(root, other).is_ok_and(|lock| lock.try_lock().is_ok());
        if unused {
            // What cannot be removed now is removed the next time.
            let _ = fs::remove_dir_all(root.join(other));
        }
    }
}

/// Renames, or copies where the two are on different file systems.
fn move_file(from: &Path, to: &Path) -> anyhow::Result<()> {
    if fs::rename(from, to).is_err() {
        host::qemu::copy_sparse(from, to)?;
        fs::remove_file(from).context("cannot remove the original")?;
    }
    Ok(())
}

/// Writes the new place of an overlay's base into it; the base's bytes are the same.
fn rebase(overlay: &Path, base: &Path) -> anyhow::Result<()> {
    use host::process::{Tool, run};
    let (overlay, base) = (overlay.to_string_lossy(), base.to_string_lossy());
    run(Tool::QemuImg, &["rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", &base, &overlay])?;
    Ok(())
}

fn copy_dir(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), &target)
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}
