//! Names for content: index.json, and what is kept because something refers to it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};

use model::{Bytes, Digest};
use serde_json::Value;

use crate::image::{media_type, read_document, to_json};
use crate::{Descriptor, ImageConfig, Index, Layout, MANIFEST_MAX, Manifest, Platform};
use crate::{StoreError, save};

/// What we write, and read first.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What containerd writes.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// A name and what it stands for: a manifest, or an index of several platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ref {
    /// The full name, as it was tagged.
    pub name: String,
    /// What it stands for.
    pub target: Descriptor,
}

impl Ref {
    /// What an index names, sorted by name.
    pub(crate) fn all(index: Index) -> Vec<Ref> {
        let named = |target: Descriptor| {
            let name = name_of(|key| target.annotations.get(key).map(String::as_str))?.to_owned();
            Some(Ref { name, target })
        };
        let mut refs: Vec<Ref> = index.manifests.into_iter().filter_map(named).collect();
        refs.sort_by(|a, b| a.name.cmp(&b.name));
        refs
    }
}

/// A name, resolved for a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// What the name stands for: a manifest or an index.
    pub target: Descriptor,
    /// The manifest of the platform.
    pub manifest: Descriptor,
}

impl Layout {
    /// All names, sorted.
    pub fn refs(&self) -> Result<Vec<Ref>, StoreError> {
        Ok(Ref::all(Index::parse(&self.read_index()?, &self.index_name())?))
    }

    /// What `name` stands for; the name must be as it was tagged (see [`crate::name::expand`]).
    pub fn target(&self, name: &str) -> Result<Descriptor, StoreError> {
        let found = self.refs()?.into_iter().find(|r| r.name == name);
        found
            .map(|r| r.target)
            .ok_or_else(|| StoreError::NoImage { name: name.to_owned(), root: self.root().into() })
    }

    /// The manifest that `name` stands for on `platform`.
    pub fn resolve(&self, name: &str, platform: &Platform) -> Result<Descriptor, StoreError> {
        self.resolve_both(name, platform).map(|r| r.manifest)
    }

    /// Like [`Layout::resolve`], and what was passed on the way.
    pub fn resolve_both(&self, name: &str, platform: &Platform) -> Result<Resolved, StoreError> {
        let target = self.target(name)?;
        let manifest = self.for_platform(name, &target, platform)?;
        Ok(Resolved { target, manifest })
    }

    /// The manifest for `platform` behind `target`, which may be one itself. `name` is for errors.
    pub fn for_platform(
        &self,
        name: &str,
        target: &Descriptor,
        platform: &Platform,
    ) -> Result<Descriptor, StoreError> {
        let none = |mut have: Vec<String>| {
            have.sort();
            have.dedup();
            let have = if have.is_empty() { "no platform".to_owned() } else { have.join(", ") };
            StoreError::NoPlatform { name: name.to_owned(), want: platform.to_string(), have }
        };
        if media_type::is_index(&target.media_type) {
            let what = format!("index {}", target.digest);
            let index = Index::parse(&read_document(self, target)?, &what)?;
            let fits = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| platform.runs(p));
            if let Some(found) = index.manifests.iter().find(fits) {
                return Ok(found.clone());
            }
            let known = index.manifests.iter().filter_map(|d| d.platform.as_ref());
            return Err(none(
                known.filter(|p| p.os != "unknown").map(ToString::to_string).collect(),
            ));
        }
        let said = match &target.platform {
            Some(p) => Some(p.clone()),
            None => {
                let what = format!("manifest {}", target.digest);
                let manifest = Manifest::parse(&read_document(self, target)?, &what)?;
                let what = format!("image configuration {}", manifest.config.digest);
                ImageConfig::parse(&read_document(self, &manifest.config)?, &what)?.platform()
            }
        };
        match said {
            Some(p) if !platform.runs(&p) => Err(none(vec![p.to_string()])),
            _ => Ok(target.clone()),
        }
    }

    /// Lets `name` stand for `target`, and no longer for what it stood for. The blob must be there.
    pub fn tag(&self, name: &str, target: &Descriptor) -> Result<(), StoreError> {
        if !self.has(&target.digest, Some(target.size)) {
            self.open_blob(&target.digest)?;
            self.read(&target.digest, MANIFEST_MAX)?;
        }
        let mut target = target.clone();
        target.annotations.remove(IMAGE_NAME);
        target.annotations.insert(REF_NAME.to_owned(), name.to_owned());
        self.edit(|manifests| {
            let place = manifests.iter().position(|m| json_name(m) == Some(name));
            let new: Value = serde_json::from_slice(&to_json(&target)).unwrap_or_default();
            match place {
                Some(at) => manifests[at] = new,
                None => manifests.push(new),
            }
            true
        })
        .map(drop)
    }

    /// Forgets `name`; whether it was known. The blobs stay until [`Layout::gc`].
    pub fn untag(&self, name: &str) -> Result<bool, StoreError> {
        self.edit(|manifests| {
            let before = manifests.len();
            manifests.retain(|m| json_name(m) != Some(name));
            manifests.len() != before
        })
    }

    /// Removes blobs that neither a name nor `keep` leads to; how many, and what they took.
    ///
    /// A blob that was written and not tagged yet must be in `keep`, or nobody else may write now.
    pub fn gc(&self, keep: &[Digest]) -> Result<(usize, Bytes), StoreError> {
        let _lock = self.lock()?;
        let index = Index::parse(&self.read_index()?, &self.index_name())?;
        let mut live: BTreeSet<Digest> = BTreeSet::new();
        let mut next: Vec<Digest> = keep.to_vec();
        next.extend(index.manifests.iter().map(|d| d.digest));
        while let Some(digest) = next.pop() {
            if live.insert(digest) {
                next.extend(self.children(&digest)?);
            }
        }
        let dir = self.root().join("blobs/sha256");
        let (mut gone, mut freed) = (0, 0);
        for entry in fs::read_dir(&dir).map_err(StoreError::io("read", &dir))? {
            let entry = entry.map_err(StoreError::io("read", &dir))?;
            let name = entry.file_name();
            let Some(digest) = name.to_str().and_then(|n| Digest::from_hex(n).ok()) else {
                continue; // not ours
            };
            if !live.contains(&digest) {
                freed += entry.metadata().map_or(0, |m| m.len());
                fs::remove_file(entry.path()).map_err(StoreError::io("remove", entry.path()))?;
                gone += 1;
            }
        }
        Ok((gone, Bytes(freed)))
    }

    /// What a manifest or index refers to; nothing for any other blob, and for one that is not there.
    fn children(&self, digest: &Digest) -> Result<Vec<Digest>, StoreError> {
        let (file, size) = match self.open_blob(digest) {
            Err(StoreError::Missing { .. }) => return Ok(Vec::new()),
            other => other?,
        };
        if size > MANIFEST_MAX {
            return Ok(Vec::new());
        }
        let mut bytes = Vec::new();
        file.take(MANIFEST_MAX.0)
            .read_to_end(&mut bytes)
            .map_err(StoreError::io("read", self.blob_path(digest)))?;
        let named = |list: Vec<Descriptor>| list.into_iter().map(|d| d.digest);
        // The two kinds of document name themselves by their required members.
        Ok(if let Ok(m) = serde_json::from_slice::<Manifest>(&bytes) {
            std::iter::once(m.config.digest).chain(named(m.layers)).collect()
        } else if let Ok(index) = serde_json::from_slice::<Index>(&bytes) {
            named(index.manifests).collect()
        } else {
            Vec::new()
        })
    }

    /// Changes the list of index.json, if `change` says that it did. Entries and fields of others stay
    /// as they are.
    fn edit(&self, change: impl FnOnce(&mut Vec<Value>) -> bool) -> Result<bool, StoreError> {
        let _lock = self.lock()?;
        let what = self.index_name();
        let mut index: Value = serde_json::from_slice(&self.read_index()?)
            .map_err(|source| StoreError::Parse { what: what.clone(), source })?;
        if index["manifests"].is_null() && index.is_object() {
            index["manifests"] = Value::Array(Vec::new());
        }
        let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
            let why = "it has no list \"manifests\"".to_owned();
            return Err(StoreError::Nonsense { what, why });
        };
        let changed = change(manifests);
        if changed {
            save(self.root(), "index.json", &to_json(&index))?;
        }
        Ok(changed)
    }

    fn read_index(&self) -> Result<Vec<u8>, StoreError> {
        let path = self.root().join("index.json");
        let mut bytes = Vec::new();
        let file = match fs::File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let why = "it has no file index.json".to_owned();
                return Err(StoreError::NoLayout { path: self.root().into(), why });
            }
            other => other.map_err(StoreError::io("open", &path))?,
        };
        file.take(MANIFEST_MAX.0 + 1)
            .read_to_end(&mut bytes)
            .map_err(StoreError::io("read", &path))?;
        Ok(bytes) // Index::parse refuses what is too long
    }

    fn index_name(&self) -> String {
        self.root().join("index.json").display().to_string()
    }
}

fn json_name(descriptor: &Value) -> Option<&str> {
    name_of(|key| descriptor["annotations"][key].as_str())
}

/// containerd puts only the tag into the standard annotation, and the full name into its own.
fn name_of<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Option<&'a str> {
    let standard = annotation(REF_NAME);
    match (standard, annotation(IMAGE_NAME)) {
        (Some(name), None) => Some(name),
        (Some(name), Some(_)) if name.contains('/') => Some(name),
        (_, full) => full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageBuilder;

    fn layout() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        (dir, layout)
    }

    fn image(layout: &Layout, arch: &str) -> Descriptor {
        ImageBuilder::new(layout, Platform::linux(arch)).finish().unwrap()
    }

    #[test]
    fn a_name_leads_to_the_manifest_of_the_platform() {
        let (_dir, layout) = layout();
        let (amd, arm) = (image(&layout, "amd64"), image(&layout, "arm64"));
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::INDEX.to_owned()),
            manifests: vec![amd.clone(), arm.clone()],
            annotations: Default::default(),
        };
        let (digest, size) = layout.put(&index.to_bytes()).unwrap();
        layout.tag("a", &Descriptor::new(media_type::INDEX, digest, size)).unwrap();
        layout.tag("b", &amd).unwrap();

        assert_eq!(layout.resolve("a", &Platform::linux("arm64")).unwrap().digest, arm.digest);
        assert_eq!(layout.resolve("b", &Platform::linux("amd64")).unwrap().digest, amd.digest);
        let error = layout.resolve("a", &Platform::linux("riscv64")).unwrap_err().to_string();
        assert_eq!(error, "image a is for linux/amd64, linux/arm64, not for linux/riscv64");
        assert!(layout.resolve("b", &Platform::linux("arm64")).is_err());
        assert!(matches!(layout.target("c"), Err(StoreError::NoImage { .. })));
    }

    #[test]
    fn a_tag_moves_and_goes() {
        let (_dir, layout) = layout();
        let (old, new) = (image(&layout, "amd64"), image(&layout, "arm64"));
        layout.tag("a", &old).unwrap();
        layout.tag("a", &new).unwrap();
        let refs = layout.refs().unwrap();
        assert_eq!(refs.len(), 1);
        assert_eq!(refs[0].target.digest, new.digest);
        assert!(layout.untag("a").unwrap() && !layout.untag("a").unwrap());
        assert!(layout.refs().unwrap().is_empty());
    }

    #[test]
    fn entries_of_others_stay_as_they_are() {
        let (dir, layout) = layout();
        let kept = image(&layout, "amd64");
        let foreign = format!(
            r#"{{"mediaType":"{}","digest":"{}","size":{},"data":"e30=","annotations":{{"io.containerd.image.name":"docker.io/x/y:1","org.opencontainers.image.ref.name":"1"}}}}"#,
            media_type::MANIFEST,
            kept.digest,
            kept.size.0
        );
        let index = format!(r#"{{"schemaVersion":2,"note":"x","manifests":[{foreign}]}}"#);
        save(dir.path(), "index.json", index.as_bytes()).unwrap();
        assert_eq!(layout.refs().unwrap()[0].name, "docker.io/x/y:1");
        layout.tag("a", &kept).unwrap();
        layout.untag("a").unwrap();
        let after: Value =
            serde_json::from_slice(&fs::read(dir.path().join("index.json")).unwrap()).unwrap();
        assert_eq!(after, serde_json::from_str::<Value>(&index).unwrap());
    }

    #[test]
    fn garbage_is_what_nothing_leads_to() {
        let (_dir, layout) = layout();
        let kept = image(&layout, "amd64");
        let by_hand = image(&layout, "arm64");
        image(&layout, "riscv64");
        let (loose, _) = layout.put(b"loose").unwrap();
        layout.tag("a", &kept).unwrap();
        assert_eq!(layout.gc(&[by_hand.digest]).unwrap().0, 3); // manifest, configuration, loose
        assert!(!layout.has(&loose, None));
        for d in [&kept, &by_hand] {
            crate::Image::read(&layout, d).unwrap();
        }
    }

    #[test]
    fn a_tag_of_nothing_is_refused() {
        let (_dir, layout) = layout();
        let nothing = Descriptor::new(media_type::MANIFEST, Digest([7; 32]), Bytes(3));
        assert!(matches!(layout.tag("a", &nothing), Err(StoreError::Missing { .. })));
    }
}
