//! The OpenAPI document against the routes.

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
