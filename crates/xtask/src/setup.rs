//! `cargo xtask setup`: what this machine lacks, through apt and cargo.

use std::path::Path;

use anyhow::bail;

use crate::tool::{self, cargo, command, output};

/// Debian packages that building and running an image takes, and what for.
const FOR_THE_DEMO: &[(&str, &str)] = &[
    ("qemu-system-x86", "runs the node"),
    ("qemu-utils", "disk images"),
    ("ovmf", "the node's firmware"),
    ("gcc", "links Rust programs, compiles the cryptography"),
    ("libc6-dev", "links the node's static programs"),
    ("gpgv", "checks the signature of Debian's index"),
    ("debian-archive-keyring", "the keys for that"),
];

/// What the tests take beyond that: second opinions on what we write, and real networks.
const FOR_TESTS: &[(&str, &str)] = &[
    ("swtpm", "a TPM for nodes in the lab"),
    ("yq", "evaluates modifiers of descriptions a second time"),
    ("e2fsprogs", "checks ext4"),
    ("gdisk", "checks partition tables"),
    ("dosfstools", "checks FAT"),
    ("mtools", "reads FAT"),
    ("xorriso", "reads ISO images"),
    ("libarchive-tools", "reads them too"),
    ("grub-common", "makes a core image that ours is compared with"),
    ("grub-pc-bin", "the parts of a boot loader for BIOS machines"),
    ("binutils", "reads kernel images"),
    ("cpio", "reads the initrd"),
    ("crun", "containers in tests of the app service"),
    ("attr", "reads extended attributes"),
    ("squashfs-tools", "checks squashfs"),
    ("time", "measures programs"),
    ("cryptsetup-bin", "checks dm-verity"),
    ("nftables", "packet filters in network namespaces"),
    ("iproute2", "network namespaces"),
    ("curl", "asks pages through them"),
    ("python3-venv", "checks bills of materials"),
    ("postgresql", "a database that several controllers share"),
    ("pebble", "an ACME server that gives certificates"),
    ("chromium", "shows the controller's pages"),
    ("fonts-dejavu-core", "writes their text"),
];

/// Who checks bills of materials, and who plays S3: from the registry of Python.
const JUDGES: &[&str] = &[
    "spdx-tools==0.8.5",
    "cyclonedx-python-lib[json-validation]==11.12.0",
    "moto[server,s3]==5.2.5",
];

/// Who plays Azure, and who checks whether anybody can use the controller's pages: from the registry
/// of npm, only where that is installed.
const JUDGES_OF_NODE: &[&str] = &["azurite@3.37.0", "axe-core@4.14.1"];
/// Says what `target/judges` holds.
const JUDGES_NOTE: &str = "installed";

/// A processor that images are built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arch {
    /// x86-64
    Amd64,
    /// ARMv8
    Arm64,
    /// RISC-V, 64 bit
    Riscv64,
}

/// What an image for another processor takes: what rustc calls it, and Debian packages.
type Cross = (&'static str, &'static [(&'static str, &'static str)]);

const FOR_ARM64: Cross = (
    "aarch64-unknown-linux-gnu",
    &[
        ("gcc-aarch64-linux-gnu", "compiles and links the node's programs"),
        ("libc6-dev-arm64-cross", "links them"),
        ("qemu-system-arm", "runs the node"),
        ("qemu-efi-aarch64", "its firmware"),
    ],
);

const FOR_RISCV64: Cross = (
    "riscv64gc-unknown-linux-gnu",
    &[
        ("gcc-riscv64-linux-gnu", "compiles and links the node's programs"),
        ("libc6-dev-riscv64-cross", "links them"),
        ("qemu-system-misc", "runs the node"),
        ("u-boot-qemu", "its firmware"),
    ],
);

impl Arch {
    /// As `eve build --arch` takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
            Arch::Riscv64 => "riscv64",
        }
    }

    /// `None`: nothing beyond what all images take.
    fn cross(self) -> Option<Cross> {
        match self {
            Arch::Amd64 => None,
            Arch::Arm64 => Some(FOR_ARM64),
            Arch::Riscv64 => Some(FOR_RISCV64),
        }
    }
}

/// Installs what is missing; says so first. With everything there it takes a fraction of a second.
pub(crate) fn run(for_tests: bool, arches: &[Arch]) -> anyhow::Result<()> {
    let mut packages: Vec<_> = FOR_THE_DEMO.iter().collect();
    let crosses: Vec<Cross> = arches.iter().filter_map(|a| a.cross()).collect();
    packages.extend(crosses.iter().flat_map(|(_, packages)| *packages));
    if for_tests {
        packages.extend(FOR_TESTS);
    }
    let missing: Vec<_> = packages.into_iter().filter(|(name, _)| !is_installed(name)).collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    for (target, _) in crosses {
        add_target(target)?;
    }
    if for_tests {
        judges();
    }
    if for_tests && output("cargo-nextest", &["--version"]).is_none() {
        eprintln!("cargo-nextest, which runs the tests, is missing and will be built by cargo.");
        tool::run(&cargo(), &["install", "--locked", "cargo-nextest"])?;
    }
    Ok(())
}

/// The standard library of another processor, for the compiler that is used here.
fn add_target(target: &str) -> anyhow::Result<()> {
    let folder = output("rustc", &["--print", "target-libdir", "--target", target]);
    if folder.is_some_and(|f| Path::new(f.trim()).is_dir()) {
        return Ok(());
    }
    if output("rustup", &["--version"]).is_none() {
        bail!(
            "rustc has no standard library for {target}, and rustup, which adds it, is not there"
        );
    }
    eprintln!("Rust's standard library for {target} is missing and will be added.");
    tool::run("rustup", &["target", "add", target])
}

/// Makes `target/judges`. Without it tests go on and say what they left out: a registry that cannot be
/// reached must not stop them.
fn judges() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/judges");
    let npm = output("npm", &["--version"]).is_some();
    let of_node = if npm { JUDGES_OF_NODE } else { &[] };
    let all: Vec<&str> = JUDGES.iter().chain(of_node).copied().collect();
    let note = all.join("\n");
    let has = std::fs::read_to_string(folder.join(JUDGES_NOTE)).unwrap_or_default();
    if has == note {
        return;
    }
    eprintln!(
        "The checkers of bills of materials and of pages and the players of object stores are missing \
         and will be installed in target/judges."
    );
    let place = folder.display().to_string();
    let pip = folder.join("bin/pip").display().to_string();
    let args: Vec<&str> = ["install", "--quiet"].iter().chain(JUDGES).copied().collect();
    let made = tool::run("python3", &["-m", "venv", &place]).and_then(|()| tool::run(&pip, &args));
    if let Err(error) = made {
        eprintln!("That failed: {error:#}. Bills of materials will not be judged, nor S3 played.");
        // Half a folder would be taken for a whole one; if it cannot go, the tests tell.
        let _ = std::fs::remove_dir_all(&folder);
        return;
    }
    if npm {
        // No program of a package runs while it is installed.
        let quiet = ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"];
        let to = ["--prefix", place.as_str()];
        let args: Vec<&str> = quiet.iter().chain(&to).chain(of_node).copied().collect();
        if let Err(error) = tool::run("npm", &args) {
            eprintln!(
                "That failed: {error:#}. Nobody will play Azure, nor judge pages by axe-core."
            );
            let _ = std::fs::remove_dir_all(folder.join("node_modules"));
            return;
        }
    }
    #[expect(clippy::disallowed_methods, reason = "xtask is not part of the product")]
    if let Err(error) = std::fs::write(folder.join(JUDGES_NOTE), note) {
        eprintln!("cannot note what is in target/judges: {error}");
    }
}

fn install(packages: &[&(&str, &str)]) -> anyhow::Result<()> {
    let names: Vec<&str> = packages.iter().map(|(name, _)| *name).collect();
    if output("apt-get", &["--version"]).is_none() {
        bail!(
            "this machine has no apt: install what these Debian packages hold and try again: {}",
            names.join(" ")
        );
    }
    let sudo = !is_root();
    eprintln!("These Debian packages are missing and will be installed:");
    for (name, purpose) in packages {
        eprintln!("  {name:24} {purpose}");
    }
    let apt = |args: &[&str]| {
        // apt must not stop and ask: this may be a machine without a person.
        let head = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"];
        let words: Vec<&str> = head.iter().chain(args).copied().collect();
        if sudo { tool::run("sudo", &words) } else { tool::run(words[0], &words[1..]) }
    };
    if sudo && output("sudo", &["-n", "true"]).is_none() {
        eprintln!("sudo will ask for your password.");
    }
    let install: Vec<&str> =
        ["install", "-y", "--no-install-recommends"].iter().chain(&names).copied().collect();
    // The lists may be old or absent: then the first try fails, and a fresh list helps.
    if apt(&install).is_err() {
        apt(&["update"])?;
        apt(&install)?;
    }
    Ok(())
}

fn is_installed(package: &str) -> bool {
    let format = "--showformat=${db:Status-Status}";
    output("dpkg-query", &["--show", format, package]).is_some_and(|s| s.trim() == "installed")
}

pub(crate) fn is_root() -> bool {
    let uid = command("id").arg("-u").output();
    uid.is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_does_not_exist_is_missing() {
        assert!(!is_installed("no-such-package-anywhere"));
        assert!(is_installed("dpkg"), "this test needs a Debian machine, as `setup` does");
    }
}
