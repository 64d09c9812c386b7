//! Configs that somebody wrote whole, in the API's own words, for one node: what its objects say
//! reaches it no longer, until it is given back to the compiler.
//!
//! Everything that asks what the node is told gets what was given, read as a node reads it; what would
//! have changed what the compiler says is refused, so that nobody waits for it in vain.

use std::sync::Arc;

use api::pb::config::{ConfigResponse, EdgeDevConfig};
use api::whole::Whole;
use api::{limits, wire};
use model::DeviceId;
use model::desired::Device;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Fleet, FleetError, Known};
use crate::db::{Change, DeviceRow, Given, StoredObject};
use crate::objects::{Flaw, Key, Kind, Objects};
use crate::words::time;

/// So many nodes that cannot be reached are named.
const NAMED_MAX: usize = 20;

impl Known {
    /// What a node was given whole.
    pub(crate) fn given(&self, id: Uuid) -> Option<&Arc<Given>> {
        self.device(id)?.given.as_ref()
    }
}

/// Names what was given, with the certificates that the node is told of.
pub(super) fn digest(given: &Given, certs_hash: &str) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(certs_hash);
    digest.update([0]);
    digest.update(&given.config.bytes);
    digest.finalize().into()
}

/// What was given, as a node understands it; of what it would refuse as a whole, nothing.
pub(super) fn read(given: &Given, id: Uuid) -> Device {
    let own = DeviceId::new(id);
    let config = wire::decode::<EdgeDevConfig>(&given.config.bytes, limits::CONFIG).ok();
    let device = config.and_then(|c| api::convert::config::read(&c, own).ok());
    device.unwrap_or_else(|| Device::new(own))
}

impl Fleet {
    /// Tells a node this config (an `EdgeDevConfig`) from now on, and nothing else.
    pub(crate) async fn give_config(
        &self,
        name: &str,
        config: &[u8],
        author: &str,
    ) -> Result<Arc<Given>, FleetError> {
        let now = self.now();
        let none = || FleetError::NoObject(Key::new(Kind::Device, name));
        self.change(|known| {
            let object = &known.device_object(name).ok_or_else(none)?.object;
            let before = known.device(object.uid).ok_or_else(none)?;
            let last = before.given.as_ref();
            let own = DeviceId::new(object.uid);
            let config = Whole::take(config, own, last.map(|g| &g.config))?;
            let mut change = Change::by(author, now);
            if let Some(last) = last.filter(|g| g.config == config) {
                return Ok((change, last.clone()));
            }
            let given = Arc::new(Given { config, author: author.to_owned(), at: now });
            change.devices.push(DeviceRow { given: Some(given.clone()), ..before.clone() });
            let action = format!("given a whole config, version {}", given.config.version);
            change.log(Some(object.uid), &object.key, &action);
            Ok((change, given))
        })
        .await
    }

    /// Tells a node what its objects say again.
    pub(crate) async fn give_back(&self, name: &str, author: &str) -> Result<(), FleetError> {
        let clear = |row: &mut DeviceRow| row.given = None;
        self.change_device(name, "given back to the compiler", author, clear).await
    }

    /// The `EdgeDevConfig` that a node is told: as it was given, or as it was compiled, with its
    /// secrets sealed.
    pub(crate) async fn config_told(&self, id: Uuid) -> Result<Vec<u8>, FleetError> {
        if let Some(given) = self.look(|known| known.given(id).cloned()) {
            return Ok(given.config.bytes.clone());
        }
        let nothing = || FleetError::NoObject(Key::new(Kind::Device, id.to_string()));
        let mut device = self.compiled(&self.known(), id).ok_or_else(nothing)?;
        // Of the last time that the node asked; that somebody looks changes nothing.
        device.timestamp = self.db.standing(id).await?.map(|s| s.timestamp);
        let payload = self.sealing(id).await?.answer(&device, "")?;
        let response = wire::decode::<ConfigResponse>(&payload, limits::CONFIG);
        let config = response.ok().and_then(|r| r.config);
        Ok(wire::encode(&config.ok_or_else(nothing)?))
    }

    /// Refuses to put and remove objects if that would change what a node is told that was given its
    /// config whole: it would not reach it.
    pub(super) fn reaches_all(
        &self,
        known: &Known,
        put: &[StoredObject],
        removed: &[Key],
    ) -> Result<(), FleetError> {
        let flaws = self.out_of_reach(known, put, removed);
        if flaws.is_empty() { Ok(()) } else { Err(FleetError::Flawed(flaws)) }
    }

    fn out_of_reach(&self, known: &Known, put: &[StoredObject], removed: &[Key]) -> Vec<Flaw> {
        let given = known.devices.values().filter(|d| d.row.gone.is_none());
        let given: Vec<(Uuid, Arc<Given>)> =
            given.filter_map(|d| Some((d.row.id, d.row.given.clone()?))).collect();
        if given.is_empty() || (put.is_empty() && removed.is_empty()) {
            return Vec::new();
        }
        let object = |s: &StoredObject| (s.object.key.clone(), s.object.clone());
        let mut all: Objects = known.objects.clone();
        all.extend(put.iter().map(object));
        removed.iter().for_each(|key| drop(all.remove(key)));
        // One change at a time, and back: a copy of everything for each would take minutes.
        let mut alone: Objects = known.objects.clone();
        let mut flaws = Vec::new();
        for (id, given) in given {
            if flaws.len() == NAMED_MAX {
                break;
            }
            let Some(own) = known.object_of(id).map(|s| s.object.key.clone()) else { continue };
            let told = |objects: &Objects| {
                objects.get(&own).and_then(|d| self.compiler_tells(known, d, objects))
            };
            let before = told(&known.objects);
            // A node that goes takes its config with it.
            if removed.contains(&own) || told(&all) == before {
                continue;
            }
            // The one that does it, if one alone does.
            let new = put.iter().map(|s| (&s.object.key, Some(&s.object)));
            let mut changes = new.chain(removed.iter().map(|key| (key, None)));
            let first = changes.clone().next();
            let culprit = changes.find(|(key, object)| {
                match object {
                    Some(object) => alone.insert((*key).clone(), (*object).clone()),
                    None => alone.remove(*key),
                };
                let shows = told(&alone) != before;
                match known.objects.get(*key) {
                    Some(was) => alone.insert((*key).clone(), was.clone()),
                    None => alone.remove(*key),
                };
                shows
            });
            let Some((culprit, _)) = culprit.or(first) else { continue };
            flaws.push(unreached(culprit.clone(), "spec", &own.name, &given));
        }
        flaws
    }
}

/// Refuses what would show only in a config that is not told: a wish for a reboot or a shutdown, to
/// say everything again, a session of EdgeView.
pub(super) fn reaches(key: &Key, before: &DeviceRow, after: &DeviceRow) -> Result<(), FleetError> {
    let Some(given) = before.given.as_ref().filter(|_| after.given.is_some()) else {
        return Ok(());
    };
    let told = |row: &DeviceRow| (row.reboots, row.shutdowns, row.epoch);
    let opened = after.view.is_some() && after.view != before.view;
    if told(before) == told(after) && !opened {
        return Ok(());
    }
    Err(FleetError::Flawed(vec![unreached(key.clone(), "config", &key.name, given)]))
}

fn unreached(key: Key, field: &str, node: &str, given: &Given) -> Flaw {
    let (by, at) = (&given.author, time(given.at));
    let text = format!(
        "it would not reach {node}, whose config was given whole by {by} at {at}: `eve device config \
         {node} --compiled` gives it back to the compiler"
    );
    Flaw { key, field: field.to_owned(), text, missing: false }
}
