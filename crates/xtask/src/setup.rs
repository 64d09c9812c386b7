//! `cargo xtask setup`: what this machine lacks, through apt and cargo.

use anyhow::bail;

use crate::tool::{self, cargo, command, output};

/// Debian packages that building and running an image takes, and what for.
const FOR_THE_DEMO: &[(&str, &str)] = &[
    ("qemu-system-x86", "runs the node"),
    ("qemu-utils", "disk images"),
    ("ovmf", "the node's firmware"),
    ("squashfs-tools", "the root file system"),
    ("gcc", "links Rust programs, compiles the cryptography"),
    ("libc6-dev", "links the node's static programs"),
    ("gpgv", "checks the signature of Debian's index"),
    ("debian-archive-keyring", "the keys for that"),
];

/// What the tests take beyond that: second opinions on what we write, and real networks.
const FOR_TESTS: &[(&str, &str)] = &[
    ("swtpm", "a TPM for nodes in the lab"),
    ("e2fsprogs", "checks ext4"),
    ("gdisk", "checks partition tables"),
    ("dosfstools", "checks FAT"),
    ("mtools", "reads FAT"),
    ("binutils", "reads kernel images"),
    ("cpio", "reads the initrd"),
    ("crun", "containers in tests of the app service"),
    ("cryptsetup-bin", "checks dm-verity"),
    ("nftables", "packet filters in network namespaces"),
    ("iproute2", "network namespaces"),
    ("curl", "asks pages through them"),
];

/// Installs what is missing; says so first. With everything there it takes a fraction of a second.
pub(crate) fn run(for_tests: bool) -> anyhow::Result<()> {
    let mut packages: Vec<_> = FOR_THE_DEMO.iter().collect();
    if for_tests {
        packages.extend(FOR_TESTS);
    }
    let missing: Vec<_> = packages.into_iter().filter(|(name, _)| !is_installed(name)).collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    if for_tests && output("cargo-nextest", &["--version"]).is_none() {
        eprintln!("cargo-nextest, which runs the tests, is missing and will be built by cargo.");
        tool::run(&cargo(), &["install", "--locked", "cargo-nextest"])?;
    }
    Ok(())
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
