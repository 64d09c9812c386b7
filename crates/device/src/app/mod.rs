//! One app: when it starts, stops, waits and starts again.
//!
//! ```text
//! AwaitingVolumes ─▶ StartDelayed ─▶ AwaitingNetwork ─▶ Booting ─▶ Running
//!                                                          ▲          │ ends by itself
//!        Restarting, Purging, Halting ◀── counters,        └─ Ended ◀─┘ (waits, doubling)
//!        (TERM, 10 s, KILL)               activate
//! ```
//!
//! [`decide`] looks at everything each time and names at most one act; the driver does it and asks
//! again. So a service that starts anew finds a running container running, and nothing depends on
//! which wake-up came first. Invariants: a counter is written down after the container is gone and
//! before it starts again, so a power cut neither loses a restart nor makes a second one; the first
//! value of a counter ever seen is only written down; a running app is never touched because
//! something it needs at its start is missing now.

pub mod oci;

use std::collections::BTreeMap;
use std::time::Duration;

use model::desired::{App, Virtualization, VolumeRef};
use model::reported::{AppNetworkStatus, AppState, VolumeKind, VolumeState, VolumeStatus};
use model::{Diagnosis, Problem, UnixMillis, VolumeId, Who};
use serde::{Deserialize, Serialize};

use crate::backoff::{Backoff, Jitter};

/// Before an app that ended, or could not be started, is started again.
pub const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(300) };
/// An app that ran so long is healthy: its next end counts as the first.
pub const HEALTHY: Duration = Duration::from_secs(600);
/// How long an app may take to end after TERM.
pub const GRACE: Duration = Duration::from_secs(10);

/// What outlives a reboot: the counters that are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The restart counter.
    pub restart: u32,
    /// The purge counter.
    pub purge: u32,
}

/// A [`Memory`] as it stands on the disk; every version that was ever written loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "version")]
pub enum Saved {
    /// The first.
    #[serde(rename = "1")]
    V1(Memory),
}

/// The container, as it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Container {
    /// There is none.
    None,
    /// It runs.
    Running {
        /// The description it was started with.
        with: Box<App>,
        /// Since when.
        since: UnixMillis,
    },
    /// It ended and is not cleared away yet.
    Ended {
        /// Exit status; 128 and more for a signal, -1 if nobody saw it.
        status: i32,
    },
}

/// All that a decision needs.
#[derive(Debug, Clone)]
pub struct View<'a> {
    /// The description. `None`: the app is to go.
    pub desired: Option<&'a App>,
    /// What we remember of it.
    pub memory: Option<Memory>,
    /// The container.
    pub container: &'a Container,
    /// All volumes.
    pub volumes: &'a BTreeMap<VolumeId, VolumeStatus>,
    /// Its network.
    pub network: Option<&'a AppNetworkStatus>,
    /// The node goes down: everything stops, nothing is forgotten.
    pub node_stops: bool,
    /// The wall clock.
    pub now: UnixMillis,
    /// Since the kernel started.
    pub uptime: Duration,
}

/// What is known of an app in this run of the service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Starts in this boot.
    pub starts: u32,
    /// Ends and failed starts in a row.
    pub failures: u32,
    /// Asked to end at this time, or killed at this time.
    asked: Option<Asked>,
    /// Not started again before this.
    pause: Option<Pause>,
}

#[derive(Debug, Clone, PartialEq)]
struct Asked {
    at: UnixMillis,
    kills: u32,
}

#[derive(Debug, Clone, PartialEq)]
struct Pause {
    until: UnixMillis,
    why: Why,
}

impl Pause {
    /// A clock that was set back must not hold an app for longer than any pause is.
    fn counts(&self, now: UnixMillis) -> bool {
        now < self.until && self.until.since(now) <= BACKOFF.longest
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Why {
    Ended(i32),
    Failed(Problem),
}

/// One thing to do; then look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Write this down, durably.
    Remember(Memory),
    /// Mount its root and start it.
    Start,
    /// Ask it to end.
    Term,
    /// End it.
    Kill,
    /// Delete the container and unmount its root.
    Clear,
    /// Forget what was written down: the app is gone.
    Forget,
}

/// What to do, what to say, and when to look again.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// `None`: nothing until something changes.
    pub act: Option<Act>,
    /// Where it is in its life. `None`: it is gone.
    pub state: Option<AppState>,
    /// What stands in the way.
    pub problem: Option<Problem>,
    /// Look again then, even if nothing changed.
    pub wake: Option<UnixMillis>,
}

impl State {
    /// The app was started.
    #[must_use]
    pub fn started(self) -> State {
        State { starts: self.starts.saturating_add(1), pause: None, asked: None, ..self }
    }

    /// Something that was to be done failed.
    #[must_use]
    pub fn failed(self, why: Problem, now: UnixMillis, jitter: Jitter) -> State {
        let failures = self.failures.saturating_add(1);
        let wait = BACKOFF.after(failures, jitter);
        let retry = why.diagnosis.clone().retry_in(wait);
        let why = Why::Failed(Problem { diagnosis: retry, ..why });
        State { failures, pause: Some(Pause { until: now.after(wait), why }), ..self }
    }
}

/// What to do now.
pub fn decide(state: State, view: &View<'_>, jitter: Jitter) -> (State, Decision) {
    let Some(app) = view.desired else { return leave(state, view) };
    if view.node_stops {
        return down(state, view, AppState::Halting, AppState::Halted);
    }
    let Some(memory) = view.memory else {
        let seen = Memory { restart: app.restart, purge: app.purge };
        return (state, Decision { act: Some(Act::Remember(seen)), ..quiet(AppState::Installed) });
    };
    let done = Memory { restart: app.restart, purge: app.purge };
    if memory != done {
        if *view.container == Container::None {
            let state = State { failures: 0, pause: None, asked: None, ..state };
            let act = Some(Act::Remember(done));
            return (state, Decision { act, ..quiet(AppState::Restarting) });
        }
        let told =
            if memory.purge == done.purge { AppState::Restarting } else { AppState::Purging };
        return down(state, view, told.clone(), told);
    }
    if !app.activate {
        return down(state, view, AppState::Halting, AppState::Halted);
    }
    match view.container {
        Container::Running { with, since } => {
            let healthy = view.now.since(*since) >= HEALTHY;
            let failures = if healthy { 0 } else { state.failures };
            let problem = waits_for_restart(with, app, view.now);
            let decision = Decision { problem, ..quiet(AppState::Running) };
            (State { failures, asked: None, pause: None, ..state }, decision)
        }
        Container::Ended { status } => ended(state, *status, view.now, jitter),
        Container::None => up(state, app, view),
    }
}

/// The app is not in the config any more.
fn leave(state: State, view: &View<'_>) -> (State, Decision) {
    if *view.container != Container::None {
        return down(state, view, AppState::Halting, AppState::Halting);
    }
    // While the node goes down a missing description may be a config service that is gone.
    let act = (view.memory.is_some() && !view.node_stops).then_some(Act::Forget);
    (state, Decision { act, state: None, problem: None, wake: None })
}

/// Ends the container: TERM, a while, KILL, clear away.
fn down(
    state: State,
    view: &View<'_>,
    on_the_way: AppState,
    at_rest: AppState,
) -> (State, Decision) {
    match view.container {
        Container::None => (State { asked: None, ..state }, quiet(at_rest)),
        Container::Ended { .. } => {
            let next = State { asked: None, ..state };
            (next, Decision { act: Some(Act::Clear), ..quiet(on_the_way) })
        }
        Container::Running { .. } => {
            let (asked, act) = match state.asked {
                None => (Asked { at: view.now, kills: 0 }, Some(Act::Term)),
                Some(asked) if view.now.since(asked.at) >= GRACE || asked.at > view.now => {
                    (Asked { at: view.now, kills: asked.kills + 1 }, Some(Act::Kill))
                }
                Some(asked) => (asked, None),
            };
            let wake = Some(asked.at.after(GRACE));
            let next = State { asked: Some(asked), ..state };
            (next, Decision { act, wake, ..quiet(on_the_way) })
        }
    }
}

fn ended(state: State, status: i32, now: UnixMillis, jitter: Jitter) -> (State, Decision) {
    let failures = state.failures.saturating_add(1);
    let again = now.after(BACKOFF.after(failures, jitter));
    let pause = Some(Pause { until: again, why: Why::Ended(status) });
    let told = AppState::Ended { status, again };
    let next = State { failures, pause, asked: None, ..state };
    (next, Decision { act: Some(Act::Clear), ..quiet(told) })
}

/// Brings it up, or says what it waits for.
fn up(state: State, app: &App, view: &View<'_>) -> (State, Decision) {
    if let Some(pause) = state.pause.clone().filter(|p| p.counts(view.now)) {
        let told = match pause.why {
            Why::Ended(status) => quiet(AppState::Ended { status, again: pause.until }),
            Why::Failed(why) => Decision { problem: Some(why), ..quiet(AppState::Broken) },
        };
        return (state, Decision { wake: Some(pause.until), ..told });
    }
    if let Some(why) = impossible(app, view.now) {
        return (state, Decision { problem: Some(why), ..quiet(AppState::Broken) });
    }
    let waits = app.volumes.iter().find_map(|v| waits_for_volume(v, view.volumes, view.now));
    if let Some(problem) = waits {
        return (state, Decision { problem, ..quiet(AppState::AwaitingVolumes) });
    }
    if let Some(why) = bad_root(app, view.volumes, view.now) {
        return (state, Decision { problem: Some(why), ..quiet(AppState::Broken) });
    }
    if view.uptime < app.start_delay {
        let wake = Some(view.now.after(app.start_delay - view.uptime));
        return (state, Decision { wake, ..quiet(AppState::StartDelayed) });
    }
    let ready = app.interfaces.is_empty()
        || view.network.is_some_and(|n| n.ready && n.vifs.len() == app.interfaces.len());
    if !ready {
        let problem = view.network.and_then(|n| n.problem.clone());
        return (state, Decision { problem, ..quiet(AppState::AwaitingNetwork) });
    }
    (state, Decision { act: Some(Act::Start), ..quiet(AppState::Booting) })
}

/// What no waiting can heal.
fn impossible(app: &App, now: UnixMillis) -> Option<Problem> {
    let no = |text: &str, advice: &str| {
        Some(Problem::new(text, Diagnosis::of(Who::Operator, advice), now))
    };
    if app.virtualization == Virtualization::Vm {
        return no("this node runs containers only", "run the app as a container");
    }
    if app.volumes.is_empty() {
        return no("the app has no volume to run from", "give it a volume made of its image");
    }
    None
}

fn bad_root(
    app: &App,
    volumes: &BTreeMap<VolumeId, VolumeStatus>,
    now: UnixMillis,
) -> Option<Problem> {
    let root = volumes.get(&app.volumes.first()?.volume)?;
    let fits = matches!(root.state, VolumeState::Ready(VolumeKind::Root { .. }));
    let text = format!("volume {} is no root file system", root.name);
    let why = Diagnosis::of(Who::Operator, "make the app's first volume of an OCI image");
    (!fits).then(|| Problem::new(text, why, now))
}

/// `Some` if a volume is not ready; inside, what stands in its way.
fn waits_for_volume(
    wanted: &VolumeRef,
    volumes: &BTreeMap<VolumeId, VolumeStatus>,
    now: UnixMillis,
) -> Option<Option<Problem>> {
    let Some(volume) = volumes.get(&wanted.volume) else {
        let text = format!("volume {} is not there", wanted.volume);
        let why = Diagnosis::of(Who::Operator, "add the volume to the config, or name another");
        return Some(Some(Problem::new(text, why, now)));
    };
    if volume.generation != wanted.generation {
        let (id, have) = (wanted.volume, volume.generation);
        let text = format!("volume {id} has generation {have}, not {}", wanted.generation);
        let why = Diagnosis::of(Who::Operator, "give volume and app the same generation");
        return Some(Some(Problem::new(text, why, now)));
    }
    let ready = matches!(volume.state, VolumeState::Ready(_));
    (!ready).then(|| volume.problem.clone())
}

/// What was changed and takes effect at the next start only (EVE API, apps).
fn waits_for_restart(with: &App, app: &App, now: UnixMillis) -> Option<Problem> {
    let mut changed = Vec::new();
    let mut differs = |what: &'static str, yes: bool| changed.extend(yes.then_some(what));
    differs("volumes", with.volumes != app.volumes);
    differs("memory", with.memory != app.memory);
    differs("processors", with.vcpus != app.vcpus);
    differs("environment", with.environment != app.environment);
    differs("virtualization", with.virtualization != app.virtualization);
    differs("interfaces", shape(with) != shape(app));
    if changed.is_empty() {
        return None;
    }
    let text = format!("{} changed and will be used at the next start", changed.join(", "));
    let advice = "restart the app; purge it if its volumes changed";
    Some(Problem::new(text, Diagnosis::of(Who::Operator, advice), now))
}

/// Rules apply live; the rest of an interface does not.
fn shape(app: &App) -> Vec<impl PartialEq> {
    app.interfaces.iter().map(|i| (i.name.clone(), i.network, i.mac, i.address)).collect()
}

fn quiet(state: AppState) -> Decision {
    Decision { act: None, state: Some(state), problem: None, wake: None }
}

#[cfg(test)]
mod tests;
