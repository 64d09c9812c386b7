//! A root file system tar in linuxkit layout: its tree, single files of it, and its contents where
//! they lie.
//!
//! linuxkit's tar says some paths twice (the last one counts), leaves folders out, and carries
//! records that mean nothing on the node. The tree has each path once.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use formats::tree::{Content, Contents, InsertError, Tree};
use model::{Bytes, Diagnose, Diagnosis, Who};

mod archive;

pub(crate) use archive::{Archive, Offset};

/// A root file system tar and its tree. The tar stays where it is and must not change.
#[derive(Debug)]
pub(super) struct Rootfs {
    path: PathBuf,
    archive: Archive,
    tree: Tree<Offset>,
}

/// Why a tar is no root file system.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The tar.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A member that cannot be in a root file system.
    #[error("{name:?} in {path} {what}")]
    Member {
        /// The tar.
        path: PathBuf,
        /// The member.
        name: String,
        /// What is wrong with it, as a verb.
        what: String,
    },
    /// Members that do not go together.
    #[error("{path} cannot be unpacked")]
    Insert {
        /// The tar.
        path: PathBuf,
        /// Why not.
        source: InsertError,
    },
    /// A file that every root file system has.
    #[error("there is no {name} in {path}")]
    Missing {
        /// The tar.
        path: PathBuf,
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
    /// Reads what is in the tar, not the contents.
    pub(super) fn open(path: &Path) -> Result<Rootfs, RootfsError> {
        let read = |source| RootfsError::Read { path: path.to_owned(), source };
        let archive = Archive::new(File::open(path).map_err(read)?, path.display().to_string());
        let tree = archive.tree()?;
        Ok(Rootfs { path: path.to_owned(), archive, tree })
    }

    /// What is in it.
    pub(super) fn tree(&self) -> &Tree<Offset> {
        &self.tree
    }

    /// Where its contents are.
    pub(super) fn archive(&self) -> &Archive {
        &self.archive
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

    /// The bytes of a file, links followed. Refuses one that is larger than `limit`.
    pub(super) fn read(&self, name: &str, limit: Bytes) -> Result<Vec<u8>, RootfsError> {
        if !self.has(name) {
            return Err(RootfsError::Missing { path: self.path.clone(), name: name.to_owned() });
        }
        let file = self.tree.file(name.as_bytes());
        let file = file.ok_or_else(|| self.archive.bad(name.as_bytes(), "is no file"))?;
        if file.size > limit {
            let what = format!("has {}, more than {limit}", file.size);
            return Err(self.archive.bad(name.as_bytes(), &what));
        }
        self.content(file).map_err(|source| RootfsError::Read { path: self.path.clone(), source })
    }

    fn content(&self, file: &Content<Offset>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.archive.open(&file.at)?.take(file.size.0).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == file.size.0 {
            Ok(bytes)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

#[cfg(test)]
mod tests;
