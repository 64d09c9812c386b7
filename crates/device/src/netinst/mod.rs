//! Networks of apps: bridges, the interfaces of apps in their namespaces, what may pass, and what
//! DHCP and DNS say there.
//!
//! [`plan`] makes of the config and the node's ports a whole picture of what should be; [`ops::ops`]
//! compares it with what the kernel has. References that point nowhere are problems in a status:
//! they heal when the missing object comes.
//!
//! ```text
//!  uplink ── eth0 ─┬─ NAT, filter ─── bn1 10.1.0.1 ─┬─ nbu1x1 ═ eth0 10.1.0.2   (app 1)
//!                  │                   DHCP, DNS    └─ nbu2x1 ═ eth0 10.1.0.3   (app 2)
//!                  └─ 8080 → 10.1.0.2:80
//! ```
//!
//! The ports of a bridge are isolated from each other and the node answers ARP for all of them:
//! what apps say to each other is routed, so that the same rules see it as all other traffic.
//!
//! Not done: switch networks, IPv6, a way out other than the node's own default route.

mod access;
pub mod filter;
pub mod leases;
pub mod names;
pub mod numbers;
pub mod ops;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use model::desired::{
    App, AppInterface, LocalNetwork, NetworkInstance, NetworkKind, PortName, PortSelector,
};
use model::reported::{AppNetworkStatus, Lease, NetworkInstanceStatus, PortStatus, Vif};
use model::{AppId, Diagnosis, NetworkInstanceId, Problem, UnixMillis, Who};
use sha2::{Digest, Sha256};

pub use access::NameSet;
use filter::Ruleset;
use leases::{Dhcp, Guests, Mac};
use names::Names;
use numbers::Numbers;

use crate::app::oci::host_name;

/// What the picture is made of.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Networks of the config.
    pub networks: &'a BTreeMap<NetworkInstanceId, NetworkInstance>,
    /// Apps of the config.
    pub apps: &'a BTreeMap<AppId, App>,
    /// The node's ports.
    pub ports: &'a BTreeMap<PortName, PortStatus>,
    /// Numbers and addresses, renewed for this config.
    pub numbers: &'a Numbers,
    /// Leases of those who are no apps, by network.
    pub guests: &'a BTreeMap<NetworkInstanceId, Guests>,
    /// Where namespaces have their names: `/run/netns`.
    pub namespaces: &'a str,
    /// For problems.
    pub now: UnixMillis,
}

/// What should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Bridges, by network.
    pub bridges: BTreeMap<NetworkInstanceId, Bridge>,
    /// Interfaces of apps. Every app that should run has an entry and a namespace.
    pub apps: BTreeMap<AppId, Vec<AppLink>>,
    /// The packet filter.
    pub filter: Ruleset,
    /// What each network's DHCP and DNS say.
    pub services: BTreeMap<NetworkInstanceId, Services>,
    /// Statuses, if all of this comes to be.
    pub networks: BTreeMap<NetworkInstanceId, NetworkInstanceStatus>,
    /// Statuses, if all of this comes to be.
    pub app_networks: BTreeMap<AppId, AppNetworkStatus>,
}

/// A bridge with the gateway's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// `bn<N>`
    pub name: String,
    /// Hardware address.
    pub mac: Mac,
    /// Largest packet.
    pub mtu: u16,
    /// The gateway.
    pub address: Ipv4Net,
}

/// An interface of an app and its other end in the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppLink {
    /// The end in the node: `nbu<N>x<M>`.
    pub host: String,
    /// The end in the app's namespace: `eth<M>`.
    pub inside: String,
    /// The bridge.
    pub bridge: String,
    /// Hardware address of the app's end.
    pub mac: Mac,
    /// Largest packet.
    pub mtu: u16,
    /// The app's address.
    pub address: Ipv4Net,
    /// The way out, with its metric: the first interface wins.
    pub gateway: Option<(Ipv4Addr, u32)>,
}

/// What a network's bridge offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// The bridge.
    pub bridge: String,
    /// Addresses.
    pub dhcp: Dhcp,
    /// Names.
    pub names: Names,
}

/// Ethernet's.
const MTU: u16 = 1500;
/// The smallest that IPv6 can use; the API allows no less.
const MTU_MIN: u16 = 1280;

/// A network that can be built.
#[derive(Debug)]
struct Local<'a> {
    id: NetworkInstanceId,
    desired: &'a NetworkInstance,
    local: &'a LocalNetwork,
    number: u8,
    bridge: String,
    /// The ways out, cheapest first.
    ports: Vec<&'a PortStatus>,
    mtu: u16,
    problem: Option<Problem>,
}

/// An interface of an app that can be built.
#[derive(Debug)]
struct Seat<'a> {
    app: &'a App,
    network: NetworkInstanceId,
    interface: &'a AppInterface,
    link: AppLink,
}

/// The whole picture.
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    let (locals, mut networks) = networks(inputs);
    let mut seats = Vec::new();
    let mut app_networks = BTreeMap::new();
    let mut apps = BTreeMap::new();
    for (id, app) in inputs.apps.iter().filter(|(_, app)| app.activate) {
        let (mine, problem) = seats_of(app, &locals, inputs);
        app_networks.insert(*id, app_status(app, &mine, problem, &locals, inputs));
        apps.insert(*id, mine.iter().map(|seat| seat.link.clone()).collect());
        seats.extend(mine);
    }
    let (filter, watched, clashes) = rules::rules(&locals, &seats, inputs);
    for (app, problem) in clashes {
        if let Some(status) = app_networks.get_mut(&app) {
            status.problem.get_or_insert(problem);
        }
    }
    let mut bridges = BTreeMap::new();
    let mut services = BTreeMap::new();
    for local in locals.values() {
        bridges.insert(local.id, local.bridge());
        let offered = local.services(&seats, &watched, inputs);
        if let Some(status) = networks.get_mut(&local.id) {
            status.leases = leases_of(local.id, &seats, inputs);
        }
        services.insert(local.id, offered);
    }
    Plan { bridges, apps, filter, services, networks, app_networks }
}

/// Networks that can be built, and the status of each.
fn networks<'a>(
    inputs: &Inputs<'a>,
) -> (BTreeMap<NetworkInstanceId, Local<'a>>, BTreeMap<NetworkInstanceId, NetworkInstanceStatus>) {
    let mut locals = BTreeMap::new();
    let mut statuses = BTreeMap::new();
    for (id, desired) in inputs.networks {
        let number = inputs.numbers.networks.get(id).copied();
        let ports = ways_out(desired.port.as_ref(), inputs.ports);
        let way_problem = || no_way(desired.port.as_ref(), &ports, inputs);
        let mut status = NetworkInstanceStatus {
            id: *id,
            name: desired.name.clone(),
            active: false,
            bridge: number.map(|n| format!("bn{n}")).unwrap_or_default(),
            port: ports.iter().find(|p| p.usable()).map(|p| p.port.name.clone()),
            gateway: None,
            leases: Vec::new(),
            problem: None,
        };
        match (&desired.kind, number) {
            _ if !desired.activate => {}
            (_, None) => {
                let advice = "remove networks that nobody needs";
                status.problem =
                    Some(operator("a node has 255 networks at most", advice, inputs.now));
            }
            (NetworkKind::Switch, _) => {
                let text = "switch networks are not supported by this version";
                status.problem = Some(operator(text, "use a local network", inputs.now));
            }
            (NetworkKind::Local(local), Some(number)) => {
                status.active = true;
                status.gateway = Some(local.gateway);
                status.problem = way_problem();
                let mtu = desired.mtu.or_else(|| ports.iter().filter_map(|p| p.port.mtu).min());
                let local = Local {
                    id: *id,
                    desired,
                    local,
                    number,
                    bridge: status.bridge.clone(),
                    mtu: mtu.unwrap_or(MTU).max(MTU_MIN),
                    problem: status.problem.clone(),
                    ports,
                };
                locals.insert(*id, local);
            }
        }
        statuses.insert(*id, status);
    }
    (locals, statuses)
}

/// Whether packets can leave by a port.
trait Usable {
    fn usable(&self) -> bool;
}

impl Usable for PortStatus {
    fn usable(&self) -> bool {
        self.link && !self.addresses.is_empty()
    }
}

/// The ports a network may go out by: those that work first, then the cheaper ones.
fn ways_out<'a>(
    selector: Option<&PortSelector>,
    ports: &'a BTreeMap<PortName, PortStatus>,
) -> Vec<&'a PortStatus> {
    let fits = |p: &&PortStatus| match selector {
        None => false,
        Some(PortSelector::All) => true,
        Some(PortSelector::Uplink) => p.port.management,
        Some(PortSelector::FreeUplink) => p.port.management && p.port.cost == 0,
        Some(PortSelector::Port(name)) => p.port.name == *name,
    };
    let mut fitting: Vec<&PortStatus> = ports.values().filter(fits).collect();
    fitting.sort_by_key(|p| (!p.usable(), p.port.cost, p.port.name.clone()));
    fitting
}

fn no_way(
    selector: Option<&PortSelector>,
    ports: &[&PortStatus],
    inputs: &Inputs<'_>,
) -> Option<Problem> {
    match (selector, ports) {
        (None, _) => None,
        (Some(PortSelector::Port(name)), []) => Some(operator(
            format!("the node has no port {name}"),
            "name a port that the node has",
            inputs.now,
        )),
        (Some(_), []) => {
            Some(operator("no port leads out", "give the node a management port", inputs.now))
        }
        (Some(_), [best, ..]) if !best.usable() => Some(Problem::new(
            format!("port {} has no address or no link", best.port.name),
            Diagnosis::of(Who::Network, "see the status of the port"),
            inputs.now,
        )),
        (Some(_), ports) => {
            // All leave by the node's own default route, and the filter lets each network out by
            // its own ports only.
            let node = default_port(inputs.ports)?;
            let leads = ports.iter().any(|p| p.port.name == node.port.name);
            (!leads).then(|| {
                let text = format!("what leaves this node leaves by port {}", node.port.name);
                operator(text, "let the network use that port", inputs.now)
            })
        }
    }
}

/// The port that has the node's best default route: `device::network` gives metrics in this order.
fn default_port(ports: &BTreeMap<PortName, PortStatus>) -> Option<&PortStatus> {
    let usable = ports.values().filter(|p| p.usable() && p.gateway.is_some());
    usable.min_by_key(|p| (!p.port.management, p.port.cost, &p.port.name))
}

fn operator(text: impl Into<String>, advice: &str, now: UnixMillis) -> Problem {
    Problem::new(text, Diagnosis::of(Who::Operator, advice), now)
}

/// The interfaces of an app that can be built, and what stands in the way of the others.
fn seats_of<'a>(
    app: &'a App,
    locals: &BTreeMap<NetworkInstanceId, Local<'a>>,
    inputs: &Inputs<'a>,
) -> (Vec<Seat<'a>>, Option<Problem>) {
    let mut seats = Vec::new();
    let mut problem = None;
    for (place, interface) in app.interfaces.iter().enumerate() {
        match seat(app, place, interface, locals, inputs) {
            Ok(seat) => seats.push(seat),
            Err(why) => problem = problem.or(Some(why)),
        }
    }
    (seats, problem)
}

fn seat<'a>(
    app: &'a App,
    place: usize,
    interface: &'a AppInterface,
    locals: &BTreeMap<NetworkInstanceId, Local<'a>>,
    inputs: &Inputs<'a>,
) -> Result<Seat<'a>, Problem> {
    let now = inputs.now;
    let name = &interface.name;
    let Some(desired) = inputs.networks.get(&interface.network) else {
        return Err(operator(
            format!("network {} of interface {name} is not in the config", interface.network),
            "add the network, or name another",
            now,
        ));
    };
    let Some(local) = locals.get(&interface.network) else {
        return Err(operator(
            format!("network {} of interface {name} is not active", desired.name),
            "see the status of the network",
            now,
        ));
    };
    let Some(number) = inputs.numbers.apps.get(&app.id).copied() else {
        return Err(operator("a node has 255 apps at most", "remove apps", now));
    };
    // Numbers in names of interfaces; a kernel's name has 15 bytes.
    let at = u8::try_from(place + 1)
        .map_err(|_| operator("an app has 255 interfaces at most", "remove interfaces", now))?;
    let address = inputs.numbers.address(local.id, app.id, place).ok_or_else(|| {
        let (text, advice) = match interface.address {
            Some(ip) => (
                format!("address {ip} of interface {name} is not free in network {}", desired.name),
                "choose an address inside the subnet that nothing else has",
            ),
            None => (
                format!("the range of network {} is used up", desired.name),
                "give the network a larger range",
            ),
        };
        operator(text, advice, now)
    })?;
    let subnet = local.local.subnet;
    let metric = u32::from(at) * 100;
    let link = AppLink {
        host: format!("nbu{number}x{at}"),
        inside: format!("eth{place}"),
        bridge: local.bridge.clone(),
        mac: interface.mac.unwrap_or_else(|| app_mac(app.id, local.id, at - 1, number)),
        mtu: local.mtu,
        address: Ipv4Net::new(address, subnet.prefix_len()).unwrap_or(subnet),
        gateway: local.desired.port.as_ref().map(|_| (local.local.gateway, metric)),
    };
    Ok(Seat { app, network: local.id, interface, link })
}

fn app_status(
    app: &App,
    seats: &[Seat<'_>],
    problem: Option<Problem>,
    locals: &BTreeMap<NetworkInstanceId, Local<'_>>,
    inputs: &Inputs<'_>,
) -> AppNetworkStatus {
    let vif = |seat: &Seat<'_>| Vif {
        name: seat.interface.name.clone(),
        network: seat.network,
        host_interface: seat.link.host.clone(),
        app_interface: seat.link.inside.clone(),
        mac: seat.link.mac,
        address: Some(seat.link.address.addr()),
    };
    let mut dns: Vec<Ipv4Addr> = Vec::new();
    for local in seats.iter().filter_map(|seat| locals.get(&seat.network)) {
        if !dns.contains(&local.local.gateway) {
            dns.push(local.local.gateway);
        }
    }
    // A network without a way out does not hold an app back, but its operator should know.
    let of_network = || seats.iter().find_map(|seat| locals.get(&seat.network)?.problem.clone());
    AppNetworkStatus {
        id: app.id,
        namespace: format!("{}/{}", inputs.namespaces, app.id),
        dns,
        ready: problem.is_none(),
        vifs: seats.iter().map(vif).collect(),
        problem: problem.or_else(of_network),
    }
}

fn leases_of(network: NetworkInstanceId, seats: &[Seat<'_>], inputs: &Inputs<'_>) -> Vec<Lease> {
    let apps = seats.iter().filter(|seat| seat.network == network).map(|seat| Lease {
        app: Some(seat.app.id),
        mac: seat.link.mac,
        address: seat.link.address.addr(),
    });
    let guests = inputs.guests.get(&network).into_iter().flat_map(|guests| &guests.held);
    let guests = guests.map(|held| Lease { app: None, mac: held.mac, address: held.address });
    apps.chain(guests).collect()
}

impl Local<'_> {
    fn bridge(&self) -> Bridge {
        let subnet = self.local.subnet;
        Bridge {
            name: self.bridge.clone(),
            mac: bridge_mac(self.id, self.number),
            mtu: self.mtu,
            address: Ipv4Net::new(self.local.gateway, subnet.prefix_len()).unwrap_or(subnet),
        }
    }

    fn services(&self, seats: &[Seat<'_>], watched: &[NameSet], inputs: &Inputs<'_>) -> Services {
        let mine = || seats.iter().filter(|seat| seat.network == self.id);
        let mut hosts: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for seat in mine() {
            let address = seat.link.address.addr().into();
            hosts.entry(host_name(seat.app)).or_default().push(address);
        }
        // What the operator writes down wins over the name of an app.
        for entry in &self.local.hosts {
            let name = entry.name.trim_end_matches('.').to_ascii_lowercase();
            hosts.insert(name, entry.addresses.clone());
        }
        let of_ports = || self.ports.iter().filter(|p| p.usable()).flat_map(|p| p.dns.clone());
        let mut upstream: Vec<IpAddr> = match self.local.dns.as_slice() {
            [] => of_ports().collect(),
            fixed => fixed.to_vec(),
        };
        // Asking itself would go round for ever.
        let own: BTreeSet<IpAddr> = inputs
            .networks
            .values()
            .filter_map(|network| match &network.kind {
                NetworkKind::Local(local) => Some(local.gateway.into()),
                NetworkKind::Switch => None,
            })
            .collect();
        upstream.retain(|server| !own.contains(server));
        let dhcp = Dhcp {
            local: self.local.clone(),
            routed: self.desired.port.is_some(),
            mtu: self.mtu,
            reserved: mine().map(|s| (s.link.mac, s.link.address.addr())).collect(),
        };
        let names = Names { hosts, upstream, watched: watched.to_vec() };
        Services { bridge: self.bridge.clone(), dhcp, names }
    }
}

/// As EVE derives it: SHA-256 over the ids of app and network and the numbers of interface and app;
/// made a local address of one station.
fn app_mac(app: AppId, network: NetworkInstanceId, adapter: u8, number: u8) -> Mac {
    let mut hash = Sha256::new();
    hash.update(app.raw().as_bytes());
    hash.update(network.raw().as_bytes());
    hash.update([adapter, number]);
    let hash = hash.finalize();
    [(hash[0] & 0xfe) | 0x02, hash[1], hash[2], hash[3], hash[4], hash[5]]
}

/// As EVE's bridges: a fixed prefix, two bytes of a hash, the bridge's number.
fn bridge_mac(network: NetworkInstanceId, number: u8) -> Mac {
    let hash = Sha256::digest(network.raw().as_bytes());
    [0x00, 0x16, 0x3e, hash[0], hash[1], number]
}

#[cfg(test)]
mod tests;
