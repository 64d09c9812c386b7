//! A live image in every format that it comes in, each booted by QEMU under UEFI until all services of
//! the node are ready. They need the image that `cargo xtask lab-image` builds.

use formats::disk::Format;
use model::Bytes;
use testbed::{Image, Lab, Setup};

#[test]
fn a_raw_disk_boots() -> anyhow::Result<()> {
    boots(Format::Raw)
}

#[test]
fn a_disk_for_qemu_boots() -> anyhow::Result<()> {
    boots(Format::Qcow2)
}

#[test]
fn a_disk_for_virtualbox_boots() -> anyhow::Result<()> {
    boots(Format::Vdi)
}

#[test]
fn a_disk_for_vmware_boots() -> anyhow::Result<()> {
    boots(Format::Vmdk)
}

#[test]
fn a_disk_for_import_into_vmware_boots() -> anyhow::Result<()> {
    boots(Format::VmdkStream)
}

#[test]
fn a_disk_for_hyper_v_boots() -> anyhow::Result<()> {
    boots(Format::Vhdx)
}

#[test]
fn a_disk_for_parallels_boots_out_of_its_folder() -> anyhow::Result<()> {
    boots(Format::Parallels)
}

#[test]
fn a_disk_for_google_cloud_boots_out_of_its_archive() -> anyhow::Result<()> {
    boots(Format::Gcp)
}

fn boots(format: Format) -> anyhow::Result<()> {
    let lab = Lab::new(&format!("format-{format}"))?;
    let image = lab.converted(&Image::current()?, format)?;
    let mut node = lab.cold_boot(&image, &Setup::default())?;
    // The machine sees all of the disk, and the node has taken what was behind its partitions.
    let mut sectors = |device: &str| -> anyhow::Result<u64> {
        Ok(node.sh(&format!("cat /sys/class/block/{device}/size"))?.parse()?)
    };
    assert_eq!(sectors("vda")? * 512, Bytes::gib(4).0);
    assert!(sectors("vda9")? * 512 > Bytes::gib(2).0, "P3 is too small");
    let mounts = node.sh("cat /proc/mounts")?;
    assert!(mounts.contains("/dev/vda9 /persist ext4 "), "{mounts}");
    Ok(())
}
