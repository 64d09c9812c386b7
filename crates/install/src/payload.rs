//! What is installed: from the folder that an installer brings or its image, from a finished image of
//! a node, or from a folder of the builder.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
#[cfg(feature = "images")]
use std::sync::Arc;

use formats::fat::{self, Files};
use formats::gpt::{self, Gpt};
use formats::layout::{Profile, Role};
use formats::slot::{self, Descriptor};
use formats::squashfs;
use model::installer::{BIOS_GAP, BIOS_SECTOR, CONFIG, ESP, MANIFEST, Manifest, SLOT};
use model::{Bytes, Diagnose, Diagnosis, Digest, Who};
use sha2::{Digest as _, Sha256};

/// No manifest is longer: it names some dozen files.
const MANIFEST_MAX: u64 = 1 << 20;
/// What is held in memory at once: everything of a boot partition, or a CONFIG volume.
pub(crate) const VOLUME_MAX: u64 = 512 << 20;
/// Where in a boot record code stands; behind it come the disk's signature and the entries.
const CODE: usize = 440;
/// Bytes of the superblock of a dm-verity tree.
const VERITY_SUPERBLOCK: usize = 512;
/// The gap in front of the first partition begins behind the table.
const GAP: u64 = 34 * 512;

/// What is installed.
#[derive(Debug, Clone)]
pub struct Payload {
    /// Its version.
    pub version: String,
    /// Which machines it is for: `amd64`.
    pub arch: String,
    /// The layout of the disk that is made.
    pub profile: Profile,
    /// The slot image.
    pub slot: Blob,
    /// The files of the EFI system partition.
    pub esp: Files,
    /// The files of CONFIG, unless the boot medium has others.
    pub config: Files,
    /// What BIOS machines boot; `None`: they cannot boot it.
    pub bios: Option<Bios>,
}

/// Bytes in a file.
#[derive(Debug, Clone)]
pub struct Blob {
    /// The file.
    pub path: PathBuf,
    /// How many.
    pub length: Bytes,
    /// What they hash to.
    pub digest: Digest,
    lies: Lies,
}

/// Where bytes lie.
#[derive(Debug, Clone)]
enum Lies {
    /// In the file, so far from its start.
    At(Bytes),
    /// In something in it.
    #[cfg(feature = "images")]
    Inside(Arc<dyn Inside>),
}

/// Bytes that lie inside something else.
#[cfg(feature = "images")]
pub(crate) trait Inside: std::fmt::Debug + Send + Sync {
    /// Reads them from the first.
    fn open(&self) -> io::Result<Box<dyn Read + '_>>;
}

/// Where the files of an installer lie.
pub(crate) trait Bits {
    /// What messages call a file.
    fn path(&self, name: &str) -> PathBuf;
    /// A file of at most so many bytes.
    fn read(&self, name: &str, most: u64) -> Result<Vec<u8>, PayloadError>;
    /// A file that is too long for memory. It is read once, for its digest.
    fn blob(&self, name: &str) -> Result<Blob, PayloadError>;
}

impl Bits for &Path {
    fn path(&self, name: &str) -> PathBuf {
        self.join(name)
    }

    fn read(&self, name: &str, most: u64) -> Result<Vec<u8>, PayloadError> {
        read_up_to(&self.join(name), most)
    }

    fn blob(&self, name: &str) -> Result<Blob, PayloadError> {
        Blob::of(&self.join(name))
    }
}

/// What a BIOS loads.
#[derive(Debug, Clone)]
pub struct Bios {
    /// The first 440 bytes of the disk.
    pub code: Vec<u8>,
    /// What stands between the table and the first partition.
    pub gap: Vec<u8>,
}

/// Why there is nothing to install.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Reading failed.
    #[error("cannot read {path}")]
    Read {
        /// What.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The list of files cannot be understood.
    #[error("cannot understand {path}")]
    Manifest {
        /// The list.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// The list says something that cannot be.
    #[error("{path} {what}")]
    Unfit {
        /// The file or list.
        path: PathBuf,
        /// What is wrong with it, as a verb.
        what: String,
    },
    /// A file is not what the list says.
    #[error("{path} is damaged: it has {have}, {want} belongs there")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it is.
        have: String,
        /// What it should be.
        want: String,
    },
    /// A FAT volume that cannot be read.
    #[error("cannot read the files in {path}")]
    Volume {
        /// The volume's file.
        path: PathBuf,
        /// Why not.
        source: fat::ReadError,
    },
    /// A slot image without its parts.
    #[error("{path} holds no slot image")]
    Slot {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl PayloadError {
    pub(crate) fn read(path: &Path) -> impl Fn(io::Error) -> PayloadError {
        move |source| PayloadError::Read { path: path.to_owned(), source }
    }

    pub(crate) fn unfit(path: &Path, what: impl Into<String>) -> PayloadError {
        PayloadError::Unfit { path: path.to_owned(), what: what.into() }
    }
}

impl Diagnose for PayloadError {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self {
            PayloadError::Read { .. } => "check that the path is right and may be read",
            PayloadError::Damaged { .. } => "write the installer to its medium anew",
            _ => "give what `eve build live` or `eve build installer` made",
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

impl Payload {
    /// From a path that a person gave: a folder of an installer or of the builder, a raw disk or ISO
    /// of an installer, a raw disk of a node, or a slot image.
    pub fn from_path(path: &Path) -> Result<Payload, PayloadError> {
        let about = fs::metadata(path).map_err(PayloadError::read(path))?;
        if about.is_dir() {
            let has = |name: &str| path.join(name).is_file();
            return match () {
                () if has(MANIFEST) => Payload::from_bits(path),
                () if has("live.raw") => Payload::from_disk(&path.join("live.raw")),
                () if has(SLOT) => Payload::from_slot(&path.join(SLOT), &path.join(CONFIG)),
                () => Err(PayloadError::unfit(path, format!("has no live.raw and no {SLOT}"))),
            };
        }
        let mut start = Vec::new();
        let file = File::open(path).map_err(PayloadError::read(path))?;
        let head = slot::HEAD as u64;
        file.take(head).read_to_end(&mut start).map_err(PayloadError::read(path))?;
        start.resize(slot::HEAD, 0);
        match &start {
            // What is wrong with a damaged one, it says there.
            _ if slot::rootfs(&start).is_ok() || start.starts_with(squashfs::MAGIC) => {
                let beside = path.with_file_name(CONFIG);
                Payload::from_slot(path, &beside)
            }
            _ if start[512..].starts_with(b"EFI PART") => Payload::from_disk(path),
            _ => Err(PayloadError::unfit(path, "is neither a raw disk, an ISO nor a slot image")),
        }
    }

    /// From the folder that an installer brings. Every file is read whole and compared with the list.
    pub fn from_bits(folder: &Path) -> Result<Payload, PayloadError> {
        Payload::listed(&folder)
    }

    /// From the files that an installer brings, wherever they lie.
    pub(crate) fn listed(bits: &dyn Bits) -> Result<Payload, PayloadError> {
        let list = bits.path(MANIFEST);
        let text = bits.read(MANIFEST, MANIFEST_MAX)?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|source| PayloadError::Manifest { path: list.clone(), source })?;
        let unknown =
            || PayloadError::unfit(&list, format!("names no profile {}", manifest.profile));
        let profile = Profile::by_name(&manifest.profile).ok_or_else(unknown)?;
        let (mut esp, mut config, mut slot) = (Files::new(), Files::new(), None);
        let (mut code, mut gap) = (None, None);
        for (name, about) in &manifest.files {
            let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
            if !Path::new(name).components().all(plain) {
                return Err(PayloadError::unfit(&list, format!("names the file {name:?}")));
            }
            let path = bits.path(name);
            let body = if name == SLOT {
                slot = Some(bits.blob(name)?);
                None
            } else {
                Some(bits.read(name, VOLUME_MAX)?)
            };
            let (size, digest) = match (&body, &slot) {
                (Some(body), _) => (Bytes(body.len() as u64), Digest(Sha256::digest(body).into())),
                (None, Some(slot)) => (slot.length, slot.digest),
                (None, None) => continue,
            };
            if (size, digest) != (about.size, about.digest) {
                let have = format!("{size}, {digest}");
                let want = format!("{}, {}", about.size, about.digest);
                return Err(PayloadError::Damaged { path, have, want });
            }
            let Some(body) = body else { continue };
            match name.as_str() {
                CONFIG => config = volume(&path, &body)?,
                BIOS_SECTOR => code = Some(body),
                BIOS_GAP => gap = Some(body),
                other => {
                    let inside = other.strip_prefix(ESP).and_then(|n| n.strip_prefix('/'));
                    if let Some(inside) = inside {
                        esp.insert(inside.to_owned(), body);
                    }
                }
            }
        }
        let slot = slot.ok_or_else(|| PayloadError::unfit(&list, format!("names no {SLOT}")))?;
        let bios = code.zip(gap).map(|(code, gap)| Bios { code, gap });
        let (version, arch) = (manifest.version, manifest.arch);
        Ok(Payload { version, arch, profile, slot, esp, config, bios })
    }

    /// From a finished raw disk: its first slot, its boot partition, its CONFIG; or what an installer
    /// on it installs.
    pub fn from_disk(path: &Path) -> Result<Payload, PayloadError> {
        let read = PayloadError::read(path);
        let file = File::open(path).map_err(&read)?;
        let size = Bytes(file.metadata().map_err(&read)?.len());
        let head = read_at(&file, Bytes(0), gpt::HEAD).map_err(&read)?;
        let table = Gpt::parse(&head, size)
            .map_err(|e| PayloadError::unfit(path, format!("has no usable table: {e}")))?;
        #[cfg(feature = "images")]
        if Role::Installer.find(&table).is_some() {
            return Payload::from_installer(path, file, &table);
        }
        let place = |role: Role| {
            let missing = || PayloadError::unfit(path, format!("has no partition {}", role.name()));
            role.find(&table).map(|(_, p)| (p.offset(), p.length())).ok_or_else(missing)
        };
        let (slot_at, slot_room) = place(Role::ImgA)?;
        let descriptor = describe(&file, path, slot_at, slot_room)?;
        let (esp_at, esp_length) = place(Role::Esp)?;
        let esp = if esp_length.0 <= VOLUME_MAX {
            volume(path, &read_at(&file, esp_at, esp_length).map_err(&read)?)?
        } else {
            loader(&file, path, slot_at, &descriptor)?
        };
        let (config_at, config_length) = place(Role::Config)?;
        let bounded = |what: &str, length: Bytes| match length.0 <= VOLUME_MAX {
            true => Ok(length),
            false => {
                let what = format!("has {what} of {length}, more than {}", Bytes(VOLUME_MAX));
                Err(PayloadError::unfit(path, what))
            }
        };
        let config_length = bounded("a CONFIG", config_length)?;
        let config = volume(path, &read_at(&file, config_at, config_length).map_err(&read)?)?;
        let first = table.partitions().values().map(|p| p.offset()).min().unwrap_or_default();
        let gap = bounded("a gap", Bytes(first.0.saturating_sub(GAP)))?;
        let gap = read_at(&file, Bytes(GAP), gap).map_err(&read)?;
        let used = gap.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        let bios =
            (used > 0).then(|| Bios { code: head[..CODE].to_vec(), gap: gap[..used].to_vec() });
        let same = |p: &&Profile| p.esp == esp_length && p.slot == slot_room;
        Ok(Payload {
            profile: Profile::ALL.iter().find(same).copied().unwrap_or(Profile::SMALL),
            slot: Blob::within(path, &file, slot_at, descriptor.total())?,
            version: descriptor.version,
            arch: descriptor.arch,
            esp,
            config,
            bios,
        })
    }

    /// From a slot image, and a CONFIG volume if that is there.
    fn from_slot(path: &Path, config: &Path) -> Result<Payload, PayloadError> {
        let read = PayloadError::read(path);
        let file = File::open(path).map_err(&read)?;
        let length = Bytes(file.metadata().map_err(&read)?.len());
        let descriptor = describe(&file, path, Bytes(0), length)?;
        let config = match config.is_file() {
            true => volume(config, &read_up_to(config, VOLUME_MAX)?)?,
            false => Files::new(),
        };
        Ok(Payload {
            profile: Profile::SMALL,
            esp: loader(&file, path, Bytes(0), &descriptor)?,
            slot: Blob::within(path, &file, Bytes(0), descriptor.total())?,
            version: descriptor.version,
            arch: descriptor.arch,
            config,
            bios: None,
        })
    }
}

impl Blob {
    /// All of a file. It is read once, for its digest.
    pub fn of(path: &Path) -> Result<Blob, PayloadError> {
        let file = File::open(path).map_err(PayloadError::read(path))?;
        let length = file.metadata().map_err(PayloadError::read(path))?.len();
        Blob::within(path, &file, Bytes(0), Bytes(length))
    }

    pub(crate) fn within(
        path: &Path,
        file: &File,
        at: Bytes,
        length: Bytes,
    ) -> Result<Blob, PayloadError> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut done = 0;
        while done < length.0 {
            let part = usize::try_from(length.0 - done).unwrap_or(usize::MAX).min(buffer.len());
            let piece = &mut buffer[..part];
            file.read_exact_at(piece, at.0 + done).map_err(PayloadError::read(path))?;
            hash.update(piece);
            done += part as u64;
        }
        let digest = Digest(hash.finalize().into());
        Ok(Blob { path: path.to_owned(), length, digest, lies: Lies::At(at) })
    }

    /// Bytes inside something else, which `path` is the name of.
    #[cfg(feature = "images")]
    pub(crate) fn inside(
        path: PathBuf,
        length: Bytes,
        inside: Arc<dyn Inside>,
    ) -> Result<Blob, PayloadError> {
        let mut blob = Blob { path, length, digest: Digest([0; 32]), lies: Lies::Inside(inside) };
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut from = blob.open().map_err(PayloadError::read(&blob.path))?;
        loop {
            match from.read(&mut buffer).map_err(PayloadError::read(&blob.path))? {
                0 => break,
                got => hash.update(&buffer[..got]),
            }
        }
        drop(from);
        blob.digest = Digest(hash.finalize().into());
        Ok(blob)
    }

    /// Opens it for reading from its first byte.
    pub fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        match &self.lies {
            Lies::At(at) => {
                let mut file = File::open(&self.path)?;
                file.seek(SeekFrom::Start(at.0))?;
                Ok(Box::new(file.take(self.length.0)))
            }
            #[cfg(feature = "images")]
            Lies::Inside(inside) => inside.open(),
        }
    }
}

/// The descriptor of a slot image that starts at `at` and may take `room`.
pub(crate) fn describe(
    file: &File,
    path: &Path,
    at: Bytes,
    room: Bytes,
) -> Result<Descriptor, PayloadError> {
    let bad = |source: Box<dyn std::error::Error + Send + Sync>| PayloadError::Slot {
        path: path.to_owned(),
        source,
    };
    let take = |from: Bytes, length: usize| -> Result<Vec<u8>, PayloadError> {
        let inside = from.0.checked_add(length as u64).is_some_and(|end| end <= room.0);
        if !inside {
            return Err(PayloadError::unfit(
                path,
                "holds a slot image that is longer than its place",
            ));
        }
        read_at(file, Bytes(at.0 + from.0), Bytes(length as u64)).map_err(PayloadError::read(path))
    };
    let tree = slot::verity_at(&take(Bytes(0), slot::HEAD)?).map_err(|e| bad(e.into()))?;
    let own =
        slot::descriptor_at(tree, &take(tree, VERITY_SUPERBLOCK)?).map_err(|e| bad(e.into()))?;
    let descriptor = Descriptor::parse(&take(own, 4096)?).map_err(|e| bad(e.into()))?;
    take(Bytes(descriptor.total().0.saturating_sub(1)), 1)?;
    Ok(descriptor)
}

/// A boot partition with nothing but the unified kernel image of a slot.
fn loader(
    file: &File,
    path: &Path,
    slot_at: Bytes,
    descriptor: &Descriptor,
) -> Result<Files, PayloadError> {
    let at = Bytes(slot_at.0 + descriptor.uki_at.0);
    let uki = read_at(file, at, descriptor.uki).map_err(PayloadError::read(path))?;
    let (have, want) = (Digest(Sha256::digest(&uki).into()), descriptor.uki_digest);
    if have != want {
        let (have, want) = (have.to_string(), want.to_string());
        return Err(PayloadError::Damaged { path: path.to_owned(), have, want });
    }
    let name = match descriptor.arch.as_str() {
        "arm64" => "BOOTAA64.EFI",
        "riscv64" => "BOOTRISCV64.EFI",
        _ => "BOOTX64.EFI",
    };
    Ok(Files::from([(format!("EFI/BOOT/{name}"), uki)]))
}

pub(crate) fn volume(path: &Path, bytes: &[u8]) -> Result<Files, PayloadError> {
    let bad = |source| PayloadError::Volume { path: path.to_owned(), source };
    fat::read(bytes).map(|(_, files)| files).map_err(bad)
}

pub(crate) fn read_at(file: &File, at: Bytes, length: Bytes) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length.0).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at.0)?;
    Ok(bytes)
}

fn read_up_to(path: &Path, most: u64) -> Result<Vec<u8>, PayloadError> {
    let file = File::open(path).map_err(PayloadError::read(path))?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(PayloadError::read(path))?;
    if bytes.len() as u64 > most {
        let most = Bytes(most);
        return Err(PayloadError::unfit(path, format!("is longer than {most}")));
    }
    Ok(bytes)
}
