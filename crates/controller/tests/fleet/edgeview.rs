//! EdgeView sessions: opened and ended by operators, told to nodes.

use api::edgeview;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Home, Node, device, now, wait_ms};

const PATH: &str = "/api/operator/v1/devices/edge-1/edgeview";

async fn call(home: &Home, node: &Node, method: Method, body: Value) -> (StatusCode, Value) {
    let token = std::fs::read_to_string(home.data().join("admin.token")).unwrap();
    let auth = format!("Bearer {}", token.trim());
    let headers = [("authorization", auth.as_str()), ("content-type", "application/json")];
    let (status, _, body) = node.http(method, PATH, &headers, body.to_string().into()).await;
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn a_session_is_told_to_its_node_until_it_ends() {
    let mut home = Home::start().await;
    let mut node = home.node("one");
    let wanted = json!({"dispatcher": "meet.example:4000", "minutes": 10, "instances": 2});
    let (status, _) = call(&home, &node, Method::POST, wanted.clone()).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "there is no such device yet");
    home.operator().apply(&device("edge-1", "one"), false).await.unwrap();
    let id = node.onboard().await;
    let (hash, told) = node.config(id, "", b"").await.unwrap().unwrap();
    assert_eq!(told.edge_view, None);

    for (field, value) in
        [("minutes", json!(0)), ("instances", json!(6)), ("dispatcher", json!(""))]
    {
        let mut bad = wanted.clone();
        bad[field] = value;
        let (status, body) = call(&home, &node, Method::POST, bad).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{field}: {body}");
    }
    let (status, first) = call(&home, &node, Method::POST, wanted.clone()).await;
    assert_eq!((status, &first["generation"]), (StatusCode::CREATED, &json!(1)));
    // The token is one that the node takes, and names what was asked for.
    let (hash, told) = node.config(id, &hash, b"").await.unwrap().unwrap();
    let view = told.edge_view.unwrap();
    assert_eq!((view.token.reveal(), view.generation), (first["token"].as_str().unwrap(), 1));
    let claims = edgeview::verify(view.token.reveal(), &node.signer().await, id, now()).unwrap();
    assert_eq!((claims.dispatcher.as_str(), claims.instances), ("meet.example:4000", 2));
    assert_eq!(json!(claims.expires * 1000), first["until"]);

    // Another one takes its place, also over a restart of the controller.
    let (_, second) = call(&home, &node, Method::POST, wanted.clone()).await;
    assert_eq!(second["generation"], json!(2));
    assert_ne!(second["token"], first["token"]);
    home.again().await;
    node.port = home.port();
    let (hash, told) = node.config(id, &hash, b"").await.unwrap().unwrap();
    assert_eq!(told.edge_view.unwrap().generation, 2);

    // It is ended by hand, or by the clock.
    let ended = call(&home, &node, Method::DELETE, Value::Null).await.0;
    assert_eq!(ended, StatusCode::NO_CONTENT);
    let (hash, told) = node.config(id, &hash, b"").await.unwrap().unwrap();
    assert_eq!(told.edge_view, None);
    call(&home, &node, Method::POST, wanted).await;
    let (hash, told) = node.config(id, &hash, b"").await.unwrap().unwrap();
    assert_eq!(told.edge_view.unwrap().generation, 3);
    wait_ms(11 * 60_000);
    let (_, told) = node.config(id, &hash, b"").await.unwrap().unwrap();
    assert_eq!(told.edge_view, None);
}
