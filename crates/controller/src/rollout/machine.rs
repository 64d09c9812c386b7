//! The life of a rollout: values in, values out.
//!
//! ```text
//!              all waves through
//!   Running ───────────────────────▶ Done
//!    │ ▲ ▲ ╲ too many failed
//!    │ │ │  ╲──────────▶ Stopped ──┐ roll back (by itself if the plan says so)
//!    ▼ │ └──── resume ──────┘      ├──────────▶ RolledBack
//!   Paused ────────────────────────┘
//! ```
//!
//! A device of the current wave is `Due` until its window opens, then `Taking` the change, then
//! `Passed` or `Failed`. The next wave is due when none of the current one is left, and not more have
//! failed than may.
//!
//! Time is counted, not compared: each step adds what went by since the last one, at most
//! [`STEP_MAX`]. A clock that is set back, or a controller that was away, neither fails a device nor
//! passes it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use model::UnixMillis;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// More than this between two steps is time in which nobody looked.
pub(crate) const STEP_MAX: Duration = Duration::from_secs(60);
/// So many failures are named in the reason of a stop.
const NAMED_MAX: usize = 10;

/// Where a rollout is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Phase {
    /// It goes on by itself.
    Running,
    /// Somebody holds it; devices that have the change keep it.
    Paused {
        /// Why, in words.
        why: String,
    },
    /// It holds itself, or was aborted; devices that have the change keep it.
    Stopped {
        /// Why, in words.
        why: String,
    },
    /// Every device is told what it was told before.
    RolledBack {
        /// Why, in words.
        why: String,
    },
    /// Every device has the change.
    Done,
}

impl Phase {
    /// For people.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Running => "running",
            Phase::Paused { .. } => "paused",
            Phase::Stopped { .. } => "stopped",
            Phase::RolledBack { .. } => "rolled back",
            Phase::Done => "done",
        }
    }

    /// Why it is there, in words; empty if that goes without saying.
    pub fn why(&self) -> &str {
        match self {
            Phase::Paused { why } | Phase::Stopped { why } | Phase::RolledBack { why } => why,
            Phase::Running | Phase::Done => "",
        }
    }

    /// Whether nothing can happen to it any more.
    pub fn is_over(&self) -> bool {
        matches!(self, Phase::Done | Phase::RolledBack { .. })
    }
}

/// Where a device is in a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Step {
    /// Its wave has not come.
    Waiting,
    /// Its wave has come; it gets the change with the next look, or when its window opens.
    Due {
        /// What it waits for, in words.
        note: String,
    },
    /// It was given the change.
    Taking {
        /// Milliseconds since then, as far as somebody looked.
        age: u64,
        /// Milliseconds in which all was well, without a break until now.
        good: u64,
        /// Milliseconds in which something was wrong, without a break until now.
        bad: u64,
        /// How it is, in words.
        note: String,
    },
    /// It has the change, and all is well.
    Passed,
    /// It is not well.
    Failed {
        /// Why, in words.
        why: String,
    },
    /// It is told what it was told before.
    Back,
    /// It was deleted.
    Gone,
}

impl Step {
    fn is_over(&self) -> bool {
        matches!(self, Step::Passed | Step::Failed { .. } | Step::Back | Step::Gone)
    }

    /// Whether the device was given the change and not yet what was before.
    pub(crate) fn has_it(&self) -> bool {
        matches!(self, Step::Taking { .. } | Step::Passed | Step::Failed { .. })
    }

    /// For people.
    pub fn name(&self) -> &'static str {
        match self {
            Step::Waiting => "waiting",
            Step::Due { .. } => "due",
            Step::Taking { .. } => "taking",
            Step::Passed => "passed",
            Step::Failed { .. } => "failed",
            Step::Back => "rolled back",
            Step::Gone => "gone",
        }
    }

    /// What there is to say about it, in words.
    pub fn note(&self) -> &str {
        match self {
            Step::Due { note } | Step::Taking { note, .. } => note,
            Step::Failed { why } => why,
            _ => "",
        }
    }
}

/// A device of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name when the rollout began.
    pub name: String,
    /// Its wave, from 0.
    pub wave: usize,
    /// Where it is.
    #[serde(flatten)]
    pub step: Step,
    /// When it came there.
    pub since: UnixMillis,
}

/// How long a device may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// All must be well for so long.
    pub steady: Duration,
    /// What is wrong may be so for so long before the device counts as failed.
    pub tolerate: Duration,
    /// After so long it counts as failed whatever it does.
    pub limit: Duration,
}

/// A rollout without its devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where it is.
    #[serde(flatten)]
    pub phase: Phase,
    /// The current wave, from 0.
    pub wave: usize,
    /// How many waves there are.
    pub waves: usize,
    /// So many devices may fail.
    pub allowed: usize,
    /// Whether it rolls itself back when it stops.
    pub rollback: bool,
    /// How long a device may take.
    pub limits: Limits,
    /// When somebody looked last.
    pub looked: UnixMillis,
    /// What would be lost if it were rolled back, in words: what others changed meanwhile of what it
    /// takes out. `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub theirs: Option<String>,
}

/// The devices of a rollout.
pub(crate) type Members = BTreeMap<Uuid, Member>;

/// How a device is, judged by its reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// As the gate wants it.
    Good,
    /// On its way; in words.
    NotYet(String),
    /// Something is wrong; in words.
    Bad(String),
    /// It must not be disturbed now; in words. Counts only while it is due.
    Closed(String),
    /// There is no such device any more.
    Gone,
}

/// What happens to a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// How devices are. Those that are not named were not looked at.
    Look(BTreeMap<Uuid, Health>),
    /// Somebody changed what it takes out; in words.
    Overtaken(String),
    /// A person holds it.
    Pause { by: String },
    /// A person lets it go on, as it is.
    Resume { by: String },
    /// A person stops it.
    Abort { by: String },
    /// A person does not wait for the gate of the current wave; with `all` for none.
    Promote { by: String, all: bool },
    /// A person wants back what was before.
    RollBack { by: String },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// These devices get the change.
    Release(Vec<Uuid>),
    /// All devices are told what they were told before; these have had the change.
    RollBack(Vec<Uuid>),
    /// Something to remember: about a device, or about the rollout.
    Say(Option<Uuid>, String),
}

/// Why an event is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rollout is {phase}: {advice}")]
pub struct Refused {
    phase: &'static str,
    advice: Cow<'static, str>,
}

impl State {
    /// A rollout that begins; devices of wave 0 are due.
    pub(crate) fn begin(
        mut members: Members,
        allowed: usize,
        rollback: bool,
        limits: Limits,
        now: UnixMillis,
    ) -> (State, Members) {
        let waves = members.values().map(|m| m.wave + 1).max().unwrap_or_default();
        let phase = if members.is_empty() { Phase::Done } else { Phase::Running };
        let state =
            State { phase, wave: 0, waves, allowed, rollback, limits, looked: now, theirs: None };
        call_up(&mut members, 0, now);
        (state, members)
    }
}

/// How many devices are where.
pub(crate) fn failed(members: &Members) -> usize {
    members.values().filter(|m| matches!(m.step, Step::Failed { .. })).count()
}

/// What becomes of a rollout. Members that an event does not touch come back as they were.
pub(crate) fn step(
    mut state: State,
    mut members: Members,
    now: UnixMillis,
    event: Event,
) -> Result<(State, Members, Vec<Effect>), Refused> {
    let mut effects = Vec::new();
    if state.phase.is_over() {
        return match event {
            Event::Look(_) | Event::Overtaken(_) => Ok((state, members, effects)),
            _ => refused(&state, "begin another one"),
        };
    }
    match event {
        Event::Look(seen) => look(&mut state, &mut members, now, &seen, &mut effects),
        Event::Overtaken(why) => {
            if state.phase == Phase::Running {
                say(&mut effects, format!("paused: {why}"));
                state.phase = Phase::Paused { why };
            }
        }
        Event::Pause { by } => {
            if state.phase != Phase::Running {
                return refused(&state, "only a running one can be paused");
            }
            say(&mut effects, format!("paused by {by}"));
            state.phase = Phase::Paused { why: format!("by {by}") };
        }
        Event::Resume { by } => {
            if state.phase == Phase::Running {
                return refused(&state, "there is nothing to resume");
            }
            accept_failures(&mut state, &members);
            say(&mut effects, format!("resumed by {by}"));
            state.phase = Phase::Running;
        }
        Event::Abort { by } => {
            if matches!(state.phase, Phase::Stopped { .. }) {
                return refused(&state, "nothing of it goes on");
            }
            say(&mut effects, format!("aborted by {by}"));
            state.phase = Phase::Stopped { why: format!("aborted by {by}") };
        }
        Event::Promote { by, all } => {
            accept_failures(&mut state, &members);
            let last = state.waves.saturating_sub(1);
            let to = if all { last } else { (state.wave + 1).min(last) };
            for wave in state.wave..=to {
                call_up(&mut members, wave, now);
            }
            state.wave = to;
            state.phase = Phase::Running;
            let whole = if all { "all waves".to_owned() } else { format!("wave {}", to + 1) };
            say(&mut effects, format!("promoted to {whole} by {by}"));
        }
        Event::RollBack { by } => {
            if let Some(theirs) = &state.theirs {
                let advice = format!(
                    "{theirs}, which would be lost; make each object what it is to be (`eve \
                     history`, `eve rollback`), and promote the rollout to all"
                );
                return refused(&state, advice);
            }
            roll_back(&mut state, &mut members, now, format!("by {by}"), &mut effects);
        }
    }
    Ok((state, members, effects))
}

fn refused<T>(state: &State, advice: impl Into<Cow<'static, str>>) -> Result<T, Refused> {
    Err(Refused { phase: state.phase.name(), advice: advice.into() })
}

fn say(effects: &mut Vec<Effect>, text: String) {
    effects.push(Effect::Say(None, text));
}

/// A person who goes on has seen what failed.
fn accept_failures(state: &mut State, members: &Members) {
    state.allowed = state.allowed.max(failed(members));
}

fn call_up(members: &mut Members, wave: usize, now: UnixMillis) {
    for member in members.values_mut().filter(|m| m.wave == wave && m.step == Step::Waiting) {
        member.step = Step::Due { note: String::new() };
        member.since = now;
    }
}

fn look(
    state: &mut State,
    members: &mut Members,
    now: UnixMillis,
    seen: &BTreeMap<Uuid, Health>,
    effects: &mut Vec<Effect>,
) {
    let elapsed = now.since(state.looked).min(STEP_MAX);
    state.looked = now;
    for (id, health) in seen {
        let Some(member) = members.get_mut(id) else { continue };
        if let Some(next) = observed(&member.step, health, elapsed, &state.limits) {
            if let Step::Failed { why } = &next {
                effects.push(Effect::Say(Some(*id), format!("failed: {why}")));
            }
            // A device that only gets older stays where it is.
            if std::mem::discriminant(&next) != std::mem::discriminant(&member.step) {
                member.since = now;
            }
            member.step = next;
        }
    }
    if state.phase != Phase::Running {
        return;
    }
    if failed(members) > state.allowed {
        let why = too_many(state, members);
        if state.rollback && state.theirs.is_none() {
            roll_back(state, members, now, why, effects);
            return;
        }
        let why = match state.theirs.as_ref().filter(|_| state.rollback) {
            Some(theirs) => format!("{why}; not rolled back: {theirs}"),
            None => why,
        };
        say(effects, format!("stopped: {why}"));
        state.phase = Phase::Stopped { why };
        return;
    }
    let over = |members: &Members, wave: usize| {
        members.values().filter(|m| m.wave <= wave).all(|m| m.step.is_over())
    };
    while over(members, state.wave) {
        if state.wave + 1 >= state.waves {
            say(effects, "done".to_owned());
            state.phase = Phase::Done;
            return;
        }
        state.wave += 1;
        call_up(members, state.wave, now);
        say(effects, format!("wave {} of {}", state.wave + 1, state.waves));
    }
    let mut release = Vec::new();
    for (id, member) in members.iter_mut() {
        let open = matches!(seen.get(id), Some(Health::Good | Health::NotYet(_) | Health::Bad(_)));
        if matches!(member.step, Step::Due { .. }) && open {
            let note = "was just given the change".to_owned();
            member.step = Step::Taking { age: 0, good: 0, bad: 0, note };
            member.since = now;
            release.push(*id);
        }
    }
    if !release.is_empty() {
        effects.push(Effect::Release(release));
    }
}

/// Where a device comes to by what was seen of it. `None`: nothing new.
fn observed(step: &Step, health: &Health, elapsed: Duration, limits: &Limits) -> Option<Step> {
    let (age, good, bad) = match (step, health) {
        (step, Health::Gone) if !step.is_over() => return Some(Step::Gone),
        (Step::Due { .. }, Health::Closed(why)) => return Some(Step::Due { note: why.clone() }),
        (Step::Taking { age, good, bad, .. }, _) => (*age, *good, *bad),
        _ => return None,
    };
    let more = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let age = age.saturating_add(more);
    let long = |ms: u64, limit: Duration| Duration::from_millis(ms) >= limit;
    let next = match health {
        Health::Good => {
            let good = good.saturating_add(more);
            if long(good, limits.steady) {
                return Some(Step::Passed);
            }
            Step::Taking { age, good, bad: 0, note: "well, and watched".to_owned() }
        }
        Health::Bad(why) => {
            let bad = bad.saturating_add(more);
            if long(bad, limits.tolerate) {
                return Some(Step::Failed { why: why.clone() });
            }
            Step::Taking { age, good: 0, bad, note: why.clone() }
        }
        // An open window matters only to who is due.
        Health::NotYet(why) | Health::Closed(why) => {
            Step::Taking { age, good: 0, bad: 0, note: why.clone() }
        }
        Health::Gone => return Some(Step::Gone),
    };
    // Who is well is given the time to prove it.
    if long(age, limits.limit) && *health != Health::Good {
        let minutes = limits.limit.as_secs().div_ceil(60);
        let why = format!("{} (after {minutes} min)", next.note());
        return Some(Step::Failed { why });
    }
    Some(next)
}

fn too_many(state: &State, members: &Members) -> String {
    let failed: Vec<&Member> =
        members.values().filter(|m| matches!(m.step, Step::Failed { .. })).collect();
    let named: Vec<String> =
        failed.iter().take(NAMED_MAX).map(|m| format!("{}: {}", m.name, m.step.note())).collect();
    let more = failed.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let (count, all) = (failed.len(), members.len());
    let allowed = state.allowed;
    format!("{count} of {all} devices failed, {allowed} may: {}{more}", named.join("; "))
}

fn roll_back(
    state: &mut State,
    members: &mut Members,
    now: UnixMillis,
    why: String,
    effects: &mut Vec<Effect>,
) {
    let mut touched = Vec::new();
    for (id, member) in members.iter_mut().filter(|(_, m)| m.step.has_it()) {
        touched.push(*id);
        // Why a device failed stays to be read.
        if !matches!(member.step, Step::Failed { .. }) {
            member.step = Step::Back;
            member.since = now;
        }
    }
    effects.push(Effect::RollBack(touched));
    say(effects, format!("rolled back: {why}"));
    state.phase = Phase::RolledBack { why };
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
