//! What objects said before, what devices would get, and what they have not got yet.
//!
//! | Call | Does |
//! |---|---|
//! | GET `/objects/{kind}/{name}/history?before=…&limit=…` | its versions, newest first |
//! | GET `/objects/{kind}/{name}/history/{revision}` | what it said then, and what that is beside now |
//! | POST `/objects/{kind}/{name}/history/{revision}` | makes it say so again: a new version |
//! | GET `/drift?after=NAME&limit=…` | what is not as it should be, by device; fewer than `limit`: there are no more |
//! | GET `/devices/{name}/drift` | the same of one device |
//! | POST `/diff`, `/devices/{name}/diff` | what documents would do to devices, before they are applied; asked as `/objects` is |

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::rollouts::text;
use super::{Failed, HowToApply, ROWS_DEFAULT, ROWS_MAX, failed, key, unknown, with_hints};
use crate::access::Caller;
use crate::db::{StoredObject, Version};
use crate::drift::consequence::consequences;
use crate::drift::said::Said;
use crate::drift::{Consequence, Drift, Facts, HeldBack, drift};
use crate::fleet::{Fleet, How, Known, policies};
use crate::history;
use crate::objects::{self, Key, Kind, Objects};
use crate::rollout::calendar::{Calendar, labels_among};
use crate::rollout::drive::is_silent;
use crate::view;

/// Versions in one answer.
const VERSIONS_DEFAULT: u32 = 50;
const VERSIONS_MAX: u32 = 1000;

pub(super) fn routes() -> Router<Arc<Fleet>> {
    Router::new()
        .route("/objects/{kind}/{name}/history", get(versions))
        .route("/objects/{kind}/{name}/history/{revision}", get(version).post(restore))
        .route("/drift", get(all_drift))
        .route("/devices/{name}/drift", get(device_drift))
        .route("/diff", post(all_diff))
        .route("/devices/{name}/diff", post(device_diff))
}

#[derive(Debug, Deserialize)]
struct WhichVersions {
    before: Option<u64>,
    limit: Option<u32>,
}

async fn versions(
    State(fleet): State<Arc<Fleet>>,
    Path((kind, name)): Path<(String, String)>,
    Query(which): Query<WhichVersions>,
) -> Result<Json<Vec<Version>>, Failed> {
    let key = key(&kind, name)?;
    if key.kind.is_policy() {
        let text = format!("{key}: no versions are kept of it; `eve audit` tells who changed it");
        return Err(failed(StatusCode::UNPROCESSABLE_ENTITY, text));
    }
    let upto = which.before.map_or(u64::MAX, |b| b.saturating_sub(1));
    let limit = which.limit.unwrap_or(VERSIONS_DEFAULT).min(VERSIONS_MAX);
    let mut all = fleet.db.versions(&key, upto, limit).await?;
    all.iter_mut().for_each(|v| hide(&key, v));
    if all.is_empty() && which.before.is_none() {
        return Err(unknown(key));
    }
    Ok(Json(all))
}

/// What nobody may see goes out of a version.
fn hide(key: &Key, version: &mut Version) {
    version.spec = version.spec.as_ref().map(|spec| objects::shown(key.kind, spec));
}

/// A version, and how it differs from what the object says now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// The version.
    #[serde(flatten)]
    pub version: Version,
    /// Field by field, from that version to now: `memory: "64MiB", now "128MiB"`. Values of secrets
    /// are not told, only that they changed.
    pub since: Vec<String>,
}

async fn version(
    State(fleet): State<Arc<Fleet>>,
    Path((kind, name, revision)): Path<(String, String, u64)>,
) -> Result<Json<Compared>, Failed> {
    let key = key(&kind, name)?;
    let mut version = at(&fleet, &key, revision).await?;
    let known = fleet.known();
    let now = known.stored.get(&key).map(|s| s.written.value());
    let changed = version.spec != now;
    hide(&key, &mut version);
    let now = now.map(|spec| objects::shown(key.kind, &spec));
    let mut since = history::differences(version.spec.as_ref(), now.as_ref());
    if changed && since.is_empty() {
        since.push("value: another one, which is shown to nobody".to_owned());
    }
    Ok(Json(Compared { version, since }))
}

async fn at(fleet: &Fleet, key: &Key, revision: u64) -> Result<Version, Failed> {
    let found = fleet.db.versions(key, revision, 1).await?.pop();
    found.filter(|v| v.revision == revision).ok_or_else(|| {
        let text = format!("{key} has no version {revision}; its history lists them");
        failed(StatusCode::NOT_FOUND, text)
    })
}

async fn restore(
    State(fleet): State<Arc<Fleet>>,
    Path((kind, name, revision)): Path<(String, String, u64)>,
    caller: Caller,
) -> Result<Json<view::Applied>, Failed> {
    let key = key(&kind, name)?;
    let version = at(&fleet, &key, revision).await?;
    if version.spec.is_none() {
        let text = format!("{key} was deleted in {revision}; delete it instead");
        return Err(failed(StatusCode::CONFLICT, text));
    }
    Ok(Json(fleet.restore(&key, &version, &caller.projects, &caller.name).await?))
}

/// What is not as it should be on a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceDrift {
    /// Its name.
    pub device: String,
    /// What is not as it should be.
    pub drift: Vec<Drift>,
}

/// What is not as it should be on a device; [`Fleet::store_taken`] comes before.
pub(crate) async fn of_device(
    fleet: &Fleet,
    known: &Known,
    stored: &StoredObject,
) -> Result<DeviceDrift, Failed> {
    let id = stored.object.uid;
    let device = stored.object.key.name.clone();
    let Some(told) = fleet.compiled(known, id) else {
        return Ok(DeviceDrift { device, drift: Vec::new() });
    };
    let (ready, taken) = fleet.is_taken(&told).await?;
    let said = Said::read(&fleet.db.infos(id).await?);
    let held = known.overlay(id).into_iter().flat_map(|o| o.values()).map(|h| &h.said);
    let held: Vec<HeldBack> = held
        .filter(|h| h.as_of.is_some())
        .map(|h| HeldBack { subject: h.key.to_string(), why: h.why.clone(), since: h.since })
        .collect();
    let (seen, silent) = (fleet.last_seen(id), is_silent(fleet, known, id));
    let facts = Facts { told: &told, ready, taken, said: &said, seen, silent, held: &held };
    Ok(DeviceDrift { device, drift: drift(&facts) })
}

/// Devices that are not as they should be, of those after a name.
#[derive(Debug)]
pub(crate) struct DriftPage {
    pub(crate) found: Vec<DeviceDrift>,
    /// So many devices were looked at.
    pub(crate) looked: usize,
    /// The last one that was looked at, if there are more.
    pub(crate) next: Option<String>,
}

/// Looks at devices by name, from the one after `after`, until `differ` of them differ or `most`
/// were looked at: what each says is read from the database.
pub(crate) async fn drift_after(
    fleet: &Fleet,
    after: &str,
    differ: usize,
    most: usize,
) -> Result<DriftPage, Failed> {
    fleet.store_taken().await?;
    let known = fleet.known();
    let mut page = DriftPage { found: Vec::new(), looked: 0, next: None };
    let mut last = None;
    for stored in known.of_kind(Kind::Device).filter(|s| s.object.key.name.as_str() > after) {
        if page.looked == most || page.found.len() == differ {
            page.next = last;
            break;
        }
        page.looked += 1;
        last = Some(stored.object.key.name.clone());
        let device = of_device(fleet, &known, stored).await?;
        if !device.drift.is_empty() {
            page.found.push(device);
        }
    }
    Ok(page)
}

#[derive(Debug, Deserialize)]
struct WhichDrift {
    #[serde(default)]
    after: String,
    limit: Option<u32>,
}

async fn all_drift(
    State(fleet): State<Arc<Fleet>>,
    Query(which): Query<WhichDrift>,
) -> Result<Json<Vec<DeviceDrift>>, Failed> {
    let limit = which.limit.unwrap_or(ROWS_DEFAULT).clamp(1, ROWS_MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(Json(drift_after(&fleet, &which.after, limit, usize::MAX).await?.found))
}

async fn device_drift(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<Json<DeviceDrift>, Failed> {
    fleet.store_taken().await?;
    let known = fleet.known();
    let stored =
        known.device_object(&name).ok_or_else(|| unknown(Key::new(Kind::Device, &name)))?;
    of_device(&fleet, &known, stored).await.map(Json)
}

/// What documents would do to a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceDiff {
    /// Its name.
    pub device: String,
    /// What happens there.
    pub consequences: Vec<Consequence>,
    /// What it would wait for, if anything interrupts what works now.
    pub waits: Option<String>,
}

async fn diff(
    fleet: &Fleet,
    documents: &str,
    only: Option<&str>,
    how: &How,
    by: &str,
) -> Result<(Vec<DeviceDiff>, Vec<String>), Failed> {
    let documents = objects::read(documents).map_err(crate::fleet::FleetError::from)?;
    let policies = fleet.db.policies().await?;
    let known = fleet.known();
    let now = fleet.now();
    let (change, applied) = fleet.applied(&known, &policies, &documents, how, (by, now))?;
    let calendar = Calendar::of(&policies::after(&policies, &change));
    let mut next: Objects = known.objects.clone();
    for stored in &change.put {
        next.insert(stored.object.key.clone(), stored.object.clone());
    }
    for key in &change.removed {
        next.remove(key);
    }
    let mut all = Vec::new();
    let named = |s: &&StoredObject| only.is_none_or(|n| n == s.object.key.name);
    for stored in known.of_kind(Kind::Device).filter(named) {
        let before = fleet.compiled(&known, stored.object.uid);
        // What waits already comes with it.
        let free = fleet.let_go(&known, stored.object.uid, &next, None).map(|free| free.told);
        let device = next.get(&stored.object.key);
        let after = free.or_else(|| device.and_then(|d| fleet.would_tell(&known, d, &next)));
        let (Some(before), Some(after)) = (before, after) else { continue };
        let consequences = consequences(&before, &after);
        if consequences.is_empty() {
            continue;
        }
        let disrupts = consequences.iter().any(|c| c.disrupts);
        let closed = device.and_then(|d| calendar.closed(&labels_among(&next, d), now));
        let waits = closed.filter(|_| disrupts);
        all.push(DeviceDiff { device: stored.object.key.name.clone(), consequences, waits });
    }
    let hints = applied.warnings.iter().map(ToString::to_string).collect();
    Ok((all, hints))
}

async fn all_diff(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Query(how): Query<HowToApply>,
    request: Request,
) -> Result<Response, Failed> {
    let how = how.read(caller.projects.clone())?;
    let documents = text(request).await?;
    let (all, hints) = diff(&fleet, &documents, None, &how, &caller.name).await?;
    let all: BTreeMap<String, DeviceDiff> =
        all.into_iter().map(|d| (d.device.clone(), d)).collect();
    Ok(with_hints(&hints, Json(all)))
}

async fn device_diff(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
    Query(how): Query<HowToApply>,
    request: Request,
) -> Result<Response, Failed> {
    let how = how.read(caller.projects.clone())?;
    let found = fleet.look(|known| known.device_object(&name).map(|s| s.object.key.name.clone()));
    let device = found.ok_or_else(|| unknown(Key::new(Kind::Device, &name)))?;
    let documents = text(request).await?;
    let (mut found, hints) = diff(&fleet, &documents, Some(&device), &how, &caller.name).await?;
    let none = DeviceDiff { device, consequences: Vec::new(), waits: None };
    Ok(with_hints(&hints, Json(found.pop().unwrap_or(none))))
}
