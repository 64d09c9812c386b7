//! Inodes and folders as bytes.
//!
//! Inodes of files, links and so on come first, in the order of the tree; then the folders, the
//! innermost first, because a folder's entries say where the inodes of its members are. Numbers
//! follow the order of the tree, the root having 1.

use std::collections::HashMap;

use super::data::Placed;
use super::meta::{Place, Stream, Table};
use super::number::{self, META, NOWHERE};
use super::pack::{PackError, Packer};
use super::write::WriteError;
use super::xattr::Xattrs;
use crate::tree::{self, Kind, Meta, Node, Tree};

/// Where runs of entries start: in the folder, in the table, with which name.
type Runs<'m> = Vec<(u32, u32, &'m [u8])>;

/// Entries behind one header: readers take no more.
const RUN_MAX: usize = 256;
/// The most owners and groups: their number stands in 16 bits.
const IDS_MAX: usize = 65_535;
/// The longest target of a symbolic link: Linux's `PATH_MAX`.
const TARGET_MAX: usize = 4095;
/// Readers expect the length of a folder to be that much longer than it is.
const LENGTH_EXTRA: usize = 3;

/// All metadata but the tables at the end.
#[derive(Debug)]
pub(super) struct Inodes<'t> {
    pub inodes: Table,
    pub folders: Table,
    /// Where the inode of the root is.
    pub root: u64,
    /// Where each inode is, in the order of their numbers.
    pub places: Vec<u64>,
    /// Owners and groups by number.
    pub ids: Vec<u32>,
    pub xattrs: Xattrs<'t>,
}

/// Makes the metadata of a tree. `placed` tells where content is, in the order of the tree's files.
pub(super) fn build<'t, C>(
    tree: &'t Tree<C>,
    placed: &[&Placed],
    packer: &mut Packer,
) -> Result<Inodes<'t>, WriteError> {
    let nodes: Vec<(&[u8], &Node<C>)> =
        tree.iter().filter(|(_, node)| !matches!(node.kind, Kind::Same(_))).collect();
    let members = members(tree, &nodes)?;
    let mut out = Writer {
        inodes: Stream::default(),
        folders: Stream::default(),
        places: vec![Place::default(); nodes.len()],
        ids: Ids::default(),
        xattrs: Xattrs::default(),
        packer,
    };
    let mut placed = placed.iter();
    for (at, (path, node)) in nodes.iter().enumerate() {
        if matches!(node.kind, Kind::Folder) {
            continue;
        }
        let content = match node.kind {
            Kind::File(_) => placed.next().copied(),
            _ => None,
        };
        let links = 1 + tree.links_to(path).count();
        let bytes = out.single(at, path, node, content, word(links)?)?;
        out.place(at, &bytes)?;
    }
    let parents = parents(&nodes, &members);
    for (at, (path, node)) in nodes.iter().enumerate().rev() {
        if let Some(members) = members.get(&at) {
            let bytes = out.folder(at, path, &node.meta, members, parents[at])?;
            out.place(at, &bytes)?;
        }
    }
    Ok(Inodes {
        root: out.places[0].reference(),
        places: out.places.iter().map(|place| place.reference()).collect(),
        inodes: out.inodes.finish(out.packer)?,
        folders: out.folders.finish(out.packer)?,
        ids: out.ids.all,
        xattrs: out.xattrs,
    })
}

/// An entry of a folder.
struct Member<'t> {
    name: &'t [u8],
    /// Which node.
    node: usize,
    kind: u16,
}

/// For each folder what is in it, in the order of names.
fn members<'t, C>(
    tree: &'t Tree<C>,
    nodes: &[(&'t [u8], &'t Node<C>)],
) -> Result<HashMap<usize, Vec<Member<'t>>>, WriteError> {
    let find = |path: &[u8]| nodes.binary_search_by(|(p, _)| (*p).cmp(path)).ok();
    let folders = nodes.iter().enumerate();
    let mut members: HashMap<usize, Vec<Member<'t>>> = folders
        .filter(|(_, (_, node))| matches!(node.kind, Kind::Folder))
        .map(|(at, _)| (at, Vec::new()))
        .collect();
    for (path, node) in tree.iter() {
        let Some((parent, name)) = tree::split(path) else { continue };
        let real = match &node.kind {
            Kind::Same(target) => target.as_slice(),
            _ => path,
        };
        let lost = || WriteError::node(path, "leads nowhere".to_owned());
        let at = find(real).ok_or_else(lost)?;
        let folder = find(parent).and_then(|at| members.get_mut(&at)).ok_or_else(lost)?;
        folder.push(Member { name, node: at, kind: kind_of(&nodes[at].1.kind) });
    }
    Ok(members)
}

/// For each folder the number of the one it is in; that of the root is the one behind the last.
fn parents<C>(
    nodes: &[(&[u8], &Node<C>)],
    members: &HashMap<usize, Vec<Member<'_>>>,
) -> Vec<usize> {
    let mut parents = vec![nodes.len(); nodes.len()];
    for (folder, members) in members {
        members.iter().filter(|m| m.kind == number::FOLDER).for_each(|m| parents[m.node] = *folder);
    }
    parents
}

fn kind_of<C>(of: &Kind<C>) -> u16 {
    match of {
        Kind::Folder => number::FOLDER,
        Kind::File(_) | Kind::Same(_) => number::FILE,
        Kind::Symlink(_) => number::SYMLINK,
        Kind::Block { .. } => number::BLOCK,
        Kind::Char { .. } => number::CHAR,
        Kind::Fifo => number::FIFO,
        Kind::Socket => number::SOCKET,
    }
}

struct Writer<'t, 'p> {
    inodes: Stream,
    folders: Stream,
    places: Vec<Place>,
    ids: Ids,
    xattrs: Xattrs<'t>,
    packer: &'p mut Packer,
}

impl<'t> Writer<'t, '_> {
    fn place(&mut self, at: usize, bytes: &[u8]) -> Result<(), WriteError> {
        self.places[at] = self.inodes.place()?;
        Ok(self.inodes.push(bytes, self.packer)?)
    }

    /// What all inodes start with.
    fn head(&mut self, kind: u16, at: usize, meta: &Meta) -> Result<Vec<u8>, WriteError> {
        let mut bytes = Vec::with_capacity(64);
        let (uid, gid) = (self.ids.number(meta.uid)?, self.ids.number(meta.gid)?);
        for half in [kind, meta.mode & 0o7777, uid, gid] {
            bytes.extend(half.to_le_bytes());
        }
        let mtime = u32::try_from(meta.mtime.max(0)).unwrap_or(u32::MAX);
        bytes.extend(mtime.to_le_bytes());
        bytes.extend(inode_number(at)?.to_le_bytes());
        Ok(bytes)
    }

    /// An inode of anything but a folder.
    fn single<C>(
        &mut self,
        at: usize,
        path: &[u8],
        node: &'t Node<C>,
        placed: Option<&Placed>,
        links: u32,
    ) -> Result<Vec<u8>, WriteError> {
        let xattr = self.xattrs.number(path, &node.meta)?;
        if let (Kind::File(content), Some(placed)) = (&node.kind, placed) {
            return self.file(at, &node.meta, (content.size.0, placed), links, xattr);
        }
        let more = if xattr.is_some() { number::MORE } else { 0 };
        let mut bytes = self.head(kind_of(&node.kind) + more, at, &node.meta)?;
        bytes.extend(links.to_le_bytes());
        match &node.kind {
            Kind::Symlink(target) => {
                if target.is_empty() || target.len() > TARGET_MAX {
                    let what = format!("is a symbolic link of {} bytes", target.len());
                    return Err(WriteError::node(path, what));
                }
                bytes.extend(word(target.len())?.to_le_bytes());
                bytes.extend_from_slice(target);
            }
            Kind::Char { major, minor } | Kind::Block { major, minor } => {
                bytes.extend(device(path, *major, *minor)?.to_le_bytes());
            }
            Kind::Folder | Kind::File(_) | Kind::Same(_) | Kind::Fifo | Kind::Socket => {}
        }
        bytes.extend(xattr.iter().flat_map(|xattr| xattr.to_le_bytes()));
        Ok(bytes)
    }

    fn file(
        &mut self,
        at: usize,
        meta: &Meta,
        (size, placed): (u64, &Placed),
        links: u32,
        xattr: Option<u32>,
    ) -> Result<Vec<u8>, WriteError> {
        let (fragment, offset) = placed.fragment.unwrap_or((NOWHERE, 0));
        let small = u32::try_from(placed.start).ok().zip(u32::try_from(size).ok());
        let plain = links == 1 && xattr.is_none() && placed.holes == 0;
        let mut bytes;
        if let Some((start, size)) = small.filter(|_| plain) {
            bytes = self.head(number::FILE, at, meta)?;
            for word in [start, fragment, offset, size] {
                bytes.extend(word.to_le_bytes());
            }
        } else {
            bytes = self.head(number::FILE + number::MORE, at, meta)?;
            for long in [placed.start, size, placed.holes] {
                bytes.extend(long.to_le_bytes());
            }
            for word in [links, fragment, offset, xattr.unwrap_or(NOWHERE)] {
                bytes.extend(word.to_le_bytes());
            }
        }
        bytes.extend(placed.sizes.iter().flat_map(|size| size.to_le_bytes()));
        Ok(bytes)
    }

    /// Writes the entries of a folder; the folder's inode.
    fn folder(
        &mut self,
        at: usize,
        path: &[u8],
        meta: &'t Meta,
        members: &[Member<'_>],
        parent: usize,
    ) -> Result<Vec<u8>, WriteError> {
        let xattr = self.xattrs.number(path, meta)?;
        let start = self.folders.place()?;
        let (length, index) = self.entries(members)?;
        let length = length + LENGTH_EXTRA;
        let links = 2 + members.iter().filter(|m| m.kind == number::FOLDER).count();
        let (links, parent) = (word(links)?, inode_number(parent)?);
        let short = u16::try_from(length).ok();
        if let Some(length) = short.filter(|_| xattr.is_none() && index.is_empty()) {
            let mut bytes = self.head(number::FOLDER, at, meta)?;
            bytes.extend(start.block.to_le_bytes());
            bytes.extend(links.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend(start.offset.to_le_bytes());
            bytes.extend(parent.to_le_bytes());
            return Ok(bytes);
        }
        let mut bytes = self.head(number::FOLDER + number::MORE, at, meta)?;
        for word in [links, word(length)?, start.block, parent] {
            bytes.extend(word.to_le_bytes());
        }
        let count = u16::try_from(index.len()).map_err(|_| PackError::Metadata)?;
        bytes.extend(count.to_le_bytes());
        bytes.extend(start.offset.to_le_bytes());
        bytes.extend(xattr.unwrap_or(NOWHERE).to_le_bytes());
        for (at, block, name) in index {
            for word in [at, block, word(name.len())? - 1] {
                bytes.extend(word.to_le_bytes());
            }
            bytes.extend_from_slice(name);
        }
        Ok(bytes)
    }

    /// Writes entries in runs that share a header; their length, and for every 8 KiB of them where
    /// a run starts: in the folder, in the table, with which name.
    fn entries<'m>(&mut self, members: &[Member<'m>]) -> Result<(usize, Runs<'m>), WriteError> {
        let (mut length, mut indexed, mut index) = (0, 0, Vec::new());
        let mut left = members;
        while let Some(first) = left.first() {
            let base = self.places[first.node];
            if length > 0 && length - indexed >= META / 2 + META / 4 {
                index.push((word(length)?, self.folders.place()?.block, first.name));
                indexed = length;
            }
            let mut entries = Vec::new();
            let mut count: u32 = 0;
            for member in left.iter().take(RUN_MAX) {
                let place = self.places[member.node];
                let away = i16::try_from(member.node as i64 - first.node as i64);
                let Some(away) = away.ok().filter(|_| place.block == base.block) else { break };
                // The next run would start too late for the index.
                if count > 0 && length - indexed + entries.len() >= META - 300 {
                    break;
                }
                let name_length = half(member.name.len())? - 1;
                entries.extend(place.offset.to_le_bytes());
                entries.extend(away.to_le_bytes());
                entries.extend(member.kind.to_le_bytes());
                entries.extend(name_length.to_le_bytes());
                entries.extend_from_slice(member.name);
                count += 1;
            }
            for word in [count - 1, base.block, inode_number(first.node)?] {
                self.folders.push(&word.to_le_bytes(), self.packer)?;
            }
            self.folders.push(&entries, self.packer)?;
            length += 12 + entries.len();
            left = &left[usize::try_from(count).unwrap_or(left.len())..];
        }
        Ok((length, index))
    }
}

/// Owners and groups, numbered as they come.
#[derive(Default)]
struct Ids {
    all: Vec<u32>,
    known: HashMap<u32, u16>,
}

impl Ids {
    fn number(&mut self, id: u32) -> Result<u16, WriteError> {
        if let Some(number) = self.known.get(&id) {
            return Ok(*number);
        }
        if self.all.len() >= IDS_MAX {
            return Err(WriteError::Ids);
        }
        let number = half(self.all.len())?;
        self.all.push(id);
        self.known.insert(id, number);
        Ok(number)
    }
}

/// The number of a node's inode.
fn inode_number(at: usize) -> Result<u32, PackError> {
    word(at + 1)
}

/// Device numbers as Linux packs them into 32 bits: 12 of the major, 20 of the minor number.
fn device(path: &[u8], major: u32, minor: u32) -> Result<u32, WriteError> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(WriteError::node(path, format!("has the device numbers {major}, {minor}")));
    }
    Ok(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

fn half(n: usize) -> Result<u16, PackError> {
    u16::try_from(n).map_err(|_| PackError::Metadata)
}

fn word(n: usize) -> Result<u32, PackError> {
    u32::try_from(n).map_err(|_| PackError::Metadata)
}
