//! What is found wrong, as text.

use expect_test::{Expect, expect};
use uuid::Uuid;

use super::{Objects, check, read};

/// Objects of documents, each as if it were new.
pub(super) fn objects(text: &str) -> Objects {
    let documents = read(text).unwrap();
    let object = |(n, d): (u128, super::Document)| super::Object {
        key: d.key,
        uid: Uuid::from_u128(n),
        generation: 1,
        restart: 0,
        purge: 0,
        pinned: None,
        spec: d.spec,
    };
    (1..).zip(documents).map(object).map(|o| (o.key.clone(), o.into())).collect()
}

#[track_caller]
fn flaws(text: &str, expect: Expect) {
    let found = check(&objects(text));
    let lines: Vec<String> = found
        .iter()
        .map(|f| format!("{f}{}\n", if f.missing { " (missing)" } else { "" }))
        .collect();
    expect.assert_eq(&lines.concat());
}

#[test]
fn a_sound_set_has_no_flaws() {
    flaws(
        "
kind: Device
name: d
spec:
  serial: S
  ports:
    - {name: eth0}
    - {name: eth1, management: false, address: {static: {address: 10.1.0.5/24, gateway: 10.1.0.1}}}
---
kind: Network
name: lab
spec: {subnet: 10.2.0.0/24, gateway: 10.2.0.254, dhcp: {start: 10.2.0.10, end: 10.2.0.20}}
---
kind: Network
name: wire
spec: {type: switch, port: eth1}
---
kind: Image
name: web
spec: {path: 'web:1'}
---
kind: Volume
name: data
spec: {size: 1GiB}
---
kind: App
name: a
spec:
  device: d
  image: web
  ports: ['80:80', '80:80/udp']
  network: [lab, {name: wire}]
  volumes: [{volume: data, mount: /data}]
",
        expect![[""]],
    );
}

#[test]
fn references_that_point_nowhere_are_missing() {
    flaws(
        "
kind: App
name: a
spec: {device: [d, '*'], image: x, datastore: far, network: lab, volumes: [{volume: v, mount: /v}]}
---
kind: Image
name: i
spec: {path: p, datastore: [near, local]}
",
        expect![[r#"
            Image i: spec.datastore: there is no Datastore near (known: there is none) (missing)
            App a: spec.device: there is no Device d (known: there is none) (missing)
            App a: spec.datastore: there is no Datastore far (known: there is none) (missing)
            App a: spec.network[0]: there is no Network lab (known: there is none) (missing)
            App a: spec.volumes[0].volume: there is no Volume v (known: there is none) (missing)
        "#]],
    );
}

#[test]
fn what_is_out_of_range_is_named_with_its_field() {
    flaws(
        "
kind: Device
name: d
spec:
  soft_serial: a b
  ports:
    - {name: uplink, management: false, mtu: 100}
    - {name: uplink, management: false, address: {static: {address: 10.1.0.5/24, gateway: 10.9.0.1}}}
---
kind: Datastore
name: s
spec: {type: registry, host: 'https://x'}
---
kind: Volume
name: v
---
kind: Network
name: n1
spec: {}
---
kind: Network
name: n2
spec: {subnet: 10.2.0.0/31}
---
kind: Network
name: n3
spec: {subnet: 10.3.0.0/24, gateway: 10.3.0.15, dhcp: {start: 10.3.0.10, end: 10.3.0.20}}
---
kind: Network
name: n4
spec: {subnet: 10.4.0.0/24, gateway: 10.5.0.1, dhcp: {start: 10.4.0.20, end: 10.4.0.10}}
---
kind: Network
name: n5
spec: {type: switch, subnet: 10.6.0.0/24}
---
kind: App
name: a
spec:
  image: 'Bad Name'
  cpus: 0
  memory: 1MiB
  network: []
  ports: ['80:80']
  volumes: [{volume: v, mount: data}, {volume: v, mount: /a/../b}]
  environment: {'A=B': c}
",
        expect![[r#"
            Device d: spec.soft_serial: use up to 256 letters, digits, `-` and `_`
            Device d: spec.ports[0].name: uplink is reserved
            Device d: spec.ports[0].mtu: use 1280 to 65535
            Device d: spec.ports[1].name: there are two ports uplink
            Device d: spec.ports[1].name: uplink is reserved
            Device d: spec.ports[1].address.static.gateway: lies outside 10.1.0.0/24
            Device d: spec.ports: no port is a management port: the node would be cut off
            Datastore s: spec.host: "https://x" is no host; write HOST or HOST:PORT, without a scheme
            Volume v: spec.size: an empty volume needs a size
            Network n1: spec.subnet: a local network needs a subnet, as in 10.1.0.0/24
            Network n2: spec.subnet: 10.2.0.0/31: use a prefix length from 8 to 30
            Network n3: spec.dhcp: holds the gateway, 10.3.0.15
            Network n4: spec.gateway: 10.5.0.1 is no host of 10.4.0.0/24
            Network n4: spec.dhcp: 10.4.0.20 to 10.4.0.10 is no range of 10.4.0.0/24
            Network n5: spec.subnet: a switch network has no addresses of its own
            App a: spec.device: names no device; "*" is every device
            App a: spec.image: "Bad Name" is no `repository:tag`
            App a: spec.cpus: an app needs at least 1 processor
            App a: spec.memory: an app needs at least 4.0 MiB
            App a: spec.ports: an app without a network has no ports
            App a: spec.volumes[0].mount: "data" is no folder below /
            App a: spec.volumes[1].mount: "/a/../b" is no folder below /
            App a: spec.volumes[1].volume: v is there already: an app has a volume once
            App a: spec.environment: "A=B" is no name of a variable
        "#]],
    );
}

#[test]
fn two_of_one_node_cannot_have_the_same() {
    flaws(
        "
kind: Device
name: d
spec: {serial: S}
---
kind: Device
name: e
spec: {soft_serial: S}
---
kind: Network
name: lab
spec: {subnet: 10.11.0.0/16}
---
kind: App
name: a
spec: {device: d, image: x, ports: ['80:80']}
---
kind: App
name: b
spec: {device: '*', image: x, ports: ['80:81'], network: lab}
---
kind: App
name: c
spec: {device: e, image: x, ports: ['81:81'], network: [{name: lab, address: 10.12.0.1}]}
",
        expect![[r#"
            Device e: spec.soft_serial: "S" is already that of Device d
            App c: spec.network[0].address: 10.12.0.1 lies outside 10.11.0.0/16
            App b: spec.ports[0]: port 80 of Device d already leads to App a
            Network lab: spec.subnet: shares addresses with Network default on Device d
        "#]],
    );
}

#[test]
fn a_setting_that_no_node_knows_or_takes_is_named() {
    flaws(
        "
kind: Device
name: d
spec:
  soft_serial: s
  settings:
    timer.config.interval: 10
    timer.metric.interval: soon
    timer.confg.interval: 10
",
        expect![[r#"
            Device d: spec.settings.timer.confg.interval: unknown key
            Device d: spec.settings.timer.metric.interval: "soon" is not 5 to 3600
        "#]],
    );
}

#[test]
fn ports_and_what_is_below_them_are_checked() {
    flaws(
        "
kind: Hardware
name: box
spec:
  io:
    - {label: eth0, interface: eth0}
    - {label: eth1, interface: an-interface-too-long}
    - {label: com1, type: com, parent: nowhere, functions: 2}
    - {label: eth0}
---
kind: Device
name: d
spec:
  hardware: box
  base_os: none
  project: none
  labels: {site: 'a b'}
  local_profile_server: {address: a/b, token: {secret: none}}
  vlans:
    - {name: v1, below: eth0, id: 4095}
    - {name: v2, below: v1, id: 2}
    - {name: com1, below: eth0, id: 4095}
  bonds: [{name: bond0, members: [eth0, com1], mode: 802.3ad, mii: {interval_ms: 1}, arp: {interval_ms: 1, targets: []}}]
  ports:
    - {name: eth0, shared_labels: [uplink, v1], wifi: [{ssid: ''}]}
    - {name: lan, below: eth9, management: false, address: none, dns: [9.9.9.9]}
    - {name: com1, management: false, access: {enrolment: none}}
",
        expect![[r#"
            Device d: spec.project: there is no Project none (known: there is none) (missing)
            Device d: spec.base_os: there is no BaseOs none (known: there is none) (missing)
            Device d: spec.labels.site: use 1 to 63 letters, digits, `-`, `_`, `.`, `/`
            Device d: spec.bonds[0].interface: "bond0" is no interface's name, or the kernel's own
            Device d: spec.bonds[0].arp: a bond is watched by mii or by arp
            Device d: spec.bonds[0].members: eth0 has an address of its own
            Device d: spec.bonds[0].members: com1 is no Ethernet card
            Device d: spec.bonds[0].members: com1 has an address of its own
            Device d: spec.vlans[0].id: use 1 to 4094
            Device d: spec.vlans[0].below: eth0 is in a bond; put the VLAN on that
            Device d: spec.vlans[1].below: "v1" is no network card or bond
            Device d: spec.vlans[2].name: com1 is the label of something else too
            Device d: spec.vlans[2].id: use 1 to 4094
            Device d: spec.vlans[2].id: two of 4095 on eth0
            Device d: spec.vlans[2].below: eth0 is in a bond; put the VLAN on that
            Device d: spec.ports[0].shared_labels: "uplink" is reserved, or a port's name, or no label
            Device d: spec.ports[0].wifi[0].ssid: use 1 to 32 bytes
            Device d: spec.ports[0].wifi[0].password: a protected network needs a password; scheme: open has none
            Device d: spec.ports[0].wifi: eth0 is no such card
            Device d: spec.ports[1].dns: belongs under address.static without DHCP
            Device d: spec.ports[1].below: there is no hardware eth9 (it has eth0, eth1, com1, eth0)
            Device d: spec.ports[2].access.enrolment: there is no Enrolment none (known: there is none) (missing)
            Device d: spec.local_profile_server.token: there is no Secret none (known: there is none) (missing)
            Device d: spec.local_profile_server.address: write HOST or HOST:PORT
            Hardware box: spec.io[1].interface: "an-interface-too-long" is no interface's name
            Hardware box: spec.io[2].functions: only a card of type ethernet-pf is divided
            Hardware box: spec.io[2].parent: there is no group nowhere
            Hardware box: spec.io[3].label: there are two eth0
            Hardware box: spec.io[3].interface: a network card needs its interface's name
        "#]],
    );
}

#[test]
fn a_template_gives_no_project_away() {
    flaws(
        "
kind: Template
name: t
spec: {device: {template: t, project: a, labels: {project: a, site: berlin}}}
",
        expect![[r#"
            Template t: spec.device.template: a template has none itself
            Template t: spec.device.project: write it in each Device: its project decides who may change it
            Template t: spec.device.labels.project: write it in each Device: its project decides who may change it
        "#]],
    );
}

#[test]
fn apps_are_checked_beyond_the_simple() {
    flaws(
        "
kind: Device
name: d
---
kind: App
name: a
spec:
  device: d
  image: x
  vm: {resolution: wide, vnc: {display: 100}}
  user_data: A=1
  environment: {'#A': b, B: \"x\\ny\", C: 'd '}
  hardware: [{name: usb1, vlan: 3}]
  network: [{name: default, vlan: 4095}]
  snapshots: {max: 0, wanted: [{id: a, when: now}, {id: a, when: now}]}
  rules:
    - {}
    - {protocol: icmp, local_port: 80}
    - {protocol: tcp, port_map: 80, drop: true}
    - {ip: 10.0.0.0/8, host: ' ', limit: {rate: 0, per: second, burst: 1}, adapter: 'a b'}
---
kind: App
name: b
spec: {device: d, image: x, virtualization: vm, service: true, cloud_init_version: 1, ports: ['80:80']}
---
kind: App
name: c
spec: {device: d, image: x, rules: [{protocol: tcp, local_port: 80, port_map: 8080}]}
",
        expect![[r#"
            App a: spec.network[0].vlan: use 1 to 4094
            App a: spec.network[0].vlan: Network default is no switch
            App a: spec.rules[0].ip: a rule says what it is about: ip, host, protocol or adapter
            App a: spec.rules[1].protocol: a port needs protocol tcp or udp beside it
            App a: spec.rules[2].drop: a rule has one of drop, limit and port_map
            App a: spec.rules[2].local_port: a port map needs the port at the node's edge
            App a: spec.rules[3].limit.rate: use 1 or more
            App a: spec.rules[3].host: is no host name
            App a: spec.rules[3].adapter: is no label of a port
            App a: spec.environment.#A: must be one line, and its name no comment
            App a: spec.environment.B: must be one line, and its name no comment
            App a: spec.environment.C: ends with blanks, which a node does not see
            App a: spec.user_data: an app has user_data or an environment: they travel in one place
            App a: spec.user_data: a container takes #cloud-config, a script, or a secret; KEY=VALUE belongs to environment
            App a: spec.vm: a container has none; set virtualization: vm
            App a: spec.vm.resolution: write WIDTHxHEIGHT, as 1024x768
            App a: spec.vm.vnc.display: use 0 to 99
            App a: spec.hardware[0].vlan: only a function of a divided card has one
            App a: spec.snapshots.wanted: each needs an id of its own
            App a: spec.snapshots.max: 2 are wanted
            App b: spec.cloud_init_version: there is no user_data
            App b: spec.service: only a container can be one
            App a: spec.hardware: Device d has no hardware that could be given
            App c: spec.rules[0]: port 80 of Device d already leads to App b
        "#]],
    );
}

#[test]
fn the_other_kinds_are_checked() {
    flaws(
        "
kind: Secret
name: empty
spec: {value: ''}
---
kind: Datastore
name: s3
spec: {type: s3, host: 'https://s3 x', user: {secret: none}, password: {secret: none}, trust: [x]}
---
kind: Datastore
name: plain
spec: {type: http, host: h, region: r, password: {secret: empty}}
---
kind: BaseOs
name: b
spec: {image: 'Bad Name', version: ''}
---
kind: Enrolment
name: e
spec: {url: 'ftp://x', request: {renew_percent: 101}}
---
kind: Patch
name: p
spec: {apps: [none], files: [{name: a/b, text: x, volume: none}, {name: c, base64: '*'}, {name: c}]}
---
kind: Template
name: t
spec: {variables: {'a b': c}, device: 5}
---
kind: Network
name: n
spec: {subnet: 10.1.0.0/24, forward_lldp: true, routes: [{to: 10.2.0.0/16}]}
---
kind: Network
name: w
spec: {type: switch, dns: [9.9.9.9], access_ports: [{vlan: 0, port: eth0}]}
",
        expect![[r#"
            Datastore plain: spec.region: only s3 has regions
            Datastore plain: spec.password: a password over http could be read on the way; use https
            Datastore s3: spec.host: "https://s3 x" is no endpoint; write a host or a URL
            Datastore s3: spec.path: names no bucket or container
            Datastore s3: spec.user: there is no Secret none (known: empty) (missing)
            Datastore s3: spec.password: there is no Secret none (known: empty) (missing)
            Datastore s3: spec.trust[0]: is no certificate in PEM
            Network n: spec.forward_lldp: a local network has none
            Network n: spec.routes[0].gateway: a route needs a gateway or a port
            Network w: spec.dns: a switch network has none
            Network w: spec.access_ports[0].vlan: use 1 to 4094
            BaseOs b: spec.image: "Bad Name" is no `repository:tag`
            BaseOs b: spec.version: must be what the image says of itself
            Secret empty: spec.value: is empty
            Enrolment e: spec.url: "ftp://x" is no http or https URL
            Enrolment e: spec.request.renew_percent: use 0 to 100
            Patch p: spec.apps[0]: there is no App none (known: there is none) (missing)
            Patch p: spec.files[0].name: "a/b" is no name of a file
            Patch p: spec.files[0].text: say one of text, base64 and volume
            Patch p: spec.files[0].volume: there is no Volume none (known: there is none) (missing)
            Patch p: spec.files[1].base64: is not base64
            Patch p: spec.files[2].name: there are two files c
            Patch p: spec.files[2].text: say one of text, base64 and volume
            Template t: spec.device: is no object with the fields of a device's spec
            Template t: spec.variables.a b: use letters, digits, `_` and `-`
        "#]],
    );
}

#[test]
fn what_does_not_fit_into_a_config_is_named() {
    let long = "x".repeat(60_000);
    let text = format!(
        "kind: Device\nname: d\n---\nkind: App\nname: a\nspec: {{device: d, image: x, virtualization: vm, user_data: {long}}}\n---\nkind: Patch\nname: p\nspec: {{apps: [a], files: [{{name: f, text: {long}}}]}}\n"
    );
    let found: Vec<String> = check(&objects(&text)).iter().map(|f| f.field.clone()).collect();
    assert_eq!(found, ["spec.user_data", "spec.files[0].text"]);
}

#[test]
fn two_ports_cannot_have_one_card() {
    flaws(
        "
kind: Hardware
name: box
spec:
  io:
    - {label: lan1, interface: eth0}
    - {label: lan2, interface: eth1}
    - {label: lan3, interface: eth2}
---
kind: Device
name: d
spec:
  hardware: box
  bonds: [{name: pair, interface: eth2, members: [lan2], mode: active-backup}]
  vlans:
    - {name: office, below: lan2, id: 5}
    - {name: eth0, below: lan1, id: 6}
  ports:
    - {name: a, below: lan1}
    - {name: b, below: lan1}
    - {name: office}
---
kind: Device
name: e
spec:
  ports: [{name: a, interface: eth0}, {name: b, interface: eth0}]
",
        expect![[r#"
            Device d: spec.vlans[0].below: lan2 is in a bond; put the VLAN on that
            Device d: spec.bonds[0].interface: eth2 is the interface of the card lan3
            Device d: spec.vlans[1].interface: eth0 is the interface of the card lan1
            Device d: spec.ports[1].below: port a has lan1 already
            Device e: spec.ports[1].interface: port a has eth0 already
        "#]],
    );
}

#[test]
fn a_fixed_address_is_that_of_a_host_and_of_one_alone() {
    flaws(
        "
kind: Device
name: d
spec:
  ports:
    - {name: p0, address: {static: {address: 10.1.0.0/24}}}
    - {name: p1, address: {static: {address: 10.1.0.255/24, gateway: 10.1.0.1}}}
    - {name: p2, address: {static: {address: 224.0.0.5/24}}}
    - {name: p3, address: {static: {address: 10.1.0.5/24, gateway: 10.1.0.5}}}
    - {name: p4, address: {static: {address: 10.1.0.5/24, gateway: 10.1.0.0}}}
    - {name: p5, address: {static: {address: 10.1.0.4/31, gateway: 10.1.0.5}}}
---
kind: Network
name: lab
spec: {subnet: 10.2.0.0/24, gateway: 10.2.0.254}
---
kind: App
name: a
spec:
  device: d
  image: 'x:1'
  network: [{name: lab, address: 10.2.0.254}, {name: lab, address: 10.2.0.9}]
---
kind: App
name: b
spec: {device: d, image: 'x:1', network: [{name: lab, address: 10.2.0.9}]}
---
kind: App
name: c
spec: {device: d, image: 'x:1', network: [{name: lab, address: 10.2.0.255}]}
",
        expect![[r#"
            Device d: spec.ports[0].address.static.address: 10.1.0.0 is no host of 10.1.0.0/24
            Device d: spec.ports[1].address.static.address: 10.1.0.255 is no host of 10.1.0.0/24
            Device d: spec.ports[2].address.static.address: 224.0.0.5 is no host of 224.0.0.0/24
            Device d: spec.ports[3].address.static.gateway: 10.1.0.5 is the port's own, or no host of 10.1.0.0/24
            Device d: spec.ports[4].address.static.gateway: 10.1.0.0 is the port's own, or no host of 10.1.0.0/24
            App a: spec.network[0].address: 10.2.0.254 is the gateway of 10.2.0.0/24, or no host of it
            App c: spec.network[0].address: 10.2.0.255 is the gateway of 10.2.0.0/24, or no host of it
            App b: spec.network[0].address: 10.2.0.9 on Device d is already that of App a
        "#]],
    );
}

#[test]
fn what_devices_need_to_know_is_asked_for() {
    flaws(
        "
kind: Device
name: d
spec:
  ports:
    - {name: eth0}
    - {name: wlan0, wifi: [{ssid: shop}, {ssid: guests, scheme: open}, {ssid: work, scheme: wpa-eap}]}
---
kind: Hardware
name: h
spec:
  io:
    - {label: a, type: usb, pci: '00:1f.6', usb: '1-2'}
    - {label: b, type: usb, pci: '10000:e1:00.0', usb: '1:2.3'}
---
kind: Volume
name: v
spec: {size: 1MiB}
---
kind: App
name: a
spec: {device: d, image: 'x:1', volumes: [{volume: v, mount: /a}, {volume: v, mount: /b}]}
",
        expect![[r#"
            Device d: spec.ports[1].wifi[0].password: a protected network needs a password; scheme: open has none
            Device d: spec.ports[1].wifi[2].password: a protected network needs a password; scheme: open has none
            Device d: spec.ports[1].wifi[2].identity: wpa-eap needs a user
            App a: spec.volumes[1].volume: v is there already: an app has a volume once
            Hardware h: spec.io[0].pci: is no place on a PCI bus, as 0000:00:1f.6
            Hardware h: spec.io[0].usb: is no place on a USB bus, as 1:2 or 1:2.3
        "#]],
    );
}
