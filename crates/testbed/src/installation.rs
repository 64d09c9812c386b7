//! A machine with an installer in it and a disk to install onto.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use host::qemu::{Disk, DiskFormat, SerialLog, copy_sparse, overlay, start};
use model::Bytes;

use crate::device::Device;
use crate::lab::{Lab, Place, Setup};

/// From power-on to power-off, on a processor: a boot, and the image read, written and read back.
const INSTALL: Duration = Duration::from_secs(40);

/// So many lines of the serial log are shown with an error.
const TAIL: usize = 25;

/// A machine with an installer in it and a disk to install onto. What it writes onto the installer's
/// medium is lost with it.
#[derive(Debug)]
pub struct Installation<'a> {
    lab: &'a Lab,
    setup: Setup,
    place: Place,
    serial: String,
    /// A copy of the installer, if it can be written to.
    medium: PathBuf,
    target: PathBuf,
}

impl<'a> Installation<'a> {
    /// A machine whose disk is blank and as large as `setup` says. `installer` is a raw disk.
    pub(crate) fn prepare(
        lab: &'a Lab,
        installer: &Path,
        setup: &Setup,
    ) -> anyhow::Result<Installation<'a>> {
        let place = lab.place()?;
        let (medium, target) =
            (place.scratch.join("installer.raw"), place.scratch.join("disk.raw"));
        copy_sparse(installer, &medium)?;
        fs::File::create(&target).and_then(|file| file.set_len(setup.disk.0))?;
        if let Some(vars) = &lab.firmware().vars {
            overlay(vars, DiskFormat::Raw, &place.scratch.join("vars.qcow2"), None)?;
        }
        let serial = format!("lab-{}-{}", std::process::id(), place.name);
        Ok(Installation { lab, setup: setup.clone(), place, serial, medium, target })
    }

    /// The disk to install onto.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Gives the installer a CONFIG that leads to the lab's controller, and lets that know the node.
    pub fn provision(&self) -> anyhow::Result<()> {
        let site = self.lab.site()?;
        site.declare(&self.place.name, &self.serial)?;
        Ok(builder::image::set_config(&self.medium, &site.conf(&self.serial)?)?)
    }

    /// Boots the installer and waits until it has switched the machine off. Returns what it said.
    pub fn run(&self) -> anyhow::Result<String> {
        self.boot("powered off", |_, ended| ended)
    }

    /// Boots the installer, waits until it says `what`, and takes the power away.
    pub fn run_until(&self, what: &str) -> anyhow::Result<String> {
        self.boot(what, |serial, _| serial.find(what).is_some())
    }

    fn boot(
        &self,
        what: &str,
        is_done: impl Fn(&SerialLog, bool) -> bool,
    ) -> anyhow::Result<String> {
        // The disk of a node, with the installer's in front of it.
        let mut machine = Device::on(self.lab, &self.setup, self.place.clone())?.machine;
        let raw = |path: &Path| Disk { path: path.to_owned(), format: DiskFormat::Raw };
        machine.disks = vec![raw(&self.medium), raw(&self.target)];
        let serial = SerialLog::follow(&self.place.logs.join("serial.log"));
        let mut guest = start(&machine, &self.place.logs.join("qemu.log"))?;
        let limit = self.lab.patience(INSTALL);
        let until = Instant::now() + limit;
        loop {
            let ended = guest.has_ended().is_err();
            if is_done(&serial, ended) {
                break;
            }
            let tail = || -> String {
                serial.tail(TAIL).into_iter().map(|line| format!("\n  {}", line.text)).collect()
            };
            if let Some((line, meaning)) = serial.failure() {
                bail!("{meaning}: {}{}", line.text, tail());
            }
            if ended {
                bail!("the machine ended before it was {what}:{}", tail());
            }
            if Instant::now() >= until {
                bail!("the installer was not {what} within {} s:{}", limit.as_secs(), tail());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        guest.power_cut();
        let path = self.place.logs.join("serial.log");
        let said = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// The machine without its installer, the disk as it is now: a node that has not been started.
    pub fn into_node(self) -> anyhow::Result<Device> {
        let _ = fs::remove_file(&self.medium);
        let disk = self.place.scratch.join("disk.qcow2");
        overlay(&self.target, DiskFormat::Raw, &disk, None)?;
        let mut device = Device::on(self.lab, &self.setup, self.place)?;
        device.is_provisioned();
        Ok(device)
    }
}

/// A blank disk, and what lies on it before: for tests that nothing of it changes.
pub fn fill(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().write(true).open(path)?;
    let size = Bytes(file.metadata()?.len());
    for mib in (0..size.0 >> 20).step_by(16) {
        file.write_all_at(&[0xee; 8192], mib << 20)?;
    }
    Ok(())
}
