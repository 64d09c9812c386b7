use std::io::{Cursor, Read};

use super::*;
use crate::layout::Role;
use crate::tree::{Content, Contents, InPlace, Kind, Meta, Node, Tree};

fn volume() -> Volume {
    Volume {
        id: "EVEISO".into(),
        time: 1_700_000_000,
        boot: None,
        disk: Uuid::from_u128(7),
        parts: Vec::new(),
        hidden: BTreeSet::new(),
    }
}

fn meta(mode: u16, mtime: i64) -> Meta {
    Meta { mode, uid: 1000, gid: 70_000, mtime, ..Meta::default() }
}

fn file(text: &[u8]) -> Kind<Vec<u8>> {
    let size = Bytes(text.len() as u64);
    Kind::File(Content { size, digest: None, at: text.to_vec() })
}

/// Something of everything, with names and links that do not fit into a record.
fn sample() -> Tree<Vec<u8>> {
    let mut tree = Tree::new();
    let long = vec![b'n'; 250];
    let up = [b"../".repeat(3), b"x/".repeat(600), long.clone()].concat();
    let nodes: Vec<(Vec<u8>, u16, Kind<Vec<u8>>)> = vec![
        (b"boot".to_vec(), 0o755, Kind::Folder),
        (b"boot/kernel".to_vec(), 0o644, file(b"a kernel")),
        (b"boot/.uuid".to_vec(), 0o600, file(b"")),
        (b"boot/kernel.same".to_vec(), 0o644, Kind::Same(b"boot/kernel".to_vec())),
        (b"a file with spaces and \xC3\xA4.text".to_vec(), 0o4755, file(&[7; 5000])),
        (b"case".to_vec(), 0o644, file(b"small")),
        (b"CASE".to_vec(), 0o644, file(b"capital")),
        (b"absolute".to_vec(), 0o777, Kind::Symlink(b"/boot/./../boot/kernel".to_vec())),
        (b"long link".to_vec(), 0o777, Kind::Symlink(up)),
        (b"null".to_vec(), 0o666, Kind::Char { major: 1, minor: 3 }),
        (b"disk".to_vec(), 0o660, Kind::Block { major: 8, minor: 300 }),
        (b"pipe".to_vec(), 0o622, Kind::Fifo),
        (long.clone(), 0o644, file(b"long")),
        ([b"deep/".repeat(20), long].concat(), 0o644, file(b"deep")),
    ];
    for (n, (path, mode, kind)) in (0..).zip(nodes) {
        tree.insert(path, Node { meta: meta(mode, 1_600_000_000 + n), kind }).unwrap();
    }
    for n in 0..300 {
        let path = format!("many/a name that is longer than plain names may be {n}");
        let node = Node { meta: meta(0o644, n), kind: file(path.as_bytes()) };
        tree.insert(path, node).unwrap();
    }
    tree
}

fn image(volume: &Volume, tree: &Tree<Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    write(volume, tree, &InPlace, &mut out).unwrap();
    out
}

/// The tree with contents in the place of places, and links as the image has them.
fn contents(bytes: &[u8]) -> Tree<Vec<u8>> {
    let mut cursor = Cursor::new(bytes);
    let found = read(&mut cursor).unwrap();
    let opened = Opened::new(Cursor::new(bytes));
    found.tree.map(|place| {
        let mut body = Vec::new();
        opened.open(&place).unwrap().read_to_end(&mut body).unwrap();
        body
    })
}

#[test]
fn what_was_written_reads_back() {
    let tree = sample();
    let back = contents(&image(&volume(), &tree));
    assert_eq!(back.entries(), tree.entries());
    for (path, node) in tree.iter() {
        let mut expected = tree.inode(path).unwrap_or(node).clone();
        if let Kind::Symlink(text) = &mut expected.kind {
            *text = text.strip_suffix(b"/").unwrap_or(text).to_vec();
        }
        assert_eq!(back.get(path), Some(&expected), "{:?}", crate::tree::show(path));
    }
}

#[test]
fn the_same_tree_gives_the_same_bytes_and_its_size() {
    let bytes = image(&volume(), &sample());
    assert!(bytes == image(&volume(), &sample()));
    let found = read(&mut Cursor::new(&bytes)).unwrap();
    assert_eq!((found.id.as_str(), found.size), ("EVEISO", Bytes(bytes.len() as u64)));
    assert_eq!(found.boot, None);
}

#[test]
fn what_boots_and_what_is_a_partition_is_found_in_place() {
    let mut tree = sample();
    let efi = vec![3; 300_000];
    tree.insert("efi.img", Node { meta: meta(0o644, 0), kind: file(&efi) }).unwrap();
    tree.insert("config.img", Node { meta: meta(0o644, 0), kind: file(&[5; 9000]) }).unwrap();
    let part = |path: &str, role: Role| Part {
        path: path.into(),
        number: role.number(),
        partition: role.partition(),
    };
    let volume = Volume {
        boot: Some(b"efi.img".to_vec()),
        parts: vec![part("efi.img", Role::Esp), part("config.img", Role::Config)],
        hidden: BTreeSet::from([b"efi.img".to_vec()]),
        ..volume()
    };
    let bytes = image(&volume, &tree);
    let found = read(&mut Cursor::new(&bytes)).unwrap();
    let table = crate::gpt::Gpt::parse(&bytes, Bytes(bytes.len() as u64)).unwrap();
    let slice = |at: u64, length: u64| {
        let [from, to] = [at, at + length].map(|n| usize::try_from(n).unwrap());
        &bytes[from..to]
    };
    let (at, length) = found.boot.unwrap();
    assert_eq!(length, Some(Bytes(efi.len().next_multiple_of(512) as u64)));
    assert!(slice(at, 300_000) == efi);
    assert_eq!(Role::Esp.find(&table).unwrap().1.offset().0, at);
    let config = Role::Config.find(&table).unwrap().1;
    let place = &found.tree.file(b"config.img").unwrap().at;
    assert_eq!(place[0], config.offset().0..config.offset().0 + 9000);
    assert!(config.offset().0.is_multiple_of(1 << 20));
    assert_eq!(found.tree.get(b"efi.img"), None, "it is hidden");
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let tree = sample();
    let out = |volume: &Volume| write(volume, &tree, &InPlace, std::io::sink());
    for id in ["", "eve", "A B", &"A".repeat(33)] {
        let refused = out(&Volume { id: id.into(), ..volume() });
        assert!(matches!(refused, Err(WriteError::Id(_))), "{id}");
    }
    let refused = out(&Volume { boot: Some(b"boot".to_vec()), ..volume() });
    assert!(matches!(refused, Err(WriteError::Missing(path)) if path == b"boot"));
    let mut short = Tree::new();
    let content = Content { size: Bytes(9), digest: None, at: b"eight..".to_vec() };
    short.insert("x", Node { meta: meta(0, 0), kind: Kind::File(content) }).unwrap();
    let refused = write(&volume(), &short, &InPlace, std::io::sink());
    assert!(matches!(refused, Err(WriteError::Read { path, .. }) if path == b"x"));
}

#[test]
fn cut_and_flipped_images_never_panic() {
    let mut bytes = image(&volume(), &sample());
    for length in [0, 100, 32_768, 34_816, 40_000, 60_000] {
        assert!(read(&mut Cursor::new(&bytes[..length])).is_err(), "{length}");
    }
    let folders = 20 * 2048..22 * 2048;
    for at in (16 * 2048..16 * 2048 + 200).chain(folders).step_by(17) {
        bytes[at] ^= 0xFF;
        let _ = read(&mut Cursor::new(&bytes));
        bytes[at] ^= 0xFF;
    }
}

#[test]
fn dates_go_there_and_back() {
    for time in [0, 951_782_400, 1_709_164_799, -86_400, 1_700_000_001, 5_869_583_999] {
        assert_eq!(Date::parse(Date::of(time).short()), Some(time));
    }
    assert_eq!(&Date::of(951_826_554).long(), b"2000022912155400\0");
    assert_eq!(Date::parse([100, 2, 29, 14, 15, 54, 8]), Some(951_826_554), "two hours east");
}
