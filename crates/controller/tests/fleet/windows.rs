//! What waits for a maintenance window, and what becomes of it when it is taken back meanwhile.
//!
//! The clock of these tests stands at 2026-02-02T02:40:00Z, a Monday.

use controller::client::Apply;
use controller::view::{Applied, DeviceDiff, Rollout, Version};

use crate::common::{Home, device, wait_ms};
use crate::edges::{edges, plan, round, until_it_rests, web};

const NIGHT: &str = r#"{"match": "name=edge-00", "from": "03:00", "minutes": 60}"#;

fn waits(applied: &Applied) -> Vec<&str> {
    applied.changes.iter().flat_map(|c| &c.waits).map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_back_before_the_window_opens_costs_an_app_nothing() {
    let mut home = Home::start().await;
    let mut edges = edges(&home, 2).await;
    let operator = home.operator();
    operator.put("/windows/night", NIGHT).await.unwrap();
    let before = edges[0].counters();

    let applied = operator.apply(&web("2", "128MiB"), false).await.unwrap();
    assert_eq!(waits(&applied), ["1 device waits for a maintenance window"]);
    round(&mut edges, 31).await;
    assert_eq!((edges[0].image(), edges[1].image()), ("web:1", "web:2"));
    // Back again: what it would do, and what it does.
    let back = web("1", "64MiB");
    let diff: DeviceDiff = operator.send("/devices/edge-00/diff", &back).await.unwrap();
    assert!(!diff.consequences.iter().any(|c| c.disrupts) && diff.waits.is_none(), "{diff:?}");
    let diff: DeviceDiff = operator.send("/devices/edge-01/diff", &back).await.unwrap();
    assert!(diff.consequences.iter().any(|c| c.text.contains("fresh volumes")), "{diff:?}");
    let dry = Apply { dry_run: true, ..Apply::default() };
    assert!(waits(&operator.apply_as(&back, &dry).await.unwrap()).is_empty());
    let all: Vec<Version> = operator.ask("/objects/app/web/history").await.unwrap();
    let first = format!("/objects/app/web/history/{}", all[1].revision);
    let applied: Applied = operator.send(&first, "").await.unwrap();
    assert!(waits(&applied).is_empty(), "{applied:?}");
    round(&mut edges, 31).await;
    assert_eq!((edges[0].image(), edges[0].counters()), ("web:1", before));
    assert!(edges[1].image() == "web:1" && edges[1].counters().1 >= before.1 + 2);
    assert!(operator.device("edge-00").await.unwrap().problems.is_empty());

    // Nothing comes of it later: not by a start of the controller, nor when the window opens.
    home.again().await;
    edges.iter_mut().for_each(|e| e.node.port = home.port());
    wait_ms(20 * 60_000);
    round(&mut edges, 31).await;
    round(&mut edges, 1).await;
    assert_eq!((edges[0].image(), edges[0].counters()), ("web:1", before));
    // What comes after is still another counter than the one it has.
    home.operator().apply(&web("3", "64MiB"), false).await.unwrap();
    round(&mut edges, 1).await;
    assert_eq!((edges[0].image(), edges[0].counters().1), ("web:3", before.1 + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_somebody_asks_for_is_not_lost_while_a_change_waits() {
    let home = Home::start().await;
    let mut edges = edges(&home, 1).await;
    let operator = home.operator();
    operator.put("/windows/night", NIGHT).await.unwrap();
    let (restart, purge) = edges[0].counters();
    operator.apply(&web("2", "128MiB"), false).await.unwrap();
    operator.restart_app("web").await.unwrap();
    round(&mut edges, 31).await;
    assert_eq!((edges[0].image(), edges[0].counters()), ("web:1", (restart + 1, purge)));
    operator.apply(&web("1", "64MiB"), false).await.unwrap();
    round(&mut edges, 31).await;
    assert_eq!((edges[0].image(), edges[0].counters()), ("web:1", (restart + 1, purge)));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_is_touched_waits() {
    let home = Home::start().await;
    let mut edges = edges(&home, 2).await;
    let operator = home.operator();
    operator.put("/windows/night", NIGHT).await.unwrap();
    operator.apply(&web("2", "64MiB"), false).await.unwrap();
    round(&mut edges, 31).await;
    // Something else, on another node.
    let cam = |memory: &str| {
        format!(
            "{{kind: App, name: cam, spec: {{device: edge-01, image: 'cam:1', datastore: far, memory: {memory}}}}}\n---\n"
        )
    };
    let applied = operator.apply(&cam("64MiB"), false).await.unwrap();
    assert!(waits(&applied).is_empty(), "{applied:?}");
    // Both at once: only the one that runs there waits.
    let both = cam("128MiB") + &web("3", "64MiB");
    let applied = operator.apply(&both, false).await.unwrap();
    let by_app: Vec<(&str, usize)> =
        applied.changes.iter().map(|c| (c.key.name.as_str(), c.waits.len())).collect();
    assert_eq!(by_app, [("cam", 0), ("web", 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rollout_never_told_costs_nothing_when_it_is_taken_back() {
    let home = Home::start().await;
    let mut edges = edges(&home, 3).await;
    let operator = home.operator();
    let before = edges[2].counters();
    let text = plan(&web("2", "128MiB"), r#", "waves": [1]"#);
    let _: Rollout = operator.send("/rollouts/r", &text).await.unwrap();
    round(&mut edges, 31).await;
    operator.apply(&web("1", "64MiB"), false).await.unwrap();
    let _: Rollout = operator.send("/rollouts/r/promote?all=true", "").await.unwrap();
    let done = until_it_rests(&home, &mut edges, "r").await;
    assert_eq!(done.phase, "done", "{done:#?}");
    assert!(edges.iter().all(|e| e.image() == "web:1"));
    assert!(edges[0].counters().1 >= before.1 + 2, "it had the change");
    assert_eq!([edges[1].counters(), edges[2].counters()], [before; 2]);
}

async fn is_gone_when_the_window_opens(prune: bool) {
    let apps = |edges: &[crate::edges::Edge]| -> Vec<usize> {
        edges.iter().map(|e| e.told.as_ref().unwrap().apps.len()).collect()
    };
    let mut home = Home::start().await;
    let mut edges = edges(&home, 2).await;
    let operator = home.operator();
    operator.put("/windows/night", NIGHT).await.unwrap();
    let before = edges[0].counters();
    // Also an app whose change waits already.
    operator.apply(&web("2", "64MiB"), false).await.unwrap();
    round(&mut edges, 31).await;
    if prune {
        let how = Apply { prune: vec![controller::objects::Kind::App], ..Apply::default() };
        let applied = operator.apply_as(&device("edge-00", "edge-00"), &how).await.unwrap();
        assert_eq!(waits(&applied), ["1 device waits for a maintenance window"]);
    } else {
        operator.delete("App", "web", false).await.unwrap();
    }
    round(&mut edges, 31).await;
    assert_eq!(apps(&edges), [1, 0]);
    home.again().await;
    edges.iter_mut().for_each(|e| e.node.port = home.port());
    round(&mut edges, 1).await;
    assert_eq!(apps(&edges), [1, 0], "a start of the controller changes nothing");
    assert_eq!((edges[0].image(), edges[0].counters()), ("web:1", before));
    wait_ms(20 * 60_000);
    round(&mut edges, 31).await;
    round(&mut edges, 1).await;
    assert_eq!(apps(&edges), [0, 0]);
    // A new app of that name is told as it is.
    home.operator().apply(&web("3", "64MiB"), false).await.unwrap();
    round(&mut edges, 1).await;
    assert_eq!(apps(&edges), [1, 1]);
    assert_eq!(edges[0].counters(), edges[1].counters());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_runs_on_until_the_window_opens() {
    is_gone_when_the_window_opens(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_documents_leave_out_runs_on_until_the_window_opens() {
    is_gone_when_the_window_opens(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_are_those_of_the_labels_that_a_change_gives() {
    let home = Home::start().await;
    let mut edges = edges(&home, 1).await;
    let operator = home.operator();
    let window = r#"{"match": "site=a", "from": "03:00", "minutes": 60}"#;
    operator.put("/windows/night", window).await.unwrap();
    let at = |site: &str| {
        let spec = format!("{{soft_serial: edge-00, labels: {{site: {site}}}}}");
        format!("{{kind: Device, name: edge-00, spec: {spec}}}\n---\n")
    };
    // Into the window, which is closed.
    let applied = operator.apply(&(at("a") + &web("2", "64MiB")), false).await.unwrap();
    assert_eq!(waits(&applied).last(), Some(&"1 device waits for a maintenance window"));
    round(&mut edges, 31).await;
    assert_eq!(edges[0].image(), "web:1");
    // And out of it.
    let out = at("b") + &web("3", "64MiB");
    let diff: DeviceDiff = operator.send("/devices/edge-00/diff", &out).await.unwrap();
    assert!(diff.waits.is_none() && diff.consequences.iter().any(|c| c.disrupts), "{diff:?}");
    operator.apply(&out, false).await.unwrap();
    round(&mut edges, 31).await;
    round(&mut edges, 1).await;
    assert_eq!(edges[0].image(), "web:3");
}
