//! How long things are kept, and what nobody refers to any more.

use std::time::Duration;

use model::{Digest, UnixMillis};
use uuid::Uuid;

use crate::blobs::Place;
use crate::db::{Aging, DbError, Dropped};
use crate::images::{ImageError, Images};

/// Blocks of rows that one step deletes of one table at most.
const BLOCKS: u32 = 50;
/// Between two blocks others write.
const PAUSE: Duration = Duration::from_millis(20);
/// Nodes whose points are looked at in one block.
const NODES: u32 = 200;
/// Uploads that one step gives up, contents it looks at at once, objects it looks at.
const UPLOADS: u32 = 200;
const CONTENTS: u32 = 1000;
const OBJECTS: usize = 1000;
/// So many times contents are looked at in one step.
const LOOKS: u32 = 100;
/// So long stays what nobody refers to (yet): a layer before its manifest, an upload that rests.
const GRACE: Duration = Duration::from_secs(24 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How much is kept of one kind: whichever bound is reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Days. 0: for ever.
    pub days: u32,
    /// MiB in the database and the object store, about. 0: whatever there is room for.
    pub mib: u64,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// What nodes said about themselves before.
    pub info_history: Limit,
    /// Log files, also those that cannot be read.
    pub logs: Limit,
    /// Flows, hardware health.
    pub messages: Limit,
    /// What happened.
    pub events: Limit,
    /// Days of points of charts. 0: for ever.
    pub points_days: u32,
}

impl Default for Retention {
    fn default() -> Retention {
        let limit = |days, mib| Limit { days, mib };
        Retention {
            info_history: limit(30, 8 << 10),
            logs: limit(14, 32 << 10),
            messages: limit(14, 4 << 10),
            events: limit(365, 2 << 10),
            points_days: 30,
        }
    }
}

impl Retention {
    fn of(&self, table: Aging) -> Limit {
        match table {
            Aging::InfoHistory => self.info_history,
            Aging::Logs | Aging::LogLines => self.logs,
            Aging::Messages => self.messages,
            Aging::Events => self.events,
        }
    }
}

/// Where the rounds over all nodes and all objects stand.
#[derive(Debug, Default)]
pub(crate) struct Round {
    node: Uuid,
    content: Option<(UnixMillis, Digest)>,
    object: Option<Place>,
}

fn before(now: UnixMillis, age: Duration) -> UnixMillis {
    let ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    UnixMillis(now.0.saturating_sub(ms))
}

/// One step: deletes a bounded amount of what is too old or too much. Returns how many rows.
pub(crate) async fn step(
    images: &Images,
    retention: &Retention,
    round: &mut Round,
    now: UnixMillis,
) -> Result<u64, DbError> {
    let db = &images.db;
    let mut gone = 0;
    for table in Aging::ALL {
        let Limit { days, mib } = retention.of(table);
        for _ in 0..BLOCKS {
            let mut block = Dropped::default();
            if days > 0 {
                block = db.drop_old(table, before(now, DAY.saturating_mul(days))).await?;
            }
            if block.rows == 0 && mib > 0 {
                block = db.drop_excess(table, mib.saturating_mul(1 << 20)).await?;
            }
            if block.rows == 0 {
                break;
            }
            gone += block.rows;
            // Objects of rows that are gone already: what stops us here leaves them to the sweep.
            images.delete(block.places).await;
            tokio::time::sleep(PAUSE).await;
        }
    }
    if retention.points_days > 0 {
        let until = before(now, DAY.saturating_mul(retention.points_days));
        for _ in 0..BLOCKS {
            match db.drop_old_points(round.node, until, NODES).await? {
                Some(last) => round.node = last,
                None => {
                    round.node = Uuid::nil();
                    break;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(gone)
}

/// One step: gives up uploads that rest, forgets contents that nothing refers to, deletes objects
/// that belong to nothing. Returns how many objects went.
pub(crate) async fn sweep(
    images: &Images,
    round: &mut Round,
    now: UnixMillis,
) -> Result<usize, ImageError> {
    let since = before(now, GRACE);
    for id in images.db.stale_uploads(since, UPLOADS).await? {
        images.cancel(id).await?;
    }
    let mut places = Vec::new();
    for _ in 0..LOOKS {
        let (gone, last) = images.db.forget_blobs(round.content, since, CONTENTS).await?;
        places.extend(gone);
        round.content = last;
        if last.is_none() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    // What a crash left between the object store and the database.
    let (old, last) = images.blobs.old(round.object.as_ref(), since, OBJECTS).await?;
    for place in old {
        if !images.db.knows_place(&place).await? && !places.contains(&place) {
            places.push(place);
        }
    }
    round.object = last;
    let gone = places.len();
    images.delete(places).await;
    Ok(gone)
}
