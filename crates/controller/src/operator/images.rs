//! Single files for nodes: `/api/operator/v1/images/NAME`.
//!
//! A file is uploaded with its SHA-256 in the URL. The same `PUT` again goes on: with
//! `Content-Range: bytes FIRST-LAST/TOTAL` behind what is there, which `GET …?sha256=…` tells.

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use model::Digest;
use serde::Deserialize;
use uuid::Uuid;

use super::{Failed, failed};
use crate::access::Caller;
use crate::db::ImageFile;
use crate::fleet::{Fleet, FleetError};
use crate::images::{ImageError, is_name};
use crate::registry::first_byte;
use crate::view;

/// The files are called by names of their own: an upload of the same name and digest is the same.
const NAMESPACE: Uuid = Uuid::from_u128(0x9d2c_3f6a_5b1e_4f0b_8c77_2e1d_90a4_61f3);

pub(super) fn routes() -> Router<Arc<Fleet>> {
    Router::new()
        .route("/tags", get(tags))
        .route("/images", get(list))
        .route("/images/{*name}", get(state).put(upload).delete(forget))
}

#[derive(Debug, Deserialize)]
struct Which {
    sha256: Option<String>,
}

impl From<ImageError> for Failed {
    fn from(e: ImageError) -> Failed {
        let status = match &e {
            ImageError::NoUpload | ImageError::Gap { .. } => StatusCode::CONFLICT,
            ImageError::Broken { .. } => StatusCode::BAD_REQUEST,
            ImageError::Other { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            ImageError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            ImageError::TooMany => StatusCode::TOO_MANY_REQUESTS,
            ImageError::Blob(_) | ImageError::Db(_) => {
                tracing::error!("operator API: {}", model::chain(&e));
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        failed(status, model::chain(&e))
    }
}

fn shown(file: ImageFile) -> view::ImageFile {
    let ImageFile { name, digest, size, author, at } = file;
    view::ImageFile { name, size, have: size, sha256: digest.hex(), author, at: Some(at) }
}

/// What the registry holds, as `repository:tag`, by name.
async fn tags(State(fleet): State<Arc<Fleet>>) -> Result<Json<Vec<String>>, Failed> {
    Ok(Json(fleet.registry().names().map_err(FleetError::from)?))
}

async fn list(State(fleet): State<Arc<Fleet>>) -> Result<Json<Vec<view::ImageFile>>, Failed> {
    let files = fleet.registry().images().db.image_files().await?;
    Ok(Json(files.into_iter().map(shown).collect()))
}

/// The upload of this file: its id and what it is called.
fn upload_of(name: &str, digest: &Digest) -> (Uuid, String) {
    let target = format!("file {name}");
    (Uuid::new_v5(&NAMESPACE, format!("{target} {digest}").as_bytes()), target)
}

fn promised(which: &Which) -> Result<Option<Digest>, Failed> {
    let read = |text: &String| {
        let why = |e| failed(StatusCode::UNPROCESSABLE_ENTITY, format!("sha256: {e}"));
        Digest::from_hex(text.strip_prefix("sha256:").unwrap_or(text)).map_err(why)
    };
    which.sha256.as_ref().map(read).transpose()
}

fn check_name(name: &str) -> Result<(), Failed> {
    if is_name(name) {
        return Ok(());
    }
    let why = format!(
        "{name:?} is no name for a file: letters, digits, '.', '_', '-', in parts with '/' between"
    );
    Err(failed(StatusCode::UNPROCESSABLE_ENTITY, why))
}

/// What is there of a file: of the one with this digest, or of whichever has the name.
async fn state(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    Query(which): Query<Which>,
) -> Result<Json<view::ImageFile>, Failed> {
    check_name(&name)?;
    let images = fleet.registry().images();
    let digest = promised(&which)?;
    let file = images.db.image_file(&name).await?;
    if let Some(file) = file.filter(|f| digest.is_none_or(|d| d == f.digest)) {
        return Ok(Json(shown(file)));
    }
    let none = || failed(StatusCode::NOT_FOUND, format!("there is no image file {name}"));
    let digest = digest.ok_or_else(none)?;
    let (id, target) = upload_of(&name, &digest);
    let have = images.upload(id, &target).await?.ok_or_else(none)?.size;
    let (author, sha256) = (String::new(), digest.hex());
    Ok(Json(view::ImageFile { name, size: 0, have, sha256, author, at: None }))
}

async fn upload(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
    Query(which): Query<Which>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failed> {
    check_name(&name)?;
    let digest = promised(&which)?.ok_or_else(|| {
        failed(StatusCode::UNPROCESSABLE_ENTITY, "say which content: ?sha256=HEX")
    })?;
    let (head, body) = request.into_parts();
    let (at, total) = match head.headers.get(header::CONTENT_RANGE) {
        None => (0, None),
        Some(range) => {
            let total = range.to_str().ok().and_then(|r| r.rsplit_once('/'));
            let total = total.and_then(|(_, total)| total.parse::<u64>().ok());
            first_byte(range).zip(total).map(|(at, total)| (at, Some(total))).ok_or_else(|| {
                failed(StatusCode::BAD_REQUEST, "Content-Range is not bytes FIRST-LAST/TOTAL")
            })?
        }
    };
    let images = fleet.registry().images();
    let (clock, author) = (fleet.clock(), caller.name);
    let (id, target) = upload_of(&name, &digest);
    let file = |size| ImageFile { name: name.clone(), digest, size, author, at: clock() };
    // The same content may be there under another name.
    if let Some(blob) = images.db.blob(&digest).await? {
        let file = file(blob.size);
        if images.name_file(&file).await? {
            return Ok((StatusCode::CREATED, Json(shown(file))).into_response());
        }
        return Err(ImageError::NoUpload.into());
    }
    images.begin(id, &target, clock()).await?;
    let have = images.append(id, &target, Some(at), body, clock).await?;
    if total.is_some_and(|total| have < total) {
        let part = view::ImageFile {
            name: name.clone(),
            size: 0,
            have,
            sha256: digest.hex(),
            author: String::new(),
            at: None,
        };
        return Ok((StatusCode::ACCEPTED, Json(part)).into_response());
    }
    let file = file(images.finish(id, &target, digest, clock()).await?);
    if !images.name_file(&file).await? {
        return Err(ImageError::NoUpload.into());
    }
    Ok((StatusCode::CREATED, Json(shown(file))).into_response())
}

async fn forget(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Failed> {
    if fleet.registry().images().db.forget_image_file(&name).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(failed(StatusCode::NOT_FOUND, format!("there is no image file {name}")))
    }
}
