//! Object stores of others, as whoever pushes, pulls and deletes sees them, also while they are away.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::StatusCode;
use sha2::{Digest as _, Sha256};

use crate::common::{Home, device, now};
use crate::emulators::{Emulator, Store};
use crate::images::{Client, push_blob};

const MIB: usize = 1 << 20;

/// Bytes that differ from place to place.
fn noise(size: usize) -> Vec<u8> {
    let word = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).to_le_bytes();
    (0..size as u64 / 8).flat_map(word).collect()
}

/// A log file that does not pack well.
pub(crate) fn log_file(number: usize, lines: usize) -> Vec<u8> {
    let entry = |line: usize| {
        let seed = format!("{number} {line}");
        let noise = hex::encode(Sha256::digest(seed.as_bytes()));
        api::newlogs::Entry {
            severity: "info".into(),
            source: "config".into(),
            content: format!("file {number} line {line} {noise}"),
            timestamp: now().into(),
            ..api::newlogs::Entry::default()
        }
    };
    let entries: Vec<_> = (0..lines).map(entry).collect();
    let about = api::newlogs::About::Device(api::newlogs::DeviceLog::default());
    api::newlogs::pack(&entries, &about, now(), model::Bytes::mib(1)).unwrap().remove(0)
}

async fn serves(store: Store) {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = Emulator::start(store, dir.path()) else { return };
    let mut home = Home { blobs: Some(server.url().parse().unwrap()), ..Home::stopped() };
    home.again().await;
    let client = Client::admin(&home);

    // 23 MiB: pieces of 5 MiB, in two requests and more, with the store away in between.
    let bytes = noise(23 * MIB);
    let hex = hex::encode(Sha256::digest(&bytes));
    let path = format!("/api/operator/v1/images/disk.raw?sha256={hex}");
    let part = |from: usize, to: usize| {
        (format!("bytes {from}-{}/{}", to - 1, bytes.len()), bytes[from..to].to_vec())
    };
    let (range, body) = part(0, 12 * MIB);
    let put = client.call("PUT", &path, &[("content-range", &range)], body).await;
    assert_eq!(put.0, StatusCode::ACCEPTED);
    server.cut();
    let (range, body) = part(12 * MIB, 12 * MIB + 100_000);
    let (status, _, why) = client.call("PUT", &path, &[("content-range", &range)], body).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let why = String::from_utf8_lossy(&why).into_owned();
    assert!(why.contains("cannot keep the image: the object store cannot "), "{why}");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(home.node("x").get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    // It breaks in the middle of a piece, too; whoever sends may see no more than that.
    server.mend();
    let cut = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        server.cut();
    };
    let (range, body) = part(12 * MIB, bytes.len());
    let headers = [("content-range", range.as_str())];
    let put = AssertUnwindSafe(client.call("PUT", &path, &headers, body)).catch_unwind();
    let (_, ()) = tokio::join!(put, cut);
    server.mend();
    loop {
        let (_, state) = client.get(&path).await;
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
        let have = usize::try_from(state["have"].as_u64().unwrap()).unwrap();
        assert!(have >= 12 * MIB, "what was acknowledged is there");
        let (range, body) = part(have, bytes.len());
        let headers = [("content-range", range.as_str())];
        match client.call("PUT", &path, &headers, body).await.0 {
            StatusCode::CREATED => break,
            // The broken request may have brought more since.
            status => assert_eq!(status, StatusCode::CONFLICT),
        }
    }

    // A registry's client, and a node that takes parts.
    let layer = noise(7 * MIB);
    let digest = push_blob(&client, "team/hello", &layer).await;
    home.operator().apply(&device("edge-1", "one"), false).await.unwrap();
    let node = home.node("one");
    node.onboard().await;
    let blob = format!("/v2/team/hello/blobs/{digest}");
    for (path, whole) in [("/images/disk.raw", &bytes), (blob.as_str(), &layer)] {
        let (status, got) = node.get(path).await;
        assert!(status == StatusCode::OK && got == *whole, "{path}: {status}, {}", got.len());
        for (from, to) in
            [(0, 0), (5 * MIB - 7, 5 * MIB + 70_000), (whole.len() - 9, whole.len() - 1)]
        {
            let range = format!("bytes={from}-{to}");
            let headers = [("range", range.as_str())];
            let (status, _, got) = node.http(hyper::Method::GET, path, &headers, "".into()).await;
            assert_eq!(status, StatusCode::PARTIAL_CONTENT);
            assert!(got == whole[from..=to], "{path} {range}");
        }
    }

    // Log files of more than a few lines lie there, too, and are durable before the node hears so.
    let id = node.uuid().await.unwrap();
    let newlogs = format!("id/{id}/newlogs");
    assert_eq!(node.post(&newlogs, &log_file(1, 400)).await.0, StatusCode::CREATED);
    server.cut();
    assert_eq!(node.post(&newlogs, &log_file(2, 400)).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        node.post(&newlogs, &log_file(3, 1)).await.0,
        StatusCode::CREATED,
        "a row is enough"
    );
    server.mend();
    for _ in 0..2 {
        assert_eq!(node.post(&newlogs, &log_file(2, 400)).await.0, StatusCode::CREATED);
    }
    let lines = home.operator().logs("edge-1", None, 0, 1000).await.unwrap();
    assert_eq!(lines.len(), 801);
    assert!(lines.is_sorted_by(|a, b| a.id < b.id));
    assert!(lines[0].content.starts_with("file 1 line 0 "), "{}", lines[0].content);
    assert!(lines[800].content.starts_with("file 2 line 399 "), "{}", lines[800].content);
    let newer = home.operator().logs("edge-1", None, lines[790].id, 1000).await.unwrap();
    assert_eq!(newer, lines[791..]);
    assert_eq!(home.operator().logs("edge-1", None, 0, 3).await.unwrap(), lines[798..]);

    server.cut();
    let (status, why) = node.get("/images/disk.raw").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let why = String::from_utf8_lossy(&why).into_owned();
    assert!(why.contains("the object store cannot read content/"), "{why}");
    assert!(!why.contains("127.0.0.1"), "nobody is told where it is: {why}");
    server.mend();
    home.again().await;
    let client = Client::admin(&home);
    let (status, got) = home.node("x").get("/images/disk.raw").await;
    assert!(status == StatusCode::OK && got == bytes, "nothing is lost: {status}");
    assert_eq!(home.operator().logs("edge-1", None, 0, 1000).await.unwrap(), lines);

    let plain = "/api/operator/v1/images/disk.raw";
    assert_eq!(client.call("DELETE", plain, &[], "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(home.node("x").get("/images/disk.raw").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_lie_at_s3() {
    serves(Store::S3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_lie_at_google() {
    serves(Store::Google).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_lie_at_azure() {
    serves(Store::Azure).await;
}
