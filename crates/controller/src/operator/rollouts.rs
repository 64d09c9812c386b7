//! Rollouts, groups, maintenance windows and scheduled changes.
//!
//! | Call | Does |
//! |---|---|
//! | GET `/rollouts`, `/rollouts/{name}` | rollouts; one with its devices |
//! | POST `/rollouts/{name}?dry_run=true` | begins one: [`Plan`] |
//! | POST `/rollouts/{name}/pause`, `resume`, `abort`, `promote?all=true`, `rollback` | says how it goes on |
//! | DELETE `/rollouts/{name}` | forgets one that is over |
//! | GET `/groups`, `/groups/{name}` | groups; one with its devices |
//! | PUT, DELETE `/groups/{name}` | `{"query": "site=berlin", "note": "…"}` |
//! | GET `/windows`; PUT, DELETE `/windows/{name}` | maintenance windows: [`WindowSpec`] |
//! | GET `/scheduled`; PUT, DELETE `/scheduled/{name}` | `{"due": …, "documents": "…"}`; cancels |

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use model::UnixMillis;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{DOCUMENTS_MAX, Failed, failed, with_hints};
use crate::access::Caller;
use crate::body;
use crate::db::{Change, Policies, Policy, ScheduledRow};
use crate::fleet::{Fleet, Known, policies};
use crate::objects::{self, GroupSpec, Key, Kind, Spec};
use crate::rollout::calendar::{self, labels};
use crate::rollout::drive::{self, RolloutError};
use crate::rollout::{Event, Plan, Rollout, Scheduled, WindowSpec};

pub(super) fn routes() -> Router<Arc<Fleet>> {
    Router::new()
        .route("/rollouts", get(rollouts))
        .route("/rollouts/{name}", get(rollout).post(begin).delete(forget))
        .route("/rollouts/{name}/{action}", post(tell))
        .route("/groups", get(groups))
        .route("/groups/{name}", get(group).put(set_group).delete(remove_group))
        .route("/windows", get(windows))
        .route("/windows/{name}", put(set_window).delete(remove_window))
        .route("/scheduled", get(scheduled))
        .route("/scheduled/{name}", put(schedule).delete(cancel))
}

/// Who calls, by name.
pub(super) struct By(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<By, StatusCode> {
        Ok(By(Caller::from_request_parts(parts, state).await?.name))
    }
}

/// The body of a call, as JSON; an error names the field.
pub(super) async fn json<T: DeserializeOwned>(request: Request) -> Result<T, Failed> {
    let text = text(request).await?;
    let mut reader = serde_json::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(&mut reader).map_err(|e| {
        let path = e.path().to_string();
        let text =
            if path == "." { e.inner().to_string() } else { format!("{path}: {}", e.inner()) };
        failed(StatusCode::UNPROCESSABLE_ENTITY, text)
    })
}

/// The body of a call.
pub(super) async fn text(request: Request) -> Result<String, Failed> {
    let (head, body) = request.into_parts();
    let bytes = body::read(&head.headers, body, DOCUMENTS_MAX)
        .await
        .map_err(|status| failed(status, format!("more than {DOCUMENTS_MAX}")))?;
    String::from_utf8(bytes.to_vec())
        .map_err(|e| failed(StatusCode::UNPROCESSABLE_ENTITY, format!("no UTF-8: {e}")))
}

impl From<RolloutError> for Failed {
    fn from(e: RolloutError) -> Failed {
        let status = match e {
            RolloutError::Fleet(e) => return e.into(),
            RolloutError::Unknown(_) => StatusCode::NOT_FOUND,
            RolloutError::Refused(_) | RolloutError::Exists(_) | RolloutError::Held { .. } => {
                StatusCode::CONFLICT
            }
            RolloutError::Query { .. }
            | RolloutError::Name(_)
            | RolloutError::Nothing
            | RolloutError::Policy(_)
            | RolloutError::Outside(_)
            | RolloutError::Unmatched(_)
            | RolloutError::Empty(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        failed(status, e)
    }
}

async fn rollouts(State(fleet): State<Arc<Fleet>>) -> Result<Json<Vec<Rollout>>, Failed> {
    let mut all = Vec::new();
    for row in fleet.db.rollouts(false).await? {
        all.push(drive::record(&fleet, &row.name).await?.shown(false));
    }
    Ok(Json(all))
}

async fn rollout(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<Json<Rollout>, Failed> {
    Ok(Json(drive::record(&fleet, &name).await?.shown(true)))
}

#[derive(Debug, Deserialize)]
struct HowToBegin {
    #[serde(default)]
    dry_run: bool,
}

async fn begin(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    Query(how): Query<HowToBegin>,
    By(by): By,
    request: Request,
) -> Result<Json<Rollout>, Failed> {
    let plan: Plan = json(request).await?;
    Ok(Json(drive::begin(&fleet, &name, &plan, &by, how.dry_run).await?))
}

#[derive(Debug, Deserialize)]
struct HowToTell {
    #[serde(default)]
    all: bool,
}

async fn tell(
    State(fleet): State<Arc<Fleet>>,
    Path((name, action)): Path<(String, String)>,
    Query(how): Query<HowToTell>,
    By(by): By,
) -> Result<Json<Rollout>, Failed> {
    let event = match action.as_str() {
        "pause" => Event::Pause { by },
        "resume" => Event::Resume { by },
        "abort" => Event::Abort { by },
        "promote" => Event::Promote { by, all: how.all },
        "rollback" => Event::RollBack { by },
        _ => return Err(failed(StatusCode::NOT_FOUND, "there is no such call")),
    };
    Ok(Json(drive::tell(&fleet, &name, event).await?))
}

async fn forget(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Failed> {
    let record = drive::record(&fleet, &name).await?;
    if !fleet.db.forget_rollout(&record.row.name).await? {
        let text = format!("the rollout {name} is not over; roll it back or promote it first");
        return Err(failed(StatusCode::CONFLICT, text));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A group of devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Which devices, as a query over labels.
    pub query: String,
    /// What it is for.
    pub note: String,
    /// Its devices now, by name.
    pub devices: Vec<String>,
}

/// All groups with their devices, by name.
pub(crate) async fn all_groups(fleet: &Fleet) -> Result<Vec<Group>, Failed> {
    let known = fleet.known();
    let mut all = Vec::new();
    for (name, (query, note)) in fleet.db.groups().await? {
        let matcher = calendar::query(&fleet.db, &query).await?.ok();
        let meant = |s: &&crate::db::StoredObject| {
            matcher.as_ref().is_some_and(|m| m.fits(&labels(&known, s)))
        };
        let devices = known.of_kind(Kind::Device).filter(meant);
        let devices = devices.map(|s| s.object.key.name.clone()).collect();
        all.push(Group { name, query, note, devices });
    }
    Ok(all)
}

async fn groups(State(fleet): State<Arc<Fleet>>) -> Result<Json<Vec<Group>>, Failed> {
    all_groups(&fleet).await.map(Json)
}

async fn group(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<Json<Group>, Failed> {
    let found = all_groups(&fleet).await?.into_iter().find(|g| g.name == name);
    let none = || failed(StatusCode::NOT_FOUND, format!("there is no group {name}"));
    found.map(Json).ok_or_else(none)
}

pub(super) fn named(name: &str) -> Result<(), Failed> {
    if objects::is_name(name) {
        return Ok(());
    }
    let text = format!("{name:?} is no name; use 1 to 63 small letters, digits and `-`");
    Err(failed(StatusCode::UNPROCESSABLE_ENTITY, text))
}

pub(super) fn said(fleet: &Fleet, by: &str, object: &str, action: &str) -> Change {
    let mut said = Change::by(by, fleet.now());
    said.log(None, object, action);
    said
}

/// Makes, changes or removes a group, a window or an alert rule.
pub(super) async fn set(
    fleet: &Fleet,
    key: &Key,
    by: &str,
    decide: impl Fn(&Known, &Policies) -> Result<Option<Policy>, Failed>,
) -> Result<StatusCode, Failed> {
    fleet.set_policy(key, by, decide).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// What may not be meant in a group, a window or a rule that was just set.
pub(super) async fn hints(
    fleet: &Fleet,
    key: &Key,
    policy: &Policy,
) -> Result<Vec<String>, Failed> {
    let groups = calendar::queries(&fleet.db).await?;
    let read = |text: &str| objects::Query::parse(text, &groups).ok();
    let found = objects::hints(&fleet.known().objects, (key, &policy.spec), read);
    Ok(found.iter().map(ToString::to_string).collect())
}

/// The answer that something was set, with hints.
pub(super) fn hinted(hints: Vec<String>) -> Response {
    with_hints(&hints, StatusCode::NO_CONTENT)
}

async fn set_group(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    By(by): By,
    request: Request,
) -> Result<Response, Failed> {
    put_group(&fleet, &name, &json(request).await?, &by).await.map(hinted)
}

/// Makes or changes a group; tells what may not be meant in it.
pub(crate) async fn put_group(
    fleet: &Fleet,
    name: &str,
    spec: &GroupSpec,
    by: &str,
) -> Result<Vec<String>, Failed> {
    named(name)?;
    // A group cannot name another one: whoever reads it need not look for a ring.
    objects::Query::of_group(&spec.query)
        .map_err(|e| failed(StatusCode::UNPROCESSABLE_ENTITY, format!("query: {e}")))?;
    let policy = Policy { spec: Spec::Group(spec.clone()), secret: None };
    let key = Key::new(Kind::Group, name);
    set(fleet, &key, by, |_, _| Ok(Some(policy.clone()))).await?;
    hints(fleet, &key, &policy).await
}

async fn remove_group(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    By(by): By,
) -> Result<StatusCode, Failed> {
    delete_group(&fleet, &name, &by).await
}

/// Nothing of this kind and name is there.
pub(super) fn absent(kind: &str, name: &str) -> Failed {
    failed(StatusCode::NOT_FOUND, format!("there is no {kind} {name}"))
}

/// Removes a group that no window and no rule names.
pub(crate) async fn delete_group(
    fleet: &Fleet,
    name: &str,
    by: &str,
) -> Result<StatusCode, Failed> {
    set(fleet, &Key::new(Kind::Group, name), by, |_, policies| {
        let groups = policies::groups(policies);
        if !groups.contains_key(name) {
            return Err(absent("group", name));
        }
        let names = |q: &str| objects::Query::parse(q, &groups).is_ok_and(|q| q.names_group(name));
        let user = policies.iter().find_map(|(key, policy)| match &policy.spec {
            Spec::Window(window) => names(&window.devices).then(|| format!("window {}", key.name)),
            Spec::AlertRule(rule) => {
                names(&rule.devices).then(|| format!("alert rule {}", key.name))
            }
            _ => None,
        });
        match user {
            Some(user) => {
                let text = format!("the group {name} is still used by the {user}");
                Err(failed(StatusCode::CONFLICT, text))
            }
            None => Ok(None),
        }
    })
    .await
}

/// A maintenance window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedWindow {
    /// Its name.
    pub name: String,
    /// When it opens, and for whom.
    #[serde(flatten)]
    pub spec: WindowSpec,
    /// When it closes, if it is open.
    pub open_until: Option<UnixMillis>,
    /// When it opens next.
    pub opens_at: Option<UnixMillis>,
}

async fn windows(State(fleet): State<Arc<Fleet>>) -> Result<Json<Vec<NamedWindow>>, Failed> {
    all_windows(&fleet).await.map(Json)
}

/// All windows, by name; one that cannot be read is left out.
pub(crate) async fn all_windows(fleet: &Fleet) -> Result<Vec<NamedWindow>, Failed> {
    let groups = calendar::queries(&fleet.db).await?;
    let now = fleet.now();
    let mut all = Vec::new();
    for (name, text) in fleet.db.windows().await? {
        let Ok(spec) = serde_json::from_str::<WindowSpec>(&text) else { continue };
        let window = calendar::understood(&spec, &groups).ok().map(|(_, window)| window);
        let open_until = window.as_ref().and_then(|w| w.open_until(now));
        let opens_at = window.as_ref().and_then(|w| w.opens_at(now));
        all.push(NamedWindow { name, spec, open_until, opens_at });
    }
    Ok(all)
}

async fn set_window(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    By(by): By,
    request: Request,
) -> Result<Response, Failed> {
    put_window(&fleet, &name, &json(request).await?, &by).await.map(hinted)
}

/// Makes or changes a window; tells what may not be meant in it.
pub(crate) async fn put_window(
    fleet: &Fleet,
    name: &str,
    spec: &WindowSpec,
    by: &str,
) -> Result<Vec<String>, Failed> {
    named(name)?;
    let policy = Policy { spec: Spec::Window(spec.clone()), secret: None };
    let key = Key::new(Kind::Window, name);
    set(fleet, &key, by, |_, policies| {
        calendar::understood(spec, &policies::groups(policies))
            .map_err(|e| failed(StatusCode::UNPROCESSABLE_ENTITY, e))?;
        Ok(Some(policy.clone()))
    })
    .await?;
    hints(fleet, &key, &policy).await
}

async fn remove_window(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    By(by): By,
) -> Result<StatusCode, Failed> {
    delete_window(&fleet, &name, &by).await
}

/// Removes a window.
pub(crate) async fn delete_window(
    fleet: &Fleet,
    name: &str,
    by: &str,
) -> Result<StatusCode, Failed> {
    if !fleet.db.windows().await?.iter().any(|(window, _)| window == name) {
        return Err(absent("window", name));
    }
    set(fleet, &Key::new(Kind::Window, name), by, |_, _| Ok(None)).await
}

async fn scheduled(State(fleet): State<Arc<Fleet>>) -> Result<Json<Vec<Scheduled>>, Failed> {
    all_scheduled(&fleet).await.map(Json)
}

/// All scheduled changes, also those that were made or cancelled.
pub(crate) async fn all_scheduled(fleet: &Fleet) -> Result<Vec<Scheduled>, Failed> {
    let rows = fleet.db.scheduled(None).await?;
    Ok(rows.into_iter().map(Scheduled::from).collect())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToSchedule {
    due: UnixMillis,
    documents: String,
}

async fn schedule(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    By(by): By,
    request: Request,
) -> Result<StatusCode, Failed> {
    let ToSchedule { due, documents } = json(request).await?;
    put_scheduled(&fleet, &name, due, documents, &by).await
}

/// Makes a change at its time.
pub(crate) async fn put_scheduled(
    fleet: &Fleet,
    name: &str,
    due: UnixMillis,
    documents: String,
    by: &str,
) -> Result<StatusCode, Failed> {
    named(name)?;
    let how = crate::fleet::How { dry_run: true, ..Default::default() };
    // What is wrong today is told today, not at night.
    fleet.apply(&documents, &how, by).await?;
    let said = said(fleet, by, &format!("Schedule {name}"), "set");
    let row = ScheduledRow {
        name: name.to_owned(),
        due,
        author: by.to_owned(),
        documents,
        state: String::new(),
        outcome: String::new(),
        done: None,
    };
    if !fleet.db.schedule(&row, &said).await? {
        let text = format!("there is a scheduled change {name} already");
        return Err(failed(StatusCode::CONFLICT, text));
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn cancel(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    By(by): By,
) -> Result<StatusCode, Failed> {
    cancel_scheduled(&fleet, &name, &by).await
}

/// Cancels a change that waits for its time.
pub(crate) async fn cancel_scheduled(
    fleet: &Fleet,
    name: &str,
    by: &str,
) -> Result<StatusCode, Failed> {
    let said = said(fleet, by, &format!("Schedule {name}"), "cancelled");
    if !fleet.db.end_scheduled(name, "cancelled", "", &said).await? {
        let text = format!("there is no scheduled change {name} that waits");
        return Err(failed(StatusCode::CONFLICT, text));
    }
    Ok(StatusCode::NO_CONTENT)
}
