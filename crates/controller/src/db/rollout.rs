//! Rollouts, groups, windows and scheduled changes, as they are kept.

use std::collections::BTreeMap;

use model::UnixMillis;
use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::fleet::uid;
use super::journal::log;
use super::vault::At;
use super::{Change, Db, DbError, Doing, Tx, signed, text, unsigned};

/// A rollout as it is kept; texts are JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RolloutRow {
    pub(crate) name: String,
    /// What it is about.
    pub(crate) plan: String,
    /// Where it is, without its devices.
    pub(crate) state: String,
    /// Grows with every write.
    pub(crate) version: u64,
    pub(crate) author: String,
    pub(crate) created: UnixMillis,
    /// Whether something can still happen to it.
    pub(crate) open: bool,
}

/// What is to be written of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RolloutWrite {
    /// Its version is the one that was read; a new rollout has none (0).
    pub(crate) row: RolloutRow,
    /// Devices that are somewhere else now.
    pub(crate) members: Vec<(Uuid, String)>,
}

/// A change that waits for its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScheduledRow {
    pub(crate) name: String,
    pub(crate) due: UnixMillis,
    pub(crate) author: String,
    pub(crate) documents: String,
    /// `waiting`, `done`, `failed` or `cancelled`.
    pub(crate) state: String,
    /// What became of it, in words.
    pub(crate) outcome: String,
    pub(crate) done: Option<UnixMillis>,
}

/// What is to be written together with a change, or not at all.
#[derive(Debug, Clone)]
pub(crate) enum Also {
    /// A rollout went on.
    Rollout(Box<RolloutWrite>),
    /// A scheduled change was made.
    Scheduled { name: String, outcome: String },
}

impl Db {
    /// All rollouts, or those to which something can still happen; the newest first.
    pub(crate) async fn rollouts(&self, open_only: bool) -> Result<Vec<RolloutRow>, DbError> {
        let rows = sqlx::query(
            "SELECT name, plan, state, version, author, created_ms, open FROM rollouts
             WHERE open >= $1 ORDER BY created_ms DESC, name",
        )
        .bind(i64::from(open_only))
        .fetch_all(self.read())
        .await
        .doing("read rollouts")?;
        rows.iter().map(|r| rollout(self, r)).collect()
    }

    pub(crate) async fn rollout(&self, name: &str) -> Result<Option<RolloutRow>, DbError> {
        let row = sqlx::query(
            "SELECT name, plan, state, version, author, created_ms, open FROM rollouts
             WHERE name = $1",
        )
        .bind(name)
        .fetch_optional(self.read())
        .await
        .doing("read a rollout")?;
        row.as_ref().map(|r| rollout(self, r)).transpose()
    }

    /// The devices of a rollout and where they are.
    pub(crate) async fn rollout_members(&self, name: &str) -> Result<Vec<(Uuid, String)>, DbError> {
        let doing = "read the devices of a rollout";
        let rows = sqlx::query("SELECT device, state FROM rollout_members WHERE rollout = $1")
            .bind(name)
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        let member =
            |r: &AnyRow| Ok((uid(r, 0, "member of a rollout")?, r.try_get(1).doing(doing)?));
        rows.iter().map(member).collect()
    }

    /// Writes a rollout that changes nothing else, and what there is to say of it; false if
    /// somebody was faster.
    pub(crate) async fn write_rollout(
        &self,
        write: &RolloutWrite,
        said: &Change,
    ) -> Result<bool, DbError> {
        let mut tx = self.begin().await?;
        if !put_rollout(self, &mut tx, write, said.at).await? {
            return Ok(false);
        }
        for logged in &said.logged {
            log(&mut tx, said, logged).await?;
        }
        tx.commit().await.doing("store a rollout")?;
        Ok(true)
    }

    /// Forgets a rollout that is over; false if it is not, or not there.
    pub(crate) async fn forget_rollout(&self, name: &str) -> Result<bool, DbError> {
        let doing = "forget a rollout";
        let mut tx = self.begin().await?;
        let gone = sqlx::query("DELETE FROM rollouts WHERE name = $1 AND open = 0")
            .bind(name)
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        if gone.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("DELETE FROM rollout_members WHERE rollout = $1")
            .bind(name)
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        tx.commit().await.doing(doing)?;
        Ok(true)
    }

    /// Groups: query and note by name.
    pub(crate) async fn groups(&self) -> Result<BTreeMap<String, (String, String)>, DbError> {
        let doing = "read groups";
        let rows = sqlx::query("SELECT name, query, note FROM fleet_groups")
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        let group = |r: &AnyRow| Ok((r.try_get(0)?, (r.try_get(1)?, r.try_get(2)?)));
        rows.iter().map(group).collect::<Result<_, _>>().doing(doing)
    }

    /// Maintenance windows: JSON by name.
    pub(crate) async fn windows(&self) -> Result<BTreeMap<String, String>, DbError> {
        let doing = "read maintenance windows";
        let rows = sqlx::query("SELECT name, spec FROM windows")
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        let window = |r: &AnyRow| Ok((r.try_get(0)?, r.try_get(1)?));
        rows.iter().map(window).collect::<Result<_, _>>().doing(doing)
    }

    /// Scheduled changes, the latest first; `due`: only those that wait and whose time has come,
    /// the earliest first.
    pub(crate) async fn scheduled(
        &self,
        due: Option<UnixMillis>,
    ) -> Result<Vec<ScheduledRow>, DbError> {
        let doing = "read scheduled changes";
        let columns =
            "SELECT name, due_ms, author, documents, state, outcome, done_ms FROM scheduled";
        let sql = match due {
            Some(_) => {
                format!("{columns} WHERE state = 'waiting' AND due_ms <= $1 ORDER BY due_ms")
            }
            None => format!("{columns} WHERE due_ms <= $1 ORDER BY due_ms DESC LIMIT 1000"),
        };
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(due.map_or(i64::MAX, |at| signed(at.0)))
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        let scheduled = |r: &AnyRow| -> Result<ScheduledRow, sqlx::Error> {
            Ok(ScheduledRow {
                name: r.try_get(0)?,
                due: UnixMillis(unsigned(r.try_get(1)?)),
                author: r.try_get(2)?,
                documents: r.try_get(3)?,
                state: r.try_get(4)?,
                outcome: r.try_get(5)?,
                done: r.try_get::<Option<i64>, _>(6)?.map(|n| UnixMillis(unsigned(n))),
            })
        };
        let opened = |r: &AnyRow| {
            let row = scheduled(r).doing(doing)?;
            let documents = self.opened_text(&At::Scheduled(&row.name), row.documents)?;
            Ok(ScheduledRow { documents, ..row })
        };
        rows.iter().map(opened).collect()
    }

    /// Keeps a change for later; false if the name is taken.
    pub(crate) async fn schedule(
        &self,
        row: &ScheduledRow,
        said: &Change,
    ) -> Result<bool, DbError> {
        let documents = text(&row.documents);
        let documents = self.sealed(&At::Scheduled(&row.name), documents.as_bytes())?;
        let query = sqlx::query(
            "INSERT INTO scheduled VALUES ($1, $2, $3, $4, 'waiting', '', NULL)
             ON CONFLICT (name) DO NOTHING",
        )
        .bind(&row.name)
        .bind(signed(row.due.0))
        .bind(text(&row.author))
        .bind(documents);
        self.write_logged(query, said).await
    }

    /// Ends a scheduled change that was waiting; false if it was not.
    pub(crate) async fn end_scheduled(
        &self,
        name: &str,
        state: &str,
        outcome: &str,
        said: &Change,
    ) -> Result<bool, DbError> {
        let query = end_scheduled(name, state, outcome, said.at);
        self.write_logged(query, said).await
    }

    /// Runs a statement and says what it did, in one step; false if it changed nothing.
    pub(super) async fn write_logged(
        &self,
        query: Statement<'_>,
        said: &Change,
    ) -> Result<bool, DbError> {
        let doing = "store how the fleet is run";
        let mut tx = self.begin().await?;
        let done = query.execute(&mut *tx).await.doing(doing)?.rows_affected() > 0;
        if done {
            for logged in &said.logged {
                log(&mut tx, said, logged).await?;
            }
        }
        tx.commit().await.doing(doing)?;
        Ok(done)
    }
}

pub(super) type Statement<'q> = sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments>;

/// Makes or changes a group: its query and its note; or removes it.
pub(super) fn group_query<'q>(name: &'q str, group: Option<(&'q str, &'q str)>) -> Statement<'q> {
    let set = "INSERT INTO fleet_groups VALUES ($1, $2, $3)
               ON CONFLICT (name) DO UPDATE SET query = $2, note = $3";
    match group {
        Some((query, note)) => sqlx::query(set).bind(name).bind(text(query)).bind(text(note)),
        None => sqlx::query("DELETE FROM fleet_groups WHERE name = $1").bind(name),
    }
}

/// Makes or changes a window, or removes it.
pub(super) fn window_query<'q>(name: &'q str, spec: Option<&'q str>) -> Statement<'q> {
    let set = "INSERT INTO windows VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET spec = $2";
    match spec {
        Some(spec) => sqlx::query(set).bind(name).bind(text(spec)),
        None => sqlx::query("DELETE FROM windows WHERE name = $1").bind(name),
    }
}

fn end_scheduled<'q>(
    name: &'q str,
    state: &'q str,
    outcome: &'q str,
    now: UnixMillis,
) -> sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments> {
    sqlx::query(
        "UPDATE scheduled SET state = $2, outcome = $3, done_ms = $4
         WHERE name = $1 AND state = 'waiting'",
    )
    .bind(name)
    .bind(state)
    .bind(text(outcome))
    .bind(signed(now.0))
}

/// False if somebody was faster.
pub(super) async fn put_also(
    db: &Db,
    tx: &mut Tx,
    also: &Also,
    now: UnixMillis,
) -> Result<bool, DbError> {
    match also {
        Also::Rollout(write) => put_rollout(db, tx, write, now).await,
        Also::Scheduled { name, outcome } => {
            let done = end_scheduled(name, "done", outcome, now).execute(&mut **tx).await;
            Ok(done.doing("note that a scheduled change was made")?.rows_affected() == 1)
        }
    }
}

async fn put_rollout(
    db: &Db,
    tx: &mut Tx,
    write: &RolloutWrite,
    now: UnixMillis,
) -> Result<bool, DbError> {
    let doing = "store a rollout";
    let row = &write.row;
    let plan = db.sealed(&At::Rollout(&row.name), text(&row.plan).as_bytes())?;
    let ended = (!row.open).then_some(signed(now.0));
    let query = if row.version == 0 {
        sqlx::query(
            "INSERT INTO rollouts (name, plan, state, open, version, author, created_ms, ended_ms)
             VALUES ($1, $2, $3, $4, 1, $5, $6, $7) ON CONFLICT (name) DO NOTHING",
        )
        .bind(&row.name)
        .bind(&plan)
        .bind(text(&row.state))
        .bind(i64::from(row.open))
        .bind(text(&row.author))
        .bind(signed(row.created.0))
        .bind(ended)
    } else {
        sqlx::query(
            "UPDATE rollouts SET plan = $2, state = $3, open = $4, version = version + 1,
                 ended_ms = $6 WHERE name = $1 AND version = $5",
        )
        .bind(&row.name)
        .bind(&plan)
        .bind(text(&row.state))
        .bind(i64::from(row.open))
        .bind(signed(row.version))
        .bind(ended)
    };
    if query.execute(&mut **tx).await.doing(doing)?.rows_affected() != 1 {
        return Ok(false);
    }
    for (device, state) in &write.members {
        sqlx::query(
            "INSERT INTO rollout_members VALUES ($1, $2, $3)
             ON CONFLICT (rollout, device) DO UPDATE SET state = $3",
        )
        .bind(&row.name)
        .bind(device.as_bytes().as_slice())
        .bind(text(state))
        .execute(&mut **tx)
        .await
        .doing(doing)?;
    }
    Ok(true)
}

fn rollout(db: &Db, row: &AnyRow) -> Result<RolloutRow, DbError> {
    let doing = "read a rollout";
    let row = || -> Result<RolloutRow, sqlx::Error> {
        Ok(RolloutRow {
            name: row.try_get(0)?,
            plan: row.try_get(1)?,
            state: row.try_get(2)?,
            version: unsigned(row.try_get(3)?),
            author: row.try_get(4)?,
            created: UnixMillis(unsigned(row.try_get(5)?)),
            open: row.try_get::<i64, _>(6)? != 0,
        })
    };
    let row = row().doing(doing)?;
    let plan = db.opened_text(&At::Rollout(&row.name), row.plan)?;
    Ok(RolloutRow { plan, ..row })
}
