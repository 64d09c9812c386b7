//! `eve run`: boots an image in QEMU on this terminal.

use std::path::{Path, PathBuf};

use anyhow::Context;
use host::process::Tool;
use host::qemu::{
    Accel, Disk, DiskFormat, Firmware, Flash, Forward, Machine, Nic, Serial, Swtpm, probe, start,
};
use model::{Arch, Bytes};

use crate::out::{self, OrAdvise};
use crate::places;

/// Boot an image in QEMU, with its serial console on this terminal
///
/// KVM is used only if a probe shows that it really runs a guest here; EVE_ACCEL=kvm or tcg
/// overrides that. The network is QEMU's user network: the guest reaches this machine as 10.0.2.2.
/// Type Ctrl-a x to end the machine, Ctrl-a c for QEMU's monitor.
///
/// `live` boots a built image and leaves it as it is. `installer` boots one with an empty disk,
/// made anew each time, to install to. `target` boots that disk, or another that was installed to,
/// and lets it write to it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    eve run                         boot dist/amd64/current, forget what it writes\n  \
    eve run --keep /tmp/n1 --tpm    keep disk, firmware variables and TPM there\n  \
    eve run --forward 8080:8080     localhost:8080 leads to port 8080 of the node\n  \
    eve run installer --format iso  install to dist/<arch>/current/target.qcow2\n  \
    eve run target                  boot that disk\n  \
    eve run --arch arm64            boot dist/arm64/current on an ARM machine")]
pub(crate) struct Args {
    /// What to boot
    #[arg(value_enum, default_value_t = What::Live)]
    what: What,
    /// The image [default: live.raw or live.qcow2, installer.<format>, target.qcow2 in
    /// dist/<arch>/current]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// What the installer comes on: a disk, a CD, the network
    #[arg(long, value_enum, default_value_t = Medium::Raw)]
    format: Medium,
    /// The disk that the installer installs to, made anew [default: target.qcow2 in
    /// dist/<arch>/current]
    #[arg(long, value_name = "FILE.qcow2")]
    target: Option<PathBuf>,
    /// Keep what the node writes in this folder, and go on from there the next time
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The processor: amd64, arm64, riscv64 [default: as the image says, else amd64]
    #[arg(long, env = "ZARCH", value_parser = crate::build::arch)]
    arch: Option<Arch>,
    /// Memory of the node, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(128..=1_048_576))]
    memory: u64,
    /// Size of the node's disk, in MiB, if the image is raw and smaller, or none yet
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=1 << 25))]
    disk: u64,
    /// Processors of the node [default: 2 with KVM, else 1]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    cpus: Option<u8>,
    /// Do not use KVM, even if it works
    #[arg(long)]
    no_accel: bool,
    /// Network cards of the node
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=8))]
    nics: u8,
    /// Give the node a TPM 2.0 (in software)
    #[arg(long)]
    tpm: bool,
    /// Lead a port of this machine to one of the node (repeatable)
    #[arg(long, value_name = "HERE:NODE", value_parser = parse_forward)]
    forward: Vec<Forward>,
    /// The serial number that the node's firmware shows
    #[arg(long, default_value = "eve-run")]
    serial: String,
    /// A file for QEMU's process id
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Print the QEMU command line instead of running it; nothing is made and nothing need be there
    #[arg(long)]
    dry_run: bool,
}

/// What to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum What {
    /// A built image, which stays as it is
    Live,
    /// An image that installs, beside an empty disk
    Installer,
    /// An installed disk, which is written to
    Target,
}

/// What an installer comes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Medium {
    /// A disk: installer.raw
    Raw,
    /// A CD: installer.iso
    Iso,
    /// The network: installer.net
    Net,
}

impl Medium {
    const fn file(self) -> &'static str {
        match self {
            Medium::Raw => "installer.raw",
            Medium::Iso => "installer.iso",
            Medium::Net => "installer.net",
        }
    }
}

/// What firmware finds to boot.
#[derive(Debug, Default)]
struct Drives {
    disks: Vec<Disk>,
    cd: Option<PathBuf>,
    /// What the network hands out.
    net: Option<PathBuf>,
}

/// `8080:80`: a port of this machine's loopback, and the guest's.
pub(crate) fn parse_forward(text: &str) -> Result<Forward, String> {
    let ports = text.split_once(':').and_then(|(here, node)| {
        Some((here.parse().ok().filter(|p| *p > 0)?, node.parse().ok().filter(|p| *p > 0)?))
    });
    let (here, node) = ports.ok_or("expected HERE:NODE, two port numbers, as in 8080:80")?;
    Ok(Forward::local(here, node))
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let arch = places::arch(args.arch, args.image.as_deref())?;
    let image = image(&args, arch)?;
    let scratch = Scratch::open(args.keep.as_deref(), args.dry_run)?;
    let dir = scratch.path.as_path();
    let (accel, why) = match args.no_accel {
        true => (Accel::Tcg, "as asked for".to_owned()),
        false => probe::accel(&places::cache(), arch).or_advise()?,
    };
    let drives = drives(&args, &image, arch, dir)?;
    let mut nics = nics(args.nics, args.forward);
    if let Some(nic) = nics.first_mut() {
        nic.boot = drives.net;
    }
    let machine = Machine {
        arch,
        accel,
        memory: Bytes::mib(args.memory),
        cpus: args.cpus,
        flash: Some(flash(arch, dir, args.dry_run)?),
        disks: drives.disks,
        cd: drives.cd,
        stick: None,
        nics,
        serial: Serial::Terminal { copy: dir.join("serial.log") },
        debug: Some(dir.join("debug.sock")),
        watchdog: true,
        tpm: args.tpm.then(|| dir.join("tpm.sock")),
        serial_number: args.serial,
        qmp: dir.join("qmp.sock"),
        pid_file: args.pid_file,
        incoming: None,
        reboot: true,
    };
    if args.dry_run {
        out::line(format!("{} {}", Tool::Qemu(arch), shell_words(&machine.args())));
        return Ok(());
    }
    let swtpm = args.tpm.then(|| Swtpm::start(dir)).transpose().or_advise()?;
    say!("booting {} with {accel}: {why}", image.display());
    say!("Ctrl-a x ends it");
    let mut guest = start(&machine, &dir.join("qemu.log")).or_advise()?;
    let ended = guest.wait().or_advise();
    drop(swtpm);
    ended
}

/// The image that is booted. It need not be there if nothing is run.
fn image(args: &Args, arch: Arch) -> anyhow::Result<PathBuf> {
    let newest = places::newest_images_for(arch);
    let (there, made_by) = match args.what {
        What::Live => match places::live_image(args.image.as_deref(), arch) {
            Err(_) if args.dry_run => (newest.join("live.raw"), ""),
            found => return found,
        },
        What::Installer => (newest.join(args.format.file()), "eve build installer"),
        What::Target => (target(args, arch), "eve run installer"),
    };
    let path = args.image.clone().unwrap_or(there);
    if !args.dry_run && !path.is_file() {
        let advice = format!("make it with `{made_by}`, or name another with --image");
        return Err(out::advised(format!("there is no {}", path.display()), advice));
    }
    Ok(path)
}

/// The disk that is installed to.
fn target(args: &Args, arch: Arch) -> PathBuf {
    let newest = || places::newest_images_for(arch).join("target.qcow2");
    args.target.clone().unwrap_or_else(newest)
}

/// An image to boot stays as it is, under a layer that takes what is written; an installed disk is
/// written to.
fn drives(args: &Args, image: &Path, arch: Arch, dir: &Path) -> anyhow::Result<Drives> {
    let size = Bytes::mib(args.disk);
    let as_it_is = |path: &Path| Disk { path: path.to_owned(), format: DiskFormat::of(path) };
    match args.what {
        What::Target => Ok(Drives { disks: vec![as_it_is(image)], ..Drives::default() }),
        What::Live => {
            let disks = vec![layer(image, dir, Some(size), args.dry_run)?];
            Ok(Drives { disks, ..Drives::default() })
        }
        What::Installer => {
            let target = target(args, arch);
            if !args.dry_run {
                host::qemu::blank(&target, size).or_advise()?;
                say!("the disk to install to: {}, {size}", target.display());
            }
            let mut drives = Drives { disks: vec![as_it_is(&target)], ..Drives::default() };
            match args.format {
                Medium::Raw => drives.disks.push(layer(image, dir, None, args.dry_run)?),
                Medium::Iso => drives.cd = Some(image.to_owned()),
                Medium::Net => drives.net = Some(net(image, arch, dir, args.dry_run)?),
            }
            Ok(drives)
        }
    }
}

fn layer(image: &Path, dir: &Path, size: Option<Bytes>, dry: bool) -> anyhow::Result<Disk> {
    let layer = dir.join("disk.qcow2");
    if !dry && !layer.exists() {
        host::qemu::overlay(image, DiskFormat::of(image), &layer, size).or_advise()?;
    }
    Ok(Disk { path: layer, format: DiskFormat::Qcow2 })
}

/// Lays out what the network hands out; the file that firmware asks for.
fn net(archive: &Path, arch: Arch, dir: &Path, dry: bool) -> anyhow::Result<PathBuf> {
    let folder = dir.join("net");
    if !dry {
        let failed = || format!("cannot unpack {}", archive.display());
        std::fs::create_dir_all(&folder).with_context(failed)?;
        let file = std::fs::File::open(archive).with_context(failed)?;
        // Members that lead out of the folder are left out by it.
        tar::Archive::new(file).unpack(&folder).with_context(failed)?;
    }
    let ipxe = folder.join("ipxe.efi");
    let ours = dry || ipxe.is_file();
    Ok(if ours { ipxe } else { folder.join("EFI/BOOT").join(arch.loader()) })
}

fn flash(arch: Arch, dir: &Path, dry: bool) -> anyhow::Result<Flash> {
    match Firmware::find(arch) {
        Ok(firmware) if dry => Ok(firmware.with_vars(dir.join("vars.fd"), DiskFormat::Raw)),
        Err(_) if dry => {
            Ok(Firmware::expected(arch).with_vars(dir.join("vars.fd"), DiskFormat::Raw))
        }
        found => found.and_then(|firmware| firmware.in_folder(dir)).or_advise(),
    }
}

fn nics(count: u8, forwards: Vec<Forward>) -> Vec<Nic> {
    let mut forwards = Some(forwards);
    (0..count).map(|i| Nic::new(i, forwards.take().unwrap_or_default())).collect()
}

/// A folder for the machine's sockets and variables: kept if it was named, else removed at the end.
#[derive(Debug)]
struct Scratch {
    path: PathBuf,
    remove: bool,
}

impl Scratch {
    fn open(keep: Option<&Path>, dry: bool) -> anyhow::Result<Scratch> {
        let path = match keep {
            Some(dir) => dir.to_owned(),
            None => std::env::temp_dir().join(format!("eve-run-{}", std::process::id())),
        };
        if dry {
            return Ok(Scratch { path, remove: false });
        }
        let made = std::fs::create_dir_all(&path);
        made.with_context(|| format!("cannot create {}", path.display()))?;
        let path = path.canonicalize().context("cannot find the folder just made")?;
        Ok(Scratch { path, remove: keep.is_none() })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.remove {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Words as a person would type them.
fn shell_words(args: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,.:/@+".contains(c);
    let word = |arg: &String| match !arg.is_empty() && arg.chars().all(plain) {
        true => arg.clone(),
        false => format!("'{}'", arg.replace('\'', r"'\''")),
    };
    args.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_is_two_ports() {
        assert_eq!(parse_forward("8080:80"), Ok(Forward::local(8080, 80)));
        for wrong in ["8080", "8080:", ":80", "0:80", "80:0", "70000:80", "a:b", "1:2:3"] {
            assert!(parse_forward(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_command_line_can_be_pasted() {
        let args = ["-m", "512", "a b", "it's", ""].map(String::from);
        assert_eq!(shell_words(&args), r"-m 512 'a b' 'it'\''s' ''");
    }
}
