//! What apps may send and receive: access rules of the config as rules of the packet filter.
//!
//! The first rule that matches decides, and what none matches is dropped. Every app interface has a
//! chain for what it sends (`from-…`, where `return` lets pass, since the receiver has a say too)
//! and one for what it receives (`to-…`). Established connections pass without asking again, but
//! for limits, which count every packet: they stand in a chain of their own that is asked first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::{IpNet, Ipv4Net};
use model::desired::{self, Action, Direction, Match, PortName, Protocol};

use sha2::{Digest, Sha256};

use super::filter::{Chain, Names, Rule, Then, When};

/// An app's interface in a local network, as access rules see it.
#[derive(Debug)]
pub(super) struct Guarded<'a> {
    /// The last part of its chains' names.
    pub(super) name: String,
    /// The bridge it hangs on.
    pub(super) bridge: &'a str,
    /// Its address.
    pub(super) address: Ipv4Addr,
    /// Its rules.
    pub(super) rules: &'a [desired::Rule],
}

/// The kernel's interfaces by the names of ports.
pub(super) type Interfaces = BTreeMap<PortName, String>;

/// A set of addresses behind a name that rules use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameSet {
    /// The name, and all names under it.
    pub suffix: String,
    /// What the packet filter calls the set.
    pub set: String,
}

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    FromApp,
    ToApp,
}

impl Guarded<'_> {
    /// The chains of the interface, and the rules that lead to them: those to be asked before
    /// established connections pass, those for what the app sends, those for what it receives.
    pub(super) fn guard(&self, ports: &Interfaces, names: &[NameSet]) -> Guard {
        let address = Ipv4Net::from(self.address);
        let bridge = Names::from([self.bridge.to_owned()]);
        let enter = |way: Way, chain: &str| {
            let when = match way {
                Way::FromApp => [When::In(bridge.clone()), When::From(address)],
                Way::ToApp => [When::Out(bridge.clone()), When::To(address)],
            };
            Rule::new(when, Then::Jump(chain.to_owned()))
        };
        let mut guard = Guard::default();
        for way in [Way::FromApp, Way::ToApp] {
            let (name, pass) = match way {
                Way::FromApp => (format!("from-{}", self.name), Then::Return),
                Way::ToApp => (format!("to-{}", self.name), Then::Accept),
            };
            let limits = self.limits(way, ports, names);
            if !limits.is_empty() {
                let chain = format!("limit-{name}");
                guard.before.push(enter(way, &chain));
                guard.chains.push(Chain::new(chain, limits));
            }
            let jump = enter(way, &name);
            match way {
                Way::FromApp => guard.sends.push(jump),
                Way::ToApp => guard.receives.push(jump),
            }
            let mut rules: Vec<Rule> = Vec::new();
            for rule in self.rules {
                if let Some(when) = conditions(rule, way, ports, names) {
                    let then = if rule.action == Action::Drop { Then::Drop } else { pass.clone() };
                    rules.push(Rule::new(when, then));
                }
            }
            rules.push(Rule::new([], Then::Drop));
            guard.chains.push(Chain::new(name, rules));
        }
        guard
    }

    /// What exceeds a limit is dropped; what an earlier rule decides on is not counted.
    fn limits(&self, way: Way, ports: &Interfaces, names: &[NameSet]) -> Vec<Rule> {
        let is_limit = |rule: &desired::Rule| matches!(rule.action, Action::Limit { .. });
        let Some(last) = self.rules.iter().rposition(is_limit) else { return Vec::new() };
        let mut rules = Vec::new();
        for rule in &self.rules[..=last] {
            let Some(when) = conditions(rule, way, ports, names) else { continue };
            if let Action::Limit { rate, per, burst } = rule.action {
                let per = match per.as_secs() {
                    0..60 => "second",
                    60..3600 => "minute",
                    3600..86_400 => "hour",
                    _ => "day",
                };
                let mut over = when.clone();
                over.push(When::Over { rate, per, burst });
                rules.push(Rule::new(over, Then::Drop));
            }
            rules.push(Rule::new(when, Then::Return));
        }
        rules
    }

    /// Where port maps send what comes in by `outside`: edge port, and the rule.
    pub(super) fn port_maps(&self, outside: &Interfaces) -> Vec<PortMap> {
        self.rules.iter().filter_map(|rule| self.port_map(rule, outside)).collect()
    }

    fn port_map(&self, rule: &desired::Rule, outside: &Interfaces) -> Option<PortMap> {
        let Action::PortMap { app_port } = rule.action else { return None };
        let (mut protocol, mut edge) = (None, None);
        let mut interfaces: Names = outside.values().cloned().collect();
        let mut from = Vec::new();
        for condition in &rule.matches {
            match condition {
                Match::Protocol(p) => protocol = Some(*p),
                Match::LocalPort(port) => edge = Some(*port),
                Match::Adapter(port) => interfaces.retain(|i| outside.get(port) == Some(i)),
                Match::Ip(IpNet::V4(net)) => from.push(When::From(*net)),
                // A far end that is known by name or its port only is looked at when the packet
                // is let in.
                Match::Ip(IpNet::V6(_)) => return None,
                Match::Host(_) | Match::RemotePort(_) => {}
            }
        }
        let to = SocketAddrV4::new(self.address, app_port);
        Some(PortMap { protocol: protocol?, edge: edge?, interfaces, from, to })
    }
}

/// What [`Guarded::guard`] makes.
#[derive(Debug, Default)]
pub(super) struct Guard {
    pub(super) chains: Vec<Chain>,
    pub(super) before: Vec<Rule>,
    pub(super) sends: Vec<Rule>,
    pub(super) receives: Vec<Rule>,
}

/// A port of the node that leads to an app.
#[derive(Debug)]
pub(super) struct PortMap {
    pub(super) protocol: Protocol,
    pub(super) edge: u16,
    pub(super) interfaces: Names,
    from: Vec<When>,
    to: SocketAddrV4,
}

impl PortMap {
    pub(super) fn rule(&self) -> Rule {
        let mut when = vec![
            When::In(self.interfaces.clone()),
            When::ToNode,
            When::ToPort(self.protocol, self.edge),
        ];
        when.extend(self.from.iter().cloned());
        Rule::new(when, Then::MapTo(self.to))
    }
}

/// The conditions of a rule for packets that go one way. `None`: no such packet matches.
fn conditions(
    rule: &desired::Rule,
    way: Way,
    ports: &Interfaces,
    names: &[NameSet],
) -> Option<Vec<When>> {
    let looks = match rule.direction {
        Direction::Both => true,
        Direction::Ingress => way == Way::ToApp,
        Direction::Egress => way == Way::FromApp,
    };
    let protocol = rule.matches.iter().find_map(|m| match m {
        Match::Protocol(protocol) => Some(*protocol),
        _ => None,
    });
    let mapped = match rule.action {
        // Only what comes in is mapped; answers belong to a connection that was let in.
        Action::PortMap { .. } if way == Way::FromApp => return None,
        Action::PortMap { app_port } => Some(app_port),
        Action::Allow | Action::Drop | Action::Limit { .. } => None,
    };
    if !looks {
        return None;
    }
    let mut when = Vec::new();
    if let Some(app_port) = mapped {
        when.extend([When::Mapped(true), When::ToPort(protocol?, app_port)]);
    }
    let has_port =
        rule.matches.iter().any(|m| matches!(m, Match::LocalPort(_) | Match::RemotePort(_)));
    for condition in &rule.matches {
        when.push(match (condition, way) {
            // No local network has IPv6.
            (Match::Ip(IpNet::V6(_)), _) => return None,
            (Match::Ip(IpNet::V4(net)), Way::FromApp) => When::To(*net),
            (Match::Ip(IpNet::V4(net)), Way::ToApp) => When::From(*net),
            (Match::Host(name), way) => {
                let set = names.iter().find(|n| n.suffix == plain(name))?.set.clone();
                if way == Way::FromApp { When::ToSet(set) } else { When::FromSet(set) }
            }
            // Said by the port already.
            (Match::Protocol(_), _) if has_port => continue,
            (Match::Protocol(protocol), _) => When::Is(*protocol),
            // The port at the edge; the app sees its own.
            (Match::LocalPort(_), _) if mapped.is_some() => continue,
            (Match::LocalPort(port), Way::FromApp) => When::FromPort(protocol?, *port),
            (Match::LocalPort(port), Way::ToApp) => When::ToPort(protocol?, *port),
            (Match::RemotePort(port), Way::FromApp) => When::ToPort(protocol?, *port),
            (Match::RemotePort(port), Way::ToApp) => When::FromPort(protocol?, *port),
            (Match::Adapter(port), way) => {
                let interface = Names::from([ports.get(port)?.clone()]);
                if way == Way::FromApp { When::Out(interface) } else { When::In(interface) }
            }
        });
    }
    Some(when)
}

/// The sets that the rules need, in the order of names.
pub(super) fn name_sets<'a>(rules: impl Iterator<Item = &'a desired::Rule>) -> Vec<NameSet> {
    let hosts = rules.flat_map(|rule| &rule.matches).filter_map(|m| match m {
        Match::Host(name) => Some(plain(name)),
        _ => None,
    });
    let sorted: BTreeSet<String> = hosts.collect();
    // The same name has the same set for ever: what was learned for it stays true.
    let named = |suffix: String| {
        let hash = Sha256::digest(&suffix);
        let set = format!("host-{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3]);
        NameSet { suffix, set }
    };
    sorted.into_iter().map(named).collect()
}

fn plain(name: &str) -> String {
    name.trim_start_matches('.').trim_end_matches('.').to_ascii_lowercase()
}
