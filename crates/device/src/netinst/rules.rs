//! The packet filter of the whole node.
//!
//! | Chain | What passes |
//! |---|---|
//! | `input` | loopback, answers, ICMP, DHCP for us; from bridges DHCP and DNS; nothing else |
//! | `forward` | answers; what an app's rules allow, to other apps and out by its network's ports; what a port map brings in |
//! | `mapped` | (NAT) port maps |
//! | `leaving` | (NAT) local networks hide behind the port they leave by |
//! | `claims` | (bridge) nobody on a bridge may use the address of an app or of the gateway |

use std::collections::{BTreeMap, BTreeSet};

use model::desired::Protocol;
use model::{AppId, NetworkInstanceId, Problem};

use super::access::{Guarded, Interfaces, NameSet, PortMap, name_sets};
use super::filter::{
    Chain, Claim, ClaimField, Family, Hook, Names, Rule, Ruleset, Table, Then, When,
};
use super::{Inputs, Local, Seat, operator};

/// The rules, the names they know by address, and apps whose port maps others have already.
pub(super) fn rules(
    locals: &BTreeMap<NetworkInstanceId, Local<'_>>,
    seats: &[Seat<'_>],
    inputs: &Inputs<'_>,
) -> (Ruleset, Vec<NameSet>, Vec<(AppId, Problem)>) {
    let all_ports: Interfaces =
        inputs.ports.values().map(|p| (p.port.name.clone(), p.port.interface.clone())).collect();
    let desired = seats.iter().flat_map(|seat| &seat.interface.rules);
    let names = name_sets(desired);
    let bridges: Names = locals.values().map(|local| local.bridge.clone()).collect();

    let mut chains = Vec::new();
    let (mut before, mut sends, mut receives) = (Vec::new(), Vec::new(), Vec::new());
    let mut mapped = Vec::new();
    let mut taken = BTreeMap::new();
    let mut clashes = Vec::new();
    for seat in seats {
        let Some(local) = locals.get(&seat.network) else { continue };
        let guarded = Guarded {
            name: seat.link.host.clone(),
            bridge: &local.bridge,
            address: seat.link.address.addr(),
            rules: &seat.interface.rules,
        };
        let guard = guarded.guard(&all_ports, &names);
        chains.extend(guard.chains);
        before.extend(guard.before);
        sends.extend(guard.sends);
        receives.extend(guard.receives);
        for map in guarded.port_maps(&local.outside()) {
            match taken_by(&mut taken, &map, seat.app.id) {
                None if map.interfaces.is_empty() => {}
                None => mapped.push(map.rule()),
                Some(other) => clashes.push((seat.app.id, clash(&map, other, inputs))),
            }
        }
    }

    let mut forward = before;
    forward.push(Rule::new([When::Established], Then::Accept));
    if !bridges.is_empty() {
        let pairs: BTreeSet<_> =
            seats.iter().map(|s| (s.link.bridge.clone(), s.link.address.addr())).collect();
        let source = [When::In(bridges.clone()), When::SourceNot(pairs)];
        forward.push(Rule::new(source, Then::Drop));
        // From outside only what a port map brings.
        let foreign =
            [When::InNot(bridges.clone()), When::Out(bridges.clone()), When::Mapped(false)];
        forward.push(Rule::new(foreign, Then::Drop));
    }
    for local in locals.values() {
        // Networks do not see each other.
        let mut away = local.out_names();
        away.insert(local.bridge.clone());
        let inside = Names::from([local.bridge.clone()]);
        forward.push(Rule::new([When::In(inside), When::OutNot(away)], Then::Drop));
    }
    forward.extend(sends);
    forward.extend(receives);
    for local in locals.values().filter(|local| !local.ports.is_empty()) {
        let when = [
            When::In(Names::from([local.bridge.clone()])),
            When::From(local.local.subnet),
            When::Out(local.out_names()),
        ];
        forward.push(Rule::new(when, Then::Accept));
    }

    chains.push(base("input", "filter", "input", 0, false, input(&bridges)));
    chains.push(base("forward", "filter", "forward", 0, false, forward));
    chains.push(base("mapped", "nat", "prerouting", -100, true, mapped));
    chains.push(base("leaving", "nat", "postrouting", 100, true, leaving(locals)));
    let sets = names.iter().map(|name| name.set.clone()).collect();
    let tables = vec![
        Table { family: Family::Inet, sets, chains },
        Table {
            family: Family::Bridge,
            sets: Vec::new(),
            chains: vec![base("claims", "filter", "prerouting", -300, true, claims(locals, seats))],
        },
    ];
    (Ruleset { tables }, names, clashes)
}

fn base(
    name: &str,
    kind: &'static str,
    hook: &'static str,
    priority: i32,
    accept: bool,
    rules: Vec<Rule>,
) -> Chain {
    Chain { name: name.to_owned(), hook: Some(Hook { kind, hook, priority, accept }), rules }
}

fn input(bridges: &Names) -> Vec<Rule> {
    use Protocol::{Tcp, Udp};
    let mut rules = vec![
        Rule::new([When::In(Names::from(["lo".to_owned()]))], Then::Accept),
        Rule::new([When::Established], Then::Accept),
        Rule::new([When::AnyIcmp], Then::Accept),
        Rule::new([When::FromPort(Udp, 67), When::ToPort(Udp, 68)], Then::Accept),
    ];
    if !bridges.is_empty() {
        for port in [When::ToPort(Udp, 67), When::ToPort(Udp, 53), When::ToPort(Tcp, 53)] {
            rules.push(Rule::new([When::In(bridges.clone()), port], Then::Accept));
        }
    }
    rules
}

fn leaving(locals: &BTreeMap<NetworkInstanceId, Local<'_>>) -> Vec<Rule> {
    let with_ports = locals.values().filter(|local| !local.ports.is_empty());
    let rule = |local: &Local<'_>| {
        let when = [When::From(local.local.subnet), When::Out(local.out_names())];
        Rule::new(when, Then::Masquerade)
    };
    with_ports.map(rule).collect()
}

fn claims(locals: &BTreeMap<NetworkInstanceId, Local<'_>>, seats: &[Seat<'_>]) -> Vec<Rule> {
    let ip = |seat: &Seat<'_>| (seat.link.host.clone(), seat.link.address.addr().to_string());
    let mac = |seat: &Seat<'_>| (seat.link.host.clone(), mac_text(seat.link.mac));
    let known = |owners: &BTreeSet<(String, String)>, gateways: Vec<String>| {
        let names = owners.iter().map(|(_, name)| name.clone());
        names.chain(gateways).collect::<BTreeSet<String>>()
    };
    let ips: BTreeSet<(String, String)> = seats.iter().map(ip).collect();
    let macs: BTreeSet<(String, String)> = seats.iter().map(mac).collect();
    if ips.is_empty() {
        return Vec::new();
    }
    let gateways = locals.values().map(|local| local.local.gateway.to_string()).collect();
    let gateway_macs = locals.values().map(|local| mac_text(local.bridge().mac)).collect();
    let known_ips = known(&ips, gateways);
    let rule = |field, known, owners| {
        Rule::new([When::Claims(Claim { field, known, owners })], Then::Drop)
    };
    vec![
        rule(ClaimField::Ether, known(&macs, gateway_macs), macs),
        rule(ClaimField::Arp, known_ips.clone(), ips.clone()),
        rule(ClaimField::Ip, known_ips, ips),
    ]
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Who has the port already, on any of the interfaces. The first app, by id, gets it.
fn taken_by(
    taken: &mut BTreeMap<(&'static str, u16, String), AppId>,
    map: &PortMap,
    app: AppId,
) -> Option<AppId> {
    let protocol = match map.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Icmp => "ICMP",
    };
    let keys = || map.interfaces.iter().map(|name| (protocol, map.edge, name.clone()));
    let other = keys().find_map(|key| taken.get(&key).copied()).filter(|other| *other != app);
    if other.is_none() {
        taken.extend(keys().map(|key| (key, app)));
    }
    other
}

fn clash(map: &PortMap, other: AppId, inputs: &Inputs<'_>) -> Problem {
    let name = inputs.apps.get(&other).map_or_else(|| other.to_string(), |app| app.name.clone());
    let text = format!("port {} of the node already leads to app {name}", map.edge);
    operator(text, "map another port", inputs.now)
}

impl Local<'_> {
    /// The interfaces it may go out by.
    fn out_names(&self) -> Names {
        self.ports.iter().map(|p| p.port.interface.clone()).collect()
    }

    fn outside(&self) -> Interfaces {
        self.ports.iter().map(|p| (p.port.name.clone(), p.port.interface.clone())).collect()
    }
}
