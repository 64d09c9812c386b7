//! Groups and windows as the database has them, ready to be asked, and what a closed window holds.

use std::collections::BTreeMap;

use model::UnixMillis;
use uuid::Uuid;

use super::WindowSpec;
use super::window::{Window, WindowError};
use crate::db::{Change, Db, DbError, Overlaid, Policies, StoredObject};
use crate::drift::consequence::consequences;
use crate::fleet::{Fleet, Known, policies};
use crate::objects::{self, Key, Kind, Labels, NAME, Object, Objects, Query, QueryError, Spec};
use crate::words::time;

/// Who holds what waits for a window.
pub(crate) const HOLDER: &str = "window";

/// When which devices may be disturbed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calendar(Vec<(String, Query, Window)>);

/// Reads a group's or a window's query.
pub(crate) async fn query(db: &Db, text: &str) -> Result<Result<Query, QueryError>, DbError> {
    Ok(Query::parse(text, &queries(db).await?))
}

/// The queries of groups, by name.
pub(crate) async fn queries(db: &Db) -> Result<BTreeMap<String, String>, DbError> {
    Ok(db.groups().await?.into_iter().map(|(name, (query, _))| (name, query)).collect())
}

/// What queries look at: the labels of a device, its template's among them, with its name.
pub(crate) fn labels(known: &Known, stored: &StoredObject) -> Labels {
    labels_among(&known.objects, &stored.object)
}

/// The same of a device as it is among these objects.
pub(crate) fn labels_among(objects: &Objects, device: &Object) -> Labels {
    let labels = objects::labels(objects, device);
    let mut labels: Labels =
        labels.into_iter().map(|(key, value)| (key.to_owned(), value.into_owned())).collect();
    labels.insert(NAME.to_owned(), device.key.name.clone());
    labels
}

/// Reads a window and its query.
pub(crate) fn understood(
    spec: &WindowSpec,
    groups: &BTreeMap<String, String>,
) -> Result<(Query, Window), WindowError> {
    Ok((Query::parse(&spec.devices, groups)?, Window::of(spec)?))
}

impl Calendar {
    /// Reads all windows. One that is damaged, or whose group is gone, holds nobody: changes must
    /// not wait for a window that never opens.
    pub(crate) async fn read(db: &Db) -> Result<Calendar, DbError> {
        let windows = db.windows().await?;
        if windows.is_empty() {
            return Ok(Calendar::default());
        }
        let groups = queries(db).await?;
        let mut all = Vec::new();
        for (name, spec) in windows {
            match serde_json::from_str::<WindowSpec>(&spec) {
                Ok(spec) => all.push((name, spec)),
                Err(e) => tracing::warn!("the window {name} is left out: {e}"),
            }
        }
        Ok(Calendar::with(all.iter().map(|(name, spec)| (name.as_str(), spec)), &groups))
    }

    /// The windows of a set of policies.
    pub(crate) fn of(policies: &Policies) -> Calendar {
        let windows = policies.iter().filter_map(|(key, policy)| match &policy.spec {
            Spec::Window(spec) => Some((key.name.as_str(), spec)),
            _ => None,
        });
        Calendar::with(windows, &policies::groups(policies))
    }

    fn with<'a>(
        windows: impl Iterator<Item = (&'a str, &'a WindowSpec)>,
        groups: &BTreeMap<String, String>,
    ) -> Calendar {
        let mut all = Vec::new();
        for (name, spec) in windows {
            match understood(spec, groups) {
                Ok((query, window)) => all.push((name.to_owned(), query, window)),
                Err(e) => tracing::warn!("the window {name} is left out: {e}"),
            }
        }
        Calendar(all)
    }

    /// Whether there is no window at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a device waits for, in words, if it must not be disturbed now.
    pub(crate) fn closed(&self, labels: &Labels, now: UnixMillis) -> Option<String> {
        let mut next: Option<(UnixMillis, &str)> = None;
        let mut named = false;
        for (name, _, window) in self.0.iter().filter(|(_, query, _)| query.fits(labels)) {
            named = true;
            if window.open_until(now).is_some() {
                return None;
            }
            if let Some(at) = window.opens_at(now)
                && next.is_none_or(|(best, _)| at < best)
            {
                next = Some((at, name));
            }
        }
        let (at, name) = next.filter(|_| named)?;
        Some(format!("waits for its window {name}, which opens at {}", time(at)))
    }

    /// Holds a change back from the devices that it would disrupt and whose windows are closed.
    pub(crate) fn hold_back(&self, fleet: &Fleet, known: &Known, change: &mut Change) {
        if self.is_empty() || (change.put.is_empty() && change.removed.is_empty()) {
            return;
        }
        let mut next: Objects = known.objects.clone();
        for stored in &change.put {
            next.insert(stored.object.key.clone(), stored.object.clone());
        }
        for key in &change.removed {
            next.remove(key);
        }
        for stored in known.of_kind(Kind::Device) {
            let id = stored.object.uid;
            let Some(device) = next.get(&stored.object.key) else { continue };
            // By the labels that the change gives it: those count when windows open, too.
            let labels = labels_among(&next, device);
            let Some(closed) = self.closed(&labels, change.at) else { continue };
            // What else is held back from it is not of this change.
            let (Some(before), Some(after)) = (
                fleet.would_tell(known, &stored.object, &known.objects),
                fleet.would_tell(known, device, &next),
            ) else {
                continue;
            };
            if before == after {
                continue;
            }
            // It may take back what the node waits for.
            if let Some(free) = fleet.let_go(known, id, &next, Some(HOLDER))
                && let Some(told) = fleet.compiled(known, id)
                && !consequences(&told, &free.told).iter().any(|c| c.disrupts)
            {
                let there = |row: &Overlaid| !change.removed.contains(&row.key);
                let rows: Vec<_> = free.rows.into_iter().filter(there).collect();
                change.overlays.extend(rows);
                continue;
            }
            let all = consequences(&before, &after);
            let Some(first) = all.iter().find(|c| c.disrupts) else { continue };
            let held = known.overlay(id);
            let runs = |app: &str| {
                before.apps.values().chain(after.apps.values()).any(|told| told.name == app)
            };
            for key in change.put.iter().map(|put| &put.object.key).chain(&change.removed) {
                let others = match key.kind {
                    Kind::Device => *key != stored.object.key,
                    Kind::App => !runs(&key.name),
                    _ => false,
                };
                if others {
                    continue;
                }
                let had = held.and_then(|o| o.get(key)).map(|h| &h.said);
                // What is held already stays as old as it is; with a removed object that would go.
                let as_of = had.and_then(|h| h.as_of);
                if as_of.is_some() && !change.removed.contains(key) {
                    continue;
                }
                change.overlays.push(Overlaid {
                    device: id,
                    key: key.clone(),
                    as_of: as_of.or(Some(known.revision)),
                    restart: had.map_or(0, |h| h.restart),
                    purge: had.map_or(0, |h| h.purge),
                    holder: HOLDER.to_owned(),
                    why: format!("{closed}: {first}"),
                    since: change.at,
                });
            }
        }
    }
}

/// Lets go what waited for windows that are open now, or are no more.
pub(crate) async fn let_go(fleet: &Fleet) -> Result<(), crate::fleet::FleetError> {
    if fleet.look(|known| known.held_by(HOLDER).next().is_none()) {
        return Ok(());
    }
    let calendar = Calendar::read(&fleet.db).await?;
    let now = fleet.now();
    fleet
        .change(|known| {
            let mut change = Change::by("controller", now);
            let mut held: BTreeMap<Uuid, Vec<&Key>> = BTreeMap::new();
            for said in known.held_by(HOLDER) {
                held.entry(said.device).or_default().push(&said.key);
            }
            for (id, keys) in held {
                let stored = known.object_of(id);
                if stored.and_then(|s| calendar.closed(&labels(known, s), now)).is_some() {
                    continue;
                }
                for key in keys {
                    change.log(Some(id), key, "told now that the window is open");
                }
                let free = fleet.let_go(known, id, &known.objects, Some(HOLDER));
                change.overlays.extend(free.into_iter().flat_map(|free| free.rows));
            }
            Ok((change, ()))
        })
        .await
}
