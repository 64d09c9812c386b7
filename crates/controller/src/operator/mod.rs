//! What operators call: `/api/operator/v1/…`, JSON, with a token in
//! `Authorization: Bearer …`. Which role a call needs stands in [`crate::access::permit`]; calls about
//! users and tokens stand in [`access`].
//!
//! | Call | Does |
//! |---|---|
//! | GET `/` | the controller itself |
//! | GET `/devices?match=…&named=…`, `/devices/{name or id}` | nodes: all, those with these labels, those of this name, id or serial number |
//! | GET `/apps`, `/apps/{name}` | apps |
//! | POST `/apps/{name}/restart`, `/apps/{name}/purge` | restarts one; with fresh volumes |
//! | GET `/networks`, `/networks/{name}` | networks |
//! | GET `/objects`, `/objects/{kind}/{name}` | objects as they were written |
//! | POST `/objects?allow_missing=true&dry_run=true&prune=App,…&expect=App/hello@3,…` | applies YAML or JSON documents, all or none |
//! | DELETE `/objects/{kind}/{name}?force=true` | removes one |
//! | GET `/logs?device=…&app=…&after=…&limit=…` | log lines, oldest first |
//! | GET `/events?after=…&limit=…` | what happened |
//! | GET `/images`, `/images/{name}?sha256=…`; PUT, DELETE `/images/{name}` | single files for nodes |
//!
//! and what [`devices`] lists; [`calls`] has all of them, for GET `/openapi.json`.

mod access;
mod calls;
mod devices;
mod images;
mod openapi;

mod alerts;
mod history;
mod rollouts;

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use model::Bytes;
use serde::Deserialize;
use uuid::Uuid;

use crate::access::guard::{DryRun, with_token};
use crate::access::{Caller, Projects, project_of};
use crate::db::{DbError, LogFilter};
use crate::fleet::{Fleet, FleetError, How};
use crate::objects::{self, Key, Kind};
use crate::rollout::calendar;
use crate::{body, logs, reports, view};

/// The header of answers that say what may not be meant in what was asked for.
pub(crate) const HINT: &str = "eve-hint";
/// Documents of at most this size; the reader has a bound of its own.
const DOCUMENTS_MAX: Bytes = Bytes::mib(1);
/// Lines or events in one answer.
const ROWS_MAX: u32 = 10_000;
const ROWS_DEFAULT: u32 = 200;
/// Clients read a hundred headers of an answer at most, and some proxies less.
const HINTS_MAX: usize = 20;

pub(crate) use crate::objects::GroupSpec;
pub(crate) use access::put_user as put_user_as;
pub use alerts::NamedRule;
pub(crate) use alerts::{delete_rule, put_rule, seen as seen_alert, tested};
pub use history::{Compared, DeviceDiff, DeviceDrift};
pub(crate) use history::{DriftPage, drift_after};
pub use rollouts::{Group, NamedWindow};
pub(crate) use rollouts::{
    all_groups, all_scheduled, all_windows, cancel_scheduled, delete_group, delete_window,
    put_group, put_scheduled, put_window,
};

pub(crate) fn routes(fleet: &Arc<Fleet>) -> Router<Arc<Fleet>> {
    Router::new()
        .route("/", get(controller))
        .route("/devices", get(all_devices).post(devices::add))
        .route("/devices/{name}", get(device))
        .route("/apps", get(apps))
        .route("/apps/{name}", get(app))
        .route("/apps/{name}/restart", post(restart_app))
        .route("/apps/{name}/purge", post(purge_app))
        .route("/networks", get(networks))
        .route("/networks/{name}", get(network))
        .route("/objects", get(all_objects).post(apply))
        .route("/objects/{kind}/{name}", get(object).delete(delete))
        .route("/logs", get(log_lines))
        .route("/events", get(events))
        .merge(devices::routes())
        .merge(access::routes())
        .merge(rollouts::routes())
        .merge(history::routes())
        .merge(images::routes())
        .merge(alerts::routes())
        .fallback(|| async { failed(StatusCode::NOT_FOUND, "there is no such call") })
        .layer(middleware::from_fn_with_state(fleet.clone(), with_token))
        .merge(access::open_routes())
        .merge(openapi::routes())
}

/// Why a call failed, with the status it is answered with.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) StatusCode, pub(crate) view::Failure);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

/// An answer with what may not be meant in what was asked for: each in a header [`HINT`].
fn with_hints(hints: &[String], answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    let more = hints.len().saturating_sub(HINTS_MAX);
    let more = (more > 0).then(|| format!("… and {more} more like these"));
    for hint in hints.iter().take(HINTS_MAX).chain(&more) {
        // Headers are ASCII.
        let plain = |c: char| {
            let escaped = (!matches!(c, ' '..='~')).then(|| c.escape_default());
            escaped.map_or_else(|| c.to_string(), |e| e.to_string())
        };
        if let Ok(value) = HeaderValue::from_str(&hint.chars().map(plain).collect::<String>()) {
            response.headers_mut().append(HINT, value);
        }
    }
    response
}

fn failed(status: StatusCode, error: impl ToString) -> Failed {
    Failed(status, view::Failure { error: error.to_string(), flaws: Vec::new() })
}

impl From<DbError> for Failed {
    fn from(e: DbError) -> Failed {
        tracing::error!("operator API: {}", model::chain(&e));
        failed(StatusCode::SERVICE_UNAVAILABLE, model::chain(&e))
    }
}

impl From<store::StoreError> for Failed {
    fn from(e: store::StoreError) -> Failed {
        failed(StatusCode::SERVICE_UNAVAILABLE, model::chain(&e))
    }
}

impl From<FleetError> for Failed {
    fn from(e: FleetError) -> Failed {
        let status = match &e {
            FleetError::Read(_)
            | FleetError::Flawed(_)
            | FleetError::NoImage { .. }
            | FleetError::Whole(_)
            | FleetError::Serial(_)
            | FleetError::EdgeView(_) => StatusCode::UNPROCESSABLE_ENTITY,
            FleetError::NoObject(_) | FleetError::NotAllowed { .. } => StatusCode::NOT_FOUND,
            FleetError::OtherProject { .. } => StatusCode::FORBIDDEN,
            FleetError::Used { .. }
            | FleetError::Exists(_)
            | FleetError::CertificateTaken { .. }
            | FleetError::Overtaken { .. }
            | FleetError::NothingProven(_)
            | FleetError::Faster => StatusCode::CONFLICT,
            FleetError::Registry(_)
            | FleetError::Db(_)
            | FleetError::Sign(_)
            | FleetError::Seal(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let error = model::chain(&e);
        let flaws = match e {
            FleetError::Flawed(flaws) | FleetError::Used { by: flaws, .. } => flaws,
            _ => Vec::new(),
        };
        Failed(status, view::Failure { error, flaws })
    }
}

fn unknown(key: Key) -> Failed {
    FleetError::NoObject(key).into()
}

async fn controller(State(fleet): State<Arc<Fleet>>) -> Result<Json<view::Controller>, Failed> {
    let known = fleet.known();
    let states = reports::states(&fleet);
    Ok(Json(view::Controller {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        devices: states.values().sum(),
        online: states.get(view::DeviceState::Online.name()).copied().unwrap_or_default(),
        states,
        apps: known.of_kind(Kind::App).count(),
        serials: known.serials.clone(),
        images: fleet.registry().names()?,
    }))
}

#[derive(Debug, Deserialize)]
struct WhichDevices {
    /// A query over labels.
    #[serde(rename = "match")]
    matching: Option<String>,
    /// A name, an id or a serial number.
    named: Option<String>,
}

async fn all_devices(
    State(fleet): State<Arc<Fleet>>,
    Query(which): Query<WhichDevices>,
    caller: Caller,
) -> Result<Response, Failed> {
    let query = match &which.matching {
        Some(text) => Some(
            calendar::query(&fleet.db, text)
                .await?
                .map_err(|e| failed(StatusCode::UNPROCESSABLE_ENTITY, format!("match: {e}")))?,
        ),
        None => None,
    };
    let known = fleet.known();
    let found = match &which.named {
        Some(named) => known.devices_named(named),
        None => known.of_kind(Kind::Device).collect(),
    };
    let mut devices = Vec::new();
    for stored in found {
        let meant = query.as_ref().is_none_or(|q| q.fits(&calendar::labels(&known, stored)));
        if meant && caller.covers(stored) {
            devices.push(reports::of_device(&fleet, &known, stored).await?);
        }
    }
    let hints = query.map(|q| objects::unlabelled(&known.objects, &q, true)).unwrap_or_default();
    Ok(with_hints(&hints, Json(devices)))
}

async fn device(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<Json<view::Device>, Failed> {
    let device = reports::device(&fleet, &name).await?;
    device.map(Json).ok_or_else(|| unknown(Key::new(Kind::Device, name)))
}

async fn apps(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
) -> Result<Json<Vec<view::App>>, Failed> {
    let mut apps = reports::apps(&fleet).await?;
    let known = fleet.known();
    apps.retain(|x| caller.covers_named(&known, Kind::App, &x.name));
    Ok(Json(apps))
}

async fn app(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<Json<view::App>, Failed> {
    let app = reports::apps(&fleet).await?.into_iter().find(|a| a.name == name);
    app.map(Json).ok_or_else(|| unknown(Key::new(Kind::App, name)))
}

async fn restart_app(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Failed> {
    fleet.restart_app(&name, false, &caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn purge_app(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Failed> {
    fleet.restart_app(&name, true, &caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn networks(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
) -> Result<Json<Vec<view::Network>>, Failed> {
    let mut networks = reports::networks(&fleet).await?;
    let known = fleet.known();
    networks.retain(|x| caller.covers_named(&known, Kind::Network, &x.name));
    Ok(Json(networks))
}

async fn network(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<Json<view::Network>, Failed> {
    let network = reports::networks(&fleet).await?.into_iter().find(|n| n.name == name);
    network.map(Json).ok_or_else(|| unknown(Key::new(Kind::Network, name)))
}

async fn all_objects(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
) -> Result<Json<Vec<view::Object>>, Failed> {
    let mut objects = reports::objects(&fleet);
    objects.extend(reports::policy_objects(&fleet).await?);
    objects.retain(|o| caller.projects.contain(project_of(&o.key, &o.spec)));
    Ok(Json(objects))
}

async fn object(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Json<view::Object>, Failed> {
    let key = key(&kind, name)?;
    let all = match key.kind.is_policy() {
        true => reports::policy_objects(&fleet).await?,
        false => reports::objects(&fleet),
    };
    let object = all
        .into_iter()
        .find(|o| o.key == key && caller.projects.contain(project_of(&o.key, &o.spec)));
    object.map(Json).ok_or_else(|| unknown(key))
}

fn key(kind: &str, name: String) -> Result<Key, Failed> {
    let kind = kind.parse().map_err(|e| failed(StatusCode::NOT_FOUND, e))?;
    Ok(Key { kind, name })
}

#[derive(Debug, Deserialize)]
pub(in crate::operator) struct HowToApply {
    #[serde(default)]
    allow_missing: bool,
    #[serde(default)]
    dry_run: bool,
    /// Kinds, with `,` between.
    #[serde(default)]
    prune: String,
    /// `KIND/NAME@GENERATION`, with `,` between; generation 0: there is none.
    #[serde(default)]
    expect: String,
}

impl HowToApply {
    fn read(&self, within: Projects) -> Result<How, Failed> {
        let wrong = |text: String| failed(StatusCode::UNPROCESSABLE_ENTITY, text);
        let parts = |list: &str| -> Vec<String> {
            list.split(',').map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).collect()
        };
        let kind = |field: &str, text: &str| {
            text.parse::<Kind>().map_err(|e| wrong(format!("{field}: {e}")))
        };
        let prune =
            parts(&self.prune).iter().map(|p| kind("prune", p)).collect::<Result<_, _>>()?;
        let mut expected = Vec::new();
        for part in parts(&self.expect) {
            let no = || wrong(format!("expect: {part:?} is not KIND/NAME@GENERATION"));
            let (key, generation) = part.split_once('@').ok_or_else(no)?;
            let (of, name) = key.split_once('/').ok_or_else(no)?;
            let generation = generation.parse().map_err(|_| no())?;
            expected.push((Key::new(kind("expect", of)?, name), generation));
        }
        let (allow_missing, dry_run) = (self.allow_missing, self.dry_run);
        Ok(How { allow_missing, dry_run, prune, expected, within, again: None })
    }
}

async fn apply(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Query(how): Query<HowToApply>,
    request: Request,
) -> Result<Response, Failed> {
    let (head, body) = request.into_parts();
    let bytes = body::read(&head.headers, body, DOCUMENTS_MAX)
        .await
        .map_err(|status| failed(status, format!("more than {DOCUMENTS_MAX} of documents")))?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|e| failed(StatusCode::UNPROCESSABLE_ENTITY, format!("no UTF-8: {e}")))?;
    let how = how.read(caller.projects.clone())?;
    let applied = fleet.apply(text, &how, &caller.name).await;
    let answer = match applied {
        Ok(applied) => Json(applied).into_response(),
        Err(e) => Failed::from(e).into_response(),
    };
    Ok(DryRun::mark(answer, how.dry_run))
}

#[derive(Debug, Deserialize)]
struct HowToDelete {
    #[serde(default)]
    force: bool,
}

async fn delete(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path((kind, name)): Path<(String, String)>,
    Query(how): Query<HowToDelete>,
) -> Result<Response, Failed> {
    let key = key(&kind, name)?;
    let for_all = key.kind.is_policy() && !caller.projects.all();
    if for_all || !caller.covers_named(&fleet.known(), key.kind, &key.name) {
        return Err(unknown(key));
    }
    let waits = fleet.delete(&key, how.force, &caller.name).await?;
    let hints: Vec<String> = waits.iter().map(|waits| format!("{key}: {waits}")).collect();
    Ok(with_hints(&hints, StatusCode::NO_CONTENT))
}

#[derive(Debug, Deserialize)]
struct WhichLogs {
    device: String,
    app: Option<String>,
    #[serde(default)]
    after: u64,
    limit: Option<u32>,
}

async fn log_lines(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Query(which): Query<WhichLogs>,
) -> Result<Json<Vec<view::LogRow>>, Failed> {
    let known = fleet.known();
    let device = known
        .device_object(&which.device)
        .ok_or_else(|| unknown(Key::new(Kind::Device, &which.device)))?;
    if !caller.covers(device) {
        return Err(unknown(Key::new(Kind::Device, &which.device)));
    }
    let id = device.object.uid;
    let app = match which.app.as_deref() {
        None | Some("") => String::new(),
        Some(name) => match Uuid::parse_str(name) {
            Ok(id) => id.to_string(),
            Err(_) => {
                let told = fleet.compiled(&known, id);
                let app = told.and_then(|t| t.apps.into_values().find(|a| a.name == name));
                app.ok_or_else(|| unknown(Key::new(Kind::App, name)))?.id.to_string()
            }
        },
    };
    let limit = which.limit.unwrap_or(ROWS_DEFAULT).min(ROWS_MAX);
    let filter = LogFilter { device: id, app, after: which.after, limit };
    Ok(Json(logs::lines(fleet.registry().images(), &filter, "").await?.lines))
}

#[derive(Debug, Deserialize)]
struct WhichEvents {
    #[serde(default)]
    after: u64,
    limit: Option<u32>,
}

async fn events(
    State(fleet): State<Arc<Fleet>>,
    Query(which): Query<WhichEvents>,
) -> Result<Json<Vec<view::Event>>, Failed> {
    let limit = which.limit.unwrap_or(ROWS_DEFAULT).min(ROWS_MAX);
    Ok(Json(fleet.db.events(which.after, limit).await?))
}
