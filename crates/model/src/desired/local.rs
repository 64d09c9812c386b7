//! What someone near the node changes without the controller: a local profile server or console.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Addressing, DhcpIgnore, Family, Port};

/// How a port is set up in place of what the controller said: as a whole, not field by field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortChange {
    /// How it gets its address.
    pub addressing: Addressing,
    /// `None`: the kernel's.
    pub mtu: Option<u16>,
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
}

impl PortChange {
    /// The port, so changed.
    #[must_use]
    pub fn of(&self, port: &Port) -> Port {
        let mut port = port.clone();
        port.addressing = self.addressing.clone();
        port.mtu = self.mtu;
        port.options.family = self.family;
        port.options.domain.clone_from(&self.domain);
        port.options.dns.clone_from(&self.dns);
        port.options.ntp.clone_from(&self.ntp);
        port.options.ignore = self.ignore;
        port.options.proxy = None;
        port
    }
}

/// A command to the whole node from someone near it. It is given once: it stands in no config, and
/// who gave it is told that it was taken before it is seen here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalPower {
    /// The command's own number.
    pub timestamp: u64,
    /// Stay off, instead of starting anew.
    pub off: bool,
}
