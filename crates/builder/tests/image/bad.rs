//! Inputs of which no image comes, and what a build that was killed leaves.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use builder::image::{self, Arch, ImageError, Request, Source};

use crate::small;

fn last_cause(error: &ImageError) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// The small root file system with one more file.
fn with(dir: &Path, path: &str, body: &[u8], length: u64) -> Source {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut File::open(dir.join("rootfs.tar")).unwrap(), &mut bytes)
        .unwrap();
    bytes.truncate(bytes.len() - 1024);
    let to = dir.join("more.tar");
    let mut file = File::create(&to).unwrap();
    file.write_all(&bytes).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_path(path).unwrap();
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(length);
    header.set_cksum();
    file.write_all(header.as_bytes()).unwrap();
    file.write_all(body).unwrap();
    let end = bytes.len() as u64 + 512 + length.next_multiple_of(512) + 1024;
    file.set_len(end).unwrap();
    Source::Tar(to)
}

#[test]
fn a_root_for_other_machines_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let mut init = b"\x7fELF\x02\x01".to_vec();
    init.resize(64, 0);
    init[18] = 183;
    let source = with(dir.path(), "usr/sbin/eve-init", &init, 64);
    let request = Request { source, ..small::request(dir.path()) };
    let wanted = "/sbin/eve-init is a program for arm64, and the image is to be for amd64";
    assert_eq!(last_cause(&image::slot(&request, &()).unwrap_err()), wanted);
    // For those machines it is right.
    image::slot(&Request { arch: Arch::Arm64, ..request }, &()).unwrap();
}

#[test]
fn a_root_without_room_in_its_slot_is_refused_before_a_disk_is_begun() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let request = small::request(dir.path());
    image::live(&request, &()).unwrap();
    let mut profile = request.profile;
    profile.slot = model::Bytes::kib(500);
    let source = with(dir.path(), "usr/share/blob", b"", 3 << 20);
    let version = "0.0.0-larger".to_owned();
    let request = Request { profile, source, version, ..request };
    let said = last_cause(&image::live(&request, &()).unwrap_err());
    assert!(said.contains("a slot of profile small has 500.0 KiB: "), "{said}");
    assert!(said.contains("most grew unknown by 3.0 MiB"), "{said}");
    assert!(!dir.path().join("dist/amd64/0.0.0-larger/live.raw").exists());
}

#[test]
fn what_a_killed_build_left_is_removed_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    small::inputs(dir.path());
    let folder = dir.path().join("dist/amd64").join(small::VERSION);
    std::fs::create_dir_all(&folder).unwrap();
    // Process ids end at 4194304.
    let left = [".live.raw.99999999-2.new", ".config.99999999-0.raw"];
    let mine = [".live.raw.new", ".notes.1-2.txt", "live.99999999-2.new"];
    let alive = format!(".live.raw.{}-77.new", std::process::id());
    for name in left.iter().chain(&mine).copied().chain([alive.as_str()]) {
        store::save(&folder, name, b"x").unwrap();
    }
    image::config(&small::request(dir.path()), &()).unwrap();
    assert!(left.iter().all(|name| !folder.join(name).exists()));
    assert!(mine.iter().all(|name| folder.join(name).exists()));
    assert!(folder.join(alive).exists());
}
