//! The node's ports: which there are, what they should be like, and the way there.
//!
//! Three sources say which ports there are, in this order: the controller's config; the ports that
//! last worked, while there is no config yet; and as last resort every Ethernet interface with DHCP.
//! [`choice`] finds out a config under which the node is cut off, and goes back for a while.

pub mod choice;
pub mod dhcp;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::Ipv4Net;
use model::desired::{Addressing, Port, PortName};
use model::reported::{DhcpLease, PortStatus};
use model::{Diagnosis, Problem, UnixMillis, Who};

use dhcp::{Lease, Millis};

/// An interface, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Hardware address.
    pub mac: Option<[u8; 6]>,
    /// Switched on.
    pub up: bool,
    /// Something is at the other end.
    pub carrier: bool,
    /// Ethernet hardware; not a bridge or a virtual pair.
    pub ethernet: bool,
    /// What it carries at once.
    pub mtu: u32,
    /// Its IPv4 addresses.
    pub addresses: BTreeSet<Ipv4Net>,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to; the default route is `0.0.0.0/0`.
    pub to: Ipv4Net,
    /// Through which interface.
    pub interface: String,
    /// By which neighbour. `None`: it is reached directly.
    pub gateway: Option<Ipv4Addr>,
    /// Lower wins.
    pub metric: u32,
}

/// The interfaces through which the controller may be reached, the cheapest first: of ports for
/// management that have a link and an address.
pub fn ways(ports: &BTreeMap<PortName, PortStatus>) -> Vec<String> {
    let mut ways: Vec<(u8, &PortName, &str)> = ports
        .iter()
        .filter(|(_, p)| p.port.management && p.link && !p.addresses.is_empty())
        .map(|(name, p)| (p.port.cost, name, p.port.interface.as_str()))
        .collect();
    ways.sort();
    ways.into_iter().map(|(_, _, interface)| interface.to_owned()).collect()
}

/// The network as the kernel has it. Routes that the kernel made itself are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Interfaces by name.
    pub links: BTreeMap<String, Link>,
    /// Routes of the main table.
    pub routes: BTreeSet<Route>,
}

/// Every Ethernet interface as a management port with DHCP.
pub fn last_resort(kernel: &Kernel) -> BTreeMap<PortName, Port> {
    let ethernet = kernel.links.iter().filter(|(_, link)| link.ethernet);
    ethernet
        .filter_map(|(interface, _)| {
            let name = PortName::new(interface)?;
            let port = Port {
                name: name.clone(),
                interface: interface.clone(),
                management: true,
                cost: 0,
                addressing: Addressing::Dhcp,
                mtu: None,
                below: String::new(),
                link: Default::default(),
                options: Default::default(),
            };
            Some((name, port))
        })
        .collect()
}

/// A change of the kernel's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Remove a route.
    DelRoute(Route),
    /// Remove an address from an interface.
    DelAddress(String, Ipv4Net),
    /// Switch an interface on.
    Up(String),
    /// Set what an interface carries at once.
    Mtu(String, u32),
    /// Give an interface an address.
    AddAddress(String, Ipv4Net),
    /// Add a route.
    AddRoute(Route),
}

/// The changes from `have` to what `ports` and their `leases` (by interface) want. Interfaces that
/// are no ports are not touched.
pub fn plan(
    have: &Kernel,
    ports: &BTreeMap<PortName, Port>,
    leases: &BTreeMap<String, Lease>,
) -> Vec<Op> {
    let mut ops = Vec::new();
    let ours = |interface: &str| ports.values().any(|port| port.interface == interface);
    let wanted_routes: BTreeSet<Route> = ports
        .values()
        .enumerate()
        .filter(|(_, port)| have.links.get(&port.interface).is_some_and(|link| link.carrier))
        .flat_map(|(place, port)| routes_of(port, place, leases.get(&port.interface)))
        .collect();
    let mine = have.routes.iter().filter(|route| ours(&route.interface));
    ops.extend(mine.filter(|r| !wanted_routes.contains(r)).cloned().map(Op::DelRoute));
    for port in ports.values() {
        let Some(link) = have.links.get(&port.interface) else { continue };
        let name = &port.interface;
        let wanted = addresses_of(port, leases.get(name));
        let gone = link.addresses.iter().filter(|a| !wanted.contains(a));
        ops.extend(gone.map(|a| Op::DelAddress(name.clone(), *a)));
        if !link.up {
            ops.push(Op::Up(name.clone()));
        }
        let mtu = port.mtu.or(leases.get(name).and_then(|lease| lease.mtu)).map(u32::from);
        if let Some(mtu) = mtu.filter(|mtu| *mtu != link.mtu) {
            ops.push(Op::Mtu(name.clone(), mtu));
        }
        let new = wanted.iter().filter(|a| !link.addresses.contains(a));
        ops.extend(new.map(|a| Op::AddAddress(name.clone(), *a)));
    }
    // The kernel takes a route away with the address it leans on: a route is new if either was.
    ops.extend(wanted_routes.into_iter().filter(|r| !have.routes.contains(r)).map(Op::AddRoute));
    ops
}

fn addresses_of(port: &Port, lease: Option<&Lease>) -> BTreeSet<Ipv4Net> {
    match (&port.addressing, lease) {
        (Addressing::Dhcp, Some(lease)) => BTreeSet::from([lease.address]),
        (Addressing::Static(fixed), _) => BTreeSet::from([fixed.address]),
        (Addressing::Dhcp | Addressing::None, _) => BTreeSet::new(),
    }
}

fn routes_of(port: &Port, place: usize, lease: Option<&Lease>) -> Vec<Route> {
    // Cheaper ports win; among equals the order of names. Ports for apps only come last, so that
    // the node itself does not go out by them while there is another.
    let place = u32::try_from(place).unwrap_or(u32::MAX).min(255);
    let kind = if port.management { 1_000 } else { 1_000_000 };
    let metric = kind + u32::from(port.cost) * 1_000 + place;
    let route = |to, gateway| Route { to, interface: port.interface.clone(), gateway, metric };
    let by_default = |gateway| route(Ipv4Net::default(), Some(gateway));
    match (&port.addressing, lease) {
        (Addressing::Dhcp, Some(lease)) if !lease.routes.is_empty() => {
            let hop = |gateway: Ipv4Addr| (!gateway.is_unspecified()).then_some(gateway);
            lease.routes.iter().map(|(to, gateway)| route(to.trunc(), hop(*gateway))).collect()
        }
        (Addressing::Dhcp, Some(lease)) => lease.gateway.map(by_default).into_iter().collect(),
        (Addressing::Static(fixed), _) => fixed.gateway.map(by_default).into_iter().collect(),
        (Addressing::Dhcp | Addressing::None, _) => Vec::new(),
    }
}

/// A port as it is reported. `now` and `wall` are the same moment on the two clocks.
pub fn status(
    port: &Port,
    link: Option<&Link>,
    lease: Option<&Lease>,
    trouble: Option<&Problem>,
    now: Millis,
    wall: UnixMillis,
) -> PortStatus {
    let (gateway, dns, ntp, domain) = match (&port.addressing, lease) {
        (Addressing::Dhcp, Some(lease)) => {
            (lease.gateway, lease.dns.clone(), lease.ntp.clone(), lease.domain.clone())
        }
        (Addressing::Static(fixed), _) => {
            let ntp = fixed.ntp.iter().filter_map(|server| server.parse().ok()).collect();
            (fixed.gateway, fixed.dns.clone(), ntp, None)
        }
        (Addressing::Dhcp | Addressing::None, _) => (None, Vec::new(), Vec::new(), None),
    };
    let problem = match link {
        None => Some(Problem::new(
            format!("the node has no interface {}", port.interface),
            Diagnosis::of(Who::Operator, "name an interface that the node has"),
            wall,
        )),
        Some(link) if !link.carrier => Some(Problem::new(
            format!("nothing is connected to {}", port.interface),
            Diagnosis::of(Who::Hardware, "plug in the cable"),
            wall,
        )),
        Some(_) => trouble.cloned(),
    };
    PortStatus {
        port: port.clone(),
        link: link.is_some_and(|link| link.carrier),
        mac: link.and_then(|link| link.mac),
        addresses: link.map(|link| link.addresses.iter().copied().collect()).unwrap_or_default(),
        gateway,
        dns,
        ntp,
        domain,
        lease: lease.filter(|_| port.addressing == Addressing::Dhcp).map(|lease| DhcpLease {
            server: lease.server,
            expires: wall.after(Duration::from_millis(lease.expires.saturating_sub(now))),
        }),
        test: None,
        problem,
    }
}

/// A resolv.conf for the node: the servers of ports with an address, cheapest port first.
pub fn resolv_conf<'a>(ports: impl Iterator<Item = &'a PortStatus>) -> String {
    let mut usable: Vec<&PortStatus> = ports.filter(|p| !p.addresses.is_empty()).collect();
    usable.sort_by_key(|p| (!p.port.management, p.port.cost, &p.port.name));
    let mut out = String::new();
    if let Some(domain) = usable.iter().find_map(|p| p.domain.as_deref()).filter(|d| is_domain(d)) {
        let _ = writeln!(out, "search {domain}");
    }
    let mut seen: Vec<IpAddr> = Vec::new();
    for server in usable.iter().flat_map(|p| &p.dns) {
        if !seen.contains(server) && seen.len() < 3 {
            seen.push(*server);
            let _ = writeln!(out, "nameserver {server}");
        }
    }
    out
}

/// What a DHCP server says may not write other lines into a file.
fn is_domain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    (1..=253).contains(&text.len()) && text.chars().all(plain)
}

/// Whether a management port has a link and an address.
pub fn connected<'a>(ports: impl IntoIterator<Item = &'a PortStatus>) -> bool {
    ports.into_iter().any(|p| p.port.management && p.link && !p.addresses.is_empty())
}

#[cfg(test)]
mod tests;
