//! Which devices a query means: in the list of nodes, in groups, windows, rollouts and alert rules.

use controller::view::{Device, DeviceDiff, Group, Rollout};

use crate::common::{Home, wait_ms};
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
