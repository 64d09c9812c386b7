//! An image's layers as a folder of files, for whoever runs it.
//!
//! Layers are foreign bytes. Every path is opened relative to the folder, with the kernel keeping
//! symbolic links inside it (openat2, RESOLVE_IN_ROOT); the last part of a path is never followed.
//! Members, bytes and depth are bounded. The folder appears under its name only when all of it is on
//! the disk and every layer's digest was right.
//!
//! Owners, modes, times, devices and the attributes `user.*` and `security.capability` are kept;
//! other attributes are left out: `trusted.overlay.*` of a stranger would change what an overlay
//! shows, and labels belong to the machine.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use model::{Bytes, Digest};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::layer::{WHITEOUT, check_path, each_member, split};
use crate::tarball::{Header, Kind, Time, clean_path};
use crate::{Layout, Manifest, StoreError};

/// What an image may cost at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Plain bytes of all layers together, headers included.
    pub bytes: Bytes,
    /// Members of all layers together.
    pub members: u64,
}

impl Default for Limits {
    /// 64 GiB and four million members: more than any image we know, less than a disk's end.
    fn default() -> Limits {
        Limits { bytes: Bytes::gib(64), members: 4_000_000 }
    }
}

/// What an image took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Plain bytes of all layers together.
    pub bytes: Bytes,
    /// Members of all layers together.
    pub members: u64,
}

/// How deep folders may stand in each other when they are removed.
const DEPTH_MAX: usize = 512;

const OPAQUE: &[u8] = b".wh..wh..opq";

/// Unpacks an image into the new folder `target`. A `target` that is there is whole already: nothing
/// is done. One target has one unpacker at a time; what an earlier one left unfinished is removed.
pub fn unpack(
    layout: &Layout,
    manifest: &Manifest,
    target: &Path,
    limits: &Limits,
) -> Result<Unpacked, StoreError> {
    if target.symlink_metadata().is_ok() {
        return Ok(Unpacked::default());
    }
    let (parent, new) = beside(target)?;
    remove_tree(&new)?;
    let outcome = fill(layout, manifest, &new, limits).and_then(|unpacked| {
        fs::rename(&new, target).map_err(StoreError::io("rename", &new))?;
        let synced = File::open(&parent).and_then(|d| d.sync_all());
        synced.map_err(StoreError::io("sync", &parent))?;
        Ok(unpacked)
    });
    if outcome.is_err() {
        // The first error is the one to tell; the next try removes what this leaves.
        let _ = remove_tree(&new);
    }
    outcome
}

fn beside(target: &Path) -> Result<(PathBuf, PathBuf), StoreError> {
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        let none = io::Error::new(io::ErrorKind::InvalidInput, "it has no name");
        return Err(StoreError::io("unpack into", target)(none));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let new = [b".", name.as_bytes(), b".new"].concat();
    Ok((parent.to_owned(), parent.join(OsStr::from_bytes(&new))))
}

/// Removes a folder with all that is in it. One that is not there is no error.
pub fn remove_tree(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(StoreError::io("remove", path)),
    }
}

fn fill(
    layout: &Layout,
    manifest: &Manifest,
    new: &Path,
    limits: &Limits,
) -> Result<Unpacked, StoreError> {
    let fail = |doing| StoreError::io(doing, new);
    fs::create_dir(new).map_err(fail("create"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(new, flags, Mode::empty()).map_err(|e| fail("open")(e.into()))?;
    rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755)).map_err(|e| fail("chmod")(e.into()))?;
    let mut tree = Tree { root, at: None, fresh: HashSet::new(), times: BTreeMap::new() };
    let mut done = Unpacked::default();
    for layer in &manifest.layers {
        tree.fresh.clear();
        let left = Bytes(limits.bytes.0.saturating_sub(done.bytes.0));
        let read = each_member(layout, layer, left, |header, body| {
            done.members += 1;
            if done.members > limits.members {
                let why = format!("the image has more than {} members", limits.members);
                return Err(StoreError::Layer { layer: layer.digest, why });
            }
            tree.apply(layer.digest, &header, body)
        })?;
        done.bytes.0 += read.0;
    }
    tree.set_times();
    // One call instead of a sync for each of thousands of files.
    rustix::fs::syncfs(&tree.root).map_err(|e| fail("sync")(e.into()))?;
    Ok(done)
}

/// The folder while it is filled.
struct Tree {
    root: OwnedFd,
    /// The folder of the last member: the next is mostly there too.
    at: Option<(Vec<u8>, OwnedFd)>,
    /// Paths that the current layer made, and the folders above them: its whiteouts spare them.
    fresh: HashSet<Vec<u8>>,
    /// Folders' times: set last, since each new member changes them.
    times: BTreeMap<Vec<u8>, Time>,
}

/// What was being done when it failed.
type Failed = (&'static str, io::Error);

fn to<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Failed {
    move |e| (doing, e.into())
}

impl Tree {
    fn apply(
        &mut self,
        layer: Digest,
        header: &Header,
        body: &mut dyn Read,
    ) -> Result<(), StoreError> {
        let cleaned = clean_path(&header.path);
        let path = cleaned.strip_prefix(b"/").unwrap_or(&cleaned);
        let path = if path.is_empty() { &b"."[..] } else { path };
        check_path(layer, &Header { path: path.to_vec(), ..header.clone() })?;
        let (dir, name) = split(path);
        let outcome = if path == b"." {
            self.set_root(header)
        } else if name == OPAQUE {
            self.empty(dir)
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            // A second prefix marks what aufs keeps for itself.
            if hidden.is_empty() || hidden.starts_with(WHITEOUT) {
                Ok(())
            } else {
                self.hide(dir, hidden)
            }
        } else {
            self.put(path, header, body)
        };
        outcome.map_err(|(doing, source)| StoreError::Member {
            layer,
            doing,
            member: header.display(),
            source,
        })
    }

    fn set_root(&mut self, header: &Header) -> Result<(), Failed> {
        if header.kind != Kind::Dir {
            return Err(("write", io::ErrorKind::IsADirectory.into()));
        }
        set_owner_and_mode(self.root.as_fd(), header)?;
        self.times.insert(b".".to_vec(), header.mtime);
        Ok(())
    }

    /// Opens a folder inside the root, following links as if the root were `/`.
    fn open_dir(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)
    }

    /// The folder of a new member, made if need be.
    fn parent(&mut self, dir: &[u8]) -> Result<OwnedFd, Failed> {
        if let Some((_, fd)) = self.at.as_ref().filter(|(at, _)| at == dir) {
            return fd.try_clone().map_err(to("open the folder of"));
        }
        let fd = match self.open_dir(dir) {
            Err(Errno::NOENT) => self.make_dirs(dir)?,
            other => other.map_err(to("open the folder of"))?,
        };
        let kept = fd.try_clone().map_err(to("open the folder of"))?;
        self.at = Some((dir.to_vec(), kept));
        Ok(fd)
    }

    fn make_dirs(&self, dir: &[u8]) -> Result<OwnedFd, Failed> {
        let mut above = self.open_dir(b".").map_err(to("open the folder of"))?;
        let mut end = 0;
        for part in dir.split(|b| *b == b'/') {
            end += part.len();
            let path = &dir[..end];
            end += 1;
            above = match self.open_dir(path) {
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(&above, part, Mode::from_raw_mode(0o755))
                        .map_err(to("create the folder of"))?;
                    let made = self.open_dir(path).map_err(to("open the folder of"))?;
                    // The caller's umask is not the image's business.
                    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))
                        .map_err(to("create the folder of"))?;
                    made
                }
                other => other.map_err(to("open the folder of"))?,
            };
        }
        Ok(above)
    }

    fn put(&mut self, path: &[u8], header: &Header, body: &mut dyn Read) -> Result<(), Failed> {
        let (dir, name) = split(path);
        let parent = self.parent(dir)?;
        let there = kind_of(parent.as_fd(), name).map_err(to("look at"))?;
        let merge = there == Some(FileType::Directory) && header.kind == Kind::Dir;
        if there.is_some() && !merge {
            self.at = None;
            remove(parent.as_fd(), name, DEPTH_MAX).map_err(to("replace"))?;
        }
        match header.kind {
            Kind::File | Kind::Other(_) => write_file(parent.as_fd(), name, header, body)?,
            Kind::Dir => {
                if !merge {
                    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700))
                        .map_err(to("create"))?;
                }
                let made = open_child(parent.as_fd(), name).map_err(to("open"))?;
                set_owner_and_mode(made.as_fd(), header)?;
                self.times.insert(path.to_vec(), header.mtime);
            }
            Kind::Symlink => {
                let link = header.link.as_slice();
                rustix::fs::symlinkat(link, &parent, name).map_err(to("create"))?;
                set_owner_at(parent.as_fd(), name, header)?;
                set_time_at(parent.as_fd(), name, header.mtime)?;
            }
            Kind::HardLink => {
                let target = clean_path(&header.link);
                let target = target.strip_prefix(b"/").unwrap_or(&target);
                let (dir, base) = split(target);
                let from = self.open_dir(dir).map_err(to("find the target of"))?;
                rustix::fs::linkat(&from, base, &parent, name, AtFlags::empty())
                    .map_err(to("link"))?;
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                make_node(parent.as_fd(), name, header)?;
            }
        }
        let mut known = path;
        while self.fresh.insert(known.to_vec()) && known != b"." {
            known = split(known).0;
        }
        Ok(())
    }

    /// Removes `dir/name`, but not what this layer made of it.
    fn hide(&mut self, dir: &[u8], name: &[u8]) -> Result<(), Failed> {
        let parent = match self.open_dir(dir) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => other.map_err(to("open the folder of"))?,
        };
        self.at = None;
        let path = if dir == b"." { name.to_vec() } else { [dir, b"/", name].concat() };
        self.remove_old(parent.as_fd(), name, &path, DEPTH_MAX).map_err(to("apply"))
    }

    /// Removes what is in `dir`, but not what this layer put there.
    fn empty(&mut self, dir: &[u8]) -> Result<(), Failed> {
        let fd = match self.open_dir(dir) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => other.map_err(to("open the folder of"))?,
        };
        self.at = None;
        for name in names_in(fd.as_fd()).map_err(to("apply"))? {
            let path = if dir == b"." { name.clone() } else { [dir, b"/", &name].concat() };
            self.remove_old(fd.as_fd(), &name, &path, DEPTH_MAX).map_err(to("apply"))?;
        }
        Ok(())
    }

    fn remove_old(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        depth: usize,
    ) -> io::Result<()> {
        if !self.fresh.contains(path) {
            return remove(dir, name, depth);
        }
        if kind_of(dir, name)? == Some(FileType::Directory) {
            let depth = depth.checked_sub(1).ok_or(io::ErrorKind::InvalidData)?;
            let child = open_child(dir, name)?;
            for name in names_in(child.as_fd())? {
                self.remove_old(child.as_fd(), &name, &[path, b"/", &name].concat(), depth)?;
            }
        }
        Ok(())
    }

    fn set_times(&self) {
        for (path, time) in self.times.iter().rev() {
            // A later layer may have put something else in its place; a time is not worth failing.
            if let Ok(dir) = self.open_dir(path) {
                let _ = rustix::fs::futimens(&dir, &stamps(*time));
            }
        }
    }
}

fn kind_of(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Option<FileType>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        other => other.map(|s| Some(FileType::from_raw_mode(s.st_mode))),
    }
}

/// Opens a folder that is no link.
fn open_child(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

fn names_in(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes a name and, if it is a folder, all in it. What is not there is removed already.
fn remove(dir: BorrowedFd<'_>, name: &[u8], depth: usize) -> io::Result<()> {
    let gone = match kind_of(dir, name)? {
        None => return Ok(()),
        Some(FileType::Directory) => {
            let too_deep = || io::Error::other("folders stand too deep in each other");
            let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
            let child = open_child(dir, name)?;
            for name in names_in(child.as_fd())? {
                remove(child.as_fd(), &name, depth)?;
            }
            rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
        }
        Some(_) => rustix::fs::unlinkat(dir, name, AtFlags::empty()),
    };
    Ok(gone?)
}

fn write_file(
    dir: BorrowedFd<'_>,
    name: &[u8],
    header: &Header,
    body: &mut dyn Read,
) -> Result<(), Failed> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(
        rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)).map_err(to("create"))?,
    );
    let mut chunk = vec![0; 1 << 16];
    loop {
        // Whether bytes could not be read or not be written tells who is to blame.
        let n = body.read(&mut chunk).map_err(to("read"))?;
        if n == 0 {
            break;
        }
        file.write_all(&chunk[..n]).map_err(to("write"))?;
    }
    set_owner_and_mode(file.as_fd(), header)?;
    rustix::fs::futimens(&file, &stamps(header.mtime)).map_err(to("set the time of"))
}

fn make_node(dir: BorrowedFd<'_>, name: &[u8], header: &Header) -> Result<(), Failed> {
    let kind = match header.kind {
        Kind::CharDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let number = |n: i64| u32::try_from(n).map_err(|_| ("create", invalid("bad device number")));
    let device = rustix::fs::makedev(number(header.device.0)?, number(header.device.1)?);
    rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), device)
        .map_err(to("create"))?;
    set_owner_at(dir, name, header)?;
    // Nothing but us is in this folder: the name is the node we just made.
    rustix::fs::chmodat(dir, name, mode_of(header)?, AtFlags::empty())
        .map_err(to("set the mode of"))?;
    set_time_at(dir, name, header.mtime)
}

/// The owner first: changing it takes the setuid bit and capabilities away.
fn set_owner_and_mode(fd: BorrowedFd<'_>, header: &Header) -> Result<(), Failed> {
    let (uid, gid) = owner_of(header)?;
    rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(to("set the owner of"))?;
    rustix::fs::fchmod(fd, mode_of(header)?).map_err(to("set the mode of"))?;
    for (name, value) in header.xattrs() {
        if name == b"security.capability" || name.starts_with(b"user.") {
            rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
                .map_err(to("set an attribute of"))?;
        }
    }
    Ok(())
}

fn set_owner_at(dir: BorrowedFd<'_>, name: &[u8], header: &Header) -> Result<(), Failed> {
    let (uid, gid) = owner_of(header)?;
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(to("set the owner of"))
}

fn set_time_at(dir: BorrowedFd<'_>, name: &[u8], time: Time) -> Result<(), Failed> {
    rustix::fs::utimensat(dir, name, &stamps(time), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(to("set the time of"))
}

fn owner_of(header: &Header) -> Result<(Uid, Gid), Failed> {
    // All bits set means "leave it" to the kernel, and is nobody's number.
    let id = |n: i64| {
        let fits = u32::try_from(n).ok().filter(|n| *n != u32::MAX);
        fits.ok_or(("set the owner of", invalid("bad owner number")))
    };
    Ok((Uid::from_raw(id(header.uid)?), Gid::from_raw(id(header.gid)?)))
}

fn mode_of(header: &Header) -> Result<Mode, Failed> {
    let bits = u32::try_from(header.mode & 0o7777);
    bits.map(Mode::from_raw_mode).map_err(|_| ("set the mode of", invalid("bad mode")))
}

fn stamps(time: Time) -> Timestamps {
    let at = Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanos) };
    Timestamps { last_access: at, last_modification: at }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::tarball::Writer;
    use crate::{Compression, Image, ImageBuilder, Platform};

    /// One member in words: `a/` folder, `a:text` file, `a->b` symbolic link, `a=b` hard link, `a|` pipe.
    fn member(word: &str) -> (Header, Vec<u8>) {
        let (path, kind, link, body) = if let Some((path, link)) = word.split_once("->") {
            (path, Kind::Symlink, link, "")
        } else if let Some((path, body)) = word.split_once(':') {
            (path, Kind::File, "", body)
        } else if let Some((path, link)) = word.split_once('=') {
            (path, Kind::HardLink, link, "")
        } else if let Some(path) = word.strip_suffix('|') {
            (path, Kind::Fifo, "", "")
        } else if word.ends_with('/') {
            (word, Kind::Dir, "", "")
        } else {
            (word, Kind::File, "", "")
        };
        let header = Header {
            link: link.into(),
            uid: rustix::process::getuid().as_raw().into(),
            gid: rustix::process::getgid().as_raw().into(),
            ..Header::new(path, kind, if kind == Kind::Dir { 0o751 } else { 0o640 }, MTIME)
        };
        (header, body.into())
    }

    const MTIME: Time = Time { seconds: 1_000_000_000, nanos: 5 };

    struct Made {
        dir: tempfile::TempDir,
        layout: Layout,
        manifest: Manifest,
    }

    fn image(layers: &[Vec<(Header, Vec<u8>)>]) -> Made {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path().join("l")).unwrap();
        let mut image = ImageBuilder::new(&layout, Platform::linux("amd64"));
        for members in layers {
            let filled = image.layer(Compression::Gzip, |out| {
                let mut tar = Writer::new(out);
                members.iter().try_for_each(|(header, body)| tar.member(header, body))?;
                tar.finish().map(drop)
            });
            filled.unwrap();
        }
        let made = image.finish().unwrap();
        let manifest = Image::read(&layout, &made).unwrap().manifest;
        Made { dir, layout, manifest }
    }

    fn words(layers: &[&str]) -> Made {
        let split = |layer: &&str| layer.split_whitespace().map(member).collect::<Vec<_>>();
        image(&layers.iter().map(split).collect::<Vec<_>>())
    }

    /// All there is below `dir`, in the words of `member`.
    fn show(dir: &Path, below: &str, out: &mut Vec<String>) {
        let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap()).collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = format!("{below}{}", entry.file_name().to_str().unwrap());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                out.push(format!("{path}/"));
                show(&entry.path(), &format!("{path}/"), out);
            } else if kind.is_symlink() {
                let link = fs::read_link(entry.path()).unwrap();
                out.push(format!("{path}->{}", link.display()));
            } else if kind.is_file() {
                out.push(format!("{path}:{}", fs::read_to_string(entry.path()).unwrap()));
            } else {
                out.push(format!("{path}|"));
            }
        }
    }

    #[track_caller]
    fn check(layers: &[&str], want: &str) {
        let made = words(layers);
        let target = made.dir.path().join("t");
        unpack(&made.layout, &made.manifest, &target, &Limits::default()).unwrap();
        let mut got = Vec::new();
        show(&target, "", &mut got);
        assert_eq!(got.join(" "), want);
    }

    #[track_caller]
    fn refused(layers: &[&str], limits: Limits, want: &str) {
        let made = words(layers);
        let outside = made.dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let error =
            unpack(&made.layout, &made.manifest, &made.dir.path().join("t"), &limits).unwrap_err();
        let text = model::chain(&error);
        assert!(text.contains(want), "{text}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(fs::read_dir(made.dir.path()).unwrap().count(), 2, "something was left");
    }

    #[test]
    fn upper_layers_replace_lower_ones() {
        check(&["a/ a/x:1 b:1 c->b", "a/x:2 b/ b/y:2 c:2"], "a/ a/x:2 b/ b/y:2 c:2");
        check(&["d/ d/x:1", "d:2"], "d:2");
        check(&["x:1 y=x", "x:2"], "x:2 y:1");
        check(&["p| deep/er/x:1"], "deep/ deep/er/ deep/er/x:1 p|");
    }

    #[test]
    fn whiteouts_hide_the_layers_below_and_only_those() {
        check(&["a/ a/x:1 a/y:1 z:1", "a/.wh.x .wh.z"], "a/ a/y:1");
        check(&["a/ a/x:1", "a/x:2 a/.wh.x"], "a/ a/x:2");
        check(&["a/ a/x:1 a/d/ a/d/q:1", "a/y:2 a/.wh..wh..opq a/z:2"], "a/ a/y:2 a/z:2");
        check(&["a/ a/b/ a/b/old:1", "a/b/new:2 .wh.a"], "a/ a/b/ a/b/new:2");
        check(&["x:1", ".wh.none none/.wh.x x/.wh.y .wh..wh.plnk"], "x:1");
    }

    #[test]
    fn links_are_followed_inside_the_image_only() {
        check(
            &["usr/ usr/lib/ lib->usr/lib abs->/usr", "lib/x:1 abs/y:1"],
            "abs->/usr lib->usr/lib usr/ usr/lib/ usr/lib/x:1 usr/y:1",
        );
        // Links that point above the root stop at the root.
        check(&["o/ out->../../o", "out/x:1"], "o/ o/x:1 out->../../o");
        // The last part is replaced, not followed.
        check(&["t:1 l->t", "l:2"], "l:2 t:1");
        // A hard link to a link is one more link.
        check(&["t:1 l->t", "h=l"], "h->t l->t t:1");
    }

    #[test]
    fn hostile_layers_are_refused_and_leave_nothing() {
        let any = Limits::default();
        refused(&["../outside/x:1"], any, "out of the image");
        refused(&["a/../../outside/x:1"], any, "out of the image");
        refused(&["x=../outside"], any, "out of the image");
        refused(&["x=none"], any, "link x: No such file");
        refused(&["loop->loop loop/x:1"], any, "symbolic links");
        refused(&["f:1 f/x:1"], any, "Not a directory");
        refused(&["a b c"], Limits { members: 2, ..any }, "more than 2 members");
        refused(&["a:1 b:2"], Limits { bytes: Bytes(2000), ..any }, "more than 1.9 KiB");
    }

    #[test]
    fn modes_times_and_attributes_are_kept() {
        let (mut file, body) = member("f:x");
        file.mode = 0o4750;
        let xattr = |name: &str| format!("SCHILY.xattr.{name}").into_bytes();
        file.records.insert(xattr("user.note"), b"1".to_vec());
        file.records.insert(xattr("trusted.overlay.opaque"), b"y".to_vec());
        let made = image(&[vec![member("d/"), (file, body), member("d/s->x"), member("./")]]);
        let target = made.dir.path().join("t");
        let took = unpack(&made.layout, &made.manifest, &target, &Limits::default()).unwrap();
        assert_eq!(took.members, 4);
        for (name, mode) in [("f", 0o4750), ("d", 0o751), ("d/s", 0o777), ("", 0o751)] {
            let meta = target.join(name).symlink_metadata().unwrap();
            assert_eq!(
                (meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()),
                (mode, MTIME.seconds, MTIME.nanos.into()),
                "{name}"
            );
        }
        let mut value = [0; 8];
        let file = target.join("f");
        assert_eq!(rustix::fs::lgetxattr(&file, "user.note", &mut value), Ok(1));
        assert!(rustix::fs::lgetxattr(&file, "trusted.overlay.opaque", &mut value).is_err());
    }

    #[test]
    fn a_folder_that_is_there_is_left_alone_and_an_unfinished_one_replaced() {
        let made = words(&["x:1"]);
        let target = made.dir.path().join("t");
        fs::create_dir_all(made.dir.path().join(".t.new/half")).unwrap();
        unpack(&made.layout, &made.manifest, &target, &Limits::default()).unwrap();
        assert_eq!(fs::read_dir(&target).unwrap().count(), 1);
        fs::remove_file(target.join("x")).unwrap();
        let again = unpack(&made.layout, &made.manifest, &target, &Limits::default()).unwrap();
        assert_eq!(again, Unpacked::default());
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    }
}
