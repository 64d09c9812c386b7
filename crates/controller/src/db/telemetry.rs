//! What nodes report: info, metrics, logs; and what happened in the fleet. All of it bounded.

use bytes::Bytes;
use model::{DeviceId, UnixMillis};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::blobs::{Blob, add_blob};
use super::received::{Kept, kept};
use super::settled::Settled;
use super::{Db, DbError, Doing, Tx, signed, text, unsigned};

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

/// What a node said, as it is to be kept.
#[derive(Debug)]
pub(crate) enum Message {
    /// The state of something.
    Info {
        subject: Subject,
        /// When it was so.
        at: UnixMillis,
        payload: Bytes,
        /// Where it lies for those who look back, if that is not a row of its own.
        past: Option<Blob>,
        /// As `App hello`, and its state in words; other words than before are an event.
        words: Option<(String, String)>,
    },
    /// Something is gone.
    Gone(Subject),
    /// Counters and gauges.
    Metrics {
        payload: Bytes,
        /// What charts are drawn of, if it is time for another point.
        point: Option<Point>,
    },
    /// A log file.
    Logs(LogFile),
    /// Kept as it came, under the name of its kind.
    Other(&'static str, Laid),
}

/// Bytes that may be too many for a row.
#[derive(Debug)]
pub(crate) enum Laid {
    /// They are to stand in it.
    Row(Bytes),
    /// They are in the object store already.
    Store(Blob),
}

/// A message and whose it is.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) device: Uuid,
    pub(crate) received: UnixMillis,
    pub(crate) message: Message,
}

/// A point of a node's charts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// When.
    pub(crate) at: UnixMillis,
    /// Processor time since the start, nanoseconds, over all processors.
    pub(crate) cpu_ns: u64,
    /// Processors.
    pub(crate) cpus: u64,
    /// Bytes of memory in use, and in all.
    pub(crate) memory_used: u64,
    /// In all.
    pub(crate) memory_total: u64,
    /// Bytes of /persist in use, and in all.
    pub(crate) disk_used: u64,
    /// In all.
    pub(crate) disk_total: u64,
    /// Bytes received through all ports since the start.
    pub(crate) received: u64,
    /// Bytes sent.
    pub(crate) sent: u64,
}

/// A log file as it came.
#[derive(Debug)]
pub(crate) struct LogFile {
    /// Empty for the node's own.
    pub(crate) app: String,
    pub(crate) digest: Vec<u8>,
    /// Why it cannot be read, if it cannot.
    pub(crate) refused: Option<String>,
    pub(crate) raw: Laid,
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
    /// Keeps messages, all or none. What came before is not kept again.
    pub(crate) async fn keep(&self, messages: &[Incoming]) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        for message in messages {
            keep(&mut tx, message).await?;
        }
        tx.commit().await.doing("keep what nodes say")
    }

    /// The newest info about every subject of a node.
    pub(crate) async fn infos(&self, device: Uuid) -> Result<Vec<InfoRow>, DbError> {
        let rows = sqlx::query(
            "SELECT kind, subject, received_ms, payload FROM infos WHERE device = $1
             ORDER BY kind, subject",
        )
        .bind(device.as_bytes().as_slice())
        .fetch_all(self.read())
        .await
        .doing("read info")?;
        let info = |r: &AnyRow| {
            Ok(InfoRow {
                subject: Subject { kind: r.try_get(0)?, id: r.try_get(1)? },
                received: UnixMillis(unsigned(r.try_get(2)?)),
                payload: r.try_get(3)?,
            })
        };
        rows.iter().map(info).collect::<Result<_, _>>().doing("read info")
    }

    /// The newest metrics of a node.
    pub(crate) async fn metrics(&self, device: Uuid) -> Result<Option<MetricsRow>, DbError> {
        let row = sqlx::query("SELECT received_ms, payload FROM metrics WHERE device = $1")
            .bind(device.as_bytes().as_slice())
            .fetch_optional(self.read())
            .await
            .doing("read metrics")?;
        let metrics = |r: AnyRow| {
            Ok(MetricsRow { received: UnixMillis(unsigned(r.try_get(0)?)), payload: r.try_get(1)? })
        };
        row.map(metrics).transpose().doing("read metrics")
    }

    /// Log files that could be read, newest first: with ids from `from` and below `before`
    /// (`None`: the newest, and whoever goes on behind the first of them misses nothing).
    pub(crate) async fn log_files(
        &self,
        filter: &LogFilter,
        from: u64,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Kept>, DbError> {
        let found = self.log_files_below(filter, from, before.unwrap_or(u64::MAX), limit).await?;
        let newest = found.first().map(|kept| kept.id).filter(|_| before.is_none());
        match self.settled("log_bundles", from, newest).await? {
            Settled::AsRead => Ok(found),
            Settled::UpTo(last) => {
                self.log_files_below(filter, from, last.saturating_add(1), limit).await
            }
            Settled::NotYet => Ok(Vec::new()),
        }
    }

    async fn log_files_below(
        &self,
        filter: &LogFilter,
        from: u64,
        before: u64,
        limit: u32,
    ) -> Result<Vec<Kept>, DbError> {
        let doing = "read log files";
        let rows = sqlx::query(
            "SELECT id, raw, blob FROM log_bundles
             WHERE device = $1 AND app = $2 AND id >= $3 AND id < $4 AND refused IS NULL
             AND (raw IS NOT NULL OR blob IS NOT NULL)
             ORDER BY id DESC LIMIT $5",
        )
        .bind(filter.device.as_bytes().as_slice())
        .bind(&filter.app)
        .bind(signed(from))
        .bind(signed(before))
        .bind(i64::from(limit))
        .fetch_all(self.read())
        .await
        .doing(doing)?;
        rows.iter().map(|r| kept(r, doing)).collect()
    }

    /// The newest lines that fit, oldest first, of those that were kept one by one: versions before
    /// the eighth of the tables did.
    pub(crate) async fn logs(&self, filter: &LogFilter) -> Result<Vec<LogRow>, DbError> {
        let rows = sqlx::query(
            "SELECT id, at_ms, severity, source, content FROM logs
             WHERE device = $1 AND app = $2 AND id > $3 ORDER BY id DESC LIMIT $4",
        )
        .bind(filter.device.as_bytes().as_slice())
        .bind(&filter.app)
        .bind(signed(filter.after))
        .bind(i64::from(filter.limit))
        .fetch_all(self.read())
        .await
        .doing("read logs")?;
        let line = |r: &AnyRow| {
            Ok(LogRow {
                id: unsigned(r.try_get(0)?),
                at: UnixMillis(unsigned(r.try_get(1)?)),
                severity: r.try_get(2)?,
                source: r.try_get(3)?,
                content: r.try_get(4)?,
            })
        };
        rows.iter().rev().map(line).collect::<Result<_, _>>().doing("read logs")
    }

    /// How many log files of a node could not be read.
    pub(crate) async fn refused_logs(&self, device: Uuid) -> Result<u64, DbError> {
        let row = sqlx::query(
            "SELECT count(*) FROM log_bundles WHERE device = $1 AND refused IS NOT NULL",
        )
        .bind(device.as_bytes().as_slice())
        .fetch_one(self.read())
        .await
        .doing("count log files")?;
        Ok(unsigned(row.try_get(0).doing("count log files")?))
    }

    /// Bytes of `/persist` in use and in all, as a node last said since then.
    pub(crate) async fn disk(
        &self,
        device: Uuid,
        since: UnixMillis,
    ) -> Result<Option<(u64, u64)>, DbError> {
        let doing = "read how full a disk is";
        let row = sqlx::query(
            "SELECT disk_used, disk_total FROM metric_points WHERE device = $1 AND at_ms >= $2
             ORDER BY at_ms DESC LIMIT 1",
        )
        .bind(device.as_bytes().as_slice())
        .bind(signed(since.0))
        .fetch_optional(self.read())
        .await
        .doing(doing)?;
        let n = |r: &AnyRow, column: usize| r.try_get::<i64, _>(column).map(unsigned);
        row.map(|r| Ok((n(&r, 0)?, n(&r, 1)?))).transpose().doing(doing)
    }

    /// The points of a node's charts since then, oldest first.
    pub(crate) async fn points(
        &self,
        device: Uuid,
        since: UnixMillis,
    ) -> Result<Vec<Point>, DbError> {
        let doing = "read the points of a chart";
        let rows = sqlx::query(
            "SELECT at_ms, cpu_ns, cpus, memory_used, memory_total, disk_used, disk_total, received,
                 sent
             FROM metric_points WHERE device = $1 AND at_ms >= $2 ORDER BY at_ms",
        )
        .bind(device.as_bytes().as_slice())
        .bind(signed(since.0))
        .fetch_all(self.read())
        .await
        .doing(doing)?;
        let point = |r: &AnyRow| {
            let n = |column: usize| r.try_get::<i64, _>(column).map(unsigned);
            Ok(Point {
                at: UnixMillis(n(0)?),
                cpu_ns: n(1)?,
                cpus: n(2)?,
                memory_used: n(3)?,
                memory_total: n(4)?,
                disk_used: n(5)?,
                disk_total: n(6)?,
                received: n(7)?,
                sent: n(8)?,
            })
        };
        rows.iter().map(point).collect::<Result<_, _>>().doing(doing)
    }

    /// The newest events after an id, oldest first: whoever goes on behind the last of them misses
    /// nothing.
    pub(crate) async fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>, DbError> {
        let found = self.events_between((after, u64::MAX), limit).await?;
        match self.settled("events", after, found.last().map(|event| event.id)).await? {
            Settled::AsRead => Ok(found),
            Settled::UpTo(last) => self.events_between((after, last), limit).await,
            Settled::NotYet => Ok(Vec::new()),
        }
    }

    /// With ids above the first and up to the second.
    async fn events_between(
        &self,
        (after, upto): (u64, u64),
        limit: u32,
    ) -> Result<Vec<Event>, DbError> {
        let rows = sqlx::query(
            "SELECT id, at_ms, device, object, text FROM events WHERE id > $1 AND id <= $2
             ORDER BY id DESC LIMIT $3",
        )
        .bind(signed(after))
        .bind(signed(upto))
        .bind(i64::from(limit))
        .fetch_all(self.read())
        .await
        .doing("read events")?;
        let event = |r: &AnyRow| {
            let device: Option<Vec<u8>> = r.try_get(2)?;
            Ok(Event {
                id: unsigned(r.try_get(0)?),
                at: UnixMillis(unsigned(r.try_get(1)?)),
                device: device.and_then(|d| Uuid::from_slice(&d).ok().map(DeviceId::new)),
                object: r.try_get(3)?,
                text: r.try_get(4)?,
            })
        };
        rows.iter().rev().map(event).collect::<Result<_, _>>().doing("read events")
    }
}

async fn keep(tx: &mut Tx, incoming: &Incoming) -> Result<(), DbError> {
    let Incoming { device, received, message } = incoming;
    match message {
        Message::Info { subject, at, payload, past, words } => {
            put_info(tx, *device, *received, subject, (*at, payload, words.as_ref())).await?;
            put_past(tx, *device, *received, subject, (payload, past.as_ref())).await
        }
        Message::Gone(subject) => {
            sqlx::query("DELETE FROM infos WHERE device = $1 AND kind = $2 AND subject = $3")
                .bind(device.as_bytes().as_slice())
                .bind(text(&subject.kind))
                .bind(text(&subject.id))
                .execute(&mut **tx)
                .await
                .doing("forget info")
                .map(drop)
        }
        Message::Metrics { payload, point } => {
            put_metrics(tx, *device, *received, payload).await?;
            match point {
                Some(point) => put_point(tx, *device, point).await,
                None => Ok(()),
            }
        }
        Message::Logs(file) => put_logs(tx, *device, *received, file).await,
        Message::Other(kind, laid) => {
            let (raw, blob, size) = laid_down(tx, laid, *received).await?;
            sqlx::query(
                "INSERT INTO messages (device, kind, received_ms, payload, blob, size)
                 VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(device.as_bytes().as_slice())
            .bind(*kind)
            .bind(signed(received.0))
            .bind(raw.unwrap_or_default())
            .bind(blob)
            .bind(signed(size))
            .execute(&mut **tx)
            .await
            .doing("keep a message")
            .map(drop)
        }
    }
}

/// What stands in the row of these bytes: they themselves, or their digest and size.
async fn laid_down<'a>(
    tx: &mut Tx,
    laid: &'a Laid,
    received: UnixMillis,
) -> Result<(Option<&'a [u8]>, Option<&'a [u8]>, u64), DbError> {
    match laid {
        Laid::Row(bytes) => Ok((Some(bytes.as_ref()), None, 0)),
        Laid::Store(blob) => {
            // If the content was there, what was written once more belongs to nothing: the sweep
            // finds it.
            add_blob(tx, blob, received).await?;
            Ok((None, Some(blob.digest.0.as_slice()), blob.size))
        }
    }
}

async fn put_info(
    tx: &mut Tx,
    device: Uuid,
    received: UnixMillis,
    subject: &Subject,
    (at, payload, words): (UnixMillis, &Bytes, Option<&(String, String)>),
) -> Result<(), DbError> {
    let doing = "keep info";
    let id = device.as_bytes().as_slice();
    let (kind, of) = (text(&subject.kind), text(&subject.id));
    if let Some((object, now)) = words {
        let sql = "SELECT words FROM infos WHERE device = $1 AND kind = $2 AND subject = $3";
        let row = sqlx::query(sql)
            .bind(id)
            .bind(&kind)
            .bind(&of)
            .fetch_optional(&mut **tx)
            .await
            .doing(doing)?;
        let before: Option<String> = row.map(|r| r.try_get(0)).transpose().doing(doing)?.flatten();
        if before.as_deref() != Some(text(now).as_str()) {
            sqlx::query("INSERT INTO events (at_ms, device, object, text) VALUES ($1, $2, $3, $4)")
                .bind(signed(received.0))
                .bind(id)
                .bind(text(object))
                .bind(text(now))
                .execute(&mut **tx)
                .await
                .doing(doing)?;
        }
    }
    // Messages may overtake each other; a node whose clock was set back is believed.
    sqlx::query(
        "INSERT INTO infos (device, kind, subject, at_ms, received_ms, payload, words)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (device, kind, subject) DO UPDATE
         SET at_ms = $4, received_ms = $5, payload = $6, words = $7
         WHERE $4 >= infos.at_ms OR $5 - infos.received_ms > 600000",
    )
    .bind(id)
    .bind(&kind)
    .bind(&of)
    .bind(signed(at.0))
    .bind(signed(received.0))
    .bind(payload.as_ref())
    .bind(words.map(|(_, words)| text(words)))
    .execute(&mut **tx)
    .await
    .doing(doing)
    .map(drop)
}

/// Keeps info for those who look back.
async fn put_past(
    tx: &mut Tx,
    device: Uuid,
    received: UnixMillis,
    subject: &Subject,
    (payload, past): (&Bytes, Option<&Blob>),
) -> Result<(), DbError> {
    if let Some(blob) = past {
        add_blob(tx, blob, received).await?;
    }
    sqlx::query(
        "INSERT INTO info_history (device, kind, subject, received_ms, payload, blob, size)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(device.as_bytes().as_slice())
    .bind(text(&subject.kind))
    .bind(text(&subject.id))
    .bind(signed(received.0))
    .bind(if past.is_some() { &[] } else { payload.as_ref() })
    .bind(past.map(|blob| blob.digest.0.as_slice()))
    .bind(signed(past.map_or(0, |blob| blob.size)))
    .execute(&mut **tx)
    .await
    .doing("keep info of before")
    .map(drop)
}

async fn put_metrics(
    tx: &mut Tx,
    device: Uuid,
    received: UnixMillis,
    payload: &Bytes,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO metrics VALUES ($1, $2, $3)
         ON CONFLICT (device) DO UPDATE SET received_ms = $2, payload = $3",
    )
    .bind(device.as_bytes().as_slice())
    .bind(signed(received.0))
    .bind(payload.as_ref())
    .execute(&mut **tx)
    .await
    .doing("keep metrics")
    .map(drop)
}

async fn put_point(tx: &mut Tx, device: Uuid, point: &Point) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO metric_points VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (device, at_ms) DO NOTHING",
    )
    .bind(device.as_bytes().as_slice())
    .bind(signed(point.at.0))
    .bind(signed(point.cpu_ns))
    .bind(signed(point.cpus))
    .bind(signed(point.memory_used))
    .bind(signed(point.memory_total))
    .bind(signed(point.disk_used))
    .bind(signed(point.disk_total))
    .bind(signed(point.received))
    .bind(signed(point.sent))
    .execute(&mut **tx)
    .await
    .doing("keep a point of a chart")
    .map(drop)
}

async fn put_logs(
    tx: &mut Tx,
    device: Uuid,
    received: UnixMillis,
    file: &LogFile,
) -> Result<(), DbError> {
    let doing = "keep logs";
    let id = device.as_bytes().as_slice();
    // Another controller, or an earlier try, may have kept it.
    let added = sqlx::query(
        "INSERT INTO log_bundles (device, app, digest, received_ms, refused)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (device, app, digest) DO NOTHING RETURNING id",
    )
    .bind(id)
    .bind(text(&file.app))
    .bind(file.digest.as_slice())
    .bind(signed(received.0))
    .bind(file.refused.as_deref().map(text))
    .fetch_optional(&mut **tx)
    .await
    .doing(doing)?;
    let Some(row) = added else { return Ok(()) };
    let added: i64 = row.try_get(0).doing(doing)?;
    let (raw, blob, size) = laid_down(tx, &file.raw, received).await?;
    sqlx::query("UPDATE log_bundles SET raw = $2, blob = $3, size = $4 WHERE id = $1")
        .bind(added)
        .bind(raw)
        .bind(blob)
        .bind(signed(size))
        .execute(&mut **tx)
        .await
        .doing(doing)
        .map(drop)
}
