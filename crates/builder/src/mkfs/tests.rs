use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::process::Output;

use super::*;

#[expect(clippy::disallowed_methods, reason = "these programs judge our bytes")]
fn run(name: &str, args: &[&str]) -> Output {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let out = std::process::Command::new(name).args(args).env("PATH", path).output();
    out.unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A tar with what ext4 may hold. `plain`: only what FAT holds, too.
fn tar(plain: bool) -> File {
    let mut file = spool(io::empty(), &std::env::temp_dir()).unwrap();
    let mut builder = tar::Builder::new(&mut file);
    let mut add = |name: &str, kind: tar::EntryType, mode: u32, body: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1001);
        header.set_gid(70_000);
        header.set_mtime(1_600_000_000 + u64::from(mode));
        header.set_size(body.len() as u64);
        header.set_device_major(10).unwrap();
        header.set_device_minor(300).unwrap();
        match link {
            Some(to) => builder.append_link(&mut header, name, to).unwrap(),
            None => builder.append_data(&mut header, name, body).unwrap(),
        }
    };
    use tar::EntryType as T;
    add("etc/", T::Directory, 0o750, b"", None);
    add("etc/hosts", T::Regular, 0o644, b"localhost\n", None);
    add("empty", T::Regular, 0o600, b"", None);
    add("large", T::Regular, 0o755, &[7; 3_000_000], None);
    add("void/", T::Directory, 0o700, b"", None);
    if !plain {
        add("sudo \"quoted\"", T::Regular, 0o4755, b"suid", None);
        add("also", T::Link, 0, b"", Some("etc/hosts"));
        add("link", T::Symlink, 0o777, b"", Some("../elsewhere"));
        add("dev/thing", T::Char, 0o660, b"", None);
        add("dev/disk", T::Block, 0o600, b"", None);
        add("dev/same", T::Link, 0, b"", Some("dev/thing"));
        add("run/pipe", T::Fifo, 0o622, b"", None);
        let pax = [("SCHILY.xattr.user.note", &b"a\0b"[..])];
        builder.append_pax_extensions(pax).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(1);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(5);
        builder.append_data(&mut header, "noted", &b"x"[..]).unwrap();
    }
    builder.finish().unwrap();
    drop(builder);
    file.rewind().unwrap();
    file
}

fn twice(file_system: &FileSystem, plain: bool) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["a.img", "b.img"].map(|name| dir.path().join(name));
    for path in &paths {
        make(tar(plain), "the tar", file_system, Some(1_700_000_000), path).unwrap();
    }
    let [a, b] = paths.map(|path| (fs::read(&path).unwrap(), path));
    assert!(a.0 == b.0, "{file_system:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "leavings");
    (dir, a.1)
}

#[test]
fn an_ext4_keeps_owners_rights_times_and_attributes() {
    let ext4 = FileSystem::Ext4 { size: None, label: "eve_rootfs".to_owned() };
    let (dir, image) = twice(&ext4, false);
    let image = image.to_str().unwrap();
    let checked = run("e2fsck", &["-fn", image]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let at = dir.path().join("mounted");
    fs::create_dir(&at).unwrap();
    let mounted = run("mount", &["-o", "loop,ro", image, at.to_str().unwrap()]);
    if !mounted.status.success() {
        println!("skipped: cannot mount: {}", String::from_utf8_lossy(&mounted.stderr));
        return;
    }
    let mut seen = BTreeMap::new();
    for path in [
        "etc",
        "etc/hosts",
        "empty",
        "large",
        "sudo \"quoted\"",
        "also",
        "link",
        "dev/thing",
        "dev/disk",
        "dev/same",
        "run/pipe",
        "noted",
    ] {
        let about = fs::symlink_metadata(at.join(path)).unwrap();
        let (mode, time) = (about.mode(), about.mtime());
        let line = format!(
            "{mode:o} {} {} {time} x{} {:x} {}",
            about.uid(),
            about.gid(),
            about.nlink(),
            about.rdev(),
            about.ctime() == time
        );
        seen.insert(path, line);
    }
    let body = fs::read(at.join("large")).unwrap();
    let note = run("getfattr", &["-d", "-e", "hex", at.join("noted").to_str().unwrap()]);
    let unmounted = run("umount", &[at.to_str().unwrap()]);
    assert!(unmounted.status.success());
    let lines: Vec<String> = seen.iter().map(|(path, line)| format!("{path}: {line}")).collect();
    expect_test::expect![[r#"
        also: 100644 1001 70000 1600000420 x2 0 true
        dev/disk: 60600 1001 70000 1600000384 x1 100a2c true
        dev/same: 20660 1001 70000 1600000432 x2 100a2c true
        dev/thing: 20660 1001 70000 1600000432 x2 100a2c true
        empty: 100600 1001 70000 1600000384 x1 0 true
        etc: 40750 1001 70000 1600000488 x2 0 true
        etc/hosts: 100644 1001 70000 1600000420 x2 0 true
        large: 100755 1001 70000 1600000493 x1 0 true
        link: 120777 1001 70000 1600000511 x1 0 true
        noted: 100644 0 0 5 x1 0 true
        run/pipe: 10622 1001 70000 1600000402 x1 0 true
        sudo "quoted": 104755 1001 70000 1600002541 x1 0 true"#]]
    .assert_eq(&lines.join("\n"));
    assert!(body == [7; 3_000_000]);
    assert!(String::from_utf8_lossy(&note.stdout).contains("user.note=0x610062"));
}

#[test]
fn a_fat_volume_holds_files_and_empty_folders() {
    let (_dir, image) = twice(&FileSystem::Fat { size: None, label: "DATA".to_owned() }, true);
    let (volume, files) = fat::read(&fs::read(image).unwrap()).unwrap();
    assert_eq!(volume.label, "DATA");
    let names: Vec<&String> = files.keys().collect();
    assert_eq!(names, ["empty", "etc/hosts", "large", "void/"]);
    assert_eq!(files["etc/hosts"], b"localhost\n");
}

#[test]
fn a_squashfs_is_that_of_the_tar() {
    let method = Method::Zstd(3);
    let (_dir, image) =
        twice(&FileSystem::Squashfs { method, block: Bytes::kib(128), keep: None }, false);
    let image = formats::squashfs::Image::open(File::open(image).unwrap()).unwrap();
    let mut back = image.tree().unwrap().map(|_| ());
    let mut tree = Archive::new(tar(false), "the tar".to_owned()).tree().unwrap().map(|_| ());
    tree.settle_links();
    for link in ["also", "etc/hosts", "dev/same", "dev/thing"] {
        // The time of a hard link means nothing.
        for tree in [&mut back, &mut tree] {
            assert!(tree.inode(link.as_bytes()).is_some());
        }
    }
    let lines = |tree: &Tree<()>| -> Vec<String> {
        tree.iter().map(|(path, _)| format!("{path:?} {:?}", tree.inode(path))).collect()
    };
    assert_eq!(lines(&back), lines(&tree));
}

#[test]
fn what_a_file_system_does_not_have_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let fat = FileSystem::Fat { size: None, label: "DATA".to_owned() };
    let refused = make(tar(false), "the tar", &fat, None, &dir.path().join("x")).unwrap_err();
    let wanted = "FAT cannot hold \"dev/disk\": it is neither file nor folder";
    assert_eq!(refused.to_string(), wanted);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let mut broken = spool(&b"no tar at all"[..], dir.path()).unwrap();
    broken.write_all(&[1; 2000]).unwrap();
    let squashfs = FileSystem::Squashfs { method: Method::Xz, block: Bytes::kib(128), keep: None };
    let refused = make(broken, "the tar", &squashfs, None, &dir.path().join("x")).unwrap_err();
    assert_eq!(refused.to_string(), "the tar is no tar: it does not begin with a member");
}

#[test]
fn what_is_no_tar_is_told_as_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let ext4 = FileSystem::Ext4 { size: None, label: String::new() };
    let check = |bytes: &[u8], want: &str| {
        let input = spool(bytes, dir.path()).unwrap();
        let refused = make(input, "FILE", &ext4, None, &dir.path().join("x")).unwrap_err();
        assert_eq!(refused.to_string(), want);
        assert!(refused.diagnose().advice.contains("tar"), "{}", refused.diagnose().advice);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    };
    check(b"", "FILE is no tar: it is empty");
    check(b"short", "FILE is no tar: it is shorter than a header");
    check(&zstd::encode_all(&[7; 9][..], 1).unwrap().repeat(99), "FILE is no tar: it is packed");
    check(&b"hsqs".repeat(200), "FILE is no tar: it is a squashfs");
    let mut bytes = Vec::new();
    tar(false).read_to_end(&mut bytes).unwrap();
    let want = "the tar FILE is cut off: \"large\" in it ends at 2.8 MiB, and it has 1.0 MiB";
    check(&bytes[..1 << 20], want);
    bytes[512 * 3..512 * 4].fill(b'?');
    let want = "the tar FILE is damaged or cut off: behind a member stands what is none";
    let refused =
        make(spool(&bytes[..], dir.path()).unwrap(), "FILE", &ext4, None, &dir.path().join("x"));
    assert_eq!(refused.unwrap_err().to_string(), want);
}

#[test]
fn the_programs_that_make_ext4_tell_their_version() {
    let said = ext4_version().unwrap();
    let version = said.strip_prefix("mke2fs ").and_then(|rest| rest.split(' ').next());
    assert!(version.is_some_and(|v| v.contains('.')), "{said}");
}
