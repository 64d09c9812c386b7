//! The way from packages to disks, step by step.

mod disks;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use formats::fat::{self, Files};
use formats::layout::{Purpose, Role, Want};
use formats::tree::Tree;
use model::installer::About;
use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};

use super::account;
use super::cache::{Done, Steps};
use super::disk::{self, Disk, DiskError};
use super::installer::Bits;
use super::rootfs::{Place, Rootfs};
use super::slot::{self, SlotFacts};
use super::source::Composition;
use super::{
    Board, Boards, BuildSlotError, ConfigError, Facts, FileFacts, ImageError, Progress, Request,
    RootFormat, Source, StepFacts, boards, config as conf, initrd, known, source, squashfs,
};
use crate::compose::Written;
use crate::contents::CONTENTS;
use crate::mkfs;
use crate::pkg::{self, Package};

/// Changes whenever a step makes other bytes of the same inputs.
const VERSION: &str = "2";
const ROOTFS: &str = "rootfs.tar";
const SLOT: &str = "slot.img";
const UKI: &str = "uki.efi";
const INITRD: &str = "initrd";
const FACTS: &str = "image.json";
/// Size of a squashfs data block: larger packs better, smaller reads less to find a page.
const BLOCK: Bytes = Bytes::kib(256);
/// Size of a configuration stick.
const STICK: Bytes = Bytes::mib(200);

/// Builds the root file system: `rootfs.tar`.
pub fn rootfs(request: &Request, progress: &dyn Progress) -> Result<Facts, ImageError> {
    let mut run = Run::start(request, progress)?;
    let to = run.facts.folder.join(ROOTFS);
    match run.origin(System::Node)? {
        Origin::Tar { path, digest } => run.put(&path, ROOTFS, Some(digest))?,
        Origin::Composition(composition) => {
            let plan = composition.plan(progress)?;
            let started = run.begin("writing the root file system");
            let mut written = None;
            disk::whole(&to, |file| {
                written = Some(plan.write(file)?);
                Ok::<_, ImageError>(())
            })?;
            run.end("rootfs", started, false);
            if let Some(Written { digest, size }) = written {
                run.note(ROOTFS, size, Some(digest));
            }
        }
    }
    run.point_current()?;
    run.finish()
}

/// Builds the slot image: `slot.img`.
pub fn slot(request: &Request, progress: &dyn Progress) -> Result<Facts, ImageError> {
    let mut run = Run::start(request, progress)?;
    let slot = run.slot()?;
    run.put_slot(&slot)?;
    run.finish()
}

/// Builds the CONFIG volume: `config.img`.
pub fn config(request: &Request, progress: &dyn Progress) -> Result<Facts, ImageError> {
    let mut run = Run::start(request, progress)?;
    let files = run.config_files()?;
    run.put_config(&files)?;
    run.finish()
}

/// Builds everything up to the live disk: `slot.img`, `config.img`, `live.raw` and the
/// formats that were asked for. Points `current` beside the version's folder to it.
pub fn live(request: &Request, progress: &dyn Progress) -> Result<Facts, ImageError> {
    let mut run = Run::start(request, progress)?;
    let slot = run.slot()?;
    let files = run.config_files()?;
    run.put_slot(&slot)?;
    run.put_config(&files)?;
    run.live_disk(&slot, &files)?;
    run.finish()
}

/// Builds an installer of the node: `slot.img`, `config.img`, and `installer.raw`.
pub fn installer(request: &Request, progress: &dyn Progress) -> Result<Facts, ImageError> {
    let mut run = Run::start(request, progress)?;
    let slot = run.slot()?;
    let files = run.config_files()?;
    run.put_slot(&slot)?;
    run.put_config(&files)?;
    let system = run.installer_system(&slot, &files)?;
    run.installer_disk(&system, &files)?;
    run.finish()
}

/// Builds a USB stick that brings a node its network configuration: `usb-config.raw`, of the size of
/// the virtual disk or 200 MiB.
pub fn usb_config(request: &Request, progress: &dyn Progress) -> Result<Facts, ImageError> {
    let mut run = Run::start(request, progress)?;
    let files = run.folders_and_files()?;
    let want = Want { disk: Some(request.media.unwrap_or(STICK)), ..Want::default() };
    let table = request.profile.plan(Purpose::UsbConfig, &want).map_err(DiskError::from)?;
    let mut disk = Disk::new(table);
    disk.volume(Role::UsbConfig, &files, run.config_time())?;
    disk::write(&disk, &run.facts.folder.join("usb-config.raw"))?;
    run.note("usb-config.raw", disk.size(), None);
    run.finish()
}

/// An operating system that goes into a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum System {
    /// What runs on a node.
    Node,
    /// What installs it.
    Installer,
}

impl System {
    /// Its part in messages and in names of steps.
    const fn name(self) -> &'static str {
        match self {
            System::Node => "root file system",
            System::Installer => "root file system of the installer",
        }
    }

    /// The partition that it boots from.
    const fn role(self) -> Role {
        match self {
            System::Node => Role::ImgA,
            System::Installer => Role::Installer,
        }
    }
}

/// Where a root file system comes from.
enum Origin {
    /// A tar in linuxkit layout, and what it hashes to.
    Tar { path: PathBuf, digest: Digest },
    /// Packages.
    Composition(Box<Composition>),
}

impl Origin {
    /// What stands for the root file system: other bytes have another key.
    fn key(&self) -> String {
        match self {
            Origin::Tar { digest, .. } => digest.hex(),
            Origin::Composition(composition) => composition.key.clone(),
        }
    }
}

struct Slot {
    image: PathBuf,
    uki: PathBuf,
    facts: SlotFacts,
    _held: Done,
}

struct Run<'a> {
    request: &'a Request,
    progress: &'a dyn Progress,
    steps: Steps,
    packages: BTreeMap<String, Package>,
    options: pkg::Options,
    board: Board,
    facts: Facts,
    done: RefCell<Vec<StepFacts>>,
    /// Keeps other builds out of the version's folder.
    _alone: File,
}

impl<'a> Run<'a> {
    fn start(request: &'a Request, progress: &'a dyn Progress) -> Result<Run<'a>, ImageError> {
        // Before anything is written or built: a board may want what is not there.
        let board = board(request)?;
        let folder = request.out.join(request.arch.name()).join(&request.version);
        fs::create_dir_all(&folder).map_err(ImageError::file("create", &folder))?;
        let alone = alone_in(&folder, progress)?;
        disk::clear(&folder)?;
        let options = pkg::Options {
            cache: request.cache.clone(),
            arch: request.arch,
            ..pkg::Options::from_env(&request.repository)
        };
        Ok(Run {
            request,
            progress,
            steps: Steps::open(&request.cache)?,
            packages: BTreeMap::new(),
            options,
            board,
            facts: Facts {
                version: request.version.clone(),
                arch: request.arch,
                folder,
                files: Vec::new(),
                slot: None,
                steps: Vec::new(),
            },
            done: RefCell::default(),
            _alone: alone,
        })
    }

    /// Where the root file system comes from; its packages are built.
    fn origin(&mut self, system: System) -> Result<Origin, ImageError> {
        let given = match (system, &self.request.source) {
            (System::Node, Source::Tar(path)) => Some(path),
            _ => self.request.installer.as_ref().filter(|_| system == System::Installer),
        };
        if let Some(path) = given {
            let started = self.begin(&format!("reading the {}", system.name()));
            let file = File::open(path).map_err(ImageError::file("open", path))?;
            mkfs::check(&file, &path.display().to_string())?;
            let digest = digest_of(path)?;
            self.end("read rootfs.tar", started, false);
            return Ok(Origin::Tar { path: path.clone(), digest });
        }
        let started = Instant::now(); // packages tell their steps themselves
        self.options.locked = matches!(self.request.source, Source::Compose { locked: true });
        let made = source::prepare(self.request, system, &self.options, self.progress)?;
        self.end("packages", started, made.packages.values().all(|p| !p.fresh));
        self.packages.extend(made.packages.clone());
        Ok(Origin::Composition(Box::new(made)))
    }

    /// The root file system, nothing of it read.
    fn rootfs(&self, system: System, origin: &Origin) -> Result<Rootfs, ImageError> {
        let composition = match origin {
            Origin::Tar { path, .. } => return Ok(Rootfs::open(path)?),
            Origin::Composition(composition) => composition,
        };
        let started = self.begin(&format!("composing the {}", system.name()));
        let plan = composition.plan(self.progress)?;
        let rootfs = Rootfs::of_plan(plan, format!("the {}", system.name()))?;
        self.end("rootfs", started, false);
        Ok(rootfs)
    }

    /// The slot image of a node.
    fn slot(&mut self) -> Result<Slot, ImageError> {
        let origin = self.origin(System::Node)?;
        let slot = self.pack(System::Node, &origin, None)?;
        let path = slot.image.with_file_name(CONTENTS);
        let record = fs::read(&path).map_err(ImageError::file("read", &path))?;
        // The rules are about packed systems; of others the slot's size is the rule.
        if self.request.root == RootFormat::Squash {
            account::check_size(self.request, &record, slot.facts.squashfs)?;
        }
        account::check_room(self.request, &record, slot.facts.size)?;
        store::save(&self.facts.folder, CONTENTS, &record)?;
        self.note(CONTENTS, Bytes(record.len() as u64), None);
        self.facts.slot = Some(slot.facts.clone());
        Ok(slot)
    }

    /// The slot image of the installer, with what it installs inside.
    fn installer_system(&mut self, node: &Slot, config: &Files) -> Result<Slot, ImageError> {
        let origin = self.origin(System::Installer)?;
        let loader = self.loader()?;
        let esp = self.esp(System::Node, node, loader.as_ref())?;
        let volume = Role::Config.volume(self.request.profile.config, self.config_time());
        let config = match volume {
            Some(volume) => fat::render(&volume, config)
                .map_err(|source| DiskError::Volume { partition: Role::Config.name(), source })?,
            None => Vec::new(),
        };
        let SlotFacts { size, digest, time, .. } = node.facts;
        let bits = Bits {
            slot: &node.image,
            slot_about: About { size, digest },
            config,
            esp: &esp,
            others: loader.map(|l| l.bits()).unwrap_or_default(),
            time,
        };
        self.pack(System::Installer, &origin, Some(&bits))
    }

    /// Makes a slot image of a root file system, with what it installs in it.
    fn pack(
        &mut self,
        system: System,
        origin: &Origin,
        bits: Option<&Bits<'_>>,
    ) -> Result<Slot, ImageError> {
        if self.request.stub.is_none() && self.packages.is_empty() {
            let mut names = vec![source::STUB_PACKAGE.to_owned()];
            names.extend(source::grub_package(self.request));
            self.packages = pkg::build(&names, &self.options, self.progress)?;
        }
        let stub = self.stub()?;
        let words = if self.request.debug { vec!["eve.debug".to_owned()] } else { Vec::new() };
        let format = match system {
            System::Node => self.request.root,
            System::Installer => RootFormat::Squash,
        };
        let method = self.request.packing.method();
        let made_by = match format {
            RootFormat::Squash => String::new(),
            RootFormat::Ext4 => mkfs::ext4_version()?,
        };
        let key = format!(
            "{} {} {} {format:?} {} {} {:?} {:?} {}",
            self.request.arch,
            system.role().name(),
            self.request.version,
            method.key(),
            BLOCK.0,
            words,
            self.request.time,
            Digest(Sha256::digest(&stub).into()).hex(),
        );
        let bits_key = bits.map(|bits| bits.key(self.request).hex()).unwrap_or_default();
        let started = self.begin(&format!("making the slot image of the {}", system.name()));
        let made = self.steps.step(
            "slot",
            &[VERSION, &key, &made_by, &origin.key(), &bits_key],
            |folder| {
                let mut rootfs = self.rootfs(system, origin)?;
                store::save(folder, CONTENTS, &rootfs.record()?.to_bytes())?;
                if let Some(bits) = bits {
                    bits.insert(self.request, &mut rootfs)?;
                }
                let time = self.request.time.unwrap_or_else(|| rootfs.latest());
                let (image, uki) = (folder.join(SLOT), folder.join(UKI));
                let packing = squashfs::Recipe { method, block: BLOCK, time };
                let (used, modules): (_, &[&str]) = match format {
                    RootFormat::Squash => (self.squashfs(system, &rootfs, &packing, &image)?, &[]),
                    // Without it the kernel cannot mount the file system.
                    RootFormat::Ext4 => (self.ext4(&rootfs, time, &image)?, &["ext4"]),
                };
                let parts = initrd::Parts::of(&rootfs, self.request.arch, modules)
                    .map_err(BuildSlotError::from)?;
                let initrd = self.initrd(&parts, time)?;
                let recipe = slot::Recipe {
                    arch: self.request.arch,
                    version: self.request.version.clone(),
                    slot: system.role().name(),
                    words,
                    stub,
                    time,
                };
                let file_system = slot::FileSystem { image: &image, used };
                let facts = slot::build(&rootfs, &file_system, (&parts, initrd), &recipe, &uki)?;
                Ok::<_, ImageError>(store::save(folder, FACTS, &to_json(&facts))?)
            },
        )?;
        self.end("slot", started, made.cached);
        let facts = read_facts(&made.folder.join(FACTS))?;
        let (image, uki) = (made.folder.join(SLOT), made.folder.join(UKI));
        Ok(Slot { image, uki, facts, _held: made })
    }

    /// Packs a root file system without what the unified kernel image holds; the length.
    fn squashfs(
        &self,
        system: System,
        rootfs: &Rootfs,
        recipe: &squashfs::Recipe,
        path: &Path,
    ) -> Result<Bytes, ImageError> {
        let started = self.begin(&format!("packing the {}", system.name()));
        let tree = without_kernel(rootfs, recipe.time);
        let name = format!("{}-{}", self.request.arch, system.role().name());
        let keep = Some(self.request.cache.as_path());
        let facts = squashfs::write_keeping(&tree, rootfs, recipe, keep, &name, path)?;
        self.end("squashfs", started, false);
        Ok(facts.used)
    }

    /// Writes a root file system without what the unified kernel image holds as an ext4; the length.
    fn ext4(&self, rootfs: &Rootfs, time: u64, path: &Path) -> Result<Bytes, ImageError> {
        let started = self.begin("writing the root file system as ext4");
        mkfs::ext4_root(&without_kernel(rootfs, time), rootfs, time, path)?;
        let about = fs::metadata(path).map_err(ImageError::file("read", path))?;
        self.end("ext4", started, false);
        Ok(Bytes(about.len()))
    }

    /// The initrd, compressed.
    fn initrd(&self, parts: &initrd::Parts<'_>, time: u64) -> Result<Vec<u8>, ImageError> {
        let started = self.begin("packing the initrd");
        let key = parts.key(time).map_err(BuildSlotError::from)?;
        let made = self.steps.step("initrd", &[VERSION, &key], |folder| {
            let bytes = parts.pack(time).map_err(BuildSlotError::from)?;
            Ok::<_, ImageError>(store::save(folder, INITRD, &bytes)?)
        })?;
        let path = made.folder.join(INITRD);
        let bytes = fs::read(&path).map_err(ImageError::file("read", &path))?;
        self.end("initrd", started, made.cached);
        Ok(bytes)
    }

    /// What goes into CONFIG: folders in their order, then single files, and what says of when it is.
    fn config_files(&self) -> Result<Files, ImageError> {
        let mut files = self.folders_and_files()?;
        files.insert(conf::origin(&self.request.version, self.config_time()), Vec::new());
        Ok(files)
    }

    fn folders_and_files(&self) -> Result<Files, ImageError> {
        let mut files = Files::new();
        for folder in &self.request.conf {
            files.extend(conf::read_folder(folder)?);
        }
        files.extend(self.request.set.clone());
        known::check(&files).map_err(ConfigError::from)?;
        Ok(files)
    }

    /// Time of the CONFIG volume. It does not come from the root file system: config.img is the same
    /// whether it is built alone or with a disk.
    fn config_time(&self) -> u64 {
        self.request.time.unwrap_or(0)
    }

    fn put_slot(&mut self, slot: &Slot) -> Result<(), ImageError> {
        self.put(&slot.image, SLOT, Some(slot.facts.digest))
    }

    fn put_config(&mut self, files: &Files) -> Result<(), ImageError> {
        let time = self.config_time();
        let size = self.request.profile.config;
        if let Some(volume) = Role::Config.volume(size, time) {
            disk::write_volume(&volume, files, &self.facts.folder.join("config.img"))?;
            self.note("config.img", size, None);
        }
        Ok(())
    }

    /// Makes `current` point to this version, as one step.
    fn point_current(&self) -> Result<(), ImageError> {
        let arch = self.request.out.join(self.request.arch.name());
        let (link, new) =
            (arch.join("current"), arch.join(format!(".current.{}", disk::own_name())));
        let failed = ImageError::file("replace", &link);
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        std::os::unix::fs::symlink(&self.request.version, &new)
            .and_then(|()| fs::rename(&new, &link))
            .map_err(failed)
    }

    fn put(&mut self, from: &Path, name: &str, digest: Option<Digest>) -> Result<(), ImageError> {
        let to = self.facts.folder.join(name);
        disk::copy(from, &to)?;
        let size = fs::metadata(&to).map_err(ImageError::file("read", &to))?.len();
        self.note(name, Bytes(size), digest);
        Ok(())
    }

    fn note(&mut self, name: &str, size: Bytes, digest: Option<Digest>) {
        self.facts.files.push(FileFacts { name: name.to_owned(), size, digest });
    }

    fn begin(&self, what: &str) -> Instant {
        self.progress.step(what);
        Instant::now()
    }

    fn end(&self, name: &str, started: Instant, cached: bool) {
        let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.done.borrow_mut().push(StepFacts { name: name.to_owned(), millis, cached });
    }

    fn finish(mut self) -> Result<Facts, ImageError> {
        self.facts.steps = self.done.take();
        super::names::write(&self.facts.folder, self.request)?;
        store::save(&self.facts.folder, FACTS, &to_json(&self.facts))?;
        Ok(self.facts)
    }
}

/// What the disk of the platform holds besides. A root file system from elsewhere may come without
/// the table of boards.
fn board(request: &Request) -> Result<Board, ImageError> {
    let table = request.repository.join(boards::TABLE);
    let boards = if table.exists() { Boards::read(&table)? } else { Boards::default() };
    let (arch, platform) = (request.arch, &request.platform);
    Ok(boards.board(arch, platform, &request.firmware, request.accept_licence)?)
}

/// Waits until no other build writes to `folder`; none does as long as the result lives.
fn alone_in(folder: &Path, progress: &dyn Progress) -> Result<File, ImageError> {
    let lock = File::open(folder).map_err(ImageError::file("open", folder))?;
    match lock.try_lock() {
        Ok(()) => return Ok(lock),
        Err(TryLockError::WouldBlock) => progress.step("waiting for another build of this version"),
        Err(TryLockError::Error(e)) => return Err(ImageError::file("lock", folder)(e)),
    }
    lock.lock().map_err(ImageError::file("lock", folder))?;
    Ok(lock)
}

/// A root file system without what the unified kernel image holds.
fn without_kernel(rootfs: &Rootfs, time: u64) -> Tree<Place> {
    let in_uki = |path: &[u8]| std::str::from_utf8(path).is_ok_and(slot::is_in_uki);
    let mut tree = rootfs.tree().clone().without(in_uki);
    tree.no_later_than(i64::try_from(time).unwrap_or(i64::MAX));
    tree
}

fn digest_of(path: &Path) -> Result<Digest, ImageError> {
    let read = ImageError::file("read", path);
    let mut hash = Sha256::new();
    let mut file = File::open(path).map_err(&read)?;
    io::copy(&mut file, &mut HashWriter(&mut hash)).map_err(&read)?;
    Ok(Digest(hash.finalize().into()))
}

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn to_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    // These types have string keys and no floats: nothing in them can fail to serialize.
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn read_facts(path: &Path) -> Result<SlotFacts, ImageError> {
    let read = ImageError::file("read", path);
    let bytes = fs::read(path).map_err(&read)?;
    serde_json::from_slice(&bytes).map_err(|e| read(io::Error::from(e)))
}
