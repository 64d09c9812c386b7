//! What can be told of a finished image.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use builder::compare::{What, compare};
use builder::explain::explain;
use builder::image::{self, ImageError};
use builder::inspect;

use crate::small;

fn build(change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    change(dir.path());
    image::live(&small::request(dir.path()), &()).unwrap();
    dir
}

fn folder(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("dist/amd64").join(small::VERSION)
}

/// Replaces bytes of the archive by others of the same length, its checksums aside.
fn replace(path: &Path, old: &[u8], new: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(old.len()).position(|w| w == old).unwrap();
    bytes[at..at + new.len()].copy_from_slice(new);
    File::create(path).unwrap().write_all(&bytes).unwrap();
}

#[test]
fn a_disk_a_slot_and_an_archive_tell_of_the_same_files() {
    let dir = build(|_| {});
    let seen = |path: &Path| {
        let mut seen = Vec::new();
        inspect::visit(path, &mut |member, _, _, body| {
            let mut bytes = Vec::new();
            body.read_to_end(&mut bytes)?;
            if member.path == "etc/hosts" || member.path == "usr/bin/ping" {
                seen.retain(|(path, _)| *path != member.path);
                seen.push((member.path.clone(), bytes));
            }
            Ok(())
        })
        .unwrap();
        seen.sort();
        seen
    };
    let archive = seen(&dir.path().join("rootfs.tar"));
    assert_eq!(archive[0].1, b"127.0.0.1 localhost\n");
    for name in ["slot.img", "live.raw", "live.qcow2"] {
        assert!(seen(&folder(&dir).join(name)) == archive, "{name}");
    }
    // The record beside the images knows what the file system has forgotten.
    let contents = inspect::contents(&folder(&dir)).unwrap();
    assert_eq!(explain(&contents, "/etc/hosts").unwrap().shadows.len(), 1);
    let sizes = inspect::sizes(&folder(&dir)).unwrap();
    let (plain, packed) = (sizes.plain, sizes.packed.unwrap());
    assert!(packed.0 > 0 && packed < plain, "{packed} of {plain}");
}

#[test]
fn images_differ_in_what_their_files_differ_in() {
    let one = build(|_| {});
    let two = build(|dir| {
        replace(&dir.join("rootfs.tar"), b"127.0.0.1 localhost", b"127.0.0.2 localhost")
    });
    let same = compare(&folder(&one).join("live.raw"), &folder(&one).join("live.qcow2")).unwrap();
    let facts: Vec<_> = same.differences.iter().map(|d| d.at.as_str()).collect();
    // The virtual disk is larger, and so its table of partitions tells of other places.
    assert!(same.differences.iter().all(|d| d.what == What::Fact), "{facts:?}");
    for name in ["slot.img", "live.raw"] {
        let found = compare(&folder(&one).join(name), &folder(&two).join(name)).unwrap();
        let [only] = &found.differences[..] else { panic!("{name}: {:#?}", found.differences) };
        assert!(only.at.ends_with("root file system / etc/hosts"), "{name}: {}", only.at);
        assert_eq!(only.what, What::Content);
        // The digests of the root file system follow, on the command line too.
        assert!(found.excused.iter().any(|d| d.what == What::Digest), "{name}");
    }
}

#[test]
fn an_image_that_is_too_large_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    fs::create_dir(dir.path().join("images")).unwrap();
    store::save(
        &dir.path().join("images"),
        "limits.toml",
        b"[[limit]]\nhv = ['kvm']\nrootfs_mib = 0\n",
    )
    .unwrap();
    let refused = image::live(&small::request(dir.path()), &()).unwrap_err();
    assert!(matches!(refused, ImageError::TooLarge(_)), "{refused}");
    let said = refused.to_string();
    assert!(said.contains("0 B that it may have for kvm on generic; most grew"), "{said}");
}
