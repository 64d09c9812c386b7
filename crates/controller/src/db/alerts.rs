//! Rules of alerts, alerts, and what webhooks are still to be told.

use std::collections::BTreeMap;

use model::UnixMillis;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::journal::log;
use super::vault::At;
use super::{Change, Db, DbError, Doing, Tx, signed, text, unsigned};

/// An alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Grows with every alert.
    pub id: u64,
    /// The rule that raised it.
    pub rule: String,
    /// What it is about, as `Device edge-1`.
    pub subject: String,
    /// What is wrong, in words.
    pub text: String,
    /// When it was raised.
    pub since: UnixMillis,
    /// When it was over.
    pub ended: Option<UnixMillis>,
    /// Who has seen it.
    pub acked_by: Option<String>,
    /// When.
    pub acked: Option<UnixMillis>,
}

/// A rule as it is kept: JSON, and what webhooks are signed with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RuleRow {
    pub(crate) name: String,
    pub(crate) spec: String,
    pub(crate) secret: Option<Vec<u8>>,
}

/// Without the secret.
impl std::fmt::Debug for RuleRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleRow").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a webhook is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueuedRow {
    pub(crate) id: u64,
    pub(crate) rule: String,
    pub(crate) body: String,
    pub(crate) attempts: u32,
}

/// What a webhook did not take yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untold {
    /// How many alerts wait that were refused at least once.
    pub waiting: u64,
    /// When it is told again.
    pub again: UnixMillis,
    /// Why it did not take one of them.
    pub why: String,
}

const ALERT: &str =
    "SELECT id, rule, subject, text, since_ms, ended_ms, acked_by, acked_ms FROM alerts";

impl Db {
    pub(crate) async fn alert_rules(&self) -> Result<Vec<RuleRow>, DbError> {
        let doing = "read the rules of alerts";
        let rows = sqlx::query("SELECT name, spec, secret FROM alert_rules ORDER BY name")
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        let rule = |r: &AnyRow| -> Result<RuleRow, sqlx::Error> {
            Ok(RuleRow { name: r.try_get(0)?, spec: r.try_get(1)?, secret: r.try_get(2)? })
        };
        let opened = |r: &AnyRow| {
            let row = rule(r).doing(doing)?;
            let secret = row.secret.map(|secret| self.opened(&At::Webhook(&row.name), secret));
            Ok(RuleRow { secret: secret.transpose()?, ..row })
        };
        rows.iter().map(opened).collect()
    }

    /// Makes or changes a rule; its secret is this one, or none.
    pub(super) async fn put_rule(&self, tx: &mut Tx, rule: &RuleRow) -> Result<(), DbError> {
        let secret = rule.secret.as_deref();
        let secret = secret.map(|secret| self.sealed_bytes(&At::Webhook(&rule.name), secret));
        sqlx::query(
            "INSERT INTO alert_rules VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET spec = $2, secret = $3",
        )
        .bind(&rule.name)
        .bind(text(&rule.spec))
        .bind(secret.transpose()?)
        .execute(&mut **tx)
        .await
        .doing("store a rule of alerts")
        .map(drop)
    }

    /// Removes a rule, what its webhook was still to be told, and ends its alerts; and says so.
    pub(crate) async fn remove_alert_rule(&self, name: &str, said: &Change) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        remove_rule(&mut tx, name, said.at).await?;
        for logged in &said.logged {
            log(&mut tx, said, logged).await?;
        }
        tx.commit().await.doing("remove a rule of alerts")
    }

    /// The newest alerts, newest first; or only those that are not over.
    pub(crate) async fn alerts(&self, open_only: bool, limit: u32) -> Result<Vec<Alert>, DbError> {
        let doing = "read alerts";
        let open = if open_only { "WHERE ended_ms IS NULL" } else { "" };
        let rows =
            sqlx::query(sqlx::AssertSqlSafe(format!("{ALERT} {open} ORDER BY id DESC LIMIT $1")))
                .bind(i64::from(limit))
                .fetch_all(self.read())
                .await
                .doing(doing)?;
        let at = |n: Option<i64>| n.map(|n| UnixMillis(unsigned(n)));
        let alert = |r: &AnyRow| {
            Ok(Alert {
                id: unsigned(r.try_get(0)?),
                rule: r.try_get(1)?,
                subject: r.try_get(2)?,
                text: r.try_get(3)?,
                since: UnixMillis(unsigned(r.try_get(4)?)),
                ended: at(r.try_get(5)?),
                acked_by: r.try_get(6)?,
                acked: at(r.try_get(7)?),
            })
        };
        rows.iter().map(alert).collect::<Result<_, _>>().doing(doing)
    }

    /// Raises an alert and queues what its webhook is told; all or nothing.
    pub(crate) async fn raise(
        &self,
        alert: &Alert,
        body: impl Fn(u64) -> Option<String>,
    ) -> Result<(), DbError> {
        let doing = "raise an alert";
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "INSERT INTO alerts (rule, subject, text, since_ms) VALUES ($1, $2, $3, $4)
             RETURNING id",
        )
        .bind(&alert.rule)
        .bind(text(&alert.subject))
        .bind(text(&alert.text))
        .bind(signed(alert.since.0))
        .fetch_one(&mut *tx)
        .await
        .doing(doing)?;
        let id = unsigned(row.try_get(0).doing(doing)?);
        if let Some(body) = body(id) {
            queue(&mut tx, &alert.rule, &body, alert.since).await?;
        }
        tx.commit().await.doing(doing)
    }

    /// Ends an alert and queues what its webhook is told; all or nothing.
    pub(crate) async fn end_alert(
        &self,
        alert: &Alert,
        now: UnixMillis,
        body: Option<&str>,
    ) -> Result<(), DbError> {
        let doing = "end an alert";
        let mut tx = self.begin().await?;
        let done =
            sqlx::query("UPDATE alerts SET ended_ms = $2 WHERE id = $1 AND ended_ms IS NULL")
                .bind(signed(alert.id))
                .bind(signed(now.0))
                .execute(&mut *tx)
                .await
                .doing(doing)?;
        if let Some(body) = body.filter(|_| done.rows_affected() == 1) {
            queue(&mut tx, &alert.rule, body, now).await?;
        }
        tx.commit().await.doing(doing)
    }

    /// Notes who has seen an alert; false if there is none, or somebody has.
    pub(crate) async fn ack_alert(
        &self,
        id: u64,
        by: &str,
        now: UnixMillis,
    ) -> Result<bool, DbError> {
        let sql = "UPDATE alerts SET acked_by = $2, acked_ms = $3
                   WHERE id = $1 AND acked_by IS NULL";
        let done = sqlx::query(sql)
            .bind(signed(id))
            .bind(text(by))
            .bind(signed(now.0))
            .execute(self.write())
            .await
            .doing("note who has seen an alert")?;
        Ok(done.rows_affected() == 1)
    }

    /// What webhooks are to be told now, oldest first.
    pub(crate) async fn queued(
        &self,
        now: UnixMillis,
        limit: u32,
    ) -> Result<Vec<QueuedRow>, DbError> {
        let doing = "read what webhooks are to be told";
        let rows = sqlx::query(
            "SELECT id, rule, body, attempts FROM alert_queue WHERE next_ms <= $1
             ORDER BY id LIMIT $2",
        )
        .bind(signed(now.0))
        .bind(i64::from(limit))
        .fetch_all(self.read())
        .await
        .doing(doing)?;
        let queued = |r: &AnyRow| {
            Ok(QueuedRow {
                id: unsigned(r.try_get(0)?),
                rule: r.try_get(1)?,
                body: r.try_get(2)?,
                attempts: u32::try_from(r.try_get::<i64, _>(3)?).unwrap_or(u32::MAX),
            })
        };
        rows.iter().map(queued).collect::<Result<_, _>>().doing(doing)
    }

    /// The webhooks that refused what they were told, by rule.
    pub(crate) async fn untold(&self) -> Result<BTreeMap<String, Untold>, DbError> {
        let doing = "read what webhooks were not told";
        let rows = sqlx::query(
            "SELECT rule, COUNT(*), MIN(next_ms), MAX(error) FROM alert_queue
             WHERE attempts > 0 GROUP BY rule",
        )
        .fetch_all(self.read())
        .await
        .doing(doing)?;
        let untold = |r: &AnyRow| {
            let (waiting, again) = (unsigned(r.try_get(1)?), UnixMillis(unsigned(r.try_get(2)?)));
            Ok((r.try_get(0)?, Untold { waiting, again, why: r.try_get(3)? }))
        };
        rows.iter().map(untold).collect::<Result<_, _>>().doing(doing)
    }

    /// A webhook was told, or will not be any more.
    pub(crate) async fn unqueue(&self, id: u64) -> Result<(), DbError> {
        sqlx::query("DELETE FROM alert_queue WHERE id = $1")
            .bind(signed(id))
            .execute(self.write())
            .await
            .doing("note that a webhook was told")
            .map(drop)
    }

    /// A webhook could not be told; again at `next`.
    pub(crate) async fn requeue(
        &self,
        id: u64,
        next: UnixMillis,
        error: &str,
    ) -> Result<(), DbError> {
        sqlx::query(
            "UPDATE alert_queue SET attempts = attempts + 1, next_ms = $2, error = $3
             WHERE id = $1",
        )
        .bind(signed(id))
        .bind(signed(next.0))
        .bind(text(error))
        .execute(self.write())
        .await
        .doing("note that a webhook was not told")
        .map(drop)
    }
}

/// Removes a rule, what its webhook was still to be told, and ends its alerts.
pub(super) async fn remove_rule(tx: &mut Tx, name: &str, now: UnixMillis) -> Result<(), DbError> {
    let doing = "remove a rule of alerts";
    sqlx::query("UPDATE alerts SET ended_ms = $2 WHERE rule = $1 AND ended_ms IS NULL")
        .bind(name)
        .bind(signed(now.0))
        .execute(&mut **tx)
        .await
        .doing(doing)?;
    for sql in
        ["DELETE FROM alert_queue WHERE rule = $1", "DELETE FROM alert_rules WHERE name = $1"]
    {
        sqlx::query(sql).bind(name).execute(&mut **tx).await.doing(doing)?;
    }
    Ok(())
}

async fn queue(tx: &mut Tx, rule: &str, body: &str, now: UnixMillis) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO alert_queue (rule, body, attempts, next_ms, error)
         VALUES ($1, $2, 0, $3, '')",
    )
    .bind(rule)
    .bind(text(body))
    .bind(signed(now.0))
    .execute(&mut **tx)
    .await
    .doing("queue what a webhook is told")
    .map(drop)
}
