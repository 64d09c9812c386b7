//! What gets old: rows are deleted in small blocks, oldest first, each in a transaction of its own, so
//! that what nodes say never waits long for the same connection.

use model::UnixMillis;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::{Db, DbError, Doing, signed, unsigned};

/// Rows of a block.
const BLOCK: i64 = 1000;
/// Rows whose size is looked at to tell that of all.
const SAMPLE: i64 = 200;
/// What a row takes beside its text or bytes, about: ids, indexes.
const ROW_OVERHEAD: u64 = 120;

/// A table whose rows get old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aging {
    InfoHistory,
    Logs,
    LogBundles,
    Messages,
    Events,
}

impl Aging {
    pub(crate) const ALL: [Aging; 5] =
        [Aging::InfoHistory, Aging::Logs, Aging::LogBundles, Aging::Messages, Aging::Events];

    /// The table, when a row came, and what is large in it.
    fn columns(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Aging::InfoHistory => ("info_history", "received_ms", "payload"),
            Aging::Logs => ("logs", "at_ms", "content"),
            Aging::LogBundles => ("log_bundles", "received_ms", "raw"),
            Aging::Messages => ("messages", "received_ms", "payload"),
            Aging::Events => ("events", "at_ms", "text"),
        }
    }
}

impl Db {
    /// Deletes the oldest block of a table, if most of it is from before `until`. Returns how many
    /// rows went. A node's own time is not believed of single rows: a clock that is years off makes
    /// nothing young or old that came with others.
    pub(crate) async fn drop_old(&self, table: Aging, until: UnixMillis) -> Result<u64, DbError> {
        let doing = "look for old rows";
        let (name, at, _) = table.columns();
        let sql = format!("SELECT id, {at} FROM {name} ORDER BY id LIMIT $1");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(BLOCK)
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        let row = |r: &AnyRow| Ok((r.try_get(0)?, UnixMillis(unsigned(r.try_get(1)?))));
        let rows: Vec<(i64, UnixMillis)> =
            rows.iter().map(row).collect::<Result<_, _>>().doing(doing)?;
        let old = rows.iter().filter(|(_, at)| *at < until).count();
        let whole = i64::try_from(rows.len()).unwrap_or(BLOCK) == BLOCK;
        let enough = if whole { old * 2 > rows.len() } else { old == rows.len() };
        match rows.last() {
            Some((last, _)) if enough => self.delete_up_to(name, *last).await,
            _ => Ok(0),
        }
    }

    /// Deletes the oldest block of a table that is larger than `max` bytes, as far as that can be
    /// told from its newest rows. Returns how many rows went.
    pub(crate) async fn drop_excess(&self, table: Aging, max: u64) -> Result<u64, DbError> {
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
            "SELECT COUNT(*), CAST(COALESCE(SUM(LENGTH({large})), 0) AS BIGINT)
             FROM (SELECT {large} FROM {name} ORDER BY id DESC LIMIT $1) AS newest"
        );
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(SAMPLE)
            .fetch_one(self.read())
            .await
            .doing(doing)?;
        let (count, sum) =
            (unsigned(row.try_get(0).doing(doing)?), unsigned(row.try_get(1).doing(doing)?));
        if count == 0 {
            return Ok(0);
        }
        let rows = unsigned(last.saturating_sub(first).saturating_add(1));
        let size = rows.saturating_mul(sum / count + ROW_OVERHEAD);
        if size <= max {
            return Ok(0);
        }
        self.delete_up_to(name, first.saturating_add(BLOCK - 1).min(last)).await
    }

    async fn delete_up_to(&self, table: &str, last: i64) -> Result<u64, DbError> {
        let sql = format!("DELETE FROM {table} WHERE id <= $1");
        let gone = sqlx::query(AssertSqlSafe(sql)).bind(last).execute(self.write()).await;
        Ok(gone.doing("delete old rows")?.rows_affected())
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
    use super::*;
    use crate::db::Location;

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
        assert_eq!(db.drop_old(Aging::Logs, none).await.unwrap(), 0);
        assert_eq!(db.drop_old(Aging::Logs, first).await.unwrap(), 1000);
        assert_eq!(db.drop_old(Aging::Logs, first).await.unwrap(), 0);
        assert_eq!(rows(&db, "logs").await, 1500);
        // 1500 rows of 126 bytes.
        assert_eq!(db.drop_excess(Aging::Logs, 190_000).await.unwrap(), 0);
        assert_eq!(db.drop_excess(Aging::Logs, 180_000).await.unwrap(), 1000);
        for table in Aging::ALL {
            assert_eq!(db.drop_excess(table, 1 << 20).await.unwrap(), 0, "{table:?}");
            assert_eq!(db.drop_old(table, none).await.unwrap(), 0, "{table:?}");
        }
        assert_eq!(db.drop_old_points(Uuid::nil(), none, 10).await.unwrap(), None);
    }
}
