//! What operators did long ago: versions of objects, who deleted nodes were, rollouts and scheduled
//! changes that are over. Like [`super::retention`] in small blocks, each in a transaction of its own;
//! but not by age alone: what a rollback or a rollout still needs stays.

use std::collections::BTreeSet;

use model::UnixMillis;
use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::fleet::uid;
use super::{Db, DbError, Doing, signed, unsigned};

/// Versions of one object that go at once.
const VERSIONS_BLOCK: usize = 500;

/// A version of an object, as far as its age matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Aged {
    revision: u64,
    at: UnixMillis,
    /// It says that the object was deleted.
    deleted: bool,
}

/// Which versions of an object are not needed any more, of all, newest first: its newest `keep` are,
/// what it said after `until`, and what it was at the revisions `needed`. An object that was deleted
/// before `until` goes with all of them.
fn forgettable(all: &[Aged], keep: usize, until: UnixMillis, needed: &BTreeSet<u64>) -> Vec<u64> {
    let over = all.first().is_some_and(|newest| newest.deleted && newest.at < until);
    let keep = if over { 0 } else { keep.max(1) };
    let found = || needed.iter().filter_map(|upto| all.iter().find(|v| v.revision <= *upto));
    let oldest = found().filter(|v| !v.deleted).map(|v| v.revision).min();
    // That it was not there then needs no version, unless an older one stays.
    let stays = |v: &&Aged| !v.deleted || oldest.is_some_and(|oldest| v.revision > oldest);
    let needed: BTreeSet<u64> = found().filter(stays).map(|v| v.revision).collect();
    let old = |n: usize, version: &Aged| {
        // It was said until the next one came.
        let ended = n.checked_sub(1).and_then(|next| all.get(next)).map_or(version.at, |v| v.at);
        ended < until
    };
    // Without its deletion, what is left would look as if it was there.
    let keep = if over && !needed.is_empty() { 1 } else { keep };
    let gone = all.iter().enumerate().skip(keep).filter(|(n, v)| old(*n, v));
    gone.map(|(_, v)| v.revision).filter(|revision| !needed.contains(revision)).collect()
}

impl Db {
    /// Forgets versions of at most `limit` objects behind `after` (see [`forgettable`]): how many
    /// versions went, and the last of the objects if there may be more. `bases`: revisions that
    /// rollouts which are not over may go back to.
    pub(crate) async fn drop_old_versions(
        &self,
        after: &(String, String),
        keep: usize,
        until: UnixMillis,
        bases: &BTreeSet<u64>,
        limit: u32,
    ) -> Result<(u64, Option<(String, String)>), DbError> {
        let doing = "look for old versions of objects";
        let rows = sqlx::query(
            "SELECT DISTINCT kind, name FROM object_history WHERE (kind, name) > ($1, $2)
             ORDER BY kind, name LIMIT $3",
        )
        .bind(&after.0)
        .bind(&after.1)
        .bind(i64::from(limit))
        .fetch_all(self.read())
        .await
        .doing(doing)?;
        let key = |r: &AnyRow| Ok((r.try_get(0)?, r.try_get(1)?));
        let keys: Vec<(String, String)> =
            rows.iter().map(key).collect::<Result<_, _>>().doing(doing)?;
        let Some(last) = keys.last() else { return Ok((0, None)) };
        let rows = sqlx::query(
            "SELECT kind, name FROM object_history
             WHERE (kind, name) > ($1, $2) AND (kind, name) <= ($3, $4) GROUP BY kind, name
             HAVING MIN(at_ms) < $5
                AND (COUNT(*) > $6 OR MAX(CASE WHEN spec IS NULL THEN 1 ELSE 0 END) = 1)",
        )
        .bind(&after.0)
        .bind(&after.1)
        .bind(&last.0)
        .bind(&last.1)
        .bind(signed(until.0))
        .bind(i64::try_from(keep).unwrap_or(i64::MAX))
        .fetch_all(self.read())
        .await
        .doing(doing)?;
        let many: Vec<(String, String)> =
            rows.iter().map(key).collect::<Result<_, _>>().doing(doing)?;
        let mut gone = 0;
        for (kind, name) in &many {
            let old = self.old_versions(kind, name, keep, until, bases).await?;
            if old.is_empty() {
                continue;
            }
            let mut tx = self.begin().await?;
            for revision in old {
                let done = sqlx::query(
                    "DELETE FROM object_history WHERE kind = $1 AND name = $2 AND revision = $3",
                )
                .bind(kind)
                .bind(name)
                .bind(signed(revision))
                .execute(&mut *tx)
                .await
                .doing("forget an old version of an object")?;
                gone += done.rows_affected();
            }
            tx.commit().await.doing("forget old versions of an object")?;
        }
        let full = keys.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        Ok((gone, full.then(|| last.clone())))
    }

    /// At most [`VERSIONS_BLOCK`] of those that may go.
    async fn old_versions(
        &self,
        kind: &str,
        name: &str,
        keep: usize,
        until: UnixMillis,
        bases: &BTreeSet<u64>,
    ) -> Result<Vec<u64>, DbError> {
        let doing = "look for old versions of an object";
        let rows = sqlx::query(
            "SELECT revision, at_ms, CASE WHEN spec IS NULL THEN 1 ELSE 0 END FROM object_history
             WHERE kind = $1 AND name = $2 ORDER BY revision DESC",
        )
        .bind(kind)
        .bind(name)
        .fetch_all(self.read())
        .await
        .doing(doing)?;
        let aged = |r: &AnyRow| {
            Ok(Aged {
                revision: unsigned(r.try_get(0)?),
                at: UnixMillis(unsigned(r.try_get(1)?)),
                deleted: r
                    .try_get::<i64, _>(2)
                    .or_else(|_| r.try_get::<i32, _>(2).map(i64::from))?
                    != 0,
            })
        };
        let all: Vec<Aged> = rows.iter().map(aged).collect::<Result<_, _>>().doing(doing)?;
        if forgettable(&all, keep, until, bases).is_empty() {
            return Ok(Vec::new());
        }
        let mut needed = bases.clone();
        needed.extend(self.revisions_told(kind, name).await?);
        let mut old = forgettable(&all, keep, until, &needed);
        // The oldest first: what stops us leaves no hole.
        old.reverse();
        old.truncate(VERSIONS_BLOCK);
        Ok(old)
    }

    /// The revisions of an object as of which some node is told it.
    async fn revisions_told(&self, kind: &str, name: &str) -> Result<Vec<u64>, DbError> {
        let doing = "read what is held back of an object";
        let rows = sqlx::query(
            "SELECT DISTINCT as_of FROM overlays
             WHERE kind = $1 AND name = $2 AND as_of IS NOT NULL",
        )
        .bind(kind)
        .bind(name)
        .fetch_all(self.read())
        .await
        .doing(doing)?;
        rows.iter().map(|r| r.try_get(0).map(unsigned)).collect::<Result<_, _>>().doing(doing)
    }

    /// Forgets who at most `limit` nodes were that were deleted before `until`; how many there were.
    pub(crate) async fn drop_gone(&self, until: UnixMillis, limit: u32) -> Result<u64, DbError> {
        let doing = "forget deleted devices";
        let rows =
            sqlx::query("SELECT id FROM devices WHERE gone_ms < $1 ORDER BY gone_ms LIMIT $2")
                .bind(signed(until.0))
                .bind(i64::from(limit))
                .fetch_all(self.read())
                .await
                .doing(doing)?;
        let ids: Vec<Uuid> =
            rows.iter().map(|r| uid(r, 0, "deleted device")).collect::<Result<_, _>>()?;
        if ids.is_empty() {
            return Ok(0);
        }
        let mut tx = self.begin().await?;
        let mut gone = 0;
        for id in ids {
            let raw = id.as_bytes().as_slice();
            let row = sqlx::query("DELETE FROM devices WHERE id = $1 AND gone_ms < $2")
                .bind(raw)
                .bind(signed(until.0))
                .execute(&mut *tx)
                .await
                .doing(doing)?;
            // Somebody may have brought it back a moment ago.
            if row.rows_affected() == 0 {
                continue;
            }
            gone += 1;
            for sql in [
                "DELETE FROM configs WHERE device = $1",
                "DELETE FROM device_certs WHERE device = $1",
                "DELETE FROM baselines WHERE device = $1",
                "DELETE FROM overlays WHERE device = $1",
                "DELETE FROM restored WHERE device = $1",
            ] {
                sqlx::query(sql).bind(raw).execute(&mut *tx).await.doing(doing)?;
            }
        }
        tx.commit().await.doing(doing)?;
        Ok(gone)
    }

    /// Forgets at most `limit` rollouts that ended before `until`, and as many scheduled changes; how
    /// many there were.
    pub(crate) async fn drop_over(&self, until: UnixMillis, limit: u32) -> Result<u64, DbError> {
        let doing = "forget what is over";
        let mut tx = self.begin().await?;
        let rows = sqlx::query(
            "DELETE FROM rollouts WHERE open = 0 AND name IN
             (SELECT name FROM rollouts WHERE open = 0 AND ended_ms < $1 ORDER BY ended_ms LIMIT $2)
             RETURNING name",
        )
        .bind(signed(until.0))
        .bind(i64::from(limit))
        .fetch_all(&mut *tx)
        .await
        .doing(doing)?;
        let mut gone = rows.len() as u64;
        for row in &rows {
            let name: String = row.try_get(0).doing(doing)?;
            sqlx::query("DELETE FROM rollout_members WHERE rollout = $1")
                .bind(name)
                .execute(&mut *tx)
                .await
                .doing(doing)?;
        }
        let scheduled = sqlx::query(
            "DELETE FROM scheduled WHERE name IN
             (SELECT name FROM scheduled WHERE state <> 'waiting' AND done_ms < $1
              ORDER BY done_ms LIMIT $2)",
        )
        .bind(signed(until.0))
        .bind(i64::from(limit))
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        gone += scheduled.rows_affected();
        tx.commit().await.doing(doing)?;
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::postgres_server::Postgres;
    use crate::db::{Engine, Location};

    /// `N@AT`, or `-N@AT` of a deletion; newest first.
    fn check(all: &str, keep: usize, needed: &[u64], want: &[u64]) {
        let aged = |text: &str| {
            let (revision, at) = text.trim_start_matches('-').split_once('@').unwrap();
            let at = UnixMillis(at.parse().unwrap());
            Aged { revision: revision.parse().unwrap(), at, deleted: text.starts_with('-') }
        };
        let all: Vec<Aged> = all.split_whitespace().map(aged).collect();
        let needed = needed.iter().copied().collect();
        assert_eq!(forgettable(&all, keep, UnixMillis(100), &needed), want, "{all:?}");
    }

    #[test]
    fn old_versions_go_but_the_newest_and_those_that_are_needed() {
        check("", 2, &[], &[]);
        check("9@50 7@40 5@30 3@20", 2, &[], &[5, 3]);
        // None is kept by number: what it says now is.
        check("9@50 7@40", 0, &[], &[7]);
        // What was said until after the bound.
        check("9@150 7@40 5@30", 1, &[], &[5]);
        check("9@150 7@140 5@130 3@20 1@10", 1, &[], &[1]);
        // As it was at revision 6, and at one before it was there.
        check("9@50 7@40 5@30 3@20", 1, &[6, 2], &[7, 3]);
    }

    #[test]
    fn a_deleted_object_goes_as_a_whole_when_its_time_has_come() {
        check("-9@99 7@40 5@30", 20, &[], &[9, 7, 5]);
        check("-9@99 7@40 5@30", 20, &[8], &[5]);
        check("-9@100 7@40 5@30", 1, &[], &[5]);
        // It was made again.
        check("11@98 -9@90 7@40", 1, &[], &[9, 7]);
        // Or what is not there as of 10 would look as if it was.
        check("11@98 -9@90 7@40", 1, &[8, 10], &[]);
    }

    /// Whatever is needed of an object whose versions these are.
    async fn put_versions(db: &Db, name: &str, versions: &[(u64, u64, bool)]) {
        for (revision, at, there) in versions {
            sqlx::query(
                "INSERT INTO object_history (kind, name, revision, spec, generation, author, at_ms)
                 VALUES ('Volume', $1, $2, $3, 1, '', $4)",
            )
            .bind(name)
            .bind(signed(*revision))
            .bind(there.then_some("{}"))
            .bind(signed(*at))
            .execute(db.write())
            .await
            .unwrap();
        }
    }

    async fn count(db: &Db, what: &str) -> i64 {
        let sql = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {what}"));
        sqlx::query(sql).fetch_one(db.read()).await.unwrap().get(0)
    }

    /// Writes `X'…'` as the engine wants it.
    async fn run(db: &Db, statements: &[&str]) {
        for sql in statements {
            let sql = match db.engine() {
                Engine::Sqlite => (*sql).to_owned(),
                Engine::Postgres => sql.replace("X'", "'\\x"),
            };
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(db.write()).await.unwrap();
        }
    }

    async fn old_things_go(db: &Db) {
        put_versions(db, "a", &[(1, 10, true), (2, 20, true), (3, 30, true), (4, 200, true)]).await;
        put_versions(db, "b", &[(5, 10, true), (6, 20, false)]).await;
        put_versions(db, "c", &[(7, 10, true), (8, 11, true), (9, 12, true)]).await;
        put_versions(db, "d", &[(10, 10, true)]).await;
        run(
            db,
            &["INSERT INTO overlays VALUES
               (X'00', 'Volume', 'a', 1, 0, 0, 'window w', '', 0, 1)"],
        )
        .await;
        // In blocks of two objects, kept: one by number, one that a node is told, one by a rollout.
        let bases = BTreeSet::from([7]);
        let (mut after, mut gone, mut blocks) = (<(String, String)>::default(), 0, 0);
        loop {
            let until = UnixMillis(100);
            let (block, last) = db.drop_old_versions(&after, 1, until, &bases, 2).await.unwrap();
            (gone, blocks) = (gone + block, blocks + 1);
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
        assert_eq!((gone, blocks), (4, 3), "2 of a, both of b; and 8 of c");
        let rows = sqlx::query("SELECT revision FROM object_history ORDER BY revision");
        let left = rows.fetch_all(db.read()).await.unwrap();
        let left: Vec<i64> = left.iter().map(|r| r.get(0)).collect();
        assert_eq!(left, [1, 3, 4, 7, 9, 10]);

        // Deleted long ago, a moment ago, and there.
        run(
            db,
            &[
                "INSERT INTO devices (id, serial, soft_serial, wildcard, reboots, gone_ms) VALUES
                 (X'61616161616161616161616161616161', '', '', 0, 0, 50), (X'62626262626262626262626262626262', '', '', 0, 0, 150),
                 (X'63636363636363636363636363636363', '', '', 0, 0, NULL)",
                "INSERT INTO device_certs VALUES (X'61616161616161616161616161616161', 1, X'00', X'00')",
                "INSERT INTO device_certs VALUES (X'62626262626262626262626262626262', 1, X'00', X'00')",
                "INSERT INTO rollouts VALUES ('old', '', '', 1, '', 10, 0, 50)",
                "INSERT INTO rollouts VALUES ('new', '', '', 1, '', 10, 0, 150)",
                "INSERT INTO rollouts VALUES ('open', '', '', 1, '', 10, 1, NULL)",
                "INSERT INTO rollout_members VALUES ('old', X'00', ''), ('open', X'00', '')",
                "INSERT INTO scheduled VALUES ('old', 10, '', '', 'done', '', 50)",
                "INSERT INTO scheduled VALUES ('waits', 10, '', '', 'waiting', '', NULL)",
            ],
        )
        .await;
        let until = UnixMillis(100);
        assert_eq!(db.drop_gone(until, 10).await.unwrap(), 1);
        assert_eq!(db.drop_gone(until, 10).await.unwrap(), 0);
        assert_eq!((count(db, "devices").await, count(db, "device_certs").await), (2, 1));
        assert_eq!(db.drop_over(until, 10).await.unwrap(), 2);
        assert_eq!(db.drop_over(until, 10).await.unwrap(), 0);
        assert_eq!((count(db, "rollouts").await, count(db, "rollout_members").await), (2, 1));
        assert_eq!(count(db, "scheduled").await, 1);
    }

    #[tokio::test]
    async fn old_things_go_of_sqlite() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&Location::File(dir.path().join("db"))).await.unwrap();
        old_things_go(&db).await;
    }

    #[tokio::test]
    async fn old_things_go_of_postgres() {
        let server = Postgres::start();
        let db = Db::open(&Location::Postgres(server.url())).await.unwrap();
        old_things_go(&db).await;
        // While it is gone nothing is forgotten, and nothing falls over; afterwards it goes on.
        server.kill();
        let until = UnixMillis(200);
        assert!(db.drop_gone(until, 10).await.is_err());
        assert!(db.drop_over(until, 10).await.is_err());
        server.again();
        assert_eq!(db.drop_gone(until, 10).await.unwrap(), 1);
        assert_eq!(db.drop_over(until, 10).await.unwrap(), 1);
    }
}
