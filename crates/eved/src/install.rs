//! `eved install`: puts a node onto a disk of this machine, then ends the boot. The one service of an
//! installer.
//!
//! ```text
//! payload checked ─▶ wishes read ─▶ disks looked at ─▶ planned ─▶ written, read back ─▶ boot entry
//!                        │                                │                              │
//!                        └── not understood ──▶ said, and nothing is written ◀── refused │
//!                                                         └──▶ report on the medium ◀────┘
//! ```
//!
//! Whatever happens is said on every console and kept for the report. After a refusal the machine
//! stays on, so that a person can read it; the power button ends it.

mod console;
mod machine;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use device::install::{self as mind, Disk, Nuke, Plan, Refusal, Wish};
use formats::fat::Files;
use host::disks::Medium;
use host::efi;
use host::target::Target;
use install::{InstallError, Payload, Work};
use model::boot::{PowerKind, PowerRequest};
use model::installer::{ANSWERS, BITS};
use model::reported::BootReason;
use model::{Bytes, Diagnose, chain};

use crate::service::Context;
use console::Console;

/// A disk that is not there after this long is not there.
const DISK_PATIENCE: Duration = Duration::from_secs(20);
/// Disks are looked at this often until they stay the same for [`SETTLED`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);
const SETTLED: u32 = 3;
/// Sectors at either end of a disk that hold its table.
const TABLE: Bytes = Bytes(34 * 512);

pub(crate) async fn run(ctx: Context) -> anyhow::Result<()> {
    let run = ctx.paths.run.clone();
    // It reads and writes for minutes.
    let ended = tokio::task::spawn_blocking(|| Session::start().run()).await?;
    match ended {
        End::Power(kind) => {
            let (reason, words) = match kind {
                PowerKind::Reboot => (BootReason::RebootCommand, "the installer is done"),
                PowerKind::PowerOff => (BootReason::PoweroffCommand, "the installer is done"),
            };
            host::power::ask(&run, &PowerRequest::new(kind, reason, words))
                .context("cannot ask PID 1 to end the boot")?;
        }
        End::Stay => {}
    }
    ctx.stopped().await;
    Ok(())
}

/// How it ended.
enum End {
    /// The machine is to go down.
    Power(PowerKind),
    /// A person has to read what is on the screen.
    Stay,
}

/// What went wrong, and who can act.
struct Trouble {
    text: String,
    advice: String,
}

impl<E: Diagnose + 'static> From<E> for Trouble {
    fn from(error: E) -> Trouble {
        Trouble { text: chain(&error), advice: error.diagnose().advice }
    }
}

struct Session {
    console: Console,
    medium: Option<Medium>,
    /// What the report has besides the log.
    report: Files,
}

impl Session {
    fn start() -> Session {
        Session {
            console: Console::open(),
            medium: host::disks::medium(),
            report: machine::describe(),
        }
    }

    fn run(mut self) -> End {
        let mut wish = Wish::default();
        let outcome = self.install(&mut wish);
        if let Err(trouble) = &outcome {
            self.console.alarm(&trouble.text, &trouble.advice);
        }
        self.save_report();
        match outcome {
            Err(_) => End::Stay,
            Ok(()) => {
                if wish.pause_after {
                    self.console.pause("done");
                }
                End::Power(wish.then)
            }
        }
    }

    fn install(&mut self, wish: &mut Wish) -> Result<(), Trouble> {
        let payload = Payload::from_bits(Path::new(BITS))?;
        let (version, slot) = (&payload.version, payload.slot.length);
        self.console.say(&format!("installing {version} ({}, slot image {slot})", payload.arch));
        let from_medium = self.medium.as_ref().map(install::medium_files).transpose()?.flatten();
        *wish = wishes(from_medium.as_ref())?;
        for word in &wish.without_effect {
            self.console.say(&format!("{word} changes nothing here"));
        }
        if wish.report_only {
            self.console.say("only a report was asked for");
            return Ok(());
        }
        let disks = self.settled_disks(wish);
        self.nuke(wish, &disks)?;
        if wish.nuke == Nuke::All {
            return Ok(());
        }
        let disks = install::disks(self.medium.as_ref());
        let places = mind::Payload {
            profile: payload.profile,
            slot,
            bios: payload.bios.as_ref().map_or(Bytes(0), |bios| Bytes(bios.gap.len() as u64)),
        };
        let plan =
            mind::choose(wish, &disks).and_then(|disk| mind::plan(wish, disk, &disks, &places))?;
        self.report.insert("plan.txt".to_owned(), plan.to_string().into_bytes());
        let config = from_medium.unwrap_or_else(|| payload.config.clone());
        let (config, serial) = mind::config(config, wish, machine::new_uuid());
        if !wish.skip.config {
            self.console.say(&format!("soft serial {}", serial.text()));
        }
        if wish.pause_before {
            self.console.say(&plan.to_string());
            self.console.pause("before anything is written");
        }
        self.write(&plan, &payload, &config)?;
        self.boot_entry(&plan, &payload);
        self.console.say("installed; the disk boots alone now");
        Ok(())
    }

    /// Every disk, once no more of them come and the one that is wanted is there.
    fn settled_disks(&self, wish: &Wish) -> Vec<Disk> {
        let (mut waited, mut same) = (Duration::ZERO, 0);
        let mut seen = install::disks(self.medium.as_ref());
        loop {
            let missing = matches!(
                mind::choose(wish, &seen),
                Err(Refusal::NoDisk { .. } | Refusal::NotThere { .. })
            );
            if (same >= SETTLED && !missing) || waited >= DISK_PATIENCE {
                return seen;
            }
            std::thread::sleep(LOOK_EVERY);
            waited += LOOK_EVERY;
            let now = install::disks(self.medium.as_ref());
            same = if now == seen { same + 1 } else { 0 };
            seen = now;
        }
    }

    /// Wipes the tables of the disks that were named for it.
    fn nuke(&self, wish: &Wish, disks: &[Disk]) -> Result<(), Trouble> {
        for disk in mind::to_nuke(wish, disks)? {
            self.console.say(&format!("wiping the tables of {} ({})", disk.name, disk.size));
            let target = Target::open(&node(&disk.name)).map_err(InstallError::from)?;
            let wipe = || {
                let end = Bytes(disk.size.0.saturating_sub(TABLE.0));
                target.wipe(Bytes(0), TABLE)?;
                target.wipe(end, TABLE)?;
                target.sync()?;
                target.announce()
            };
            wipe().map_err(InstallError::from)?;
        }
        Ok(())
    }

    fn write(&self, plan: &Plan, payload: &Payload, config: &Files) -> Result<(), Trouble> {
        let time = host::clock::now().0 / 1000;
        // All is made before anything is written.
        let mut all = Vec::new();
        for disk in &plan.disks {
            all.push((disk, Work::new(disk, payload, config, time)?));
        }
        for (disk, work) in all {
            let (name, size) = (&disk.disk, disk.table.size());
            self.console.say(&format!("writing to {name} ({size}, held {})", disk.found));
            let target = Target::open(&node(name)).map_err(InstallError::from)?;
            work.carry_out(&target, &self.console)?;
        }
        Ok(())
    }

    /// The firmware's menu. Without an entry it looks for the same file by itself.
    fn boot_entry(&self, plan: &Plan, payload: &Payload) {
        if !Path::new(efi::VARIABLES).join("").read_dir().is_ok_and(|mut d| d.next().is_some()) {
            self.console.say("no boot entry: this machine was not started by UEFI");
            return;
        }
        let Some(entry) = plan.disks.last().and_then(|disk| machine::entry(disk, payload)) else {
            return;
        };
        match efi::put_first(Path::new(efi::VARIABLES), &entry) {
            Ok(number) => {
                self.console.say(&format!("boot entry {number:04X}: {}", entry.name));
            }
            Err(error) => self.console.say(&format!("no boot entry: {}", chain(&error))),
        }
    }

    fn save_report(&mut self) {
        let Some(medium) = &self.medium else { return };
        let serial = std::fs::read_to_string("/run/eve/serial").unwrap_or_default();
        let mut files: Files = std::mem::take(&mut self.report);
        files.insert("installer.log".to_owned(), self.console.log().into_bytes());
        match install::save(medium, &serial, &files) {
            Ok(folder) => self.console.say(&format!("report in /{folder} of INVENTORY")),
            Err(error) => self.console.say(&format!("no report: {}", chain(&error))),
        }
    }
}

/// What a person wants: the command line, and the answers on the medium.
fn wishes(medium: Option<&BTreeMap<String, Vec<u8>>>) -> Result<Wish, Trouble> {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let answers = medium.and_then(|files| files.get(ANSWERS)).map(Vec::as_slice);
    mind::read(&line, answers).map_err(|error| Trouble {
        text: error.to_string(),
        advice: format!("correct the kernel command line, or {ANSWERS} in CONFIG of the medium"),
    })
}

fn node(name: &str) -> std::path::PathBuf {
    Path::new("/dev").join(name.replace('!', "/"))
}
