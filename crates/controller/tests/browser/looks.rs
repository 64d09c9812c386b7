//! Every page in light, dark and on a phone: pictures to look at, and what can be checked without.

use crate::browser::Browser;
use crate::common::Home;
use crate::fleet;

/// Finds what keeps people from using a page: WCAG 2.2 A and AA, as far as a script can tell.
const CHECK: &str = include_str!("check.js");

/// Pages: name of the picture and path.
const PAGES: [(&str, &str); 28] = [
    ("fleet", "/"),
    ("fleet-problems", "/?state=problem&sort=problems"),
    ("fleet-nothing", "/?q=nothing+of+that+name"),
    ("map", "/map"),
    ("device", "/devices/berlin-1"),
    ("device-hostile", "/devices/berlin-31"),
    ("device-expected", "/devices/berlin-55"),
    ("device-network", "/devices/berlin-1/network"),
    ("device-logs", "/devices/berlin-1/logs?q=no+space"),
    ("device-events", "/devices/berlin-1/events"),
    ("device-config", "/devices/berlin-1/config"),
    ("device-trust", "/devices/berlin-1/trust"),
    ("apps", "/apps"),
    ("app", "/apps/gateway"),
    ("catalogue", "/catalogue"),
    ("catalogue-form", "/catalogue/web-server"),
    ("objects", "/objects"),
    ("object", "/objects/App/vision"),
    ("object-history", "/objects/App/gateway/history"),
    ("rollouts", "/rollouts"),
    ("drift", "/drift"),
    ("alerts", "/alerts"),
    ("groups", "/groups"),
    ("users", "/users"),
    ("account", "/account"),
    ("onboard", "/onboard"),
    ("audit", "/audit"),
    ("settings", "/settings"),
];

pub(crate) fn log_in(browser: &mut Browser, home: &Home) -> String {
    let base = format!("https://localhost:{}", home.port());
    browser.open(&format!("{base}/login"));
    let token = home.running.as_ref().unwrap().first_token.clone().unwrap();
    browser.wait("document.activeElement.id === 'name'");
    browser.picture("log-in");
    check(browser, "the page to log in");
    browser.tab_to("With a token");
    browser.key("Enter");
    browser.tab_to("Token");
    browser.write(&token);
    browser.key("Enter");
    browser.wait("document.querySelector('#live') !== null");
    base
}

/// Nobody may be kept out, and nothing may break on the way here.
pub(crate) fn check(browser: &mut Browser, page: &str) {
    let found = faults(browser, page);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn faults(browser: &mut Browser, page: &str) -> Vec<String> {
    let found = browser.eval(CHECK);
    let found = found.as_array().unwrap().iter().filter_map(|f| f.as_str());
    let mut found: Vec<String> = found.map(|f| format!("{page}: {f}")).collect();
    found.extend(browser.complaints.drain(..).map(|c| format!("{page}: {c}")));
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_page_looks_well_can_be_read_by_all_and_breaks_no_policy() {
    let home = Home::start().await;
    fleet::fill(&home).await;
    let mut browser = Browser::start();
    browser.size(1280, 800);
    let base = log_in(&mut browser, &home);
    let mut found = Vec::new();
    for (name, path) in PAGES {
        for (kind, width, scheme) in
            [("light", 1280, "light"), ("dark", 1280, "dark"), ("phone", 390, "light")]
        {
            browser.size(width, 800);
            browser.colours(scheme);
            browser.open(&format!("{base}{path}"));
            browser.picture(&format!("{name}-{kind}"));
            found.extend(faults(&mut browser, &format!("{name} {kind}")));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
