//! What objects become.

use api::convert::config;
use model::desired::{Action, NetworkKind, Origin};
use uuid::Uuid;

use super::check_tests::objects;
use super::{Added, Key, Kind, Objects, Spec, Target, bumps, compile};

pub(super) fn told(objects: &Objects, device: &str) -> model::desired::Device {
    let target = Target {
        device: &objects[&Key::new(Kind::Device, device)],
        controller: Uuid::from_u128(99),
        host: Some("controller.example:8443"),
        root_pem: "PEM",
        certs_hash: "hash",
        epoch: 0,
        reboots: 2,
        shutdowns: 0,
        registry_password: None,
        edge_view: None,
        added: Added::new(),
    };
    compile(&target, objects)
}

const FLEET: &str = "
kind: Device
name: d
spec: {settings: {timer.config.interval: 10}, ports: [{name: eth0}]}
---
kind: Device
name: e
---
kind: Network
name: lab
spec: {subnet: 10.2.0.0/24, port: eth0}
---
kind: Volume
name: data
spec: {size: 1GiB}
---
kind: App
name: a
spec:
  device: [d, e]
  image: hello
  ports: ['8080:80']
  network: [default, lab]
  volumes: [{volume: data, mount: /data}]
  environment: {A: b}
---
kind: App
name: elsewhere
spec: {device: e, image: x, outbound: deny}
";

#[test]
fn a_node_is_told_of_its_own_apps_and_what_they_need() {
    let told = told(&objects(FLEET), "d");
    assert_eq!(told.apps.len(), 1);
    let app = told.apps.values().next().unwrap();
    assert_eq!((app.name.as_str(), app.environment.as_slice()), ("a", &["A=b".to_owned()][..]));
    for interface in &app.interfaces {
        assert!(told.network_instances.contains_key(&interface.network));
    }
    for used in &app.volumes {
        let volume = &told.volumes[&used.volume];
        if let Origin::Content(content) = volume.origin {
            let content = &told.contents[&content];
            assert_eq!(content.url, "hello:latest");
            assert_eq!(told.datastores[&content.datastores[0]].host, "controller.example:8443");
        }
    }
    assert_eq!(app.volumes.iter().map(|v| v.mount.as_str()).collect::<Vec<_>>(), ["/", "/data"]);
    // Port maps belong to the first interface.
    let maps = |i: usize| {
        let rules = app.interfaces[i].rules.iter();
        rules.filter(|r| matches!(r.action, Action::PortMap { .. })).count()
    };
    assert_eq!((maps(0), maps(1)), (1, 0));
    assert_eq!(told.power.reboot, Some(2));
    assert_eq!(told.items["timer.config.interval"], "10");
}

#[test]
fn each_node_has_ids_of_its_own_and_always_the_same() {
    let objects = objects(FLEET);
    let ids = |device: &str| -> Vec<Uuid> {
        let told = told(&objects, device);
        let networks = told.network_instances.keys().map(model::Id::raw);
        networks
            .chain(told.volumes.keys().map(model::Id::raw))
            .chain(told.apps.keys().map(model::Id::raw))
            .collect()
    };
    assert_eq!(ids("d"), ids("d"));
    assert!(ids("d").iter().all(|id| !ids("e").contains(id)));
}

#[test]
fn the_wire_carries_all_of_it() {
    for device in ["d", "e"] {
        let mut told = told(&objects(FLEET), device);
        // What the wire cannot say in full is made of what it can, once; from then on it is stable.
        let wire = config::write(&told);
        let back = config::read(&wire, told.id).unwrap();
        assert_eq!(back.refused, [], "{device}");
        told.refused.clear();
        assert_eq!(back, told, "{device}");
    }
}

#[test]
fn gateway_and_range_follow_from_the_subnet() {
    let text = |more: &str| {
        format!(
            "kind: Device\nname: d\n---\nkind: Network\nname: n\nspec: {{subnet: 10.2.0.0/29{more}}}\n---\nkind: App\nname: a\nspec: {{device: d, image: x, network: n}}\n"
        )
    };
    for (more, gateway, start, end) in [
        ("", "10.2.0.1", "10.2.0.2", "10.2.0.6"),
        (", gateway: 10.2.0.6", "10.2.0.6", "10.2.0.1", "10.2.0.5"),
        (", dhcp: {start: 10.2.0.4, end: 10.2.0.5}", "10.2.0.1", "10.2.0.4", "10.2.0.5"),
    ] {
        let told = told(&objects(&text(more)), "d");
        let network = told.network_instances.values().next().unwrap();
        let NetworkKind::Local(local) = &network.kind else { panic!("local") };
        let got = [local.gateway, local.range.start, local.range.end].map(|a| a.to_string());
        assert_eq!(got, [gateway, start, end], "{more}");
    }
}

#[test]
fn only_what_needs_it_moves_a_counter() {
    let app = |rest: &str| {
        let objects = objects(&format!("kind: App\nname: a\nspec: {{image: x, {rest}}}\n"));
        match &objects[&Key::new(Kind::App, "a")].spec {
            Spec::App(app) => app.clone(),
            _ => unreachable!("it is an app"),
        }
    };
    for (change, restart, purge) in [
        ("memory: 1GiB", true, false),
        ("cpus: 2", true, false),
        ("environment: {A: b}", true, false),
        ("network: lab", true, false),
        ("disk: 2GiB", false, true),
        ("volumes: [{volume: v, mount: /v}]", false, true),
        ("hardware: [{name: g}]", false, true),
        ("user_data: '#cloud-config'", true, false),
        ("placement: {pin_cpus: true}", true, false),
        ("virtualization: vm, vm: {tpm: false}", true, false),
        ("network: [{name: default, rules: [{protocol: tcp, drop: true}]}]", false, false),
        ("profiles: [night]", false, false),
        ("ports: ['80:80']", false, false),
        ("active: false", false, false),
        ("logs: false", false, false),
    ] {
        let need = bumps(&app("cpus: 1"), &app(change));
        assert_eq!((need.restart, need.purge), (restart, purge), "{change}");
    }
}

/// What a person writes for the vector `container-app`, with the names of its objects.
const CONTAINER_APP: &str = "
kind: Device
name: sample-device
spec:
  ports: [{name: eth0}]
  settings: {timer.config.interval: 60, debug.enable.usb: true, debug.enable.console: true}
---
kind: Datastore
name: hub
spec: {type: registry, host: docker.io}
---
kind: Network
name: local1
spec: {subnet: 10.11.12.0/24, port: eth0, dns: [10.11.12.1]}
---
kind: App
name: nginx
spec:
  device: sample-device
  image: 'library/nginx:1.27'
  datastore: hub
  virtualization: vm
  memory: 512MiB
  ports: ['8080:80']
  network: local1
";

/// The vector of this name as a node reads it; `None` without a folder of vectors.
fn vector(name: &str) -> Option<model::desired::Device> {
    let folder = std::env::var("EVE_API_VECTORS").ok().map(std::path::PathBuf::from);
    let beside = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = beside.join("../../../shared/vectors/eve-api");
    let path = folder.unwrap_or(beside).join(format!("config/{name}.EdgeDevConfig.pb"));
    let bytes = std::fs::read(path).ok()?;
    let message: api::pb::config::EdgeDevConfig =
        api::wire::decode(&bytes, api::limits::CONFIG).unwrap();
    let own = message.id.as_ref().unwrap().uuid.parse().unwrap();
    Some(config::read(&message, own).unwrap())
}

/// Every id becomes the name of its object, and what a controller is free in goes.
fn comparable(mut told: model::desired::Device) -> String {
    told.timestamp = None;
    told.controller_certs_hash.clear();
    told.power = model::desired::Power::default();
    let mut names = vec![(told.id.to_string(), "DEVICE".to_owned())];
    names.extend(told.datastores.values().map(|d| (d.id.to_string(), d.host.clone())));
    names.extend(told.contents.values().map(|c| (c.id.to_string(), c.url.clone())));
    names.extend(told.volumes.values().map(|v| (v.id.to_string(), "ROOT".to_owned())));
    names.extend(told.network_instances.values().map(|n| (n.id.to_string(), n.name.clone())));
    names.extend(told.apps.values().map(|a| (a.id.to_string(), a.name.clone())));
    for volume in told.volumes.values_mut() {
        volume.name.clear();
    }
    for content in told.contents.values_mut() {
        content.name.clear();
    }
    for app in told.apps.values_mut() {
        app.version.clear();
        for interface in &mut app.interfaces {
            interface.name.clear();
        }
    }
    // Same hardware, said in another way.
    for port in told.ports.values_mut() {
        port.below.clear();
    }
    let text = format!("{told:#?}");
    names.iter().fold(text, |text, (id, name)| text.replace(id, name))
}

#[test]
fn what_a_person_writes_of_the_vectors_is_the_vectors() {
    for (name, text) in [
        ("container-app", CONTAINER_APP),
        ("minimal-device", CONTAINER_APP.split("---").next().unwrap_or_default()),
    ] {
        let Some(want) = vector(name) else { return };
        let all = objects(text);
        assert_eq!(super::check(&all), [], "{name}");
        let mut ours = told(&all, "sample-device");
        // As a node reads it.
        ours = config::read(&config::write(&ours), ours.id).unwrap();
        pretty(&comparable(ours), &comparable(want), name);
    }
}

#[track_caller]
fn pretty(ours: &str, want: &str, name: &str) {
    let differ = ours.lines().zip(want.lines()).find(|(a, b)| a != b);
    assert_eq!(differ, None, "{name}");
    assert_eq!(ours.lines().count(), want.lines().count(), "{name}");
}
