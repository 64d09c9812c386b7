//! Every page in light, dark and on a phone: pictures to look at, and what can be checked without.

use std::sync::OnceLock;

use crate::browser::Browser;
use crate::common::Home;
use crate::fleet;

/// Finds what keeps people from using a page: WCAG 2.2 A and AA, as far as a script can tell.
const CHECK: &str = include_str!("check.js");

/// Pages: name of the picture and path.
const PAGES: [(&str, &str); 30] = [
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
    ("alert-rules", "/alerts/rules"),
    ("schedules", "/schedules"),
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
    let mut found = said(page, &browser.eval(CHECK));
    if let Some(axe) = axe() {
        if browser.eval("typeof axe") == "undefined" {
            browser.eval(axe);
        }
        found.extend(said(page, &browser.eval(AXE)));
    }
    found.extend(browser.complaints.drain(..).map(|c| format!("{page}: {c}")));
    found
}

fn said(page: &str, found: &serde_json::Value) -> Vec<String> {
    let found = found.as_array().unwrap().iter();
    found.map(|f| format!("{page}: {}", f.as_str().unwrap())).collect()
}

/// What axe-core finds that is serious or critical, one line for each place.
const AXE: &str = "axe.run(document, { resultTypes: ['violations'] }).then(r => r.violations
    .filter(v => ['serious', 'critical'].includes(v.impact))
    .flatMap(v => v.nodes.map(n => `axe: ${v.id} (${v.impact}): ${v.help}: ${n.html.slice(0, 160)}`)))";

/// The program of those who write the rules down, if it is there: `cargo xtask setup --for-tests`
/// installs it.
fn axe() -> Option<&'static str> {
    static AXE: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../target/judges/node_modules/axe-core/axe.min.js"
        );
        let text = std::fs::read_to_string(file).ok();
        if text.is_none() {
            eprintln!("axe-core is not in target/judges: pages are not judged by it");
        }
        // What it leaves as the value of the script is of no use here.
        text.map(|text| text + "\n; 0")
    };
    AXE.get_or_init(read).as_deref()
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
    the_map_leads_to_its_nodes(&mut browser, &base);
}

fn the_map_leads_to_its_nodes(browser: &mut Browser, base: &str) {
    browser.size(1280, 800);
    browser.open(&format!("{base}/map"));
    browser.wait_for_text("1 node does not say where it stands.");
    let said = "[...document.querySelectorAll('.map a')].map(a => a.getAttribute('aria-label'))";
    let dots = browser.eval(said);
    let dots: Vec<&str> = dots.as_array().unwrap().iter().map(|d| d.as_str().unwrap()).collect();
    let dot =
        dots.iter().find(|d| d.starts_with("3 nodes: ")).unwrap_or_else(|| panic!("{dots:?}"));
    browser.eval("document.querySelector('#main').focus()");
    browser.tab_to(dot);
    browser.key("Enter");
    browser.wait_for_text("3 nodes");
    assert_eq!(browser.eval("document.querySelectorAll('tbody tr').length"), 3);
}
