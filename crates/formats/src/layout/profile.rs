//! Profiles: which roles a disk has, in which order, and how large they are.

use model::Bytes;

use super::Role;
use super::Role::{
    Config, Esp, EspB, ImgA, ImgB, Installer, InstallerConfig, Inventory, Persist, UsbConfig,
};

/// The layout of disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// As `--profile` takes it.
    pub name: &'static str,
    /// Each EFI system partition.
    pub esp: Bytes,
    /// Each of the slots.
    pub slot: Bytes,
    /// Whether a slot grows with an image that is larger; else such an image is refused.
    pub slot_grows: bool,
    /// The CONFIG partition.
    pub config: Bytes,
    /// The INVENTORY partition of an installer.
    pub inventory: Bytes,
    /// P3 has at least so much.
    pub persist: Bytes,
    /// The size a virtual disk gets unless told otherwise; the node makes IMGB and P3 in what is
    /// free.
    pub media: Bytes,
    /// Whether old firmware and Windows find their partitions in a hybrid master boot record.
    pub hybrid: bool,
    live: &'static [Role],
    installer: &'static [Role],
    target: &'static [Role],
}

/// What a disk is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be written to a disk and booted; the node adds what is missing.
    Live,
    /// To boot once and install onto another disk.
    Installer,
    /// The disk of a node, as an installer makes it.
    Target,
    /// The same without P3, which has a disk of its own.
    System,
    /// That disk of P3.
    Data,
    /// A USB stick that brings a node its network configuration.
    UsbConfig,
}

impl Purpose {
    /// As it is said in a sentence.
    pub const fn name(self) -> &'static str {
        match self {
            Purpose::Live => "live disk",
            Purpose::Installer => "installer",
            Purpose::Target => "disk of a node",
            Purpose::System => "disk of a node without P3",
            Purpose::Data => "disk of P3",
            Purpose::UsbConfig => "configuration stick",
        }
    }
}

/// Ours, for gateways and virtual machines.
const SMALL: Profile = Profile {
    name: "small",
    esp: Bytes::mib(64),
    slot: Bytes::mib(512),
    slot_grows: false,
    config: Bytes::mib(5),
    inventory: INVENTORY,
    persist: Bytes::mib(64),
    media: Bytes::gib(4),
    hybrid: false,
    live: &[Esp, Config, ImgA],
    installer: ON_INSTALLER,
    target: &[Esp, ImgA, ImgB, Config, Persist],
};

/// EVE's since June 2026.
const EVE_2026: Profile = Profile {
    name: "eve-2026",
    esp: Bytes::gib(2),
    slot: Bytes::gib(10),
    slot_grows: true,
    config: Bytes::mib(5),
    inventory: INVENTORY,
    persist: Bytes::mib(1),
    media: Bytes::gib(32),
    hybrid: true,
    live: &[Esp, EspB, Config, ImgA],
    installer: ON_INSTALLER,
    target: &[Esp, EspB, ImgA, ImgB, Config, Persist],
};

const ON_INSTALLER: &[Role] = &[Esp, InstallerConfig, Installer, Inventory];
const INVENTORY: Bytes = Bytes::kib(40240);

/// EVE's of May 2026: no second EFI system partition yet.
const EVE_2026_05: Profile = Profile {
    name: "eve-2026-05",
    live: &[Esp, Config, ImgA],
    target: &[Esp, ImgA, ImgB, Config, Persist],
    ..EVE_2026
};
/// EVE's of April 2026.
const EVE_2026_04: Profile = Profile { name: "eve-2026-04", slot: Bytes::gib(4), ..EVE_2026_05 };
/// EVE's from release 10.2 to March 2026.
const EVE_10_2: Profile = Profile {
    name: "eve-10.2",
    esp: Bytes::mib(36),
    slot: Bytes::mib(512),
    config: Bytes::mib(1),
    media: Bytes::gib(8),
    ..EVE_2026_05
};
/// The same for hypervisor k, whose images were larger.
const EVE_10_2_K: Profile = Profile { name: "eve-10.2-k", slot: Bytes::gib(1), ..EVE_10_2 };
/// EVE's before release 10.2.
const EVE_9: Profile = Profile { name: "eve-9", slot: Bytes::mib(300), ..EVE_10_2 };

impl Profile {
    /// Ours, for gateways and virtual machines.
    pub const SMALL: Profile = SMALL;
    /// EVE's since June 2026.
    pub const EVE_2026: Profile = EVE_2026;

    /// Every profile.
    pub const ALL: &'static [Profile] =
        &[SMALL, EVE_2026, EVE_2026_05, EVE_2026_04, EVE_10_2, EVE_10_2_K, EVE_9];

    /// The profile of this name.
    pub fn by_name(name: &str) -> Option<Profile> {
        Profile::ALL.iter().copied().find(|p| p.name == name)
    }

    /// The partitions of such a disk in the order in which they lie on it.
    pub const fn roles(&self, purpose: Purpose) -> &'static [Role] {
        match purpose {
            Purpose::Live => self.live,
            Purpose::Installer => self.installer,
            Purpose::Target => self.target,
            Purpose::System => match self.target {
                [system @ .., Persist] => system,
                all => all,
            },
            Purpose::Data => &[Persist],
            Purpose::UsbConfig => &[UsbConfig],
        }
    }
}
