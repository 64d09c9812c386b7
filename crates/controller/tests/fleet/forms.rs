//! What the forms of the pages do, as a browser sends them.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::access::{Site, cookie, password};
use crate::alerts::receiver;
use crate::common::{now, wait_ms};

struct Person<'a> {
    site: &'a Site,
    cookie: String,
}

impl Person<'_> {
    async fn of<'a>(site: &'a Site, name: &str, role: &str) -> Person<'a> {
        site.user(name, role, &[]).await;
        let form = format!("name={name}&password={}", password(name).replace(' ', "+"));
        let (_, headers, _) = site.browse(Method::POST, "/login", "", &form).await;
        Person { site, cookie: cookie(&headers) }
    }

    async fn page(&self, path: &str) -> String {
        let (status, _, page) = self.site.browse(Method::GET, path, &self.cookie, "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {page}");
        page
    }

    /// Sends a form; returns the status and the page.
    async fn send(&self, path: &str, form: &str) -> (StatusCode, String) {
        let (status, _, page) = self.site.browse(Method::POST, path, &self.cookie, form).await;
        (status, page)
    }

    /// Sends a form that is done.
    async fn done(&self, path: &str, form: &str) {
        let (status, page) = self.send(path, form).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{path} {form}: {page}");
    }

    async fn refused(&self, path: &str, form: &str, why: &str) {
        let (status, page) = self.send(path, form).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path} {form}: {page}");
        assert!(page.contains(why), "{path} {form}: {page}");
    }
}

async fn site() -> Site {
    let site = Site::start().await;
    let text = "kind: Device\nname: edge-1\nspec: {soft_serial: one, labels: {site: berlin}}\n---\n\
                kind: Device\nname: edge-2\nspec: {soft_serial: two, labels: {site: oslo}}\n";
    let (status, said) = site.post(&site.root, "/objects", json!(text)).await;
    assert_eq!(status, 200, "{said}");
    site
}

#[tokio::test]
async fn what_is_written_as_a_document_is_shown_where_its_kind_is() {
    let site = site().await;
    let ann = Person::of(&site, "ann", "operator").await;
    for (kind, spec, place) in [
        ("Group", "%7Bquery%3A+site%3Doslo%7D", "/groups"),
        (
            "Window",
            "%7Bmatch%3A+%22*%22%2C+from%3A+%2202%3A00%22%2C+minutes%3A+90%2C+zone%3A+UTC%7D",
            "/groups",
        ),
        ("AlertRule", "%7Bwhen%3A+silent%7D", "/alerts/rules"),
        ("Secret", "%7Bvalue%3A+x%7D", "/objects/Secret/a-secret"),
    ] {
        let name = format!("a-{}", kind.to_lowercase());
        let text = format!("kind%3A+{kind}%0Aname%3A+{name}%0Aspec%3A+{spec}%0A");
        let form = format!("text={text}&looked=&do=save");
        let sent = site.browse(Method::POST, "/objects/save", &ann.cookie, &form);
        let (status, headers, page) = sent.await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{kind}: {page}");
        assert_eq!(headers["location"], place, "{kind}");
        assert!(ann.page(place).await.contains(&name), "{kind}");
    }
}

#[tokio::test]
async fn groups_and_windows_are_set_used_and_deleted() {
    let site = site().await;
    let ann = Person::of(&site, "ann", "operator").await;
    ann.done("/groups", "name=north&query=site%3Doslo&note=the+cold+ones").await;
    let group = site.get(&site.root, "/groups/north").await.1;
    assert_eq!((&group["devices"], &group["note"]), (&json!(["edge-2"]), &json!("the cold ones")));
    ann.refused("/groups", "name=north&query=site%3D", "query: ").await;
    ann.refused("/groups", "name=No+Name&query=*", "is no name").await;

    let window =
        "name=night&devices=group%3Dnorth&days=mon%2C+tue&from=02:00&minutes=90&zone=Europe%2FOslo";
    ann.done("/windows", window).await;
    let windows = site.get(&site.root, "/windows").await.1;
    let [window] = windows.as_array().unwrap().as_slice() else { panic!("{windows}") };
    assert_eq!((&window["days"], &window["minutes"]), (&json!(["mon", "tue"]), &json!(90)));
    for (form, why) in [
        ("name=x&devices=*&days=someday&from=02:00&minutes=90&zone=UTC", "days: "),
        ("name=x&devices=*&days=&from=26:00&minutes=90&zone=UTC", "from: "),
        ("name=x&devices=*&days=&from=02:00&minutes=90&zone=Mars", "zone: "),
        ("name=x&devices=group%3Dnone&days=&from=02:00&minutes=90&zone=UTC", "match: "),
    ] {
        ann.refused("/windows", form, why).await;
    }
    ann.refused("/groups/north/delete", "", "used by the window night").await;
    ann.done("/windows/night/delete", "").await;
    // A rule names it now.
    ann.done("/alerts/rules", &rule("quiet", "silent", "group%3Dnorth", "")).await;
    ann.refused("/groups/north/delete", "", "used by the alert rule quiet").await;
    ann.done("/alerts/rules/quiet/delete", "").await;
    ann.done("/groups/north/delete", "").await;
    assert_eq!(site.get(&site.root, "/windows").await.1, json!([]));
    assert_eq!(site.get(&site.root, "/groups").await.1, json!([]));
    let page = ann.page("/groups").await;
    assert!(page.contains("There is no group") && page.contains("There is no window"), "{page}");

    let vic = Person::of(&site, "vic", "viewer").await;
    let (status, _) = vic.send("/groups", "name=mine&query=*").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn users_are_made_changed_invited_and_deleted() {
    let site = site().await;
    let root = Person::of(&site, "root", "admin").await;
    root.done("/users", "name=bob&role=viewer&projects=").await;
    let bob = || async {
        let all = site.get(&site.root, "/users").await.1;
        all.as_array().unwrap().iter().find(|u| u["name"] == "bob").cloned()
    };
    assert_eq!(bob().await.unwrap()["role"], "viewer");
    root.done("/users", "name=bob&role=operator&projects=north%2C+south").await;
    let changed = bob().await.unwrap();
    assert_eq!(
        (&changed["role"], &changed["projects"]),
        (&json!("operator"), &json!(["north", "south"]))
    );
    root.refused("/users", "name=bob&role=king&projects=", "king").await;

    // The link is shown once, and sets a password with which they log in.
    let (status, page) = root.send("/users/bob/link", "").await;
    assert_eq!(status, StatusCode::OK);
    let path = page.split("<code>").nth(1).unwrap().split("</code>").next().unwrap();
    let form = "password=quite+a+long+secret&again=quite+a+long+secret";
    let (status, headers, page) = site.browse(Method::POST, path, "", form).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
    let bobs = Person { site: &site, cookie: cookie(&headers) };
    let page = bobs.page("/account").await;
    assert!(page.contains("You are bob, with the role operator"), "{page}");
    assert!(page.contains("Your nodes"), "{page}");

    root.done("/users/bob/delete", "").await;
    assert!(bob().await.is_none());
    let (status, ..) = site.browse(Method::GET, "/account", &bobs.cookie, "").await;
    assert_eq!(status, StatusCode::SEE_OTHER, "bob is logged out");
    root.done("/users/root/delete", "").await;
    let (status, ..) = site.browse(Method::GET, "/", &root.cookie, "").await;
    assert_eq!(status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn on_the_account_page_tokens_end_and_the_password_changes() {
    let site = site().await;
    let ann = Person::of(&site, "ann", "operator").await;
    let token = site.token("ann").await;
    assert_eq!(site.get(&token, "/me").await.0, 200);
    let page = ann.page("/account").await;
    assert!(page.contains("End the token test"), "{page}");
    ann.done("/account/tokens/end", "name=test").await;
    assert_eq!(site.get(&token, "/me").await.0, 401);

    let old = password("ann").replace(' ', "+");
    let change =
        |old: &str, new: &str, again: &str| format!("old={old}&password={new}&again={again}");
    let new = "quite+another+one";
    for (form, why) in [
        (change("wrong+one", new, new), "not your password of today"),
        (change(&old, new, "something+else"), "the two passwords differ"),
        (change(&old, "short", "short"), "role=\"alert\""),
    ] {
        ann.refused("/account/password", &form, why).await;
    }
    ann.done("/account/password", &change(&old, new, new)).await;
    assert_eq!(site.log_in("ann", "quite another one").await.0, 201);
}

fn rule(name: &str, when: &str, devices: &str, url: &str) -> String {
    format!(
        "name={name}&when={when}&devices={devices}&minutes=30&percent=80&days=60&url={url}&secret=hush"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_set_tested_and_deleted_and_alerts_are_seen() {
    let site = site().await;
    let ann = Person::of(&site, "ann", "operator").await;
    assert!(ann.page("/alerts").await.contains("No rule looks at the fleet"));
    ann.refused("/alerts/rules", &rule("x", "silent", "site%3D", ""), "rule.match: ").await;
    let plain = rule("x", "silent", "*", "http%3A%2F%2Fhooks.example%2F");
    ann.refused("/alerts/rules", &plain, "rule.url: ").await;
    ann.done("/alerts/rules", &rule("quiet", "silent", "site%3Dberlin", "")).await;
    let rules = site.get(&site.root, "/alert-rules").await.1;
    assert_eq!(rules[0]["rule"]["match"], "site=berlin", "{rules}");
    assert_eq!((&rules[0]["rule"]["minutes"], &rules[0]["has_secret"]), (&json!(30), &json!(true)));
    let (status, page) = ann.send("/alerts/rules/quiet/test", "").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(page.contains("the rule quiet has no webhook"), "{page}");

    // One with a webhook: the first test is refused by it, the second one taken.
    let (port, trust, calls) = receiver().await;
    let wish = json!({"rule": {"when": "silent", "minutes": 30, "trust": trust,
                               "url": format!("https://localhost:{port}/hook")}});
    let path = "/alert-rules/hook";
    assert_eq!(site.call(&site.root, Method::PUT, path, wish).await.0, 204);
    let (_, page) = ann.send("/alerts/rules/hook/test", "").await;
    assert!(page.contains("did not take it: it answers 503"), "{page}");
    let (status, page) = ann.send("/alerts/rules/hook/test", "").await;
    assert!(status == StatusCode::OK && page.contains("the webhook of hook took it"), "{page}");
    let (status, told) = site.post(&site.root, "/alert-rules/hook/test", Value::Null).await;
    assert_eq!((status, &told["told"]), (200, &json!("the webhook of hook took it")));
    let calls = calls.lock().unwrap().clone();
    assert!(calls.iter().all(|c| c.contains("\"state\":\"test\"")), "{calls:?}");
    assert_eq!(calls.len(), 3);

    // edge-1 comes, and is silent for long.
    let node = site.home.node("one");
    node.onboard().await;
    wait_ms(31 * 60_000);
    let mut open = Value::Null;
    for _ in 0..60 {
        open = site.get(&site.root, "/alerts?open=true").await.1;
        if open.as_array().is_some_and(|a| a.len() == 2) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    let id = open[0]["id"].as_u64().unwrap();
    let page = ann.page("/alerts").await;
    assert!(page.contains("I have seen: Device edge-1"), "{page}");
    ann.done(&format!("/alerts/{id}/ack"), "").await;
    let (status, page) = ann.send(&format!("/alerts/{id}/ack"), "").await;
    assert!(
        status == StatusCode::UNPROCESSABLE_ENTITY && page.contains("nobody has seen"),
        "{page}"
    );
    assert!(ann.page("/alerts").await.contains("by ann"));
    ann.done("/alerts/rules/quiet/delete", "").await;
    ann.done("/alerts/rules/hook/delete", "").await;
    assert_eq!(site.get(&site.root, "/alert-rules").await.1, json!([]));
    assert_eq!(site.get(&site.root, "/alerts?open=true").await.1, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_scheduled_shown_and_cancelled() {
    let site = site().await;
    let ann = Person::of(&site, "ann", "operator").await;
    let documents = "documents=kind%3A+Volume%0Aname%3A+data%0Aspec%3A+%7Bsize%3A+1GiB%7D%0A";
    // The clock of these tests stands at 2026-02-02T02:40:00Z.
    assert_eq!(now().0, 1_770_000_000_000);
    ann.done("/schedules", &format!("name=tonight&due=2026-02-02T03:00&{documents}")).await;
    ann.done("/schedules", &format!("name=never&due=2026-02-02T03:00&{documents}")).await;
    ann.refused("/schedules", &format!("name=x&due=tonight&{documents}"), "is no time").await;
    ann.refused("/schedules", "name=x&due=2026-02-02T03:00&documents=kind%3A+Apple", "Apple").await;
    let again = format!("name=tonight&due=2026-02-02T04:00&{documents}");
    ann.refused("/schedules", &again, "there is a scheduled change tonight already").await;
    ann.done("/schedules/never/cancel", "").await;
    ann.refused("/schedules/never/cancel", "", "that waits").await;
    wait_ms(20 * 60_000);
    let mut page = String::new();
    for _ in 0..60 {
        page = ann.page("/schedules").await;
        if page.contains("Volume data created") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    assert!(page.contains("Volume data created") && page.contains("cancelled"), "{page}");
    assert_eq!(site.get(&site.root, "/objects/Volume/data").await.0, 200);
}
