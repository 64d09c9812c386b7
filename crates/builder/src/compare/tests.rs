//! Small archives and folders against each other.

use store::tarball::{Header, Kind, Time, Writer};

use super::*;

/// A member: path, mode, owner, time, content; a path that ends with a slash is a folder.
type Row<'a> = (&'a str, i64, i64, i64, &'a str);

const BASE: [Row<'_>; 3] = [
    ("etc/", 0o755, 0, 1, ""),
    ("etc/hosts", 0o644, 0, 1, "localhost"),
    ("usr/bin/tool", 0o755, 0, 1, "ELF"),
];

fn archive(rows: &[Row<'_>]) -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    for (path, mode, uid, time, content) in rows {
        let kind = if path.ends_with('/') { Kind::Dir } else { Kind::File };
        let header = Header { uid: *uid, ..Header::new(*path, kind, *mode, Time::seconds(*time)) };
        let size = if kind == Kind::Dir { 0 } else { content.len() as u64 };
        tar.header(&Header { size, ..header }).unwrap();
        io::Write::write_all(&mut tar, content.as_bytes()).unwrap();
    }
    tar.finish().unwrap()
}

/// One line a difference; `~` in front of what is excused.
#[track_caller]
fn check(one: &[u8], two: &[u8], want: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    store::save(dir.path(), "one", one).unwrap();
    store::save(dir.path(), "two", two).unwrap();
    let found = compare(&dir.path().join("one"), &dir.path().join("two")).unwrap();
    let show = |d: &Difference| format!("{}: {:?} {} -> {}", d.at, d.what, d.one, d.two);
    let mut lines: Vec<String> = found.differences.iter().map(show).collect();
    lines.extend(found.excused.iter().map(|d| format!("~{}", show(d))));
    assert_eq!(lines, want);
}

#[test]
fn the_same_is_the_same_however_it_is_packed() {
    let one = archive(&BASE);
    check(&one, &one, &[]);
    check(&zstd::encode_all(&one[..], 1).unwrap(), &zstd::encode_all(&one[..], 19).unwrap(), &[]);
}

#[test]
fn everything_but_times_counts() {
    let mut rows = BASE;
    rows[0].1 = 0o700;
    rows[1] = ("etc/hosts", 0o644, 7, 99, "localhosT");
    rows[2] = ("usr/bin/other", 0o755, 0, 1, "ELF");
    check(
        &archive(&BASE),
        &archive(&rows),
        &[
            "etc: Mode 0755 -> 0700",
            "etc/hosts: Owner 0:0 -> 7:0",
            "etc/hosts: Content  (from byte 8) ->  (from byte 8)",
            "usr/bin/other: Added  -> file",
            "usr/bin/tool: Removed file -> ",
            "~etc/hosts: Time 1 -> 99",
        ],
    );
}

#[test]
fn archives_in_archives_are_taken_apart() {
    let outer = |inner: &[u8]| {
        let packed = zstd::encode_all(inner, 1).unwrap();
        let mut tar = Writer::new(Vec::new());
        tar.member(&Header::new("boot/x.tar.zst", Kind::File, 0o644, Time::seconds(1)), &packed)
            .unwrap();
        tar.finish().unwrap()
    };
    let mut rows = BASE;
    rows[2].4 = "ELF2";
    check(
        &outer(&archive(&BASE)),
        &outer(&archive(&rows)),
        &["boot/x.tar.zst / plain / usr/bin/tool: Size 3 (from byte 3) -> 4 (from byte 3)"],
    );
}

#[test]
fn signatures_of_modules_are_told_apart() {
    let module = |signature: &str| {
        let length = u32::try_from(signature.len()).unwrap().to_be_bytes();
        let length: String = length.iter().map(|b| char::from(*b)).collect();
        format!("\x7fELF code{signature}\0\0\0\0\0\0\0\0{length}~Module signature appended~\n")
    };
    let rows = |text: &str| archive(&[("lib/a.ko", 0o644, 0, 1, text)]);
    check(&rows(&module("one")), &rows(&module("other")), &["~lib/a.ko: Signature  -> "]);
}

#[test]
fn a_folder_is_compared_with_an_archive_of_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("one")).unwrap();
    store::save(&dir.path().join("one"), "a", b"same").unwrap();
    store::save(&dir.path().join("one"), "b", b"other").unwrap();
    std::os::unix::fs::symlink("a", dir.path().join("one/link")).unwrap();
    let about = std::fs::metadata(dir.path().join("one/a")).unwrap();
    let (uid, mode) = (std::os::unix::fs::MetadataExt::uid(&about), 0o644);
    let tar = archive(&[("a", mode, uid.into(), 1, "same"), ("b", mode, uid.into(), 1, "others")]);
    store::save(dir.path(), "two", &tar).unwrap();
    let found = compare(&dir.path().join("one"), &dir.path().join("two")).unwrap();
    let places: Vec<_> = found.differences.iter().map(|d| (d.at.as_str(), d.what)).collect();
    for place in [("b", What::Size), ("link", What::Removed)] {
        assert!(places.contains(&place), "{place:?} is not in {places:?}");
    }
    assert!(!places.iter().any(|(at, what)| *at == "a" && *what == What::Content));
}

#[test]
fn a_digest_that_follows_is_excused_only_when_something_explains_it() {
    let line = |digest: &str| {
        archive(&[("boot/cmdline", 0o644, 0, 1, &format!("quiet eve.verity={digest} x"))])
    };
    check(&line("1:aa"), &line("1:bb"), &["boot/cmdline: Digest 1:aa -> 1:bb"]);
}

/// An ISO with a file, a link, and what firmware boots.
fn iso(body: &str) -> Vec<u8> {
    use formats::iso::{self, Volume};
    use formats::tree::{Content, Contents, Kind, Meta, Node, Tree};
    struct Memory;
    impl Contents<Vec<u8>> for Memory {
        fn open<'a>(&'a self, at: &Vec<u8>) -> io::Result<Box<dyn io::Read + 'a>> {
            Ok(Box::new(io::Cursor::new(at.clone())))
        }
    }
    let mut tree = Tree::new();
    let firmware = archive(&[("in/the/image", 0o644, 0, 1, body)]);
    for (path, bytes) in [("boot.img", firmware), ("etc/release", body.as_bytes().to_vec())] {
        let size = model::Bytes(bytes.len() as u64);
        let kind = Kind::File(Content { size, digest: None, at: bytes });
        tree.insert(path, Node { meta: Meta { mode: 0o644, ..Meta::default() }, kind }).unwrap();
    }
    let link = Node { meta: Meta::default(), kind: Kind::Symlink(b"etc/release".to_vec()) };
    tree.insert("link", link).unwrap();
    let volume = Volume {
        id: "TEST".to_owned(),
        time: 7,
        boot: Some("boot.img".into()),
        disk: formats::layout::DISK,
        parts: Vec::new(),
        hidden: ["boot.img".into()].into(),
    };
    let mut out = io::Cursor::new(Vec::new());
    iso::write(&volume, &tree, &Memory, &mut out).unwrap();
    out.into_inner()
}

#[test]
fn an_iso_is_compared_by_its_files_and_by_what_firmware_boots() {
    check(&iso("one"), &iso("one"), &[]);
    check(
        &iso("one"),
        &iso("two"),
        &[
            "/etc/release: Content  (from byte 0) ->  (from byte 0)",
            "what firmware boots / in/the/image: Content  (from byte 0) ->  (from byte 0)",
        ],
    );
}

#[test]
fn what_is_no_image_is_named_and_the_first_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| store::save(dir.path(), name, bytes).unwrap();
    put("text", b"no image");
    put("empty", b"");
    put("tar", &archive(&BASE));
    let mut ext4 = vec![0; 4096];
    ext4[1080..1082].copy_from_slice(&[0x53, 0xef]);
    put("ext4", &ext4);
    let check = |one: &str, two: &str, want: &str| {
        let paths = [one, two].map(|name| dir.path().join(name));
        let refused = compare(&paths[0], &paths[1]).unwrap_err();
        let said = refused.to_string().replace(&format!("{}/", dir.path().display()), "");
        assert_eq!(said, want);
    };
    check("text", "missing", "text is nothing that can be taken apart");
    check("missing", "text", "cannot read missing");
    check("tar", "empty", "empty is empty");
    check("ext4", "tar", "ext4 is an ext4, which is not read here");
}
