use expect_test::{Expect, expect};
use model::desired::StaticAddress;

use super::*;

fn link(addresses: &[&str]) -> Link {
    Link {
        mac: Some([2, 0, 0, 0, 0, 1]),
        up: true,
        carrier: true,
        ethernet: true,
        mtu: 1500,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
    }
}

fn port(name: &str, cost: u8, addressing: Addressing) -> Port {
    let interface = name.to_owned();
    let name = PortName::new(name).unwrap();
    Port {
        name,
        interface,
        management: true,
        cost,
        addressing,
        mtu: None,
        below: String::new(),
        link: Default::default(),
        options: Default::default(),
    }
}

fn fixed(address: &str, gateway: &str) -> Addressing {
    Addressing::Static(StaticAddress {
        address: address.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
        dns: vec!["9.9.9.9".parse().unwrap()],
        ntp: Vec::new(),
    })
}

fn lease(address: &str) -> Lease {
    Lease {
        address: address.parse().unwrap(),
        server: Ipv4Addr::new(10, 0, 2, 2),
        gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
        routes: Vec::new(),
        dns: vec!["10.0.2.3".parse().unwrap()],
        ntp: Vec::new(),
        domain: Some("example.net".to_owned()),
        mtu: None,
        renew: 1,
        rebind: 2,
        expires: 3000,
    }
}

fn by_name(ports: &[Port]) -> BTreeMap<PortName, Port> {
    ports.iter().map(|p| (p.name.clone(), p.clone())).collect()
}

/// Plans, does it to the value, and plans again: the second plan must be empty.
#[track_caller]
fn check(mut have: Kernel, ports: &[Port], leases: &[(&str, Lease)], want: Expect) {
    let ports = by_name(ports);
    let leases = leases.iter().map(|(i, l)| ((*i).to_owned(), l.clone())).collect();
    let ops = plan(&have, &ports, &leases);
    want.assert_eq(&ops.iter().map(|op| format!("{op:?}\n")).collect::<String>());
    for op in ops {
        match op {
            Op::DelRoute(route) => drop(have.routes.remove(&route)),
            Op::AddRoute(route) => drop(have.routes.insert(route)),
            Op::Up(name) => have.links.get_mut(&name).unwrap().up = true,
            Op::Mtu(name, mtu) => have.links.get_mut(&name).unwrap().mtu = mtu,
            Op::DelAddress(name, a) => {
                have.links.get_mut(&name).unwrap().addresses.remove(&a);
            }
            Op::AddAddress(name, a) => {
                have.links.get_mut(&name).unwrap().addresses.insert(a);
            }
        }
    }
    assert_eq!(plan(&have, &ports, &leases), [], "the plan leads to what is wanted");
}

fn kernel(links: &[(&str, Link)]) -> Kernel {
    let links = links.iter().map(|(n, l)| ((*n).to_owned(), l.clone())).collect();
    Kernel { links, routes: BTreeSet::new() }
}

#[test]
fn a_lease_becomes_an_address_and_a_default_route() {
    check(
        kernel(&[("eth0", Link { up: false, ..link(&[]) })]),
        &[port("eth0", 0, Addressing::Dhcp)],
        &[("eth0", lease("10.0.2.15/24"))],
        expect![[r#"
            Up("eth0")
            AddAddress("eth0", 10.0.2.15/24)
            AddRoute(Route { to: 0.0.0.0/0, interface: "eth0", gateway: Some(10.0.2.2), metric: 1000 })
        "#]],
    );
}

#[test]
fn a_changed_address_is_removed_with_its_route_before_the_new_one_comes() {
    let mut have = kernel(&[("eth0", link(&["10.0.2.15/24"]))]);
    have.routes.insert(Route {
        to: Ipv4Net::default(),
        interface: "eth0".to_owned(),
        gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
        metric: 1000,
    });
    check(
        have,
        &[port("eth0", 0, fixed("192.0.2.9/24", "192.0.2.1"))],
        &[],
        expect![[r#"
            DelRoute(Route { to: 0.0.0.0/0, interface: "eth0", gateway: Some(10.0.2.2), metric: 1000 })
            DelAddress("eth0", 10.0.2.15/24)
            AddAddress("eth0", 192.0.2.9/24)
            AddRoute(Route { to: 0.0.0.0/0, interface: "eth0", gateway: Some(192.0.2.1), metric: 1000 })
        "#]],
    );
}

#[test]
fn the_cheaper_port_has_the_better_route_and_one_without_carrier_has_none() {
    check(
        kernel(&[
            ("eth0", link(&["10.0.2.15/24"])),
            ("eth1", link(&["192.0.2.9/24"])),
            ("eth2", Link { carrier: false, ..link(&["198.51.100.2/24"]) }),
        ]),
        &[
            port("eth0", 10, Addressing::Dhcp),
            port("eth1", 0, fixed("192.0.2.9/24", "192.0.2.1")),
            port("eth2", 0, fixed("198.51.100.2/24", "198.51.100.1")),
        ],
        &[("eth0", lease("10.0.2.15/24"))],
        expect![[r#"
            AddRoute(Route { to: 0.0.0.0/0, interface: "eth0", gateway: Some(10.0.2.2), metric: 11000 })
            AddRoute(Route { to: 0.0.0.0/0, interface: "eth1", gateway: Some(192.0.2.1), metric: 1001 })
        "#]],
    );
}

#[test]
fn other_interfaces_are_left_alone() {
    check(
        kernel(&[("bn1", Link { ethernet: false, ..link(&["10.1.0.1/24"]) })]),
        &[port("eth0", 0, Addressing::Dhcp)],
        &[],
        expect![""],
    );
}

#[test]
fn without_a_config_every_ethernet_interface_tries_dhcp() {
    let have = kernel(&[("eth0", link(&[])), ("bn1", Link { ethernet: false, ..link(&[]) })]);
    let ports = last_resort(&have);
    assert_eq!(ports.values().map(|p| p.interface.as_str()).collect::<Vec<_>>(), ["eth0"]);
}

#[test]
fn resolv_conf_names_the_servers_of_the_cheapest_port_first() {
    let wall = UnixMillis(0);
    let of = |p: &Port, l: &Link, lease: Option<&Lease>| status(p, Some(l), lease, None, 0, wall);
    let dear = of(
        &port("eth0", 9, Addressing::Dhcp),
        &link(&["10.0.2.15/24"]),
        Some(&lease("10.0.2.15/24")),
    );
    let cheap =
        of(&port("eth1", 0, fixed("192.0.2.9/24", "192.0.2.1")), &link(&["192.0.2.9/24"]), None);
    expect![[r"
        search example.net
        nameserver 9.9.9.9
        nameserver 10.0.2.3
    "]]
    .assert_eq(&resolv_conf([&dear, &cheap].into_iter()));
    assert!(connected([&dear]));
    let bad = PortStatus { domain: Some("x\nnameserver 6.6.6.6".to_owned()), ..dear };
    assert!(!resolv_conf([&bad].into_iter()).contains("6.6.6.6"));
}

#[test]
fn the_controller_is_reached_through_management_ports_the_cheapest_first() {
    let wall = UnixMillis(0);
    let up = link(&["192.0.2.9/24"]);
    let dark = Link { carrier: false, ..up.clone() };
    let static_port = |name: &str, cost| port(name, cost, fixed("192.0.2.9/24", "192.0.2.1"));
    let apps = Port { management: false, ..static_port("eth3", 0) };
    let ports = [
        (static_port("eth0", 9), &up),
        (static_port("eth1", 0), &up),
        (static_port("eth2", 0), &dark),
        (apps, &up),
        (static_port("eth4", 0), &up),
    ];
    let told = ports
        .iter()
        .map(|(p, link)| (p.name.clone(), status(p, Some(link), None, None, 0, wall)))
        .collect();
    assert_eq!(ways(&told), ["eth1", "eth4", "eth0"]);
}
