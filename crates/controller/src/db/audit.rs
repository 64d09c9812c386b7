//! The audit log: who did what, and how it ended.

use model::UnixMillis;
use serde::{Deserialize, Serialize};
use sqlx::Row;

use super::settled::Settled;
use super::{Db, DbError, Doing, signed, text, unsigned};

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Grows with each line.
    pub id: u64,
    /// When.
    pub at: UnixMillis,
    /// Who: a user's name, `registration` or `controller`; for a failed login the name that was
    /// tried.
    pub author: String,
    /// What: `created`, `POST`, `login`.
    pub action: String,
    /// To what: `App hello`, or the path that was called.
    pub object: String,
    /// More of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// From where, if that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// How it ended: `done`, or a status and a reason.
    pub outcome: String,
}

/// Which lines of the audit log; empty texts fit all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditFilter {
    /// Exactly this author.
    pub author: String,
    /// Exactly this action.
    pub action: String,
    /// Objects that contain this.
    pub object: String,
    /// Exactly this address.
    pub address: String,
    /// Lines after this id, oldest first; 0: the newest ones.
    pub after: u64,
    /// Not before this moment (unix milliseconds).
    pub since: Option<u64>,
    /// Before this moment (unix milliseconds).
    pub until: Option<u64>,
    /// At most so many; 200 if it is not said.
    pub limit: Option<u32>,
}

/// A line to be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Audited {
    pub(crate) author: String,
    pub(crate) action: String,
    pub(crate) object: String,
    pub(crate) detail: String,
    pub(crate) address: String,
    pub(crate) outcome: String,
}

impl Db {
    /// Writes a line of the audit log.
    pub(crate) async fn audit(&self, at: UnixMillis, line: &Audited) -> Result<(), DbError> {
        sqlx::query(
            "INSERT INTO audit (at_ms, author, action, object, detail, address, outcome)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(signed(at.0))
        .bind(text(&line.author))
        .bind(text(&line.action))
        .bind(text(&line.object))
        .bind(text(&line.detail))
        .bind(text(&line.address))
        .bind(text(&line.outcome))
        .execute(self.write())
        .await
        .doing("write the audit log")
        .map(drop)
    }

    /// Lines of the audit log, oldest first; without `after` the newest ones. Whoever goes on behind
    /// the last of them misses nothing.
    pub(crate) async fn audit_lines(
        &self,
        which: &AuditFilter,
        limit: u32,
    ) -> Result<Vec<AuditRow>, DbError> {
        let forward = which.after > 0;
        let mut lines = self.audit_page(which, u64::MAX, forward, limit).await?;
        let newest = if forward { lines.last() } else { lines.first() };
        match self.settled("audit", which.after, newest.map(|line| line.id)).await? {
            Settled::AsRead => {}
            Settled::UpTo(last) => lines = self.audit_page(which, last, forward, limit).await?,
            Settled::NotYet => lines.clear(),
        }
        if !forward {
            lines.reverse();
        }
        Ok(lines)
    }

    /// Lines of the audit log after `after` and up to an id: from the oldest on, or from the newest
    /// back.
    pub(crate) async fn audit_page(
        &self,
        which: &AuditFilter,
        upto: u64,
        oldest_first: bool,
        limit: u32,
    ) -> Result<Vec<AuditRow>, DbError> {
        let doing = "read the audit log";
        let order = if oldest_first { "ASC" } else { "DESC" };
        let statement = format!(
            "SELECT id, at_ms, author, action, object, detail, address, outcome FROM audit
             WHERE id > $1 AND ($2 = '' OR author = $2) AND ($3 = '' OR action = $3)
               AND ($4 = '' OR object LIKE $5 ESCAPE '!') AND ($6 = '' OR address = $6)
               AND at_ms >= $7 AND at_ms < $8 AND id <= $9
             ORDER BY id {order} LIMIT $10"
        );
        let part = which.object.replace('!', "!!").replace('%', "!%").replace('_', "!_");
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(signed(which.after))
            .bind(text(&which.author))
            .bind(text(&which.action))
            .bind(text(&which.object))
            .bind(text(&format!("%{part}%")))
            .bind(text(&which.address))
            .bind(signed(which.since.unwrap_or(0)))
            .bind(which.until.map_or(i64::MAX, signed))
            .bind(signed(upto))
            .bind(i64::from(limit))
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        let mut lines = Vec::with_capacity(rows.len());
        for row in &rows {
            lines.push(AuditRow {
                id: unsigned(row.try_get(0).doing(doing)?),
                at: UnixMillis(unsigned(row.try_get(1).doing(doing)?)),
                author: row.try_get(2).doing(doing)?,
                action: row.try_get(3).doing(doing)?,
                object: row.try_get(4).doing(doing)?,
                detail: row.try_get(5).doing(doing)?,
                address: row.try_get(6).doing(doing)?,
                outcome: row.try_get(7).doing(doing)?,
            });
        }
        Ok(lines)
    }
}
