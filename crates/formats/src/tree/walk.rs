//! Looking at a tree.

use super::{Content, Kind, Meta, Node, Tree};

/// Links that lead to links that lead to links.
const HOPS_MAX: usize = 40;

impl<C> Tree<C> {
    /// How many nodes there are, the root included.
    pub fn entries(&self) -> usize {
        self.nodes.len()
    }

    /// What stands at a path; nothing is followed.
    pub fn get(&self, path: &[u8]) -> Option<&Node<C>> {
        self.nodes.get(path)
    }

    /// What stands at a path, of a hard link its target.
    pub fn inode(&self, path: &[u8]) -> Option<&Node<C>> {
        let node = self.nodes.get(path)?;
        match &node.kind {
            Kind::Same(target) => self.nodes.get(target),
            _ => Some(node),
        }
    }

    /// Rights, owner and time of the root.
    pub fn root(&self) -> &Meta {
        // Nothing takes the root away.
        &self.nodes[&b""[..]].meta
    }

    /// Every node by path in the order of bytes; folders come before what is in them.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Node<C>)> {
        self.nodes.iter().map(|(path, node)| (path.as_slice(), node))
    }

    /// All that lies below a folder, at any depth.
    pub fn below(&self, folder: &[u8]) -> impl Iterator<Item = (&[u8], &Node<C>)> {
        let mut prefix = folder.to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        let from = std::ops::Bound::Excluded(prefix.clone());
        let range = self.nodes.range((from, std::ops::Bound::Unbounded));
        let range = range.take_while(move |(path, _)| path.starts_with(&prefix));
        range.map(|(path, node)| (path.as_slice(), node))
    }

    /// What lies right in a folder: name and node, in the order of names. It takes time for all
    /// below it.
    pub fn children(&self, folder: &[u8]) -> impl Iterator<Item = (&[u8], &Node<C>)> {
        let skip = if folder.is_empty() { 0 } else { folder.len() + 1 };
        let names = self.below(folder).map(move |(path, node)| (&path[skip..], node));
        names.filter(|(name, _)| !name.contains(&b'/'))
    }

    /// The other names of a node: paths of the hard links to it.
    pub fn links_to(&self, path: &[u8]) -> impl Iterator<Item = &[u8]> {
        self.links.get(path).into_iter().flatten().map(Vec::as_slice)
    }

    /// The path with all symbolic links in it followed as if the root were `/`, the last one and
    /// hard links too. `None` if it leads nowhere.
    pub fn resolve(&self, path: &[u8]) -> Option<Vec<u8>> {
        let parts =
            |path: &[u8]| path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let mut left = parts(path);
        let mut real: Vec<u8> = Vec::new();
        let mut hops = 0;
        while let Some(part) = left.pop() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    real.truncate(real.iter().rposition(|b| *b == b'/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let mut next = real.clone();
            if !next.is_empty() {
                next.push(b'/');
            }
            next.extend(part);
            match &self.inode(&next)?.kind {
                Kind::Symlink(to) => {
                    hops += 1;
                    if hops > HOPS_MAX {
                        return None;
                    }
                    if to.starts_with(b"/") {
                        real.clear();
                    }
                    left.extend(parts(to));
                }
                _ => {
                    real = match &self.nodes.get(&next)?.kind {
                        Kind::Same(target) => target.clone(),
                        _ => next,
                    };
                }
            }
        }
        Some(real)
    }

    /// The content of the file at a path, links followed. `None` if there is none or no file.
    pub fn file(&self, path: &[u8]) -> Option<&Content<C>> {
        match &self.nodes.get(&self.resolve(path)?)?.kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    /// The latest time of any node but the root, in seconds since 1970; 0 if there is none.
    pub fn latest(&self) -> i64 {
        let all = self
            .nodes
            .iter()
            .filter(|(path, node)| !path.is_empty() && !matches!(node.kind, Kind::Same(_)));
        all.map(|(_, node)| node.meta.mtime).max().unwrap_or(0)
    }
}
