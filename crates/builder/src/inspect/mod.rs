//! Looking into images: the root file system of whatever a build has made, with who put what where.
//!
//! Nothing is mounted and no privilege is needed. What something is, its bytes say.

mod archive;
mod error;
mod iso;
mod open;
mod piece;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use formats::tree::{Kind as NodeKind, Tree};
use formats::{ext4, squashfs};
use model::Bytes;
use model::installer::ISO_SYSTEM;

use self::piece::Packed;
pub use error::InspectError;
pub use open::{DIGESTS, Inside, Opened, open};
pub use piece::{Piece, PieceReader};

use crate::contents::{self, Contents, Member, Origin, text};
use crate::sizes::Sizes;

/// What is looked for in a folder of builds, in this order: an archive says most.
const IN_FOLDER: [&str; 4] = ["rootfs.tar", "slot.img", "live.raw", "live.qcow2"];
/// Parts that lead to a root file system, by the end of their names.
const TO_ROOT: [&str; 6] = ["plain", "disk", "IMGA", "root file system", "INSTALLER", ISO_SYSTEM];
/// What a build says of itself takes a few KiB.
const FACTS_MAX: Bytes = Bytes::mib(1);
/// Boxes in boxes in boxes.
const DEPTH_MAX: usize = 8;

/// Sees a member: what it is, who brought it, its time in seconds since 1970, its bytes.
pub type Visit<'a> = dyn FnMut(&Member, &Origin, i64, &mut dyn Read) -> io::Result<()> + 'a;

/// The file that is meant by `path`: itself, or what a folder of builds holds.
pub fn find(path: &Path) -> Result<PathBuf, InspectError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let there = || IN_FOLDER.iter().filter(|name| path.join(name).is_file());
    // A folder may hold files of an earlier build.
    let built = built(path);
    let found = there().find(|name| built.contains(**name)).or_else(|| there().next());
    found
        .map(|name| path.join(name))
        .ok_or_else(|| InspectError::Empty { folder: path.to_owned(), names: IN_FOLDER.to_vec() })
}

/// The files of the latest build in a folder, as far as that is known.
fn built(folder: &Path) -> BTreeSet<String> {
    let facts = store::read_bounded(&folder.join("image.json"), FACTS_MAX).ok();
    let facts: Option<serde_json::Value> = facts.and_then(|f| serde_json::from_slice(&f).ok());
    let files = facts.as_ref().and_then(|facts| facts["files"].as_array());
    let names = files.into_iter().flatten().filter_map(|file| file["name"].as_str());
    names.map(ToOwned::to_owned).collect()
}

/// Goes through the root file system of an image; says who put what where. An archive says that
/// itself; of anything else the record beside it does, if there is one.
pub fn visit(path: &Path, visit: &mut Visit<'_>) -> Result<Contents, InspectError> {
    let path = &find(path)?;
    let read = InspectError::read(path);
    let piece = Piece::of_file(path).map_err(&read)?;
    let piece = innermost(piece, path)?;
    let head = piece.head(512).map_err(&read)?;
    if head.get(257..262) == Some(b"ustar") {
        return Contents::of_tar(
            io::BufReader::new(piece.open()),
            |member, origin, header, body| visit(member, origin, header.mtime.seconds, body),
        )
        .map_err(read);
    }
    let Opened::Tree(inside) = open(&piece).map_err(&read)? else {
        return Err(unknown(&piece, path));
    };
    let record = Contents::beside(folder_of(path))
        .map_err(|source| InspectError::Contents { path: path.clone(), source })?
        .filter(|record| is_of(record, &inside.inside));
    tree(&inside.inside, record.as_ref(), visit).map_err(read)?;
    Ok(record.unwrap_or_else(|| members(&inside.inside)))
}

/// Who put what where in an image. Of a file system that is not read here the record beside it says
/// that, if there is one.
pub fn contents(path: &Path) -> Result<Contents, InspectError> {
    match visit(path, &mut |_, _, _, _| Ok(())) {
        // Files of a build have the names that builds give them; others have no record.
        Err(InspectError::Ext4 { path })
            if path.file_name().is_some_and(|name| IN_FOLDER.iter().any(|n| name == *n)) =>
        {
            let found = Contents::beside(folder_of(&path));
            let found =
                found.map_err(|source| InspectError::Contents { path: path.clone(), source })?;
            found.ok_or(InspectError::Ext4 { path })
        }
        other => other,
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What the packages of an image take. What they take packed is known of a packed file system.
pub fn sizes(path: &Path) -> Result<Sizes, InspectError> {
    let path = &find(path)?;
    let contents = contents(path)?;
    let piece = innermost(Piece::of_file(path).map_err(InspectError::read(path))?, path)?;
    let head = piece.head(4).map_err(InspectError::read(path))?;
    if head != b"hsqs" {
        return Ok(Sizes::of(&contents, None));
    }
    let shares = shares(&piece).map_err(|e| InspectError::read(path)(io::Error::other(e)))?;
    let share = |path: &str| shares.get(path).copied().unwrap_or_default();
    Ok(Sizes::of(&contents, Some(&share)))
}

/// What each file takes in a packed file system. Ends of files that share a block take their part of
/// it; a file whose bytes another file brought takes nothing more.
fn shares(piece: &Piece) -> Result<BTreeMap<String, Bytes>, squashfs::ReadError> {
    let packed = Packed::open(piece)?;
    let image = packed.image();
    let block = image.superblock().block;
    let mut seen = BTreeSet::new();
    let mut plain: BTreeMap<u32, u64> = BTreeMap::new();
    let mut files = Vec::new();
    for (path, node) in image.tree()?.iter() {
        let NodeKind::File(content) = &node.kind else { continue };
        let tail = content.at.tail(block);
        if !seen.insert((content.at.start(), tail)) {
            continue;
        }
        if let Some((number, _, size)) = tail {
            *plain.entry(number).or_default() += size.0;
        }
        files.push((text(path), content.at.packed(), tail));
    }
    let mut out = BTreeMap::new();
    for (path, own, tail) in files {
        let mut size = own.0;
        if let Some((number, _, tail)) = tail {
            let all = plain.get(&number).copied().unwrap_or(1).max(1);
            let part = u128::from(image.shared(number)?.0) * u128::from(tail.0) / u128::from(all);
            size += u64::try_from(part).unwrap_or(u64::MAX);
        }
        out.insert(path, Bytes(size));
    }
    Ok(out)
}

/// A folder of this machine as a tree.
pub fn open_folder(path: &Path) -> io::Result<Opened> {
    archive::folder(path).map(|tree| Opened::Tree(Inside::new("folder", tree)))
}

/// Why there is no root file system in a piece that cannot be taken apart.
fn unknown(piece: &Piece, path: &Path) -> InspectError {
    let path = path.to_owned();
    match piece.head(ext4::HEAD as u64) {
        Ok(head) if ext4::is_marked(&head) => InspectError::Ext4 { path },
        _ => InspectError::Unknown { path },
    }
}

/// The archive or file system that a piece leads to.
fn innermost(mut piece: Piece, path: &Path) -> Result<Piece, InspectError> {
    let read = InspectError::read(path);
    for _ in 0..DEPTH_MAX {
        let head = piece.head(512).map_err(&read)?;
        if head.get(257..262) == Some(b"ustar") {
            return Ok(piece); // read once, not twice
        }
        match open(&piece).map_err(&read)? {
            Opened::Parts(mut inside) => {
                let to_root = |name: &&String| TO_ROOT.iter().any(|end| name.ends_with(end));
                let name = inside.inside.keys().find(to_root).cloned();
                let next = name.and_then(|n| inside.inside.remove(&n));
                piece = next.ok_or_else(|| InspectError::Unknown { path: path.to_owned() })?;
            }
            _ => return Ok(piece),
        }
    }
    Err(InspectError::Unknown { path: path.to_owned() })
}

fn tree(tree: &Tree<Piece>, record: Option<&Contents>, visit: &mut Visit<'_>) -> io::Result<()> {
    let standing = record.map(Contents::standing).unwrap_or_default();
    let unknown = Origin::default();
    for (path, node) in tree.iter().filter(|(p, _)| !p.is_empty()) {
        let member = member(path, &node.kind);
        let origin = standing.get(member.path.as_str()).map_or(&unknown, |(_, o)| *o);
        match &node.kind {
            NodeKind::File(content) => {
                visit(&member, origin, node.meta.mtime, &mut content.at.open())?;
            }
            _ => visit(&member, origin, node.meta.mtime, &mut io::empty())?,
        }
    }
    Ok(())
}

/// Whether a record is that of a file system: it knows each file. In a folder of builds it is that of
/// the node, and not that of the installer beside it.
fn is_of(record: &Contents, tree: &Tree<Piece>) -> bool {
    let standing = record.standing();
    let mut files = tree.iter().filter(|(_, node)| matches!(node.kind, NodeKind::File(_)));
    files.all(|(path, _)| standing.contains_key(text(path).as_str()))
}

/// A record without origins.
fn members(tree: &Tree<Piece>) -> Contents {
    let nodes = tree.iter().filter(|(p, _)| !p.is_empty());
    Contents::unknown(nodes.map(|(path, node)| member(path, &node.kind)))
}

fn member(path: &[u8], kind: &NodeKind<Piece>) -> Member {
    let path = text(path);
    match kind {
        NodeKind::Folder => Member::new(path, contents::Kind::Folder, Bytes(0), String::new()),
        NodeKind::File(c) => Member::new(path, contents::Kind::File, c.size, String::new()),
        NodeKind::Symlink(to) => Member::new(path, contents::Kind::Symlink, Bytes(0), text(to)),
        NodeKind::Same(to) => Member::new(path, contents::Kind::Same, Bytes(0), text(to)),
        _ => Member::new(path, contents::Kind::Special, Bytes(0), String::new()),
    }
}
