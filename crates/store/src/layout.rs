//! The folder: blobs by digest (OCI image spec, image-layout.md).
//!
//! `oci-layout`, `index.json`, `blobs/sha256/<hex>`, and two of ours that the format allows: `.lock`,
//! and `.partial/` for blobs that are not whole yet. A blob appears under its name by a rename, after
//! its bytes were counted, hashed and synced; so what is there is whole, also after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use model::{Bytes, Digest};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use crate::{StoreError, save};

const LAYOUT_FILE: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const EMPTY_INDEX: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

/// A folder of content. Cheap to clone; several processes may use one folder at the same time.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Opens a layout that is there.
    pub fn open(root: impl Into<PathBuf>) -> Result<Layout, StoreError> {
        let root = root.into();
        let version = root.join("oci-layout");
        let none = |why: String| StoreError::NoLayout { path: root.clone(), why };
        match fs::read(&version) {
            Ok(text) => {
                let known = serde_json::from_slice::<serde_json::Value>(&text)
                    .is_ok_and(|v| v["imageLayoutVersion"].as_str().is_some_and(is_version_1));
                if !known {
                    return Err(none("its file oci-layout names no version 1".into()));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(none("it has no file oci-layout".into()));
            }
            Err(e) => return Err(StoreError::io("read", version)(e)),
        }
        Ok(Layout { root })
    }

    /// Opens a layout, or makes an empty one where there is none yet.
    pub fn create(root: impl Into<PathBuf>) -> Result<Layout, StoreError> {
        let root = root.into();
        for dir in ["blobs/sha256", ".partial"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).map_err(StoreError::io("create", dir))?;
        }
        let layout = Layout { root };
        let _lock = layout.lock()?;
        // The version comes last: who sees it sees a whole layout.
        for (name, text) in [("index.json", EMPTY_INDEX), ("oci-layout", LAYOUT_FILE)] {
            if !layout.root.join(name).exists() {
                save(&layout.root, name, text.as_bytes())?;
            }
        }
        Layout::open(&layout.root)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the blob is there and, where a size is given, has that size. Its bytes are not read.
    pub fn has(&self, digest: &Digest, size: Option<Bytes>) -> bool {
        fs::metadata(self.blob_path(digest))
            .is_ok_and(|m| m.is_file() && size.is_none_or(|want| m.len() == want.0))
    }

    /// Where the blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// The blob's file and its size, for a reader who checks the digest himself or has no need to.
    pub fn open_blob(&self, digest: &Digest) -> Result<(File, Bytes), StoreError> {
        let path = self.blob_path(digest);
        let opened = File::open(&path).and_then(|f| f.metadata().map(|m| (f, Bytes(m.len()))));
        opened.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                StoreError::Missing { digest: *digest, root: self.root.clone() }
            }
            _ => StoreError::io("open", path)(e),
        })
    }

    /// The blob's bytes, checked against its digest. Refuses a blob larger than `limit`.
    pub fn read(&self, digest: &Digest, limit: Bytes) -> Result<Vec<u8>, StoreError> {
        let (file, size) = self.open_blob(digest)?;
        let too_long = || StoreError::TooLong { what: format!("blob {digest}"), limit };
        if size > limit {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        file.take(limit.0.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(StoreError::io("read", self.blob_path(digest)))?;
        if bytes.len() as u64 > limit.0 {
            return Err(too_long());
        }
        let got = digest_of(&bytes);
        if got == *digest { Ok(bytes) } else { Err(self.corrupt(digest, got)) }
    }

    /// Reads the whole blob and compares it with its digest; its size.
    pub fn check(&self, digest: &Digest) -> Result<Bytes, StoreError> {
        let (mut file, size) = self.open_blob(digest)?;
        let mut hash = Sha256::new();
        io::copy(&mut file, &mut HashWriter(&mut hash))
            .map_err(StoreError::io("read", self.blob_path(digest)))?;
        let got = Digest(hash.finalize().into());
        if got == *digest { Ok(size) } else { Err(self.corrupt(digest, got)) }
    }

    /// Starts a new blob. Nothing of it shows until [`BlobWriter::commit`].
    pub fn blob_writer(&self) -> Result<BlobWriter, StoreError> {
        BlobWriter::new(self)
    }

    /// Stores `bytes` as a blob.
    pub fn put(&self, bytes: &[u8]) -> Result<(Digest, Bytes), StoreError> {
        let digest = digest_of(bytes);
        let size = Bytes(bytes.len() as u64);
        if self.has(&digest, Some(size)) && self.check(&digest).is_ok() {
            return Ok((digest, size));
        }
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).map_err(StoreError::io("write", &writer.path))?;
        writer.commit(Some(digest), size)
    }

    /// Removes what a crash left of unfinished blobs; how many there were. Writers that live, in this
    /// or another process, are not disturbed.
    pub fn sweep(&self) -> Result<usize, StoreError> {
        let dir = self.root.join(".partial");
        let mut gone = 0;
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            other => other.map_err(StoreError::io("read", &dir))?,
        };
        for entry in entries {
            let path = entry.map_err(StoreError::io("read", &dir))?.path();
            let Ok(file) = File::open(&path) else { continue };
            // A writer holds its file locked as long as it lives.
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
                gone += 1;
            }
        }
        Ok(gone)
    }

    pub(crate) fn corrupt(&self, digest: &Digest, got: Digest) -> StoreError {
        StoreError::Corrupt { digest: *digest, root: self.root.clone(), got }
    }

    /// Excludes everyone else who changes references or collects garbage.
    pub(crate) fn lock(&self) -> Result<Lock, StoreError> {
        let path = self.root.join(".lock");
        let taken = || {
            let file = OpenOptions::new()
                .create(true)
                .read(true)
                .write(true)
                .truncate(false)
                .open(&path)?;
            // flock keeps our own threads apart, fcntl is what linuxkit takes on its cache.
            flock(&file, FlockOperation::LockExclusive)?;
            rustix::fs::fcntl_lock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        taken().map(|file| Lock { _file: file }).map_err(StoreError::io("lock", &path))
    }
}

/// Held while index.json changes. Released when dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// A blob that is being written. Dropped without [`BlobWriter::commit`], it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    layout: Layout,
    path: PathBuf,
    file: File,
    hash: Sha256,
    size: u64,
    committed: bool,
}

impl BlobWriter {
    fn new(layout: &Layout) -> Result<BlobWriter, StoreError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let dir = layout.root.join(".partial");
        fs::create_dir_all(&dir).map_err(StoreError::io("create", &dir))?;
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!("{}-{n}", std::process::id()));
            let file = match OpenOptions::new().create_new(true).write(true).open(&path) {
                // The left-over of a process that had our number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(StoreError::io("create", &path))?,
            };
            // A sweep may have come between the two lines above; then this name is gone already.
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() || !path.exists() {
                continue;
            }
            return Ok(BlobWriter {
                layout: layout.clone(),
                path,
                file,
                hash: Sha256::new(),
                size: 0,
                committed: false,
            });
        }
    }

    /// Bytes written so far.
    pub fn size(&self) -> Bytes {
        Bytes(self.size)
    }

    /// Gives the blob its name, durably. Refuses more than `max` bytes, and other bytes than
    /// `expected`; then nothing is left of it.
    pub fn commit(
        mut self,
        expected: Option<Digest>,
        max: Bytes,
    ) -> Result<(Digest, Bytes), StoreError> {
        let size = Bytes(self.size);
        let got = Digest(std::mem::take(&mut self.hash).finalize().into());
        if size > max {
            let what = expected.unwrap_or(got);
            return Err(StoreError::TooLong { what: format!("blob {what}"), limit: max });
        }
        if let Some(want) = expected.filter(|want| *want != got) {
            return Err(StoreError::Mismatch { want, got });
        }
        let name = self.layout.blob_path(&got);
        let dir = self.layout.root.join("blobs/sha256");
        self.file.sync_all().map_err(StoreError::io("sync", &self.path))?;
        fs::rename(&self.path, &name).map_err(StoreError::io("rename", &self.path))?;
        self.committed = true;
        File::open(&dir).and_then(|d| d.sync_all()).map_err(StoreError::io("sync", &dir))?;
        Ok((got, size))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.committed {
            // What stays is swept at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The digest of `bytes`.
pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// A hash as a place to write to.
pub(crate) struct HashWriter<'a>(pub(crate) &'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_version_1(version: &str) -> bool {
    version == "1" || version.starts_with("1.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path().join("l")).unwrap();
        (dir, layout)
    }

    fn blobs(layout: &Layout) -> usize {
        let count = |dir: &str| fs::read_dir(layout.root().join(dir)).unwrap().count();
        count("blobs/sha256") + count(".partial")
    }

    #[test]
    fn a_blob_is_found_by_its_digest() {
        let (_dir, layout) = layout();
        let (digest, size) = layout.put(b"hello").unwrap();
        assert_eq!(
            digest.hex(),
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        );
        assert!(layout.has(&digest, Some(size)) && !layout.has(&digest, Some(Bytes(4))));
        assert_eq!(layout.read(&digest, Bytes(5)).unwrap(), b"hello");
        assert!(matches!(layout.read(&digest, Bytes(4)), Err(StoreError::TooLong { .. })));
    }

    #[test]
    fn wrong_long_or_dropped_bytes_leave_nothing() {
        let (_dir, layout) = layout();
        let wrong = digest_of(b"other");
        let start = || {
            let mut w = layout.blob_writer().unwrap();
            w.write_all(b"hello").unwrap();
            w
        };
        let refused = start().commit(Some(wrong), Bytes(5));
        assert!(matches!(refused, Err(StoreError::Mismatch { .. })), "{refused:?}");
        assert!(matches!(start().commit(None, Bytes(4)), Err(StoreError::TooLong { .. })));
        drop(start());
        assert_eq!(blobs(&layout), 0);
    }

    #[test]
    fn a_corrupt_blob_is_named() {
        let (_dir, layout) = layout();
        let (digest, _) = layout.put(b"hello").unwrap();
        save(&layout.root().join("blobs/sha256"), &digest.hex(), b"jello").unwrap();
        for error in
            [layout.read(&digest, Bytes(9)).unwrap_err(), layout.check(&digest).unwrap_err()]
        {
            assert!(error.to_string().contains(&digest.to_string()), "{error}");
        }
        layout.put(b"hello").unwrap();
        layout.check(&digest).unwrap();
    }

    #[test]
    fn a_sweep_takes_what_a_crash_left_and_spares_the_living() {
        let (_dir, layout) = layout();
        let mut alive = layout.blob_writer().unwrap();
        alive.write_all(b"x").unwrap();
        save(&layout.root().join(".partial"), "1-1", b"left over").unwrap();
        assert_eq!(layout.sweep().unwrap(), 1);
        alive.commit(Some(digest_of(b"x")), Bytes(1)).unwrap();
        assert_eq!(blobs(&layout), 1);
    }

    #[test]
    fn a_folder_that_is_no_layout_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Layout::open(dir.path()), Err(StoreError::NoLayout { .. })));
        save(dir.path(), "oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
        assert!(matches!(Layout::open(dir.path()), Err(StoreError::NoLayout { .. })));
    }
}
