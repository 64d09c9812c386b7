//! Changes that go out in waves, wait for windows, come at their time, and go back.

use std::time::Duration;

use controller::view::{DeviceDiff, DeviceDrift, Rollout, Scheduled, Version};

use crate::common::{Home, now, wait_ms};
use crate::edges::{edges, plan, round, shown, until_it_rests, web};

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_over_fifty_devices_of_which_three_fail_stops_and_says_why() {
    let home = Home::start().await;
    let mut edges = edges(&home, 50).await;
    for (n, why) in [(3, "no space left"), (12, "image not found"), (20, "image not found")] {
        edges[n].fails = Some(("web:2", why));
    }
    let text = plan(&web("2", "64MiB"), r#", "max_failures": 2"#);
    let begun: Rollout = home.operator().send("/rollouts/web-2", &text).await.unwrap();
    let sizes: Vec<usize> = begun.waves.iter().map(|w| w.devices).collect();
    assert_eq!(sizes, [1, 5, 25, 19]);

    let stopped = until_it_rests(&home, &mut edges, "web-2").await;
    assert_eq!(stopped.phase, "stopped", "{stopped:#?}");
    assert!(stopped.why.starts_with("3 of 50 devices failed, 2 may: "), "{}", stopped.why);
    for part in ["edge-03: App web", "no space left", "edge-12: App web", "edge-20: App web"] {
        assert!(stopped.why.contains(part), "{part}: {}", stopped.why);
    }
    let failed: Vec<&str> =
        stopped.devices.iter().filter(|d| d.step == "failed").map(|d| d.name.as_str()).collect();
    assert_eq!(failed, ["edge-03", "edge-12", "edge-20"]);
    // The last wave never got it, and why is told.
    round(&mut edges, 31).await;
    for (n, edge) in edges.iter().enumerate() {
        assert_eq!(edge.image(), if n < 31 { "web:2" } else { "web:1" }, "edge-{n:02}");
    }
    let drift: DeviceDrift = home.operator().ask("/devices/edge-49/drift").await.unwrap();
    assert_eq!(drift.drift[0].reason, "waits for its wave of the rollout web-2", "{drift:?}");
    let drift: DeviceDrift = home.operator().ask("/devices/edge-12/drift").await.unwrap();
    assert!(drift.drift.iter().any(|d| d.reason.contains("image not found")), "{drift:?}");
    let events = home.operator().events(0, 1000).await.unwrap();
    assert!(events.iter().any(|e| e.object == "Rollout web-2" && e.text.contains("stopped: 3 of")));
    // The whole fleet's drift, page by page, is the same as at once.
    let whole: Vec<DeviceDrift> = home.operator().ask("/drift?limit=1000").await.unwrap();
    let (mut paged, mut last): (Vec<DeviceDrift>, _) = (Vec::new(), String::new());
    loop {
        let path = format!("/drift?limit=5&after={last}");
        let page: Vec<DeviceDrift> = home.operator().ask(&path).await.unwrap();
        let over = page.len() < 5;
        paged.extend(page);
        if over {
            break;
        }
        last.clone_from(&paged.last().unwrap().device);
    }
    assert!(whole.len() >= 22, "three failed and nineteen wait: {whole:#?}");
    assert_eq!(paged, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rolled_back_starts_again_where_it_ran_and_nowhere_else() {
    let mut home = Home::start().await;
    let mut edges = edges(&home, 6).await;
    let before = edges[5].counters();
    edges[2].fails = Some(("web:2", "image not found"));
    let more = r#", "waves": [1, 2], "rollback": true"#;
    let text = plan(&web("2", "128MiB"), more);
    let dry: Rollout = home.operator().send("/rollouts/web-2?dry_run=true", &text).await.unwrap();
    assert_eq!(dry.waves.len(), 3);
    assert!(home.operator().ask::<Rollout>("/rollouts/web-2").await.is_err(), "it was dry");
    let _: Rollout = home.operator().send("/rollouts/web-2", &text).await.unwrap();
    let again = home.operator().send::<Rollout>("/rollouts/web-2", &text).await.unwrap_err();
    assert!(again.to_string().contains("already"), "{again}");
    let other = plan(&web("3", "64MiB"), "");
    let held = home.operator().send::<Rollout>("/rollouts/web-3", &other).await.unwrap_err();
    for part in ["waits for its wave of the rollout web-2", "`eve rollout rollback web-2`"] {
        assert!(held.to_string().contains(part), "{held}");
    }

    round(&mut edges, 31).await;
    round(&mut edges, 31).await;
    // In the middle of it the controller starts anew.
    home.again().await;
    for edge in &mut edges {
        edge.node.port = home.port();
    }
    let back = until_it_rests(&home, &mut edges, "web-2").await;
    assert_eq!(back.phase, "rolled back", "{back:#?}");
    round(&mut edges, 31).await;
    for (n, edge) in edges.iter().enumerate() {
        assert_eq!(edge.image(), "web:1", "edge-{n}");
        let memory = edge.told.as_ref().unwrap().apps.values().next().unwrap().memory;
        assert_eq!(memory, model::Bytes::mib(64));
        let (restart, purge) = edge.counters();
        if n < 3 {
            // They took 2 and 2 for the change; on the way back both must differ again.
            assert!(restart > before.0 + 1 && purge > before.1 + 1, "{n}: {restart} {purge}");
        } else {
            assert_eq!((restart, purge), before, "edge-{n} never had it");
        }
    }
    // The history says all of it, and an earlier version comes back as a new one.
    let all: Vec<Version> = home.operator().ask("/objects/app/web/history").await.unwrap();
    assert_eq!(all.len(), 3, "{all:#?}");
    assert_eq!(all[0].spec, all[2].spec);
    let path = format!("/objects/app/web/history/{}", all[1].revision);
    let compared: serde_json::Value = home.operator().ask(&path).await.unwrap();
    assert_eq!(compared["since"][0], "image: \"web:2\", now \"web:1\"", "{compared}");
    let _: serde_json::Value = home.operator().send(&path, "").await.unwrap();
    round(&mut edges, 31).await;
    assert!(edges.iter().all(|e| e.image() == "web:2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn people_pause_resume_and_promote_and_somebody_elses_change_pauses() {
    let home = Home::start().await;
    let mut edges = edges(&home, 4).await;
    let operator = home.operator();
    for (waves, why) in [("[0]", "a wave of 0"), (r#"[{"match": "a=b"}]"#, "none of the devices")] {
        let text = plan(&web("2", "64MiB"), &format!(r#", "waves": {waves}"#));
        let refused = operator.send::<Rollout>("/rollouts/r", &text).await.unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
    }
    let text = plan(&web("2", "64MiB"), r#", "waves": [1]"#);
    let _: Rollout = operator.send("/rollouts/r", &text).await.unwrap();
    let _: Rollout = operator.send("/rollouts/r/pause", "").await.unwrap();
    round(&mut edges, 31).await;
    round(&mut edges, 31).await;
    assert!(edges.iter().all(|e| e.image() == "web:1"));
    let refused = operator.send::<Rollout>("/rollouts/r/pause", "").await.unwrap_err();
    assert!(refused.to_string().contains("only a running one"), "{refused}");
    let _: Rollout = operator.send("/rollouts/r/resume", "").await.unwrap();
    round(&mut edges, 31).await;
    // No time goes by, in which the first could pass.
    round(&mut edges, 0).await;
    assert_eq!(edges[0].image(), "web:2");
    let applied = operator.apply(&web("3", "64MiB"), false).await.unwrap();
    assert_eq!(applied.changes[0].waits, ["3 devices wait for rollout r"]);
    round(&mut edges, 31).await;
    let paused = shown(&home, "r").await;
    assert_eq!(
        (paused.phase.as_str(), paused.why.as_str()),
        ("paused", "App web was changed by admin meanwhile")
    );
    let promoted: Rollout = operator.send("/rollouts/r/promote?all=true", "").await.unwrap();
    assert_eq!(promoted.phase, "running");
    let done = until_it_rests(&home, &mut edges, "r").await;
    assert_eq!(done.phase, "done", "{done:#?}");
    assert!(edges.iter().all(|e| e.image() == "web:3"));
    operator.remove("/rollouts/r").await.unwrap();
    assert!(operator.ask::<Rollout>("/rollouts/r").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_does_not_overwrite_what_somebody_else_changed() {
    let home = Home::start().await;
    let mut edges = edges(&home, 3).await;
    let operator = home.operator();
    edges[1].fails = Some(("web:3", "image not found"));
    let text = plan(&web("2", "64MiB"), r#", "waves": [1, 1], "rollback": true"#);
    let _: Rollout = operator.send("/rollouts/r", &text).await.unwrap();
    round(&mut edges, 31).await;
    // Somebody else changes the same app, and the rollout goes on with that.
    operator.apply(&web("3", "96MiB"), false).await.unwrap();
    let lost = "App web was changed by admin meanwhile, which would be lost";
    let refused = operator.send::<Rollout>("/rollouts/r/rollback", "").await.unwrap_err();
    assert!(refused.to_string().contains(lost), "{refused}");
    let _: Rollout = operator.send("/rollouts/r/promote", "").await.unwrap();
    let refused = operator.send::<Rollout>("/rollouts/r/rollback", "").await.unwrap_err();
    assert!(refused.to_string().contains(lost), "{refused}");
    // Not by itself either: it stops, and who waits goes on waiting.
    let stopped = until_it_rests(&home, &mut edges, "r").await;
    assert_eq!(stopped.phase, "stopped", "{stopped:#?}");
    assert!(
        stopped.why.ends_with("not rolled back: App web was changed by admin meanwhile"),
        "{}",
        stopped.why
    );
    round(&mut edges, 31).await;
    assert_eq!(edges[2].image(), "web:1");
    let all: Vec<Version> = operator.ask("/objects/app/web/history").await.unwrap();
    assert_eq!(all.len(), 3, "{all:#?}");
    assert_eq!(all[0].spec.as_ref().unwrap()["image"], "web:3");

    // The way back that is named there: it says what it overwrites.
    let path = format!("/objects/app/web/history/{}", all[2].revision);
    let applied: controller::view::Applied = operator.send(&path, "").await.unwrap();
    let overwrites = applied.changes[0].overwrites.as_deref().unwrap();
    let version = format!("version {} by admin of ", all[0].revision);
    assert!(overwrites.starts_with(&version), "{overwrites}");
    let differ = "image: \"web:3\", now \"web:1\"; memory: \"96MiB\", now \"64MiB\"";
    assert!(overwrites.ends_with(differ), "{overwrites}");
    let lines = operator.audit(&controller::AuditFilter::default()).await.unwrap();
    assert!(lines.iter().any(|l| l.detail.ends_with(differ)), "{lines:?}");
    let _: Rollout = operator.send("/rollouts/r/promote?all=true", "").await.unwrap();
    let done = until_it_rests(&home, &mut edges, "r").await;
    assert_eq!(done.phase, "done", "{done:#?}");
    round(&mut edges, 31).await;
    assert!(edges.iter().all(|e| e.image() == "web:1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_disrupts_waits_for_the_window_and_the_page_says_so() {
    let home = Home::start().await;
    let mut edges = edges(&home, 2).await;
    let operator = home.operator();
    let group = r#"{"query": "name=edge-00", "note": "the shop"}"#;
    operator.put("/groups/shop", group).await.unwrap();
    // The clock of these tests stands at 2026-02-02T02:40:00Z, a Monday.
    let window = r#"{"match": "group=shop", "days": ["mon"], "from": "04:00", "minutes": 60, "zone": "Europe/Berlin"}"#;
    operator.put("/windows/night", window).await.unwrap();
    let diff: DeviceDiff =
        operator.send("/devices/edge-00/diff", &web("2", "64MiB")).await.unwrap();
    let waits = diff.waits.unwrap();
    assert_eq!(waits, "waits for its window night, which opens at 2026-02-02T03:00:00Z");
    assert!(diff.consequences.iter().any(|c| c.disrupts && c.text.contains("fresh volumes")));

    let applied = operator.apply(&web("2", "64MiB"), false).await.unwrap();
    assert_eq!(applied.changes[0].waits, ["1 device waits for a maintenance window"]);
    let rollout = operator.send::<Rollout>("/rollouts/r", &plan(&web("3", "64MiB"), "")).await;
    let held = rollout.unwrap_err().to_string();
    let said = "App web is held back from edge-00 already: it waits for its window night, which opens \
                at 2026-02-02T03:00:00Z";
    assert!(held.starts_with(said) && held.contains("`eve window delete`"), "{held}");
    round(&mut edges, 31).await;
    round(&mut edges, 31).await;
    assert_eq!((edges[0].image(), edges[1].image()), ("web:1", "web:2"));
    let page = operator.device("edge-00").await.unwrap();
    assert!(page.problems[0].contains("waits for its window night"), "{:?}", page.problems);
    let gone = operator.remove("/groups/shop").await.unwrap_err();
    assert!(gone.to_string().contains("used by the window night"), "{gone}");
    wait_ms(20 * 60_000);
    round(&mut edges, 31).await;
    round(&mut edges, 31).await;
    assert_eq!(edges[0].image(), "web:2");
    assert!(operator.device("edge-00").await.unwrap().problems.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_change_is_made_once_at_its_time_also_over_a_restart() {
    let mut home = Home::start().await;
    let mut edges = edges(&home, 1).await;
    let at = now().0 + 600_000;
    let documents = serde_json::to_string(&web("2", "64MiB")).unwrap();
    let wish = format!(r#"{{"due": {at}, "documents": {documents}}}"#);
    home.operator().put("/scheduled/tonight", &wish).await.unwrap();
    let wrong = r#"{"due": 1, "documents": "kind: Apple\nname: x\n"}"#;
    let refused = home.operator().put("/scheduled/wrong", wrong).await.unwrap_err();
    assert!(refused.to_string().contains("no kind of object"), "{refused}");
    round(&mut edges, 31).await;
    assert_eq!(edges[0].image(), "web:1");
    home.again().await;
    edges[0].node.port = home.port();
    wait_ms(600_000);
    round(&mut edges, 1).await;
    round(&mut edges, 1).await;
    round(&mut edges, 1).await;
    assert_eq!(edges[0].image(), "web:2");
    home.again().await;
    let all: Vec<Scheduled> = home.operator().ask("/scheduled").await.unwrap();
    assert_eq!((all.len(), all[0].state.as_str()), (1, "done"), "{all:?}");
    let versions: Vec<Version> = home.operator().ask("/objects/app/web/history").await.unwrap();
    assert_eq!(versions.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_postgresql_take_one_rollout_through() {
    let server = crate::postgres::Postgres::start();
    let one = Home::on(Some(server.location())).await;
    let mut edges = edges(&one, 3).await;
    let two = one.twin().await;
    // Half of the nodes speak to the other process.
    edges[1].node.port = two.port();
    edges[2].fails = Some(("web:2", "image not found"));
    let text = plan(&web("2", "128MiB"), r#", "waves": [1, 1], "rollback": true"#);
    let _: Rollout = one.operator().send("/rollouts/r", &text).await.unwrap();
    let _: Rollout = one.operator().send("/rollouts/r/pause", "").await.unwrap();
    let _: Rollout = one.operator().send("/rollouts/r/resume", "").await.unwrap();
    let back = until_it_rests(&one, &mut edges, "r").await;
    assert_eq!(back.phase, "rolled back", "{back:#?}");
    assert!(back.why.contains("edge-02: App web"), "{}", back.why);
    tokio::time::sleep(Duration::from_secs(2)).await;
    round(&mut edges, 31).await;
    assert!(edges.iter().all(|e| e.image() == "web:1"));
    let events = one.operator().events(0, 1000).await.unwrap();
    let rolled = events.iter().filter(|e| e.text.starts_with("rolled back:")).count();
    assert_eq!(rolled, 1, "one of the two did it: {events:#?}");
}
