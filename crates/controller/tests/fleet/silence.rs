//! The value of a secret goes to the nodes that need it, and to no page and no answer of an API.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::access::{Site, cookie};
use crate::common::now;

/// Parts of both values; nothing else here says so.
const VALUES: [&str; 2] = ["hunter2", "swordfish"];

#[track_caller]
fn silent(place: &str, said: &str) {
    for value in VALUES {
        assert!(!said.contains(value), "{place} tells the secret: {said}");
    }
}

fn secret(value: &str) -> String {
    format!("kind: Secret\nname: wifi\nspec: {{value: {value}}}\n")
}

async fn revisions(site: &Site) -> Vec<u64> {
    let (_, all) = site.get(&site.root, "/objects/Secret/wifi/history").await;
    all.as_array().unwrap().iter().map(|v| v["revision"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn no_way_out_tells_the_value_of_a_secret() {
    let site = Site::start().await;
    for value in VALUES {
        let (status, said) = site.post(&site.root, "/objects", json!(secret(value))).await;
        assert_eq!(status, 200, "{said}");
        silent("POST /objects", &said.to_string());
    }
    let later = json!({
        "due": now().0 + 600_000, "documents": secret("hunter2-later") + "---\nkind: Volume\nname: v\nspec: {size: 1GiB}\n",
    });
    let (status, _) = site.call(&site.root, Method::PUT, "/scheduled/later", later).await;
    assert_eq!(status, 204);

    let all = revisions(&site).await;
    assert_eq!(all.len(), 2);
    let versions = all.iter().map(|r| format!("/objects/Secret/wifi/history/{r}"));
    let calls = ["/objects", "/objects/Secret/wifi", "/objects/Secret/wifi/history", "/scheduled"];
    let calls = calls.map(str::to_owned).into_iter().chain(versions);
    for path in calls.chain(["/events".to_owned(), "/audit".to_owned(), "/drift".to_owned()]) {
        let (status, said) = site.get(&site.root, &path).await;
        assert_eq!(status, 200, "{path}: {said}");
        silent(&path, &said.to_string());
    }
    let (_, compared) =
        site.get(&site.root, &format!("/objects/Secret/wifi/history/{}", all[1])).await;
    assert_eq!(compared["since"], json!(["value: another one, which is shown to nobody"]));
    let (_, scheduled) = site.get(&site.root, "/scheduled").await;
    let documents = scheduled[0]["documents"].as_str().unwrap();
    assert!(documents.contains("(not shown)") && documents.contains("\"v\""), "{documents}");

    let (_, headers, _) =
        site.browse(Method::POST, "/login", "", &format!("token={}", site.root)).await;
    let cookie = cookie(&headers);
    let own = "/objects/Secret/wifi";
    for path in [
        "/objects".to_owned(),
        own.to_owned(),
        format!("{own}?from={}", all[1]),
        format!("{own}/history"),
        format!("{own}/history?new={}", all[1]),
        "/events".to_owned(),
        "/audit".to_owned(),
    ] {
        let (status, _, page) = site.browse(Method::GET, &path, &cookie, "").await;
        assert_eq!(status, StatusCode::OK, "{path}");
        silent(&path, &page);
    }
    // What is told of a change that was not made: its own text and nothing of what was there.
    let text = "kind%3A+Secret%0Aname%3A+wifi%0Aspec%3A+%7Bvalue%3A+other%7D%0A";
    for (looked, wish) in [("2", "check"), ("1", "save"), ("2", "save")] {
        let form = format!("text={text}&looked=Secret/wifi/{looked}&do={wish}");
        let (_, _, page) = site.browse(Method::POST, "/objects/save", &cookie, &form).await;
        silent(&format!("/objects/save {looked} {wish}"), &page);
    }
}

#[tokio::test]
async fn what_is_shown_in_place_of_a_secret_never_replaces_it() {
    let site = Site::start().await;
    site.post(&site.root, "/objects", json!(secret("hunter2"))).await;
    let (_, shown) = site.get(&site.root, "/objects/Secret/wifi").await;
    assert_eq!(shown["spec"]["value"], "(not shown)");
    let (status, said) = site.post(&site.root, "/objects", json!(secret("(not shown)"))).await;
    assert_eq!((status, &said["changes"][0]["action"]), (200, &json!("unchanged")));
    let stranger = secret("(not shown)").replace("wifi", "other");
    let (status, said) = site.post(&site.root, "/objects", json!(stranger)).await;
    assert_eq!(status, 422, "{said}");
    assert!(said["flaws"].to_string().contains("no value is kept for it"), "{said}");
    assert_eq!(revisions(&site).await.len(), 1);
    // An old version comes back as it was, by its number.
    site.post(&site.root, "/objects", json!(secret("swordfish"))).await;
    let all = revisions(&site).await;
    let path = format!("/objects/Secret/wifi/history/{}", all[1]);
    let (status, said) = site.post(&site.root, &path, Value::Null).await;
    assert_eq!(status, 200, "{said}");
    silent(&path, &said.to_string());
    let (_, compared) = site.get(&site.root, &path).await;
    assert_eq!(compared["since"], json!([]), "it is the first value again");
}
