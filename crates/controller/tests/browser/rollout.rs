//! A rollout that stops by itself, and what somebody then does about it, on its page.

use std::time::Duration;

use controller::view::Rollout;

use crate::browser::Browser;
use crate::common::Home;
use crate::edges::{Edge, edges, plan, round, shown, until_it_rests, web};
use crate::looks::{check, log_in};

/// Presses a button of the page, with the keyboard, as it is called there.
fn press(browser: &mut Browser, name: &str) {
    browser.wait_for_text(name);
    browser.eval("document.querySelector('#main').focus()");
    browser.tab_to(name);
    browser.key("Enter");
}

async fn until(home: &Home, phase: &str) -> Rollout {
    for _ in 0..50 {
        let rollout = shown(home, "web-2").await;
        if rollout.phase == phase {
            return rollout;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never {phase}: {:#?}", shown(home, "web-2").await);
}

async fn until_all_run(edges: &mut [Edge], image: &str) {
    for _ in 0..40 {
        if edges.iter().all(|e| e.image() == image) {
            return;
        }
        round(edges, 0).await;
    }
    let others: Vec<&str> = edges.iter().map(Edge::image).filter(|i| *i != image).collect();
    panic!("not all run {image}: {others:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_page_of_a_rollout_that_stopped_says_what_failed_why_and_what_to_do() {
    let home = Home::start().await;
    let mut edges = edges(&home, 50).await;
    for (n, why) in [(3, "no space left"), (12, "image not found"), (20, "image not found")] {
        edges[n].fails = Some(("web:2", why));
    }
    let text = plan(&web("2", "64MiB"), r#", "max_failures": 2"#);
    let _: Rollout = home.operator().send("/rollouts/web-2", &text).await.unwrap();
    let mut browser = Browser::start();
    browser.size(1280, 800);
    let base = log_in(&mut browser, &home);
    browser.open(&format!("{base}/rollouts/web-2"));
    browser.wait_for_text("Wave 1 of 4: 0 of 50 nodes took it and are well.");
    browser.picture("rollout-running");
    check(&mut browser, "a rollout that runs");

    // The page is open all the time and follows by itself.
    let stopped = until_it_rests(&home, &mut edges, "web-2").await;
    assert_eq!(stopped.phase, "stopped", "{stopped:#?}");
    browser.wait_for_text("It stopped by itself: 3 of 50 nodes failed, and at most 2 may.");
    let said = browser.eval("document.querySelector('#said').textContent");
    assert_eq!(said, "web-2 is stopped");
    let failed = browser.eval(
        "[...document.querySelectorAll('section')].find(s => s.querySelector('h2').innerText === 'What failed')
         .querySelector('tbody').innerText",
    );
    let failed = failed.as_str().unwrap();
    let lines: Vec<&str> = failed.lines().filter(|l| l.contains("edge-")).collect();
    for (line, (node, why)) in lines.iter().zip([
        ("edge-03", "no space left"),
        ("edge-12", "image not found"),
        ("edge-20", "image not found"),
    ]) {
        assert!(line.contains(node) && line.contains(why), "{node}: {failed}");
    }
    assert_eq!(lines.len(), 3, "{failed}");
    for text in [
        "The failure of 3 nodes counts as accepted",
        "19 nodes still wait",
        "What changed on 31 nodes that have the change restarts there",
        "Until you choose, 31 nodes keep the change and 19 nodes do not get it.",
    ] {
        browser.wait_for_text(text);
    }
    for (kind, width, scheme) in
        [("light", 1280, "light"), ("dark", 1280, "dark"), ("phone", 390, "light")]
    {
        browser.size(width, 800);
        browser.colours(scheme);
        browser.picture(&format!("rollout-stopped-{kind}"));
        check(&mut browser, &format!("a stopped rollout, {kind}"));
    }
    browser.size(1280, 800);

    // Resume: the failures are accepted, and the last wave gets it.
    press(&mut browser, "Resume");
    let running = until(&home, "running").await;
    assert_eq!(running.allowed, 3);
    browser.wait_for_text("Pause");
    press(&mut browser, "Pause");
    assert_eq!(until(&home, "paused").await.why, "by admin");
    press(&mut browser, "Resume");
    until(&home, "running").await;
    // So little time goes by that none of them passes, and the rollout goes on.
    until_all_run(&mut edges, "web:2").await;

    // Abort asks once more, and holds everything where it is.
    press(&mut browser, "Abort");
    press(&mut browser, "Abort here");
    assert_eq!(until(&home, "stopped").await.why, "aborted by admin");
    browser.wait_for_text("It was aborted by admin.");
    round(&mut edges, 31).await;
    assert_eq!((edges[0].image(), edges[49].image()), ("web:2", "web:2"));

    // Roll back: everybody runs again what ran before.
    press(&mut browser, "Roll back");
    press(&mut browser, "Roll back 50 nodes");
    assert_eq!(until(&home, "rolled back").await.why, "by admin");
    browser.wait_for_text("It was rolled back by admin.");
    browser.picture("rollout-rolled-back");
    check(&mut browser, "a rollout that was rolled back");
    until_all_run(&mut edges, "web:1").await;
}
