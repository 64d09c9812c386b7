//! Nodes: made known, shown, told a whole config, forgotten.
//!
//! Adam's list has nodes that have registered, or whose certificate was given; one that is only
//! expected by a serial number is not in it.

use std::sync::Arc;

use api::limits;
use api::pb::config::EdgeDevConfig;
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Failed, certificate, device, failed, json as body_of};
use crate::access::Caller;
use crate::body;
use crate::db::DeviceRow;
use crate::fleet::{Fleet, FleetError, NewDevice};
use crate::objects::{Key, Kind};

const PROTO: &str = "application/x-proto-binary";

/// As Adam writes and reads it; certificates are PEM, in base64.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DeviceCert {
    #[serde(alias = "cert")]
    cert: String,
    #[serde(alias = "onboard", default)]
    onboard: Option<String>,
    #[serde(alias = "serial", default)]
    serial: String,
}

pub(super) async fn list(State(fleet): State<Arc<Fleet>>) -> String {
    ids(&fleet).iter().map(Uuid::to_string).collect::<Vec<_>>().join("\n")
}

fn ids(fleet: &Fleet) -> Vec<Uuid> {
    let known = fleet.known();
    let there = |r: &&DeviceRow| r.cert_pem.is_some() && r.gone.is_none();
    let rows = known.devices.values().map(|d| &d.row).filter(there);
    let mut ids: Vec<Uuid> =
        rows.map(|r| r.id).filter(|id| known.object_of(*id).is_some()).collect();
    ids.sort_unstable();
    ids
}

pub(super) async fn show(
    State(fleet): State<Arc<Fleet>>,
    Path(id): Path<String>,
) -> Result<Json<DeviceCert>, Failed> {
    let id = device(&fleet, &id)?;
    let row = fleet.look(|known| known.device(id).cloned());
    let found = row.and_then(|r| Some((r.cert_pem.clone()?, r)));
    let (pem, row) = found.ok_or_else(|| {
        failed(StatusCode::NOT_FOUND, format!("{id} is expected, and has shown no certificate yet"))
    })?;
    let onboard = fleet.onboarding_certificate(&row.onboard);
    Ok(Json(DeviceCert {
        cert: STANDARD.encode(pem),
        onboard: onboard.map(|c| STANDARD.encode(c.pem())),
        serial: if row.serial.is_empty() { row.soft_serial } else { row.serial },
    }))
}

pub(super) async fn add(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    request: Request,
) -> Result<StatusCode, Failed> {
    let what: DeviceCert = body_of(request).await?;
    let own = certificate("Cert", &what.cert)?;
    api::Signer::device(&own)
        .map_err(|e| failed(StatusCode::BAD_REQUEST, format!("Cert: {}", model::chain(&e))))?;
    let onboard = what.onboard.filter(|o| !o.is_empty());
    let onboard = onboard.map(|o| certificate("Onboard", &o)).transpose()?;
    // Our own stands for itself.
    let onboard = onboard.filter(|c| fleet.onboarding(c).is_none_or(|named| !named.is_empty()));
    let new = NewDevice {
        name: format!("node-{}", hex::encode(&own.digest().0[..4])),
        serial: what.serial,
        soft_serial: String::new(),
        onboard,
        certificate: Some(own),
    };
    fleet.add_device(&new, &caller.name).await?;
    Ok(StatusCode::CREATED)
}

pub(super) async fn remove(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Failed> {
    let id = device(&fleet, &id)?;
    forget(&fleet, id, &caller).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn clear(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
) -> Result<StatusCode, Failed> {
    for id in ids(&fleet) {
        forget(&fleet, id, &caller).await?;
    }
    Ok(StatusCode::OK)
}

/// Objects that name it are left to say so, as Adam asks nobody.
async fn forget(fleet: &Fleet, id: Uuid, caller: &Caller) -> Result<(), Failed> {
    let key = fleet.look(|known| known.object_of(id).map(|o| o.object.key.clone()));
    let none = || FleetError::NoObject(Key::new(Kind::Device, id.to_string()));
    fleet.delete(&key.ok_or_else(none)?, true, &caller.name).await?;
    Ok(())
}

/// Whether JSON is meant: everything but what is named otherwise, as with Adam.
fn means_json(headers: &HeaderMap, name: header::HeaderName) -> bool {
    let said = headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    said.contains("application/json") || !said.contains(PROTO)
}

pub(super) async fn config(
    State(fleet): State<Arc<Fleet>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failed> {
    let id = device(&fleet, &id)?;
    let config = fleet.config_told(id).await?;
    if !means_json(&headers, header::ACCEPT) {
        return Ok(([(header::CONTENT_TYPE, PROTO)], config).into_response());
    }
    let text = api::json::write::<EdgeDevConfig>(&config)
        .map_err(|e| failed(StatusCode::INTERNAL_SERVER_ERROR, model::chain(&e)))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

pub(super) async fn set_config(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Failed> {
    let id = device(&fleet, &id)?;
    let (head, body) = request.into_parts();
    let bytes = body::read(&head.headers, body, limits::CONFIG)
        .await
        .map_err(|status| failed(status, "the config is too large or too slow"))?;
    let config = if means_json(&head.headers, header::CONTENT_TYPE) {
        api::json::read::<EdgeDevConfig>(&bytes, limits::CONFIG)
            .map_err(|e| failed(StatusCode::BAD_REQUEST, model::chain(&e)))?
    } else {
        bytes.to_vec()
    };
    fleet.give_config(&id.to_string(), &config, &caller.name).await?;
    Ok(StatusCode::OK)
}

/// As Go writes them: enums as numbers, names as in the .proto file.
pub(super) async fn certs(
    State(fleet): State<Arc<Fleet>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failed> {
    let id = device(&fleet, &id)?;
    let shown = fleet.db.shown_certs(id).await?;
    if shown.is_empty() {
        return Err(failed(StatusCode::NOT_FOUND, "it has shown no certificates yet"));
    }
    let certs: Vec<Value> = shown
        .iter()
        .map(|(kind, hash, pem)| {
            // SHA-256, of which the first 16 bytes are given.
            json!({ "hashAlgo": 1, "certHash": STANDARD.encode(hash), "type": kind,
                    "cert": STANDARD.encode(pem) })
        })
        .collect();
    Ok(Json(json!({ "certs": certs })))
}

/// Of a node's attestation: what it proved last, and the token it was given for it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub(super) struct DeviceOptions {
    nonce: String,
    integrity_token: String,
    received_pcr_template: Option<Value>,
    attested: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    event_log: Vec<Value>,
}

pub(super) async fn options(
    State(fleet): State<Arc<Fleet>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failed> {
    let id = device(&fleet, &id)?;
    Ok(Json(options_of(&fleet, id).await?))
}

async fn options_of(fleet: &Fleet, id: Uuid) -> Result<Value, Failed> {
    let token = fleet.look(|known| known.device(id).and_then(|r| r.token.clone()));
    let nonce = fleet.db.open_nonce(id).await?.map(hex::encode).unwrap_or_default();
    let verdict = fleet.db.verdict(id).await?.and_then(|v| {
        let said: Value = serde_json::from_str(&v.verdict).ok()?;
        let pcrs = said.pointer("/findings/pcrs")?.as_array()?.iter();
        let values: Vec<Value> =
            pcrs.map(|p| json!({ "index": p["register"], "value": p["value"] })).collect();
        Some(json!({ "eveVersion": "", "firmwareVersion": "", "PCRValues": values }))
    });
    let attested = token.is_some();
    let token = token.map(|t| String::from_utf8_lossy(&t).into_owned()).unwrap_or_default();
    Ok(json!({ "nonce": nonce, "integrityToken": token, "receivedPCRTemplate": verdict,
               "attested": attested }))
}

/// Another token than the one it was given, or `attested: false`, takes the token away: the node has
/// to attest again. Nobody can put a token of theirs into its place; a nonce is what we say it is.
pub(super) async fn set_options(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Failed> {
    let id = device(&fleet, &id)?;
    let wanted: DeviceOptions = body_of(request).await?;
    let token = fleet.look(|known| known.device(id).and_then(|r| r.token.clone()));
    let same = token.as_deref().is_some_and(|t| t == wanted.integrity_token.as_bytes());
    if token.is_some() && !(wanted.attested && same) {
        fleet.attest_again(id, &caller.name).await?;
    }
    Ok(StatusCode::OK)
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct GlobalOptions {
    enforce_template_attestation: bool,
    #[serde(rename = "PCRTemplates", alias = "pcrTemplates")]
    pcr_templates: Option<Vec<Value>>,
}

pub(super) async fn all_options() -> Json<GlobalOptions> {
    Json(GlobalOptions { pcr_templates: Some(Vec::new()), ..GlobalOptions::default() })
}

/// What nodes must prove is said for each, not for all by templates: a setting that would be kept
/// and not obeyed is refused.
pub(super) async fn set_all_options(request: Request) -> Result<StatusCode, Failed> {
    let wanted: GlobalOptions = body_of(request).await?;
    if wanted.enforce_template_attestation || wanted.pcr_templates.is_some_and(|t| !t.is_empty()) {
        let why = "PCRTemplates: this controller has none for all nodes; `attestation: true` in the \
                   spec of a Device asks for a proof, and `eve device accept NAME` says what it must be";
        return Err(failed(StatusCode::UNPROCESSABLE_ENTITY, why));
    }
    Ok(StatusCode::OK)
}
