//! The object store: what is too large for a row lies in a folder, or at S3, Google Cloud Storage or
//! Azure.
//!
//! An object gets a name that nobody had before ([`Place`]), is written once, and shows only when it
//! is whole: a folder syncs the file, renames it and syncs the folder; the others show an object when
//! its upload is completed. What a name stands for is kept in the database; nothing is found by
//! listing but what was forgotten.

#[cfg(test)]
pub(crate) mod emulators;
mod remote;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use model::{Diagnose, Diagnosis, UnixMillis, Who};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{
    GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt, WriteMultipart,
};
use tokio::io::AsyncReadExt;
use uuid::Uuid;

/// S3 takes no smaller pieces (but the last); so much is held of an upload, times [`IN_FLIGHT`].
const REMOTE_PIECE: usize = 5 << 20;
const LOCAL_PIECE: usize = 256 << 10;
/// Pieces of one upload that are under way at once.
const IN_FLIGHT: usize = 2;
/// Files are read in pieces of this size.
const READ_PIECE: usize = 64 << 10;
/// Where objects stand, on 256 shelves by the first byte of their names.
const SHELVES: &str = "content";
/// Objects that are deleted at once.
const DELETES: usize = 16;

/// Where objects are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum BlobLocation {
    /// A folder; made if it is not there.
    Folder(PathBuf),
    /// `s3://BUCKET/PREFIX?endpoint=URL&region=NAME`, `gs://BUCKET/PREFIX`,
    /// `az://CONTAINER/PREFIX?account=NAME&endpoint=URL`. Keys are taken from the environment
    /// (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`; `GOOGLE_SERVICE_ACCOUNT`;
    /// `AZURE_STORAGE_ACCOUNT_KEY`), from a file of such lines, `NAME=VALUE` each, that
    /// `keys=/FILE` names, or from the machine's own identity.
    Url(String),
}

/// Why a text names no place for objects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no object store: file:///FOLDER, s3://BUCKET/…, gs://BUCKET/… or az://CONTAINER/…")]
pub struct NoBlobLocation(String);

impl FromStr for BlobLocation {
    type Err = NoBlobLocation;

    fn from_str(text: &str) -> Result<BlobLocation, NoBlobLocation> {
        let shown = || NoBlobLocation(text.split('?').next().unwrap_or_default().to_owned());
        match text.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => Ok(BlobLocation::Folder(path.into())),
            Some(("s3" | "gs" | "az", rest)) if !rest.is_empty() && !rest.starts_with('/') => {
                Ok(BlobLocation::Url(text.to_owned()))
            }
            _ => Err(shown()),
        }
    }
}

/// Without what stands behind the question mark.
impl fmt::Display for BlobLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlobLocation::Folder(path) => write!(f, "{}", path.display()),
            BlobLocation::Url(url) => f.write_str(url.split('?').next().unwrap_or_default()),
        }
    }
}

/// Without what stands behind the question mark.
impl fmt::Debug for BlobLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why the object store could not do as told.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// It cannot be opened.
    #[error("cannot open the object store {location}: {why}")]
    Open {
        /// Where.
        location: BlobLocation,
        /// Why.
        why: String,
    },
    /// An operation failed.
    #[error("the object store cannot {doing} {place}")]
    Store {
        /// What was tried.
        doing: &'static str,
        /// With which object.
        place: String,
        /// Why.
        source: object_store::Error,
    },
    /// A file of it failed.
    #[error("cannot read {place} of the object store")]
    File {
        /// Which object.
        place: String,
        /// Why.
        source: std::io::Error,
    },
}

impl BlobError {
    /// Whether the object is not there, and all else is well.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, BlobError::Store { source: object_store::Error::NotFound { .. }, .. })
    }
}

impl Diagnose for BlobError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            BlobError::Open { location: BlobLocation::Folder(_), .. } => {
                Diagnosis::of(Who::Operator, "make the folder of --blobs writable")
            }
            BlobError::Open { .. } => {
                Diagnosis::of(Who::Operator, "check --blobs, and the keys in the environment")
            }
            BlobError::Store { .. } | BlobError::File { .. } => Diagnosis::of(
                Who::Operator,
                "check the free space of the folder, or that the object store answers and lets us in",
            ),
        }
    }
}

/// The name of an object. New ones are random: no name ever stands for two contents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(String);

impl Place {
    pub(crate) fn new() -> Place {
        let name = Uuid::new_v4().simple().to_string();
        let (shelf, _) = name.split_at(2);
        Place(format!("{SHELVES}/{shelf}/{name}"))
    }

    /// As it was stored in the database.
    pub(crate) fn stored(name: String) -> Place {
        Place(name)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn key(&self) -> Key {
        Key::from(self.0.as_str())
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(object_store::Error) -> BlobError {
        let place = self.0.clone();
        move |source| BlobError::Store { doing, place, source }
    }
}

/// An object store. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    store: Arc<dyn ObjectStore>,
    piece: usize,
    /// Whether it lists objects by name, which folders do not.
    ordered: bool,
}

impl Blobs {
    /// Opens it; a folder is made if it is not there.
    pub(crate) fn open(location: &BlobLocation) -> Result<Blobs, BlobError> {
        let why = |why: String| BlobError::Open { location: location.clone(), why };
        match location {
            BlobLocation::Folder(path) => {
                std::fs::create_dir_all(path).map_err(|e| why(e.to_string()))?;
                let store = LocalFileSystem::new_with_prefix(path).map_err(|e| why(words(&e)))?;
                let store = Arc::new(store.with_fsync(true));
                Ok(Blobs { store, piece: LOCAL_PIECE, ordered: false })
            }
            BlobLocation::Url(url) => {
                let store = remote::open(url).map_err(why)?;
                Ok(Blobs { store, piece: REMOTE_PIECE, ordered: true })
            }
        }
    }

    /// Begins a new object.
    pub(crate) async fn writer(&self) -> Result<BlobWriter, BlobError> {
        let place = Place::new();
        let upload = self.store.put_multipart(&place.key()).await.map_err(place.failed("begin"))?;
        let upload = WriteMultipart::new_with_chunk_size(upload, self.piece);
        Ok(BlobWriter { upload, place, size: 0 })
    }

    /// Writes a small object.
    pub(crate) async fn put(&self, bytes: Bytes) -> Result<Place, BlobError> {
        let place = Place::new();
        self.store.put(&place.key(), bytes.into()).await.map_err(place.failed("write"))?;
        Ok(place)
    }

    /// A part of an object, which must not be empty.
    pub(crate) async fn read(&self, place: &Place, part: Range<u64>) -> Result<Pieces, BlobError> {
        let options =
            GetOptions { range: Some(GetRange::Bounded(part.clone())), ..GetOptions::default() };
        let got = self.store.get_opts(&place.key(), options).await.map_err(place.failed("read"))?;
        let from = match got.payload {
            GetResultPayload::File(file, _) => {
                let mut file = tokio::fs::File::from_std(file);
                let start = std::io::SeekFrom::Start(part.start);
                tokio::io::AsyncSeekExt::seek(&mut file, start)
                    .await
                    .map_err(|source| BlobError::File { place: place.0.clone(), source })?;
                Source::File(file)
            }
            GetResultPayload::Stream(stream) => Source::Stream(stream),
        };
        Ok(Pieces { from, place: place.clone(), rest: part.end.saturating_sub(part.start) })
    }

    /// A whole object of known size.
    pub(crate) async fn get(&self, place: &Place, size: u64) -> Result<Bytes, BlobError> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        self.store.get_range(&place.key(), 0..size).await.map_err(place.failed("read"))
    }

    /// Removes an object; one that is gone already is fine.
    pub(crate) async fn delete(&self, place: &Place) -> Result<(), BlobError> {
        match self.store.delete(&place.key()).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            other => other.map_err(place.failed("delete")),
        }
    }

    /// Removes objects, several at once; whatever becomes of one, the others are tried. What failed.
    pub(crate) async fn delete_all(&self, places: Vec<Place>) -> Vec<BlobError> {
        let gone = places.into_iter().map(|place| async move { self.delete(&place).await.err() });
        futures_util::stream::iter(gone)
            .buffer_unordered(DELETES)
            .filter_map(std::future::ready)
            .collect()
            .await
    }

    /// Objects that have been there since before `until`, page by page: at most `limit` names
    /// greater than `after`, in order, and the last name looked at, if there are more.
    pub(crate) async fn old(
        &self,
        after: Option<&Place>,
        until: UnixMillis,
        limit: usize,
    ) -> Result<(Vec<Place>, Option<Place>), BlobError> {
        let mut names = Vec::new();
        if self.ordered {
            self.list(SHELVES, after, limit, &mut names).await?;
        } else {
            // Shelf by shelf: of a folder with millions of files only a part is looked at.
            let first = after.and_then(|a| shelf(&a.0)).unwrap_or(0);
            for shelf in first..=u8::MAX {
                self.list(&format!("{SHELVES}/{shelf:02x}"), after, limit, &mut names).await?;
                if names.len() > limit {
                    break;
                }
            }
        }
        names.sort_unstable();
        let more = names.len() > limit;
        names.truncate(limit);
        let last = names.last().filter(|_| more).map(|(name, _)| Place(name.clone()));
        let aged = names.into_iter().filter(|(_, written)| *written < until.0);
        Ok((aged.map(|(name, _)| Place(name)).collect(), last))
    }

    /// Adds names behind `after` below a prefix, and when each was written. Of an ordered store one
    /// more than `limit` at most.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&Place>,
        limit: usize,
        names: &mut Vec<(String, u64)>,
    ) -> Result<(), BlobError> {
        let all = Place(prefix.to_owned());
        let prefix = all.key();
        let mut listed = match after {
            Some(after) => self.store.list_with_offset(Some(&prefix), &after.key()),
            None => self.store.list(Some(&prefix)),
        };
        while let Some(object) = listed.next().await {
            let object = object.map_err(all.failed("list"))?;
            let written = u64::try_from(object.last_modified.timestamp_millis()).unwrap_or(0);
            names.push((object.location.to_string(), written));
            if self.ordered && names.len() > limit {
                break;
            }
        }
        Ok(())
    }

    /// Says whether it answers: a look for what is not there.
    pub(crate) async fn check(&self) -> Result<(), BlobError> {
        let nothing = Place("ready".to_owned());
        match self.store.head(&nothing.key()).await {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(nothing.failed("look for")(e)),
        }
    }
}

/// An object that is being written. Dropped, it never shows.
#[derive(Debug)]
pub(crate) struct BlobWriter {
    upload: WriteMultipart,
    place: Place,
    size: u64,
}

impl BlobWriter {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds bytes; waits while too many are under way.
    pub(crate) async fn push(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.upload.wait_for_capacity(IN_FLIGHT).await.map_err(self.place.failed("write"))?;
        self.size += bytes.len() as u64;
        // Copied: what is pushed is a window of a larger buffer that would be held.
        self.upload.write(&bytes);
        Ok(())
    }

    /// Shows the object. It is durable then.
    pub(crate) async fn finish(self) -> Result<Place, BlobError> {
        self.upload.finish().await.map_err(self.place.failed("finish"))?;
        Ok(self.place)
    }

    /// Takes back what was sent.
    pub(crate) async fn abort(self) {
        // What cannot be taken back now costs space until somebody does.
        if let Err(e) = self.upload.abort().await {
            tracing::debug!(place = self.place.as_str(), "cannot abort an upload: {e}");
        }
    }
}

enum Source {
    File(tokio::fs::File),
    Stream(BoxStream<'static, object_store::Result<Bytes>>),
}

/// The bytes of a part of an object, one after the other.
pub(crate) struct Pieces {
    from: Source,
    place: Place,
    rest: u64,
}

impl Pieces {
    /// The next piece; `None`: that was all. Fewer bytes than asked for are an error.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        if self.rest == 0 {
            return Ok(None);
        }
        let failed = |source| BlobError::File { place: self.place.0.clone(), source };
        let piece = match &mut self.from {
            Source::File(file) => {
                let want = usize::try_from(self.rest).unwrap_or(usize::MAX).min(READ_PIECE);
                let mut piece = Vec::with_capacity(want);
                file.take(want as u64).read_to_end(&mut piece).await.map_err(failed)?;
                Bytes::from(piece)
            }
            Source::Stream(stream) => match stream.next().await {
                Some(piece) => piece.map_err(self.place.failed("read"))?,
                None => Bytes::new(),
            },
        };
        if piece.is_empty() {
            return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.rest = self.rest.saturating_sub(piece.len() as u64);
        Ok(Some(piece))
    }
}

/// The shelf of a name.
fn shelf(name: &str) -> Option<u8> {
    u8::from_str_radix(name.strip_prefix(SHELVES)?.get(1..3)?, 16).ok()
}

fn words(e: &(dyn std::error::Error + 'static)) -> String {
    model::chain(e)
}

/// Removes what a crash left of files that were being written in a folder. Nobody else may use it
/// now.
pub(crate) fn sweep_folder(path: &Path) -> std::io::Result<usize> {
    let mut gone = 0;
    for shelf in read_dir(&path.join(SHELVES))? {
        for file in read_dir(&shelf)? {
            // So are files called that object_store has not finished: NAME#NUMBER.
            if file.file_name().is_some_and(|n| n.to_string_lossy().contains('#')) {
                std::fs::remove_file(&file)?;
                gone += 1;
            }
        }
    }
    Ok(gone)
}

fn read_dir(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Ok(Vec::new()),
        other => other?.map(|entry| entry.map(|e| e.path())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Db, ImageFile, Location};
    use crate::images::Images;
    use crate::retention::{Round, sweep};

    /// Writes, reads in parts, lists and deletes.
    async fn works(blobs: &Blobs) {
        let bytes: Vec<u8> =
            (0..11 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut writer = blobs.writer().await.unwrap();
        for piece in bytes.chunks(100_000) {
            writer.push(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        assert_eq!(writer.size(), bytes.len() as u64);
        let place = writer.finish().await.unwrap();
        for part in [0..bytes.len(), 5..6, (6 << 20) - 3..(6 << 20) + 70_000] {
            let mut pieces = blobs.read(&place, part.start as u64..part.end as u64).await.unwrap();
            let mut got = Vec::new();
            while let Some(piece) = pieces.next().await.unwrap() {
                got.extend_from_slice(&piece);
            }
            assert!(got == bytes[part.clone()], "{part:?}");
        }
        let small = blobs.put(Bytes::from_static(b"small")).await.unwrap();
        assert_eq!(blobs.get(&small, 5).await.unwrap(), "small");
        let (mut listed, _) = blobs.old(None, UnixMillis(u64::MAX), 100).await.unwrap();
        listed.retain(|p| *p == place || *p == small);
        let mut both = vec![place.clone(), small.clone()];
        both.sort();
        assert_eq!(listed, both);
        let (young, _) = blobs.old(None, UnixMillis(1), 100).await.unwrap();
        assert_eq!(young, []);
        let (first, more) = blobs.old(None, UnixMillis(u64::MAX), 1).await.unwrap();
        let (second, end) = blobs.old(more.as_ref(), UnixMillis(u64::MAX), 1).await.unwrap();
        assert_eq!(([first, second].concat(), end), (both, None), "page by page");

        let writer = blobs.writer().await.unwrap();
        let aborted = writer.place.clone();
        writer.abort().await;
        assert!(blobs.get(&aborted, 1).await.is_err(), "nothing shows of what was aborted");
        for place in [&place, &small] {
            blobs.delete(place).await.unwrap();
            blobs.delete(place).await.unwrap();
            assert!(blobs.get(place, 1).await.is_err());
        }
        blobs.check().await.unwrap();
    }

    #[tokio::test]
    async fn a_folder_keeps_objects() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("blobs");
        let blobs = Blobs::open(&BlobLocation::Folder(folder.clone())).unwrap();
        works(&blobs).await;
        let mut cut = blobs.writer().await.unwrap();
        cut.push(Bytes::from(vec![0; 300_000])).await.unwrap();
        cut.upload.wait_for_capacity(1).await.unwrap();
        std::mem::forget(cut);
        assert_eq!(sweep_folder(&folder).unwrap(), 1, "what a crash left");
    }

    /// And what nothing refers to goes there, too.
    async fn a_server_keeps_objects(store: emulators::Store) {
        let dir = tempfile::tempdir().unwrap();
        let Some(server) = emulators::Emulator::start(store, dir.path()) else { return };
        let blobs = Blobs::open(&server.url().parse().unwrap()).unwrap();
        works(&blobs).await;

        let db = Db::open(&Location::File(dir.path().join("db"))).await.unwrap();
        let images = Images::open(db, blobs).await.unwrap();
        let now = UnixMillis(1_770_000_000_000);
        let kept = images.keep(Bytes::from(vec![1; 100_000]), now).await.unwrap();
        let lost = images.keep(Bytes::from(vec![2; 100_000]), now).await.unwrap();
        let orphan = images.blobs.put(Bytes::from_static(b"of a crash")).await.unwrap();
        let at = now;
        let file = ImageFile { name: "a".into(), digest: kept, size: 1, author: String::new(), at };
        assert!(images.name_file(&file).await.unwrap());
        let lost_place = images.db.blob(&lost).await.unwrap().unwrap().parts[0].place.clone();
        let mut round = Round::default();
        // What is young stays; objects are judged by the server's clock.
        assert_eq!(sweep(&images, &mut round, now).await.unwrap(), 0);
        assert_eq!(sweep(&images, &mut round, UnixMillis(4_000_000_000_000)).await.unwrap(), 2);
        assert!(images.blobs.get(&lost_place, 1).await.is_err());
        assert!(images.blobs.get(&orphan, 1).await.is_err());
        assert_eq!(images.read(&kept, 1 << 20).await.unwrap().unwrap(), [1; 100_000]);

        // While it is away, nothing is half there; afterwards all that was is.
        server.cut();
        let e = images.keep(Bytes::from(vec![3; 100_000]), now).await.unwrap_err();
        assert!(model::chain(&e).contains("the object store cannot write"), "{}", model::chain(&e));
        images.blobs.check().await.unwrap_err();
        server.mend();
        images.blobs.check().await.unwrap();
        assert_eq!(images.read(&kept, 1 << 20).await.unwrap().unwrap(), [1; 100_000]);
    }

    #[tokio::test]
    async fn s3_keeps_objects() {
        a_server_keeps_objects(emulators::Store::S3).await;
    }

    #[tokio::test]
    async fn google_keeps_objects() {
        a_server_keeps_objects(emulators::Store::Google).await;
    }

    #[tokio::test]
    async fn azure_keeps_objects() {
        a_server_keeps_objects(emulators::Store::Azure).await;
    }

    #[test]
    fn places_are_told_apart_and_show_no_secrets() {
        let folder = BlobLocation::Folder("/srv/blobs".into());
        assert_eq!("file:///srv/blobs".parse(), Ok(folder));
        for url in ["s3://b", "s3://b/p?endpoint=http://x:1", "gs://b/p", "az://c?account=a"] {
            let location: BlobLocation = url.parse().unwrap();
            assert_eq!(location.to_string(), url.split('?').next().unwrap());
        }
        for bad in ["", "b", "file://b", "s3://", "s3:///b", "ftp://b/x", "http://h/?k=secret"] {
            let e = bad.parse::<BlobLocation>().unwrap_err().to_string();
            assert!(!e.contains("secret"), "{e}");
        }
        let e = Blobs::open(&BlobLocation::Url("s3://b?colour=red".into())).unwrap_err();
        assert!(e.to_string().contains("there is no option colour"), "{e}");
    }
}
