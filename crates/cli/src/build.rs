//! `eve build`: root file systems, slot images, CONFIG volumes, live disks and installers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use builder::describe::Variant;
use builder::image::{self, Arch, Facts, Flavor, Format, Packing, Request, RootFormat, Source};
use builder::sizes::Sizes;
use clap::ValueEnum;
use formats::fat::Files;
use formats::layout::Profile;
use model::Bytes;
use model::installer::ANSWERS;

use crate::edit;
use crate::out::{self, OrAdvise, WrongUse};
use crate::places;
use crate::steps::Steps;

/// Build images: rootfs, slot, config, live, installer
///
/// Writes to dist/<arch>/<version>/, and points dist/<arch>/current to it after `live`. Steps whose
/// inputs did not change are not done again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to build
    #[arg(value_enum)]
    target: Target,
    /// The processor: amd64, arm64, riscv64
    #[arg(long, env = "ZARCH", default_value = "amd64", value_parser = arch)]
    arch: Arch,
    /// The hypervisor: kvm, k, mini, xen
    #[arg(long, env = "HV", default_value = "kvm")]
    hv: String,
    /// The platform; `eve matrix` shows what there is
    #[arg(long, env = "PLATFORM", default_value = "generic")]
    platform: String,
    /// An image with another kernel than the platform's
    #[arg(long, env = "KERNEL_TAG", value_name = "IMAGE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    kernel_tag: Option<String>,
    /// A kernel file that takes the place of that in the kernel's image
    #[arg(long, env = "KERNEL_IMAGE", value_name = "FILE")]
    kernel_image: Option<PathBuf>,
    /// The format of the node's root file system: squash (packed) or ext4 (not packed)
    #[arg(long, env = "ROOTFS_FORMAT", default_value = "squash", value_parser = rootfs_format)]
    rootfs_format: RootFormat,
    /// The sizes of the partitions
    #[arg(long, default_value = "small", value_parser = profile)]
    profile: Profile,
    /// Firmware of the platform's board (images/boards.toml says which files); can be given again
    #[arg(long, value_name = "DIR")]
    firmware: Vec<PathBuf>,
    /// Accept the licences under which that firmware comes
    #[arg(long)]
    accept_license: bool,
    /// For developers: with the debug package; services write to the console. A version with the
    /// flag `-dev` is for developers, too
    #[arg(long, visible_alias = "dev")]
    debug: bool,
    /// Pack fast instead of small
    #[arg(long)]
    fast: bool,
    /// Formats besides raw, which is always made: qcow2, vdi, vmdk, vmdk-stream, vhdx, parallels,
    /// gcp; of an installer also iso and net. By default qcow2 of a live disk, none of an installer
    #[arg(long, value_delimiter = ',', value_parser = format)]
    format: Option<Vec<Format>>,
    /// The version; by default that of the repository
    #[arg(long, env = "ROOTFS_VERSION", value_parser = version)]
    version: Option<String>,
    /// Where <arch>/<version>/ comes to lie; by default dist in the repository
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Files for the CONFIG partition, over those of conf/; can be given again
    #[arg(long, env = "CONF_DIR", value_name = "DIR")]
    conf: Vec<PathBuf>,
    /// A file of the CONFIG partition and its text: soft_serial=12345; soft_serial=auto takes one by
    /// chance and tells it
    #[arg(long, value_name = "NAME=TEXT", value_parser = setting)]
    set: Vec<(String, String)>,
    /// A file for the CONFIG partition
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// usb-config only: the node leaves what it knows of itself in this folder of the stick: dump,
    /// identity
    #[arg(long, value_name = "FOLDER", value_parser = ["dump", "identity"])]
    ask: Vec<String>,
    /// Size of the virtual disk in MiB; by default that of the profile
    #[arg(long, env = "MEDIA_SIZE", value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 25))]
    media_size: Option<u64>,
    /// Change the live.raw that is there into what a clean build would make, instead of making it anew
    #[arg(long, env = "LIVE_UPDATE", value_parser = clap::builder::FalseyValueParser::new())]
    update: bool,
    #[command(flatten)]
    edit: edit::Args,
    /// Take this root file system (a tar in linuxkit layout) for the installer instead of images/
    #[arg(long, value_name = "FILE.tar")]
    installer_rootfs: Option<PathBuf>,
    /// Build from this root file system (a tar in linuxkit layout) instead of images/
    #[arg(long, value_name = "FILE.tar")]
    rootfs: Option<PathBuf>,
    /// systemd's EFI stub; by default that of the package uefi
    #[arg(long, value_name = "FILE")]
    stub: Option<PathBuf>,
    /// iPXE as a program of UEFI, for --format net; by default that of the package ipxe
    #[arg(long, value_name = "FILE")]
    ipxe: Option<PathBuf>,
    /// The folder i386-pc of GRUB for BIOS machines; by default that of the package grub
    #[arg(long, value_name = "DIR")]
    grub: Option<PathBuf>,
    /// Refuse to build when a pinned Debian package has vanished
    #[arg(long)]
    locked: bool,
    /// All times in the image that are not those of files, in seconds since 1970
    #[arg(long, env = "SOURCE_DATE_EPOCH", value_name = "SECONDS")]
    time: Option<u64>,
    /// Build nothing; say what would be built, as what, and where
    #[arg(long)]
    dry_run: bool,
    /// Tell what each package takes in the image that was built
    #[arg(long)]
    sizes: bool,
    /// Print what was built as JSON
    #[arg(long)]
    json: bool,
}

/// What was built, for programs.
#[derive(Debug, serde::Serialize)]
struct Built {
    #[serde(flatten)]
    facts: Facts,
    #[serde(skip_serializing_if = "Option::is_none")]
    sizes: Option<Sizes>,
}

/// How far a build goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// The root file system: rootfs.tar
    Rootfs,
    /// The slot image: slot.img
    Slot,
    /// The CONFIG volume: config.img
    Config,
    /// The live disk: live.raw, live.qcow2
    Live,
    /// A disk that installs the node onto another: installer.raw
    Installer,
    /// A USB stick that brings a node its network configuration: usb-config.raw
    UsbConfig,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let (target, json, wants_sizes) = (args.target, args.json, args.sizes);
    if wants_sizes && matches!(target, Target::Config | Target::UsbConfig) {
        let why = "--sizes goes with rootfs, slot, live and installer: CONFIG has no packages";
        return Err(WrongUse(why.to_owned()).into());
    }
    if args.edit.is_wanted() {
        if target != Target::Config {
            return Err(WrongUse("--in goes with `eve build config` only".to_owned()).into());
        }
        let mut files = Files::new();
        for folder in &args.conf {
            files.extend(image::read_folder(folder).or_advise()?);
        }
        files.extend(single_files(&args.file, &args.set)?);
        answers_mean_something(&files)?;
        return edit::run(&args.edit, &files, json);
    }
    let dry_run = args.dry_run;
    let request = request(args)?;
    if dry_run {
        announce(target, &request);
        return Ok(());
    }
    let steps = Steps::default();
    let built = match target {
        Target::Rootfs => image::rootfs(&request, &steps),
        Target::Slot => image::slot(&request, &steps),
        Target::Config => image::config(&request, &steps),
        Target::Live => image::live(&request, &steps),
        Target::Installer => image::installer(&request, &steps),
        Target::UsbConfig => image::usb_config(&request, &steps),
    };
    let facts = built.or_advise()?;
    steps.done();
    let sizes = wants_sizes.then(|| sizes(&facts)).transpose()?;
    if json {
        return out::json(&Built { facts, sizes });
    }
    show(&facts);
    if let Some(sizes) = &sizes {
        out::line("");
        crate::sizes::show(sizes, false);
    }
    Ok(())
}

/// What the packages take in the root file system that was built.
fn sizes(facts: &Facts) -> anyhow::Result<Sizes> {
    // A folder may hold files of an earlier build: what counts is what this one says of itself.
    let made = |name: &&str| facts.files.iter().any(|file| file.name == *name);
    let image = ["slot.img", "rootfs.tar"].into_iter().find(made).unwrap_or_default();
    builder::inspect::sizes(&facts.folder.join(image)).or_advise()
}

/// A request for everything that `eve build live` builds by default in this repository.
pub(crate) fn default_request() -> anyhow::Result<Request> {
    let cli = <crate::Eve as clap::Parser>::try_parse_from(["eve", "build", "live"])?;
    match cli.command {
        crate::Command::Build(args) => request(*args),
        _ => anyhow::bail!("`eve build live` did not parse as a build"),
    }
}

fn request(args: Args) -> anyhow::Result<Request> {
    // A finished root file system can do without.
    let repository = match places::repository() {
        Err(_) if args.rootfs.is_some() && args.version.is_some() => {
            // Nothing but its packages has what boots a slot.
            let boots = !matches!(args.target, Target::Rootfs | Target::Config | Target::UsbConfig);
            if boots && args.stub.is_none() {
                let why =
                    "outside of a clone of the repository, --stub must name systemd's EFI stub";
                return Err(WrongUse(why.to_owned()).into());
            }
            PathBuf::from(".")
        }
        found => {
            let repository = found?;
            check_machine(&args, &repository)?;
            repository
        }
    };
    let version = match args.version {
        Some(version) => version,
        None => {
            let state = image::ask(&repository).or_advise().context("cannot tell the version")?;
            let (dev, platform) = (args.debug, args.platform.as_str());
            image::version(&state, &Flavor { dev, kernel: args.kernel_tag.as_deref(), platform })
        }
    };
    let full = image::full_version(&version, &args.hv, args.arch.name());
    let debug = args.debug || Variant::of(&full).dev;
    let defaults = repository.join("conf");
    let wanted = args.target != Target::UsbConfig && defaults.is_dir();
    let mut conf: Vec<PathBuf> = wanted.then_some(defaults).into_iter().collect();
    conf.extend(args.conf);
    let mut set = single_files(&args.file, &args.set)?;
    let answers = conf.iter().map(|folder| folder.join(ANSWERS)).filter(|path| path.is_file());
    for path in answers {
        let body = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        answers_mean_something(&Files::from([(ANSWERS.to_owned(), body)]))?;
    }
    answers_mean_something(&set)?;
    if args.target == Target::UsbConfig {
        set.extend(args.ask.iter().map(|folder| (format!("{folder}/"), Vec::new())));
    } else if !args.ask.is_empty() {
        return Err(WrongUse("--ask goes with `eve build usb-config` only".to_owned()).into());
    }
    Ok(Request {
        cache: places::cache(),
        out: args.out.unwrap_or_else(|| repository.join("dist")),
        repository,
        arch: args.arch,
        hv: args.hv,
        platform: args.platform,
        profile: args.profile,
        firmware: args.firmware,
        accept_licence: args.accept_license,
        debug,
        kernel: args.kernel_tag,
        kernel_image: args.kernel_image.filter(|path| !path.as_os_str().is_empty()),
        version,
        source: match args.rootfs {
            Some(path) => Source::Tar(path),
            None => Source::Compose { locked: args.locked },
        },
        installer: args.installer_rootfs,
        stub: args.stub,
        grub: args.grub,
        conf,
        set,
        ipxe: args.ipxe,
        formats: formats(args.target, args.format)?,
        update: args.update,
        media: args.media_size.map(Bytes::mib),
        time: args.time,
        packing: if args.fast { Packing::Fast } else { Packing::Small },
        root: args.rootfs_format,
    })
}

/// Fails before any work if there is no such machine, or none that this can be built for.
fn check_machine(args: &Args, repository: &Path) -> anyhow::Result<()> {
    let composes = match args.target {
        Target::Config | Target::UsbConfig => false,
        _ => args.rootfs.is_none(),
    };
    let kernel = args.kernel_tag.as_deref();
    let machine = (args.arch.name(), args.hv.as_str(), args.platform.as_str());
    crate::describe::check(repository, machine, composes.then_some(kernel))
}

/// Says what would be built; nothing is.
fn announce(target: Target, request: &Request) {
    let Request { arch, hv, platform, version, kernel, .. } = request;
    let what = target.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
    let mut rows = vec![
        vec!["builds".to_owned(), what],
        vec!["for".to_owned(), format!("ZARCH={arch} HV={hv} PLATFORM={platform}")],
        vec!["as".to_owned(), image::full_version(version, hv, arch.name())],
        vec!["into".to_owned(), path(&request.out.join(arch.name()), version)],
    ];
    if request.debug {
        rows.push(vec!["with".to_owned(), "what developers need".to_owned()]);
    }
    if let Some(kernel) = kernel {
        rows.push(vec!["kernel".to_owned(), kernel.clone()]);
    }
    if let Some(kernel) = &request.kernel_image {
        rows.push(vec!["kernel".to_owned(), kernel.display().to_string()]);
    }
    rows.iter().for_each(|row| out::line(format!("{:7} {}", row[0], row[1])));
}

fn single_files(files: &[PathBuf], settings: &[(String, String)]) -> anyhow::Result<Files> {
    let mut all = Files::new();
    for path in files {
        let name = path.file_name().and_then(|n| n.to_str());
        let name = name.with_context(|| format!("{} names no file", path.display()))?;
        let body = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        all.insert(name.to_owned(), body);
    }
    for (name, text) in settings {
        let text = match (name.as_str(), text.as_str()) {
            ("soft_serial", "auto") => {
                let serial = uuid::Uuid::new_v4().to_string();
                crate::out::say!("soft_serial is {serial}");
                serial
            }
            _ => text.clone(),
        };
        all.insert(name.clone(), format!("{text}\n").into());
    }
    Ok(all)
}

/// Whether the installer could do what `installer.json` wishes: it is asked here, by the code that
/// reads the file there. Names that mean nothing are told by who writes the image.
fn answers_mean_something(files: &Files) -> anyhow::Result<()> {
    use device::install::{WishError, read};

    match files.get(ANSWERS).map(|body| read("", Some(body))) {
        None | Some(Ok(_) | Err(WishError::Unknown(_))) => Ok(()),
        Some(Err(wrong)) => {
            let advice = "correct the file; README.md has an example";
            Err(out::advised(format!("the installer cannot use {ANSWERS}: {wrong}"), advice))
        }
    }
}

fn show(facts: &Facts) {
    let rows: Vec<Vec<String>> = facts
        .files
        .iter()
        .map(|f| vec![path(&facts.folder, &f.name), f.size.to_string()])
        .collect();
    out::table(&["file", "size"], &rows);
    if let Some(slot) = &facts.slot {
        out::line(format!(
            "slot image {}: root file system {}, kernel with initrd {} (initrd {}, {} modules)",
            slot.size, slot.squashfs, slot.uki, slot.initrd, slot.modules
        ));
    }
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

/// An architecture as people write it.
pub(crate) fn arch(text: &str) -> Result<Arch, WrongUse> {
    let known = Arch::ALL.map(Arch::name).join(", ");
    Arch::from_name(text).ok_or_else(|| WrongUse(format!("no such processor; there are {known}")))
}

pub(crate) fn profile(text: &str) -> Result<Profile, WrongUse> {
    let known: Vec<&str> = Profile::ALL.iter().map(|p| p.name).collect();
    Profile::by_name(text)
        .ok_or_else(|| WrongUse(format!("no such profile; there are {}", known.join(", "))))
}

/// What was asked for, or what the target comes in.
fn formats(target: Target, asked: Option<Vec<Format>>) -> Result<Vec<Format>, WrongUse> {
    let installer = target == Target::Installer;
    let all = asked.unwrap_or_else(|| if installer { vec![] } else { vec![Format::QCOW2] });
    match all.iter().find(|f| !installer && matches!(f, Format::Iso | Format::Net)) {
        Some(format) => Err(WrongUse(format!("only an installer comes as {}", format.name()))),
        None => Ok(all),
    }
}

fn format(text: &str) -> Result<Format, WrongUse> {
    let known: Vec<&str> = Format::all().map(Format::name).collect();
    Format::by_name(text)
        .ok_or_else(|| WrongUse(format!("no such format; there are {}", known.join(", "))))
}

/// A version is the name of a folder.
pub(crate) fn version(text: &str) -> Result<String, WrongUse> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    if text.is_empty() || text.starts_with('.') || text.len() > 200 || !text.chars().all(good) {
        return Err(WrongUse("a version has letters, digits and . _ - + only".to_owned()));
    }
    Ok(text.to_owned())
}

fn rootfs_format(text: &str) -> Result<RootFormat, WrongUse> {
    match text {
        "squash" => Ok(RootFormat::Squash),
        "ext4" => Ok(RootFormat::Ext4),
        _ => Err(WrongUse("no such format; there are squash, ext4".to_owned())),
    }
}

fn setting(text: &str) -> Result<(String, String), WrongUse> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(WrongUse("it is not NAME=TEXT".to_owned())),
    }
}
