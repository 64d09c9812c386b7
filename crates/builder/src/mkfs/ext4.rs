//! ext4 through mke2fs and debugfs: no mount, no root.
//!
//! mke2fs copies contents, folders and links from a folder on this machine, where everything is
//! ours. debugfs then gives each inode the owner, rights, times and attributes that the tree says,
//! and makes devices. What depends on machine, time or chance is told: the configuration file, the
//! clock, the identifier and the seed of hashes.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use formats::tree::{Contents, Kind, Meta, Tree, show};
use host::process::{Tool, ToolError, finish};
use model::Bytes;
use sha2::{Digest as _, Sha256};

use super::MkfsError;

/// The features that Debian's mke2fs chooses, without asking its configuration.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,\
                        flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,\
                        metadata_csum";
const JOURNAL: Bytes = Bytes::mib(8);
/// What serves only changes: a journal, and room for the table of groups to grow.
const TO_CHANGE: [&str; 2] = ["has_journal,", "resize_inode,"];
/// One inode for so many bytes, unless there are more files.
const BYTES_PER_INODE: u64 = 16_384;

pub(super) struct Volume<'a> {
    /// `None`: what is in it, a tenth more, and room for changes.
    pub size: Option<Bytes>,
    /// Without a journal and room for anything more.
    pub read_only: bool,
    pub label: &'a str,
    pub time: u64,
}

pub(super) fn write<C>(
    tree: &Tree<C>,
    contents: &dyn Contents<C>,
    volume: &Volume<'_>,
    image: &Path,
) -> Result<(), MkfsError> {
    let scratch = Scratch::beside(image)?;
    copy(tree, contents, &scratch)?;
    let script = script(tree, &scratch)?;
    make(tree, volume, &scratch, image)?;
    adjust(volume.time, &script, &scratch, image)?;
    scratch.remove()
}

/// What says of itself who makes them: another version may make other bytes of the same tree.
pub(super) fn version() -> Result<String, MkfsError> {
    let tool = Tool::Mke2fs;
    let out = tool.command().arg("-V").stdin(Stdio::null()).output();
    let out = out.map_err(|source| ToolError::Spawn { tool, source })?;
    // It speaks on standard error.
    let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    finish(tool, &["-V"], out)?;
    Ok(said)
}

/// A folder for what programs read, gone when we are.
struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    fn beside(image: &Path) -> Result<Scratch, MkfsError> {
        let folder = image.with_extension("tree");
        for folder in [&folder, &folder.join("root"), &folder.join("values")] {
            fs::create_dir(folder).map_err(MkfsError::file("create", folder))?;
        }
        Ok(Scratch { folder })
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        self.folder.join("root").join(OsStr::from_bytes(path))
    }
}

impl Scratch {
    /// Removes it, or says why that cannot be.
    fn remove(self) -> Result<(), MkfsError> {
        fs::remove_dir_all(&self.folder).map_err(MkfsError::file("remove", &self.folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // After an error, which is the one to tell; else it is gone.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Copies contents, folders and links to the scratch folder, with the rights of anything new.
fn copy<C>(tree: &Tree<C>, contents: &dyn Contents<C>, scratch: &Scratch) -> Result<(), MkfsError> {
    for (path, node) in tree.iter().filter(|(path, _)| !path.is_empty()) {
        let at = scratch.at(path);
        let failed = MkfsError::file("write", &at);
        match &node.kind {
            Kind::Folder => fs::create_dir(&at).map_err(failed)?,
            Kind::Symlink(to) => {
                std::os::unix::fs::symlink(OsStr::from_bytes(to), &at).map_err(failed)?;
            }
            Kind::File(content) => {
                let mut file = File::create(&at).map_err(&failed)?;
                let reader = contents.open(&content.at).map_err(&failed)?;
                let copied = io::copy(&mut reader.take(content.size.0), &mut file);
                if copied.map_err(&failed)? != content.size.0 {
                    return Err(failed(io::ErrorKind::UnexpectedEof.into()));
                }
            }
            // debugfs makes them, when all folders are there.
            Kind::Same(_) | Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo => {}
            Kind::Socket => return Err(refuse(path, "is a socket")),
        }
    }
    // Links to files that are there; those to devices are made later.
    for (path, node) in tree.iter() {
        if let Kind::Same(target) = &node.kind
            && is_copied(tree, target)
        {
            let at = scratch.at(path);
            fs::hard_link(scratch.at(target), &at).map_err(MkfsError::file("write", &at))?;
        }
    }
    Ok(())
}

fn is_copied<C>(tree: &Tree<C>, path: &[u8]) -> bool {
    let kind = tree.get(path).map(|node| &node.kind);
    matches!(kind, Some(Kind::Folder | Kind::File(_) | Kind::Symlink(_)))
}

/// What debugfs is to do. Values of attributes go to files.
fn script<C>(tree: &Tree<C>, scratch: &Scratch) -> Result<Vec<u8>, MkfsError> {
    let mut script = Vec::new();
    let mut values = 0;
    for (path, node) in tree.iter() {
        let quoted = quote(path)?;
        let mut line = |words: &[&[u8]]| {
            script.extend(words.join(&b' '));
            script.push(b'\n');
        };
        let (kind, device) = match &node.kind {
            Kind::Same(_) => {
                continue;
            }
            Kind::Folder => (0o04, None),
            Kind::File(_) => (0o10, None),
            Kind::Symlink(_) => (0o12, None),
            Kind::Char { major, minor } => (0o02, Some(format!("c {major} {minor}"))),
            Kind::Block { major, minor } => (0o06, Some(format!("b {major} {minor}"))),
            Kind::Fifo => (0o01, Some("p".to_owned())),
            Kind::Socket => return Err(refuse(path, "is a socket")),
        };
        if let Some(device) = device {
            // It makes nodes in the current folder only.
            let (folder, name) = formats::tree::split(path).unwrap_or_default();
            line(&[b"cd", &quote(folder)?]);
            line(&[b"mknod", &quote_name(name)?, device.as_bytes()]);
            line(&[b"cd", b"/"]);
        }
        let Meta { mode, uid, gid, mtime, xattrs } = &node.meta;
        let mut fields = String::new();
        let _ = writeln!(fields, "mode 0{:o}\nuid {uid}\ngid {gid}", kind << 12 | mode);
        for time in ["mtime", "atime", "ctime", "crtime"] {
            let _ = writeln!(fields, "{time} @{}\n{time}_extra 0", (*mtime).max(0));
        }
        for field in fields.lines() {
            line(&[b"sif", &quoted, field.as_bytes()]);
        }
        for (name, value) in xattrs {
            let file = format!("{}/values/{values}", scratch.folder.display());
            let write = MkfsError::file("write", Path::new(&file));
            File::create(&file)
                .and_then(|mut f| io::Write::write_all(&mut f, value))
                .map_err(write)?;
            line(&[b"ea_set -f", &quote_name(file.as_bytes())?, &quoted, &quote_name(name)?]);
            values += 1;
        }
    }
    links_to_devices(tree, &mut script)?;
    Ok(script)
}

/// Further names of what mke2fs did not copy, when all of it is there.
fn links_to_devices<C>(tree: &Tree<C>, script: &mut Vec<u8>) -> Result<(), MkfsError> {
    for (path, node) in tree.iter() {
        if let Kind::Same(target) = &node.kind
            && !is_copied(tree, target)
        {
            let (path, target_quoted) = (quote(path)?, quote(target)?);
            script.extend([b"ln ", &target_quoted[..], b" ", &path, b"\n"].concat());
            // debugfs leaves the count of names to its user.
            let names = format!(" links_count {}\n", 1 + tree.links_to(target).count());
            script.extend([b"sif ", &path[..], names.as_bytes()].concat());
        }
    }
    Ok(())
}

fn quote(path: &[u8]) -> Result<Vec<u8>, MkfsError> {
    quote_name(&[b"/", path].concat())
}

/// A word for debugfs: in quotes, where only these are special.
fn quote_name(name: &[u8]) -> Result<Vec<u8>, MkfsError> {
    if name.contains(&b'\n') {
        return Err(refuse(name, "has a new line in its name"));
    }
    let inner = name.split(|b| *b == b'"').collect::<Vec<_>>().join(&b"\"\""[..]);
    Ok([b"\"", &inner[..], b"\""].concat())
}

fn make<C>(
    tree: &Tree<C>,
    volume: &Volume<'_>,
    scratch: &Scratch,
    image: &Path,
) -> Result<(), MkfsError> {
    let size = volume.size.unwrap_or_else(|| ample(tree, volume.read_only));
    let id = identifier(tree, volume.label);
    let needed = tree.entries() as u64 + 64;
    let inodes = if volume.read_only { needed } else { needed.max(size.0 / BYTES_PER_INODE) };
    let mut features = FEATURES.to_owned();
    if volume.read_only {
        features = TO_CHANGE.iter().fold(features, |rest, word| rest.replace(word, ""));
    }
    let mut args: Vec<String> =
        ["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-O", &features]
            .map(Into::into)
            .into();
    args.extend(["-N".to_owned(), inodes.to_string()]);
    if !volume.read_only {
        args.extend(["-J".to_owned(), format!("size={}", JOURNAL.0 >> 20)]);
    }
    args.extend(["-m", "0", "-L", volume.label, "-U", &id].map(Into::into));
    let extended =
        format!("hash_seed={id},root_owner=0:0,lazy_itable_init=0,nodiscard,no_copy_xattrs");
    args.extend(["-E".to_owned(), extended, "-d".to_owned()]);
    args.push(scratch.folder.join("root").display().to_string());
    args.extend([image.display().to_string(), format!("{}k", size.0 >> 10)]);
    finish(Tool::Mke2fs, &args, start(Tool::Mke2fs, &args, volume.time)?)?;
    Ok(())
}

fn adjust(time: u64, script: &[u8], scratch: &Scratch, image: &Path) -> Result<(), MkfsError> {
    let path = scratch.folder.join("script");
    let write = MkfsError::file("write", &path);
    File::create(&path).and_then(|mut f| io::Write::write_all(&mut f, script)).map_err(write)?;
    let args = ["-w", "-f", &path.display().to_string(), &image.display().to_string()];
    let out = start(Tool::Debugfs, &args, time)?;
    // It ends well whatever it met, and says its version where complaints stand.
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let complaints: Vec<&str> = said.lines().filter(|l| !l.starts_with("debugfs 1.")).collect();
    finish(Tool::Debugfs, &args, out)?;
    match complaints.first() {
        Some(_) => {
            Err(MkfsError::Complaint(complaints.into_iter().take(5).collect::<Vec<_>>().join("; ")))
        }
        None => Ok(()),
    }
}

fn start<S: AsRef<OsStr>>(tool: Tool, args: &[S], time: u64) -> Result<Output, ToolError> {
    // e2fsprogs takes 0 for "not told" and asks the clock.
    let time = time.max(1);
    tool.command()
        .args(args)
        .env("MKE2FS_CONFIG", "/dev/null")
        .env("E2FSPROGS_FAKE_TIME", time.to_string())
        .env("SOURCE_DATE_EPOCH", time.to_string())
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| ToolError::Spawn { tool, source })
}

/// What is in the tree, and more: a tenth and 64 MiB, or what the tables of one without changes take.
fn ample<C>(tree: &Tree<C>, read_only: bool) -> Bytes {
    let size = |kind: &Kind<C>| match kind {
        Kind::File(content) => content.size.0.next_multiple_of(4096),
        Kind::Folder => 4096,
        _ => 0,
    };
    // An inode, its name in a folder, and folders whose blocks are half empty.
    let taken: u64 = tree.iter().map(|(path, n)| size(&n.kind) + 320 + path.len() as u64).sum();
    let more = if read_only { taken / 64 + Bytes::mib(4).0 } else { taken / 10 + Bytes::mib(64).0 };
    Bytes(taken + more).round_up(Bytes::mib(4))
}

/// An identifier that follows from what is in the tree, the same each time.
fn identifier<C>(tree: &Tree<C>, label: &str) -> String {
    let mut hash = Sha256::new_with_prefix(label.as_bytes());
    for (path, node) in tree.iter() {
        hash.update(path);
        hash.update([0]);
        if let Kind::File(content) = &node.kind {
            hash.update(content.size.0.to_le_bytes());
        }
    }
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &hash.finalize()).to_string()
}

fn refuse(path: &[u8], what: &'static str) -> MkfsError {
    MkfsError::Node { file_system: "ext4", path: show(path).into_owned(), what }
}
