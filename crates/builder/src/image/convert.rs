//! Disks of one format into another, and finished raw disks into what users asked for.
//!
//! Every image appears under its name only when it is whole. The bytes follow from the disk, the
//! format, the size and the time alone.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::num::NonZero;
use std::ops::Range;
use std::path::{Path, PathBuf};

use formats::disk::{self, Disk, Grown, HEAD};
use formats::qcow2::Packing;
use formats::{gcp, parallels, qcow2, vdi, vhdx, vmdk};
use model::{Bytes, Diagnose, Diagnosis, Who};

use super::disk::{DiskError, own_name, whole};
use super::{FileFacts, Progress};

/// What Google Cloud wants the size of a disk to be a multiple of.
const GCP_STEP: Bytes = Bytes::gib(1);
const CHUNK: usize = 1 << 20;

/// What a live disk or an installer is wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A disk.
    Disk(disk::Format),
    /// An installer as an ISO image.
    Iso,
    /// An installer as an archive with what a server hands out.
    Net,
}

impl Format {
    /// A disk byte for byte.
    pub const RAW: Format = Format::Disk(disk::Format::Raw);
    /// A disk for QEMU.
    pub const QCOW2: Format = Format::Disk(disk::Format::Qcow2);

    /// All of them.
    pub fn all() -> impl Iterator<Item = Format> {
        disk::Format::ALL.into_iter().map(Format::Disk).chain([Format::Iso, Format::Net])
    }

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Disk(format) => format.name(),
            Format::Iso => "iso",
            Format::Net => "net",
        }
    }

    /// By its name.
    pub fn by_name(name: &str) -> Option<Format> {
        Format::all().find(|format| format.name() == name)
    }
}

/// What is to become of a disk image.
#[derive(Debug, Clone)]
pub struct Conversion {
    /// The image; of Parallels also the folder with the image and its description.
    pub from: PathBuf,
    /// Its format. `None`: what its first bytes say.
    pub from_format: Option<disk::Format>,
    /// The new format.
    pub to: disk::Format,
    /// The size of the new disk. `None`: that of the old one. A disk for Google Cloud is rounded up
    /// to whole GiB, which is all that is taken there.
    pub size: Option<Bytes>,
    /// Times in archives, in seconds since 1970.
    pub time: u64,
}

/// What was converted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Converted {
    /// The new image.
    pub path: PathBuf,
    /// The format of the old image.
    pub from: &'static str,
    /// The format of the new one.
    pub to: &'static str,
    /// The size of the disk inside.
    pub size: Bytes,
    /// What the new image takes on the disk that it lies on.
    pub stored: Bytes,
}

/// Why a disk was not converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The old image.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: disk::Error,
    },
    /// The new image.
    #[error("cannot make {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: disk::Error,
    },
    /// A folder that is no disk of Parallels.
    #[error("{0} is a folder without a disk of Parallels")]
    Folder(PathBuf),
    /// Something that must not be replaced by a disk of Parallels.
    #[error("{0} is there and is no disk of Parallels, so it is not replaced")]
    InTheWay(PathBuf),
    /// A file.
    #[error(transparent)]
    File(#[from] DiskError),
}

impl ConvertError {
    /// What went wrong between these two images: the error knows with which.
    fn between(from: &Path, to: &Path) -> impl Fn(disk::Error) -> ConvertError {
        move |source| match source {
            disk::Error::Read { .. } | disk::Error::Header(_) | disk::Error::Damaged { .. } => {
                ConvertError::Read { path: from.to_owned(), source }
            }
            _ => ConvertError::Write { path: to.to_owned(), source },
        }
    }
}

impl Diagnose for ConvertError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            ConvertError::Read { source, .. } | ConvertError::Write { source, .. } => {
                source.diagnose()
            }
            ConvertError::Folder(_) => Diagnosis::of(
                Who::Operator,
                format!("give a disk image, or a folder with {}", parallels::DESCRIPTION),
            ),
            ConvertError::InTheWay(_) => Diagnosis::of(
                Who::Operator,
                "choose a name that nothing has, or remove what has it",
            ),
            ConvertError::File(source) => source.diagnose(),
        }
    }
}

/// What an image of this format is called in `dist`: `live` gives `live.qcow2`.
pub fn file_name(stem: &str, format: disk::Format) -> String {
    match format {
        disk::Format::Gcp => format!("{stem}.img.tar.gz"),
        disk::Format::VmdkStream => format!("{stem}-stream.vmdk"),
        _ => format!("{stem}.{format}"),
    }
}

/// Writes a finished raw disk in another format beside it, under the name that the format has in
/// `dist`. The disk becomes `media` large, if it is smaller.
pub fn write_as(
    raw: &Path,
    format: disk::Format,
    media: Bytes,
    time: u64,
    progress: &dyn Progress,
) -> Result<FileFacts, ConvertError> {
    let own = fs::metadata(raw).map_err(DiskError::file("read", raw))?.len();
    let conversion = Conversion {
        from: raw.to_owned(),
        from_format: Some(disk::Format::Raw),
        to: format,
        size: Some(Bytes(own.max(media.0))),
        time,
    };
    let stem = raw.file_stem().unwrap_or_default().to_string_lossy();
    let name = file_name(&stem, format);
    let made = convert(&conversion, &raw.with_file_name(&name), progress)?;
    Ok(FileFacts { name, size: made.size, digest: None })
}

/// Writes the disk in an image as another image to `path`, which appears only when it is whole. A
/// disk for Parallels is a folder, unless `path` ends in `.hds`.
pub fn convert(
    conversion: &Conversion,
    path: &Path,
    progress: &dyn Progress,
) -> Result<Converted, ConvertError> {
    let (from, format, disk) = open(&conversion.from, conversion.from_format)?;
    let failed = ConvertError::between(&from, path);
    let mut size = conversion.size.unwrap_or(disk.size());
    if conversion.to == disk::Format::Gcp {
        size = size.round_up(GCP_STEP);
    }
    let grown = Grown::new(disk, size).map_err(&failed)?;
    let mut disk = Watched::new(grown, progress).map_err(&failed)?;
    if conversion.to == disk::Format::Parallels && path.extension().is_none_or(|e| e != "hds") {
        write_bundle(&mut disk, path, &failed)?;
    } else {
        whole(path, |file| write(&mut disk, conversion, file, path, &failed))?;
    }
    let stored = stored(path).map_err(DiskError::file("look at", path))?;
    let (from, to) = (format.name(), conversion.to.name());
    Ok(Converted { path: path.to_owned(), from, to, size, stored })
}

/// Opens the disk in an image: the file it really is in, its format, and the disk.
pub fn open(
    path: &Path,
    format: Option<disk::Format>,
) -> Result<(PathBuf, disk::Format, Box<dyn Disk>), ConvertError> {
    let path = if path.is_dir() { in_bundle(path)? } else { path.to_owned() };
    let (format, disk) = open_file(&path, format)?;
    Ok((path, format, disk))
}

fn open_file(
    path: &Path,
    format: Option<disk::Format>,
) -> Result<(disk::Format, Box<dyn Disk>), ConvertError> {
    let read = DiskError::file("read", path);
    let failed = |source| ConvertError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(DiskError::file("open", path))?;
    let format = match format {
        Some(format) => format,
        None => {
            let mut head = Vec::new();
            (&file).take(HEAD as u64).read_to_end(&mut head).map_err(&read)?;
            disk::Format::of(&head).map_err(|e| failed(e.into()))?
        }
    };
    let data = match format {
        disk::Format::Raw => Some(host::sparse::stretches(&file).map_err(&read)?),
        _ => None,
    };
    Ok((format, disk::open(format, file, data).map_err(failed)?))
}

fn write(
    disk: &mut dyn Disk,
    conversion: &Conversion,
    file: &mut File,
    path: &Path,
    failed: &dyn Fn(disk::Error) -> ConvertError,
) -> Result<(), ConvertError> {
    let threads = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match conversion.to {
        disk::Format::Raw => {
            let size = disk.size().0;
            copy(disk, file).map_err(failed)?;
            file.set_len(size).map_err(DiskError::file("write", path))?;
            Ok(())
        }
        disk::Format::Qcow2 => {
            let out = BufWriter::with_capacity(CHUNK, file);
            qcow2::write(disk, out, Packing::Zlib, threads)
        }
        disk::Format::Vdi => vdi::write(disk, file),
        disk::Format::Vmdk => vmdk::write(disk, file, &name),
        disk::Format::VmdkStream => {
            let out = BufWriter::with_capacity(CHUNK, file);
            vmdk::write_stream(disk, out, &name, threads)
        }
        disk::Format::Vhdx => vhdx::write(disk, file),
        disk::Format::Parallels => parallels::write(disk, file).map(|_| ()),
        disk::Format::Gcp => {
            let out = BufWriter::with_capacity(CHUNK, file);
            gcp::write(disk, out, conversion.time, threads)
        }
    }
    .map_err(failed)
}

/// Writes a folder for Parallels: the disk and its description.
fn write_bundle(
    disk: &mut dyn Disk,
    path: &Path,
    failed: &dyn Fn(disk::Error) -> ConvertError,
) -> Result<(), ConvertError> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let hidden = |what| folder.join(format!(".{stem}.{}.{what}", own_name()));
    let (new, old) = (hidden("new"), hidden("old"));
    let write = |path| DiskError::file("write", path);
    if path.symlink_metadata().is_ok() && !is_bundle(path) {
        return Err(ConvertError::InTheWay(path.to_owned()));
    }
    fs::create_dir(&new).map_err(write(&new))?;
    let mut fill = || -> Result<(), ConvertError> {
        let mut id = None;
        let image = new.join(parallels::file_name(&stem));
        whole(&image, |file| {
            id = Some(parallels::write(disk, file).map_err(failed)?);
            Ok::<_, ConvertError>(())
        })?;
        let text = parallels::description(&stem, disk.size(), id.unwrap_or_default());
        store::save(&new, parallels::DESCRIPTION, text.as_bytes())
            .map_err(|e| write(&new)(io::Error::other(e)))?;
        // A folder cannot be replaced as one step: for a moment there is none.
        match fs::rename(path, &old) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(write(path)(e).into()),
            _ => {}
        }
        fs::rename(&new, path).map_err(|e| {
            // The old one was good until now; if it cannot come back, it stays beside.
            let _ = fs::rename(&old, path);
            write(path)(e)
        })?;
        // What is in it was ours alone.
        let _ = fs::remove_dir_all(&old);
        File::open(folder).and_then(|f| f.sync_all()).map_err(write(path))?;
        Ok(())
    };
    let outcome = fill();
    // The first error is the one to tell.
    let _ = fs::remove_dir_all(&new);
    outcome
}

/// Whether a folder is a disk of Parallels and holds nothing else: one that may be replaced.
fn is_bundle(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    let ours = |name: &str| name == parallels::DESCRIPTION || name.ends_with(".hds");
    let mut all = entries.map(|e| e.is_ok_and(|e| e.file_name().to_str().is_some_and(ours)));
    folder.join(parallels::DESCRIPTION).is_file() && all.all(|one| one)
}

/// The file with the disk in a folder of Parallels.
fn in_bundle(folder: &Path) -> Result<PathBuf, ConvertError> {
    let description = folder.join(parallels::DESCRIPTION);
    let none = || ConvertError::Folder(folder.to_owned());
    let mut text = String::new();
    let file = File::open(&description).map_err(|_| none())?;
    file.take(CHUNK as u64).read_to_string(&mut text).map_err(|_| none())?;
    parallels::described_file(&text).map(|name| folder.join(name)).ok_or_else(none)
}

/// Copies what a disk holds; what is zero stays a hole.
fn copy(disk: &mut dyn Disk, file: &mut File) -> Result<(), disk::Error> {
    let mut buffer = vec![0; CHUNK];
    let mut out = disk::SparseOut::new(file, disk::Format::Raw);
    let mut at = 0;
    while let Some(data) = disk.next_data(at)? {
        at = data.start;
        while at < data.end {
            let here = usize::try_from(data.end - at).unwrap_or(CHUNK).min(CHUNK);
            disk.read_at(at, &mut buffer[..here])?;
            out.put(at, &buffer[..here])?;
            at += here as u64;
        }
    }
    Ok(())
}

/// Bytes that a file takes, or all files of a folder; holes take none.
fn stored(path: &Path) -> io::Result<Bytes> {
    use std::os::unix::fs::MetadataExt;
    let own = |path: &Path| fs::metadata(path).map(|about| about.blocks() * 512);
    if !path.is_dir() {
        return own(path).map(Bytes);
    }
    let files = fs::read_dir(path)?.map(|entry| own(&entry?.path()));
    files.sum::<io::Result<u64>>().map(Bytes)
}

/// A disk that tells how much of it was read.
struct Watched<'a, D> {
    disk: D,
    progress: &'a dyn Progress,
    done: u64,
    total: u64,
}

impl<'a, D: Disk> Watched<'a, D> {
    fn new(mut disk: D, progress: &'a dyn Progress) -> Result<Watched<'a, D>, disk::Error> {
        let (mut at, mut total) = (0, 0);
        while let Some(data) = disk.next_data(at)? {
            total += data.end - data.start;
            at = data.end;
        }
        Ok(Watched { disk, progress, done: 0, total })
    }
}

impl<D: Disk> Disk for Watched<'_, D> {
    fn size(&self) -> Bytes {
        self.disk.size()
    }

    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> Result<(), disk::Error> {
        self.disk.read_at(at, buf)?;
        let before = self.done / CHUNK as u64;
        self.done += buf.len() as u64;
        if self.done / CHUNK as u64 != before {
            self.progress.bytes(Bytes(self.done.min(self.total)), Bytes(self.total));
        }
        Ok(())
    }

    fn next_data(&mut self, at: u64) -> Result<Option<Range<u64>>, disk::Error> {
        self.disk.next_data(at)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn conversion(from: &Path, to: disk::Format) -> Conversion {
        Conversion { from: from.to_owned(), from_format: None, to, size: None, time: 7 }
    }

    #[test]
    fn any_format_converts_to_any_and_back_to_the_same_disk() {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("disk.raw");
        let file = File::create(&raw).unwrap();
        file.set_len(5 << 20).unwrap();
        file.write_all_at(b"something", 700_000).unwrap();
        file.write_all_at(b"else", (5 << 20) - 4).unwrap();
        let readable = disk::Format::ALL.into_iter().filter(|f| *f != disk::Format::Gcp);
        let mut last = raw.clone();
        for format in readable {
            let next = dir.path().join(file_name("next", format));
            let made = convert(&conversion(&last, format), &next, &()).unwrap();
            assert_eq!((made.size, made.to), (Bytes::mib(5), format.name()));
            let back = dir.path().join("back.raw");
            convert(&conversion(&next, disk::Format::Raw), &back, &()).unwrap();
            assert!(fs::read(&back).unwrap() == fs::read(&raw).unwrap(), "{format}");
            last = next;
        }
        let left = fs::read_dir(dir.path()).unwrap().flatten();
        let hidden = left.filter(|e| e.file_name().to_string_lossy().starts_with('.'));
        assert_eq!(hidden.count(), 0);
    }

    #[test]
    fn a_folder_for_parallels_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (raw, bundle) = (dir.path().join("live.raw"), dir.path().join("live.parallels"));
        File::create(&raw).unwrap().set_len(1 << 20).unwrap();
        fs::create_dir(&bundle).unwrap();
        File::create(bundle.join("thesis")).unwrap();
        let refused = write_as(&raw, disk::Format::Parallels, Bytes::mib(3), 0, &()).unwrap_err();
        assert!(matches!(refused, ConvertError::InTheWay(_)), "{refused}");
        assert!(bundle.join("thesis").exists());
        fs::rename(bundle.join("thesis"), bundle.join(parallels::DESCRIPTION)).unwrap();
        File::create(bundle.join("old.hds")).unwrap();
        let facts = write_as(&raw, disk::Format::Parallels, Bytes::mib(3), 0, &()).unwrap();
        assert_eq!((facts.name.as_str(), facts.size), ("live.parallels", Bytes::mib(3)));
        let mut names: Vec<_> =
            fs::read_dir(&bundle).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(
            names,
            ["DiskDescriptor.xml", "live.0.{5fbaabe3-6958-40ff-92a7-860e329aab41}.hds"]
        );
        let (_, format, disk) = open(&bundle, None).unwrap();
        assert_eq!((format, disk.size()), (disk::Format::Parallels, Bytes::mib(3)));
    }

    #[test]
    fn a_disk_for_google_has_whole_gibibytes_and_no_disk_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("live.raw");
        File::create(&raw).unwrap().set_len(3 << 20).unwrap();
        let facts = write_as(&raw, disk::Format::Gcp, Bytes::mib(1025), 0, &()).unwrap();
        assert_eq!((facts.name.as_str(), facts.size), ("live.img.tar.gz", Bytes::gib(2)));
        let small = Conversion { size: Some(Bytes::mib(2)), ..conversion(&raw, disk::Format::Vdi) };
        let error = convert(&small, &dir.path().join("x.vdi"), &()).unwrap_err();
        assert!(matches!(error, ConvertError::Write { .. }), "{error}");
        assert!(!dir.path().join("x.vdi").exists());
        let archive = conversion(&dir.path().join("live.img.tar.gz"), disk::Format::Raw);
        let error = convert(&archive, &dir.path().join("x.raw"), &()).unwrap_err();
        assert!(model::chain(&error).contains("compressed with gzip"), "{error}");
    }
}
