//! What a person reads when images are missing, wrong, damaged or hostile; and promises that no
//! reference archive shows.

use std::io::Write;

use builder::compose::{ComposeError, Description, Facts, Options, compose};
use model::{Bytes, chain};
use store::tarball::{Header, Kind, Reader, Time, Writer};
use store::{Compression, ImageBuilder, Layout, Platform};

struct Cache {
    dir: tempfile::TempDir,
    layout: Layout,
}

impl Cache {
    fn new() -> Cache {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        Cache { dir, layout }
    }

    /// An image of files `(path, text)`.
    fn image(&self, name: &str, arch: &str, label: Option<&str>, files: &[(&str, &str)]) {
        let mut image = ImageBuilder::new(&self.layout, Platform::linux(arch));
        if let Some(text) = label {
            image.label("org.mobyproject.config", text);
        }
        let written = image.layer(Compression::Gzip, |out| {
            let mut tar = Writer::new(out);
            for (path, text) in files {
                let header = Header::new(*path, Kind::File, 0o644, Time::seconds(5));
                tar.member(&header, text.as_bytes())?;
            }
            tar.finish().map(drop)
        });
        written.unwrap();
        self.layout.tag(name, &image.finish().unwrap()).unwrap();
    }

    fn compose(&self, yml: &str) -> Result<(Facts, Vec<u8>), ComposeError> {
        let none = |_: &str| Err("none".to_owned());
        let description = Description::parse(&[("x.yml", yml)], &none)?;
        let options = Options { arch: "amd64".to_owned(), ..Options::default() };
        let mut out = Vec::new();
        let facts = compose(&description, &self.layout, &options, &mut out)?;
        Ok((facts, out))
    }

    #[track_caller]
    fn refused(&self, yml: &str, want: &str) {
        let text = chain(&self.compose(yml).unwrap_err());
        let root = self.dir.path().display().to_string();
        let text = text.replace(&root, "CACHE");
        assert!(text.contains(want), "{text}");
    }
}

fn body(archive: &[u8], path: &str) -> Option<String> {
    let mut reader = Reader::new(archive);
    while let Some(header) = reader.next().unwrap() {
        if header.path == path.as_bytes() {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
            return Some(text);
        }
    }
    None
}

#[test]
fn images_that_cannot_be_used_are_named_with_place_and_reason() {
    let cache = Cache::new();
    cache.image("docker.io/a/arm:1", "arm64", None, &[("x", "")]);
    cache.image("docker.io/a/evil:1", "amd64", None, &[("../../etc/passwd", "")]);
    cache.image("docker.io/a/bad:1", "amd64", None, &[("x", "text")]);
    cache.refused(
        "init: [a/none:1]",
        "init[0]: image docker.io/a/none:1 is not in CACHE: build it with `eve pkg build`",
    );
    cache.refused("init: [a/arm:1]", "docker.io/a/arm:1 is for linux/arm64, not for linux/amd64");
    cache.refused("init: [a/evil:1]", "\"../../etc/passwd\" leads out of the image");
    cache.refused("init: ['/x']", "init[0]: \"/x\" is no name of an image");

    let target = cache.layout.target("docker.io/a/bad:1").unwrap();
    let image = store::Image::read(&cache.layout, &target).unwrap();
    let layer = image.manifest.layers[0].digest;
    let mut bytes = cache.layout.read(&layer, Bytes::mib(1)).unwrap();
    bytes[30] ^= 1;
    store::save(&cache.dir.path().join("blobs/sha256"), &layer.hex(), &bytes).unwrap();
    cache.refused("init: [a/bad:1]", &format!("blob {layer} in CACHE is corrupt"));
    cache.refused(
        "services: [{name: s, image: a/bad:1}]",
        &format!("services[0]: cannot use docker.io/a/bad:1: blob {layer}"),
    );
}

#[test]
fn what_containers_and_kernels_lack_is_told() {
    let cache = Cache::new();
    cache.image("docker.io/a/k:1", "amd64", None, &[("kernel", "K")]);
    cache.image("docker.io/a/l:1", "amd64", Some(r#"{"bindz": []}"#), &[("x", "")]);
    cache.refused("kernel: {image: a/k:1}", "no file \"kernel.tar\"; set `tar: none`");
    cache.refused("kernel: {image: a/k:1, binary: vmlinuz}", "kernel: the kernel's image has no");
    cache.refused(
        "services: [{name: s, image: a/l:1}]",
        "label org.mobyproject.config of docker.io/a/l:1:1:2: the label has no key \"bindz\"",
    );
    cache.refused(
        "services: [{name: s, image: a/k:1, binds: ['v:/x']}]",
        "services[0] (s): there is no volume \"v\"",
    );
    cache.refused("services: [{name: '../s', image: a/k:1}]", "is no name for a folder");
    let (facts, out) = cache.compose("kernel: {image: a/k:1, tar: none, cmdline: c}").unwrap();
    assert_eq!(body(&out, "boot/kernel").as_deref(), Some("K"));
    assert_eq!(body(&out, "boot/cmdline").as_deref(), Some("c"));
    assert_eq!(facts.images.len(), 1);
}

#[test]
fn microcode_stands_beside_the_kernel_and_modules_at_the_root() {
    let mut modules = Writer::new(Vec::new());
    let header = Header::new("lib/modules/x.ko", Kind::File, 0o644, Time::seconds(7));
    modules.member(&header, b"M").unwrap();
    let modules = String::from_utf8(modules.finish().unwrap()).unwrap();
    let cache = Cache::new();
    let files = [("u.cpio", "U"), ("kernel.tar", modules.as_str()), ("kernel", "K")];
    cache.image("docker.io/a/k:1", "amd64", None, &files);
    let (_, out) = cache.compose("kernel: {image: a/k:1, ucode: u.cpio}").unwrap();
    let mut names = Vec::new();
    let mut reader = Reader::new(out.as_slice());
    while let Some(header) = reader.next().unwrap() {
        names.push(header.display());
    }
    let want = ["boot", "boot/ucode.cpio", "lib/modules/x.ko", "boot/cmdline", "boot/kernel"];
    assert_eq!(names, want);
}

#[test]
fn containers_of_one_image_share_its_files() {
    let cache = Cache::new();
    cache.image("docker.io/a/s:1", "amd64", None, &[("x", "text")]);
    let yml = "onboot: [{name: a, image: a/s:1, readonly: true}]\n\
               onshutdown: [{name: b, image: a/s:1, readonly: true}]\n\
               services: [{name: c, image: a/s:1}]\n";
    let (_, out) = cache.compose(yml).unwrap();
    assert!(body(&out, "containers/onboot/000-a/rootfs/x").is_some());
    assert!(body(&out, "containers/onshutdown/000-b/rootfs/x").is_none());
    let runtime = body(&out, "containers/onshutdown/000-b/runtime.json").unwrap();
    assert!(runtime.contains("\"source\": \"/containers/onboot/000-a/rootfs\""), "{runtime}");
    let runtime = body(&out, "containers/services/c/runtime.json").unwrap();
    assert!(runtime.contains("lowerdir=/containers/onboot/000-a/rootfs"), "{runtime}");
}

#[test]
fn a_volume_can_hold_the_image_itself() {
    let cache = Cache::new();
    cache.image("docker.io/a/s:1", "amd64", None, &[("x", "text")]);
    let manifest = cache.layout.target("docker.io/a/s:1").unwrap();
    let index = store::Index {
        schema_version: 2,
        media_type: None,
        manifests: vec![manifest.clone()],
        annotations: Default::default(),
    };
    let (digest, size) = cache.layout.put(&index.to_bytes()).unwrap();
    let target = store::Descriptor::new(store::media_type::INDEX, digest, size);
    cache.layout.tag("docker.io/a/i:1", &target).unwrap();
    let yml = |platform: &str| {
        format!("volumes: [{{name: v, image: a/i:1, format: oci, platforms: [{platform}]}}]")
    };
    let (_, out) = cache.compose(&yml("linux/amd64")).unwrap();
    let lower = "containers/volumes/v/lower";
    let json = body(&out, &format!("{lower}/index.json")).unwrap();
    assert!(json.contains(&digest.to_string()) && json.contains("docker.io/a/i:1"), "{json}");
    let blob = format!("{lower}/blobs/sha256/{}", manifest.digest.hex());
    assert!(body(&out, &blob).is_some());
    let (_, out) = cache.compose(&yml("linux/arm64")).unwrap();
    assert!(body(&out, &blob).is_none());
    cache.refused("volumes: [{name: v, image: a/s:1, format: oci}]", "has no index");
}

#[test]
fn the_archive_is_refused_by_a_full_disk_and_not_by_memory() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let cache = Cache::new();
    cache.image("docker.io/a/s:1", "amd64", None, &[("x", &"text".repeat(100_000))]);
    let description =
        Description::parse(&[("x", "init: [a/s:1]")], &|_| Err(String::new())).unwrap();
    let options = Options { arch: "amd64".to_owned(), ..Options::default() };
    let error = compose(&description, &cache.layout, &options, &mut Full(100_000)).unwrap_err();
    let text = chain(&error);
    assert!(text.starts_with("init[0]: cannot put x into the archive: "), "{text}");
}
