//! What the database holds of objects and nodes, as one value that follows it.
//!
//! Nodes look at it through a lock ([`super::Fleet::look`]) and keep nothing; people get a snapshot
//! ([`super::Fleet::known`]), which may cost a copy when something changes meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::Digest;
use uuid::Uuid;

use super::overlay::{self, Held, Overlay, Views};
use crate::db::{Db, DbError, DeviceRow, Entry, StoredObject};
use crate::objects::{DeviceSpec, Flaw, Key, Kind, Objects, Spec, check};

#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) stored: BTreeMap<Key, Arc<StoredObject>>,
    pub(crate) objects: Objects,
    pub(crate) flaws: Vec<Flaw>,
    pub(crate) devices: HashMap<Uuid, Arc<Device>>,
    /// Serial numbers that may register with our own onboarding certificate; `*` is any. Behind
    /// [`serial_prefix`]: with another.
    pub(crate) serials: Vec<String>,
    pub(crate) onboard_certs: Vec<api::Certificate>,
    /// What single nodes are told otherwise.
    pub(super) overlays: HashMap<Uuid, Arc<Overlay>>,
    pub(super) views: Arc<Views>,
    by_uid: HashMap<Uuid, Key>,
    by_cert: HashMap<Digest, Uuid>,
    by_half: HashMap<[u8; 16], Uuid>,
    by_serial: HashMap<String, Vec<Uuid>>,
    /// Grows with every change.
    pub(crate) revision: u64,
    /// The last revision that changed an object which is no device: it may show in every config.
    pub(crate) shared: u64,
}

/// A node, with the key that its messages are checked with.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) row: DeviceRow,
    /// `None`: it has not registered.
    pub(crate) signer: Option<api::Signer>,
    /// The last revision that changed its row or its object.
    pub(crate) changed: u64,
}

impl Known {
    /// Reads everything.
    pub(crate) async fn read(db: &Db) -> Result<Known, DbError> {
        // First the revision: what changes while the rest is read is looked at again afterwards.
        let revision = db.revision().await?;
        let mut known = Known { revision, shared: revision, ..Known::default() };
        for stored in db.objects().await? {
            known.put_object(stored);
        }
        for row in db.devices().await? {
            known.put_device(row, revision);
        }
        known.admission(db).await?;
        known.take_overlays(overlay::read(db, 0).await?, revision);
        known.flaws = check(&known.objects);
        Ok(known)
    }

    pub(crate) fn device(&self, id: Uuid) -> Option<&DeviceRow> {
        self.devices.get(&id).map(|d| &d.row)
    }

    /// The object of a node, by id or by name.
    pub(crate) fn device_object(&self, name_or_id: &str) -> Option<&StoredObject> {
        let named = self.stored.get(&Key::new(Kind::Device, name_or_id));
        named.map(|s| &**s).or_else(|| self.object_of(Uuid::parse_str(name_or_id).ok()?))
    }

    /// The nodes of this name, else of this id, else of this serial number, said or expected.
    pub(crate) fn devices_named(&self, text: &str) -> Vec<&StoredObject> {
        if let Some(stored) = self.device_object(text) {
            return vec![stored];
        }
        let serial = text.trim();
        let says = |stored: &&StoredObject| match &stored.object.spec {
            Spec::Device(device) => {
                let row = self.device(stored.object.uid);
                let row = row.map(|row| [row.serial.as_str(), &row.soft_serial]);
                let said = [device.serial.as_str(), &device.soft_serial];
                said.into_iter().chain(row.into_iter().flatten()).any(|s| s == serial)
            }
            _ => false,
        };
        self.of_kind(Kind::Device).filter(|_| !serial.is_empty()).filter(says).collect()
    }

    /// The object of a node.
    pub(crate) fn object_of(&self, id: Uuid) -> Option<&StoredObject> {
        self.stored.get(self.by_uid.get(&id)?).map(|s| &**s)
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &StoredObject> {
        let first = Key::new(kind, "");
        let of_kind = self.stored.range(first..).take_while(move |(key, _)| key.kind == kind);
        of_kind.map(|(_, s)| &**s)
    }

    /// The node whose certificate is named. Nodes that are gone are found, too.
    pub(crate) fn sender(&self, hash: &api::SenderHash) -> Option<&Arc<Device>> {
        let id = match hash {
            api::SenderHash::Full(digest) => self.by_cert.get(digest),
            api::SenderHash::Half(half) => self.by_half.get(half),
            api::SenderHash::Nobody => None,
        }?;
        self.devices.get(id)
    }

    /// The nodes that one with this certificate and these serial numbers could be.
    pub(crate) fn candidates(&self, cert: &Digest, serials: [&str; 2]) -> Vec<DeviceRow> {
        let by_cert = self.by_cert.get(cert).into_iter();
        let by_serial = serials.iter().filter_map(|s| self.by_serial.get(s.trim())).flatten();
        let mut ids: Vec<Uuid> = by_cert.chain(by_serial).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        ids.iter().filter_map(|id| self.device(*id)).cloned().collect()
    }

    /// Serial numbers that may register with this onboarding certificate (empty: our own).
    pub(crate) fn open_serials(&self, onboard: &[u8]) -> Vec<String> {
        let prefix = serial_prefix(onboard);
        let with = self.serials.iter().filter(|s| onboard.is_empty() != s.contains(SEPARATOR));
        with.filter_map(|s| s.strip_prefix(&prefix).map(str::to_owned)).collect()
    }

    /// Takes over what the journal names.
    pub(crate) async fn follow(db: &Db, entries: &[(u64, Entry)]) -> Result<Vec<News>, DbError> {
        let mut news: Vec<News> = Vec::new();
        // What is named again later is read once, then.
        let last: HashMap<&Entry, usize> =
            entries.iter().enumerate().map(|(at, (_, entry))| (entry, at)).collect();
        for (at, (revision, entry)) in entries.iter().enumerate() {
            if last.get(entry) != Some(&at) {
                continue;
            }
            let what = match entry {
                // No config is made of them; who needs them reads them.
                Entry::Object(key) if key.kind.is_policy() => continue,
                Entry::Object(key) => {
                    NewsOf::Object(key.clone(), db.object(key).await?.map(Box::new))
                }
                Entry::Device(id) => NewsOf::Device(*id, db.device(*id).await?.map(Box::new)),
                Entry::Admission => {
                    let mut fresh = Known::default();
                    fresh.admission(db).await?;
                    NewsOf::Admission(fresh.serials, fresh.onboard_certs)
                }
                // Entries before this one may have named other rows.
                Entry::Overlays => {
                    let from = entries.first().map_or(*revision, |(first, _)| *first);
                    NewsOf::Overlays(overlay::read(db, from).await?)
                }
            };
            news.push(News { revision: *revision, what });
        }
        Ok(news)
    }

    /// Takes over what [`Known::follow`] read, up to a revision.
    pub(crate) fn take(&mut self, news: Vec<News>, revision: u64) {
        let mut recheck = false;
        for News { revision, what } in news {
            match what {
                NewsOf::Object(key, stored) => {
                    if key.kind != Kind::Device {
                        self.shared = revision;
                    }
                    // A new node without a word of its own can be wrong in nothing.
                    let plain = stored.as_ref().is_some_and(|s| {
                        key.kind == Kind::Device
                            && s.object.generation == 1
                            && is_plain(&s.object.spec)
                    });
                    recheck |= !plain || self.objects.contains_key(&key);
                    match stored {
                        Some(stored) => {
                            let uid = stored.object.uid;
                            self.put_object(*stored);
                            self.touch(uid, revision);
                        }
                        None => {
                            self.remove_object(&key);
                            self.forget_overlays_of(&key, revision);
                        }
                    }
                }
                NewsOf::Device(id, None) => self.remove_device(id),
                NewsOf::Device(_, Some(row)) => self.put_device(*row, revision),
                NewsOf::Overlays(held) => self.take_overlays(held, revision),
                NewsOf::Admission(serials, certs) => {
                    self.serials = serials;
                    self.onboard_certs = certs;
                }
            }
        }
        if recheck {
            self.flaws = check(&self.objects);
        }
        self.revision = self.revision.max(revision);
    }

    async fn admission(&mut self, db: &Db) -> Result<(), DbError> {
        self.serials = db.serials().await?;
        for pem in db.onboard_certs().await? {
            match api::Certificate::from_pem(&pem) {
                Ok(certificate) => self.onboard_certs.push(certificate),
                Err(e) => tracing::error!("an onboarding certificate is damaged: {e}"),
            }
        }
        Ok(())
    }

    pub(super) fn touch(&mut self, id: Uuid, revision: u64) {
        if let Some(device) = self.devices.get_mut(&id) {
            Arc::make_mut(device).changed = revision;
        }
    }

    fn put_object(&mut self, stored: StoredObject) {
        let key = stored.object.key.clone();
        if key.kind == Kind::Device {
            self.by_uid.insert(stored.object.uid, key.clone());
        }
        self.objects.insert(key.clone(), stored.object.clone());
        self.stored.insert(key, Arc::new(stored));
    }

    fn remove_object(&mut self, key: &Key) {
        self.objects.remove(key);
        if let Some(stored) = self.stored.remove(key) {
            self.by_uid.remove(&stored.object.uid);
        }
    }

    fn remove_device(&mut self, id: Uuid) {
        let Some(old) = self.devices.remove(&id) else { return };
        for serial in [&old.row.serial, &old.row.soft_serial] {
            if let Some(ids) = self.by_serial.get_mut(serial) {
                ids.retain(|known| *known != id);
                if ids.is_empty() {
                    self.by_serial.remove(serial);
                }
            }
        }
        if let Some(digest) = digest(&old.row) {
            // Another node may have taken the certificate over.
            if self.by_cert.get(&digest) == Some(&id) {
                self.by_cert.remove(&digest);
                self.by_half.remove(&half(&digest));
            }
        }
    }

    fn put_device(&mut self, row: DeviceRow, revision: u64) {
        self.remove_device(row.id);
        let id = row.id;
        for serial in [&row.serial, &row.soft_serial] {
            if !serial.is_empty() {
                let ids = self.by_serial.entry(serial.clone()).or_default();
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        let mut signer = None;
        if let (Some(pem), Some(digest)) = (&row.cert_pem, digest(&row)) {
            match api::Certificate::from_pem(pem).and_then(|c| api::Signer::device(&c)) {
                Ok(key) => {
                    self.by_cert.insert(digest, id);
                    self.by_half.insert(half(&digest), id);
                    signer = Some(key);
                }
                Err(e) => tracing::error!(device = %id, "its certificate is damaged: {e}"),
            }
        }
        let changed = revision.max(row.changed);
        self.devices.insert(id, Arc::new(Device { row, signer, changed }));
    }
}

/// What the journal named, as it is now.
#[derive(Debug)]
pub(crate) struct News {
    revision: u64,
    what: NewsOf,
}

#[derive(Debug)]
enum NewsOf {
    Object(Key, Option<Box<StoredObject>>),
    Device(Uuid, Option<Box<DeviceRow>>),
    Admission(Vec<String>, Vec<api::Certificate>),
    Overlays(Vec<Held>),
}

/// Stands between an onboarding certificate and a serial number; no serial number has it.
const SEPARATOR: char = '\u{1f}';

/// What stands before a serial number that may register with this onboarding certificate.
pub(crate) fn serial_prefix(onboard: &[u8]) -> String {
    if onboard.is_empty() { String::new() } else { format!("{}{SEPARATOR}", hex::encode(onboard)) }
}

fn is_plain(spec: &Spec) -> bool {
    let Spec::Device(spec) = spec else { return false };
    let DeviceSpec { serial, soft_serial, .. } = spec;
    let (serial, soft_serial) = (serial.clone(), soft_serial.clone());
    *spec == DeviceSpec { serial, soft_serial, ..DeviceSpec::default() }
}

fn digest(row: &DeviceRow) -> Option<Digest> {
    row.cert_hash.as_deref()?.try_into().ok().map(Digest)
}

fn half(digest: &Digest) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&digest.0[..16]);
    half
}
