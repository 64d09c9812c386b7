//! The fleet: all that is known of nodes and objects, in memory and in the database, and the one
//! place that changes it.
//!
//! A change is decided on values ([`change`]), stored if nobody else was faster, and only then seen.
//! Several processes may serve one database: each follows the journal of the others ([`known`]).

mod change;
mod given;
mod known;
mod overlay;
pub(crate) mod policies;
mod register;
mod revival;
mod seal;
mod serials;
mod told;
mod trust;
mod viewing;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use model::UnixMillis;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use crate::Clock;
use crate::db::{CLOCKS_DIFFER, Db, DbError, DeviceRow, Entry};
use crate::ingest::Ingest;
use crate::objects::{Flaw, Key, ReadError};
use crate::pki::Pki;
use crate::registry::Registry;
use crate::restored::Restored;

pub(crate) use change::{How, NewDevice};
pub(crate) use known::{Device, Known};
pub(crate) use register::Registered;
pub(crate) use told::ConfigAnswer;

/// What others changed is looked for so often.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// When nodes were last seen is stored this often: it is worth no write for each poll.
const SEEN_EVERY: Duration = Duration::from_secs(10);
/// Nodes whose notes are stored at once.
const PIECE: usize = 500;
const TRIM_EVERY: Duration = Duration::from_secs(600);

/// Everything that does not change while the controller runs, and what is known now.
pub(crate) struct Fleet {
    pub(crate) data: PathBuf,
    pub(crate) db: Db,
    pub(crate) pki: Pki,
    pub(crate) access: crate::access::Access,
    pub(crate) ingest: Ingest,
    pub(crate) points: crate::points::Pace,
    signing: api::SigningKey,
    exchange: seal::Exchange,
    onboard: api::Certificate,
    certs_answer: Bytes,
    certs_hash: String,
    controller: Uuid,
    advertise: Option<String>,
    names: Vec<String>,
    registry: Registry,
    pub(crate) restored: Restored,
    clock: Clock,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    /// One look at the journal at a time.
    following: tokio::sync::Mutex<()>,
    known: RwLock<Arc<Known>>,
    seen: Mutex<HashMap<Uuid, Seen>>,
    told: told::Cache,
    applicants: register::Queue,
    changed: watch::Sender<u64>,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("data", &self.data).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
struct Seen {
    at: UnixMillis,
    host: Option<Arc<str>>,
    stored: bool,
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
    /// There is one already.
    #[error("{0} exists already")]
    Exists(Key),
    /// A certificate is that of another node.
    #[error("{key}: this certificate is that of {other}")]
    CertificateTaken {
        /// Who was to get it.
        key: Key,
        /// Whose it is.
        other: Key,
    },
    /// A serial number is none.
    #[error("{0}")]
    Serial(String),
    /// A serial number was never allowed.
    #[error("{serial} was not allowed to register{allowed}")]
    NotAllowed {
        /// Which.
        serial: String,
        /// What is allowed, in words.
        allowed: String,
    },
    /// No TPM has proven anything of the node yet.
    #[error("{0} has proven nothing yet: there is no state of it to accept")]
    NothingProven(Key),
    /// Somebody else changed the object meanwhile.
    #[error("{key} was changed by somebody else: it is at generation {found}, not {had}")]
    Overtaken {
        /// Which object.
        key: Key,
        /// Its generation; 0: it is gone.
        found: u64,
        /// The one that was looked at.
        had: u64,
    },
    /// Its author is limited to projects, and this is of others.
    #[error("{key}: {why}")]
    OtherProject {
        /// Which object.
        key: Key,
        /// What is of others.
        why: String,
    },
    /// Somebody else did something to the same thing at the same moment.
    #[error("somebody else was faster; look again")]
    Faster,
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
    /// There are no random numbers.
    #[error("cannot seal the secrets of a config")]
    Seal(#[from] crate::access::NoRandomness),
    /// A config that was given whole is none for this node.
    #[error("this config cannot be told to the node")]
    Whole(#[from] api::whole::WholeError),
    /// An EdgeView session is not one that a node would open.
    #[error("cannot open an EdgeView session")]
    EdgeView(#[from] api::edgeview::EdgeviewError),
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
    pub(crate) access: crate::access::Access,
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
    /// There are no random numbers.
    #[error(transparent)]
    Random(#[from] crate::access::NoRandomness),
    /// A certificate is damaged.
    #[error("cannot use a certificate of the controller")]
    Certificate(#[from] api::CertificateError),
}

impl Fleet {
    pub(crate) async fn start(start: Start) -> Result<Fleet, StartError> {
        let Start { data, db, pki, registry, advertise, names, clock, access } = start;
        let signing = api::SigningKey::from_pem(pki.signing.key_pem.as_bytes())?;
        let onboard = api::Certificate::from_pem(pki.onboard.cert_pem.as_bytes())?;
        let payload = pki.published();
        let sender = api::Sender::controller(&signing, pki.signing.cert_pem.as_bytes());
        let certs_answer = api::envelope::sign(&payload, &sender)?.into();
        let certs_hash = hex::encode(Sha256::digest(&payload));
        let id = db.meta("controller", || Uuid::new_v4().as_bytes().to_vec()).await?;
        let controller = Uuid::from_slice(&id)
            .map_err(|e| DbError::Damaged { what: "identity".into(), why: e.to_string() })?;
        let fresh = crate::access::random::<32>()?;
        let hash_key = db.meta("config-hash-key", || fresh.to_vec()).await?;
        let exchange = seal::Exchange::new(&pki.ecdh.key_pem, &pki.ecdh.cert_pem, &hash_key)?;
        let known = Known::read(&db).await?;
        let restored = Restored::read(&db).await?;
        // What a clock noted that ran ahead must not let a node look alive until then.
        let begun = clock();
        let seen = db.seen_since(UnixMillis(0)).await?.into_iter().map(|(id, at, host)| {
            let at = at.min(begun);
            (id, Seen { at, host: host.map(Arc::from), stored: true })
        });
        Ok(Fleet {
            seen: Mutex::new(seen.collect()),
            known: RwLock::new(Arc::new(known)),
            ingest: Ingest::start(&db),
            points: crate::points::Pace::default(),
            data,
            db,
            pki,
            access,
            signing,
            exchange,
            onboard,
            certs_answer,
            certs_hash,
            controller,
            advertise,
            names,
            registry,
            restored,
            clock,
            changing: tokio::sync::Mutex::default(),
            following: tokio::sync::Mutex::default(),
            told: told::Cache::default(),
            applicants: register::Queue::default(),
            changed: watch::Sender::new(0),
        })
    }

    pub(crate) fn now(&self) -> UnixMillis {
        (self.clock)()
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// The names it is reached by.
    pub(crate) fn reached_by(&self) -> &[String] {
        &self.names
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

    /// A snapshot, for what takes its time. Do not hold it across a change.
    pub(crate) fn known(&self) -> Arc<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A quick look, for what nodes ask.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&Known) -> T) -> T {
        at(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Signs an answer to a node.
    pub(crate) fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, api::KeyError> {
        let zcert = self.pki.signing.cert_pem.as_bytes();
        api::envelope::sign(payload, &api::Sender::controller(&self.signing, zcert))
    }

    /// The onboarding certificate, if it is one: empty for our own, else its digest.
    pub(crate) fn onboarding(&self, certificate: &api::Certificate) -> Option<Vec<u8>> {
        let digest = certificate.digest();
        if digest == self.onboard.digest() {
            return Some(Vec::new());
        }
        let other = |known: &Known| known.onboard_certs.iter().any(|c| c.digest() == digest);
        self.look(other).then(|| digest.0.to_vec())
    }

    /// The node whose certificate is named, also one that is gone.
    pub(crate) async fn sender(
        &self,
        hash: &api::SenderHash,
    ) -> Result<Option<Arc<Device>>, DbError> {
        let find = || self.look(|known| known.sender(hash).cloned());
        if let Some(device) = find().filter(|d| d.row.gone.is_none()) {
            return Ok(Some(device));
        }
        // It may have registered with another process a moment ago.
        self.follow().await?;
        Ok(find())
    }

    /// The onboarding certificate that [`Fleet::onboarding`] names like this.
    pub(crate) fn onboarding_certificate(&self, named: &[u8]) -> Option<api::Certificate> {
        if named.is_empty() {
            return Some(self.onboard.clone());
        }
        self.look(|known| known.onboard_certs.iter().find(|c| c.digest().0 == *named).cloned())
    }

    /// Notes that a node was heard of, and under which name it reaches us if that is one of ours.
    pub(crate) fn seen(&self, id: Uuid, host: Option<&str>) {
        let host = host.filter(|h| self.is_our_name(h));
        let at = self.now();
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(id).or_insert(Seen { at, host: None, stored: false });
        // A page that shows `last seen` to the second is not worth redrawing for.
        let news = at.since(seen.at).as_secs() >= 5;
        seen.at = at;
        seen.stored = false;
        if let Some(host) = host
            && seen.host.as_deref() != Some(host)
        {
            seen.host = Some(Arc::from(host));
        }
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

    fn host_of(&self, id: Uuid) -> Option<Arc<str>> {
        let all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&id).and_then(|s| s.host.clone())
    }

    /// Stores what [`Fleet::seen`] noted since the last call.
    pub(crate) async fn store_seen(&self) -> Result<(), DbError> {
        self.store_taken().await?;
        let mut news: Vec<_> = {
            let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = all.iter_mut().filter(|(_, s)| !s.stored);
            fresh
                .map(|(id, s)| {
                    s.stored = true;
                    (*id, s.at, s.host.as_deref().map(str::to_owned))
                })
                .collect()
        };
        news.sort_unstable_by_key(|(id, ..)| *id);
        // In pieces: messages of nodes wait for the same connection.
        for (n, piece) in news.chunks(PIECE).enumerate() {
            if let Err(e) = self.db.set_seen(piece, self.now()).await {
                let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                for (id, ..) in news.iter().skip(n * PIECE) {
                    if let Some(seen) = all.get_mut(id) {
                        seen.stored = false;
                    }
                }
                return Err(e);
            }
        }
        Ok(())
    }

    /// Takes over when nodes were seen by other processes.
    async fn read_seen(&self) -> Result<(), DbError> {
        let since = UnixMillis(self.now().0.saturating_sub(60_000));
        let upto = self.now().after(CLOCKS_DIFFER);
        let others = self.db.seen_since(since).await?;
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, at, host) in others.into_iter().filter(|(_, at, _)| *at <= upto) {
            let seen = all.entry(id).or_insert(Seen { at, host: None, stored: true });
            if at > seen.at {
                *seen = Seen { at, host: host.map(Arc::from), stored: true };
            }
        }
        Ok(())
    }

    /// A host and port of a request, if the host is one of the names in our certificate.
    pub(crate) fn is_our_name(&self, host: &str) -> bool {
        let bare = match host.rsplit_once(':') {
            Some((bare, port)) if port.parse::<u16>().is_ok() => bare,
            _ => host,
        };
        let bare = bare.trim_start_matches('[').trim_end_matches(']');
        self.names.iter().any(|n| n.eq_ignore_ascii_case(bare))
    }

    /// Takes over what changed since the last look, by whichever process.
    pub(crate) async fn follow(&self) -> Result<(), DbError> {
        let _one = self.following.lock().await;
        let have = self.look(|known| known.revision);
        let newest = self.db.revision().await?;
        if newest <= have {
            return Ok(());
        }
        match self.db.changes_after(have).await? {
            Some(entries) => {
                let upto = entries.last().map_or(have, |(revision, _)| *revision);
                let news = Known::follow(&self.db, &entries).await?;
                let mut slot = self.known.write().unwrap_or_else(PoisonError::into_inner);
                Arc::make_mut(&mut slot).take(news, upto);
                drop(slot);
                self.forget_gone(&entries);
            }
            None => {
                let known = Known::read(&self.db).await?;
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
            }
        }
        self.touch();
        Ok(())
    }

    /// Of nodes that are gone nothing stays in memory but who they were.
    fn forget_gone(&self, entries: &[(u64, Entry)]) {
        for (_, entry) in entries {
            let Entry::Device(id) = entry else { continue };
            if self.look(|known| known.device(*id).is_none_or(|row| row.gone.is_some())) {
                self.forget_told(*id);
                self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
            }
        }
    }

    /// What has to be done from time to time; ends never.
    pub(crate) async fn keep(&self) {
        let mut follow = tokio::time::interval(FOLLOW_EVERY);
        let mut seen = tokio::time::interval(SEEN_EVERY);
        let mut trim = tokio::time::interval(TRIM_EVERY);
        loop {
            let done = tokio::select! {
                _ = follow.tick() => self.follow().await,
                _ = seen.tick() => match self.store_seen().await {
                    Ok(()) => self.read_seen().await,
                    failed => failed,
                },
                _ = trim.tick() => self.db.trim_journal().await,
            };
            if let Err(e) = done {
                tracing::error!("{}", model::chain(&e));
            }
        }
    }

    /// Gives a node its integrity token, or takes it away.
    pub(crate) async fn set_integrity_token(
        &self,
        id: Uuid,
        token: Option<&[u8]>,
    ) -> Result<(), DbError> {
        self.db.set_integrity_token(id, token).await?;
        self.cache_token(id, token.map(<[u8]>::to_vec));
        Ok(())
    }

    /// Takes the integrity token of a node away: it has to attest again, whichever process it asks.
    pub(crate) async fn attest_again(&self, id: Uuid, author: &str) -> Result<(), FleetError> {
        self.set_integrity_token(id, None).await?;
        // The token is no part of a change: who compares rows sees none, and tells nobody.
        self.note_device(&id.to_string(), "asked to attest again", author).await
    }

    fn cache_token(&self, id: Uuid, token: Option<Vec<u8>>) {
        let mut slot = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = Arc::make_mut(&mut slot).devices.get_mut(&id) {
            Arc::make_mut(device).row.token = token;
        }
    }

    /// Whether the node has this token; another process may have given it a moment ago.
    pub(crate) async fn holds_token(&self, id: Uuid, token: &[u8]) -> Result<bool, DbError> {
        let holds = |row: Option<&DeviceRow>| {
            row.and_then(|r| r.token.as_deref()).is_some_and(|t| t == token)
        };
        if self.look(|known| holds(known.device(id))) {
            return Ok(true);
        }
        if token.is_empty() {
            return Ok(false);
        }
        let row = self.db.device(id).await?;
        let good = holds(row.as_ref());
        if good {
            self.cache_token(id, row.and_then(|r| r.token));
        }
        Ok(good)
    }
}
