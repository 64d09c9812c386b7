//! `eved app`: starts, watches and stops the containers of apps.
//!
//! `device::app` decides; [`start`] mounts and starts. Containers outlive this service: what it
//! finds running when it starts, it adopts. Only when the node goes down does it stop them all.

mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use device::app::{Act, Container, Decision, Memory, Saved, State, View, decide};
use host::crun::{Crun, End, Known, adopt_orphans};
use host::topics::{Reader, Table, Watch, Writer};
use model::boot::POWER_REQUEST;
use model::desired::App;
use model::reported::{AppState, AppStatus, AppUse, VolumeState};
use model::topic::{AppNetworks, Apps, Controller, DesiredApps, Identities, Only, Volumes};
use model::{AppId, Bytes, Diagnose, Problem, UnixMillis, chain};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until, timeout};

use crate::app::start::{Place, Start, StartError, Started};
use crate::chance::jitter;
use crate::service::Context;

/// How often the use of memory and processors is read.
const LOOK: Duration = Duration::from_secs(30);
/// PID 1 waits 30 s for us when the node goes down.
const LAST_CHANCE: Duration = Duration::from_secs(25);
/// No app needs so many acts in a row; more would be a mistake of ours.
const ACTS_MAX: usize = 16;
/// What is remembered of an app takes some fifty bytes.
const MEMORY_MAX: Bytes = Bytes::kib(4);

pub(crate) async fn run(ctx: Context) -> anyhow::Result<()> {
    adopt_orphans().context("cannot become the parent of containers")?;
    let roots = ctx.roots();
    let inputs = Inputs {
        desired: Reader::open(&roots),
        volumes: Reader::open(&roots),
        networks: Reader::open(&roots),
        controller: Reader::open(&roots),
        identities: Reader::open(&roots),
    };
    let mut statuses = Writer::<Apps>::open(&roots)?;
    let (ends, mut ended) = unbounded_channel();
    let mut keeper = Keeper::new(&ctx, ends)?;
    let watch = Watch::new(&[
        inputs.desired.dir(),
        inputs.volumes.dir(),
        inputs.networks.dir(),
        inputs.controller.dir(),
    ])?;
    ctx.ready();
    let mut look = Instant::now();
    loop {
        let wake = keeper.settle(&inputs.read(), false).await;
        if Instant::now() >= look {
            keeper.measure();
            look = Instant::now() + LOOK;
        }
        statuses.publish(keeper.report())?;
        let pause = wake.map_or(LOOK, |at| at.since(host::clock::now()));
        tokio::select! {
            () = ctx.stopped() => break,
            changed = watch.changed() => changed?,
            Some((id, status)) = ended.recv() => keeper.note_end(id, status),
            () = sleep_until((Instant::now() + pause).min(look)) => {}
        }
    }
    // PID 1 leaves this file before it stops services for good.
    if !ctx.paths.run.join(POWER_REQUEST).exists() {
        tracing::info!("leaving {} containers to run", keeper.running());
        return Ok(());
    }
    let all_down = async {
        loop {
            let wake = keeper.settle(&inputs.read(), true).await;
            if keeper.running() == 0 {
                return;
            }
            let pause = wake.map_or(LOOK, |at| at.since(host::clock::now()));
            if let Ok(Some((id, status))) = timeout(pause, ended.recv()).await {
                keeper.note_end(id, status);
            }
        }
    };
    if timeout(LAST_CHANCE, all_down).await.is_err() {
        tracing::error!("{} containers do not end", keeper.running());
    }
    statuses.publish(keeper.report())?;
    Ok(())
}

/// The topics that decisions need.
struct Inputs {
    desired: Reader<DesiredApps>,
    volumes: Reader<Volumes>,
    networks: Reader<AppNetworks>,
    controller: Reader<Controller>,
    identities: Reader<Identities>,
}

/// All of them, read at one moment.
struct Now {
    /// `None`: no whole config yet.
    desired: Option<Table<DesiredApps>>,
    volumes: Table<Volumes>,
    networks: Table<AppNetworks>,
    node_name: String,
}

impl Inputs {
    fn read(&self) -> Now {
        let named = self.controller.get(&Only).map(|c| c.node_name).filter(|n| !n.is_empty());
        let id = || self.identities.get(&Only).map(|i| i.id.to_string());
        Now {
            desired: self.desired.is_complete().then(|| self.desired.read()),
            volumes: self.volumes.read(),
            networks: self.networks.read(),
            node_name: named.or_else(id).unwrap_or_default(),
        }
    }
}

/// All apps and what they are doing.
struct Keeper {
    place: Place,
    memories: PathBuf,
    cgroups: PathBuf,
    apps: BTreeMap<AppId, OneApp>,
    ends: UnboundedSender<(AppId, i32)>,
}

struct OneApp {
    state: State,
    memory: Option<Memory>,
    container: Container,
    /// What it was started with, as long as anything of it is there.
    started: Option<Started>,
    told: Decision,
    name: String,
    version: String,
    disable_logs: bool,
    used: AppUse,
}

impl Default for OneApp {
    fn default() -> Self {
        OneApp {
            state: State::default(),
            memory: None,
            container: Container::None,
            started: None,
            told: Decision { act: None, state: None, problem: None, wake: None },
            name: String::new(),
            version: String::new(),
            disable_logs: false,
            used: AppUse::default(),
        }
    }
}

impl Keeper {
    /// Finds what an earlier run remembered, and what it left running.
    fn new(ctx: &Context, ends: UnboundedSender<(AppId, i32)>) -> anyhow::Result<Keeper> {
        let bundles = ctx.paths.run.with_file_name("eve-apps");
        let memories = ctx.paths.persist.join("apps");
        for dir in [&bundles, &memories] {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let place = Place {
            crun: Crun::new(ctx.paths.run.with_file_name("crun")),
            bundles,
            logs: ctx.paths.run.join("log"),
        };
        let cgroups = PathBuf::from("/sys/fs/cgroup/eve/apps");
        let mut keeper = Keeper { place, memories, cgroups, apps: BTreeMap::new(), ends };
        for (id, memory) in remembered(&keeper.memories) {
            keeper.apps.entry(id).or_default().memory = Some(memory);
        }
        for id in keeper.place.all() {
            keeper.adopt(id);
        }
        Ok(keeper)
    }

    /// Takes over what an earlier run started.
    fn adopt(&mut self, id: AppId) {
        let started = self.place.started(id);
        let container = match (self.place.crun.look(&id.to_string()), &started) {
            (Ok(Known::Running { pid }), Some(started)) if self.watch(id, pid) => {
                tracing::info!(app = %id, name = started.app.name, "found running");
                let with = Box::new(started.app.clone());
                Container::Running { with, since: started.since }
            }
            // Half started, ended unseen, or not to be understood: cleared away and begun anew.
            _ => Container::Ended { status: -1 },
        };
        let one = self.apps.entry(id).or_default();
        if let Some(started) = &started {
            one.name.clone_from(&started.app.name);
            one.version.clone_from(&started.app.version);
            one.disable_logs = started.app.disable_logs;
        }
        one.container = container;
        one.started = started;
    }

    /// Whether the process is there and its end will be told.
    fn watch(&self, id: AppId, pid: u32) -> bool {
        let end = match End::of(pid) {
            Ok(end) => end,
            Err(e) => {
                tracing::warn!(app = %id, pid, "cannot watch: {e}");
                return false;
            }
        };
        let ends = self.ends.clone();
        tokio::spawn(async move {
            let status = end.status().await;
            let _ = ends.send((id, status)); // closed: the service ends
        });
        true
    }

    fn note_end(&mut self, id: AppId, status: i32) {
        if let Some(one) = self.apps.get_mut(&id)
            && matches!(one.container, Container::Running { .. })
        {
            tracing::info!(app = %id, name = one.name, status, "ended");
            one.container = Container::Ended { status };
        }
    }

    /// Decides and acts for every app until nothing is left to do. When to look again.
    async fn settle(&mut self, now: &Now, node_stops: bool) -> Option<UnixMillis> {
        let wanted = now.desired.iter().flat_map(|d| d.keys());
        let ids: BTreeSet<AppId> = self.apps.keys().chain(wanted).copied().collect();
        for id in ids {
            let desired = now.desired.as_ref().and_then(|d| d.get(&id));
            // Before the first whole config a missing app means nothing.
            if desired.is_none() && now.desired.is_none() && !node_stops {
                continue;
            }
            self.settle_one(id, desired, now, node_stops).await;
        }
        // What is remembered is not forgotten only because no config spoke of it yet.
        self.apps.retain(|_, one| {
            one.memory.is_some() || one.told.state.is_some() || one.container != Container::None
        });
        self.apps.values().filter_map(|one| one.told.wake).min()
    }

    async fn settle_one(&mut self, id: AppId, desired: Option<&App>, now: &Now, node_stops: bool) {
        for _ in 0..ACTS_MAX {
            let one = self.apps.entry(id).or_default();
            if let Some(app) = desired {
                one.name.clone_from(&app.name);
                one.version.clone_from(&app.version);
                one.disable_logs = app.disable_logs;
            }
            let view = View {
                desired,
                memory: one.memory,
                container: &one.container,
                volumes: &now.volumes,
                network: now.networks.get(&id),
                node_stops,
                now: host::clock::now(),
                uptime: host::clock::since_boot(),
            };
            let before = one.told.state.clone();
            let (state, decision) = decide(std::mem::take(&mut one.state), &view, jitter());
            one.state = state;
            one.told = decision.clone();
            tell(id, one, before);
            let Some(act) = decision.act else { return };
            if let Err(why) = self.act(id, act, desired, now).await {
                tracing::warn!(app = %id, "{}", why.text);
                let one = self.apps.entry(id).or_default();
                let state = std::mem::take(&mut one.state);
                one.state = state.failed(why.clone(), host::clock::now(), jitter());
                one.told.problem = Some(why);
                // It is tried again when something wakes us, at the latest after the pause.
                let soon = host::clock::now().after(Duration::from_secs(1));
                one.told.wake = Some(one.told.wake.unwrap_or(soon));
                return;
            }
        }
        tracing::error!(app = %id, "does not come to rest; looked at again later");
    }

    async fn act(
        &mut self,
        id: AppId,
        act: Act,
        desired: Option<&App>,
        now: &Now,
    ) -> Result<(), Problem> {
        match act {
            Act::Remember(memory) => {
                let text = serde_json::to_vec(&Saved::V1(memory)).unwrap_or_default();
                store::save(&self.memories, &memory_name(id), &text)
                    .map_err(|e| StartError::Save(e).problem(host::clock::now()))?;
                self.apps.entry(id).or_default().memory = Some(memory);
                Ok(())
            }
            Act::Forget => {
                store::remove(&self.memories, &memory_name(id))
                    .map_err(|e| StartError::Save(e).problem(host::clock::now()))?;
                let _ = std::fs::remove_file(self.place.log_pipe(id)); // may never have been made
                self.apps.entry(id).or_default().memory = None;
                Ok(())
            }
            Act::Start => match desired {
                Some(app) => self.start(app, now).await,
                None => Ok(()),
            },
            Act::Term => {
                let signal = self.apps.get(&id).and_then(|o| o.started.as_ref());
                let signal = signal.map_or_else(|| "TERM".to_owned(), |s| s.stop_signal.clone());
                self.signal(id, signal).await;
                Ok(())
            }
            Act::Kill => {
                self.signal(id, "KILL".to_owned()).await;
                Ok(())
            }
            Act::Clear => {
                let place = self.place.clone();
                blocking(move || place.clear(id)).await?;
                let one = self.apps.entry(id).or_default();
                one.container = Container::None;
                one.started = None;
                one.used = AppUse::default();
                Ok(())
            }
        }
    }

    /// A signal that does not arrive is sent again by the clock; a process that is gone is told by
    /// its end.
    async fn signal(&self, id: AppId, signal: String) {
        let crun = self.place.crun.clone();
        let done = tokio::task::spawn_blocking(move || crun.kill(&id.to_string(), &signal)).await;
        if let Ok(Err(e)) = done {
            tracing::info!(app = %id, "{}", chain(&e));
        }
    }

    async fn start(&mut self, app: &App, now: &Now) -> Result<(), Problem> {
        let ready = |id| match now.volumes.get(&id).map(|v| &v.state) {
            Some(VolumeState::Ready(kind)) => Some(kind.clone()),
            _ => None,
        };
        let start = Start {
            app: app.clone(),
            volumes: app.volumes.iter().filter_map(|v| ready(v.volume)).collect(),
            network: now.networks.get(&app.id).cloned(),
            node_name: now.node_name.clone(),
            now: host::clock::now(),
        };
        let place = self.place.clone();
        let (started, pid) = blocking(move || place.start(start)).await?;
        let watched = self.watch(app.id, pid);
        let one = self.apps.entry(app.id).or_default();
        let with = Box::new(app.clone());
        // A process that ended before we could look at it has ended all the same.
        one.container = if watched {
            Container::Running { with, since: started.since }
        } else {
            Container::Ended { status: -1 }
        };
        tracing::info!(app = %app.id, name = app.name, pid, "started");
        one.started = Some(started);
        one.state = std::mem::take(&mut one.state).started();
        Ok(())
    }

    fn running(&self) -> usize {
        self.apps.values().filter(|one| one.container != Container::None).count()
    }

    /// What running apps use, from their cgroups.
    fn measure(&mut self) {
        for (id, one) in &mut self.apps {
            if !matches!(one.container, Container::Running { .. }) {
                continue;
            }
            let dir = self.cgroups.join(id.to_string());
            let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
            one.used = AppUse {
                cpu_ns: cpu_ns(&read("cpu.stat")),
                memory: Bytes(read("memory.current").trim().parse().unwrap_or_default()),
            };
        }
    }

    fn report(&self) -> Table<Apps> {
        self.apps.iter().filter_map(|(id, one)| Some((*id, one.report(*id)?))).collect()
    }
}

impl OneApp {
    fn report(&self, id: AppId) -> Option<AppStatus> {
        // Adopted, and no config yet: what runs is told, so that its volumes stay.
        let state = self.told.state.clone().or(match &self.container {
            Container::Running { .. } => Some(AppState::Running),
            Container::Ended { .. } => Some(AppState::Halting),
            Container::None => None,
        })?;
        let started = self.started.as_ref();
        let running = matches!(self.container, Container::Running { .. });
        let memory = self.memory.unwrap_or(Memory { restart: 0, purge: 0 });
        let mounted = started.map(|s| s.app.volumes.clone()).unwrap_or_default();
        Some(AppStatus {
            id,
            version: self.version.clone(),
            name: self.name.clone(),
            disable_logs: self.disable_logs,
            state,
            running_since: started.filter(|_| running).map(|s| s.since),
            starts: self.state.starts,
            restart: memory.restart,
            purge: memory.purge,
            volumes: mounted.iter().map(|v| v.volume).collect(),
            mounted,
            used: self.used,
            problem: self.told.problem.clone(),
        })
    }
}

fn tell(id: AppId, one: &OneApp, before: Option<AppState>) {
    let named = |s: &Option<AppState>| s.as_ref().map(std::mem::discriminant);
    if named(&before) != named(&one.told.state) {
        let why = one.told.problem.as_ref().map(|p| p.text.as_str()).unwrap_or("no problem");
        tracing::info!(app = %id, name = one.name, "{:?}: {why}", one.told.state);
    }
}

/// Runs what may take a while beside the thread that answers the watchdog.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(StartError::Interrupted)).map_err(|e| e.problem(host::clock::now()))
}

fn memory_name(id: AppId) -> String {
    format!("{id}.json")
}

fn remembered(dir: &Path) -> Vec<(AppId, Memory)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let one = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let id = name.strip_suffix(".json")?.parse().ok()?;
        let text = store::read_bounded(&entry.path(), MEMORY_MAX).ok()?;
        match serde_json::from_slice(&text) {
            Ok(Saved::V1(memory)) => Some((id, memory)),
            Err(e) => {
                // Its counters are taken as they come: at worst one restart is not done.
                tracing::warn!(app = %id, "what was remembered is unreadable: {e}");
                None
            }
        }
    };
    entries.filter_map(one).collect()
}

/// `usage_usec` of a `cpu.stat`.
fn cpu_ns(text: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix("usage_usec "));
    line.and_then(|v| v.trim().parse::<u64>().ok()).unwrap_or_default().saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_remembered_and_a_damaged_file_harms_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b): (AppId, AppId) = (
            "00000000-0000-4000-8000-000000000060".parse().unwrap(),
            "00000000-0000-4000-8000-000000000061".parse().unwrap(),
        );
        let memory = Memory { restart: 4, purge: 2 };
        let text = serde_json::to_vec(&Saved::V1(memory)).unwrap();
        store::save(dir.path(), &memory_name(a), &text).unwrap();
        store::save(dir.path(), &memory_name(b), b"{\"version\":\"1\",\"rest").unwrap();
        assert_eq!(remembered(dir.path()), [(a, memory)]);
    }

    #[test]
    fn processor_time_is_read_from_the_cgroup() {
        assert_eq!(cpu_ns("usage_usec 12\nuser_usec 7\n"), 12_000);
        assert_eq!(cpu_ns(""), 0);
    }
}
