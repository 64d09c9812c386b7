//! A tar as a tree. The tar stays where it is: contents are read from it when somebody wants them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use formats::tree::{self, Content, Contents, Extraction, Kind, Meta, Node, Tree};
use model::Bytes;
use tar::EntryType;

use super::RootfsError;

const XATTR: &str = "SCHILY.xattr.";

/// An open tar whose members are read in place. It must not change meanwhile.
#[derive(Debug)]
pub(crate) struct Archive {
    file: File,
    /// What messages call it.
    name: String,
}

/// Where a member's bytes start in the tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offset(pub u64);

impl Archive {
    /// `file` is a tar that can be read at any place.
    pub(crate) fn new(file: File, name: String) -> Archive {
        Archive { file, name }
    }

    /// The tree that extracting the tar would leave: of members with one path the last counts.
    /// Folders that the tar does not name get mode 0755 and the time of what made them needed; a
    /// root that it does not name gets the latest time of all.
    pub(crate) fn tree(&self) -> Result<Tree<Offset>, RootfsError> {
        let read = |source| self.cannot_read(source);
        let insert = |source| RootfsError::Insert { of: self.name.clone(), source };
        let mut archive = tar::Archive::new(io::BufReader::new(At { file: &self.file, at: 0 }));
        let mut tree = Extraction::default();
        for entry in archive.entries_with_seek().map_err(read)? {
            let mut entry = entry.map_err(read)?;
            let raw = entry.path_bytes().into_owned();
            let path = tree::clean(&raw).ok_or_else(|| self.bad(&raw, "leads out of the root"))?;
            let Some(node) = self.node(&mut entry, &path)? else { continue };
            tree.add(path, node).map_err(insert)?;
        }
        tree.finish().map_err(insert)
    }

    /// All of the tar, from its start.
    pub(super) fn bytes(&self) -> impl Read {
        At { file: &self.file, at: 0 }
    }

    fn node<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        path: &[u8],
    ) -> Result<Option<Node<Offset>>, RootfsError> {
        let read = |source| self.cannot_read(source);
        let mut meta = Meta::default();
        let mut time = None;
        if let Some(records) = entry.pax_extensions().map_err(read)? {
            for record in records {
                let record = record.map_err(read)?;
                let Ok(key) = record.key() else { continue };
                if let Some(name) = key.strip_prefix(XATTR) {
                    meta.xattrs.insert(name.into(), record.value_bytes().to_vec());
                } else if key == "mtime" {
                    let whole = record.value().ok().and_then(whole_seconds);
                    time = Some(whole.ok_or_else(|| self.bad(path, "has a time that is none"))?);
                } else if key.starts_with("GNU.sparse.") {
                    return Err(self.bad(path, "is stored as a sparse file"));
                }
            }
        }
        let header = entry.header();
        let kind = match header.entry_type() {
            EntryType::Directory => Kind::Folder,
            EntryType::Regular | EntryType::Continuous => Kind::File(Content {
                size: Bytes(entry.size()),
                digest: None,
                at: Offset(entry.raw_file_position()),
            }),
            EntryType::Symlink => Kind::Symlink(target(entry)),
            EntryType::Link => match tree::clean(&target(entry)) {
                Some(target) => Kind::Same(target),
                None => return Err(self.bad(path, "is a hard link to outside")),
            },
            EntryType::Char => {
                let (major, minor) = device(header).map_err(read)?;
                Kind::Char { major, minor }
            }
            EntryType::Block => {
                let (major, minor) = device(header).map_err(read)?;
                Kind::Block { major, minor }
            }
            EntryType::Fifo => Kind::Fifo,
            EntryType::XGlobalHeader => return Ok(None),
            EntryType::GNUSparse => return Err(self.bad(path, "is stored as a sparse file")),
            other => return Err(self.bad(path, &format!("has the unknown type {other:?}"))),
        };
        let id = |n: u64| u32::try_from(n).map_err(|_| self.bad(path, "has an owner above 2^32"));
        // Twelve bits always fit.
        meta.mode = u16::try_from(header.mode().map_err(read)? & 0o7777).unwrap_or_default();
        meta.uid = id(header.uid().map_err(read)?)?;
        meta.gid = id(header.gid().map_err(read)?)?;
        let plain = i64::try_from(header.mtime().map_err(read)?).unwrap_or(i64::MAX);
        meta.mtime = time.unwrap_or(plain);
        Ok(Some(Node { meta, kind }))
    }

    pub(crate) fn cannot_read(&self, source: io::Error) -> RootfsError {
        RootfsError::Read { of: self.name.clone(), source }
    }

    pub(super) fn bad(&self, path: &[u8], what: &str) -> RootfsError {
        let name = tree::show(path).into_owned();
        RootfsError::Member { of: self.name.clone(), name, what: what.to_owned() }
    }
}

impl Contents<Offset> for Archive {
    fn open<'a>(&'a self, at: &Offset) -> io::Result<Box<dyn Read + 'a>> {
        Ok(Box::new(At { file: &self.file, at: at.0 }))
    }
}

/// Reads a file from a place of its own: several may do so at once.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(into, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

impl io::Seek for At<'_> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let (base, by) = match to {
            io::SeekFrom::Start(at) => (at, 0),
            io::SeekFrom::Current(by) => (self.at, by),
            io::SeekFrom::End(by) => (self.file.metadata()?.len(), by),
        };
        let at = base.checked_add_signed(by);
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

fn target<R: Read>(entry: &tar::Entry<'_, R>) -> Vec<u8> {
    entry.link_name_bytes().unwrap_or_default().into_owned()
}

fn device(header: &tar::Header) -> io::Result<(u32, u32)> {
    let number = |n: io::Result<Option<u32>>| n.map(Option::unwrap_or_default);
    Ok((number(header.device_major())?, number(header.device_minor())?))
}

/// The second that a decimal number of seconds lies in.
fn whole_seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let before = whole.starts_with('-') && fraction.bytes().any(|b| b != b'0');
    seconds.checked_sub(i64::from(before))
}
