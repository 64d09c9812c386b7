//! What nodes are made of: the model of a box, its VLANs and bonds.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::desired::{BondMode, HardwareKind, LacpRate, Usage};
use serde::{Deserialize, Serialize};

/// The model of a box: everything in it that ports or apps may use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HardwareSpec {
    /// Who makes it.
    pub manufacturer: String,
    /// What they call it.
    pub product: String,
    /// What is in it.
    pub io: Vec<IoSpec>,
}

/// A piece of hardware.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoSpec {
    /// The label that ports and apps refer to.
    pub label: String,
    /// What stands on the box; the label if not said.
    #[serde(default)]
    pub physical: Option<String>,
    /// What it is.
    #[serde(rename = "type", default = "ethernet")]
    pub kind: HardwareKind,
    /// The kernel's name of a network interface.
    #[serde(default)]
    pub interface: Option<String>,
    /// Its place on the PCI bus, as `0000:00:1f.6`.
    #[serde(default)]
    pub pci: Option<String>,
    /// Its place on the USB bus, as `1:2`.
    #[serde(default)]
    pub usb: Option<String>,
    /// What USB device it is, as `0951:1666`.
    #[serde(default)]
    pub usb_product: Option<String>,
    /// Device file of a serial line.
    #[serde(default)]
    pub serial: Option<String>,
    /// Interrupt of a serial line.
    #[serde(default)]
    pub irq: Option<String>,
    /// I/O ports of a serial line, as `3f8-3ff`.
    #[serde(default)]
    pub ioports: Option<String>,
    /// All of a group go to one app together. Not said: the label; empty: not to be given to apps.
    #[serde(default)]
    pub group: Option<String>,
    /// The group it hangs on.
    #[serde(default)]
    pub parent: String,
    /// Who may use it.
    #[serde(default = "mgmt_and_apps")]
    pub usage: Usage,
    /// Attributes for its driver.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Into so many functions a card is divided.
    #[serde(default)]
    pub functions: Option<u32>,
}

fn ethernet() -> HardwareKind {
    HardwareKind::Ethernet
}

fn mgmt_and_apps() -> Usage {
    Usage::MgmtAndApps
}

/// A VLAN of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VlanSpec {
    /// Its label.
    pub name: String,
    /// Label of the card or bond below.
    pub below: String,
    /// 1 to 4094.
    pub id: u16,
    /// The kernel's name of it; the label if not said.
    #[serde(default)]
    pub interface: Option<String>,
}

/// Several wires of a node as one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BondSpec {
    /// Its label.
    pub name: String,
    /// The kernel's name of it; the label if not said.
    #[serde(default)]
    pub interface: Option<String>,
    /// Labels of Ethernet cards.
    pub members: Vec<String>,
    /// How they share the work, in the kernel's words: `active-backup`, `802.3ad`, …
    pub mode: BondMode,
    /// Looks at the wires so often, in milliseconds.
    #[serde(default)]
    pub mii: Option<MiiSpec>,
    /// Or asks neighbours.
    #[serde(default)]
    pub arp: Option<ArpSpec>,
    /// How often LACP speaks.
    #[serde(default)]
    pub lacp: LacpRate,
}

/// How the wires of a bond are looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MiiSpec {
    /// So often, in milliseconds.
    pub interval_ms: u32,
    /// A wire that came is used after so long, in milliseconds.
    #[serde(default)]
    pub up_delay_ms: u32,
    /// A wire that went is left after so long, in milliseconds.
    #[serde(default)]
    pub down_delay_ms: u32,
}

/// How neighbours of a bond are asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArpSpec {
    /// So often, in milliseconds.
    pub interval_ms: u32,
    /// The neighbours.
    pub targets: Vec<IpAddr>,
}
