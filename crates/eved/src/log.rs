//! `eved log`: reads what the kernel, services and apps say, keeps it in files and sends those to the
//! controller.
//!
//! `device::log` decides; [`pipes`] reads, [`files`] keeps, [`upload`] sends. Lines that did not make
//! a file yet live in memory: a power cut loses at most the last batch, and never half a file.

mod files;
mod pipes;
mod upload;

use std::collections::BTreeMap;
use std::fs::File as OsFile;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::newlogs::{About, DeviceLog, Entry, FILE_TARGET};
use device::log::line::{Level, Line};
use device::log::{Batch, Fate, Source, fate};
use host::topics::{Reader, Table, Writer};
use model::desired::Properties;
use model::reported::{LogCounts, LogStatus};
use model::topic::{Apps, Boots, DesiredProperties, Identities, LogState, Only};
use model::{Bytes, Diagnose, Problem, UnixMillis, chain};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::log::files::Files;
use crate::log::pipes::{Said, Speaker};
use crate::service::Context;

/// How often batches, the quota and the topic are looked after.
const TICK: Duration = Duration::from_secs(2);
/// What an entry takes beside its text.
const ENTRY_OVERHEAD: u64 = 120;
/// So long we read on when we are asked to end.
const LAST_LINES: Duration = Duration::from_secs(2);
/// So many lines may wait between the readers and us; then the pipes hold them.
const LINES_WAITING: usize = 512;

pub(crate) async fn run(ctx: Context) -> anyhow::Result<()> {
    let roots = ctx.roots();
    let folder = ctx.paths.persist.join("newlog");
    let opened = Files::open(folder.clone());
    let files = Arc::new(opened.with_context(|| format!("cannot use {}", folder.display()))?);
    let mut keeper = Keeper {
        files: files.clone(),
        batches: BTreeMap::new(),
        settings: Properties::default(),
        console: console(),
        next_id: 1,
        dropped: 0,
        counts: LogCounts::default(),
        problem: None,
        apps: Reader::open(&roots),
        identities: Reader::open(&roots),
        boots: Reader::open(&roots),
        properties: Reader::open(&roots),
    };
    let mut status = Writer::<LogState>::open(&roots)?;
    let (said, mut lines) = mpsc::channel(LINES_WAITING);
    let listening =
        tokio::spawn(pipes::listen(ctx.paths.run.join("log"), files.clone(), said, ctx.stopping()));
    let (told, sending) = watch::channel(upload::Sending::default());
    let sender = tokio::spawn(upload::run(ctx.clone(), files.clone(), told));
    ctx.ready();
    let mut tick = Instant::now() + TICK;
    loop {
        tokio::select! {
            () = ctx.stopped() => break,
            Some(one) = lines.recv() => {
                keeper.take(one);
                continue;
            }
            () = sleep_until(tick) => tick = Instant::now() + TICK,
        }
        keeper.settings = keeper.properties.get(&Only).unwrap_or_default();
        keeper.flush(false);
        keeper.keep_quota();
        status.publish(Table::<LogState>::from([(Only, keeper.report(&sending.borrow()))]))?;
    }
    // Others end before us: what they said last is still in the pipes. The readers end when those are
    // empty, which an app that never falls silent may put off.
    sender.abort();
    let rest = async {
        while let Some(one) = lines.recv().await {
            keeper.take(one);
        }
    };
    if timeout(LAST_LINES, rest).await.is_err() {
        tracing::warn!("the pipes do not become empty in {LAST_LINES:?}");
    }
    listening.abort();
    keeper.flush(true);
    Ok(())
}

struct Keeper {
    files: Arc<Files>,
    /// By whose lines they are, and whether they stay on the node.
    batches: BTreeMap<(Source, bool), Batch<Entry>>,
    settings: Properties,
    console: Option<OsFile>,
    next_id: u64,
    dropped: u64,
    counts: LogCounts,
    problem: Option<Problem>,
    apps: Reader<Apps>,
    identities: Reader<Identities>,
    boots: Reader<Boots>,
    properties: Reader<DesiredProperties>,
}

impl Keeper {
    fn take(&mut self, said: Said) {
        self.dropped += said.lost_before;
        if said.line.text.is_empty() {
            return;
        }
        self.mirror(&said.speaker, &said.line);
        let (source, name) = match &said.speaker {
            Speaker::Kernel => (Source::Device, said.line.from.clone()),
            Speaker::Service(name) => (Source::Device, name.clone()),
            Speaker::App(id) => {
                let version = self.apps.get(id).map(|a| a.version).unwrap_or_default();
                (Source::App(*id), format!("{id}.{version}.1"))
            }
        };
        let levels = &self.settings.log_levels;
        let fate = match &said.speaker {
            Speaker::Kernel => fate(None, said.line.level, levels),
            Speaker::Service(name) => fate(Some(name), said.line.level, levels),
            Speaker::App(_) => Fate::Sent,
        };
        if fate == Fate::Dropped {
            return;
        }
        let entry = Entry {
            severity: said.line.level.word().to_owned(),
            source: name,
            iid: said.line.pid.map(|p| p.to_string()).unwrap_or_default(),
            function: said.line.from,
            content: said.line.text,
            msgid: self.next_id,
            timestamp: said.at.into(),
            ..Entry::default()
        };
        self.next_id += 1;
        let size = Bytes(entry.content.len() as u64 + ENTRY_OVERHEAD);
        device::log::counted::line(&mut self.counts, source, &entry.source, size);
        let batch = (source, fate == Fate::Kept);
        self.batches.entry(batch).or_default().add(entry, size, host::clock::now());
    }

    /// In debug mode a person at the console sees what services say.
    fn mirror(&mut self, speaker: &Speaker, line: &Line) {
        let Speaker::Service(name) = speaker else { return };
        if line.level < Level::Info {
            return;
        }
        if let Some(console) = &mut self.console {
            // A console that takes nothing now must not stop the log.
            let _ = console.write_all(format!("{name}: {}\r\n", line.text).as_bytes());
        }
    }

    /// Makes files of the batches that are due; of all when `all` is set.
    fn flush(&mut self, all: bool) {
        let now = host::clock::now();
        let fast = self.settings.log_fast_upload;
        let due: Vec<(Source, bool)> = self
            .batches
            .iter()
            .filter(|(_, b)| b.is_due(now, fast) || (all && b.due(fast).is_some()))
            .map(|(s, _)| *s)
            .collect();
        for (source, stays) in due {
            let batch = self.batches.get_mut(&(source, stays));
            let entries = batch.map(Batch::take).unwrap_or_default();
            if let Err(why) = self.write(source, stays, &entries, now) {
                self.dropped += entries.len() as u64;
                tracing::error!("{} lines are lost: {}", entries.len(), chain(&why));
                self.problem = Some(why.problem(now));
            } else {
                self.problem = None;
            }
        }
    }

    fn write(
        &mut self,
        source: Source,
        stays: bool,
        entries: &[Entry],
        now: UnixMillis,
    ) -> Result<(), files::FilesError> {
        let app = match source {
            Source::Device => None,
            Source::App(id) => Some((id, self.apps.get(&id))),
        };
        let about = match &app {
            None => About::Device(self.device_log()),
            Some((id, app)) => {
                About::App(app.as_ref().map_or_else(|| id.to_string(), |a| a.name.clone()))
            }
        };
        let stays = stays || matches!(&app, Some((_, Some(app))) if app.disable_logs);
        let packed = api::newlogs::pack(entries, &about, now, FILE_TARGET)
            .map_err(|source| files::FilesError::Pack { source })?;
        packed.iter().try_for_each(|bytes| {
            self.files.add(source, stays, now, bytes)?;
            let size = Bytes(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            device::log::counted::made(&mut self.counts, source, size, now);
            Ok(())
        })
    }

    fn device_log(&self) -> DeviceLog {
        let boot = self.boots.get(&Only);
        DeviceLog {
            device: self.identities.get(&Only).map(|i| i.id.to_string()).unwrap_or_default(),
            image: boot.as_ref().map(|b| b.slot.clone()).unwrap_or_default(),
            version: boot.map(|b| b.version).unwrap_or_default(),
        }
    }

    fn keep_quota(&mut self) {
        let wanted = self.settings.log_quota;
        match self.files.keep_quota(wanted) {
            Ok(gone) => self.counts.removed += gone,
            Err(why) => {
                tracing::warn!("{}", chain(&why));
                self.problem = Some(why.problem(host::clock::now()));
            }
        }
    }

    fn report(&self, sending: &upload::Sending) -> LogStatus {
        let files = self.files.list();
        let waiting = files.iter().filter(|f| !f.stays).count();
        let counts = device::log::counted::all(&self.counts, &sending.counts, &files);
        LogStatus {
            counts,
            queued: u64::try_from(waiting).unwrap_or(u64::MAX),
            sent: sending.sent,
            dropped_lines: self.dropped,
            problem: self.problem.clone().or_else(|| sending.problem.clone()),
        }
    }
}

/// The console, if this boot is for debugging.
fn console() -> Option<OsFile> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if !model::boot::debug(&line) {
        return None;
    }
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let opened = OsFile::options().write(true).custom_flags(flags).open("/dev/console");
    opened.inspect_err(|e| tracing::warn!("services are not shown on the console: {e}")).ok()
}
