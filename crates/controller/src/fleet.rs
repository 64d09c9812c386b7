//! The fleet: all that is known of nodes and objects, in memory and on the disk, and the one place
//! that changes it.
//!
//! Changes go one at a time: they are decided on values, stored, and only then seen by others.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use api::convert::config;
use bytes::Bytes;
use model::{DeviceId, Digest, UnixMillis};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use crate::admission::{Admission, Applicant, admit};
use crate::db::{Db, DbError, DeviceRow, Standing, StoredObject, by_key};
use crate::objects::{
    self, Document, Flaw, Key, Kind, Objects, ReadError, Spec, Target, bumps, check, compile,
    content_of,
};
use crate::pki::Pki;
use crate::registry::Registry;
use crate::{Clock, view};

/// Everything that does not change while the controller runs.
pub(crate) struct Fleet {
    pub(crate) data: PathBuf,
    pub(crate) db: Db,
    pub(crate) pki: Pki,
    pub(crate) sessions: crate::access::Sessions,
    pub(crate) attest: crate::attest::Nonces,
    signing: api::SigningKey,
    onboard: api::Certificate,
    certs_answer: Bytes,
    certs_hash: String,
    controller: Uuid,
    advertise: Option<String>,
    names: Vec<String>,
    registry: Registry,
    clock: Clock,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    known: RwLock<Arc<Known>>,
    seen: Mutex<HashMap<Uuid, Seen>>,
    told: Mutex<HashMap<Uuid, Arc<Told>>>,
    changed: watch::Sender<u64>,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("data", &self.data).finish_non_exhaustive()
    }
}

/// What the database holds of objects and nodes, as one value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) stored: Vec<StoredObject>,
    pub(crate) objects: Objects,
    pub(crate) flaws: Vec<Flaw>,
    pub(crate) devices: Vec<DeviceRow>,
    pub(crate) serials: Vec<String>,
    signers: HashMap<Uuid, (api::Signer, api::Certificate)>,
    by_cert: HashMap<Digest, Uuid>,
    by_half: HashMap<[u8; 16], Uuid>,
    /// Grows with every change.
    revision: u64,
}

impl Known {
    pub(crate) fn device(&self, id: Uuid) -> Option<&DeviceRow> {
        self.devices.iter().find(|d| d.id == id)
    }

    /// The object of a node, by id or by name.
    pub(crate) fn device_object(&self, name_or_id: &str) -> Option<&StoredObject> {
        let id = Uuid::parse_str(name_or_id).ok();
        self.stored.iter().find(|s| {
            s.object.key.kind == Kind::Device
                && (s.object.key.name == name_or_id || Some(s.object.uid) == id)
        })
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &StoredObject> {
        self.stored.iter().filter(move |s| s.object.key.kind == kind)
    }
}

#[derive(Debug, Clone)]
struct Seen {
    at: UnixMillis,
    host: Option<String>,
    stored: bool,
}

/// What a node is told, ready to be sent.
#[derive(Debug)]
struct Told {
    revision: u64,
    host: Option<String>,
    hash: String,
    answer: Bytes,
}

/// The answer to a node that asks for its config.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ConfigAnswer {
    /// It has it.
    Unchanged,
    /// The signed answer.
    Changed(Bytes),
    /// It has to attest (again).
    Attest,
}

/// Why the fleet could not do as told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FleetError {
    /// The documents cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Objects are wrong.
    #[error("{}", list(.0))]
    Flawed(Vec<Flaw>),
    /// There is no such object.
    #[error("there is no {0}")]
    NoObject(Key),
    /// Something else refers to the object.
    #[error("{key} is still used: {}", list(.by))]
    Used {
        /// Which object.
        key: Key,
        /// What would be wrong without it.
        by: Vec<Flaw>,
    },
    /// An image is not in the registry.
    #[error("{key}: spec.image: there is no {image} in the registry (it has {have})")]
    NoImage {
        /// Which app.
        key: Key,
        /// What it asks for.
        image: String,
        /// What there is.
        have: String,
    },
    /// The registry's layout cannot be read.
    #[error("cannot look into the registry")]
    Registry(#[from] store::StoreError),
    /// The database failed.
    #[error("cannot keep the change")]
    Db(#[from] DbError),
    /// Signing failed.
    #[error("cannot sign the config")]
    Sign(#[from] api::KeyError),
}

fn list(flaws: &[Flaw]) -> String {
    flaws.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What a fleet is started from.
pub(crate) struct Start {
    pub(crate) data: PathBuf,
    pub(crate) db: Db,
    pub(crate) pki: Pki,
    pub(crate) registry: Registry,
    pub(crate) advertise: Option<String>,
    pub(crate) names: Vec<String>,
    pub(crate) clock: Clock,
}

/// Why a fleet could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database failed.
    #[error("cannot read the fleet")]
    Db(#[from] DbError),
    /// The signing key is damaged.
    #[error("cannot use the signing key")]
    Key(#[from] api::KeyError),
    /// A certificate is damaged.
    #[error("cannot use the onboarding certificate")]
    Certificate(#[from] api::CertificateError),
}

impl Fleet {
    pub(crate) async fn start(start: Start) -> Result<Fleet, StartError> {
        let Start { data, db, pki, registry, advertise, names, clock } = start;
        let signing = api::SigningKey::from_pem(pki.signing.key_pem.as_bytes())?;
        let onboard = api::Certificate::from_pem(pki.onboard.cert_pem.as_bytes())?;
        let payload = api::certs::publish(
            pki.signing.cert_pem.as_bytes(),
            &[pki.ecdh.cert_pem.as_bytes()],
            &[pki.intermediate.cert_pem.as_bytes()],
        );
        let sender = api::Sender::controller(&signing, pki.signing.cert_pem.as_bytes());
        let certs_answer = api::envelope::sign(&payload, &sender)?.into();
        let certs_hash = hex::encode(Sha256::digest(&payload));
        let id = db.meta("controller", || Uuid::new_v4().as_bytes().to_vec()).await?;
        let controller = Uuid::from_slice(&id)
            .map_err(|e| DbError::Damaged { what: "identity".into(), why: e.to_string() })?;
        let fleet = Fleet {
            data,
            db,
            pki,
            sessions: crate::access::Sessions::default(),
            attest: crate::attest::Nonces::default(),
            signing,
            onboard,
            certs_answer,
            certs_hash,
            controller,
            advertise,
            names,
            registry,
            clock,
            changing: tokio::sync::Mutex::default(),
            known: RwLock::default(),
            seen: Mutex::default(),
            told: Mutex::default(),
            changed: watch::Sender::new(0),
        };
        fleet.reload().await?;
        Ok(fleet)
    }

    pub(crate) fn now(&self) -> UnixMillis {
        (self.clock)()
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The answer to `certs`.
    pub(crate) fn certs(&self) -> Bytes {
        self.certs_answer.clone()
    }

    /// Wakes up when anything a person could see has changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Says that something a person could see has changed.
    pub(crate) fn touch(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(crate) fn known(&self) -> Arc<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Signs an answer to a node.
    pub(crate) fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, api::KeyError> {
        let zcert = self.pki.signing.cert_pem.as_bytes();
        api::envelope::sign(payload, &api::Sender::controller(&self.signing, zcert))
    }

    /// Whether this is the certificate nodes register with.
    pub(crate) fn is_onboarding(&self, certificate: &api::Certificate) -> bool {
        certificate.digest() == self.onboard.digest()
    }

    /// The node whose certificate is named, with its key. Nodes that are gone are found too.
    pub(crate) fn signer(&self, hash: &api::SenderHash) -> Option<(Uuid, api::Signer)> {
        let known = self.known();
        let id = match hash {
            api::SenderHash::Full(digest) => known.by_cert.get(digest),
            api::SenderHash::Half(half) => known.by_half.get(half),
            api::SenderHash::Nobody => None,
        }?;
        known.signers.get(id).map(|(signer, _)| (*id, signer.clone()))
    }

    /// Notes that a node was heard of, and under which name it reaches us if that is one of ours.
    pub(crate) fn seen(&self, id: Uuid, host: Option<&str>) {
        let host = host.filter(|h| self.is_our_name(h)).map(str::to_owned);
        let at = self.now();
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(id).or_insert(Seen { at, host: None, stored: false });
        // A page that shows `last seen` to the second is not worth redrawing for.
        let news = at.since(seen.at).as_secs() >= 5;
        *seen = Seen { at, host: host.or(seen.host.take()), stored: false };
        drop(all);
        if news {
            self.touch();
        }
    }

    /// When a node was last heard of.
    pub(crate) fn last_seen(&self, id: Uuid) -> Option<UnixMillis> {
        let all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&id).map(|s| s.at)
    }

    /// Stores what [`Fleet::seen`] noted since the last call.
    pub(crate) async fn store_seen(&self) -> Result<(), DbError> {
        let news: Vec<_> = {
            let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = all.iter_mut().filter(|(_, s)| !s.stored);
            fresh
                .map(|(id, s)| {
                    s.stored = true;
                    (*id, s.at, s.host.clone())
                })
                .collect()
        };
        if news.is_empty() { Ok(()) } else { self.db.seen(&news).await }
    }

    /// A host and port of a request, if the host is one of the names in our certificate.
    fn is_our_name(&self, host: &str) -> bool {
        let bare = match host.rsplit_once(':') {
            Some((bare, port)) if port.parse::<u16>().is_ok() => bare,
            _ => host,
        };
        let bare = bare.trim_start_matches('[').trim_end_matches(']');
        self.names.iter().any(|n| n.eq_ignore_ascii_case(bare))
    }

    /// Reads everything again; callers hold `changing` or are the only one.
    async fn reload(&self) -> Result<(), DbError> {
        let stored = self.db.objects().await?;
        let devices = self.db.devices().await?;
        let serials = self.db.serials().await?;
        let objects = by_key(&stored);
        let mut known =
            Known { flaws: check(&objects), objects, stored, serials, ..Known::default() };
        for row in &devices {
            let Some(pem) = &row.cert_pem else { continue };
            let pair = api::Certificate::from_pem(pem)
                .and_then(|c| api::Signer::device(&c).map(|signer| (signer, c)));
            match pair {
                Ok((signer, certificate)) => {
                    let digest = certificate.digest();
                    known.by_cert.insert(digest, row.id);
                    let mut half = [0; 16];
                    half.copy_from_slice(&digest.0[..16]);
                    known.by_half.insert(half, row.id);
                    known.signers.insert(row.id, (signer, certificate));
                }
                Err(e) => tracing::error!(device = %row.id, "its certificate is damaged: {e}"),
            }
        }
        {
            let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            for row in &devices {
                if let Some(at) = row.seen {
                    let host = row.host.clone();
                    all.entry(row.id).or_insert(Seen { at, host, stored: true });
                }
            }
        }
        known.devices = devices;
        let mut slot = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.revision = slot.revision + 1;
        *slot = Arc::new(known);
        drop(slot);
        self.touch();
        Ok(())
    }

    /// Takes a node in, if it may come. The onboarding certificate has been checked.
    pub(crate) async fn register(
        &self,
        what: &api::onboarding::Registration,
    ) -> Result<Registered, FleetError> {
        let _one = self.changing.lock().await;
        let known = self.known();
        let digest = what.certificate.digest();
        let applicant = Applicant {
            cert_hash: &digest.0,
            serial: &what.serial,
            soft_serial: &what.soft_serial,
        };
        let (id, wildcard) = match admit(&known.devices, &known.serials, applicant) {
            Admission::Known(_) => return Ok(Registered::Already),
            Admission::Conflict(_) => return Ok(Registered::Conflict),
            Admission::Unknown => return Ok(Registered::Unknown),
            Admission::Expected(row) => (row.id, false),
            Admission::New => (Uuid::new_v4(), true),
        };
        let now = self.now();
        let object = wildcard.then(|| new_device(id, what, now));
        let row = DeviceRow {
            id,
            serial: what.serial.clone(),
            soft_serial: what.soft_serial.clone(),
            wildcard,
            cert_pem: Some(what.certificate.pem().to_vec()),
            cert_hash: Some(digest.0.to_vec()),
            registered: Some(now),
            seen: None,
            host: None,
            reboots: 0,
            token: None,
            gone: None,
        };
        self.db.register(&row, object.as_ref()).await?;
        self.reload().await?;
        let name = self.known().device_object(&id.to_string()).map(|s| s.object.key.to_string());
        let name = name.unwrap_or_else(|| format!("Device {id}"));
        self.db.add_event(now, Some(id), &name, "registered").await?;
        Ok(Registered::New)
    }

    /// What a node is to be told. `have` is the hash of the config it has, `token` its integrity
    /// token.
    pub(crate) async fn config(
        &self,
        id: Uuid,
        have: &str,
        token: &[u8],
    ) -> Result<ConfigAnswer, FleetError> {
        let known = self.known();
        let row = known.device(id);
        let issued = row.and_then(|r| r.token.as_deref());
        let object = known.device_object(&id.to_string());
        let demanded =
            matches!(object.map(|o| &o.object.spec), Some(Spec::Device(d)) if d.attestation);
        // A token that is not the one we gave says that the node should attest again.
        let good = issued.is_some_and(|t| t == token);
        if (demanded || !token.is_empty()) && !good {
            return Ok(ConfigAnswer::Attest);
        }
        let told = self.told(id, &known).await?;
        if told.hash == have {
            return Ok(ConfigAnswer::Unchanged);
        }
        Ok(ConfigAnswer::Changed(told.answer.clone()))
    }

    /// The config of a node, compiled only when something changed since the last time.
    async fn told(&self, id: Uuid, known: &Arc<Known>) -> Result<Arc<Told>, FleetError> {
        let host = self.advertise.clone().or_else(|| {
            let all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&id).and_then(|s| s.host.clone())
        });
        let cached = self.told.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(told) = cached.filter(|t| t.revision == known.revision && t.host == host) {
            return Ok(told);
        }
        let stored = known
            .device_object(&id.to_string())
            .ok_or_else(|| FleetError::NoObject(Key::new(Kind::Device, id.to_string())))?;
        let target = Target {
            device: &stored.object,
            controller: self.controller,
            host: host.as_deref(),
            root_pem: &self.pki.root.cert_pem,
            certs_hash: &self.certs_hash,
            epoch: 0,
            reboots: known.device(id).map_or(0, |d| d.reboots),
        };
        let mut device = compile(&target, &known.objects);
        let digest = Sha256::digest(config::write_answer(&device, "").1).to_vec();
        let last = self.db.standing(id).await?;
        let timestamp = match &last {
            Some(last) if last.digest == digest => last.timestamp,
            // Strictly forward, also when our own clock went back.
            Some(last) => self.now().max(UnixMillis(last.timestamp.0 + 1)),
            None => self.now(),
        };
        if last.is_none_or(|l| l.timestamp != timestamp) {
            self.db.set_standing(id, &Standing { digest, timestamp }).await?;
        }
        device.timestamp = Some(timestamp);
        let (hash, payload) = config::write_answer(&device, "");
        let answer = self.sign(&payload)?.into();
        let told = Arc::new(Told { revision: known.revision, host, hash, answer });
        let mut all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(id, told.clone());
        Ok(told)
    }

    /// Makes objects say what the documents say. All of them, or none.
    pub(crate) async fn apply(
        &self,
        text: &str,
        allow_missing: bool,
    ) -> Result<view::Applied, FleetError> {
        let documents = objects::read(text)?;
        let _one = self.changing.lock().await;
        let known = self.known();
        let now = self.now();
        let mut next = known.objects.clone();
        let mut put = Vec::new();
        let mut changes = Vec::new();
        for document in documents {
            let old = known.stored.iter().find(|s| s.object.key == document.key);
            let action = match old {
                None => view::Action::Created,
                Some(old) if old.object.spec == document.spec => view::Action::Unchanged,
                Some(_) => view::Action::Changed,
            };
            changes.push(view::Change { key: document.key.clone(), action });
            let stored = settled(old, document, now);
            next.insert(stored.object.key.clone(), stored.object.clone());
            put.push(stored);
        }
        // An app that refers to an image by a tag gets what the tag means now.
        for stored in &mut put {
            self.pin(&mut stored.object, &next)?;
            next.insert(stored.object.key.clone(), stored.object.clone());
        }
        let flaws = check(&next);
        let new = new_flaws(&known.flaws, &flaws, &put);
        let (missing, wrong): (Vec<Flaw>, Vec<Flaw>) = new.into_iter().partition(|f| f.missing);
        if !wrong.is_empty() {
            return Err(FleetError::Flawed(wrong));
        }
        if !missing.is_empty() && !allow_missing {
            return Err(FleetError::Flawed(missing));
        }
        purge_changed(&known, &mut next, &mut put, now);
        put.retain(|s| known.stored.iter().all(|k| k.object != s.object || k.written != s.written));
        for change in &mut changes {
            // The same words may still mean another image.
            let stored = put.iter().any(|s| s.object.key == change.key);
            if change.action == view::Action::Unchanged && stored {
                change.action = view::Action::Changed;
            }
        }
        if !put.is_empty() {
            self.db.change_objects(&put, &[], now).await?;
            for change in changes.iter().filter(|c| c.action != view::Action::Unchanged) {
                let text = change.action.name();
                self.db.add_event(now, None, &change.key.to_string(), text).await?;
            }
            self.reload().await?;
        }
        Ok(view::Applied { changes, missing })
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

    /// Removes an object. What refers to it is left to say so if `force`.
    pub(crate) async fn delete(&self, key: &Key, force: bool) -> Result<(), FleetError> {
        let _one = self.changing.lock().await;
        let known = self.known();
        let mut next = known.objects.clone();
        if next.remove(key).is_none() {
            return Err(FleetError::NoObject(key.clone()));
        }
        let by = new_flaws(&known.flaws, &check(&next), &[]);
        if !by.is_empty() && !force {
            return Err(FleetError::Used { key: key.clone(), by });
        }
        let now = self.now();
        self.db.change_objects(&[], std::slice::from_ref(key), now).await?;
        self.db.add_event(now, None, &key.to_string(), "deleted").await?;
        self.reload().await?;
        Ok(())
    }

    /// Restarts an app on all its nodes; with `purge` its volumes are made anew.
    pub(crate) async fn restart_app(&self, name: &str, purge: bool) -> Result<(), FleetError> {
        let _one = self.changing.lock().await;
        let key = Key::new(Kind::App, name);
        let known = self.known();
        let found = known.stored.iter().find(|s| s.object.key == key);
        let mut stored = found.cloned().ok_or_else(|| FleetError::NoObject(key.clone()))?;
        let now = self.now();
        let counter = if purge { &mut stored.object.purge } else { &mut stored.object.restart };
        *counter = counter.saturating_add(1);
        stored.changed = now;
        self.db.change_objects(&[stored], &[], now).await?;
        let what = if purge { "purge asked for" } else { "restart asked for" };
        self.db.add_event(now, None, &key.to_string(), what).await?;
        self.reload().await?;
        Ok(())
    }

    /// Reboots a node.
    pub(crate) async fn restart_device(&self, name: &str) -> Result<(), FleetError> {
        let _one = self.changing.lock().await;
        let known = self.known();
        let none = || FleetError::NoObject(Key::new(Kind::Device, name));
        let object = &known.device_object(name).ok_or_else(none)?.object;
        let row = known.device(object.uid).ok_or_else(none)?;
        self.db.set_reboots(object.uid, row.reboots.saturating_add(1)).await?;
        let now = self.now();
        self.db
            .add_event(now, Some(object.uid), &object.key.to_string(), "reboot asked for")
            .await?;
        self.reload().await?;
        Ok(())
    }

    /// Makes sure that the next reboot wish differs from every one the node has seen: a database
    /// from a backup must not reboot the fleet.
    pub(crate) async fn catch_up_reboots(&self, id: Uuid, echoed: u32) -> Result<(), FleetError> {
        if self.known().device(id).is_none_or(|d| d.reboots >= echoed) {
            return Ok(());
        }
        let _one = self.changing.lock().await;
        self.db.set_reboots(id, echoed).await?;
        self.reload().await?;
        Ok(())
    }

    /// Lets a serial number register, or no longer.
    pub(crate) async fn allow_serial(&self, serial: &str, allowed: bool) -> Result<(), FleetError> {
        let _one = self.changing.lock().await;
        self.db.allow_serial(serial, allowed, self.now()).await?;
        self.reload().await?;
        Ok(())
    }

    /// Gives a node its integrity token, or takes it away.
    pub(crate) async fn set_integrity_token(
        &self,
        id: Uuid,
        token: Option<&[u8]>,
    ) -> Result<(), FleetError> {
        let _one = self.changing.lock().await;
        self.db.set_integrity_token(id, token).await?;
        // No config depends on it: the rest need not be read again.
        let mut slot = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let known = Arc::make_mut(&mut slot);
        if let Some(row) = known.devices.iter_mut().find(|d| d.id == id) {
            row.token = token.map(<[u8]>::to_vec);
        }
        Ok(())
    }

    /// The ids of what an app becomes on a node.
    pub(crate) fn compiled(&self, known: &Known, id: Uuid) -> Option<model::desired::Device> {
        let stored = known.device_object(&id.to_string())?;
        let target = Target {
            device: &stored.object,
            controller: self.controller,
            host: self.advertise.as_deref(),
            root_pem: &self.pki.root.cert_pem,
            certs_hash: &self.certs_hash,
            epoch: 0,
            reboots: known.device(id).map_or(0, |d| d.reboots),
        };
        Some(compile(&target, &known.objects))
    }
}

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registered {
    /// It is a node of ours now.
    New,
    /// It was one.
    Already,
    /// Its serial number belongs to another certificate.
    Conflict,
    /// Nobody expects it.
    Unknown,
}

fn new_device(id: Uuid, what: &api::onboarding::Registration, now: UnixMillis) -> StoredObject {
    let spec = objects::DeviceSpec {
        serial: what.serial.clone(),
        soft_serial: what.soft_serial.clone(),
        ..objects::DeviceSpec::default()
    };
    let key = Key::new(Kind::Device, format!("node-{}", DeviceId::new(id).short()));
    let written = serde_json::json!({ "serial": what.serial, "soft_serial": what.soft_serial });
    StoredObject {
        object: objects::Object {
            key,
            uid: id,
            generation: 1,
            restart: 0,
            purge: 0,
            pinned: None,
            spec: Spec::Device(spec),
        },
        written,
        changed: now,
    }
}

/// The object as it is to be stored: its counters grow with what changes.
fn settled(old: Option<&StoredObject>, document: Document, now: UnixMillis) -> StoredObject {
    let Document { key, spec, written } = document;
    let object = match old.map(|o| &o.object) {
        None => objects::Object {
            key,
            uid: Uuid::new_v4(),
            generation: 1,
            restart: 0,
            purge: 0,
            pinned: None,
            spec,
        },
        Some(old) => {
            let need = match (&old.spec, &spec) {
                (Spec::App(before), Spec::App(after)) => bumps(before, after),
                _ => objects::Bumps::default(),
            };
            objects::Object {
                key,
                uid: old.uid,
                generation: old.generation + u64::from(old.spec != spec),
                restart: old.restart.saturating_add(need.restart.into()),
                purge: old.purge.saturating_add(need.purge.into()),
                pinned: old.pinned,
                spec,
            }
        }
    };
    let changed = match old {
        Some(old) if old.object == object => old.changed,
        _ => now,
    };
    StoredObject { object, written, changed }
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
        stored.object.purge = stored.object.purge.saturating_add(1);
        stored.changed = now;
        next.insert(stored.object.key.clone(), stored.object.clone());
    }
}

/// What is wrong now and was not before, and all that is wrong with what is being put.
fn new_flaws(before: &[Flaw], after: &[Flaw], put: &[StoredObject]) -> Vec<Flaw> {
    let old: BTreeSet<&Flaw> = before.iter().collect();
    let touched = |f: &Flaw| put.iter().any(|s| s.object.key == f.key);
    after.iter().filter(|f| !old.contains(f) || touched(f)).cloned().collect()
}
