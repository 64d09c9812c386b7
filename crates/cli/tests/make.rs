//! The make commands of EVE's documentation, one after the other, in a clone with spaces in its path.
//!
//! What is cheap is done; of the rest make is asked what it would run (`make -n`), and each of those
//! commands is carried out as far as it goes without building or booting: `--dry-run` where there is
//! one, else `--help` behind all its arguments, which still refuses wrong ones.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A clone of the repository as it stands, as far as make and the tool need it, with the tool as
/// `./eve`.
struct Clone {
    _temp: tempfile::TempDir,
    root: PathBuf,
}

#[expect(clippy::disallowed_methods, reason = "the test stands where a person's shell stands")]
fn command(program: &str) -> Command {
    Command::new(program)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Clone {
    fn make() -> Clone {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("my own clone");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        std::fs::create_dir(&root).unwrap();
        for name in ["Makefile", "services.toml", "images", "pkg", "conf", "apps"] {
            let copied = command("cp").arg("-a").arg(from.join(name)).arg(&root).status().unwrap();
            assert!(copied.success(), "{name}");
        }
        let clone = Clone { _temp: temp, root };
        for args in [
            &["init", "-q", "-b", "main"][..],
            &["add", "-A"],
            &["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "x"],
        ] {
            assert!(clone.run("git", args, &[]).status.success(), "git {args:?}");
        }
        let (tool, link) = (env!("CARGO_BIN_EXE_eve"), clone.root.join("eve"));
        std::os::unix::fs::symlink(tool, link).unwrap();
        store::save(&clone.root.join(".git/info"), "exclude", b"eve\ndist\n").unwrap();
        clone
    }

    fn run(&self, program: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
        let mut command = command(program);
        command.args(args).current_dir(&self.root).envs(env.iter().copied());
        // Whoever runs the tests may be make.
        for name in
            ["MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ZARCH", "HV", "PLATFORM", "ROOTFS_VERSION"]
        {
            if env.iter().all(|(have, _)| have != &name) {
                command.env_remove(name);
            }
        }
        command.env("EVE_CACHE", self.root.join("../cache")).env("EVE_ACCEL", "tcg");
        command.output().unwrap()
    }

    /// Runs make for real, from somewhere else; its standard output.
    #[track_caller]
    fn make_for_real(&self, line: &str) -> String {
        let root = self.root.to_str().unwrap();
        let args: Vec<&str> =
            ["-s", "-C", root, "EVE=./eve"].into_iter().chain(line.split(' ')).collect();
        let args: Vec<&str> = args.into_iter().filter(|arg| !arg.is_empty()).collect();
        let out = self.run("make", &args, &[]);
        assert!(out.status.success(), "make {line}: {}{}", text(&out.stdout), text(&out.stderr));
        text(&out.stdout).trim().to_owned()
    }

    /// What a make command comes to: the commands that make would run, each as far as it goes. The
    /// first that fails says why.
    fn try_dry(&self, line: &str) -> Result<Vec<String>, String> {
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let args: Vec<&str> =
            ["-n", "EVE=./eve"].into_iter().chain(words.iter().copied()).collect();
        let out = self.run("make", &args, &[]);
        if !out.status.success() {
            return Err(text(&out.stderr));
        }
        let env: Vec<(&str, &str)> = words.iter().filter_map(|word| word.split_once('=')).collect();
        // A recipe's line that goes on in the next is one command.
        let commands = text(&out.stdout).replace("\\\n", " ");
        let commands: Vec<&str> = commands.lines().map(str::trim).collect();
        for command in &commands {
            let how = match command.split_whitespace().nth(1) {
                _ if !command.starts_with("./eve ") => continue,
                Some("build" | "run") => "--dry-run",
                _ => "--help",
            };
            let out = self.run("sh", &["-c", &format!("{command} {how}")], &env);
            if !out.status.success() {
                return Err(format!("{command}: {}{}", text(&out.stdout), text(&out.stderr)));
            }
        }
        Ok(commands.into_iter().map(str::to_owned).collect())
    }
}

#[test]
fn every_make_command_of_the_documentation_is_understood() {
    let clone = Clone::make();
    let mut wrong = Vec::new();
    for line in UNDERSTOOD {
        match clone.try_dry(line) {
            Ok(commands) if commands.iter().any(|c| c.contains("./eve ")) => {}
            Ok(commands) => wrong.push(format!("make {line}: runs nothing of ours: {commands:?}")),
            Err(why) => wrong.push(format!("make {line}: {why}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_cannot_be_done_is_refused_before_any_work_and_says_why() {
    let clone = Clone::make();
    for (line, why) in REFUSED {
        let got = clone.try_dry(line).expect_err(line);
        assert!(got.contains(why), "make {line}: {got}");
    }
    assert!(!clone.root.join("dist").exists());
}

#[test]
fn make_answers_in_a_clone_with_spaces_in_its_path() {
    let clone = Clone::make();
    let version = clone.make_for_real("version");
    assert!(version.starts_with("0.0.0-main-") && !version.contains("dirty"), "{version}");
    assert_eq!(clone.make_for_real("DEV=y version"), format!("{version}-dev"));
    assert_eq!(clone.make_for_real("PLATFORM=rt version"), format!("{version}-rt"));
    assert_eq!(clone.make_for_real("ROOTFS_VERSION=snapshot version"), "snapshot");
    let custom = clone.make_for_real("KERNEL_TAG=me/kernel:own version");
    assert_eq!(custom, format!("{version}-me_kernel_own"));

    assert!(clone.make_for_real("kernel-tag").starts_with("eve/kernel:"));
    assert_eq!(clone.make_for_real("KERNEL_TAG=me/kernel:own kernel-tag"), "me/kernel:own");
    let jetson = clone.make_for_real("ZARCH=arm64 PLATFORM=nvidia-jp6 kernel-tag");
    let name = "docker.io/lfedge/eve-kernel:eve-kernel-arm64-v5.15.136-nvidia-jp6-4929f15eda41-gcc";
    assert_eq!(jetson, name);
    assert!(clone.make_for_real("uefi-show-tag").starts_with("eve/uefi:"));

    let sbom = clone.make_for_real("ROOTFS_VERSION=1.2.3 PLATFORM=rt sbom_info");
    let at = clone.root.join("dist/amd64/1.2.3/installer/rootfs-rt.spdx.json");
    assert_eq!(sbom, at.to_str().unwrap());

    for shown in ["live", "installer-%", "run-target", "sbom"] {
        assert!(clone.make_for_real("").contains(&format!("\n  {shown} ")), "{shown}");
    }
}

#[test]
fn a_config_partition_is_made_where_the_reference_puts_it() {
    let clone = Clone::make();
    clone.make_for_real("ROOTFS_VERSION=snapshot ZARCH=arm64 config");
    let folder = clone.root.join("dist/arm64/snapshot");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    assert_eq!(text(&read("installer/eve_version")), "snapshot-kvm-arm64\n");
    assert_eq!(text(&read("installer/eve_platform")), "generic\n");
    assert_eq!(read("installer/config.img"), read("config.img"));
}

#[test]
fn a_knob_without_effect_is_said_once() {
    let clone = Clone::make();
    let args = ["-s", "EVE=./eve", "NCORES=4", "PRUNE=1", "version"];
    let out = clone.run("make", &args, &[]);
    let said = text(&out.stderr);
    assert_eq!(said.matches("NCORES has no effect here").count(), 1, "{said}");
    assert_eq!(said.matches("PRUNE has no effect here").count(), 1, "{said}");
    assert!(text(&out.stdout).starts_with("0.0.0-main-"), "the answer is alone on its channel");
}

/// As EVE's README.md, docs/BUILD.md and Makefile write them, with packages of ours for those of EVE.
const UNDERSTOOD: &[&str] = &[
    "version",
    "currentversion",
    "kernel-tag",
    "base-show-tag",
    "pkgs",
    "-j4 pkgs",
    "pkg/base",
    "eve-base",
    "ZARCH=arm64 pkg/kernel",
    "pkg/eved RSTATS=y",
    "LINUXKIT_PKG_TARGET=build pkgs",
    "rootfs",
    "rootfs-kvm",
    "rootfs-generic",
    "pkgs rootfs",
    "ROOTFS_VERSION=snapshot ZARCH=amd64 HV=kvm rootfs",
    "KERNEL_TAG=yourusername/eve-kernel:custom-tag pkgs rootfs",
    "KERNEL_IMAGE=/boot/my-kernel rootfs",
    "config",
    "config.img",
    "CONF_DIR=my-conf config",
    "live",
    "ROOTFS_VERSION=snapshot ZARCH=amd64 HV=kvm live",
    "live-raw",
    "live-qcow2",
    "live-vdi",
    "live-parallels",
    "ROOTFS_VERSION=snapshot ZARCH=amd64 HV=kvm live-gcp",
    "ZARCH=arm64 HV=kvm live-raw",
    "ZARCH=arm64 MEDIA_SIZE=8192 live",
    "ZARCH=arm64 HV=kvm PLATFORM=imx8mp_pollux live-raw",
    "ZARCH=riscv64 live",
    "IMG_FORMAT=vdi MEDIA_SIZE=40000 live",
    "ROOTFS_FORMAT=squash live",
    "ROOTFS_FORMAT=ext4 live",
    "ROOTFS_FORMAT=ext4 rootfs",
    "LIVE_UPDATE=1 live",
    "DEV=y pkg/eved live run",
    "V=1 live",
    "installer",
    "installer.raw",
    "INSTALLER_IMG_FORMAT=iso installer",
    "installer-iso",
    "installer-net",
    "eve",
    "DEV=y installer-raw",
    "sbom",
    "sbom_info",
    "SBOM=my.spdx.json sbom",
    "collected_sources",
    "collected_sources_info",
    "compare_sbom_collected_sources",
    "IMAGE=eve/base:1 OUTFILE=base.tar cache-export",
    "IMAGE=eve/base:1 OUTFILE=base.tar IMAGE_NAME=mine:1 cache-export",
    "run",
    "run-live",
    "run QEMU_MEMORY=2048",
    "run QEMU_MEMORY=2048 TPM=y PFLASH=true",
    "run SSH_PORT=2223 NOACCEL=1 QEMU_EVE_SERIAL=123 QEMU_PID_FILE=qemu.pid",
    "ZARCH=arm64 run-live",
    "ZARCH=riscv64 run-live",
    "run-installer-raw",
    "run-installer-iso",
    "run-installer-net",
    "MEDIA_SIZE=8192 TPM=y run-installer-raw",
    "run-target",
    "TPM=y run-target",
];

const REFUSED: &[(&str, &str)] = &[
    ("ROOTFS_VERSION=snapshot HV=xen rootfs", "HV=xen PLATFORM=generic cannot be built yet"),
    ("ROOTFS_VERSION=snapshot rootfs-xen", "there is no package with Xen"),
    ("HV=k ZARCH=amd64 pkgs live", "there is no package with Kubernetes"),
    ("HV=acrn live", "there is no HV=acrn; there are kvm, k, mini, xen"),
    ("PLATFORM=rt ZARCH=arm64 live", "rt is a platform of amd64"),
    ("rootfs-pluto", "there is no PLATFORM=pluto for ZARCH=amd64"),
    (
        "ZARCH=arm64 HV=kvm PLATFORM=nvidia-jp6 installer-raw",
        "we have no kernel package for nvidia-jp6",
    ),
    ("ZARCH=mips live", "no such processor; there are amd64, arm64, riscv64"),
    ("ROOTFS_FORMAT=btrfs live", "no such format; there are squash, ext4"),
    ("live-floppy", "no such format"),
    ("ROOTFS_VERSION=a/b live", "a version has letters, digits"),
    ("LINUXKIT_PKG_TARGET=push pkgs", "pushing them is not there yet"),
    ("cache-export OUTFILE=x.tar", "IMAGE is not set"),
    ("IMAGE=x cache-export", "OUTFILE is not set"),
];

#[test]
fn a_target_of_the_reference_that_has_no_part_here_says_what_has() {
    let clone = Clone::make();
    for target in [
        "yetus",
        "eden",
        "evetest",
        "linuxkit",
        "run-compose",
        "publish_sources",
        "live-gcp-upload",
        "run-live-vb",
        "cache-export-docker-load",
        "release VERSION=1.2.3",
    ] {
        let words = ["-s", "EVE=./eve"].into_iter().chain(target.split(' '));
        let out = clone.run("make", &words.collect::<Vec<_>>(), &[]);
        let said = text(&out.stderr);
        assert!(!out.status.success() && said.contains("is one of EVE; here: "), "{said}");
    }
}
