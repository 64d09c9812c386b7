//! Writes a tree as a squashfs image.

use std::io::{self, Seek, SeekFrom, Write};
use std::num::NonZeroUsize;

use model::{Bytes, Diagnose, Diagnosis, Digest, Who};

use super::data::{self, Blocks, Data, Placed};
use super::digests;
use super::inode::{self, Inodes};
use super::meta::{Stream, Table};
use super::number::META_STORED;
use super::pack::{Method, PackError, Packer};
use super::plan::{self, About, Plan};
use super::{BLOCK_MAX, BLOCK_MIN, SUPERBLOCK, Superblock, Tables};
use crate::tree::{Content, Contents, Kind, Tree, show};

/// Images are filled up to a multiple of this with zeroes: what loop devices and verity take.
const PADDING: u64 = 4096;

/// Flags: equal files stand once; there is an export table; the codec's options are told.
const DUPLICATES: u16 = 0x40;
const EXPORTABLE: u16 = 0x80;
const CODEC_OPTIONS: u16 = 0x400;

/// How an image is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How blocks are packed.
    pub method: Method,
    /// Size of data blocks: a power of two from 4 KiB to 1 MiB.
    pub block: Bytes,
    /// The image's own time, in seconds since 1970.
    pub time: u32,
    /// How many threads pack. It shows in nothing but speed.
    pub threads: NonZeroUsize,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Length of the file system, without the zeroes behind it.
    pub used: Bytes,
    /// Length of the file: a multiple of 4 KiB.
    pub size: Bytes,
    /// Files, folders and so on.
    pub inodes: u32,
    /// Blocks of content.
    pub blocks: u64,
    /// How many of them hold several files.
    pub fragments: u32,
    /// How many had been kept and were not packed again.
    pub kept: u64,
    /// Files that are the same as another one and take no space.
    pub duplicates: u64,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A size of blocks that squashfs does not have.
    #[error("a squashfs has blocks of 4 KiB to 1 MiB, a power of two, not of {0}")]
    Block(Bytes),
    /// A file's content cannot be read.
    #[error("cannot read {path:?}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Something that squashfs does not have.
    #[error("a squashfs cannot hold {path:?}: it {what}")]
    Node {
        /// The path.
        path: String,
        /// What is wrong with it, as a verb.
        what: String,
    },
    /// Too many owners.
    #[error("a squashfs holds files of at most 65535 different owners and groups")]
    Ids,
    /// A block cannot be packed.
    #[error("cannot pack the file system")]
    Pack(#[from] PackError),
    /// The image cannot be written.
    #[error("cannot write the image")]
    Write(#[source] io::Error),
    /// Workers ended too early.
    #[error("cannot pack the file system")]
    Threads(#[source] io::Error),
}

impl WriteError {
    pub(super) fn node(path: &[u8], what: String) -> WriteError {
        WriteError::Node { path: show(path).into_owned(), what }
    }
}

impl Diagnose for WriteError {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self {
            WriteError::Block(_) | WriteError::Pack(PackError::Level { .. }) => {
                "choose a valid size of blocks and level"
            }
            WriteError::Read { .. } => "make what the image is made of again",
            WriteError::Node { .. } | WriteError::Ids => {
                "look at the package that brings this path"
            }
            WriteError::Write(source) if source.kind() == io::ErrorKind::StorageFull => {
                "free some space, or write elsewhere"
            }
            WriteError::Write(_) => "look at the disk: space, rights, faults",
            WriteError::Pack(_) | WriteError::Threads(_) => {
                return Diagnosis::of(Who::Developer, "report it");
            }
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

/// A regular file of the tree.
#[derive(Debug)]
pub(super) struct Source<'t, C> {
    pub path: &'t [u8],
    pub content: &'t Content<C>,
    /// Known from the start, or found since.
    pub digest: Option<Digest>,
}

impl<C> Source<'_, C> {
    pub(super) fn cannot_read(&self, source: io::Error) -> WriteError {
        WriteError::Read { path: show(self.path).into_owned(), source }
    }
}

impl Options {
    pub(super) fn block_size(&self) -> Result<u32, WriteError> {
        let block = u32::try_from(self.block.0).ok();
        let known = block.filter(|b| b.is_power_of_two() && (BLOCK_MIN..=BLOCK_MAX).contains(b));
        known.ok_or(WriteError::Block(self.block))
    }
}

/// Writes the image to `out`, from where that stands. The same tree and options give the same
/// bytes, whatever the number of threads, known digests and kept blocks.
///
/// Contents are read once, those with unknown digests mostly twice. Memory: a few blocks for each
/// thread, and some hundred bytes for each file.
pub fn write<C: Sync>(
    tree: &Tree<C>,
    contents: &dyn Contents<C>,
    options: &Options,
    kept: Option<&mut dyn Blocks>,
    out: &mut (impl Write + Seek),
) -> Result<Facts, WriteError> {
    let block = options.block_size()?;
    let mut packer = Packer::for_metadata(options.method)?;
    let base = out.stream_position().map_err(WriteError::Write)?;
    let mut head = vec![0; SUPERBLOCK];
    let codec_options = options.method.options(block);
    if let Some(length) = u16::try_from(codec_options.len()).ok().filter(|length| *length > 0) {
        head.extend((length | META_STORED).to_le_bytes());
        head.extend(&codec_options);
    }
    out.write_all(&head).map_err(WriteError::Write)?;

    let mut files = sources(tree);
    find_digests(&mut files, contents, options, kept.is_some())?;
    let about: Vec<About> =
        files.iter().map(|f| About { size: f.content.size.0, digest: f.digest }).collect();
    let plan = plan::plan(&about, block.into());
    let at = (&mut *out as &mut dyn Write, head.len() as u64);
    let data = data::write(&files, &plan, contents, options, kept, at)?;
    let inodes = inode::build(tree, &placed(&plan, &data), &mut packer)?;

    let count = u32::try_from(inodes.places.len()).map_err(|_| PackError::Metadata)?;
    let fragments = u32::try_from(data.fragments.len()).map_err(|_| PackError::Metadata)?;
    let flags = if codec_options.is_empty() { 0 } else { CODEC_OPTIONS };
    let mut superblock = Superblock {
        inodes: count,
        made: options.time,
        block: options.block,
        codec: options.method.codec(),
        used: Bytes(0),
        fragments,
        flags: flags | DUPLICATES | EXPORTABLE,
        ids: u16::try_from(inodes.ids.len()).map_err(|_| WriteError::Ids)?,
        root: inodes.root,
        tables: Tables { ids: 0, xattrs: 0, inodes: 0, folders: 0, fragments: 0, export: 0 },
    };
    let facts = (data.blocks, data.kept, plan.same.iter().flatten().count() as u64);
    superblock.used = Bytes(tables(inodes, &data, &mut superblock.tables, &mut packer, out)?);
    let size = superblock.used.0.next_multiple_of(PADDING);
    let padding = usize::try_from(size - superblock.used.0).unwrap_or(0);
    let finish = |out: &mut dyn Patch| {
        out.write_all(&vec![0; padding])?;
        out.seek(SeekFrom::Start(base))?;
        out.write_all(&superblock.to_bytes())?;
        out.seek(SeekFrom::Start(base + size))
    };
    finish(out).map_err(WriteError::Write)?;
    let (blocks, kept, duplicates) = facts;
    let used = superblock.used;
    Ok(Facts { used, size: Bytes(size), inodes: count, blocks, fragments, kept, duplicates })
}

trait Patch: Write + Seek {}
impl<W: Write + Seek> Patch for W {}

fn sources<C>(tree: &Tree<C>) -> Vec<Source<'_, C>> {
    let files = tree.iter().filter_map(|(path, node)| match &node.kind {
        Kind::File(content) => Some(Source { path, content, digest: content.digest }),
        _ => None,
    });
    files.collect()
}

/// Finds the digests that decide something: of files that share fragment blocks, of those that may
/// be the same as another, and of all if blocks are kept.
fn find_digests<C: Sync>(
    files: &mut [Source<'_, C>],
    contents: &dyn Contents<C>,
    options: &Options,
    keeps: bool,
) -> Result<(), WriteError> {
    let sizes = plan::sizes(files.iter().map(|f| f.content.size.0));
    let decides = |size: u64| {
        keeps || size < options.block.0 || sizes.get(&size).is_some_and(|count| *count > 1)
    };
    let unknown = files.iter().enumerate().filter(|(_, f)| f.digest.is_none());
    let wanted = unknown.filter(|(_, f)| f.content.size.0 > 0 && decides(f.content.size.0));
    let wanted: Vec<usize> = wanted.map(|(at, _)| at).collect();
    for (at, digest) in digests::find(files, &wanted, contents, options.threads)? {
        files[at].digest = Some(digest);
    }
    Ok(())
}

/// Where each file's content is, that of equal files being the same.
fn placed<'d>(plan: &Plan, data: &'d Data) -> Vec<&'d Placed> {
    let own = plan.same.iter().enumerate().map(|(at, same)| same.unwrap_or(at));
    own.map(|at| &data.files[at]).collect()
}

/// Writes all behind the data; the length of the file system.
fn tables(
    inodes: Inodes<'_>,
    data: &Data,
    tables: &mut Tables,
    packer: &mut Packer,
    out: &mut dyn Write,
) -> Result<u64, WriteError> {
    let mut at = data.end;
    let mut put = |bytes: &[u8]| -> Result<u64, WriteError> {
        out.write_all(bytes).map_err(WriteError::Write)?;
        let start = at;
        at += bytes.len() as u64;
        Ok(start)
    };
    tables.inodes = put(&inodes.inodes.bytes)?;
    tables.folders = put(&inodes.folders.bytes)?;
    let fragments = data.fragments.iter().flat_map(|fragment| {
        let [a, b] = [fragment.start.to_le_bytes(), u64::from(fragment.size).to_le_bytes()];
        a.into_iter().chain(b)
    });
    let export = inodes.places.iter().flat_map(|place| place.to_le_bytes());
    let ids = inodes.ids.iter().flat_map(|id| id.to_le_bytes());
    let (fragments, export, ids) =
        (table(fragments, packer)?, table(export, packer)?, table(ids, packer)?);
    for (table, start) in
        [(fragments, &mut tables.fragments), (export, &mut tables.export), (ids, &mut tables.ids)]
    {
        let base = put(&table.bytes)?;
        *start = put(&table.index(base))?;
    }
    let base = put(&[])?;
    let (xattrs, start) = inodes.xattrs.finish(base, packer)?;
    tables.xattrs = start;
    put(&xattrs)?;
    Ok(at)
}

fn table(bytes: impl Iterator<Item = u8>, packer: &mut Packer) -> Result<Table, PackError> {
    let mut stream = Stream::default();
    stream.push(&bytes.collect::<Vec<u8>>(), packer)?;
    stream.finish(packer)
}
