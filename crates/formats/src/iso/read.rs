//! Reading an image: what is in it, and where.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use model::Bytes;

use super::{
    BOOT, BOOTABLE, DESCRIPTORS, Date, EL_TORITO, FOLDER, LAST, MORE, PRIMARY, RECORD, SECTOR,
    SECTOR_LENGTH, STANDARD,
};
use crate::field::{le16, le32};
use crate::tree::{Content, Contents, InsertError, Kind, Meta, Node, Tree};

/// Descriptors before the last; nobody writes more than a handful.
const DESCRIPTORS_MAX: u64 = 64;
/// No folder is longer: 16 MiB have room for a hundred thousand names.
const FOLDER_MAX: u32 = 16 << 20;
/// Entries of one record that stand elsewhere, and go on elsewhere.
const HOPS_MAX: usize = 32;

/// Where a file lies: stretches of bytes in the image, one after the other.
pub type Place = Vec<Range<u64>>;

/// What is in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its volume id.
    pub id: String,
    /// Its size, as it says.
    pub size: Bytes,
    /// Its files, by their Rock Ridge names if it has those, and where they lie.
    pub tree: Tree<Place>,
    /// Where what UEFI firmware boots starts, and its length; an image may leave that open.
    pub boot: Option<(u64, Option<Bytes>)>,
}

/// An image whose files can be read.
#[derive(Debug)]
pub struct Opened<F>(Mutex<F>);

/// Why bytes are no image that we read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes could not be read.
    #[error("cannot read the image at {at}")]
    Read {
        /// Offset in bytes.
        at: u64,
        /// Why not.
        source: io::Error,
    },
    /// There is no primary descriptor.
    #[error("it is no ISO 9660 image")]
    Standard,
    /// A value that cannot be.
    #[error("the {what} at {at} cannot be")]
    Damaged {
        /// What is wrong.
        what: &'static str,
        /// Offset in bytes.
        at: u64,
    },
    /// A name that cannot be.
    #[error("a name in the image cannot be")]
    Name(#[from] InsertError),
}

impl<F: Read + Seek> Opened<F> {
    /// The image in `file`.
    pub fn new(file: F) -> Opened<F> {
        Opened(Mutex::new(file))
    }
}

impl<F: Read + Seek + Send> Contents<Place> for Opened<F> {
    fn open<'a>(&'a self, at: &Place) -> io::Result<Box<dyn Read + 'a>> {
        Ok(Box::new(Stretches { image: self, left: at.iter().rev().cloned().collect() }))
    }
}

/// The bytes of a file.
struct Stretches<'a, F> {
    image: &'a Opened<F>,
    /// The next one last.
    left: Place,
}

impl<F: Read + Seek> Read for Stretches<'_, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.left.last().is_some_and(Range::is_empty) {
            self.left.pop();
        }
        let Some(stretch) = self.left.last_mut() else { return Ok(0) };
        let rest = usize::try_from(stretch.end - stretch.start).unwrap_or(usize::MAX);
        let here = rest.min(buf.len());
        let mut file = self.image.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(stretch.start))?;
        let done = file.read(&mut buf[..here])?;
        stretch.start += done as u64;
        Ok(done)
    }
}

/// Reads what is in an image. Files themselves are not read.
pub fn read<F: Read + Seek>(file: &mut F) -> Result<Image, ReadError> {
    let length = file.seek(SeekFrom::End(0)).map_err(|source| ReadError::Read { at: 0, source })?;
    let mut reader = Reader { file, length, skip: None, seen: BTreeSet::new(), tree: Tree::new() };
    let (primary, boot) = reader.descriptors()?;
    let root = record(&primary[156..190]).ok_or(ReadError::Standard)?;
    let size = u64::from(le32(&primary, 80).unwrap_or(0)) * SECTOR;
    reader.folder(&root, &[], 0)?;
    let id = String::from_utf8_lossy(&primary[40..72]).trim_end().to_owned();
    Ok(Image { id, size: Bytes(size), tree: reader.tree, boot })
}

struct Reader<'a, F> {
    file: &'a mut F,
    length: u64,
    /// Bytes before the entries of each record, if there are entries.
    skip: Option<usize>,
    /// Folders met so far: none is in itself.
    seen: BTreeSet<u32>,
    tree: Tree<Place>,
}

/// A directory record.
struct Record {
    at: u32,
    length: u32,
    flags: u8,
    time: i64,
    id: Vec<u8>,
    /// What stands behind the name.
    system: Vec<u8>,
}

/// What Rock Ridge says of a record.
#[derive(Default)]
struct Facts {
    name: Vec<u8>,
    mode: Option<u32>,
    uid: u32,
    gid: u32,
    time: Option<i64>,
    link: Option<Vec<u8>>,
    /// Whether the last component of the link goes on.
    link_open: bool,
    device: Option<(u32, u32)>,
    /// The folder lies elsewhere, at this sector.
    moved_to: Option<u32>,
    /// The folder is named elsewhere.
    moved: bool,
}

type Boot = Option<(u64, Option<Bytes>)>;

impl<F: Read + Seek> Reader<'_, F> {
    /// The primary descriptor, and what firmware boots.
    fn descriptors(&mut self) -> Result<(Vec<u8>, Boot), ReadError> {
        let (mut primary, mut boot) = (None, None);
        for sector in DESCRIPTORS..DESCRIPTORS + DESCRIPTORS_MAX {
            let found = self.bytes(sector * SECTOR, SECTOR).map_err(|_| ReadError::Standard)?;
            if found[1..6] != *STANDARD {
                return Err(ReadError::Standard);
            }
            match found[0] {
                PRIMARY if primary.is_none() => {
                    if le16(&found, 128) != Some(2048) {
                        let at = sector * SECTOR + 128;
                        return Err(ReadError::Damaged { what: "sector size", at });
                    }
                    primary = Some(found);
                }
                BOOT if found[7..].starts_with(EL_TORITO) => {
                    boot = self.boot(le32(&found, 71).unwrap_or(0))?;
                }
                LAST => break,
                _ => {}
            }
        }
        Ok((primary.ok_or(ReadError::Standard)?, boot))
    }

    /// The first entry of the boot catalog.
    fn boot(&mut self, catalog: u32) -> Result<Boot, ReadError> {
        let catalog = self.bytes(u64::from(catalog) * SECTOR, SECTOR)?;
        if catalog[32] != BOOTABLE {
            return Ok(None);
        }
        let sectors = u64::from(le16(&catalog, 38).unwrap_or(0));
        let length = (sectors > 1).then_some(Bytes(sectors * 512));
        Ok(Some((u64::from(le32(&catalog, 40).unwrap_or(0)) * SECTOR, length)))
    }

    /// Adds what is in a folder.
    fn folder(&mut self, folder: &Record, path: &[u8], depth: usize) -> Result<(), ReadError> {
        let at = u64::from(folder.at) * SECTOR;
        if !self.seen.insert(folder.at) || depth > crate::tree::PATH_MAX / 2 {
            return Err(ReadError::Damaged { what: "place of a folder", at });
        }
        if folder.length > FOLDER_MAX {
            return Err(ReadError::Damaged { what: "length of a folder", at });
        }
        let bytes = self.bytes(at, folder.length.into())?;
        let mut pieces: Place = Vec::new();
        let mut inside = Vec::new();
        for record in records(&bytes) {
            let first = record.id == [0] && path.is_empty();
            if first {
                self.skip = skip(&record.system);
            }
            let facts = self.facts(&record)?;
            if first {
                self.tree.insert(Vec::new(), Node::folder(meta(&facts, &record, true)))?;
            }
            if record.id == [0] || record.id == [1] || facts.moved {
                continue;
            }
            if record.flags & FOLDER == 0 && facts.moved_to.is_none() {
                let at = u64::from(record.at) * SECTOR;
                pieces.push(at..at + u64::from(record.length));
                if record.flags & MORE != 0 {
                    continue;
                }
            }
            let path = join(path, &facts.name);
            let is_folder = record.flags & FOLDER != 0 || facts.moved_to.is_some();
            let kind = self.kind(&facts, is_folder, std::mem::take(&mut pieces))?;
            let meta = meta(&facts, &record, is_folder);
            self.tree.insert(path.clone(), Node { meta, kind })?;
            if is_folder {
                inside.push((path, self.moved(record, facts.moved_to)?));
            }
        }
        for (path, record) in inside {
            self.folder(&record, &path, depth + 1)?;
        }
        Ok(())
    }

    /// The record that a folder has where it really lies.
    fn moved(&mut self, record: Record, to: Option<u32>) -> Result<Record, ReadError> {
        let Some(to) = to else { return Ok(record) };
        let at = u64::from(to) * SECTOR;
        let own = self.bytes(at, SECTOR)?;
        records(&own).next().ok_or(ReadError::Damaged { what: "place of a moved folder", at })
    }

    fn kind(&self, facts: &Facts, is_folder: bool, place: Place) -> Result<Kind<Place>, ReadError> {
        let (major, minor) = facts.device.unwrap_or_default();
        Ok(match facts.mode.map(|mode| mode & 0o170_000) {
            _ if is_folder => Kind::Folder,
            Some(0o120_000) => Kind::Symlink(facts.link.clone().unwrap_or_default()),
            Some(0o020_000) => Kind::Char { major, minor },
            Some(0o060_000) => Kind::Block { major, minor },
            Some(0o010_000) => Kind::Fifo,
            Some(0o140_000) => Kind::Socket,
            _ => {
                if let Some(bad) = place.iter().find(|p| !p.is_empty() && p.end > self.length) {
                    return Err(ReadError::Damaged { what: "place of a file", at: bad.start });
                }
                let size = Bytes(place.iter().map(|p| p.end - p.start).sum());
                Kind::File(Content { size, digest: None, at: place })
            }
        })
    }

    /// Goes through the entries of a record, those elsewhere included.
    fn facts(&mut self, record: &Record) -> Result<Facts, ReadError> {
        let mut facts = Facts::default();
        let Some(skip) = self.skip else {
            facts.name = plain_name(&record.id);
            return Ok(facts);
        };
        let mut area = record.system.get(skip..).unwrap_or(&[]).to_vec();
        for _ in 0..HOPS_MAX {
            let more = facts.add(&area);
            let Some((sector, offset, length)) = more else { break };
            let at = u64::from(sector) * SECTOR + u64::from(offset);
            if u64::from(length) > SECTOR {
                return Err(ReadError::Damaged { what: "length of entries", at });
            }
            area = self.bytes(at, length.into())?;
        }
        if facts.name.is_empty() {
            facts.name = plain_name(&record.id);
        }
        Ok(facts)
    }

    fn bytes(&mut self, at: u64, length: u64) -> Result<Vec<u8>, ReadError> {
        if at.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(ReadError::Damaged { what: "end of the image", at });
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let outcome = self.file.seek(SeekFrom::Start(at));
        outcome
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|source| ReadError::Read { at, source })?;
        Ok(bytes)
    }
}

impl Facts {
    /// Adds the entries of an area; returns where the next area is.
    fn add(&mut self, mut area: &[u8]) -> Option<(u32, u32, u32)> {
        let mut more = None;
        while let [a, b, length, _, ..] = *area {
            let length = usize::from(length);
            let Some(body) = area.get(4..length) else { break };
            match &[a, b] {
                b"PX" => {
                    self.mode = le32(body, 0);
                    self.uid = le32(body, 16).unwrap_or(0);
                    self.gid = le32(body, 24).unwrap_or(0);
                }
                b"NM" if body.first().is_some_and(|flags| flags & 6 == 0) => {
                    self.name.extend(&body[1..]);
                }
                b"TF" => self.time = changed(body),
                b"SL" => self.link(body.get(1..).unwrap_or(&[])),
                b"PN" => self.device = le32(body, 0).zip(le32(body, 8)),
                b"CL" => self.moved_to = le32(body, 0),
                b"RE" => self.moved = true,
                b"CE" => {
                    let word = |at| le32(body, at);
                    more = word(0).zip(word(8)).zip(word(16)).map(|((a, b), c)| (a, b, c));
                }
                b"ST" => break,
                _ => {}
            }
            area = &area[length..];
        }
        more
    }

    /// Adds components of a link.
    fn link(&mut self, mut parts: &[u8]) {
        let mut text = self.link.take().unwrap_or_default();
        while let [flags, length, ..] = *parts {
            let Some(part) = parts.get(2..2 + usize::from(length)) else { break };
            if flags & 8 != 0 {
                text = b"/".to_vec();
            } else {
                if !self.link_open && !text.is_empty() && !text.ends_with(b"/") {
                    text.push(b'/');
                }
                text.extend(match flags & 6 {
                    2 => &b"."[..],
                    4 => b"..",
                    _ => part,
                });
            }
            self.link_open = flags & 1 != 0;
            parts = &parts[2 + part.len()..];
        }
        self.link = Some(text);
    }
}

/// When a file was changed, in an entry with several times.
fn changed(body: &[u8]) -> Option<i64> {
    let (flags, times) = body.split_first()?;
    if flags & 0x82 != 2 {
        return None; // none, or dates as text, which nobody writes
    }
    let at = usize::from(flags & 1) * 7; // when it was made comes before
    Date::parse(*times.get(at..)?.first_chunk()?)
}

fn meta(facts: &Facts, record: &Record, folder: bool) -> Meta {
    let plain = if folder { 0o755 } else { 0o644 };
    Meta {
        mode: u16::try_from(facts.mode.unwrap_or(plain) & 0o7777).unwrap_or(0),
        uid: facts.uid,
        gid: facts.gid,
        mtime: facts.time.unwrap_or(record.time),
        ..Meta::default()
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// A name without Rock Ridge: what stands before the version, without a dot at its end.
fn plain_name(id: &[u8]) -> Vec<u8> {
    let end = id.iter().position(|b| *b == b';').unwrap_or(id.len());
    let name = &id[..end];
    name.strip_suffix(b".").unwrap_or(name).to_vec()
}

/// How many bytes stand before the entries; `None`: there are none.
fn skip(system: &[u8]) -> Option<usize> {
    let found = system.len() >= 7 && system.starts_with(b"SP") && system[4..6] == [0xBE, 0xEF];
    found.then(|| usize::from(system[6]))
}

/// The records of a folder; none crosses into another sector.
fn records(bytes: &[u8]) -> impl Iterator<Item = Record> {
    let sectors = bytes.chunks(SECTOR_LENGTH);
    sectors.flat_map(|sector| {
        let mut at = 0;
        std::iter::from_fn(move || {
            let length = usize::from(*sector.get(at)?);
            let found = record(sector.get(at..at + length)?)?;
            at += length;
            Some(found)
        })
    })
}

fn record(bytes: &[u8]) -> Option<Record> {
    let id_length = usize::from(*bytes.get(RECORD - 1)?);
    let id = bytes.get(RECORD..RECORD + id_length)?.to_vec();
    let system = (RECORD + id_length).next_multiple_of(2);
    Some(Record {
        at: le32(bytes, 2)?.checked_add(bytes[1].into())?,
        length: le32(bytes, 10)?,
        flags: bytes[25],
        time: Date::parse(*bytes[18..].first_chunk()?).unwrap_or(0),
        id,
        system: bytes.get(system..).unwrap_or(&[]).to_vec(),
    })
}
