//! Ports and networks as they are.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::desired::{Port, PortName};
use crate::{AppId, NetworkInstanceId, Problem, UnixMillis};

/// A port, as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortStatus {
    /// How it is used.
    pub port: Port,
    /// Whether the kernel has the interface and its link is up.
    pub link: bool,
    /// Hardware address.
    pub mac: Option<[u8; 6]>,
    /// Own addresses.
    pub addresses: Vec<Ipv4Net>,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// DNS servers, in order.
    pub dns: Vec<IpAddr>,
    /// NTP servers.
    pub ntp: Vec<IpAddr>,
    /// DNS domain.
    pub domain: Option<String>,
    /// The lease in force.
    pub lease: Option<DhcpLease>,
    /// The last test of reaching the controller; only management ports are tested.
    pub test: Option<PortTest>,
    /// What stands in the way.
    pub problem: Option<Problem>,
}

/// A lease we hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpLease {
    /// Who gave it.
    pub server: Ipv4Addr,
    /// When it ends.
    pub expires: UnixMillis,
}

/// A test of reaching the controller through a port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortTest {
    /// When.
    pub at: UnixMillis,
    /// `None`: it worked.
    pub failure: Option<String>,
}

/// A virtual network, as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkInstanceStatus {
    /// Which.
    pub id: NetworkInstanceId,
    /// For people.
    pub name: String,
    /// Whether it is up.
    pub active: bool,
    /// The bridge's name in the kernel: `bn` and a number.
    pub bridge: String,
    /// The port it goes out by now.
    pub port: Option<PortName>,
    /// The bridge's address.
    pub gateway: Option<Ipv4Addr>,
    /// Addresses given out.
    pub leases: Vec<Lease>,
    /// What stands in the way.
    pub problem: Option<Problem>,
}

/// An address given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// To whom. `None`: to someone we did not expect.
    pub app: Option<AppId>,
    /// Their hardware address.
    pub mac: [u8; 6],
    /// Their address.
    pub address: Ipv4Addr,
}
