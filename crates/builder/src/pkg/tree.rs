//! A package's files in memory, and the one tar layer they become.
//!
//! Paths are relative to the root, without `.`, `..` or a trailing slash: `usr/bin/crun`. What comes
//! out depends on the files alone: sorted by path, times no later than a given one.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use model::Bytes;

/// One package may unpack to so much: four times what the largest one (the kernel) takes.
pub(super) const TREE_MAX: Bytes = Bytes::gib(2);

/// The pax record of a member that says who brought it: see [`Node::from`].
pub const FROM: &str = "EVE.from";

/// Files, folders and symbolic links by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Node>,
}

/// A file, folder or symbolic link, and who owns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Who brought it: a .deb (`libc6_2.41-12_amd64.deb`), a file of the recipe
    /// (`pkg/base/passwd`) or a program of ours (`cargo eved`). Empty: nobody in particular. The
    /// layer says it too, in the record [`FROM`].
    pub from: String,
}

/// What a path is. Packages hold no devices: the kernel makes those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A folder.
    Dir,
    /// A file with these bytes.
    File(Arc<[u8]>),
    /// A symbolic link with this target.
    Link(String),
}

/// Why a path cannot be in a package.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// It leaves the root or holds odd parts.
    #[error("{path:?} is no path inside a package")]
    Path {
        /// As given.
        path: String,
    },
    /// Two sources bring the same file with other bytes.
    #[error("/{path} comes from {first} and, different, from {second}")]
    Clash {
        /// Where.
        path: String,
        /// Who came first.
        first: String,
        /// Who came second.
        second: String,
    },
}

impl Node {
    /// A file of our own: root's, and as old as the layer says.
    pub(super) fn file(bytes: impl Into<Arc<[u8]>>, mode: u32, from: impl Into<String>) -> Node {
        let kind = Kind::File(bytes.into());
        Node { kind, mode, uid: 0, gid: 0, mtime: u64::MAX, from: from.into() }
    }

    /// A folder of our own: root's, and as old as the layer says.
    pub(super) fn dir(mode: u32, from: impl Into<String>) -> Node {
        Node { kind: Kind::Dir, mode, uid: 0, gid: 0, mtime: u64::MAX, from: from.into() }
    }

    /// A symbolic link of our own.
    pub(super) fn link(target: impl Into<String>, from: impl Into<String>) -> Node {
        let kind = Kind::Link(target.into());
        Node { kind, mode: 0o777, uid: 0, gid: 0, mtime: u64::MAX, from: from.into() }
    }

    /// The bytes of a file.
    pub(super) fn bytes(&self) -> Option<&Arc<[u8]>> {
        match &self.kind {
            Kind::File(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// A path as a tree knows it: no leading slash, no `.`; `None` for the root itself and for whatever
/// would leave it. Folders that are links on a merged-/usr system are followed: `lib/x` is
/// `usr/lib/x` (Debian policy: /bin, /sbin, /lib and /lib64 are links since bookworm).
pub(super) fn normal(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return None,
            part if part.contains('\0') => return None,
            part => parts.push(part),
        }
    }
    if let [first, _, ..] = parts[..]
        && MERGED.contains(&first)
    {
        parts.insert(0, "usr");
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// The folders that are links into /usr.
pub(super) const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

impl Tree {
    /// Puts a node at `path`, whatever was there.
    pub(super) fn put(&mut self, path: &str, node: Node) -> Result<(), TreeError> {
        let key = normal(path).ok_or_else(|| TreeError::Path { path: path.to_owned() })?;
        self.nodes.insert(key, node);
        Ok(())
    }

    /// Puts a node where none, or the same, may be: folders meet, equal files are one.
    pub(super) fn add(&mut self, path: &str, node: Node) -> Result<(), TreeError> {
        let key = normal(path).ok_or_else(|| TreeError::Path { path: path.to_owned() })?;
        match self.nodes.get(&key) {
            None => {
                self.nodes.insert(key, node);
                Ok(())
            }
            Some(old) if old.kind == node.kind => Ok(()),
            Some(old) => {
                Err(TreeError::Clash { path: key, first: old.from.clone(), second: node.from })
            }
        }
    }

    /// The node at a path.
    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(&normal(path)?)
    }

    /// Takes a node out.
    pub(super) fn remove(&mut self, path: &str) -> Option<Node> {
        self.nodes.remove(&normal(path)?)
    }

    /// All, by path.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Keeps what `wanted` says of files, links and folders that held nothing to begin with;
    /// folders with content stay while any of it does.
    pub(super) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        let paths: Vec<String> = self.nodes.keys().cloned().collect();
        let has_child = |paths: &[String], at: usize| {
            let inside = format!("{}/", paths[at]);
            // `a-b` sorts between `a` and `a/b`: look where `a/` would stand.
            let next = paths.partition_point(|p| p.as_str() < inside.as_str());
            paths.get(next).is_some_and(|p| p.starts_with(&inside))
        };
        let full: Vec<bool> = (0..paths.len()).map(|at| has_child(&paths, at)).collect();
        // Children before parents, so that a folder sees which of its content stayed.
        for (at, path) in paths.iter().enumerate().rev() {
            let dir = self.nodes[path].kind == Kind::Dir;
            let keep = if dir && full[at] {
                let inside = format!("{path}/");
                let mut after = self.nodes.range(inside.clone()..);
                after.next().is_some_and(|(p, _)| p.starts_with(&inside))
            } else {
                wanted(path)
            };
            if !keep {
                self.nodes.remove(path);
            }
        }
    }

    /// The tar of it: parents first, sorted, times no later than `epoch` (seconds since 1970).
    pub(super) fn to_tar(&self, epoch: u64) -> io::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, node) in &self.complete().nodes {
            if !node.from.is_empty() {
                tar.append_pax_extensions([(FROM, node.from.as_bytes())])?;
            }
            let mut header = tar::Header::new_ustar();
            header.set_mode(node.mode);
            header.set_uid(u64::from(node.uid));
            header.set_gid(u64::from(node.gid));
            header.set_mtime(node.mtime.min(epoch));
            match &node.kind {
                Kind::Dir => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_size(0);
                    tar.append_data(&mut header, format!("{path}/"), io::empty())?;
                }
                Kind::File(bytes) => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_size(bytes.len() as u64);
                    tar.append_data(&mut header, path, &bytes[..])?;
                }
                Kind::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    tar.append_link(&mut header, path, target)?;
                }
            }
        }
        tar.into_inner()
    }

    /// With every parent folder; those nobody brought are root's, 0755.
    fn complete(&self) -> Tree {
        let mut nodes = self.nodes.clone();
        for path in self.nodes.keys() {
            for (at, _) in path.match_indices('/') {
                nodes.entry(path[..at].to_owned()).or_insert_with(|| Node::dir(0o755, ""));
            }
        }
        Tree { nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_end_up_merged_and_inside() {
        for (path, want) in [
            ("./lib/x86_64-linux-gnu/libc.so.6", Some("usr/lib/x86_64-linux-gnu/libc.so.6")),
            ("/sbin/nft", Some("usr/sbin/nft")),
            ("/usr//bin/./crun", Some("usr/bin/crun")),
            ("/lib", Some("lib")), // the link itself
            ("library/x", Some("library/x")),
            ("./", None),
            ("/a/../b", None),
        ] {
            assert_eq!(normal(path).as_deref(), want, "{path}");
        }
    }

    #[test]
    fn folders_stay_while_something_in_them_does() {
        let mut tree = Tree::default();
        for dir in ["usr", "usr/bin", "usr/share", "usr/share/doc", "var", "var/empty"] {
            tree.add(dir, Node::dir(0o755, "t")).unwrap();
        }
        for file in ["usr/bin/a", "usr/bin-x", "usr/share/doc/a"] {
            tree.add(file, Node::file(&b"x"[..], 0o644, "t")).unwrap();
        }
        tree.retain(|path| path != "usr/share/doc/a");
        let left: Vec<&str> = tree.iter().map(|(path, _)| path).collect();
        assert_eq!(left, ["usr", "usr/bin", "usr/bin-x", "usr/bin/a", "var", "var/empty"]);
    }

    #[test]
    fn the_layer_does_not_depend_on_order_or_later_times() {
        let tar = |names: [&str; 2], mtime| {
            let mut tree = Tree::default();
            for name in names {
                let node = Node { mtime, ..Node::file(name.as_bytes(), 0o4755, "t") };
                tree.add(name, node).unwrap();
            }
            tree.to_tar(1000).unwrap()
        };
        assert_eq!(tar(["a/b", "c"], 5000), tar(["c", "a/b"], 7000));
        assert_ne!(tar(["a/b", "c"], 5), tar(["a/b", "c"], 7000));
    }

    #[test]
    fn two_sources_may_not_disagree() {
        let mut tree = Tree::default();
        tree.add("etc/x", Node::file(&b"1"[..], 0o644, "one.deb")).unwrap();
        tree.add("etc/x", Node::file(&b"1"[..], 0o644, "two.deb")).unwrap();
        let clash = tree.add("etc/x", Node::file(&b"2"[..], 0o644, "two.deb")).unwrap_err();
        assert_eq!(clash.to_string(), "/etc/x comes from one.deb and, different, from two.deb");
    }
}
