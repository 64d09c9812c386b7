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
    (1..).zip(documents).map(object).map(|o| (o.key.clone(), o)).collect()
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
