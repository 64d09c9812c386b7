//! Which partitions a disk of EVE has: roles with their fixed numbers, GUIDs and names, profiles
//! that say which roles a disk has and how large they are, and tables planned from these.
//!
//! The GUIDs are fixed so that what a TPM measures of the table can be told beforehand. A profile
//! never changes once disks carry it; another layout is another profile. Whoever makes a disk, on a
//! builder's machine or on a node that is being installed, asks [`Profile::plan`]; nothing here
//! writes.

mod plan;
mod profile;

use model::{Bytes, Sector512};
use uuid::{Uuid, uuid};

use crate::fat::Volume;
use crate::gpt::{Attributes, Gpt, Partition};

pub use plan::{PlanError, Want};
pub use profile::{Profile, Purpose};

/// The GUID of every disk of ours.
pub const DISK: Uuid = uuid!("ad6871ee-31f9-4cf3-9e09-6f7a25c30050");

const SYSTEM: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
const SLOT: Uuid = uuid!("5dfbf5f4-2848-4bac-aa5e-0d9a20b745a6");
const WINDOWS: Uuid = uuid!("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7");

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// EFI system partition: what the firmware starts.
    Esp,
    /// A second EFI system partition, held in reserve.
    EspB,
    /// First slot of the operating system.
    ImgA,
    /// Second slot.
    ImgB,
    /// What the owner puts on the disk before the first boot.
    Config,
    /// The same on an installer's disk, where Windows shows it.
    InstallerConfig,
    /// The operating system that installs.
    Installer,
    /// What the installer tells of a machine; Windows shows it.
    Inventory,
    /// Everything that the node keeps.
    Persist,
    /// The only partition of a USB stick that brings a node its network configuration.
    UsbConfig,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 10] = [
        Role::Esp,
        Role::EspB,
        Role::ImgA,
        Role::ImgB,
        Role::Config,
        Role::InstallerConfig,
        Role::Installer,
        Role::Inventory,
        Role::Persist,
        Role::UsbConfig,
    ];

    /// Partition number. Roles that share one are never on the same disk.
    pub const fn number(self) -> u32 {
        match self {
            Role::Esp | Role::UsbConfig => 1,
            Role::ImgA => 2,
            Role::ImgB => 3,
            Role::Config | Role::InstallerConfig => 4,
            Role::Inventory => 5,
            Role::Installer => 6,
            Role::EspB => 7,
            Role::Persist => 9,
        }
    }

    /// Partition name.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Esp | Role::EspB => "EFI System",
            Role::ImgA => "IMGA",
            Role::ImgB => "IMGB",
            Role::Config | Role::InstallerConfig => "CONFIG",
            Role::Inventory => "INVENTORY",
            Role::Installer => "INSTALLER",
            Role::Persist => "P3",
            Role::UsbConfig => "DevicePortConfig",
        }
    }

    /// Type GUID.
    pub const fn kind(self) -> Uuid {
        match self {
            Role::Esp | Role::EspB => SYSTEM,
            Role::ImgA | Role::ImgB | Role::Installer => SLOT,
            Role::Config => uuid!("13307e62-cd9c-4920-8f9b-91b45828b798"),
            Role::InstallerConfig | Role::Inventory | Role::UsbConfig => WINDOWS,
            Role::Persist => uuid!("5f24425a-2dfa-11e8-a270-7b663faccc2c"),
        }
    }

    /// The partition's own GUID, where it is fixed.
    pub const fn id(self) -> Option<Uuid> {
        match self {
            Role::Esp => Some(uuid!("ad6871ee-31f9-4cf3-9e09-6f7a25c30051")),
            Role::ImgA => Some(uuid!("ad6871ee-31f9-4cf3-9e09-6f7a25c30052")),
            Role::ImgB => Some(uuid!("ad6871ee-31f9-4cf3-9e09-6f7a25c30053")),
            Role::Config => Some(uuid!("ad6871ee-31f9-4cf3-9e09-6f7a25c30054")),
            Role::EspB => Some(uuid!("ad6871ee-31f9-4cf3-9e09-6f7a25c30056")),
            Role::Persist => Some(uuid!("ad6871ee-31f9-4cf3-9e09-6f7a25c30059")),
            Role::Installer => Some(uuid!("ad6871ee-31f9-4cf3-9e09-6f7a25c30060")),
            Role::InstallerConfig | Role::Inventory | Role::UsbConfig => None,
        }
    }

    /// What a fresh disk says of it.
    pub const fn attributes(self) -> Attributes {
        match self {
            Role::Esp => Attributes::LEGACY_BOOT,
            Role::ImgA | Role::Installer => Attributes::ACTIVE,
            _ => Attributes::NONE,
        }
    }

    /// The type that a hybrid master boot record shows it as; `None`: it is not shown.
    pub const fn hybrid(self) -> Option<u8> {
        match self {
            Role::Esp => Some(0x0C),
            Role::InstallerConfig | Role::Inventory => Some(0x07),
            _ => None,
        }
    }

    /// The FAT volume in a partition of this role and size, all times in it `time` (seconds since
    /// 1970). `None`: it holds something else.
    pub fn volume(self, size: Bytes, time: u64) -> Option<Volume> {
        let (label, serial) = match self {
            Role::Esp => ("EVE", 0x4556_4553),
            Role::EspB => ("EVE", 0x4556_4542),
            Role::Config | Role::InstallerConfig => ("EVE", 0x4556_4544),
            Role::Inventory => ("INVENTORY", 0x4556_4549),
            Role::UsbConfig => ("EVEDPC", 0x4556_4555),
            Role::ImgA | Role::ImgB | Role::Installer | Role::Persist => return None,
        };
        Some(Volume { size, label: label.to_owned(), serial, time })
    }

    /// The partition of this role as a fresh disk has it, its place still open (sector 0), and its
    /// GUID nil if none is fixed.
    pub fn partition(self) -> Partition {
        Partition {
            kind: self.kind(),
            id: self.id().unwrap_or_default(),
            first: Sector512(0),
            last: Sector512(0),
            attributes: self.attributes(),
            name: self.name().to_owned(),
        }
    }

    /// The partition of this role on a disk, whatever profile made it: that with the fixed GUID, else
    /// that with type and name.
    pub fn find(self, disk: &Gpt) -> Option<(u32, &Partition)> {
        let all = || disk.partitions().iter().filter(|(_, p)| p.kind == self.kind());
        let own = all().find(|(_, p)| Some(p.id) == self.id());
        // The second EFI system partition has the name of the first: only its GUID tells.
        let named = || all().find(|(_, p)| p.name == self.name() && self != Role::EspB);
        own.or_else(named).map(|(number, partition)| (*number, partition))
    }
}
