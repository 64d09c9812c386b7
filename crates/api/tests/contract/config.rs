//! Configs: what a node understands of recorded ones, and what it refuses by which field.

use std::time::Duration;

use crate::common::{T0, device_id, golden, now, vector};
use api::convert::config::{self, Answer, ConfigError, Request};
use api::convert::items;
use api::pb::config::EdgeDevConfig;
use api::{certs, envelope, limits, wire};
use expect_test::{Expect, expect};
use model::desired::{
    Action, Addressing, Content, Datastore, DatastoreKind, Device, Direction, Match, NetworkKind,
    ObjectKind, Origin, Port, PortName, PortSelector, Power, Properties, Protocol, Rule,
    StaticAddress, Virtualization, Volume,
};
use model::{Bytes, DeviceId, Digest, UnixMillis};

fn own() -> DeviceId {
    device_id()
}

fn message(name: &str) -> EdgeDevConfig {
    wire::decode(&vector(&format!("config/{name}.EdgeDevConfig.pb")), limits::CONFIG).unwrap()
}

fn read(name: &str) -> Result<Device, ConfigError> {
    config::read(&message(name), own())
}

/// The whole way: envelope, signature, answer.
fn answer(name: &str, have: &str) -> Result<Answer, ConfigError> {
    let certs = vector("envelope/resp-certs.AuthContainer.pb");
    let certs = certs::learn(&certs, &vector("pki/root-certificate.pem"), now()).unwrap();
    let body = vector(&format!("config/{name}.ConfigResponse.AuthContainer.pb"));
    let body = envelope::open(&body, limits::CONFIG).unwrap();
    config::read_answer(body.verify(certs.signer()).unwrap(), own(), have)
}

fn changed(answer: Answer) -> (String, Device) {
    match answer {
        Answer::Changed { hash, device } => (hash, *device),
        Answer::Unchanged => panic!("unchanged"),
    }
}

/// Ids are those of the vectors: here they are all `<id>`.
fn without_ids(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let id = rest.get(..36).filter(|id| id.parse::<DeviceId>().is_ok());
        out.push_str(if id.is_some() { "<id>" } else { &rest[..next.len_utf8()] });
        rest = &rest[id.map_or(next.len_utf8(), str::len)..];
    }
    out
}

/// What `neg-…` configs are refused for, object by object.
#[track_caller]
fn check_refused(name: &str, want: Expect) -> Device {
    let device = read(name).unwrap();
    let line =
        |r: &model::desired::Refused| format!("{:?} {} {}: {}", r.kind, r.id, r.name, r.text);
    want.assert_eq(&without_ids(&device.refused.iter().map(line).collect::<Vec<_>>().join("\n")));
    device
}

#[test]
fn the_minimal_config_is_one_management_port() {
    if !golden() {
        return;
    }
    let (_, device) = changed(answer("minimal-device", "").unwrap());
    assert_eq!(device, read("minimal-device").unwrap());
    assert_eq!(device.refused, []);
    let port = Port {
        name: PortName::new("eth0").unwrap(),
        interface: "eth0".to_owned(),
        management: true,
        cost: 0,
        addressing: Addressing::Dhcp,
        mtu: None,
        below: String::new(),
        link: Default::default(),
        options: Default::default(),
    };
    assert_eq!(device.ports.into_values().collect::<Vec<_>>(), [port]);
    assert_eq!(device.timestamp, Some(now()));
    assert!(device.apps.is_empty() && device.volumes.is_empty() && device.contents.is_empty());
    assert_eq!(device.items.len(), 3);
}

#[test]
fn the_container_app_arrives_whole() {
    if !golden() {
        return;
    }
    let (hash, device) = changed(answer("container-app", "").unwrap());
    assert!(!hash.is_empty());
    assert_eq!(device.refused, []);
    let [store] = device.datastores.values().collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!((store.kind, store.host.as_str()), (DatastoreKind::Registry, "docker.io"));
    let [content] = device.contents.values().collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!(content.url, "library/nginx:1.27");
    assert_eq!(content.datastores, [store.id]);
    let [volume] = device.volumes.values().collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!(volume.origin, Origin::Content(content.id));
    assert_eq!(volume.max_size, Some(Bytes::gib(1)));
    let [network] = device.network_instances.values().collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!(network.port, Some(PortSelector::Port(PortName::new("eth0").unwrap())));
    let NetworkKind::Local(local) = &network.kind else { panic!() };
    assert_eq!(local.subnet.to_string(), "10.11.12.0/24");
    assert_eq!((local.range.start.octets()[3], local.range.end.octets()[3]), (2, 254));
    assert!(local.dns.is_empty(), "the network's own address is not asked");
    let [app] = device.apps.values().collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!((app.name.as_str(), app.activate, app.vcpus), ("nginx", true, 1));
    assert_eq!(app.memory, Bytes::mib(512));
    assert_eq!(app.volumes[0].volume, volume.id);
    let [interface] = &app.interfaces[..] else { panic!() };
    assert_eq!(interface.network, network.id);
    let rule = |id, matches, action| Rule { id, matches, action, direction: Direction::Both };
    let map = Action::PortMap { app_port: 80 };
    assert_eq!(
        interface.rules,
        [
            rule(1, vec![Match::Ip("0.0.0.0/0".parse().unwrap())], Action::Allow),
            rule(2, vec![Match::Protocol(Protocol::Tcp), Match::LocalPort(8080)], map),
        ]
    );
}

#[test]
fn an_equal_hash_is_no_change() {
    if !golden() {
        return;
    }
    let (hash, _) = changed(answer("container-app", "").unwrap());
    assert_eq!(answer("unchanged", &hash).unwrap(), Answer::Unchanged);
    assert_eq!(answer("container-app", &hash).unwrap(), Answer::Unchanged);
}

#[test]
fn answers_that_make_no_sense_are_errors() {
    if !golden() {
        return;
    }
    assert!(matches!(answer("neg-empty-confighash", ""), Err(ConfigError::NoHash)));
    assert!(matches!(answer("neg-empty-confighash", "x"), Err(ConfigError::NoHash)));
    assert!(matches!(answer("neg-hash-without-config", ""), Err(ConfigError::NoConfig)));
    // Nothing is remembered, so this is an announcement without its config.
    assert!(matches!(answer("unchanged", ""), Err(ConfigError::NoConfig)));
}

#[test]
fn a_config_of_another_device_is_refused() {
    if !golden() {
        return;
    }
    let foreign = read("neg-foreign-device-uuid").unwrap_err();
    assert!(matches!(&foreign, ConfigError::Foreign { own: o, .. } if *o == own()), "{foreign:?}");
    assert!(matches!(read("neg-no-device-uuid"), Err(ConfigError::NoId)));
    let malformed = read("neg-malformed-device-uuid").unwrap_err();
    assert!(matches!(&malformed, ConfigError::BadId { uuid, .. } if uuid == "not-a-uuid"));
}

#[test]
fn an_older_timestamp_can_be_told() {
    if !golden() {
        return;
    }
    let (old, new) = (read("neg-old-timestamp").unwrap(), read("container-app").unwrap());
    assert!(old.timestamp < new.timestamp);
}

#[test]
fn an_app_without_resources_is_refused_and_the_rest_goes_on() {
    if !golden() {
        return;
    }
    let device = check_refused(
        "neg-app-without-fixedresources",
        expect!["App <id> nginx: fixedresources: it is missing"],
    );
    assert!(device.apps.is_empty());
    assert_eq!(
        (device.ports.len(), device.network_instances.len(), device.volumes.len()),
        (1, 1, 1)
    );
}

#[test]
fn an_app_of_an_unknown_network_is_kept() {
    if !golden() {
        return;
    }
    let device = check_refused("neg-app-unknown-network-instance", expect![""]);
    let app = device.apps.values().next().unwrap();
    assert!(!device.network_instances.contains_key(&app.interfaces[0].network));
}

#[test]
fn ports_are_refused_by_field() {
    if !golden() {
        return;
    }
    for (name, want) in [
        (
            "neg-adapter-without-network",
            expect!["Port eth0 : systemAdapterList.networkUUID: a management port needs a network"],
        ),
        (
            "neg-adapter-missing-lower-layer",
            expect![[
                r#"Port eth0 : systemAdapterList.lowerLayerName: "eth7" is not the label of any hardware"#
            ]],
        ),
        (
            "neg-network-dualv4v6",
            expect![[r#"Port eth0 : networks[<id>].type: "9" is not a known network type"#]],
        ),
    ] {
        let device = check_refused(name, want);
        assert!(device.ports.is_empty(), "{name}");
        assert_eq!(device.apps.len(), 1, "{name}");
    }
}

#[test]
fn local_networks_are_refused_by_field() {
    if !golden() {
        return;
    }
    for (name, want) in [
        (
            "neg-local-ni-no-subnet",
            expect![[
                r#"NetworkInstance <id> local1: ip.subnet: "" is not a subnet of IP version 4"#
            ]],
        ),
        (
            "neg-gateway-in-dhcp-range",
            expect![[
                r#"NetworkInstance <id> local1: ip.gateway: "10.11.12.9" is not outside the DHCP range"#
            ]],
        ),
    ] {
        let device = check_refused(name, want);
        assert!(device.network_instances.is_empty(), "{name}");
        assert_eq!(device.apps.len(), 1, "{name}");
    }
}

#[test]
fn what_is_sealed_is_refused_and_not_run_without() {
    if !golden() {
        return;
    }
    let device = check_refused(
        "encrypted-secrets",
        expect![[r#"
            Port wlan0 : networks[<id>].wireless.wifiCfg[0].cipherData: it is sealed, and no key to open it is at hand
            Datastore <id> docker://docker.io: cipherData: it is sealed, and no key to open it is at hand
            App <id> nginx: cipherData: it is sealed, and no key to open it is at hand"#]],
    );
    assert_eq!(device.ports.len(), 1);
}

#[test]
fn a_network_that_comes_late_heals_its_app() {
    if !golden() {
        return;
    }
    let [before, after, touched] = [
        "stale-1-app-before-network-instance",
        "stale-2-network-instance-added",
        "stale-3-app-touched",
    ]
    .map(|name| read(name).unwrap());
    let network = |d: &Device| d.apps.values().next().unwrap().interfaces[0].network;
    assert!(!before.network_instances.contains_key(&network(&before)));
    assert!(after.network_instances.contains_key(&network(&after)));
    assert_eq!(before.apps, after.apps, "the app itself did not change");
    assert_ne!(after.apps, touched.apps);
}

#[test]
fn bad_settings_are_reported_and_the_others_applied() {
    if !golden() {
        return;
    }
    let device = read("neg-bad-config-items").unwrap();
    let previous = Properties { config_interval: Duration::from_secs(77), ..Default::default() };
    let got = items::properties(&device.items, &previous, T0);
    assert_eq!(got.problems.keys().collect::<Vec<_>>(), ["no.such.key", "timer.config.interval"]);
    assert_eq!(got.config_interval, Duration::from_secs(77));
    assert_eq!(got.metric_interval, Duration::from_secs(7));
}

/// A device with something in every field that the wire can carry.
fn rich() -> Device {
    let mut device = read("container-app").unwrap();
    device.name = "gate 7".to_owned();
    device.epoch = 3;
    device.power = Power { reboot: Some(4), shutdown: Some(0) };
    let name = PortName::new("lan").unwrap();
    let fixed = StaticAddress {
        address: "192.0.2.9/24".parse().unwrap(),
        gateway: Some([192, 0, 2, 1].into()),
        dns: vec!["192.0.2.2".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        ntp: vec!["a.example".to_owned(), "b.example".to_owned()],
    };
    device.ports.insert(
        name.clone(),
        Port {
            name,
            interface: "enp3s0".to_owned(),
            management: false,
            cost: 9,
            addressing: Addressing::Static(fixed),
            mtu: Some(1400),
            below: String::new(),
            link: Default::default(),
            options: Default::default(),
        },
    );
    device
        .hardware
        .extend(device.ports.values().filter(|p| p.name.as_str() == "lan").map(Port::card));
    let store = Datastore {
        id: "00000000-0000-4000-8000-000000000021".parse().unwrap(),
        kind: DatastoreKind::Https,
        host: "files.example:8443".to_owned(),
        prefix: "a/b".to_owned(),
        trust_pem: vec!["pem".to_owned()],
        region: String::new(),
        credentials: None,
    };
    let content = Content {
        id: "00000000-0000-4000-8000-000000000031".parse().unwrap(),
        name: "disk".to_owned(),
        datastores: vec![store.id],
        url: "disk.qcow2".to_owned(),
        format: model::desired::ImageFormat::Qcow2,
        sha256: Some(Digest([7; 32])),
        max_size: Some(Bytes::mib(9)),
        generation: 0,
        custom_metadata: String::new(),
    };
    let volume = Volume {
        id: "00000000-0000-4000-8000-000000000041".parse().unwrap(),
        generation: 2,
        name: "data".to_owned(),
        origin: Origin::Blank,
        max_size: None,
        readonly: true,
        clear_text: false,
        target: Default::default(),
    };
    device.datastores.insert(store.id, store);
    device.contents.insert(content.id, content);
    device.volumes.insert(volume.id, volume);
    let app = device.apps.values_mut().next().unwrap();
    app.virtualization = Virtualization::Container;
    app.environment = vec!["A=1".to_owned(), "B=x=y z".to_owned()];
    app.restart = 5;
    app.purge = 6;
    app.start_delay = Duration::from_secs(30);
    app.disable_logs = true;
    let interface = &mut app.interfaces[0];
    interface.mac = Some([2, 0, 0, 0, 0, 9]);
    interface.address = Some([10, 11, 12, 9].into());
    let limit = Action::Limit { rate: 5, per: Duration::from_secs(60), burst: 7 };
    for (matches, action) in [
        (vec![Match::Host("example.org".to_owned())], Action::Drop),
        (vec![Match::Protocol(Protocol::Udp), Match::RemotePort(53)], limit),
        (vec![Match::Protocol(Protocol::Icmp)], Action::Allow),
    ] {
        interface.rules.push(Rule { id: 9, matches, action, direction: Direction::Egress });
    }
    device
}

#[test]
fn what_a_controller_writes_a_node_reads() {
    if !golden() {
        return;
    }
    for device in [read("minimal-device").unwrap(), read("container-app").unwrap(), rich()] {
        let (hash, payload) = config::write_answer(&device, "");
        let (got_hash, got) = changed(config::read_answer(&payload, device.id, "").unwrap());
        assert_eq!(got_hash, hash);
        assert_eq!(got, device);
        let (_, unchanged) = config::write_answer(&device, &hash);
        let unchanged = config::read_answer(&unchanged, device.id, &hash).unwrap();
        assert_eq!(unchanged, Answer::Unchanged);
        assert_eq!(config::write_answer(&device, "").1, payload, "same device, same bytes");
    }
}

#[test]
fn a_device_we_know_is_hashed_by_all_it_says() {
    if !golden() {
        return;
    }
    let device = rich();
    let hash = config::write_answer(&device, "").0;
    let other = Device { controller_certs_hash: "other".to_owned(), ..device.clone() };
    assert_ne!(config::write_answer(&other, "").0, hash);
    let later = Device { timestamp: Some(UnixMillis(T0.0 + 1)), ..device };
    assert_ne!(config::write_answer(&later, "").0, hash);
}

#[test]
fn requests_say_what_they_have() {
    if !golden() {
        return;
    }
    let request = Request { hash: "h".to_owned(), integrity_token: vec![1, 2] };
    assert_eq!(Request::from_payload(&request.to_payload()).unwrap(), request);
    let recorded = Request::from_payload(&vector("envelope/configrequest.pb")).unwrap();
    assert_eq!(Request::from_payload(&recorded.to_payload()).unwrap(), recorded);
}

/// What an app is refused for after `change`.
#[track_caller]
fn check_app(change: impl Fn(&mut api::pb::config::AppInstanceConfig), want: &str) {
    let mut message = message("container-app");
    change(&mut message.apps[0]);
    let device = config::read(&message, own()).unwrap();
    let got = device.refused.first().map(|r| r.text.clone()).unwrap_or_default();
    assert!(!want.is_empty() && got.contains(want), "{got:?} instead of {want:?}");
    assert!(device.apps.is_empty());
}

#[test]
fn apps_are_refused_by_field() {
    if !golden() {
        return;
    }
    use api::pb::config::{AceAction, AceMatch, Adapter};
    let matching = |kind: &str, value: &str| {
        vec![AceMatch { r#type: kind.to_owned(), value: value.to_owned() }]
    };
    check_app(|a| a.uuidandversion = None, "uuidandversion: it is missing");
    check_app(
        |a| a.uuidandversion.as_mut().unwrap().uuid = "x".into(),
        "uuid: \"x\" is not a UUID",
    );
    check_app(|a| a.fixedresources.as_mut().unwrap().vcpus = 0, "vcpus: \"0\" is not 1 to 255");
    check_app(|a| a.fixedresources.as_mut().unwrap().vcpus = 256, "vcpus: \"256\"");
    check_app(|a| a.fixedresources.as_mut().unwrap().memory = 0, "memory: it is missing");
    check_app(
        |a| a.fixedresources.as_mut().unwrap().virtualization_mode = 77,
        "virtualizationMode",
    );
    check_app(|a| a.adapters.push(Adapter::default()), "adapters[0].name: it is missing");
    check_app(|a| a.user_data = "a".repeat(65_536), "userData: \"65536 bytes\"");
    check_app(|a| a.service = true, "service: only a container");
    check_app(|a| a.interfaces[0].access_vlan_id = 4095, "access_vlan_id: \"4095\"");
    check_app(|a| a.volume_ref_list[0].generation_count = -1, "volumeRefList.generationCount");
    check_app(|a| a.interfaces[0].network_id.clear(), "interfaces[0].networkId");
    check_app(
        |a| a.interfaces[0].mac_address = "01:00:00:00:00:00".into(),
        "interfaces[0].macAddress",
    );
    check_app(|a| a.interfaces[0].addr = "1.2.3".into(), "interfaces[0].addr");
    let rule = "interfaces[0].acls[1].";
    let acl = |change: &dyn Fn(&mut api::pb::config::Ace), want: &str| {
        check_app(|a| change(&mut a.interfaces[0].acls[1]), &format!("{rule}{want}"));
    };
    acl(&|r| r.matches = matching("eidset", ""), "matches.type: \"eidset\"");
    acl(&|r| r.matches = matching("ip", "300.0.0.1"), "matches.ip: \"300.0.0.1\"");
    acl(&|r| r.matches = matching("lport", "80"), "matches: a port needs protocol");
    acl(&|r| r.matches = matching("protocol", "tcp"), "matches: a port map needs lport");
    acl(&|r| r.matches[1].value = "0".into(), "matches.lport: \"0\" is not a port");
    acl(&|r| r.actions[0].app_port = 70_000, "actions.appPort: \"70000\"");
    acl(&|r| r.actions[0].drop = true, "actions: a rule has one action");
    acl(&|r| r.actions.push(AceAction::default()), "actions: a rule has one action");
    acl(&|r| r.dir = 9, "dir: \"9\"");
}

#[test]
fn user_data_of_a_container_is_its_environment() {
    if !golden() {
        return;
    }
    // "A=1\n# no\n\nB = x\n" and "what"
    let with = |user_data: &str| {
        let mut message = message("container-app");
        let app = &mut message.apps[0];
        app.fixedresources.as_mut().unwrap().virtualization_mode = 4;
        app.user_data = user_data.to_owned();
        config::read(&message, own()).unwrap()
    };
    let good = with("QT0xCiMgbm8KCkIgPSB4Cg==");
    assert_eq!(good.apps.values().next().unwrap().environment, ["A=1", "B = x"]);
    assert!(with("d2hhdA==").refused[0].text.contains("\"what\" is not a line KEY=VALUE"));
    assert!(with("***").refused[0].text.contains("not base64"));
}

#[test]
fn two_objects_of_one_id_are_one_and_a_refusal() {
    if !golden() {
        return;
    }
    let mut message = message("container-app");
    message.volumes.push(message.volumes[0].clone());
    let device = config::read(&message, own()).unwrap();
    assert_eq!(device.volumes.len(), 1);
    assert_eq!(device.refused[0].kind, ObjectKind::Volume);
}

#[test]
fn without_any_uplink_all_ports_are_for_management() {
    if !golden() {
        return;
    }
    let mut message = message("minimal-device");
    message.system_adapter_list[0].uplink = false;
    message.system_adapter_list[0].cost = 700;
    let device = config::read(&message, own()).unwrap();
    let port = device.ports.values().next().unwrap();
    assert!(port.management);
    assert_eq!(port.cost, 0);
}
