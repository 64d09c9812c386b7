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

/// What the tree is passed on as: one line a member.
fn show(rootfs: &Rootfs) -> String {
    let mut bytes = Vec::new();
    rootfs.write(&|name| name == "boot/kernel", &mut bytes).unwrap();
    let mut text = String::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut body = String::new();
        entry.read_to_string(&mut body).unwrap();
        let name = entry.path().unwrap().display().to_string();
        let link = entry.link_name().unwrap().map(|l| format!(" {}", l.display()));
        let (kind, time) = (entry.header().entry_type(), entry.header().mtime().unwrap());
        text += &format!("{kind:?} {name}{} {time} {body}\n", link.unwrap_or_default());
    }
    text
}

#[track_caller]
fn check(members: &[(&str, &str)], expect: expect_test::Expect) {
    let dir = tempfile::tempdir().unwrap();
    let rootfs = Rootfs::open(&tar(dir.path(), members));
    expect.assert_eq(
        &rootfs
            .map_or_else(|e| e.to_string(), |r| show(&r))
            .replace(&dir.path().display().to_string(), "DIR"),
    );
}

#[test]
fn each_path_comes_once_with_what_was_said_last() {
    check(
        &[("etc/", ""), ("etc/hosts", "old"), ("etc/", ""), ("etc/hosts", "new")],
        expect_test::expect![[r#"
            Directory etc 1002 
            Regular etc/hosts 1003 new
        "#]],
    );
}

#[test]
fn folders_that_nobody_names_appear_and_the_kernel_stays_out() {
    check(
        &[("boot/kernel", "bzImage"), ("boot/cmdline", "quiet"), ("a/b/c", "x")],
        expect_test::expect![[r#"
            Directory a 1002 
            Directory a/b 1002 
            Regular a/b/c 1002 x
            Directory boot 1002 
            Regular boot/cmdline 1001 quiet
        "#]],
    );
}

#[test]
fn hard_links_follow_what_they_link_to() {
    check(
        &[("z", "body"), ("a == z", ""), ("b == a", ""), ("l -> z", "")],
        expect_test::expect![[r#"
            Symlink l z 1003 
            Regular z 1000 body
            Link a z 1001 
            Link b z 1002 
        "#]],
    );
}

#[test]
fn what_cannot_be_unpacked_is_refused() {
    for (members, expect) in [
        (
            &[("lib/modules/x", "m"), ("lib -> usr/lib", "")][..],
            expect_test::expect![[
                r#""lib" in DIR/rootfs.tar is no folder, but "lib/modules/x" lies in it"#
            ]],
        ),
        (
            &[("lib -> usr/lib", ""), ("lib/x", "m")],
            expect_test::expect![[
                r#""lib/x" in DIR/rootfs.tar lies below "lib", which is no folder"#
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
