//! After a restore: nodes whose counters we do not know.
//!
//! A node reboots when the counter of reboots differs from the one it saw last, to either side. A
//! restored controller may have forgotten some. So it says nothing of reboots to a node (which then
//! forgets what it saw, and takes the next one as its first) until the node has told which one it
//! has.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use uuid::Uuid;

use crate::db::{Db, DbError};

/// Who has not been heard since a restore. Nearly always nobody.
#[derive(Debug, Default)]
pub(crate) struct Restored(RwLock<HashSet<Uuid>>);

impl Restored {
    pub(crate) async fn read(db: &Db) -> Result<Restored, DbError> {
        let all = db.restored().await?.into_iter().collect();
        Ok(Restored(RwLock::new(all)))
    }

    /// Whether a node has not been heard yet.
    pub(crate) fn waits_for(&self, id: Uuid) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// A node has told its counters; ours are not behind.
    pub(crate) async fn heard(&self, db: &Db, id: Uuid) -> Result<(), DbError> {
        if self.waits_for(id) {
            db.heard(id).await?;
            self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
        Ok(())
    }

    /// Takes over whom other processes have heard.
    pub(crate) async fn follow(&self, db: &Db) -> Result<(), DbError> {
        if self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return Ok(());
        }
        let all = db.restored().await?.into_iter().collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = all;
        Ok(())
    }
}
