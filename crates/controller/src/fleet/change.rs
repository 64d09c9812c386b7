//! Changes: decided on what is known, stored if nobody else was faster, decided again otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{DeviceId, UnixMillis};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Fleet, FleetError, Known, given, policies, revival};
use crate::access::{Projects, kept_in};
use crate::db::{Change, DeviceRow, Overlaid, Policies, StoredObject, Version, Written};
use crate::history;
use crate::objects::{
    self, Document, Flaw, Key, Kind, Objects, Query, Spec, WrittenSpec, bumps, check, content_of,
};
use crate::rollout::calendar::{Calendar, HOLDER};
use crate::view;
use crate::words::time;

/// So often a change is decided on again because somebody set a group, a window or a rule meanwhile.
const TRIES: usize = 5;

/// How documents are to be applied.
#[derive(Debug, Clone, Default)]
pub(crate) struct How {
    /// References may point to what is not there yet.
    pub(crate) allow_missing: bool,
    /// Only say what would change.
    pub(crate) dry_run: bool,
    /// Objects of these kinds that are not in the documents are removed.
    pub(crate) prune: Vec<Kind>,
    /// Objects that must still be of this generation: somebody has looked at it and decided.
    pub(crate) expected: Vec<(Key, u64)>,
    /// Only objects of these projects may be made, changed, removed, and be given apps.
    pub(crate) within: Projects,
    /// The id that a device gets which is not there: the one it had before it was deleted.
    pub(crate) again: Option<Uuid>,
}

impl Fleet {
    /// Decides on what is known and stores what was decided.
    pub(crate) async fn change<T>(
        &self,
        mut decide: impl FnMut(&Known) -> Result<(Change, T), FleetError>,
    ) -> Result<T, FleetError> {
        let _one = self.changing.lock().await;
        loop {
            // The snapshot is gone before the change comes: a change must not copy everything.
            let (revision, decided) = {
                let known = self.known();
                (known.revision, decide(&known)?)
            };
            let (change, outcome) = decided;
            if change.is_empty() {
                return Ok(outcome);
            }
            let written = self.db.store(revision, &change).await?;
            self.follow().await?;
            match written {
                Written::As(_) => return Ok(outcome),
                Written::Behind => {}
                Written::Overtaken => return Err(FleetError::Faster),
            }
        }
    }

    /// The same of a change that is decided on with groups, windows and alert rules, and may write
    /// some: decided again if somebody set one of them meanwhile.
    pub(super) async fn with_policies<T>(
        &self,
        mut decide: impl FnMut(&Known, &Policies) -> Result<(Change, T), FleetError>,
    ) -> Result<T, FleetError> {
        for _ in 0..TRIES {
            let policies = self.db.policies().await?;
            let decided = self.change(|known| {
                let (mut change, outcome) = decide(known, &policies)?;
                change.policies_then = Some(policies.clone());
                Ok((change, outcome))
            });
            match decided.await {
                Err(FleetError::Faster) => {}
                done => return done,
            }
        }
        Err(FleetError::Faster)
    }

    /// Makes objects say what the documents say. All of them, or none.
    pub(crate) async fn apply(
        &self,
        text: &str,
        how: &How,
        author: &str,
    ) -> Result<view::Applied, FleetError> {
        let documents = objects::read(text)?;
        let applied = self.with_policies(|known, policies| {
            let by = (author, self.now());
            let (mut change, mut applied) = self.applied(known, policies, &documents, how, by)?;
            // A window of these documents holds already what they change.
            let calendar = Calendar::of(&policies::after(policies, &change));
            calendar.hold_back(self, known, &mut change);
            for done in &mut applied.changes {
                if done.action != view::Action::Unchanged {
                    done.waits = waits(known, &change, &done.key);
                }
            }
            let change = if how.dry_run { Change::default() } else { change };
            Ok((change, applied))
        });
        let mut applied = applied.await?;
        // It is done, whatever else can be said of it.
        if let Err(e) = self.tell_deleted(&mut applied).await {
            tracing::warn!("nobody looked up who had the names before: {}", model::chain(&e));
        }
        Ok(applied)
    }

    /// What documents change: objects and policies.
    pub(crate) fn applied(
        &self,
        known: &Known,
        policies: &Policies,
        documents: &[Document],
        how: &How,
        (author, now): (&str, UnixMillis),
    ) -> Result<(Change, view::Applied), FleetError> {
        let (for_fleet, documents): (Vec<&Document>, Vec<&Document>) =
            documents.iter().partition(|d| d.key.kind.is_policy());
        for (key, generation) in how.expected.iter().filter(|(key, _)| !key.kind.is_policy()) {
            let found = known.stored.get(key).map_or(0, |s| s.object.generation);
            if found != *generation {
                return Err(FleetError::Overtaken { key: key.clone(), found, had: *generation });
            }
        }
        let mut next = known.objects.clone();
        let mut put = Vec::new();
        let mut changes = Vec::new();
        for document in &documents {
            let old = known.stored.get(&document.key);
            let document = with_value(document, old.map(|s| &**s))?;
            let action = match old {
                None => view::Action::Created,
                Some(old) if old.object.spec == document.spec => view::Action::Unchanged,
                Some(_) => view::Action::Changed,
            };
            changes.push(done(document.key.clone(), action));
            let new = || how.again.unwrap_or_else(Uuid::new_v4);
            let stored = settled(old.map(|s| &**s), document.clone(), new, now);
            next.insert(stored.object.key.clone(), stored.object.clone());
            put.push(stored);
        }
        let named: BTreeSet<&Key> = documents.iter().map(|d| &d.key).collect();
        let pruned = known.stored.keys().filter(|k| how.prune.contains(&k.kind));
        let removed: Vec<Key> = pruned
            .filter(|k| !named.contains(k))
            .filter(|k| known.stored.get(k).is_some_and(|s| within(&how.within, s)))
            .cloned()
            .collect();
        for key in &removed {
            next.remove(key);
            changes.push(done(key.clone(), view::Action::Removed));
        }
        // An app that refers to an image by a tag gets what the tag means now.
        for stored in &mut put {
            self.pin(Arc::make_mut(&mut stored.object), &next)?;
            next.insert(stored.object.key.clone(), stored.object.clone());
        }
        if !how.within.all() {
            keep_within(known, &next, &put, &how.within)?;
        }
        let flaws = check(&next);
        let new = new_flaws(&known.flaws, &flaws, &put);
        let (mut missing, wrong): (Vec<Flaw>, Vec<Flaw>) = new.into_iter().partition(|f| f.missing);
        if !wrong.is_empty() {
            return Err(FleetError::Flawed(wrong));
        }
        if !missing.is_empty() && !how.allow_missing {
            return Err(FleetError::Flawed(missing));
        }
        purge_changed(known, &mut next, &mut put, now);
        put.retain(|s| known.stored.get(&s.object.key).is_none_or(|k| **k != *s));
        self.reaches_all(known, &put, &removed)?;
        for change in &mut changes {
            // The same words may still mean another image.
            let stored = put.iter().any(|s| s.object.key == change.key);
            if change.action == view::Action::Unchanged && stored {
                change.action = view::Action::Changed;
            }
        }
        let mut change = Change::by(author, now);
        for stored in &put {
            let notes = expect_device(known, stored, how.again, &mut change)
                .map_err(|flaw| FleetError::Flawed(vec![flaw]))?;
            let of = |done: &&mut view::Change| done.key == stored.object.key;
            if let Some(done) = changes.iter_mut().find(of) {
                done.notes = notes;
            }
        }
        change.put = put;
        change.removed = removed;
        let decided = policies::decide(known, policies, &for_fleet, how, &next)?;
        change.policies = decided.writes;
        changes.extend(decided.changes);
        missing.extend(decided.missing);
        for done in changes.iter().filter(|c| c.action != view::Action::Unchanged) {
            change.log(None, &done.key, done.action.name());
        }
        let groups = policies::groups(&policies::after(policies, &change));
        let read = |query: &str| Query::parse(query, &groups).ok();
        let named = documents.iter().chain(&for_fleet).map(|d| (&d.key, &d.spec));
        let warnings = named.flat_map(|of| objects::hints(&next, of, read)).collect();
        Ok((change, view::Applied { changes, missing, warnings }))
    }

    /// Makes an object say again what it said in an earlier version, unless somebody is faster; says
    /// which version that overwrites.
    pub(crate) async fn restore(
        &self,
        key: &Key,
        version: &Version,
        within: &Projects,
        author: &str,
    ) -> Result<view::Applied, FleetError> {
        let spec = version.spec.as_ref().ok_or_else(|| FleetError::NoObject(key.clone()))?;
        let document = json!({ "kind": key.kind.name(), "name": key.name, "spec": spec });
        let documents = objects::read(&document.to_string())?;
        // The one that is overwritten may be of another process, a moment ago.
        self.follow().await?;
        let last = self.db.versions(key, u64::MAX, 1).await?.pop();
        let had = last.as_ref().map_or(0, |v| v.generation);
        let expected = vec![(key.clone(), had)];
        let again = self.id_again(key, version).await?;
        let how = How { expected, within: within.clone(), again, ..How::default() };
        let overwrites = last.filter(|v| v.revision != version.revision).and_then(|last| {
            let shown = |spec: &Value| objects::shown(key.kind, spec);
            let (then, now) = (last.spec.as_ref().map(shown)?, shown(spec));
            let by = if last.author.is_empty() { "somebody" } else { &last.author };
            let differ = history::differences(Some(&then), Some(&now)).join("; ");
            let differ = if differ.is_empty() { "a value that is not shown" } else { &differ };
            Some(format!("version {} by {by} of {}: {differ}", last.revision, time(last.at)))
        });
        let now = self.now();
        self.with_policies(|known, policies| {
            let by = (author, now);
            let (mut change, mut applied) = self.applied(known, policies, &documents, &how, by)?;
            Calendar::of(policies).hold_back(self, known, &mut change);
            for done in applied.changes.iter_mut().filter(|c| c.action == view::Action::Changed) {
                done.waits = waits(known, &change, &done.key);
                done.overwrites.clone_from(&overwrites);
                done.notes.extend(revival::another(
                    known,
                    known.stored.get(key).map(|s| &**s),
                    again,
                ));
            }
            let notes = applied.changes.iter().flat_map(|c| &c.notes);
            let notes: String = notes.map(|note| format!("; {note}")).collect();
            let overwrote = overwrites.as_ref().map(|what| format!("; overwrote {what}"));
            for logged in &mut change.logged {
                let overwrote = overwrote.as_deref().unwrap_or_default();
                logged.detail = format!("as in version {}{overwrote}{notes}", version.revision);
            }
            Ok((change, applied))
        })
        .await
    }

    /// Looks up what an app's image tag means in our own registry.
    fn pin(&self, object: &mut objects::Object, all: &Objects) -> Result<(), FleetError> {
        let (image, from_us) = match &object.spec {
            Spec::App(app) => {
                let (datastores, path, _, sha256, _) = content_of(all, app, None);
                let stated = all.contains_key(&Key::new(Kind::Datastore, objects::LOCAL));
                let ours = datastores.iter().all(|d| d == objects::LOCAL) && !stated;
                (path, ours && sha256.is_none())
            }
            _ => return Ok(()),
        };
        object.pinned = None;
        if !from_us || image.contains('@') {
            return Ok(());
        }
        match self.registry.resolve(&image)? {
            // Of an index each node takes the manifest of its own platform.
            Some((digest, is_index)) => object.pinned = (!is_index).then_some(digest),
            None => {
                let have = self.registry.names()?;
                let have = if have.is_empty() { "nothing".into() } else { have.join(", ") };
                return Err(FleetError::NoImage { key: object.key.clone(), image, have });
            }
        }
        Ok(())
    }

    /// Removes an object. If `force`, what refers to it is left to say so, and nodes that were given
    /// their config whole go on as they are. Returns what nodes wait for that go on with it.
    pub(crate) async fn delete(
        &self,
        key: &Key,
        force: bool,
        author: &str,
    ) -> Result<Vec<String>, FleetError> {
        self.with_policies(|known, policies| {
            let (mut next, mut after) = (known.objects.clone(), policies.clone());
            let found = next.remove(key).is_some() || after.remove(key).is_some();
            if !found {
                return Err(FleetError::NoObject(key.clone()));
            }
            let mut by = new_flaws(&known.flaws, &check(&next), &[]);
            let none = BTreeSet::new();
            by.extend(policies::new_flaws((policies, &known.objects), (&after, &next), &none));
            if !by.is_empty() && !force {
                // Of who names it there is no more to say than that.
                for flaw in by.iter_mut().filter(|f| f.missing) {
                    flaw.text = format!("names {key}");
                }
                return Err(FleetError::Used { key: key.clone(), by });
            }
            if !force {
                self.reaches_all(known, &[], std::slice::from_ref(key))?;
            }
            let mut change = Change::by(author, self.now());
            if key.kind.is_policy() {
                change.policies.push((key.clone(), None));
            } else {
                change.removed.push(key.clone());
            }
            change.log(None, key, "deleted");
            Calendar::of(policies).hold_back(self, known, &mut change);
            let waits = waits(known, &change, key);
            Ok((change, waits))
        })
        .await
    }

    /// Restarts an app on all its nodes; with `purge` its volumes are made anew.
    pub(crate) async fn restart_app(
        &self,
        name: &str,
        purge: bool,
        author: &str,
    ) -> Result<(), FleetError> {
        let key = Key::new(Kind::App, name);
        let now = self.now();
        self.change(|known| {
            let found = known.stored.get(&key).ok_or_else(|| FleetError::NoObject(key.clone()))?;
            let mut stored = StoredObject::clone(found);
            let object = Arc::make_mut(&mut stored.object);
            let counter = if purge { &mut object.purge } else { &mut object.restart };
            *counter = counter.saturating_add(1);
            stored.changed = now;
            self.reaches_all(known, std::slice::from_ref(&stored), &[])?;
            let mut change = Change::by(author, now);
            change.put.push(stored);
            // Also of nodes that are told an earlier version: they are to do it now.
            for said in known.held_of(&key) {
                let mut said = said.clone();
                let counter = if purge { &mut said.purge } else { &mut said.restart };
                *counter = counter.wrapping_add(1);
                change.overlays.push(said);
            }
            change.log(None, &key, if purge { "purge asked for" } else { "restart asked for" });
            Ok((change, ()))
        })
        .await
    }

    /// Changes what is kept of a node beside its object. What only its config would tell it is refused
    /// while it is told one that was given whole.
    pub(crate) async fn change_device(
        &self,
        name: &str,
        action: &str,
        author: &str,
        with: impl Fn(&mut DeviceRow),
    ) -> Result<(), FleetError> {
        self.change_row(name, action, author, with, given::reaches).await
    }

    async fn change_row(
        &self,
        name: &str,
        action: &str,
        author: &str,
        with: impl Fn(&mut DeviceRow),
        may: impl Fn(&Key, &DeviceRow, &DeviceRow) -> Result<(), FleetError>,
    ) -> Result<(), FleetError> {
        let now = self.now();
        let none = || FleetError::NoObject(Key::new(Kind::Device, name));
        self.change(|known| {
            let object = &known.device_object(name).ok_or_else(none)?.object;
            let before = known.device(object.uid).ok_or_else(none)?;
            let mut row = before.clone();
            with(&mut row);
            may(&object.key, before, &row)?;
            let mut change = Change::by(author, now);
            if row != *before {
                change.devices.push(row);
                change.log(Some(object.uid), &object.key, action);
            }
            Ok((change, ()))
        })
        .await
    }

    /// Says what was done to a node beside its row, so that others look again.
    pub(crate) async fn note_device(
        &self,
        name: &str,
        action: &str,
        author: &str,
    ) -> Result<(), FleetError> {
        let now = self.now();
        let none = || FleetError::NoObject(Key::new(Kind::Device, name));
        self.change(|known| {
            let object = &known.device_object(name).ok_or_else(none)?.object;
            let row = known.device(object.uid).ok_or_else(none)?;
            let mut change = Change::by(author, now);
            change.devices.push(row.clone());
            change.log(Some(object.uid), &object.key, action);
            Ok((change, ()))
        })
        .await
    }

    /// Reboots a node.
    pub(crate) async fn restart_device(&self, name: &str, author: &str) -> Result<(), FleetError> {
        let up = |row: &mut DeviceRow| row.reboots = row.reboots.saturating_add(1);
        self.change_device(name, "reboot asked for", author, up).await
    }

    /// Makes sure that the next wish for a reboot or a shutdown differs from every one the node has
    /// seen: a database from a backup must not reboot the fleet.
    pub(crate) async fn catch_up_counters(
        &self,
        id: Uuid,
        reboots: u32,
        shutdowns: u32,
    ) -> Result<(), FleetError> {
        let behind = |row: &DeviceRow| row.reboots < reboots || row.shutdowns < shutdowns;
        if !self.look(|known| known.device(id).is_some_and(behind)) {
            return Ok(());
        }
        let raise = |row: &mut DeviceRow| {
            row.reboots = row.reboots.max(reboots);
            row.shutdowns = row.shutdowns.max(shutdowns);
        };
        // Also of one that is told another config: they count when it is given back.
        let name = id.to_string();
        self.change_row(&name, "counters caught up", "controller", raise, |_, _, _| Ok(())).await
    }

    /// Makes a node known: by serial numbers and the onboarding certificate it will come with
    /// (`None`: our own), or by its own certificate.
    pub(crate) async fn add_device(
        &self,
        what: &NewDevice,
        author: &str,
    ) -> Result<DeviceId, FleetError> {
        let now = self.now();
        let id = Uuid::new_v4();
        self.change(|known| {
            let key = Key::new(Kind::Device, &what.name);
            let digest = what.certificate.as_ref().map(api::Certificate::digest);
            if let Some(device) = digest.and_then(|d| known.sender(&api::SenderHash::Full(d)))
                && device.row.gone.is_none()
                && let Some(other) = known.object_of(device.row.id)
            {
                let other = other.object.key.clone();
                return Err(FleetError::CertificateTaken { key, other });
            }
            if known.stored.contains_key(&key) {
                return Err(FleetError::Exists(key));
            }
            // As of documents: one serial number is of one node, or all later changes are refused.
            if let Some(flaw) = taken(known, &key, what) {
                return Err(FleetError::Flawed(vec![flaw]));
            }
            let spec = objects::DeviceSpec {
                serial: what.serial.clone(),
                soft_serial: what.soft_serial.clone(),
                ..objects::DeviceSpec::default()
            };
            let mut change = Change::by(author, now);
            change.log(Some(id), &key, "created");
            change.put.push(first(key, id, Spec::Device(spec), &written(what), now));
            let onboard = what.onboard.as_ref().map(|c| (c.digest().0.to_vec(), c.pem().to_vec()));
            change.onboard_certs.extend(onboard.clone());
            change.devices.push(DeviceRow {
                serial: what.serial.clone(),
                soft_serial: what.soft_serial.clone(),
                cert_pem: what.certificate.as_ref().map(|c| c.pem().to_vec()),
                cert_hash: digest.map(|d| d.0.to_vec()),
                registered: what.certificate.as_ref().map(|_| now),
                onboard: onboard.map(|(hash, _)| hash).unwrap_or_default(),
                ..nobody(id)
            });
            Ok((change, DeviceId::new(id)))
        })
        .await
    }
}

pub(super) fn done(key: Key, action: view::Action) -> view::Change {
    view::Change { key, action, waits: Vec::new(), overwrites: None, notes: Vec::new() }
}

fn within(projects: &Projects, stored: &StoredObject) -> bool {
    projects.contain(kept_in(stored).as_deref())
}

/// Refuses what somebody limited to projects may not do: to change objects of others, to take
/// theirs, to put apps on their nodes.
fn keep_within(
    known: &Known,
    next: &Objects,
    put: &[StoredObject],
    projects: &Projects,
) -> Result<(), FleetError> {
    let refused = |key: &Key, why: String| FleetError::OtherProject { key: key.clone(), why };
    let ours = || projects.0.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    for stored in put {
        let key = &stored.object.key;
        if known.stored.get(key).is_some_and(|s| !within(projects, s)) {
            return Err(refused(key, "it belongs to another project, or to none".into()));
        }
        if !within(projects, stored) {
            let why = format!("spec.labels.project: it must be one of yours: {}", ours());
            return Err(refused(key, why));
        }
        let Spec::App(app) = &stored.object.spec else { continue };
        let devices = next.values().filter_map(|o| objects::node(next, o));
        for told in devices.filter(|d| objects::targets(app, d)) {
            let device = &told.object.key;
            let new = put.iter().find(|s| s.object.key == *device);
            let node = new.or_else(|| known.stored.get(device).map(|s| &**s));
            if !node.is_some_and(|s| within(projects, s)) {
                let why = format!("spec.device: {} is not of your projects", device.name);
                return Err(refused(key, why));
            }
        }
    }
    Ok(())
}

/// A node that somebody expects.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewDevice {
    pub(crate) name: String,
    pub(crate) serial: String,
    pub(crate) soft_serial: String,
    /// What it will register with.
    pub(crate) onboard: Option<api::Certificate>,
    /// Its own, if that is known; it need not register then.
    pub(crate) certificate: Option<api::Certificate>,
}

/// What is wrong with a node whose serial number is that of another.
fn taken(known: &Known, key: &Key, what: &NewDevice) -> Option<Flaw> {
    for (field, serial) in [("serial", &what.serial), ("soft_serial", &what.soft_serial)] {
        let has = |stored: &&StoredObject| match &stored.object.spec {
            Spec::Device(d) => {
                !serial.is_empty() && (d.serial == *serial || d.soft_serial == *serial)
            }
            _ => false,
        };
        if let Some(other) = known.of_kind(Kind::Device).find(has) {
            // Documents and people name a node by its serial number alone, whatever certificate it
            // comes with.
            let how = match (&what.onboard, &what.certificate) {
                (Some(_), None) => {
                    "; one serial number is of one device here, also with another onboarding \
                     certificate: add this one by its own certificate, without a serial number"
                }
                _ => "",
            };
            let text = format!("{serial:?} is already that of {}{how}", other.object.key);
            let (key, field) = (key.clone(), format!("spec.{field}"));
            return Some(Flaw { key, field, text, missing: false });
        }
    }
    None
}

pub(super) fn written(what: &NewDevice) -> serde_json::Value {
    let fields = [("serial", &what.serial), ("soft_serial", &what.soft_serial)];
    let said = fields.into_iter().filter(|(_, text)| !text.is_empty());
    said.map(|(name, text)| (name.to_owned(), serde_json::Value::from(text.as_str()))).collect()
}

/// A node of which nothing is known.
pub(super) fn nobody(id: Uuid) -> DeviceRow {
    DeviceRow {
        id,
        serial: String::new(),
        soft_serial: String::new(),
        wildcard: false,
        cert_pem: None,
        cert_hash: None,
        registered: None,
        onboard: Vec::new(),
        reboots: 0,
        shutdowns: 0,
        epoch: 0,
        quarantine: None,
        views: 0,
        view: None,
        given: None,
        token: None,
        gone: None,
        changed: 0,
    }
}

/// A device that was applied is expected by its serial numbers, until it has registered; one that was
/// deleted and has its id again (`again`) is who it was. Returns what is to be said of that.
fn expect_device(
    known: &Known,
    stored: &StoredObject,
    again: Option<Uuid>,
    change: &mut Change,
) -> Result<Vec<String>, Flaw> {
    let Spec::Device(spec) = &stored.object.spec else { return Ok(Vec::new()) };
    let id = stored.object.uid;
    let (mut before, mut notes) = (known.device(id).cloned(), Vec::new());
    if again == Some(id) && known.object_of(id).is_none() {
        (before, notes) = revival::revived(known, stored, before.as_ref())?;
    }
    let mut row = before.unwrap_or_else(|| nobody(id));
    if row.cert_hash.is_none() {
        row.serial.clone_from(&spec.serial);
        row.soft_serial.clone_from(&spec.soft_serial);
    }
    if known.device(id) != Some(&row) {
        change.devices.push(row);
    }
    Ok(notes)
}

/// An object that was not there before.
pub(super) fn first(
    key: Key,
    uid: Uuid,
    spec: Spec,
    written: &serde_json::Value,
    now: UnixMillis,
) -> StoredObject {
    let object =
        objects::Object { key, uid, generation: 1, restart: 0, purge: 0, pinned: None, spec };
    let written = WrittenSpec::from(written);
    StoredObject { object: Arc::new(object), written, changed: now }
}

/// A document that keeps the value of a secret gets it.
fn with_value(document: &Document, old: Option<&StoredObject>) -> Result<Document, FleetError> {
    let mut document = document.clone();
    let Spec::Secret(secret) = &document.spec else { return Ok(document) };
    if secret.value.reveal() == objects::NOT_SHOWN {
        let Some(old) = old else {
            let text = "no value is kept for it; write the value".to_owned();
            let (key, field) = (document.key, "spec.value".to_owned());
            return Err(FleetError::Flawed(vec![Flaw { key, field, text, missing: false }]));
        };
        document.spec = old.object.spec.clone();
        document.written = old.written.value();
    }
    Ok(document)
}

/// The object as it is to be stored: its counters grow with what changes.
/// `id` makes that of one which was not there.
fn settled(
    old: Option<&StoredObject>,
    document: Document,
    id: impl FnOnce() -> Uuid,
    now: UnixMillis,
) -> StoredObject {
    let Document { key, spec, written, .. } = document;
    let Some(before) = old else { return first(key, id(), spec, &written, now) };
    let was = &before.object;
    let need = match (&was.spec, &spec) {
        (Spec::App(before), Spec::App(after)) => bumps(before, after),
        _ => objects::Bumps::default(),
    };
    let object = objects::Object {
        key,
        uid: was.uid,
        generation: was.generation + u64::from(was.spec != spec),
        restart: was.restart.saturating_add(need.restart.into()),
        purge: was.purge.saturating_add(need.purge.into()),
        pinned: was.pinned,
        spec,
    };
    let changed = if **was == object { before.changed } else { now };
    StoredObject { object: Arc::new(object), written: WrittenSpec::from(&written), changed }
}

/// An app whose image means something else now gets a fresh root, also when only the image changed.
fn purge_changed(known: &Known, next: &mut Objects, put: &mut Vec<StoredObject>, now: UnixMillis) {
    let was = &known.objects;
    for old in known.of_kind(Kind::App) {
        let Some(new) = next.get(&old.object.key) else { continue };
        let (Spec::App(before), Spec::App(after)) = (&old.object.spec, &new.spec) else { continue };
        let same =
            content_of(was, before, old.object.pinned) == content_of(next, after, new.pinned);
        if same || new.purge != old.object.purge {
            continue;
        }
        let at = put.iter().position(|s| s.object.key == old.object.key);
        let at = at.unwrap_or_else(|| {
            put.push(old.clone());
            put.len() - 1
        });
        let stored = &mut put[at];
        let object = Arc::make_mut(&mut stored.object);
        object.purge = object.purge.saturating_add(1);
        stored.changed = now;
        next.insert(stored.object.key.clone(), stored.object.clone());
    }
}

/// What nodes wait for that are not told of a changed object yet.
fn waits(known: &Known, change: &Change, key: &Key) -> Vec<String> {
    let now = change.overlays.iter().filter(|said| said.key == *key);
    // What this change says of a node stands for what was said before.
    let all: BTreeMap<Uuid, &Overlaid> =
        known.held_of(key).chain(now).map(|said| (said.device, said)).collect();
    let mut by: BTreeMap<&str, usize> = BTreeMap::new();
    for said in all.values().filter(|said| said.as_of.is_some()) {
        *by.entry(&said.holder).or_default() += 1;
    }
    let text = |(holder, n): (&str, usize)| {
        let devices =
            if n == 1 { "1 device waits".to_owned() } else { format!("{n} devices wait") };
        let what = if holder == HOLDER { "a maintenance window" } else { holder };
        format!("{devices} for {what}")
    };
    by.into_iter().map(text).collect()
}

/// What is wrong now and was not before, and all that is wrong with what is being put.
fn new_flaws(before: &[Flaw], after: &[Flaw], put: &[StoredObject]) -> Vec<Flaw> {
    let old: BTreeSet<&Flaw> = before.iter().collect();
    let touched = |f: &Flaw| put.iter().any(|s| s.object.key == f.key);
    after.iter().filter(|f| !old.contains(f) || touched(f)).cloned().collect()
}
