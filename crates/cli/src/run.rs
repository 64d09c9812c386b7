//! `eve run`: boots an image in QEMU on this terminal.

use std::path::{Path, PathBuf};

use anyhow::Context;
use host::process::Tool;
use host::qemu::{Disk, DiskFormat, Firmware, Forward, Machine, Nic, Serial, Swtpm, probe, start};
use model::{Arch, Bytes};

use crate::out::{self, OrAdvise};
use crate::places;

/// Boot an image in QEMU, with its serial console on this terminal
///
/// KVM is used only if a probe shows that it really runs a guest here; EVE_ACCEL=kvm or tcg
/// overrides that. The network is QEMU's user network: the guest reaches this machine as 10.0.2.2.
/// Type Ctrl-a x to end the machine, Ctrl-a c for QEMU's monitor.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    eve run                            boot dist/amd64/current, forget what it writes\n  \
    eve run --keep /tmp/n1 --tpm       keep disk, firmware variables and TPM in a folder\n  \
    eve run --forward 8080:8080        http://localhost:8080 leads to port 8080 of the node\n  \
    eve run target --image disk.qcow2  boot an installed disk and let it write to it\n  \
    eve run --arch arm64               boot dist/arm64/current on an ARM machine")]
pub(crate) struct Args {
    /// What to boot: `live`, the image stays as it is; `target`, an installed disk is written to
    #[arg(value_enum, default_value_t = What::Live)]
    what: What,
    /// The disk image [default: live.raw or live.qcow2 in dist/<arch>/current]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Keep what the node writes in this folder, and go on from there the next time
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The processor: amd64, arm64, riscv64 [default: as the image says, else amd64]
    #[arg(long, env = "ZARCH", value_parser = crate::build::arch)]
    arch: Option<Arch>,
    /// Memory of the node, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(128..=1_048_576))]
    memory: u64,
    /// Size of the node's disk, in MiB, if the image is raw and smaller
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=1 << 25))]
    disk: u64,
    /// Processors of the node [default: 2 with KVM, else 1]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    cpus: Option<u8>,
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
    /// Print the QEMU command line instead of running it
    #[arg(long)]
    dry_run: bool,
}

/// What to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum What {
    /// A built image, which stays as it is
    Live,
    /// An installed disk, which is written to
    Target,
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
    let image = match (args.what, &args.image) {
        (What::Target, None) => {
            let advice = "name the installed disk with --image";
            return Err(out::advised("`eve run target` needs a disk", advice));
        }
        (_, image) => places::live_image(image.as_deref(), arch)?,
    };
    let scratch = Scratch::open(args.keep.as_deref())?;
    let dir = scratch.path.as_path();
    let (accel, why) = probe::accel(&places::cache(), arch).or_advise()?;
    let firmware = Firmware::find(arch).or_advise()?;
    let flash = firmware.in_folder(dir).or_advise()?;
    let swtpm = (args.tpm && !args.dry_run).then(|| Swtpm::start(dir)).transpose().or_advise()?;
    let tpm = args.tpm.then(|| dir.join("tpm.sock"));
    let machine = Machine {
        arch,
        accel,
        memory: Bytes::mib(args.memory),
        cpus: args.cpus,
        flash: Some(flash),
        disks: vec![disk(args.what, &image, dir, Bytes::mib(args.disk))?],
        nics: nics(args.nics, args.forward),
        serial: Serial::Terminal { copy: dir.join("serial.log") },
        debug: Some(dir.join("debug.sock")),
        watchdog: true,
        tpm,
        serial_number: args.serial,
        qmp: dir.join("qmp.sock"),
        incoming: None,
        reboot: true,
    };
    if args.dry_run {
        out::line(format!("{} {}", Tool::Qemu(arch), shell_words(&machine.args())));
        return Ok(());
    }
    say!("booting {} with {accel}: {why}", image.display());
    say!("Ctrl-a x ends it");
    let mut guest = start(&machine, &dir.join("qemu.log")).or_advise()?;
    let ended = guest.wait().or_advise();
    drop(swtpm);
    ended
}

/// An installed disk as it is; for an image a layer over it that takes what is written.
fn disk(what: What, image: &Path, dir: &Path, size: Bytes) -> anyhow::Result<Disk> {
    if what == What::Target {
        let format = DiskFormat::of(image);
        return Ok(Disk { path: image.to_owned(), format });
    }
    let layer = dir.join("disk.qcow2");
    if !layer.exists() {
        host::qemu::overlay(image, DiskFormat::of(image), &layer, Some(size)).or_advise()?;
    }
    Ok(Disk { path: layer, format: DiskFormat::Qcow2 })
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
    fn open(keep: Option<&Path>) -> anyhow::Result<Scratch> {
        let path = match keep {
            Some(dir) => dir.to_owned(),
            None => std::env::temp_dir().join(format!("eve-run-{}", std::process::id())),
        };
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
