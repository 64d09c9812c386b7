//! Which devices a query means: in the list of nodes, in groups, windows, rollouts and alert rules.

use std::sync::Mutex;

use controller::client::Apply;
use controller::view::{Applied, Device, DeviceDiff, Group, Rollout};

use crate::common::{Home, device, wait_ms};
use crate::edges::{edges, plan, round, web};

fn names(devices: &[Device]) -> Vec<&str> {
    devices.iter().map(|d| d.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_a_template_count_wherever_devices_are_asked_for() {
    let home = Home::start().await;
    let operator = home.operator();
    let mut edges = edges(&home, 2).await;
    let documents = "
kind: Template
name: kiosk
spec: {variables: {site: nowhere}, device: {labels: {kind: kiosk, site: '{{site}}'}}}
---
kind: Device
name: edge-00
spec: {soft_serial: edge-00, template: kiosk, variables: {site: berlin}, labels: {tier: a}}
---
kind: Group
name: shops
spec: {query: 'kind=kiosk, site=berlin'}
---
kind: Window
name: night
spec: {match: group=shops, from: '04:00', minutes: 60}
---
kind: AlertRule
name: quiet
spec: {when: silent, match: 'site=berlin', minutes: 5}
";
    operator.apply(documents, false).await.unwrap();
    let found: Vec<Device> = operator.ask("/devices?match=kind%3Dkiosk,tier%3Da").await.unwrap();
    assert_eq!(names(&found), ["edge-00"]);
    let labels: Vec<String> = found[0].labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(labels, ["kind=kiosk", "site=berlin", "tier=a"]);
    let found: Vec<Device> = operator.ask("/devices?match=site!%3Dberlin").await.unwrap();
    assert_eq!(names(&found), ["edge-01"]);
    let group: Group = operator.ask("/groups/shops").await.unwrap();
    assert_eq!(group.devices, ["edge-00"]);

    // A window, and what waits for it.
    let change = web("2", "64MiB");
    let diff: DeviceDiff = operator.send("/devices/edge-00/diff", &change).await.unwrap();
    assert!(diff.waits.unwrap().starts_with("waits for its window night"));
    let diff: DeviceDiff = operator.send("/devices/edge-01/diff", &change).await.unwrap();
    assert_eq!(diff.waits, None);

    // A rollout: what it may touch, and its waves.
    let only = r#", "match": "kind=kiosk""#;
    let refused = operator.send::<Rollout>("/rollouts/r?dry_run=true", &plan(&change, only)).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("outside of `match`: edge-01"), "{refused}");
    let waves = r#", "waves": [{"match": "site=berlin"}]"#;
    let begun: Rollout =
        operator.send("/rollouts/r?dry_run=true", &plan(&change, waves)).await.unwrap();
    let first: Vec<&str> =
        begun.devices.iter().filter(|d| d.wave == 1).map(|d| d.name.as_str()).collect();
    assert_eq!(first, ["edge-00"]);

    // An alert.
    round(&mut edges, 1).await;
    wait_ms(3_600_000);
    let mut open = Vec::new();
    for _ in 0..100 {
        open = operator.ask::<Vec<controller::view::Alert>>("/alerts").await.unwrap();
        if !open.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let about: Vec<&str> = open.iter().map(|a| a.subject.as_str()).collect();
    assert_eq!(about, ["Device edge-00"], "{open:?}");
}

/// What the client of this test was hinted at.
static HINTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn hinted() -> Vec<String> {
    std::mem::take(&mut HINTS.lock().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_meant_is_done_and_said() {
    let home = Home::start().await;
    let operator = home.operator().hinting(|hint| HINTS.lock().unwrap().push(hint.to_owned()));
    operator.apply(&device("edge-1", "one"), false).await.unwrap();
    let none: Vec<Device> = operator.ask("/devices?match=state%3Dexpected").await.unwrap();
    assert!(none.is_empty());
    assert_eq!(hinted(), ["no device has a label \"state\" (none has any)"]);
    let labelled = "{kind: Device, name: edge-1, spec: {soft_serial: one, labels: {site: berlin}}}";
    operator.apply(labelled, false).await.unwrap();
    for good in ["site%3D%3Dberlin", "site%3Dparis,name%3Dx,!lab", "*"] {
        let _: Vec<Device> = operator.ask(&format!("/devices?match={good}")).await.unwrap();
        assert!(hinted().is_empty(), "{good}");
    }
    // A label may come later: it is set, and said.
    let text = "no device has a label \"tier\" (there are site)";
    operator.put("/groups/g", r#"{"query": "tier=a"}"#).await.unwrap();
    assert_eq!(hinted(), [format!("Group g: spec.query: {text}")]);
    let window = r#"{"match": "tier", "from": "02:00"}"#;
    operator.put("/windows/w", window).await.unwrap();
    assert_eq!(hinted(), [format!("Window w: spec.match: {text}")]);
    operator
        .put("/alert-rules/r", r#"{"rule": {"when": "silent", "match": "tier"}}"#)
        .await
        .unwrap();
    assert_eq!(hinted(), [format!("AlertRule r: spec.match: {text}")]);
    operator.put("/groups/g", r#"{"query": "site=b\u00f6"}"#).await.unwrap();
    assert!(hinted().is_empty());

    // The same of documents, and of images that nothing vouches for.
    let documents = "
{kind: Group, name: g, spec: {query: tier=a}}
---
{kind: Datastore, name: files, spec: {type: https, host: files.example}}
---
{kind: Image, name: disk, spec: {datastore: files, path: disk.qcow2, format: qcow2}}
";
    let dry = Apply { dry_run: true, ..Apply::default() };
    for applied in [
        operator.apply_as(documents, &dry).await.unwrap(),
        operator.apply(documents, false).await.unwrap(),
    ] {
        let said: Vec<String> = applied.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said.contains(&format!("Group g: spec.query: {text}")), "{said:?}");
        assert!(said.iter().any(|s| s.starts_with("Image disk: spec.sha256: it is not said")));
    }
    assert!(hinted().is_empty());
    let _: DeviceDiff = operator.send("/devices/edge-1/diff", documents).await.unwrap();
    assert_eq!(hinted().len(), 2);
    // An older controller does not say it.
    let old: Applied = serde_json::from_str(r#"{"changes": [], "missing": []}"#).unwrap();
    assert!(old.warnings.is_empty());
}
