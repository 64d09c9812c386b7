//! Changes of the fleet: each makes a revision, and the journal says what changed in it.
//!
//! A change was decided on what was known at some revision. It is stored only while that still is
//! the newest one; whoever was slower looks at the journal, and decides again.

use model::UnixMillis;
use sqlx::Row;
use uuid::Uuid;

use super::fleet::{put_device, put_object, remove_object};
use super::overlay::{Overlaid, put_overlaid};
use super::rollout::{Also, put_also};
use super::{
    Db, DbError, DeviceRow, Doing, Policies, Policy, StoredObject, Tx, signed, text, unsigned,
};
use crate::objects::Key;

/// Older entries are forgotten; who is further behind reads everything.
const JOURNAL_MAX: i64 = 20_000;

/// What is to be stored, in one step.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Who wants it.
    pub(crate) author: String,
    pub(crate) at: UnixMillis,
    pub(crate) put: Vec<StoredObject>,
    pub(crate) removed: Vec<Key>,
    pub(crate) devices: Vec<DeviceRow>,
    /// Serial numbers that may register from now on (true), or no longer.
    pub(crate) serials: Vec<(String, bool)>,
    /// Onboarding certificates: SHA-256 and PEM.
    pub(crate) onboard_certs: Vec<(Vec<u8>, Vec<u8>)>,
    /// What single nodes are told otherwise from now on.
    pub(crate) overlays: Vec<Overlaid>,
    /// Groups, windows and alert rules that are made, changed or removed (`None`).
    pub(crate) policies: Vec<(Key, Option<Policy>)>,
    /// All of these as they were when the change was decided on: it is made only if they still are.
    /// `None`: it does not hang on them.
    pub(crate) policies_then: Option<Policies>,
    /// What must be written with it, or the whole change is not; alone it makes no change.
    pub(crate) also: Vec<Also>,
    /// What people will read of it.
    pub(crate) logged: Vec<Logged>,
}

impl Change {
    pub(crate) fn by(author: &str, at: UnixMillis) -> Change {
        Change { author: author.to_owned(), at, ..Change::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        let Change { put, removed, devices, serials, onboard_certs, overlays, policies, .. } = self;
        put.is_empty()
            && removed.is_empty()
            && devices.is_empty()
            && serials.is_empty()
            && onboard_certs.is_empty()
            && overlays.is_empty()
            && policies.is_empty()
    }

    /// Says what was done to an object; `device` if it happened on a node.
    pub(crate) fn log(&mut self, device: Option<Uuid>, object: impl ToString, action: &str) {
        let (object, action) = (object.to_string(), action.to_owned());
        self.logged.push(Logged { device, object, action, detail: String::new() });
    }
}

/// A line of the audit log, and of the events.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) device: Option<Uuid>,
    /// As `App hello`.
    pub(crate) object: String,
    /// As `created`.
    pub(crate) action: String,
    pub(crate) detail: String,
}

/// What a revision changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Entry {
    Object(Key),
    Device(Uuid),
    /// Serial numbers or onboarding certificates.
    Admission,
    /// What single nodes are told otherwise: the rows say in which revision they changed.
    Overlays,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is revision N.
    As(u64),
    /// Somebody was faster: look again and decide again.
    Behind,
    /// What was to be written with it has changed: read that again.
    Overtaken,
}

impl Db {
    /// The newest revision.
    pub(crate) async fn revision(&self) -> Result<u64, DbError> {
        let row = sqlx::query("SELECT n FROM revision WHERE one = 1").fetch_one(self.read()).await;
        Ok(unsigned(row.and_then(|r| r.try_get(0)).doing("tell its revision")?))
    }

    /// What changed after a revision, oldest first. `None`: too much, or too long ago.
    ///
    /// Who has seen an entry has seen all of smaller revisions: only [`Db::store`] writes entries, in
    /// the transaction that raises the counter, and the row of the counter stays locked until that
    /// transaction has ended. So a revision is visible as a whole, and before the next one is given.
    pub(crate) async fn changes_after(
        &self,
        revision: u64,
    ) -> Result<Option<Vec<(u64, Entry)>>, DbError> {
        let doing = "read the journal";
        let rows = sqlx::query("SELECT n, kind, key FROM journal WHERE n > $1 ORDER BY n LIMIT $2")
            .bind(signed(revision))
            .bind(JOURNAL_MAX)
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in &rows {
            let (n, kind, key): (i64, String, String) = (
                row.try_get(0).doing(doing)?,
                row.try_get(1).doing(doing)?,
                row.try_get(2).doing(doing)?,
            );
            entries.push((unsigned(n), entry(&kind, &key)?));
        }
        // Every revision has an entry: a hole means that the journal was cut.
        let next = entries.first().map_or(revision + 1, |(n, _)| *n);
        let whole = next == revision + 1 && rows.len() < usize::try_from(JOURNAL_MAX).unwrap_or(0);
        Ok(whole.then_some(entries))
    }

    /// Stores a change that was decided on at `revision`.
    pub(crate) async fn store(&self, revision: u64, change: &Change) -> Result<Written, DbError> {
        let doing = "store a change";
        let mut tx = self.begin().await?;
        // The row stays locked until the end: revisions are stored in their order.
        let row = sqlx::query("UPDATE revision SET n = n + 1 WHERE one = 1 RETURNING n")
            .fetch_one(&mut *tx)
            .await
            .doing(doing)?;
        let now = unsigned(row.try_get(0).doing(doing)?);
        if now != revision + 1 {
            tx.rollback().await.doing(doing)?;
            return Ok(Written::Behind);
        }
        if let Some(then) = &change.policies_then
            && !self.still(&mut tx, then).await?
        {
            tx.rollback().await.doing(doing)?;
            return Ok(Written::Overtaken);
        }
        for also in &change.also {
            if !put_also(self, &mut tx, also, change.at).await? {
                tx.rollback().await.doing(doing)?;
                return Ok(Written::Overtaken);
            }
        }
        for stored in &change.put {
            let spec = self.spec_text(&stored.object.key, &stored.written.value())?;
            put_object(&mut tx, stored, &spec).await?;
            remember(&mut tx, now, change, &stored.object.key, Some((stored, spec))).await?;
            note(&mut tx, now, &Entry::Object(stored.object.key.clone())).await?;
        }
        for key in &change.removed {
            if let Some(deleted) = remove_object(&mut tx, key, change.at, now).await? {
                note(&mut tx, now, &Entry::Device(deleted.id)).await?;
                if deleted.overlaid {
                    note(&mut tx, now, &Entry::Overlays).await?;
                }
            }
            remember(&mut tx, now, change, key, None).await?;
            note(&mut tx, now, &Entry::Object(key.clone())).await?;
        }
        for device in &change.devices {
            put_device(self, &mut tx, device, now).await?;
            note(&mut tx, now, &Entry::Device(device.id)).await?;
        }
        for (serial, allowed) in &change.serials {
            set_serial(&mut tx, serial, *allowed, change.at).await?;
            note(&mut tx, now, &Entry::Admission).await?;
        }
        for (hash, pem) in &change.onboard_certs {
            sqlx::query(
                "INSERT INTO onboard_certs VALUES ($1, $2, $3) ON CONFLICT (hash) DO NOTHING",
            )
            .bind(hash.as_slice())
            .bind(pem.as_slice())
            .bind(signed(change.at.0))
            .execute(&mut *tx)
            .await
            .doing(doing)?;
            note(&mut tx, now, &Entry::Admission).await?;
        }
        for overlaid in &change.overlays {
            put_overlaid(&mut tx, overlaid, now).await?;
        }
        if !change.overlays.is_empty() {
            note(&mut tx, now, &Entry::Overlays).await?;
        }
        for policy in &change.policies {
            self.put_policy(&mut tx, policy, change.at).await?;
            note(&mut tx, now, &Entry::Object(policy.0.clone())).await?;
        }
        for logged in &change.logged {
            log(&mut tx, change, logged).await?;
        }
        tx.commit().await.doing(doing)?;
        Ok(Written::As(now))
    }

    /// Forgets what is too old in the journal.
    pub(crate) async fn trim_journal(&self) -> Result<(), DbError> {
        let doing = "forget old entries of the journal";
        let revision = self.revision().await?;
        sqlx::query("DELETE FROM journal WHERE n <= $1")
            .bind(signed(revision) - JOURNAL_MAX)
            .execute(self.write())
            .await
            .doing(doing)?;
        sqlx::query(
            "DELETE FROM overlays
             WHERE changed <= $1 AND as_of IS NULL AND restart = 0 AND purge = 0",
        )
        .bind(signed(revision) - JOURNAL_MAX)
        .execute(self.write())
        .await
        .doing(doing)
        .map(drop)
    }
}

fn entry(kind: &str, key: &str) -> Result<Entry, DbError> {
    let damaged =
        |why: String| DbError::Damaged { what: format!("journal entry {kind} {key}"), why };
    match kind {
        "device" => Uuid::parse_str(key).map(Entry::Device).map_err(|e| damaged(e.to_string())),
        "admission" => Ok(Entry::Admission),
        "overlays" => Ok(Entry::Overlays),
        _ => {
            let kind = kind.parse().map_err(damaged)?;
            Ok(Entry::Object(Key::new(kind, key)))
        }
    }
}

async fn note(tx: &mut Tx, revision: u64, entry: &Entry) -> Result<(), DbError> {
    let (kind, key) = match entry {
        Entry::Object(key) => (key.kind.name(), key.name.clone()),
        Entry::Device(id) => ("device", id.to_string()),
        Entry::Admission => ("admission", String::new()),
        Entry::Overlays => ("overlays", String::new()),
    };
    sqlx::query("INSERT INTO journal VALUES ($1, $2, $3)")
        .bind(signed(revision))
        .bind(kind)
        .bind(key)
        .execute(&mut **tx)
        .await
        .doing("write the journal")
        .map(drop)
}

/// Keeps what an object says from this revision on.
async fn remember(
    tx: &mut Tx,
    revision: u64,
    change: &Change,
    key: &Key,
    stored: Option<(&StoredObject, String)>,
) -> Result<(), DbError> {
    let (stored, spec) = stored.unzip();
    sqlx::query(
        "INSERT INTO object_history
             (kind, name, revision, spec, generation, author, at_ms, uid, restart, purge, pinned)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(key.kind.name())
    .bind(&key.name)
    .bind(signed(revision))
    .bind(spec)
    .bind(signed(stored.map_or(0, |s| s.object.generation)))
    .bind(text(&change.author))
    .bind(signed(change.at.0))
    .bind(stored.map(|s| s.object.uid.as_bytes().to_vec()))
    .bind(stored.map_or(0, |s| i64::from(s.object.restart)))
    .bind(stored.map_or(0, |s| i64::from(s.object.purge)))
    .bind(stored.and_then(|s| s.object.pinned).map(|d| d.to_string()))
    .execute(&mut **tx)
    .await
    .doing("keep the history of an object")
    .map(drop)
}

async fn set_serial(
    tx: &mut Tx,
    serial: &str,
    allowed: bool,
    now: UnixMillis,
) -> Result<(), DbError> {
    let query = if allowed {
        sqlx::query("INSERT INTO serials VALUES ($1, $2) ON CONFLICT (serial) DO NOTHING")
            .bind(text(serial))
            .bind(signed(now.0))
    } else {
        sqlx::query("DELETE FROM serials WHERE serial = $1").bind(text(serial))
    };
    query.execute(&mut **tx).await.doing("store a serial number").map(drop)
}

pub(super) async fn log(tx: &mut Tx, change: &Change, logged: &Logged) -> Result<(), DbError> {
    let doing = "store an event";
    sqlx::query("INSERT INTO events (at_ms, device, object, text) VALUES ($1, $2, $3, $4)")
        .bind(signed(change.at.0))
        .bind(logged.device.map(|d| d.as_bytes().to_vec()))
        .bind(text(&logged.object))
        .bind(text(&logged.action))
        .execute(&mut **tx)
        .await
        .doing(doing)?;
    sqlx::query(
        "INSERT INTO audit (at_ms, author, action, object, detail) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(signed(change.at.0))
    .bind(text(&change.author))
    .bind(text(&logged.action))
    .bind(text(&logged.object))
    .bind(text(&logged.detail))
    .execute(&mut **tx)
    .await
    .doing(doing)
    .map(drop)
}
