//! Tars with container images, read where they lie: OCI image layouts in a tar, and what `docker save`
//! writes (`manifest.json`, which names a config and layers by their paths in the tar).
//!
//! Nothing is unpacked. What a tar says of itself is believed only as far as it is there: blobs are
//! called by the digest of the bytes that were read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use model::{Bytes, Digest};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use store::tarball::{Kind, clean_path};
use store::{ArchiveIndex, Descriptor, Index, Manifest, Place, media_type};

use crate::out::{self, OrAdvise};
use crate::packed::{Input, Packing};

/// Documents in a tar, at most.
const DOCUMENT_MAX: Bytes = Bytes::mib(4);
/// Links from link to link, at most.
const LINKS_MAX: usize = 8;
/// Images in one tar, and layers of one image, at most.
const COUNT_MAX: usize = 1000;
/// Where a tar says that it is one, and how.
const MAGIC: &[u8] = b"ustar";
const HEAD: usize = 257 + MAGIC.len();
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// What names an image in an index: ours and most others' key, and containerd's, which is longer.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// A tar with images.
#[derive(Debug)]
pub(crate) struct Archive {
    file: File,
    /// How messages call it.
    shown: String,
    members: BTreeMap<Vec<u8>, Place>,
    blobs: BTreeMap<Digest, (Bytes, Bytes)>,
    /// Manifests that were made here.
    made: BTreeMap<Digest, Vec<u8>>,
    images: Vec<Named>,
}

#[derive(Debug, Clone)]
enum Named {
    Oci(String, Descriptor),
    Docker(String, Saved),
}

/// An entry of `manifest.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Whether a file is a tar with images: it has an `index.json` or a `manifest.json` at its top.
/// What cannot be read is told by who reads it in earnest.
pub(crate) fn is_one(input: &mut Input) -> bool {
    let mut tar = || -> anyhow::Result<bool> {
        if !begins_as_tar(&input.head(HEAD)?) {
            return Ok(false);
        }
        let mut archive = store::tarball::Reader::new(BufReader::new(input.start()?));
        while let Some(header) = archive.next()? {
            let path = clean_path(&header.path);
            if header.kind == Kind::File && (path == b"index.json" || path == b"manifest.json") {
                return Ok(true);
            }
        }
        Ok(false)
    };
    tar().unwrap_or(false)
}

/// A tar, by its look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tar {
    /// As it is.
    Plain,
    /// Packed.
    Packed(Packing),
    /// Packed as nothing here unpacks; this program does.
    Foreign(&'static str),
}

/// What a file is that looks like a tar, packed or not; `None`: it does not look like one. A
/// virtual machine's `.ova` is a tar, too, and meant as a file.
pub(crate) fn looks_like(input: &mut Input) -> anyhow::Result<Option<Tar>> {
    let name = input.name().unwrap_or_default().to_ascii_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if ends(&[".ova"]) {
        return Ok(None);
    }
    let head = input.head(HEAD)?;
    let packed = ends(&[".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz"]);
    if let Some(packing) = Packing::of(&head) {
        let tar = packed || begins_as_tar(&input.head_within(packing, HEAD)?);
        return Ok(tar.then_some(Tar::Packed(packing)));
    }
    if ends(&[".tar.bz2", ".tbz2", ".tbz"]) {
        return Ok(Some(Tar::Foreign("bunzip2")));
    }
    Ok((packed || begins_as_tar(&head) || ends(&[".tar"])).then_some(Tar::Plain))
}

fn begins_as_tar(head: &[u8]) -> bool {
    head.len() == HEAD && head.ends_with(MAGIC)
}

impl Archive {
    /// Reads a tar to its end.
    pub(crate) fn open(mut input: Input) -> anyhow::Result<Archive> {
        let cannot = format!("cannot read {}", input.shown());
        let index = ArchiveIndex::of(BufReader::new(input.start()?)).context(cannot)?;
        let mut archive = Archive {
            shown: input.shown().to_owned(),
            file: input.into_file(),
            members: BTreeMap::new(),
            blobs: BTreeMap::new(),
            made: BTreeMap::new(),
            images: Vec::new(),
        };
        for place in index.members {
            let name = clean_path(&place.header.path);
            if name.starts_with(b"/") || name.starts_with(b"..") {
                let text = format!("its member {:?} is not within it", shown(&place.header.path));
                return Err(archive.wrong(&text));
            }
            if let Some(digest) = place.digest.filter(|_| place.header.kind == Kind::File) {
                archive.blobs.insert(digest, (place.at, Bytes(place.header.size)));
            }
            let kind = place.header.kind;
            if archive.members.insert(name, place).is_some() && kind != Kind::Dir {
                return Err(archive.wrong("it has two members of one name"));
            }
        }
        archive.images = archive.found()?;
        Ok(archive)
    }

    /// The images, by name; one without a name has that of its config.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |image: &Named| match image {
            Named::Oci(name, _) | Named::Docker(name, _) => name.clone(),
        };
        self.images.iter().map(name).collect()
    }

    fn found(&self) -> anyhow::Result<Vec<Named>> {
        // What names images fully comes first; newer `docker save` writes both.
        let saved = match self.document(b"manifest.json")? {
            Some(bytes) => self.saved(&bytes)?,
            None => Vec::new(),
        };
        let Some(bytes) = self.document(b"index.json")? else { return Ok(saved) };
        let index = Index::parse(&bytes, "index.json").or_advise()?;
        let mut images = Vec::new();
        for target in index.manifests {
            let name = NAMES.iter().find_map(|key| target.annotations.get(*key));
            if let Some(name) = name.filter(|_| self.has(&target)) {
                images.push(Named::Oci(name.clone(), target));
            }
        }
        Ok(if images.is_empty() { saved } else { images })
    }

    fn saved(&self, bytes: &[u8]) -> anyhow::Result<Vec<Named>> {
        let all: Vec<Saved> = serde_json::from_slice(bytes)
            .map_err(|e| self.wrong(&format!("its manifest.json is not one of docker's: {e}")))?;
        let mut images = Vec::new();
        for saved in all {
            let tags = saved.repo_tags.clone().unwrap_or_default();
            if tags.is_empty() {
                let name = Path::new(&saved.config).file_stem().unwrap_or_default();
                let name: String = name.to_string_lossy().chars().take(12).collect();
                images.push(Named::Docker(name, saved));
            } else {
                images.extend(tags.into_iter().map(|tag| Named::Docker(tag, saved.clone())));
            }
        }
        if images.len() > COUNT_MAX {
            return Err(self.wrong(&format!("it has more than {COUNT_MAX} images")));
        }
        Ok(images)
    }

    /// The manifest or index of an image, by its place among [`Archive::names`].
    pub(crate) fn target(&mut self, at: usize) -> anyhow::Result<Descriptor> {
        let image = self.images.get(at).cloned();
        let saved = match image.ok_or_else(|| self.wrong("it has no such image"))? {
            Named::Oci(_, target) => return Ok(target),
            Named::Docker(_, saved) => saved,
        };
        if saved.layers.len() > COUNT_MAX {
            return Err(self.wrong(&format!("an image in it has more than {COUNT_MAX} layers")));
        }
        let config = self.blob(&saved.config, Some(media_type::CONFIG))?;
        let layers = saved.layers.iter().map(|path| self.blob(path, None));
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            config,
            layers: layers.collect::<Result<_, _>>()?,
            annotations: BTreeMap::new(),
        };
        let bytes = manifest.to_bytes();
        let target = descriptor(
            media_type::MANIFEST,
            Digest(Sha256::digest(&bytes).into()),
            Bytes(bytes.len() as u64),
        );
        self.made.insert(target.digest, bytes);
        Ok(target)
    }

    /// What a path in the tar leads to; a layer is known by how it begins.
    fn blob(&self, path: &str, kind: Option<&str>) -> anyhow::Result<Descriptor> {
        let place = self.place(path.as_bytes())?;
        let none = || self.wrong(&format!("its member {:?} is no file", shown(path.as_bytes())));
        let digest = place.digest.ok_or_else(none)?;
        let kind = match kind {
            Some(kind) => kind,
            None => {
                let start = self.bytes(place.at, Bytes(place.header.size.min(4)))?;
                match start.as_slice() {
                    start if start.starts_with(GZIP) => media_type::LAYER_GZIP,
                    start if start.starts_with(ZSTD) => media_type::LAYER_ZSTD,
                    _ => media_type::LAYER,
                }
            }
        };
        Ok(descriptor(kind, digest, Bytes(place.header.size)))
    }

    /// The file behind a path: older `docker save` writes a layer once, and links to it.
    fn place(&self, path: &[u8]) -> anyhow::Result<&Place> {
        let mut name = clean_path(path);
        for _ in 0..LINKS_MAX {
            let none = || self.wrong(&format!("it has no member {:?}", shown(&name)));
            let place = self.members.get(&name).ok_or_else(none)?;
            name = match place.header.kind {
                Kind::File => return Ok(place),
                Kind::HardLink => clean_path(&place.header.link),
                Kind::Symlink => {
                    let folder = name.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
                    let folder = name.get(..folder).unwrap_or_default();
                    clean_path(&[folder, &place.header.link].concat())
                }
                _ => break,
            };
        }
        Err(self.wrong(&format!("its member {:?} leads to no file", shown(path))))
    }

    fn document(&self, name: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        let place = self.members.get(name).filter(|p| p.header.kind == Kind::File);
        let digest = place.and_then(|p| p.digest);
        digest.map(|digest| self.read(&digest, DOCUMENT_MAX)).transpose()
    }

    /// Whether a blob of this digest and size is there.
    pub(crate) fn has(&self, what: &Descriptor) -> bool {
        self.blobs.get(&what.digest).is_some_and(|(_, size)| *size == what.size)
    }

    /// A blob whole.
    pub(crate) fn read(&self, digest: &Digest, most: Bytes) -> anyhow::Result<Vec<u8>> {
        if let Some(made) = self.made.get(digest) {
            return Ok(made.clone());
        }
        let (at, size) = self.blob_at(digest)?;
        if size > most {
            return Err(self.wrong(&format!("its document {digest} is larger than {most}")));
        }
        let bytes = self.bytes(at, size)?;
        if Digest(Sha256::digest(&bytes).into()) != *digest {
            return Err(self.wrong("it was changed while it was read"));
        }
        Ok(bytes)
    }

    /// The file with a blob in it, where that begins, and its size. To be read at that place: all
    /// that are handed out are at one.
    pub(crate) fn open_blob(&self, digest: &Digest) -> anyhow::Result<(File, u64, Bytes)> {
        let (at, size) = self.blob_at(digest)?;
        let file = self.file.try_clone().with_context(|| self.cannot())?;
        Ok((file, at.0, size))
    }

    fn blob_at(&self, digest: &Digest) -> anyhow::Result<(Bytes, Bytes)> {
        let none = || self.wrong(&format!("it has no blob {digest}"));
        self.blobs.get(digest).copied().ok_or_else(none)
    }

    /// So many bytes of the tar; they fit into memory.
    fn bytes(&self, at: Bytes, size: Bytes) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(size.0)?];
        self.file.read_exact_at(&mut bytes, at.0).with_context(|| self.cannot())?;
        Ok(bytes)
    }

    fn cannot(&self) -> String {
        format!("cannot read {}", self.shown)
    }

    fn wrong(&self, text: &str) -> anyhow::Error {
        let text = format!("{}: {text}", self.shown);
        out::advised(text, "write it anew with `docker save` or `skopeo copy … oci-archive:FILE`")
    }
}

fn descriptor(kind: &str, digest: Digest, size: Bytes) -> Descriptor {
    Descriptor {
        media_type: kind.to_owned(),
        digest,
        size,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

fn shown(name: &[u8]) -> String {
    out::short(&String::from_utf8_lossy(name), 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tar of files, and of links if a target stands behind `->`.
    fn tar(members: &[(&str, &[u8])]) -> Input {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = tar::Builder::new(file.reopen().unwrap());
        for (name, bytes) in members {
            let mut header = tar::Header::new_gnu();
            let (name, target) = name.split_once("->").unwrap_or((name, ""));
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            if !target.is_empty() {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_link_name_literal(target).unwrap();
            }
            // Names that no writer of ours would take.
            let slot = &mut header.as_old_mut().name;
            slot[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            writer.append(&header, *bytes).unwrap();
        }
        writer.finish().unwrap();
        Input::open(file.path()).unwrap()
    }

    const SAVED: &[u8] = br#"[{"Config": "c.json", "RepoTags": ["web:1", "web:2"],
                             "Layers": ["a/layer.tar", "b/layer.tar"]}]"#;

    #[test]
    fn what_docker_saves_becomes_a_manifest_of_its_files() {
        let mut file = tar(&[
            ("a/layer.tar", b"one"),
            ("b/layer.tar->../a/layer.tar", b""),
            ("c.json", b"{}"),
            ("manifest.json", SAVED),
        ]);
        assert!(is_one(&mut file));
        let mut archive = Archive::open(file).unwrap();
        assert_eq!(archive.names(), ["web:1", "web:2"]);
        let target = archive.target(1).unwrap();
        let bytes = archive.read(&target.digest, DOCUMENT_MAX).unwrap();
        let manifest = Manifest::parse(&bytes, "it").unwrap();
        let one = Digest(Sha256::digest(b"one").into());
        let layers: Vec<_> =
            manifest.layers.iter().map(|l| (l.media_type.as_str(), l.digest)).collect();
        assert_eq!(layers, [(media_type::LAYER, one), (media_type::LAYER, one)]);
        let (file, at, size) = archive.open_blob(&one).unwrap();
        assert_eq!(size, Bytes(3));
        let mut text = [0; 3];
        file.read_exact_at(&mut text, at).unwrap();
        assert_eq!(&text, b"one");
    }

    #[test]
    fn a_layout_in_a_tar_is_one_whatever_its_blobs_claim() {
        let manifest = br#"{"schemaVersion": 2, "config": {"mediaType": "c", "digest": "sha256:0000000000000000000000000000000000000000000000000000000000000000", "size": 0}}"#;
        let digest = Digest(Sha256::digest(manifest).into());
        let index = format!(
            r#"{{"schemaVersion": 2, "manifests": [{{"mediaType": "{}", "digest": "{digest}", "size": {},
                 "annotations": {{"org.opencontainers.image.ref.name": "1.0"}}}}]}}"#,
            media_type::MANIFEST,
            manifest.len()
        );
        let blob = format!("blobs/sha256/{}", digest.hex());
        let file = tar(&[("./index.json", index.as_bytes()), (&blob, manifest)]);
        let mut archive = Archive::open(file).unwrap();
        assert_eq!(archive.names(), ["1.0"]);
        assert_eq!(archive.target(0).unwrap().digest, digest);
        // Another content under the same name is another blob, and this image is not there.
        let file = tar(&[("index.json", index.as_bytes()), (&blob, b"something else")]);
        assert!(Archive::open(file).unwrap().names().is_empty());
    }

    #[test]
    fn a_hostile_tar_is_refused_and_named() {
        let refused = |members: &[(&str, &[u8])]| {
            let file = tar(members);
            let open = Archive::open(file);
            let error = open.and_then(|mut archive| archive.target(0)).unwrap_err();
            format!("{error:#}")
        };
        let one = |config: &str, layer: &str| {
            format!(r#"[{{"Config": "{config}", "RepoTags": null, "Layers": ["{layer}"]}}]"#)
        };
        for (members, want) in [
            (vec![("../../etc/passwd", &b"x"[..]), ("manifest.json", SAVED)], "is not within it"),
            (vec![("/etc/passwd", b"x"), ("manifest.json", SAVED)], "is not within it"),
            (vec![("manifest.json", SAVED), ("manifest.json", SAVED)], "two members of one name"),
            (vec![("manifest.json", SAVED)], "it has no member \"c.json\""),
            (vec![("manifest.json", b"{}")], "is not one of docker's"),
            (
                vec![("c->d", b""), ("d->c", b""), ("manifest.json", one("c", "l").as_bytes())],
                "leads to no file",
            ),
            (
                vec![("c->../../x", b""), ("manifest.json", one("c", "l").as_bytes())],
                "it has no member \"../../x\"",
            ),
        ] {
            let text = refused(&members);
            assert!(text.contains(want), "{text}");
        }
        let large = vec![b' '; 5 << 20];
        let text = refused(&[("manifest.json", &large)]);
        assert!(text.contains("is larger than"), "{text}");
        assert!(!is_one(&mut tar(&[("a", b"b")])));
    }
}
