//! What single nodes are told otherwise than the others: an object as it was at a revision, and what
//! is added to its counters.

use model::UnixMillis;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::fleet::uid;
use super::{Db, DbError, Doing, Tx, signed, text, unsigned};
use crate::objects::Key;

/// What a node is told of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overlaid {
    pub(crate) device: Uuid,
    pub(crate) key: Key,
    /// The object as it was at this revision, which may be: not there. `None`: as it is now.
    pub(crate) as_of: Option<u64>,
    /// Added to its restart counter, which may go round.
    pub(crate) restart: u32,
    /// Added to its purge counter, likewise.
    pub(crate) purge: u32,
    /// Who will let it go: `rollout NAME` or `window NAME`; empty if nobody.
    pub(crate) holder: String,
    /// Why it is held, in words.
    pub(crate) why: String,
    /// Since when.
    pub(crate) since: UnixMillis,
}

impl Overlaid {
    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.as_of.is_none() && self.restart == 0 && self.purge == 0
    }
}

impl Db {
    /// What changed in a revision or later, also what says nothing any more; with 0: everything.
    pub(crate) async fn overlays(&self, from: u64) -> Result<Vec<Overlaid>, DbError> {
        let sql = "SELECT device, kind, name, as_of, restart, purge, holder, why, since_ms
                   FROM overlays WHERE changed >= $1";
        let rows = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .bind(signed(from))
            .fetch_all(self.read())
            .await
            .doing("read what is held back")?;
        rows.iter().map(overlaid).collect()
    }
}

fn overlaid(row: &AnyRow) -> Result<Overlaid, DbError> {
    let doing = "read what is held back";
    let (kind, name): (String, String) =
        (row.try_get(1).doing(doing)?, row.try_get(2).doing(doing)?);
    let kind = kind
        .parse()
        .map_err(|why| DbError::Damaged { what: format!("overlay of {kind} {name}"), why })?;
    let count = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
    let as_of: Option<i64> = row.try_get(3).doing(doing)?;
    Ok(Overlaid {
        device: uid(row, 0, "overlay")?,
        key: Key { kind, name },
        as_of: as_of.map(unsigned),
        restart: count(row.try_get(4).doing(doing)?),
        purge: count(row.try_get(5).doing(doing)?),
        holder: row.try_get(6).doing(doing)?,
        why: row.try_get(7).doing(doing)?,
        since: UnixMillis(unsigned(row.try_get(8).doing(doing)?)),
    })
}

/// Rows that say nothing are kept for a while: other processes learn from them.
pub(super) async fn put_overlaid(
    tx: &mut Tx,
    what: &Overlaid,
    revision: u64,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO overlays VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (device, kind, name) DO UPDATE SET as_of = $4, restart = $5, purge = $6,
             holder = $7, why = $8, since_ms = $9, changed = $10",
    )
    .bind(what.device.as_bytes().as_slice())
    .bind(what.key.kind.name())
    .bind(&what.key.name)
    .bind(what.as_of.map(signed))
    .bind(i64::from(what.restart))
    .bind(i64::from(what.purge))
    .bind(text(&what.holder))
    .bind(text(&what.why))
    .bind(signed(what.since.0))
    .bind(signed(revision))
    .execute(&mut **tx)
    .await
    .doing("hold an object back")
    .map(drop)
}
