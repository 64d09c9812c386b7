//! What a piece holds: told by its bytes, never by its name.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use formats::gpt::Gpt;
use formats::slot::{self, Descriptor};
use formats::tree::{Content, Kind, Meta, Node, Tree};
use formats::uki::Pe;
use formats::{disk, ext4, fat, gpt, squashfs, verity};
use model::Bytes;

use super::piece::{Packed, Piece};
use super::{archive, iso};

/// A FAT volume is read whole; an ESP of the largest profile has 2 GiB.
const FAT_MAX: u64 = 3 << 30;
/// An executable that is taken apart.
const PE_MAX: u64 = 1 << 30;
/// What compressed bytes may unpack to.
const PLAIN_MAX: u64 = 1 << 30;
/// Sectors that a table of partitions takes at the start of a disk, without sector 0.
const TABLE: u64 = 34;

/// What is in a piece.
#[derive(Debug)]
pub enum Opened {
    /// A file system or archive.
    Tree(Inside<Tree<Piece>>),
    /// Pieces with names.
    Parts(Inside<BTreeMap<String, Piece>>),
    /// Nothing that we can take apart.
    Plain,
}

/// What is inside, and what holds it.
#[derive(Debug)]
pub struct Inside<T> {
    /// What it is: `squashfs`, `disk`, …
    pub what: &'static str,
    /// What it says of itself besides its content.
    pub facts: BTreeMap<&'static str, String>,
    /// When it says it was made.
    pub made: Option<String>,
    /// What is inside.
    pub inside: T,
}

impl<T> Inside<T> {
    pub(super) fn new(what: &'static str, inside: T) -> Inside<T> {
        Inside { what, facts: BTreeMap::new(), made: None, inside }
    }
}

/// Takes a piece apart. What only looks like something is plain: whoever compares still has its bytes.
pub fn open(piece: &Piece) -> io::Result<Opened> {
    let head = piece.head(4096)?;
    let at = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|h| h.starts_with(magic));
    let opened = if let Some(iso) = iso::open(piece)? {
        Some(iso) // before tables of partitions: on a stick it has one
    } else if at(0, squashfs::MAGIC) || ext4::is_marked(&head) {
        match slot(piece)? {
            None if at(0, squashfs::MAGIC) => root(piece)?,
            found => found,
        }
    } else if at(512, b"EFI PART") {
        partitions(piece)?.map(Opened::Parts)
    } else if at(257, b"ustar") {
        archive::tar(piece).ok().map(|tree| Opened::Tree(Inside::new("tar", tree)))
    } else if at(0, b"070701") {
        archive::cpio(piece).ok().map(|tree| Opened::Tree(Inside::new("cpio", tree)))
    } else if at(0, b"MZ") {
        sections(piece)?
    } else if at(510, &[0x55, 0xaa]) && matches!(head.first(), Some(0xeb | 0xe9)) {
        volume(piece)?
    } else if let Some((what, plain)) = unpacked(&head, piece)? {
        let parts = BTreeMap::from([("plain".to_owned(), plain)]);
        Some(Opened::Parts(Inside::new(what, parts)))
    } else {
        virtual_disk(&head, piece)
    };
    Ok(opened.unwrap_or(Opened::Plain))
}

/// A slot image: root file system, tree of digests, kernel.
fn slot(piece: &Piece) -> io::Result<Option<Opened>> {
    let head = piece.head(slot::HEAD as u64)?;
    let Ok(verity_at) = slot::verity_at(&head) else { return Ok(None) };
    let superblock = piece.part(verity_at.0, 512).head(512)?;
    let Ok(at) = slot::descriptor_at(verity_at, &superblock) else { return Ok(None) };
    let descriptor = piece.part(at.0, slot::BLOCK).head(slot::BLOCK)?;
    let Ok(d) = Descriptor::parse(&descriptor) else { return Ok(None) };
    let Ok(verity) = verity::Superblock::parse(&superblock) else { return Ok(None) };
    let parts = BTreeMap::from([
        ("root file system".to_owned(), piece.part(0, d.rootfs.0)),
        ("kernel image".to_owned(), piece.part(d.uki_at.0, d.uki.0)),
    ]);
    let mut opened = Inside::new("slot image", parts);
    opened.facts.insert("architecture", d.arch);
    opened.facts.insert("version", d.version);
    opened.facts.insert(DIGESTS[0], hex::encode(&verity.salt));
    opened.facts.insert(DIGESTS[1], d.root_hash.to_string());
    Ok(Some(Opened::Parts(opened)))
}

/// The facts that follow from a file system's bytes.
pub const DIGESTS: [&str; 2] = ["salt of the digests", "digest of the root file system"];

/// A file system in squashfs.
fn root(piece: &Piece) -> io::Result<Option<Opened>> {
    let packed = Arc::new(Packed::open(piece).map_err(io::Error::other)?);
    let about = *packed.image().superblock();
    let tree = packed.image().tree().map_err(io::Error::other)?;
    let tree = tree.map(|at| {
        let size = at.size().0;
        Piece::of_packed(&packed, at, size)
    });
    let mut opened = Inside::new("squashfs", tree);
    opened.facts.insert("codec", about.codec.name().to_owned());
    opened.facts.insert("block size", about.block.0.to_string());
    opened.made = Some(about.made.to_string());
    Ok(Some(Opened::Tree(opened)))
}

/// The partitions of a disk, and what stands in front of them.
pub(super) fn partitions(piece: &Piece) -> io::Result<Option<Inside<BTreeMap<String, Piece>>>> {
    let head = piece.head(gpt::HEAD.0)?;
    let Ok(table) = Gpt::parse(&head, Bytes(piece.size())) else { return Ok(None) };
    let mut parts = BTreeMap::new();
    let mut opened = Inside::new("disk", BTreeMap::new());
    opened.facts.insert("disk GUID", table.disk().to_string());
    opened.facts.insert("size", Bytes(piece.size()).0.to_string());
    let mut rows = Vec::new();
    let mut first = u64::MAX;
    for (number, p) in table.partitions() {
        rows.push(format!(
            "{number} {} {} {} {}..{} {:#x}",
            p.name, p.kind, p.id, p.first.0, p.last.0, p.attributes.0
        ));
        first = first.min(p.first.0);
        let name = format!("partition {number} {}", p.name);
        parts.insert(name, piece.part(p.offset().0, p.length().0));
    }
    opened.facts.insert("partitions", rows.join("; "));
    parts.insert("sector 0".to_owned(), piece.part(0, 512));
    if first != u64::MAX && first > TABLE {
        let gap = piece.part(TABLE * 512, (first - TABLE) * 512);
        parts.insert("the gap in front of the partitions".to_owned(), gap);
    }
    opened.inside = parts;
    Ok(Some(opened))
}

fn sections(piece: &Piece) -> io::Result<Option<Opened>> {
    let Some(bytes) = piece.bytes(PE_MAX)? else { return Ok(None) };
    let Ok(pe) = Pe::parse(&bytes) else { return Ok(None) };
    // Kernels are executables too; what was put together of one is told by its sections.
    if !pe.sections().iter().any(|s| s.name == ".linux") {
        return Ok(None);
    }
    let mut parts = BTreeMap::new();
    for section in pe.sections() {
        let size = section.length.min(section.raw);
        parts.insert(section.name.clone(), piece.part(u64::from(section.at), u64::from(size)));
    }
    Ok(Some(Opened::Parts(Inside::new("kernel image", parts))))
}

fn volume(piece: &Piece) -> io::Result<Option<Opened>> {
    let Some(bytes) = piece.bytes(FAT_MAX)? else { return Ok(None) };
    let Ok((volume, files)) = fat::read(&bytes) else { return Ok(None) };
    drop(bytes);
    let mut tree = Tree::new();
    for (path, content) in files {
        let meta = Meta { mode: 0o755, ..Meta::default() };
        let kind = if path.ends_with('/') {
            Kind::Folder
        } else {
            let size = Bytes(content.len() as u64);
            Kind::File(Content { size, digest: None, at: Piece::of_bytes(content) })
        };
        let path = path.trim_end_matches('/').as_bytes().to_vec();
        if tree.insert(path, Node { meta, kind }).is_err() {
            return Ok(None);
        }
    }
    let mut opened = Inside::new("FAT volume", tree);
    opened.facts.insert("label", volume.label);
    opened.facts.insert("serial number", format!("{:08x}", volume.serial));
    opened.facts.insert("size", volume.size.0.to_string());
    opened.made = Some(volume.time.to_string());
    Ok(Some(Opened::Tree(opened)))
}

fn virtual_disk(head: &[u8], piece: &Piece) -> Option<Opened> {
    let format = disk::Format::of(head).ok().filter(|f| *f != disk::Format::Raw)?;
    let disk = piece.of_disk(format).ok()?;
    let parts = BTreeMap::from([("disk".to_owned(), disk)]);
    Some(Opened::Parts(Inside::new(format.name(), parts)))
}

/// What compressed bytes unpack to, in memory. `None`: they are not compressed, broken, or too many.
fn unpacked(head: &[u8], piece: &Piece) -> io::Result<Option<(&'static str, Piece)>> {
    let file = io::BufReader::new(piece.open());
    let (what, plain): (_, Box<dyn Read>) = match head {
        [0x1f, 0x8b, ..] => ("gzip", Box::new(flate2::bufread::MultiGzDecoder::new(file))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", Box::new(zstd::Decoder::with_buffer(file)?)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            ("xz", Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(file)))
        }
        _ => return Ok(None),
    };
    let mut bytes = Vec::new();
    match plain.take(PLAIN_MAX + 1).read_to_end(&mut bytes) {
        Ok(n) if n as u64 <= PLAIN_MAX => Ok(Some((what, Piece::of_bytes(bytes)))),
        _ => Ok(None),
    }
}
