//! What an installer would install, taken out of its image.
#![cfg(feature = "images")]

use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use formats::fat::{self, Files};
use formats::layout::{Profile, Purpose, Role, Want};
use formats::slot::{self, Descriptor};
use formats::squashfs::{self, Method, Options};
use formats::tree::{Content, Contents, Kind, Meta, Node, Tree};
use formats::verity;
use install::{Payload, PayloadError};
use model::installer::{About, Manifest};
use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};

struct Memory;

impl Contents<Vec<u8>> for Memory {
    fn open<'a>(&'a self, at: &Vec<u8>) -> std::io::Result<Box<dyn std::io::Read + 'a>> {
        Ok(Box::new(std::io::Cursor::new(at.clone())))
    }
}

fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// A node's slot image, as far as an installer looks at it.
fn node() -> Vec<u8> {
    (0..700_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

fn config(text: &str) -> Vec<u8> {
    let volume = Role::Config.volume(Bytes::mib(5), 7).unwrap();
    let files = Files::from([("server".to_owned(), text.as_bytes().to_vec())]);
    fat::render(&volume, &files).unwrap()
}

/// The root file system of an installer.
fn system() -> Vec<u8> {
    let mut files = BTreeMap::from([
        ("slot.img".to_owned(), node()),
        ("config.img".to_owned(), config("as it was built\n")),
        ("esp/EFI/BOOT/BOOTX64.EFI".to_owned(), vec![7; 9000]),
    ]);
    let about = |body: &Vec<u8>| About { size: Bytes(body.len() as u64), digest: digest(body) };
    let manifest = Manifest {
        version: "1.2.3".into(),
        arch: "amd64".into(),
        profile: "small".into(),
        files: files.iter().map(|(path, body)| (path.clone(), about(body))).collect(),
    };
    files.insert("install.json".to_owned(), serde_json::to_vec(&manifest).unwrap());
    let mut tree = Tree::new();
    for (path, body) in files {
        let size = Bytes(body.len() as u64);
        let kind = Kind::File(Content { size, digest: None, at: body });
        let meta = Meta { mode: 0o644, ..Meta::default() };
        tree.insert(format!("bits/{path}"), Node { meta, kind }).unwrap();
    }
    let threads = NonZeroUsize::MIN;
    let options = Options { method: Method::Zstd(1), block: Bytes::kib(128), time: 7, threads };
    let mut out = std::io::Cursor::new(Vec::new());
    squashfs::write(&tree, &Memory, &options, None, &mut out).unwrap();
    out.into_inner()
}

/// A raw installer at `path`.
fn installer(path: &Path) {
    let mut image = system();
    let rootfs = Bytes(image.len() as u64);
    image.resize(image.len().next_multiple_of(4096), 0);
    let one = std::num::NonZero::<usize>::MIN;
    let data = &mut image.as_slice();
    let tree = verity::tree_of(data, uuid::Uuid::nil(), [1; 32], one).unwrap();
    let verity_at = Bytes(image.len() as u64);
    let verity = Bytes(tree.bytes.len() as u64);
    let kernel = vec![9; 100];
    let descriptor = Descriptor {
        rootfs,
        verity_at,
        verity,
        uki_at: Bytes(verity_at.0 + verity.0 + slot::BLOCK),
        uki: Bytes(kernel.len() as u64),
        rootfs_digest: digest(&image),
        uki_digest: digest(&kernel),
        root_hash: tree.root,
        arch: "amd64".into(),
        version: "installer".into(),
    };
    image.extend(tree.bytes);
    image.extend(descriptor.to_bytes().unwrap());
    image.extend(kernel);
    image.resize(image.len().next_multiple_of(4096), 0);
    let want = Want { image: Bytes(image.len() as u64), ..Want::default() };
    let table = Profile::SMALL.plan(Purpose::Installer, &want).unwrap();
    let file = File::create(path).unwrap();
    file.set_len(table.size().0).unwrap();
    for extent in table.to_extents() {
        file.write_all_at(&extent.bytes, extent.at).unwrap();
    }
    let at = |role: Role| role.find(&table).unwrap().1.offset().0;
    file.write_all_at(&image, at(Role::Installer)).unwrap();
    file.write_all_at(&config("as its owner edited it\n"), at(Role::InstallerConfig)).unwrap();
}

fn made() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("installer.raw");
    installer(&path);
    (dir, path)
}

#[test]
fn an_installer_gives_what_it_would_install_with_its_own_config() {
    let (_dir, path) = made();
    let payload = Payload::from_path(&path).unwrap();
    assert_eq!((payload.version.as_str(), payload.arch.as_str()), ("1.2.3", "amd64"));
    assert_eq!(payload.profile, Profile::SMALL);
    assert_eq!(payload.config["server"], b"as its owner edited it\n");
    assert_eq!(payload.esp["EFI/BOOT/BOOTX64.EFI"], [7; 9000]);
    assert_eq!((payload.slot.length, payload.slot.digest), (Bytes(700_000), digest(&node())));
    // Again and again, each time from its first byte.
    for _ in 0..2 {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut payload.slot.open().unwrap(), &mut bytes).unwrap();
        assert!(bytes == node());
    }
}

#[test]
fn a_byte_that_changed_in_an_installer_is_told_before_anything_is_taken_from_it() {
    let (_dir, path) = made();
    let file = File::options().write(true).open(&path).unwrap();
    let table = Profile::SMALL.plan(Purpose::Installer, &Want::default()).unwrap();
    let at = Role::Installer.find(&table).unwrap().1.offset().0;
    file.write_all_at(b"?", at + 10_000).unwrap();
    let error = Payload::from_path(&path).unwrap_err();
    assert!(matches!(error, PayloadError::Damaged { .. }), "{error}");
}
