//! Groups, windows and alert rules as documents, and objects that are read back and applied again.

use controller::client::{Apply, Client, ClientError};
use controller::objects::{Key, Kind};
use controller::view::{Action, Applied, Group, NamedRule, NamedWindow, Object};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::alerts::receiver;
use crate::common::{Home, device, now, wait_ms};
use crate::edges::{edges, web};

const FLEET: &str = "
kind: AlertRule
name: silent
spec: {when: silent, match: group=shops, minutes: 15, url: 'https://hooks.example/eve', secret: {secret: hook}}
---
kind: Window
name: night
spec: {match: group=shops, from: '02:00', minutes: 60}
---
kind: Group
name: shops
spec: {query: 'site=berlin', note: the shops}
---
kind: Secret
name: hook
spec: {value: sign-with-this}
---
kind: AlertRule
name: disk
spec: {when: disk_full, percent: 80, url: 'https://hooks.example/eve', secret: inline-words}
";

fn actions(applied: &Applied) -> Vec<(String, Action)> {
    let mut all: Vec<_> = applied.changes.iter().map(|c| (c.key.to_string(), c.action)).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn all_are(applied: &Applied, action: Action) {
    assert!(applied.changes.iter().all(|c| c.action == action), "{:?}", actions(applied));
}

/// As `eve objects -o yaml` writes them.
fn documents(objects: &[Object]) -> String {
    let one = |o: &Object| json!({"kind": o.key.kind, "name": o.key.name, "spec": o.spec});
    let texts = objects.iter().map(|o| serde_saphyr::to_string(&one(o)).unwrap());
    texts.collect::<Vec<_>>().join("---\n")
}

fn refusal(e: ClientError) -> (u16, String) {
    match e {
        ClientError::Refused { status, failure } => {
            let flaws: Vec<String> = failure.flaws.iter().map(ToString::to_string).collect();
            (status, format!("{}\n{}", failure.error, flaws.join("\n")))
        }
        e => panic!("{e}"),
    }
}

async fn refused(client: &Client, text: &str) -> String {
    refusal(client.apply(text, false).await.unwrap_err()).1
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_windows_and_rules_are_documents_as_all_others() {
    let home = Home::start().await;
    let operator = home.operator();
    let dry = Apply { dry_run: true, ..Apply::default() };
    all_are(&operator.apply_as(FLEET, &dry).await.unwrap(), Action::Created);
    assert!(operator.ask::<Vec<Group>>("/groups").await.unwrap().is_empty(), "it was dry");

    let applied = operator.apply(FLEET, false).await.unwrap();
    assert_eq!(applied.changes.len(), 5);
    all_are(&applied, Action::Created);
    all_are(&operator.apply(FLEET, false).await.unwrap(), Action::Unchanged);
    let groups: Vec<Group> = operator.ask("/groups").await.unwrap();
    assert_eq!((groups[0].name.as_str(), groups[0].query.as_str()), ("shops", "site=berlin"));
    let windows: Vec<NamedWindow> = operator.ask("/windows").await.unwrap();
    assert_eq!((windows[0].name.as_str(), windows[0].spec.minutes), ("night", 60));
    let rules: Vec<NamedRule> = operator.ask("/alert-rules").await.unwrap();
    assert!(rules.len() == 2 && rules.iter().all(|r| r.has_secret));
    let text = format!("{rules:?}{:?}", operator.objects().await.unwrap());
    assert!(!text.contains("inline-words") && !text.contains("sign-with-this"), "{text}");

    // What the commands change is what documents are compared with.
    operator.put("/groups/shops", r#"{"query": "site=paris"}"#).await.unwrap();
    let applied = operator.apply(FLEET, false).await.unwrap();
    let changed: Vec<_> =
        applied.changes.iter().filter(|c| c.action == Action::Changed).map(|c| &c.key).collect();
    assert_eq!(changed, [&Key::new(Kind::Group, "shops")]);

    // What is named is not removed; what is pruned is, unless it is still used.
    let group = "{kind: Group, name: other, spec: {query: 'x=y'}}";
    let prune = |kinds: &[Kind]| Apply { prune: kinds.to_vec(), ..Apply::default() };
    let e = operator.apply_as(group, &prune(&[Kind::Group])).await.unwrap_err();
    let (status, text) = refusal(e);
    assert_eq!(status, 422);
    assert!(text.contains("Window night: spec.match: there is no group \"shops\""), "{text}");
    assert!(text.contains("AlertRule silent: spec.match: there is no group"), "{text}");
    let (status, text) = refusal(operator.delete("Group", "shops", false).await.unwrap_err());
    assert_eq!(status, 409);
    let used = "Group shops is still used: Window night: spec.match: names Group shops; \
                AlertRule silent: spec.match: names Group shops";
    assert!(text.starts_with(used), "{text}");
    let e = operator.delete("Secret", "hook", false).await.unwrap_err();
    assert!(refusal(e).1.contains("AlertRule silent: spec.secret: names Secret hook"));
    let all = [Kind::Group, Kind::Window, Kind::AlertRule];
    let applied = operator.apply_as(group, &prune(&all)).await.unwrap();
    let gone = applied.changes.iter().filter(|c| c.action == Action::Removed).count();
    assert_eq!((gone, applied.changes.len()), (4, 5), "{:?}", actions(&applied));
    assert!(operator.ask::<Vec<NamedWindow>>("/windows").await.unwrap().is_empty());
    operator.delete("group", "other", false).await.unwrap();
    assert!(operator.ask::<Vec<Group>>("/groups").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_one_names_object_and_field_and_changes_nothing() {
    let home = Home::start().await;
    let operator = home.operator();
    for (document, want) in [
        ("{kind: Group, name: g, spec: {query: ''}}", "Group g: spec.query: the query is empty"),
        (
            "{kind: Group, name: g, spec: {query: 'group=a'}}",
            "Group g: spec.query: it names the group \"a\", and the query of a group cannot",
        ),
        ("{kind: Group, name: g, spec: {qery: a}}", "Group g: spec.qery: unknown field `qery`"),
        (
            "{kind: Window, name: w, spec: {match: '*', from: '25:00', minutes: 5}}",
            "Window w: spec.from: \"25:00\" is no time of day",
        ),
        (
            "{kind: Window, name: w, spec: {match: '*', from: '02:00', minutes: 5, zone: X}}",
            "Window w: spec.zone: \"X\" is no time zone",
        ),
        (
            "{kind: Window, name: w, spec: {match: group=no, from: '02:00', minutes: 5}}",
            "Window w: spec.match: there is no group \"no\"",
        ),
        ("{kind: AlertRule, name: r, spec: {when: never}}", "AlertRule r: spec.when: unknown"),
        (
            "{kind: AlertRule, name: r, spec: {when: silent, percent: 101}}",
            "AlertRule r: spec.percent: 101 is not from 1 to 100",
        ),
        (
            "{kind: AlertRule, name: r, spec: {when: silent, url: 'http://x/'}}",
            "AlertRule r: spec.url: ",
        ),
        (
            "{kind: AlertRule, name: r, spec: {when: silent, secret: {secret: no}}}",
            "AlertRule r: spec.secret: there is no Secret no",
        ),
        (
            "{kind: AlertRule, name: r, spec: {when: silent, secret: (not shown)}}",
            "AlertRule r: spec.secret: no value is kept for it",
        ),
        ("{kind: Secret, name: s, spec: {value: (not shown)}}", "Secret s: spec.value: no value"),
    ] {
        // Together with something good: all or nothing.
        let text = format!("{{kind: Volume, name: v, spec: {{size: 1GiB}}}}\n---\n{document}\n");
        let said = refused(&operator, &text).await;
        assert!(said.contains(want), "{document}: {said}");
        assert!(operator.objects().await.unwrap().is_empty(), "{document}");
    }
    let window = "{kind: Window, name: w, spec: {match: group=no, from: '02:00', minutes: 5}}";
    let applied = operator.apply(window, true).await.unwrap();
    assert_eq!(applied.missing.len(), 1);
    let e = operator.ask::<Value>("/objects/window/w/history").await.unwrap_err();
    assert!(refusal(e).1.contains("no versions are kept"));
    let how = Apply { expected: vec![(Key::new(Kind::Window, "w"), 1)], ..Apply::default() };
    let e = operator.apply_as(window, &how).await.unwrap_err();
    assert!(refusal(e).1.contains("it has no generations"));
    let plan = json!({"documents": window}).to_string();
    let e = operator.send::<Value>("/rollouts/r", &plan).await.unwrap_err();
    assert!(refusal(e).1.contains("no device is told of Window w"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_limited_to_projects_does_not_run_the_fleet() {
    let home = Home::start().await;
    let operator = home.operator();
    operator.apply(FLEET, false).await.unwrap();
    let spec = json!({"name": "t", "role": "operator", "projects": ["a"]}).to_string();
    let made: Value = operator.send("/me/tokens", &spec).await.unwrap();
    let root = std::fs::read(home.data().join("pki/root.cert.pem")).unwrap();
    let limited = Client::new(operator.url(), made["secret"].as_str().unwrap(), &root).unwrap();
    let group = "{kind: Group, name: shops, spec: {query: '*'}}";
    let (status, text) = refusal(limited.apply(group, false).await.unwrap_err());
    assert_eq!(status, StatusCode::FORBIDDEN.as_u16(), "{text}");
    assert!(limited.objects().await.unwrap().is_empty());
    assert_eq!(refusal(limited.delete("window", "night", true).await.unwrap_err()).0, 404);
    let volume = "{kind: Volume, name: v, spec: {size: 1GiB, labels: {project: a}}}";
    let how = Apply { prune: vec![Kind::Group, Kind::Window], ..Apply::default() };
    // A volume has no labels: it is refused before anything is pruned.
    assert!(limited.apply_as(volume, &how).await.is_err());
    assert_eq!(operator.ask::<Vec<Group>>("/groups").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_holds_what_comes_in_the_same_documents() {
    let home = Home::start().await;
    let _edges = edges(&home, 2).await;
    // The clock of the tests stands at 2026-02-02T02:40:00Z or some hours after: 01:00 is over.
    let window =
        "kind: Window\nname: night\nspec: {match: 'name=edge-00', from: '01:00', minutes: 1}\n";
    let text = format!("{window}---\n{}", web("1", "128MiB"));
    let dry = Apply { dry_run: true, ..Apply::default() };
    for how in [dry, Apply::default()] {
        let applied = home.operator().apply_as(&text, &how).await.unwrap();
        let app = applied.changes.iter().find(|c| c.key.kind == Kind::App).unwrap();
        assert_eq!(app.waits, ["1 device waits for a maintenance window"]);
    }
    let windows: Vec<NamedWindow> = home.operator().ask("/windows").await.unwrap();
    assert!(windows[0].open_until.is_none() && windows[0].opens_at > Some(now()));
    // Without the window nothing waits: also when it goes in the same documents.
    let other = "{kind: Group, name: other, spec: {query: '*'}}";
    let how = Apply { prune: vec![Kind::Window], ..Apply::default() };
    let text = format!("{other}\n---\n{}", web("1", "256MiB"));
    let applied = home.operator().apply_as(&text, &how).await.unwrap();
    let removed = applied.changes.iter().filter(|c| c.action == Action::Removed).count();
    assert_eq!(removed, 1, "{applied:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_signed_with_the_secret_that_its_rule_names() {
    let home = Home::start().await;
    let operator = home.operator();
    operator.apply(&device("edge-1", "one"), false).await.unwrap();
    home.node("one").onboard().await;
    let (port, trust, calls) = receiver().await;
    let rule = json!({"kind": "AlertRule", "name": "silent", "spec": {
        "when": "silent", "minutes": 30, "trust": trust,
        "url": format!("https://localhost:{port}/hook"), "secret": {"secret": "hook"},
    }});
    let text = format!("{rule}\n---\n{{kind: Secret, name: hook, spec: {{value: quiet}}}}\n");
    operator.apply(&text, false).await.unwrap();
    // A change by the commands that says nothing of the secret keeps it.
    let put = json!({"rule": {"when": "silent", "minutes": 31, "trust": trust,
                              "url": format!("https://localhost:{port}/hook")}});
    operator.put("/alert-rules/silent", &put.to_string()).await.unwrap();
    wait_ms(32 * 60_000);
    let mut told = Vec::new();
    for _ in 0..100 {
        told = calls.lock().unwrap().clone();
        if !told.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let body = told[0].split_once("\r\n\r\n").unwrap().1;
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"quiet");
    let tag = hex::encode(aws_lc_rs::hmac::sign(&key, body.as_bytes()));
    assert!(told[0].contains(&format!("x-eve-signature: sha256={tag}")), "{}", told[0]);
    // Without the secret it is told nothing, rather than unsigned.
    operator.delete("Secret", "hook", true).await.unwrap();
    let e = operator.send::<Value>("/alert-rules/silent/test", "").await.unwrap_err();
    assert!(refusal(e).1.contains("the secret hook that signs it is not there"));
}

/// Of every kind one, with texts that YAML could take for something else.
const EVERYTHING: &str = r##"
kind: Device
name: edge-1
spec:
  serial: '007'
  soft_serial: '1e3'
  labels: {site: berlin, on: 'yes', number: '0x10'}
  settings: {timer.config.interval: 10, debug.enable.ssh: 'false'}
  variables: {a: '{{ b }}', t: "two\nlines\n"}
  ports: [{name: eth0, address: {static: {address: 192.0.2.9/24, gateway: 192.0.2.1, dns: [192.0.2.2]}}}]
---
kind: Datastore
name: store
spec: {type: s3, path: bucket, region: eu, user: key, password: {secret: s}, trust: ["-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n"]}
---
kind: Image
name: pic
spec: {datastore: [store, local], path: pic.qcow2, format: qcow2, max_size: 1GiB}
---
kind: Volume
name: data
spec: {size: 1536MiB}
---
kind: Network
name: lab
spec: {subnet: 10.2.0.0/16, hosts: {db.local: [10.2.0.3]}, flow_log: true}
---
kind: App
name: web
spec:
  device: {match: 'site=berlin'}
  image: pic
  virtualization: vm
  network: [lab]
  ports: ["8080:80", "53:53/udp"]
  environment: {A: 'no', B: '1', C: 'x: {y} # z', D: '~', E: 'null', F: '- a', G: '2026-01-01', H: "it's \"so\""}
---
kind: Hardware
name: box
spec: {manufacturer: M, product: P, io: [{label: eth0, interface: eth0, pci: '0000:01:00.0'}]}
---
kind: BaseOs
name: base
spec: {image: pic, version: '1.20'}
---
kind: Secret
name: s
spec: {value: "hunter2: 'x'\n"}
---
kind: Enrolment
name: scep
spec: {url: 'https://ca.example/scep', challenge: {secret: s}, request: {common_name: n}}
---
kind: Patch
name: fix
spec: {apps: [web], version: '2', files: [{name: a.txt, text: "#!/bin/sh\necho 'a: b'\n"}, {name: c, text: {secret: s}}]}
---
kind: Project
name: p
spec: {description: 'a: b', enterprise: '1.0'}
---
kind: Template
name: kiosk
spec: {variables: {lang: 'no'}, device: {labels: {kind: kiosk}}}
"##;

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_read_back_and_applied_again_unchanged() {
    let home = Home::start().await;
    let operator = home.operator();
    let text = format!("{EVERYTHING}---{FLEET}");
    let applied = operator.apply(&text, false).await.unwrap();
    all_are(&applied, Action::Created);
    let node = controller::view::NewDevice {
        name: "expected".into(),
        serial: "SN-9".into(),
        onboard_cert: Some(
            String::from_utf8(std::fs::read(home.data().join("pki/onboard.cert.pem")).unwrap())
                .unwrap(),
        ),
        ..Default::default()
    };
    operator.add_device(&node).await.unwrap();
    let objects = operator.objects().await.unwrap();
    for kind in Kind::ALL {
        assert!(objects.iter().any(|o| o.key.kind == kind), "no {kind} is tried");
    }
    let before = home.operator().objects().await.unwrap();
    let said = documents(&objects);
    assert!(!said.contains("hunter2"), "{said}");
    let again = operator.apply(&said, false).await.unwrap();
    assert_eq!(again.changes.len(), objects.len());
    all_are(&again, Action::Unchanged);
    assert_eq!(operator.objects().await.unwrap(), before, "nothing was written either");
    // The value is still what it was.
    let same = "{kind: Secret, name: s, spec: {value: \"hunter2: 'x'\\n\"}}";
    all_are(&operator.apply(same, false).await.unwrap(), Action::Unchanged);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_found_by_labels_name_id_and_serial() {
    let home = Home::start().await;
    let operator = home.operator();
    let text = "
kind: Device
name: edge-1
spec: {serial: SN-1, labels: {site: berlin}}
---
kind: Device
name: edge-2
spec: {soft_serial: SN-2, labels: {site: paris}}
---
kind: Device
name: sn-3
spec: {serial: edge-2}
---
{kind: Group, name: b, spec: {query: site=berlin}}
";
    operator.apply(text, false).await.unwrap();
    let names =
        |all: Vec<controller::view::Device>| all.into_iter().map(|d| d.name).collect::<Vec<_>>();
    for (query, found) in [
        ("site=berlin", "edge-1"),
        ("group=b", "edge-1"),
        ("name=edge-*", "edge-1 edge-2"),
        ("site=rome", ""),
    ] {
        assert_eq!(names(operator.devices_matching(query).await.unwrap()).join(" "), found);
    }
    let (status, text) = refusal(operator.devices_matching("a b").await.unwrap_err());
    assert!(status == 422 && text.starts_with("match: "), "{text}");
    let id = operator.device("edge-1").await.unwrap().id.to_string();
    for (text, found) in [
        ("edge-1", "edge-1"),
        (id.as_str(), "edge-1"),
        ("SN-1", "edge-1"),
        ("SN-2", "edge-2"),
        ("edge-2", "edge-2"),
        ("SN-9", ""),
        ("", ""),
    ] {
        assert_eq!(names(operator.devices_named(text).await.unwrap()).join(" "), found, "{text}");
    }
    let controller = operator.controller().await.unwrap();
    assert_eq!((controller.devices, controller.states.get("expected")), (3, Some(&3)));
}

/// Somebody deletes a group in the moment in which somebody else sets a window or a rule for it: one of
/// the two is refused, and nothing names a group that is not there.
async fn a_group_and_who_names_it(one: &Client, two: &Client) {
    let window = r#"{"match": "group=shops", "from": "02:00", "minutes": 60}"#;
    let rule = r#"{"rule": {"when": "silent", "match": "group=shops", "minutes": 5}}"#;
    let (mut kept, mut refused) = (0, 0);
    for round in 0..12 {
        one.put("/groups/shops", r#"{"query": "site=berlin"}"#).await.unwrap();
        let (path, body) =
            if round % 2 == 0 { ("/windows/night", window) } else { ("/alert-rules/quiet", rule) };
        let (set, removed) = tokio::join!(two.put(path, body), one.remove("/groups/shops"));
        let groups: Vec<Group> = one.ask("/groups").await.unwrap();
        let windows: Vec<NamedWindow> = one.ask("/windows").await.unwrap();
        let rules: Vec<NamedRule> = one.ask("/alert-rules").await.unwrap();
        let named = windows.len() + rules.len();
        assert_eq!(
            (groups.len(), named),
            if set.is_ok() { (1, 1) } else { (0, 0) },
            "{set:?} {removed:?}"
        );
        assert_eq!(set.is_ok(), removed.is_err(), "{set:?} {removed:?}");
        match (set, removed) {
            (Ok(()), Err(e)) => {
                assert!(refusal(e).1.contains("the group shops is still used by the "));
                one.remove(path).await.unwrap();
                kept += 1;
            }
            (Err(e), Ok(())) => {
                assert!(refusal(e).1.contains("there is no group \"shops\""));
                refused += 1;
            }
            both => panic!("{both:?}"),
        }
    }
    println!("{kept} set, {refused} refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_group_goes_from_under_what_is_just_being_set() {
    let home = Home::start().await;
    a_group_and_who_names_it(&home.operator(), &home.operator()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_group_goes_from_under_what_another_process_is_just_setting() {
    let server = crate::postgres::Postgres::start();
    let one = Home::on(Some(server.location())).await;
    let two = one.twin().await;
    let file = |name: &str| std::fs::read_to_string(one.data().join(name)).unwrap();
    let url = format!("https://localhost:{}", two.port());
    let other =
        Client::new(&url, &file("admin.token"), file("pki/root.cert.pem").as_bytes()).unwrap();
    a_group_and_who_names_it(&one.operator(), &other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_keeps_its_secret_unless_it_is_told_another_way_to_one() {
    let home = Home::start().await;
    let operator = home.operator();
    operator.apply("{kind: Secret, name: hook, spec: {value: words}}", false).await.unwrap();
    let set = async |more: &str, secret: &str| {
        let body = format!(r#"{{"rule": {{"when": "silent"{more}}}{secret}}}"#);
        operator.put("/alert-rules/r", &body).await.unwrap();
        let all: Vec<NamedRule> = operator.ask("/alert-rules").await.unwrap();
        let named = all[0].rule.secret.as_ref().and_then(|s| s.secret()).map(|s| s.secret.clone());
        (all[0].has_secret, named)
    };
    assert_eq!(set("", "").await, (false, None));
    assert_eq!(set("", r#", "secret": "one""#).await, (true, None));
    assert_eq!(set("", "").await, (true, None));
    let named = Some("hook".to_owned());
    assert_eq!(set(r#", "secret": {"secret": "hook"}"#, "").await, (true, named.clone()));
    assert_eq!(set("", "").await, (true, named));
    assert_eq!(set("", r#", "secret": "two""#).await, (true, None));
    let wrong = r#"{"rule": {"when": "silent", "secret": {"secret": "none"}}}"#;
    let e = operator.put("/alert-rules/r", wrong).await.unwrap_err();
    assert!(refusal(e).1.contains("there is no Secret none"));
}
