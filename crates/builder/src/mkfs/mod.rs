//! File systems of a tar, one by one: squashfs, ext4, FAT. Unprivileged; the same tar and options
//! give the same bytes.
//!
//! squashfs and FAT are written by us; ext4 comes from `mke2fs` and `debugfs` (e2fsprogs).

mod ext4;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use formats::fat;
use formats::squashfs::Method;
use formats::tree::{Contents, Kind, Tree, show};
use host::process::ToolError;
use model::{Bytes, Diagnose, Diagnosis, Who};
use sha2::{Digest as _, Sha256};

use crate::image::mkfs::{
    Archive, Offset, Recipe, RootfsError, SquashfsError, own_name, write_squashfs,
};

/// What is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSystem {
    /// squashfs.
    Squashfs {
        /// How blocks are packed.
        method: Method,
        /// Size of data blocks: a power of two from 4 KiB to 1 MiB.
        block: Bytes,
        /// Where packed blocks are kept from one image to the next. `None`: nowhere.
        keep: Option<PathBuf>,
    },
    /// ext4 with blocks of 4 KiB.
    Ext4 {
        /// `None`: what is in it, a tenth more, and 64 MiB.
        size: Option<Bytes>,
        /// At most 16 bytes.
        label: String,
    },
    /// FAT. Rights and owners are lost, links are refused.
    Fat {
        /// `None`: what is in it, a tenth more, and 1 MiB.
        size: Option<Bytes>,
        /// At most 11 characters.
        label: String,
    },
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Facts {
    /// Length of the image.
    pub size: Bytes,
    /// Files, folders and so on in it.
    pub entries: usize,
}

/// Why there is no file system.
#[derive(Debug, thiserror::Error)]
pub enum MkfsError {
    /// It is something else.
    #[error("{name} is no tar: {what}")]
    NoTar {
        /// What messages call it.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// A tar without its end.
    #[error("the tar {name} is cut off: {path:?} in it ends at {end}, and it has {length}")]
    CutOff {
        /// What messages call it.
        name: String,
        /// The member that is not all there.
        path: String,
        /// Where that should end.
        end: Bytes,
        /// How long the tar is.
        length: Bytes,
    },
    /// A tar up to some place.
    #[error("the tar {name} is damaged or cut off: behind a member stands what is none")]
    Damaged {
        /// What messages call it.
        name: String,
    },
    /// The tar makes no tree.
    #[error("cannot use the tar")]
    Tar(#[from] RootfsError),
    /// No squashfs.
    #[error("cannot make the squashfs")]
    Squashfs(#[from] SquashfsError),
    /// No FAT.
    #[error("cannot make the FAT volume")]
    Fat(#[from] fat::WriteError),
    /// e2fsprogs are missing or not content.
    #[error("cannot make the ext4")]
    Tool(#[from] ToolError),
    /// Something that this file system does not have.
    #[error("{file_system} cannot hold {path:?}: it {what}")]
    Node {
        /// The file system.
        file_system: &'static str,
        /// The path.
        path: String,
        /// What is wrong with it, as a verb.
        what: &'static str,
    },
    /// A program was content and yet complained.
    #[error("debugfs says: {0}")]
    Complaint(String),
    /// Reading or writing failed.
    #[error("cannot {doing} {path}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Diagnose for MkfsError {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self {
            MkfsError::NoTar { what, .. } if *what == PACKED => {
                "unpack the tar first, with zcat, xzcat or zstdcat"
            }
            MkfsError::NoTar { .. } => {
                "give a tar, as `eve build rootfs` and `eve compose` make them"
            }
            MkfsError::CutOff { .. }
            | MkfsError::Damaged { .. }
            | MkfsError::Tar(RootfsError::Read { .. }) => {
                "check that the tar is whole, or make it anew"
            }
            MkfsError::Tar(cause) => return cause.diagnose(),
            MkfsError::Squashfs(cause) => return cause.diagnose(),
            MkfsError::Tool(ToolError::Spawn { .. }) => "apt install e2fsprogs",
            MkfsError::Tool(_) | MkfsError::Complaint(_) | MkfsError::Fat(_) => {
                "choose a larger --size, or look at what is said"
            }
            MkfsError::Node { .. } => "leave it out, or choose squashfs",
            MkfsError::File { .. } => "check that the path is right and may be used",
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

impl MkfsError {
    fn file(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> MkfsError {
        move |source| MkfsError::File { doing, path: path.to_owned(), source }
    }
}

/// Makes a file system of a tar at `path`, where it appears only when it is whole. `name` is what
/// messages call the tar; it can be read at any place. `time`, in seconds since 1970, is that of
/// the file system itself: `None` is the latest time in the tar.
pub fn make(
    tar: File,
    name: &str,
    file_system: &FileSystem,
    time: Option<u64>,
    path: &Path,
) -> Result<Facts, MkfsError> {
    check(&tar, name)?;
    let length = Bytes(tar.metadata().map_err(MkfsError::file("read", Path::new(name)))?.len());
    let archive = Archive::new(tar, name.to_owned());
    let tree = archive.tree().map_err(|cause| match cause {
        // What the reader says of bytes that are no member, it says with those bytes.
        RootfsError::Read { source, .. } if source.raw_os_error().is_none() => {
            MkfsError::Damaged { name: name.to_owned() }
        }
        cause => MkfsError::Tar(cause),
    })?;
    for (path, node) in tree.iter() {
        let Kind::File(content) = &node.kind else { continue };
        let end = Bytes(content.at.0.saturating_add(content.size.0));
        if end > length {
            let (name, path) = (name.to_owned(), show(path).into_owned());
            return Err(MkfsError::CutOff { name, path, end, length });
        }
    }
    let time = time.unwrap_or_else(|| u64::try_from(tree.latest()).unwrap_or(0));
    let draft = Draft::of(path)?;
    match file_system {
        FileSystem::Squashfs { method, block, keep } => {
            let recipe = Recipe { method: *method, block: *block, time };
            write_squashfs(&tree, &archive, &recipe, keep.as_deref(), "mkfs", &draft.new)?;
        }
        FileSystem::Ext4 { size, label } => {
            let volume = ext4::Volume { size: *size, read_only: false, label, time };
            ext4::write(&tree, &archive, &volume, &draft.new)?;
        }
        FileSystem::Fat { size, label } => fat(&tree, &archive, (*size, label, time), &draft.new)?,
    }
    let size = fs::metadata(&draft.new).map_err(MkfsError::file("read", path))?.len();
    draft.commit()?;
    Ok(Facts { size: Bytes(size), entries: tree.entries() })
}

/// Bytes of a member's header.
const HEADER: usize = 512;
const PACKED: &str = "it is packed";

/// Refuses what does not begin as a tar does: with a header whose sum is right, or with zeroes.
pub(crate) fn check(tar: &File, name: &str) -> Result<(), MkfsError> {
    use std::os::unix::fs::FileExt;
    let mut head = [0; HEADER];
    let no_tar = |what| Err(MkfsError::NoTar { name: name.to_owned(), what });
    match tar.read_exact_at(&mut head, 0) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            let is_empty = tar.metadata().is_ok_and(|about| about.len() == 0);
            return no_tar(if is_empty { "it is empty" } else { "it is shorter than a header" });
        }
        other => other.map_err(MkfsError::file("read", Path::new(name)))?,
    }
    match head {
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            no_tar(PACKED)
        }
        [b'h', b's', b'q', b's', ..] => no_tar("it is a squashfs"),
        // A tar of nothing is zeroes to its end; a disk only begins with them.
        _ if head == [0; HEADER] => {
            match is_zero(tar).map_err(MkfsError::file("read", Path::new(name)))? {
                true => Ok(()),
                false => no_tar("it begins with zeroes, as disks and ext4 do"),
            }
        }
        _ => {
            // The sum is over the header with blanks in its own place.
            let field = 148..156;
            let sum: u32 = (0..)
                .zip(head)
                .map(|(at, byte)| u32::from(if field.contains(&at) { b' ' } else { byte }))
                .sum();
            let told = head[field].iter().filter(|b| (b'0'..=b'7').contains(b));
            let told = told.fold(0, |sum: u32, digit| sum << 3 | u32::from(digit - b'0'));
            if sum == told { Ok(()) } else { no_tar("it does not begin with a member") }
        }
    }
}

/// Whether there is nothing but zeroes in a file.
fn is_zero(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let (mut at, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match file.read_at(&mut buffer, at)? {
            0 => return Ok(true),
            got if buffer[..got].iter().any(|b| *b != 0) => return Ok(false),
            got => at += got as u64,
        }
    }
}

/// Writes a root file system at `path` as an ext4 that nobody is to change: with a few MiB to spare,
/// without a journal. `time` is that of the file system itself, in seconds since 1970.
pub(crate) fn ext4_root<C>(
    tree: &Tree<C>,
    contents: &dyn Contents<C>,
    time: u64,
    path: &Path,
) -> Result<(), MkfsError> {
    // The label that EVE gives it.
    let volume = ext4::Volume { size: None, read_only: true, label: "eve_rootfs", time };
    ext4::write(tree, contents, &volume, path)
}

/// The version of the programs that make ext4, as they tell it.
pub(crate) fn ext4_version() -> Result<String, MkfsError> {
    ext4::version()
}

/// Copies what cannot be read at any place, a pipe, to a file without a name in `folder`.
pub fn spool(mut input: impl Read, folder: &Path) -> Result<File, MkfsError> {
    let path = folder.join(format!(".{}.tar", own_name()));
    let create = MkfsError::file("create", &path);
    let options = File::options().read(true).write(true).create_new(true).open(&path);
    let mut file = options.map_err(&create)?;
    // From here on nobody finds it, and it goes away with us.
    fs::remove_file(&path).map_err(&create)?;
    io::copy(&mut input, &mut file).map_err(MkfsError::file("copy the tar to", folder))?;
    Ok(file)
}

fn fat(
    tree: &Tree<Offset>,
    archive: &Archive,
    (size, label, time): (Option<Bytes>, &str, u64),
    path: &Path,
) -> Result<(), MkfsError> {
    let mut files = fat::Files::new();
    let mut hash = Sha256::new();
    let mut taken = 0;
    for (path, node) in tree.iter() {
        let bad = |what| MkfsError::Node { file_system: "FAT", path: show(path).into(), what };
        let name = std::str::from_utf8(path).map_err(|_| bad("is not UTF-8"))?;
        match tree.inode(path).map_or(&node.kind, |inode| &inode.kind) {
            Kind::Folder if tree.below(path).next().is_none() && !path.is_empty() => {
                files.insert(format!("{name}/"), Vec::new());
            }
            Kind::Folder => {}
            Kind::File(content) => {
                let mut bytes = Vec::new();
                let reader = archive.open(&content.at).map_err(|e| archive_error(archive, e))?;
                let read = reader.take(content.size.0).read_to_end(&mut bytes);
                read.map_err(|e| archive_error(archive, e))?;
                hash.update(&bytes);
                taken += content.size.0.next_multiple_of(4096);
                files.insert(name.to_owned(), bytes);
            }
            _ => return Err(bad("is neither file nor folder")),
        }
        hash.update(path);
    }
    let ample = Bytes(taken + taken / 10 + Bytes::mib(1).0).round_up(Bytes::mib(1));
    let size = size.unwrap_or(ample);
    let digest = hash.finalize();
    let serial = digest.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let volume = fat::Volume { size, label: label.to_owned(), serial, time };
    let extents = fat::write(&volume, &files)?;
    let write = MkfsError::file("write", path);
    let mut file = File::create(path).map_err(&write)?;
    file.set_len(size.0).map_err(&write)?;
    for extent in &extents {
        use std::os::unix::fs::FileExt;
        file.write_all_at(&extent.bytes, extent.at).map_err(&write)?;
    }
    io::Write::flush(&mut file).map_err(&write)
}

fn archive_error(archive: &Archive, error: io::Error) -> MkfsError {
    MkfsError::Tar(archive.cannot_read(error))
}

/// A file beside the one it becomes.
struct Draft {
    new: PathBuf,
    path: PathBuf,
}

impl Draft {
    fn of(path: &Path) -> Result<Draft, MkfsError> {
        let path = store::replaceable(path).map_err(MkfsError::file("write", path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Draft { new: path.with_file_name(format!(".{name}.{}.new", own_name())), path })
    }

    fn commit(self) -> Result<(), MkfsError> {
        let write = MkfsError::file("write", &self.path);
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(&self.new).and_then(|file| file.sync_all()).map_err(&write)?;
        fs::rename(&self.new, &self.path).map_err(&write)?;
        let folder = File::open(folder.unwrap_or(Path::new(".")));
        folder.and_then(|folder| folder.sync_all()).map_err(&write)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename it is gone already.
        let _ = fs::remove_file(&self.new);
    }
}

#[cfg(test)]
mod tests;
