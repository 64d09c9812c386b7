//! The image store: contents that come in, piece by piece and in any process, and go out in any part.
//!
//! A content is uploaded once. What came of it is kept part by part, also when the connection breaks:
//! whoever asks how much is there goes on from that byte. It becomes a content when its digest is
//! the one that was promised. The state of the hash is kept with the upload, so nothing is read
//! twice. Where it is served, and to whom, is decided in [`crate::registry`] and
//! [`crate::operator`].

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use model::{Digest, UnixMillis};
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::blobs::{BlobError, BlobWriter, Blobs, Place};
use crate::db::{Blob, Db, DbError, ImageFile, Kept, Laid, Part, Tag, Upload};

/// Larger contents are refused.
pub(crate) const CONTENT_MAX: u64 = 256 << 30;
/// Uploads under way at once, all over.
const UPLOADS_MAX: u64 = 1000;
/// So much of an upload becomes a part: what a broken process loses at most.
const PART: u64 = 64 << 20;
/// So long a sender may take for a piece, and a reader.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why an image could not be taken or given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// There is no such upload, or somebody else goes on with it.
    #[error("there is no such upload, or somebody else goes on with it")]
    NoUpload,
    /// The piece does not follow what is there.
    #[error("{have} bytes are there; the piece does not begin behind them")]
    Gap {
        /// So much is there.
        have: u64,
    },
    /// The sender stopped in the middle.
    #[error("the sender stopped after {have} bytes; they are kept")]
    Broken {
        /// So much is there.
        have: u64,
    },
    /// It is something else than was promised.
    #[error("what came has the digest {found}, not {promised}; it is thrown away")]
    Other {
        /// What came.
        found: Digest,
        /// What was to come.
        promised: Digest,
    },
    /// It is too large.
    #[error("it is larger than {max} bytes")]
    TooLarge {
        /// The greatest size.
        max: u64,
    },
    /// There are too many at once.
    #[error("too many uploads are under way; try again later")]
    TooMany,
    /// The object store failed.
    #[error("cannot keep the image")]
    Blob(#[from] BlobError),
    /// The database failed.
    #[error("cannot keep what is known of the image")]
    Db(#[from] DbError),
}

/// The image store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Images {
    pub(crate) db: Db,
    pub(crate) blobs: Blobs,
    tags: Arc<RwLock<Tags>>,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Tags {
    mark: Vec<u8>,
    all: Arc<Vec<Tag>>,
}

impl Images {
    pub(crate) async fn open(db: Db, blobs: Blobs) -> Result<Images, DbError> {
        let images = Images { db, blobs, tags: Arc::default() };
        images.follow().await?;
        Ok(images)
    }

    /// Takes over tags that changed, by whichever process.
    pub(crate) async fn follow(&self) -> Result<(), DbError> {
        let mark = self.db.tags_mark().await?;
        if self.tags.read().unwrap_or_else(PoisonError::into_inner).mark == mark {
            return Ok(());
        }
        let all = Arc::new(self.db.tags().await?);
        *self.tags.write().unwrap_or_else(PoisonError::into_inner) = Tags { mark, all };
        Ok(())
    }

    /// All tags, as of the last [`Images::follow`].
    pub(crate) fn tags(&self) -> Arc<Vec<Tag>> {
        self.tags.read().unwrap_or_else(PoisonError::into_inner).all.clone()
    }

    /// Begins an upload, or finds the one of this id; how much is there.
    pub(crate) async fn begin(
        &self,
        id: Uuid,
        target: &str,
        now: UnixMillis,
    ) -> Result<u64, ImageError> {
        if let Some(upload) = self.upload(id, target).await? {
            return Ok(upload.size);
        }
        if self.db.uploads().await? >= UPLOADS_MAX {
            return Err(ImageError::TooMany);
        }
        let hash = Sha256::new().serialize().to_vec();
        let upload = Upload { id, target: target.to_owned(), size: 0, hash };
        self.db.begin_upload(&upload, now).await?;
        Ok(0)
    }

    /// The upload of this id, if it is for this target.
    pub(crate) async fn upload(
        &self,
        id: Uuid,
        target: &str,
    ) -> Result<Option<Upload>, ImageError> {
        Ok(self.db.upload(id).await?.filter(|u| u.target == target))
    }

    /// Adds the bytes of a body. `at` is where they begin; `None`: behind what is there. How much is
    /// there then.
    pub(crate) async fn append(
        &self,
        id: Uuid,
        target: &str,
        at: Option<u64>,
        mut body: Body,
        clock: crate::Clock,
    ) -> Result<u64, ImageError> {
        let upload = self.upload(id, target).await?.ok_or(ImageError::NoUpload)?;
        let mut have = upload.size;
        if at.is_some_and(|at| at != have) {
            return Err(ImageError::Gap { have });
        }
        let mut hash = restore(&upload.hash)?;
        let mut open: Option<BlobWriter> = None;
        loop {
            let piece = match tokio::time::timeout(PATIENCE, body.frame()).await {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => piece,
                    Err(_) => continue,
                },
                Ok(None) => {
                    return self.close(id, open, have, &hash, clock()).await;
                }
                // What came is worth keeping.
                Ok(Some(Err(_))) | Err(_) => {
                    let have = self.close(id, open, have, &hash, clock()).await?;
                    return Err(ImageError::Broken { have });
                }
            };
            if piece.is_empty() {
                continue;
            }
            let mut writer = match open.take() {
                Some(writer) => writer,
                None => self.blobs.writer().await?,
            };
            let size = writer.size();
            if have.saturating_add(size).saturating_add(piece.len() as u64) > CONTENT_MAX {
                writer.abort().await;
                return Err(ImageError::TooLarge { max: CONTENT_MAX });
            }
            hash.update(&piece);
            if let Err(e) = writer.push(piece).await {
                writer.abort().await;
                return Err(e.into());
            }
            if writer.size() >= PART {
                have = self.close(id, Some(writer), have, &hash, clock()).await?;
            } else {
                open = Some(writer);
            }
        }
    }

    /// Makes what was written a part of the upload.
    async fn close(
        &self,
        id: Uuid,
        open: Option<BlobWriter>,
        have: u64,
        hash: &Sha256,
        now: UnixMillis,
    ) -> Result<u64, ImageError> {
        let Some(writer) = open else { return Ok(have) };
        let size = writer.size();
        let part = Part { at: have, size, place: writer.finish().await? };
        if self.db.add_part(id, &part, &hash.serialize(), now).await? {
            return Ok(have.saturating_add(size));
        }
        self.blobs.delete(&part.place).await?;
        Err(ImageError::NoUpload)
    }

    /// Makes a content of an upload, if it is what was promised; its size. What is something else is
    /// thrown away.
    pub(crate) async fn finish(
        &self,
        id: Uuid,
        target: &str,
        promised: Digest,
        now: UnixMillis,
    ) -> Result<u64, ImageError> {
        let upload = self.upload(id, target).await?.ok_or(ImageError::NoUpload)?;
        let found = Digest(restore(&upload.hash)?.finalize().into());
        if found != promised {
            self.cancel(id).await?;
            return Err(ImageError::Other { found, promised });
        }
        let done = self.db.finish_upload(id, promised, upload.size, now).await?;
        self.delete(done.ok_or(ImageError::NoUpload)?).await;
        Ok(upload.size)
    }

    /// Gives an upload up.
    pub(crate) async fn cancel(&self, id: Uuid) -> Result<(), ImageError> {
        let places = self.db.drop_upload(id).await?;
        self.delete(places).await;
        Ok(())
    }

    /// What cannot be deleted now is found by the sweep.
    pub(crate) async fn delete(&self, places: Vec<Place>) {
        for e in self.blobs.delete_all(places).await {
            tracing::warn!("{}", model::chain(&e));
        }
    }

    /// Lays bytes down for a row that will name them: those of more than `row` bytes in the object
    /// store, durable before this returns. What no row names in the end is swept.
    pub(crate) async fn lay(&self, bytes: Bytes, row: usize) -> Result<Laid, ImageError> {
        if bytes.len() <= row {
            return Ok(Laid::Row(bytes));
        }
        let (digest, size) = (Digest(Sha256::digest(&bytes).into()), bytes.len() as u64);
        let parts = vec![Part { at: 0, size, place: self.blobs.put(bytes).await? }];
        Ok(Laid::Store(Blob { digest, size, parts }))
    }

    /// What was laid down, at most `max` bytes. `None`: retention was faster, or a backup did not have
    /// it.
    pub(crate) async fn laid(&self, kept: Kept, max: u64) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(digest) = kept.blob else { return Ok(kept.raw) };
        match self.read(&digest, max).await {
            Err(ImageError::Blob(e)) if e.is_missing() => {
                tracing::warn!(row = kept.id, "what a node said is gone: {}", model::chain(&e));
                Ok(None)
            }
            other => other,
        }
    }

    /// Keeps something small.
    pub(crate) async fn keep(&self, bytes: Bytes, now: UnixMillis) -> Result<Digest, ImageError> {
        let digest = Digest(Sha256::digest(&bytes).into());
        if self.db.use_blob(&digest, now).await? {
            return Ok(digest);
        }
        let size = bytes.len() as u64;
        let place = if size > 0 { Some(self.blobs.put(bytes).await?) } else { None };
        let parts: Vec<Part> = place.into_iter().map(|place| Part { at: 0, size, place }).collect();
        let blob = Blob { digest, size, parts };
        if !self.db.add_blob(&blob, now).await? {
            self.delete(blob.parts.into_iter().map(|p| p.place).collect()).await;
        }
        Ok(digest)
    }

    /// Reads something of at most `max` bytes. `None`: it is not there.
    pub(crate) async fn read(&self, of: &Digest, max: u64) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(blob) = self.db.blob(of).await? else { return Ok(None) };
        if blob.size > max {
            return Err(ImageError::TooLarge { max });
        }
        let mut bytes = Vec::new();
        for part in &blob.parts {
            bytes.extend_from_slice(&self.blobs.get(&part.place, part.size).await?);
        }
        Ok(Some(bytes))
    }

    /// A part of a content, piece by piece. Fails while an answer still can say so: what breaks
    /// later breaks the body.
    pub(crate) async fn send(&self, blob: Blob, from: u64, to: u64) -> Result<Body, BlobError> {
        let within = move |part: Part| {
            let end = part.at.saturating_add(part.size);
            let (first, last) = (from.max(part.at), to.min(end));
            let range = first.saturating_sub(part.at)..last.saturating_sub(part.at);
            (first < last).then_some((part.place, range))
        };
        let mut parts = blob.parts.into_iter().filter_map(within);
        let Some((place, range)) = parts.next() else { return Ok(Body::empty()) };
        let mut pieces = self.blobs.read(&place, range).await?;
        let (mut sender, body) = http_body_util::channel::Channel::<Bytes, std::io::Error>::new(2);
        let blobs = self.blobs.clone();
        tokio::spawn(async move {
            loop {
                loop {
                    let piece = match pieces.next().await {
                        Ok(Some(piece)) => piece,
                        Ok(None) => break,
                        Err(e) => return sender.abort(broken(&e)),
                    };
                    // A reader that takes nothing for so long is gone.
                    let sent = tokio::time::timeout(PATIENCE, sender.send_data(piece)).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return;
                    }
                }
                let Some((place, range)) = parts.next() else { return };
                pieces = match blobs.read(&place, range).await {
                    Ok(pieces) => pieces,
                    Err(e) => return sender.abort(broken(&e)),
                };
            }
        });
        Ok(Body::new(body))
    }

    /// Gives a content a name; false: there is no such content.
    pub(crate) async fn name_file(&self, file: &ImageFile) -> Result<bool, ImageError> {
        Ok(self.db.put_image_file(file).await?)
    }
}

fn broken(e: &BlobError) -> std::io::Error {
    tracing::error!("cannot go on with what is being sent: {}", model::chain(e));
    std::io::Error::other("the object store failed")
}

fn restore(state: &[u8]) -> Result<Sha256, DbError> {
    let damaged = |why: String| DbError::Damaged { what: "upload".into(), why };
    let state =
        state.try_into().map_err(|_| damaged(format!("a state of {} bytes", state.len())))?;
    Sha256::deserialize(state).map_err(|e| damaged(e.to_string()))
}

/// Whether a name is one for a file: parts of letters, digits, `.`, `_` and `-` with `/` between
/// them, none of them hidden, 255 bytes at most.
pub(crate) fn is_name(name: &str) -> bool {
    let part = |p: &str| {
        p.starts_with(|c: char| c.is_ascii_alphanumeric())
            && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && !p.contains("..")
    };
    name.len() <= 255 && name.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_none() {
        for good in ["disk.qcow2", "debian/12/disk-1_a.raw", "A"] {
            assert!(is_name(good), "{good}");
        }
        let long = "a".repeat(256);
        for bad in [
            "", "/", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/..", ".hidden", "a\\b", "a b",
            "a\0", "a%2e", "-rf", "ä", "a..b", &long,
        ] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_hash_goes_on_where_it_stopped() {
        let mut hash = Sha256::new();
        hash.update([7; 1000]);
        let mut again = restore(&hash.serialize()).unwrap();
        again.update([8; 77]);
        let whole: Vec<u8> = [[7; 1000].as_slice(), &[8; 77]].concat();
        assert_eq!(again.finalize(), Sha256::digest(&whole));
        assert!(restore(b"short").is_err());
    }
}
