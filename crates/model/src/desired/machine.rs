//! What virtual machines have and containers do not, and hardware given to apps.

use serde::{Deserialize, Serialize};

use crate::desired::link::HardwareKind;
use crate::{Bytes, Secret};

/// A virtual machine beside its processors and memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// How the hypervisor makes it.
    pub mode: MachineMode,
    /// Its firmware.
    pub boot: BootMode,
    /// What it boots from first.
    pub boot_order: BootOrder,
    /// Its screen, for viewers. `None`: it has none.
    pub vnc: Option<Vnc>,
    /// Whether the screen of a container's small machine can be seen.
    pub vnc_shim: bool,
    /// Whether it has a TPM.
    pub tpm: bool,
    /// Whether its processors are no one else's.
    pub pin_cpus: bool,
    /// What the hypervisor may use for it beyond its memory. `None`: the node's choice.
    pub vmm_memory: Option<Bytes>,
    /// Whether its interfaces and adapters come in the order said.
    pub enforce_order: bool,
    /// Whether it sees the Windows licence key of the box.
    pub oem_licence: bool,
    /// Size of its screen, as `1024x768`; empty: the node's choice.
    pub resolution: String,
}

impl Default for Machine {
    fn default() -> Self {
        Machine {
            mode: MachineMode::Hvm,
            boot: BootMode::Unspecified,
            boot_order: BootOrder::Unspecified,
            vnc: None,
            vnc_shim: false,
            // The wire says `disable_vtpm`: it is there unless said otherwise.
            tpm: true,
            pin_cpus: false,
            vmm_memory: None,
            enforce_order: false,
            oem_licence: false,
            resolution: String::new(),
        }
    }
}

/// How the hypervisor makes a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineMode {
    /// With paravirtual devices and the processor's help.
    #[default]
    Hvm,
    /// Paravirtual.
    Pv,
    /// With devices that any system knows, and UEFI.
    Fml,
    /// With devices of old.
    Legacy,
}

/// Firmware of a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootMode {
    /// By its mode.
    #[default]
    Unspecified,
    /// BIOS.
    Legacy,
    /// UEFI.
    Uefi,
}

/// What a machine boots from first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootOrder {
    /// The node's choice.
    #[default]
    Unspecified,
    /// USB devices.
    Usb,
    /// Disks, never USB devices.
    NoUsb,
}

/// The screen of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vnc {
    /// Its number: TCP port 5900 and so many.
    pub display: u32,
    /// `None`: anyone who reaches it may look.
    pub password: Option<Secret>,
}

/// Hardware given to an app: the whole group goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    /// What kind it is.
    pub kind: HardwareKind,
    /// Group or label of the hardware.
    pub name: String,
    /// Which function of a divided card.
    pub function: Option<super::VirtualFunction>,
    /// Its place among the app's interfaces and adapters, see [`Machine::enforce_order`].
    pub order: u32,
}

/// User data of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserData {
    /// In clear on the wire.
    Plain(String),
    /// Sealed on the wire.
    Sealed(Secret),
}

impl UserData {
    /// The text.
    pub fn text(&self) -> &str {
        match self {
            UserData::Plain(text) => text,
            UserData::Sealed(secret) => secret.reveal(),
        }
    }
}

/// How user data reaches an app.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metadata {
    /// On a disk, as cloud-init's NoCloud.
    #[default]
    Drive,
    /// Not at all.
    None,
    /// From the metadata server, as OpenStack does.
    OpenStack,
    /// On a disk, in several parts.
    Multipart,
}

/// Snapshots of an app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshots {
    /// So many are kept.
    pub max: u32,
    /// Those that are wanted.
    pub wanted: Vec<Snapshot>,
    /// The one a rollback goes to; empty: none.
    pub active: String,
    /// Rolled back when it changes.
    pub rollback: u32,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// When it is made.
    pub when: SnapshotWhen,
}

/// When a snapshot is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotWhen {
    /// Before the app is next updated.
    Update,
    /// At once.
    Now,
}
