//! What a node is told: compiled and signed when something changed that shows in it, kept
//! otherwise. An idle poll costs a look into a table.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use model::{Secret, UnixMillis};
use uuid::Uuid;

use super::{Fleet, FleetError, Known, given};
use crate::db::{DbError, Given, Standing};
use crate::objects::{Added, Key, Kind, Object, Objects, Spec, Target, compile};

/// The answer to a node that asks for its config.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ConfigAnswer {
    /// It has it.
    Unchanged,
    /// The signed answer.
    Changed(Bytes),
    /// It has to attest (again).
    Attest,
    /// It is kept from everything, for this reason.
    Quarantined(String),
}

/// What nodes were told last, by id.
#[derive(Debug, Default)]
pub(super) struct Cache {
    told: Mutex<HashMap<Uuid, Arc<Told>>>,
    /// Which config nodes have, not yet stored.
    taken: Mutex<HashMap<Uuid, [u8; 32]>>,
}

/// What a node is told.
#[derive(Debug, Clone)]
struct Told {
    basis: Basis,
    digest: [u8; 32],
    hash: Box<str>,
    /// Ready to be sent. `None`: the node has it, and asking without it makes it anew; of a hundred
    /// thousand nodes all but a few have theirs.
    answer: Option<Bytes>,
    /// Whether it is noted that the node has it.
    taken: Arc<AtomicBool>,
}

impl Told {
    /// Whether a node with this hash can be answered.
    fn serves(&self, have: &str) -> bool {
        self.answer.is_some() || *self.hash == *have
    }
}

/// Where a config comes from.
enum Source {
    Objects(Box<model::desired::Device>),
    Given(Arc<Given>),
}

/// What a config was compiled of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Basis {
    shared: u64,
    own: u64,
    host: Option<Arc<str>>,
    /// An EdgeView session is open: it ends by the clock.
    viewed: bool,
}

impl Fleet {
    /// What a node is to be told. `have` is the hash of the config it has, `token` its integrity
    /// token.
    pub(crate) async fn config(
        &self,
        id: Uuid,
        have: &str,
        token: &[u8],
    ) -> Result<ConfigAnswer, FleetError> {
        let (quarantine, demanded) = self.look(|known| {
            let demanded = matches!(
                known.object_of(id).map(|o| &o.object.spec),
                Some(Spec::Device(d)) if d.attestation
            );
            (known.device(id).and_then(|d| d.quarantine.clone()), demanded)
        });
        if let Some(reason) = quarantine {
            return Ok(ConfigAnswer::Quarantined(reason));
        }
        // A token that is not the one we gave says that the node should attest again.
        if (demanded || !token.is_empty()) && !self.holds_token(id, token).await? {
            return Ok(ConfigAnswer::Attest);
        }
        // What it has may be more than a restored database remembers.
        if self.restored.holds(id) {
            return Ok(ConfigAnswer::Unchanged);
        }
        let told = self.told(id, have).await?;
        match &told.answer {
            Some(answer) if *told.hash != *have => Ok(ConfigAnswer::Changed(answer.clone())),
            ready => {
                if ready.is_some() {
                    self.told.put(id, Told { answer: None, ..Told::clone(&told) });
                }
                if !told.taken.swap(true, Ordering::Relaxed) {
                    self.told.note_taken(id, told.digest);
                }
                Ok(ConfigAnswer::Unchanged)
            }
        }
    }

    /// Lets the next config of a node be made anew, with a new time stamp.
    pub(crate) fn forget_told(&self, id: Uuid) {
        self.told.told.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// What serves a node that has this hash.
    async fn told(&self, id: Uuid, have: &str) -> Result<Arc<Told>, FleetError> {
        let host = self.advertise.as_deref().map(Arc::from).or_else(|| self.host_of(id));
        loop {
            let basis = self.look(|known| {
                let own = known.devices.get(&id).map_or(0, |d| d.changed);
                let viewed = known.session(id, self.now()).is_some();
                Basis { shared: known.shared, own, host: host.clone(), viewed }
            });
            let cached = self.told.get(id).filter(|t| t.serves(have));
            if let Some(told) = cached.as_ref().filter(|t| t.basis == basis) {
                return Ok(told.clone());
            }
            let (revision, source) = self.look(|known| {
                let source = match known.given(id) {
                    Some(given) => Some(Source::Given(given.clone())),
                    None => {
                        let compiled = self.compile(known, id, host.as_deref());
                        compiled.map(|device| Source::Objects(Box::new(device)))
                    }
                };
                (known.revision, source)
            });
            let source = source
                .ok_or_else(|| FleetError::NoObject(Key::new(Kind::Device, id.to_string())))?;
            // Without the time stamp: what counts is whether it says something else.
            let sealing = self.sealing(id).await?;
            let digest = match &source {
                Source::Objects(device) => sealing.digest(device),
                Source::Given(given) => given::digest(given, &self.certs_hash),
            };
            if let Some(told) = cached.filter(|t| t.digest == digest) {
                return Ok(self.told.put(id, Told { basis, ..Told::clone(&told) }));
            }
            let Some(standing) = self.standing(id, &digest, revision).await? else {
                // Another process knows more.
                self.follow().await?;
                continue;
            };
            let taken = Arc::new(AtomicBool::new(standing.taken));
            let hash: Box<str> = self.exchange.hash(&digest, standing.timestamp).into();
            let payload = match source {
                Source::Objects(mut device) => {
                    device.timestamp = Some(standing.timestamp);
                    sealing.answer(&device, &hash)?
                }
                Source::Given(given) => {
                    let (config, at) = (&given.config.bytes, standing.timestamp);
                    api::whole::answer(config, at, &self.certs_hash, &hash)
                }
            };
            let answer = Some(self.sign(&payload)?.into());
            return Ok(self.told.put(id, Told { basis, digest, hash, answer, taken }));
        }
    }

    /// What a config stands as; its time stamp goes strictly forward, also when our own clock went
    /// back. `None`: it was compiled of what has changed since.
    async fn standing(
        &self,
        id: Uuid,
        digest: &[u8],
        revision: u64,
    ) -> Result<Option<Standing>, FleetError> {
        let mut last = self.db.standing(id).await?;
        loop {
            let timestamp = match &last {
                Some(found) if found.digest == digest => return Ok(last),
                Some(last) if last.revision > revision => return Ok(None),
                Some(last) => self.now().max(UnixMillis(last.timestamp.0 + 1)),
                None => self.now(),
            };
            let wish = Standing { digest: digest.to_vec(), timestamp, revision, taken: false };
            last = Some(self.db.settle(id, &wish).await?);
        }
    }

    /// Stores what [`Fleet::config`] learned of who has which config.
    pub(crate) async fn store_taken(&self) -> Result<(), DbError> {
        let mut taken: Vec<_> = {
            let mut all = self.told.taken.lock().unwrap_or_else(PoisonError::into_inner);
            all.drain().collect()
        };
        taken.sort_unstable_by_key(|(id, _)| *id);
        for piece in taken.chunks(500) {
            if let Err(e) = self.db.set_taken(piece, self.now()).await {
                // What is stored twice is as good as once.
                taken.iter().for_each(|(id, digest)| self.told.note_taken(*id, *digest));
                return Err(e);
            }
        }
        Ok(())
    }

    /// Whether a config is what the node was told last, since when that is ready for it, and whether
    /// it said that it has it.
    pub(crate) async fn is_taken(
        &self,
        device: &model::desired::Device,
    ) -> Result<(Option<UnixMillis>, bool), DbError> {
        let standing = self.db.standing(device.id.raw()).await?;
        let digest = match self.look(|known| known.given(device.id.raw()).cloned()) {
            Some(given) => given::digest(&given, &self.certs_hash),
            None => self.sealing(device.id.raw()).await?.digest(device),
        };
        let same = standing.filter(|s| s.digest == digest);
        Ok((same.as_ref().map(|s| s.timestamp), same.is_some_and(|s| s.taken)))
    }

    /// What a node is told, in our own words.
    pub(crate) fn compiled(&self, known: &Known, id: Uuid) -> Option<model::desired::Device> {
        if let Some(given) = known.given(id) {
            return Some(given::read(given, id));
        }
        let host = self.advertise.as_deref().map(Arc::from).or_else(|| self.host_of(id));
        self.compile(known, id, host.as_deref())
    }

    fn compile(
        &self,
        known: &Known,
        id: Uuid,
        host: Option<&str>,
    ) -> Option<model::desired::Device> {
        let device = known.device_told(id)?;
        let added = known.added(id);
        Some(self.compile_of(known, id, host, (&device, &known.told_to(id)), added))
    }

    /// What a node would be told of these objects if nothing was held back from it.
    pub(crate) fn would_tell(
        &self,
        known: &Known,
        device: &Object,
        objects: &Objects,
    ) -> Option<model::desired::Device> {
        self.would_tell_with(known, device, objects, &known.added(device.uid))
    }

    /// The same with other words for what is added to the counters of its apps.
    pub(super) fn would_tell_with(
        &self,
        known: &Known,
        device: &Object,
        objects: &Objects,
        added: &Added,
    ) -> Option<model::desired::Device> {
        let id = device.uid;
        if let Some(given) = known.given(id) {
            return Some(given::read(given, id));
        }
        let host = self.advertise.as_deref().map(Arc::from).or_else(|| self.host_of(id));
        Some(self.compile_of(known, id, host.as_deref(), (device, objects), added.clone()))
    }

    /// What the compiler makes of these objects for a node, whether it is told that or not.
    pub(super) fn compiler_tells(
        &self,
        known: &Known,
        device: &Object,
        objects: &Objects,
    ) -> Option<model::desired::Device> {
        let id = device.uid;
        let host = self.advertise.as_deref().map(Arc::from).or_else(|| self.host_of(id));
        Some(self.compile_of(known, id, host.as_deref(), (device, objects), known.added(id)))
    }

    fn compile_of(
        &self,
        known: &Known,
        id: Uuid,
        host: Option<&str>,
        (device, objects): (&Object, &Objects),
        added: Added,
    ) -> model::desired::Device {
        let row = known.device(id);
        let keeper = self.registry.keeper();
        let target = Target {
            device,
            controller: self.controller,
            host,
            root_pem: &self.pki.root.cert_pem,
            certs_hash: &self.certs_hash,
            epoch: row.map_or(0, |d| d.epoch),
            reboots: row.map_or(0, |d| d.reboots),
            shutdowns: row.map_or(0, |d| d.shutdowns),
            registry_password: (!keeper.open).then(|| Secret::new(keeper.device_token(id))),
            edge_view: known.session(id, self.now()),
            added,
        };
        compile(&target, objects)
    }
}

impl Cache {
    fn note_taken(&self, id: Uuid, digest: [u8; 32]) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(id, digest);
    }

    fn get(&self, id: Uuid) -> Option<Arc<Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn put(&self, id: Uuid, told: Told) -> Arc<Told> {
        let told = Arc::new(told);
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(id, told.clone());
        told
    }
}
