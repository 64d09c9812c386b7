//! The web pages: rendered here, kept live by one small script that asks for the changed part.
//!
//! Who may see what is in [`login`]. Pages load nothing from anywhere else. What a page can do beyond
//! showing is to restart an app or a node.

mod login;
mod page;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use http_body_util::channel::Channel;
use serde::Deserialize;
use tokio::sync::watch;

use crate::access::Caller;
use crate::db::{DbError, LogFilter};
use crate::fleet::{Fleet, FleetError};
use crate::reports;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");
/// News is told at most this often, and a sign of life at least this often.
const NEWS_PAUSE: Duration = Duration::from_millis(500);
const NEWS_EVERY: Duration = Duration::from_secs(15);
/// Lines of a log on a page.
const LINES: u32 = 300;

pub(crate) fn routes(fleet: &Arc<Fleet>, stopped: watch::Receiver<bool>) -> Router<Arc<Fleet>> {
    Router::new()
        .route("/", get(overview))
        .route("/devices/{name}", get(device))
        .route("/devices/{name}/restart", post(restart_device))
        .route("/devices/{name}/logs", get(logs))
        .route("/apps/{name}/restart", post(restart_app))
        .route("/live", get(live))
        .merge(login::routes())
        // What stands above is for who is logged in, what stands below is for everybody.
        .route_layer(middleware::from_fn_with_state(fleet.clone(), login::with_session))
        .merge(login::open_routes())
        .route("/style.css", get(|| async { file("text/css; charset=utf-8", STYLE) }))
        .route("/live.js", get(|| async { file("text/javascript; charset=utf-8", SCRIPT) }))
        .layer(Extension(Stopped(stopped)))
}

/// Says when the controller stops.
#[derive(Debug, Clone)]
struct Stopped(watch::Receiver<bool>);

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
    (headers, text).into_response()
}

/// Pages load what is ours and nothing else; nobody may frame them.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
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
    Own(String),
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        match self {
            Trouble::Login => Redirect::to("/login").into_response(),
            Trouble::Foreign => html(
                StatusCode::FORBIDDEN,
                page::message("Refused", "This form was not sent by a page of this controller."),
            ),
            Trouble::Missing => html(
                StatusCode::NOT_FOUND,
                page::message("Not found", "There is no such page, device or app."),
            ),
            Trouble::Own(why) => {
                tracing::error!("cannot make a page: {why}");
                html(StatusCode::SERVICE_UNAVAILABLE, page::message("Cannot say", &why))
            }
        }
    }
}

impl From<DbError> for Trouble {
    fn from(e: DbError) -> Trouble {
        Trouble::Own(model::chain(&e))
    }
}

impl From<FleetError> for Trouble {
    fn from(e: FleetError) -> Trouble {
        match e {
            FleetError::NoObject(_) => Trouble::Missing,
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

async fn overview(
    State(fleet): State<Arc<Fleet>>,
    Query(query): Query<Part>,
) -> Result<Response, Trouble> {
    let devices = reports::devices(&fleet).await?;
    let apps = reports::apps(&fleet).await?;
    let events = fleet.db.events(0, 12).await?;
    let part = page::overview(&devices, &apps, &events, fleet.now());
    Ok(query.answer("Fleet", "/", part))
}

async fn device(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    Query(query): Query<Part>,
) -> Result<Response, Trouble> {
    let device = reports::device(&fleet, &name).await?.ok_or(Trouble::Missing)?;
    let part = page::device(&device, fleet.now());
    Ok(query.answer(&device.name, &format!("/devices/{}", device.name), part))
}

#[derive(Debug, Deserialize)]
struct WhichLogs {
    app: Option<String>,
    #[serde(flatten)]
    part: Part,
}

async fn logs(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    Query(which): Query<WhichLogs>,
) -> Result<Response, Trouble> {
    let device = reports::device(&fleet, &name).await?.ok_or(Trouble::Missing)?;
    let app = match &which.app {
        Some(app) => Some(device.apps.iter().find(|a| a.app == *app).ok_or(Trouble::Missing)?),
        None => None,
    };
    let filter = LogFilter {
        device: device.id.raw(),
        app: app.map(|a| a.id.to_string()).unwrap_or_default(),
        after: 0,
        limit: LINES,
    };
    let lines = fleet.db.logs(&filter).await?;
    let app = app.map(|a| a.app.as_str());
    let mut path = format!("/devices/{}/logs", device.name);
    if let Some(app) = app {
        path.push_str("?app=");
        path.push_str(app);
    }
    let part = page::logs(&device, app, &lines);
    Ok(which.part.answer(&format!("Logs of {}", app.unwrap_or(&device.name)), &path, part))
}

/// The script asks for the part of a page that changes.
#[derive(Debug, Deserialize)]
struct Part {
    part: Option<String>,
}

impl Part {
    fn answer(&self, title: &str, path: &str, part: String) -> Response {
        let text = if self.part.is_some() { part } else { page::whole(title, path, &part) };
        html(StatusCode::OK, text)
    }
}

async fn restart_device(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Redirect, Trouble> {
    fleet.restart_device(&name, &caller.name).await?;
    Ok(Redirect::to(&format!("/devices/{name}")))
}

async fn restart_app(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Redirect, Trouble> {
    fleet.restart_app(&name, false, &caller.name).await?;
    Ok(Redirect::to("/"))
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
