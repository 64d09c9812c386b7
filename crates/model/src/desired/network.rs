//! Ports of the node and virtual networks.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::NetworkInstanceId;
use crate::desired::link::{Hardware, HardwareKind, Link, Proxy, Usage};

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
    /// Label of the hardware, VLAN or bond below. Empty: that of its own name.
    #[serde(default)]
    pub below: String,
    /// What kind of link it is.
    #[serde(default)]
    pub link: Link,
    /// What is said more seldom.
    #[serde(default)]
    pub options: PortOptions,
}

impl Port {
    /// The label of what lies below.
    pub fn below(&self) -> &str {
        if self.below.is_empty() { self.name.as_str() } else { &self.below }
    }

    /// The hardware below it on a node whose model nobody wrote.
    pub fn card(&self) -> Hardware {
        Hardware {
            label: self.below().to_owned(),
            physical: self.below().to_owned(),
            kind: match self.link {
                Link::Wifi(_) => HardwareKind::Wlan,
                Link::Cellular(_) => HardwareKind::Wwan,
                Link::Ethernet | Link::Vlan | Link::Bond => HardwareKind::Ethernet,
            },
            addresses: [("ifname".to_owned(), self.interface.clone())].into(),
            group: self.below().to_owned(),
            parent_group: String::new(),
            usage: Usage::MgmtAndApps,
            attributes: BTreeMap::new(),
            functions: None,
        }
    }
}

/// What is seldom said of a port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortOptions {
    /// Which versions of IP it speaks.
    pub family: Family,
    /// Domain name when its addresses come from DHCP; else unused.
    pub domain: String,
    /// DNS servers beside those of DHCP.
    pub dns: Vec<IpAddr>,
    /// NTP servers beside those of DHCP.
    pub ntp: Vec<String>,
    /// What of DHCP is not taken.
    pub ignore: DhcpIgnore,
    /// `None`: straight to the controller.
    pub proxy: Option<Proxy>,
    /// For people.
    pub alias: String,
    /// Names under which several ports are chosen together; not a port's name nor a reserved one.
    pub shared_labels: Vec<String>,
    /// Whether a local profile server or console may change it.
    pub local_changes: bool,
}

/// Names of port groups that always exist (EVE API, shared labels).
pub const RESERVED_LABELS: [&str; 3] = ["all", "uplink", "freeuplink"];

/// Which versions of IP a port speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Both, rather 4.
    #[default]
    V4,
    /// Both, rather 6.
    V6,
    /// 4 only.
    V4Only,
    /// 6 only.
    V6Only,
}

/// What a port does not take from DHCP, but from its config alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DhcpIgnore {
    /// NTP servers.
    pub ntp: bool,
    /// Addresses.
    pub addresses: bool,
    /// DNS servers and domain.
    pub dns: bool,
    /// Gateways.
    pub gateways: bool,
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
    /// What is said more seldom.
    #[serde(default)]
    pub options: NetworkOptions,
}

/// What is seldom said of a network instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOptions {
    /// Whether flows are logged and sent; it costs processor time.
    pub flow_log: bool,
    /// Whether apps learn the routes of the ports by DHCP.
    pub propagate_routes: bool,
    /// Routes beyond the default one.
    pub routes: Vec<StaticRoute>,
    /// Ports of a switch that carry one VLAN untagged.
    pub access_ports: Vec<AccessPort>,
    /// Whether a switch lets LLDP pass.
    pub forward_lldp: bool,
    /// Label of the ports of a switch that shut when a bridge talks to them; empty: none.
    pub bpdu_guard: String,
}

/// A route of a network instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticRoute {
    /// Where to.
    pub to: IpNet,
    /// Through this router. `None`: that of the port.
    pub gateway: Option<IpAddr>,
    /// Through the ports of this label; empty: through those of the network.
    pub port: String,
    /// How to find out which of several ports works.
    pub probe: Option<RouteProbe>,
    /// Of several ports that work, the cheaper one.
    pub prefer_cheap: bool,
    /// Of several ports that work, the one with the stronger cellular signal.
    pub prefer_signal: bool,
}

/// How to find out whether a port of a route works.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteProbe {
    /// Ping the gateway.
    pub ping_gateway: bool,
    /// … of ports that cost no more than this.
    pub ping_max_cost: u8,
    /// Something else to reach.
    pub custom: Option<Probe>,
}

/// Something to reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// How.
    pub method: ProbeMethod,
    /// Name or address.
    pub host: String,
    /// Port; unused by ICMP.
    #[serde(default)]
    pub port: u16,
}

/// Ways to find out whether something answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeMethod {
    /// An echo request.
    Icmp,
    /// A connection.
    Tcp,
}

/// A port of a switch network that carries one VLAN untagged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessPort {
    /// 1 to 4094.
    pub vlan: u16,
    /// Label of the ports.
    pub port: String,
}

/// The way out of a network instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortSelector {
    /// Any management port, the cheapest that works (`uplink`).
    Uplink,
    /// Like `Uplink`, of cost 0 only (`freeuplink`).
    FreeUplink,
    /// Every port (`all`).
    All,
    /// This one, or those that share this label.
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
