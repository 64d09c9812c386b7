//! Single files (disk images, ISOs), under `/images/NAME`: whole or in part (RFC 9110, 14).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{Range, Rights, access, parse_range, refuse, unavailable};
use crate::db::Blob;
use crate::fleet::Fleet;
use crate::images::{Images, is_name};

/// Serves a file to whoever may pull.
pub(crate) async fn file(
    State(fleet): State<Arc<Fleet>>,
    method: Method,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Response {
    if method != Method::GET && method != Method::HEAD {
        let text = "files are uploaded by the operator API";
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", text);
    }
    let rights = match access::rights(&fleet, &headers).await {
        Ok(rights) => rights,
        Err(e) => return unavailable(&e),
    };
    if rights == Rights::Nobody && !fleet.registry().keeper().open {
        let why =
            refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "log in with a token to do this");
        return ([(header::WWW_AUTHENTICATE, "Basic realm=\"eve\"")], why).into_response();
    }
    let images = fleet.registry().images();
    let found = async {
        if !is_name(&name) {
            return Ok(None);
        }
        match images.db.image_file(&name).await? {
            Some(file) => images.db.blob(&file.digest).await,
            None => Ok(None),
        }
    };
    let range = headers.get(header::RANGE).and_then(|v| v.to_str().ok());
    match found.await {
        Ok(Some(blob)) => {
            // A range of something else than the client has would be mixed into it.
            let has = headers.get(header::IF_RANGE).and_then(|v| v.to_str().ok());
            let same = has.is_none_or(|has| has == format!("\"{}\"", blob.digest));
            sent(images, blob, method == Method::HEAD, range.filter(|_| same)).await
        }
        Ok(None) => refuse(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "there is no such file"),
        Err(e) => unavailable(&e),
    }
}

/// A content, or the part of it that was asked for.
pub(crate) async fn sent(images: &Images, blob: Blob, head: bool, range: Option<&str>) -> Response {
    let part = match range.map(|r| parse_range(r, blob.size)) {
        None | Some(Range::Whole) => None,
        Some(Range::Part(from, to)) => Some((from, to)),
        Some(Range::Outside) => {
            let all = [(header::CONTENT_RANGE, format!("bytes */{}", blob.size))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, all).into_response();
        }
    };
    let (from, to) = part.unwrap_or((0, blob.size));
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, to.saturating_sub(from).to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, format!("\"{}\"", blob.digest)),
    ];
    let name = [("docker-content-digest", blob.digest.to_string())];
    let size = blob.size;
    let body = if head { Ok(Body::empty()) } else { images.send(blob, from, to).await };
    let body = match body {
        Ok(body) => body,
        Err(e) => return unavailable(&e),
    };
    match part {
        None => (headers, name, body).into_response(),
        Some((from, to)) => {
            let range = format!("bytes {from}-{}/{size}", to.saturating_sub(1));
            let range = [(header::CONTENT_RANGE, range)];
            (StatusCode::PARTIAL_CONTENT, headers, name, range, body).into_response()
        }
    }
}
