//! Layers whose members can be read in any order, by several readers at once.
//!
//! A layer that is stored as a plain archive is read where it lies. Of a compressed one a plain copy
//! is made, once. Both have an index ([`ArchiveIndex`]), also made once, while the layer's digest is
//! checked. What is read later is compared with the digest that the index knows, so a blob or copy
//! that was damaged since is noticed by whoever reads the damage.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};

use crate::index::{ArchiveIndex, Place};
use crate::layer::{LayerReader, each_member_at};
use crate::tarball::Reader;
use crate::{Descriptor, Layout, StoreError, read_bounded, save};

/// The largest index we read. That of a layer with 100 000 files has 15 MB.
const INDEX_MAX: Bytes = Bytes::mib(512);

/// Where layers come from, and where their indexes and plain copies are kept.
#[derive(Debug, Clone)]
pub struct Layers {
    layout: Layout,
    kept: Option<PathBuf>,
    limit: Bytes,
}

impl Layers {
    /// Layers of `layout`, each refused if it unpacks to more than `limit`. What is made of them is
    /// kept in the folder `kept`, which anybody may empty; without one it lasts as long as the
    /// [`PlainLayer`].
    pub fn new(layout: Layout, kept: Option<PathBuf>, limit: Bytes) -> Layers {
        Layers { layout, kept, limit }
    }

    /// Opens a layer. If it was not opened before, it is read to its end.
    pub fn open(&self, layer: &Descriptor) -> Result<PlainLayer, StoreError> {
        let (file, got) = self.layout.open_blob(&layer.digest)?;
        if got != layer.size {
            let digest = layer.digest;
            return Err(StoreError::WrongSize { digest, got, want: layer.size });
        }
        let path = self.layout.blob_path(&layer.digest);
        let packed = is_packed(&file).map_err(StoreError::io("read", &path))?;
        let index = self.kept_index(&layer.digest);
        let plain =
            if packed { self.kept_plain(&layer.digest, index.as_ref()) } else { Some(file) };
        let (index, file) = match (index, plain) {
            (Some(index), Some(file)) => (index, file),
            (_, plain) => self.read(layer, plain)?,
        };
        Ok(PlainLayer { layer: layer.digest, index, file })
    }

    /// The index of a member that is an archive itself.
    pub fn inner(&self, layer: &PlainLayer, member: &Place) -> Result<ArchiveIndex, StoreError> {
        let known = member.digest.as_ref().and_then(|digest| self.kept_index(digest));
        if let Some(index) = known {
            return Ok(index);
        }
        let index = ArchiveIndex::of(layer.body(member)).map_err(|source| {
            let (layer, member) = (layer.layer, member.header.display());
            StoreError::Member { layer, doing: "read the archive", member, source }
        })?;
        if let Some(digest) = &member.digest {
            self.keep_index(digest, &index)?;
        }
        Ok(index)
    }

    /// Forgets what was kept of a layer or archive that turned out to be damaged.
    pub fn forget(&self, digest: &Digest) {
        for name in [index_name(digest), plain_name(digest)] {
            if let Some(dir) = &self.kept {
                // What cannot be removed is found damaged again.
                let _ = fs::remove_file(dir.join(name));
            }
        }
    }

    fn kept_index(&self, of: &Digest) -> Option<ArchiveIndex> {
        let path = self.kept.as_ref()?.join(index_name(of));
        ArchiveIndex::decode(&read_bounded(&path, INDEX_MAX).ok()?)
    }

    fn keep_index(&self, of: &Digest, index: &ArchiveIndex) -> Result<(), StoreError> {
        match &self.kept {
            Some(dir) => Ok(save(dir, &index_name(of), &index.encode())?),
            None => Ok(()),
        }
    }

    /// The plain copy, if it is whole.
    fn kept_plain(&self, of: &Digest, index: Option<&ArchiveIndex>) -> Option<File> {
        let file = File::open(self.kept.as_ref()?.join(plain_name(of))).ok()?;
        let size = file.metadata().ok()?.len();
        index.is_some_and(|index| index.size.0 == size).then_some(file)
    }

    /// Reads a layer to its end: its index, and a plain copy where it is not plain itself.
    fn read(
        &self,
        layer: &Descriptor,
        plain: Option<File>,
    ) -> Result<(ArchiveIndex, File), StoreError> {
        if let Some(dir) = &self.kept {
            fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
        }
        let mut reader = LayerReader::open(&self.layout, layer, self.limit)?;
        let copy = match &plain {
            Some(_) => None,
            None => Some(Copy::start(self.kept.as_deref())?),
        };
        if let Some(copy) = &copy {
            let file = copy.file.try_clone().map_err(StoreError::io("open", &copy.path))?;
            reader.copy_to(file);
        }
        let mut members = Vec::new();
        let size = each_member_at(Reader::with_globals(reader), |header, at, body| {
            let name = header.display();
            let place = Place::read(header, at, body).map_err(|source| {
                let (layer, doing) = (layer.digest, "read");
                StoreError::Member { layer, doing, member: name, source }
            })?;
            members.push(place);
            Ok::<_, StoreError>(())
        })?;
        let index = ArchiveIndex { members, size };
        let file = match (plain, copy) {
            (Some(file), _) => file,
            (None, Some(copy)) => copy.keep(self.kept.as_deref(), &layer.digest)?,
            (None, None) => self.layout.open_blob(&layer.digest)?.0, // cannot be: see above
        };
        self.keep_index(&layer.digest, &index)?;
        Ok((index, file))
    }
}

/// A layer as a plain archive.
#[derive(Debug)]
pub struct PlainLayer {
    layer: Digest,
    index: ArchiveIndex,
    file: File,
}

impl PlainLayer {
    /// The layer's blob.
    pub fn digest(&self) -> Digest {
        self.layer
    }

    /// What is in it.
    pub fn index(&self) -> &ArchiveIndex {
        &self.index
    }

    /// Forgets the index: whoever keeps what is needed of it saves the memory.
    pub fn drop_index(&mut self) {
        self.index.members = Vec::new();
    }

    /// A member's bytes. Reading fails at their end if they are not those that the index knows.
    pub fn body(&self, member: &Place) -> Body<'_> {
        let size = if member.header.kind.has_body() { member.header.size } else { 0 };
        self.slice(member.at, Bytes(size), member.digest)
    }

    /// Bytes of the plain archive. Reading fails at their end if they do not make `digest`.
    pub fn slice(&self, at: Bytes, size: Bytes, digest: Option<Digest>) -> Body<'_> {
        let check = digest.map(|want| (want, Sha256::new()));
        Body { file: &self.file, at: at.0, left: size.0, check }
    }
}

/// Bytes at a place of a plain archive.
#[derive(Debug)]
pub struct Body<'a> {
    file: &'a File,
    at: u64,
    left: u64,
    /// What they shall make, and have made so far. `None` when that was found right.
    check: Option<(Digest, Sha256)>,
}

impl Read for Body<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        let n = self.file.read_at(&mut out[..most], self.at)?;
        if n == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        self.left -= n as u64;
        if let Some((_, hash)) = &mut self.check {
            hash.update(&out[..n]);
        }
        // The last bytes are not handed out before they were found right.
        if self.left == 0
            && let Some((want, hash)) = self.check.take()
        {
            let got = Digest(hash.finalize().into());
            if got != want {
                let why = format!("its bytes make {got}, not {want}: the store is damaged");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
        Ok(n)
    }
}

fn index_name(of: &Digest) -> String {
    format!("{}.index", of.hex())
}

fn plain_name(of: &Digest) -> String {
    format!("{}.plain", of.hex())
}

/// Whether a layer is compressed, by its first bytes (gzip, zstd): media types are often wrong.
fn is_packed(file: &File) -> io::Result<bool> {
    let mut start = [0; 4];
    let n = file.read_at(&mut start, 0)?;
    Ok(start[..n].starts_with(&[0x1f, 0x8b]) || start == [0x28, 0xb5, 0x2f, 0xfd])
}

/// A plain copy in the making. Dropped before it is kept, it leaves nothing.
struct Copy {
    file: File,
    path: PathBuf,
    named: bool,
}

impl Copy {
    /// In `dir`; without one, in a file that has no name and goes when it is closed.
    fn start(dir: Option<&Path>) -> Result<Copy, StoreError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let temporary = std::env::temp_dir();
        let parent = dir.unwrap_or(&temporary);
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!(".plain-{}-{n}", std::process::id()));
            let made = OpenOptions::new().create_new(true).read(true).write(true).open(&path);
            let file = match made {
                // The left-over of a process that had our number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(StoreError::io("create", &path))?,
            };
            let named = dir.is_some();
            if !named {
                fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            }
            return Ok(Copy { file, path, named });
        }
    }

    /// Gives the copy its name. It is not synced: who reads it compares its size and its bytes.
    fn keep(mut self, dir: Option<&Path>, layer: &Digest) -> Result<File, StoreError> {
        let file = self.file.try_clone().map_err(StoreError::io("open", &self.path))?;
        if let Some(dir) = dir {
            let name = dir.join(plain_name(layer));
            fs::rename(&self.path, name).map_err(StoreError::io("rename", &self.path))?;
            self.named = false;
        }
        Ok(file)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if self.named {
            // What stays is one file in a folder that anybody may empty.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tarball::{Header, Kind, Time, Writer};
    use crate::{Compression, ImageBuilder, Platform};

    fn layer(layout: &Layout, pack: Compression, text: &str) -> Descriptor {
        let mut image = ImageBuilder::new(layout, Platform::linux("amd64"));
        let archive = |out: &mut dyn io::Write| {
            let mut tar = Writer::new(out);
            for (path, body) in [("a", "first"), ("b", text)] {
                let header = Header::new(path, Kind::File, 0o644, Time::default());
                tar.member(&header, body.as_bytes())?;
            }
            // Many writers fill the last record up.
            tar.finish()?.write_all(&[0; 9216])
        };
        image.layer(pack, archive).unwrap()
    }

    fn text(layer: &PlainLayer, n: usize) -> io::Result<String> {
        let mut text = String::new();
        layer.body(&layer.index().members[n]).read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn members_are_read_in_any_order_packed_or_not_kept_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path().join("l")).unwrap();
        let kept = dir.path().join("kept");
        for pack in [Compression::None, Compression::Gzip, Compression::Zstd(1)] {
            let made = layer(&layout, pack, "second");
            for kept in [None, Some(kept.clone()), Some(kept.clone())] {
                let layers = Layers::new(layout.clone(), kept, Bytes::mib(1));
                let opened = layers.open(&made).unwrap();
                assert_eq!(text(&opened, 1).unwrap(), "second");
                assert_eq!(text(&opened, 0).unwrap(), "first");
            }
        }
        let names: Vec<_> = fs::read_dir(kept).unwrap().map(|e| e.unwrap().file_name()).collect();
        let plain = names.iter().filter(|n| n.to_string_lossy().ends_with(".plain")).count();
        assert_eq!((names.len(), plain), (5, 2));
    }

    #[test]
    fn a_layer_that_was_opened_before_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path().join("l")).unwrap();
        let made = layer(&layout, Compression::Gzip, "second");
        let layers = Layers::new(layout.clone(), Some(dir.path().join("kept")), Bytes::mib(1));
        layers.open(&made).unwrap();
        // The blob keeps its size and first bytes, and no decompressor could read the rest.
        let mut blob = layout.read(&made.digest, Bytes::mib(1)).unwrap();
        blob[10..].fill(0xff);
        save(&layout.root().join("blobs/sha256"), &made.digest.hex(), &blob).unwrap();
        assert_eq!(text(&layers.open(&made).unwrap(), 1).unwrap(), "second");
        let none = Layers::new(layout, None, Bytes::mib(1)).open(&made).unwrap_err();
        assert!(matches!(none, StoreError::Corrupt { .. }), "{none:?}");
    }

    #[test]
    fn damage_after_the_first_time_is_noticed_and_mended_where_it_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path().join("l")).unwrap();
        let kept = dir.path().join("kept");
        let layers = Layers::new(layout.clone(), Some(kept.clone()), Bytes::mib(1));
        let made = layer(&layout, Compression::Gzip, "second");
        layers.open(&made).unwrap();
        // A copy that a power cut made short, and an index that is garbage, are made again.
        for name in [plain_name(&made.digest), index_name(&made.digest)] {
            save(&kept, &name, b"short").unwrap();
            assert_eq!(text(&layers.open(&made).unwrap(), 1).unwrap(), "second");
        }
        let mut copy = fs::read(kept.join(plain_name(&made.digest))).unwrap();
        copy[512] ^= 1;
        save(&kept, &plain_name(&made.digest), &copy).unwrap();
        let error = text(&layers.open(&made).unwrap(), 0).unwrap_err();
        assert!(error.to_string().contains("the store is damaged"), "{error}");
        layers.forget(&made.digest);
        assert_eq!(text(&layers.open(&made).unwrap(), 0).unwrap(), "first");
    }

    #[test]
    fn a_bomb_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path().join("l")).unwrap();
        let made = layer(&layout, Compression::Gzip, &"x".repeat(1 << 20));
        let kept = dir.path().join("kept");
        let layers = Layers::new(layout, Some(kept.clone()), Bytes(100_000));
        let error = layers.open(&made).unwrap_err();
        assert!(model::chain(&error).contains("unpacks to more than"), "{}", model::chain(&error));
        assert_eq!(fs::read_dir(kept).unwrap().count(), 0);
    }
}
