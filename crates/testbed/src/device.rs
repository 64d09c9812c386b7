//! A node in the lab.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use controller::view;
use host::qemu::{
    Disk, DiskFormat, Forward, Guest, Machine, Nic, PowerDown, Qmp, Serial, SerialLog, Swtpm,
    copy_sparse, grow, overlay, start,
};

use crate::app::App;
use crate::debug::{DebugPort, Output};
use crate::image::Image;
use crate::lab::{Lab, Place, Setup};
use crate::site::Site;

/// From power-on to an answer on the debug channel, on a processor.
const BOOT: Duration = Duration::from_secs(15);

/// The port of the node behind [`Device::page`].
const PAGE_PORT: u16 = 8080;

/// Whether PID 1 has marked that every service is ready.
const READY: &str = "grep -q '^ready' /run/eve/boot-marks";

/// Puts the files of /run/lab-conf on the CONFIG partition and into /config, and has the services
/// that read them start anew.
const PROVISION: &str = r#"set -e
for d in /sys/class/block/*; do
    if grep -q '^PARTNAME=CONFIG$' "$d/uevent"; then dev=/dev/${d##*/}; fi
done
mkdir -p /run/lab-mount
mount -t vfat "$dev" /run/lab-mount
cp /run/lab-conf/* /run/lab-mount/
umount /run/lab-mount
mount -o remount,rw /config
cp /run/lab-conf/* /config/
mount -o remount,ro /config
sync
for p in /proc/[0-9]*; do
    if grep -qx eved "$p/comm" && tr '\0' ' ' <"$p/cmdline" | grep -Eq ' (onboard|config) '; then
        kill "${p##*/}"
    fi
done"#;

/// So many lines of an app are looked through.
const LOG_LINES: u32 = 1000;

/// So many lines of the serial log are shown with an error.
const TAIL: usize = 25;

/// A node: a machine that can be started, talked to, cut off and started again. It ends with this
/// value; its serial log stays.
#[derive(Debug)]
pub struct Device {
    pub(crate) machine: Machine,
    pub(crate) place: Place,
    setup: Setup,
    boot_limit: Duration,
    command_limit: Duration,
    site: Rc<Site>,
    /// Whether its own disk knows the controller.
    provisioned: bool,
    /// Whether its disk has ever been booted from.
    fresh: bool,
    running: Option<Running>,
    /// The lock on the snapshot that the disks lie over.
    pub(crate) holds: Option<std::fs::File>,
}

#[derive(Debug)]
struct Running {
    // In this order they end: the guest first, then what it stands on.
    guest: Guest,
    debug: DebugPort,
    serial: SerialLog,
    _swtpm: Option<Swtpm>,
}

impl Device {
    /// Disks and variables of a new node; nothing runs yet.
    pub(crate) fn prepare(lab: &Lab, image: &Image, setup: &Setup) -> anyhow::Result<Device> {
        let place = lab.place()?;
        let scratch = &place.scratch;
        let disk = scratch.join("disk.qcow2");
        match image.format() {
            DiskFormat::Raw => {
                // A copy can be grown and given another CONFIG; its holes cost nothing.
                let base = scratch.join("disk.raw");
                copy_sparse(image.path(), &base)?;
                grow(&base, setup.disk)?;
                overlay(&base, DiskFormat::Raw, &disk, None)?;
            }
            other => overlay(image.path(), other, &disk, None)?,
        }
        if let Some(vars) = &lab.firmware().vars {
            overlay(vars, DiskFormat::Raw, &scratch.join("vars.qcow2"), None)?;
        }
        let mut device = Device::on(lab, setup, place)?;
        device.fresh = image.format() == DiskFormat::Raw;
        Ok(device)
    }

    /// A node whose disks are in `scratch` already.
    pub(crate) fn on(lab: &Lab, setup: &Setup, place: Place) -> anyhow::Result<Device> {
        let Place { logs, scratch, .. } = &place;
        let page = Forward::local(free_port()?, PAGE_PORT);
        let mut forwards = Some(vec![page]);
        let nics = (0..setup.nics).map(|i| Nic::new(i, forwards.take().unwrap_or_default()));
        let disk = scratch.join("disk.qcow2");
        let machine = Machine {
            arch: lab.arch(),
            accel: lab.accel(),
            memory: setup.memory,
            cpus: setup.cpus,
            flash: (!setup.bios).then(|| {
                lab.firmware().clone().with_vars(scratch.join("vars.qcow2"), DiskFormat::Qcow2)
            }),
            disks: vec![Disk { path: disk, format: DiskFormat::Qcow2 }],
            cd: None,
            stick: None,
            nics: nics.collect(),
            serial: Serial::File(logs.join("serial.log")),
            debug: Some(scratch.join("debug.sock")),
            watchdog: true,
            tpm: setup.tpm.then(|| scratch.join("tpm.sock")),
            serial_number: "lab-node".into(),
            qmp: scratch.join("qmp.sock"),
            pid_file: None,
            incoming: None,
            reboot: true,
        };
        Ok(Device {
            machine,
            place,
            setup: setup.clone(),
            boot_limit: lab.patience(BOOT),
            command_limit: lab.patience(Duration::from_secs(5)),
            site: lab.site()?,
            provisioned: false,
            fresh: false,
            running: None,
            holds: None,
        })
    }

    /// Powers the node on and waits until all its services are ready.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.power_on()?;
        let limit = self.boot_limit;
        let until = Instant::now() + limit;
        self.talk(|debug, alive| debug.wait_for_node(limit, alive))
            .context("the node did not come up")?;
        // The way in is open before anything else is.
        while self.sh(READY).is_err() {
            self.check_alive()?;
            if Instant::now() >= until {
                let marks = self.sh("cat /run/eve/boot-marks").unwrap_or_default();
                bail!("not all services are ready after {} s: {marks}", limit.as_secs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Powers the node on and returns at once.
    pub fn power_on(&mut self) -> anyhow::Result<()> {
        if self.running.is_some() {
            bail!("the node is on already");
        }
        let swtpm = self.setup.tpm.then(|| Swtpm::start(&self.place.scratch)).transpose()?;
        let serial = SerialLog::follow(&self.place.logs.join("serial.log"));
        let guest = start(&self.machine, &self.place.logs.join("qemu.log"))?;
        let socket = self.machine.debug.as_deref().context("the machine has no debug channel")?;
        let debug = DebugPort::connect(socket)?;
        self.fresh = false;
        self.running = Some(Running { guest, debug, serial, _swtpm: swtpm });
        Ok(())
    }

    /// Takes the power away: what the node has not flushed is lost. [`Device::start`] gives it back.
    pub fn power_cut(&mut self) {
        if let Some(running) = self.running.take() {
            running.guest.power_cut();
        }
    }

    /// Presses the power button and waits until the node has powered itself off.
    pub fn power_down(&mut self) -> anyhow::Result<()> {
        let running = self.running.take().context("the node is off already")?;
        match running.guest.power_down(self.boot_limit)? {
            PowerDown::Orderly => Ok(()),
            PowerDown::CutOff => {
                bail!("the node did not power off within {} s", self.boot_limit.as_secs())
            }
        }
    }

    /// Runs a shell command on the node and returns what it printed, without the last newline. A
    /// status other than 0 is an error.
    pub fn sh(&mut self, command: &str) -> anyhow::Result<String> {
        let out = self.exec(&["/bin/sh", "-c", command], b"")?;
        if out.status != 0 {
            let said = String::from_utf8_lossy(&out.stderr);
            bail!("`{command}` on the node ended with {}: {}", out.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
    }

    /// Runs a program on the node, with `stdin`.
    pub fn exec(&mut self, program: &[&str], stdin: &[u8]) -> anyhow::Result<Output> {
        let limit = self.command_limit;
        self.talk(|debug, alive| debug.exec(program, stdin, limit, alive))
    }

    /// A file of the node.
    pub fn read(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        let out = self.exec(&["/bin/cat", path], b"")?;
        if out.status != 0 {
            bail!(
                "cannot read {path} of the node: {}",
                String::from_utf8_lossy(&out.stderr).trim()
            );
        }
        Ok(out.stdout)
    }

    /// Writes a file of the node.
    pub fn write(&mut self, path: &str, body: &[u8]) -> anyhow::Result<()> {
        let out = self.exec(&["/bin/sh", "-c", "cat > \"$0\"", path], body)?;
        if out.status != 0 {
            bail!(
                "cannot write {path} of the node: {}",
                String::from_utf8_lossy(&out.stderr).trim()
            );
        }
        Ok(())
    }

    /// The port of this machine that leads to port 8080 of the node.
    pub fn page(&self) -> Option<&Forward> {
        self.machine.forwards().find(|f| f.guest_port == PAGE_PORT)
    }

    /// What the node says on its serial port. `None`: it is off.
    pub fn serial(&self) -> Option<&SerialLog> {
        self.running.as_ref().map(|r| &r.serial)
    }

    /// The file with the node's overlay disk, to be changed while the node is off.
    pub fn disk(&self) -> &Path {
        &self.machine.disks[0].path
    }

    /// The raw disk below the overlay, of a node that was prepared from a raw image and has never
    /// been started.
    pub fn base_disk(&self) -> PathBuf {
        self.place.scratch.join("disk.raw")
    }

    /// QEMU's monitor: cables, reset.
    pub fn qmp(&self) -> anyhow::Result<Qmp> {
        Ok(self.running.as_ref().context("the node is off")?.guest.qmp()?)
    }

    /// Makes the node known to the lab's controller and waits until it has onboarded. A node that
    /// has never been started is given its CONFIG on the disk and started; one that is up gets it
    /// through the debug channel, on its disk too, so that it knows after the next boot.
    pub fn onboard(&mut self) -> anyhow::Result<()> {
        self.provision()?;
        if self.running.is_none() {
            self.start()?;
        }
        let limit = self.boot_limit;
        self.wait_for("onboarded", limit, |d| d.registered.is_some() && d.seen.is_some())?;
        Ok(())
    }

    /// The first half of [`Device::onboard`]: the node knows the controller and the other way
    /// round.
    pub fn provision(&mut self) -> anyhow::Result<()> {
        if self.provisioned {
            return Ok(());
        }
        let serial = format!("lab-{}-{}", std::process::id(), self.place.name);
        self.site.declare(&self.place.name, &serial)?;
        let files = self.site.conf(&serial)?;
        if self.fresh {
            builder::image::set_config(&self.base_disk(), &files)?;
        } else {
            self.provision_live(&files)?;
        }
        self.provisioned = true;
        Ok(())
    }

    /// Its raw disk has never been booted from. `provisioned`: the disk knows the controller, and the
    /// controller the node.
    pub(crate) fn is_new(&mut self, provisioned: bool) {
        self.fresh = true;
        self.provisioned = provisioned;
    }

    fn provision_live(&mut self, files: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
        self.sh("mkdir -p /run/lab-conf")?;
        for (name, body) in files {
            self.write(&format!("/run/lab-conf/{name}"), body)?;
        }
        self.sh(PROVISION).map(drop)
    }

    /// Deploys apps/hello on the node, with port 8080 leading to it, and waits until it serves.
    pub fn run_hello(&mut self) -> anyhow::Result<()> {
        let (site, node) = (Rc::clone(&self.site), self.place.name.clone());
        let image = site.hello()?;
        site.apply(&format!(
            "{{kind: App, name: hello, spec: {{device: {node}, image: \"{image}\", memory: 64MiB, \
             ports: [\"{PAGE_PORT}:80\"]}}}}"
        ))?;
        let page = self.app("hello").get("/healthz")?;
        if page.status != 200 {
            bail!("the app is not well: {} {}", page.status, page.body);
        }
        Ok(())
    }

    /// An app on this node.
    pub fn app<'a>(&'a mut self, name: &'a str) -> App<'a> {
        App::new(self, name)
    }

    /// Its name at the controller.
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// The node as the controller knows it.
    pub fn view(&self) -> anyhow::Result<view::Device> {
        self.site.device(&self.place.name)
    }

    /// Waits until the controller knows the node as `is_so` wants it.
    pub fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        is_so: impl Fn(&view::Device) -> bool,
    ) -> anyhow::Result<view::Device> {
        let (site, name) = (Rc::clone(&self.site), self.place.name.clone());
        self.talk(|_, alive| site.wait_for(&name, what, limit, alive, is_so))
    }

    /// What the controller has of an app's output: the newest lines, oldest first.
    pub(crate) fn app_log(&self, app: &str) -> anyhow::Result<Vec<String>> {
        let rows = self.site.ask(|client| client.logs(self.name(), Some(app), 0, LOG_LINES))?;
        Ok(rows.into_iter().map(|row| row.content).collect())
    }

    /// An error if the node cannot go on.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        self.talk(|_, alive| alive())
    }

    /// An app may take so long from its object to its first answer.
    pub(crate) fn app_limit(&self) -> Duration {
        self.boot_limit
    }

    pub(crate) fn set_clock(&mut self) -> anyhow::Result<()> {
        self.talk(|debug, alive| debug.set_clock(host::clock::now(), alive))
    }

    /// Uses the debug channel; whatever goes wrong, the end of the serial log comes with the error.
    fn talk<T>(
        &mut self,
        what: impl FnOnce(&mut DebugPort, &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let running = self.running.as_mut().context("the node is off")?;
        let Running { guest, debug, serial, .. } = running;
        let mut alive = || {
            if let Some((line, meaning)) = serial.failure() {
                bail!("{meaning}: {}", line.text);
            }
            Ok(guest.has_ended()?)
        };
        what(debug, &mut alive).map_err(|error| {
            let tail: Vec<String> = serial.tail(TAIL).into_iter().map(show).collect();
            let path = serial.path().display();
            anyhow!("{error:#}\nthe end of {path}:\n{}", tail.join("\n"))
        })
    }
}

fn show(line: host::qemu::Line) -> String {
    format!("  {:8.2}  {}", line.at.as_secs_f64(), line.text)
}

/// A port that nobody listens on now. Somebody may before we do: QEMU says so then.
fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}
