//! Alerts that begin and end, and the webhook that is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::convert::metrics;
use aws_lc_rs::hmac;
use controller::view::{Alert, NamedRule};
use hyper::StatusCode;
use model::reported::{Boot, BootReason, LogStatus, Resources};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use sqlx::Connection as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::common::{Home, device, now, wait_ms};

/// A receiver of webhooks: refuses the first call, takes all others.
pub(crate) async fn receiver() -> (u16, String, Arc<Mutex<Vec<String>>>) {
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
    until_within(calls, count, 20).await
}

async fn until_within(calls: &Mutex<Vec<String>>, count: usize, seconds: u64) -> Vec<String> {
    for _ in 0..seconds * 5 {
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
    let refused = async || {
        let rules: Vec<NamedRule> = home.operator().ask("/alert-rules").await.unwrap();
        rules[0].untold.clone()
    };
    for _ in 0..100 {
        if refused().await.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let untold = refused().await.expect("people see that it was refused");
    assert_eq!((untold.waiting, untold.why.as_str()), (1, "it answers 503"));
    // After a restart it is sent again.
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

async fn open_alerts(home: &Home, count: usize) -> Vec<Alert> {
    for _ in 0..80 {
        let open: Vec<Alert> = home.operator().ask("/alerts?open=true").await.unwrap();
        if open.len() == count {
            return open;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let open: Vec<Alert> = home.operator().ask("/alerts?open=true").await.unwrap();
    panic!("never {count} alerts: {open:#?}");
}

/// A node's figures; of 1000 MiB so many are in use.
fn figures(used: u64) -> Resources {
    Resources {
        services: Vec::new(),
        memory_total: model::Bytes::mib(2048),
        memory_available: model::Bytes::mib(1000),
        cpu_ns: 1,
        persist_total: model::Bytes::mib(1000),
        persist_used: model::Bytes::mib(used),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disks_and_ending_certificates_are_told_before_it_is_too_late() {
    let home = Home::start().await;
    let operator = home.operator();
    operator.apply(&device("edge-1", "one"), false).await.unwrap();
    let node = home.node("one");
    let id = node.onboard().await;
    let boot = Boot {
        reason: BootReason::First,
        detail: String::new(),
        count: 1,
        started: now(),
        timeline: Vec::new(),
        version: "1.0.0".into(),
        slot: "IMGA".into(),
    };
    let say = async |used: u64| {
        let facts = metrics::Facts {
            resources: &figures(used),
            boot: &boot,
            apps: &[],
            logs: &LogStatus::default(),
            config: &Default::default(),
        };
        let payload = metrics::message(id, now(), &facts);
        let (status, _) = node.post(&format!("id/{id}/metrics"), &payload).await;
        assert_eq!(status, StatusCode::CREATED);
    };
    for (wrong, field) in [
        (json!({"when": "disk_full", "percent": 0}), "rule.percent"),
        (json!({"when": "certificate_ends", "days": 9999}), "rule.days"),
        (json!({"when": "silent", "minutes": 9_999_999}), "rule.minutes"),
    ] {
        let rule = json!({"rule": wrong}).to_string();
        let refused = operator.put("/alert-rules/wrong", &rule).await.unwrap_err();
        assert!(refused.to_string().contains(field), "{refused}");
    }
    say(799).await;
    let disk = json!({"rule": {"when": "disk_full", "percent": 80}}).to_string();
    operator.put("/alert-rules/disk", &disk).await.unwrap();
    // The certificate of the listener is good for 398 days, all others for twenty years.
    let ends = json!({"rule": {"when": "certificate_ends", "days": 400}}).to_string();
    operator.put("/alert-rules/ends", &ends).await.unwrap();
    let open = open_alerts(&home, 1).await;
    assert_eq!(open[0].subject, "Controller TLS certificate");
    assert!(
        open[0].text.contains("in 397 days") || open[0].text.contains("in 398 days"),
        "{open:?}"
    );

    wait_ms(20 * 60_000);
    say(812).await;
    let open = open_alerts(&home, 2).await;
    let full = open.iter().find(|a| a.rule == "disk").unwrap();
    assert_eq!(full.subject, "Device edge-1");
    assert!(full.text.starts_with("/persist is full to 81 %"), "{}", full.text);
    wait_ms(20 * 60_000);
    say(500).await;
    open_alerts(&home, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_to_know_is_told_that_the_database_is_gone_and_back() {
    let home = Home::start().await;
    let (port, trust, calls) = receiver().await;
    let rule = json!({"rule": {"when": "controller_trouble", "minutes": 0, "trust": trust,
                               "url": format!("https://localhost:{port}/hook")}});
    home.operator().put("/alert-rules/own", &rule.to_string()).await.unwrap();
    // It has read its rules once.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(calls.lock().unwrap().is_empty(), "nothing is wrong yet");
    let url = format!("sqlite://{}", home.data().join("controller.db").display());
    let mut thief = sqlx::AnyConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut thief).await.unwrap();
    // The first call is refused, the second one taken.
    let told = until_within(&calls, 2, 90).await;
    assert_eq!(
        (body(&told[1])["state"].as_str(), body(&told[1])["id"].as_u64()),
        (Some("raised"), Some(0))
    );
    assert_eq!(body(&told[1])["subject"], "Controller database");
    assert!(body(&told[1])["text"].as_str().unwrap().contains("locked"), "{}", told[1]);
    sqlx::raw_sql("ROLLBACK").execute(&mut thief).await.unwrap();
    let told = until_within(&calls, 3, 60).await;
    assert_eq!(body(&told[2])["state"], "ended");
}
