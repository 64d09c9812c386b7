//! What a node is told otherwise than the others: objects as they were before, while a rollout or a
//! closed window holds a change back from it.
//!
//! Nodes that are told the same share one set of objects; it is made once for each revision.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::Known;
use crate::db::{Db, DbError, Overlaid};
use crate::objects::{Key, Kind, Object, Objects};

/// Sets of objects that are kept at the same time: one for each rollout and window that holds.
const VIEWS_MAX: usize = 64;

/// One object of a node that is told otherwise.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub(crate) said: Overlaid,
    /// What it is at `said.as_of`, if that is said.
    version: Option<Arc<Object>>,
}

/// All of them, by object.
pub(crate) type Overlay = BTreeMap<Key, Held>;

/// What makes two nodes be told the same.
type Signature = Vec<(Key, Option<u64>, u32, u32)>;

/// Sets of objects as some nodes are told them, with the revision they belong to.
#[derive(Debug, Default)]
pub(super) struct Views(Mutex<(u64, HashMap<Signature, Arc<Objects>>)>);

/// The objects a node is told of: those of everybody, or its own.
pub(crate) enum Told<'a> {
    Everybody(&'a Objects),
    Own(Arc<Objects>),
}

impl std::ops::Deref for Told<'_> {
    type Target = Objects;

    fn deref(&self) -> &Objects {
        match self {
            Told::Everybody(objects) => objects,
            Told::Own(objects) => objects,
        }
    }
}

/// Reads what was held at a revision or later, with the versions it names.
pub(super) async fn read(db: &Db, from: u64) -> Result<Vec<Held>, DbError> {
    let mut versions: HashMap<(Key, u64), Option<Arc<Object>>> = HashMap::new();
    let mut all = Vec::new();
    for said in db.overlays(from).await? {
        let version = match said.as_of {
            None => None,
            Some(revision) => {
                let which = (said.key.clone(), revision);
                if !versions.contains_key(&which) {
                    let uid = db.object(&said.key).await?.map(|o| o.object.uid).unwrap_or_default();
                    let found = db.object_as_of(&said.key, revision, uid).await?;
                    versions.insert(which.clone(), found.map(|o| o.object));
                }
                versions.get(&which).cloned().flatten()
            }
        };
        all.push(Held { said, version });
    }
    Ok(all)
}

impl Known {
    /// What a node is told otherwise than the others.
    pub(crate) fn overlay(&self, id: Uuid) -> Option<&Overlay> {
        self.overlays.get(&id).map(|o| &**o)
    }

    /// Everything that is held back by this holder: node and object.
    pub(crate) fn held_by<'a>(&'a self, holder: &'a str) -> impl Iterator<Item = &'a Overlaid> {
        let all = self.overlays.values().flat_map(|o| o.values());
        all.map(|h| &h.said).filter(move |s| s.as_of.is_some() && s.holder == holder)
    }

    /// The objects that a node is told of.
    pub(crate) fn told_to(&self, id: Uuid) -> Told<'_> {
        let Some(overlay) = self.overlay(id) else { return Told::Everybody(&self.objects) };
        let shared = || overlay.values().filter(|h| h.said.key.kind != Kind::Device);
        let signature: Signature = shared()
            .map(|h| (h.said.key.clone(), h.said.as_of, h.said.restart, h.said.purge))
            .collect();
        if signature.is_empty() {
            return Told::Everybody(&self.objects);
        }
        let mut views = self.views.0.lock().unwrap_or_else(PoisonError::into_inner);
        if views.0 != self.shared || views.1.len() > VIEWS_MAX {
            *views = (self.shared, HashMap::new());
        }
        let made = views.1.entry(signature).or_insert_with(|| {
            // Devices are left out: what one node is told depends on no other.
            let others = self.objects.iter().filter(|(key, _)| key.kind != Kind::Device);
            let mut objects: Objects = others.map(|(k, o)| (k.clone(), o.clone())).collect();
            for held in shared() {
                held.lay_over(&mut objects);
            }
            Arc::new(objects)
        });
        Told::Own(made.clone())
    }

    /// A node's own object as it is told to it.
    pub(crate) fn device_told(&self, id: Uuid) -> Option<Arc<Object>> {
        let stored = self.object_of(id)?;
        let held = self.overlay(id).and_then(|o| o.get(&stored.object.key));
        let version = held.filter(|h| h.said.as_of.is_some()).and_then(|h| h.version.clone());
        Some(version.unwrap_or_else(|| stored.object.clone()))
    }

    pub(super) fn take_overlays(&mut self, news: Vec<Held>, revision: u64) {
        for held in news {
            let id = held.said.device;
            let slot = Arc::make_mut(self.overlays.entry(id).or_default());
            if held.said.is_empty() {
                slot.remove(&held.said.key);
            } else {
                slot.insert(held.said.key.clone(), held);
            }
            if slot.is_empty() {
                self.overlays.remove(&id);
            }
            self.touch(id, revision);
        }
    }

    /// An object that is gone is gone for everybody.
    pub(super) fn forget_overlays_of(&mut self, key: &Key, revision: u64) {
        let with = |(id, o): (&Uuid, &Arc<Overlay>)| o.contains_key(key).then_some(*id);
        let ids: Vec<Uuid> = self.overlays.iter().filter_map(with).collect();
        for id in ids {
            if let Some(slot) = self.overlays.get_mut(&id) {
                Arc::make_mut(slot).remove(key);
                if slot.is_empty() {
                    self.overlays.remove(&id);
                }
            }
            self.touch(id, revision);
        }
    }
}

impl Held {
    fn lay_over(&self, objects: &mut Objects) {
        let key = &self.said.key;
        if self.said.as_of.is_some() {
            match &self.version {
                Some(version) => {
                    objects.insert(key.clone(), version.clone());
                }
                None => {
                    objects.remove(key);
                }
            }
        }
        let more = (self.said.restart, self.said.purge) != (0, 0);
        if more && let Some(object) = objects.get_mut(key) {
            let object = Arc::make_mut(object);
            object.restart = object.restart.saturating_add(self.said.restart);
            object.purge = object.purge.saturating_add(self.said.purge);
        }
    }
}
