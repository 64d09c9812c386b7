//! Pushing (OCI distribution spec 1.1, "Push" and "Content management"): uploads that go on where
//! they stopped, manifests, tags; deletion.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::Digest;
use store::MANIFEST_MAX;
use uuid::Uuid;

use super::{media_type_of, refuse};
use crate::body;
use crate::db::Tag;
use crate::fleet::Fleet;
use crate::images::{ImageError, is_name};

/// What changes something below `/v2/`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act<'a> {
    Begin { repository: &'a str },
    Upload { repository: &'a str, id: Uuid },
    Manifest { repository: &'a str, reference: &'a str },
    Blob { repository: &'a str, digest: &'a str },
}

pub(super) fn act(path: &str) -> Option<Act<'_>> {
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    if let Some(repository) = trimmed.strip_suffix("/blobs/uploads") {
        return Some(Act::Begin { repository });
    }
    let (front, last) = path.rsplit_once('/')?;
    if let Some(repository) = front.strip_suffix("/blobs/uploads") {
        return Some(Act::Upload { repository, id: Uuid::parse_str(last).ok()? });
    }
    let (repository, what) = front.rsplit_once('/')?;
    match what {
        "manifests" => Some(Act::Manifest { repository, reference: last }),
        "blobs" => Some(Act::Blob { repository, digest: last }),
        _ => None,
    }
}

/// Whether a path is one of an upload: reading it is part of pushing.
pub(super) fn is_upload(path: &str) -> bool {
    matches!(act(path), Some(Act::Begin { .. } | Act::Upload { .. }))
}

/// A request that changes something, from somebody who may.
pub(super) struct Push<'a> {
    pub(super) fleet: &'a Arc<Fleet>,
    pub(super) method: Method,
    pub(super) headers: &'a HeaderMap,
    /// The query of the URL, read.
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Body,
}

impl Push<'_> {
    pub(super) async fn answer(self, path: &str) -> Response {
        let act = act(path);
        let repository = match &act {
            Some(
                Act::Begin { repository }
                | Act::Upload { repository, .. }
                | Act::Manifest { repository, .. }
                | Act::Blob { repository, .. },
            ) => *repository,
            None => {
                return refuse(StatusCode::NOT_FOUND, "NAME_INVALID", "no such path in a registry");
            }
        };
        if !is_name(repository) || repository.contains(char::is_uppercase) {
            let text = "repositories are called like eve/hello";
            return refuse(StatusCode::BAD_REQUEST, "NAME_INVALID", text);
        }
        let done = match (act, self.method.as_str()) {
            (Some(Act::Begin { repository }), "POST") => self.begin(repository).await,
            (Some(Act::Upload { repository, id }), "GET" | "HEAD") => {
                self.state(repository, id).await
            }
            (Some(Act::Upload { repository, id }), "PATCH") => self.append(repository, id).await,
            (Some(Act::Upload { repository, id }), "PUT") => self.finish(repository, id).await,
            (Some(Act::Upload { id, .. }), "DELETE") => self
                .fleet
                .registry()
                .images()
                .cancel(id)
                .await
                .map(|()| StatusCode::NO_CONTENT.into_response()),
            (Some(Act::Manifest { repository, reference }), "PUT") => {
                self.manifest(repository, reference).await
            }
            (Some(Act::Manifest { repository, reference }), "DELETE") => {
                self.forget(repository, reference).await
            }
            // Contents belong to no repository of their own: they go when nothing refers to them.
            _ => Ok(refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this cannot be done")),
        };
        done.unwrap_or_else(|e| failed(&e))
    }

    fn asked(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    async fn begin(self, repository: &str) -> Result<Response, ImageError> {
        let images = self.fleet.registry().images();
        if let Some(digest) = self.asked("mount").and_then(|d| d.parse::<Digest>().ok())
            && images.db.use_blob(&digest, self.fleet.now()).await?
        {
            return Ok(created_blob(repository, &digest));
        }
        let id = Uuid::new_v4();
        images.begin(id, repository, self.fleet.now()).await?;
        if self.asked("digest").is_some() {
            return self.finish(repository, id).await;
        }
        Ok(under_way(StatusCode::ACCEPTED, repository, id, 0))
    }

    async fn state(self, repository: &str, id: Uuid) -> Result<Response, ImageError> {
        let upload = self.fleet.registry().images().upload(id, repository).await?;
        let have = upload.ok_or(ImageError::NoUpload)?.size;
        Ok(under_way(StatusCode::NO_CONTENT, repository, id, have))
    }

    async fn append(self, repository: &str, id: Uuid) -> Result<Response, ImageError> {
        let at = match self.headers.get(header::CONTENT_RANGE) {
            None => None,
            Some(range) => match first_byte(range) {
                Some(at) => Some(at),
                None => {
                    let text = "the range is none: FIRST-LAST";
                    return Ok(refuse(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", text));
                }
            },
        };
        let images = self.fleet.registry().images();
        match images.append(id, repository, at, self.body, self.fleet.clock()).await {
            Ok(have) => Ok(under_way(StatusCode::ACCEPTED, repository, id, have)),
            Err(ImageError::Gap { have }) => {
                Ok(under_way(StatusCode::RANGE_NOT_SATISFIABLE, repository, id, have))
            }
            Err(e) => Err(e),
        }
    }

    async fn finish(self, repository: &str, id: Uuid) -> Result<Response, ImageError> {
        let Some(digest) = self.asked("digest").and_then(|d| d.parse::<Digest>().ok()) else {
            let text = "the digest is missing or no SHA-256";
            return Ok(refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID", text));
        };
        let (images, clock) = (self.fleet.registry().images(), self.fleet.clock());
        images.append(id, repository, None, self.body, clock).await?;
        images.finish(id, repository, digest, clock()).await?;
        Ok(created_blob(repository, &digest))
    }

    async fn manifest(self, repository: &str, reference: &str) -> Result<Response, ImageError> {
        let invalid = |text: &str| refuse(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", text);
        let bytes = match body::read(self.headers, self.body, MANIFEST_MAX).await {
            Ok(bytes) => bytes,
            Err(status) => {
                let text = format!("a manifest has at most {MANIFEST_MAX}");
                return Ok(refuse(status, "SIZE_INVALID", &text));
            }
        };
        let Some(refers) = refers(&bytes) else {
            return Ok(invalid("this is no manifest of an image and no index of some"));
        };
        let (images, now) = (self.fleet.registry().images(), self.fleet.now());
        let digest = images.keep(bytes.clone(), now).await?;
        let tag = match reference.parse::<Digest>() {
            Ok(named) if named == digest => String::new(),
            Ok(_) => {
                let text = format!("the manifest has the digest {digest}");
                return Ok(refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID", &text));
            }
            Err(_) if is_tag(reference) => reference.to_owned(),
            Err(_) => return Ok(invalid("this is no tag")),
        };
        let media_type = media_type_of(&bytes);
        let tag = Tag { repository: repository.to_owned(), tag, digest, media_type };
        if let Some(missing) = images.db.put_manifest(&tag, &refers, now).await? {
            let text = format!("it refers to {missing}, which was not pushed");
            return Ok(refuse(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", &text));
        }
        images.follow().await?;
        let place = format!("/v2/{repository}/manifests/{digest}");
        let name = [("docker-content-digest", digest.to_string())];
        Ok((StatusCode::CREATED, [(header::LOCATION, place)], name).into_response())
    }

    async fn forget(self, repository: &str, reference: &str) -> Result<Response, ImageError> {
        let images = self.fleet.registry().images();
        let gone = match reference.parse::<Digest>() {
            Ok(digest) => images.db.forget_manifest(repository, &digest).await?,
            Err(_) => images.db.untag(repository, reference).await?,
        };
        images.follow().await?;
        if gone {
            Ok(StatusCode::ACCEPTED.into_response())
        } else {
            let text = format!("nobody pushed {repository}:{reference}");
            Ok(refuse(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", &text))
        }
    }
}

/// The contents a manifest or an index needs. `None`: it is neither. Layers that lie elsewhere by
/// licence (`urls`) are not needed.
fn refers(bytes: &[u8]) -> Option<Vec<Digest>> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let mut all = Vec::new();
    let (config, layers, manifests) = (&value["config"], &value["layers"], &value["manifests"]);
    let many = match (layers.as_array(), manifests.as_array()) {
        (Some(layers), None) if config.is_object() => {
            all.push(config);
            layers
        }
        (None, Some(manifests)) => manifests,
        _ => return None,
    };
    all.extend(many.iter().filter(|l| l["urls"].as_array().is_none_or(Vec::is_empty)));
    all.into_iter().map(|d| d["digest"].as_str()?.parse().ok()).collect()
}

fn is_tag(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let rest = |b: u8| plain(b) || b == b'.' || b == b'-';
    text.len() <= 128 && text.bytes().next().is_some_and(plain) && text.bytes().all(rest)
}

/// `0-99`, as the distribution spec has it, or `bytes 0-99/*`, as HTTP has.
pub(crate) fn first_byte(range: &HeaderValue) -> Option<u64> {
    let text = range.to_str().ok()?;
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    text.split_once('-')?.0.trim().parse().ok()
}

fn under_way(status: StatusCode, repository: &str, id: Uuid, have: u64) -> Response {
    let place = format!("/v2/{repository}/blobs/uploads/{id}");
    // Of nothing this is wrong, but what everybody says.
    let range = format!("0-{}", have.saturating_sub(1));
    let head = [(header::LOCATION, place), (header::RANGE, range)];
    (status, head, [("docker-upload-uuid", id.to_string())]).into_response()
}

fn created_blob(repository: &str, digest: &Digest) -> Response {
    let place = format!("/v2/{repository}/blobs/{digest}");
    let name = [("docker-content-digest", digest.to_string())];
    (StatusCode::CREATED, [(header::LOCATION, place)], name).into_response()
}

fn failed(e: &ImageError) -> Response {
    let (status, code) = match e {
        ImageError::NoUpload => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
        ImageError::Gap { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
        ImageError::Broken { .. } => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
        ImageError::Other { .. } => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
        ImageError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
        ImageError::TooMany => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
        ImageError::Blob(_) | ImageError::Db(_) => (StatusCode::SERVICE_UNAVAILABLE, "UNKNOWN"),
    };
    if status == StatusCode::SERVICE_UNAVAILABLE {
        tracing::error!("registry: {}", model::chain(e));
    }
    refuse(status, code, &model::chain(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart() {
        let id = Uuid::from_u128(7);
        let upload = format!("a/b/blobs/uploads/{id}");
        for (path, is) in [
            ("a/blobs/uploads", Some(Act::Begin { repository: "a" })),
            ("a/b/blobs/uploads/", Some(Act::Begin { repository: "a/b" })),
            (upload.as_str(), Some(Act::Upload { repository: "a/b", id })),
            ("a/blobs/uploads/x", None),
            ("a/manifests/1", Some(Act::Manifest { repository: "a", reference: "1" })),
            ("a/blobs/x", Some(Act::Blob { repository: "a", digest: "x" })),
            ("blobs/uploads/", None),
            ("", None),
        ] {
            assert_eq!(act(path), is, "{path}");
        }
    }

    #[test]
    fn what_a_manifest_needs_is_told() {
        let (a, b) = (Digest([1; 32]), Digest([2; 32]));
        let of = |text: String| refers(text.as_bytes());
        let config = format!(r#""config": {{"digest": "{a}"}}"#);
        let layer = format!(r#"{{"digest": "{b}"}}"#);
        assert_eq!(of(format!(r#"{{{config}, "layers": [{layer}]}}"#)), Some(vec![a, b]));
        let foreign = format!(r#"{{"digest": "{b}", "urls": ["https://x"]}}"#);
        assert_eq!(of(format!(r#"{{{config}, "layers": [{foreign}]}}"#)), Some(vec![a]));
        assert_eq!(of(format!(r#"{{"manifests": [{layer}]}}"#)), Some(vec![b]));
        for bad in ["{}", "[]", "", r#"{"layers": []}"#, r#"{"manifests": [{"digest": "md5:0"}]}"#]
        {
            assert_eq!(of(bad.to_owned()), None, "{bad}");
        }
    }

    #[test]
    fn ranges_begin_somewhere() {
        for (text, at) in [
            ("0-99", Some(0)),
            ("100-199", Some(100)),
            ("bytes 5-9/10", Some(5)),
            ("bytes */10", None),
            ("-5", None),
            ("x", None),
        ] {
            assert_eq!(first_byte(&HeaderValue::from_static(text)), at, "{text}");
        }
    }
}
