//! Any tree at all as a squashfs: what our reader gives back, how many threads show, and what
//! unsquashfs lists and extracts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use formats::squashfs::Method;
use formats::tree::{Kind, Meta, Node, Tree, show};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{TestCaseError, TestRunner};

use crate::squashfs::{file, image, lines, lines_of, options, read_back, save, settled};
use crate::tools::tool;

#[derive(Debug, Clone)]
struct Item {
    path: Vec<u8>,
    meta: Meta,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Folder,
    File(Vec<Piece>),
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
    /// Another name of what was named by this item, modulo the number of items before.
    Same(usize),
}

/// A part of a file.
#[derive(Debug, Clone)]
struct Piece {
    /// Its length: blocks, and bytes more or less.
    blocks: usize,
    bytes: isize,
    fill: Fill,
}

#[derive(Debug, Clone, Copy)]
enum Fill {
    Zeroes,
    Text,
    /// What cannot be packed; few seeds, so that blocks come twice.
    Noise(u64),
}

impl Piece {
    fn bytes(&self, block: usize) -> Vec<u8> {
        let length = (self.blocks * block).saturating_add_signed(self.bytes);
        match self.fill {
            Fill::Zeroes => vec![0; length],
            Fill::Text => b"all work and no play ".iter().copied().cycle().take(length).collect(),
            Fill::Noise(seed) => {
                let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                let mut bytes = Vec::with_capacity(length + 8);
                while bytes.len() < length {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    bytes.extend(state.to_le_bytes());
                }
                bytes.truncate(length);
                bytes
            }
        }
    }
}

/// Few names, so that paths meet; among them long ones, odd bytes, and what sorts around a slash.
fn path() -> impl Strategy<Value = Vec<u8>> {
    let names = vec![
        b"a".to_vec(),
        b"b".to_vec(),
        b"a.b".to_vec(),
        b"a b".to_vec(),
        b"-".to_vec(),
        b"\xff\xfe\t\"'".to_vec(),
        "größer".into(),
        vec![b'n'; 255],
        vec![b'n'; 254],
        [vec![b'n'; 254], b"o".to_vec()].concat(),
    ];
    prop_oneof![
        3 => vec(select(names), 1..4).prop_map(|parts| parts.join(&b'/')),
        2 => (0u16..400).prop_map(|n| format!("many/{n}").into_bytes()),
    ]
}

fn xattrs() -> impl Strategy<Value = BTreeMap<Vec<u8>, Vec<u8>>> {
    let names = vec!["user.note", "user.other", "trusted.x", "trusted.a long name", "security.z"];
    let value = prop_oneof![
        vec(any::<u8>(), 0..40),
        // Large ones that several nodes have stand once.
        select(vec![300usize, 900]).prop_map(|n| vec![b'v'; n]),
    ];
    let some = btree_map(select(names).prop_map(|n| n.as_bytes().to_vec()), value, 1..4);
    prop_oneof![4 => Just(BTreeMap::new()), 1 => some]
}

fn meta() -> impl Strategy<Value = Meta> {
    let time = prop_oneof![Just(0), Just(i64::from(u32::MAX)), 0..=i64::from(u32::MAX)];
    let owner = || prop_oneof![Just(0), 0u32..50, Just(u32::MAX - 1), any::<u32>()];
    (0u16..=0o7777, owner(), owner(), time, xattrs()).prop_map(|(mode, uid, gid, mtime, xattrs)| {
        // The kernel takes the greatest owner for none.
        Meta { mode, uid: uid.min(u32::MAX - 1), gid: gid.min(u32::MAX - 1), mtime, xattrs }
    })
}

fn what() -> impl Strategy<Value = What> {
    let fill = prop_oneof![Just(Fill::Zeroes), Just(Fill::Text), (0u64..3).prop_map(Fill::Noise)];
    let piece = (0usize..3, select(vec![-1isize, 0, 1, 13, 4097]), fill)
        .prop_map(|(blocks, bytes, fill)| Piece { blocks, bytes, fill });
    let link = prop_oneof![Just(b"../x\xff".to_vec()), Just(vec![b'l'; 3000])];
    prop_oneof![
        2 => Just(What::Folder),
        8 => vec(piece, 0..3).prop_map(What::File),
        1 => link.prop_map(What::Symlink),
        1 => (0u32..4096, 0u32..1 << 20).prop_map(|(a, b)| What::Char(a, b)),
        1 => (0u32..4096, 0u32..1 << 20).prop_map(|(a, b)| What::Block(a, b)),
        1 => Just(What::Fifo),
        1 => Just(What::Socket),
        2 => any::<usize>().prop_map(What::Same),
    ]
}

fn items(most: usize) -> impl Strategy<Value = Vec<Item>> {
    let item = (path(), meta(), what()).prop_map(|(path, meta, what)| Item { path, meta, what });
    vec(item, 0..=most)
}

/// The tree of the items that go together.
fn tree(items: &[Item], block: usize) -> Tree<Vec<u8>> {
    let mut tree = Tree::new();
    for (at, item) in items.iter().enumerate() {
        let kind = match &item.what {
            What::Folder => Kind::Folder,
            What::File(pieces) => {
                file(pieces.iter().flat_map(|p| p.bytes(block)).collect::<Vec<u8>>())
            }
            What::Symlink(to) => Kind::Symlink(to.clone()),
            What::Char(major, minor) => Kind::Char { major: *major, minor: *minor },
            What::Block(major, minor) => Kind::Block { major: *major, minor: *minor },
            What::Fifo => Kind::Fifo,
            What::Socket => Kind::Socket,
            What::Same(which) => match items[..at].get(which % at.max(1)) {
                Some(other) => Kind::Same(other.path.clone()),
                None => continue,
            },
        };
        let mut meta = item.meta.clone();
        if matches!(kind, Kind::Symlink(_)) {
            meta.mode = 0o777; // Linux knows no other
        }
        // Linux gives what is neither a file nor a folder no attributes of users.
        if !matches!(kind, Kind::File(_) | Kind::Folder) {
            meta.xattrs.retain(|name, _| !name.starts_with(b"user."));
        }
        // What lies below a file, or links to a folder, is refused: then the tree goes without it.
        let _ = tree.insert(item.path.clone(), Node { meta, kind });
    }
    settled(tree)
}

/// What unsquashfs lists: kind, owner and path of everything, and nothing else.
fn listed(tree: &Tree<Vec<u8>>, said: &str) -> Result<(), TestCaseError> {
    let rows: Vec<&str> = said.lines().filter(|line| line.contains("squashfs-root")).collect();
    prop_assert_eq!(rows.len(), tree.entries());
    for (path, _) in tree.iter() {
        let Some(node) = tree.inode(path) else { return Err(TestCaseError::fail("no inode")) };
        let first = match node.kind {
            Kind::Folder => 'd',
            Kind::Symlink(_) => 'l',
            Kind::Char { .. } => 'c',
            Kind::Block { .. } => 'b',
            Kind::Fifo => 'p',
            Kind::Socket => 's',
            Kind::File(_) | Kind::Same(_) => '-',
        };
        let owner = format!("{}/{}", node.meta.uid, node.meta.gid);
        let name = format!(" squashfs-root/{}", show(path));
        let (plain, link) = (name.trim_end_matches('/'), format!("{name} -> "));
        let found = rows.iter().any(|row| {
            let named = row.ends_with(plain) || row.contains(&link);
            named && row.starts_with(first) && row.split_whitespace().nth(1) == Some(&owner)
        });
        prop_assert!(found, "{name} {first} {owner} is not in\n{said}");
    }
    Ok(())
}

/// What unsquashfs extracts, attributes included.
fn extracted(tree: &Tree<Vec<u8>>, out: &Path) -> Result<(), TestCaseError> {
    let (ours, theirs) = (lines(tree), lines_of(out));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        prop_assert_eq!(ours, theirs);
    }
    prop_assert_eq!(ours.len(), theirs.len());
    let getfattr = ["-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", "."];
    let said = tool("getfattr", "attr", out, &getfattr);
    let mut found = BTreeMap::new();
    for block in said.split("\n\n").filter(|b| !b.trim().is_empty()) {
        let mut rows = block.trim().lines();
        let path = rows.next().unwrap_or_default().trim_start_matches("# file: ").to_owned();
        let mut rows: Vec<String> = rows.map(str::to_owned).collect();
        rows.sort();
        found.insert(path, rows);
    }
    let mut want = BTreeMap::new();
    for (path, _) in tree.iter() {
        let xattrs = tree.inode(path).map(|node| &node.meta.xattrs);
        let Some(xattrs) = xattrs.filter(|x| !x.is_empty()) else { continue };
        let row = |(name, value): (&Vec<u8>, &Vec<u8>)| {
            let hex: String = value.iter().map(|b| format!("{b:02x}")).collect();
            format!("{}=0x{hex}", show(name))
        };
        let mut rows: Vec<String> = xattrs.iter().map(row).collect();
        rows.sort();
        let name = if path.is_empty() { ".".to_owned() } else { show(path).into_owned() };
        want.insert(name, rows);
    }
    prop_assert_eq!(found, want);
    Ok(())
}

fn check(items: &[Item], method: Method, block: usize) -> Result<(), TestCaseError> {
    let tree = tree(items, block);
    let alone = image(&tree, &options(method, block as u64, 1)).0;
    for threads in [2, 5] {
        let many = image(&tree, &options(method, block as u64, threads)).0;
        prop_assert!(many == alone, "{threads} threads show");
    }
    let back = read_back(alone.clone());
    prop_assert!(back == tree, "{:#?}\nfor\n{:#?}", lines(&back), lines(&tree));
    let dir = tempfile::tempdir()?;
    save(dir.path().join("image"), alone);
    let tool = |args: &[&str]| tool("unsquashfs", "squashfs-tools", dir.path(), args);
    listed(&tree, &tool(&["-lln", "-UTC", "image"]))?;
    if fs::metadata(dir.path())?.uid() != 0 {
        println!("skipped: only root extracts owners and devices");
        return Ok(());
    }
    tool(&["-q", "-n", "-d", "out", "image"]);
    extracted(&tree, &dir.path().join("out"))
}

/// Trees for each codec, of so many items at most: large files take their time.
fn trees(block: usize, cases: u32, most: usize) {
    for method in [Method::Gzip(6), Method::Xz, Method::Zstd(3)] {
        let config = ProptestConfig {
            cases,
            max_shrink_iters: 100,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let run = TestRunner::new(config).run(&items(most), |items| check(&items, method, block));
        run.unwrap_or_else(|error| panic!("{method:?}, blocks of {block}: {error}"));
    }
}

#[test]
fn any_tree_is_read_back_and_extracted_in_small_blocks() {
    trees(4096, 15, 40);
}

#[test]
fn any_tree_is_read_back_and_extracted_in_usual_blocks() {
    trees(131_072, 6, 20);
}

#[test]
fn any_tree_is_read_back_and_extracted_in_large_blocks() {
    trees(1 << 20, 3, 5);
}
