//! Enrolment requests of a node, carried to a small server and back.

use api::pb::proxy::{
    HttpHeaderField, HttpMethod, ScepOperation, ScepProxyRequest, ScepProxyResponse,
};
use api::wire::{decode, encode};
use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::common::Home;

/// Answers one request after the other with this, and tells what was asked.
async fn server(answer: &'static str) -> (u16, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, asked) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = vec![0; 8192];
            let mut have = 0;
            // The tests' requests end with their head, or with these bytes.
            loop {
                let read = stream.read(&mut bytes[have..]).await.unwrap();
                have += read;
                let text = &bytes[..have];
                let post = text.starts_with(b"POST");
                if read == 0
                    || (!post && text.ends_with(b"\r\n\r\n"))
                    || text.ends_with(b"\xfb\xff")
                {
                    break;
                }
            }
            let _ = tell.send(String::from_utf8_lossy(&bytes[..have]).into_owned()).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, asked)
}

#[tokio::test]
async fn a_node_enrols_through_the_controller() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/x-pki-message\r\nX-Ca: lan\r\n\
                  Content-Length: 5\r\n\r\nreply";
    let (port, mut asked) = server(answer).await;
    let home = Home::start().await;
    let port_of = |name: &str, url: &str, via: bool| {
        format!(
            "kind: Enrolment\nname: {name}\nspec: {{url: \"{url}\", via_controller: {via}}}\n---\n"
        )
    };
    let free = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let mut text = port_of("lan", &format!("http://127.0.0.1:{port}/scep"), true);
    text += &port_of("direct", &format!("http://127.0.0.1:{port}/scep"), false);
    text += &port_of("down", &format!("http://127.0.0.1:{free}/"), true);
    // One that no port of the node uses.
    text += &port_of("other", &format!("http://127.0.0.1:{port}/"), true);
    text += "kind: Device\nname: edge-1\nspec:\n  soft_serial: soft-1\n  ports:\n";
    for (n, name) in ["lan", "direct", "down"].iter().enumerate() {
        text += &format!("  - {{name: eth{n}, access: {{identity: me, enrolment: {name}}}}}\n");
    }
    home.operator().apply(&text, false).await.unwrap();
    let node = home.node("soft-1");
    let id = node.onboard().await;
    let path = format!("id/{id}/proxy/scep");
    let request = |profile: &str, method: HttpMethod| {
        let field = HttpHeaderField { name: "X-Node".into(), value: "yes".into() };
        ScepProxyRequest {
            scep_profile_name: profile.to_owned(),
            operation: ScepOperation::PkiMessage.into(),
            message: vec![0xfb, 0xff],
            http_method: method.into(),
            http_header_fields: vec![field],
        }
    };

    let (status, body) = node.post(&path, &encode(&request("lan", HttpMethod::Post))).await;
    assert_eq!(status, StatusCode::OK);
    let told: ScepProxyResponse = decode(&node.opened(&body).await, api::limits::CONFIG).unwrap();
    assert_eq!((told.http_status_code, told.message.as_slice()), (200, &b"reply"[..]));
    assert_eq!(told.scep_profile_name, "lan");
    assert!(told.http_header_fields.iter().any(|f| f.name == "x-ca" && f.value == "lan"));
    assert!(told.error_body.is_empty());
    let seen = asked.recv().await.unwrap();
    assert!(seen.starts_with("POST /scep?operation=PKIOperation HTTP/1.1"), "{seen}");
    assert!(seen.to_lowercase().contains("x-node: yes"), "{seen}");

    let (status, _) = node.post(&path, &encode(&request("lan", HttpMethod::Get))).await;
    assert_eq!(status, StatusCode::OK);
    let seen = asked.recv().await.unwrap();
    assert!(seen.starts_with("GET /scep?operation=PKIOperation&message=%2B%2F8%3D "), "{seen}");

    for (profile, want) in [
        ("nothing", StatusCode::FORBIDDEN),
        ("other", StatusCode::FORBIDDEN),
        ("direct", StatusCode::FORBIDDEN),
        ("down", StatusCode::BAD_GATEWAY),
    ] {
        let (status, why) = node.post(&path, &encode(&request(profile, HttpMethod::Get))).await;
        assert_eq!(status, want, "{profile}: {why:?}");
    }
    assert_eq!(node.post(&path, b"\xff").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let nothing = ScepProxyRequest { operation: 0, ..request("lan", HttpMethod::Get) };
    assert_eq!(node.post(&path, &encode(&nothing)).await.0, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn what_a_server_refuses_reaches_the_node() {
    let (port, _asked) = server("HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nno!").await;
    let home = Home::start().await;
    let text = format!(
        "kind: Enrolment\nname: lan\nspec: {{url: \"http://127.0.0.1:{port}/\", \
         via_controller: true}}\n---\nkind: Device\nname: edge-1\nspec:\n  soft_serial: soft-1\n  \
         ports:\n  - {{name: eth0, access: {{identity: me, enrolment: lan}}}}\n"
    );
    home.operator().apply(&text, false).await.unwrap();
    let node = home.node("soft-1");
    let id = node.onboard().await;
    let asked = ScepProxyRequest {
        scep_profile_name: "lan".into(),
        operation: ScepOperation::GetCaCaps.into(),
        ..ScepProxyRequest::default()
    };
    let (status, body) = node.post(&format!("id/{id}/proxy/scep"), &encode(&asked)).await;
    assert_eq!(status, StatusCode::OK, "the proxy did its part");
    let told: ScepProxyResponse = decode(&node.opened(&body).await, api::limits::CONFIG).unwrap();
    assert_eq!((told.http_status_code, told.error_body.as_slice()), (400, &b"no!"[..]));
}
