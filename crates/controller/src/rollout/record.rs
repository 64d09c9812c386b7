//! A rollout as it is kept and as it is shown.

use model::{DeviceId, UnixMillis};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::machine::{Member, Members, State, Step};
use super::plan::Plan;
use crate::db::{DbError, RolloutRow, RolloutWrite, StoredObject};
use crate::objects::{Key, Object};

/// An object that a rollout takes out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    #[serde(flatten)]
    pub(crate) key: Key,
    /// Its generation: another one is somebody else's.
    pub(crate) generation: u64,
    /// Its id, and what its image meant: it was deleted and made anew, or applied with the same words
    /// for another image, if they are others. `None`: controllers before this one did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mark: Option<String>,
    /// Who changed it while the rollout ran, and whose version the rollout went on with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) theirs: Option<String>,
}

impl Taken {
    /// An object as the rollout takes it out.
    pub(crate) fn of(stored: &StoredObject) -> Taken {
        let object = &stored.object;
        Taken {
            key: object.key.clone(),
            generation: object.generation,
            mark: Some(mark(object)),
            theirs: None,
        }
    }

    /// Whether the object still is what the rollout takes out.
    pub(crate) fn is(&self, stored: &StoredObject) -> bool {
        let object = &stored.object;
        self.generation == object.generation
            && self.mark.as_ref().is_none_or(|was| *was == mark(object))
    }
}

fn mark(object: &Object) -> String {
    let pinned = object.pinned.map(|digest| digest.to_string()).unwrap_or_default();
    format!("{} {pinned}", object.uid)
}

/// What a rollout is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) plan: Plan,
    /// Everything was as it was before at this revision.
    pub(crate) base: u64,
    pub(crate) objects: Vec<Taken>,
}

/// A rollout, read whole.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) row: RolloutRow,
    pub(crate) about: About,
    pub(crate) state: State,
    pub(crate) members: Members,
}

fn damaged(name: &str, e: &serde_json::Error) -> DbError {
    DbError::Damaged { what: format!("rollout {name}"), why: e.to_string() }
}

fn json(name: &str, value: &impl Serialize) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|e| damaged(name, &e))
}

/// The revision that a rollout may go back to.
pub(crate) fn base_of(row: &RolloutRow) -> Result<u64, DbError> {
    let about: About = serde_json::from_str(&row.plan).map_err(|e| damaged(&row.name, &e))?;
    Ok(about.base)
}

impl Record {
    pub(crate) fn of(row: RolloutRow, members: Vec<(Uuid, String)>) -> Result<Record, DbError> {
        let wrong = |e: serde_json::Error| damaged(&row.name, &e);
        let about = serde_json::from_str(&row.plan).map_err(wrong)?;
        let state = serde_json::from_str(&row.state).map_err(wrong)?;
        let members = members.into_iter().map(|(id, text)| {
            serde_json::from_str(&text).map(|member| (id, member)).map_err(wrong)
        });
        let members = members.collect::<Result<_, _>>()?;
        Ok(Record { about, state, members, row })
    }

    /// What is to be written when it goes on to another state.
    pub(crate) fn went_on(
        &self,
        about: &About,
        state: &State,
        members: &Members,
    ) -> Result<RolloutWrite, DbError> {
        let name = &self.row.name;
        let row = RolloutRow {
            plan: json(name, about)?,
            state: json(name, state)?,
            open: !state.phase.is_over(),
            ..self.row.clone()
        };
        let moved = members.iter().filter(|(id, m)| self.members.get(id) != Some(m));
        let moved = moved.map(|(id, m)| Ok((*id, json(name, m)?)));
        Ok(RolloutWrite { row, members: moved.collect::<Result<_, DbError>>()? })
    }
}

/// A rollout, for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its name.
    pub name: String,
    /// `running`, `paused`, `stopped`, `rolled back` or `done`.
    pub phase: String,
    /// Why it is there, in words; empty if that goes without saying.
    pub why: String,
    /// The current wave, from 1.
    pub wave: usize,
    /// Its waves.
    pub waves: Vec<WaveCount>,
    /// So many devices may fail.
    pub allowed: usize,
    /// Whether it takes the change back by itself.
    pub rollback: bool,
    /// The objects it takes out.
    pub objects: Vec<Key>,
    /// Who began it.
    pub author: String,
    /// When.
    pub created: UnixMillis,
    /// When somebody looked last.
    pub looked: UnixMillis,
    /// Its devices, by wave and name; not in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<RolloutDevice>,
}

/// How many devices of a wave are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaveCount {
    /// Its devices.
    pub devices: usize,
    /// Its wave has not come, or its window is closed.
    pub waiting: usize,
    /// It has the change, and is watched.
    pub taking: usize,
    /// It has the change, and is well.
    pub passed: usize,
    /// It is not well.
    pub failed: usize,
    /// It is told what it was told before, or was deleted.
    pub back: usize,
}

/// A device of a rollout, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutDevice {
    /// Its id.
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// Its wave, from 1.
    pub wave: usize,
    /// `waiting`, `due`, `taking`, `passed`, `failed`, `rolled back` or `gone`.
    pub step: String,
    /// What there is to say about it.
    pub note: String,
    /// Since when it is there.
    pub since: UnixMillis,
}

impl Record {
    /// For people and programs.
    pub(crate) fn shown(&self, with_devices: bool) -> Rollout {
        let state = &self.state;
        let mut waves = vec![WaveCount::default(); state.waves];
        for member in self.members.values() {
            let Some(wave) = waves.get_mut(member.wave) else { continue };
            wave.devices += 1;
            let slot = match member.step {
                Step::Waiting | Step::Due { .. } => &mut wave.waiting,
                Step::Taking { .. } => &mut wave.taking,
                Step::Passed => &mut wave.passed,
                Step::Failed { .. } => &mut wave.failed,
                Step::Back | Step::Gone => &mut wave.back,
            };
            *slot += 1;
        }
        let device = |(id, m): (&Uuid, &Member)| RolloutDevice {
            id: DeviceId::new(*id),
            name: m.name.clone(),
            wave: m.wave + 1,
            step: m.step.name().to_owned(),
            note: m.step.note().to_owned(),
            since: m.since,
        };
        let mut devices: Vec<RolloutDevice> =
            self.members.iter().filter(|_| with_devices).map(device).collect();
        devices.sort_by(|a, b| (a.wave, &a.name).cmp(&(b.wave, &b.name)));
        Rollout {
            name: self.row.name.clone(),
            phase: state.phase.name().to_owned(),
            why: state.phase.why().to_owned(),
            wave: (state.wave + 1).min(state.waves),
            waves,
            allowed: state.allowed,
            rollback: state.rollback,
            objects: self.about.objects.iter().map(|o| o.key.clone()).collect(),
            author: self.row.author.clone(),
            created: self.row.created,
            looked: state.looked,
            devices,
        }
    }
}
