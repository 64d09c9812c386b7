//! What every request of the operator API passes: whose token it is, whether there is room, the
//! role, the projects; and the audit log afterwards.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::permit::{Need, need};
use super::{Caller, limits};
use crate::fleet::Fleet;
use crate::objects::Kind;
use crate::view;

/// Where a connection comes from; the listener puts it into each request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// In a response: nothing was to be changed, only said what would change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DryRun;

impl DryRun {
    /// The response, marked if it is one of a dry run.
    pub(crate) fn mark(mut response: Response, dry_run: bool) -> Response {
        if dry_run {
            response.extensions_mut().insert(DryRun);
        }
        response
    }
}

/// The base of the operator API.
pub(crate) const BASE: &str = "/api/operator/v1";

pub(crate) fn address(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|p| p.0)
}

/// The secret of `Authorization: Bearer …`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok())?;
    let (scheme, secret) = given.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret)
}

/// An answer in JSON that says why not.
pub(crate) fn refusal(status: StatusCode, why: impl ToString) -> Response {
    let failure = view::Failure { error: why.to_string(), flaws: Vec::new() };
    (status, Json(failure)).into_response()
}

/// Come again later.
pub(crate) fn wait(wait: Duration) -> Response {
    let seconds = limits::seconds(wait);
    let why = format!("too many requests; try again in {seconds} s");
    let mut response = refusal(StatusCode::TOO_MANY_REQUESTS, why);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// The route as the router has it, below `base`.
pub(crate) fn route(request: &Request, base: &str) -> Option<String> {
    let matched = request.extensions().get::<MatchedPath>()?.as_str();
    let below = matched.strip_prefix(base)?;
    Some(if below.is_empty() { "/".to_owned() } else { below.to_owned() })
}

/// Why a caller may not do this. `None`: they may.
pub(crate) fn objection(
    fleet: &Fleet,
    caller: &Caller,
    need: Need,
    path: &str,
) -> Option<Response> {
    if caller.role < need.role {
        let why = format!(
            "{} has the role {} here; this needs the role {}",
            caller.name, caller.role, need.role
        );
        return Some(refusal(StatusCode::FORBIDDEN, why));
    }
    if !caller.projects.all() {
        if !need.in_projects {
            let why = format!("{} is limited to projects; this is not", caller.name);
            return Some(refusal(StatusCode::FORBIDDEN, why));
        }
        if !covered(fleet, caller, path) {
            // As if it were not there: what others have is not told.
            return Some(refusal(StatusCode::NOT_FOUND, "there is no such object"));
        }
    }
    None
}

/// Whether the device, app or network that a path below the base is about is of the caller's
/// projects; a path about none is.
pub(crate) fn covered(fleet: &Fleet, caller: &Caller, path: &str) -> bool {
    caller.projects.all()
        || named(path).is_none_or(|(kind, name)| caller.covers_named(&fleet.known(), kind, &name))
}

/// The device or app that a path below the base is about.
fn named(path: &str) -> Option<(Kind, String)> {
    let mut parts = path.trim_start_matches('/').split('/');
    let kind = match parts.next()? {
        "devices" => Kind::Device,
        "apps" => Kind::App,
        "networks" => Kind::Network,
        _ => return None,
    };
    let name = parts.next().filter(|n| !n.is_empty())?;
    Some((kind, unescaped(name)))
}

/// The text of a part of a path (RFC 3986); what is no UTF-8 names nothing.
pub(crate) fn unescaped(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        let value = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
        match (first, value) {
            (b'%', Some(value)) => {
                bytes.push(value);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}

/// Lets through who shows a token that is good for what is asked.
pub(crate) async fn with_token(
    State(fleet): State<Arc<Fleet>>,
    request: Request,
    next: Next,
) -> Response {
    // What the router does not know needs nothing: it says that there is no such call.
    let asked =
        |method: &Method, request: &Request| route(request, BASE).map(|route| need(method, &route));
    checked(&fleet, request, next, asked).await
}

/// Lets through who shows a token that is good for what is asked; `asked` says what that needs.
pub(crate) async fn checked(
    fleet: &Fleet,
    mut request: Request,
    next: Next,
    asked: impl Fn(&Method, &Request) -> Option<Need>,
) -> Response {
    let address = address(&request);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let found = match bearer(request.headers()) {
        Some(token) => fleet.access.by_token(token, fleet.now()).await,
        None => Ok(None),
    };
    let caller = match found {
        Ok(Some(caller)) => Caller { address, ..caller },
        Ok(None) => {
            let shown = bearer(request.headers()).is_some();
            return nobody(fleet, shown, &method, &path, address).await;
        }
        Err(e) => {
            tracing::error!("operator API: {}", model::chain(&e));
            return refusal(StatusCode::SERVICE_UNAVAILABLE, model::chain(&e));
        }
    };
    if let Err(time) = fleet.access.may_call(&caller) {
        return wait(time);
    }
    let asked = asked(&method, &request);
    let below = path.strip_prefix(BASE).unwrap_or(&path);
    let objection = asked.and_then(|need| objection(fleet, &caller, need, below));
    let (author, refused) = (caller.name.clone(), objection.is_some());
    let response = match objection {
        Some(objection) => objection,
        None => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
    };
    let look = [Method::GET, Method::HEAD].contains(&method);
    if refused || (!look && asked.is_some()) {
        let dry_run = response.extensions().get::<DryRun>().is_some();
        let outcome = outcome(response.status(), dry_run);
        audit(fleet, &author, &method, &path, &outcome, address).await;
    }
    response
}

/// How a call ended, for the audit log.
pub(crate) fn outcome(status: StatusCode, dry_run: bool) -> String {
    match status.as_u16() {
        200..400 if dry_run => "dry run, nothing changed".to_owned(),
        200..400 => "done".to_owned(),
        code if dry_run => format!("dry run, refused: {code}"),
        code => format!("refused: {code}"),
    }
}

/// Writes the audit log; that it cannot be written is in our own log, the answer stays.
pub(crate) async fn audit(
    fleet: &Fleet,
    author: &str,
    method: &Method,
    path: &str,
    outcome: &str,
    address: Option<IpAddr>,
) {
    // A path has no bound of its own but that of all headers.
    let path: String = path.chars().take(512).collect();
    let noted =
        fleet.access.note(author, method.as_str(), &path, outcome, address, fleet.now()).await;
    if let Err(e) = noted {
        tracing::error!("{author} {method} {path}: {}", model::chain(&e));
    }
}

/// The answer to a token that is nobody's. Those that come too often are not written down each.
async fn nobody(
    fleet: &Fleet,
    shown: bool,
    method: &Method,
    path: &str,
    address: Option<IpAddr>,
) -> Response {
    if let Err(time) = fleet.access.may_be_refused(address) {
        return wait(time);
    }
    if shown {
        let outcome = outcome(StatusCode::UNAUTHORIZED, false);
        audit(fleet, "(unknown)", method, path, &outcome, address).await;
    }
    let why = refusal(StatusCode::UNAUTHORIZED, "the token is missing or wrong, or has ended");
    ([(header::WWW_AUTHENTICATE, "Bearer")], why).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_they_are_about_however_it_is_escaped() {
        for (path, found) in [
            ("/devices/edge-1", Some((Kind::Device, "edge-1"))),
            ("/devices/edge%2d1/restart", Some((Kind::Device, "edge-1"))),
            ("/apps/%C3%BC", Some((Kind::App, "ü"))),
            ("/apps/100%", Some((Kind::App, "100%"))),
            ("/devices", None),
            ("/objects/device/edge-1", None),
        ] {
            assert_eq!(named(path), found.map(|(k, n)| (k, n.to_owned())), "{path}");
        }
    }

    #[test]
    fn a_dry_run_is_told_from_what_was_done() {
        assert_eq!(outcome(StatusCode::OK, true), "dry run, nothing changed");
        assert_eq!(outcome(StatusCode::CONFLICT, true), "dry run, refused: 409");
        assert_eq!(outcome(StatusCode::OK, false), "done");
    }

    #[test]
    fn the_scheme_is_read_in_any_case() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("bearer abc"));
        assert_eq!(bearer(&headers), Some("abc"));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic abc"));
        assert_eq!(bearer(&headers), None);
    }
}
