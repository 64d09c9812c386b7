//! The hands of rollouts: begins them, looks at devices, lets the machine decide, and writes what it
//! decided together with what follows from it, or nothing.
//!
//! One process does this at a time (a lease); should two do, the version of a rollout lets one of
//! them write. Nothing is kept in memory that another process needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uuid::Uuid;

use super::calendar::{self, Calendar, labels};
use super::judge::{self, health};
use super::machine::{Effect, Event, Health, Member, Members, Phase, Refused, State, Step, step};
use super::plan::{Plan, Share, Wanted, Wave, divide};
use super::record::{About, Record, Rollout, Taken};
use crate::db::{Also, Change, DbError, Overlaid, Policies, RolloutRow, StoredObject};
use crate::drift::said::Said;
use crate::drift::{Facts, liveness};
use crate::fleet::{Fleet, FleetError, How, Known};
use crate::objects::{
    self, Key, Kind, Object, Objects, Query, QueryError, Spec, bumps, content_of,
};

const LEASE: &str = "fleet";
const LEASE_TERM: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_secs(1);
/// A look takes at most this part of the time.
const SHARE: u32 = 4;
/// So often somebody may be faster in a row.
const TRIES: usize = 8;
/// So many devices are named in an error.
const NAMED_MAX: usize = 5;

/// Why a rollout could not be begun, or told something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RolloutError {
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{field}: {source}")]
    Query { field: &'static str, source: QueryError },
    #[error("{0:?} is no name; use 1 to 63 small letters, digits and `-`")]
    Name(String),
    #[error("there is no rollout {0}")]
    Unknown(String),
    #[error("there is a rollout {0} already")]
    Exists(String),
    #[error("no device is told of {0}: apply it, and leave it out of the rollout")]
    Policy(Key),
    #[error("the documents change nothing that any device is told")]
    Nothing,
    #[error("the change touches devices outside of `match`: {0}")]
    Outside(String),
    #[error("waves: none of the devices that the change touches matches {0:?}")]
    Unmatched(String),
    #[error("waves: a wave of {0} is none; leave it out, or write a number or a share above 0")]
    Empty(Share),
    #[error("{key} is held back from {device} already: it {why}; {end}")]
    Held { key: Key, device: String, why: String, end: String },
}

impl From<DbError> for RolloutError {
    fn from(e: DbError) -> RolloutError {
        RolloutError::Fleet(e.into())
    }
}

/// Looks after rollouts, windows and scheduled changes; ends never.
pub(crate) async fn keep(fleet: &Fleet) {
    let holder = Uuid::new_v4().to_string();
    loop {
        let began = tokio::time::Instant::now();
        if let Err(e) = tick(fleet, &holder).await {
            tracing::error!("rollouts: {}", model::chain(&e));
        }
        tokio::time::sleep(TICK.max(began.elapsed() * SHARE)).await;
    }
}

async fn tick(fleet: &Fleet, holder: &str) -> Result<(), RolloutError> {
    // Who has nothing to do writes nothing.
    let idle = fleet.db.rollouts(true).await?.is_empty()
        && fleet.db.scheduled(Some(fleet.now())).await?.is_empty()
        && fleet.look(|known| known.held_by(calendar::HOLDER).next().is_none());
    if idle || !fleet.db.lease(LEASE, holder, fleet.now(), LEASE_TERM).await? {
        return Ok(());
    }
    super::schedule::run_due(fleet).await?;
    calendar::let_go(fleet).await?;
    for row in fleet.db.rollouts(true).await? {
        let name = row.name.clone();
        if let Err(e) = look(fleet, row).await {
            tracing::error!("rollout {name}: {}", model::chain(&e));
        }
    }
    Ok(())
}

/// Reads a rollout whole.
pub(crate) async fn record(fleet: &Fleet, name: &str) -> Result<Record, RolloutError> {
    let row = fleet.db.rollout(name).await?;
    let row = row.ok_or_else(|| RolloutError::Unknown(name.to_owned()))?;
    let members = fleet.db.rollout_members(name).await?;
    Ok(Record::of(row, members)?)
}

/// Tells a rollout something.
pub(crate) async fn tell(fleet: &Fleet, name: &str, event: Event) -> Result<Rollout, RolloutError> {
    for _ in 0..TRIES {
        let record = record(fleet, name).await?;
        if go_on(fleet, &record, event.clone()).await? {
            return Ok(self::record(fleet, name).await?.shown(true));
        }
    }
    Err(FleetError::Faster.into())
}

async fn look(fleet: &Fleet, row: RolloutRow) -> Result<(), RolloutError> {
    fleet.store_taken().await?;
    let members = fleet.db.rollout_members(&row.name).await?;
    let record = Record::of(row, members)?;
    if let Some(why) = overtaken(fleet, &record).await? {
        // If somebody was faster, the next look sees it.
        return go_on(fleet, &record, Event::Overtaken(why)).await.map(drop);
    }
    let calendar = Calendar::read(&fleet.db).await?;
    let mut seen = BTreeMap::new();
    for (id, member) in &record.members {
        let health = match &member.step {
            Step::Due { .. } => due(fleet, &calendar, *id),
            Step::Taking { .. } => taking(fleet, &record, *id, member).await?,
            _ => continue,
        };
        seen.insert(*id, health);
    }
    if seen.is_empty() && record.state.phase != Phase::Running {
        // It waits for a person: nothing comes of a look.
        return Ok(());
    }
    go_on(fleet, &record, Event::Look(seen)).await.map(drop)
}

/// Who changed meanwhile what a rollout takes out, in words.
async fn overtaken(fleet: &Fleet, record: &Record) -> Result<Option<String>, DbError> {
    for taken in &record.about.objects {
        let is = || fleet.look(|known| known.stored.get(&taken.key).is_some_and(|s| taken.is(s)));
        if is() {
            continue;
        }
        // The rollout may be newer than what this process has heard of.
        fleet.follow().await?;
        if is() {
            continue;
        }
        let there = fleet.look(|known| known.stored.contains_key(&taken.key));
        let by = last_author(fleet, &taken.key).await?;
        let what = if there { "changed" } else { "deleted" };
        return Ok(Some(format!("{} was {what} by {by} meanwhile", taken.key)));
    }
    Ok(None)
}

async fn last_author(fleet: &Fleet, key: &Key) -> Result<String, DbError> {
    let last = fleet.db.versions(key, u64::MAX, 1).await?.pop();
    let by = last.map(|version| version.author).filter(|author| !author.is_empty());
    Ok(by.unwrap_or_else(|| "somebody".to_owned()))
}

/// What others changed meanwhile of the objects that a rollout takes out and that are there: who
/// rolled them back would lose it.
async fn theirs(fleet: &Fleet, about: &About) -> Result<BTreeMap<Key, String>, DbError> {
    let mut all = BTreeMap::new();
    for taken in &about.objects {
        let changed = fleet.look(|known| known.stored.get(&taken.key).map(|s| !taken.is(s)));
        match (changed, &taken.theirs) {
            (Some(true), _) => {
                all.insert(taken.key.clone(), last_author(fleet, &taken.key).await?);
            }
            (Some(false), Some(by)) => {
                all.insert(taken.key.clone(), by.clone());
            }
            _ => {}
        }
    }
    Ok(all)
}

/// The same in words.
fn in_words(theirs: &BTreeMap<Key, String>) -> Option<String> {
    let named: Vec<String> =
        theirs.iter().map(|(key, by)| format!("{key} was changed by {by} meanwhile")).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

fn due(fleet: &Fleet, calendar: &Calendar, id: Uuid) -> Health {
    let known = fleet.known();
    let Some(stored) = known.object_of(id) else { return Health::Gone };
    calendar.closed(&labels(&known, stored), fleet.now()).map_or(Health::Good, Health::Closed)
}

async fn taking(
    fleet: &Fleet,
    record: &Record,
    id: Uuid,
    member: &Member,
) -> Result<Health, RolloutError> {
    let (told, silent) = {
        let known = fleet.known();
        let Some(told) = fleet.compiled(&known, id) else { return Ok(Health::Gone) };
        (told, is_silent(fleet, &known, id))
    };
    let (ready, taken) = fleet.is_taken(&told).await?;
    let said = Said::read(&fleet.db.infos(id).await?);
    let seen = fleet.last_seen(id);
    let facts = Facts { told: &told, ready, taken, said: &said, seen, silent, held: &[] };
    let apps = record.about.objects.iter().filter(|o| o.key.kind == Kind::App);
    let apps = apps.map(|o| o.key.name.clone()).collect();
    let about = judge::About { apps, since: member.since };
    Ok(health(&facts, &about, &record.about.plan.gate))
}

/// Whether a node has not been heard of for longer than its patience.
pub(crate) fn is_silent(fleet: &Fleet, known: &Known, id: Uuid) -> bool {
    let spec = match known.object_of(id).map(|s| &s.object.spec) {
        Some(Spec::Device(spec)) => Some(spec),
        _ => None,
    };
    let seen = fleet.last_seen(id);
    seen.is_none_or(|at| fleet.now().since(at) > liveness::patience(spec))
}

/// Lets the machine decide and writes what it decided; false if somebody was faster.
async fn go_on(fleet: &Fleet, record: &Record, event: Event) -> Result<bool, RolloutError> {
    let now = fleet.now();
    let by = match &event {
        Event::Pause { by }
        | Event::Resume { by }
        | Event::Abort { by }
        | Event::Promote { by, .. }
        | Event::RollBack { by } => by.clone(),
        Event::Look(_) | Event::Overtaken(_) => "controller".to_owned(),
    };
    if matches!(event, Event::Resume { .. } | Event::Promote { .. } | Event::RollBack { .. }) {
        // Another process may have changed something a moment ago.
        fleet.follow().await?;
    }
    let others = theirs(fleet, &record.about).await?;
    let mut about = record.about.clone();
    if matches!(event, Event::Resume { .. } | Event::Promote { .. }) {
        // Who goes on takes what others changed as it is.
        fleet.look(|known| {
            about.objects.retain_mut(|taken| {
                let Some(stored) = known.stored.get(&taken.key) else { return false };
                let by = others.get(&taken.key).cloned();
                *taken = Taken { theirs: by, ..Taken::of(stored) };
                true
            });
        });
    }
    let (mut state, members) = (record.state.clone(), record.members.clone());
    if !state.phase.is_over() {
        state.theirs = in_words(&others);
    }
    let (state, members, effects) = step(state, members, now, event)?;
    if (&state, &members, &about) == (&record.state, &record.members, &record.about) {
        return Ok(true);
    }
    let write = record.went_on(&about, &state, &members)?;
    let object = format!("Rollout {}", record.row.name);
    let mut said = Change::by(&by, now);
    for effect in &effects {
        if let Effect::Say(device, text) = effect {
            said.log(*device, &object, text);
        }
    }
    let mut fleetwide = false;
    let mut before = Vec::new();
    for effect in &effects {
        fleetwide |= !matches!(effect, Effect::Say(..));
        if matches!(effect, Effect::RollBack(_)) {
            before = versions_before(fleet, &record.about).await?;
        }
    }
    if fleetwide {
        let done = fleet
            .change(|known| {
                let mut change = Change { logged: said.logged.clone(), ..Change::by(&by, now) };
                change.also.push(Also::Rollout(Box::new(write.clone())));
                for effect in &effects {
                    match effect {
                        Effect::Release(ids) => {
                            release(fleet, known, &record.row.name, ids, &mut change);
                        }
                        Effect::RollBack(ids) => {
                            roll_back(known, record, &before, ids, &mut change)?;
                        }
                        Effect::Say(..) => {}
                    }
                }
                let empty = change.is_empty();
                Ok((change, !empty))
            })
            .await;
        match done {
            Ok(true) => return Ok(true),
            // There was nothing to hold back or to take back.
            Ok(false) => {}
            Err(FleetError::Faster) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
    }
    let written = fleet.db.write_rollout(&write, &said).await?;
    if written {
        fleet.touch();
    }
    Ok(written)
}

fn holder(name: &str) -> String {
    format!("rollout {name}")
}

fn release(fleet: &Fleet, known: &Known, name: &str, ids: &[Uuid], change: &mut Change) {
    let holder = holder(name);
    for id in ids {
        let free = fleet.let_go(known, *id, &known.objects, Some(&holder));
        change.overlays.extend(free.into_iter().flat_map(|free| free.rows));
    }
}

/// The objects of a rollout as they were before it.
async fn versions_before(
    fleet: &Fleet,
    about: &About,
) -> Result<Vec<(Key, Option<StoredObject>)>, DbError> {
    let mut all = Vec::new();
    for taken in &about.objects {
        let uid = fleet.look(|known| known.stored.get(&taken.key).map(|s| s.object.uid));
        // What is gone stays gone.
        let Some(uid) = uid else { continue };
        let before = fleet.db.object_as_of(&taken.key, about.base, uid).await?;
        all.push((taken.key.clone(), before));
    }
    Ok(all)
}

/// Everything is as it was before. Devices that had the change get counters above all they saw:
/// they must start again what they run; the others never knew, and nothing happens to them. If
/// somebody changed one of the objects a moment ago, it is to be decided again.
fn roll_back(
    known: &Known,
    record: &Record,
    before: &[(Key, Option<StoredObject>)],
    touched: &[Uuid],
    change: &mut Change,
) -> Result<(), FleetError> {
    let mut then: Objects = known.objects.clone();
    for (key, old) in before {
        match old {
            Some(old) => then.insert(key.clone(), old.object.clone()),
            None => then.remove(key),
        };
    }
    for taken in record.about.objects.iter().filter(|t| !known.stored.contains_key(&t.key)) {
        change.log(None, &taken.key, "stays deleted: somebody deleted it meanwhile");
    }
    let holder = holder(&record.row.name);
    let mut more: BTreeMap<&Key, (u32, u32)> = BTreeMap::new();
    for (key, old) in before {
        let Some(now) = known.stored.get(key) else { continue };
        let mine = record.about.objects.iter().find(|o| o.key == *key);
        if mine.is_none_or(|o| !o.is(now)) {
            return Err(FleetError::Faster);
        }
        match old {
            Some(old) => {
                more.insert(key, counters(known, &then, &now.object, &old.object));
                let object = Object {
                    uid: now.object.uid,
                    generation: now.object.generation + 1,
                    ..Object::clone(&old.object)
                };
                let written = old.written.clone();
                change.put.push(StoredObject {
                    object: object.into(),
                    written,
                    changed: change.at,
                });
            }
            // A node stays known: it may have registered.
            None if key.kind == Kind::Device => {}
            None => change.removed.push(key.clone()),
        }
    }
    let touched: BTreeSet<&Uuid> = touched.iter().collect();
    for id in record.members.keys() {
        let had = |key: &Key| known.overlay(*id).and_then(|o| o.get(key)).map(|h| &h.said);
        for (key, _) in before.iter().filter(|(key, _)| !change.removed.contains(key)) {
            let had = had(key);
            let (restart, purge) = match more.get(key) {
                Some(more) if touched.contains(id) => *more,
                _ => (0, 0),
            };
            let ours = had.is_some_and(|h| h.holder == holder);
            if restart == 0 && purge == 0 && !ours {
                continue;
            }
            change.overlays.push(Overlaid {
                device: *id,
                key: key.clone(),
                as_of: None,
                restart: had.map_or(0, |h| h.restart).wrapping_add(restart),
                purge: had.map_or(0, |h| h.purge).wrapping_add(purge),
                holder: String::new(),
                why: String::new(),
                since: change.at,
            });
        }
    }
    Ok(())
}

/// What a device's counters need above the old ones so that it takes the old version: the distance
/// that it has come, and one more where the way back needs it.
fn counters(known: &Known, then: &Objects, now: &Object, old: &Object) -> (u32, u32) {
    let (Spec::App(is), Spec::App(was)) = (&now.spec, &old.spec) else { return (0, 0) };
    let need = bumps(is, was);
    let other = content_of(&known.objects, is, now.pinned) != content_of(then, was, old.pinned);
    let restart = now.restart.saturating_sub(old.restart);
    let purge = now.purge.saturating_sub(old.purge);
    (
        restart.saturating_add(need.restart.into()),
        purge.saturating_add((need.purge || other).into()),
    )
}

/// Begins a rollout; with `dry_run` only says what it would be.
pub(crate) async fn begin(
    fleet: &Fleet,
    name: &str,
    plan: &Plan,
    author: &str,
    dry_run: bool,
) -> Result<Rollout, RolloutError> {
    if !objects::is_name(name) {
        return Err(RolloutError::Name(name.to_owned()));
    }
    if fleet.db.rollout(name).await?.is_some() {
        return Err(RolloutError::Exists(name.to_owned()));
    }
    let groups = calendar::queries(&fleet.db).await?;
    let query = |field, text: &str| {
        Query::parse(text, &groups).map_err(|source| RolloutError::Query { field, source })
    };
    let within = query("match", &plan.devices)?;
    let waves = plan.waves.iter().map(|wave| match wave {
        // Without it the rest would come first: all nodes at once.
        Wave::Size(share @ (Share::Count(0) | Share::Percent(0))) => {
            Err(RolloutError::Empty(*share))
        }
        Wave::Size(share) => Ok(Wanted::Size(*share)),
        Wave::Match { devices } => query("waves.match", devices).map(Wanted::Match),
    });
    let waves = waves.collect::<Result<Vec<_>, RolloutError>>()?;
    let documents = objects::read(&plan.documents).map_err(FleetError::from)?;
    if let Some(document) = documents.iter().find(|d| d.key.kind.is_policy()) {
        return Err(RolloutError::Policy(document.key.clone()));
    }
    let now = fleet.now();
    let none = Policies::default();
    let decided = fleet
        .change(|known| {
            let by = (author, now);
            let (mut change, _) = fleet.applied(known, &none, &documents, &How::default(), by)?;
            let outcome = begun(fleet, known, (name, plan), (&within, &waves), &mut change);
            let dry = dry_run || outcome.is_err();
            Ok((if dry { Change::default() } else { change }, outcome))
        })
        .await;
    match decided {
        Ok(record) => Ok(record?.shown(true)),
        Err(FleetError::Faster) => Err(RolloutError::Exists(name.to_owned())),
        Err(e) => Err(e.into()),
    }
}

/// Adds to a change what makes a rollout of it.
fn begun(
    fleet: &Fleet,
    known: &Known,
    (name, plan): (&str, &Plan),
    (within, waves): (&Query, &[Wanted]),
    change: &mut Change,
) -> Result<Record, RolloutError> {
    let mut next: Objects = known.objects.clone();
    for stored in &change.put {
        next.insert(stored.object.key.clone(), stored.object.clone());
    }
    let mut touched: Vec<&StoredObject> = Vec::new();
    let mut outside = Vec::new();
    for stored in known.of_kind(Kind::Device) {
        let after = next.get(&stored.object.key).and_then(|d| fleet.would_tell(known, d, &next));
        let before = fleet.would_tell(known, &stored.object, &known.objects);
        if before == after {
            continue;
        }
        if within.fits(&labels(known, stored)) {
            touched.push(stored);
        } else {
            outside.push(stored.object.key.name.clone());
        }
    }
    if !outside.is_empty() {
        let more = outside.len().saturating_sub(NAMED_MAX);
        outside.truncate(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return Err(RolloutError::Outside(format!("{}{more}", outside.join(", "))));
    }
    if touched.is_empty() || change.put.is_empty() {
        return Err(RolloutError::Nothing);
    }
    let all: Vec<_> = touched.iter().map(|s| labels(known, s)).collect();
    for (wave, wanted) in plan.waves.iter().zip(waves) {
        if let (Wave::Match { devices }, Wanted::Match(query)) = (wave, wanted)
            && !all.iter().any(|l| query.fits(l))
        {
            return Err(RolloutError::Unmatched(devices.clone()));
        }
    }
    let of = divide(all.len(), waves, |at, query| all.get(at).is_some_and(|l| query.fits(l)));
    let member = |(stored, wave): (&&StoredObject, usize)| {
        let (name, step) = (stored.object.key.name.clone(), Step::Waiting);
        (stored.object.uid, Member { name, wave, step, since: change.at })
    };
    let members: Members = touched.iter().zip(of).map(member).collect();
    let allowed = plan.allowed(members.len());
    let limits = plan.gate.limits();
    let (state, members) = State::begin(members, allowed, plan.rollback, limits, change.at);
    for stored in &touched {
        hold(known, name, stored, change)?;
    }
    let taken = change.put.iter().map(Taken::of);
    let about = About { plan: plan.clone(), base: known.revision, objects: taken.collect() };
    let row = RolloutRow {
        name: name.to_owned(),
        plan: String::new(),
        state: String::new(),
        version: 0,
        author: change.author.clone(),
        created: change.at,
        open: true,
    };
    let none = Record { row, about, state, members: Members::new() };
    let write = none.went_on(&none.about, &none.state, &members)?;
    change.also.push(Also::Rollout(Box::new(write)));
    change.log(None, format!("Rollout {name}"), "begun");
    Ok(Record { members, ..none })
}

/// Holds everything that the change puts back from a device.
fn hold(
    known: &Known,
    name: &str,
    stored: &StoredObject,
    change: &mut Change,
) -> Result<(), RolloutError> {
    let id = stored.object.uid;
    let own = &stored.object.key;
    for put in &change.put {
        let key = &put.object.key;
        if key.kind == Kind::Device && key != own {
            continue;
        }
        let had = known.overlay(id).and_then(|o| o.get(key)).map(|h| &h.said);
        if let Some(held) = had.filter(|h| h.as_of.is_some()) {
            let end = match held.holder.split_once(' ') {
                Some(("rollout", name)) => format!(
                    "end that rollout first, with `eve rollout promote {name}` or `eve rollout \
                     rollback {name}`"
                ),
                _ => {
                    "begin after that, or take the window away with `eve window delete`".to_owned()
                }
            };
            let (key, device) = (key.clone(), own.name.clone());
            return Err(RolloutError::Held { key, device, why: held.why.clone(), end });
        }
        change.overlays.push(Overlaid {
            device: id,
            key: key.clone(),
            as_of: Some(known.revision),
            restart: had.map_or(0, |h| h.restart),
            purge: had.map_or(0, |h| h.purge),
            holder: holder(name),
            why: format!("waits for its wave of the rollout {name}"),
            since: change.at,
        });
    }
    Ok(())
}
