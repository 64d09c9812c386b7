//! The OpenAPI document against the routes and against what the controller answers.

use std::collections::BTreeSet;

use crate::common::{Home, device};
use crate::routes;
use hyper::StatusCode;
use serde_json::Value;

const BASE: &str = "/api/operator/v1";

async fn document(home: &Home) -> Value {
    let (status, body) = home.node("x").get(&format!("{BASE}/openapi.json")).await;
    assert_eq!(status, StatusCode::OK, "it is read without a token");
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn the_document_has_the_calls_of_the_router_and_no_other() {
    let document = document(&Home::start().await).await;
    let mut told = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            told.insert(format!("{} {path}", method.to_ascii_uppercase()));
        }
    }
    let mut routed = BTreeSet::new();
    for (path, methods) in routes::all() {
        let Some(path) = path.strip_prefix(BASE) else { continue };
        let path = if path.is_empty() { "/".to_owned() } else { path.replace("{*", "{") };
        routed.extend(methods.iter().map(|m| format!("{m} {path}")));
    }
    assert_eq!(told, routed);
}

/// What of a value is not as its schema says.
fn flaws(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).unwrap();
        return flaws(document, target, value, at, found);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let failed = |choice: &Value| {
            let mut found = Vec::new();
            flaws(document, choice, value, at, &mut found);
            !found.is_empty()
        };
        if choices.iter().all(failed) {
            found.push(format!("{at}: {value} is none of {choices:?}"));
        }
        return;
    }
    let is = match schema["type"].as_str() {
        None => true,
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some(other) => panic!("{other}"),
    };
    if !is {
        found.push(format!("{at}: {value} is no {}", schema["type"]));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        found.push(format!("{at}: {value} is none of {words:?}"));
    }
    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
        flaws(document, &schema["items"], item, &format!("{at}[{i}]"), found);
    }
    let (Some(fields), false) = (value.as_object(), schema["type"].is_null()) else { return };
    for (name, field) in fields {
        let at = format!("{at}.{name}");
        let known = schema["properties"].get(name).or(schema.get("additionalProperties"));
        match known {
            Some(schema) => flaws(document, schema, field, &at, found),
            None => found.push(format!("{at}: the document does not have it")),
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            found.push(format!("{at}.{name}: is not there"));
        }
    }
}

#[tokio::test]
async fn answers_are_as_the_document_says() {
    let home = Home::start().await;
    let operator = home.operator();
    let text = device("edge-1", "one")
        + "kind: Network\nname: lab\nspec: {subnet: 10.9.0.0/24}\n---\n"
        + "kind: Datastore\nname: far\nspec: {type: registry, host: registry.example}\n---\n"
        + "kind: App\nname: web\nspec: {device: edge-1, image: \"a:1\", datastore: far, network: lab}\n";
    operator.apply(&text, false).await.unwrap();
    home.node("one").onboard().await;
    operator.put("/groups/all", r#"{"query": "*"}"#).await.unwrap();
    let window = r#"{"match": "*", "days": ["mon"], "from": "02:00", "minutes": 60}"#;
    operator.put("/windows/night", window).await.unwrap();
    operator.put("/alert-rules/dead", r#"{"rule": {"when": "silent"}}"#).await.unwrap();
    let later =
        r#"{"due": 99999999999999, "documents": "kind: Volume\nname: v\nspec: {size: 1GiB}\n"}"#;
    operator.put("/scheduled/later", later).await.unwrap();
    let versions: Value = operator.ask("/objects/Device/edge-1/history").await.unwrap();
    let revision = versions[0]["revision"].to_string();
    let document = document(&home).await;
    let mut asked = 0;
    let mut empty = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let schema = item.pointer("/get/responses/200/content/application~1json/schema");
        let Some(schema) = schema else { continue };
        let name = match path.split('/').nth(1) {
            Some("apps") => "web",
            Some("networks") => "lab",
            Some("groups") => "all",
            Some("users") => "admin",
            _ => "edge-1",
        };
        let full = path.replace("{name}", name).replace("{user}", name);
        let full = full.replace("{kind}", "Device").replace("{revision}", &revision);
        let full = if path == "/logs" { "/logs?device=edge-1".to_owned() } else { full };
        if ["/images/{name}", "/rollouts/{name}"].contains(&path.as_str()) {
            continue; // there is none
        }
        let answer: Value = operator.ask(&full).await.unwrap_or_else(|e| panic!("{full}: {e}"));
        let mut found = Vec::new();
        flaws(&document, schema, &answer, &full, &mut found);
        assert!(found.is_empty(), "{found:#?}");
        if answer.as_array().is_some_and(Vec::is_empty) {
            empty.insert(path.as_str());
        }
        asked += 1;
    }
    assert!(asked > 25, "{asked}");
    assert!(!empty.contains("/devices") && !empty.contains("/windows"), "{empty:?}");
}
