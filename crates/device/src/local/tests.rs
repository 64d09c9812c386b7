use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use model::desired::{
    Addressing, AppOptions, DhcpRange, DnsEntry, Family, LocalNetwork, Machine, NetworkInstance,
    NetworkKind, NetworkOptions, Origin, Port, Virtualization, Volume, VolumeRef,
};
use model::reported::{AppNetworkStatus, Vif};
use model::{Bytes, Id};

use super::*;

fn id<K>(number: u8) -> Id<K> {
    Id::new(uuid::Uuid::from_bytes([number; 16]))
}

fn app(number: u8, name: &str) -> App {
    App {
        id: id(number),
        version: String::new(),
        name: name.to_owned(),
        activate: true,
        vcpus: 1,
        memory: Bytes::mib(64),
        virtualization: Virtualization::Container,
        volumes: vec![VolumeRef {
            volume: id(number + 100),
            generation: 3,
            mount: String::from("/"),
        }],
        interfaces: Vec::new(),
        restart: 7,
        purge: 1,
        environment: Vec::new(),
        user_data: None,
        start_delay: Duration::ZERO,
        disable_logs: false,
        machine: Machine::default(),
        hardware: Vec::new(),
        options: AppOptions::default(),
    }
}

fn volume(number: u8) -> Volume {
    Volume {
        id: id(number),
        generation: 3,
        name: String::new(),
        origin: Origin::Blank,
        max_size: None,
        readonly: false,
        clear_text: false,
        target: Default::default(),
    }
}

fn told(apps: impl IntoIterator<Item = App>) -> Device {
    let mut told = Device::new(id(9));
    told.apps = apps.into_iter().map(|a| (a.id, a)).collect();
    told.volumes = told
        .apps
        .values()
        .map(|a| a.volumes[0].volume)
        .map(|v| (v, v))
        .map(|(k, v)| (k, Volume { id: v, ..volume(0) }))
        .collect();
    told
}

#[test]
fn apps_of_other_profiles_rest() {
    let mut night = app(1, "night");
    night.options.profiles = vec!["night".to_owned()];
    // The controller's profile, the one chosen here, and whether the app of the night runs.
    for (global, local, runs) in [
        ("", "", true),
        ("night", "", true),
        ("day", "", false),
        ("day", "night", true),
        ("night", "day", false),
    ] {
        let mut told = told([night.clone(), app(2, "always")]);
        told.profile = global.to_owned();
        let overrides = Overrides { profile: local.to_owned(), ..Overrides::default() };
        let device = apply(&told, &overrides, &BTreeMap::new());
        assert_eq!(device.apps[&id(1)].activate, runs, "{global} {local}");
        assert!(device.apps[&id(2)].activate);
    }
}

#[test]
fn counters_are_added_to_those_of_the_controller_and_purged_volumes_are_new_ones() {
    let told = told([app(1, "a"), app(2, "b")]);
    let counts = Counts { restart: 2, purge: 4 };
    let counts = BTreeMap::from([(id(1), counts), (id(50), counts)]);
    let device = apply(&told, &Overrides { counts, ..Overrides::default() }, &BTreeMap::new());
    let (a, b) = (&device.apps[&id(1)], &device.apps[&id(2)]);
    assert_eq!((a.restart, a.purge, a.volumes[0].generation), (9, 5, 7));
    assert_eq!(device.volumes[&id(101)].generation, 7);
    assert_eq!((b.restart, b.purge, b.volumes[0].generation), (7, 1, 3));
    assert_eq!(device.volumes[&id(102)].generation, 3);
}

#[test]
fn who_is_told_to_halt_runs_nothing() {
    let halted = Overrides { halted: true, ..Overrides::default() };
    let device = apply(&told([app(1, "a")]), &halted, &BTreeMap::new());
    assert!(!device.apps[&id(1)].activate);
    // It does not outlive the boot.
    let saved = serde_json::to_vec(&halted).unwrap();
    assert_eq!(serde_json::from_slice::<Overrides>(&saved).unwrap(), Overrides::default());
}

#[test]
fn a_port_is_changed_only_as_long_as_the_controller_allows_it() {
    let name = PortName::new("eth0").unwrap();
    let mut port = Port {
        name: name.clone(),
        interface: "eth0".into(),
        management: true,
        cost: 0,
        addressing: Addressing::Dhcp,
        mtu: None,
        below: String::new(),
        link: Default::default(),
        options: Default::default(),
    };
    let change = PortChange {
        addressing: Addressing::None,
        mtu: Some(1400),
        family: Family::V4Only,
        domain: String::new(),
        dns: Vec::new(),
        ntp: Vec::new(),
        ignore: Default::default(),
    };
    for allowed in [false, true] {
        port.options.local_changes = allowed;
        let mut told = told([]);
        told.ports.insert(name.clone(), port.clone());
        let changes = BTreeMap::from([(name.clone(), change.clone())]);
        let device = apply(&told, &Overrides::default(), &changes);
        assert_eq!(device.ports[&name].mtu, allowed.then_some(1400));
    }
}

#[test]
fn a_name_that_two_apps_have_means_neither() {
    let told = told([app(1, "a"), app(2, "b"), app(3, "b")]);
    assert_eq!(meant(&told, &id::<()>(2).to_string(), "a").unwrap().id, id(2));
    assert_eq!(meant(&told, "", "a").unwrap().id, id(1));
    assert_eq!(meant(&told, "", "b"), None);
    assert_eq!(meant(&told, "", ""), None);
    assert_eq!(meant(&told, &id::<()>(77).to_string(), "a"), None);
}

fn network(number: u8, activate: bool) -> NetworkInstance {
    NetworkInstance {
        id: id(number),
        name: String::new(),
        activate,
        kind: NetworkKind::Local(LocalNetwork {
            subnet: "10.1.0.0/24".parse().unwrap(),
            gateway: Ipv4Addr::new(10, 1, 0, 1),
            range: DhcpRange { start: Ipv4Addr::new(10, 1, 0, 2), end: Ipv4Addr::new(10, 1, 0, 9) },
            dns: Vec::new(),
            hosts: vec![DnsEntry {
                name: "profile".into(),
                addresses: vec![
                    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
                    IpAddr::V4(Ipv4Addr::new(10, 1, 0, 5)),
                ],
            }],
        }),
        port: None,
        mtu: None,
        options: NetworkOptions::default(),
    }
}

#[test]
fn a_server_is_an_app_of_this_node_and_nobody_else() {
    let vif = Vif {
        name: String::new(),
        network: id(1),
        host_interface: String::new(),
        app_interface: String::new(),
        mac: [0; 6],
        address: Some(Ipv4Addr::new(10, 1, 0, 4)),
    };
    let network_of = AppNetworkStatus {
        id: id(7),
        namespace: String::new(),
        dns: Vec::new(),
        ready: true,
        vifs: vec![vif],
        problem: None,
    };
    let apps = BTreeMap::from([(id(7), network_of)]);
    let check = |address: &str, activate: bool, want: Result<&str, &str>| {
        let instances = BTreeMap::from([(id(1), network(1, activate))]);
        let got = server(address, 8888, &instances, &apps);
        let got = got.map(|a| a.to_string()).map_err(|e| e.to_string());
        match (got, want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want, "{address}"),
            (Err(got), Err(want)) => assert!(got.contains(want), "{address}: {got}"),
            (got, want) => panic!("{address}: {got:?}, not {want:?}"),
        }
    };
    check("10.1.0.4", true, Ok("10.1.0.4:8888"));
    check(" 10.1.0.4:90 ", true, Ok("10.1.0.4:90"));
    check("Profile:90", true, Ok("10.1.0.5:90"));
    check("10.1.0.4", false, Err("10.1.0.4 is neither"));
    check("10.1.0.6", true, Err("10.1.0.6 is neither"));
    check("192.0.2.1:80", true, Err("192.0.2.1 is neither"));
    check("other", true, Err("other is neither"));
    for bad in ["", ":80", "a:b", "http://a", "[::1]:80", "a:0", "a:70000"] {
        check(bad, true, Err("is no host or host:port"));
    }
}

#[test]
fn calls_are_made_by_their_periods_and_at_once_when_there_is_news() {
    let s = Duration::from_secs;
    let mut rounds = Rounds::new(["a", "b"], s(0));
    assert_eq!((rounds.next(s(0)), rounds.wake()), (Some("a"), Some(s(0))));
    rounds.done("a", Heard::Something, s(1), [s(60), s(3600)]);
    assert_eq!(rounds.next(s(1)), Some("b"));
    rounds.done("b", Heard::NotThere, s(1), [s(60), s(3600)]);
    assert_eq!((rounds.next(s(2)), rounds.wake()), (None, Some(s(61))));
    rounds.hurry(&["b", "c"], s(5));
    assert_eq!(rounds.next(s(5)), Some("b"));
    rounds.done("b", Heard::NotThere, s(5), [s(60), s(3600)]);
    assert_eq!(rounds.next(s(61)), Some("a"));
    // A period longer than the slow one is not made shorter.
    rounds.done("a", Heard::NotThere, s(61), [s(3600), s(300)]);
    assert_eq!(rounds.wake(), Some(s(3605)));
    assert_eq!(Rounds::<u8>::new([], s(0)).wake(), None);
}
