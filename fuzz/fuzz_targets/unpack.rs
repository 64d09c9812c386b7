//! Layers of any members: unpacked into a folder they leave everything outside of it as it was, and
//! the folder is there when that went well and only then; as one sequence they name nothing outside.
//!
//! Slow on a disk, since unpacking syncs it: `TMPDIR=/dev/shm cargo +nightly fuzz run unpack`.
#![no_main]

use std::fs;
use std::path::Path;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use model::Bytes;
use store::tarball::{Header, Kind, Time, Writer};
use store::{
    Compression, Image, ImageBuilder, Layout, Limits, Platform, StoreError, flatten, unpack,
};

#[derive(Debug, Arbitrary)]
struct Member {
    path: Vec<Part>,
    kind: What,
    link: Vec<Part>,
    body: u8,
}

#[derive(Debug, Arbitrary)]
enum Part {
    A,
    B,
    C,
    Here,
    Up,
    /// An empty part: a doubled slash; in front, the root.
    Empty,
    HiddenA,
    HiddenB,
    Opaque,
    /// A whiteout of nothing.
    Hidden,
    /// The folder beside the one that is filled.
    Outside,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum What {
    File,
    Dir,
    Symlink,
    HardLink,
    Fifo,
    Device,
    Other(u8),
}

fn path(parts: &[Part]) -> Vec<u8> {
    let parts: Vec<&[u8]> = parts
        .iter()
        .map(|part| match part {
            Part::A => &b"a"[..],
            Part::B => b"b",
            Part::C => b"c",
            Part::Here => b".",
            Part::Up => b"..",
            Part::Empty => b"",
            Part::HiddenA => b".wh.a",
            Part::HiddenB => b".wh.b",
            Part::Opaque => b".wh..wh..opq",
            Part::Hidden => b".wh.",
            Part::Outside => b"outside",
        })
        .collect();
    parts.join(&b'/')
}

fn header(member: &Member) -> Header {
    let kind = match member.kind {
        What::File => Kind::File,
        What::Dir => Kind::Dir,
        What::Symlink => Kind::Symlink,
        What::HardLink => Kind::HardLink,
        What::Fifo => Kind::Fifo,
        What::Device => Kind::CharDevice,
        // Flags from x on lead extended headers, and S is a sparse file's.
        What::Other(flag) => Kind::Other(b'D' + flag % 6),
    };
    let size = if kind.has_body() { 1 } else { 0 };
    let plain = Header::new(path(&member.path), kind, 0o755, Time::seconds(1));
    Header { link: path(&member.link), size, device: (1, 3), ..plain }
}

/// Names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("it is ours");
    let mut names: Vec<_> = entries
        .map(|e| e.expect("it is ours").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fuzz_target!(|layers: Vec<Vec<Member>>| {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let layout = Layout::create(at("layout")).expect("a layout");
    fs::create_dir(at("outside")).expect("a folder");
    store::save(&at("outside"), "a", b"safe").expect("a file");
    let mut image = ImageBuilder::new(&layout, Platform::linux("amd64"));
    for layer in layers.iter().take(4) {
        let made = image.layer(Compression::None, |out| {
            let mut tar = Writer::new(out);
            for member in layer.iter().take(20) {
                let header = header(member);
                let body = [member.body];
                tar.member(&header, if header.kind.has_body() { &body } else { &[] })?;
            }
            tar.finish().map(drop)
        });
        if made.is_err() {
            return; // a name that no archive can hold
        }
    }
    let made = image.finish().expect("an image");
    let manifest = Image::read(&layout, &made).expect("we wrote it").manifest;

    let limits = Limits { bytes: Bytes::mib(1), members: 60 };
    let unpacked = unpack(&layout, &manifest, &at("target"), &limits);
    let mut want = vec!["layout", "outside"];
    want.extend(unpacked.is_ok().then_some("target"));
    assert_eq!(names(dir.path()), want);
    assert_eq!(names(&at("outside")), ["a"]);
    assert_eq!(fs::read(at("outside/a")).expect("it is there"), b"safe");

    let _ = flatten(&layout, &manifest, Bytes::mib(1), |header, _| -> Result<(), StoreError> {
        assert!(!header.path.split(|b| *b == b'/').any(|part| part == b".."));
        Ok(())
    });
});
