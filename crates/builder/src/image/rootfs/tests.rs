use formats::tree::{self, Kind};
use tar::{EntryType, Header};

use super::*;

/// A tar of these members, in this order. `path` says by its end what it is: `/` a folder,
/// `-> x` a link, `== x` a hard link, else a file with the text.
fn tar(dir: &Path, members: &[(&str, &str)]) -> PathBuf {
    let path = dir.join("rootfs.tar");
    let mut builder = tar::Builder::new(File::create(&path).unwrap());
    for (at, (name, text)) in members.iter().enumerate() {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1000 + at as u64);
        header.set_size(0);
        if let Some((name, to)) = name.split_once(" -> ") {
            header.set_entry_type(EntryType::Symlink);
            builder.append_link(&mut header, name, to).unwrap();
        } else if let Some((name, to)) = name.split_once(" == ") {
            header.set_entry_type(EntryType::Link);
            builder.append_link(&mut header, name, to).unwrap();
        } else if name.ends_with('/') {
            header.set_entry_type(EntryType::Directory);
            builder.append_data(&mut header, name, io::empty()).unwrap();
        } else {
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
    }
    builder.finish().unwrap();
    path
}

/// The tree: one line a path.
fn show(rootfs: &Rootfs) -> String {
    let mut text = String::new();
    for (path, node) in rootfs.tree().iter() {
        let what = match &node.kind {
            Kind::Folder => "/".to_owned(),
            Kind::File(content) => {
                String::from_utf8_lossy(&rootfs.content(content).unwrap()).into_owned()
            }
            Kind::Symlink(to) => format!("-> {}", tree::show(to)),
            Kind::Same(to) => format!("== {}", tree::show(to)),
            other => format!("{other:?}"),
        };
        text += &format!("{} {} {what}\n", tree::show(path), node.meta.mtime);
    }
    text
}

/// An error with its causes.
fn whole(error: &RootfsError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[track_caller]
fn check(members: &[(&str, &str)], expect: expect_test::Expect) {
    let dir = tempfile::tempdir().unwrap();
    let rootfs = Rootfs::open(&tar(dir.path(), members));
    expect.assert_eq(
        &rootfs
            .map_or_else(|e| whole(&e), |r| show(&r))
            .replace(&dir.path().display().to_string(), "DIR"),
    );
}

#[test]
fn each_path_comes_once_with_what_was_said_last() {
    check(
        &[("etc/", ""), ("etc/hosts", "old"), ("etc/", ""), ("etc/hosts", "new")],
        expect_test::expect![[r#"
             1003 /
            etc 1002 /
            etc/hosts 1003 new
        "#]],
    );
}

#[test]
fn folders_that_nobody_names_appear_and_the_root_has_its_own_time() {
    check(
        &[("a/b/c", "x"), ("./", ""), ("./d", "y")],
        expect_test::expect![[r#"
             1001 /
            a 1000 /
            a/b 1000 /
            a/b/c 1000 x
            d 1002 y
        "#]],
    );
}

#[test]
fn hard_links_lead_to_their_file() {
    check(
        &[("z", "body"), ("a == z", ""), ("b == a", ""), ("l -> z", "")],
        expect_test::expect![[r#"
             1003 /
            a 1001 == z
            b 1002 == z
            l 1003 -> z
            z 1000 body
        "#]],
    );
}

#[test]
fn what_cannot_be_unpacked_is_refused() {
    for (members, expect) in [
        (
            &[("lib/modules/x", "m"), ("lib -> usr/lib", "")][..],
            expect_test::expect![[
                r#"DIR/rootfs.tar cannot be unpacked: "lib" is no folder, but "lib/modules" lies in it"#
            ]],
        ),
        (
            &[("lib -> usr/lib", ""), ("lib/x", "m")],
            expect_test::expect![[
                r#"DIR/rootfs.tar cannot be unpacked: "lib/x" lies below "lib", which is no folder"#
            ]],
        ),
    ] {
        check(members, expect);
    }
}

#[test]
fn files_are_found_through_links() {
    let dir = tempfile::tempdir().unwrap();
    let members = [
        ("usr/sbin/eve-init", "elf"),
        ("sbin -> usr/sbin", ""),
        ("etc/os-release -> ../usr/lib/os-release", ""),
        ("usr/lib/os-release", "ID=eve"),
        ("loop -> loop", ""),
        ("up -> ../../usr", ""),
    ];
    let rootfs = Rootfs::open(&tar(dir.path(), &members)).unwrap();
    let read = |name: &str| rootfs.read(name, Bytes(10)).map_err(|e| e.to_string());
    assert_eq!(read("sbin/eve-init").unwrap(), b"elf");
    assert_eq!(read("etc/os-release").unwrap(), b"ID=eve");
    assert_eq!(read("up/sbin/eve-init").unwrap(), b"elf");
    assert!(!rootfs.has("loop") && !rootfs.has("usr/none"));
    assert_eq!(rootfs.list("sbin"), ["eve-init"]);
    assert!(rootfs.read("sbin/eve-init", Bytes(2)).unwrap_err().to_string().contains("more than"));
    assert!(read("nothing").unwrap_err().starts_with("there is no nothing in"));
}
