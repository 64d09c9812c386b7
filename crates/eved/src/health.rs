//! `eved health`: tells why the node booted, what its services use, and when which part of the boot
//! was done; asks PID 1 for a reboot when the controller wants one or was silent for too long.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use device::health::{Ask, Found, Left, Record, boot, disconnected, power};
use host::topics::{Reader, Table, Watch, Writer};
use host::{clock, usage};
use model::reported::{
    AppState, Boot, BootReason, ConfigSource, Resources, ServiceUse, TimelineMark,
};
use model::services::{self, Service};
use model::topic::{
    Apps, Boots, Controller, DesiredPower, DesiredProperties, Identities, Only, Ports, ResourceUse,
};
use model::{Bytes, UnixMillis};
use tokio::time::Instant;

use crate::service::Context;

/// Between two looks at what is used.
const LOOK: Duration = Duration::from_secs(30);
const RECORD: &str = "record.json";
const REASON: &str = "reboot-reason";
/// What PID 1 writes at each step of the boot: a word and milliseconds.
const MARKS: &str = "boot-marks";
/// PID 1's mark when the hardware says that its watchdog reset the machine.
const WATCHDOG_MARK: &str = "hardware-watchdog-fired";

pub(crate) async fn run(ctx: Context) -> anyhow::Result<()> {
    let roots = ctx.roots();
    let folder = ctx.paths.persist.join("health");
    let marks_file = ctx.paths.run.join(MARKS);

    let found = find(&folder, &marks_file);
    let (mut record, reason, detail) = boot(&found);
    save(&folder, &record)?;
    store::remove(&folder, REASON)?;
    tracing::info!(boot = record.count, "booted: {reason:?}: {detail}");

    let mut boots = Writer::<Boots>::open(&roots)?;
    let mut resources = Writer::<ResourceUse>::open(&roots)?;
    let this = this_boot(&record, reason, detail)?;
    let inputs = Inputs {
        ports: Reader::open(&roots),
        identities: Reader::open(&roots),
        controller: Reader::open(&roots),
        apps: Reader::open(&roots),
        power: Reader::open(&roots),
        properties: Reader::open(&roots),
    };
    let watch = Watch::new(&inputs.dirs()).context("cannot watch topics")?;
    let mut timeline = Timeline::default();
    let mut used = Used::default();
    let mut silence = Silence { last: None, since: Instant::now() };
    ctx.ready();

    loop {
        timeline.look(&marks_file, &inputs);
        let row = Boot { timeline: timeline.marks(), ..this.clone() };
        boots.publish(Table::<Boots>::from([(Only, row)]))?;
        if let Some(row) = used.look(&ctx.paths.persist) {
            resources.publish(Table::<ResourceUse>::from([(Only, row)]))?;
        }
        if let Some((ask, words)) = wanted(&inputs, &folder, &mut record, &mut silence)? {
            let (kind, reason) = match ask {
                Ask::Reboot(reason) => ("reboot", reason),
                Ask::PowerOff => ("poweroff", BootReason::PoweroffCommand),
            };
            tracing::warn!("asking for {kind}: {words}");
            host::power::ask(&ctx.paths.run, kind, &format!("{}: {words}", name_of(reason)))
                .with_context(|| format!("cannot ask PID 1 for {kind}"))?;
        }
        tokio::select! {
            changed = watch.changed() => changed.context("cannot watch topics")?,
            () = tokio::time::sleep(LOOK) => {}
            () = ctx.stopped() => return Ok(()),
        }
    }
}

struct Inputs {
    ports: Reader<Ports>,
    identities: Reader<Identities>,
    controller: Reader<Controller>,
    apps: Reader<Apps>,
    power: Reader<DesiredPower>,
    properties: Reader<DesiredProperties>,
}

impl Inputs {
    fn dirs(&self) -> [&Path; 6] {
        [
            self.ports.dir(),
            self.identities.dir(),
            self.controller.dir(),
            self.apps.dir(),
            self.power.dir(),
            self.properties.dir(),
        ]
    }
}

/// What the disk and the hardware say about the boot before.
fn find(folder: &Path, marks: &Path) -> Found {
    let record = fs::read(folder.join(RECORD)).ok();
    let record = record.and_then(|bytes| {
        let parsed = serde_json::from_slice(&bytes);
        parsed.inspect_err(|e| tracing::error!("the record of earlier boots is lost: {e}")).ok()
    });
    let marks = fs::read_to_string(marks).unwrap_or_default();
    Found {
        record,
        left: read_reason(&folder.join(REASON)),
        watchdog_fired: marks.lines().any(|line| line.starts_with(WATCHDOG_MARK)),
        kernel_panic: last_words(Path::new("/sys/fs/pstore")),
    }
}

/// Two lines: the reason as `BootReason` is written in JSON, and words.
fn read_reason(path: &Path) -> Option<Left> {
    let text = fs::read_to_string(path).ok()?;
    let written = fs::metadata(path).ok()?.modified().ok()?;
    let written = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut lines = text.lines();
    let reason = serde_json::from_value(lines.next().unwrap_or_default().into());
    Some(Left {
        written: UnixMillis(u64::try_from(written.as_millis()).unwrap_or(u64::MAX)),
        reason: reason.unwrap_or(BootReason::Unknown),
        words: lines.next().unwrap_or_default().to_owned(),
    })
}

/// The kernel's last words, if the firmware kept them.
fn last_words(pstore: &Path) -> Option<String> {
    let mut files: Vec<_> = fs::read_dir(pstore).ok()?.flatten().map(|e| e.path()).collect();
    files.sort();
    let dump = files.iter().find(|p| p.to_string_lossy().contains("dmesg"))?;
    let text = fs::read(dump).ok()?;
    let text = String::from_utf8_lossy(&text);
    let panic = text.lines().find(|line| line.contains("Kernel panic")).unwrap_or("kernel panic");
    Some(panic.chars().take(200).collect())
}

fn save(folder: &Path, record: &Record) -> anyhow::Result<()> {
    store::save(folder, RECORD, &serde_json::to_vec(record)?)?;
    Ok(())
}

fn this_boot(record: &Record, reason: BootReason, detail: String) -> anyhow::Result<Boot> {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let slot = line.split_whitespace().find_map(|word| word.strip_prefix("eve.slot="));
    let version = fs::read_to_string("/etc/eve-release").unwrap_or_default();
    let uptime = usage::uptime_ms().context("cannot read the uptime")?;
    Ok(Boot {
        reason,
        detail,
        count: record.count,
        started: UnixMillis(clock::now().0.saturating_sub(uptime)),
        timeline: Vec::new(),
        version: version.trim().to_owned(),
        slot: slot.unwrap_or("none").to_owned(),
    })
}

/// When which part of the boot was done: PID 1's marks, and what the topics show first.
#[derive(Debug, Default)]
struct Timeline(BTreeMap<String, u64>);

impl Timeline {
    fn look(&mut self, marks: &Path, inputs: &Inputs) {
        let text = fs::read_to_string(marks).unwrap_or_default();
        for line in text.lines() {
            if let Some((what, at)) = line.rsplit_once(' ')
                && let Ok(at) = at.parse()
                && what != WATCHDOG_MARK
            {
                self.0.entry(what.to_owned()).or_insert(at);
            }
        }
        let Ok(now) = usage::uptime_ms() else { return };
        let mut seen = |what: String| {
            self.0.entry(what).or_insert(now);
        };
        if inputs.ports.read().values().any(|port| !port.addresses.is_empty()) {
            seen("network".to_owned());
        }
        if inputs.identities.get(&Only).is_some() {
            seen("onboarded".to_owned());
        }
        let config = inputs.controller.get(&Only).map(|controller| controller.config);
        if config.is_some_and(|source| source != ConfigSource::None) {
            seen("config".to_owned());
        }
        for app in inputs.apps.read().into_values().filter(|app| app.state == AppState::Running) {
            seen(format!("app {}", app.name));
        }
    }

    fn marks(&self) -> Vec<TimelineMark> {
        let mark = |(what, at): (&String, &u64)| TimelineMark { what: what.clone(), at_ms: *at };
        let mut marks: Vec<_> = self.0.iter().map(mark).collect();
        marks.sort_by_key(|mark| mark.at_ms);
        marks
    }
}

/// What services used so far: peaks, and which process each had last.
#[derive(Debug, Default)]
struct Used {
    peaks: BTreeMap<Service, Bytes>,
    last: BTreeMap<Service, (u32, u32)>,
    looked: Option<Instant>,
}

impl Used {
    /// `None`: it was looked at a moment ago, or the kernel does not say.
    fn look(&mut self, persist: &Path) -> Option<Resources> {
        let due = self.looked.is_none_or(|last| last.elapsed() >= Duration::from_secs(5));
        if !due {
            return None;
        }
        self.looked = Some(Instant::now());
        let services = services::ALL.iter().filter_map(|spec| self.service(spec.service));
        let services = services.collect();
        let (memory_total, memory_available) = told(usage::memory(), "memory")?;
        let (persist_total, persist_used) = told(usage::disk(persist), "the disk")?;
        let cpu_ns = told(usage::cpu_ns(), "processor time")?;
        Some(Resources {
            services,
            memory_total,
            memory_available,
            cpu_ns,
            persist_total,
            persist_used,
        })
    }

    fn service(&mut self, service: Service) -> Option<ServiceUse> {
        let processes = usage::processes(service.name());
        let pid = *processes.first()?;
        // One that ends while we look counts as nothing.
        let pss =
            Bytes(processes.iter().filter_map(|pid| usage::pss(*pid).ok()).map(|b| b.0).sum());
        let peak = self.peaks.entry(service).or_default();
        *peak = pss.max(*peak);
        let (last, starts) = self.last.entry(service).or_insert((pid, 1));
        if *last != pid {
            (*last, *starts) = (pid, *starts + 1);
        }
        Some(ServiceUse { service, pid, pss, pss_peak: *peak, starts: *starts })
    }
}

fn told<T>(result: std::io::Result<T>, what: &str) -> Option<T> {
    result.inspect_err(|e| tracing::warn!("cannot tell what is used of {what}: {e}")).ok()
}

/// Since when the controller says nothing. By our own clock: the wall clock may jump.
struct Silence {
    last: Option<UnixMillis>,
    since: Instant,
}

/// What PID 1 is to be asked for now; the counters that led there are on the disk by then.
fn wanted(
    inputs: &Inputs,
    folder: &Path,
    record: &mut Record,
    silence: &mut Silence,
) -> anyhow::Result<Option<(Ask, String)>> {
    let contact = inputs.controller.get(&Only).and_then(|c| c.last_contact);
    if contact != silence.last {
        *silence = Silence { last: contact, since: Instant::now() };
    }
    // Until the config service has spoken, no counter means nothing.
    if inputs.power.is_complete() {
        let want = inputs.power.get(&Only).unwrap_or_default();
        let (seen, ask) = power(record.power, want);
        if seen != record.power {
            record.power = seen;
            save(folder, record)?;
        }
        if let Some(ask) = ask {
            return Ok(Some((ask, "told by the controller".to_owned())));
        }
    }
    let limit = inputs.properties.get(&Only).unwrap_or_default().reboot_no_network;
    let onboarded = inputs.identities.get(&Only).is_some();
    if disconnected(onboarded, silence.since.elapsed(), limit) {
        silence.since = Instant::now();
        let words = format!("no controller for {} s", limit.as_secs());
        return Ok(Some((Ask::Reboot(BootReason::Disconnect), words)));
    }
    Ok(None)
}

/// As `BootReason` is written in JSON.
fn name_of(reason: BootReason) -> String {
    let json = serde_json::to_value(reason).unwrap_or_default();
    json.as_str().unwrap_or("unknown").to_owned()
}
