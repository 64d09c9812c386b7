//! The web pages: rendered here, kept live by one small script that asks for the changed part.
//!
//! People log in with the administrator's token and get a session in a cookie that scripts cannot
//! read and other sites cannot use. Pages load nothing from anywhere else. What a page can do beyond
//! showing is to restart an app or a node.

mod page;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use http_body_util::channel::Channel;
use serde::Deserialize;
use tokio::sync::watch;

use crate::access::NoRandomness;
use crate::db::{DbError, LogFilter};
use crate::fleet::{Fleet, FleetError};
use crate::{access, body, reports};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");
const COOKIE: &str = "eve_session";
/// A login form holds one token.
const FORM_MAX: model::Bytes = model::Bytes::kib(4);
/// News is told at most this often, and a sign of life at least this often.
const NEWS_PAUSE: Duration = Duration::from_millis(500);
const NEWS_EVERY: Duration = Duration::from_secs(15);
/// Lines of a log on a page.
const LINES: u32 = 300;

pub(crate) fn routes(stopped: watch::Receiver<bool>) -> Router<Arc<Fleet>> {
    Router::new()
        .route("/", get(overview))
        .route("/devices/{name}", get(device))
        .route("/devices/{name}/restart", post(restart_device))
        .route("/devices/{name}/logs", get(logs))
        .route("/apps/{name}/restart", post(restart_app))
        .route("/login", get(login_page).post(login))
        .route("/logout", post(logout))
        .route("/live", get(live))
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

impl From<NoRandomness> for Trouble {
    fn from(e: NoRandomness) -> Trouble {
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

fn session(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(';'))
        .filter_map(|c| c.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

fn admitted(fleet: &Fleet, headers: &HeaderMap) -> Result<(), Trouble> {
    match session(headers) {
        Some(session) if fleet.sessions.holds(session, fleet.now()) => Ok(()),
        _ => Err(Trouble::Login),
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
    headers: HeaderMap,
) -> Result<Response, Trouble> {
    admitted(&fleet, &headers)?;
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
    headers: HeaderMap,
) -> Result<Response, Trouble> {
    admitted(&fleet, &headers)?;
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
    headers: HeaderMap,
) -> Result<Response, Trouble> {
    admitted(&fleet, &headers)?;
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
    headers: HeaderMap,
) -> Result<Redirect, Trouble> {
    admitted(&fleet, &headers)?;
    of_ours(&headers)?;
    fleet.restart_device(&name, "admin").await?;
    Ok(Redirect::to(&format!("/devices/{name}")))
}

async fn restart_app(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Redirect, Trouble> {
    admitted(&fleet, &headers)?;
    of_ours(&headers)?;
    fleet.restart_app(&name, false, "admin").await?;
    Ok(Redirect::to("/"))
}

async fn login_page() -> Response {
    html(StatusCode::OK, page::login(None))
}

async fn login(State(fleet): State<Arc<Fleet>>, request: Request) -> Result<Response, Trouble> {
    let (head, body) = request.into_parts();
    of_ours(&head.headers)?;
    let form = body::read(&head.headers, body, FORM_MAX).await.unwrap_or_default();
    let form = std::str::from_utf8(&form).unwrap_or_default();
    let token = form.split('&').find_map(|f| f.strip_prefix("token=")).unwrap_or_default();
    // A pasted token may bring spaces along; its own letters need no unescaping.
    let token = token.replace(['+', ' '], "").replace("%0D", "").replace("%0A", "");
    if access::owner(&fleet.db, &token).await?.is_none() {
        tracing::warn!("somebody tried to log in with a wrong token");
        let text = page::login(Some("This is not the administrator's token."));
        return Ok(html(StatusCode::UNAUTHORIZED, text));
    }
    let session = fleet.sessions.begin(fleet.now())?;
    let cookie = format!("{COOKIE}={session}; Path=/; HttpOnly; Secure; SameSite=Strict");
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response())
}

async fn logout(State(fleet): State<Arc<Fleet>>, headers: HeaderMap) -> Result<Response, Trouble> {
    of_ours(&headers)?;
    if let Some(session) = session(&headers) {
        fleet.sessions.end(session);
    }
    let cookie = format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Strict");
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}

/// Server-sent events: one word for each change, so that the page asks for its part again.
async fn live(
    State(fleet): State<Arc<Fleet>>,
    Extension(Stopped(mut stopped)): Extension<Stopped>,
    headers: HeaderMap,
) -> Result<Response, Trouble> {
    admitted(&fleet, &headers)?;
    let session = session(&headers).unwrap_or_default().to_owned();
    let mut changes = fleet.changes();
    let (mut sender, channel) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(async move {
        // Until the reader goes, the session ends or the controller stops.
        while fleet.sessions.holds(&session, fleet.now()) {
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
