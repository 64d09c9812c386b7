//! Compositions of images that the tests make themselves: what is read again and what is not, the
//! tree of a composition, what is joined of attestations, and an archive that the reference composer
//! made to the same bytes.

use std::io::Read;
use std::num::NonZero;

use builder::compose::{Description, Options, Plan, plan};
use builder::mkfs::FileSystem;
use formats::squashfs::{self, Method};
use formats::tree::{Contents, Kind as Node};
use model::{Bytes, Digest};
use store::tarball::{Header, Kind, Time, Writer};
use store::{Compression, Descriptor, ImageBuilder, Index, Layout, Platform, media_type};

struct Cache {
    dir: tempfile::TempDir,
    layout: Layout,
}

impl Cache {
    fn new() -> Cache {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path().join("oci")).unwrap();
        Cache { dir, layout }
    }

    /// An image of layers, lowest first, each a list of members; behind an index.
    fn image(&self, name: &str, label: &str, pack: Compression, layers: &[&[Header]]) {
        let mut image = ImageBuilder::new(&self.layout, Platform::linux("amd64"));
        image.config().entrypoint = vec!["/bin/x".to_owned()];
        image.config().env = vec!["PATH=/bin".to_owned()];
        if !label.is_empty() {
            image.label("org.mobyproject.config", label);
        }
        for layer in layers {
            let write = |out: &mut dyn std::io::Write| {
                let mut tar = Writer::new(out);
                for header in *layer {
                    // A file holds its own name, as often as its size says.
                    let text = header.path.repeat(usize::try_from(header.size).unwrap());
                    match header.kind {
                        Kind::File => tar.member(header, &text)?,
                        _ => tar.header(header)?,
                    }
                }
                tar.finish().map(drop)
            };
            image.layer(pack, write).unwrap();
        }
        let manifest = image.finish().unwrap();
        self.index(name, vec![manifest]);
    }

    fn index(&self, name: &str, manifests: Vec<Descriptor>) {
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::INDEX.to_owned()),
            manifests,
            annotations: Default::default(),
        };
        let (digest, size) = self.layout.put(&index.to_bytes()).unwrap();
        let target = Descriptor::new(media_type::INDEX, digest, size);
        self.layout.tag(name, &target).unwrap();
    }

    fn plan(&self, yml: &str, sbom: bool) -> Plan {
        let description = Description::parse(&[("x.yml", yml)], &|_| Err(String::new())).unwrap();
        let kept = Some(self.dir.path().join("kept"));
        let options = Options { arch: "amd64".to_owned(), kept, sbom, ..Options::default() };
        plan(&description, &self.layout, &options).unwrap()
    }

    /// Makes the blobs of all layers unreadable, their sizes and first bytes kept.
    fn spoil(&self, layers: &[Digest]) {
        for layer in layers {
            let mut bytes = self.layout.read(layer, Bytes::mib(1)).unwrap();
            bytes[10..].fill(0xa5);
            let blobs = self.layout.root().join("blobs/sha256");
            store::save(&blobs, &layer.hex(), &bytes).unwrap();
        }
    }

    fn layers(&self, name: &str) -> Vec<Digest> {
        let found = self.layout.resolve(name, &Platform::linux("amd64")).unwrap();
        let image = store::Image::read(&self.layout, &found).unwrap();
        image.manifest.layers.iter().map(|l| l.digest).collect()
    }
}

fn node(path: &str, kind: Kind, mode: i64) -> Header {
    Header::new(path, kind, mode, Time::seconds(1_700_000_000))
}

fn file(path: &str, times: u64) -> Header {
    Header { size: times, ..node(path, Kind::File, 0o644) }
}

fn link(path: &str, kind: Kind, to: &str) -> Header {
    Header { link: to.into(), ..node(path, kind, 0o777) }
}

fn written(plan: &Plan) -> Vec<u8> {
    let mut out = Vec::new();
    let facts = plan.write(&mut out).unwrap();
    assert_eq!(facts.size.0, out.len() as u64);
    out
}

#[test]
fn composing_again_reads_no_layer() {
    let cache = Cache::new();
    let layers: &[&[Header]] = &[&[file("a", 3), file("b", 500)], &[file("a", 7)]];
    for pack in [Compression::None, Compression::Gzip, Compression::Zstd(3)] {
        let cached = |n: usize| format!("docker.io/a/b:{n}");
        for n in 0..2 {
            cache.image(&cached(n), "", pack, layers);
        }
        let yml = "init: [a/b:0]\nservices: [{name: s, image: a/b:1}]";
        let first = cache.plan(yml, false);
        let (tree, archive) = (first.tree().unwrap(), written(&first));
        cache.spoil(&cache.layers(&cached(0)));
        let again = cache.plan(yml, false);
        assert_eq!(again.tree().unwrap(), tree, "{pack:?}");
        match pack {
            // What is read where it was stored is found damaged when it is read, and not before.
            Compression::None => {
                let text = model::chain(&again.write(&mut std::io::sink()).unwrap_err());
                assert!(text.contains("cannot read a: its bytes make"), "{text}");
            }
            _ => assert!(written(&again) == archive, "{pack:?}"),
        }
        std::fs::remove_dir_all(cache.layout.root().join("blobs")).unwrap();
        Layout::create(cache.layout.root()).unwrap();
    }
}

#[test]
fn the_tree_is_what_stays_when_the_archive_is_unpacked() {
    let cache = Cache::new();
    let device = Header { device: (1, 3), ..node("dev/null", Kind::CharDevice, 0o666) };
    let lower = [
        node("bin/", Kind::Dir, 0o750),
        file("bin/x", 2),
        device,
        file("gone", 1),
        file("etc/mtab", 1),
    ];
    // The topmost layer comes first in the archive: this link before what it links to.
    let upper = [link("bin/y", Kind::HardLink, "bin/x"), link("l", Kind::Symlink, "bin/x")];
    let top = [file(".wh.gone", 0)];
    cache.image("docker.io/a/b:1", "", Compression::Gzip, &[&lower, &upper, &top]);
    cache.image("docker.io/a/c:1", "", Compression::Gzip, &[&[file("bin/x", 3)]]);
    let plan = cache.plan("init: [a/b:1, a/c:1]\nfiles: [{path: etc/n, contents: text}]", false);
    let tree = plan.tree().unwrap();
    let shown = |path: &str| {
        let node = tree.get(path.as_bytes()).map(|node| &node.kind)?;
        Some(match node {
            Node::Folder => "folder".to_owned(),
            Node::File(content) => {
                let mut text = String::new();
                plan.open(&content.at).unwrap().read_to_string(&mut text).unwrap();
                text
            }
            Node::Symlink(to) => format!("-> {}", String::from_utf8_lossy(to)),
            Node::Same(to) => format!("= {}", String::from_utf8_lossy(to)),
            Node::Char { major, minor } => format!("{major}:{minor}"),
            other => format!("{other:?}"),
        })
    };
    for (path, want) in [
        ("bin", Some("folder")),
        ("bin/x", Some("bin/xbin/xbin/x")),
        ("bin/y", Some("= bin/x")),
        ("l", Some("-> bin/x")),
        ("dev/null", Some("1:3")),
        ("gone", None),
        ("etc/n", Some("text")),
        ("etc/resolv.conf", Some("-> /run/resolvconf/resolv.conf")),
        ("etc/mtab", Some("-> /proc/mounts")),
    ] {
        assert_eq!(shown(path).as_deref(), want, "{path}");
    }
    assert_eq!(tree.get(b"bin").unwrap().meta.mode, 0o750);
}

#[test]
fn a_file_system_of_the_composition_is_that_of_its_archive() {
    let cache = every_key();
    let plan = cache.plan(EVERY_KEY, false);
    let archive = cache.dir.path().join("rootfs.tar");
    let image = cache.dir.path().join("rootfs.squashfs");
    std::io::Write::write_all(&mut std::fs::File::create(&archive).unwrap(), &written(&plan))
        .unwrap();
    let (method, block) = (Method::Zstd(3), Bytes::kib(128));
    let kind = FileSystem::Squashfs { method, block, keep: None };
    let tar = std::fs::File::open(&archive).unwrap();
    builder::mkfs::make(tar, "the archive", &kind, Some(7), &image).unwrap();
    let options = squashfs::Options { method, block, time: 7, threads: NonZero::<usize>::MIN };
    let mut direct = std::io::Cursor::new(Vec::new());
    squashfs::write(&plan.tree().unwrap(), &plan, &options, None, &mut direct).unwrap();
    assert!(direct.into_inner() == std::fs::read(&image).unwrap());
}

#[test]
fn attestations_are_joined_and_who_has_none_is_named() {
    let cache = Cache::new();
    cache.image("docker.io/a/none:1", "", Compression::Gzip, &[&[file("a", 1)]]);
    cache.image("docker.io/a/said:1", "", Compression::Gzip, &[&[file("a", 2)]]);
    let amd64 = Platform::linux("amd64");
    let manifest = cache.layout.resolve("docker.io/a/said:1", &amd64).unwrap();
    let statement = br#"{"predicateType":"https://spdx.dev/Document","predicate":{"SPDXID":"SPDXRef-DOCUMENT","packages":[{"name":"busybox","SPDXID":"SPDXRef-p"}]}}"#;
    let annotated = |mut d: Descriptor, pairs: &[(&str, &str)]| {
        d.annotations = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        d
    };
    let put = |bytes: &[u8], kind: &str| {
        let (digest, size) = cache.layout.put(bytes).unwrap();
        Descriptor::new(kind, digest, size)
    };
    let layer = put(statement, "application/vnd.in-toto+json");
    let predicate = [("in-toto.io/predicate-type", "https://spdx.dev/Document")];
    let attestation = store::Manifest {
        schema_version: 2,
        media_type: None,
        config: put(b"{}", media_type::CONFIG),
        layers: vec![annotated(layer, &predicate)],
        annotations: Default::default(),
    };
    let about = manifest.digest.to_string();
    let entry = put(&attestation.to_bytes(), media_type::MANIFEST);
    let entry = annotated(
        entry,
        &[
            ("vnd.docker.reference.type", "attestation-manifest"),
            ("vnd.docker.reference.digest", &about),
        ],
    );
    cache.index("docker.io/a/said:1", vec![manifest, entry]);
    let yml = "init: [a/none:1]\nservices: [{name: s, image: a/said:1}]";
    let plan = cache.plan(yml, true);
    let bytes = written(&plan);
    let archive = String::from_utf8_lossy(&bytes);
    assert!(archive.contains("sbom.spdx.json"));
    let package = r#"{"name":"busybox","SPDXID":"SPDXRef-p","packageFileName":"containers/services/s/lower","#;
    assert!(archive.contains(package), "{archive}");
    assert_eq!(plan.warnings(), ["docker.io/a/none:1 does not say what it is made of"]);
    assert!(written(&cache.plan(yml, true)) == bytes, "the document names itself by chance");
}

/// Of every key that a container can have, something.
const EVERY_KEY: &str = r#"
kernel: {image: a/kernel:1, cmdline: "console=ttyS0 a<b", ucode: ucode.cpio}
init: [a/one:1, a/two:1]
volumes:
- {name: empty}
- {name: full, image: a/one:1, readonly: true}
- {name: image, image: a/two:1, format: oci, platforms: [linux/amd64]}
onboot:
- {name: first, image: a/one:1, command: [/bin/x, "<&>", "\t"], binds: ["full:/f:ro", "empty:/e", "/a:/b:rw,nosuid"]}
- {name: again, image: a/one:1, readonly: true, uid: svc, gid: 5, additionalGids: [first, 7]}
onshutdown:
- {name: last, image: a/two:1, readonly: true, binds.add: ["/x:/y"], capabilities.add: [CAP_KILL]}
services:
- name: svc
  image: a/two:1
  capabilities: [all]
  ambient: [CAP_NET_ADMIN]
  mounts: [{type: tmpfs, destination: /t, options: [nosuid]}, {source: proc, destination: /proc2}]
  devices: [{path: all, type: b}, {path: /dev/null, type: c, major: 1, minor: 3, mode: "0666"}]
  tmpfs: ["/tmp:size=1m,nodev", /run]
  env: [A=1]
  cwd: /work
  net: new
  pid: host
  ipc: /run/ipc
  uts: new
  userns: new
  maskedPaths: [/proc/kcore]
  readonlyPaths: [/proc/sys]
  noNewPrivileges: true
  hostname: h
  oomScoreAdj: -999
  rootfsPropagation: shared
  cgroupsPath: /eve/services/svc
  resources:
    devices: [{allow: false, access: rwm}]
    memory: {limit: 1048576, swappiness: 10}
    cpu: {shares: 512, cpus: "0-1"}
    pids: {limit: 100}
    blockio: {weight: 10}
    network: {priorities: [{name: eth0, priority: 3}]}
  sysctl: {net.ipv4.ip_forward: "1", a10: x, a9: y}
  rlimits: ["nofile,1024,unlimited"]
  uidMappings: [{hostID: 1000, containerID: 0, size: 65536}]
  annotations: {org.x: "y"}
  runtime:
    cgroups: [c]
    mounts: [{type: bind, source: /s, destination: /d, options: [bind]}]
    mkdir: [/var/x]
    interfaces: [{name: eth0, add: veth, peer: p, createInRoot: true}]
    bindNS: {net: /run/netns/x, user: /run/u}
    namespace: other
files:
- {path: /etc/deep/er/file, contents: "text\n", mode: "0640", uid: svc, gid: first}
- {path: etc/dir, directory: true}
- {path: link, symlink: /target}
- {path: etc/linuxkit.yml, metadata: yaml}
- {path: etc/linuxkit.json, metadata: json}
- {path: gone, source: /nonexistent, optional: true}
"#;

/// What the reference composer made of the same images and [`EVERY_KEY`], SBOM off.
const EVERY_KEY_DIGEST: &str =
    "sha256:84deef08e6c3851a1946c75714eb4ffa76d7a49f8e1d48c2d019648f7cf8f751";

fn every_key() -> Cache {
    let cache = Cache::new();
    let long = format!("{}/{}", "l".repeat(120), "n".repeat(200));
    let xattr: (Vec<u8>, Vec<u8>) =
        (b"SCHILY.xattr.security.capability".to_vec(), b"\x01\0\0\x02\0 \0\0".to_vec());
    let capable = Header { records: [xattr].into(), ..file("bin/x", 3) };
    let owned = Header { uid: 70_000, gid: 5, user: "u".into(), ..file("bin/owned", 1) };
    let exact = Header { mtime: Time { seconds: 5, nanos: 250_000_000 }, ..file("exact", 1) };
    let null = Header { device: (1, 3), ..node("dev/null", Kind::CharDevice, 0o666) };
    let lower = [
        node("./bin/", Kind::Dir, 0o755),
        capable,
        owned,
        exact,
        null,
        node("pipe", Kind::Fifo, 0o600),
        file("etc/hosts", 1),
        file("etc/hostname", 1),
        file("etc/resolv.conf", 1),
        file("lib/apk/db/installed", 2),
        file(&long, 1),
        file("ümläut", 1),
        file("hidden/below", 1),
        file("gone", 1),
    ];
    let upper = [
        link("bin/hard", Kind::HardLink, "bin/x"),
        file("hidden/.wh..wh..opq", 0),
        file(".wh.gone", 0),
        file("bin/x", 5),
        link("lib64", Kind::Symlink, "lib"),
    ];
    let label = r#"{"binds": ["/label:/label"], "capabilities": ["CAP_CHOWN", "CAP_KILL"], "net": "host", "runtime": {"mkdir": ["/from/label"]}}"#;
    cache.image("docker.io/a/one:1", "", Compression::None, &[&lower, &upper]);
    let two = [file("lib/apk/db/installed", 4), file("etc/mtab", 1), file("two", 100)];
    cache.image("docker.io/a/two:1", label, Compression::None, &[&two]);
    let kernel = [file("kernel", 9), file("ucode.cpio", 2), file("ignored", 1)];
    let mut modules = file("kernel.tar", 0);
    modules.mode = 0o600;
    cache.image(
        "docker.io/a/kernel:1",
        "",
        Compression::None,
        &[&[&kernel[..], &[modules]].concat()],
    );
    cache
}

#[test]
fn every_key_gives_what_the_reference_gives() {
    let cache = every_key();
    let plan = cache.plan(EVERY_KEY, false);
    let digest = plan.write(&mut std::io::sink()).unwrap().digest;
    assert_eq!(digest.to_string(), EVERY_KEY_DIGEST);
}
