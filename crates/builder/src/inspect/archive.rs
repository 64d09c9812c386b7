//! Archives and folders as trees whose contents stay where they are.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use formats::cpio;
use formats::tree::{self, Content, Kind, Meta, Node, Tree};
use model::Bytes;
use store::tarball::{self, Reader};

use super::piece::Piece;

/// More files than any folder of ours has.
const FILES_MAX: usize = 1_000_000;

/// The tree of a tar: of members with one path the last counts.
pub(super) fn tar(piece: &Piece) -> io::Result<Tree<Piece>> {
    let mut out = Tree::new();
    let counted = Counted { input: BufReader::with_capacity(1 << 18, piece.open()), at: 0 };
    let mut archive = Reader::new(counted);
    while let Some(header) = archive.next()? {
        let Some(path) = tree::clean(&header.path) else {
            return Err(invalid(format!("{:?} leads out of the archive", header.display())));
        };
        let number = |n: i64| u32::try_from(n).map_err(invalid);
        let xattrs = header.xattrs().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        let meta = Meta {
            mode: u16::try_from(header.mode & 0o7777).map_err(invalid)?,
            uid: number(header.uid)?,
            gid: number(header.gid)?,
            mtime: header.mtime.seconds,
            xattrs,
        };
        let device =
            |(major, minor): (i64, i64)| Ok::<_, io::Error>((number(major)?, number(minor)?));
        let kind = match header.kind {
            tarball::Kind::Dir => Kind::Folder,
            tarball::Kind::Symlink => Kind::Symlink(header.link.clone()),
            tarball::Kind::HardLink => {
                let target = tree::clean(&header.link);
                Kind::Same(target.ok_or_else(|| invalid("a hard link leads out"))?)
            }
            tarball::Kind::CharDevice => {
                let (major, minor) = device(header.device)?;
                Kind::Char { major, minor }
            }
            tarball::Kind::BlockDevice => {
                let (major, minor) = device(header.device)?;
                Kind::Block { major, minor }
            }
            tarball::Kind::Fifo => Kind::Fifo,
            tarball::Kind::File | tarball::Kind::Other(_) => {
                let at = piece.part(archive.get_ref().at, header.size);
                Kind::File(Content { size: Bytes(header.size), digest: None, at })
            }
        };
        out.insert(path, Node { meta, kind }).map_err(invalid)?;
    }
    Ok(out)
}

/// The tree of a cpio archive, or of several one after the other.
pub(super) fn cpio(piece: &Piece) -> io::Result<Tree<Piece>> {
    let mut out = Tree::new();
    for member in cpio::read(&piece.head(piece.size())?).map_err(invalid)? {
        let Some(path) = tree::clean(member.path) else {
            return Err(invalid("a member leads out of the archive"));
        };
        let meta = Meta {
            mode: u16::try_from(member.mode & 0o7777).map_err(invalid)?,
            uid: member.uid,
            gid: member.gid,
            mtime: i64::from(member.mtime),
            xattrs: BTreeMap::new(),
        };
        // The type bits of stat(2).
        let kind = match member.mode & 0o170_000 {
            0o040_000 => Kind::Folder,
            0o120_000 => Kind::Symlink(member.content.to_vec()),
            0o020_000 => Kind::Char { major: member.device.0, minor: member.device.1 },
            0o060_000 => Kind::Block { major: member.device.0, minor: member.device.1 },
            0o010_000 => Kind::Fifo,
            _ => {
                let size = Bytes(member.content.len() as u64);
                let at = piece.part(member.at as u64, size.0);
                Kind::File(Content { size, digest: None, at })
            }
        };
        out.insert(path, Node { meta, kind }).map_err(invalid)?;
    }
    Ok(out)
}

/// The tree of a folder of this machine. Extended attributes are left out.
pub(super) fn folder(root: &Path) -> io::Result<Tree<Piece>> {
    let mut out = Tree::new();
    let mut seen: BTreeMap<(u64, u64), Vec<u8>> = BTreeMap::new();
    let mut open: Vec<PathBuf> = vec![root.to_owned()];
    let mut files = 0;
    while let Some(folder) = open.pop() {
        let mut names =
            fs::read_dir(&folder)?.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for path in names {
            files += 1;
            if files > FILES_MAX {
                return Err(io::Error::other(format!("it holds more than {FILES_MAX} files")));
            }
            let about = fs::symlink_metadata(&path)?;
            let name = path.strip_prefix(root).unwrap_or(&path).as_os_str().as_bytes().to_vec();
            let kind = kind_of(&path, &about, &name, &mut seen)?;
            if about.is_dir() {
                open.push(path);
            }
            let meta = Meta {
                mode: u16::try_from(about.mode() & 0o7777).map_err(invalid)?,
                uid: about.uid(),
                gid: about.gid(),
                mtime: about.mtime(),
                xattrs: BTreeMap::new(),
            };
            out.insert(name, Node { meta, kind }).map_err(invalid)?;
        }
    }
    Ok(out)
}

fn kind_of(
    path: &Path,
    about: &fs::Metadata,
    name: &[u8],
    seen: &mut BTreeMap<(u64, u64), Vec<u8>>,
) -> io::Result<Kind<Piece>> {
    let kind = about.file_type();
    // How Linux packs device numbers (makedev(3)).
    let (major, minor) = (
        (about.rdev() >> 8) & 0xfff | (about.rdev() >> 32) & 0xffff_f000,
        about.rdev() & 0xff | (about.rdev() >> 12) & 0xffff_ff00,
    );
    let device = || {
        Ok::<_, io::Error>((
            u32::try_from(major).map_err(invalid)?,
            u32::try_from(minor).map_err(invalid)?,
        ))
    };
    Ok(if kind.is_dir() {
        Kind::Folder
    } else if kind.is_symlink() {
        Kind::Symlink(fs::read_link(path)?.as_os_str().as_bytes().to_vec())
    } else if kind.is_char_device() {
        let (major, minor) = device()?;
        Kind::Char { major, minor }
    } else if kind.is_block_device() {
        let (major, minor) = device()?;
        Kind::Block { major, minor }
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_socket() {
        Kind::Socket
    } else {
        if about.nlink() > 1 {
            let first = seen.entry((about.dev(), about.ino())).or_insert_with(|| name.to_vec());
            if first != name {
                return Ok(Kind::Same(first.clone()));
            }
        }
        let at = Piece::of_path(path, about.len());
        Kind::File(Content { size: Bytes(about.len()), digest: None, at })
    })
}

fn invalid(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

/// Knows how far it was read.
#[derive(Debug)]
struct Counted<R> {
    input: R,
    at: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buf)?;
        self.at += n as u64;
        Ok(n)
    }
}
