//! The installer as an ISO image, for CDs, sticks and virtual drives.
//!
//! Files lie where the reference has them: `EFI/BOOT` and `boot` in the open, for whoever copies them
//! to a stick of his own, and once more in a FAT volume that firmware starts; `config.img`; and the
//! installer's system. The last three are partitions as well, so that on a stick everything is as on
//! the raw installer, and CONFIG is edited as on any disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Cursor, Read};
use std::path::{Path, PathBuf};

use formats::fat::{self, Files};
use formats::iso::{self, Part, Volume};
use formats::layout::{DISK, Role};
use formats::tree::{Content, Contents, InsertError, Kind, Meta, Node, Tree};
use model::installer::{CONFIG, ISO_SYSTEM};
use model::{Bytes, Diagnose, Diagnosis, Who};
use uuid::Uuid;

use super::disk::{DiskError, whole};

/// What the reference calls its volume; installers look for it.
const ID: &str = "EVEISO";
/// What firmware starts; no folder shows it.
const BOOT: &str = "boot.img";
/// Firmware may refuse other volumes than FAT32 on what looks like a fixed disk, and from this size
/// on ours are FAT32.
const BOOT_MIN: Bytes = Bytes::mib(34);
const CHUNK: usize = 1 << 20;

/// What goes into an installer's ISO.
#[derive(Debug)]
pub(super) struct Installer<'a> {
    /// The files of the EFI system partition.
    pub esp: &'a Files,
    /// The files of CONFIG.
    pub config: &'a Files,
    /// The size of the CONFIG volume, and all times in it, in seconds since 1970.
    pub config_size: Bytes,
    /// See there.
    pub config_time: u64,
    /// The slot image of the installer.
    pub system: &'a Path,
    /// What `etc/eve-release` says.
    pub version: &'a str,
    /// All other times, in seconds since 1970.
    pub time: u64,
    /// What the identities of partitions follow from, where they are not fixed.
    pub seed: Uuid,
}

/// Why there is no ISO.
#[derive(Debug, thiserror::Error)]
pub enum IsoError {
    /// A file has no place in it.
    #[error("a file cannot be in the ISO")]
    Tree(#[from] InsertError),
    /// It cannot be written.
    #[error("cannot write the ISO {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: iso::WriteError,
    },
    /// A volume in it, or a file.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Diagnose for IsoError {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self {
            IsoError::Tree(_) => "give the file another name",
            IsoError::Write { .. } => "check that there is room and that the path may be written",
            IsoError::Disk(cause) => return cause.diagnose(),
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

/// Writes the ISO to `path`. It appears there only when it is whole.
pub(super) fn write(installer: &Installer<'_>, path: &Path) -> Result<Bytes, IsoError> {
    let tree = tree(installer)?;
    let part = |path: &str, role: Role| {
        let mut partition = role.partition();
        if role.id().is_none() {
            partition.id = Uuid::new_v5(&installer.seed, role.name().as_bytes());
        }
        Part { path: path.into(), number: role.number(), partition }
    };
    let volume = Volume {
        id: ID.to_owned(),
        time: installer.time.try_into().unwrap_or(i64::MAX),
        boot: Some(BOOT.into()),
        disk: DISK,
        parts: vec![
            part(BOOT, Role::Esp),
            part(CONFIG, Role::InstallerConfig),
            part(ISO_SYSTEM, Role::Installer),
        ],
        hidden: BTreeSet::from([BOOT.into()]),
    };
    whole(path, |file| {
        let out = BufWriter::with_capacity(CHUNK, file);
        iso::write(&volume, &tree, &Sources, out)
            .map_err(|source| IsoError::Write { path: path.to_owned(), source })
    })?;
    let about = std::fs::metadata(path).map_err(DiskError::file("look at", path))?;
    Ok(Bytes(about.len()))
}

/// An ISO of nothing but the installer's system and CONFIG, for memory: it boots nothing.
pub(super) fn slim(installer: &Installer<'_>) -> Result<Vec<u8>, IsoError> {
    let nothing = Files::new();
    let mut tree = tree(&Installer { esp: &nothing, ..*installer })?;
    tree.remove(BOOT.as_bytes());
    let volume = Volume {
        id: ID.to_owned(),
        time: installer.time.try_into().unwrap_or(i64::MAX),
        boot: None,
        disk: DISK,
        parts: Vec::new(),
        hidden: BTreeSet::new(),
    };
    let mut out = Vec::new();
    iso::write(&volume, &tree, &Sources, &mut out)
        .map_err(|source| IsoError::Write { path: installer.system.to_owned(), source })?;
    Ok(out)
}

/// Where the content of a file comes from.
#[derive(Debug)]
enum Source {
    Memory(Vec<u8>),
    File(PathBuf),
}

struct Sources;

impl Contents<Source> for Sources {
    fn open<'a>(&'a self, at: &Source) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match at {
            Source::Memory(bytes) => Box::new(Cursor::new(bytes.clone())),
            Source::File(path) => Box::new(File::open(path)?),
        })
    }
}

fn tree(installer: &Installer<'_>) -> Result<Tree<Source>, IsoError> {
    let mut tree = Tree::new();
    let time = installer.time;
    let mut put = |path: &str, size: u64, at: Source| {
        let mtime = time.try_into().unwrap_or(i64::MAX);
        let meta = Meta { mode: 0o644, mtime, ..Meta::default() };
        let kind = Kind::File(Content { size: Bytes(size), digest: None, at });
        tree.insert(path, Node { meta, kind })
    };
    for (path, body) in installer.esp.iter().filter(|(path, _)| !path.ends_with('/')) {
        put(path, body.len() as u64, Source::Memory(body.clone()))?;
    }
    let release = format!("{}\n", installer.version).into_bytes();
    put("etc/eve-release", release.len() as u64, Source::Memory(release))?;
    let about =
        std::fs::metadata(installer.system).map_err(DiskError::file("read", installer.system))?;
    put(ISO_SYSTEM, about.len(), Source::File(installer.system.to_owned()))?;
    let config = render(
        Role::InstallerConfig,
        installer.config_size,
        installer.config,
        installer.config_time,
    )?;
    put(CONFIG, config.len() as u64, Source::Memory(config))?;
    let boot = render(Role::Esp, boot_size(installer.esp), installer.esp, time)?;
    put(BOOT, boot.len() as u64, Source::Memory(boot))?;
    Ok(tree)
}

fn render(role: Role, size: Bytes, files: &Files, time: u64) -> Result<Vec<u8>, DiskError> {
    // Both roles have a volume.
    let Some(volume) = role.volume(size, time) else { return Ok(Vec::new()) };
    fat::render(&volume, files)
        .map_err(|source| DiskError::Volume { partition: role.name(), source })
}

/// Room for these files in whole clusters, for the tables, and a little more.
fn boot_size(files: &Files) -> Bytes {
    let content: u64 = files.values().map(|body| (body.len() as u64).next_multiple_of(4096)).sum();
    let folders = files.len() as u64 * 4096;
    let need = Bytes(content + folders + content / 64 + (1 << 20));
    Bytes(need.0.max(BOOT_MIN.0)).round_up(Bytes::mib(1))
}

#[cfg(test)]
mod tests {
    use formats::gpt::{self, Gpt};

    use super::*;
    use crate::image::{get_config, set_config};

    fn made(dir: &Path) -> PathBuf {
        let (system, iso) = (dir.join("slot.img"), dir.join("installer.iso"));
        store::save(dir, "slot.img", &[9; 70_000]).unwrap();
        let esp = Files::from([
            ("EFI/BOOT/BOOTX64.EFI".to_owned(), vec![1; 40_000]),
            ("boot/.uuid".to_owned(), b"0123\n".to_vec()),
        ]);
        let config = Files::from([("server".to_owned(), b"example.org\n".to_vec())]);
        let installer = Installer {
            esp: &esp,
            config: &config,
            config_size: Bytes::mib(5),
            config_time: 0,
            system: &system,
            version: "1.2.3-kvm-amd64",
            time: 1_700_000_000,
            seed: Uuid::from_u128(3),
        };
        write(&installer, &iso).unwrap();
        let once = std::fs::read(&iso).unwrap();
        write(&installer, &iso).unwrap();
        assert!(std::fs::read(&iso).unwrap() == once, "the same parts, other bytes");
        iso
    }

    #[test]
    fn an_installer_has_its_files_in_the_open_and_its_partitions() {
        let dir = tempfile::tempdir().unwrap();
        let path = made(dir.path());
        let mut file = File::open(&path).unwrap();
        let image = iso::read(&mut file).unwrap();
        let paths: Vec<_> = image.tree.iter().map(|(p, _)| String::from_utf8_lossy(p)).collect();
        assert_eq!(
            paths.join(" "),
            " EFI EFI/BOOT EFI/BOOT/BOOTX64.EFI boot boot/.uuid config.img etc etc/eve-release \
             installer.img"
        );
        assert_eq!(image.id, "EVEISO");
        let head = std::fs::read(&path).unwrap()[..usize::try_from(gpt::HEAD.0).unwrap()].to_vec();
        let table = Gpt::parse(&head, image.size).unwrap();
        let names: Vec<_> = table.partitions().values().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["EFI System", "CONFIG", "INSTALLER"]);
        let (at, _) = image.boot.unwrap();
        assert_eq!(table.by_name("EFI System").unwrap().1.offset(), Bytes(at));
        let system = &image.tree.file(b"installer.img").unwrap().at;
        assert_eq!(system[0].start, table.by_name("INSTALLER").unwrap().1.offset().0);
    }

    #[test]
    fn its_config_is_edited_as_that_of_a_disk_and_the_file_shows_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = made(dir.path());
        let new = Files::from([("soft_serial".to_owned(), b"77\n".to_vec())]);
        set_config(&path, &new).unwrap();
        let all = get_config(&path).unwrap();
        assert_eq!(
            (&all["server"][..], &all["soft_serial"][..]),
            (&b"example.org\n"[..], &b"77\n"[..])
        );
        let mut file = File::open(&path).unwrap();
        let image = iso::read(&mut file).unwrap();
        let place = image.tree.file(b"config.img").unwrap().at.clone();
        let mut volume = Vec::new();
        iso::Opened::new(file).open(&place).unwrap().read_to_end(&mut volume).unwrap();
        assert_eq!(fat::read(&volume).unwrap().1, all);
    }
}
