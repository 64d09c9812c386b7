//! What the kernel has against what it should have.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use model::{AppId, NetworkInstanceId};
use std::net::Ipv4Addr;

use super::leases::Mac;
use super::{AppLink, Bridge, Plan};

/// The part of the kernel's network that could be ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// The node's own interfaces, by name.
    pub links: BTreeMap<String, Link>,
    /// Namespaces named after apps.
    pub apps: BTreeMap<AppId, Inside>,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Hardware address.
    pub mac: Option<Mac>,
    /// Switched on.
    pub up: bool,
    /// Largest packet.
    pub mtu: u32,
    /// The bridge it is a port of.
    pub bridge: Option<String>,
    /// As such, it does not see the other ports.
    pub isolated: bool,
    /// Addresses.
    pub addresses: BTreeSet<Ipv4Net>,
}

/// The network inside a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inside {
    /// Interfaces, by name.
    pub links: BTreeMap<String, Link>,
    /// Default routes: interface, gateway, metric.
    pub defaults: BTreeSet<(String, Ipv4Addr, u32)>,
}

/// Whom a change is for: they hear of it if it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum For {
    /// Nobody: something is taken away.
    Nobody,
    /// A network.
    Network(NetworkInstanceId),
    /// An app.
    App(AppId),
}

/// A change. Within a namespace if it names an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Take a namespace's name away; it goes with its last process.
    DelNamespace(AppId),
    /// Remove an interface.
    DelLink(String),
    /// Make a bridge, switched on.
    AddBridge(Bridge),
    /// Make a namespace with a name.
    AddNamespace(AppId),
    /// Make a pair of interfaces, the inner one in the app's namespace.
    AddPair(AppId, AppLink),
    /// Make an interface a port of a bridge.
    Join(String, String),
    /// Hide the other ports of the bridge from an interface.
    Isolate(String),
    /// Switch an interface on.
    Up(Option<AppId>, String),
    /// Take an address away.
    DelAddress(Option<AppId>, String, Ipv4Net),
    /// Give an address.
    AddAddress(Option<AppId>, String, Ipv4Net),
    /// Remove a default route.
    DelDefault(AppId, String, Ipv4Addr, u32),
    /// Add a default route.
    AddDefault(AppId, String, Ipv4Addr, u32),
}

/// The changes that lead from `have` to `plan`: removals first, since they free names and addresses.
pub fn ops(have: &Kernel, plan: &Plan) -> Vec<(For, Op)> {
    let mut ops = Vec::new();
    let bridges: BTreeMap<&str, &Bridge> =
        plan.bridges.values().map(|bridge| (bridge.name.as_str(), bridge)).collect();
    let pairs: BTreeMap<&str, (AppId, &AppLink)> = plan
        .apps
        .iter()
        .flat_map(|(app, links)| links.iter().map(|link| (link.host.as_str(), (*app, link))))
        .collect();

    for app in have.apps.keys().filter(|app| !plan.apps.contains_key(app)) {
        ops.push((For::Nobody, Op::DelNamespace(*app)));
    }
    let mut gone = BTreeSet::new();
    for (name, link) in have.links.iter().filter(|(name, _)| is_ours(name)) {
        let fits = match (bridges.get(name.as_str()), pairs.get(name.as_str())) {
            (Some(bridge), _) => link.mac == Some(bridge.mac) && link.mtu == u32::from(bridge.mtu),
            (None, Some((app, pair))) => {
                let inside = have.apps.get(app).and_then(|a| a.links.get(&pair.inside));
                link.mtu == u32::from(pair.mtu)
                    && inside
                        .is_some_and(|i| i.mac == Some(pair.mac) && i.mtu == u32::from(pair.mtu))
            }
            (None, None) => false,
        };
        if !fits {
            gone.insert(name.as_str());
            ops.push((For::Nobody, Op::DelLink(name.clone())));
        }
    }
    let still = |name: &str| have.links.get(name).filter(|_| !gone.contains(name));

    for (id, bridge) in &plan.bridges {
        let mut push = |op| ops.push((For::Network(*id), op));
        let now = still(&bridge.name);
        match now {
            None => push(Op::AddBridge(bridge.clone())),
            Some(link) if !link.up => push(Op::Up(None, bridge.name.clone())),
            Some(_) => {}
        }
        addresses(None, &bridge.name, now, bridge.address, &mut push);
    }
    for (app, links) in &plan.apps {
        let mut push = |op| ops.push((For::App(*app), op));
        let inside = have.apps.get(app);
        if inside.is_none() {
            push(Op::AddNamespace(*app));
        }
        if !inside.and_then(|i| i.links.get("lo")).is_some_and(|lo| lo.up) {
            push(Op::Up(Some(*app), "lo".to_owned()));
        }
        for link in links {
            let host = still(&link.host);
            if host.is_none() {
                push(Op::AddPair(*app, link.clone()));
            }
            // A port of a bridge that goes away is a port no more.
            let bridge = host.and_then(|h| h.bridge.as_deref()).filter(|b| still(b).is_some());
            let joined = bridge == Some(link.bridge.as_str());
            if !joined {
                push(Op::Join(link.host.clone(), link.bridge.clone()));
            }
            if !joined || !host.is_some_and(|h| h.isolated) {
                push(Op::Isolate(link.host.clone()));
            }
            if !host.is_some_and(|h| h.up) {
                push(Op::Up(None, link.host.clone()));
            }
            let own = inside.and_then(|i| i.links.get(&link.inside)).filter(|_| host.is_some());
            addresses(Some(*app), &link.inside, own, link.address, &mut push);
            if !own.is_some_and(|own| own.up) {
                push(Op::Up(Some(*app), link.inside.clone()));
            }
            let wanted = link.gateway.map(|(ip, metric)| (link.inside.clone(), ip, metric));
            let routes = inside.map(|i| &i.defaults).filter(|_| own.is_some());
            let mine = routes.into_iter().flatten().filter(|(name, ..)| *name == link.inside);
            let mut there = false;
            for route in mine {
                if Some(route) == wanted.as_ref() {
                    // It goes with the address it leans on.
                    there = own.is_some_and(|own| own.up && own.addresses.contains(&link.address));
                } else {
                    let (name, ip, metric) = route.clone();
                    push(Op::DelDefault(*app, name, ip, metric));
                }
            }
            if let Some((name, ip, metric)) = wanted.filter(|_| !there) {
                push(Op::AddDefault(*app, name, ip, metric));
            }
        }
    }
    ops
}

fn addresses(
    app: Option<AppId>,
    name: &str,
    link: Option<&Link>,
    wanted: Ipv4Net,
    push: &mut impl FnMut(Op),
) {
    let have = link.map(|link| &link.addresses);
    // Addresses an app gives itself are left: packets from them are dropped.
    if app.is_none() {
        for other in have.into_iter().flatten().filter(|address| **address != wanted) {
            push(Op::DelAddress(app, name.to_owned(), *other));
        }
    }
    if !have.is_some_and(|have| have.contains(&wanted)) {
        push(Op::AddAddress(app, name.to_owned(), wanted));
    }
}

/// Whether a name is one that we give: `bn<N>` or `nbu<N>x<M>`.
pub fn is_ours(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix("bn").is_some_and(number)
        || name
            .strip_prefix("nbu")
            .and_then(|rest| rest.split_once('x'))
            .is_some_and(|(app, at)| number(app) && number(at))
}
