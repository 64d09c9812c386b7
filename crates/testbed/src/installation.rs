//! A machine with an installer in it and a disk to install onto.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use builder::image::net::ipxe_name;
use host::qemu::{Disk, DiskFormat, SerialLog, copy_sparse, overlay, start};
use model::Bytes;

use crate::converted::unpack;
use crate::device::Device;
use crate::image::Image;
use crate::lab::{Lab, Place, Setup};

/// From power-on to power-off, on a processor: a boot, and the image read, written and read back.
const INSTALL: Duration = Duration::from_secs(40);

/// So many lines of the serial log are shown with an error.
const TAIL: usize = 25;

/// What an installer comes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A disk inside, in front of the one to install onto.
    Disk,
    /// A CD.
    Cd,
    /// A USB stick.
    Stick,
    /// The network, whose server hands out what is in an archive.
    Net,
}

/// A machine with an installer in it and a disk to install onto. What it writes onto the installer's
/// medium is lost with it.
#[derive(Debug)]
pub struct Installation<'a> {
    lab: &'a Lab,
    setup: Setup,
    place: Place,
    serial: String,
    medium: Medium,
    /// A copy of the installer; of one that comes over the network, what the firmware asks for.
    installer: PathBuf,
    target: PathBuf,
    /// Whether the installer knows the lab's controller.
    provisioned: Cell<bool>,
}

impl<'a> Installation<'a> {
    /// A machine whose disk is blank and as large as `setup` says.
    pub(crate) fn prepare(
        lab: &'a Lab,
        image: &Image,
        medium: Medium,
        setup: &Setup,
    ) -> anyhow::Result<Installation<'a>> {
        let place = lab.place()?;
        let target = place.scratch.join("disk.raw");
        fs::File::create(&target).and_then(|file| file.set_len(setup.disk.0))?;
        let installer = if medium == Medium::Net {
            let folder = place.scratch.join("net");
            fs::create_dir(&folder)?;
            unpack(image.path(), &folder)?;
            folder.join(ipxe_name(lab.arch()))
        } else {
            let copy = place.scratch.join("installer");
            copy_sparse(image.path(), &copy)?;
            copy
        };
        if let Some(vars) = &lab.firmware().vars {
            overlay(vars, DiskFormat::Raw, &place.scratch.join("vars.qcow2"), None)?;
        }
        let serial = format!("lab-{}-{}", std::process::id(), place.name);
        let (setup, provisioned) = (setup.clone(), Cell::new(false));
        Ok(Installation { lab, setup, place, serial, medium, installer, target, provisioned })
    }

    /// The disk to install onto.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Gives the installer a CONFIG that leads to the lab's controller, and lets that know the node.
    /// One that comes over the network has none that can be changed.
    pub fn provision(&self) -> anyhow::Result<()> {
        let site = self.lab.site()?;
        site.declare(&self.place.name, &self.serial)?;
        builder::image::set_config(&self.installer, &site.conf(&self.serial)?)?;
        self.provisioned.set(true);
        Ok(())
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
        let mut machine = Device::on(self.lab, &self.setup, self.place.clone())?.machine;
        let raw = |path: &Path| Disk { path: path.to_owned(), format: DiskFormat::Raw };
        machine.disks = vec![raw(&self.target)];
        let installer = self.installer.clone();
        match self.medium {
            Medium::Disk => machine.disks.insert(0, raw(&installer)),
            Medium::Cd => machine.cd = Some(installer),
            Medium::Stick => machine.stick = Some(raw(&installer)),
            Medium::Net => {
                let card = machine.nics.first_mut().context("the machine has no network card")?;
                card.boot = Some(installer);
            }
        }
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
        let _ = fs::remove_file(&self.installer);
        let disk = self.place.scratch.join("disk.qcow2");
        overlay(&self.target, DiskFormat::Raw, &disk, None)?;
        let mut device = Device::on(self.lab, &self.setup, self.place)?;
        device.is_new(self.provisioned.get());
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
