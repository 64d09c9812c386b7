//! Our squashfs images, judged by unsquashfs and by the kernel.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Cursor, Read, Write as _};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use formats::squashfs::{self, Facts, Image, Method, Options};
use formats::tree::{Content, Contents, InPlace, Kind, Meta, Node, Tree, show};
use model::Bytes;
use sha2::{Digest, Sha256};

use crate::disk::noise;
use crate::tools::{run, tool};

const METHODS: [Method; 3] = [Method::Gzip(6), Method::Xz, Method::Zstd(3)];
const BLOCK: usize = 131_072;

pub(crate) fn options(method: Method, block: u64, threads: usize) -> Options {
    let threads = NonZeroUsize::new(threads).unwrap();
    Options { method, block: Bytes(block), time: 77, threads }
}

pub(crate) fn file(bytes: impl Into<Vec<u8>>) -> Kind<Vec<u8>> {
    let at = bytes.into();
    Kind::File(Content { size: Bytes(at.len() as u64), digest: None, at })
}

/// Everything that a root file system may hold, and some that none does.
fn everything() -> Tree<Vec<u8>> {
    let mut tree = Tree::new();
    let mut time = 1_700_000_000;
    let mut put = |path: &[u8], mode: u16, kind: Kind<Vec<u8>>| {
        time += 1;
        let meta = Meta { mode, uid: 1000, gid: 4_000_000_000, mtime: time, ..Meta::default() };
        tree.insert(path, Node { meta, kind }).unwrap();
    };
    put(b"", 0o751, Kind::Folder);
    put(b"empty", 0o600, file([]));
    put(b"small", 0o644, file("a small file\n"));
    put(b"same-small", 0o640, file("a small file\n"));
    put(b"block", 0o755, file(noise(BLOCK)));
    put(b"same-block", 0o4755, file(noise(BLOCK)));
    put(b"blocks", 0o755, file(noise(3 * BLOCK)));
    put(b"text", 0o644, file("all work and no play\n".repeat(40_000)));
    let holes = [vec![0; BLOCK], noise(BLOCK), vec![0; 2 * BLOCK], noise(10)].concat();
    put(b"holes", 0o644, file(holes));
    put(b"only-hole", 0o644, file(vec![0; 2 * BLOCK + 5]));
    put(b"zeroes", 0o644, file(vec![0; 5]));
    put(b"dev/null", 0o666, Kind::Char { major: 1, minor: 3 });
    put(b"dev/far", 0o600, Kind::Char { major: 4095, minor: 0xf_ffff });
    put(b"dev/disk", 0o660, Kind::Block { major: 259, minor: 300 });
    put(b"run/pipe", 0o1622, Kind::Fifo);
    put(b"run/socket", 0o777, Kind::Socket);
    put(b"link", 0o777, Kind::Symlink(b"../somewhere/\xff".to_vec()));
    put(b"hard/link", 0, Kind::Same(b"small".to_vec()));
    put(b"hard/other", 0, Kind::Same(b"dev/null".to_vec()));
    put(b"odd/\xff\xfe name\t\"'", 0o644, file("odd"));
    put(&[b"odd/", &[b'n'; 255][..]].concat(), 0o644, file("long"));
    put(b"tmp", 0o1777, Kind::Folder);
    for n in 0..700 {
        put(format!("many/{n:03} some name of a file").as_bytes(), 0o644, file(format!("{n}")));
    }
    // The kernel shows capabilities only if they are well formed.
    let ping = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for path in ["small", "text"] {
        let xattrs = &mut tree.meta_mut(path.as_bytes()).unwrap().xattrs;
        xattrs.insert(b"security.capability".to_vec(), ping.to_vec());
    }
    for (path, name, length) in [
        ("small", "user.note", 5),
        ("tmp", "trusted.overlay.opaque", 1),
        ("link", "trusted.x", 3000),
        ("run/pipe", "security.y", 0),
        ("dev/disk", "security.z", 9),
    ] {
        let xattrs = &mut tree.meta_mut(path.as_bytes()).unwrap().xattrs;
        xattrs.insert(name.into(), noise(length));
    }
    tree.meta_mut(b"block").unwrap().mtime = 0;
    tree.meta_mut(b"blocks").unwrap().mtime = i64::from(u32::MAX);
    tree
}

pub(crate) fn image(tree: &Tree<Vec<u8>>, options: &Options) -> (Vec<u8>, Facts) {
    let mut out = Cursor::new(Vec::new());
    let facts = squashfs::write(tree, &InPlace, options, None, &mut out).unwrap();
    assert_eq!(facts.size.0, out.get_ref().len() as u64);
    (out.into_inner(), facts)
}

/// One line for each path, with all that must be the same on a mounted image.
pub(crate) fn lines(tree: &Tree<Vec<u8>>) -> Vec<String> {
    let line = |(path, _): (&[u8], &Node<Vec<u8>>)| {
        let node = tree.inode(path).unwrap();
        let Meta { mode, uid, gid, mtime, .. } = node.meta;
        let what = match &node.kind {
            Kind::Folder => "folder".to_owned(),
            Kind::File(content) => format!("file {}", sum(&content.at)),
            Kind::Symlink(to) => format!("-> {to:?}"),
            Kind::Char { major, minor } => format!("char {major} {minor}"),
            Kind::Block { major, minor } => format!("block {major} {minor}"),
            Kind::Fifo => "fifo".to_owned(),
            Kind::Socket => "socket".to_owned(),
            Kind::Same(_) => unreachable!("what links lead to is no link"),
        };
        let real = match &tree.get(path).unwrap().kind {
            Kind::Same(real) => real,
            _ => path,
        };
        let links = match node.kind {
            Kind::Folder => {
                let folders = tree.children(path).filter(|(_, n)| n.kind == Kind::Folder);
                2 + folders.count()
            }
            _ => 1 + tree.links_to(real).count(),
        };
        format!("{path:?} {mode:o} {uid} {gid} {mtime} x{links} {what}")
    };
    tree.iter().map(line).collect()
}

/// The same of what lies in a folder.
pub(crate) fn lines_of(root: &Path) -> Vec<String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![Vec::new()];
    while let Some(path) = folders.pop() {
        let at = root.join(OsStr::from_bytes(&path));
        let about = fs::symlink_metadata(&at).unwrap();
        let (major, minor) =
            (about.rdev() >> 8 & 0xfff, about.rdev() & 0xff | about.rdev() >> 12 & 0xf_ff00);
        let what = match about.mode() >> 12 {
            0o04 => {
                let names = fs::read_dir(&at).unwrap().map(|e| e.unwrap().file_name());
                let below = |name: std::ffi::OsString| {
                    [path.as_slice(), if path.is_empty() { b"" } else { b"/" }, name.as_bytes()]
                        .concat()
                };
                folders.extend(names.map(below));
                "folder".to_owned()
            }
            0o10 => {
                let bytes = fs::read(&at).unwrap();
                assert_eq!(bytes.len() as u64, about.size(), "{}", at.display());
                format!("file {}", sum(&bytes))
            }
            0o12 => format!("-> {:?}", fs::read_link(&at).unwrap().as_os_str().as_bytes()),
            0o02 => format!("char {major} {minor}"),
            0o06 => format!("block {major} {minor}"),
            0o01 => "fifo".to_owned(),
            0o14 => "socket".to_owned(),
            other => panic!("{other:o}"),
        };
        let (mode, uid, gid) = (about.mode() & 0o7777, about.uid(), about.gid());
        let (mtime, links) = (about.mtime(), about.nlink());
        let line = format!("{path:?} {mode:o} {uid} {gid} {mtime} x{links} {what}");
        found.insert(path, line);
    }
    found.into_values().collect()
}

fn sum(bytes: &[u8]) -> String {
    let mut text = format!("{} ", bytes.len());
    Sha256::digest(bytes).iter().for_each(|b| write!(text, "{b:02x}").unwrap());
    text
}

/// Mounts an image and looks; `None` where this machine cannot mount.
fn mounted<T>(image: &Path, look: impl FnOnce(&Path) -> T) -> Option<T> {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    let image = image.to_str().unwrap();
    let args = ["-t", "squashfs", "-o", "loop,ro", image, at];
    let out = run("mount", "mount", Path::new("/"), &args);
    let said = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() {
        let cannot = ["only root", "must be superuser", "loop device", "permission denied"];
        assert!(cannot.iter().any(|why| said.contains(why)), "{said}");
        println!("skipped: this machine cannot mount images: {said}");
        return None;
    }
    let seen = look(dir.path());
    tool("umount", "mount", Path::new("/"), &[at]);
    Some(seen)
}

#[track_caller]
fn compare(ours: &[String], theirs: &[String]) {
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn the_kernel_sees_the_tree_as_it_was() {
    let tree = everything();
    for method in METHODS {
        for block in [4096, BLOCK as u64, 1 << 20] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("image");
            save(&path, image(&tree, &options(method, block, 2)).0);
            let Some(seen) = mounted(&path, |root| {
                let getfattr = ["-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", "."];
                (lines_of(root), tool("getfattr", "attr", root, &getfattr))
            }) else {
                return;
            };
            compare(&lines(&tree), &seen.0);
            for (path, node) in tree.iter() {
                for (name, value) in &node.meta.xattrs {
                    let hex: String = value.iter().map(|b| format!("{b:02x}")).collect();
                    let line = format!("{}=0x{hex}\n", show(name));
                    let rest = seen.1.split_once(&format!("# file: {}\n", show(path)));
                    let (mine, _) = rest.unwrap().1.split_once("\n\n").unwrap();
                    assert!(format!("{mine}\n").contains(&line), "{line} in {mine}");
                }
            }
        }
    }
}

#[test]
fn unsquashfs_lists_and_extracts_what_went_in() {
    let tree = everything();
    for method in METHODS {
        let dir = tempfile::tempdir().unwrap();
        let (bytes, facts) = image(&tree, &options(method, BLOCK as u64, 2));
        save(dir.path().join("image"), bytes);
        let tool = |args: &[&str]| tool("unsquashfs", "squashfs-tools", dir.path(), args);
        let said = tool(&["-s", "image"]);
        for line in [
            format!("Filesystem size {} bytes", facts.used.0),
            format!("Compression {}", method.codec().name()),
            "Block size 131072".to_owned(),
            "Filesystem is exportable via NFS".to_owned(),
            format!("Number of fragments {}", facts.fragments),
            format!("Number of inodes {}", facts.inodes),
            "Number of ids 3".to_owned(),
            "Number of xattr ids 6".to_owned(),
        ] {
            assert!(said.contains(&line), "{line} in {said}");
        }
        // Hard links are not counted.
        assert_eq!((facts.duplicates, facts.kept), (2, 0));
        let listed = tool(&["-lln", "image"]);
        assert_eq!(listed.lines().filter(|l| l.contains("squashfs-root")).count(), tree.entries());
        let root = tool(&["-q", "-n", "-d", "out", "-no-xattrs", "image"]);
        if fs::metadata(dir.path()).unwrap().uid() != 0 {
            println!("skipped: only root extracts owners and devices: {root}");
            continue;
        }
        compare(&lines(&tree), &lines_of(&dir.path().join("out")));
    }
}

#[test]
fn the_number_of_threads_shows_in_nothing() {
    let tree = everything();
    for method in METHODS {
        let alone = image(&tree, &options(method, 4096, 1)).0;
        for threads in [2, 5] {
            assert!(image(&tree, &options(method, 4096, threads)).0 == alone, "{method:?}");
        }
    }
}

#[test]
fn a_folder_holds_more_than_65536_files() {
    let mut tree: Tree<Vec<u8>> = Tree::new();
    for n in 0..70_000 {
        let node = Node { meta: Meta::default(), kind: file(if n % 997 == 0 { "x" } else { "" }) };
        tree.insert(format!("folder/{n}"), node).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    save(&path, image(&tree, &options(Method::Gzip(1), 4096, 2)).0);
    let list = tool("unsquashfs", "squashfs-tools", dir.path(), &["-l", "image"]);
    assert_eq!(list.lines().filter(|l| l.contains("folder/")).count(), 70_000);
    mounted(&path, |root| {
        assert_eq!(fs::read_dir(root.join("folder")).unwrap().count(), 70_000);
        // Found by name: through the index.
        for n in [0, 1, 9, 997, 34_567, 65_802, 69_999] {
            let about = fs::metadata(root.join(format!("folder/{n}"))).unwrap();
            assert_eq!(about.len(), u64::from(n % 997 == 0), "{n}");
        }
        assert!(!root.join("folder/70000").exists() && !root.join("folder/").join("a").exists());
    });
}

/// Contents of that many zeroes with a word at the end.
struct Zeroes;

impl Contents<u64> for Zeroes {
    fn open<'a>(&'a self, at: &u64) -> io::Result<Box<dyn Read + 'a>> {
        Ok(Box::new(io::repeat(0).take(*at).chain(&b"end"[..])))
    }
}

#[test]
fn a_file_may_be_larger_than_4_gib() {
    let zeroes: u64 = (4 << 30) + 12_345;
    let mut tree = Tree::new();
    let content = Content { size: Bytes(zeroes + 3), digest: None, at: zeroes };
    let kind = Kind::File(content);
    tree.insert(*b"large", Node { meta: Meta::default(), kind }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let mut out = File::create(&path).unwrap();
    let options = options(Method::Zstd(1), 1 << 20, 2);
    let facts = squashfs::write(&tree, &Zeroes, &options, None, &mut out).unwrap();
    assert!(facts.size < Bytes::mib(1));
    let list = tool("unsquashfs", "squashfs-tools", dir.path(), &["-lln", "image"]);
    assert!(list.contains(&format!(" {} ", zeroes + 3)), "{list}");
    mounted(&path, |root| {
        use std::os::unix::fs::FileExt;
        let mut end = [1; 5];
        File::open(root.join("large")).unwrap().read_exact_at(&mut end, zeroes - 2).unwrap();
        assert_eq!(&end, b"\0\0end");
        assert!(fs::metadata(root.join("large")).unwrap().blocks() < 4096);
    });
}

#[test]
fn what_squashfs_cannot_hold_is_refused_by_name() {
    let refused = |path: &str, change: &dyn Fn(&mut Node<Vec<u8>>)| {
        let mut node = Node { meta: Meta::default(), kind: file("x") };
        change(&mut node);
        let mut tree = Tree::new();
        tree.insert(path, node).unwrap();
        let options = options(Method::Gzip(1), 4096, 1);
        let mut out = Cursor::new(Vec::new());
        squashfs::write(&tree, &InPlace, &options, None, &mut out).unwrap_err().to_string()
    };
    let said = [
        refused("a", &|n| n.kind = Kind::Char { major: 4096, minor: 0 }),
        refused("b", &|n| n.kind = Kind::Symlink(vec![b'x'; 5000])),
        refused("c", &|n| {
            n.meta.xattrs.insert(b"system.posix_acl_access".to_vec(), vec![2]);
        }),
        refused("d", &|n| {
            n.kind = Kind::File(Content { size: Bytes(9), digest: None, at: b"short".to_vec() });
        }),
    ];
    expect_test::expect![[r#"
        a squashfs cannot hold "a": it has the device numbers 4096, 0
        a squashfs cannot hold "b": it is a symbolic link of 5000 bytes
        a squashfs cannot hold "c": it has the extended attribute "system.posix_acl_access"
        cannot read "d""#]]
    .assert_eq(&said.join("\n"));
}

/// What our reader sees, with the contents in place.
pub(crate) fn read_back(bytes: Vec<u8>) -> Tree<Vec<u8>> {
    let image = Image::open(Cursor::new(bytes)).unwrap();
    image.tree().unwrap().map(|place| {
        let mut bytes = Vec::new();
        image.open(&place).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// A tree in the form in which the reader gives it.
pub(crate) fn settled(mut tree: Tree<Vec<u8>>) -> Tree<Vec<u8>> {
    tree.settle_links();
    let links: Vec<Vec<u8>> = tree
        .iter()
        .filter(|(_, node)| matches!(node.kind, Kind::Same(_)))
        .map(|(path, _)| path.to_vec())
        .collect();
    for link in links {
        let kind = tree.get(&link).unwrap().kind.clone();
        tree.insert(link, Node { meta: Meta::default(), kind }).unwrap();
    }
    tree
}

#[test]
fn our_reader_gives_back_what_our_writer_took() {
    let tree = settled(everything());
    for method in METHODS {
        for block in [4096, BLOCK as u64, 1 << 20] {
            let back = read_back(image(&tree, &options(method, block, 2)).0);
            assert!(back == tree, "{method:?} {block}: {:#?}", lines(&back));
        }
    }
}

#[test]
fn our_reader_sees_what_mksquashfs_wrote() {
    let tree = settled(everything());
    let dir = tempfile::tempdir().unwrap();
    save(dir.path().join("image"), image(&tree, &options(METHODS[0], 4096, 2)).0);
    let extract = ["-q", "-n", "-d", "in", "image"];
    let out = run("unsquashfs", "squashfs-tools", dir.path(), &extract);
    if !out.status.success() {
        println!("skipped: only root extracts owners and devices");
        return;
    }
    for codec in ["gzip", "xz", "zstd"] {
        let args = ["in", codec, "-comp", codec, "-noappend", "-quiet", "-no-progress"];
        tool("mksquashfs", "squashfs-tools", dir.path(), &args);
        let back = read_back(fs::read(dir.path().join(codec)).unwrap());
        assert!(back == tree, "{codec}: {:#?}", lines(&back));
    }
    for codec in ["lzo", "lz4"] {
        let args = ["in", codec, "-comp", codec, "-noappend", "-quiet", "-no-progress"];
        tool("mksquashfs", "squashfs-tools", dir.path(), &args);
        let image = File::open(dir.path().join(codec)).unwrap();
        let said = Image::open(image).unwrap_err().to_string();
        let wanted = "gzip, xz and zstd can be read";
        assert!(said.contains(codec) && said.contains(wanted), "{said}");
    }
}

pub(crate) fn save(path: impl AsRef<Path>, bytes: Vec<u8>) {
    File::create(path).unwrap().write_all(&bytes).unwrap();
}
