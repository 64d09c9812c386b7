//! Folders: which there are, in which order, what their records are called.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{self, Overflow};
use super::{Date, FOLDER, MORE, RECORD, SECTOR, SECTOR_LENGTH, both16, both32};
use crate::tree::{self, Kind, Meta, Node, Tree};

/// Bytes of a file that one record can tell of: whole sectors in 32 bits.
const EXTENT_MAX: u64 = u32::MAX as u64 / SECTOR * SECTOR;
/// Characters of a plain name: those of a folder, and those of a file without the dot.
const FOLDER_NAME: usize = 31;
const FILE_NAME: usize = 30;
const EXTENSION: usize = 8;

/// A folder of the image.
pub(super) struct Folder<'a, C> {
    pub(super) path: &'a [u8],
    /// Its number in the list; the root is its own.
    pub(super) parent: usize,
    pub(super) plain: Plain,
    meta: &'a Meta,
    children: Vec<Child<'a, C>>,
}

struct Child<'a, C> {
    name: &'a [u8],
    plain: Plain,
    path: &'a [u8],
    node: &'a Node<C>,
}

/// A name, its path and what stands there.
type Named<'a, C> = (&'a [u8], &'a [u8], &'a Node<C>);

/// A name for those who know nothing else: capital letters, digits and `_`, made unlike all others
/// in its folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Plain {
    base: Vec<u8>,
    /// `None`: a folder.
    extension: Option<Vec<u8>>,
}

/// Where things lie, in sectors.
#[derive(Default)]
pub(super) struct Places<'a> {
    /// By number of the folder: its first sector, and its length in bytes.
    pub(super) folders: Vec<(u32, u32)>,
    /// By path of the file: its first sector.
    pub(super) files: BTreeMap<&'a [u8], u32>,
}

/// All folders of a tree.
pub(super) struct Listing<'a, C> {
    tree: &'a Tree<C>,
    /// Those nearer to the root first, then in the order of their parents, then of their plain
    /// names: as the path table wants them.
    pub(super) folders: Vec<Folder<'a, C>>,
    /// Their numbers, by path.
    index: BTreeMap<&'a [u8], usize>,
    /// Numbers of all nodes, by path: hard links have that of what they link to.
    serials: BTreeMap<&'a [u8], u32>,
}

impl<'a, C> Listing<'a, C> {
    /// Paths in `hidden` are left out.
    pub(super) fn of(tree: &'a Tree<C>, hidden: &BTreeSet<Vec<u8>>) -> Listing<'a, C> {
        let mut children: BTreeMap<&[u8], Vec<Named<'_, C>>> = BTreeMap::new();
        for (path, node) in tree.iter().filter(|(path, _)| !hidden.contains(*path)) {
            if let Some((parent, name)) = tree::split(path) {
                children.entry(parent).or_default().push((name, path, node));
            }
        }
        let plain = Plain { base: vec![0], extension: None };
        let root = Folder { parent: 0, plain, meta: tree.root(), path: &[], children: Vec::new() };
        let mut folders = vec![root];
        let mut next = 0;
        while next < folders.len() {
            let mut taken = BTreeSet::new();
            let mut inside: Vec<Child<'a, C>> = Vec::new();
            for (name, path, node) in children.remove(folders[next].path).unwrap_or_default() {
                let plain = Plain::of(name, matches!(node.kind, Kind::Folder), &mut taken);
                inside.push(Child { name, plain, path, node });
            }
            inside.sort_by(|a, b| a.plain.cmp(&b.plain));
            for child in inside.iter().filter(|c| matches!(c.node.kind, Kind::Folder)) {
                let (path, plain, meta) = (child.path, child.plain.clone(), &child.node.meta);
                folders.push(Folder { path, parent: next, plain, meta, children: Vec::new() });
            }
            folders[next].children = inside;
            next += 1;
        }
        let index = folders.iter().enumerate().map(|(number, f)| (f.path, number)).collect();
        let serials = tree.iter().zip(1..).map(|((path, _), serial)| (path, serial)).collect();
        Listing { tree, folders, index, serials }
    }

    /// The records of a folder, in whole sectors.
    pub(super) fn records(
        &self,
        number: usize,
        places: &Places<'_>,
        overflow: &mut Overflow,
    ) -> Vec<u8> {
        let folder = &self.folders[number];
        let [begins, extension] = entry::of_root();
        let mut out = Vec::new();
        for (id, of) in [(0u8, number), (1, folder.parent)] {
            let target = &self.folders[of];
            let (at, length) = places.folder(of);
            let mut entries = self.entries(&Kind::Folder, target.meta, target.path);
            if (number, id) == (0, 0) {
                entries.insert(0, begins.clone());
                entries.push(extension.clone());
            }
            let time = target.meta.mtime;
            let record = Record { id: &[id], at, length, time, flags: FOLDER };
            push(&mut out, &record.bytes(&entries, overflow));
        }
        for child in &folder.children {
            self.child(child, places, overflow, &mut out);
        }
        out.resize(out.len().next_multiple_of(SECTOR_LENGTH), 0);
        out
    }

    fn child(
        &self,
        child: &Child<'_, C>,
        places: &Places<'_>,
        overflow: &mut Overflow,
        out: &mut Vec<u8>,
    ) {
        let (path, node) = match &child.node.kind {
            Kind::Same(target) => (&target[..], self.tree.get(target).unwrap_or(child.node)),
            _ => (child.path, child.node),
        };
        let mut entries = entry::name(child.name);
        entries.extend(self.entries(&node.kind, &node.meta, path));
        let id = child.plain.id();
        let mut record = Record { id: &id, at: 0, length: 0, time: node.meta.mtime, flags: 0 };
        match &node.kind {
            Kind::Folder => {
                let number = self.index.get(path).copied().unwrap_or(0);
                (record.at, record.length) = places.folder(number);
                record.flags = FOLDER;
            }
            Kind::File(content) => {
                record.at = places.files.get(path).copied().unwrap_or(0);
                let mut rest = content.size.0;
                while rest > EXTENT_MAX {
                    (record.length, record.flags) = (small(EXTENT_MAX), MORE);
                    push(out, &record.bytes(&entries, overflow));
                    record.at = record.at.saturating_add(small(EXTENT_MAX / SECTOR));
                    rest -= EXTENT_MAX;
                }
                (record.length, record.flags) = (small(rest), 0);
            }
            _ => {}
        }
        push(out, &record.bytes(&entries, overflow));
    }

    fn entries(&self, kind: &Kind<C>, meta: &Meta, path: &[u8]) -> Vec<Vec<u8>> {
        let links = match kind {
            Kind::Folder => {
                let number = self.index.get(path).copied().unwrap_or(0);
                let inside = self.folders[number].children.iter();
                2 + inside.filter(|c| matches!(c.node.kind, Kind::Folder)).count()
            }
            _ => 1 + self.tree.links_to(path).count(),
        };
        let serial = self.serials.get(path).copied().unwrap_or(0);
        entry::of_node(kind, meta, small(links as u64), serial)
    }
}

impl Places<'_> {
    /// Zeroes while places are still open: they change no length.
    fn folder(&self, number: usize) -> (u32, u32) {
        self.folders.get(number).copied().unwrap_or_default()
    }
}

/// The record of the root that the primary descriptor has.
pub(super) fn root_record(at: u32, length: u32, time: i64) -> Vec<u8> {
    let record = Record { id: &[0], at, length, time, flags: FOLDER };
    record.bytes(&[], &mut Overflow { at: 0, bytes: Vec::new() })
}

impl Plain {
    fn of(name: &[u8], folder: bool, taken: &mut BTreeSet<Plain>) -> Plain {
        let clean = |part: &[u8], max: usize| -> Vec<u8> {
            let plain = |b: &u8| b.is_ascii_alphanumeric().then(|| b.to_ascii_uppercase());
            part.iter().take(max).map(|b| plain(b).unwrap_or(b'_')).collect()
        };
        let dot = name.iter().rposition(|b| *b == b'.').filter(|at| *at > 0 && !folder);
        let (base, extension) = dot.map_or((name, &[][..]), |at| (&name[..at], &name[at + 1..]));
        let extension = (!folder).then(|| clean(extension, EXTENSION));
        let max = if folder { FOLDER_NAME } else { FILE_NAME };
        let max = max - extension.as_ref().map_or(0, Vec::len);
        let mut plain = Plain { base: clean(base, max), extension };
        let mut number = 0;
        while !taken.insert(plain.clone()) {
            number += 1;
            let tail = format!("_{number}");
            let mut base = clean(base, max - tail.len());
            base.extend(tail.as_bytes());
            plain.base = base;
        }
        plain
    }

    /// As a record has it.
    pub(super) fn id(&self) -> Vec<u8> {
        match &self.extension {
            None => self.base.clone(),
            Some(extension) => [&self.base[..], b".", extension, b";1"].concat(),
        }
    }
}

struct Record<'a> {
    id: &'a [u8],
    at: u32,
    length: u32,
    time: i64,
    flags: u8,
}

impl Record<'_> {
    fn bytes(&self, entries: &[Vec<u8>], overflow: &mut Overflow) -> Vec<u8> {
        let plain = (RECORD + self.id.len()).next_multiple_of(2);
        let entries = entry::fit(entries, 254 - plain, overflow);
        let length = (plain + entries.len()).next_multiple_of(2);
        let mut bytes = vec![u8::try_from(length).unwrap_or(0), 0];
        bytes.extend(both32(self.at));
        bytes.extend(both32(self.length));
        bytes.extend(Date::of(self.time).short());
        bytes.extend([self.flags, 0, 0]);
        bytes.extend(both16(1));
        bytes.push(u8::try_from(self.id.len()).unwrap_or(0));
        bytes.extend(self.id);
        bytes.resize(plain, 0);
        bytes.extend(entries);
        bytes.resize(length, 0);
        bytes
    }
}

fn small(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Adds a record; none crosses into another sector.
fn push(out: &mut Vec<u8>, record: &[u8]) {
    if out.len() % SECTOR_LENGTH + record.len() > SECTOR_LENGTH {
        out.resize(out.len().next_multiple_of(SECTOR_LENGTH), 0);
    }
    out.extend(record);
}
