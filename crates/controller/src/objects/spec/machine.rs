//! What is said of apps beyond the simple: machines, rules, hardware, snapshots.

use ipnet::IpNet;
use model::desired::{
    BootMode, BootOrder, Direction, HardwareKind, MachineMode, Protocol, SnapshotWhen,
};
use serde::{Deserialize, Serialize};

use super::Size;
use super::secret::SecretRef;

/// What a virtual machine has and a container does not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MachineSpec {
    /// How the hypervisor makes it: `hvm`, `pv`, `fml` or `legacy`.
    pub mode: MachineMode,
    /// Its firmware: `legacy` or `uefi`.
    pub boot: BootMode,
    /// What it boots from first: `usb` or `no_usb`.
    pub boot_order: BootOrder,
    /// Its screen, for viewers.
    pub vnc: Option<VncSpec>,
    /// Whether it has a TPM.
    pub tpm: bool,
    /// Whether it sees the Windows licence key of the box.
    pub oem_licence: bool,
    /// Size of its screen, as `1024x768`.
    pub resolution: String,
}

impl Default for MachineSpec {
    fn default() -> Self {
        MachineSpec {
            mode: MachineMode::default(),
            boot: BootMode::default(),
            boot_order: BootOrder::default(),
            vnc: None,
            tpm: true,
            oem_licence: false,
            resolution: String::new(),
        }
    }
}

/// The screen of a machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VncSpec {
    /// Its number: TCP port 5900 and so many.
    pub display: u32,
    /// What a viewer must know.
    pub password: Option<SecretRef>,
}

/// Hardware given to an app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssignedSpec {
    /// Group or label of the hardware; the whole group goes.
    pub name: String,
    /// Its kind; that of the hardware if not said.
    #[serde(rename = "type", default)]
    pub kind: Option<HardwareKind>,
    /// Which function of a divided card.
    #[serde(default)]
    pub function: Option<u32>,
    /// VLAN of that function.
    #[serde(default)]
    pub vlan: Option<u16>,
    /// Its place among interfaces and adapters.
    #[serde(default)]
    pub order: u32,
}

/// An access rule; all that it says must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleSpec {
    /// The far end's address or subnet.
    pub ip: Option<IpNet>,
    /// The far end's name.
    pub host: Option<String>,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: Option<Protocol>,
    /// Port at our end: at the node's edge for a port map, else the app's.
    pub local_port: Option<u16>,
    /// Port at the far end.
    pub remote_port: Option<u16>,
    /// Only through this port of the node.
    pub adapter: Option<String>,
    /// `both`, `ingress` or `egress`, seen from the app.
    pub direction: Option<Direction>,
    /// Whether such packets are dropped; they pass otherwise.
    pub drop: bool,
    /// They pass up to a rate.
    pub limit: Option<LimitSpec>,
    /// They go to this port of the app.
    pub port_map: Option<u16>,
}

/// A rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSpec {
    /// So many packets
    pub rate: u32,
    /// … in a `second`, `minute`, `hour` or `day`.
    pub per: Per,
    /// So many at once.
    pub burst: u32,
}

/// Spans that rates are counted over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// 1 s.
    Second,
    /// 60 s.
    Minute,
    /// 3600 s.
    Hour,
    /// 86,400 s.
    Day,
}

impl Per {
    /// How long it is.
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_secs(match self {
            Per::Second => 1,
            Per::Minute => 60,
            Per::Hour => 3600,
            Per::Day => 86_400,
        })
    }
}

/// Snapshots of an app.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotsSpec {
    /// So many are kept.
    pub max: u32,
    /// Those that are wanted.
    pub wanted: Vec<SnapshotSpec>,
    /// The one a rollback goes to.
    pub active: String,
    /// Rolled back when this number changes.
    pub rollback: u32,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSpec {
    /// Its id.
    pub id: String,
    /// `update`: before the app is next updated; `now`.
    pub when: SnapshotWhen,
}

/// What memory the hypervisor takes, and whose processors are whose.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlacementSpec {
    /// Whether its processors are no one else's.
    pub pin_cpus: bool,
    /// What the hypervisor may use beyond the app's memory.
    pub vmm_memory: Option<Size>,
    /// Whether interfaces and adapters come in the order said.
    pub enforce_order: bool,
    /// Whether the screen of a container's small machine can be seen.
    pub vnc_shim: bool,
}
