//! What only people ask for: searches, the audit log; and the news of what nodes say.

use model::{DeviceId, UnixMillis};
use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::telemetry::{Event, LogFilter, LogRow};
use super::{Db, DbError, Doing, signed, text, unsigned};

/// An info message, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) device: Uuid,
    pub(crate) received: UnixMillis,
    pub(crate) payload: Vec<u8>,
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Audited {
    pub(crate) id: u64,
    pub(crate) at: UnixMillis,
    pub(crate) author: String,
    pub(crate) action: String,
    pub(crate) object: String,
    pub(crate) detail: String,
}

impl Db {
    /// What nodes said of themselves and their apps since then, oldest first, at most `limit`.
    pub(crate) async fn told_since(
        &self,
        since: UnixMillis,
        limit: u32,
    ) -> Result<Vec<Told>, DbError> {
        let doing = "read the news of nodes";
        let rows = sqlx::query(
            "SELECT device, received_ms, payload FROM infos
             WHERE received_ms >= $1 AND kind IN ('device', 'app')
             ORDER BY received_ms LIMIT $2",
        )
        .bind(signed(since.0))
        .bind(i64::from(limit))
        .fetch_all(self.read())
        .await
        .doing(doing)?;
        let told = |r: &AnyRow| {
            let device: Vec<u8> = r.try_get(0).doing(doing)?;
            let device = Uuid::from_slice(&device)
                .map_err(|e| DbError::Damaged { what: "info".into(), why: e.to_string() })?;
            let received = UnixMillis(unsigned(r.try_get(1).doing(doing)?));
            Ok(Told { device, received, payload: r.try_get(2).doing(doing)? })
        };
        rows.iter().map(told).collect()
    }

    /// The newest lines that hold `words` (letter case does not count), oldest first.
    pub(crate) async fn logs_with(
        &self,
        filter: &LogFilter,
        words: &str,
    ) -> Result<Vec<LogRow>, DbError> {
        let doing = "search logs";
        let rows = sqlx::query(
            "SELECT id, at_ms, severity, source, content FROM logs
             WHERE device = $1 AND app = $2 AND id > $3
             AND (lower(content) LIKE $4 ESCAPE '!' OR lower(source) LIKE $4 ESCAPE '!')
             ORDER BY id DESC LIMIT $5",
        )
        .bind(filter.device.as_bytes().as_slice())
        .bind(&filter.app)
        .bind(signed(filter.after))
        .bind(pattern(words))
        .bind(i64::from(filter.limit))
        .fetch_all(self.read())
        .await
        .doing(doing)?;
        let line = |r: &AnyRow| {
            Ok(LogRow {
                id: unsigned(r.try_get(0)?),
                at: UnixMillis(unsigned(r.try_get(1)?)),
                severity: r.try_get(2)?,
                source: r.try_get(3)?,
                content: r.try_get(4)?,
            })
        };
        rows.iter().rev().map(line).collect::<Result<_, _>>().doing(doing)
    }

    /// What happened, newest first: on one node or anywhere, with these words, before an id.
    pub(crate) async fn events_with(
        &self,
        device: Option<Uuid>,
        words: &str,
        before: u64,
        limit: u32,
    ) -> Result<Vec<Event>, DbError> {
        let doing = "search events";
        let columns = "SELECT id, at_ms, device, object, text FROM events WHERE id < $1
             AND (lower(object) LIKE $2 ESCAPE '!' OR lower(text) LIKE $2 ESCAPE '!')";
        let rest = "ORDER BY id DESC LIMIT $3";
        let sql = match device {
            Some(_) => format!("{columns} AND device = $4 {rest}"),
            None => format!("{columns} {rest}"),
        };
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(signed(before))
            .bind(pattern(words))
            .bind(i64::from(limit));
        if let Some(device) = device {
            query = query.bind(device.as_bytes().to_vec());
        }
        let rows = query.fetch_all(self.read()).await.doing(doing)?;
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
        rows.iter().map(event).collect::<Result<_, _>>().doing(doing)
    }

    /// Who did what, newest first, with these words, before an id.
    pub(crate) async fn audited(
        &self,
        words: &str,
        before: u64,
        limit: u32,
    ) -> Result<Vec<Audited>, DbError> {
        let doing = "read the audit log";
        let rows = sqlx::query(
            "SELECT id, at_ms, author, action, object, detail FROM audit WHERE id < $1
             AND (lower(author) LIKE $2 ESCAPE '!' OR lower(action) LIKE $2 ESCAPE '!'
                  OR lower(object) LIKE $2 ESCAPE '!' OR lower(detail) LIKE $2 ESCAPE '!')
             ORDER BY id DESC LIMIT $3",
        )
        .bind(signed(before))
        .bind(pattern(words))
        .bind(i64::from(limit))
        .fetch_all(self.read())
        .await
        .doing(doing)?;
        let line = |r: &AnyRow| {
            Ok(Audited {
                id: unsigned(r.try_get(0)?),
                at: UnixMillis(unsigned(r.try_get(1)?)),
                author: r.try_get(2)?,
                action: r.try_get(3)?,
                object: r.try_get(4)?,
                detail: r.try_get(5)?,
            })
        };
        rows.iter().map(line).collect::<Result<_, _>>().doing(doing)
    }

    /// The kinds of the further certificates a node gave, as the wire numbers them.
    pub(crate) async fn device_cert_kinds(&self, id: Uuid) -> Result<Vec<i64>, DbError> {
        let doing = "list the certificates of a device";
        let rows = sqlx::query("SELECT kind FROM device_certs WHERE device = $1 ORDER BY kind")
            .bind(id.as_bytes().as_slice())
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        rows.iter().map(|r| r.try_get(0)).collect::<Result<_, _>>().doing(doing)
    }
}

/// What matches texts that hold these words.
fn pattern(words: &str) -> String {
    let mut pattern = String::from("%");
    for c in text(words.trim()).to_lowercase().chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_no_patterns() {
        assert_eq!(pattern(" 100%_a! "), "%100!%!_a!!%");
        assert_eq!(pattern(""), "%%");
    }
}
