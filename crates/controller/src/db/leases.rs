//! What only one process may do at a time: a lease names its holder and ends by itself.
//!
//! A lease keeps two processes from doing the same work; it does not keep a slow one from finishing
//! late. Whatever must happen once is decided by a version or a revision as well.

use std::time::Duration;

use model::UnixMillis;

use super::{Db, DbError, Doing, signed};

impl Db {
    /// Takes a lease, or makes one's own last longer; false if another process holds it. `term`
    /// should be several times as long as the pause between two calls.
    pub(crate) async fn lease(
        &self,
        name: &str,
        holder: &str,
        now: UnixMillis,
        term: Duration,
    ) -> Result<bool, DbError> {
        let until = now.after(term);
        // A lease that ends absurdly late was taken by a clock that ran ahead.
        let absurd = now.after(term.saturating_mul(10));
        let done = sqlx::query(
            "INSERT INTO leases VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE
             SET holder = $2, until_ms = $3
             WHERE leases.holder = $2 OR leases.until_ms <= $4 OR leases.until_ms > $5",
        )
        .bind(name)
        .bind(holder)
        .bind(signed(until.0))
        .bind(signed(now.0))
        .bind(signed(absurd.0))
        .execute(self.write())
        .await
        .doing("take a lease")?;
        Ok(done.rows_affected() == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Location;

    #[tokio::test]
    async fn one_process_holds_a_lease_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::File(dir.path().join("db"));
        let (one, two) = (Db::open(&location).await.unwrap(), Db::open(&location).await.unwrap());
        let (at, term) = (|s: u64| UnixMillis(s * 1000), Duration::from_secs(30));
        assert!(one.lease("rollouts", "one", at(100), term).await.unwrap());
        assert!(!two.lease("rollouts", "two", at(101), term).await.unwrap());
        assert!(two.lease("alerts", "two", at(101), term).await.unwrap());
        assert!(one.lease("rollouts", "one", at(120), term).await.unwrap());
        assert!(!two.lease("rollouts", "two", at(149), term).await.unwrap());
        assert!(two.lease("rollouts", "two", at(150), term).await.unwrap());
        assert!(!one.lease("rollouts", "one", at(151), term).await.unwrap());
        assert!(one.lease("rollouts", "one", at(180), term).await.unwrap());
        // A clock that ran ahead and was set back holds nobody up for long.
        assert!(two.lease("ahead", "two", at(1_000_000), term).await.unwrap());
        assert!(one.lease("ahead", "one", at(1_000), term).await.unwrap());
    }
}
