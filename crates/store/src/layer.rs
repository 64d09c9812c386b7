//! Layers as streams: decompressed, bounded, checked; and an image's layers as one sequence.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};

use crate::tarball::{Header, Kind, Reader, clean_path};
use crate::{Descriptor, Layout, Manifest, StoreError};

/// What a whiteout's name starts with (OCI image spec, layer.md).
pub(crate) const WHITEOUT: &[u8] = b".wh.";

/// The largest zstd window we decode, as a power of two: what level 19 uses, 8 MiB of memory.
const ZSTD_WINDOW_LOG: u32 = 23;

/// A layer's plain archive. [`LayerReader::finish`] says whether the stored bytes were the right ones:
/// until then, what was read is foreign.
pub struct LayerReader {
    layout: Layout,
    layer: Descriptor,
    plain: Box<dyn Plain>,
    copy: Option<BufWriter<File>>,
    read: u64,
    limit: Bytes,
}

impl std::fmt::Debug for LayerReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerReader").field("layer", &self.layer.digest).finish_non_exhaustive()
    }
}

impl LayerReader {
    /// Opens a layer. Its compression is told by its first bytes; media types are often wrong.
    /// Reading ends with an error after `limit` plain bytes.
    pub fn open(
        layout: &Layout,
        layer: &Descriptor,
        limit: Bytes,
    ) -> Result<LayerReader, StoreError> {
        let (file, got) = layout.open_blob(&layer.digest)?;
        if got != layer.size {
            let digest = layer.digest;
            return Err(StoreError::WrongSize { digest, got, want: layer.size });
        }
        let mut stored = BufReader::with_capacity(1 << 16, Hashed { file, hash: Sha256::new() });
        let fail = |source| StoreError::Member {
            layer: layer.digest,
            doing: "open",
            member: "its archive".to_owned(),
            source,
        };
        let start = stored.fill_buf().map_err(fail)?;
        let plain: Box<dyn Plain> = if start.starts_with(&[0x1f, 0x8b]) {
            Box::new(flate2::bufread::MultiGzDecoder::new(stored))
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let mut zstd = zstd::stream::read::Decoder::with_buffer(stored).map_err(fail)?;
            zstd.window_log_max(ZSTD_WINDOW_LOG).map_err(fail)?;
            Box::new(zstd)
        } else {
            Box::new(stored)
        };
        let (layout, layer) = (layout.clone(), layer.clone());
        Ok(LayerReader { layout, layer, plain, copy: None, read: 0, limit })
    }

    /// Writes what is read from now on to a file as well. It is whole when the reader was finished.
    pub(crate) fn copy_to(&mut self, file: File) {
        self.copy = Some(BufWriter::with_capacity(1 << 18, file));
    }

    /// Plain bytes read so far.
    pub fn read_so_far(&self) -> Bytes {
        Bytes(self.read)
    }

    /// Reads what is left, and compares the stored bytes with the layer's digest. The size of the
    /// plain archive.
    pub fn finish(mut self) -> Result<Bytes, StoreError> {
        // A damaged layer may decompress to the end of its archive and fail only here, or before.
        let rest = io::copy(&mut self, &mut io::sink());
        let copied = self.copy.take().map_or(Ok(()), |mut copy| copy.flush());
        let got = self.plain.stored_digest().map_err(|source| self.member("its end", source))?;
        if got != self.layer.digest {
            return Err(self.layout.corrupt(&self.layer.digest, got));
        }
        rest.and(copied).map_err(|source| self.member("its end", source))?;
        Ok(Bytes(self.read))
    }

    /// Why reading failed: a wrong digest is the cause of all that follows from it.
    fn why(mut self, member: &str, source: io::Error) -> StoreError {
        match self.plain.stored_digest() {
            Ok(got) if got != self.layer.digest => self.layout.corrupt(&self.layer.digest, got),
            _ => self.member(member, source),
        }
    }

    fn member(&self, member: &str, source: io::Error) -> StoreError {
        let (layer, member) = (self.layer.digest, member.to_owned());
        StoreError::Member { layer, doing: "read", member, source }
    }
}

impl Read for LayerReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.plain.read(out)?;
        self.read += n as u64;
        if self.read > self.limit.0 {
            let why = format!("it unpacks to more than {}", self.limit);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        if let Some(copy) = &mut self.copy {
            copy.write_all(&out[..n])?;
        }
        Ok(n)
    }
}

/// The members of one layer, in order. Any failure to read names the layer, and a blob that is not
/// what its name says is told apart from everything that follows from it.
pub(crate) fn each_member<E: From<StoreError>>(
    layout: &Layout,
    layer: &Descriptor,
    limit: Bytes,
    mut visit: impl FnMut(Header, &mut dyn Read) -> Result<(), E>,
) -> Result<Bytes, E> {
    let reader = LayerReader::open(layout, layer, limit)?;
    each_member_at(Reader::new(reader), |header, _, body| visit(header, body))
}

/// Like [`each_member`]; tells as well where in the plain archive a member's bytes begin.
pub(crate) fn each_member_at<E: From<StoreError>>(
    mut archive: Reader<LayerReader>,
    mut visit: impl FnMut(Header, Bytes, &mut dyn Read) -> Result<(), E>,
) -> Result<Bytes, E> {
    let mut last = "its start".to_owned();
    loop {
        match archive.next() {
            Ok(None) => break,
            Ok(Some(header)) => {
                last = header.display();
                let at = archive.get_ref().read_so_far();
                let mut body = Watched { archive: &mut archive, failed: None };
                let visited = visit(header, at, &mut body);
                if let (Err(_), Some(source)) = (&visited, body.failed) {
                    return Err(archive.into_inner().why(&last, source).into());
                }
                visited?;
            }
            Err(source) => {
                let member = format!("what follows {last}");
                return Err(archive.into_inner().why(&member, source).into());
            }
        }
    }
    Ok(archive.into_inner().finish()?)
}

/// A member's bytes; remembers when they could not be read, whatever the visitor makes of that.
struct Watched<'a> {
    archive: &'a mut Reader<LayerReader>,
    failed: Option<io::Error>,
}

impl Read for Watched<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.archive.read(out).map_err(|e| {
            let told = io::Error::new(e.kind(), e.to_string());
            self.failed = Some(e);
            told
        })
    }
}

/// The members of an image as one sequence, as the reference composer sees it: topmost layer first,
/// the first of several members of one path is the one that counts, whiteouts hide what is below
/// them, paths are cleaned.
///
/// Its oddities are kept, since archives are compared byte for byte: an opaque folder hides nothing,
/// and a hard link's target is not looked at. A path or target that climbs above the root is an error.
pub fn flatten<E: From<StoreError>>(
    layout: &Layout,
    manifest: &Manifest,
    limit: Bytes,
    mut visit: impl FnMut(Header, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut flat = Flattener::default();
    let mut left = limit;
    for layer in manifest.layers.iter().rev() {
        let read = each_member(layout, layer, left, |mut header, body| -> Result<(), E> {
            if flat.admit(layer.digest, &mut header)? { visit(header, body) } else { Ok(()) }
        })?;
        left = Bytes(left.0.saturating_sub(read.0));
    }
    Ok(())
}

/// Says of an image's members, one after the other, which of them count: see [`flatten`].
#[derive(Debug, Default)]
pub struct Flattener {
    /// What is settled already; true: and everything below it.
    settled: HashMap<Vec<u8>, bool>,
}

impl Flattener {
    /// Whether this member counts, its path cleaned. The topmost layer's members come first. Fails
    /// if its path or target climbs above the root.
    pub fn admit(&mut self, layer: Digest, header: &mut Header) -> Result<bool, StoreError> {
        header.path = clean_path(&header.path);
        check_path(layer, header)?;
        let (dir, base) = split(&header.path);
        let whiteout = base.strip_prefix(WHITEOUT);
        let name = match whiteout {
            Some(hidden) if header.kind != Kind::Dir => join(dir, hidden),
            _ => header.path.clone(),
        };
        if self.settled.contains_key(&name) || inside_hidden(&self.settled, &name) {
            return Ok(false);
        }
        self.settled.insert(name, whiteout.is_some() || header.kind != Kind::Dir);
        Ok(whiteout.is_none())
    }
}

/// Refuses what would lead out of the root when it is unpacked.
pub(crate) fn check_path(layer: Digest, header: &Header) -> Result<(), StoreError> {
    let climbs = |path: &[u8]| path.split(|b| *b == b'/').any(|part| part == b"..");
    let refuse = |why: String| Err(StoreError::Layer { layer, why });
    if climbs(&header.path) {
        return refuse(format!("{:?} leads out of the image", header.display()));
    }
    if header.kind == Kind::HardLink && climbs(&header.link) {
        let target = String::from_utf8_lossy(&header.link);
        return refuse(format!("{:?} links to {target:?}, out of the image", header.display()));
    }
    if header.path.contains(&0) || header.link.contains(&0) {
        return refuse(format!("{:?} has a NUL in its name", header.display()));
    }
    Ok(())
}

/// Folder and name; the folder of a bare name is `.`.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(0) => (b"/", &path[1..]),
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b".", path),
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    clean_path(&[dir, b"/", name].concat())
}

fn inside_hidden(settled: &HashMap<Vec<u8>, bool>, path: &[u8]) -> bool {
    let mut path = path;
    loop {
        let (dir, _) = split(path);
        if dir == path {
            return false;
        }
        if settled.get(dir) == Some(&true) {
            return true;
        }
        path = dir;
    }
}

/// Stored bytes and their digest so far.
struct Hashed {
    file: File,
    hash: Sha256,
}

impl Read for Hashed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(out)?;
        self.hash.update(&out[..n]);
        Ok(n)
    }
}

type Stored = BufReader<Hashed>;

/// A decompressor that lets one get at the stored bytes again.
trait Plain: Read + Send {
    /// The digest of all stored bytes; reads what is left of them.
    fn stored_digest(&mut self) -> io::Result<Digest>;
}

fn digest_to_end(stored: &mut Stored) -> io::Result<Digest> {
    io::copy(stored, &mut io::sink())?;
    Ok(Digest(stored.get_ref().hash.clone().finalize().into()))
}

impl Plain for Stored {
    fn stored_digest(&mut self) -> io::Result<Digest> {
        digest_to_end(self)
    }
}

impl Plain for flate2::bufread::MultiGzDecoder<Stored> {
    fn stored_digest(&mut self) -> io::Result<Digest> {
        digest_to_end(self.get_mut())
    }
}

impl Plain for zstd::stream::read::Decoder<'static, Stored> {
    fn stored_digest(&mut self) -> io::Result<Digest> {
        digest_to_end(self.get_mut())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::tarball::{Time, Writer};
    use crate::{Compression, ImageBuilder, Platform, save};

    /// Layers, lowest first; `a/` is a folder, `a` a file that holds the layer's number.
    fn image(layout: &Layout, layers: &[&[&str]]) -> Manifest {
        let mut image = ImageBuilder::new(layout, Platform::linux("amd64"));
        for (n, (digit, members)) in (b'0'..).zip(layers).enumerate() {
            let pack = [Compression::None, Compression::Gzip, Compression::Zstd(3)][n % 3];
            image
                .layer(pack, |out| {
                    let mut tar = Writer::new(out);
                    for member in *members {
                        let time = Time::default();
                        let (kind, link) = match member.split_once('=') {
                            Some((_, link)) => (Kind::HardLink, link),
                            None if member.ends_with('/') => (Kind::Dir, ""),
                            None => (Kind::File, ""),
                        };
                        let path = member.split('=').next().unwrap_or_default();
                        let header =
                            Header { link: link.into(), ..Header::new(path, kind, 0o644, time) };
                        let body = if kind == Kind::File { vec![digit] } else { vec![] };
                        tar.member(&header, &body)?;
                    }
                    tar.finish().map(drop)
                })
                .unwrap();
        }
        let made = image.finish().unwrap();
        crate::Image::read(layout, &made).unwrap().manifest
    }

    fn flat(layers: &[&[&str]], limit: Bytes) -> Result<String, StoreError> {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        let mut seen = Vec::new();
        flatten(
            &layout,
            &image(&layout, layers),
            limit,
            |header, body| -> Result<(), StoreError> {
                let mut text = String::new();
                body.read_to_string(&mut text).unwrap();
                seen.push(format!("{}{text}", header.display()));
                Ok(())
            },
        )?;
        Ok(seen.join(" "))
    }

    #[test]
    fn the_top_layer_speaks_first_and_whiteouts_hide_what_is_below() {
        for (layers, want) in [
            (&[&["./a/", "a/x", "b"][..], &["a/x", "c"]][..], "a/x1 c1 a b0"),
            (&[&["a/", "a/x", "a/y"], &["a/.wh.x"]], "a a/y0"),
            (&[&["a/", "a/x/", "a/x/z"], &["a/.wh.x"]], "a"),
            (&[&["a/", "a/x"], &["a"]], "a1"),
            (&[&["a/", "a/x"], &["a/.wh..wh..opq", "a/", "a/y"]], "a a/y1 a/x0"),
            (&[&["x"], &["y"], &["z"], &[".wh.x"]], "z2 y1"),
        ] {
            assert_eq!(flat(layers, Bytes::mib(1)).unwrap(), want, "{layers:?}");
        }
    }

    #[test]
    fn what_climbs_out_is_refused_by_name() {
        for members in [&["../x"][..], &["a/../../x"], &["x", "y=../../etc/shadow"]] {
            let error = flat(&[members], Bytes::mib(1)).unwrap_err().to_string();
            assert!(error.contains("out of the image"), "{error}");
        }
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let error = flat(&[&["a", "b", "c"]], Bytes(1024)).unwrap_err();
        assert!(model::chain(&error).contains("more than 1.0 KiB"), "{}", model::chain(&error));
    }

    #[test]
    fn a_corrupt_layer_is_named_whatever_fails_first() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        let manifest = image(&layout, &[&["a"], &["b"], &["c"]]);
        for layer in &manifest.layers {
            let name = layer.digest.hex();
            let good = layout.read(&layer.digest, Bytes::mib(1)).unwrap();
            for at in [0, 20, good.len() / 2, good.len() - 1] {
                let mut bad = good.clone();
                bad[at] ^= 0x40;
                save(&dir.path().join("blobs/sha256"), &name, &bad).unwrap();
                let error =
                    flatten(&layout, &manifest, Bytes::mib(1), |_, _| Ok::<_, StoreError>(()))
                        .unwrap_err();
                assert!(matches!(error, StoreError::Corrupt { .. }), "{at}: {error:?}");
                assert!(error.to_string().contains(&name));
            }
            let mut blob = layout.blob_writer().unwrap();
            blob.write_all(&good).unwrap();
            blob.commit(Some(layer.digest), Bytes::mib(1)).unwrap();
        }
        flatten(&layout, &manifest, Bytes::mib(1), |_, _| Ok::<_, StoreError>(())).unwrap();
    }
}
