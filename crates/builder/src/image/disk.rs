//! Raw disks: a partition table and what fills its partitions. What nothing fills is zero, and a
//! hole in the file.
//!
//! A [`Disk`] is a value; [`write`] makes a file of it, [`update`](super::update::update) changes a
//! file into just that.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use formats::gpt::Gpt;
use formats::layout::{PlanError, Role};
use formats::{Extent, fat};
use model::{Bytes, Diagnose, Diagnosis, Who};

pub(super) const CHUNK: usize = 1 << 20;
/// Disks are compared, and zeroes left out, by so many bytes.
pub(super) const HOLE: usize = 4096;

/// A disk that is to be written.
#[derive(Debug)]
pub(super) struct Disk<'a> {
    table: Gpt,
    pieces: Vec<Piece<'a>>,
}

/// Bytes of a disk, and where they lie.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    /// Where, in bytes from the start of the disk.
    pub at: u64,
    /// How many.
    pub length: u64,
    /// What.
    pub from: Content<'a>,
}

/// Where a piece's bytes are.
#[derive(Debug)]
pub(super) enum Content<'a> {
    /// Here.
    Bytes(Cow<'a, [u8]>),
    /// In this file, from its start.
    File(&'a Path),
}

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The profile makes no such disk.
    #[error("cannot lay out the disk")]
    Plan(#[from] PlanError),
    /// Files that do not fit.
    #[error("cannot make the partition {partition}")]
    Volume {
        /// Its name.
        partition: &'static str,
        /// Why not.
        source: fat::WriteError,
    },
    /// Something that is larger than its place.
    #[error("{path} takes {need}, its place on the disk has {have}")]
    Place {
        /// The file.
        path: PathBuf,
        /// Its length.
        need: Bytes,
        /// What there is.
        have: Bytes,
    },
    /// A disk that must not be changed into another.
    #[error("{path} {what}")]
    Foreign {
        /// The disk.
        path: PathBuf,
        /// What it is or has, as a verb.
        what: String,
    },
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

impl DiskError {
    pub(super) fn file(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> DiskError {
        move |source| DiskError::File { doing, path: path.to_owned(), source }
    }
}

impl Diagnose for DiskError {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self {
            DiskError::Plan(PlanError::TooBig { .. }) => {
                "leave packages out, or choose a profile with larger slots"
            }
            DiskError::Plan(PlanError::TooSmall { .. }) => {
                "take a larger disk, or a profile with smaller partitions"
            }
            DiskError::Plan(PlanError::Table { .. }) => {
                return Diagnosis::of(Who::Developer, "correct the profile");
            }
            DiskError::Volume { source, .. } => match source {
                fat::WriteError::Full { .. } | fat::WriteError::RootFull { .. } => {
                    "leave files out, or choose a larger profile"
                }
                _ => "give the file another name or place",
            },
            DiskError::Place { .. } => "take a smaller file",
            DiskError::Foreign { .. } => {
                "build without --update: that makes a new disk in its place"
            }
            DiskError::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space, or write elsewhere with --out"
            }
            DiskError::File { .. } => "check that the path is right and may be used",
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

impl<'a> Disk<'a> {
    /// A disk with this table and nothing in it.
    pub(super) fn new(table: Gpt) -> Disk<'a> {
        let pieces = table.to_extents().into_iter().map(|e| Piece::of(Bytes(0), e)).collect();
        Disk { table, pieces }
    }

    /// Puts these bytes at `at`.
    pub(super) fn bytes(&mut self, at: Bytes, bytes: &'a [u8]) {
        let length = bytes.len() as u64;
        self.pieces.push(Piece { at: at.0, length, from: Content::Bytes(bytes.into()) });
    }

    /// Its table.
    pub(super) fn table(&self) -> &Gpt {
        &self.table
    }

    /// All that is not zero, in no order.
    pub(super) fn pieces(&self) -> &[Piece<'a>] {
        &self.pieces
    }

    /// Its size.
    pub(super) fn size(&self) -> Bytes {
        self.table.size()
    }

    /// Makes a FAT volume of these files in the partition of this role, if the disk has one.
    pub(super) fn volume(
        &mut self,
        role: Role,
        files: &'a fat::Files,
        time: u64,
    ) -> Result<(), DiskError> {
        let Some((at, length)) = self.place(role) else { return Ok(()) };
        let Some(volume) = role.volume(length, time) else { return Ok(()) };
        let extents = fat::write(&volume, files)
            .map_err(|source| DiskError::Volume { partition: role.name(), source })?;
        self.pieces.extend(extents.into_iter().map(|e| Piece::of(at, e)));
        Ok(())
    }

    /// Puts a file at the start of the partition of this role, if the disk has one.
    pub(super) fn image(&mut self, role: Role, path: &'a Path) -> Result<(), DiskError> {
        match self.place(role) {
            Some((at, length)) => self.file(at, length, path),
            None => Ok(()),
        }
    }

    /// Puts a file at `at`, where it may take `room`.
    pub(super) fn file(&mut self, at: Bytes, room: Bytes, path: &'a Path) -> Result<(), DiskError> {
        let about = std::fs::metadata(path).map_err(DiskError::file("read", path))?;
        let need = Bytes(about.len());
        if need > room {
            return Err(DiskError::Place { path: path.to_owned(), need, have: room });
        }
        self.pieces.push(Piece { at: at.0, length: need.0, from: Content::File(path) });
        Ok(())
    }

    fn place(&self, role: Role) -> Option<(Bytes, Bytes)> {
        role.find(&self.table).map(|(_, p)| (p.offset(), p.length()))
    }
}

impl<'a> Piece<'a> {
    fn of(base: Bytes, extent: Extent<'a>) -> Piece<'a> {
        let length = extent.bytes.len() as u64;
        Piece { at: base.0 + extent.at, length, from: Content::Bytes(extent.bytes) }
    }
}

/// Writes a raw disk to `path`. It appears there only when it is whole.
pub(super) fn write(disk: &Disk<'_>, path: &Path) -> Result<(), DiskError> {
    whole(path, |file| {
        file.set_len(disk.size().0).map_err(DiskError::file("write", path))?;
        disk.pieces.iter().try_for_each(|piece| put(piece, file, path))
    })
}

fn put(piece: &Piece<'_>, to: &mut File, target: &Path) -> Result<(), DiskError> {
    match &piece.from {
        Content::Bytes(bytes) => to
            .seek(SeekFrom::Start(piece.at))
            .and_then(|_| to.write_all(bytes))
            .map_err(DiskError::file("write", target)),
        Content::File(path) => copy_sparse(path, to, piece.at, target),
    }
}

/// Writes a FAT volume as a file of its own to `path`. It appears there only when it is whole.
pub(super) fn write_volume(
    volume: &fat::Volume,
    files: &fat::Files,
    path: &Path,
) -> Result<(), DiskError> {
    let extents = fat::write(volume, files)
        .map_err(|source| DiskError::Volume { partition: Role::Config.name(), source })?;
    whole(path, |file| {
        let write = DiskError::file("write", path);
        file.set_len(volume.size.0).map_err(&write)?;
        for extent in &extents {
            file.seek(SeekFrom::Start(extent.at)).map_err(&write)?;
            file.write_all(&extent.bytes).map_err(&write)?;
        }
        Ok(())
    })
}

/// Copies a file to `path`. It appears there only when it is whole.
pub(super) fn copy(from: &Path, path: &Path) -> Result<(), DiskError> {
    whole(path, |file| {
        let mut source = File::open(from).map_err(DiskError::file("read", from))?;
        io::copy(&mut source, file).map_err(DiskError::file("write", path)).map(|_| ())
    })
}

/// Fills a new file beside `path` and moves it there when it is complete and on the disk.
pub(super) fn whole<E: From<DiskError>>(
    path: &Path,
    fill: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let path = &store::replaceable(path).map_err(DiskError::file("write", path))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let new = folder.join(format!(".{name}.{}.new", own_name()));
    let write = DiskError::file("write", path);
    let open = File::options().read(true).write(true).create(true).truncate(true).open(&new);
    let outcome = open.map_err(|e| E::from(write(e))).and_then(|mut file| {
        fill(&mut file)?;
        file.sync_all().map_err(&write)?;
        std::fs::rename(&new, path).map_err(&write)?;
        File::open(folder).and_then(|f| f.sync_all()).map_err(&write)?;
        Ok(())
    });
    if outcome.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&new);
    }
    outcome
}

/// A piece of a name that no other build has, in this process or another: two may write the same
/// file at the same time.
pub(crate) fn own_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Removes what builds that were killed left half-written in `folder`: files with an [`own_name`] in
/// theirs whose process is no more.
pub(super) fn clear(folder: &Path) -> Result<(), DiskError> {
    let failed = DiskError::file("look through", folder);
    for entry in std::fs::read_dir(folder).map_err(&failed)? {
        let entry = entry.map_err(&failed)?;
        let name = entry.file_name();
        let gone = name.to_str().and_then(maker).is_some_and(|pid| {
            pid != std::process::id() && !Path::new("/proc").join(pid.to_string()).exists()
        });
        if gone {
            let path = entry.path();
            std::fs::remove_file(&path).map_err(DiskError::file("remove", &path))?;
        }
    }
    Ok(())
}

/// The process that a half-written file is of.
fn maker(name: &str) -> Option<u32> {
    let own = name.strip_prefix('.')?.rsplit('.').find_map(|part| {
        part.split_once('-')
            .filter(|(_, count)| count.parse::<u32>().is_ok())
            .and_then(|(pid, _)| pid.parse().ok())
    });
    own.filter(|_| [".new", ".raw"].iter().any(|end| name.ends_with(end)))
}

/// Copies a file to `at` in `to`, which is zero there; zeroes are skipped.
fn copy_sparse(from: &Path, to: &mut File, at: u64, target: &Path) -> Result<(), DiskError> {
    let (read, write) = (DiskError::file("read", from), DiskError::file("write", target));
    let mut source = File::open(from).map_err(&read)?;
    let mut buffer = vec![0; CHUNK];
    let mut at = at;
    loop {
        let got = source.read(&mut buffer).map_err(&read)?;
        if got == 0 {
            return Ok(());
        }
        for piece in buffer[..got].chunks(HOLE) {
            if piece.iter().any(|b| *b != 0) {
                to.seek(SeekFrom::Start(at)).map_err(&write)?;
                to.write_all(piece).map_err(&write)?;
            }
            at += piece.len() as u64;
        }
    }
}
