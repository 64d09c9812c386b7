//! The admin REST of Adam, `/admin/…`, for Eden and for scripts that drive EVE's test controller. It
//! is served only when asked for (`eve controller serve --adam`).
//!
//! | Call | Does |
//! |---|---|
//! | GET, POST, DELETE `/onboard`, GET, DELETE `/onboard/{cn}` | which serial numbers may register with which onboarding certificate |
//! | GET, POST, DELETE `/device`, GET, DELETE `/device/{id}` | nodes that have a certificate |
//! | GET, PUT `/device/{id}/config` | the whole `EdgeDevConfig` of one, protobuf or JSON |
//! | GET `/device/{id}/info`, `metrics`, `logs`, `flowlogs`, `requests`, `app/{app}/logs` | what it said, one JSON document a line; with `X-Stream: true` what it says from now on |
//! | GET `/device/{id}/certs` | the certificates it has shown |
//! | GET, PUT `/device/{id}/options`, GET, PUT `/options` | attestation |
//!
//! Adam asks nobody who they are. Here every call needs an administrator's API token, as a bearer or
//! as the password of HTTP basic authentication. Eden knows of neither, but puts the setting
//! `adam.ip` into its URLs as it is, and Go's HTTP client sends what stands there before an `@`: with
//! `adam.ip: eden:TOKEN@ADDRESS` an unchanged Eden logs in. A listener of its own for Eden, open to
//! whoever is on the machine, is therefore not needed, and there is none. Eden must read over HTTP
//! (`adam.remote.redis: false`): there is no Redis.
//!
//! A config that is put here is kept by [`crate::fleet`] beside the objects (`fleet/given.rs`), and
//! takes the place of what they say. Messages are JSON by the mapping of protobuf, as Adam's.

mod devices;
mod onboard;
mod said;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use uuid::Uuid;

use crate::access::guard;
use crate::access::permit::need;
use crate::body;
use crate::db::DbError;
use crate::fleet::{Fleet, FleetError};
use crate::objects::{Key, Kind};

pub(crate) use said::{Requests, note_request};

const BASE: &str = "/admin";
/// Certificates and options are short.
const BODY_MAX: Bytes = Bytes::kib(256);

pub(crate) fn routes(
    fleet: &Arc<Fleet>,
    requests: Requests,
    stopped: watch::Receiver<bool>,
) -> Router<Arc<Fleet>> {
    Router::new()
        .route("/onboard", get(onboard::list).post(onboard::add).delete(onboard::clear))
        .route("/onboard/{cn}", get(onboard::show).delete(onboard::remove))
        .route("/device", get(devices::list).post(devices::add).delete(devices::clear))
        .route("/device/{id}", get(devices::show).delete(devices::remove))
        .route("/device/{id}/config", get(devices::config).put(devices::set_config))
        .route("/device/{id}/certs", get(devices::certs))
        .route("/device/{id}/options", get(devices::options).put(devices::set_options))
        .route("/options", get(devices::all_options).put(devices::set_all_options))
        .merge(said::routes(requests, stopped))
        .fallback(|| async { failed(StatusCode::NOT_FOUND, "there is no such call") })
        .layer(middleware::from_fn_with_state(fleet.clone(), with_token))
}

/// Why a call failed; the text is the body, as Adam's.
#[derive(Debug)]
struct Failed(StatusCode, String);

fn failed(status: StatusCode, why: impl ToString) -> Failed {
    Failed(status, why.to_string())
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl From<DbError> for Failed {
    fn from(e: DbError) -> Failed {
        tracing::error!("admin REST: {}", model::chain(&e));
        failed(StatusCode::SERVICE_UNAVAILABLE, model::chain(&e))
    }
}

impl From<FleetError> for Failed {
    fn from(e: FleetError) -> Failed {
        let status = match &e {
            FleetError::NoObject(_) => StatusCode::NOT_FOUND,
            FleetError::Exists(_)
            | FleetError::CertificateTaken { .. }
            | FleetError::Used { .. }
            | FleetError::Faster => StatusCode::CONFLICT,
            FleetError::Db(_) | FleetError::Sign(_) | FleetError::Seal(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::BAD_REQUEST,
        };
        failed(status, model::chain(&e))
    }
}

/// The node of a path: only by its id, as with Adam.
fn device(fleet: &Fleet, id: &str) -> Result<Uuid, Failed> {
    let wrong = |e| failed(StatusCode::BAD_REQUEST, format!("{id:?} is no UUID: {e}"));
    let uuid = Uuid::parse_str(id).map_err(wrong)?;
    let known = fleet.look(|known| known.object_of(uuid).is_some());
    let unknown = || FleetError::NoObject(Key::new(Kind::Device, id)).into();
    known.then_some(uuid).ok_or_else(unknown)
}

/// A body in JSON, whatever it calls itself: Eden says `text/plain`.
async fn json<T: DeserializeOwned>(request: Request) -> Result<T, Failed> {
    let (head, body) = request.into_parts();
    let bytes = body::read(&head.headers, body, BODY_MAX)
        .await
        .map_err(|status| failed(status, "the body is too large or too slow"))?;
    let mut reader = serde_json::Deserializer::from_slice(&bytes);
    serde_path_to_error::deserialize(&mut reader)
        .map_err(|e| failed(StatusCode::BAD_REQUEST, format!("the body: {e}")))
}

/// A certificate in PEM, in base64.
fn certificate(field: &str, text: &str) -> Result<api::Certificate, Failed> {
    let wrong =
        |e: &dyn std::fmt::Display| failed(StatusCode::BAD_REQUEST, format!("{field}: {e}"));
    let pem = STANDARD.decode(text).map_err(|e| wrong(&e))?;
    api::Certificate::from_pem(&pem).map_err(|e| wrong(&model::chain(&e)))
}

/// A token as a bearer, or as the password of whoever.
fn token(headers: &HeaderMap) -> Option<String> {
    if let Some(token) = guard::bearer(headers) {
        return Some(token.to_owned());
    }
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok())?;
    let (scheme, secret) = given.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(secret.trim()).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

/// Lets through who shows an administrator's token. There is no challenge for HTTP basic
/// authentication: a browser must not come to keep the token and send it for other sites.
async fn with_token(State(fleet): State<Arc<Fleet>>, mut request: Request, next: Next) -> Response {
    let shown = token(request.headers());
    if let Some(bearer) =
        shown.as_ref().and_then(|t| HeaderValue::from_str(&format!("Bearer {t}")).ok())
    {
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
    }
    guard::checked(&fleet, request, next, |method, _| Some(need(method, BASE))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_in_either_form() {
        let shown = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(text).unwrap());
            token(&headers)
        };
        assert_eq!(shown("Bearer abc"), Some("abc".into()));
        assert_eq!(shown(&format!("basic {}", STANDARD.encode("eden:a:b"))), Some("a:b".into()));
        for wrong in ["Basic !", "Basic YWJj", "Digest abc", "abc"] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }
}
