//! Which partitions a disk of EVE has: roles with their fixed numbers, GUIDs and names, and the
//! profiles that give them sizes.
//!
//! The GUIDs are fixed so that what a TPM measures of the table can be told beforehand. A profile
//! never changes once disks carry it; another layout is another profile.

use model::{Bytes, Sector512};
use uuid::{Uuid, uuid};

use crate::gpt::{ALIGNMENT, AddError, Attributes, Gpt, Partition};

/// The GUID of every disk of ours.
pub const DISK: Uuid = uuid!("ad6871ee-31f9-4cf3-9e09-6f7a25c30050");

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// EFI system partition: what the firmware starts.
    Esp,
    /// First slot of the operating system.
    ImgA,
    /// Second slot.
    ImgB,
    /// What the owner puts on the disk before the first boot.
    Config,
    /// Everything that the node keeps.
    Persist,
}

impl Role {
    /// All of them, by number.
    pub const ALL: [Role; 5] = [Role::Esp, Role::ImgA, Role::ImgB, Role::Config, Role::Persist];

    /// Partition number.
    pub const fn number(self) -> u32 {
        match self {
            Role::Esp => 1,
            Role::ImgA => 2,
            Role::ImgB => 3,
            Role::Config => 4,
            Role::Persist => 9,
        }
    }

    /// Partition name.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Esp => "EFI System",
            Role::ImgA => "IMGA",
            Role::ImgB => "IMGB",
            Role::Config => "CONFIG",
            Role::Persist => "P3",
        }
    }

    /// Type GUID.
    pub const fn kind(self) -> Uuid {
        match self {
            Role::Esp => uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
            Role::ImgA | Role::ImgB => uuid!("5dfbf5f4-2848-4bac-aa5e-0d9a20b745a6"),
            Role::Config => uuid!("13307e62-cd9c-4920-8f9b-91b45828b798"),
            Role::Persist => uuid!("5f24425a-2dfa-11e8-a270-7b663faccc2c"),
        }
    }

    /// The partition's own, fixed GUID.
    pub const fn id(self) -> Uuid {
        match self {
            Role::Esp => uuid!("ad6871ee-31f9-4cf3-9e09-6f7a25c30051"),
            Role::ImgA => uuid!("ad6871ee-31f9-4cf3-9e09-6f7a25c30052"),
            Role::ImgB => uuid!("ad6871ee-31f9-4cf3-9e09-6f7a25c30053"),
            Role::Config => uuid!("ad6871ee-31f9-4cf3-9e09-6f7a25c30054"),
            Role::Persist => uuid!("ad6871ee-31f9-4cf3-9e09-6f7a25c30059"),
        }
    }

    /// What a fresh disk says of it.
    pub const fn attributes(self) -> Attributes {
        match self {
            Role::Esp => Attributes::LEGACY_BOOT,
            Role::ImgA => Attributes::ACTIVE,
            Role::ImgB | Role::Config | Role::Persist => Attributes::NONE,
        }
    }

    /// The partition of this role as a fresh disk has it, its place still open (sector 0).
    pub fn partition(self) -> Partition {
        Partition {
            kind: self.kind(),
            id: self.id(),
            first: Sector512(0),
            last: Sector512(0),
            attributes: self.attributes(),
            name: self.name().to_owned(),
        }
    }
}

/// The sizes of a disk's partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// As `--profile` takes it.
    pub name: &'static str,
    /// EFI system partition.
    pub esp: Bytes,
    /// Each of the slots.
    pub slot: Bytes,
    /// The CONFIG partition.
    pub config: Bytes,
    /// The size a virtual disk gets unless told otherwise; the node makes IMGB and P3 in what is
    /// free.
    pub media: Bytes,
}

impl Profile {
    /// Ours, for gateways and virtual machines.
    pub const SMALL: Profile = Profile {
        name: "small",
        esp: Bytes::mib(64),
        slot: Bytes::mib(512),
        config: Bytes::mib(5),
        media: Bytes::gib(4),
    };

    /// Every profile.
    pub const ALL: &'static [Profile] = &[Profile::SMALL];

    /// The profile of this name.
    pub fn by_name(name: &str) -> Option<Profile> {
        Profile::ALL.iter().copied().find(|p| p.name == name)
    }

    /// The table of a live disk: ESP, CONFIG, IMGA, one behind the other. The disk has 10 MiB more
    /// than they take, as the reference's has.
    pub fn live(&self) -> Result<Gpt, AddError> {
        let parts = [(Role::Esp, self.esp), (Role::Config, self.config), (Role::ImgA, self.slot)];
        let total: u64 = parts.iter().map(|(_, size)| size.0).sum();
        let mut gpt = Gpt::new(DISK, Bytes(total + Bytes::mib(10).0))?;
        let mut first = ALIGNMENT;
        for (role, size) in parts {
            let sectors = size.0 / 512;
            let last = Sector512(first + sectors - 1);
            let place = Partition { first: Sector512(first), last, ..role.partition() };
            gpt.add(role.number(), place)?;
            first += sectors;
        }
        Ok(gpt)
    }
}
