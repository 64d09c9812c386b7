//! Packed blocks of earlier images on disk, so that only what changed is packed again.
//!
//! Each build adds one file with the blocks that it had to pack: the blocks, an index, and a foot
//! that says where the index is. After a crash a file is there whole or not at all, and every block
//! has its own checksum: a damaged one counts as absent. When there are many files, or much in
//! them that is no longer used, the blocks of the latest build go into one file, and the others go
//! away.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use formats::squashfs::{Blocks, Form};
use model::Digest;

use super::disk::own_name;

/// Files beyond that are joined.
const FILES_MAX: usize = 24;
/// Folders of blocks beyond that make room, the longest unused first.
const FOLDERS_MAX: usize = 8;
/// More than an index of any image: a bound for what is read of a damaged file.
const INDEX_MAX: u64 = 256 << 20;
const MAGIC: &[u8; 8] = b"evblk\0\0\x01";
const FOOT: usize = 28;
const ENTRY: usize = 49;

/// The blocks of one kind of image.
#[derive(Debug)]
pub(super) struct KeptBlocks {
    folder: PathBuf,
    files: Vec<File>,
    known: HashMap<Digest, Entry>,
    /// What the present build found here.
    used: HashSet<Digest>,
    /// What it added. `None` when nothing can be kept, which is no error.
    fresh: Option<Fresh>,
}

/// Where a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    file: usize,
    at: u64,
    length: u32,
    sum: u32,
    form: Form,
}

/// A file that is being written.
#[derive(Debug)]
struct Fresh {
    path: PathBuf,
    out: BufWriter<File>,
    at: u64,
    index: Vec<u8>,
    count: u64,
}

impl KeptBlocks {
    /// The blocks of images of this name in `cache`. What cannot be read is not there.
    pub(super) fn open(cache: &Path, name: &str) -> io::Result<KeptBlocks> {
        let all = cache.join("blocks");
        let folder = all.join(name);
        fs::create_dir_all(&folder)?;
        make_room(&all, &folder);
        let mut blocks = KeptBlocks {
            fresh: Fresh::create(&folder).ok(),
            folder,
            files: Vec::new(),
            known: HashMap::new(),
            used: HashSet::new(),
        };
        for path in names(&blocks.folder)? {
            // Another build may have joined it with others meanwhile.
            let Ok(file) = File::open(&path) else { continue };
            let at = blocks.files.len();
            match read_index(&file, at) {
                Some(entries) => {
                    blocks.known.extend(entries);
                    blocks.files.push(file);
                }
                None => drop(fs::remove_file(&path)),
            }
        }
        Ok(blocks)
    }

    /// Keeps what was added. To be called when the image is whole.
    pub(super) fn keep(mut self) -> io::Result<()> {
        let Some(fresh) = self.fresh.take() else { return Ok(()) };
        // Whoever joins files must not meet another who does.
        let lock = File::open(&self.folder)?;
        lock.lock()?;
        let old = names(&self.folder)?;
        let length = |path: &PathBuf| fs::metadata(path).map_or(0, |about| about.len());
        let there: u64 = old.iter().map(length).sum();
        let live: u64 = self
            .used
            .iter()
            .filter_map(|key| self.known.get(key))
            .map(|e| u64::from(e.length))
            .sum();
        if old.len() < FILES_MAX && there <= 2 * (live + fresh.at) + (64 << 20) {
            return fresh.finish(&self.folder);
        }
        let mut all = fresh;
        let mut bytes = Vec::new();
        let used: Vec<Digest> = self.used.iter().copied().collect();
        for key in used {
            if let Some(form) = self.read(&key, &mut bytes) {
                all.add(&key, form, &bytes)?;
            }
        }
        all.finish(&self.folder)?;
        old.iter().for_each(|path| drop(fs::remove_file(path)));
        Ok(())
    }

    fn read(&self, key: &Digest, into: &mut Vec<u8>) -> Option<Form> {
        let entry = self.known.get(key)?;
        into.resize(usize::try_from(entry.length).ok()?, 0);
        self.files.get(entry.file)?.read_exact_at(into, entry.at).ok()?;
        (crc32fast::hash(into) == entry.sum).then_some(entry.form)
    }
}

impl Blocks for KeptBlocks {
    fn get(&mut self, key: &Digest, into: &mut Vec<u8>) -> Option<Form> {
        let form = self.read(key, into)?;
        self.used.insert(*key);
        Some(form)
    }

    fn put(&mut self, key: &Digest, form: Form, bytes: &[u8]) {
        let kept = self.fresh.as_mut().map(|fresh| fresh.add(key, form, bytes));
        if let Some(Err(_)) = kept {
            // A full disk, most likely: the image is what matters.
            self.fresh = None;
        }
    }
}

impl Fresh {
    fn create(folder: &Path) -> io::Result<Fresh> {
        let path = folder.join(format!(".{}.new", own_name()));
        let out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        Ok(Fresh { path, out, at: 0, index: Vec::new(), count: 0 })
    }

    fn add(&mut self, key: &Digest, form: Form, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.index.extend(key.0);
        self.index.extend(self.at.to_le_bytes());
        self.index.extend(length.to_le_bytes());
        self.index.extend(crc32fast::hash(bytes).to_le_bytes());
        self.index.push(match form {
            Form::Packed => 0,
            Form::Stored => 1,
            Form::Hole => 2,
        });
        self.at += bytes.len() as u64;
        self.count += 1;
        Ok(())
    }

    /// Gives the file its name. It is not synced: after a power cut checksums tell what is damaged.
    fn finish(mut self, folder: &Path) -> io::Result<()> {
        if self.count == 0 {
            return Ok(()); // its end removes the file
        }
        let mut foot = self.at.to_le_bytes().to_vec();
        foot.extend((self.index.len() as u64).to_le_bytes());
        foot.extend(crc32fast::hash(&self.index).to_le_bytes());
        foot.extend(MAGIC);
        self.out.write_all(&self.index)?;
        self.out.write_all(&foot)?;
        self.out.flush()?;
        let last = names(folder)?.into_iter().filter_map(|path| number(&path)).max().unwrap_or(0);
        fs::rename(&self.path, folder.join(format!("{:010}.blocks", last + 1)))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // After a rename it is gone already.
        let _ = fs::remove_file(&self.path);
    }
}

/// The files of blocks in a folder, the oldest first. Leavings of builds that were cut off go away.
fn names(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if number(&path).is_some() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".blocks")?.parse().ok()
}

/// The entries of a file. `None`: it is damaged.
fn read_index(file: &File, number: usize) -> Option<Vec<(Digest, Entry)>> {
    let length = file.metadata().ok()?.len();
    let mut foot = [0; FOOT];
    let foot_at = length.checked_sub(FOOT as u64)?;
    file.read_exact_at(&mut foot, foot_at).ok()?;
    let long = |at: usize| Some(u64::from_le_bytes(foot.get(at..at + 8)?.try_into().ok()?));
    let (at, size) = (long(0)?, long(8)?);
    let sum = u32::from_le_bytes(foot.get(16..20)?.try_into().ok()?);
    if foot[20..] != *MAGIC || size > INDEX_MAX || at.checked_add(size)? != foot_at {
        return None;
    }
    let mut index = vec![0; usize::try_from(size).ok()?];
    file.read_exact_at(&mut index, at).ok()?;
    if crc32fast::hash(&index) != sum {
        return None;
    }
    index.chunks_exact(ENTRY).map(|bytes| entry(bytes, number)).collect()
}

fn entry(bytes: &[u8], file: usize) -> Option<(Digest, Entry)> {
    let key = Digest(bytes.get(..32)?.try_into().ok()?);
    let at = u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?);
    let length = u32::from_le_bytes(bytes.get(40..44)?.try_into().ok()?);
    let sum = u32::from_le_bytes(bytes.get(44..48)?.try_into().ok()?);
    let form = match bytes.get(48)? {
        0 => Form::Packed,
        1 => Form::Stored,
        2 => Form::Hole,
        _ => return None,
    };
    // No block of a squashfs is longer: what reads this allocates no more.
    (length <= formats::squashfs::BLOCK_MAX).then_some((key, Entry { file, at, length, sum, form }))
}

/// Removes the folders that were not used for longest, and what builds that were cut off left in
/// ours. What cannot be removed now is left for later.
fn make_room(all: &Path, ours: &Path) {
    let Ok(lock) = File::open(ours) else { return };
    if lock.try_lock().is_ok() {
        let mine = format!(".{}-", std::process::id());
        for entry in fs::read_dir(ours).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = name.strip_prefix('.').and_then(|rest| rest.split('-').next());
            let runs = id.is_some_and(|id| Path::new("/proc").join(id).exists());
            if name.ends_with(".new") && !name.starts_with(&mine) && !runs {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
    let entries = fs::read_dir(all).into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries
        .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
        .filter(|(_, path)| path != ours)
        .collect();
    folders.sort();
    let surplus = (folders.len() + 1).saturating_sub(FOLDERS_MAX);
    for (_, path) in folders.into_iter().take(surplus) {
        let _ = fs::remove_dir_all(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Digest {
        Digest([n; 32])
    }

    /// A build that wants these blocks and packs those that are not there: how many it found.
    fn build(cache: &Path, wanted: &[u8]) -> usize {
        let mut blocks = KeptBlocks::open(cache, "x").unwrap();
        let mut bytes = Vec::new();
        for n in wanted {
            match blocks.get(&key(*n), &mut bytes) {
                Some(form) => {
                    assert_eq!((form, &bytes), (Form::Packed, &vec![*n; usize::from(*n)]));
                }
                None => blocks.put(&key(*n), Form::Packed, &vec![*n; usize::from(*n)]),
            }
        }
        let found = blocks.used.len();
        blocks.keep().unwrap();
        found
    }

    fn files(cache: &Path) -> Vec<PathBuf> {
        names(&cache.join("blocks/x")).unwrap()
    }

    #[test]
    fn what_one_build_packed_the_next_one_finds() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(build(dir.path(), &[1, 2, 3]), 0);
        assert_eq!(build(dir.path(), &[1, 2, 4]), 2);
        assert_eq!(build(dir.path(), &[1, 2, 3, 4]), 4);
        // The last one added nothing.
        assert_eq!(files(dir.path()).len(), 2);
        assert_eq!(fs::read_dir(dir.path().join("blocks/x")).unwrap().count(), 2);
    }

    #[test]
    fn many_files_become_one_with_what_is_still_used() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..=FILES_MAX {
            build(dir.path(), &[1, 2, u8::try_from(n).unwrap() + 10]);
        }
        assert_eq!(files(dir.path()).len(), 1);
        assert_eq!(build(dir.path(), &[1, 2, 10]), 2);
    }

    #[test]
    fn damage_and_leavings_cost_time_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        build(dir.path(), &[5, 6]);
        let file = &files(dir.path())[0];
        let whole = fs::read(file).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            let _ = fs::remove_file(file);
            File::create(file).unwrap().write_all(&bytes).unwrap();
            let mut blocks = KeptBlocks::open(dir.path(), "x").unwrap();
            let mut got = Vec::new();
            for n in [5, 6] {
                if blocks.get(&key(n), &mut got).is_some() {
                    assert_eq!(got, vec![n; usize::from(n)], "byte {at}");
                }
            }
            drop(blocks);
            File::create(file).unwrap().write_all(&whole[..at]).unwrap();
            drop(KeptBlocks::open(dir.path(), "x").unwrap());
        }
        // A build that was cut off: no process has that number.
        File::create(dir.path().join("blocks/x/.4194999-0.new")).unwrap();
        assert_eq!(build(dir.path(), &[7]), 0);
        assert_eq!(fs::read_dir(dir.path().join("blocks/x")).unwrap().count(), 1);
    }

    #[test]
    fn kinds_of_images_make_room_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..2 * FOLDERS_MAX {
            drop(KeptBlocks::open(dir.path(), &n.to_string()).unwrap());
        }
        assert_eq!(fs::read_dir(dir.path().join("blocks")).unwrap().count(), FOLDERS_MAX);
    }
}
