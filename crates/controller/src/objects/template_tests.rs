//! Templates, variables, and what changes in words.

use std::collections::BTreeMap;
use std::sync::Arc;

use expect_test::{Expect, expect};
use model::desired::Device;

use super::check_tests::objects;
use super::compile_tests::told;
use super::{check, diff, labels, node};

const FLEET: &str = "
kind: Template
name: kiosk
spec:
  variables: {mtu: 1400, site: nowhere}
  device:
    labels: {kind: kiosk, site: '{{ site }}'}
    settings: {timer.config.interval: 30, timer.metric.interval: 30}
    ports:
      - {name: eth0, mtu: '{{ mtu }}', alias: 'wire of {{ device }}'}
---
kind: Device
name: a
spec: {template: kiosk, variables: {site: berlin}, settings: {timer.metric.interval: 60}}
---
kind: Device
name: b
spec: {template: kiosk, variables: {site: bonn, mtu: 1500}}
---
kind: Device
name: c
---
kind: App
name: web
spec:
  devices: {match: 'kind=kiosk, site in (berlin, bonn)'}
  image: web
  environment: {SITE: '{{ site }}', PLACE: '{{device}}/{{ ds.meta }}'}
";

#[test]
fn a_template_gives_what_a_device_does_not_say() {
    let all = objects(FLEET);
    assert_eq!(check(&all), []);
    let (a, b, c) = (told(&all, "a"), told(&all, "b"), told(&all, "c"));
    let port = |d: &Device| {
        let port = d.ports.values().next().unwrap();
        (port.mtu, port.options.alias.clone())
    };
    assert_eq!(port(&a), (Some(1400), "wire of a".to_owned()));
    assert_eq!(port(&b), (Some(1500), "wire of b".to_owned()));
    assert!(c.ports.is_empty());
    assert_eq!(a.items["timer.config.interval"], "30");
    assert_eq!(a.items["timer.metric.interval"], "60", "its own wins");
}

#[test]
fn an_app_finds_its_nodes_by_labels_and_takes_their_variables() {
    let all = objects(FLEET);
    let app = |device: &str| told(&all, device).apps.into_values().next();
    let (a, b) = (app("a").unwrap(), app("b").unwrap());
    assert_eq!(app("c"), None);
    // What is no name of a variable belongs to somebody else.
    assert_eq!(a.environment, ["PLACE=a/{{ ds.meta }}", "SITE=berlin"]);
    assert_eq!(b.environment, ["PLACE=b/{{ ds.meta }}", "SITE=bonn"]);
    // Another value of a variable it uses is another restart counter; of one it does not, none.
    let moved = objects(&FLEET.replace("site: berlin", "site: bonn"));
    let of = |all, device| told(all, device).apps.into_values().next().unwrap().restart;
    assert_ne!(of(&moved, "a"), a.restart);
    assert_eq!(of(&moved, "b"), b.restart);
}

/// What queries see is what the compiler sees, whatever is written.
#[test]
fn labels_for_queries_are_those_of_the_completed_device() {
    let mut all = objects(FLEET);
    all.extend(objects(
        "
kind: Template
name: wide
spec:
  variables: {tier: '2'}
  device: {labels: {tier: '{{ tier }}', rack: 7, lit: true, of: '{{device}}-{{none}}x'}}
---
kind: Template
name: bare
spec: {device: {profile: p}}
---
kind: Template
name: broken
spec: {device: {labels: {kind: [a], rack: '1'}}}
---
{kind: Device, name: d, spec: {template: wide, labels: {rack: '8', own: x}}}
---
{kind: Device, name: e, spec: {template: wide, variables: {tier: lab}}}
---
{kind: Device, name: f, spec: {template: bare, labels: {own: x}}}
---
{kind: Device, name: g, spec: {template: gone, labels: {own: x}}}
---
{kind: Device, name: h, spec: {template: broken, labels: {own: x}}}
",
    ));
    let mut said = Vec::new();
    for object in all.values() {
        let Some(node) = node(&all, object) else { continue };
        let found: BTreeMap<String, String> =
            labels(&all, object).into_iter().map(|(k, v)| (k.to_owned(), v.into_owned())).collect();
        assert_eq!(found, node.spec.labels, "{}", object.key);
        said.push(format!("{} {found:?}\n", object.key.name));
    }
    expect![[r#"
        a {"kind": "kiosk", "site": "berlin"}
        b {"kind": "kiosk", "site": "bonn"}
        c {}
        d {"lit": "true", "of": "d-x", "own": "x", "rack": "8", "tier": "2"}
        e {"lit": "true", "of": "e-x", "rack": "7", "tier": "lab"}
        f {"own": "x"}
        g {"own": "x"}
        h {"own": "x"}
    "#]]
    .assert_eq(&said.concat());
}

#[track_caller]
fn flaws(text: &str, expect: Expect) {
    let lines: Vec<String> = check(&objects(text)).iter().map(|f| format!("{f}\n")).collect();
    expect.assert_eq(&lines.concat());
}

#[test]
fn what_a_template_lacks_is_named() {
    flaws(
        "
kind: Template
name: t
spec: {device: {ports: [{name: '{{ port }}'}]}}
---
kind: Template
name: u
spec: {variables: {mtu: wide}, device: {ports: [{name: eth0, mtu: '{{ mtu }}'}]}}
---
kind: Device
name: d
spec: {template: t}
---
kind: Device
name: e
spec: {template: u}
---
kind: App
name: a
spec: {device: e, image: x, environment: {A: '{{ colour }}'}}
",
        expect![[r#"
            Device d: spec.template: Template t: device.ports[0].name: Device d has no variable port (it has device)
            Device d: spec.ports[0].name: use 1 to 64 letters, digits, `.`, `_` and `-`
            Device d: spec.ports[0].interface: "" is no interface's name
            Device e: spec.template: Template u: ports[0].mtu: invalid type: string "wide", expected u16
            App a: spec.environment.A: Device e has no variable colour (it has device, mtu)
        "#]],
    );
}

#[track_caller]
fn changes(before: &str, after: &str, expect: Expect) {
    let (before, mut after) = (objects(before), objects(after));
    // Counters as the fleet moves them.
    for (key, object) in &mut after {
        let Some(was) = before.get(key).filter(|was| was.spec != object.spec) else { continue };
        let object = Arc::make_mut(object);
        object.generation += 1;
        if let (super::Spec::App(old), super::Spec::App(new)) = (&was.spec, &object.spec) {
            let need = super::bumps(old, new);
            object.restart += u32::from(need.restart);
            object.purge += u32::from(need.purge);
        }
    }
    let (before, after) = (told(&before, "d"), told(&after, "d"));
    let lines: Vec<String> = diff(&before, &after).iter().map(|d| format!("{d}\n")).collect();
    expect.assert_eq(&lines.concat());
}

const BEFORE: &str = "
kind: Device
name: d
spec: {ports: [{name: eth0}], settings: {timer.config.interval: 60}}
---
kind: Network
name: lab
spec: {subnet: 10.2.0.0/24}
---
kind: App
name: web
spec: {device: d, image: web, network: lab, ports: ['80:80']}
---
kind: App
name: old
spec: {device: d, image: old}
---
kind: Secret
name: s
spec: {value: one}
---
kind: App
name: guest
spec: {device: d, image: guest, virtualization: vm, user_data: {secret: s}}
";

#[test]
fn nothing_changed_is_nothing_said() {
    changes(BEFORE, BEFORE, expect![[""]]);
}

#[test]
fn changes_are_told_with_what_they_do() {
    let after = BEFORE
        .replace("timer.config.interval: 60", "timer.config.interval: 10")
        .replace("{name: eth0}", "{name: eth0, cost: 5}, {name: eth1}")
        .replace("10.2.0.0/24", "10.3.0.0/24")
        .replace("ports: ['80:80']", "ports: ['81:80'], memory: 1GiB")
        .replace("spec: {device: d, image: old}", "spec: {device: e, image: old}")
        .replace("image: guest,", "image: guest, disk: 2GiB,")
        .replace("value: one", "value: two");
    changes(
        BEFORE,
        &after,
        expect![[r#"
            setting timer.config.interval: value 60 → 10 (takes effect at once)
            node: other hardware (changes the way to the controller)
            port eth0: cost 0 → 5 (changes the way to the controller)
            port eth1: added (changes the way to the controller)
            network lab: addresses 10.2.0.0/24 (10.2.0.1, 10.2.0.2 to 10.2.0.254) → 10.3.0.0/24 (10.3.0.1, 10.3.0.2 to 10.3.0.254) (renumbers a network in use)
            volume guest-root: made anew (restarts with fresh volumes)
            volume old-root: deleted with what is on it (stops)
            app web: memory 256.0 MiB → 1.0 GiB (restarts)
            app web: other access rules (takes effect at once)
            app old: removed (stops)
            app guest: other user data (restarts with fresh volumes)
        "#]],
    );
}
