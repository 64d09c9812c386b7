//! The tables, as a list of steps: what was once released is never changed, only followed.

use sqlx::{AssertSqlSafe, Row, SqlitePool};

use super::{DbError, Doing};

/// Step N brings version N to N + 1.
const STEPS: &[&str] = &["
    CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
    CREATE TABLE tokens (
        hash BLOB PRIMARY KEY, name TEXT NOT NULL, created_ms INTEGER NOT NULL
    ) STRICT;

    -- Objects, as operators wrote them. A device's uid is the id of the node.
    CREATE TABLE objects (
        kind TEXT NOT NULL, name TEXT NOT NULL, uid BLOB NOT NULL UNIQUE, spec TEXT NOT NULL,
        generation INTEGER NOT NULL, restart INTEGER NOT NULL, purge INTEGER NOT NULL,
        pinned TEXT, changed_ms INTEGER NOT NULL,
        PRIMARY KEY (kind, name)
    ) STRICT;

    -- Who a node is. Rows stay when the object goes (gone_ms): a deleted node is told so.
    CREATE TABLE devices (
        id BLOB PRIMARY KEY, serial TEXT NOT NULL, soft_serial TEXT NOT NULL,
        wildcard INTEGER NOT NULL, cert_pem BLOB, cert_hash BLOB UNIQUE,
        registered_ms INTEGER, seen_ms INTEGER, host TEXT, reboots INTEGER NOT NULL,
        token BLOB, gone_ms INTEGER
    ) STRICT;
    CREATE TABLE serials (serial TEXT PRIMARY KEY, created_ms INTEGER NOT NULL) STRICT;
    CREATE TABLE device_certs (
        device BLOB NOT NULL, kind INTEGER NOT NULL, hash BLOB NOT NULL, cert BLOB NOT NULL,
        PRIMARY KEY (device, kind)
    ) STRICT;

    -- The config each node was last told of: its digest without the time stamp, and that.
    CREATE TABLE configs (
        device BLOB PRIMARY KEY, digest BLOB NOT NULL, timestamp_ms INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE infos (
        device BLOB NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
        at_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL, payload BLOB NOT NULL,
        PRIMARY KEY (device, kind, subject)
    ) STRICT;
    CREATE TABLE info_history (
        id INTEGER PRIMARY KEY AUTOINCREMENT, device BLOB NOT NULL, kind TEXT NOT NULL,
        subject TEXT NOT NULL, received_ms INTEGER NOT NULL, payload BLOB NOT NULL
    ) STRICT;
    CREATE INDEX info_history_device ON info_history (device, id);
    CREATE TABLE metrics (
        device BLOB PRIMARY KEY, received_ms INTEGER NOT NULL, payload BLOB NOT NULL
    ) STRICT;

    -- app: empty for the node's own.
    CREATE TABLE logs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, device BLOB NOT NULL, app TEXT NOT NULL,
        at_ms INTEGER NOT NULL, severity TEXT NOT NULL, source TEXT NOT NULL, content TEXT NOT NULL
    ) STRICT;
    CREATE INDEX logs_device ON logs (device, app, id);
    CREATE TABLE log_bundles (
        id INTEGER PRIMARY KEY AUTOINCREMENT, device BLOB NOT NULL, app TEXT NOT NULL,
        digest BLOB NOT NULL, received_ms INTEGER NOT NULL, refused TEXT, raw BLOB,
        UNIQUE (device, app, digest)
    ) STRICT;

    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, device BLOB,
        object TEXT NOT NULL, text TEXT NOT NULL
    ) STRICT;
    "];

/// Brings the tables to the newest version, one transaction a step.
pub(super) async fn run(pool: &SqlitePool) -> Result<(), DbError> {
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let row = sqlx::query("PRAGMA user_version").fetch_one(pool).await.doing("tell its version")?;
    let found: i64 = row.get(0);
    if found > known {
        return Err(DbError::Newer { found, known });
    }
    for (step, version) in STEPS.iter().zip(1..).skip(usize::try_from(found).unwrap_or_default()) {
        let mut step_by_step = pool.begin().await.doing("begin a migration")?;
        sqlx::raw_sql(*step).execute(&mut *step_by_step).await.doing("migrate its tables")?;
        // A pragma takes no parameters; the text is a number of ours.
        let set = AssertSqlSafe(format!("PRAGMA user_version = {version}"));
        sqlx::raw_sql(set).execute(&mut *step_by_step).await.doing("note its version")?;
        step_by_step.commit().await.doing("finish a migration")?;
    }
    Ok(())
}
