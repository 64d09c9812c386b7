//! The web pages: rendered here, kept live by one small script that asks for the changed part.
//!
//! Who may see what is in [`login`]. Pages load nothing from anywhere else, and work without scripts.
//!
//! | Page | In |
//! |---|---|
//! | fleet as list and map | [`fleet`], of what [`summary`] keeps |
//! | a node | [`device`], with [`charts`] and a network [`picture`] |
//! | apps; the catalogue | [`apps`], [`catalogue`] |
//! | objects: editor, history | [`objects`], [`diff`] |
//! | rollouts; changes at their time | [`rollouts`], [`schedules`] |
//! | what differs; alerts and their rules | [`drift`], [`alerts`], [`rules`] |
//! | groups and windows; users; one's own account | [`groups`], [`users`], [`account`] |
//! | a new node | [`onboard`] |
//! | events, audit, settings | [`log`] |

mod account;
mod alerts;
mod apps;
mod catalogue;
mod charts;
mod device;
mod device_parts;
mod diff;
mod drift;
mod fleet;
mod frame;
mod groups;
mod log;
mod login;
mod objects;
mod onboard;
mod picture;
mod rollouts;
mod rules;
mod schedules;
mod summary;
mod users;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use http_body_util::channel::Channel;
use serde::Deserialize;
use tokio::sync::watch;

use crate::access::{Caller, NoRandomness};
use crate::db::DbError;
use crate::fleet::{Fleet, FleetError};
use crate::operator::Failed;
use frame::Page;
use summary::Summaries;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");
/// News is told at most this often, and a sign of life at least this often.
const NEWS_PAUSE: Duration = Duration::from_millis(500);
const NEWS_EVERY: Duration = Duration::from_secs(15);

pub(crate) fn routes(fleet: &Arc<Fleet>, stopped: watch::Receiver<bool>) -> Router<Arc<Fleet>> {
    Router::new()
        .route("/", get(fleet::list))
        .route("/map", get(fleet::map))
        .route("/devices/{name}", get(device::overview))
        .route("/devices/{name}/network", get(device::network))
        .route("/devices/{name}/logs", get(device::logs))
        .route("/devices/{name}/events", get(device::events))
        .route("/devices/{name}/trust", get(device::trust))
        .route("/devices/{name}/config", get(device::config))
        .route("/devices/{name}/restart", post(device::restart))
        .route("/devices/{name}/shutdown", post(device::power_off))
        .route("/devices/{name}/quarantine", post(device::quarantine))
        .route("/devices/{name}/delete", post(device::delete))
        .route("/apps", get(apps::list))
        .route("/apps/{name}", get(apps::one))
        .route("/apps/{name}/restart", post(apps::restart))
        .route("/apps/{name}/purge", post(apps::purge))
        .route("/catalogue", get(catalogue::list))
        .route("/catalogue/{id}", get(catalogue::form).post(catalogue::deploy))
        .route("/objects", get(objects::list))
        .route("/objects/new", get(objects::new))
        .route("/objects/save", post(objects::save))
        .route("/objects/{kind}/{name}", get(objects::edit))
        .route("/objects/{kind}/{name}/history", get(objects::history))
        .route("/objects/{kind}/{name}/delete", post(objects::delete))
        .route("/rollouts", get(rollouts::list))
        .route("/rollouts/{name}", get(rollouts::one).post(rollouts::tell))
        .route("/schedules", get(schedules::page).post(schedules::set))
        .route("/schedules/{name}/cancel", post(schedules::cancel))
        .route("/drift", get(drift::page))
        .route("/alerts", get(alerts::page))
        .route("/alerts/{id}/ack", post(alerts::ack))
        .route("/alerts/rules", get(rules::page).post(rules::set))
        .route("/alerts/rules/{name}/test", post(rules::test))
        .route("/alerts/rules/{name}/delete", post(rules::delete))
        .route("/account", get(account::page))
        .route("/account/password", post(account::change_password))
        .route("/account/tokens/end", post(account::end_token))
        .route("/groups", get(groups::page).post(groups::set_group))
        .route("/groups/{name}/delete", post(groups::remove_group))
        .route("/windows", post(groups::set_window))
        .route("/windows/{name}/delete", post(groups::remove_window))
        .route("/users", get(users::list).post(users::put))
        .route("/users/{name}/link", post(users::link))
        .route("/users/{name}/delete", post(users::delete))
        .route("/devices/{name}/accept", post(device::accept))
        .route("/onboard", get(onboard::page).post(onboard::add))
        .route("/onboard/{name}", get(onboard::added))
        .route("/onboard/{name}/config.tar", post(onboard::tar))
        .route("/events", get(log::events))
        .route("/audit", get(log::audit))
        .route("/settings", get(log::settings))
        .route("/settings/serials", post(log::serials))
        .route("/live", get(live))
        // What stands above is for who is logged in, what stands below is for everybody.
        .route_layer(middleware::from_fn_with_state(fleet.clone(), login::with_session))
        .merge(login::open_routes())
        .route("/style.css", get(|| async { file("text/css; charset=utf-8", STYLE) }))
        .route("/live.js", get(|| async { file("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/icon.svg", get(icon))
        .layer(Extension(Stopped(stopped)))
        .layer(Extension(Arc::new(Summaries::default())))
}

/// Says when the controller stops.
#[derive(Debug, Clone)]
struct Stopped(watch::Receiver<bool>);

async fn icon() -> Response {
    ([(header::CONTENT_TYPE, "image/svg+xml")], frame::icon()).into_response()
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
    (headers, text).into_response()
}

/// Pages load what is ours and nothing else; nobody may frame them.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; frame-ancestors 'none'; \
                      base-uri 'none'";

fn html(status: StatusCode, text: String) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        // With `no-referrer` browsers would not say which site a form is of.
        (header::REFERRER_POLICY, "same-origin"),
    ];
    (status, headers, Html(text)).into_response()
}

/// Why there is no page.
#[derive(Debug)]
enum Trouble {
    /// Log in first.
    Login,
    /// The form came from another site.
    Foreign,
    Missing,
    /// What was sent cannot be done, for this reason.
    Refused(String),
    Own(String),
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        match self {
            Trouble::Login => Redirect::to("/login").into_response(),
            Trouble::Foreign => html(
                StatusCode::FORBIDDEN,
                frame::message("Refused", "This form was not sent by a page of this controller."),
            ),
            Trouble::Missing => html(
                StatusCode::NOT_FOUND,
                frame::message("Not found", "There is no such page, device or app."),
            ),
            Trouble::Refused(why) => {
                html(StatusCode::UNPROCESSABLE_ENTITY, frame::message("Not done", &why))
            }
            Trouble::Own(why) => {
                tracing::error!("cannot make a page: {why}");
                html(StatusCode::SERVICE_UNAVAILABLE, frame::message("Cannot say", &why))
            }
        }
    }
}

impl From<DbError> for Trouble {
    fn from(e: DbError) -> Trouble {
        Trouble::Own(model::chain(&e))
    }
}

impl From<Failed> for Trouble {
    fn from(Failed(status, failure): Failed) -> Trouble {
        match status {
            StatusCode::NOT_FOUND => Trouble::Missing,
            status if status.is_server_error() => Trouble::Own(failure.error),
            _ => Trouble::Refused(failure.error),
        }
    }
}

impl From<NoRandomness> for Trouble {
    fn from(e: NoRandomness) -> Trouble {
        Trouble::Own(model::chain(&e))
    }
}

impl From<FleetError> for Trouble {
    fn from(e: FleetError) -> Trouble {
        match e {
            FleetError::NoObject(_) => Trouble::Missing,
            FleetError::Read(_)
            | FleetError::Flawed(_)
            | FleetError::Used { .. }
            | FleetError::Exists(_)
            | FleetError::CertificateTaken { .. }
            | FleetError::Serial(_)
            | FleetError::NotAllowed { .. }
            | FleetError::Overtaken { .. }
            | FleetError::NothingProven(_)
            | FleetError::OtherProject { .. }
            | FleetError::NoImage { .. } => Trouble::Refused(model::chain(&e)),
            e => Trouble::Own(model::chain(&e)),
        }
    }
}

/// For forms that change something: browsers say which site a form is of.
fn of_ours(headers: &HeaderMap) -> Result<(), Trouble> {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let (Some(host), Some(origin)) = (text(header::HOST), text(header::ORIGIN)) else {
        return Err(Trouble::Foreign);
    };
    if origin.strip_prefix("https://") == Some(host) { Ok(()) } else { Err(Trouble::Foreign) }
}

/// The script asks for the part of a page that changes.
#[derive(Debug, Deserialize)]
struct Part {
    part: Option<String>,
}

impl Part {
    fn wanted(&self) -> bool {
        self.part.is_some()
    }
}

fn answer(part: &Part, page: &Page<'_>) -> Response {
    let text = if part.wanted() { page.part.0.clone() } else { page.whole() };
    html(StatusCode::OK, text)
}

/// After a form was done.
fn to(path: &str) -> Response {
    Redirect::to(path).into_response()
}

/// Server-sent events: one word for each change, so that the page asks for its part again.
async fn live(
    State(fleet): State<Arc<Fleet>>,
    Extension(Stopped(mut stopped)): Extension<Stopped>,
    headers: HeaderMap,
) -> Result<Response, Trouble> {
    let session = login::session(&headers).unwrap_or_default().to_owned();
    let mut changes = fleet.changes();
    let (mut sender, channel) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(async move {
        // Until the reader goes, the session ends or the controller stops.
        while fleet.access.holds(&session, fleet.now()).await.unwrap_or(false) {
            let news = tokio::select! {
                changed = changes.changed() => match changed {
                    Ok(()) => "data: changed\n\n",
                    Err(_) => return,
                },
                () = tokio::time::sleep(NEWS_EVERY) => "data: time\n\n",
                _ = stopped.wait_for(|stop| *stop) => return,
            };
            if sender.send_data(Bytes::from_static(news.as_bytes())).await.is_err() {
                return;
            }
            tokio::time::sleep(NEWS_PAUSE).await;
        }
    });
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(channel)).into_response())
}
