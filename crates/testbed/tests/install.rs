//! Installers in QEMU, on every medium: onto a blank disk, which then boots alone; and disks that are
//! refused. They need the images that `cargo xtask lab-image` builds.

use std::fs;

use model::Bytes;
use testbed::{Image, Lab, Medium, Setup};

#[test]
fn an_installer_puts_a_node_onto_a_blank_disk_that_boots_alone_and_onboards() -> anyhow::Result<()>
{
    let lab = Lab::new("install")?;
    let said = installs(&lab, &Image::installer()?, Medium::Disk, &Setup::default())?;
    assert!(said.contains("boot entry 0"), "the firmware's menu has no entry:\n{said}");
    assert!(said.contains("report in /lab-node of INVENTORY"), "{said}");
    Ok(())
}

#[test]
fn an_iso_installs_from_a_cd() -> anyhow::Result<()> {
    let lab = Lab::new("install-cd")?;
    let said = installs(&lab, &Image::installer_iso()?, Medium::Cd, &Setup::default())?;
    assert!(said.contains("boot entry 0"), "the firmware's menu has no entry:\n{said}");
    Ok(())
}

#[test]
fn the_same_iso_installs_from_a_stick() -> anyhow::Result<()> {
    let lab = Lab::new("install-stick")?;
    let said = installs(&lab, &Image::installer_iso()?, Medium::Stick, &Setup::default())?;
    assert!(said.contains("boot entry 0"), "the firmware's menu has no entry:\n{said}");
    Ok(())
}

#[test]
fn a_machine_installs_itself_over_the_network() -> anyhow::Result<()> {
    let lab = Lab::new("install-net")?;
    // The installer is in memory while it installs, and for a moment it is there twice.
    let setup = Setup { memory: Bytes::gib(1), ..Setup::default() };
    installs(&lab, &Image::installer_net()?, Medium::Net, &setup).map(drop)
}

#[test]
fn an_installer_on_a_bios_machine_makes_a_disk_that_boots_there() -> anyhow::Result<()> {
    let lab = Lab::new("install-bios")?;
    let setup = Setup { bios: true, ..Setup::default() };
    let said = installs(&lab, &Image::installer()?, Medium::Disk, &setup)?;
    assert!(said.contains("this machine was not started by UEFI"), "{said}");
    Ok(())
}

/// Installs, boots the disk alone and waits until the node has onboarded at the lab's controller, to
/// which CONFIG of the installer led it, or of the disk if the installer's cannot be changed. Returns
/// what the installer said.
fn installs(lab: &Lab, image: &Image, medium: Medium, setup: &Setup) -> anyhow::Result<String> {
    let machine = lab.installation(image, medium, setup)?;
    if medium != Medium::Net {
        machine.provision()?;
    }
    let said = machine.run()?;
    assert!(said.contains("100 % done"), "{said}");

    let mut node = machine.into_node()?;
    node.onboard()?;
    let kept = node.sh("cat /proc/mounts | grep ' /persist ext4 '")?;
    assert!(kept.contains("/dev/vda9"), "{kept}");
    node.power_down()?;
    Ok(said)
}

#[test]
fn a_disk_that_is_too_small_is_refused_and_no_byte_of_it_changes() -> anyhow::Result<()> {
    let lab = Lab::new("install_too_small")?;
    let setup = Setup { disk: Bytes::mib(600), ..Setup::default() };
    let machine = lab.installation(&Image::installer()?, Medium::Disk, &setup)?;
    testbed::fill(machine.target())?;
    let before = fs::read(machine.target())?;
    let said = machine.run_until("the machine stays on")?;
    assert!(said.contains("not installed: vdb is too small"), "{said}");
    assert!(said.contains("it has 600.0 MiB"), "{said}");
    assert!(fs::read(machine.target())? == before, "the disk was written to");
    Ok(())
}
