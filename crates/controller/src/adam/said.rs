//! What nodes said: all that is kept, one JSON document a line; with `X-Stream: true` what comes from
//! now on, until the reader goes.
//!
//! Info, logs and flows are read from the database and the object store in the order in which they
//! came, by whichever process. Of metrics only the newest is kept. Requests are kept in memory, the last ones of each
//! node, and only while this is switched on.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::limits;
use api::pb::flowlog::FlowMessage;
use api::pb::info::ZInfoMsg;
use api::pb::metrics::ZMetricMsg;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::stream;
use model::UnixMillis;
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

use super::{Failed, device, failed};
use crate::access::guard::address;
use crate::db::{DbError, NewLog, Series};
use crate::fleet::Fleet;
use crate::images::ImageError;
use crate::logs;

/// Messages are read so many at once.
const PIECE: u32 = 200;
/// What wakes nobody up is looked for so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Requests that are remembered of a node, and of how many nodes.
const REQUESTS: usize = 200;
const NODES: usize = 2_000;

/// Says when the controller stops.
#[derive(Debug, Clone)]
struct Stopped(watch::Receiver<bool>);

pub(super) fn routes(requests: Requests, stopped: watch::Receiver<bool>) -> Router<Arc<Fleet>> {
    Router::new()
        .route("/device/{id}/{what}", get(said))
        .route("/device/{id}/app/{app}/logs", get(app_logs))
        .layer(Extension(Stopped(stopped)))
        .layer(Extension(requests))
}

/// What is asked for.
#[derive(Debug, Clone)]
enum What {
    Info,
    Metrics,
    /// Empty: of the node itself.
    Logs(String),
    Flows,
    Requests(Requests),
}

async fn said(
    State(fleet): State<Arc<Fleet>>,
    Path((id, what)): Path<(String, String)>,
    Extension(requests): Extension<Requests>,
    Extension(Stopped(stopped)): Extension<Stopped>,
    headers: HeaderMap,
) -> Result<Response, Failed> {
    let what = match what.as_str() {
        "info" => What::Info,
        "metrics" => What::Metrics,
        "logs" => What::Logs(String::new()),
        // Adam's path has an s, its documentation has not.
        "flowlogs" | "flowlog" => What::Flows,
        "requests" => What::Requests(requests),
        _ => return Err(failed(StatusCode::NOT_FOUND, "there is no such call")),
    };
    let id = device(&fleet, &id)?;
    answer(fleet, id, what, &headers, stopped).await
}

async fn app_logs(
    State(fleet): State<Arc<Fleet>>,
    Path((id, app)): Path<(String, String)>,
    Extension(Stopped(stopped)): Extension<Stopped>,
    headers: HeaderMap,
) -> Result<Response, Failed> {
    let id = device(&fleet, &id)?;
    let app = Uuid::parse_str(&app)
        .map_err(|e| failed(StatusCode::BAD_REQUEST, format!("{app:?} is no UUID: {e}")))?;
    answer(fleet, id, What::Logs(app.to_string()), &headers, stopped).await
}

async fn answer(
    fleet: Arc<Fleet>,
    id: Uuid,
    what: What,
    headers: &HeaderMap,
    stopped: watch::Receiver<bool>,
) -> Result<Response, Failed> {
    let follow = headers.get("x-stream").is_some_and(|v| v == "true");
    // Before the first look, so that what comes in between is not missed.
    let changes = fleet.changes();
    let from = if follow { what.newest(&fleet, id).await? } else { Mark::default() };
    let reader = Reader { fleet, id, what, from, follow, changes, stopped };
    // Dropped when the reader goes, wherever it waits.
    let lines = stream::try_unfold(reader, |mut reader| async {
        let piece = reader.next().await.inspect_err(|e| {
            tracing::error!(device = %reader.id, "admin REST: {}", model::chain(e));
        })?;
        Ok::<_, ImageError>(piece.map(|piece| (piece, reader)))
    });
    let head = [(header::CONTENT_TYPE, "application/json")];
    Ok((head, Body::from_stream(lines)).into_response())
}

/// How far a reader is.
#[derive(Debug, Default)]
struct Mark {
    id: u64,
    /// When the metrics came that were shown last.
    at: UnixMillis,
}

/// Somebody who reads what a node says.
struct Reader {
    fleet: Arc<Fleet>,
    id: Uuid,
    what: What,
    from: Mark,
    /// Whether to wait for more.
    follow: bool,
    changes: watch::Receiver<u64>,
    stopped: watch::Receiver<bool>,
}

impl Reader {
    /// The next lines, each with its end; waits for them if asked to. `None`: that was all.
    async fn next(&mut self) -> Result<Option<Bytes>, ImageError> {
        loop {
            let lines = self.what.after(&self.fleet, self.id, &mut self.from).await?;
            if !lines.is_empty() {
                let ended = lines.into_iter().map(|line| line + "\n");
                return Ok(Some(Bytes::from(ended.collect::<String>())));
            }
            if !self.follow {
                return Ok(None);
            }
            tokio::select! {
                _ = self.stopped.wait_for(|stop| *stop) => return Ok(None),
                _ = self.changes.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

impl What {
    /// What the database keeps one after the other; of the rest it keeps nothing, or the newest.
    fn series(&self) -> Option<Series<'_>> {
        match self {
            What::Info => Some(Series::Info),
            What::Logs(app) => Some(Series::Logs(app)),
            What::Flows => Some(Series::Messages("flowlog")),
            What::Metrics | What::Requests(_) => None,
        }
    }

    /// The mark behind everything that is there.
    async fn newest(&self, fleet: &Fleet, id: Uuid) -> Result<Mark, DbError> {
        let mut mark = Mark::default();
        match (self, self.series()) {
            (_, Some(series)) => mark.id = fleet.db.said_last(id, series).await?,
            (What::Requests(requests), None) => {
                mark.id = requests.after(id, 0).last().map_or(0, |(n, _)| *n);
            }
            (_, None) => mark.at = fleet.db.metrics(id).await?.map_or(mark.at, |m| m.received),
        }
        Ok(mark)
    }

    /// The next lines; the mark moves behind them. None: there are none. A message that cannot be
    /// shown is passed over, and the log says so.
    async fn after(
        &self,
        fleet: &Fleet,
        id: Uuid,
        mark: &mut Mark,
    ) -> Result<Vec<String>, ImageError> {
        let images = fleet.registry().images();
        loop {
            let lines: Vec<String> = match self {
                What::Metrics => {
                    let found = fleet.db.metrics(id).await?.filter(|m| m.received > mark.at);
                    let Some(found) = found else { return Ok(Vec::new()) };
                    mark.at = found.received;
                    let line = shown(id, api::json::write::<ZMetricMsg>(&found.payload));
                    return Ok(line.into_iter().collect());
                }
                What::Requests(requests) => {
                    let found = requests.after(id, mark.id);
                    mark.id = found.last().map_or(mark.id, |(n, _)| *n);
                    return Ok(found.iter().map(|(_, line)| line.to_string()).collect());
                }
                What::Logs(app) => {
                    let found = logs::after(images, id, app, mark.id).await?;
                    let Some((file, lines)) = found else { return Ok(Vec::new()) };
                    mark.id = file;
                    lines.iter().map(log_line).collect()
                }
                What::Info | What::Flows => {
                    let (series, limit) = match self {
                        What::Info => (Series::Info, limits::INFO),
                        _ => (Series::Messages("flowlog"), limits::METRICS),
                    };
                    let found = fleet.db.said_after(id, series, mark.id, PIECE).await?;
                    if found.is_empty() {
                        return Ok(Vec::new());
                    }
                    let mut lines = Vec::new();
                    for kept in found {
                        mark.id = kept.id;
                        let Some(bytes) = images.laid(kept, limit.0).await? else { continue };
                        let written = match self {
                            What::Info => api::json::write::<ZInfoMsg>(&bytes),
                            _ => api::json::write::<FlowMessage>(&bytes),
                        };
                        lines.extend(shown(id, written));
                    }
                    lines
                }
            };
            if !lines.is_empty() {
                return Ok(lines);
            }
        }
    }
}

fn log_line(line: &NewLog) -> String {
    let NewLog { at, severity, source, content } = line;
    json!({ "severity": severity, "source": source, "content": content, "timestamp": rfc3339(*at) })
        .to_string()
}

fn shown(id: Uuid, written: Result<String, api::json::JsonError>) -> Option<String> {
    written.inspect_err(|e| tracing::warn!(device = %id, "admin REST: {}", model::chain(e))).ok()
}

/// A moment as protobuf writes timestamps in JSON: `2026-01-02T03:04:05.678Z`.
fn rfc3339(at: UnixMillis) -> String {
    let seconds = crate::words::time(at);
    match at.0 % 1000 {
        0 => seconds,
        ms => format!("{}.{ms:03}Z", seconds.trim_end_matches('Z')),
    }
}

/// What nodes asked for, in this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    count: u64,
    of: HashMap<Uuid, VecDeque<(u64, Arc<str>)>>,
}

impl Requests {
    fn note(&self, id: Uuid, line: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.of.len() >= NODES && !all.of.contains_key(&id) {
            return;
        }
        all.count += 1;
        let count = all.count;
        let lines = all.of.entry(id).or_default();
        if lines.len() >= REQUESTS {
            lines.pop_front();
        }
        lines.push_back((count, Arc::from(line)));
    }

    fn after(&self, id: Uuid, count: u64) -> Vec<(u64, Arc<str>)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = all.of.get(&id).into_iter().flatten();
        lines.filter(|(n, _)| *n > count).cloned().collect()
    }
}

/// Notes a request of a node, if it is one: its path names the node, and it was let in.
pub(crate) async fn note_request(
    State((fleet, requests)): State<(Arc<Fleet>, Requests)>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let named = path.split("/id/").nth(1).and_then(|rest| rest.split('/').next());
    let id = named.and_then(|id| Uuid::parse_str(id).ok());
    let forwarded = request.headers().get("x-forwarded-for").and_then(|v| v.to_str().ok());
    let mut said = json!({
        "timestamp": rfc3339(fleet.now()),
        "uuid": id.map(|id| id.to_string()),
        "client-ip": address(&request).map(|a| a.to_string()).unwrap_or_default(),
        "method": request.method().as_str(),
        "url": format!("/api/v2/edgedevice{path}"),
    });
    if let (Some(said), Some(forwarded)) = (said.as_object_mut(), forwarded) {
        said.insert("forwarded".into(), forwarded.into());
    }
    let response = next.run(request).await;
    let status = response.status();
    // 403 of another node's path, 401 of a stranger: that was not this node.
    let let_in = ![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
    if let Some(id) = id.filter(|_| let_in) {
        requests.note(id, &said.to_string());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_requests_are_remembered() {
        let (requests, id) = (Requests::default(), Uuid::from_u128(1));
        for n in 0..REQUESTS + 5 {
            requests.note(id, &n.to_string());
        }
        let all = requests.after(id, 0);
        assert_eq!((all.len(), &*all[0].1), (REQUESTS, "5"));
        let last = all.last().unwrap().0;
        assert!(requests.after(id, last).is_empty());
        assert!(requests.after(Uuid::from_u128(2), 0).is_empty());
    }

    #[test]
    fn moments_are_written_as_protobuf_does() {
        assert_eq!(rfc3339(UnixMillis(1_767_323_045_678)), "2026-01-02T03:04:05.678Z");
        assert_eq!(rfc3339(UnixMillis(1_767_323_045_000)), "2026-01-02T03:04:05Z");
    }
}
