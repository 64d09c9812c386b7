//! A root file system: its tree, and its contents where they lie, in a composition's layers or in a
//! tar of linuxkit's layout.
//!
//! linuxkit's archive says some paths twice (the last one counts), leaves folders out, and carries
//! records that mean nothing on the node. The tree has each path once.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::tree::{Content, Contents, InsertError, Node, Tree};
use model::{Bytes, Diagnose, Diagnosis, Digest, Who};
use sha2::{Digest as _, Sha256};

use crate::compose::{ComposeError, Handle, Plan};
use crate::contents::Contents as Record;

mod archive;

pub(crate) use archive::{Archive, Offset};

/// A root file system. What it is made of stays where it is and must not change.
#[derive(Debug)]
pub(super) struct Rootfs {
    /// What messages call it.
    name: String,
    base: Base,
    tree: Tree<Place>,
}

/// What most contents lie in.
#[derive(Debug)]
enum Base {
    Archive(Archive),
    Plan(Box<Plan>),
}

/// Where the content of a file of a root file system lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In the tar.
    Tar(Offset),
    /// In the composition.
    Plan(Handle),
    /// Here.
    Here(Arc<[u8]>),
    /// In this file, from its start.
    File(PathBuf),
}

/// Why something is no root file system.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// It cannot be read.
    #[error("cannot read {of}")]
    Read {
        /// The root file system.
        of: String,
        /// Why.
        source: io::Error,
    },
    /// A member that cannot be in a root file system.
    #[error("{name:?} in {of} {what}")]
    Member {
        /// The root file system.
        of: String,
        /// The member.
        name: String,
        /// What is wrong with it, as a verb.
        what: String,
    },
    /// Members that do not go together.
    #[error("{of} cannot be unpacked")]
    Insert {
        /// The root file system.
        of: String,
        /// Why not.
        source: InsertError,
    },
    /// A file that every root file system has.
    #[error("there is no {name} in {of}")]
    Missing {
        /// The root file system.
        of: String,
        /// The file.
        name: String,
    },
}

impl Diagnose for RootfsError {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self {
            RootfsError::Read { .. } => "make the root file system again with `eve build rootfs`",
            RootfsError::Member { .. } | RootfsError::Insert { .. } => {
                "look at the package that brings this path"
            }
            RootfsError::Missing { .. } => {
                "add the package that brings this file to images/rootfs.yml.in"
            }
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

impl Rootfs {
    /// Reads what is in a tar, not the contents.
    pub(super) fn open(path: &Path) -> Result<Rootfs, RootfsError> {
        let name = path.display().to_string();
        let read = |source| RootfsError::Read { of: name.clone(), source };
        let archive = Archive::new(File::open(path).map_err(read)?, name.clone());
        let tree = archive.tree()?.map(Place::Tar);
        Ok(Rootfs { name, base: Base::Archive(archive), tree })
    }

    /// That of a composition. `name` is what messages call it.
    pub(super) fn of_plan(plan: Plan, name: String) -> Result<Rootfs, ComposeError> {
        let tree = plan.tree()?.map(Place::Plan);
        Ok(Rootfs { name, base: Base::Plan(Box::new(plan)), tree })
    }

    /// What is in it.
    pub(super) fn tree(&self) -> &Tree<Place> {
        &self.tree
    }

    /// Who put what where, in what it was made of: not what was put on top.
    pub(super) fn record(&self) -> Result<Record, RootfsError> {
        let record = match &self.base {
            Base::Archive(archive) => {
                let bytes = io::BufReader::with_capacity(1 << 18, archive.bytes());
                Record::of_tar(bytes, |_, _, _, _| Ok(()))
            }
            Base::Plan(plan) => Record::of_headers(plan.headers()),
        };
        record.map_err(|source| RootfsError::Read { of: self.name.clone(), source })
    }

    /// Puts something on top.
    pub(super) fn insert(&mut self, path: &str, node: Node<Place>) -> Result<(), RootfsError> {
        let insert = |source| RootfsError::Insert { of: self.name.clone(), source };
        self.tree.insert(path, node).map_err(insert)
    }

    /// The latest time of any member, in seconds since 1970.
    pub(super) fn latest(&self) -> u64 {
        u64::try_from(self.tree.latest()).unwrap_or(0)
    }

    /// Whether there is anything at this path, links followed.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tree.resolve(name.as_bytes()).is_some()
    }

    /// The names in a folder that are UTF-8, links followed; none if there is no such folder.
    pub(super) fn list(&self, folder: &str) -> Vec<&str> {
        let Some(folder) = self.tree.resolve(folder.as_bytes()) else { return Vec::new() };
        let names = self.tree.children(&folder).filter_map(|(n, _)| std::str::from_utf8(n).ok());
        names.collect()
    }

    /// The content of a file, links followed. Refuses one that is larger than `limit`.
    pub(super) fn file(&self, name: &str, limit: Bytes) -> Result<&Content<Place>, RootfsError> {
        let bad = |what: &str| {
            let (of, name) = (self.name.clone(), name.to_owned());
            RootfsError::Member { of, name, what: what.to_owned() }
        };
        if !self.has(name) {
            return Err(RootfsError::Missing { of: self.name.clone(), name: name.to_owned() });
        }
        let file = self.tree.file(name.as_bytes()).ok_or_else(|| bad("is no file"))?;
        if file.size > limit {
            return Err(bad(&format!("has {}, more than {limit}", file.size)));
        }
        Ok(file)
    }

    /// SHA-256 of a content.
    pub(super) fn digest(&self, file: &Content<Place>) -> Result<Digest, RootfsError> {
        if let Some(digest) = file.digest {
            return Ok(digest);
        }
        Ok(Digest(Sha256::digest(self.bytes(file)?).into()))
    }

    /// The bytes of a content.
    pub(super) fn bytes(&self, file: &Content<Place>) -> Result<Vec<u8>, RootfsError> {
        self.content(file).map_err(|source| RootfsError::Read { of: self.name.clone(), source })
    }

    /// The bytes of a file, links followed. Refuses one that is larger than `limit`.
    pub(super) fn read(&self, name: &str, limit: Bytes) -> Result<Vec<u8>, RootfsError> {
        self.bytes(self.file(name, limit)?)
    }

    fn content(&self, file: &Content<Place>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_at(&file.at)?.take(file.size.0).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == file.size.0 {
            Ok(bytes)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn open_at(&self, at: &Place) -> io::Result<Box<dyn Read + '_>> {
        let lost = || io::Error::other("its content lies elsewhere");
        match (at, &self.base) {
            (Place::Tar(at), Base::Archive(archive)) => archive.open(at),
            (Place::Plan(at), Base::Plan(plan)) => plan.open(at),
            (Place::Here(bytes), _) => Ok(Box::new(Cursor::new(Arc::clone(bytes)))),
            (Place::File(path), _) => Ok(Box::new(File::open(path)?)),
            _ => Err(lost()), // cannot be: handles come with their base
        }
    }
}

impl Contents<Place> for Rootfs {
    fn open<'a>(&'a self, at: &Place) -> io::Result<Box<dyn Read + 'a>> {
        self.open_at(at)
    }
}

#[cfg(test)]
mod tests;
