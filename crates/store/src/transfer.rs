//! Layouts that travel as one tar file (`docker save`, `skopeo copy oci-archive:`).

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::Path;

use model::{Bytes, Digest};

use crate::image::{read_document, to_json};
use crate::refs::REF_NAME;
use crate::tarball::{Header, Kind, Reader, Time, Writer, clean_path};
use crate::{
    Descriptor, Index, Layout, MANIFEST_MAX, Manifest, Platform, Ref, StoreError, media_type,
};

/// What an import brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// The names that now stand for something.
    pub names: Vec<String>,
    /// Blobs that were not there before.
    pub blobs: usize,
}

/// Reads an OCI layout in a tar file into `layout`: blobs first, each checked; names when all is read.
/// `from` names the file in errors. Entries of its index without a name are ignored.
pub fn import_tar(
    layout: &Layout,
    archive: impl Read,
    from: &Path,
) -> Result<Imported, StoreError> {
    let fail = |source| StoreError::io("read", from)(source);
    let mut archive = Reader::new(archive);
    let mut index = None;
    let mut done = Imported::default();
    while let Some(header) = archive.next().map_err(fail)? {
        let path = clean_path(&header.path);
        if path == b"index.json" {
            let mut bytes = Vec::new();
            (&mut archive).take(MANIFEST_MAX.0 + 1).read_to_end(&mut bytes).map_err(fail)?;
            index = Some(bytes);
            continue;
        }
        let digest = path
            .strip_prefix(b"blobs/sha256/")
            .and_then(|hex| Digest::from_hex(std::str::from_utf8(hex).ok()?).ok());
        let Some(digest) = digest.filter(|_| header.kind == Kind::File) else { continue };
        if layout.has(&digest, Some(Bytes(header.size))) && layout.check(&digest).is_ok() {
            continue;
        }
        let mut blob = layout.blob_writer()?;
        io::copy(&mut archive, &mut blob).map_err(StoreError::io("copy a blob of", from))?;
        blob.commit(Some(digest), Bytes(header.size))?;
        done.blobs += 1;
    }
    let Some(index) = index else {
        let why = "it has no file index.json".to_owned();
        return Err(StoreError::NoLayout { path: from.to_owned(), why });
    };
    for Ref { name, target } in Ref::all(Index::parse(&index, &from.display().to_string())?) {
        layout.tag(&name, &target)?;
        done.names.push(name);
    }
    Ok(done)
}

/// Writes the images `names` of `layout` as an OCI layout in a tar file: the same bytes for the same
/// images. Blobs of platforms that are not here are left out.
pub fn export_tar(layout: &Layout, names: &[&str], out: impl Write) -> Result<(), StoreError> {
    let mut index = Index {
        schema_version: 2,
        media_type: Some(media_type::INDEX.to_owned()),
        manifests: Vec::new(),
        annotations: Default::default(),
    };
    for name in names {
        index.manifests.push(layout.target(name)?);
    }
    let mut blobs = BTreeSet::new();
    let mut next: Vec<Descriptor> = index.manifests.clone();
    while let Some(descriptor) = next.pop() {
        let is_index = media_type::is_index(&descriptor.media_type);
        let here = layout.has(&descriptor.digest, None);
        if !here && !index.manifests.contains(&descriptor) {
            continue;
        }
        blobs.insert(descriptor.digest);
        let what = descriptor.digest.to_string();
        if is_index {
            next.extend(Index::parse(&read_document(layout, &descriptor)?, &what)?.manifests);
        } else if media_type::is_manifest(&descriptor.media_type) {
            let manifest = Manifest::parse(&read_document(layout, &descriptor)?, &what)?;
            next.push(manifest.config);
            next.extend(manifest.layers);
        }
    }
    write(layout, &index, None, &blobs, out)
}

/// Writes the image of one platform, called `shown`, as an OCI layout in a tar file that old versions
/// of `docker load` understand, too: `manifest.json` says the same to them.
pub fn export_image(
    layout: &Layout,
    name: &str,
    platform: &Platform,
    shown: &str,
    out: impl Write,
) -> Result<(), StoreError> {
    let mut target = layout.resolve(name, platform)?;
    let manifest = read_document(layout, &target)?;
    let manifest = Manifest::parse(&manifest, &target.digest.to_string())?;
    let parts: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest).collect();
    let blobs = [target.digest, manifest.config.digest].into_iter().chain(parts.iter().copied());
    let blobs = blobs.collect();
    let at = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let for_docker = serde_json::json!([{
        "Config": at(&manifest.config.digest),
        "RepoTags": [shown],
        "Layers": parts.iter().map(at).collect::<Vec<_>>(),
    }]);
    target.annotations = [(REF_NAME.to_owned(), shown.to_owned())].into();
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::INDEX.to_owned()),
        manifests: vec![target],
        annotations: Default::default(),
    };
    write(layout, &index, Some(to_json(&for_docker)), &blobs, out)
}

fn write(
    layout: &Layout,
    index: &Index,
    for_docker: Option<Vec<u8>>,
    blobs: &BTreeSet<Digest>,
    out: impl Write,
) -> Result<(), StoreError> {
    let mut tar = Writer::new(out);
    let fail = |source| StoreError::io("export", layout.root())(source);
    let file = |name: &str, size: u64| Header {
        size,
        ..Header::new(name, Kind::File, 0o644, Time::default())
    };
    tar.member(&file("oci-layout", 0), br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(fail)?;
    tar.member(&file("index.json", 0), &to_json(index)).map_err(fail)?;
    if let Some(bytes) = for_docker {
        tar.member(&file("manifest.json", 0), &bytes).map_err(fail)?;
    }
    for digest in blobs {
        let (mut blob, size) = layout.open_blob(digest)?;
        let copied = tar
            .header(&file(&format!("blobs/sha256/{}", digest.hex()), size.0))
            .and_then(|()| io::copy(&mut blob, &mut tar));
        copied.map_err(fail)?;
    }
    tar.finish().map(drop).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compression, Image, ImageBuilder};

    #[test]
    fn what_is_exported_can_be_imported() {
        let dir = tempfile::tempdir().unwrap();
        let one = Layout::create(dir.path().join("1")).unwrap();
        let mut image = ImageBuilder::new(&one, Platform::linux("amd64"));
        image.layer(Compression::Gzip, |out| out.write_all(&[0; 1024])).unwrap();
        let made = image.finish().unwrap();
        one.tag("docker.io/a/b:1", &made).unwrap();
        let mut tar = Vec::new();
        export_tar(&one, &["docker.io/a/b:1"], &mut tar).unwrap();

        let mut single = Vec::new();
        let platform = Platform::linux("amd64");
        export_image(&one, "docker.io/a/b:1", &platform, "own/name:2", &mut single).unwrap();
        let other = Layout::create(dir.path().join("single")).unwrap();
        let brought = import_tar(&other, single.as_slice(), Path::new("y.tar")).unwrap();
        assert_eq!(brought, Imported { names: vec!["own/name:2".to_owned()], blobs: 3 });
        let text = String::from_utf8_lossy(&single);
        assert!(text.contains("\"RepoTags\":[\"own/name:2\"]"), "docker finds the name");

        let two = Layout::create(dir.path().join("2")).unwrap();
        let brought = import_tar(&two, tar.as_slice(), Path::new("x.tar")).unwrap();
        assert_eq!(brought, Imported { names: vec!["docker.io/a/b:1".to_owned()], blobs: 3 });
        let found = two.resolve("docker.io/a/b:1", &Platform::linux("amd64")).unwrap();
        assert_eq!(Image::read(&two, &found).unwrap().digest, made.digest);

        let again = import_tar(&two, tar.as_slice(), Path::new("x.tar")).unwrap();
        assert_eq!(again.blobs, 0);
        let three = Layout::create(dir.path().join("3")).unwrap();
        let at = tar.len() - 1600; // inside the last blob
        tar[at] ^= 1;
        import_tar(&three, tar.as_slice(), Path::new("x.tar")).unwrap_err();
        assert!(three.refs().unwrap().is_empty());
    }
}
