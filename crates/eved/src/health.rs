//! `eved health`: tells why the node booted, what its services use, and when which part of the boot
//! was done; asks PID 1 for a reboot when the controller wants one or was silent for too long.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use device::health::{Ask, Found, Left, Record, boot, disconnected, power};
use host::topics::{Reader, Roots, Table, Watch, Writer};
use host::{clock, usage};
use model::boot::{
    BOOT_MARKS, PowerKind, PowerRequest, REBOOT_REASON, WATCHDOG_MARK, read_mark, read_reason,
};
use model::reported::{
    AppState, Boot, BootReason, ConfigSource, Resources, ServiceUse, TimelineMark,
};
use model::services::{self, Service};
use model::topic::{
    Apps, Boots, Controller, DesiredPower, DesiredProperties, Identities, LocalPowers, Only, Ports,
    ResourceUse,
};
use model::{Bytes, UnixMillis, chain};
use tokio::time::Instant;

use crate::service::Context;

/// Between two looks at what is used.
const LOOK: Duration = Duration::from_secs(30);
const RECORD: &str = "record.json";
/// The record, the reason and the marks take a few hundred bytes each.
const SMALL_MAX: Bytes = Bytes::kib(64);
/// One record of the kernel's log in pstore takes at most as much as the log's buffer.
const DUMP_MAX: Bytes = Bytes::mib(4);

pub(crate) async fn run(ctx: Context) -> anyhow::Result<()> {
    let roots = ctx.roots();
    let folder = ctx.paths.persist.join("health");
    let marks_file = ctx.paths.run.join(BOOT_MARKS);

    let found = find(&folder, &marks_file);
    let (record, reason, detail) = boot(&found);
    let mut book = Book { folder, record, saved: None };
    if book.save(record) {
        // What stays of it is not told again: the record knows it. Later it could be a new one.
        if let Err(error) = store::remove(&book.folder, REBOOT_REASON) {
            tracing::warn!("{}", chain(&error));
        }
    }
    tracing::info!(boot = record.count, "booted: {reason:?}: {detail}");

    let mut boots = Writer::<Boots>::open(&roots)?;
    let mut resources = Writer::<ResourceUse>::open(&roots)?;
    let this = this_boot(record.count, reason, detail);
    let inputs = Inputs::open(&roots);
    let watch = Watch::new(&inputs.dirs())?;
    let mut timeline = Timeline::default();
    let mut used = Used::default();
    let mut silence = Silence { last: None, since: Instant::now() };
    ctx.ready();

    loop {
        book.catch_up();
        timeline.look(&marks_file, &inputs);
        let row = Boot { timeline: timeline.marks(), ..this.clone() };
        boots.publish(Table::<Boots>::from([(Only, row)]))?;
        if let Some(row) = used.look(&ctx.paths.persist) {
            resources.publish(Table::<ResourceUse>::from([(Only, row)]))?;
        }
        if let Some((ask, words)) = wanted(&inputs, &mut book, &mut silence) {
            let (kind, reason) = match ask {
                Ask::Reboot(reason) => (PowerKind::Reboot, reason),
                Ask::PowerOff => (PowerKind::PowerOff, BootReason::PoweroffCommand),
            };
            tracing::warn!("asking for {}: {words}", kind.name());
            host::power::ask(&ctx.paths.run, &PowerRequest::new(kind, reason, words))
                .with_context(|| format!("cannot ask PID 1 for {}", kind.name()))?;
        }
        tokio::select! {
            changed = watch.changed() => changed?,
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
    local_power: Reader<LocalPowers>,
    properties: Reader<DesiredProperties>,
}

impl Inputs {
    fn open(roots: &Roots) -> Inputs {
        Inputs {
            ports: Reader::open(roots),
            identities: Reader::open(roots),
            controller: Reader::open(roots),
            apps: Reader::open(roots),
            power: Reader::open(roots),
            local_power: Reader::open(roots),
            properties: Reader::open(roots),
        }
    }

    fn dirs(&self) -> [&Path; 7] {
        [
            self.ports.dir(),
            self.identities.dir(),
            self.controller.dir(),
            self.apps.dir(),
            self.power.dir(),
            self.local_power.dir(),
            self.properties.dir(),
        ]
    }
}

/// What the disk and the hardware say about the boot before.
fn find(folder: &Path, marks: &Path) -> Found {
    let record = store::read_bounded(&folder.join(RECORD), SMALL_MAX).ok();
    let record = record.and_then(|bytes| {
        let parsed = serde_json::from_slice(&bytes);
        parsed.inspect_err(|e| tracing::error!("the record of earlier boots is lost: {e}")).ok()
    });
    let marks = read_text(marks).unwrap_or_default();
    Found {
        record,
        left: left(&folder.join(REBOOT_REASON)),
        watchdog_fired: marks.lines().any(|line| line.starts_with(WATCHDOG_MARK)),
        kernel_panic: last_words(Path::new("/sys/fs/pstore")),
    }
}

/// What PID 1 said when it ended the boot before.
fn left(path: &Path) -> Option<Left> {
    let text = read_text(path)?;
    let written = fs::metadata(path).ok()?.modified().ok()?;
    let written = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (reason, words) = read_reason(&text);
    Some(Left {
        written: UnixMillis(u64::try_from(written.as_millis()).unwrap_or(u64::MAX)),
        reason,
        words,
    })
}

/// The kernel's last words, if the firmware kept them.
fn last_words(pstore: &Path) -> Option<String> {
    let mut files: Vec<_> = fs::read_dir(pstore).ok()?.flatten().map(|e| e.path()).collect();
    files.sort();
    let dump = files.iter().find(|p| p.to_string_lossy().contains("dmesg"))?;
    let text = store::read_bounded(dump, DUMP_MAX).ok()?;
    let text = String::from_utf8_lossy(&text);
    let panic = text.lines().find(|line| line.contains("Kernel panic")).unwrap_or("kernel panic");
    Some(panic.chars().take(200).collect())
}

/// A small file of ours, which others might have made large.
fn read_text(path: &Path) -> Option<String> {
    String::from_utf8(store::read_bounded(path, SMALL_MAX).ok()?).ok()
}

/// What outlives a boot, and whether the disk has it.
struct Book {
    folder: PathBuf,
    record: Record,
    /// As it is on the disk. `None`: this boot is not there yet.
    saved: Option<Record>,
}

impl Book {
    /// `false`: the disk does not take it, and the record is as it was. A full disk must not end this
    /// service: PID 1 would reboot the node for it, again and again.
    fn save(&mut self, record: Record) -> bool {
        let text = serde_json::to_vec(&record).unwrap_or_default();
        match store::save(&self.folder, RECORD, &text) {
            Ok(()) => {
                self.record = record;
                self.saved = Some(record);
                true
            }
            Err(error) => {
                tracing::error!("the record of this boot is not saved yet: {}", chain(&error));
                false
            }
        }
    }

    /// Saves what could not be saved before.
    fn catch_up(&mut self) {
        if self.saved != Some(self.record) && self.save(self.record) {
            tracing::info!("the record of this boot is saved now");
        }
    }
}

fn this_boot(count: u32, reason: BootReason, detail: String) -> Boot {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let slot = line.split_whitespace().find_map(|word| word.strip_prefix("eve.slot="));
    let version = fs::read_to_string("/etc/eve-release").unwrap_or_default();
    Boot {
        reason,
        detail,
        count,
        started: UnixMillis(clock::now().0.saturating_sub(uptime_ms())),
        timeline: Vec::new(),
        version: version.trim().to_owned(),
        slot: slot.unwrap_or("none").to_owned(),
    }
}

/// Milliseconds since the kernel started.
fn uptime_ms() -> u64 {
    u64::try_from(clock::since_boot().as_millis()).unwrap_or(u64::MAX)
}

/// When which part of the boot was done: PID 1's marks, and what the topics show first.
#[derive(Debug, Default)]
struct Timeline(BTreeMap<String, u64>);

impl Timeline {
    fn look(&mut self, marks: &Path, inputs: &Inputs) {
        let text = read_text(marks).unwrap_or_default();
        for line in text.lines() {
            if let Some((what, at)) = read_mark(line)
                && what != WATCHDOG_MARK
            {
                self.0.entry(what.to_owned()).or_insert(at);
            }
        }
        let now = uptime_ms();
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

/// What PID 1 is to be asked for now; the counters that led there are on the disk by then, since
/// without them the next boot would ask for the same again.
fn wanted(inputs: &Inputs, book: &mut Book, silence: &mut Silence) -> Option<(Ask, String)> {
    let contact = inputs.controller.get(&Only).and_then(|c| c.last_contact);
    if contact != silence.last {
        *silence = Silence { last: contact, since: Instant::now() };
    }
    // Until the config service has spoken, no counter means nothing.
    if inputs.power.is_complete() {
        let want = inputs.power.get(&Only).unwrap_or_default();
        let (seen, ask) = power(book.record.power, want);
        let known = seen == book.record.power || book.save(Record { power: seen, ..book.record });
        if let Some(ask) = ask.filter(|_| known) {
            return Some((ask, "told by the controller".to_owned()));
        }
    }
    // Whoever publishes it remembers that it is done; it does not outlive the boot.
    if let Some(local) = inputs.local_power.get(&Only) {
        let ask = match local.off {
            true => Ask::PowerOff,
            false => Ask::Reboot(BootReason::RebootCommand),
        };
        return Some((ask, "told by someone near the node".to_owned()));
    }
    let limit = inputs.properties.get(&Only).unwrap_or_default().reboot_no_network;
    let onboarded = inputs.identities.get(&Only).is_some();
    if disconnected(onboarded, silence.since.elapsed(), limit) {
        silence.since = Instant::now();
        let words = format!("no controller for {} s", limit.as_secs());
        return Some((Ask::Reboot(BootReason::Disconnect), words));
    }
    None
}

#[cfg(test)]
mod tests {
    use model::desired::Power;

    use super::*;

    /// A folder of a node whose `/persist/health` takes nothing: it is no folder.
    fn node() -> (tempfile::TempDir, Context, tokio::sync::watch::Sender<bool>) {
        let dir = tempfile::tempdir().unwrap();
        let (ctx, stop) = Context::in_folder(Service::Health, dir.path());
        fs::create_dir_all(&ctx.paths.persist).unwrap();
        store::save(&ctx.paths.persist, "health", b"").unwrap();
        (dir, ctx, stop)
    }

    fn repair(health: &Path) {
        fs::remove_file(health).unwrap();
        fs::create_dir(health).unwrap();
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_does_not_end_the_service_and_is_tried_again() {
        let (_dir, ctx, stop) = node();
        let (roots, health) = (ctx.roots(), ctx.paths.persist.join("health"));
        let until = async |what: &str, done: &dyn Fn() -> bool| {
            for _ in 0..500 {
                if done() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("{what} is awaited in vain");
        };
        let look = async {
            let boots = Reader::<Boots>::open(&roots);
            until("the boot", &|| boots.get(&Only).is_some_and(|b| b.count == 1)).await;
            repair(&health);
            let mut ports = Writer::<Ports>::open(&roots).unwrap();
            ports.publish(Table::<Ports>::new()).unwrap(); // it looks again
            until("the record", &|| health.join(RECORD).exists()).await;
            stop.send_replace(true);
        };
        let (ended, ()) = tokio::join!(run(ctx), look);
        ended.unwrap();
        let found = find(&health, Path::new("none"));
        assert_eq!(found.record.map(|r| r.count), Some(1));
    }

    #[test]
    fn a_reboot_that_the_disk_would_forget_is_not_asked_for() {
        let (_dir, ctx, _stop) = node();
        let (roots, folder) = (ctx.roots(), ctx.paths.persist.join("health"));
        let want = Power { reboot: Some(2), shutdown: None };
        let table = Table::<DesiredPower>::from([(Only, want)]);
        Writer::<DesiredPower>::open(&roots).unwrap().publish(table).unwrap();
        let inputs = Inputs::open(&roots);
        let record =
            Record { power: Power { reboot: Some(1), shutdown: None }, ..Record::default() };
        let mut book = Book { folder: folder.clone(), record, saved: None };
        let mut silence = Silence { last: None, since: Instant::now() };

        assert_eq!(wanted(&inputs, &mut book, &mut silence), None);
        repair(&folder);
        let (ask, _) = wanted(&inputs, &mut book, &mut silence).unwrap();
        assert_eq!(ask, Ask::Reboot(BootReason::RebootCommand));
        assert_eq!(find(&folder, Path::new("none")).record.unwrap().power, want);
        assert_eq!(wanted(&inputs, &mut book, &mut silence), None, "once");
    }
}
