//! The registry: images under `/v2/` (OCI distribution spec 1.1), single files under `/images/`.
//!
//! Images come from two places: what was pushed, and a local OCI layout, which is written by
//! `eve pkg build`, only read here, and read anew at each request. Where both have a name, what was
//! pushed counts.

mod access;
mod files;
mod push;

use std::io::Seek;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{self, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::Digest;
use serde_json::json;
use store::{Layout, MANIFEST_MAX, Ref, StoreError, media_type};

use crate::body;
use crate::fleet::Fleet;
use crate::images::{ImageError, Images};

pub(crate) use access::{Keeper, Rights, token};
pub(crate) use files::file;
use files::sent;
pub(crate) use push::first_byte;

/// Where images come from.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    layout: Option<PathBuf>,
    images: Images,
    keeper: Keeper,
}

impl Registry {
    /// `layout`: the folder of packages. `None`: there is none.
    pub(crate) fn new(layout: Option<&Path>, images: Images, keeper: Keeper) -> Registry {
        Registry { layout: layout.map(Path::to_owned), images, keeper }
    }

    /// What was pushed.
    pub(crate) fn images(&self) -> &Images {
        &self.images
    }

    /// Who may do what.
    pub(crate) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// What `repository:tag` stands for: the digest of a manifest or an index and whether it is one.
    pub(crate) fn resolve(&self, reference: &str) -> Result<Option<(Digest, bool)>, StoreError> {
        let tags = self.images.tags();
        let named = |name: &str| {
            let is = |repository: &str, tag: &str| name.rsplit_once(':') == Some((repository, tag));
            tags.iter().find(|t| is(&t.repository, &t.tag))
        };
        if let Some(tag) = named(reference).or_else(|| named(short(reference))) {
            return Ok(Some((tag.digest, media_type::is_index(&tag.media_type))));
        }
        let found = self.refs()?.into_iter().find(|r| is(r, reference));
        Ok(found.map(|r| (r.target.digest, media_type::is_index(&r.target.media_type))))
    }

    /// The names images can be pulled under.
    pub(crate) fn names(&self) -> Result<Vec<String>, StoreError> {
        let mut names: Vec<String> =
            self.images.tags().iter().map(|t| format!("{}:{}", t.repository, t.tag)).collect();
        names.extend(self.refs()?.iter().map(|r| short(&r.name).to_owned()));
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn refs(&self) -> Result<Vec<Ref>, StoreError> {
        match self.layout()? {
            Some(layout) => layout.refs(),
            None => Ok(Vec::new()),
        }
    }

    /// A layout that nothing was ever put into need not be there yet.
    fn layout(&self) -> Result<Option<Layout>, StoreError> {
        match &self.layout {
            Some(root) if root.join("oci-layout").exists() => Layout::open(root).map(Some),
            _ => Ok(None),
        }
    }
}

/// `hello:1` is also `docker.io/library/hello:1`.
fn is(r: &Ref, reference: &str) -> bool {
    r.name == reference || r.name == store::name::expand(reference)
}

fn short(name: &str) -> &str {
    let bare = name.strip_prefix("docker.io/").unwrap_or(name);
    bare.strip_prefix("library/").unwrap_or(bare)
}

/// What a request under `/v2/` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Want<'a> {
    Manifest { repository: &'a str, reference: &'a str },
    Blob { digest: &'a str },
    Tags { repository: &'a str },
}

fn want(path: &str) -> Option<Want<'_>> {
    if let Some(repository) = path.strip_suffix("/tags/list") {
        return Some(Want::Tags { repository });
    }
    let (front, last) = path.rsplit_once('/')?;
    let (repository, what) = front.rsplit_once('/')?;
    match what {
        "manifests" => Some(Want::Manifest { repository, reference: last }),
        "blobs" => Some(Want::Blob { digest: last }),
        _ => None,
    }
}

/// `/v2/`: yes, this is a registry. Who comes without a token is sent for one, as clients expect.
pub(crate) async fn ping(State(fleet): State<Arc<Fleet>>, headers: HeaderMap) -> Response {
    match access::rights(&fleet, &headers).await {
        Ok(Rights::Nobody) => access::challenge(&headers),
        Ok(_) => ([("docker-distribution-api-version", "registry/2.0")], "{}").into_response(),
        Err(e) => unavailable(&e),
    }
}

/// Everything below `/v2/`.
pub(crate) async fn serve(
    State(fleet): State<Arc<Fleet>>,
    extract::Path(path): extract::Path<String>,
    extract::Query(query): extract::Query<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let (method, headers) = (head.method, head.headers);
    let rights = match access::rights(&fleet, &headers).await {
        Ok(rights) => rights,
        Err(e) => return unavailable(&e),
    };
    let reads = matches!(method, Method::GET | Method::HEAD) && !push::is_upload(&path);
    match rights {
        Rights::Push(_) if !reads => {
            let push = push::Push { fleet: &fleet, method, headers: &headers, query, body };
            return push.answer(&path).await;
        }
        Rights::Push(_) | Rights::Pull if reads => {}
        Rights::Nobody if reads && fleet.registry().keeper.open => {}
        Rights::Pull => {
            return refuse(StatusCode::FORBIDDEN, "DENIED", "this token is for pulling only");
        }
        _ => return access::challenge(&headers),
    }
    let range = headers.get(header::RANGE).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let head = method == Method::HEAD;
    match pushed(&fleet, &path, head, range.as_deref()).await {
        Ok(Some(response)) => return response,
        Ok(None) => {}
        Err(e) => return unavailable(&e),
    }
    let registry = fleet.registry().clone();
    let answer = move || answer(&registry, &path, head, range.as_deref());
    match tokio::task::spawn_blocking(answer).await {
        Ok(response) => response,
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "UNKNOWN", "the request was given up"),
    }
}

fn unavailable(e: &(dyn std::error::Error + 'static)) -> Response {
    tracing::error!("registry: {}", model::chain(e));
    // What failed may be told to anyone; where it is, may not.
    refuse(StatusCode::SERVICE_UNAVAILABLE, "UNKNOWN", &format!("{e}; try again later"))
}

/// The answer from what was pushed. `None`: nobody pushed it.
async fn pushed(
    fleet: &Fleet,
    path: &str,
    head: bool,
    range: Option<&str>,
) -> Result<Option<Response>, ImageError> {
    let images = fleet.registry().images();
    match want(path) {
        Some(Want::Manifest { repository, reference }) => {
            let digest = match reference.parse::<Digest>() {
                Ok(digest) => digest,
                Err(_) => {
                    let tags = images.tags();
                    let is = |name: &str| name == repository || name == short(repository);
                    let tag = tags.iter().find(|t| t.tag == reference && is(&t.repository));
                    let Some(tag) = tag else { return Ok(None) };
                    tag.digest
                }
            };
            let mut kind = images.db.manifest(repository, &digest).await?;
            if kind.is_none() {
                kind = images.db.manifest(short(repository), &digest).await?;
            }
            let Some(kind) = kind else { return Ok(None) };
            let Some(bytes) = images.read(&digest, MANIFEST_MAX.0).await? else { return Ok(None) };
            Ok(Some(manifest_answer(&digest, kind, bytes, head)))
        }
        Some(Want::Blob { digest }) => {
            let Ok(digest) = digest.parse::<Digest>() else { return Ok(None) };
            let Some(blob) = images.db.blob(&digest).await? else { return Ok(None) };
            Ok(Some(sent(images, blob, head, range).await))
        }
        _ => Ok(None),
    }
}

fn manifest_answer(digest: &Digest, kind: String, bytes: Vec<u8>, head: bool) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_LENGTH, bytes.len().to_string()),
        (header::ETAG, format!("\"{digest}\"")),
    ];
    let name = [("docker-content-digest", digest.to_string())];
    let body = if head { Body::empty() } else { Body::from(bytes) };
    (headers, name, body).into_response()
}

/// Reads from the layout; runs where blocking is allowed.
fn answer(registry: &Registry, path: &str, head: bool, range: Option<&str>) -> Response {
    let Some(want) = want(path) else {
        return refuse(StatusCode::NOT_FOUND, "NAME_INVALID", "no such path in a registry");
    };
    let done = match want {
        Want::Manifest { repository, reference } => manifest(registry, repository, reference, head),
        Want::Blob { digest } => blob(registry, digest, head, range),
        Want::Tags { repository } => tags(registry, repository),
    };
    done.unwrap_or_else(|e| {
        let status = match e {
            StoreError::Missing { .. } => StatusCode::NOT_FOUND,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        tracing::warn!(path, "registry: {}", model::chain(&e));
        refuse(status, "UNKNOWN", &model::chain(&e))
    })
}

fn manifest(
    registry: &Registry,
    repository: &str,
    reference: &str,
    head: bool,
) -> Result<Response, StoreError> {
    let unknown = || {
        let text = format!("there is no {repository}:{reference}");
        refuse(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", &text)
    };
    let Some(layout) = registry.layout()? else { return Ok(unknown()) };
    let digest = match reference.parse::<Digest>() {
        Ok(digest) => digest,
        Err(_) => match registry.resolve(&format!("{repository}:{reference}"))? {
            Some((digest, _)) => digest,
            None => return Ok(unknown()),
        },
    };
    if !layout.has(&digest, None) {
        return Ok(unknown());
    }
    let bytes = layout.read(&digest, MANIFEST_MAX)?;
    let kind = media_type_of(&bytes);
    Ok(manifest_answer(&digest, kind, bytes, head))
}

/// What a manifest calls itself; an old one that does not is told by its fields.
fn media_type_of(manifest: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(manifest).unwrap_or_default();
    match value["mediaType"].as_str() {
        Some(kind) if kind.chars().all(|c| c.is_ascii_graphic()) => kind.to_owned(),
        _ if value["manifests"].is_array() => media_type::INDEX.to_owned(),
        _ => media_type::MANIFEST.to_owned(),
    }
}

fn blob(
    registry: &Registry,
    digest: &str,
    head: bool,
    range: Option<&str>,
) -> Result<Response, StoreError> {
    let unknown =
        || refuse(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", &format!("there is no blob {digest}"));
    let Ok(digest) = digest.parse::<Digest>() else {
        return Ok(refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "the digest is none"));
    };
    let Some(layout) = registry.layout()? else { return Ok(unknown()) };
    if !layout.has(&digest, None) {
        return Ok(unknown());
    }
    let (mut file, size) = layout.open_blob(&digest)?;
    let part = match range.map(|r| parse_range(r, size.0)) {
        None | Some(Range::Whole) => None,
        Some(Range::Part(from, to)) => Some((from, to)),
        Some(Range::Outside) => {
            let all = [(header::CONTENT_RANGE, format!("bytes */{}", size.0))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, all).into_response());
        }
    };
    let (from, to) = part.unwrap_or((0, size.0));
    file.seek(std::io::SeekFrom::Start(from)).map_err(|source| StoreError::Io {
        doing: "seek in",
        path: layout.blob_path(&digest),
        source,
    })?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, (to - from).to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, format!("\"{digest}\"")),
    ];
    let name = [("docker-content-digest", digest.to_string())];
    let body = if head { Body::empty() } else { body::from_file(file, to - from) };
    Ok(match part {
        None => (headers, name, body).into_response(),
        Some((from, to)) => {
            let range = format!("bytes {from}-{}/{}", to - 1, size.0);
            let range = [(header::CONTENT_RANGE, range)];
            (StatusCode::PARTIAL_CONTENT, headers, name, range, body).into_response()
        }
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// Not a range we serve in part: everything is always a right answer.
    Whole,
    /// From, and up to without.
    Part(u64, u64),
    /// Nothing of it is there.
    Outside,
}

/// One range of bytes (RFC 9110, 14.1.2); several at once are answered with everything.
fn parse_range(text: &str, size: u64) -> Range {
    let Some((from, to)) = text.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else {
        return Range::Whole;
    };
    match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), _) if from >= size => Range::Outside,
        (Ok(from), Ok(to)) if to >= from => Range::Part(from, to.saturating_add(1).min(size)),
        (Ok(from), Err(_)) if to.is_empty() => Range::Part(from, size),
        (Err(_), Ok(0)) if from.is_empty() => Range::Outside,
        (Err(_), Ok(last)) if from.is_empty() && size > 0 => {
            Range::Part(size.saturating_sub(last), size)
        }
        _ => Range::Whole,
    }
}

fn tags(registry: &Registry, repository: &str) -> Result<Response, StoreError> {
    let names = registry.names()?;
    let tags: Vec<&str> = names
        .iter()
        .filter_map(|n| n.rsplit_once(':'))
        .filter(|(name, _)| *name == repository || *name == short(repository))
        .map(|(_, tag)| tag)
        .collect();
    if tags.is_empty() {
        let text = format!("there is no {repository}");
        return Ok(refuse(StatusCode::NOT_FOUND, "NAME_UNKNOWN", &text));
    }
    Ok(axum::Json(json!({ "name": repository, "tags": tags })).into_response())
}

fn refuse(status: StatusCode, code: &str, text: &str) -> Response {
    let body = json!({ "errors": [{ "code": code, "message": text }] });
    (status, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart() {
        for (path, is) in [
            (
                "eve/hello/manifests/1",
                Some(Want::Manifest { repository: "eve/hello", reference: "1" }),
            ),
            ("a/blobs/sha256:0", Some(Want::Blob { digest: "sha256:0" })),
            ("a/b/tags/list", Some(Want::Tags { repository: "a/b" })),
            ("manifests/1", None),
            ("a/uploads/1", None),
            ("", None),
        ] {
            assert_eq!(want(path), is, "{path}");
        }
    }

    #[test]
    fn ranges_are_read_as_http_says() {
        for (text, range) in [
            ("bytes=0-4", Range::Part(0, 5)),
            ("bytes=5-", Range::Part(5, 10)),
            ("bytes=-3", Range::Part(7, 10)),
            ("bytes=-30", Range::Part(0, 10)),
            ("bytes=2-100", Range::Part(2, 10)),
            ("bytes=10-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=4-2", Range::Whole),
            ("bytes=0-1,4-5", Range::Whole),
            ("lines=1-2", Range::Whole),
            ("bytes=0-18446744073709551615", Range::Part(0, 10)),
        ] {
            assert_eq!(parse_range(text, 10), range, "{text}");
        }
    }

    #[test]
    fn names_are_shown_short() {
        assert_eq!(short("docker.io/library/hello:1"), "hello:1");
        assert_eq!(short("docker.io/eve/hello:1"), "eve/hello:1");
        assert_eq!(short("box:5000/hello:1"), "box:5000/hello:1");
    }
}
