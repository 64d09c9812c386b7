//! Installers in QEMU: onto a blank disk, which then boots alone; and disks that are refused. They need
//! the image that `cargo xtask lab-image` builds.

use std::fs;
use std::time::Duration;

use model::Bytes;
use testbed::{Image, Lab, Medium, Setup};

#[test]
fn an_installer_puts_a_node_onto_a_blank_disk_that_boots_alone_and_onboards() -> anyhow::Result<()>
{
    let lab = Lab::new("install")?;
    let machine = lab.installation(&Image::installer()?, Medium::Disk, &Setup::default())?;
    machine.provision()?;
    let said = machine.run()?;
    assert!(said.contains("100 % done"), "{said}");
    assert!(said.contains("boot entry"), "the firmware's menu has no entry:\n{said}");
    assert!(said.contains("report in /lab-node of INVENTORY"), "{said}");

    let mut node = machine.into_node()?;
    node.start()?;
    let limit = lab.patience(Duration::from_secs(15));
    node.wait_for("onboarded", limit, |d| d.registered.is_some() && d.seen.is_some())?;
    let kept = node.sh("cat /proc/mounts | grep ' /persist ext4 '")?;
    assert!(kept.contains("/dev/vda9"), "{kept}");
    node.power_down()
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
