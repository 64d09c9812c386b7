//! Reading Debian binary packages (deb(5)): an `ar` archive whose member `data.tar.*` holds the
//! files, and `control.tar.*` what the package says of itself. Maintainer scripts are not run and not
//! even read.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use model::Bytes;

use super::tree::{Kind, Node, TREE_MAX, Tree, TreeError, normal};

/// Why a .deb could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// The file or its compression is broken.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No `data.tar` of a known compression inside.
    #[error("{path} holds no data.tar, data.tar.xz, .zst or .gz")]
    NoData {
        /// Which.
        path: PathBuf,
    },
    /// It does not say what it is.
    #[error("{path} holds no control file that names a package")]
    NoControl {
        /// Which.
        path: PathBuf,
    },
    /// It unpacks to more than any package should.
    #[error("{path} unpacks to more than {TREE_MAX}")]
    TooBig {
        /// Which.
        path: PathBuf,
    },
    /// A device, a FIFO, or a hard link to nothing.
    #[error("{path} holds {entry:?}, which is no file, folder or link")]
    Odd {
        /// Which package.
        path: PathBuf,
        /// Which entry.
        entry: String,
    },
    /// A path that no package may have.
    #[error("{path} is refused")]
    Path {
        /// Which package.
        path: PathBuf,
        /// Why.
        source: TreeError,
    },
}

/// A control file of Debian's has 8 KB at most.
const CONTROL_MAX: u64 = 1 << 20;

/// Adds the files of a .deb to `tree`, and returns its control file. `name` is who brought them.
pub(super) fn unpack(path: &Path, name: &str, tree: &mut Tree) -> Result<String, DebError> {
    let read = |source| DebError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    let mut archive = ar::Archive::new(BufReader::new(file));
    let mut control = None;
    while let Some(member) = archive.next_entry() {
        let member = member.map_err(read)?;
        let id = member.header().identifier().to_vec();
        if let Some(packing) = id.strip_prefix(b"control.tar") {
            if let Some(plain) = plain(member, packing).map_err(read)? {
                control = control_file(plain).map_err(read)?;
            }
        } else if let Some(packing) = id.strip_prefix(b"data.tar") {
            let Some(plain) = plain(member, packing).map_err(read)? else { break };
            unpack_tar(plain, path, name, tree)?;
            return control.ok_or_else(|| DebError::NoControl { path: path.to_owned() });
        }
    }
    Err(DebError::NoData { path: path.to_owned() })
}

/// A member's bytes unpacked, by the end of its name; `None` if that packing is unknown.
fn plain<'a>(member: impl Read + 'a, packing: &[u8]) -> io::Result<Option<Box<dyn Read + 'a>>> {
    Ok(Some(match packing {
        b"" => Box::new(member),
        b".xz" => Box::new(liblzma::read::XzDecoder::new(member)),
        b".zst" => Box::new(zstd::Decoder::new(member)?),
        b".gz" => Box::new(flate2::read::GzDecoder::new(member)),
        _ => return Ok(None),
    }))
}

/// The text of the file `control`.
fn control_file(data: impl Read) -> io::Result<Option<String>> {
    let mut archive = tar::Archive::new(data.take(64 * CONTROL_MAX));
    for entry in archive.entries()? {
        let entry = entry?;
        if matches!(&*entry.path_bytes(), b"./control" | b"control") {
            let mut bytes = Vec::new();
            entry.take(CONTROL_MAX).read_to_end(&mut bytes)?;
            return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    Ok(None)
}

fn unpack_tar(data: impl Read, path: &Path, name: &str, tree: &mut Tree) -> Result<(), DebError> {
    let read = |source| DebError::Read { path: path.to_owned(), source };
    let refused = |source| DebError::Path { path: path.to_owned(), source };
    let mut room = TREE_MAX.0;
    let mut archive = tar::Archive::new(data.take(TREE_MAX.0 * 2));
    for entry in archive.entries().map_err(read)? {
        let mut entry = entry.map_err(read)?;
        let at = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if normal(&at).is_none() && !at.contains("..") {
            continue; // the root itself
        }
        let odd = || DebError::Odd { path: path.to_owned(), entry: at.clone() };
        let target = entry.link_name_bytes().map(|t| String::from_utf8_lossy(&t).into_owned());
        let kind = match (entry.header().entry_type(), target) {
            (tar::EntryType::Directory, _) => Kind::Dir,
            (tar::EntryType::Symlink, Some(target)) => Kind::Link(target),
            // One file under two names becomes two files; squashfs keeps the bytes once.
            (tar::EntryType::Link, Some(target)) => {
                tree.get(&target).map(|n| n.kind.clone()).ok_or_else(odd)?
            }
            (tar::EntryType::Regular, _) => {
                let size = entry.size();
                room = room
                    .checked_sub(size)
                    .ok_or_else(|| DebError::TooBig { path: path.to_owned() })?;
                let mut bytes = Vec::new();
                entry.by_ref().take(size).read_to_end(&mut bytes).map_err(read)?;
                if Bytes(bytes.len() as u64) != Bytes(size) {
                    return Err(read(io::ErrorKind::UnexpectedEof.into()));
                }
                Kind::File(bytes.into())
            }
            _ => return Err(odd()),
        };
        let header = entry.header();
        let number = |value: io::Result<u64>| {
            let value = value.map_err(read)?;
            u32::try_from(value).map_err(|_| odd())
        };
        let node = Node {
            kind,
            mode: header.mode().map_err(read)? & 0o7777,
            uid: number(header.uid())?,
            gid: number(header.gid())?,
            mtime: header.mtime().map_err(read)?,
            from: name.to_owned(),
        };
        tree.add(&at, node).map_err(refused)?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A .deb of the package `tool` with these files.
    pub(crate) fn deb(files: &[(&str, &str)]) -> Vec<u8> {
        let control = "Package: tool\nVersion: 1\nArchitecture: amd64\nSource: tools (1.0)\n";
        let (control, data) = (packed(&[("control", control)]), packed(files));
        let mut ar = ar::Builder::new(Vec::new());
        for (name, body) in [
            ("debian-binary", &b"2.0\n"[..]),
            ("control.tar.zst", &control),
            ("data.tar.zst", &data),
        ] {
            ar.append(&ar::Header::new(name.into(), body.len() as u64), body).unwrap();
        }
        ar.into_inner().unwrap()
    }

    /// Files as an archive, `./`-prefixed as dpkg writes them.
    fn packed(files: &[(&str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, body) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(body.len() as u64);
            header.set_mtime(1_700_000_000);
            tar.append_data(&mut header, format!("./{path}"), body.as_bytes()).unwrap();
        }
        zstd::encode_all(&tar.into_inner().unwrap()[..], 1).unwrap()
    }

    #[track_caller]
    fn read(bytes: &[u8]) -> Result<Tree, DebError> {
        let dir = tempfile::tempdir().unwrap();
        store::save(dir.path(), "x.deb", bytes).unwrap();
        let mut tree = Tree::default();
        unpack(&dir.path().join("x.deb"), "x", &mut tree).map(|control| {
            assert!(control.starts_with("Package: tool\n"));
            tree
        })
    }

    #[test]
    fn files_arrive_merged_with_their_modes() {
        let tree = read(&deb(&[("lib/a.so", "A"), ("usr/bin/b", "B")])).unwrap();
        let node = tree.get("usr/lib/a.so").unwrap();
        assert_eq!(
            (node.mode, node.mtime, &node.bytes().unwrap()[..]),
            (0o755, 1_700_000_000, &b"A"[..])
        );
        assert!(tree.get("usr/bin/b").is_some());
    }

    #[test]
    fn what_is_no_package_is_refused() {
        assert!(matches!(read(b"!<arch>\n"), Err(DebError::NoData { .. })));
        let whole = deb(&[("usr/bin/b", "B")]);
        for cut in [10, 70, whole.len() - 20] {
            assert!(read(&whole[..cut]).is_err(), "cut at {cut}");
        }
    }
}
