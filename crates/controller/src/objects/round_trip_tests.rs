//! Whatever `check` accepts reaches a node as it was meant.

use api::convert::config;
use api::pb::common::{CipherBlock, CipherContext};
use proptest::prelude::*;

use super::check;
use super::check_tests::objects;
use super::compile_tests::told;

/// A block that only looks sealed: every bit turned over.
fn turn(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|b| !b).collect()
}

/// Either of some texts, or nothing.
fn one(of: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(of)
}

prop_compose! {
    fn device()(
        hardware in one(&["", "hardware: box,"]),
        address in one(&[
            "",
            "address: {static: {address: 192.0.2.9/24, gateway: 192.0.2.1, dns: [192.0.2.2]}},",
            "dns: [9.9.9.9], ntp: [pool.example], ignore: {ntp: true}, domain: d.example,",
        ]),
        family in one(&["", "family: v6,", "family: v4_only,", "mtu: 1400,", "cost: 255,"]),
        extra in one(&[
            "",
            "alias: up, shared_labels: [wan], local_changes: true,",
            "proxy: {servers: [{protocol: https, host: p.example, port: 3128}], pac: QQ==},",
            "access: {enrolment: scep},",
        ]),
        second in one(&[
            "",
            ", {name: wlan0, management: false, wifi: [{ssid: corp, password: {secret: s}, priority: 3}]}",
            ", {name: wwan0, management: false, cellular: {sim_slot: 1, access_points: [{apn: i, user: u, password: {secret: s}, attach: {apn: a}, technologies: [lte, 5g]}]}}",
            ", {name: v5, address: none, management: false}",
            ", {name: b1, cost: 9}",
            ", {name: lan, below: eth1, address: none, management: false}",
        ]),
        own in one(&[
            "",
            "maintenance: true, profile: night, project: p,",
            "local_profile_server: {address: 'a:8888', token: {secret: s}}, base_os: base,",
            "local_console: {url: 'https://loc.example', bundles: [store]},",
            "disks: {array: raid1, disks: [{disk: {name: /dev/sda}, use: online}]},",
        ]),
    ) -> String {
        format!(
            "kind: Device\nname: d\nspec: {{{hardware} {own} vlans: [{{name: v5, below: eth1, id: 5}}], \
             bonds: [{{name: b1, members: [eth2, eth3], mode: active-backup, mii: {{interval_ms: 100}}}}], \
             settings: {{timer.config.interval: 60}}, \
             ports: [{{name: eth0, {address} {family} {extra} management: true}}{second}]}}\n"
        )
    }
}

prop_compose! {
    fn app()(
        network in one(&[
            "",
            "network: [lab, {name: wire, vlan: 7, discover: true, order: 2}],",
            "network: [{name: lab, address: 10.2.0.9, mac: '02:00:00:00:00:09', rules: [{host: a.example, drop: true}]}],",
            "network: [],",
        ]),
        data in one(&[
            "",
            "environment: {A: b, C: ''},",
            "user_data: {secret: s}, cloud_init_version: 4,",
            "user_data: '#cloud-config',",
        ]),
        kind in one(&[
            "",
            "service: true,",
            "virtualization: vm, vm: {mode: fml, boot: uefi, tpm: false, vnc: {display: 3, password: {secret: s}}, resolution: 1024x768},",
            "virtualization: vm, metadata: open_stack, docker: true,",
        ]),
        rules in one(&[
            "",
            "rules: [{protocol: udp, remote_port: 53, limit: {rate: 5, per: minute, burst: 7}, direction: egress}],",
            "rules: [{protocol: tcp, local_port: 81, adapter: eth0, port_map: 80}], outbound: deny,",
        ]),
        rest in one(&[
            "",
            "hardware: [{name: usb1}, {name: com1, order: 3}], placement: {pin_cpus: true, vmm_memory: 5000001},",
            "profiles: [night], snapshots: {max: 2, wanted: [{id: s1, when: now}], active: s1, rollback: 2},",
            "volumes: [{volume: data, mount: /data}, {volume: disk, mount: /disk}], disk: 0,",
            "memory: 5000001, start_delay_seconds: 9, logs: false, active: false, stats_address: 10.2.0.7,",
        ]),
    ) -> String {
        format!("kind: App\nname: a\nspec: {{device: '*', image: pic, {network} {data} {kind} {rules} {rest}}}\n")
    }
}

const REST: &str = "
kind: Secret
name: s
spec: {value: hunter2}
---
kind: Hardware
name: box
spec:
  manufacturer: M
  product: P
  io:
    - {label: eth0, interface: eth0, pci: '0000:01:00.0'}
    - {label: eth1, interface: enp3s0, usage: shared}
    - {label: eth2, interface: eth2}
    - {label: eth3, interface: eth3}
    - {label: wlan0, type: wlan, interface: wlan0}
    - {label: wwan0, type: wwan, usb: '1:2'}
    - {label: usb1, type: usb, usb: '1:4', group: usb1}
    - {label: com1, type: com, serial: /dev/ttyS0, irq: '4', ioports: 3f8-3ff}
---
kind: Enrolment
name: scep
spec: {url: 'https://ca.example/scep', challenge: {secret: s}, request: {common_name: n, key: ecdsa-p256, renew_percent: 50}}
---
kind: Project
name: p
spec: {enterprise: E, enterprise_id: '7'}
---
kind: Datastore
name: store
spec: {type: s3, path: bucket, region: eu-central-1, user: key, password: {secret: s}}
---
kind: Image
name: pic
spec: {datastore: [store, local], path: pic.qcow2, format: vhdx, metadata: m, max_size: 0}
---
kind: BaseOs
name: base
spec: {image: 'eve:1', version: '1.2'}
---
kind: Volume
name: data
spec: {size: 1GiB, clear_text: true}
---
kind: Volume
name: disk
spec: {image: pic, target: kernel, readonly: true}
---
kind: Network
name: lab
spec:
  subnet: 10.2.0.0/16
  dns: [10.2.0.1, 9.9.9.9]
  hosts: {db.local: [10.2.0.3]}
  flow_log: true
  propagate_routes: true
  routes: [{to: 10.9.0.0/16, port: wan, probe: {ping_gateway: true, ping_max_cost: 3}, prefer_cheap: true}]
---
kind: Network
name: wire
spec: {type: switch, port: eth1, access_ports: [{vlan: 7, port: eth1}], forward_lldp: true, bpdu_guard: wan}
---
kind: Patch
name: fix
spec:
  apps: [a]
  version: '2'
  files:
    - {name: a.txt, text: hello, metadata: m}
    - {name: b.bin, base64: AAEC}
    - {name: c.key, text: {secret: s}, metadata: ''}
    - {name: d.img, volume: disk}
";

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(160) })]

    #[test]
    fn what_is_accepted_arrives_whole(device in device(), app in app()) {
        let all = objects(&format!("{device}---\n{app}---{REST}"));
        let flaws = check(&all);
        let told = told(&all, "d");
        let context = CipherContext { context_id: "c".to_owned(), ..CipherContext::default() };
        let mut seal = |plain: &[u8]| CipherBlock {
            cipher_context_id: "c".to_owned(),
            cipher_data: turn(plain),
            ..CipherBlock::default()
        };
        let wire = config::write_sealed(&told, vec![context], &mut seal);
        if flaws.is_empty() {
            let text = format!("{wire:?}");
            // The wire has no sealed form of the token of a local server or the password of a screen.
            let clear = told.local_server.is_some() || app.contains("vnc");
            prop_assert!(clear || !text.contains("hunter2"));
            let mut open = |_: &[CipherContext], block: &CipherBlock| Ok(turn(&block.cipher_data));
            let back = config::read_sealed(&wire, told.id, &mut open).unwrap();
            prop_assert_eq!(&back.refused, &vec![]);
            prop_assert_eq!(back, told);
        } else {
            // Refused by us for a reason: the rest still compiles, and is no surprise.
            prop_assert!(flaws.iter().all(|f| !f.text.is_empty()));
        }
    }
}

#[test]
fn most_of_what_is_tried_is_accepted() {
    let all = objects(&format!(
        "kind: Device\nname: d\nspec: {{hardware: box, ports: [{{name: eth0}}]}}\n---\nkind: App\nname: a\nspec: {{device: d, image: pic, hardware: [{{name: usb1}}]}}\n---{REST}"
    ));
    assert_eq!(check(&all), []);
}
