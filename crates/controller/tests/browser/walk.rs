//! What a person does: here by keyboard alone.

use model::reported::AppState;

use crate::browser::Browser;
use crate::common::Home;
use crate::fleet::Member;
use crate::looks::{check, log_in};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_is_added_and_an_app_deployed_without_a_mouse() {
    let home = Home::start().await;
    let mut browser = Browser::start();
    browser.size(1280, 800);
    log_in(&mut browser, &home);
    browser.wait_for_text("There is no node yet");
    browser.picture("walk-1-empty");
    check(&mut browser, "an empty fleet");

    browser.tab_to("Add a node");
    browser.key("Enter");
    browser.wait_for_text("How it is recognised");
    browser.tab_to("Name");
    browser.write("Gate 1");
    browser.tab_to("Add the node");
    browser.key("Enter");
    // The browser itself refuses the name, and goes to the field.
    browser.wait("document.activeElement.id === 'name' && !document.activeElement.validity.valid");
    browser.eval("document.activeElement.select()");
    browser.write("gate-1");
    browser.tab_to("Add the node");
    browser.key("Enter");
    browser.wait_for_text("Configuration of gate-1");
    browser.picture("walk-2-added");
    check(&mut browser, "a node that was added");
    let soft =
        browser.eval("document.body.innerText.match(/soft serial number\\s+([0-9a-f]{24})/)[1]");
    let node = home.node(soft.as_str().unwrap());
    browser.tab_to("gate-1");
    browser.key("Enter");
    browser.wait_for_text("Waiting for it.");

    // The page follows by itself when the node comes.
    let id = node.onboard().await;
    let (_, told) = node.config(id, "", b"").await.unwrap().unwrap();
    let mut member = Member { node, id, told };
    member.say_device("1.0.0", false, None).await;
    browser.wait("document.querySelector('[data-say]').dataset.say === 'gate-1 is online'");
    browser.wait("document.querySelector('#said').textContent === 'gate-1 is online'");

    browser.tab_to("Catalogue");
    browser.key("Enter");
    browser.wait_for_text("Web server");
    browser.tab_to("Deploy: Web server");
    browser.key("Enter");
    browser.wait_for_text("See what changes");
    browser.tab_to("Node");
    browser.write("gate-1");
    browser.tab_to("See what changes");
    browser.key("Enter");
    browser.wait_for_text("This would change");
    browser.picture("walk-3-dry-run");
    check(&mut browser, "a dry run");
    assert!(home.operator().apps().await.unwrap().is_empty());
    browser.tab_to("Deploy");
    browser.key("Enter");
    browser.wait_for_text("waiting for the node");
    member.ask().await;
    member.say_app("web", AppState::Running, None).await;
    browser.wait_for_text("1 of 1 run");
    browser.picture("walk-4-runs");
    check(&mut browser, "an app that runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_that_somebody_else_overtook_is_shown_and_nothing_is_lost() {
    let home = Home::start().await;
    home.operator().apply("kind: Volume\nname: data\nspec: {size: 1GiB}\n", false).await.unwrap();
    let mut browser = Browser::start();
    browser.size(1280, 800);
    let base = log_in(&mut browser, &home);
    browser.open(&format!("{base}/objects/Volume/data"));
    let other = "kind: Volume\nname: data\nspec: {size: 3GiB}\n";
    home.operator().apply(other, false).await.unwrap();
    browser.eval("document.querySelector('textarea').value = 'kind: Volume\\nname: data\\nspec:\\n  size: 2GiB\\n'");
    browser.tab_to("Save");
    browser.key("Enter");
    browser.wait_for_text("Somebody else changed Volume data meanwhile.");
    browser.picture("conflict");
    let kept = browser.eval("document.querySelector('textarea').value.includes('2GiB')");
    assert_eq!(kept, true);
    // The answer itself is an error on the console; nothing else may be.
    browser.complaints.retain(|c| !c.contains("409"));
    check(&mut browser, "a conflict");
    browser.eval("document.querySelector('textarea').value = 'kind: Volume\\nname: data\\nspec:\\n  sise: 2GiB\\n'");
    browser.tab_to("Save");
    browser.key("Enter");
    browser.wait_for_text("unknown field `sise`");
    browser.complaints.retain(|c| !c.contains("422"));
    check(&mut browser, "a mistake");
}
