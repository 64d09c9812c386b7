//! Nodes: made known before they come, and asked to do something.
//!
//! | Call | Does |
//! |---|---|
//! | POST `/devices` | makes one known: [`view::NewDevice`] |
//! | POST `/devices/{name or id}/restart`, `/shutdown` | reboots one, powers one off |
//! | POST `/devices/{name or id}/attest` | takes its integrity token: it has to attest again |
//! | POST `/devices/{name or id}/resend` | asks it to say everything again |
//! | GET `/devices/{name or id}/verdict` | what its last proof said, register by register |
//! | POST `/devices/{name or id}/accept` | trusts the state that it proved last, and no other |
//! | PUT, DELETE `/devices/{name or id}/quarantine` | keeps it from its config, or no longer |
//! | GET `/devices/{name or id}/config` | what it is told, as JSON of an `EdgeDevConfig` |
//! | PUT `/devices/{name or id}/config` | tells it this one from now on, whatever its objects say |
//! | DELETE `/devices/{name or id}/config` | tells it what its objects say again |
//! | POST `/devices/{name or id}/edgeview` | opens an EdgeView session: [`view::NewSession`] |
//! | DELETE `/devices/{name or id}/edgeview` | ends it |
//! | PUT, DELETE `/serials/{serial}` | lets a serial number register (`*`: any), or no longer |

use std::sync::Arc;

use api::limits;
use api::pb::config::EdgeDevConfig;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};

use super::{Failed, failed, unknown};
use crate::access::Caller;
use crate::db::DeviceRow;
use crate::fleet::{Fleet, NewDevice};
use crate::objects::{Key, Kind};
use crate::view;

/// Serial numbers of hardware and soft ones are shorter (EVE API, register).
const SERIAL_MAX: usize = 256;
/// A session that is forgotten ends within a day.
const SESSION_MINUTES: std::ops::RangeInclusive<u32> = 1..=1440;

pub(super) fn routes() -> Router<Arc<Fleet>> {
    Router::new()
        .route("/devices/{name}/restart", post(restart))
        .route("/devices/{name}/shutdown", post(shutdown))
        .route("/devices/{name}/attest", post(attest))
        .route("/devices/{name}/resend", post(resend))
        .route("/devices/{name}/verdict", get(verdict))
        .route("/devices/{name}/accept", post(accept))
        .route("/devices/{name}/quarantine", put(quarantine).delete(release))
        .route("/devices/{name}/config", get(config).put(give_config).delete(give_back))
        .route("/devices/{name}/edgeview", post(open_view).delete(close_view))
        .route("/serials/{serial}", put(allow).delete(disallow))
}

type Done = Result<StatusCode, Failed>;

pub(super) async fn add(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Json(new): Json<view::NewDevice>,
) -> Result<(StatusCode, Json<view::Added>), Failed> {
    let unusable = |text: String| failed(StatusCode::UNPROCESSABLE_ENTITY, text);
    let certificate = |field: &str, pem: Option<String>| {
        let pem = pem.filter(|p| !p.trim().is_empty());
        pem.map(|p| signing(&p))
            .transpose()
            .map_err(|e| unusable(format!("{field}: {}", model::chain(&e))))
    };
    let what = NewDevice {
        serial: serial("serial", &new.serial)?,
        soft_serial: serial("soft_serial", &new.soft_serial)?,
        onboard: certificate("onboard_cert", new.onboard_cert)?,
        certificate: certificate("certificate", new.certificate)?,
        name: new.name,
    };
    if what.serial.is_empty() && what.soft_serial.is_empty() && what.certificate.is_none() {
        let text = "a node is expected by its serial, its soft_serial or its certificate: give one";
        return Err(unusable(text.to_owned()));
    }
    let name = if what.name.is_empty() { name_of(&what) } else { what.name.clone() };
    let what = NewDevice { name: name.clone(), ..what };
    if !crate::objects::is_name(&name) {
        return Err(unusable(format!(
            "name: {name:?} is no name; use 1 to 63 small letters, digits and `-`"
        )));
    }
    let id = fleet.add_device(&what, &caller.name).await?;
    Ok((StatusCode::CREATED, Json(view::Added { name, id })))
}

/// A certificate that a node could sign with.
fn signing(pem: &str) -> Result<api::Certificate, api::CertificateError> {
    let certificate = api::Certificate::from_pem(pem.as_bytes())?;
    api::Signer::device(&certificate)?;
    Ok(certificate)
}

/// A name made of what the node is expected by.
fn name_of(what: &NewDevice) -> String {
    let from = [&what.serial, &what.soft_serial].into_iter().find(|s| !s.is_empty());
    let from = match (from, &what.certificate) {
        (Some(serial), _) => serial.clone(),
        (None, Some(certificate)) => hex::encode(&certificate.digest().0[..4]),
        (None, None) => String::new(),
    };
    let plain =
        |c: char| if c.is_ascii_alphanumeric() || c == '-' { c.to_ascii_lowercase() } else { '-' };
    let name: String = from.chars().take(48).map(plain).collect();
    format!("node-{}", name.trim_matches('-'))
}

fn serial(field: &str, text: &str) -> Result<String, Failed> {
    let text = text.trim();
    if text.len() > SERIAL_MAX || text.contains(char::is_control) {
        let why = format!("{field}: this is no serial number");
        return Err(failed(StatusCode::UNPROCESSABLE_ENTITY, why));
    }
    Ok(text.to_owned())
}

async fn restart(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Done {
    fleet.restart_device(&name, &caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn shutdown(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Done {
    let up = |row: &mut DeviceRow| row.shutdowns = row.shutdowns.saturating_add(1);
    fleet.change_device(&name, "shutdown asked for", &caller.name, up).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn resend(State(fleet): State<Arc<Fleet>>, caller: Caller, Path(name): Path<String>) -> Done {
    let up = |row: &mut DeviceRow| row.epoch = row.epoch.wrapping_add(1);
    fleet.change_device(&name, "asked to say everything again", &caller.name, up).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn attest(State(fleet): State<Arc<Fleet>>, caller: Caller, Path(name): Path<String>) -> Done {
    let id = fleet.known().device_object(&name).map(|o| o.object.uid);
    let id = id.ok_or_else(|| unknown(Key::new(Kind::Device, &name)))?;
    fleet.attest_again(id, &caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn verdict(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<Json<view::Verdict>, Failed> {
    let none = || unknown(Key::new(Kind::Device, &name));
    let id = fleet.known().device_object(&name).map(|o| o.object.uid).ok_or_else(none)?;
    let verdict = fleet.db.verdict(id).await?;
    let told = verdict.map(|v| view::Verdict {
        at: Some(v.at),
        good: v.good,
        details: serde_json::from_str(&v.verdict).unwrap_or_default(),
    });
    Ok(Json(told.unwrap_or_default()))
}

async fn accept(State(fleet): State<Arc<Fleet>>, caller: Caller, Path(name): Path<String>) -> Done {
    fleet.accept(&name, &caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn quarantine(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path(name): Path<String>,
    Json(why): Json<view::Quarantine>,
) -> Done {
    let reason = why.reason.trim();
    let reason = if reason.is_empty() { "an operator wants it so" } else { reason };
    let set = |row: &mut DeviceRow| row.quarantine = Some(reason.to_owned());
    fleet.change_device(&name, "put into quarantine", &caller.name, set).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn release(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Done {
    let clear = |row: &mut DeviceRow| row.quarantine = None;
    fleet.change_device(&name, "released from quarantine", &caller.name, clear).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn config(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<Response, Failed> {
    let none = || unknown(Key::new(Kind::Device, &name));
    let id = fleet.known().device_object(&name).map(|o| o.object.uid).ok_or_else(none)?;
    let config = fleet.config_told(id).await?;
    let text = api::json::write::<EdgeDevConfig>(&config)
        .map_err(|e| failed(StatusCode::INTERNAL_SERVER_ERROR, model::chain(&e)))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// `EdgeDevConfig` in JSON if it starts with `{`, else in protobuf: there that byte would begin a
/// group, which it has none of.
async fn give_config(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<view::ConfigGiven>, Failed> {
    let (head, body) = request.into_parts();
    let bytes = crate::body::read(&head.headers, body, limits::CONFIG).await.map_err(|status| {
        let most = limits::CONFIG;
        failed(status, format!("the config is larger than {most}, or came too slowly"))
    })?;
    let config = if bytes.first() != Some(&b'{') {
        bytes.to_vec()
    } else {
        api::json::read::<EdgeDevConfig>(&bytes, limits::CONFIG)
            .map_err(|e| failed(StatusCode::UNPROCESSABLE_ENTITY, model::chain(&e)))?
    };
    let given = fleet.give_config(&name, &config, &caller.name).await?;
    let (version, author) = (given.config.version.clone(), given.author.clone());
    Ok(Json(view::ConfigGiven { version, author, at: given.at }))
}

async fn give_back(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Done {
    fleet.give_back(&name, &caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn open_view(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path(name): Path<String>,
    Json(new): Json<view::NewSession>,
) -> Result<(StatusCode, Json<view::Session>), Failed> {
    if !SESSION_MINUTES.contains(&new.minutes) {
        let why = format!("minutes: {} is not between 1 and 1440", new.minutes);
        return Err(failed(StatusCode::UNPROCESSABLE_ENTITY, why));
    }
    Ok((StatusCode::CREATED, Json(fleet.open_view(&name, &new, &caller.name).await?)))
}

async fn close_view(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Done {
    let close = |row: &mut DeviceRow| row.view = None;
    fleet.change_device(&name, "EdgeView session ended", &caller.name, close).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn allow(State(fleet): State<Arc<Fleet>>, caller: Caller, Path(text): Path<String>) -> Done {
    let text = serial("serial", &text)?;
    if text.is_empty() {
        return Err(failed(StatusCode::UNPROCESSABLE_ENTITY, "this is no serial number"));
    }
    fleet.allow_serial(&text, None, true, &caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn disallow(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path(text): Path<String>,
) -> Done {
    fleet.allow_serial(&text, None, false, &caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}
