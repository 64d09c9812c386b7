//! What a node is told otherwise than the others: objects as they were before, while a rollout or a
//! closed window holds a change back from it.
//!
//! Nodes that are told the same share one set of objects; it is made once for each revision.
//!
//! Counters of apps only grow, and a node acts on any that differs from the one it was told. They also
//! grow with a change that a node is not told of yet. When that one is taken back meanwhile, the node
//! would start its app anew for nothing, and throw away what it wrote. So who lets go of a node
//! ([`Fleet::let_go`]) compares what it was told with what it is going to be told: an app that says
//! the same but for its counters keeps those the node has. The distance stays beside the object, for
//! this node alone, and counts for all that comes after.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use model::desired::{App, Content, Device, Origin, Volume};
use uuid::Uuid;

use super::{Fleet, Known};
use crate::db::{Db, DbError, Overlaid};
use crate::objects::{Added, Key, Kind, Object, Objects};

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
type Signature = Vec<(Key, u64)>;

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
        let signature: Signature =
            shared().filter_map(|h| Some((h.said.key.clone(), h.said.as_of?))).collect();
        if signature.is_empty() {
            return Told::Everybody(&self.objects);
        }
        let mut views = self.views.0.lock().unwrap_or_else(PoisonError::into_inner);
        if views.0 != self.shared || views.1.len() > VIEWS_MAX {
            *views = (self.shared, HashMap::new());
        }
        let made = views
            .1
            .entry(signature)
            .or_insert_with(|| Arc::new(laid_over(&self.objects, shared())));
        Told::Own(made.clone())
    }

    /// What is added to the counters of apps on a node.
    pub(crate) fn added(&self, id: Uuid) -> Added {
        let all = self.overlay(id).into_iter().flat_map(|o| o.iter());
        let added = all.map(|(key, held)| (key.clone(), (held.said.restart, held.said.purge)));
        added.filter(|(_, more)| *more != (0, 0)).collect()
    }

    /// Everything that is held back from nodes of this object.
    pub(super) fn held_of(&self, key: &Key) -> impl Iterator<Item = &Overlaid> {
        let all = self.overlays.values().filter_map(|o| o.get(key)).map(|held| &held.said);
        all.filter(|said| said.as_of.is_some())
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

/// What a node is told once a holder lets go of it.
#[derive(Debug)]
pub(crate) struct LetGo {
    /// Its config, without its time stamp.
    pub(crate) told: Device,
    /// What is to be stored for that.
    pub(crate) rows: Vec<Overlaid>,
}

impl Fleet {
    /// What a node is told once `holder` lets go of it (`None`: all let go), of the objects as they
    /// are in `next`. `None` if nothing is held there, or the node is not among `next`.
    pub(crate) fn let_go(
        &self,
        known: &Known,
        id: Uuid,
        next: &Objects,
        holder: Option<&str>,
    ) -> Option<LetGo> {
        let overlay = known.overlay(id)?;
        let goes = |h: &&Held| {
            h.said.as_of.is_some() && holder.is_none_or(|holder| h.said.holder == holder)
        };
        let going: Vec<&Overlaid> = overlay.values().filter(goes).map(|h| &h.said).collect();
        if going.is_empty() {
            return None;
        }
        let stays: Vec<&Held> =
            overlay.values().filter(|h| h.said.as_of.is_some() && !goes(h)).collect();
        let own = &known.object_of(id)?.object.key;
        let device = stays.iter().find(|h| h.said.key == *own).and_then(|h| h.version.as_ref());
        let device = device.or_else(|| next.get(own))?;
        let laid;
        let next = if stays.is_empty() {
            next
        } else {
            laid = laid_over(next, stays.iter().copied());
            &laid
        };
        let mut added = known.added(id);
        let mut told = self.would_tell_with(known, device, next, &added)?;
        let same = same_but_counters(&self.compiled(known, id)?, &told);
        for (key, (restart, purge)) in &same {
            let more = added.entry(key.clone()).or_default();
            *more = (more.0.wrapping_sub(*restart), more.1.wrapping_sub(*purge));
        }
        if !same.is_empty() {
            told = self.would_tell_with(known, device, next, &added)?;
        }
        let counters = |key: &Key| added.get(key).copied().unwrap_or_default();
        let mut rows: Vec<Overlaid> = going
            .iter()
            .map(|said| {
                // A new object of the name of one that is gone begins anew.
                let gone = !next.contains_key(&said.key) && said.key != *own;
                let (restart, purge) = if gone { (0, 0) } else { counters(&said.key) };
                Overlaid { restart, purge, ..released(said) }
            })
            .collect();
        for (key, _) in same.iter().filter(|(key, _)| !going.iter().any(|s| s.key == **key)) {
            let (restart, purge) = counters(key);
            rows.push(match overlay.get(key) {
                Some(held) => Overlaid { restart, purge, ..held.said.clone() },
                None => Overlaid {
                    device: id,
                    key: key.clone(),
                    as_of: None,
                    restart,
                    purge,
                    holder: String::new(),
                    why: String::new(),
                    since: self.now(),
                },
            });
        }
        Some(LetGo { told, rows })
    }
}

/// What is left of it when nobody holds it: what was added to counters stays.
fn released(said: &Overlaid) -> Overlaid {
    Overlaid { as_of: None, holder: String::new(), why: String::new(), ..said.clone() }
}

/// A set of objects in which some are as they were. Devices are left out: what one node is told
/// depends on no other.
fn laid_over<'a>(objects: &Objects, held: impl Iterator<Item = &'a Held>) -> Objects {
    let others = objects.iter().filter(|(key, _)| key.kind != Kind::Device);
    let mut objects: Objects = others.map(|(k, o)| (k.clone(), o.clone())).collect();
    for held in held.filter(|h| h.said.as_of.is_some() && h.said.key.kind != Kind::Device) {
        match &held.version {
            Some(version) => objects.insert(held.said.key.clone(), version.clone()),
            None => objects.remove(&held.said.key),
        };
    }
    objects
}

/// The apps that say the same in both but for their counters, and how far those of `new` are ahead:
/// restarts and purges.
fn same_but_counters(old: &Device, new: &Device) -> Added {
    let mut all = Added::new();
    for (id, is) in &new.apps {
        let Some(was) = old.apps.get(id).filter(|was| bare(old, was) == bare(new, is)) else {
            continue;
        };
        let ahead = (is.restart.wrapping_sub(was.restart), is.purge.wrapping_sub(was.purge));
        if ahead != (0, 0) {
            all.insert(Key::new(Kind::App, &is.name), ahead);
        }
    }
    all
}

/// An app without its counters, and what its root is made of.
fn bare<'a>(told: &'a Device, app: &App) -> (App, Option<Volume>, Option<&'a Content>) {
    let mut app = App { version: String::new(), restart: 0, purge: 0, ..app.clone() };
    let root = app.volumes.first_mut().and_then(|root| {
        root.generation = 0;
        told.volumes.get(&root.volume)
    });
    let root = root.map(|root| Volume { generation: 0, ..root.clone() });
    let content = root.as_ref().and_then(|root| match &root.origin {
        Origin::Content(id) => told.contents.get(id),
        _ => None,
    });
    (app, root, content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Target, check, compile, read};

    fn objects(text: &str) -> Objects {
        let object = |(n, d): (u128, crate::objects::Document)| {
            let uid = Uuid::from_u128(n + 1);
            let (key, spec) = (d.key, d.spec);
            let object = Object {
                key: key.clone(),
                uid,
                generation: 1,
                restart: 0,
                purge: 0,
                pinned: None,
                spec,
            };
            (key, Arc::new(object))
        };
        let all: Objects = (0..).zip(read(text).unwrap()).map(object).collect();
        assert_eq!(check(&all), []);
        all
    }

    fn told(objects: &Objects, added: Added) -> Device {
        let target = Target {
            device: &objects[&Key::new(Kind::Device, "d")],
            controller: Uuid::nil(),
            host: Some("controller.example"),
            root_pem: "PEM",
            certs_hash: "hash",
            epoch: 0,
            reboots: 0,
            shutdowns: 0,
            registry_password: None,
            edge_view: None,
            added,
        };
        compile(&target, objects)
    }

    const FLEET: &str = "
{kind: Device, name: d}
---
{kind: Secret, name: s, spec: {value: one}}
---
{kind: App, name: web, spec: {device: d, image: web, virtualization: vm, user_data: {secret: s}}}
---
{kind: App, name: cam, spec: {device: d, image: cam}}
";

    /// Counters of both apps, as a node is told them.
    fn counters(device: &Device) -> Vec<(&str, u32, u32)> {
        let mut all: Vec<_> =
            device.apps.values().map(|a| (a.name.as_str(), a.restart, a.purge)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn an_app_that_says_the_same_keeps_its_counters() {
        let before = objects(FLEET);
        let mut after = before.clone();
        for (name, restart, purge) in [("web", 3, 0), ("cam", 1, 7)] {
            let object = Arc::make_mut(after.get_mut(&Key::new(Kind::App, name)).unwrap());
            (object.generation, object.restart, object.purge) = (4, restart, purge);
        }
        // A secret that went away and came back counts in the counters of who uses it.
        Arc::make_mut(after.get_mut(&Key::new(Kind::Secret, "s")).unwrap()).generation = 3;
        let (old, new) = (told(&before, Added::new()), told(&after, Added::new()));
        let ahead = same_but_counters(&old, &new);
        assert_eq!(ahead.len(), 2, "{ahead:?}");
        let added = ahead
            .into_iter()
            .map(|(key, (r, p))| (key, (0_u32.wrapping_sub(r), 0_u32.wrapping_sub(p))));
        let added: Added = added.collect();
        let aligned = told(&after, added.clone());
        assert_eq!(counters(&aligned), counters(&old));
        let roots = |d: &Device| d.volumes.values().map(|v| v.generation).collect::<Vec<_>>();
        assert_eq!(roots(&aligned), roots(&old));
        // What comes after counts on from there.
        let object = Arc::make_mut(after.get_mut(&Key::new(Kind::App, "cam")).unwrap());
        object.purge += 1;
        assert_eq!(told(&after, added).apps.values().map(|a| a.purge).sum::<u32>(), 1);
    }

    #[test]
    fn an_app_that_says_something_else_does_not() {
        let before = objects(FLEET);
        let all = [
            ("image: cam", "image: 'cam:2'"),
            ("value: one", "value: two"),
            ("image: web,", "image: web, memory: 1GiB,"),
        ];
        for (from, to) in all {
            let after = objects(&FLEET.replace(from, to));
            let mut after = after.clone();
            for object in after.values_mut() {
                Arc::make_mut(object).purge = 5;
            }
            let ahead =
                same_but_counters(&told(&before, Added::new()), &told(&after, Added::new()));
            assert_eq!(ahead.len(), 1, "{to}: {ahead:?}");
        }
    }
}
