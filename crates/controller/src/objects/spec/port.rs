//! Ports of nodes: addresses, radios, proxies.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use model::desired::{
    CellularAuth, CellularIp, DhcpIgnore, Family, Probe, Proxy, RadioTechnology, WifiScheme,
};
use serde::{Deserialize, Serialize};

use super::secret::{SecretRef, TextOrSecret};

/// A port of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortSpec {
    /// Its label.
    pub name: String,
    /// The kernel's name of the interface; that of the hardware, or the label, if not said.
    #[serde(default)]
    pub interface: Option<String>,
    /// Label of the hardware, VLAN or bond below; its own if not said.
    #[serde(default)]
    pub below: Option<String>,
    /// Whether the controller is reached through it.
    #[serde(default = "super::yes")]
    pub management: bool,
    /// 0 is free; dearer ports are used when cheaper ones fail.
    #[serde(default)]
    pub cost: u8,
    /// How it gets its address.
    #[serde(default)]
    pub address: AddressSpec,
    /// Maximum size of its packets.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Which versions of IP it speaks.
    #[serde(default)]
    pub family: Family,
    /// Domain name beside that of DHCP.
    #[serde(default)]
    pub domain: String,
    /// DNS servers beside those of DHCP.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// NTP servers beside those of DHCP.
    #[serde(default)]
    pub ntp: Vec<String>,
    /// What of DHCP is not taken.
    #[serde(default)]
    pub ignore: DhcpIgnore,
    /// The way to the controller through proxies.
    #[serde(default)]
    pub proxy: Option<Proxy>,
    /// For people.
    #[serde(default)]
    pub alias: String,
    /// Names under which networks choose several ports together.
    #[serde(default)]
    pub shared_labels: Vec<String>,
    /// Whether a local profile server or console may change it.
    #[serde(default)]
    pub local_changes: bool,
    /// The wireless LANs it may join; it is a wireless card then.
    #[serde(default)]
    pub wifi: Vec<WifiSpec>,
    /// The cellular network it is in; it is a modem then.
    #[serde(default)]
    pub cellular: Option<CellularSpec>,
    /// How it proves who it is to the switch (802.1X).
    #[serde(default)]
    pub access: Option<AccessSpec>,
}

/// How a port gets its address: `dhcp`, `none`, or `static:` with the fields below it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressSpec {
    /// From a DHCP server.
    #[default]
    Dhcp,
    /// It has none.
    None,
    /// As said.
    #[serde(untagged)]
    Static {
        /// The fixed address.
        #[serde(rename = "static")]
        fixed: StaticSpec,
    },
}

/// A fixed address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticSpec {
    /// Own address and prefix length.
    pub address: Ipv4Net,
    /// Default gateway.
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// DNS servers.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// NTP servers.
    #[serde(default)]
    pub ntp: Vec<String>,
}

/// A wireless LAN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WifiSpec {
    /// Its name.
    pub ssid: String,
    /// How it is protected.
    #[serde(default)]
    pub scheme: WifiScheme,
    /// User, of `wpa-eap`.
    #[serde(default)]
    pub identity: Option<TextOrSecret>,
    /// Its password.
    #[serde(default)]
    pub password: Option<SecretRef>,
    /// The greatest that is there is joined.
    #[serde(default)]
    pub priority: i32,
}

/// A cellular network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CellularSpec {
    /// Whether nobody looks if it works.
    pub no_probe: bool,
    /// How to find out whether it works.
    pub probe: Option<Probe>,
    /// Whether the modem tells where it is.
    pub location: bool,
    /// The SIM slot in use, from 1; 0: the first that has a card.
    pub sim_slot: u32,
    /// Access points; at most one a SIM slot.
    pub access_points: Vec<AccessPointSpec>,
}

/// An access point of a cellular network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessPointSpec {
    /// For the card in this slot, from 1; 0: in any.
    pub sim_slot: u32,
    /// Its name.
    pub apn: String,
    /// How the user proves who they are.
    pub auth: CellularAuth,
    /// The user.
    pub user: Option<TextOrSecret>,
    /// Their password.
    pub password: Option<SecretRef>,
    /// Versions of IP.
    pub ip: CellularIp,
    /// The same for the first attachment to the network.
    pub attach: Option<BearerSpec>,
    /// Networks to prefer, as `MCC-MNC`.
    pub networks: Vec<String>,
    /// Whether foreign networks are not used.
    pub forbid_roaming: bool,
    /// Technologies to prefer, best first.
    pub technologies: Vec<RadioTechnology>,
}

/// A way into a cellular network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BearerSpec {
    /// Name of the access point.
    pub apn: String,
    /// How the user proves who they are.
    pub auth: CellularAuth,
    /// The user.
    pub user: Option<TextOrSecret>,
    /// Their password.
    pub password: Option<SecretRef>,
    /// Versions of IP.
    pub ip: CellularIp,
}

/// How a port proves who it is to the switch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessSpec {
    /// The `Enrolment` whose certificate it shows.
    pub enrolment: String,
    /// The identity it shows; the node's name if not said.
    #[serde(default)]
    pub identity: Option<String>,
}
