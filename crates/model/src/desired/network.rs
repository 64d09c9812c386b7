//! Ports of the node and virtual networks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::NetworkInstanceId;

/// The logical label of a port: 1 to 64 bytes of letters, digits, `.`, `_`, `-`; no leading dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortName(pub(crate) String);

impl PortName {
    /// `None` if the text is no label.
    pub fn new(text: &str) -> Option<PortName> {
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let good =
            (1..=64).contains(&text.len()) && !text.starts_with('.') && text.chars().all(plain);
        good.then(|| PortName(text.to_owned()))
    }

    /// The label.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for PortName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        PortName::new(&text).ok_or_else(|| format!("{text:?} is no port name"))
    }
}

impl From<PortName> for String {
    fn from(name: PortName) -> String {
        name.0
    }
}

/// How a port of the node is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its logical label.
    pub name: PortName,
    /// The kernel's name of the interface.
    pub interface: String,
    /// Whether the controller is reached through it.
    pub management: bool,
    /// 0 is free; dearer ports are used when cheaper ones fail. At most 255.
    pub cost: u8,
    /// How it gets its address.
    pub addressing: Addressing,
    /// `None`: the interface's own.
    pub mtu: Option<u16>,
}

/// How a port gets its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Addressing {
    /// From a DHCP server.
    Dhcp,
    /// As said.
    Static(StaticAddress),
    /// None: a port for switch networks.
    None,
}

/// A fixed address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticAddress {
    /// Own address and prefix length.
    pub address: Ipv4Net,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// DNS servers, in order.
    pub dns: Vec<IpAddr>,
    /// NTP servers, names or addresses.
    pub ntp: Vec<String>,
}

/// A virtual network for apps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInstance {
    /// Its id.
    pub id: NetworkInstanceId,
    /// For people.
    pub name: String,
    /// Whether it should exist now.
    pub activate: bool,
    /// What kind it is.
    pub kind: NetworkKind,
    /// The way out. `None`: none, the network is air-gapped.
    pub port: Option<PortSelector>,
    /// `None`: that of the port, or 1500.
    pub mtu: Option<u16>,
}

/// The way out of a network instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortSelector {
    /// Any management port, the cheapest that works (`uplink`).
    Uplink,
    /// Like `Uplink`, of cost 0 only (`freeuplink`).
    FreeUplink,
    /// This one.
    Port(PortName),
}

/// Kinds of network instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkKind {
    /// Routed, with NAT, DHCP and DNS.
    Local(LocalNetwork),
    /// Bridged to its port.
    Switch,
}

/// The addressing of a local network. Checked: gateway and range lie inside the subnet, the
/// gateway outside the range, and the subnet holds at least 4 addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalNetwork {
    /// The subnet; host bits zero.
    pub subnet: Ipv4Net,
    /// The bridge's own address.
    pub gateway: Ipv4Addr,
    /// Addresses given to apps, both ends included.
    pub range: DhcpRange,
    /// DNS servers that the network's own DNS asks. Empty: those of the port.
    pub dns: Vec<IpAddr>,
    /// Names with fixed addresses.
    pub hosts: Vec<DnsEntry>,
}

/// Both ends are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpRange {
    /// First address.
    pub start: Ipv4Addr,
    /// Last address.
    pub end: Ipv4Addr,
}

/// A name with fixed addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsEntry {
    /// The host name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}
