//! What lies in the object store, what comes in, and which images and files are made of it.

use model::{Digest, UnixMillis};
use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::{Db, DbError, Doing, Tx, signed, text, unsigned};
use crate::blobs::Place;

/// A part of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Where it begins in the whole.
    pub(crate) at: u64,
    /// Bytes; never 0.
    pub(crate) size: u64,
    pub(crate) place: Place,
}

/// A content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// In order, without gaps.
    pub(crate) parts: Vec<Part>,
}

/// A content that comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upload {
    pub(crate) id: Uuid,
    /// What it is for: `REPOSITORY` of the registry, or `file NAME`.
    pub(crate) target: String,
    /// What is there.
    pub(crate) size: u64,
    /// The state of SHA-256 over it.
    pub(crate) hash: Vec<u8>,
}

/// What a tag stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
}

/// A single file: a disk image, an ISO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageFile {
    pub(crate) name: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) author: String,
    pub(crate) at: UnixMillis,
}

/// What keeps a content: every table that names one. Whoever adds a table adds it here.
const KEPT: &str = "EXISTS (SELECT 1 FROM manifests m WHERE m.digest = blobs.digest)
    OR EXISTS (SELECT 1 FROM manifest_blobs m WHERE m.digest = blobs.digest)
    OR EXISTS (SELECT 1 FROM image_files f WHERE f.digest = blobs.digest)
    OR EXISTS (SELECT 1 FROM messages m WHERE m.blob = blobs.digest)
    OR EXISTS (SELECT 1 FROM log_bundles b WHERE b.blob = blobs.digest)
    OR EXISTS (SELECT 1 FROM info_history i WHERE i.blob = blobs.digest)";

/// Contents that are forgotten in one transaction.
const FORGET_AT_ONCE: usize = 250;

/// Changes with every change of tags, so that other processes see that there was one.
const TAGS_MARK: &str = "tags-mark";

pub(super) fn digest(raw: Vec<u8>) -> Result<Digest, DbError> {
    let damaged = |raw: Vec<u8>| DbError::Damaged { what: "digest".into(), why: hex::encode(raw) };
    raw.try_into().map(Digest).map_err(damaged)
}

fn part(row: &AnyRow) -> Result<Part, sqlx::Error> {
    Ok(Part {
        at: unsigned(row.try_get(0)?),
        size: unsigned(row.try_get(1)?),
        place: Place::stored(row.try_get(2)?),
    })
}

impl Db {
    /// A content, with its parts.
    pub(crate) async fn blob(&self, of: &Digest) -> Result<Option<Blob>, DbError> {
        let doing = "look up a content";
        let row = sqlx::query("SELECT size FROM blobs WHERE digest = $1")
            .bind(of.0.as_slice())
            .fetch_optional(self.read())
            .await
            .doing(doing)?;
        let Some(row) = row else { return Ok(None) };
        let size = unsigned(row.try_get(0).doing(doing)?);
        let rows =
            sqlx::query("SELECT at, size, place FROM blob_parts WHERE digest = $1 ORDER BY at")
                .bind(of.0.as_slice())
                .fetch_all(self.read())
                .await
                .doing(doing)?;
        let parts = rows.iter().map(part).collect::<Result<_, _>>().doing(doing)?;
        Ok(Some(Blob { digest: *of, size, parts }))
    }

    /// Notes that somebody wants a content to stay; false: there is none.
    pub(crate) async fn use_blob(&self, of: &Digest, now: UnixMillis) -> Result<bool, DbError> {
        let sql = "UPDATE blobs SET used_ms = $2 WHERE digest = $1";
        let query = sqlx::query(sql).bind(of.0.as_slice()).bind(signed(now.0));
        let done = query.execute(self.write()).await.doing("note the use of a content")?;
        Ok(done.rows_affected() > 0)
    }

    /// Notes a content of one part; false: it is there already, the part is not needed.
    pub(crate) async fn add_blob(&self, blob: &Blob, now: UnixMillis) -> Result<bool, DbError> {
        let mut tx = self.begin().await?;
        let new = add_blob(&mut tx, blob, now).await?;
        tx.commit().await.doing("note a content")?;
        Ok(new)
    }

    /// An upload that is under way.
    pub(crate) async fn upload(&self, id: Uuid) -> Result<Option<Upload>, DbError> {
        let doing = "look up an upload";
        let row = sqlx::query("SELECT target, size, hash FROM uploads WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.write())
            .await
            .doing(doing)?;
        let upload = |row: AnyRow| {
            Ok(Upload {
                id,
                target: row.try_get(0)?,
                size: unsigned(row.try_get(1)?),
                hash: row.try_get(2)?,
            })
        };
        row.map(upload).transpose().doing(doing)
    }

    /// Begins an upload, or finds it begun.
    pub(crate) async fn begin_upload(
        &self,
        upload: &Upload,
        now: UnixMillis,
    ) -> Result<(), DbError> {
        let sql = "INSERT INTO uploads VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING";
        sqlx::query(sql)
            .bind(upload.id.as_bytes().as_slice())
            .bind(text(&upload.target))
            .bind(signed(upload.size))
            .bind(upload.hash.as_slice())
            .bind(signed(now.0))
            .execute(self.write())
            .await
            .doing("begin an upload")
            .map(drop)
    }

    /// How many uploads are under way.
    pub(crate) async fn uploads(&self) -> Result<u64, DbError> {
        let doing = "count uploads";
        let row = sqlx::query("SELECT count(*) FROM uploads").fetch_one(self.read()).await;
        Ok(unsigned(row.doing(doing)?.try_get(0).doing(doing)?))
    }

    /// Adds a part to an upload that is as long as the part begins. False: it is not; somebody else
    /// was faster, or it is gone.
    pub(crate) async fn add_part(
        &self,
        id: Uuid,
        part: &Part,
        hash: &[u8],
        now: UnixMillis,
    ) -> Result<bool, DbError> {
        let doing = "keep a part of an upload";
        let mut tx = self.begin().await?;
        let sql = "UPDATE uploads SET size = $3, hash = $4, touched_ms = $5
                   WHERE id = $1 AND size = $2";
        let grown = sqlx::query(sql)
            .bind(id.as_bytes().as_slice())
            .bind(signed(part.at))
            .bind(signed(part.at.saturating_add(part.size)))
            .bind(hash)
            .bind(signed(now.0))
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        if grown.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("INSERT INTO upload_parts VALUES ($1, $2, $3, $4)")
            .bind(id.as_bytes().as_slice())
            .bind(signed(part.at))
            .bind(signed(part.size))
            .bind(part.place.as_str())
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        tx.commit().await.doing(doing)?;
        Ok(true)
    }

    /// Makes a content of an upload of this size. Returns the places nobody needs: all, if the
    /// content was there. `None`: the upload is gone or of another size.
    pub(crate) async fn finish_upload(
        &self,
        id: Uuid,
        digest: Digest,
        size: u64,
        now: UnixMillis,
    ) -> Result<Option<Vec<Place>>, DbError> {
        let mut tx = self.begin().await?;
        let Some((found, parts)) = take_upload(&mut tx, id).await? else { return Ok(None) };
        if found != size {
            return Ok(None);
        }
        let blob = Blob { digest, size, parts };
        let new = add_blob(&mut tx, &blob, now).await?;
        tx.commit().await.doing("finish an upload")?;
        let places = blob.parts.into_iter().filter(|_| !new).map(|p| p.place);
        Ok(Some(places.collect()))
    }

    /// Gives an upload up; what it left.
    pub(crate) async fn drop_upload(&self, id: Uuid) -> Result<Vec<Place>, DbError> {
        let mut tx = self.begin().await?;
        let taken = take_upload(&mut tx, id).await?;
        tx.commit().await.doing("give an upload up")?;
        Ok(taken.map(|(_, parts)| parts.into_iter().map(|p| p.place).collect()).unwrap_or_default())
    }

    /// Uploads that nobody has touched since then.
    pub(crate) async fn stale_uploads(
        &self,
        since: UnixMillis,
        limit: u32,
    ) -> Result<Vec<Uuid>, DbError> {
        let doing = "look for stale uploads";
        let rows = sqlx::query("SELECT id FROM uploads WHERE touched_ms < $1 LIMIT $2")
            .bind(signed(since.0))
            .bind(i64::from(limit))
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        let ids = rows.iter().map(|r| r.try_get::<Vec<u8>, _>(0)).collect::<Result<Vec<_>, _>>();
        Ok(ids.doing(doing)?.iter().filter_map(|id| Uuid::from_slice(id).ok()).collect())
    }

    /// Looks at up to `limit` contents that nobody wanted since then, from the one behind `after` on,
    /// and forgets those that nothing refers to. What they left in the object store, and the last
    /// that was looked at, if there may be more.
    pub(crate) async fn forget_blobs(
        &self,
        after: Option<(UnixMillis, Digest)>,
        since: UnixMillis,
        limit: u32,
    ) -> Result<(Vec<Place>, Option<(UnixMillis, Digest)>), DbError> {
        let doing = "forget contents";
        // Most stay: who kept looking at the oldest would look at the same ones for ever.
        let look = format!(
            "SELECT digest, used_ms, CAST(CASE WHEN {KEPT} THEN 1 ELSE 0 END AS BIGINT)
             FROM blobs
             WHERE used_ms >= $1 AND used_ms < $2 AND (used_ms > $1 OR digest > $3)
             ORDER BY used_ms, digest LIMIT $4"
        );
        let (used, digest_after) = after.map(|(at, d)| (at.0, d.0.to_vec())).unwrap_or_default();
        let rows = sqlx::query(sqlx::AssertSqlSafe(look))
            .bind(signed(used))
            .bind(signed(since.0))
            .bind(digest_after)
            .bind(i64::from(limit))
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        let mut lost = Vec::new();
        let mut last = None;
        for row in &rows {
            let raw: Vec<u8> = row.try_get(0).doing(doing)?;
            let used = UnixMillis(unsigned(row.try_get(1).doing(doing)?));
            let kept = row.try_get::<i64, _>(2).doing(doing)? != 0;
            last = Some((used, digest(raw.clone())?));
            if !kept {
                lost.push(raw);
            }
        }
        let mut places = Vec::new();
        for some in lost.chunks(FORGET_AT_ONCE) {
            let mut tx = self.begin().await?;
            for raw in some {
                // Again: somebody may have begun to use it.
                places.append(
                    &mut forget_blob(&mut tx, raw, UnixMillis(since.0.saturating_sub(1))).await?,
                );
            }
            tx.commit().await.doing(doing)?;
        }
        let full = rows.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        Ok((places, last.filter(|_| full)))
    }

    /// Whether a place belongs to a content or an upload.
    pub(crate) async fn knows_place(&self, place: &Place) -> Result<bool, DbError> {
        let row = sqlx::query(
            "SELECT 1 FROM blob_parts WHERE place = $1
             UNION ALL SELECT 1 FROM upload_parts WHERE place = $1 LIMIT 1",
        )
        .bind(place.as_str())
        .fetch_optional(self.read())
        .await;
        Ok(row.doing("look up a place")?.is_some())
    }

    /// Keeps a manifest and what it refers to, and its tag. The digest of a content that is not
    /// there, if one is missing; then nothing is kept.
    pub(crate) async fn put_manifest(
        &self,
        manifest: &Tag,
        refers: &[Digest],
        now: UnixMillis,
    ) -> Result<Option<Digest>, DbError> {
        let doing = "keep a manifest";
        let mut tx = self.begin().await?;
        let own = [manifest.digest];
        for needed in own.iter().chain(refers) {
            // Used now: whoever is about to forget it, does not.
            let sql = "UPDATE blobs SET used_ms = $2 WHERE digest = $1";
            let query = sqlx::query(sql).bind(needed.0.as_slice()).bind(signed(now.0));
            if query.execute(&mut *tx).await.doing(doing)?.rows_affected() == 0 {
                return Ok(Some(*needed));
            }
        }
        for refers in refers {
            sqlx::query("INSERT INTO manifest_blobs VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(manifest.digest.0.as_slice())
                .bind(refers.0.as_slice())
                .execute(&mut *tx)
                .await
                .doing(doing)?;
        }
        sqlx::query(
            "INSERT INTO manifests VALUES ($1, $2, $3, $4)
             ON CONFLICT (repository, digest) DO UPDATE SET media_type = $3",
        )
        .bind(text(&manifest.repository))
        .bind(manifest.digest.0.as_slice())
        .bind(text(&manifest.media_type))
        .bind(signed(now.0))
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        if !manifest.tag.is_empty() {
            sqlx::query(
                "INSERT INTO tags VALUES ($1, $2, $3, $4)
                 ON CONFLICT (repository, tag) DO UPDATE SET digest = $3, at_ms = $4",
            )
            .bind(text(&manifest.repository))
            .bind(text(&manifest.tag))
            .bind(manifest.digest.0.as_slice())
            .bind(signed(now.0))
            .execute(&mut *tx)
            .await
            .doing(doing)?;
            mark_tags(&mut tx).await?;
        }
        tx.commit().await.doing(doing)?;
        Ok(None)
    }

    /// The media type of a manifest of a repository, if it is one.
    pub(crate) async fn manifest(
        &self,
        repository: &str,
        of: &Digest,
    ) -> Result<Option<String>, DbError> {
        let doing = "look up a manifest";
        let sql = "SELECT media_type FROM manifests WHERE repository = $1 AND digest = $2";
        let row = sqlx::query(sql)
            .bind(text(repository))
            .bind(of.0.as_slice())
            .fetch_optional(self.read())
            .await
            .doing(doing)?;
        row.map(|r| r.try_get(0)).transpose().doing(doing)
    }

    /// Forgets a tag; false: there was none.
    pub(crate) async fn untag(&self, repository: &str, tag: &str) -> Result<bool, DbError> {
        let doing = "forget a tag";
        let mut tx = self.begin().await?;
        let gone = sqlx::query("DELETE FROM tags WHERE repository = $1 AND tag = $2")
            .bind(text(repository))
            .bind(text(tag))
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        mark_tags(&mut tx).await?;
        tx.commit().await.doing(doing)?;
        Ok(gone.rows_affected() > 0)
    }

    /// Forgets a manifest and its tags; false: there was none.
    pub(crate) async fn forget_manifest(
        &self,
        repository: &str,
        of: &Digest,
    ) -> Result<bool, DbError> {
        let doing = "forget a manifest";
        let mut tx = self.begin().await?;
        let mut gone = 0;
        for sql in [
            "DELETE FROM tags WHERE repository = $1 AND digest = $2",
            "DELETE FROM manifests WHERE repository = $1 AND digest = $2",
        ] {
            let query = sqlx::query(sql).bind(text(repository)).bind(of.0.as_slice());
            gone = query.execute(&mut *tx).await.doing(doing)?.rows_affected();
        }
        sqlx::query(
            "DELETE FROM manifest_blobs WHERE manifest = $1
             AND NOT EXISTS (SELECT 1 FROM manifests WHERE digest = $1)",
        )
        .bind(of.0.as_slice())
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        mark_tags(&mut tx).await?;
        tx.commit().await.doing(doing)?;
        Ok(gone > 0)
    }

    /// Changes whenever a tag does.
    pub(crate) async fn tags_mark(&self) -> Result<Vec<u8>, DbError> {
        let doing = "look at the tags";
        let row = sqlx::query("SELECT value FROM meta WHERE key = $1")
            .bind(TAGS_MARK)
            .fetch_optional(self.read())
            .await
            .doing(doing)?;
        Ok(row.map(|r| r.try_get(0)).transpose().doing(doing)?.unwrap_or_default())
    }

    /// All tags, by name.
    pub(crate) async fn tags(&self) -> Result<Vec<Tag>, DbError> {
        let doing = "read the tags";
        let rows = sqlx::query(
            "SELECT t.repository, t.tag, t.digest, m.media_type FROM tags t
             JOIN manifests m ON m.repository = t.repository AND m.digest = t.digest
             ORDER BY t.repository, t.tag",
        )
        .fetch_all(self.read())
        .await
        .doing(doing)?;
        let tag = |row: &AnyRow| {
            Ok(Tag {
                repository: row.try_get(0).doing(doing)?,
                tag: row.try_get(1).doing(doing)?,
                digest: digest(row.try_get(2).doing(doing)?)?,
                media_type: row.try_get(3).doing(doing)?,
            })
        };
        rows.iter().map(tag).collect()
    }

    /// Gives a content a name, instead of what had it. False: there is no such content.
    pub(crate) async fn put_image_file(&self, file: &ImageFile) -> Result<bool, DbError> {
        let doing = "keep an image file";
        let mut tx = self.begin().await?;
        let used = sqlx::query("UPDATE blobs SET used_ms = $2 WHERE digest = $1")
            .bind(file.digest.0.as_slice())
            .bind(signed(file.at.0))
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        if used.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO image_files VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name)
             DO UPDATE SET digest = $2, size = $3, author = $4, at_ms = $5",
        )
        .bind(text(&file.name))
        .bind(file.digest.0.as_slice())
        .bind(signed(file.size))
        .bind(text(&file.author))
        .bind(signed(file.at.0))
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        tx.commit().await.doing(doing)?;
        Ok(true)
    }

    /// Forgets the name of a file; false: there was none.
    pub(crate) async fn forget_image_file(&self, name: &str) -> Result<bool, DbError> {
        let query = sqlx::query("DELETE FROM image_files WHERE name = $1").bind(text(name));
        let gone = query.execute(self.write()).await.doing("forget an image file")?;
        Ok(gone.rows_affected() > 0)
    }

    /// One file.
    pub(crate) async fn image_file(&self, name: &str) -> Result<Option<ImageFile>, DbError> {
        let doing = "look up an image file";
        let sql = "SELECT name, digest, size, author, at_ms FROM image_files WHERE name = $1";
        let row = sqlx::query(sql).bind(text(name)).fetch_optional(self.read()).await;
        row.doing(doing)?.map(|row| image_file(&row)).transpose()
    }

    /// All files, by name.
    pub(crate) async fn image_files(&self) -> Result<Vec<ImageFile>, DbError> {
        let sql = "SELECT name, digest, size, author, at_ms FROM image_files ORDER BY name";
        let rows = sqlx::query(sql).fetch_all(self.read()).await.doing("list image files")?;
        rows.iter().map(image_file).collect()
    }
}

fn image_file(row: &AnyRow) -> Result<ImageFile, DbError> {
    let doing = "look up an image file";
    Ok(ImageFile {
        name: row.try_get(0).doing(doing)?,
        digest: digest(row.try_get(1).doing(doing)?)?,
        size: unsigned(row.try_get(2).doing(doing)?),
        author: row.try_get(3).doing(doing)?,
        at: UnixMillis(unsigned(row.try_get(4).doing(doing)?)),
    })
}

async fn mark_tags(tx: &mut Tx) -> Result<(), DbError> {
    let sql = "INSERT INTO meta VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = $2";
    let mark = Uuid::new_v4();
    let query = sqlx::query(sql).bind(TAGS_MARK).bind(mark.as_bytes().as_slice());
    query.execute(&mut **tx).await.doing("note a change of tags").map(drop)
}

pub(super) async fn add_blob(tx: &mut Tx, blob: &Blob, now: UnixMillis) -> Result<bool, DbError> {
    let doing = "note a content";
    let sql = "INSERT INTO blobs VALUES ($1, $2, $3) ON CONFLICT (digest) DO NOTHING";
    let added = sqlx::query(sql)
        .bind(blob.digest.0.as_slice())
        .bind(signed(blob.size))
        .bind(signed(now.0))
        .execute(&mut **tx)
        .await
        .doing(doing)?;
    if added.rows_affected() == 0 {
        sqlx::query("UPDATE blobs SET used_ms = $2 WHERE digest = $1")
            .bind(blob.digest.0.as_slice())
            .bind(signed(now.0))
            .execute(&mut **tx)
            .await
            .doing(doing)?;
        return Ok(false);
    }
    for part in &blob.parts {
        sqlx::query("INSERT INTO blob_parts VALUES ($1, $2, $3, $4)")
            .bind(blob.digest.0.as_slice())
            .bind(signed(part.at))
            .bind(signed(part.size))
            .bind(part.place.as_str())
            .execute(&mut **tx)
            .await
            .doing(doing)?;
    }
    Ok(true)
}

/// Forgets a content that nothing refers to and nobody wanted after `until`: the places it leaves.
pub(super) async fn forget_blob(
    tx: &mut Tx,
    digest: &[u8],
    until: UnixMillis,
) -> Result<Vec<Place>, DbError> {
    let doing = "forget a content";
    let sql = format!("DELETE FROM blobs WHERE digest = $1 AND used_ms <= $2 AND NOT ({KEPT})");
    let gone = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(digest)
        .bind(signed(until.0))
        .execute(&mut **tx)
        .await
        .doing(doing)?;
    if gone.rows_affected() == 0 {
        return Ok(Vec::new());
    }
    let sql = "DELETE FROM blob_parts WHERE digest = $1 RETURNING at, size, place";
    let parts = sqlx::query(sql).bind(digest).fetch_all(&mut **tx).await.doing(doing)?;
    parts.iter().map(|row| Ok(part(row).doing(doing)?.place)).collect()
}

/// Removes an upload: its size and its parts.
async fn take_upload(tx: &mut Tx, id: Uuid) -> Result<Option<(u64, Vec<Part>)>, DbError> {
    let doing = "take an upload";
    let id = id.as_bytes().as_slice();
    let row = sqlx::query("DELETE FROM uploads WHERE id = $1 RETURNING size")
        .bind(id)
        .fetch_optional(&mut **tx)
        .await
        .doing(doing)?;
    let Some(row) = row else { return Ok(None) };
    let size = unsigned(row.try_get(0).doing(doing)?);
    let sql = "DELETE FROM upload_parts WHERE upload = $1 RETURNING at, size, place";
    let rows = sqlx::query(sql).bind(id).fetch_all(&mut **tx).await.doing(doing)?;
    let mut parts = rows.iter().map(part).collect::<Result<Vec<_>, _>>().doing(doing)?;
    parts.sort_by_key(|p| p.at);
    Ok(Some((size, parts)))
}
