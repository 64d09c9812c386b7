//! How long things are kept, and what nobody refers to any more.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{Digest, UnixMillis};
use uuid::Uuid;

use crate::blobs::Place;
use crate::db::{Aging, Db, DbError, Dropped};
use crate::images::{ImageError, Images};
use crate::rollout;

/// Blocks of rows that one step deletes of one table at most.
const BLOCKS: u32 = 50;
/// Between two blocks others write.
const PAUSE: Duration = Duration::from_millis(20);
/// Nodes whose points are looked at in one block.
const NODES: u32 = 200;
/// Alerts that go in one block.
const ALERTS: u32 = 1000;
/// Objects whose versions are looked at in one block, and the time between two looks at all of them.
const OBJECTS_LOOKED_AT: u32 = 1000;
const VERSIONS_EVERY: Duration = Duration::from_secs(6 * 3600);
/// Deleted nodes, rollouts and scheduled changes that go in one block.
const OVER: u32 = 200;
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

/// Which versions of objects are kept: for rollbacks, and to see who changed what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// What an object said within so many days; of one that was deleted, that is all. Who a deleted
    /// device was is kept as long. 0: for ever.
    pub days: u32,
    /// And the newest ones of each object that is there, however old.
    pub newest: u32,
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
    /// What happened; its days are those of alerts that ended, too.
    pub events: Limit,
    /// Days of points of charts. 0: for ever.
    pub points_days: u32,
    /// Who did what.
    pub audit: Limit,
    /// What objects said before; what a rollout or a maintenance window needs stays in any case.
    pub versions: Versions,
    /// Days of rollouts and scheduled changes that are over. 0: for ever.
    pub over_days: u32,
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
            audit: limit(400, 4 << 10),
            versions: Versions { days: 180, newest: 20 },
            over_days: 90,
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
            Aging::Audit => self.audit,
        }
    }
}

/// Where the rounds over all nodes and all objects stand.
#[derive(Debug, Default)]
pub(crate) struct Round {
    node: Uuid,
    content: Option<(UnixMillis, Digest)>,
    object: Option<Place>,
    /// Kind and name.
    versions: (String, String),
    /// When all versions were looked at.
    looked: Option<UnixMillis>,
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
    if retention.events.days > 0 {
        let until = before(now, DAY.saturating_mul(retention.events.days));
        for _ in 0..BLOCKS {
            let block = db.drop_old_alerts(until, ALERTS).await?;
            gone += block;
            if block < u64::from(ALERTS) {
                break;
            }
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
    gone += forget_versions(db, retention.versions, round, now).await?;
    if retention.over_days > 0 {
        let until = before(now, DAY.saturating_mul(retention.over_days));
        for _ in 0..BLOCKS {
            let block = db.drop_over(until, OVER).await?;
            gone += block;
            if block < u64::from(OVER) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(gone)
}

/// Forgets versions of objects, and who deleted nodes were. Returns how many.
async fn forget_versions(
    db: &Db,
    versions: Versions,
    round: &mut Round,
    now: UnixMillis,
) -> Result<u64, DbError> {
    if versions.days == 0 {
        return Ok(0);
    }
    let until = before(now, DAY.saturating_mul(versions.days));
    let mut gone = 0;
    for _ in 0..BLOCKS {
        let block = db.drop_gone(until, OVER).await?;
        gone += block;
        if block < u64::from(OVER) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    let begins = round.versions.0.is_empty();
    let rests = |looked: UnixMillis| looked <= now && now.since(looked) < VERSIONS_EVERY;
    if begins && round.looked.is_some_and(rests) {
        return Ok(gone);
    }
    let open = db.rollouts(true).await?;
    let bases: BTreeSet<u64> = open.iter().map(rollout::base_of).collect::<Result<_, DbError>>()?;
    let newest = usize::try_from(versions.newest).unwrap_or(usize::MAX);
    for _ in 0..BLOCKS {
        let (block, last) =
            db.drop_old_versions(&round.versions, newest, until, &bases, OBJECTS_LOOKED_AT).await?;
        gone += block;
        let Some(last) = last else {
            round.versions = <(String, String)>::default();
            round.looked = Some(now);
            break;
        };
        round.versions = last;
        tokio::time::sleep(PAUSE).await;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use sqlx::AssertSqlSafe;

    use super::*;
    use crate::blobs::{BlobLocation, Blobs};
    use crate::db::{Incoming, Location, Message, Point, Subject};

    /// Rows of so many nodes that are 100 days old: of each a day of points, a log file, a flow log and
    /// info; every tenth log file lies in the object store.
    async fn fill(images: &Images, nodes: u128, at: UnixMillis) {
        for first in (0..nodes).step_by(500) {
            let mut said = Vec::new();
            for n in first..(first + 500).min(nodes) {
                let device = Uuid::from_u128(n + 1);
                let mut say = |message| said.push(Incoming { device, received: at, message });
                let logs = vec![u8::try_from(n % 251).unwrap(); 3000];
                let size = if n % 10 == 0 { 0 } else { 4096 };
                let mut logs: Vec<u8> = [&n.to_be_bytes()[..], &logs].concat();
                logs.truncate(3000);
                let digest = n.to_be_bytes().to_vec();
                let raw = images.lay(logs.into(), size).await.unwrap();
                let app = String::new();
                say(Message::Logs(crate::db::LogFile { app, digest, refused: None, raw }));
                let flow = images.lay(vec![1; 500].into(), 4096).await.unwrap();
                say(Message::Other("flowlog", flow));
                let subject = Subject { kind: "device".into(), id: String::new() };
                let payload = vec![2; 1500].into();
                say(Message::Info { subject, at, payload, past: None, words: None });
                for hour in 0..24 {
                    let at = UnixMillis(at.0 + hour);
                    let point = Some(Point { at, ..Point::default() });
                    say(Message::Metrics { payload: vec![3; 100].into(), point });
                }
            }
            images.db.keep(&said).await.unwrap();
        }
        let mut tx = images.db.begin().await.unwrap();
        for n in 0..nodes {
            let sql = "INSERT INTO devices (id, serial, soft_serial, wildcard, reboots)
                       VALUES ($1, '', '', 0, 0)";
            let query = sqlx::query(sql).bind(Uuid::from_u128(n + 1).as_bytes().to_vec());
            query.execute(&mut *tx).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    async fn rows(db: &Db, table: &str) -> i64 {
        use sqlx::Row;
        let sql = format!("SELECT COUNT(*) FROM {table}");
        sqlx::query(AssertSqlSafe(sql)).fetch_one(db.read()).await.unwrap().get(0)
    }

    /// `EVE_RETENTION_NODES=100000` measures a large fleet; it takes minutes.
    #[tokio::test(flavor = "multi_thread")]
    async fn others_write_while_much_is_forgotten() {
        let nodes = std::env::var("EVE_RETENTION_NODES").map_or(1500, |n| n.parse().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&Location::File(dir.path().join("db"))).await.unwrap();
        let blobs = Blobs::open(&BlobLocation::Folder(dir.path().join("blobs"))).unwrap();
        let images = Images::open(db.clone(), blobs).await.unwrap();
        let now = UnixMillis(1_770_000_000_000);
        fill(&images, nodes, before(now, DAY.saturating_mul(100))).await;

        // Somebody who writes all the time, and how long that took.
        let stop = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn({
            let (db, stop) = (db.clone(), stop.clone());
            async move {
                let mut waits = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let begun = Instant::now();
                    db.check().await.unwrap();
                    waits.push(begun.elapsed());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                waits.sort_unstable();
                waits
            }
        });
        let retention = Retention { points_days: 30, ..Retention::default() };
        let (mut round, begun, mut steps, mut gone) = (Round::default(), Instant::now(), 0, 0);
        loop {
            let step = step(&images, &retention, &mut round, now).await.unwrap();
            (gone, steps) = (gone + step, steps + 1);
            if step == 0 && round.node.is_nil() {
                break;
            }
        }
        let took = begun.elapsed();
        stop.store(true, Ordering::SeqCst);
        let waits = writer.await.unwrap();
        let most = waits.last().copied().unwrap_or_default();
        let of = |part: usize| waits[(waits.len() - 1) * part / 1000];
        println!(
            "{nodes} nodes: {gone} rows and {} points went in {steps} steps, {took:?}; {} writes in \
             between took {:?} in the middle, {:?} for 99.9 %, {most:?} at most",
            nodes * 24,
            waits.len(),
            of(500),
            of(999),
        );
        for table in ["log_bundles", "messages", "info_history", "metric_points", "blobs"] {
            assert_eq!(rows(&db, table).await, 0, "{table}");
        }
        let (left, _) = images.blobs.old(None, UnixMillis(u64::MAX), 10).await.unwrap();
        assert_eq!(left, [], "objects went with their rows");
        // What is promised is 100 ms; other tests run on the machine, too.
        assert!(most < Duration::from_secs(2), "somebody waited {most:?}");
    }
}
