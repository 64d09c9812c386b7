//! Onboarding certificates, by their common names, and the serial numbers that may come with them.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Failed, certificate, failed, json};
use crate::access::Caller;
use crate::fleet::{Fleet, Known};

/// As Adam writes and reads it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct OnboardCert {
    /// PEM, in base64.
    #[serde(alias = "cert")]
    cert: String,
    /// Serial numbers with `,` between; `*` is any.
    #[serde(alias = "serial", default)]
    serial: String,
}

/// A certificate that somebody may register with.
struct Open {
    certificate: api::Certificate,
    /// `None`: it is our own.
    other: bool,
    serials: Vec<String>,
}

impl Open {
    /// As Adam names it in paths and lists.
    fn name(&self) -> String {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '\\') { c } else { '_' }
        };
        self.certificate.common_name().chars().map(plain).collect()
    }

    fn with(&self) -> Option<&api::Certificate> {
        self.other.then_some(&self.certificate)
    }
}

/// The certificates with which some serial number may register. What a single node is expected with
/// belongs to that node.
fn open(fleet: &Fleet, known: &Known) -> Vec<Open> {
    let own = fleet.onboarding_certificate(&[]).into_iter().map(|c| (c, false));
    let others = known.onboard_certs.iter().cloned().map(|c| (c, true));
    own.chain(others)
        .map(|(certificate, other)| {
            let hash = if other { certificate.digest().0.to_vec() } else { Vec::new() };
            Open { serials: known.open_serials(&hash), certificate, other }
        })
        .filter(|open| !open.serials.is_empty())
        .collect()
}

fn named(fleet: &Fleet, name: &str) -> Result<Open, Failed> {
    let found = open(fleet, &fleet.known()).into_iter().find(|o| o.name() == name);
    found.ok_or_else(|| {
        failed(StatusCode::NOT_FOUND, format!("there is no onboarding certificate {name}"))
    })
}

pub(super) async fn list(State(fleet): State<Arc<Fleet>>) -> String {
    let names: Vec<String> = open(&fleet, &fleet.known()).iter().map(Open::name).collect();
    names.join("\n")
}

pub(super) async fn show(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<Json<OnboardCert>, Failed> {
    let found = named(&fleet, &name)?;
    let cert = STANDARD.encode(found.certificate.pem());
    Ok(Json(OnboardCert { cert, serial: found.serials.join(",") }))
}

/// The serial numbers take the place of those before.
pub(super) async fn add(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    request: Request,
) -> Result<StatusCode, Failed> {
    let what: OnboardCert = json(request).await?;
    let certificate = certificate("Cert", &what.cert)?;
    let serials = what.serial.split(',').map(str::trim).filter(|s| !s.is_empty());
    let serials: BTreeSet<String> = serials.map(str::to_owned).collect();
    let wrong = |s: &String| s.len() > 256 || s.contains(char::is_control);
    if serials.is_empty() || serials.iter().any(wrong) {
        let why = "Serial: write serial numbers with a comma between, or * for any";
        return Err(failed(StatusCode::BAD_REQUEST, why));
    }
    let own = fleet.onboarding(&certificate).is_some_and(|named| named.is_empty());
    fleet.allow_only(&serials, (!own).then_some(&certificate), &caller.name).await?;
    Ok(StatusCode::CREATED)
}

pub(super) async fn remove(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Failed> {
    let found = named(&fleet, &name)?;
    close(&fleet, &found, &caller).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn clear(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
) -> Result<StatusCode, Failed> {
    for found in open(&fleet, &fleet.known()) {
        close(&fleet, &found, &caller).await?;
    }
    Ok(StatusCode::OK)
}

async fn close(fleet: &Fleet, which: &Open, caller: &Caller) -> Result<(), Failed> {
    Ok(fleet.allow_only(&BTreeSet::new(), which.with(), &caller.name).await?)
}
