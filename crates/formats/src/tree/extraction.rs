//! The tree that extracting an archive leaves.

use std::collections::BTreeMap;

use super::{InsertError, Kind, Meta, Node, Tree};

/// A tree in the making: members of an archive one after the other. Of those with one path the last
/// counts. A hard link may come before what it links to, as it does in archives of several layers.
#[derive(Debug)]
pub struct Extraction<C> {
    tree: Tree<C>,
    /// Hard links to what was not there yet, by path.
    early: BTreeMap<Vec<u8>, Node<C>>,
    names_root: bool,
}

impl<C> Default for Extraction<C> {
    fn default() -> Extraction<C> {
        Extraction { tree: Tree::new(), early: BTreeMap::new(), names_root: false }
    }
}

impl<C> Extraction<C> {
    /// Takes the next member. Its path is one that [`super::clean`] gave.
    pub fn add(&mut self, path: Vec<u8>, node: Node<C>) -> Result<(), InsertError> {
        self.names_root |= path.is_empty();
        self.early.remove(&path);
        match &node.kind {
            Kind::Same(target) if self.tree.get(target).is_none() => {
                self.early.insert(path, node);
                Ok(())
            }
            _ => self.tree.insert(path, node),
        }
    }

    /// The tree. A root that no member named gets mode 0755 and the latest time of all.
    pub fn finish(mut self) -> Result<Tree<C>, InsertError> {
        for (path, node) in self.early {
            self.tree.insert(path, node)?;
        }
        if !self.names_root {
            let mtime = self.tree.latest();
            self.tree.insert(Vec::new(), Node::folder(Meta { mtime, ..Meta::default() }))?;
        }
        Ok(self.tree)
    }
}
