//! Live disks: raw and QCOW2. Free space stays a hole in the file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use formats::gpt::AddError;
use formats::layout::{Profile, Role};
use formats::{Extent, fat, qcow2};
use model::{Bytes, Diagnose, Diagnosis, Who};

use super::Arch;
use super::config::LABEL;

const ESP_SERIAL: u32 = 0x4556_4553;
const CHUNK: usize = 1 << 20;
const HOLE: usize = 4096;

/// What goes onto a live disk.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// Sizes of the partitions.
    pub profile: Profile,
    /// Says what the firmware looks for.
    pub arch: Arch,
    /// The slot image.
    pub slot: &'a Path,
    /// The unified kernel image that the firmware starts.
    pub uki: &'a Path,
    /// The files of the CONFIG partition.
    pub config: &'a fat::Files,
    /// All times in FAT volumes, in seconds since 1970.
    pub time: u64,
}

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The slot image does not fit.
    #[error("the slot image takes {need}, a slot of profile {profile} has {have}: {over} too much")]
    TooBig {
        /// The image.
        need: Bytes,
        /// The slot.
        have: Bytes,
        /// The difference.
        over: Bytes,
        /// The profile's name.
        profile: &'static str,
    },
    /// The profile makes no table.
    #[error("the profile {profile} makes no partition table")]
    Table {
        /// The profile's name.
        profile: &'static str,
        /// Why not.
        source: AddError,
    },
    /// Files that do not fit.
    #[error("cannot make the partition {partition}")]
    Volume {
        /// Its name.
        partition: &'static str,
        /// Why not.
        source: fat::WriteError,
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
            DiskError::TooBig { .. } => "leave packages out, or choose a profile with larger slots",
            DiskError::Volume { source, .. } => match source {
                fat::WriteError::Full { .. } | fat::WriteError::RootFull { .. } => {
                    "leave files out, or choose a larger profile"
                }
                _ => "give the file another name or place",
            },
            DiskError::Table { .. } => return Diagnosis::of(Who::Developer, "correct the profile"),
            DiskError::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space, or write elsewhere with --out"
            }
            DiskError::File { .. } => "check that the path is right and may be used",
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

/// Writes a raw live disk to `path`. It appears there only when it is whole.
pub(super) fn write_raw(parts: &Parts<'_>, path: &Path) -> Result<Bytes, DiskError> {
    let profile = parts.profile;
    let table =
        profile.live().map_err(|source| DiskError::Table { profile: profile.name, source })?;
    let about = std::fs::metadata(parts.slot).map_err(DiskError::file("read", parts.slot))?;
    let (need, have) = (Bytes(about.len()), profile.slot);
    if need > have {
        let over = Bytes(need.0 - have.0);
        return Err(DiskError::TooBig { need, have, over, profile: profile.name });
    }
    let uki = std::fs::read(parts.uki).map_err(DiskError::file("read", parts.uki))?;
    let esp_files = fat::Files::from([(format!("EFI/BOOT/{}", parts.arch.loader()), uki)]);
    let esp = volume(Role::Esp, profile.esp, ESP_SERIAL, &esp_files, parts.time)?;
    let config = super::config::volume(profile.config, parts.time);
    let config = fat::write(&config, parts.config)
        .map_err(|source| DiskError::Volume { partition: Role::Config.name(), source })?;
    let offset =
        |role: Role| table.partitions().get(&role.number()).map(|p| p.offset()).unwrap_or_default();
    whole(path, |file| {
        let write = DiskError::file("write", path);
        file.set_len(table.size().0).map_err(&write)?;
        write_extents(file, Bytes(0), &table.to_extents()).map_err(&write)?;
        write_extents(file, offset(Role::Esp), &esp).map_err(&write)?;
        write_extents(file, offset(Role::Config), &config).map_err(&write)?;
        copy_sparse(parts.slot, file, offset(Role::ImgA), path)
    })?;
    Ok(table.size())
}

/// Writes a raw disk as QCOW2 of `size`, or of its own if that is larger, to `path`. It appears
/// there only when it is whole.
pub(super) fn write_qcow2(raw: &Path, size: Bytes, path: &Path) -> Result<Bytes, DiskError> {
    let mut from = File::open(raw).map_err(DiskError::file("read", raw))?;
    let own = from.metadata().map_err(DiskError::file("read", raw))?.len();
    let size = Bytes(own.max(size.0));
    whole(path, |file| {
        let out = io::BufWriter::with_capacity(CHUNK, file);
        qcow2::write(&mut from, size, out).map_err(DiskError::file("write", path))
    })?;
    Ok(size)
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
        write_extents(file, Bytes(0), &extents).map_err(&write)
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
fn whole(
    path: &Path,
    fill: impl FnOnce(&mut File) -> Result<(), DiskError>,
) -> Result<(), DiskError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().unwrap_or(Path::new("."));
    let new = folder.join(format!(".{name}.{}.new", own_name()));
    let write = DiskError::file("write", path);
    let open = File::options().read(true).write(true).create(true).truncate(true).open(&new);
    let outcome = open.map_err(&write).and_then(|mut file| {
        fill(&mut file)?;
        file.sync_all().map_err(&write)?;
        std::fs::rename(&new, path).map_err(&write)?;
        File::open(folder).and_then(|f| f.sync_all()).map_err(&write)
    });
    if outcome.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&new);
    }
    outcome
}

/// A piece of a name that no other build has, in this process or another: two may write the same
/// file at the same time.
pub(super) fn own_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn volume<'a>(
    role: Role,
    size: Bytes,
    serial: u32,
    files: &'a fat::Files,
    time: u64,
) -> Result<Vec<Extent<'a>>, DiskError> {
    let volume = fat::Volume { size, label: LABEL.to_owned(), serial, time };
    fat::write(&volume, files)
        .map_err(|source| DiskError::Volume { partition: role.name(), source })
}

fn write_extents(file: &mut File, base: Bytes, extents: &[Extent<'_>]) -> io::Result<()> {
    for extent in extents {
        file.seek(SeekFrom::Start(base.0 + extent.at))?;
        file.write_all(&extent.bytes)?;
    }
    Ok(())
}

/// Copies a file to `at` in `to`, which is zero there; zeroes are skipped.
fn copy_sparse(from: &Path, to: &mut File, at: Bytes, target: &Path) -> Result<(), DiskError> {
    let (read, write) = (DiskError::file("read", from), DiskError::file("write", target));
    let mut source = File::open(from).map_err(&read)?;
    let mut buffer = vec![0; CHUNK];
    let mut at = at.0;
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
