//! Objects, and who the nodes are.

use model::UnixMillis;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};
use uuid::Uuid;

use super::{Db, DbError, Doing, signed, unsigned};
use crate::objects::{Key, Object, Objects, read_spec};

/// An object and its spec as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredObject {
    pub(crate) object: Object,
    pub(crate) written: serde_json::Value,
    pub(crate) changed: UnixMillis,
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
    pub(crate) seen: Option<UnixMillis>,
    /// Under which name it reaches us.
    pub(crate) host: Option<String>,
    pub(crate) reboots: u32,
    /// Its integrity token.
    pub(crate) token: Option<Vec<u8>>,
    /// Its object was deleted.
    pub(crate) gone: Option<UnixMillis>,
}

/// The config a node was last told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Over everything but the time stamp.
    pub(crate) digest: Vec<u8>,
    pub(crate) timestamp: UnixMillis,
}

impl Db {
    /// A value that is not part of any table; made by `make` if there is none.
    pub(crate) async fn meta(
        &self,
        key: &str,
        make: impl FnOnce() -> Vec<u8>,
    ) -> Result<Vec<u8>, DbError> {
        let doing = "read its identity";
        sqlx::query("INSERT OR IGNORE INTO meta VALUES (?, ?)")
            .bind(key)
            .bind(make())
            .execute(&self.writer)
            .await
            .doing(doing)?;
        let row = sqlx::query("SELECT value FROM meta WHERE key = ?")
            .bind(key)
            .fetch_one(&self.writer)
            .await
            .doing(doing)?;
        Ok(row.get(0))
    }

    /// Replaces a value that is not part of any table.
    pub(crate) async fn set_meta(&self, key: &str, value: &[u8]) -> Result<(), DbError> {
        sqlx::query("INSERT OR REPLACE INTO meta VALUES (?, ?)")
            .bind(key)
            .bind(value)
            .execute(&self.writer)
            .await
            .doing("note what it is")
            .map(drop)
    }

    /// Makes a token with this hash known, and forgets others of its name.
    pub(crate) async fn set_token(
        &self,
        name: &str,
        hash: &[u8],
        now: UnixMillis,
    ) -> Result<(), DbError> {
        let doing = "store a token";
        let mut tx = self.writer.begin().await.doing(doing)?;
        sqlx::query("DELETE FROM tokens WHERE name = ?")
            .bind(name)
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        sqlx::query("INSERT INTO tokens VALUES (?, ?, ?)")
            .bind(hash)
            .bind(name)
            .bind(signed(now.0))
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        tx.commit().await.doing(doing)
    }

    /// Whose token this is.
    pub(crate) async fn token_name(&self, hash: &[u8]) -> Result<Option<String>, DbError> {
        let row = sqlx::query("SELECT name FROM tokens WHERE hash = ?")
            .bind(hash)
            .fetch_optional(&self.readers)
            .await
            .doing("look up a token")?;
        Ok(row.map(|r| r.get(0)))
    }

    /// All objects.
    pub(crate) async fn objects(&self) -> Result<Vec<StoredObject>, DbError> {
        let rows = sqlx::query(
            "SELECT kind, name, uid, spec, generation, restart, purge, pinned, changed_ms
             FROM objects ORDER BY kind, name",
        )
        .fetch_all(&self.writer)
        .await
        .doing("read objects")?;
        rows.iter().map(object).collect()
    }

    /// Replaces and removes objects in one step.
    pub(crate) async fn change_objects(
        &self,
        put: &[StoredObject],
        removed: &[Key],
        now: UnixMillis,
    ) -> Result<(), DbError> {
        let doing = "store objects";
        let mut tx = self.writer.begin().await.doing(doing)?;
        for stored in put {
            put_object(&mut tx, stored).await?;
        }
        for key in removed {
            remove_object(&mut tx, key, now).await?;
        }
        tx.commit().await.doing(doing)
    }

    /// All nodes, also those that are gone.
    pub(crate) async fn devices(&self) -> Result<Vec<DeviceRow>, DbError> {
        let rows = sqlx::query(
            "SELECT id, serial, soft_serial, wildcard, cert_pem, cert_hash, registered_ms, seen_ms,
                    host, reboots, token, gone_ms
             FROM devices",
        )
        .fetch_all(&self.writer)
        .await
        .doing("read devices")?;
        rows.iter().map(device).collect()
    }

    /// Makes a certificate known as that of a node. `object` comes along when the node itself is new.
    pub(crate) async fn register(
        &self,
        row: &DeviceRow,
        object: Option<&StoredObject>,
    ) -> Result<(), DbError> {
        let doing = "register a device";
        let mut tx = self.writer.begin().await.doing(doing)?;
        if let Some(object) = object {
            put_object(&mut tx, object).await?;
        }
        // A node that was deleted may come back under another id.
        sqlx::query("DELETE FROM devices WHERE cert_hash = ? AND gone_ms IS NOT NULL")
            .bind(&row.cert_hash)
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        sqlx::query(
            "INSERT INTO devices (id, serial, soft_serial, wildcard, cert_pem, cert_hash,
                                  registered_ms, reboots)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0)
             ON CONFLICT (id) DO UPDATE SET serial = ?2, soft_serial = ?3, wildcard = ?4,
                 cert_pem = ?5, cert_hash = ?6, registered_ms = ?7",
        )
        .bind(row.id.as_bytes().as_slice())
        .bind(&row.serial)
        .bind(&row.soft_serial)
        .bind(row.wildcard)
        .bind(&row.cert_pem)
        .bind(&row.cert_hash)
        .bind(row.registered.map(|at| signed(at.0)))
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        tx.commit().await.doing(doing)
    }

    /// Notes when nodes were last heard of, and under which name they reach us.
    pub(crate) async fn seen(
        &self,
        seen: &[(Uuid, UnixMillis, Option<String>)],
    ) -> Result<(), DbError> {
        let doing = "note when devices were seen";
        let mut tx = self.writer.begin().await.doing(doing)?;
        for (id, at, host) in seen {
            sqlx::query("UPDATE devices SET seen_ms = ?2, host = ?3 WHERE id = ?1")
                .bind(id.as_bytes().as_slice())
                .bind(signed(at.0))
                .bind(host)
                .execute(&mut *tx)
                .await
                .doing(doing)?;
        }
        tx.commit().await.doing(doing)
    }

    /// Sets how often a node was asked to reboot.
    pub(crate) async fn set_reboots(&self, id: Uuid, reboots: u32) -> Result<(), DbError> {
        sqlx::query("UPDATE devices SET reboots = ?2 WHERE id = ?1")
            .bind(id.as_bytes().as_slice())
            .bind(i64::from(reboots))
            .execute(&self.writer)
            .await
            .doing("count a reboot")
            .map(drop)
    }

    /// Gives a node its integrity token; `None` takes it away.
    pub(crate) async fn set_integrity_token(
        &self,
        id: Uuid,
        token: Option<&[u8]>,
    ) -> Result<(), DbError> {
        sqlx::query("UPDATE devices SET token = ?2 WHERE id = ?1")
            .bind(id.as_bytes().as_slice())
            .bind(token)
            .execute(&self.writer)
            .await
            .doing("store an integrity token")
            .map(drop)
    }

    /// Keeps a further certificate of a node. The first of its kind stays: hardware does not change
    /// its keys (EVE API, attestation).
    pub(crate) async fn keep_device_cert(
        &self,
        id: Uuid,
        kind: i32,
        hash: &[u8],
        cert: &[u8],
        mutable: bool,
    ) -> Result<(), DbError> {
        let sql = if mutable {
            "INSERT OR REPLACE INTO device_certs VALUES (?, ?, ?, ?)"
        } else {
            "INSERT OR IGNORE INTO device_certs VALUES (?, ?, ?, ?)"
        };
        sqlx::query(sql)
            .bind(id.as_bytes().as_slice())
            .bind(i64::from(kind))
            .bind(hash)
            .bind(cert)
            .execute(&self.writer)
            .await
            .doing("store a certificate of a device")
            .map(drop)
    }

    /// The config each node was last told of.
    pub(crate) async fn standing(&self, id: Uuid) -> Result<Option<Standing>, DbError> {
        let row = sqlx::query("SELECT digest, timestamp_ms FROM configs WHERE device = ?")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(&self.readers)
            .await
            .doing("read a config")?;
        Ok(row.map(|r| Standing { digest: r.get(0), timestamp: UnixMillis(unsigned(r.get(1))) }))
    }

    /// Notes the config a node is about to be told of.
    pub(crate) async fn set_standing(&self, id: Uuid, now: &Standing) -> Result<(), DbError> {
        sqlx::query("INSERT OR REPLACE INTO configs VALUES (?, ?, ?)")
            .bind(id.as_bytes().as_slice())
            .bind(&now.digest)
            .bind(signed(now.timestamp.0))
            .execute(&self.writer)
            .await
            .doing("store a config")
            .map(drop)
    }

    /// Serial numbers that may register without an object of theirs; `*` is any.
    pub(crate) async fn serials(&self) -> Result<Vec<String>, DbError> {
        let rows = sqlx::query("SELECT serial FROM serials ORDER BY serial")
            .fetch_all(&self.writer)
            .await
            .doing("read the serial numbers")?;
        Ok(rows.iter().map(|r| r.get(0)).collect())
    }

    /// Lets a serial number register, or no longer.
    pub(crate) async fn allow_serial(
        &self,
        serial: &str,
        allowed: bool,
        now: UnixMillis,
    ) -> Result<(), DbError> {
        let query = if allowed {
            sqlx::query("INSERT OR IGNORE INTO serials VALUES (?, ?)")
                .bind(serial)
                .bind(signed(now.0))
        } else {
            sqlx::query("DELETE FROM serials WHERE serial = ?").bind(serial)
        };
        query.execute(&self.writer).await.doing("store a serial number").map(drop)
    }
}

async fn put_object(
    tx: &mut Transaction<'_, Sqlite>,
    stored: &StoredObject,
) -> Result<(), DbError> {
    let doing = "store an object";
    let object = &stored.object;
    sqlx::query(
        "INSERT INTO objects VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (kind, name) DO UPDATE SET uid = ?3, spec = ?4, generation = ?5, restart = ?6,
             purge = ?7, pinned = ?8, changed_ms = ?9",
    )
    .bind(object.key.kind.name())
    .bind(&object.key.name)
    .bind(object.uid.as_bytes().as_slice())
    .bind(stored.written.to_string())
    .bind(signed(object.generation))
    .bind(i64::from(object.restart))
    .bind(i64::from(object.purge))
    .bind(object.pinned.map(|d| d.to_string()))
    .bind(signed(stored.changed.0))
    .execute(&mut **tx)
    .await
    .doing(doing)?;
    if let crate::objects::Spec::Device(spec) = &object.spec {
        // The serials of a node that is registered stay what it registered with.
        sqlx::query(
            "INSERT INTO devices (id, serial, soft_serial, wildcard, reboots)
             VALUES (?1, ?2, ?3, 0, 0)
             ON CONFLICT (id) DO UPDATE SET serial = ?2, soft_serial = ?3 WHERE cert_hash IS NULL",
        )
        .bind(object.uid.as_bytes().as_slice())
        .bind(&spec.serial)
        .bind(&spec.soft_serial)
        .execute(&mut **tx)
        .await
        .doing(doing)?;
    }
    Ok(())
}

async fn remove_object(
    tx: &mut Transaction<'_, Sqlite>,
    key: &Key,
    now: UnixMillis,
) -> Result<(), DbError> {
    let doing = "remove an object";
    let row = sqlx::query("DELETE FROM objects WHERE kind = ? AND name = ? RETURNING uid")
        .bind(key.kind.name())
        .bind(&key.name)
        .fetch_optional(&mut **tx)
        .await
        .doing(doing)?;
    let (Some(row), crate::objects::Kind::Device) = (row, key.kind) else { return Ok(()) };
    let uid: Vec<u8> = row.get(0);
    // The row stays as a memory of the certificate; what the node said goes.
    for sql in [
        "UPDATE devices SET gone_ms = ?2, token = NULL WHERE id = ?1",
        "DELETE FROM configs WHERE device = ?1",
        "DELETE FROM infos WHERE device = ?1",
        "DELETE FROM info_history WHERE device = ?1",
        "DELETE FROM metrics WHERE device = ?1",
        "DELETE FROM logs WHERE device = ?1",
        "DELETE FROM log_bundles WHERE device = ?1",
        "DELETE FROM device_certs WHERE device = ?1",
        // A node that never came leaves no memory.
        "DELETE FROM devices WHERE id = ?1 AND cert_hash IS NULL",
    ] {
        let query = sqlx::query(sql).bind(&uid);
        let query = if sql.contains("?2") { query.bind(signed(now.0)) } else { query };
        query.execute(&mut **tx).await.doing(doing)?;
    }
    Ok(())
}

fn object(row: &SqliteRow) -> Result<StoredObject, DbError> {
    let (kind, name): (String, String) = (row.get(0), row.get(1));
    let damaged = |why: String| DbError::Damaged { what: format!("object {kind} {name}"), why };
    let key = Key { kind: kind.parse().map_err(damaged)?, name: name.clone() };
    let written: serde_json::Value =
        serde_json::from_str(row.get(3)).map_err(|e| damaged(e.to_string()))?;
    let pinned: Option<String> = row.get(7);
    let count = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(StoredObject {
        object: Object {
            spec: read_spec(&key, &written).map_err(|e| damaged(e.to_string()))?,
            uid: uid(row.get(2)).map_err(|e| damaged(e.to_string()))?,
            generation: unsigned(row.get(4)),
            restart: count(row.get(5)),
            purge: count(row.get(6)),
            pinned: pinned
                .map(|p| p.parse())
                .transpose()
                .map_err(|e: model::DigestError| damaged(e.to_string()))?,
            key,
        },
        written,
        changed: UnixMillis(unsigned(row.get(8))),
    })
}

fn device(row: &SqliteRow) -> Result<DeviceRow, DbError> {
    let at = |n: Option<i64>| n.map(|n| UnixMillis(unsigned(n)));
    let damaged = |e: uuid::Error| DbError::Damaged { what: "device".into(), why: e.to_string() };
    Ok(DeviceRow {
        id: uid(row.get(0)).map_err(damaged)?,
        serial: row.get(1),
        soft_serial: row.get(2),
        wildcard: row.get(3),
        cert_pem: row.get(4),
        cert_hash: row.get(5),
        registered: at(row.get(6)),
        seen: at(row.get(7)),
        host: row.get(8),
        reboots: u32::try_from(row.get::<i64, _>(9)).unwrap_or(u32::MAX),
        token: row.get(10),
        gone: at(row.get(11)),
    })
}

fn uid(raw: &[u8]) -> Result<Uuid, uuid::Error> {
    Uuid::from_slice(raw)
}

/// The objects alone, by key.
pub(crate) fn by_key(stored: &[StoredObject]) -> Objects {
    stored.iter().map(|s| (s.object.key.clone(), s.object.clone())).collect()
}
