use std::fmt::Write as _;
use std::time::Duration;

use expect_test::{Expect, expect};
use model::Bytes;
use model::desired::{
    Action, Addressing, DhcpRange, Direction, DnsEntry, Match, Port, Protocol, Rule, Virtualization,
};

use super::leases::{Answer, Held, LEASE, Request, RequestKind, answer};
use super::names::{Kind, Reply};
use super::ops::{Inside, Kernel, Link, Op, ops};
use super::*;

const NOW: UnixMillis = UnixMillis(1_000_000);

fn network_id(n: u32) -> NetworkInstanceId {
    format!("00000000-0000-4000-8000-0000000001{n:02}").parse().unwrap()
}

fn app_id(n: u32) -> AppId {
    format!("00000000-0000-4000-8000-0000000002{n:02}").parse().unwrap()
}

fn local(n: u32) -> NetworkInstance {
    let net = |last: u32| format!("10.{n}.0.{last}").parse().unwrap();
    NetworkInstance {
        id: network_id(n),
        name: format!("net-{n}"),
        activate: true,
        kind: NetworkKind::Local(LocalNetwork {
            subnet: format!("10.{n}.0.0/24").parse().unwrap(),
            gateway: net(1),
            range: DhcpRange { start: net(2), end: net(4) },
            dns: Vec::new(),
            hosts: vec![DnsEntry { name: "DB.local".into(), addresses: vec![net(9).into()] }],
        }),
        port: Some(PortSelector::Uplink),
        mtu: None,
        options: Default::default(),
    }
}

fn port(name: &str, management: bool, address: &str) -> PortStatus {
    PortStatus {
        port: Port {
            name: PortName::new(name).unwrap(),
            interface: name.to_owned(),
            management,
            cost: 0,
            addressing: Addressing::Dhcp,
            mtu: None,
            below: String::new(),
            link: Default::default(),
            options: Default::default(),
        },
        link: true,
        mac: None,
        addresses: vec![address.parse().unwrap()],
        gateway: None,
        dns: vec!["10.0.2.3".parse().unwrap()],
        ntp: Vec::new(),
        domain: None,
        lease: None,
        test: None,
        problem: None,
    }
}

fn rule(matches: &[Match], action: Action) -> Rule {
    Rule { id: 1, matches: matches.to_vec(), action, direction: Direction::Both }
}

fn allow(net: &str) -> Rule {
    rule(&[Match::Ip(net.parse().unwrap())], Action::Allow)
}

fn map(edge: u16, app_port: u16) -> Rule {
    let matches = [Match::Protocol(Protocol::Tcp), Match::LocalPort(edge)];
    rule(&matches, Action::PortMap { app_port })
}

fn app(n: u32, network: u32, rules: &[Rule]) -> App {
    App {
        id: app_id(n),
        version: "1".into(),
        name: format!("App {n}"),
        activate: true,
        vcpus: 1,
        memory: Bytes::mib(64),
        virtualization: Virtualization::Container,
        volumes: Vec::new(),
        interfaces: vec![AppInterface {
            name: "eth".into(),
            network: network_id(network),
            mac: None,
            address: None,
            rules: rules.to_vec(),
            access_vlan: None,
            discover: false,
            order: 0,
        }],
        restart: 0,
        purge: 0,
        environment: Vec::new(),
        start_delay: Duration::ZERO,
        disable_logs: false,
        user_data: None,
        machine: Default::default(),
        hardware: Vec::new(),
        options: Default::default(),
    }
}

/// A config and what surrounds it.
#[derive(Clone, Default)]
struct World {
    networks: BTreeMap<NetworkInstanceId, NetworkInstance>,
    apps: BTreeMap<AppId, App>,
    ports: BTreeMap<PortName, PortStatus>,
    numbers: Numbers,
}

impl World {
    fn of(networks: &[NetworkInstance], apps: &[App]) -> World {
        let eth0 = port("eth0", true, "10.0.2.15/24");
        World {
            networks: networks.iter().map(|n| (n.id, n.clone())).collect(),
            apps: apps.iter().map(|a| (a.id, a.clone())).collect(),
            ports: BTreeMap::from([(eth0.port.name.clone(), eth0)]),
            numbers: Numbers::default(),
        }
    }

    fn plan(&mut self) -> Plan {
        self.numbers = self.numbers.renewed(&self.networks, &self.apps);
        plan(&Inputs {
            networks: &self.networks,
            apps: &self.apps,
            ports: &self.ports,
            numbers: &self.numbers,
            guests: &BTreeMap::new(),
            namespaces: "/run/netns",
            now: NOW,
        })
    }
}

/// The filter, a line a rule, in words near to those of nft.
fn show(ruleset: &Ruleset) -> String {
    let mut out = String::new();
    for chain in ruleset.tables.iter().flat_map(|t| &t.chains) {
        let policy = chain.hook.map(|h| if h.accept { " (accept)" } else { " (drop)" });
        let _ = writeln!(out, "{}{}", chain.name, policy.unwrap_or_default());
        for rule in &chain.rules {
            let _ = writeln!(out, "  {:?} -> {:?}", rule.when, rule.then);
        }
    }
    out
}

/// The rules of the chains whose names hold `part`.
fn chains(ruleset: &Ruleset, part: &str) -> String {
    let mut only = ruleset.clone();
    only.tables.iter_mut().for_each(|t| t.chains.retain(|c| c.name.contains(part)));
    show(&only)
}

/// Does to the value what the driver does to the kernel.
fn carry_out(have: &mut Kernel, op: Op) {
    fn link<'a>(have: &'a mut Kernel, app: Option<AppId>, name: &str) -> &'a mut Link {
        let links = match app {
            Some(app) => &mut have.apps.get_mut(&app).expect("the namespace is there").links,
            None => &mut have.links,
        };
        links.get_mut(name).unwrap_or_else(|| panic!("{name} is there"))
    }
    match op {
        Op::DelNamespace(app) => drop(have.apps.remove(&app)),
        Op::DelLink(name) => {
            have.links.remove(&name);
            for link in have.links.values_mut().filter(|l| l.bridge.as_ref() == Some(&name)) {
                link.bridge = None;
            }
        }
        Op::AddBridge(b) => {
            let link = Link { mac: Some(b.mac), up: true, mtu: b.mtu.into(), ..Link::default() };
            assert!(have.links.insert(b.name, link).is_none());
        }
        Op::AddNamespace(app) => {
            let links = BTreeMap::from([("lo".to_owned(), Link::default())]);
            have.apps.insert(app, Inside { links, defaults: BTreeSet::new() });
        }
        Op::AddPair(app, pair) => {
            let mtu = pair.mtu.into();
            let inside = have.apps.get_mut(&app).unwrap();
            let end = Link { mac: Some(pair.mac), mtu, ..Link::default() };
            inside.links.insert(pair.inside.clone(), end);
            inside.defaults.retain(|(name, ..)| *name != pair.inside);
            have.links.insert(pair.host, Link { up: true, mtu, ..Link::default() });
        }
        Op::Join(name, bridge) => {
            assert!(have.links.contains_key(&bridge));
            link(have, None, &name).bridge = Some(bridge);
        }
        Op::Isolate(name) => {
            let link = link(have, None, &name);
            assert!(link.bridge.is_some());
            link.isolated = true;
        }
        Op::Up(app, name) => link(have, app, &name).up = true,
        Op::DelAddress(app, name, ip) => {
            link(have, app, &name).addresses.remove(&ip);
        }
        Op::AddAddress(app, name, ip) => {
            link(have, app, &name).addresses.insert(ip);
        }
        Op::DelDefault(app, name, ip, metric) => {
            have.apps.get_mut(&app).unwrap().defaults.remove(&(name, ip, metric));
        }
        Op::AddDefault(app, name, ip, metric) => {
            assert!(link(have, Some(app), &name).up, "the kernel refuses routes by what is off");
            have.apps.get_mut(&app).unwrap().defaults.insert((name, ip, metric));
        }
    }
}

/// Plans, does it, and plans again: the second plan must be empty.
#[track_caller]
fn check_ops(have: &mut Kernel, plan: &Plan, want: Expect) {
    let mut out = String::new();
    for (_, op) in ops(have, plan) {
        let _ = writeln!(out, "{op:?}");
        carry_out(have, op);
    }
    want.assert_eq(&out);
    assert_eq!(ops(have, plan), [], "the plan leads to what is wanted");
}

#[test]
fn a_network_with_an_app_is_built_kept_and_taken_down() {
    let mut world = World::of(&[local(1)], &[app(1, 1, &[])]);
    let mut kernel = Kernel::default();
    let plan = world.plan();
    check_ops(
        &mut kernel,
        &plan,
        expect![[r#"
        AddBridge(Bridge { name: "bn1", mac: [0, 22, 62, 76, 176, 1], mtu: 1500, address: 10.1.0.1/24 })
        AddAddress(None, "bn1", 10.1.0.1/24)
        AddNamespace(00000000-0000-4000-8000-000000000201)
        Up(Some(00000000-0000-4000-8000-000000000201), "lo")
        AddPair(00000000-0000-4000-8000-000000000201, AppLink { host: "nbu1x1", inside: "eth0", bridge: "bn1", mac: [62, 119, 191, 32, 157, 65], mtu: 1500, address: 10.1.0.2/24, gateway: Some((10.1.0.1, 100)) })
        Join("nbu1x1", "bn1")
        Isolate("nbu1x1")
        Up(None, "nbu1x1")
        AddAddress(Some(00000000-0000-4000-8000-000000000201), "eth0", 10.1.0.2/24)
        Up(Some(00000000-0000-4000-8000-000000000201), "eth0")
        AddDefault(00000000-0000-4000-8000-000000000201, "eth0", 10.1.0.1, 100)
    "#]],
    );

    // A reboot of the container's namespace, as it were: everything inside is made again.
    kernel.apps.clear();
    kernel.links.remove("nbu1x1");
    check_ops(
        &mut kernel,
        &plan,
        expect![[r#"
        AddNamespace(00000000-0000-4000-8000-000000000201)
        Up(Some(00000000-0000-4000-8000-000000000201), "lo")
        AddPair(00000000-0000-4000-8000-000000000201, AppLink { host: "nbu1x1", inside: "eth0", bridge: "bn1", mac: [62, 119, 191, 32, 157, 65], mtu: 1500, address: 10.1.0.2/24, gateway: Some((10.1.0.1, 100)) })
        Join("nbu1x1", "bn1")
        Isolate("nbu1x1")
        Up(None, "nbu1x1")
        AddAddress(Some(00000000-0000-4000-8000-000000000201), "eth0", 10.1.0.2/24)
        Up(Some(00000000-0000-4000-8000-000000000201), "eth0")
        AddDefault(00000000-0000-4000-8000-000000000201, "eth0", 10.1.0.1, 100)
    "#]],
    );

    world.apps.clear();
    let plan = world.plan();
    check_ops(
        &mut kernel,
        &plan,
        expect![[r#"
        DelNamespace(00000000-0000-4000-8000-000000000201)
        DelLink("nbu1x1")
    "#]],
    );
}

#[test]
fn a_changed_bridge_and_a_stolen_address_are_put_right() {
    let mut world = World::of(&[local(1)], &[app(1, 1, &[])]);
    let mut kernel = Kernel::default();
    let plan = world.plan();
    ops(&kernel, &plan).into_iter().for_each(|(_, op)| carry_out(&mut kernel, op));
    let bridge = kernel.links.get_mut("bn1").unwrap();
    bridge.addresses.insert("192.0.2.1/24".parse().unwrap());
    kernel.links.get_mut("nbu1x1").unwrap().isolated = false;
    kernel.links.insert("nbu7x1".into(), Link::default());
    kernel.links.insert("eth0".into(), Link::default());
    check_ops(
        &mut kernel,
        &plan,
        expect![[r#"
        DelLink("nbu7x1")
        DelAddress(None, "bn1", 192.0.2.1/24)
        Isolate("nbu1x1")
    "#]],
    );

    world.networks.get_mut(&network_id(1)).unwrap().mtu = Some(1400);
    let plan = world.plan();
    check_ops(
        &mut kernel,
        &plan,
        expect![[r#"
        DelLink("bn1")
        DelLink("nbu1x1")
        AddBridge(Bridge { name: "bn1", mac: [0, 22, 62, 76, 176, 1], mtu: 1400, address: 10.1.0.1/24 })
        AddAddress(None, "bn1", 10.1.0.1/24)
        AddPair(00000000-0000-4000-8000-000000000201, AppLink { host: "nbu1x1", inside: "eth0", bridge: "bn1", mac: [62, 119, 191, 32, 157, 65], mtu: 1400, address: 10.1.0.2/24, gateway: Some((10.1.0.1, 100)) })
        Join("nbu1x1", "bn1")
        Isolate("nbu1x1")
        Up(None, "nbu1x1")
        AddAddress(Some(00000000-0000-4000-8000-000000000201), "eth0", 10.1.0.2/24)
        Up(Some(00000000-0000-4000-8000-000000000201), "eth0")
        AddDefault(00000000-0000-4000-8000-000000000201, "eth0", 10.1.0.1, 100)
    "#]],
    );
}

#[test]
fn an_app_may_go_out_and_be_reached_by_its_port_map() {
    let rules = [map(8080, 80), allow("0.0.0.0/0")];
    let mut world = World::of(&[local(1)], &[app(1, 1, &rules)]);
    expect![[r#"
        from-nbu1x1
          [To(0.0.0.0/0)] -> Return
          [] -> Drop
        to-nbu1x1
          [Mapped(true), ToPort(Tcp, 80)] -> Accept
          [From(0.0.0.0/0)] -> Accept
          [] -> Drop
        input (drop)
          [In({"lo"})] -> Accept
          [Established] -> Accept
          [AnyIcmp] -> Accept
          [FromPort(Udp, 67), ToPort(Udp, 68)] -> Accept
          [In({"bn1"}), ToPort(Udp, 67)] -> Accept
          [In({"bn1"}), ToPort(Udp, 53)] -> Accept
          [In({"bn1"}), ToPort(Tcp, 53)] -> Accept
        forward (drop)
          [Established] -> Accept
          [In({"bn1"}), SourceNot({("bn1", 10.1.0.2)})] -> Drop
          [InNot({"bn1"}), Out({"bn1"}), Mapped(false)] -> Drop
          [In({"bn1"}), OutNot({"bn1", "eth0"})] -> Drop
          [In({"bn1"}), From(10.1.0.2/32)] -> Jump("from-nbu1x1")
          [Out({"bn1"}), To(10.1.0.2/32)] -> Jump("to-nbu1x1")
          [In({"bn1"}), From(10.1.0.0/24), Out({"eth0"})] -> Accept
        mapped (accept)
          [In({"eth0"}), ToNode, ToPort(Tcp, 8080)] -> MapTo(10.1.0.2:80)
        leaving (accept)
          [From(10.1.0.0/24), Out({"eth0"})] -> Masquerade
        claims (accept)
          [Claims(Claim { field: Ether, known: {"00:16:3e:4c:b0:01", "3e:77:bf:20:9d:41"}, owners: {("nbu1x1", "3e:77:bf:20:9d:41")} })] -> Drop
          [Claims(Claim { field: Arp, known: {"10.1.0.1", "10.1.0.2"}, owners: {("nbu1x1", "10.1.0.2")} })] -> Drop
          [Claims(Claim { field: Ip, known: {"10.1.0.1", "10.1.0.2"}, owners: {("nbu1x1", "10.1.0.2")} })] -> Drop
    "#]]
    .assert_eq(&show(&world.plan().filter));
}

#[test]
fn without_rules_nothing_passes() {
    let mut world = World::of(&[local(1)], &[app(1, 1, &[])]);
    expect![[r#"
        from-nbu1x1
          [] -> Drop
        to-nbu1x1
          [] -> Drop
    "#]]
    .assert_eq(&chains(&world.plan().filter, "nbu"));
}

#[test]
fn rules_decide_in_their_order_and_look_the_right_way() {
    let mut one_way = allow("198.51.100.0/24");
    one_way.direction = Direction::Egress;
    let web =
        [Match::Host("Example.org".into()), Match::Protocol(Protocol::Tcp), Match::RemotePort(443)];
    let adapter = [Match::Adapter(PortName::new("eth0").unwrap())];
    let rules = [
        rule(&[Match::Ip("10.0.0.0/8".parse().unwrap())], Action::Drop),
        rule(&web, Action::Allow),
        one_way,
        rule(
            &[Match::Protocol(Protocol::Icmp)],
            Action::Limit { rate: 5, per: Duration::from_secs(60), burst: 2 },
        ),
        rule(&[Match::Ip("2001:db8::/32".parse().unwrap())], Action::Allow),
        rule(&adapter, Action::Allow),
        rule(&[Match::Adapter(PortName::new("eth7").unwrap())], Action::Allow),
    ];
    let mut world = World::of(&[local(1)], &[app(1, 1, &rules)]);
    let plan = world.plan();
    expect![[r#"
        limit-from-nbu1x1
          [To(10.0.0.0/8)] -> Return
          [ToSet("host-bfabc374"), ToPort(Tcp, 443)] -> Return
          [To(198.51.100.0/24)] -> Return
          [Is(Icmp), Over { rate: 5, per: "minute", burst: 2 }] -> Drop
          [Is(Icmp)] -> Return
        from-nbu1x1
          [To(10.0.0.0/8)] -> Drop
          [ToSet("host-bfabc374"), ToPort(Tcp, 443)] -> Return
          [To(198.51.100.0/24)] -> Return
          [Is(Icmp)] -> Return
          [Out({"eth0"})] -> Return
          [] -> Drop
        limit-to-nbu1x1
          [From(10.0.0.0/8)] -> Return
          [FromSet("host-bfabc374"), FromPort(Tcp, 443)] -> Return
          [Is(Icmp), Over { rate: 5, per: "minute", burst: 2 }] -> Drop
          [Is(Icmp)] -> Return
        to-nbu1x1
          [From(10.0.0.0/8)] -> Drop
          [FromSet("host-bfabc374"), FromPort(Tcp, 443)] -> Accept
          [Is(Icmp)] -> Accept
          [In({"eth0"})] -> Accept
          [] -> Drop
    "#]]
    .assert_eq(&chains(&plan.filter, "nbu"));
    let names = &plan.services[&network_id(1)].names;
    assert_eq!(
        names.look_up("www.example.org.", Kind::A),
        Reply::Ask(vec![names.watched[0].set.clone()])
    );
    assert_eq!(names.look_up("notexample.org", Kind::A), Reply::Ask(vec![]));
}

#[test]
fn the_batch_is_what_nft_reads() {
    let mut world = World::of(&[local(1)], &[app(1, 1, &[map(8080, 80)])]);
    let mut filter = world.plan().filter;
    filter.tables.truncate(1);
    filter.tables[0].chains.retain(|c| ["mapped", "leaving"].contains(&c.name.as_str()));
    let value: serde_json::Value = serde_json::from_str(&filter.batch()).unwrap();
    let lines = value["nftables"].as_array().unwrap().iter().map(|c| format!("{c}\n"));
    expect![[r#"
        {"add":{"table":{"family":"inet","name":"eve"}}}
        {"delete":{"table":{"family":"inet","name":"eve"}}}
        {"add":{"table":{"family":"inet","name":"eve"}}}
        {"add":{"chain":{"family":"inet","hook":"prerouting","name":"mapped","policy":"accept","prio":-100,"table":"eve","type":"nat"}}}
        {"add":{"chain":{"family":"inet","hook":"postrouting","name":"leaving","policy":"accept","prio":100,"table":"eve","type":"nat"}}}
        {"add":{"rule":{"chain":"mapped","expr":[{"match":{"left":{"meta":{"key":"iifname"}},"op":"==","right":"eth0"}},{"match":{"left":{"fib":{"flags":["daddr"],"result":"type"}},"op":"==","right":"local"}},{"match":{"left":{"payload":{"field":"dport","protocol":"tcp"}},"op":"==","right":8080}},{"dnat":{"addr":"10.1.0.2","family":"ip","port":80}}],"family":"inet","table":"eve"}}}
        {"add":{"rule":{"chain":"leaving","expr":[{"match":{"left":{"payload":{"field":"saddr","protocol":"ip"}},"op":"==","right":{"prefix":{"addr":"10.1.0.0","len":24}}}},{"match":{"left":{"meta":{"key":"oifname"}},"op":"==","right":"eth0"}},{"masquerade":null}],"family":"inet","table":"eve"}}}
    "#]]
    .assert_eq(&lines.collect::<String>());
}

#[test]
fn a_port_of_the_node_leads_to_one_app_only() {
    let apps = [app(1, 1, &[map(8080, 80)]), app(2, 1, &[map(8080, 81)])];
    let mut world = World::of(&[local(1)], &apps);
    let plan = world.plan();
    assert_eq!(chains(&plan.filter, "mapped").matches("MapTo").count(), 1);
    assert_eq!(plan.app_networks[&app_id(1)].problem, None);
    let problem = plan.app_networks[&app_id(2)].problem.clone().unwrap();
    assert_eq!(problem.text, "port 8080 of the node already leads to app App 1");
}

#[test]
fn what_is_missing_is_said_and_heals() {
    let mut world = World::of(&[], &[app(1, 1, &[])]);
    world.ports.clear();
    let status = world.plan().app_networks[&app_id(1)].clone();
    assert!(!status.ready);
    assert!(status.problem.unwrap().text.ends_with("is not in the config"));

    world.networks.insert(network_id(1), local(1));
    let plan = world.plan();
    let network = &plan.networks[&network_id(1)];
    assert!(network.active);
    assert_eq!(network.problem.as_ref().unwrap().text, "no port leads out");
    assert!(plan.app_networks[&app_id(1)].ready);

    world.ports = World::of(&[], &[]).ports;
    let plan = world.plan();
    assert_eq!(plan.networks[&network_id(1)].problem, None);
    assert_eq!(plan.app_networks[&app_id(1)].problem, None);
    assert_eq!(plan.networks[&network_id(1)].port, PortName::new("eth0"));
}

#[test]
fn a_network_whose_port_is_not_the_way_out_says_so() {
    let only = PortSelector::Port(PortName::new("eth1").unwrap());
    let mut world = World::of(&[NetworkInstance { port: Some(only), ..local(1) }], &[]);
    for (name, address) in [("eth0", "10.0.2.15/24"), ("eth1", "10.0.3.15/24")] {
        let gateway = Some(Ipv4Addr::new(10, 0, 2, 2));
        let port = PortStatus { gateway, ..port(name, true, address) };
        world.ports.insert(port.port.name.clone(), port);
    }
    let problem = world.plan().networks[&network_id(1)].problem.clone().unwrap();
    assert_eq!(problem.text, "what leaves this node leaves by port eth0");
    world.ports.remove(&PortName::new("eth0").unwrap());
    assert_eq!(world.plan().networks[&network_id(1)].problem, None);
}

#[test]
fn an_app_that_should_not_run_has_no_network() {
    let mut world = World::of(&[local(1)], &[App { activate: false, ..app(1, 1, &[]) }]);
    let plan = world.plan();
    assert_eq!((plan.apps.len(), plan.app_networks.len()), (0, 0));
    assert_eq!(plan.bridges.len(), 1);
}

#[test]
fn an_air_gapped_network_has_no_way_out() {
    let mut world = World::of(&[NetworkInstance { port: None, ..local(1) }], &[app(1, 1, &[])]);
    let plan = world.plan();
    assert!(!chains(&plan.filter, "leaving").contains("Masquerade"));
    assert_eq!(plan.apps[&app_id(1)][0].gateway, None);
    let services = &plan.services[&network_id(1)];
    assert_eq!((services.dhcp.routed, services.names.upstream.len()), (false, 0));
    assert_eq!(plan.networks[&network_id(1)].problem, None);
}

#[test]
fn numbers_and_addresses_outlive_what_comes_and_goes() {
    let mut world =
        World::of(&[local(1), local(2)], &[app(1, 1, &[]), app(2, 1, &[]), app(3, 2, &[])]);
    world.plan();
    let before = world.numbers.clone();
    world.apps.remove(&app_id(1));
    world.networks.remove(&network_id(1));
    world.apps.get_mut(&app_id(2)).unwrap().interfaces[0].network = network_id(2);
    world.plan();
    assert_eq!(world.numbers.networks[&network_id(2)], before.networks[&network_id(2)]);
    assert_eq!(world.numbers.apps[&app_id(2)], before.apps[&app_id(2)]);
    assert_eq!(
        world.numbers.address(network_id(2), app_id(3), 0),
        before.address(network_id(2), app_id(3), 0)
    );
    assert_eq!(Numbers::from_bytes(&before.to_bytes()).unwrap(), before);
}

#[test]
fn what_the_first_version_wrote_loads() {
    let network = network_id(1);
    let app = app_id(1);
    let text = format!(
        r#"{{"version":"1","networks":{{"{network}":3}},"apps":{{"{app}":4}},"addresses":[
            {{"network":"{network}","app":"{app}","place":0,"address":"10.1.0.2"}}]}}"#
    );
    let numbers = Numbers::from_bytes(text.as_bytes()).unwrap();
    let guests = format!(
        r#"{{"version":"1","networks":{{"{network}":{{"held":[
            {{"mac":[2,0,0,0,0,9],"address":"10.1.0.3","until":5}}]}}}}}}"#
    );
    let guests = leases::guests_from_bytes(guests.as_bytes()).unwrap();
    assert_eq!(guests[&network].held[0].mac, GUEST);
    assert_eq!(leases::guests_from_bytes(&leases::guests_to_bytes(&guests)).unwrap(), guests);
    assert_eq!((numbers.networks[&network], numbers.apps[&app]), (3, 4));
    assert_eq!(numbers.address(network, app, 0), Some(Ipv4Addr::new(10, 1, 0, 2)));
}

#[test]
fn a_chosen_address_wins_and_a_full_range_is_said() {
    let mut apps: Vec<App> = (1..=5).map(|n| app(n, 1, &[])).collect();
    apps[3].interfaces[0].address = Some(Ipv4Addr::new(10, 1, 0, 2));
    let mut world = World::of(&[local(1)], &apps);
    let plan = world.plan();
    let of = |n| plan.app_networks[&app_id(n)].vifs.first().and_then(|v| v.address);
    assert_eq!(of(4), Some(Ipv4Addr::new(10, 1, 0, 2)));
    assert_eq!(of(1), Some(Ipv4Addr::new(10, 1, 0, 3)));
    assert_eq!(of(2), Some(Ipv4Addr::new(10, 1, 0, 4)));
    assert_eq!(of(3), None);
    let said = plan.app_networks[&app_id(3)].problem.clone().unwrap().text;
    assert_eq!(said, "the range of network net-1 is used up");
}

#[test]
fn the_gateway_is_no_address_for_an_app() {
    let mut bad = app(1, 1, &[]);
    bad.interfaces[0].address = Some(Ipv4Addr::new(10, 1, 0, 1));
    let plan = World::of(&[local(1)], &[bad]).plan();
    assert!(!plan.app_networks[&app_id(1)].ready);
}

#[test]
fn names_are_answered_here_or_elsewhere_but_single_words_stay_inside() {
    let mut world = World::of(&[local(1)], &[app(1, 1, &[])]);
    let names = world.plan().services[&network_id(1)].names.clone();
    let ip = |last| IpAddr::V4(Ipv4Addr::new(10, 1, 0, last));
    assert_eq!(names.look_up("app-1.", Kind::A), Reply::Known(vec![ip(2)]));
    assert_eq!(names.look_up("APP-1", Kind::Aaaa), Reply::Known(vec![]));
    assert_eq!(names.look_up("db.LOCAL.", Kind::A), Reply::Known(vec![ip(9)]));
    assert_eq!(names.look_up("wpad", Kind::A), Reply::Unknown);
    assert_eq!(names.look_up("example.org", Kind::Other), Reply::Ask(vec![]));
    assert_eq!(names.upstream, ["10.0.2.3".parse::<IpAddr>().unwrap()]);
}

const GUEST: Mac = [2, 0, 0, 0, 0, 9];

fn asks(kind: RequestKind, mac: Mac, address: Option<&str>) -> Request {
    Request { kind, mac, address: address.map(|a| a.parse().unwrap()), server: None }
}

#[test]
fn an_app_gets_its_address_and_a_guest_what_is_left() {
    let plan = World::of(&[local(1)], &[app(1, 1, &[])]).plan();
    let dhcp = &plan.services[&network_id(1)].dhcp;
    let mac = plan.apps[&app_id(1)][0].mac;
    let ip = |last| Ipv4Addr::new(10, 1, 0, last);
    let say = |guests: &Guests, request: &Request, now| answer(dhcp, guests.clone(), request, now);
    let (none, offer) = say(&Guests::default(), &asks(RequestKind::Discover, mac, None), NOW);
    assert_eq!((offer, none.held.len()), (Some(Answer::Offer(ip(2))), 0));
    let wrong = asks(RequestKind::Request, mac, Some("10.1.0.3"));
    assert_eq!(say(&none, &wrong, NOW).1, Some(Answer::Nak));

    let (guests, offer) = say(&none, &asks(RequestKind::Discover, GUEST, None), NOW);
    assert_eq!(offer, Some(Answer::Offer(ip(3))));
    let (guests, ack) = say(&guests, &asks(RequestKind::Request, GUEST, Some("10.1.0.3")), NOW);
    assert_eq!(ack, Some(Answer::Ack(ip(3))));
    let until = NOW.after(LEASE);
    assert_eq!(guests.held, [Held { mac: GUEST, address: ip(3), until }]);

    // A second guest has the last address, a third none, until the first one's time is up.
    let second = asks(RequestKind::Request, [2, 0, 0, 0, 0, 8], None);
    let (guests, ack) = say(&guests, &second, NOW);
    assert_eq!(ack, Some(Answer::Ack(ip(4))));
    let third = asks(RequestKind::Discover, [2, 0, 0, 0, 0, 7], None);
    assert_eq!(say(&guests, &third, NOW).1, None);
    assert_eq!(say(&guests, &third, until).1, Some(Answer::Offer(ip(3))));
}

#[test]
fn a_guest_keeps_its_address_over_a_restart_of_the_server() {
    let plan = World::of(&[local(1)], &[]).plan();
    let dhcp = &plan.services[&network_id(1)].dhcp;
    let renew = asks(RequestKind::Request, GUEST, Some("10.1.0.4"));
    let (guests, ack) = answer(dhcp, Guests::default(), &renew, NOW);
    assert_eq!(ack, Some(Answer::Ack(Ipv4Addr::new(10, 1, 0, 4))));
    let elsewhere = Request { server: Some(Ipv4Addr::new(10, 1, 0, 250)), ..renew };
    assert_eq!(answer(dhcp, guests.clone(), &elsewhere, NOW), (guests.clone(), None));
}
