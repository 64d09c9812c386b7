//! A file system tree as a value: each path once, contents as handles.
//!
//! It is what passes between those who read tars, layers, squashfs, FAT or ISO images and those who
//! write, compare or explain them. It holds no content: memory follows the number of files. What a
//! handle means is known to the [`Contents`] that come with the tree.
//!
//! Paths are bytes without a leading slash; the root is the empty path and always there. A tree is
//! always whole: the parents of a node are folders, and a hard link leads to a node that is neither
//! a folder nor a hard link.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Read};

use model::{Bytes, Digest};

mod extraction;
mod walk;

pub use extraction::Extraction;

/// More nodes than any root file system of ours will have.
pub const ENTRIES_MAX: usize = 4_000_000;
/// The longest name in bytes: `NAME_MAX` of Linux.
pub const NAME_MAX: usize = 255;
/// The longest path in bytes: `PATH_MAX` of Linux without the terminating zero.
pub const PATH_MAX: usize = 4095;

/// Files, folders and so on by path. `C` is the handle of a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree<C> {
    nodes: BTreeMap<Vec<u8>, Node<C>>,
    /// Who links to a node: each target with its hard links.
    links: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node<C> {
    /// Rights, owner, time. Of a hard link it means nothing: that of its target counts.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind<C>,
}

/// What every node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Permissions: 0 to 0o7777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change, in seconds since 1970.
    pub mtime: i64,
    /// Extended attributes: full name (`security.capability`) and value.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Kinds of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<C> {
    /// A folder.
    Folder,
    /// A regular file.
    File(Content<C>),
    /// A symbolic link to this text.
    Symlink(Vec<u8>),
    /// A hard link: another name of the node at this path.
    Same(Vec<u8>),
    /// A character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content<C> {
    /// How long it is.
    pub size: Bytes,
    /// SHA-256 of all of it. `None`: not known.
    pub digest: Option<Digest>,
    /// Where it is.
    pub at: C,
}

/// Those who know where content lies.
pub trait Contents<C>: Sync {
    /// Opens a content at its start. It ends after [`Content::size`] bytes or later; whoever gets
    /// fewer has found damage.
    fn open<'a>(&'a self, at: &C) -> io::Result<Box<dyn Read + 'a>>;
}

/// Contents that stand in the tree itself: for small trees and tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct InPlace;

impl Contents<Vec<u8>> for InPlace {
    fn open<'a>(&'a self, at: &Vec<u8>) -> io::Result<Box<dyn Read + 'a>> {
        Ok(Box::new(Cursor::new(at.clone())))
    }
}

/// Why a node cannot be at a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// An empty name, `.`, `..`, a zero byte, or too long.
    #[error("{:?} is no path", show(.0))]
    Path(Vec<u8>),
    /// A parent is there and is no folder.
    #[error("{:?} lies below {:?}, which is no folder", show(.path), show(.parent))]
    Below {
        /// The path.
        path: Vec<u8>,
        /// The parent.
        parent: Vec<u8>,
    },
    /// A folder with something in it would become something else.
    #[error("{:?} is no folder, but {:?} lies in it", show(.path), show(.inside))]
    NotEmpty {
        /// The path.
        path: Vec<u8>,
        /// The first path in it.
        inside: Vec<u8>,
    },
    /// The root can only be a folder.
    #[error("the root is a folder and nothing else")]
    Root,
    /// A hard link to nothing, a folder or itself.
    #[error("{:?} is a hard link to {:?}, which is no file", show(.path), show(.target))]
    Link {
        /// The path.
        path: Vec<u8>,
        /// What it links to.
        target: Vec<u8>,
    },
    /// More than [`ENTRIES_MAX`] nodes.
    #[error("{:?} is one too many: a tree has at most {} entries", show(.0), ENTRIES_MAX)]
    Full(Vec<u8>),
}

/// A path for a message.
pub fn show(path: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(path)
}

/// `./a//b/` as `a/b`. `None` if `..` is in it.
pub fn clean(raw: &[u8]) -> Option<Vec<u8>> {
    let parts = raw.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".");
    let parts: Vec<&[u8]> = parts.collect();
    (!parts.contains(&&b".."[..])).then(|| parts.join(&b'/'))
}

/// The folder that a path lies in, and its name there. `None` for the root.
pub fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    })
}

impl Default for Meta {
    /// Root's, mode 0755, at time 0.
    fn default() -> Meta {
        Meta { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() }
    }
}

impl<C> Node<C> {
    /// A folder with these.
    pub fn folder(meta: Meta) -> Node<C> {
        Node { meta, kind: Kind::Folder }
    }
}

impl<C> Default for Tree<C> {
    fn default() -> Tree<C> {
        Tree::new()
    }
}

impl<C> Tree<C> {
    /// A tree of nothing but the root.
    pub fn new() -> Tree<C> {
        let root = (Vec::new(), Node::folder(Meta::default()));
        Tree { nodes: BTreeMap::from([root]), links: BTreeMap::new() }
    }

    /// Puts a node at a path: what is put there last counts. Missing parents appear with mode 0755
    /// and the time of the node. What linked to a node that is replaced keeps the old one.
    pub fn insert(&mut self, path: impl Into<Vec<u8>>, node: Node<C>) -> Result<(), InsertError> {
        let path = path.into();
        if path.is_empty() {
            return match node.kind {
                Kind::Folder => {
                    self.nodes.insert(path, node);
                    Ok(())
                }
                _ => Err(InsertError::Root),
            };
        }
        self.check(&path, &node)?;
        let Some(node) = self.linked(&path, node)? else { return Ok(()) };
        self.make_parents(&path, node.meta.mtime);
        self.unlink(&path);
        if let Kind::Same(target) = &node.kind {
            self.links.entry(target.clone()).or_default().insert(path.clone());
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Takes away what is at a path and all below it; says whether there was something. Of the
    /// root, only what is below it. Hard links from elsewhere keep what they linked to.
    pub fn remove(&mut self, path: &[u8]) -> bool {
        let mut gone: Vec<Vec<u8>> = self.below(path).map(|(p, _)| p.to_vec()).collect();
        if !path.is_empty() && self.nodes.contains_key(path) {
            gone.push(path.to_vec());
        }
        for path in &gone {
            self.unlink(path);
            self.nodes.remove(path);
        }
        !gone.is_empty()
    }

    /// The tree without the paths that `leave_out` names and all below them.
    #[must_use]
    pub fn without(mut self, leave_out: impl Fn(&[u8]) -> bool) -> Tree<C> {
        let out: Vec<Vec<u8>> =
            self.iter().map(|(p, _)| p).filter(|p| leave_out(p)).map(<[u8]>::to_vec).collect();
        for path in out {
            self.remove(&path);
        }
        self
    }

    /// The same tree with other handles.
    pub fn map<D>(self, mut handle: impl FnMut(C) -> D) -> Tree<D> {
        let mut map = |kind| match kind {
            Kind::File(Content { size, digest, at }) => {
                Kind::File(Content { size, digest, at: handle(at) })
            }
            Kind::Folder => Kind::Folder,
            Kind::Symlink(to) => Kind::Symlink(to),
            Kind::Same(path) => Kind::Same(path),
            Kind::Char { major, minor } => Kind::Char { major, minor },
            Kind::Block { major, minor } => Kind::Block { major, minor },
            Kind::Fifo => Kind::Fifo,
            Kind::Socket => Kind::Socket,
        };
        let nodes = self.nodes.into_iter();
        let nodes = nodes.map(|(p, n)| (p, Node { meta: n.meta, kind: map(n.kind) })).collect();
        Tree { nodes, links: self.links }
    }

    /// Makes the first path of a node with several names its place, the others links to it.
    pub fn settle_links(&mut self) {
        let moves = self.links.iter().filter_map(|(target, links)| {
            Some((links.first()?, target)).filter(|(first, target)| first < target)
        });
        let moves: Vec<_> = moves.map(|(a, b)| (a.clone(), b.clone())).collect();
        for (first, target) in moves {
            // Its heir is the first of its links.
            self.unlink(&target);
            let meta = Meta::default();
            let same = Node { meta, kind: Kind::Same(first.clone()) };
            self.nodes.insert(target.clone(), same);
            self.links.entry(first).or_default().insert(target);
        }
    }

    /// Rights, owner and time of a node, to change them; those of its target if it is a hard link.
    pub fn meta_mut(&mut self, path: &[u8]) -> Option<&mut Meta> {
        let target = match &self.nodes.get(path)?.kind {
            Kind::Same(target) => Some(target.clone()),
            _ => None,
        };
        let real = target.as_deref().unwrap_or(path);
        self.nodes.get_mut(real).map(|node| &mut node.meta)
    }

    /// Gives what is later than `time`, in seconds since 1970, this time.
    pub fn no_later_than(&mut self, time: i64) {
        for node in self.nodes.values_mut() {
            node.meta.mtime = node.meta.mtime.min(time);
        }
    }

    /// A file's content, to change its digest or handle.
    pub fn content_mut(&mut self, path: &[u8]) -> Option<&mut Content<C>> {
        match &mut self.nodes.get_mut(path)?.kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    fn check(&self, path: &[u8], node: &Node<C>) -> Result<(), InsertError> {
        let good = |name: &[u8]| {
            !name.is_empty() && name != b"." && name != b".." && name.len() <= NAME_MAX
        };
        let whole = path.len() <= PATH_MAX && !path.contains(&0);
        if !whole || !path.split(|b| *b == b'/').all(good) {
            return Err(InsertError::Path(path.to_vec()));
        }
        if self.nodes.len() >= ENTRIES_MAX && !self.nodes.contains_key(path) {
            return Err(InsertError::Full(path.to_vec()));
        }
        for parent in parents(path) {
            match self.nodes.get(parent) {
                None => break, // nor is there anything below it
                Some(Node { kind: Kind::Folder, .. }) => {}
                Some(_) => {
                    let parent = parent.to_vec();
                    return Err(InsertError::Below { path: path.to_vec(), parent });
                }
            }
        }
        match self.below(path).next() {
            Some((inside, _)) if !matches!(node.kind, Kind::Folder) => {
                Err(InsertError::NotEmpty { path: path.to_vec(), inside: inside.to_vec() })
            }
            _ => Ok(()),
        }
    }

    /// The node with its target, if it is a hard link, being no hard link itself. `None` if the
    /// two are the same already.
    fn linked(&self, path: &[u8], node: Node<C>) -> Result<Option<Node<C>>, InsertError> {
        let Kind::Same(target) = node.kind else { return Ok(Some(node)) };
        let real = match self.nodes.get(&target).map(|n| &n.kind) {
            Some(Kind::Same(real)) if real == path => return Ok(None),
            Some(Kind::Same(real)) => Some(real.clone()),
            Some(Kind::Folder) | None => None,
            Some(_) => (target != path).then(|| target.clone()),
        };
        match real {
            Some(real) => Ok(Some(Node { meta: node.meta, kind: Kind::Same(real) })),
            None => Err(InsertError::Link { path: path.to_vec(), target }),
        }
    }

    fn make_parents(&mut self, path: &[u8], mtime: i64) {
        for parent in parents(path) {
            if !self.nodes.contains_key(parent) {
                let meta = Meta { mtime, ..Meta::default() };
                self.nodes.insert(parent.to_vec(), Node::folder(meta));
            }
        }
    }

    /// Before the node at a path goes away: the first of its hard links becomes what it was.
    fn unlink(&mut self, path: &[u8]) {
        if let Some(Node { kind: Kind::Same(target), .. }) = self.nodes.get(path) {
            let target = target.clone();
            if let Some(all) = self.links.get_mut(&target) {
                all.remove(path);
                if all.is_empty() {
                    self.links.remove(&target);
                }
            }
            return;
        }
        let Some(mut rest) = self.links.remove(path) else { return };
        let (Some(heir), Some(node)) = (rest.pop_first(), self.nodes.remove(path)) else { return };
        self.nodes.insert(heir.clone(), node);
        for link in &rest {
            if let Some(node) = self.nodes.get_mut(link) {
                node.kind = Kind::Same(heir.clone());
            }
        }
        if !rest.is_empty() {
            self.links.insert(heir, rest);
        }
    }
}

/// The folders above a path, the outermost first, without the root.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests;
