//! Reading what comes after an id, so that nothing is missed.
//!
//! Ids are given when a row is written, and a row is seen when its transaction has ended. SQLite has
//! one writer at a time, so rows appear in the order of their ids. On PostgreSQL several
//! transactions write at once: one may end after another that took a greater id, and whoever has
//! read that one and asks for what is behind it would never see the first.
//!
//! So a reader who will go on behind the greatest id it gets reads again what is up to that id, after
//! every transaction has ended that wrote into the table in between. It holds nobody up: a
//! transaction that begins meanwhile takes greater ids, as a sequence without a cache gives them in
//! their order. Who writes into a table is known to PostgreSQL (`pg_locks`): a transaction locks the
//! table before it takes an id, and lets go after its rows can be seen.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Row};

use super::{Db, DbError, Doing, Engine};

/// Between two looks at who still writes.
const STEP: Duration = Duration::from_millis(10);
/// So often is looked before the reader is told that there is nothing new yet.
const LOOKS: usize = 200;

/// What holds of rows that were just read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// None with a smaller id can appear any more.
    AsRead,
    /// So it is of what is read from now on, up to this id.
    UpTo(u64),
    /// Somebody writes for a long time: nothing behind the id that was asked for is told yet.
    NotYet,
}

impl Db {
    /// What holds of rows that were read of a table behind an id, of which `newest` has the
    /// greatest. Who asks for the first time (`after` is 0) is told something in any case.
    pub(super) async fn settled(
        &self,
        table: &'static str,
        after: u64,
        newest: Option<u64>,
    ) -> Result<Settled, DbError> {
        let (Engine::Postgres, Some(newest)) = (self.engine(), newest) else {
            return Ok(Settled::AsRead);
        };
        let mut writing = self.writing(table).await?;
        for _ in 0..LOOKS {
            if writing.is_empty() {
                return Ok(Settled::UpTo(newest));
            }
            tokio::time::sleep(STEP).await;
            let still = self.writing(table).await?;
            writing.retain(|one| still.contains(one));
        }
        tracing::warn!(
            "a transaction of PostgreSQL writes into {table} for longer than {:?}; readers wait",
            STEP.saturating_mul(u32::try_from(LOOKS).unwrap_or(u32::MAX))
        );
        Ok(if after == 0 { Settled::AsRead } else { Settled::NotYet })
    }

    /// The transactions that have begun to write into a table, and have not ended.
    async fn writing(&self, table: &'static str) -> Result<HashSet<String>, DbError> {
        let doing = "tell who writes";
        let sql = format!(
            "SELECT CAST(virtualtransaction AS TEXT) FROM pg_locks
             WHERE locktype = 'relation' AND granted AND relation = CAST('{table}' AS regclass)
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                 'AccessExclusiveLock')"
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(self.read()).await.doing(doing)?;
        rows.iter().map(|r| r.try_get(0)).collect::<Result<_, _>>().doing(doing)
    }
}
