//! A test's place: its folder, its machines' sizes, and booting.

use std::cell::{Cell, OnceCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use formats::disk::Format;
use host::qemu::{Accel, Firmware, probe};
use model::{Arch, Bytes};

use crate::converted;
use crate::device::Device;
use crate::image::{Image, lab_dir};
use crate::installation::{Installation, Medium};
use crate::site::Site;
use crate::snapshot;

/// How a node's machine is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Memory of the node.
    pub memory: Bytes,
    /// Processors of the node; `None`: as [`Accel::cpus`] says.
    pub cpus: Option<u8>,
    /// Network cards, each on a network of its own.
    pub nics: u8,
    /// A TPM in software. It makes the firmware 2 to 3 seconds slower.
    pub tpm: bool,
    /// The disk of a raw image, or a blank one, is at least so large; others are as they are.
    pub disk: Bytes,
    /// A BIOS starts it (SeaBIOS), not UEFI.
    pub bios: bool,
}

impl Default for Setup {
    /// One card, no TPM, 512 MiB of memory, 4 GiB of disk, UEFI.
    fn default() -> Setup {
        let (memory, disk) = (Bytes::mib(512), Bytes::gib(4));
        Setup { memory, cpus: None, nics: 1, tpm: false, disk, bios: false }
    }
}

/// A test's place in the lab.
#[derive(Debug)]
pub struct Lab {
    /// Logs: kept, whatever comes of the test.
    dir: PathBuf,
    /// Disks and sockets: removed with the lab. Not below `dir`, since the path of a socket must be
    /// short.
    scratch: tempfile::TempDir,
    arch: Arch,
    accel: Accel,
    firmware: Firmware,
    nodes: Cell<u32>,
    site: OnceCell<Rc<Site>>,
}

impl Lab {
    /// A place for the test of this name: letters, digits, `-` and `_`. Logs of an earlier run are
    /// removed.
    pub fn new(test: &str) -> anyhow::Result<Lab> {
        Lab::of(Arch::Amd64, test)
    }

    /// The same for nodes of an architecture.
    pub fn of(arch: Arch, test: &str) -> anyhow::Result<Lab> {
        if test.is_empty() || !test.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
            bail!("`{test}` cannot be the name of a folder");
        }
        let root = lab_dir();
        let dir = root.join(test);
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let scratch = tempfile::Builder::new().prefix("eve-lab-").tempdir()?;
        let (accel, _) = probe::accel(&root, arch)?;
        let firmware = Firmware::find(arch)?;
        let (nodes, site) = (Cell::new(0), OnceCell::new());
        Ok(Lab { dir, scratch, arch, accel, firmware, nodes, site })
    }

    /// A node that is up: from the snapshot of this image if there is one, else it is booted and
    /// the snapshot taken.
    pub fn boot(&self, image: &Image) -> anyhow::Result<Device> {
        self.boot_with(image, &Setup::default())
    }

    /// The same, on another machine.
    pub fn boot_with(&self, image: &Image, setup: &Setup) -> anyhow::Result<Device> {
        snapshot::boot(self, image, setup)
    }

    /// A node that goes through firmware, kernel and first boot now. On return it is up.
    pub fn cold_boot(&self, image: &Image, setup: &Setup) -> anyhow::Result<Device> {
        let mut device = Device::prepare(self, image, setup)?;
        device.start()?;
        Ok(device)
    }

    /// A node that has not been started: for changes to its disk before the first boot.
    pub fn prepare(&self, image: &Image, setup: &Setup) -> anyhow::Result<Device> {
        Device::prepare(self, image, setup)
    }

    /// This raw image as one of another format, with a disk of 4 GiB or what the format takes for
    /// that: as somebody has it who has unpacked what comes packed. It lasts as long as the lab.
    pub fn converted(&self, image: &Image, format: Format) -> anyhow::Result<Image> {
        converted::convert_in(image, format, self.scratch.path())
    }

    /// A machine with an installer on this medium and a blank disk.
    pub fn installation(
        &self,
        installer: &Image,
        medium: Medium,
        setup: &Setup,
    ) -> anyhow::Result<Installation<'_>> {
        Installation::prepare(self, installer, medium, setup)
    }

    /// The folder with the logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the nodes' processors are.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// What runs the guests.
    pub fn accel(&self) -> Accel {
        self.accel
    }

    /// What a wait that takes `native` on a processor may take here, where it may be emulated and
    /// several may run at once.
    pub fn patience(&self, native: Duration) -> Duration {
        native * if self.accel == Accel::Kvm { 2 } else { 12 }
    }

    /// The lab's controller; it starts when it is first asked for.
    pub fn site(&self) -> anyhow::Result<Rc<Site>> {
        if let Some(site) = self.site.get() {
            return Ok(Rc::clone(site));
        }
        let site = Rc::new(Site::start(&self.scratch.path().join("controller"), self.arch)?);
        Ok(Rc::clone(self.site.get_or_init(|| site)))
    }

    pub(crate) fn firmware(&self) -> &Firmware {
        &self.firmware
    }

    /// A name and folders for one more node: for its logs, and for its disks and sockets.
    pub(crate) fn place(&self) -> anyhow::Result<Place> {
        let n = self.nodes.get();
        self.nodes.set(n + 1);
        // The first node's log is where one looks first.
        let name = format!("node{n}");
        let logs = if n == 0 { self.dir.clone() } else { self.dir.join(&name) };
        let scratch = self.scratch.path().join(&name);
        for dir in [&logs, &scratch] {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        Ok(Place { name, logs, scratch })
    }
}

/// Where a node is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its name at the controller.
    pub name: String,
    /// Kept.
    pub logs: PathBuf,
    /// Removed with the lab.
    pub scratch: PathBuf,
}
