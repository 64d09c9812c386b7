//! What the builder leaves in an installer for the node it installs: names of files and the list of
//! them, which both read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Bytes, Digest};

/// The folder in the root file system of an installer that holds what it installs.
pub const BITS: &str = "/bits";

/// In [`BITS`]: the [`Manifest`]. PID 1 of a system that has it runs the installer's services.
pub const MANIFEST: &str = "install.json";

/// In [`BITS`]: the slot image.
pub const SLOT: &str = "slot.img";

/// In [`BITS`]: a FAT volume with the files of CONFIG, for boot media that have no such partition.
pub const CONFIG: &str = "config.img";

/// In [`BITS`]: the folder with the files of the EFI system partition.
pub const ESP: &str = "esp";

/// In [`BITS`]: what goes into the first 440 bytes of the disk, for BIOS machines.
pub const BIOS_SECTOR: &str = "bios/boot.img";

/// In [`BITS`]: what goes between the partition table and the first partition, for BIOS machines.
pub const BIOS_GAP: &str = "bios/core.img";

/// In the CONFIG partition of a boot medium: wishes, as the kernel command line has them.
pub const ANSWERS: &str = "installer.json";

/// The names that [`ANSWERS`] may have, in small or large letters: those of EVE's kernel parameters
/// for its installer.
pub const WISHES: [&str; 19] = [
    "eve_blackbox",
    "eve_disable_verify",
    "eve_install_debug",
    "eve_install_disk",
    "eve_install_k3s_etcd_sizeGB",
    "eve_install_server",
    "eve_install_skip_config",
    "eve_install_skip_persist",
    "eve_install_skip_rootfs",
    "eve_install_skip_zfs_checks",
    "eve_install_zfs_with_raid_level",
    "eve_nuke_all_disks",
    "eve_nuke_disks",
    "eve_pause_after_install",
    "eve_pause_before_install",
    "eve_persist_disk",
    "eve_reboot_after_install",
    "eve_skip_dev_cert",
    "eve_soft_serial",
];

/// At the root of an installer's ISO: the slot image of the installer itself.
pub const ISO_SYSTEM: &str = "installer.img";

/// In the initrd of an installer that came over the network: its ISO.
pub const ISO_IN_MEMORY: &str = "/installer.iso";

/// Where a boot medium without partitions is mounted in the installer.
pub const MEDIUM: &str = "/mnt";

/// Everything that [`BITS`] holds but the manifest itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version that is installed.
    pub version: String,
    /// Which machines it is for: `amd64`.
    pub arch: String,
    /// The layout of the disk that is made, as `eve build --profile` takes it.
    pub profile: String,
    /// By path below [`BITS`].
    pub files: BTreeMap<String, About>,
}

/// What a file must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its length.
    pub size: Bytes,
    /// What it hashes to.
    pub digest: Digest,
}

/// How a disk is attached, in the order in which disks are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// NVMe.
    Nvme,
    /// SATA, SAS and whatever else speaks SCSI inside the box.
    Sata,
    /// A disk of a hypervisor.
    Virtio,
    /// eMMC or an SD card.
    Mmc,
    /// USB.
    Usb,
    /// Made by the kernel: loop devices, memory. Never chosen unless named.
    Virtual,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Transport::Nvme => "NVMe",
            Transport::Sata => "SATA",
            Transport::Virtio => "virtio",
            Transport::Mmc => "MMC",
            Transport::Usb => "USB",
            Transport::Virtual => "virtual",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Installers of any age are read by tools of any other.
    #[test]
    fn a_manifest_keeps_its_form() {
        let text = r#"{"version":"1.0","arch":"amd64","profile":"small","files":{"slot.img":{"size":4096,"digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}}}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        assert_eq!(manifest.files[SLOT].size, Bytes(4096));
        assert_eq!(serde_json::to_string(&manifest).unwrap(), text);
    }
}
