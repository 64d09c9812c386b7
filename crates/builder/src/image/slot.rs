//! Slot images and the unified kernel image in them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};

use formats::slot::{self, Descriptor, SlotError};
use formats::uki::{Pe, PeError};
use formats::verity;
use model::{Bytes, Diagnose, Diagnosis, Digest, Who};
use sha2::{Digest as _, Sha256};

use super::Arch;
use super::initrd::{self, InitrdError};
use super::rootfs::{Rootfs, RootfsError};

const KERNEL: &str = "boot/kernel";
const MICROCODE: &str = "boot/ucode.cpio";
const CMDLINE: &str = "boot/cmdline";
const KERNEL_MAX: Bytes = Bytes::mib(256);
const CMDLINE_MAX: Bytes = Bytes::kib(2);
const OS_RELEASE_MAX: Bytes = Bytes::kib(64);
const CHUNK: usize = 1 << 20;

/// What a slot image is made of besides the file system and what the root file system says.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    /// Which machines it is for.
    pub arch: Arch,
    /// The image's version, at most 256 bytes.
    pub version: String,
    /// The partition that the kernel looks for.
    pub slot: &'static str,
    /// Added to the command line of the root file system.
    pub words: Vec<String>,
    /// systemd's EFI stub.
    pub stub: Vec<u8>,
    /// All times inside, in seconds since 1970.
    pub time: u64,
}

/// What a finished slot image is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SlotFacts {
    /// Its length.
    pub size: Bytes,
    /// Its digest.
    pub digest: Digest,
    /// The root file system in it.
    pub squashfs: Bytes,
    /// The verity tree in it.
    pub verity: Bytes,
    /// The unified kernel image in it.
    pub uki: Bytes,
    /// The initrd in that, compressed.
    pub initrd: Bytes,
    /// dm-verity's root hash.
    pub root_hash: Digest,
    /// The kernel's command line.
    pub cmdline: String,
    /// The kernel's version; empty if it has no modules.
    pub kernel: String,
    /// How many modules the initrd loads.
    pub modules: usize,
    /// All times inside that are not those of files, in seconds since 1970.
    pub time: u64,
}

/// Why there is no slot image.
#[derive(Debug, thiserror::Error)]
pub enum BuildSlotError {
    /// The root file system lacks something.
    #[error("cannot make the slot image")]
    Rootfs(#[from] RootfsError),
    /// No initrd.
    #[error("cannot make the slot image")]
    Initrd(#[from] InitrdError),
    /// The stub cannot be extended.
    #[error("cannot make the unified kernel image from systemd's stub")]
    Stub(#[from] PeError),
    /// The command line says already what the builder says.
    #[error("the kernel command line says {0:?}, which the builder adds itself")]
    Cmdline(String),
    /// A descriptor that cannot be.
    #[error("cannot describe the slot image")]
    Describe(#[from] SlotError),
    /// A tree over nothing, or over what cannot be read.
    #[error("cannot make the verity tree")]
    Verity(#[from] verity::TreeError),
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

impl BuildSlotError {
    fn file(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> BuildSlotError {
        move |source| BuildSlotError::File { doing, path: path.to_owned(), source }
    }
}

impl Diagnose for BuildSlotError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            BuildSlotError::Rootfs(cause) => cause.diagnose(),
            BuildSlotError::Initrd(cause) => cause.diagnose(),
            BuildSlotError::Stub(_) => {
                Diagnosis::of(Who::Operator, "take the stub of systemd 252 or later")
            }
            BuildSlotError::Cmdline(_) => {
                Diagnosis::of(Who::Operator, "remove it from the kernel's cmdline in the yml")
            }
            BuildSlotError::Describe(_) => {
                Diagnosis::of(Who::Operator, "choose a shorter version with --version")
            }
            BuildSlotError::Verity(verity::TreeError::Length(_)) => {
                Diagnosis::of(Who::Developer, "report it")
            }
            BuildSlotError::Verity(verity::TreeError::Read(_)) | BuildSlotError::File { .. } => {
                Diagnosis::of(Who::Operator, "look at the disk: space, rights, faults")
            }
        }
    }
}

/// Whether a path of the root file system stays out of its image: what the unified kernel image holds
/// already.
pub(super) fn is_in_uki(path: &str) -> bool {
    [KERNEL, MICROCODE].contains(&path)
}

/// A file system that stands at the start of what becomes a slot image.
#[derive(Debug)]
pub(super) struct FileSystem<'a> {
    /// The file. It holds the file system, filled up to whole blocks, and nothing else.
    pub image: &'a Path,
    /// Length of the file system.
    pub used: Bytes,
}

/// Makes a slot image of the file that a file system stands in, and beside it the unified kernel
/// image alone at `uki`.
pub(super) fn build(
    rootfs: &Rootfs,
    file_system: &FileSystem<'_>,
    initrd: (&initrd::Parts<'_>, Vec<u8>),
    recipe: &Recipe,
    uki: &Path,
) -> Result<SlotFacts, BuildSlotError> {
    let image = file_system.image;
    let (read, write) = (BuildSlotError::file("read", image), BuildSlotError::file("write", image));
    let mut file = File::options().read(true).write(true).open(image).map_err(&read)?;
    let (parts, initrd) = initrd;
    let initrd_size = Bytes(initrd.len() as u64);
    let hash = hash(&mut file).map_err(&read)?;
    let digest = Digest(hash.clone().finalize().into());
    let tree = tree(&mut file, digest)?;
    let cmdline = cmdline(rootfs, recipe, &tree)?;
    let uki_bytes = unified(rootfs, recipe, &cmdline, parts.kernel.as_deref(), initrd)?;

    let verity_at = Bytes(tree.superblock.data_blocks * slot::BLOCK);
    let verity = Bytes(tree.bytes.len() as u64);
    let descriptor = Descriptor {
        rootfs: file_system.used,
        verity_at,
        verity,
        uki_at: Bytes(verity_at.0 + verity.0 + slot::BLOCK),
        uki: Bytes(uki_bytes.len() as u64),
        rootfs_digest: digest,
        uki_digest: Digest(Sha256::digest(&uki_bytes).into()),
        root_hash: tree.root,
        arch: recipe.arch.name().to_owned(),
        version: recipe.version.clone(),
    };
    let alone = File::create(uki).and_then(|mut f| f.write_all(&uki_bytes));
    alone.map_err(BuildSlotError::file("write", uki))?;
    let parts_behind = [&tree.bytes, &descriptor.to_bytes()?, &uki_bytes];
    let mut out = Hashing { out: file, hash };
    out.out.seek(SeekFrom::Start(verity_at.0)).map_err(&write)?;
    for part in parts_behind {
        out.write(part).map_err(&write)?;
    }
    let filled = verity_at.0 + parts_behind.iter().map(|p| p.len() as u64).sum::<u64>();
    let total = descriptor.total();
    let rest = usize::try_from(total.0.saturating_sub(filled)).unwrap_or(0);
    out.write(&vec![0; rest]).map_err(&write)?;
    Ok(SlotFacts {
        size: total,
        digest: Digest(out.hash.finalize().into()),
        squashfs: file_system.used,
        verity,
        uki: descriptor.uki,
        initrd: initrd_size,
        root_hash: tree.root,
        cmdline,
        kernel: parts.kernel.clone().unwrap_or_default(),
        modules: parts.modules(),
        time: recipe.time,
    })
}

/// What the bytes of a file hash to, ready to take those that will come behind them.
fn hash(file: &mut File) -> io::Result<Sha256> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    file.rewind()?;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash),
            got => hash.update(&buffer[..got]),
        }
    }
}

/// The verity tree of a file. Its salt and name come from the digest, so that equal file systems
/// have equal trees.
fn tree(file: &mut File, digest: Digest) -> Result<verity::Tree, verity::TreeError> {
    let salt = Sha256::new_with_prefix(b"eve slot salt").chain_update(digest.0).finalize();
    let name = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &digest.0);
    let threads = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    file.rewind()?;
    verity::tree_of(file, name, salt.into(), threads)
}

fn cmdline(
    rootfs: &Rootfs,
    recipe: &Recipe,
    tree: &verity::Tree,
) -> Result<String, BuildSlotError> {
    let own = String::from_utf8_lossy(&rootfs.read(CMDLINE, CMDLINE_MAX)?).into_owned();
    let mut words: Vec<String> = own.split_whitespace().map(ToOwned::to_owned).collect();
    for ours in ["eve.slot=", "eve.verity="] {
        if let Some(word) = words.iter().find(|w| w.starts_with(ours)) {
            return Err(BuildSlotError::Cmdline(word.clone()));
        }
    }
    words.extend(recipe.words.iter().filter(|w| !own.split_whitespace().any(|o| o == *w)).cloned());
    let blocks = tree.superblock.data_blocks;
    let salt: String = tree.superblock.salt.iter().map(|b| format!("{b:02x}")).collect();
    words.push(format!("eve.slot={}", recipe.slot));
    // The tree starts in the block behind its superblock.
    words.push(format!("eve.verity={}:{blocks}:{}:{salt}", tree.root.hex(), blocks + 1));
    Ok(words.join(" "))
}

fn unified(
    rootfs: &Rootfs,
    recipe: &Recipe,
    cmdline: &str,
    kernel_version: Option<&str>,
    initrd: Vec<u8>,
) -> Result<Vec<u8>, BuildSlotError> {
    let kernel = rootfs.read(KERNEL, KERNEL_MAX)?;
    let described = ["etc/os-release", "usr/lib/os-release"].into_iter().find(|p| rootfs.has(p));
    let osrel = match described {
        Some(path) => rootfs.read(path, OS_RELEASE_MAX)?,
        None => format!("ID=eve\nNAME=EVE-OS\nVERSION_ID={}\n", recipe.version).into_bytes(),
    };
    let mut all = match rootfs.has(MICROCODE) {
        // The kernel takes microcode from an archive in front that is not compressed.
        true => rootfs.read(MICROCODE, KERNEL_MAX)?,
        false => Vec::new(),
    };
    all.resize(all.len().next_multiple_of(4), 0);
    all.extend(initrd);
    let uname = kernel_version.unwrap_or_default();
    let sections: [(&str, &[u8]); 5] = [
        (".osrel", &osrel),
        (".cmdline", cmdline.as_bytes()),
        (".uname", uname.as_bytes()),
        (".initrd", &all),
        // Last: stubs before 254 let the kernel grow behind its section.
        (".linux", &kernel),
    ];
    Ok(Pe::parse(&recipe.stub)?.with_sections(&sections)?)
}

struct Hashing {
    out: File,
    hash: Sha256,
}

impl Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }
}
