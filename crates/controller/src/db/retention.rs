//! What gets old: rows are deleted in small blocks, oldest first, each in a transaction of its own, so
//! that what nodes say never waits long for the same connection.

use model::UnixMillis;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::blobs::forget_blob;
use super::{Db, DbError, Doing, signed, unsigned};
use crate::blobs::Place;

/// Rows of a block.
const BLOCK: i64 = 1000;
/// Rows of a block whose bytes may lie in the object store: each is a look at who else needs them.
const STORED_BLOCK: i64 = 250;
/// Rows whose size is looked at to tell that of all.
const SAMPLE: i64 = 200;
/// What a row takes beside its text or bytes, about: ids, indexes.
const ROW_OVERHEAD: u64 = 120;

/// A table whose rows get old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aging {
    InfoHistory,
    /// Files as they came.
    Logs,
    /// What versions before kept of them, line by line.
    LogLines,
    Messages,
    Events,
    Audit,
}

/// What went.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) rows: u64,
    /// What nobody needs any more in the object store.
    pub(crate) places: Vec<Place>,
}

impl Aging {
    pub(crate) const ALL: [Aging; 6] = [
        Aging::InfoHistory,
        Aging::Logs,
        Aging::LogLines,
        Aging::Messages,
        Aging::Events,
        Aging::Audit,
    ];

    /// The table, when a row came, and how many bytes are large in it.
    fn columns(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Aging::InfoHistory => ("info_history", "received_ms", "LENGTH(payload) + size"),
            Aging::Logs => ("log_bundles", "received_ms", "COALESCE(LENGTH(raw), 0) + size"),
            Aging::LogLines => ("logs", "at_ms", "LENGTH(content)"),
            Aging::Messages => ("messages", "received_ms", "LENGTH(payload) + size"),
            Aging::Events => ("events", "at_ms", "LENGTH(text)"),
            Aging::Audit => ("audit", "at_ms", "LENGTH(object) + LENGTH(detail)"),
        }
    }

    /// Whether its rows may name contents of the object store.
    fn stores(self) -> bool {
        matches!(self, Aging::InfoHistory | Aging::Logs | Aging::Messages)
    }

    fn block(self) -> i64 {
        if self.stores() { STORED_BLOCK } else { BLOCK }
    }
}

impl Db {
    /// Deletes the oldest block of a table, if most of it is from before `until`. A node's own time
    /// is not believed of single rows: a clock that is years off makes nothing young or old that came
    /// with others.
    pub(crate) async fn drop_old(
        &self,
        table: Aging,
        until: UnixMillis,
    ) -> Result<Dropped, DbError> {
        let doing = "look for old rows";
        let (name, at, _) = table.columns();
        let sql = format!("SELECT id, {at} FROM {name} ORDER BY id LIMIT $1");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(table.block())
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        let row = |r: &AnyRow| Ok((r.try_get(0)?, UnixMillis(unsigned(r.try_get(1)?))));
        let rows: Vec<(i64, UnixMillis)> =
            rows.iter().map(row).collect::<Result<_, _>>().doing(doing)?;
        let old = rows.iter().filter(|(_, at)| *at < until).count();
        let whole = i64::try_from(rows.len()).is_ok_and(|n| n == table.block());
        let enough = if whole { old * 2 > rows.len() } else { old == rows.len() };
        match rows.last() {
            Some((last, _)) if enough => self.delete_up_to(table, *last).await,
            _ => Ok(Dropped::default()),
        }
    }

    /// Deletes the oldest block of a table that is larger than `max` bytes, as far as that can be
    /// told from its newest rows.
    pub(crate) async fn drop_excess(&self, table: Aging, max: u64) -> Result<Dropped, DbError> {
        let doing = "tell the size of a table";
        let (name, _, large) = table.columns();
        let sql = format!(
            "SELECT CAST(COALESCE(MIN(id), 0) AS BIGINT), CAST(COALESCE(MAX(id), 0) AS BIGINT)
             FROM {name}"
        );
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(self.read()).await.doing(doing)?;
        let (first, last): (i64, i64) =
            (row.try_get(0).doing(doing)?, row.try_get(1).doing(doing)?);
        let sql = format!(
            "SELECT COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT)
             FROM (SELECT {large} AS bytes FROM {name} ORDER BY id DESC LIMIT $1) AS newest"
        );
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(SAMPLE)
            .fetch_one(self.read())
            .await
            .doing(doing)?;
        let (count, sum) =
            (unsigned(row.try_get(0).doing(doing)?), unsigned(row.try_get(1).doing(doing)?));
        if count == 0 {
            return Ok(Dropped::default());
        }
        let rows = unsigned(last.saturating_sub(first).saturating_add(1));
        let size = rows.saturating_mul(sum / count + ROW_OVERHEAD);
        if size <= max {
            return Ok(Dropped::default());
        }
        self.delete_up_to(table, first.saturating_add(table.block() - 1).min(last)).await
    }

    async fn delete_up_to(&self, table: Aging, last: i64) -> Result<Dropped, DbError> {
        let doing = "delete old rows";
        let (name, at, _) = table.columns();
        if !table.stores() {
            let sql = format!("DELETE FROM {name} WHERE id <= $1");
            let gone = sqlx::query(AssertSqlSafe(sql)).bind(last).execute(self.write()).await;
            return Ok(Dropped { rows: gone.doing(doing)?.rows_affected(), places: Vec::new() });
        }
        let mut tx = self.begin().await?;
        let sql = format!("DELETE FROM {name} WHERE id <= $1 RETURNING blob, {at}");
        let gone =
            sqlx::query(AssertSqlSafe(sql)).bind(last).fetch_all(&mut *tx).await.doing(doing)?;
        let mut places = Vec::new();
        for row in &gone {
            let blob: Option<Vec<u8>> = row.try_get(0).doing(doing)?;
            let Some(blob) = blob else { continue };
            // Whoever wanted it later still does, even if no row says so yet.
            let received = UnixMillis(unsigned(row.try_get(1).doing(doing)?));
            places.append(&mut forget_blob(&mut tx, &blob, received).await?);
        }
        tx.commit().await.doing(doing)?;
        Ok(Dropped { rows: gone.len() as u64, places })
    }

    /// Deletes points of charts from before `until`, of at most `limit` nodes with ids behind
    /// `after`; the last of them, if there may be more.
    pub(crate) async fn drop_old_points(
        &self,
        after: Uuid,
        until: UnixMillis,
        limit: u32,
    ) -> Result<Option<Uuid>, DbError> {
        let doing = "delete old points of charts";
        let rows = sqlx::query("SELECT id FROM devices WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after.as_bytes().as_slice())
            .bind(i64::from(limit))
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        let ids: Vec<Vec<u8>> =
            rows.iter().map(|r| r.try_get(0)).collect::<Result<_, _>>().doing(doing)?;
        let mut tx = self.begin().await?;
        for id in &ids {
            sqlx::query("DELETE FROM metric_points WHERE device = $1 AND at_ms < $2")
                .bind(id.as_slice())
                .bind(signed(until.0))
                .execute(&mut *tx)
                .await
                .doing(doing)?;
        }
        tx.commit().await.doing(doing)?;
        let full = ids.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(ids.last().filter(|_| full).and_then(|id| Uuid::from_slice(id).ok()))
    }

    /// Deletes at most `limit` alerts that ended before `until`, the oldest first; how many there were.
    pub(crate) async fn drop_old_alerts(
        &self,
        until: UnixMillis,
        limit: u32,
    ) -> Result<u64, DbError> {
        let gone = sqlx::query(
            "DELETE FROM alerts WHERE id IN
             (SELECT id FROM alerts WHERE ended_ms < $1 ORDER BY id LIMIT $2)",
        )
        .bind(signed(until.0))
        .bind(i64::from(limit))
        .execute(self.write())
        .await
        .doing("delete old alerts")?;
        Ok(gone.rows_affected())
    }

    /// Says whether it can be written to.
    pub(crate) async fn check(&self) -> Result<(), DbError> {
        let sql =
            "INSERT INTO meta VALUES ('ready', $1) ON CONFLICT (key) DO UPDATE SET value = $1";
        let query = sqlx::query(sql).bind(b"1".as_slice());
        query.execute(self.write()).await.doing("be written to").map(drop)
    }
}

#[cfg(test)]
mod tests {
    use model::Digest;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::blobs::{BlobLocation, Blobs};
    use crate::db::{Incoming, Location, Message};
    use crate::images::Images;

    async fn rows(db: &Db, table: &str) -> i64 {
        let sql = format!("SELECT COUNT(*) FROM {table}");
        sqlx::query(AssertSqlSafe(sql)).fetch_one(db.read()).await.unwrap().get(0)
    }

    async fn fill(db: &Db, rows: u64, at: impl Fn(u64) -> u64) {
        let mut tx = db.begin().await.unwrap();
        for n in 0..rows {
            sqlx::query(
                "INSERT INTO logs (device, app, at_ms, severity, source, content)
                 VALUES ($1, '', $2, 'info', 'x', 'a line')",
            )
            .bind([7_u8; 16].as_slice())
            .bind(signed(at(n)))
            .execute(&mut *tx)
            .await
            .unwrap();
        }
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn old_blocks_go_and_a_wrong_clock_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&Location::File(dir.path().join("db"))).await.unwrap();
        // Every tenth line is of a node that lives in 1970, every eleventh of one in the future.
        fill(&db, 2500, |n| match n {
            n if n % 10 == 0 => 5,
            n if n % 11 == 0 => u64::MAX >> 1,
            n => 1_000_000 + n,
        })
        .await;
        let (none, first) = (UnixMillis(1_000_000), UnixMillis(1_001_100));
        assert_eq!(db.drop_old(Aging::LogLines, none).await.unwrap().rows, 0);
        assert_eq!(db.drop_old(Aging::LogLines, first).await.unwrap().rows, 1000);
        assert_eq!(db.drop_old(Aging::LogLines, first).await.unwrap().rows, 0);
        assert_eq!(rows(&db, "logs").await, 1500);
        // 1500 rows of 126 bytes.
        assert_eq!(db.drop_excess(Aging::LogLines, 190_000).await.unwrap().rows, 0);
        assert_eq!(db.drop_excess(Aging::LogLines, 180_000).await.unwrap().rows, 1000);
        for table in Aging::ALL {
            assert_eq!(db.drop_excess(table, 1 << 20).await.unwrap().rows, 0, "{table:?}");
            assert_eq!(db.drop_old(table, none).await.unwrap().rows, 0, "{table:?}");
        }
        assert_eq!(db.drop_old_points(Uuid::nil(), none, 10).await.unwrap(), None);
    }

    #[tokio::test]
    async fn alerts_that_ended_long_ago_go_and_open_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&Location::File(dir.path().join("db"))).await.unwrap();
        for (n, ended) in [(1, Some(10)), (2, None), (3, Some(20)), (4, Some(30))] {
            sqlx::query(
                "INSERT INTO alerts (rule, subject, text, since_ms, ended_ms)
                 VALUES ('silent', $1, '', 5, $2)",
            )
            .bind(n.to_string())
            .bind(ended)
            .execute(db.write())
            .await
            .unwrap();
        }
        assert_eq!(db.drop_old_alerts(UnixMillis(30), 1).await.unwrap(), 1);
        assert_eq!(db.drop_old_alerts(UnixMillis(30), 10).await.unwrap(), 1);
        assert_eq!(db.drop_old_alerts(UnixMillis(30), 10).await.unwrap(), 0);
        let left = db.alerts(false, 10).await.unwrap();
        assert_eq!(left.iter().map(|a| a.subject.as_str()).collect::<Vec<_>>(), ["4", "2"]);
    }

    /// Keeps a message of this many bytes in the object store, its first byte `n`.
    async fn say(images: &Images, n: u8, at: UnixMillis) {
        let laid = images.lay(vec![n; 10_000].into(), 4096).await.unwrap();
        let message = Message::Other("flowlog", laid);
        let incoming = Incoming { device: Uuid::nil(), received: at, message };
        images.db.keep(&[incoming]).await.unwrap();
    }

    #[tokio::test]
    async fn what_rows_laid_into_the_object_store_goes_with_the_last_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&Location::File(dir.path().join("db"))).await.unwrap();
        let blobs = Blobs::open(&BlobLocation::Folder(dir.path().join("blobs"))).unwrap();
        let images = Images::open(db.clone(), blobs).await.unwrap();
        let content = |n: u8| Digest(Sha256::digest(vec![n; 10_000]).into());
        // 1 is old and comes again; 2 is old, and somebody pushed it as an image since.
        for (n, at) in [(1, 10), (2, 20), (3, 30), (1, 40)] {
            say(&images, n, UnixMillis(at)).await;
        }
        assert!(db.use_blob(&content(2), UnixMillis(35)).await.unwrap());
        let size = 10_000 + ROW_OVERHEAD;
        assert_eq!(db.drop_excess(Aging::Messages, 4 * size).await.unwrap(), Dropped::default());
        // Of four rows three are old: a block that is not full goes as a whole, or not at all.
        assert_eq!(db.drop_old(Aging::Messages, UnixMillis(35)).await.unwrap().rows, 0);
        sqlx::query("UPDATE messages SET id = 1000 WHERE received_ms = 40")
            .execute(db.write())
            .await
            .unwrap();
        assert_eq!(db.delete_up_to(Aging::Messages, 999).await.unwrap().places.len(), 1);
        for (n, there) in [(1, true), (2, true), (3, false)] {
            assert_eq!(db.blob(&content(n)).await.unwrap().is_some(), there, "{n}");
        }
        assert_eq!(images.read(&content(1), 1 << 20).await.unwrap().unwrap(), [1; 10_000]);
        assert_eq!(db.drop_excess(Aging::Messages, size - 1).await.unwrap().rows, 1);
        assert!(db.blob(&content(1)).await.unwrap().is_none());
        // Nobody refers to the pushed one, after all.
        let (gone, last) = db.forget_blobs(None, UnixMillis(35), 10).await.unwrap();
        assert_eq!((gone.len(), last), (0, None), "it was wanted at 35");
        let (gone, _) = db.forget_blobs(None, UnixMillis(36), 10).await.unwrap();
        assert_eq!(gone.len(), 1);
    }
}
