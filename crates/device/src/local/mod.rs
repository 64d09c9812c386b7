//! What someone near the node changes without the controller: a local profile server, or a console
//! that stands in for the controller.
//!
//! The controller's config stays whole and as it came; [`apply`] makes of it what is in force. Counters
//! of apps are added to the controller's, so a restart that was asked for here is one more restart,
//! whatever the controller says later. [`server`] finds the server, [`Rounds`] says when to ask it what.

mod rounds;
mod server;

use std::collections::BTreeMap;

use model::AppId;
use model::desired::{App, Device, PortChange, PortName};
use serde::{Deserialize, Serialize};

pub use rounds::{Heard, Rounds};
pub use server::{Unreachable, server};

/// What was changed here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overrides {
    /// The profile in place of the controller's; empty: the controller's.
    pub profile: String,
    /// How often apps were restarted and purged from here.
    pub counts: BTreeMap<AppId, Counts>,
    /// All apps rest until the node boots again.
    #[serde(skip)]
    pub halted: bool,
}

/// How often an app was restarted and purged from here. Added to the controller's counters, so it
/// outlives whoever asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Restarts.
    pub restart: u32,
    /// Restarts with fresh volumes.
    pub purge: u32,
}

/// What is in force: the controller's config, so changed. Apps of other profiles than the one in
/// force rest. A port is changed only as long as the controller allows it.
pub fn apply(
    told: &Device,
    overrides: &Overrides,
    ports: &BTreeMap<PortName, PortChange>,
) -> Device {
    let mut device = told.clone();
    if !overrides.profile.is_empty() {
        device.profile.clone_from(&overrides.profile);
    }
    for (name, change) in ports {
        if let Some(port) = device.ports.get_mut(name).filter(|p| p.options.local_changes) {
            *port = change.of(port);
        }
    }
    let purged = purged(told, overrides);
    for (id, volume) in &mut device.volumes {
        volume.generation =
            volume.generation.wrapping_add(purged.get(id).copied().unwrap_or_default());
    }
    for app in device.apps.values_mut() {
        app.activate &= !overrides.halted && app.in_profile(&device.profile);
        let counts = overrides.counts.get(&app.id).copied().unwrap_or_default();
        app.restart = app.restart.wrapping_add(counts.restart);
        app.purge = app.purge.wrapping_add(counts.purge);
        for volume in &mut app.volumes {
            let more = purged.get(&volume.volume).copied().unwrap_or_default();
            volume.generation = volume.generation.wrapping_add(more);
        }
    }
    device
}

/// By how much the generation of each volume goes beyond the controller's: purges of all apps that
/// have it.
pub fn purged(told: &Device, overrides: &Overrides) -> BTreeMap<model::VolumeId, u64> {
    let mut purged = BTreeMap::new();
    for (app, counts) in told.apps.values().filter_map(|a| Some((a, overrides.counts.get(&a.id)?)))
    {
        for volume in &app.volumes {
            *purged.entry(volume.volume).or_default() += u64::from(counts.purge);
        }
    }
    purged
}

/// The app that is meant: by its id, or else by a name that only one has.
pub fn meant<'a>(told: &'a Device, id: &str, name: &str) -> Option<&'a App> {
    if let Ok(id) = id.parse::<AppId>() {
        return told.apps.get(&id);
    }
    let mut named = told.apps.values().filter(|a| a.name == name && !name.is_empty());
    named.next().filter(|_| named.next().is_none())
}

#[cfg(test)]
mod tests;
