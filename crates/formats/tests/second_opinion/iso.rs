//! ISO images, judged by programs that others wrote and by the kernel.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use expect_test::expect;
use formats::fat;
use formats::iso::{self, Part, Volume};
use formats::layout::Role;
use formats::tree::{Content, Contents, InPlace, Kind, Meta, Node, Tree};
use model::Bytes;
use uuid::Uuid;

use crate::disk::noise;
use crate::tools::{run, tool};

fn file(text: &[u8]) -> Kind<Vec<u8>> {
    let size = Bytes(text.len() as u64);
    Kind::File(Content { size, digest: None, at: text.to_vec() })
}

fn put(tree: &mut Tree<Vec<u8>>, path: &str, mode: u16, kind: Kind<Vec<u8>>) {
    let meta = Meta { mode, uid: 3, gid: 4, mtime: 1_700_000_000, ..Meta::default() };
    tree.insert(path, Node { meta, kind }).unwrap();
}

fn sample() -> Tree<Vec<u8>> {
    let mut tree = Tree::new();
    let long = "n".repeat(240);
    put(&mut tree, "boot", 0o755, Kind::Folder);
    put(&mut tree, "boot/.boot_repository", 0o644, file(b""));
    put(&mut tree, "boot/kernel", 0o644, file(&noise(100_000)));
    put(&mut tree, "boot/same", 0o644, Kind::Same(b"boot/kernel".to_vec()));
    put(&mut tree, "etc/eve-release", 0o444, file(b"1.2.3\n"));
    put(&mut tree, "link", 0o777, Kind::Symlink(b"../boot/kernel".to_vec()));
    put(&mut tree, "long link", 0o777, Kind::Symlink(format!("/{long}/{long}").into_bytes()));
    put(&mut tree, "null", 0o666, Kind::Char { major: 1, minor: 3 });
    put(&mut tree, "pipe", 0o600, Kind::Fifo);
    put(&mut tree, &long, 0o4755, file(b"a long name"));
    put(&mut tree, &format!("{}end", "down/".repeat(15)), 0o644, file(b"deep"));
    for n in 0..200 {
        let path = format!("many/a name that goes on and on and on, number {n}.txt");
        put(&mut tree, &path, 0o640, file(path.as_bytes()));
    }
    tree
}

fn volume() -> Volume {
    let (id, time, disk) = ("EVEISO".into(), 1_700_000_000, Uuid::from_u128(5));
    Volume { id, time, boot: None, disk, parts: Vec::new(), hidden: BTreeSet::new() }
}

/// An image that boots from CD and USB, with an empty program for the firmware.
fn bootable(dir: &Path) -> Tree<Vec<u8>> {
    let mut tree = sample();
    let volume_of = |role: Role, size| role.volume(size, 0).unwrap();
    let files = fat::Files::from([("EFI/BOOT/BOOTX64.EFI".into(), noise(50_000))]);
    let esp = fat::render(&volume_of(Role::Esp, Bytes::mib(2)), &files).unwrap();
    let config = fat::Files::from([("server".into(), b"example.org".to_vec())]);
    let config = fat::render(&volume_of(Role::Config, Bytes::mib(5)), &config).unwrap();
    put(&mut tree, "boot.img", 0o444, file(&esp));
    put(&mut tree, "config.img", 0o644, file(&config));
    let part = |path: &str, role: Role| Part {
        path: path.into(),
        number: role.number(),
        partition: role.partition(),
    };
    let volume = Volume {
        boot: Some(b"boot.img".to_vec()),
        parts: vec![part("boot.img", Role::Esp), part("config.img", Role::Config)],
        hidden: BTreeSet::from([b"boot.img".to_vec()]),
        ..volume()
    };
    let out = BufWriter::new(File::create(dir.join("iso")).unwrap());
    iso::write(&volume, &tree, &InPlace, out).unwrap();
    tree
}

#[test]
fn xorriso_finds_one_entry_for_uefi_and_the_volume() {
    let dir = tempfile::tempdir().unwrap();
    bootable(dir.path());
    let args = ["-indev", "iso", "-pvd_info", "-report_el_torito", "plain"];
    let said = tool("xorriso", "xorriso", dir.path(), &args);
    let keep = ["Volume Id", "El Torito cat", "El Torito boot img", "El Torito images"];
    let kept: Vec<_> = said.lines().filter(|l| keep.iter().any(|k| l.starts_with(k))).collect();
    expect![[r#"
        El Torito boot img :   1  UEFI  y   none  0x0000  0x00   4096         512
        El Torito catalog  : 21  1
        El Torito images   :   N  Pltf  B   Emul  Ld_seg  Hdpt  Ldsiz         LBA
        Volume Id    : EVEISO"#]]
    .assert_eq(&sorted(kept).join("\n"));
    let sgdisk = tool("sgdisk", "gdisk", dir.path(), &["-v", "iso"]);
    assert!(sgdisk.contains("No problems found"), "{sgdisk}");
}

fn sorted(mut lines: Vec<&str>) -> Vec<&str> {
    lines.sort_unstable();
    lines
}

#[test]
fn others_list_and_extract_the_tree_that_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let tree = bootable(dir);
    let mut expected: Vec<String> = tree
        .iter()
        .map(|(path, _)| String::from_utf8_lossy(path).into_owned())
        .filter(|path| path != "boot.img")
        .map(|path| if path.is_empty() { ".".to_owned() } else { path })
        .collect();
    expected.sort();
    let listed = tool("bsdtar", "libarchive-tools", dir, &["-tf", "iso"]);
    let mut listed: Vec<_> = listed.lines().map(|l| l.trim_end_matches('/').to_owned()).collect();
    listed.sort();
    assert_eq!(listed, expected);

    std::fs::create_dir(dir.join("out")).unwrap();
    tool("xorriso", "xorriso", dir, &["-osirrox", "on", "-indev", "iso", "-extract", "/", "out"]);
    for path in ["boot/kernel", "boot/same", "etc/eve-release", "config.img"] {
        let Some(Kind::File(content)) = tree.inode(path.as_bytes()).map(|n| &n.kind) else {
            panic!("{path}");
        };
        assert!(std::fs::read(dir.join("out").join(path)).unwrap() == content.at, "{path}");
    }
    let link = std::fs::read_link(dir.join("out/link")).unwrap();
    assert_eq!(link, Path::new("../boot/kernel"));
}

#[test]
fn the_kernel_mounts_it_and_shows_rights_owners_links_and_devices() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    bootable(dir);
    std::fs::create_dir(dir.join("at")).unwrap();
    let mounted = run("mount", "mount", dir, &["-o", "loop,ro", "-t", "iso9660", "iso", "at"]);
    if !mounted.status.success() {
        println!("skipped: this machine mounts nothing here");
        return;
    }
    let format = ["at", "-mindepth", "1", "-printf", "%y %m %U %G %n %Ts %P -> %l\n"];
    let said = run("find", "findutils", dir, &format);
    let kernel = std::fs::read(dir.join("at/boot/kernel"));
    let deep = std::fs::read(dir.join("at").join("down/".repeat(15)).join("end"));
    tool("umount", "mount", dir, &["at"]);
    assert!(kernel.unwrap() == noise(100_000));
    assert_eq!(deep.unwrap(), b"deep");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let long = "n".repeat(240);
    for line in [
        "d 755 3 4 2 1700000000 boot -> ",
        "f 644 3 4 2 1700000000 boot/kernel -> ",
        "f 644 3 4 2 1700000000 boot/same -> ",
        "f 444 3 4 1 1700000000 etc/eve-release -> ",
        "l 777 3 4 1 1700000000 link -> ../boot/kernel",
        &format!("l 777 3 4 1 1700000000 long link -> /{long}/{long}"),
        "c 666 3 4 1 1700000000 null -> ",
        "p 600 3 4 1 1700000000 pipe -> ",
        &format!("f 4755 3 4 1 1700000000 {long} -> "),
    ] {
        assert!(said.lines().any(|l| l == line), "{line}\n{said}");
    }
}

#[test]
fn an_image_of_xorriso_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let long = "n".repeat(200);
    std::fs::create_dir_all(dir.join("in/a/b/c/d/e/f/g/h/i/j")).unwrap();
    std::fs::File::create(dir.join("in/a/b/c/d/e/f/g/h/i/j/deep")).unwrap();
    let mut body = File::create(dir.join("in").join(&long)).unwrap();
    body.write_all(&noise(70_000)).unwrap();
    std::os::unix::fs::symlink(format!("/{long}/../x"), dir.join("in/link")).unwrap();
    for more in [&["-rational-rock"][..], &["-R", "-V", "OTHER"]] {
        let args = [&["-as", "mkisofs", "-quiet"], more, &["-o", "iso", "in"]].concat();
        tool("xorriso", "xorriso", dir, &args);
        let mut file = File::open(dir.join("iso")).unwrap();
        let image = iso::read(&mut file).unwrap();
        assert_eq!(image.tree.entries(), 1 + 10 + 3);
        let content = image.tree.file(long.as_bytes()).unwrap();
        let mut read = Vec::new();
        iso::Opened::new(file).open(&content.at).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == noise(70_000));
        let link = &image.tree.get(b"link").unwrap().kind;
        assert_eq!(*link, Kind::Symlink(format!("/{long}/../x").into_bytes()));
        assert!(image.tree.file(b"a/b/c/d/e/f/g/h/i/j/deep").is_some());
    }
}

/// Content that nobody has to keep: zeroes, and four bytes at the end.
struct Huge;

impl Contents<u64> for Huge {
    fn open<'a>(&'a self, size: &u64) -> io::Result<Box<dyn Read + 'a>> {
        Ok(Box::new(io::repeat(0).take(size - 4).chain(&b"last"[..])))
    }
}

/// A file that skips zeroes.
struct Skipping(File);

impl Write for Skipping {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        static ZEROES: [u8; 4096] = [0; 4096];
        if bytes.chunks(4096).all(|piece| *piece == ZEROES[..piece.len()]) {
            self.0.seek(SeekFrom::Current(bytes.len().cast_signed() as i64))?;
            return Ok(bytes.len());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let length = self.0.stream_position()?;
        self.0.set_len(length)
    }
}

#[test]
fn a_file_of_more_than_4_gib_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let size = (4 << 30) + 5_000_000;
    let mut tree = Tree::new();
    let content = Content { size: Bytes(size), digest: None, at: size };
    let kind = Kind::File(content);
    tree.insert("huge", Node { meta: Meta::default(), kind }).unwrap();
    let out = Skipping(File::create(dir.path().join("iso")).unwrap());
    iso::write(&volume(), &tree, &Huge, out).unwrap();

    let mut file = File::open(dir.path().join("iso")).unwrap();
    let found = iso::read(&mut file).unwrap();
    let place = &found.tree.file(b"huge").unwrap().at;
    assert_eq!(place.len(), 2);
    assert_eq!(place.iter().map(|p| p.end - p.start).sum::<u64>(), size);
    let args = ["-indev", "iso", "-lsl", "/huge", "--"];
    let said = tool("xorriso", "xorriso", dir.path(), &args);
    assert!(said.contains("4299967296"), "{said}");
    let args = ["-osirrox", "on:o_excl_off", "-indev", "iso", "-extract_cut", "/huge"];
    let cut = ["4299967200", "96", "cut"];
    tool("xorriso", "xorriso", dir.path(), &[&args[..], &cut].concat());
    let cut = std::fs::read(dir.path().join("cut")).unwrap();
    assert_eq!((cut.len(), &cut[92..]), (96, &b"last"[..]));
}
