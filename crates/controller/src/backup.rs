//! Backup and restore: a whole controller in one file, of whichever engine, into whichever engine.
//!
//! The file is a zstd-compressed tar: `head.json` (versions), `tables/NAME/N.jsonl` (a line for the
//! columns, then one a row: integers, texts, and bytes in base64), `data/…` (keys and certificates),
//! `blobs/HEX` (contents under their SHA-256), and last `manifest.json`: the SHA-256 of each member. A
//! file without its manifest is not whole and is not restored. It holds the keys of the
//! controller: whoever can read it can be the controller. So it may be [`sealed`].

mod sealed;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::{Diagnose, Diagnosis, Digest, UnixMillis, Who};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::access;
use crate::blobs::{BlobError, BlobLocation, Blobs};
use crate::db::{Db, DbError, Location, Table, Tx, backup as rows};
use crate::images::{ImageError, Images};
use crate::pki::{PkiError, make_private};
use crate::start::{BLOBS, DATABASE};

pub use sealed::{BackupKey, SealError, Sealing, opened};

const FORMAT: u32 = 1;
/// A member of rows ends when it is so large; greater members are refused when read.
const ROWS_SIZE: usize = 4 << 20;
const MEMBER_MAX: u64 = 64 << 20;
const LEVEL: i32 = 3;

/// Where a controller is.
#[derive(Debug, Clone)]
pub struct Whole {
    /// Its data folder.
    pub data: PathBuf,
    /// Its database. `None`: a SQLite file in `data`.
    pub database: Option<Location>,
    /// Its object store. `None`: in `data`.
    pub blobs: Option<BlobLocation>,
}

/// What went into a backup or came out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// Rows by table.
    pub rows: BTreeMap<String, u64>,
    /// Contents of the object store.
    pub blobs: u64,
    /// When the backup was begun.
    pub made: Option<UnixMillis>,
}

/// Why a backup or a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be written or read.
    #[error("cannot {doing} the backup")]
    File {
        /// What was tried.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The file is no backup, or not whole.
    #[error("this is no whole backup: {0}")]
    Damaged(String),
    /// There is a controller where one should come.
    #[error("{0}; a backup is restored into nothing only")]
    NotEmpty(String),
    /// There is nothing of a controller in the folder.
    #[error("there is no database of a controller in {0}")]
    NoDatabase(PathBuf),
    /// The database.
    #[error("the backup cannot use the database")]
    Db(#[from] DbError),
    /// The object store.
    #[error("the backup cannot use the object store")]
    Blob(#[from] BlobError),
    /// A file of the data folder.
    #[error("cannot {doing} {path}")]
    Data {
        /// What was tried.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Keys cannot be saved.
    #[error("cannot save the keys of the controller")]
    Pki(#[from] PkiError),
}

impl Diagnose for BackupError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            BackupError::Db(e) => e.diagnose(),
            BackupError::Blob(e) => e.diagnose(),
            BackupError::Damaged(_) => {
                Diagnosis::of(Who::Operator, "take another backup; this one is cut off or changed")
            }
            BackupError::NotEmpty(_) => {
                Diagnosis::of(Who::Operator, "name a new folder with --data, and an empty database")
            }
            BackupError::NoDatabase(_) => Diagnosis::of(
                Who::Operator,
                "name the controller's data folder with --data; if it keeps everything in \
                 PostgreSQL, name that with --database",
            ),
            BackupError::File { doing: "read", .. } => Diagnosis::of(
                Who::Operator,
                "check that this is a whole file that `eve controller backup` wrote",
            ),
            _ => Diagnosis::of(Who::Operator, "check the free space and the rights of the folder"),
        }
    }
}

impl From<ImageError> for BackupError {
    fn from(e: ImageError) -> BackupError {
        match e {
            ImageError::Db(e) => BackupError::Db(e),
            ImageError::Blob(e) => BackupError::Blob(e),
            other => BackupError::Damaged(other.to_string()),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    version: String,
    schema: i64,
    made_ms: u64,
    blobs: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    members: BTreeMap<String, String>,
}

fn writing(source: io::Error) -> BackupError {
    BackupError::File { doing: "write", source }
}

fn reading(source: io::Error) -> BackupError {
    BackupError::File { doing: "read", source }
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    // Our own values always can be written.
    serde_json::to_vec(value).unwrap_or_default()
}

struct Archive<W: Write> {
    out: zstd::Encoder<'static, W>,
    manifest: Manifest,
}

impl<W: Write> Archive<W> {
    fn begin(&mut self, path: &str, size: u64) -> Result<(), BackupError> {
        let mut header = tar::Header::new_ustar();
        header.set_path(path).map_err(writing)?;
        header.set_size(size);
        header.set_mode(0o600);
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(writing)
    }

    fn end(&mut self, path: &str, size: u64, hash: Sha256) -> Result<(), BackupError> {
        let rest = usize::try_from((512 - size % 512) % 512).unwrap_or_default();
        self.out.write_all(&[0; 512][..rest]).map_err(writing)?;
        self.manifest.members.insert(path.to_owned(), hex::encode(hash.finalize()));
        Ok(())
    }

    fn member(&mut self, path: &str, bytes: &[u8]) -> Result<(), BackupError> {
        self.begin(path, bytes.len() as u64)?;
        self.out.write_all(bytes).map_err(writing)?;
        self.end(path, bytes.len() as u64, Sha256::new_with_prefix(bytes))
    }
}

impl Whole {
    fn database(&self) -> Location {
        self.database.clone().unwrap_or_else(|| Location::File(self.data.join(DATABASE)))
    }

    fn blobs(&self) -> BlobLocation {
        self.blobs.clone().unwrap_or_else(|| BlobLocation::Folder(self.data.join(BLOBS)))
    }
}

/// Writes a backup of a controller, which may run. All rows are of one moment. Without `blobs`, the
/// contents of the object store stay where they are, and the restored controller looks for them
/// there.
pub async fn backup(
    of: &Whole,
    out: impl Write,
    blobs: bool,
    now: UnixMillis,
) -> Result<Counted, BackupError> {
    let at = of.database();
    if matches!(&at, Location::File(file) if !file.exists()) {
        return Err(BackupError::NoDatabase(of.data.clone()));
    }
    let db = Db::open_as_is(&at).await?;
    let mut tx = db.snapshot().await?;
    let schema = db.version(&mut tx).await?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let head = Head { format: FORMAT, version, schema, made_ms: now.0, blobs };
    let out = zstd::Encoder::new(out, LEVEL).map_err(writing)?;
    let mut archive = Archive { out, manifest: Manifest::default() };
    archive.member("head.json", &json(&head))?;
    let mut counted = Counted { made: Some(now), ..Counted::default() };
    for table in db.tables(&mut tx).await? {
        let count = write_table(&mut archive, &mut tx, &table).await?;
        counted.rows.insert(table.name, count);
    }
    let contents = if blobs { rows::contents(&mut tx).await? } else { Vec::new() };
    tx.rollback().await.map_err(|source| DbError::Query { doing: "end reading", source })?;
    for (name, path) in data_files(&of.data)? {
        let read = fs::read(&path);
        let bytes = read.map_err(|source| BackupError::Data { doing: "read", path, source })?;
        archive.member(&format!("data/{name}"), &bytes)?;
    }
    if blobs {
        let images = Images::open(db.clone(), Blobs::open(&of.blobs())?).await?;
        counted.blobs = write_blobs(&mut archive, &images, &contents).await?;
    }
    db.close().await;
    let manifest = json(&archive.manifest);
    archive.member("manifest.json", &manifest)?;
    archive.out.write_all(&[0; 1024]).map_err(writing)?;
    archive.out.finish().and_then(|mut out| out.flush()).map_err(writing)?;
    Ok(counted)
}

async fn write_table<W: Write>(
    archive: &mut Archive<W>,
    tx: &mut Tx,
    table: &Table,
) -> Result<u64, BackupError> {
    let columns: Vec<&String> = table.columns.iter().map(|(name, _)| name).collect();
    let mut head = json(&columns);
    head.push(b'\n');
    let (mut lines, mut piece, mut count) = (head.clone(), 0, 0);
    let mut save = |lines: &[u8]| {
        piece += 1;
        archive.member(&format!("tables/{}/{piece:06}.jsonl", table.name), lines)
    };
    rows::each_row(tx, table, |row| {
        lines.extend_from_slice(&json(&row));
        lines.push(b'\n');
        count += 1;
        if lines.len() >= ROWS_SIZE {
            save(&lines)?;
            lines.clone_from(&head);
        }
        Ok::<(), BackupError>(())
    })
    .await?;
    save(&lines)?;
    Ok(count)
}

/// What of the data folder is not made anew: keys and certificates, the administrator's token.
fn data_files(data: &Path) -> Result<Vec<(String, PathBuf)>, BackupError> {
    let mut files = Vec::new();
    for folder in ["pki", "tls"] {
        let path = data.join(folder);
        let entries = match fs::read_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(|source| BackupError::Data { doing: "read", path, source })?,
        };
        for entry in entries.filter_map(Result::ok).filter(|e| e.path().is_file()) {
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            files.push((name, entry.path()));
        }
    }
    let token = data.join(access::TOKEN_FILE);
    if token.is_file() {
        files.push((access::TOKEN_FILE.to_owned(), token));
    }
    files.sort();
    Ok(files)
}

async fn write_blobs<W: Write>(
    archive: &mut Archive<W>,
    images: &Images,
    contents: &[Digest],
) -> Result<u64, BackupError> {
    let mut count = 0;
    for digest in contents {
        // It may have been forgotten since: what referred to it was old, too.
        let Some(blob) = images.db.blob(digest).await? else { continue };
        let path = format!("blobs/{}", digest.hex());
        archive.begin(&path, blob.size)?;
        let mut hash = Sha256::new();
        for part in &blob.parts {
            let mut pieces = images.blobs.read(&part.place, 0..part.size).await?;
            while let Some(piece) = pieces.next().await? {
                hash.update(&piece);
                archive.out.write_all(&piece).map_err(writing)?;
            }
        }
        if hash.clone().finalize()[..] != digest.0 {
            let why = format!("the object store gave something else than {digest}");
            return Err(BackupError::Damaged(why));
        }
        archive.end(&path, blob.size, hash)?;
        count += 1;
    }
    Ok(count)
}

/// Restores a backup into nothing: a folder without a controller, a database without rows.
pub async fn restore(from: impl Read, to: &Whole, now: UnixMillis) -> Result<Counted, BackupError> {
    check_folder(&to.data)?;
    let decoder = zstd::Decoder::new(from).map_err(reading)?;
    let mut archive = tar::Archive::new(decoder);
    let mut members = archive.entries().map_err(reading)?;
    let mut found = Manifest::default();
    let (name, head) = small(&mut found, members.next())?;
    let head: Head = match serde_json::from_slice(&head) {
        Ok(head) if name == "head.json" => head,
        _ => return Err(BackupError::Damaged("it does not begin with head.json".into())),
    };
    if head.format != FORMAT {
        let why = format!("it is of format {}; this program knows {FORMAT}", head.format);
        return Err(BackupError::Damaged(why));
    }
    make_private(&to.data)?;
    let db = Db::connect(&to.database()).await?;
    db.make_tables(head.schema).await?;
    let mut tx = db.begin().await?;
    let tables = db.tables(&mut tx).await?;
    for table in &tables {
        // Some rows are made with the tables.
        let telling =
            ["devices", "objects", "events", "audit", "blobs"].contains(&table.name.as_str());
        if telling && rows::count(&mut tx, &table.name).await? > 0 {
            let why = format!("table {} of the database has rows", table.name);
            return Err(BackupError::NotEmpty(why));
        }
        rows::clear(&mut tx, &table.name).await?;
    }
    let store = if head.blobs { Some(Blobs::open(&to.blobs())?) } else { None };
    let mut counted = Counted { made: Some(UnixMillis(head.made_ms)), ..Counted::default() };
    let mut files = Vec::new();
    let mut came = HashSet::new();
    let mut whole = false;
    for member in members {
        let mut member = member.map_err(reading)?;
        let path = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        if let (Some(hex), Some(store)) = (path.strip_prefix("blobs/"), &store) {
            let digest = Digest::from_hex(hex).map_err(|e| BackupError::Damaged(e.to_string()))?;
            restore_blob(&mut tx, store, digest, &mut member).await?;
            came.insert(digest);
            found.members.insert(path, digest.hex());
            counted.blobs += 1;
            continue;
        }
        let (path, bytes) = small(&mut found, Some(Ok(member)))?;
        if path == "manifest.json" {
            found.members.remove(&path);
            let manifest: Manifest = serde_json::from_slice(&bytes)
                .map_err(|e| BackupError::Damaged(format!("manifest.json: {e}")))?;
            if manifest.members != found.members {
                return Err(BackupError::Damaged("its members are not those of its list".into()));
            }
            whole = true;
            break;
        } else if let Some(table) = path.strip_prefix("tables/") {
            let name = table.split('/').next().unwrap_or_default();
            let known = tables.iter().find(|t| t.name == name);
            let table = known.ok_or_else(|| {
                BackupError::Damaged(format!("there is no table {name} in version {}", head.schema))
            })?;
            *counted.rows.entry(name.to_owned()).or_default() +=
                restore_rows(&mut tx, table, &bytes).await?;
        } else if let Some(name) = path.strip_prefix("data/") {
            if !is_data_file(name) {
                return Err(BackupError::Damaged(format!("a controller has no file {name}")));
            }
            files.push((name.to_owned(), bytes));
        } else {
            return Err(BackupError::Damaged(format!("nobody knows what {path} is")));
        }
    }
    if !whole {
        return Err(BackupError::Damaged("its end is missing".into()));
    }
    if head.blobs {
        rows::forget_missing(&mut tx, &came).await?;
    }
    tx.commit().await.map_err(|source| DbError::Query { doing: "keep what came", source })?;
    db.migrate().await?;
    let mut tx = db.begin().await?;
    db.after_restore(&mut tx, &tables, now).await?;
    tx.commit().await.map_err(|source| DbError::Query { doing: "keep what came", source })?;
    db.close().await;
    for (name, bytes) in files {
        let (folder, name) = match name.split_once('/') {
            Some((folder, name)) => (to.data.join(folder), name.to_owned()),
            None => (to.data.clone(), name),
        };
        make_private(&folder)?;
        crate::pki::save_secret(&folder, &name, &bytes)?;
    }
    Ok(counted)
}

/// `pki/NAME`, `tls/NAME` or the token: nothing that leads elsewhere.
fn is_data_file(name: &str) -> bool {
    let plain = |n: &str| {
        !n.starts_with('.') && n.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    match name.split_once('/') {
        Some(("pki" | "tls", file)) => !file.is_empty() && plain(file),
        Some(_) => false,
        None => name == access::TOKEN_FILE,
    }
}

fn check_folder(data: &Path) -> Result<(), BackupError> {
    match fs::read_dir(data) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BackupError::Data { doing: "read", path: data.to_owned(), source }),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => {
                Err(BackupError::NotEmpty(format!("the folder {} is not empty", data.display())))
            }
        },
    }
}

/// A member that fits into memory: its path and bytes.
fn small<R: Read>(
    found: &mut Manifest,
    member: Option<io::Result<tar::Entry<'_, R>>>,
) -> Result<(String, Vec<u8>), BackupError> {
    let missing = || BackupError::Damaged("it is empty".into());
    let mut member = member.ok_or_else(missing)?.map_err(reading)?;
    let path = String::from_utf8_lossy(&member.path_bytes()).into_owned();
    if member.size() > MEMBER_MAX {
        return Err(BackupError::Damaged(format!("{path} is too large")));
    }
    let mut bytes = Vec::new();
    member.read_to_end(&mut bytes).map_err(reading)?;
    found.members.insert(path.clone(), hex::encode(Sha256::digest(&bytes)));
    Ok((path, bytes))
}

async fn restore_rows(tx: &mut Tx, table: &Table, lines: &[u8]) -> Result<u64, BackupError> {
    let bad = |e: serde_json::Error| BackupError::Damaged(format!("table {}: {e}", table.name));
    let mut lines = lines.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    let columns: Vec<String> =
        serde_json::from_slice(lines.next().unwrap_or_default()).map_err(bad)?;
    let mut count = 0;
    for line in lines {
        let row: Vec<Value> = serde_json::from_slice(line).map_err(bad)?;
        rows::put_row(tx, table, &columns, &row).await?;
        count += 1;
    }
    Ok(count)
}

async fn restore_blob(
    tx: &mut Tx,
    store: &Blobs,
    digest: Digest,
    from: &mut impl Read,
) -> Result<(), BackupError> {
    let mut writer = store.writer().await?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 256 << 10];
    loop {
        let got = from.read(&mut piece).map_err(reading)?;
        let Some(bytes) = piece.get(..got).filter(|b| !b.is_empty()) else { break };
        hash.update(bytes);
        writer.push(Bytes::copy_from_slice(bytes)).await?;
    }
    if hash.finalize()[..] != digest.0 {
        writer.abort().await;
        return Err(BackupError::Damaged(format!("the content {digest} is another one")));
    }
    let size = writer.size();
    if size == 0 {
        writer.abort().await;
        return Ok(());
    }
    let place = writer.finish().await?;
    Ok(rows::put_part(tx, &digest.0, size, &place).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_a_controller_come_out_of_a_backup() {
        for good in ["pki/root.cert.pem", "tls/tls.key.pem", "admin.token"] {
            assert!(is_data_file(good), "{good}");
        }
        for bad in
            ["", "pki/", "pki/../x", "pki/a/b", "../admin.token", "etc/passwd", "pki/.x", "/x"]
        {
            assert!(!is_data_file(bad), "{bad}");
        }
    }
}
