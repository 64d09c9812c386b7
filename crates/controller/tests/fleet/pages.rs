//! What pages offer to whom: nobody sees a button that is refused, nor a way that leads nowhere.

use std::collections::BTreeSet;

use hyper::{Method, StatusCode};
use serde_json::json;

use crate::access::{Site, cookie, password};

const PAGES: [&str; 22] = [
    "/",
    "/map",
    "/alerts",
    "/drift",
    "/alerts/rules",
    "/schedules",
    "/groups",
    "/devices/edge-1",
    "/devices/edge-1/config",
    "/devices/edge-1/trust",
    "/apps",
    "/apps/web",
    "/catalogue",
    "/catalogue/web-server",
    "/objects",
    "/objects/App/web",
    "/objects/App/web/history",
    "/objects/Device/edge-1",
    "/rollouts",
    "/onboard",
    "/onboard/edge-1",
    "/settings",
];

async fn site() -> Site {
    let site = Site::start().await;
    let text = "kind: Device\nname: edge-1\nspec: {soft_serial: one, labels: {project: north}}\n---\n\
                kind: Datastore\nname: far\nspec: {type: registry, host: registry.example}\n---\n\
                kind: App\nname: web\nspec: {device: edge-1, image: \"web:1\", datastore: far}\n";
    let (status, said) = site.post(&site.root, "/objects", json!(text)).await;
    assert_eq!(status, 200, "{said}");
    site
}

async fn enter(site: &Site, name: &str, role: &str, projects: &[&str]) -> String {
    site.user(name, role, projects).await;
    let form = format!("name={name}&password={}", password(name).replace(' ', "+"));
    let (status, headers, page) = site.browse(Method::POST, "/login", "", &form).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
    cookie(&headers)
}

async fn page(site: &Site, cookie: &str, path: &str) -> String {
    let (status, _, page) = site.browse(Method::GET, path, cookie, "").await;
    assert_eq!(status, StatusCode::OK, "{path}: {page}");
    page
}

#[tokio::test]
async fn labels_of_a_template_are_shown_and_searched() {
    let site = site().await;
    let text = "kind: Template\nname: t\nspec: {device: {labels: {lit: true, location: '52.5,13.4'}}}\n---\n\
                kind: Device\nname: edge-2\nspec: {soft_serial: two, template: t, labels: {tier: a}}\n";
    let (status, said) = site.post(&site.root, "/objects", json!(text)).await;
    assert_eq!(status, 200, "{said}");
    let cookie = enter(&site, "vera", "viewer", &[]).await;
    for path in ["/", "/?q=lit%3Dtrue", "/?label=lit,tier%3Da", "/devices/edge-2"] {
        let page = page(&site, &cookie, path).await;
        let has = |text: &str| page.contains(&format!("<span class=\"label\">{text}</span>"));
        assert!(has("lit=true") && has("tier=a"), "{path}: {page}");
    }
    assert!(!page(&site, &cookie, "/?q=lit%3Dfalse").await.contains("edge-2</a>"));
    assert!(page(&site, &cookie, "/map").await.contains("edge-2"));
}

fn forms(page: &str) -> Vec<&str> {
    let all = page.split("method=\"post\" action=\"").skip(1);
    all.filter_map(|rest| rest.split('"').next()).collect()
}

/// Where a page leads on this controller.
fn ways(page: &str) -> BTreeSet<String> {
    let all = page.split("href=\"/").skip(1).filter_map(|rest| rest.split('"').next());
    all.map(|way| format!("/{}", way.replace("&amp;", "&"))).collect()
}

#[tokio::test]
async fn viewers_see_everything_and_no_button_that_changes_something() {
    let site = site().await;
    let vic = enter(&site, "vic", "viewer", &[]).await;
    let ann = enter(&site, "ann", "operator", &[]).await;
    let (mut offered, mut all) = (0, BTreeSet::new());
    for path in PAGES {
        let seen = page(&site, &vic, path).await;
        assert_eq!(forms(&seen), ["/logout"], "{path}");
        all.extend(ways(&seen));
        offered += forms(&page(&site, &ann, path).await).len() - 1;
    }
    assert!(offered >= 10, "operators are offered {offered} things to do");
    for way in all {
        let (status, _, _) = site.browse(Method::GET, &way, &vic, "").await;
        assert!(
            status != StatusCode::FORBIDDEN && status != StatusCode::NOT_FOUND,
            "{way}: {status}"
        );
    }
}

#[tokio::test]
async fn who_is_limited_to_projects_is_led_nowhere_where_they_are_refused() {
    let site = site().await;
    let lim = enter(&site, "lim", "operator", &["north"]).await;
    for path in [
        "/devices/edge-1",
        "/devices/edge-1/network",
        "/devices/edge-1/logs",
        "/devices/edge-1/trust",
    ] {
        let seen = page(&site, &lim, path).await;
        assert!(seen.contains("/devices/edge-1/restart"), "{path}");
        assert!(!seen.contains("/devices/edge-1/delete"), "{path}");
        for way in ways(&seen) {
            let (status, _, _) = site.browse(Method::GET, &way, &lim, "").await;
            assert_ne!(status, StatusCode::FORBIDDEN, "{path} leads to {way}");
        }
    }
}
