//! Objects, and who the nodes are.

use std::sync::Arc;
use std::time::Duration;

use model::{Secret, UnixMillis};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::vault::At;
use super::{Db, DbError, Doing, Tx, signed, text, unsigned};
use crate::objects::{Key, Object, WrittenSpec, read_spec};

/// An object and its spec as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredObject {
    pub(crate) object: Arc<Object>,
    pub(crate) written: WrittenSpec,
    pub(crate) changed: UnixMillis,
}

/// A config that a node was given whole, instead of what its objects say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    /// As it came, for this node and with its version.
    pub(crate) config: api::whole::Whole,
    pub(crate) author: String,
    pub(crate) at: UnixMillis,
}

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceRow {
    pub(crate) id: Uuid,
    pub(crate) serial: String,
    pub(crate) soft_serial: String,
    /// It came by a wildcard: both serials together are its own.
    pub(crate) wildcard: bool,
    pub(crate) cert_pem: Option<Vec<u8>>,
    pub(crate) cert_hash: Option<Vec<u8>>,
    pub(crate) registered: Option<UnixMillis>,
    /// SHA-256 of the onboarding certificate it must come with; empty: our own.
    pub(crate) onboard: Vec<u8>,
    /// How often it was asked to reboot, and to power off.
    pub(crate) reboots: u32,
    pub(crate) shutdowns: u32,
    /// Changes when it is to say everything again.
    pub(crate) epoch: i64,
    /// Why it gets no config, if it does not.
    pub(crate) quarantine: Option<String>,
    /// Its integrity token.
    pub(crate) token: Option<Vec<u8>>,
    /// How many EdgeView sessions were opened for it.
    pub(crate) views: u32,
    /// The token of the one that is open, and when it ends.
    pub(crate) view: Option<(Secret, UnixMillis)>,
    /// What it is told whatever the objects say.
    pub(crate) given: Option<Arc<Given>>,
    /// Its object was deleted.
    pub(crate) gone: Option<UnixMillis>,
    /// The revision that last changed this row.
    pub(crate) changed: u64,
}

/// Clocks of processes differ by less.
pub(crate) const CLOCKS_DIFFER: Duration = Duration::from_secs(600);

/// The config a node was last told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Over everything but the time stamp.
    pub(crate) digest: Vec<u8>,
    pub(crate) timestamp: UnixMillis,
    /// The newest revision it was compiled at.
    pub(crate) revision: u64,
    /// Whether the node said that it has it.
    pub(crate) taken: bool,
}

impl Db {
    /// A value that is not part of any table; made by `make` if there is none.
    pub(crate) async fn meta(
        &self,
        key: &str,
        make: impl FnOnce() -> Vec<u8>,
    ) -> Result<Vec<u8>, DbError> {
        let doing = "read its identity";
        sqlx::query("INSERT INTO meta VALUES ($1, $2) ON CONFLICT (key) DO NOTHING")
            .bind(key)
            .bind(make())
            .execute(self.write())
            .await
            .doing(doing)?;
        let row = sqlx::query("SELECT value FROM meta WHERE key = $1")
            .bind(key)
            .fetch_one(self.write())
            .await
            .doing(doing)?;
        row.try_get(0).doing(doing)
    }

    /// Such a value, if there is one.
    pub(crate) async fn noted(&self, key: &str) -> Result<Option<Vec<u8>>, DbError> {
        let doing = "read its identity";
        let row = sqlx::query("SELECT value FROM meta WHERE key = $1")
            .bind(key)
            .fetch_optional(self.read())
            .await
            .doing(doing)?;
        row.map(|r| r.try_get(0)).transpose().doing(doing)
    }

    /// Replaces a value that is not part of any table.
    pub(crate) async fn set_meta(&self, key: &str, value: &[u8]) -> Result<(), DbError> {
        sqlx::query("INSERT INTO meta VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = $2")
            .bind(key)
            .bind(value)
            .execute(self.write())
            .await
            .doing("note what it is")
            .map(drop)
    }

    /// All objects.
    pub(crate) async fn objects(&self) -> Result<Vec<StoredObject>, DbError> {
        let rows = sqlx::query(
            "SELECT kind, name, uid, spec, generation, restart, purge, pinned, changed_ms
             FROM objects ORDER BY kind, name",
        )
        .fetch_all(self.read())
        .await
        .doing("read objects")?;
        rows.iter().map(|r| object(self, r)).collect()
    }

    /// One object.
    pub(crate) async fn object(&self, key: &Key) -> Result<Option<StoredObject>, DbError> {
        let row = sqlx::query(
            "SELECT kind, name, uid, spec, generation, restart, purge, pinned, changed_ms
             FROM objects WHERE kind = $1 AND name = $2",
        )
        .bind(key.kind.name())
        .bind(&key.name)
        .fetch_optional(self.read())
        .await
        .doing("read an object")?;
        row.as_ref().map(|r| object(self, r)).transpose()
    }

    /// All nodes, also those that are gone.
    pub(crate) async fn devices(&self) -> Result<Vec<DeviceRow>, DbError> {
        let sql = AssertSqlSafe(format!("SELECT {DEVICE} FROM devices"));
        let rows = sqlx::query(sql).fetch_all(self.read()).await.doing("read devices")?;
        rows.iter().map(|r| device(self, r)).collect()
    }

    /// One node.
    pub(crate) async fn device(&self, id: Uuid) -> Result<Option<DeviceRow>, DbError> {
        let sql = AssertSqlSafe(format!("SELECT {DEVICE} FROM devices WHERE id = $1"));
        let row = sqlx::query(sql)
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.read())
            .await
            .doing("read a device")?;
        row.as_ref().map(|r| device(self, r)).transpose()
    }

    /// Notes when nodes were last heard of, and under which name they reach us. In the order of their
    /// ids: processes that lock the same rows in different orders wait for each other.
    pub(crate) async fn set_seen(
        &self,
        seen: &[(Uuid, UnixMillis, Option<String>)],
        now: UnixMillis,
    ) -> Result<(), DbError> {
        let doing = "note when devices were seen";
        let mut tx = self.begin().await?;
        for (id, at, host) in seen {
            // Another process may have heard of it later; but what comes from far in the future was
            // noted by a clock that has been set back since.
            sqlx::query(
                "INSERT INTO seen VALUES ($1, $2, $3) ON CONFLICT (device) DO UPDATE
                 SET at_ms = $2, host = $3 WHERE seen.at_ms <= $2 OR seen.at_ms > $4",
            )
            .bind(id.as_bytes().as_slice())
            .bind(signed(at.0))
            .bind(host.as_deref().map(text))
            .bind(signed(now.after(CLOCKS_DIFFER).0))
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        }
        tx.commit().await.doing(doing)
    }

    /// Nodes that were heard of since then: when, and under which name they reach us.
    pub(crate) async fn seen_since(
        &self,
        since: UnixMillis,
    ) -> Result<Vec<(Uuid, UnixMillis, Option<String>)>, DbError> {
        let doing = "read when devices were seen";
        let rows = sqlx::query("SELECT device, at_ms, host FROM seen WHERE at_ms >= $1")
            .bind(signed(since.0))
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        rows.iter()
            .map(|r| {
                let at = UnixMillis(unsigned(r.try_get(1).doing(doing)?));
                Ok((uid(r, 0, "note of a device seen")?, at, r.try_get(2).doing(doing)?))
            })
            .collect()
    }

    /// Gives a node its integrity token; `None` takes it away.
    pub(crate) async fn set_integrity_token(
        &self,
        id: Uuid,
        token: Option<&[u8]>,
    ) -> Result<(), DbError> {
        sqlx::query("UPDATE devices SET token = $2 WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .bind(token)
            .execute(self.write())
            .await
            .doing("store an integrity token")
            .map(drop)
    }

    /// The config a node is to be told of from now on. If another process has decided the same, or
    /// decided at a newer revision, what it decided counts and is returned.
    pub(crate) async fn settle(&self, id: Uuid, now: &Standing) -> Result<Standing, DbError> {
        let doing = "store a config";
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO configs (device, digest, timestamp_ms, revision) VALUES ($1, $2, $3, $4)
             ON CONFLICT (device) DO UPDATE SET digest = $2, timestamp_ms = $3, revision = $4,
                 taken_ms = NULL
             WHERE configs.digest <> $2 AND configs.revision <= $4 AND configs.timestamp_ms < $3",
        )
        .bind(id.as_bytes().as_slice())
        .bind(now.digest.as_slice())
        .bind(signed(now.timestamp.0))
        .bind(signed(now.revision))
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        let row = sqlx::query(
            "SELECT digest, timestamp_ms, revision, taken_ms FROM configs WHERE device = $1",
        )
        .bind(id.as_bytes().as_slice())
        .fetch_one(&mut *tx)
        .await
        .doing(doing)?;
        let settled = standing(&row)?;
        tx.commit().await.doing(doing)?;
        Ok(settled)
    }

    /// Notes that nodes have the config of this digest; in the order of their ids, see
    /// [`Db::set_seen`].
    pub(crate) async fn set_taken(
        &self,
        taken: &[(Uuid, [u8; 32])],
        now: UnixMillis,
    ) -> Result<(), DbError> {
        let doing = "note which config devices have";
        let mut tx = self.begin().await?;
        for (id, digest) in taken {
            sqlx::query("UPDATE configs SET taken_ms = $3 WHERE device = $1 AND digest = $2")
                .bind(id.as_bytes().as_slice())
                .bind(digest.as_slice())
                .bind(signed(now.0))
                .execute(&mut *tx)
                .await
                .doing(doing)?;
        }
        tx.commit().await.doing(doing)
    }

    /// The config a node was last told of.
    pub(crate) async fn standing(&self, id: Uuid) -> Result<Option<Standing>, DbError> {
        let row = sqlx::query(
            "SELECT digest, timestamp_ms, revision, taken_ms FROM configs WHERE device = $1",
        )
        .bind(id.as_bytes().as_slice())
        .fetch_optional(self.read())
        .await
        .doing("read a config")?;
        row.as_ref().map(standing).transpose()
    }

    /// Serial numbers that may register without an object of theirs; `*` is any.
    pub(crate) async fn serials(&self) -> Result<Vec<String>, DbError> {
        let doing = "read the serial numbers";
        let rows = sqlx::query("SELECT serial FROM serials ORDER BY serial")
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        rows.iter().map(|r| r.try_get(0)).collect::<Result<_, _>>().doing(doing)
    }

    /// The onboarding certificates beside our own, PEM.
    pub(crate) async fn onboard_certs(&self) -> Result<Vec<Vec<u8>>, DbError> {
        let doing = "read the onboarding certificates";
        let rows = sqlx::query("SELECT pem FROM onboard_certs ORDER BY hash")
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        rows.iter().map(|r| r.try_get(0)).collect::<Result<_, _>>().doing(doing)
    }
}

/// Stores an object; `spec` is the text that is stored for what it says.
pub(super) async fn put_object(
    tx: &mut Tx,
    stored: &StoredObject,
    spec: &str,
) -> Result<(), DbError> {
    let object = &stored.object;
    sqlx::query(
        "INSERT INTO objects VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (kind, name) DO UPDATE SET uid = $3, spec = $4, generation = $5, restart = $6,
             purge = $7, pinned = $8, changed_ms = $9",
    )
    .bind(object.key.kind.name())
    .bind(&object.key.name)
    .bind(object.uid.as_bytes().as_slice())
    .bind(spec)
    .bind(signed(object.generation))
    .bind(i64::from(object.restart))
    .bind(i64::from(object.purge))
    .bind(object.pinned.map(|d| d.to_string()))
    .bind(signed(stored.changed.0))
    .execute(&mut **tx)
    .await
    .doing("store an object")
    .map(drop)
}

/// A node whose object was removed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deleted {
    pub(super) id: Uuid,
    /// Something was held back from it.
    pub(super) overlaid: bool,
}

/// Returns the node whose object it was.
pub(super) async fn remove_object(
    tx: &mut Tx,
    key: &Key,
    now: UnixMillis,
    revision: u64,
) -> Result<Option<Deleted>, DbError> {
    let doing = "remove an object";
    sqlx::query("DELETE FROM overlays WHERE kind = $1 AND name = $2")
        .bind(key.kind.name())
        .bind(&key.name)
        .execute(&mut **tx)
        .await
        .doing(doing)?;
    let row = sqlx::query("DELETE FROM objects WHERE kind = $1 AND name = $2 RETURNING uid")
        .bind(key.kind.name())
        .bind(&key.name)
        .fetch_optional(&mut **tx)
        .await
        .doing(doing)?;
    let (Some(row), crate::objects::Kind::Device) = (row, key.kind) else { return Ok(None) };
    let id = uid(&row, 0, "object")?;
    let raw = id.as_bytes().as_slice();
    // Who it was stays, and what it was told last: it may be rolled back. What the node said goes.
    sqlx::query(
        "UPDATE devices SET gone_ms = $2, token = NULL, view_token = NULL, view_until_ms = NULL,
             changed = $3 WHERE id = $1",
    )
    .bind(raw)
    .bind(signed(now.0))
    .bind(signed(revision))
    .execute(&mut **tx)
    .await
    .doing(doing)?;
    // Nothing is held back from it any more; its counters must not go down if it comes back.
    let held = sqlx::query(
        "UPDATE overlays SET as_of = NULL, holder = '', why = '', changed = $2 WHERE device = $1",
    )
    .bind(raw)
    .bind(signed(revision))
    .execute(&mut **tx)
    .await
    .doing(doing)?;
    for sql in [
        "DELETE FROM infos WHERE device = $1",
        "DELETE FROM info_history WHERE device = $1",
        "DELETE FROM metrics WHERE device = $1",
        "DELETE FROM metric_points WHERE device = $1",
        "DELETE FROM messages WHERE device = $1",
        "DELETE FROM logs WHERE device = $1",
        "DELETE FROM log_bundles WHERE device = $1",
        "DELETE FROM seen WHERE device = $1",
        "DELETE FROM nonces WHERE device = $1",
        "DELETE FROM verdicts WHERE device = $1",
        "DELETE FROM escrow WHERE device = $1",
        // One that never came, and has nothing but what its object says, leaves no memory.
        "DELETE FROM devices WHERE id = $1 AND cert_hash IS NULL AND LENGTH(onboard) = 0",
        "DELETE FROM overlays WHERE device = $1
         AND NOT EXISTS (SELECT 1 FROM devices WHERE id = device)",
        "DELETE FROM configs WHERE device = $1
         AND NOT EXISTS (SELECT 1 FROM devices WHERE id = device)",
        "DELETE FROM device_certs WHERE device = $1
         AND NOT EXISTS (SELECT 1 FROM devices WHERE id = device)",
        "DELETE FROM baselines WHERE device = $1
         AND NOT EXISTS (SELECT 1 FROM devices WHERE id = device)",
    ] {
        sqlx::query(sql).bind(raw).execute(&mut **tx).await.doing(doing)?;
    }
    Ok(Some(Deleted { id, overlaid: held.rows_affected() > 0 }))
}

/// Stores who a node is; its integrity token is left as it is.
pub(super) async fn put_device(
    db: &Db,
    tx: &mut Tx,
    row: &DeviceRow,
    revision: u64,
) -> Result<(), DbError> {
    let doing = "store a device";
    let given = row.given.as_ref().map(|g| db.sealed_bytes(&At::Given(row.id), &g.config.bytes));
    let view = row.view.as_ref().map(|(token, _)| token.reveal().as_bytes());
    let view = view.map(|token| db.sealed(&At::View(row.id), token)).transpose()?;
    // A node that was deleted may come back under another id. The one that it was keeps the
    // certificate itself: who rolls it back is told who has it now.
    sqlx::query(
        "UPDATE devices SET cert_hash = NULL
         WHERE cert_hash = $1 AND gone_ms IS NOT NULL AND id <> $2",
    )
    .bind(row.cert_hash.as_deref())
    .bind(row.id.as_bytes().as_slice())
    .execute(&mut **tx)
    .await
    .doing(doing)?;
    sqlx::query(
        "INSERT INTO devices (id, serial, soft_serial, wildcard, cert_pem, cert_hash,
             registered_ms, onboard, reboots, shutdowns, epoch, quarantine, gone_ms, changed,
             views, view_token, view_until_ms, given, given_version, given_by, given_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
             $19, $20, $21)
         ON CONFLICT (id) DO UPDATE SET serial = $2, soft_serial = $3, wildcard = $4, cert_pem = $5,
             cert_hash = $6, registered_ms = $7, onboard = $8, reboots = $9, shutdowns = $10,
             epoch = $11, quarantine = $12, gone_ms = $13, changed = $14, views = $15,
             view_token = $16, view_until_ms = $17, given = $18, given_version = $19,
             given_by = $20, given_ms = $21",
    )
    .bind(row.id.as_bytes().as_slice())
    .bind(text(&row.serial))
    .bind(text(&row.soft_serial))
    .bind(i64::from(row.wildcard))
    .bind(row.cert_pem.as_deref())
    .bind(row.cert_hash.as_deref())
    .bind(row.registered.map(|at| signed(at.0)))
    .bind(row.onboard.as_slice())
    .bind(i64::from(row.reboots))
    .bind(i64::from(row.shutdowns))
    .bind(row.epoch)
    .bind(row.quarantine.as_deref().map(text))
    .bind(row.gone.map(|at| signed(at.0)))
    .bind(signed(revision))
    .bind(i64::from(row.views))
    .bind(view)
    .bind(row.view.as_ref().map(|(_, until)| signed(until.0)))
    .bind(given.transpose()?)
    .bind(row.given.as_ref().map(|g| text(&g.config.version)))
    .bind(row.given.as_ref().map(|g| text(&g.author)))
    .bind(row.given.as_ref().map(|g| signed(g.at.0)))
    .execute(&mut **tx)
    .await
    .doing(doing)
    .map(drop)
}

fn object(db: &Db, row: &AnyRow) -> Result<StoredObject, DbError> {
    let doing = "read an object";
    let (kind, name): (String, String) =
        (row.try_get(0).doing(doing)?, row.try_get(1).doing(doing)?);
    let damaged = |why: String| DbError::Damaged { what: format!("object {kind} {name}"), why };
    let key = Key { kind: kind.parse().map_err(damaged)?, name: name.clone() };
    let written: String = row.try_get(3).doing(doing)?;
    let written = db.spec_written(&key, &written)?;
    let pinned: Option<String> = row.try_get(7).doing(doing)?;
    let count = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(StoredObject {
        object: Arc::new(Object {
            spec: read_spec(&key, &written).map_err(|e| damaged(e.to_string()))?,
            uid: uid(row, 2, "object")?,
            generation: unsigned(row.try_get(4).doing(doing)?),
            restart: count(row.try_get(5).doing(doing)?),
            purge: count(row.try_get(6).doing(doing)?),
            pinned: pinned
                .map(|p| p.parse())
                .transpose()
                .map_err(|e: model::DigestError| damaged(e.to_string()))?,
            key,
        }),
        written: WrittenSpec::from(&written),
        changed: UnixMillis(unsigned(row.try_get(8).doing(doing)?)),
    })
}

const DEVICE: &str = "id, serial, soft_serial, wildcard, cert_pem, cert_hash, registered_ms, \
                      onboard, reboots, shutdowns, epoch, quarantine, token, gone_ms, changed, \
                      views, view_token, view_until_ms, given, given_version, given_by, given_ms";

/// Of the columns in [`DEVICE`].
fn device(db: &Db, row: &AnyRow) -> Result<DeviceRow, DbError> {
    let doing = "read a device";
    let id = uid(row, 0, "device")?;
    let at = |n: Option<i64>| n.map(|n| UnixMillis(unsigned(n)));
    let count = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
    let until = at(row.try_get(17).doing(doing)?);
    let given = match row.try_get::<Option<Vec<u8>>, _>(18).doing(doing)? {
        Some(bytes) => Some(Arc::new(Given {
            config: api::whole::Whole {
                bytes: db.opened(&At::Given(id), bytes)?,
                version: row.try_get::<Option<String>, _>(19).doing(doing)?.unwrap_or_default(),
            },
            author: row.try_get::<Option<String>, _>(20).doing(doing)?.unwrap_or_default(),
            at: at(row.try_get(21).doing(doing)?).unwrap_or_default(),
        })),
        None => None,
    };
    let view: Option<String> = row.try_get(16).doing(doing)?;
    let view = view.map(|token| db.opened_text(&At::View(id), token)).transpose()?;
    Ok(DeviceRow {
        id,
        serial: row.try_get(1).doing(doing)?,
        soft_serial: row.try_get(2).doing(doing)?,
        wildcard: row.try_get::<i64, _>(3).doing(doing)? != 0,
        cert_pem: row.try_get(4).doing(doing)?,
        cert_hash: row.try_get(5).doing(doing)?,
        registered: at(row.try_get(6).doing(doing)?),
        onboard: row.try_get(7).doing(doing)?,
        reboots: count(row.try_get(8).doing(doing)?),
        shutdowns: count(row.try_get(9).doing(doing)?),
        epoch: row.try_get(10).doing(doing)?,
        quarantine: row.try_get(11).doing(doing)?,
        token: row.try_get(12).doing(doing)?,
        gone: at(row.try_get(13).doing(doing)?),
        changed: unsigned(row.try_get(14).doing(doing)?),
        views: count(row.try_get(15).doing(doing)?),
        view: view.map(Secret::new).zip(until),
        given,
    })
}

fn standing(row: &AnyRow) -> Result<Standing, DbError> {
    let doing = "read a config";
    Ok(Standing {
        digest: row.try_get(0).doing(doing)?,
        timestamp: UnixMillis(unsigned(row.try_get(1).doing(doing)?)),
        revision: unsigned(row.try_get(2).doing(doing)?),
        taken: row.try_get::<Option<i64>, _>(3).doing(doing)?.is_some(),
    })
}

/// The id in a column; `what` names the row if it is none.
pub(super) fn uid(row: &AnyRow, column: usize, what: &str) -> Result<Uuid, DbError> {
    let raw: Vec<u8> = row.try_get(column).doing("read an id")?;
    let damaged = |e: uuid::Error| DbError::Damaged { what: what.to_owned(), why: e.to_string() };
    Uuid::from_slice(&raw).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Location;

    #[tokio::test]
    async fn a_clock_that_ran_ahead_does_not_hide_later_notes() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&Location::File(dir.path().join("db"))).await.unwrap();
        let id = Uuid::from_u128(7);
        let seen = async |at: u64, now: u64| {
            db.set_seen(&[(id, UnixMillis(at), None)], UnixMillis(now)).await.unwrap();
            db.seen_since(UnixMillis(0)).await.unwrap()[0].1.0
        };
        assert_eq!(seen(1_000, 1_000).await, 1_000);
        assert_eq!(seen(900, 1_000).await, 1_000, "another process heard of it later");
        assert_eq!(seen(9_000_000, 9_000_000).await, 9_000_000);
        assert_eq!(seen(8_500_000, 8_500_000).await, 9_000_000, "clocks differ a little");
        assert_eq!(seen(2_000, 2_000).await, 2_000);
    }
}
