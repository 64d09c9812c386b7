//! After a restore: nodes that may have been told more than we remember.
//!
//! A node acts on a counter that differs from the one it saw last, to either side: it reboots, an app
//! restarts, and a volume of another generation is another volume, empty. Time stamps of configs must
//! not go back either. So a node that was known in the backup is told nothing new (it keeps the config
//! it has) until it has said what it has: its metrics which versions of its apps, that end in the
//! counters it was told; its info which counter of reboots and which time stamp. Both come within
//! minutes. What is more than we know becomes ours.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::{PoisonError, RwLock};

use api::convert::view::{AppUseView, DeviceView};
use model::UnixMillis;
use model::desired::App;
use uuid::Uuid;

use crate::db::{Change, Db, DbError, Overlaid, StoredObject};
use crate::fleet::{Fleet, FleetError, Known};
use crate::objects::{Key, Kind, Spec};

/// No counter of ours is so far ahead of a backup. What a node says beyond that is not ours: taken over,
/// it would leave a counter that cannot grow, or a time stamp that nothing comes after.
const AHEAD_MAX: u64 = 1 << 31;
/// The last moment of a timestamp (`google.protobuf.Timestamp`): the year 9999.
const TIME_MAX: UnixMillis = UnixMillis(253_402_300_799_999);

/// What a node has said since a restore, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// Its counters of reboots and shutdowns, the time stamp of its config.
    Counters = 1,
    /// The versions of its apps.
    Apps = 2,
}

/// Who has not said everything since a restore. Nearly always nobody.
#[derive(Debug, Default)]
pub(crate) struct Restored(RwLock<HashMap<Uuid, i64>>);

impl Restored {
    pub(crate) async fn read(db: &Db) -> Result<Restored, DbError> {
        Ok(Restored(RwLock::new(db.restored().await?)))
    }

    /// Whether a node is told nothing, as it has not said everything.
    pub(crate) fn holds(&self, id: Uuid) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }

    /// Whether a node has not said this.
    fn waits_for(&self, id: Uuid, what: Said) -> bool {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&id).is_some_and(|said| said & what as i64 == 0)
    }

    /// A node has said something; ours is not behind.
    async fn heard(&self, db: &Db, id: Uuid, what: Said) -> Result<(), DbError> {
        db.heard(id, what as i64).await?;
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(said) = all.get_mut(&id) {
            *said |= what as i64;
            if *said == Said::Counters as i64 | Said::Apps as i64 {
                all.remove(&id);
            }
        }
        Ok(())
    }

    /// Takes over whom other processes have heard.
    pub(crate) async fn follow(&self, db: &Db) -> Result<(), DbError> {
        if self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return Ok(());
        }
        let all = db.restored().await?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = all;
        Ok(())
    }
}

/// The counters in the version of an app: of its object, of restarts, of purges. Those that are not
/// there are 0.
fn counters(version: &str) -> (u64, u32, u32) {
    let mut parts = version.split('.');
    let generation = parts.next().and_then(|p| p.parse().ok()).unwrap_or(0);
    let mut rest = parts.skip(1).map(|p| p.parse().unwrap_or(0));
    (generation, rest.next().unwrap_or(0), rest.next().unwrap_or(0))
}

/// How far a counter is ahead of another; it may have gone round.
fn ahead(theirs: u32, ours: u32) -> u32 {
    match theirs.wrapping_sub(ours) {
        far if u64::from(far) < AHEAD_MAX => far,
        _ => 0,
    }
}

/// The same of the counter of an object, which never goes round.
fn generations_ahead(theirs: u64, ours: u64) -> u64 {
    theirs.checked_sub(ours).filter(|far| *far < AHEAD_MAX).unwrap_or(0)
}

/// The object with what a node has seen of it; `None`: ours is not behind. `told`: of the app as we
/// would tell it.
fn raised(
    stored: &StoredObject,
    told: &App,
    version: &str,
    now: UnixMillis,
) -> Option<StoredObject> {
    let (ours, theirs) = (counters(&told.version), counters(version));
    let mut next = stored.clone();
    let object = Arc::make_mut(&mut next.object);
    object.generation = object.generation.saturating_add(generations_ahead(theirs.0, ours.0));
    object.restart = object.restart.wrapping_add(ahead(theirs.1, ours.1));
    object.purge = object.purge.wrapping_add(ahead(theirs.2, ours.2));
    let more = next.object != stored.object;
    next.changed = now;
    more.then_some(next)
}

/// The same for a node alone.
fn raised_here(held: &Overlaid, told: &str, version: &str) -> Option<Overlaid> {
    let (ours, theirs) = (counters(told), counters(version));
    let (restart, purge) = (ahead(theirs.1, ours.1), ahead(theirs.2, ours.2));
    (restart > 0 || purge > 0).then(|| Overlaid {
        restart: held.restart.wrapping_add(restart),
        purge: held.purge.wrapping_add(purge),
        ..held.clone()
    })
}

impl Fleet {
    /// Takes over what a node's metrics say of its apps, if that was not heard since a restore.
    pub(crate) async fn hear_apps(&self, id: Uuid, apps: &[AppUseView]) -> Result<(), FleetError> {
        if !self.restored.waits_for(id, Said::Apps) {
            return Ok(());
        }
        let now = self.now();
        let behind = |known: &Known, change: &mut Change| {
            let told = self.compiled(known, id).map(|d| d.apps).unwrap_or_default();
            for app in apps {
                let Some(told) = told.values().find(|t| t.id.to_string() == app.id) else {
                    continue;
                };
                let key = Key::new(Kind::App, &told.name);
                let held = known.overlay(id).and_then(|o| o.get(&key)).map(|held| &held.said);
                if let Some(held) = held.filter(|held| held.as_of.is_some()) {
                    // It is told an earlier version: what is raised now does not show there.
                    change.overlays.extend(raised_here(held, &told.version, &app.version));
                } else if let Some(stored) = known.stored.get(&key) {
                    change.put.extend(raised(stored, told, &app.version, now));
                }
            }
        };
        self.catch_up(&behind).await?;
        Ok(self.restored.heard(&self.db, id, Said::Apps).await?)
    }

    /// Takes over what a node says of its counters: a database from a backup must not reboot the
    /// fleet, nor go back in time.
    pub(crate) async fn hear_device(&self, id: Uuid, said: &DeviceView) -> Result<(), FleetError> {
        self.catch_up_counters(id, said.reboot_counter, said.shutdown_counter).await?;
        if !self.restored.waits_for(id, Said::Counters) {
            return Ok(());
        }
        let now = self.now();
        let behind = |known: &Known, change: &mut Change| {
            let told = self.compiled(known, id).and_then(|d| d.base_os);
            let name = known.object_of(id).and_then(|o| match &o.object.spec {
                Spec::Device(device) => device.base_os.clone(),
                _ => None,
            });
            let key = Key::new(Kind::BaseOs, name.unwrap_or_default());
            let stored = known.stored.get(&key);
            let more = told.map_or(0, |told| ahead(said.update_counter, told.retry));
            let stored = stored.filter(|_| more > 0).map(|stored| {
                let mut next = StoredObject::clone(stored);
                let object = Arc::make_mut(&mut next.object);
                object.restart = object.restart.wrapping_add(more);
                next.changed = now;
                next
            });
            change.put.extend(stored);
        };
        self.catch_up(&behind).await?;
        if let Some(seen) = said.config_timestamp.filter(|seen| *seen <= TIME_MAX) {
            self.db.raise_timestamp(id, seen).await?;
            self.forget_told(id);
        }
        Ok(self.restored.heard(&self.db, id, Said::Counters).await?)
    }

    /// Stores objects whose counters were behind.
    async fn catch_up(&self, behind: &impl Fn(&Known, &mut Change)) -> Result<(), FleetError> {
        let now = self.now();
        self.change(|known| {
            let mut change = Change::by("controller", now);
            behind(known, &mut change);
            let put = change.put.iter().map(|stored| (None, stored.object.key.clone()));
            let here = change.overlays.iter().map(|said| (Some(said.device), said.key.clone()));
            for (device, key) in put.chain(here).collect::<Vec<_>>() {
                change.log(device, &key, "counters caught up");
            }
            Ok((change, ()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_an_app_are_in_its_version() {
        assert_eq!(counters("7.12.4294967295.3"), (7, u32::MAX, 3));
        // As controllers before this one wrote it, and others.
        assert_eq!(counters("7.12"), (7, 0, 0));
        assert_eq!(counters(""), (0, 0, 0));
        assert_eq!(counters("v1.x.-1.9999999999"), (0, 0, 0));
    }

    #[test]
    fn a_node_that_is_told_an_earlier_version_catches_up_alone() {
        let held = Overlaid {
            device: Uuid::nil(),
            key: Key::new(Kind::App, "web"),
            as_of: Some(7),
            restart: u32::MAX,
            purge: 0,
            holder: "window".into(),
            why: "closed".into(),
            since: UnixMillis(1),
        };
        let next = raised_here(&held, "4.0.2.5", "5.1.4.5").unwrap();
        assert_eq!((next.restart, next.purge, next.as_of), (1, 0, Some(7)));
        assert_eq!(raised_here(&held, "4.0.2.5", "3.0.1.5"), None);
    }

    #[test]
    fn what_is_behind_is_not_ahead() {
        for (theirs, ours, far) in
            [(5, 3, 2), (3, 5, 0), (0, 0, 0), (1, u32::MAX, 2), (u32::MAX, 1, 0), (1 << 31, 0, 0)]
        {
            assert_eq!(ahead(theirs, ours), far, "{theirs} {ours}");
        }
        for (theirs, ours, far) in [(5, 3, 2), (3, 5, 0), (u64::MAX, 3, 0), (AHEAD_MAX, 0, 0)] {
            assert_eq!(generations_ahead(theirs, ours), far, "{theirs} {ours}");
        }
    }
}
