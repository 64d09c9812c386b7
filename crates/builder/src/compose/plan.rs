//! A composition as a list of members whose bytes are handles: where they lie, how many, their
//! digest. Making one reads no file that was seen before; [`Plan::write`] reads what it writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use formats::tree::{self, Extraction, InsertError, Meta, Node, Tree};
use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};
use store::tarball::{GLOBAL, Header, Kind, Time, Writer};
use store::{Layers, Layout, PlainLayer, StoreError};

use super::{ComposeError, Facts};

const SOURCE: &[u8] = b"LINUXKIT.source";
const LOCATION: &[u8] = b"LINUXKIT.location";

/// What members belong to: a place in the description and an image.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) location: String,
    pub(super) source: String,
}

/// A member of the archive.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) header: Header,
    /// What its records name; `None`: they name nothing.
    pub(super) origin: Option<Arc<Origin>>,
    pub(super) content: Content,
}

/// A member's bytes.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) size: u64,
    /// SHA-256, where it is known without reading them.
    pub(super) digest: Option<Digest>,
    pub(super) place: Place,
}

/// Where bytes are.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// Here.
    Text(Arc<[u8]>),
    /// In the plain archive of a layer, which stands at that place of [`Contents::layers`].
    Layer { layer: usize, at: Bytes },
    /// In a blob as it is stored: from there on.
    Blob(Digest),
    /// In a file of this machine.
    File(PathBuf),
    /// In several places, one after the other.
    Joined(Vec<Content>),
    /// In a gzip stream: so many bytes of a content from there on.
    Unpacked { of: Box<Content>, from: u64, length: u64 },
}

impl Content {
    pub(super) fn none() -> Content {
        Content { size: 0, digest: None, place: Place::Text(Arc::new([])) }
    }

    pub(super) fn text(text: impl AsRef<[u8]>) -> Content {
        let text = text.as_ref();
        let digest = Some(Digest(Sha256::digest(text).into()));
        Content { size: text.len() as u64, digest, place: Place::Text(text.into()) }
    }
}

impl Member {
    /// A member of its origin.
    pub(super) fn new(header: Header, origin: &Arc<Origin>, content: Content) -> Member {
        let header = Header { size: content.size, ..header };
        Member { header, origin: Some(Arc::clone(origin)), content }
    }

    /// A folder that no image brought.
    pub(super) fn dir(path: &str, origin: &Arc<Origin>) -> Member {
        Member::new(Header::new(path, Kind::Dir, 0o755, MTIME), origin, Content::none())
    }

    /// A file that no image brought.
    pub(super) fn file(path: &str, origin: &Arc<Origin>, text: &str) -> Member {
        Member::new(Header::new(path, Kind::File, 0o644, MTIME), origin, Content::text(text))
    }

    /// Every folder of a path that ends with a slash; none for an empty one.
    pub(super) fn dirs<'a>(
        path: &'a str,
        origin: &'a Arc<Origin>,
    ) -> impl Iterator<Item = Member> + 'a {
        let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
        ends.map(move |at| Member::dir(&path[..at], origin))
    }

    /// Where in the description it comes from.
    pub(super) fn place(&self) -> String {
        self.origin.as_ref().map_or("the end", |o| &o.location).to_owned()
    }

    /// The header with what its origin adds to it.
    fn marked(&self) -> Header {
        let mut header = self.header.clone();
        if let Some(origin) = &self.origin {
            header.records.insert(SOURCE.to_vec(), origin.source.clone().into_bytes());
            header.records.insert(LOCATION.to_vec(), origin.location.clone().into_bytes());
        }
        header
    }
}

/// Time of everything that no image brought: 2017-04-18T16:30:00Z, linuxkit's.
pub(super) const MTIME: Time = Time::seconds(1_492_533_000);

/// What was composed, not read yet.
#[derive(Debug)]
pub struct Plan {
    pub(super) members: Vec<Member>,
    pub(super) contents: Contents,
    /// Full names of the images, and their manifests.
    pub(super) images: BTreeMap<String, Digest>,
    pub(super) warnings: Vec<String>,
}

/// What handles lead into.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) layout: Layout,
    pub(super) keeper: Layers,
    pub(super) layers: Vec<PlainLayer>,
}

/// Where the content of a file of a [`Plan`] lies: to be opened with that plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle(usize);

/// An archive that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// SHA-256 of the archive.
    pub digest: Digest,
    /// Its size.
    pub size: Bytes,
}

impl tree::Contents<Handle> for Plan {
    fn open<'a>(&'a self, at: &Handle) -> io::Result<Box<dyn Read + 'a>> {
        let member = &self.members[at.0];
        let body = self.contents.open(&member.content);
        let input = body.map_err(|e| self.contents.told(member, e))?;
        Ok(Box::new(Told { input, member, contents: &self.contents }))
    }
}

/// A member's bytes. An error says where they come from.
struct Told<'a> {
    input: Box<dyn Read + 'a>,
    member: &'a Member,
    contents: &'a Contents,
}

impl Read for Told<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.input.read(out).map_err(|e| match e.kind() {
            io::ErrorKind::Interrupted => e,
            _ => self.contents.told(self.member, e),
        })
    }
}

impl Plan {
    /// Full names of the images, and their manifests.
    pub fn images(&self) -> &BTreeMap<String, Digest> {
        &self.images
    }

    /// What was read and has no effect, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What there is to say of the archive, once it was written.
    pub fn facts(&self, written: Written) -> Facts {
        let (images, warnings) = (self.images.clone(), self.warnings.clone());
        Facts { digest: written.digest, size: written.size, images, warnings }
    }

    /// The file system that the archive unpacks to. Of several members of one path the last counts.
    pub fn tree(&self) -> Result<Tree<Handle>, ComposeError> {
        let mut found = Extraction::default();
        for (n, member) in self.members.iter().enumerate() {
            let nonsense = |why| ComposeError::Nonsense { location: member.place(), why };
            if member.header.kind == Kind::Other(GLOBAL) {
                continue;
            }
            let outside =
                || nonsense(format!("{} leads out of the image", member.header.display()));
            let path = tree::clean(&member.header.path).ok_or_else(outside)?;
            let kind = kind(member, Handle(n)).map_err(nonsense)?;
            let node = Node { meta: meta(&member.header).map_err(nonsense)?, kind };
            found.add(path, node).map_err(|e| nonsense(e.to_string()))?;
        }
        let whole = |e: InsertError| ComposeError::Nonsense {
            location: "the composition".to_owned(),
            why: e.to_string(),
        };
        found.finish().map_err(whole)
    }

    /// Every member's header as it stands in the archive, in its order.
    pub fn headers(&self) -> impl Iterator<Item = Header> {
        self.members.iter().map(Member::marked)
    }

    /// Writes the archive. After an error, what was written is of no use.
    pub fn write(&self, out: &mut dyn Write) -> Result<Written, ComposeError> {
        let out = io::BufWriter::with_capacity(1 << 18, out);
        let mut tar = Writer::new(Counted { out, hash: Sha256::new(), size: 0 });
        let mut buffer = vec![0; 1 << 18];
        for member in &self.members {
            self.put(member, &mut tar, &mut buffer)?;
        }
        let end = |source| {
            let (location, member) = ("the archive".to_owned(), "its end".to_owned());
            ComposeError::Write { location, member, source }
        };
        let mut counted = tar.finish().map_err(end)?;
        counted.flush().map_err(end)?;
        Ok(Written { digest: Digest(counted.hash.finalize().into()), size: Bytes(counted.size) })
    }

    fn put<W: Write>(
        &self,
        member: &Member,
        tar: &mut Writer<W>,
        buffer: &mut [u8],
    ) -> Result<(), ComposeError> {
        let write_error = |source| {
            let name = member.header.display();
            ComposeError::Write { location: member.place(), member: name, source }
        };
        tar.header(&member.marked()).map_err(write_error)?;
        if !member.header.kind.has_body() {
            return Ok(());
        }
        let read_error = |source| self.contents.read_error(member, source);
        let mut body = self.contents.open(&member.content).map_err(read_error)?;
        loop {
            match body.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => tar.write_all(&buffer[..n]).map_err(write_error)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(read_error(e)),
            }
        }
    }
}

impl Contents {
    /// The bytes of a content, as many as it says or an error.
    pub(super) fn open<'a>(&'a self, content: &'a Content) -> io::Result<Box<dyn Read + 'a>> {
        let size = content.size;
        Ok(match &content.place {
            Place::Text(text) => Box::new(&text[..]),
            Place::Layer { layer, at } => {
                Box::new(self.layers[*layer].slice(*at, Bytes(size), content.digest))
            }
            Place::Blob(digest) => {
                let opened = self.layout.open_blob(digest).map_err(io::Error::other)?;
                Box::new(Exactly { input: opened.0, left: size })
            }
            Place::File(path) => Box::new(Exactly { input: File::open(path)?, left: size }),
            Place::Joined(parts) => {
                let mut all: Box<dyn Read + 'a> = Box::new(io::empty());
                for part in parts {
                    all = Box::new(all.chain(self.open(part)?));
                }
                all
            }
            Place::Unpacked { of, from, length } => {
                Box::new(Exactly { input: self.unpack(of, *from, *length)?, left: size })
            }
        })
    }

    /// What the gzip stream in a part of a content holds.
    pub(super) fn unpack<'a>(
        &'a self,
        of: &'a Content,
        from: u64,
        length: u64,
    ) -> io::Result<impl Read + 'a> {
        let mut packed = self.open(of)?;
        io::copy(&mut (&mut packed).take(from), &mut io::sink())?;
        Ok(MultiGzDecoder::new(packed.take(length)))
    }

    /// The same for those who take no more than an input's error.
    fn told(&self, member: &Member, source: io::Error) -> io::Error {
        let kind = source.kind();
        io::Error::new(kind, self.read_error(member, source))
    }

    /// Why a member's bytes could not be read. What was kept of a damaged layer is forgotten, so
    /// that the next composition makes it anew or says what is wrong with the layer itself.
    pub(super) fn read_error(&self, member: &Member, source: io::Error) -> ComposeError {
        let location = member.place();
        let name = member.header.display();
        match &member.content.place {
            Place::File(path) => ComposeError::Source { location, path: path.clone(), source },
            Place::Layer { layer, .. } => {
                let digest = self.layers[*layer].digest();
                self.keeper.forget(&digest);
                let image = member.origin.as_ref().map_or_else(String::new, |o| o.source.clone());
                let doing = "read";
                let source = StoreError::Member { layer: digest, doing, member: name, source };
                ComposeError::Image { location, image, source: source.into() }
            }
            _ => ComposeError::Write { location, member: name, source },
        }
    }
}

fn kind(member: &Member, at: Handle) -> Result<tree::Kind<Handle>, String> {
    let header = &member.header;
    let name = || header.display();
    let device = || {
        let number = |n| u32::try_from(n).map_err(|_| format!("{}: {n} is no device", name()));
        Ok::<_, String>((number(header.device.0)?, number(header.device.1)?))
    };
    Ok(match header.kind {
        Kind::Dir => tree::Kind::Folder,
        // 7 is a file that shall lie in one piece.
        Kind::File | Kind::Other(b'7') => {
            let Content { size, digest, .. } = member.content;
            tree::Kind::File(tree::Content { size: Bytes(size), digest, at })
        }
        Kind::Symlink => tree::Kind::Symlink(header.link.clone()),
        Kind::HardLink => tree::Kind::Same(tree::clean(&header.link).unwrap_or_default()),
        Kind::CharDevice => device().map(|(major, minor)| tree::Kind::Char { major, minor })?,
        Kind::BlockDevice => device().map(|(major, minor)| tree::Kind::Block { major, minor })?,
        Kind::Fifo => tree::Kind::Fifo,
        Kind::Other(flag) => return Err(format!("{} has the unknown type {flag}", name())),
    })
}

fn meta(header: &Header) -> Result<Meta, String> {
    let owner = |n| {
        let why = |_| format!("{}: {n} is no user or group", header.display());
        u32::try_from(n).map_err(why)
    };
    Ok(Meta {
        mode: u16::try_from(header.mode & 0o7777).unwrap_or_default(),
        uid: owner(header.uid)?,
        gid: owner(header.gid)?,
        mtime: header.mtime.seconds,
        xattrs: header.xattrs().map(|(k, v)| (k.to_vec(), v.to_vec())).collect(),
    })
}

/// So many bytes of a source, no fewer.
struct Exactly<R> {
    input: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = (&mut self.input).take(self.left).read(out)?;
        if n == 0 && self.left > 0 && !out.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// Counts and hashes what goes through.
struct Counted<'a> {
    out: io::BufWriter<&'a mut dyn Write>,
    hash: Sha256,
    size: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
