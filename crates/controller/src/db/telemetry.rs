//! What nodes report: info, metrics, logs; and what happened in the fleet. All of it bounded.

use model::{DeviceId, UnixMillis};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};
use uuid::Uuid;

use super::{Db, DbError, Doing, signed, unsigned};

/// Older info messages of a node are forgotten.
const HISTORY_MAX: i64 = 500;
/// Older log lines of a node or of one of its apps are forgotten.
const LINES_MAX: i64 = 20_000;
/// Digests of older log files are forgotten: a duplicate comes within seconds.
const BUNDLES_MAX: i64 = 1_000;
/// Older events are forgotten.
const EVENTS_MAX: i64 = 10_000;

/// What an info message is about: what kind of object and which one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    pub(crate) kind: String,
    pub(crate) id: String,
}

/// The newest info message about a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InfoRow {
    pub(crate) subject: Subject,
    pub(crate) received: UnixMillis,
    pub(crate) payload: Vec<u8>,
}

/// The newest metrics of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetricsRow {
    pub(crate) received: UnixMillis,
    pub(crate) payload: Vec<u8>,
}

/// A log file as it came.
#[derive(Debug)]
pub(crate) struct LogBundle<'a> {
    pub(crate) device: Uuid,
    /// Empty for the node's own.
    pub(crate) app: &'a str,
    pub(crate) digest: &'a [u8],
    pub(crate) received: UnixMillis,
    /// Its lines, or why it could not be read and its bytes.
    pub(crate) lines: Result<Vec<NewLog>, (String, &'a [u8])>,
}

/// A log line as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewLog {
    pub(crate) at: UnixMillis,
    pub(crate) severity: String,
    pub(crate) source: String,
    pub(crate) content: String,
}

/// A log line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRow {
    /// Grows with every line stored; ask for lines after it.
    pub id: u64,
    /// When it was written.
    pub at: UnixMillis,
    /// As the node calls it: `info`, `warning`, …
    pub severity: String,
    /// The service, or the app's instance.
    pub source: String,
    /// What it says.
    pub content: String,
}

/// Which log lines are asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogFilter {
    pub(crate) device: Uuid,
    /// Empty for the node's own.
    pub(crate) app: String,
    /// Only lines with a greater id.
    pub(crate) after: u64,
    /// The newest so many of those.
    pub(crate) limit: u32,
}

/// Something that happened in the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows with every event.
    pub id: u64,
    /// When.
    pub at: UnixMillis,
    /// On which node. `None`: on none.
    pub device: Option<DeviceId>,
    /// Which object it is about, as `App hello`.
    pub object: String,
    /// What happened.
    pub text: String,
}

impl Db {
    /// Keeps an info message as the newest about its subject, unless an even newer one came before.
    pub(crate) async fn put_info(
        &self,
        device: Uuid,
        subject: &Subject,
        at: UnixMillis,
        received: UnixMillis,
        payload: &[u8],
    ) -> Result<(), DbError> {
        let doing = "store info";
        let id = device.as_bytes().as_slice();
        let mut tx = self.writer.begin().await.doing(doing)?;
        // Messages may overtake each other; a node whose clock was set back is believed.
        sqlx::query(
            "INSERT INTO infos VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (device, kind, subject) DO UPDATE
             SET at_ms = ?4, received_ms = ?5, payload = ?6
             WHERE ?4 >= at_ms OR ?5 - received_ms > 600000",
        )
        .bind(id)
        .bind(&subject.kind)
        .bind(&subject.id)
        .bind(signed(at.0))
        .bind(signed(received.0))
        .bind(payload)
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        sqlx::query(
            "INSERT INTO info_history (device, kind, subject, received_ms, payload)
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(id)
        .bind(&subject.kind)
        .bind(&subject.id)
        .bind(signed(received.0))
        .bind(payload)
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        sqlx::query(
            "DELETE FROM info_history WHERE device = ?1 AND id <=
             (SELECT id FROM info_history WHERE device = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        )
        .bind(id)
        .bind(HISTORY_MAX)
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        tx.commit().await.doing(doing)
    }

    /// Forgets a subject: its object is gone from the node.
    pub(crate) async fn remove_info(&self, device: Uuid, subject: &Subject) -> Result<(), DbError> {
        sqlx::query("DELETE FROM infos WHERE device = ? AND kind = ? AND subject = ?")
            .bind(device.as_bytes().as_slice())
            .bind(&subject.kind)
            .bind(&subject.id)
            .execute(&self.writer)
            .await
            .doing("forget info")
            .map(drop)
    }

    /// The newest info about every subject of a node.
    pub(crate) async fn infos(&self, device: Uuid) -> Result<Vec<InfoRow>, DbError> {
        let rows = sqlx::query(
            "SELECT kind, subject, received_ms, payload FROM infos WHERE device = ?
             ORDER BY kind, subject",
        )
        .bind(device.as_bytes().as_slice())
        .fetch_all(&self.readers)
        .await
        .doing("read info")?;
        let info = |r: &SqliteRow| InfoRow {
            subject: Subject { kind: r.get(0), id: r.get(1) },
            received: UnixMillis(unsigned(r.get(2))),
            payload: r.get(3),
        };
        Ok(rows.iter().map(info).collect())
    }

    /// Keeps the newest metrics of a node.
    pub(crate) async fn put_metrics(
        &self,
        device: Uuid,
        received: UnixMillis,
        payload: &[u8],
    ) -> Result<(), DbError> {
        sqlx::query("INSERT OR REPLACE INTO metrics VALUES (?, ?, ?)")
            .bind(device.as_bytes().as_slice())
            .bind(signed(received.0))
            .bind(payload)
            .execute(&self.writer)
            .await
            .doing("store metrics")
            .map(drop)
    }

    /// The newest metrics of a node.
    pub(crate) async fn metrics(&self, device: Uuid) -> Result<Option<MetricsRow>, DbError> {
        let row = sqlx::query("SELECT received_ms, payload FROM metrics WHERE device = ?")
            .bind(device.as_bytes().as_slice())
            .fetch_optional(&self.readers)
            .await
            .doing("read metrics")?;
        Ok(row.map(|r| MetricsRow { received: UnixMillis(unsigned(r.get(0))), payload: r.get(1) }))
    }

    /// Keeps the lines of a log file; false if the same file came before.
    pub(crate) async fn put_logs(&self, bundle: &LogBundle<'_>) -> Result<bool, DbError> {
        let doing = "store logs";
        let device = bundle.device.as_bytes().as_slice();
        let (refused, raw) = match &bundle.lines {
            Ok(_) => (None, None),
            Err((why, raw)) => (Some(why.as_str()), Some(*raw)),
        };
        let mut tx = self.writer.begin().await.doing(doing)?;
        let added = sqlx::query(
            "INSERT OR IGNORE INTO log_bundles (device, app, digest, received_ms, refused, raw)
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(device)
        .bind(bundle.app)
        .bind(bundle.digest)
        .bind(signed(bundle.received.0))
        .bind(refused)
        .bind(raw)
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        if added.rows_affected() == 0 {
            return Ok(false);
        }
        for line in bundle.lines.iter().flatten() {
            sqlx::query(
                "INSERT INTO logs (device, app, at_ms, severity, source, content)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(device)
            .bind(bundle.app)
            .bind(signed(line.at.0))
            .bind(&line.severity)
            .bind(&line.source)
            .bind(&line.content)
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        }
        forget(
            &mut tx,
            "DELETE FROM logs WHERE device = ?1 AND app = ?2 AND id <= (SELECT id FROM logs
             WHERE device = ?1 AND app = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)",
            (device, bundle.app, LINES_MAX),
        )
        .await?;
        forget(
            &mut tx,
            "DELETE FROM log_bundles WHERE device = ?1 AND app = ?2 AND id <= (SELECT id
             FROM log_bundles WHERE device = ?1 AND app = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)",
            (device, bundle.app, BUNDLES_MAX),
        )
        .await?;
        tx.commit().await.doing(doing)?;
        Ok(true)
    }

    /// The newest lines that fit, oldest first.
    pub(crate) async fn logs(&self, filter: &LogFilter) -> Result<Vec<LogRow>, DbError> {
        let rows = sqlx::query(
            "SELECT id, at_ms, severity, source, content FROM logs
             WHERE device = ? AND app = ? AND id > ? ORDER BY id DESC LIMIT ?",
        )
        .bind(filter.device.as_bytes().as_slice())
        .bind(&filter.app)
        .bind(signed(filter.after))
        .bind(i64::from(filter.limit))
        .fetch_all(&self.readers)
        .await
        .doing("read logs")?;
        let line = |r: &SqliteRow| LogRow {
            id: unsigned(r.get(0)),
            at: UnixMillis(unsigned(r.get(1))),
            severity: r.get(2),
            source: r.get(3),
            content: r.get(4),
        };
        Ok(rows.iter().rev().map(line).collect())
    }

    /// How many log files of a node could not be read.
    pub(crate) async fn refused_logs(&self, device: Uuid) -> Result<u64, DbError> {
        let row = sqlx::query(
            "SELECT count(*) FROM log_bundles WHERE device = ? AND refused IS NOT NULL",
        )
        .bind(device.as_bytes().as_slice())
        .fetch_one(&self.readers)
        .await
        .doing("count log files")?;
        Ok(unsigned(row.get(0)))
    }

    /// Notes that something happened.
    pub(crate) async fn add_event(
        &self,
        at: UnixMillis,
        device: Option<Uuid>,
        object: &str,
        text: &str,
    ) -> Result<(), DbError> {
        let doing = "store an event";
        let mut tx = self.writer.begin().await.doing(doing)?;
        sqlx::query("INSERT INTO events (at_ms, device, object, text) VALUES (?, ?, ?, ?)")
            .bind(signed(at.0))
            .bind(device.map(|d| d.as_bytes().to_vec()))
            .bind(object)
            .bind(text)
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        sqlx::query(
            "DELETE FROM events WHERE id <=
             (SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?)",
        )
        .bind(EVENTS_MAX)
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        tx.commit().await.doing(doing)
    }

    /// The newest events after an id, oldest first.
    pub(crate) async fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>, DbError> {
        let rows = sqlx::query(
            "SELECT id, at_ms, device, object, text FROM events WHERE id > ?
             ORDER BY id DESC LIMIT ?",
        )
        .bind(signed(after))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await
        .doing("read events")?;
        let event = |r: &SqliteRow| Event {
            id: unsigned(r.get(0)),
            at: UnixMillis(unsigned(r.get(1))),
            device: r
                .get::<Option<Vec<u8>>, _>(2)
                .and_then(|d| Uuid::from_slice(&d).ok().map(DeviceId::new)),
            object: r.get(3),
            text: r.get(4),
        };
        Ok(rows.iter().rev().map(event).collect())
    }
}

async fn forget(
    tx: &mut Transaction<'_, Sqlite>,
    sql: &'static str,
    (device, app, keep): (&[u8], &str, i64),
) -> Result<(), DbError> {
    sqlx::query(sql)
        .bind(device)
        .bind(app)
        .bind(keep)
        .execute(&mut **tx)
        .await
        .doing("forget old logs")
        .map(drop)
}
