//! A root file system tar in linuxkit layout: what is in it, single files of it, and the same tree
//! again as a tar that any squashfs writer takes.
//!
//! linuxkit's tar says some paths twice (the last one counts), leaves folders out, and carries
//! records that mean nothing on the node. [`Rootfs::write`] gives each path once, folders first,
//! hard links last. It reads one file, and interprets none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use model::{Bytes, Diagnose, Diagnosis, Who};
use tar::{EntryType, Header};

/// More members than any root file system of ours will have.
const MEMBERS_MAX: usize = 1_000_000;
/// Links that lead to links that lead to links.
const HOPS_MAX: usize = 16;
const XATTR: &str = "SCHILY.xattr.";

/// The index of a root file system tar. The tar stays where it is and must not change.
#[derive(Debug)]
pub(super) struct Rootfs {
    path: PathBuf,
    members: BTreeMap<String, Member>,
}

/// What the tar says last about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    kind: Kind,
    mode: u32,
    uid: u64,
    gid: u64,
    mtime: u64,
    xattrs: Vec<(String, Vec<u8>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Folder,
    File { at: u64, size: Bytes },
    Link(String),
    Same(String),
    Device { block: bool, major: u32, minor: u32 },
    Fifo,
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
    /// A file that every root file system has.
    #[error("there is no {name} in {path}")]
    Missing {
        /// The tar.
        path: PathBuf,
        /// The file.
        name: String,
    },
    /// The tree could not be written on.
    #[error("cannot pass the root file system on")]
    Write(#[source] io::Error),
}

impl Diagnose for RootfsError {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self {
            RootfsError::Read { .. } => "make the root file system again with `eve build rootfs`",
            RootfsError::Member { .. } => "look at the package that brings this path",
            RootfsError::Missing { .. } => {
                "add the package that brings this file to images/rootfs.yml"
            }
            RootfsError::Write(_) => "look at what the program that was fed said",
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

impl Rootfs {
    /// Reads what is in the tar, not the contents.
    pub(super) fn open(path: &Path) -> Result<Rootfs, RootfsError> {
        let read = |source| RootfsError::Read { path: path.to_owned(), source };
        let mut archive = tar::Archive::new(io::BufReader::new(File::open(path).map_err(read)?));
        let mut rootfs = Rootfs { path: path.to_owned(), members: BTreeMap::new() };
        for entry in archive.entries_with_seek().map_err(read)? {
            let mut entry = entry.map_err(read)?;
            let raw = String::from_utf8(entry.path_bytes().into_owned())
                .map_err(|e| rootfs.bad(&String::from_utf8_lossy(e.as_bytes()), "is not UTF-8"))?;
            let Some(name) = clean(&raw) else {
                return Err(rootfs.bad(&raw, "leads out of the root"));
            };
            if name.is_empty() {
                continue; // the root itself
            }
            if let Some(member) = rootfs.member(&mut entry, &name)? {
                rootfs.insert(name, member)?;
            }
        }
        rootfs.complete();
        Ok(rootfs)
    }

    /// The latest time of any member, in seconds since 1970.
    pub(super) fn latest(&self) -> u64 {
        self.members.values().map(|m| m.mtime).max().unwrap_or(0)
    }

    /// Whether there is anything at this path, links followed.
    pub(super) fn has(&self, name: &str) -> bool {
        self.resolve(name).is_some()
    }

    /// The names in a folder, links followed; none if there is no such folder.
    pub(super) fn list(&self, folder: &str) -> Vec<&str> {
        let Some(folder) = self.resolve(folder) else { return Vec::new() };
        let prefix = format!("{folder}/");
        let below = self.members.range(prefix.clone()..).map(|(name, _)| name.as_str());
        let below = below.map_while(|name| name.strip_prefix(&prefix));
        below.filter(|name| !name.contains('/')).collect()
    }

    /// The bytes of a file, links followed. Refuses one that is larger than `limit`.
    pub(super) fn read(&self, name: &str, limit: Bytes) -> Result<Vec<u8>, RootfsError> {
        let missing = || RootfsError::Missing { path: self.path.clone(), name: name.to_owned() };
        let real = self.resolve(name).ok_or_else(missing)?;
        let Some(Member { kind: Kind::File { at, size }, .. }) = self.members.get(&real) else {
            return Err(self.bad(name, "is no file"));
        };
        if *size > limit {
            return Err(self.bad(name, &format!("has {size}, more than {limit}")));
        }
        let read = |source| RootfsError::Read { path: self.path.clone(), source };
        let mut file = File::open(&self.path).map_err(read)?;
        file.seek(SeekFrom::Start(*at)).map_err(read)?;
        let mut bytes = Vec::new();
        file.take(size.0).read_to_end(&mut bytes).map_err(read)?;
        if bytes.len() as u64 == size.0 {
            Ok(bytes)
        } else {
            Err(read(io::ErrorKind::UnexpectedEof.into()))
        }
    }

    /// Writes the tree as a tar: each path once in the order of names, hard links at the end; all
    /// but what `leave_out` names. Folders that the tar does not name get mode 0755 and the latest
    /// time in the tree.
    pub(super) fn write<W: Write>(
        &self,
        leave_out: &dyn Fn(&str) -> bool,
        out: W,
    ) -> Result<(), RootfsError> {
        let read = |source| RootfsError::Read { path: self.path.clone(), source };
        let mut source = File::open(&self.path).map_err(read)?;
        let mut builder = tar::Builder::new(out);
        let wanted = self.members.iter().filter(|(name, _)| !leave_out(name));
        let (links, others): (Vec<_>, Vec<_>) =
            wanted.partition(|(_, m)| matches!(m.kind, Kind::Same(_)));
        for (name, member) in others.into_iter().chain(links) {
            let real = match &member.kind {
                Kind::Same(target) => self.target(name, target)?,
                _ => String::new(),
            };
            let mut data = io::empty().take(0);
            let mut file;
            let body: &mut dyn Read = match member.kind {
                Kind::File { at, size } => {
                    source.seek(SeekFrom::Start(at)).map_err(read)?;
                    file = (&source).take(size.0);
                    &mut file
                }
                _ => &mut data,
            };
            append(&mut builder, name, member, &real, body).map_err(RootfsError::Write)?;
        }
        builder.into_inner().and_then(|mut out| out.flush()).map_err(RootfsError::Write)
    }

    fn member<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        name: &str,
    ) -> Result<Option<Member>, RootfsError> {
        let read = |source| RootfsError::Read { path: self.path.clone(), source };
        let mut xattrs = Vec::new();
        if let Some(records) = entry.pax_extensions().map_err(read)? {
            for record in records {
                let record = record.map_err(read)?;
                if let Some(key) = record.key().ok().and_then(|k| k.strip_prefix(XATTR)) {
                    xattrs.push((key.to_owned(), record.value_bytes().to_vec()));
                }
            }
        }
        xattrs.sort();
        let header = entry.header();
        let device = |block| {
            let number = |n: io::Result<Option<u32>>| n.map(Option::unwrap_or_default);
            Ok::<_, io::Error>(Kind::Device {
                block,
                major: number(header.device_major())?,
                minor: number(header.device_minor())?,
            })
        };
        let link = || {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            String::from_utf8(target).map_err(|_| self.bad(name, "links to what is not UTF-8"))
        };
        let kind = match header.entry_type() {
            EntryType::Directory => Kind::Folder,
            EntryType::Regular | EntryType::Continuous => {
                Kind::File { at: entry.raw_file_position(), size: Bytes(entry.size()) }
            }
            EntryType::Symlink => Kind::Link(link()?),
            EntryType::Link => {
                let target = link()?;
                match clean(&target) {
                    Some(target) if !target.is_empty() => Kind::Same(target),
                    _ => return Err(self.bad(name, "is a hard link to outside")),
                }
            }
            EntryType::Char => device(false).map_err(read)?,
            EntryType::Block => device(true).map_err(read)?,
            EntryType::Fifo => Kind::Fifo,
            EntryType::XGlobalHeader => return Ok(None),
            other => return Err(self.bad(name, &format!("has the unknown type {other:?}"))),
        };
        Ok(Some(Member {
            kind,
            mode: header.mode().map_err(read)? & 0o7777,
            uid: header.uid().map_err(read)?,
            gid: header.gid().map_err(read)?,
            mtime: entry.header().mtime().map_err(read)?,
            xattrs,
        }))
    }

    /// What stands there later counts; a folder and its content only go away together.
    fn insert(&mut self, name: String, member: Member) -> Result<(), RootfsError> {
        if self.members.len() >= MEMBERS_MAX {
            return Err(self.bad(&name, "is one member too many"));
        }
        for (at, _) in name.match_indices('/') {
            match self.members.get(&name[..at]) {
                None | Some(Member { kind: Kind::Folder, .. }) => {}
                Some(_) => {
                    let what = format!("lies below {:?}, which is no folder", &name[..at]);
                    return Err(self.bad(&name, &what));
                }
            }
        }
        if member.kind != Kind::Folder {
            let prefix = format!("{name}/");
            let inside = self.members.range(prefix.clone()..).next();
            if let Some((inside, _)) = inside.filter(|(n, _)| n.starts_with(&prefix)) {
                let what = format!("is no folder, but {inside:?} lies in it");
                return Err(self.bad(&name, &what));
            }
        }
        self.members.insert(name, member);
        Ok(())
    }

    /// Adds the folders that the tar does not name.
    fn complete(&mut self) {
        let mtime = self.latest();
        let folder =
            Member { kind: Kind::Folder, mode: 0o755, uid: 0, gid: 0, mtime, xattrs: Vec::new() };
        let missing: Vec<String> = self
            .members
            .keys()
            .flat_map(|name| name.match_indices('/').map(|(at, _)| name[..at].to_owned()))
            .filter(|parent| !self.members.contains_key(parent))
            .collect();
        self.members.extend(missing.into_iter().map(|name| (name, folder.clone())));
    }

    /// The path with all links in it followed, the last one too. `None` if it leads nowhere.
    fn resolve(&self, name: &str) -> Option<String> {
        let mut left: Vec<String> = name.split('/').rev().map(ToOwned::to_owned).collect();
        let mut real = String::new();
        let mut hops = 0;
        while let Some(part) = left.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    real.truncate(real.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let next = if real.is_empty() { part } else { format!("{real}/{part}") };
            match &self.members.get(&next)?.kind {
                Kind::Link(target) => {
                    hops += 1;
                    if hops > HOPS_MAX {
                        return None;
                    }
                    if target.starts_with('/') {
                        real.clear();
                    }
                    left.extend(target.split('/').rev().map(ToOwned::to_owned));
                }
                Kind::Same(target) => real = self.target(&next, target).ok()?,
                _ => real = next,
            }
        }
        Some(real)
    }

    /// The file that a hard link means, through other hard links.
    fn target(&self, name: &str, target: &str) -> Result<String, RootfsError> {
        let mut real = target;
        for _ in 0..HOPS_MAX {
            match self.members.get(real).map(|m| &m.kind) {
                Some(Kind::Same(next)) => real = next,
                Some(Kind::Folder) | None => break,
                Some(_) => return Ok(real.to_owned()),
            }
        }
        Err(self.bad(name, &format!("is a hard link to {target:?}, which is no file")))
    }

    fn bad(&self, name: &str, what: &str) -> RootfsError {
        RootfsError::Member { path: self.path.clone(), name: name.into(), what: what.into() }
    }
}

/// `./a//b/` as `a/b`. `None` if it contains `..`.
fn clean(raw: &str) -> Option<String> {
    let parts: Vec<&str> = raw.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    (!parts.contains(&"..")).then(|| parts.join("/"))
}

fn append<W: Write>(
    builder: &mut tar::Builder<W>,
    name: &str,
    member: &Member,
    target: &str,
    body: &mut dyn Read,
) -> io::Result<()> {
    if !member.xattrs.is_empty() {
        let named: Vec<_> =
            member.xattrs.iter().map(|(k, v)| (format!("{XATTR}{k}"), v.as_slice())).collect();
        builder.append_pax_extensions(named.iter().map(|(k, v)| (k.as_str(), *v)))?;
    }
    let mut header = Header::new_gnu();
    header.set_mode(member.mode);
    header.set_uid(member.uid);
    header.set_gid(member.gid);
    header.set_mtime(member.mtime);
    header.set_size(0);
    match &member.kind {
        Kind::File { size, .. } => {
            header.set_size(size.0);
            header.set_entry_type(EntryType::Regular);
            return builder.append_data(&mut header, name, body);
        }
        Kind::Link(to) => {
            header.set_entry_type(EntryType::Symlink);
            return builder.append_link(&mut header, name, to);
        }
        Kind::Same(_) => {
            header.set_entry_type(EntryType::Link);
            return builder.append_link(&mut header, name, target);
        }
        Kind::Folder => header.set_entry_type(EntryType::Directory),
        Kind::Fifo => header.set_entry_type(EntryType::Fifo),
        Kind::Device { block, major, minor } => {
            header.set_entry_type(if *block { EntryType::Block } else { EntryType::Char });
            header.set_device_major(*major)?;
            header.set_device_minor(*minor)?;
        }
    }
    builder.append_data(&mut header, name, body)
}

#[cfg(test)]
mod tests;
