//! Alerts that begin and end, and the webhook that is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use controller::view::{Alert, NamedRule};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::common::{Home, device, wait_ms};

/// A receiver of webhooks: refuses the first call, takes all others.
async fn receiver() -> (u16, String, Arc<Mutex<Vec<String>>>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let (seen, acceptor) = (calls.clone(), TlsAcceptor::from(Arc::new(config)));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut all = Vec::new();
            let mut piece = [0; 4096];
            // The body is JSON: it ends with a brace.
            while !all.ends_with(b"}") {
                let n = stream.read(&mut piece).await.unwrap();
                assert!(n > 0);
                all.extend_from_slice(&piece[..n]);
            }
            let first = seen.lock().unwrap().is_empty();
            seen.lock().unwrap().push(String::from_utf8(all).unwrap());
            let status = if first { "503 Service Unavailable" } else { "204 No Content" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, made.cert.pem(), calls)
}

async fn until(calls: &Mutex<Vec<String>>, count: usize) -> Vec<String> {
    for _ in 0..100 {
        let all = calls.lock().unwrap().clone();
        if all.len() >= count {
            return all;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("the webhook was told {:?}", calls.lock().unwrap());
}

fn body(call: &str) -> Value {
    serde_json::from_str(call.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_told_until_it_takes_it_also_over_a_restart() {
    let mut home = Home::start().await;
    home.operator().apply(&device("edge-1", "one"), false).await.unwrap();
    let node = home.node("one");
    let id = node.onboard().await;
    let (port, trust, calls) = receiver().await;
    let rule = serde_json::json!({
        "rule": {"when": "silent", "minutes": 30, "trust": trust,
                 "url": format!("https://localhost:{port}/hook")},
        "secret": "quiet please",
    });
    home.operator().put("/alert-rules/silent", &rule.to_string()).await.unwrap();
    let rules: Vec<NamedRule> = home.operator().ask("/alert-rules").await.unwrap();
    assert!(rules[0].has_secret);
    assert!(!serde_json::to_string(&rules).unwrap().contains("quiet"), "secrets are write-only");
    let wrong = r#"{"rule": {"when": "silent", "url": "http://hooks.example/"}}"#;
    let refused = home.operator().put("/alert-rules/wrong", wrong).await.unwrap_err();
    assert!(refused.to_string().contains("rule.url: "), "{refused}");

    wait_ms(31 * 60_000);
    until(&calls, 1).await;
    // It was refused; after a restart it is sent again.
    home.again().await;
    wait_ms(60_000);
    let told = until(&calls, 2).await;
    assert_eq!(body(&told[1]), body(&told[0]));
    assert_eq!(
        (body(&told[1])["state"].as_str(), body(&told[1])["subject"].as_str()),
        (Some("raised"), Some("Device edge-1"))
    );
    let text = told[1].split_once("\r\n\r\n").unwrap().1;
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"quiet please");
    let tag = hex::encode(hmac::sign(&key, text.as_bytes()));
    assert!(told[1].contains(&format!("x-eve-signature: sha256={tag}")), "{}", told[1]);

    let open: Vec<Alert> = home.operator().ask("/alerts?open=true").await.unwrap();
    assert_eq!(open.len(), 1, "{open:?}");
    let ack = format!("/alerts/{}/ack", open[0].id);
    // The answer has no body to read.
    let _ = home.operator().send::<Value>(&ack, "").await;
    let open: Vec<Alert> = home.operator().ask("/alerts?open=true").await.unwrap();
    assert_eq!(open[0].acked_by.as_deref(), Some("admin"));

    let mut node = node;
    node.port = home.port();
    node.config(id, "", b"").await.unwrap();
    let told = until(&calls, 3).await;
    assert_eq!(body(&told[2])["state"], "ended");
    let open: Vec<Alert> = home.operator().ask("/alerts?open=true").await.unwrap();
    assert!(open.is_empty());
}
