//! Live disks of our own layout and of EVE's, started by UEFI and by a BIOS. They need the images that
//! `cargo xtask lab-image` builds. (Our own under UEFI is what every other test boots.)

use model::Bytes;
use testbed::{Image, Lab, Setup};

#[test]
fn a_bios_boots_our_layout() -> anyhow::Result<()> {
    let lab = Lab::new("bios")?;
    boots(&lab, &Image::current()?, &Setup { bios: true, ..Setup::default() })
}

#[test]
fn uefi_boots_eve_s_layout() -> anyhow::Result<()> {
    let lab = Lab::new("eve-layout-uefi")?;
    boots(&lab, &Image::of_profile("eve-2026")?, &large())
}

#[test]
fn a_bios_boots_eve_s_layout() -> anyhow::Result<()> {
    let lab = Lab::new("eve-layout-bios")?;
    boots(&lab, &Image::of_profile("eve-2026")?, &Setup { bios: true, ..large() })
}

/// The smallest disk that EVE's layout is meant for.
fn large() -> Setup {
    Setup { disk: Bytes::gib(32), ..Setup::default() }
}

fn boots(lab: &Lab, image: &Image, setup: &Setup) -> anyhow::Result<()> {
    let mut node = lab.cold_boot(image, setup)?;
    let uefi = node.sh("if [ -d /sys/firmware/efi ]; then echo yes; else echo no; fi")?;
    assert_eq!(uefi, if setup.bios { "no" } else { "yes" });
    let mounts = node.sh("cat /proc/mounts")?;
    let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/"));
    assert!(root.is_some_and(|line| line.starts_with("/dev/dm-")), "{mounts}");
    assert!(mounts.contains("/dev/vda9 /persist ext4 "), "{mounts}");
    Ok(())
}
