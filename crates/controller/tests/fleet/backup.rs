//! Backup and restore, and what nodes notice of it: nothing.

use controller::{Location, Whole, backup, restore};
use hyper::StatusCode;

use crate::common::{Home, device, now, wait_ms};
use crate::postgres::Postgres;
use crate::reports::Story;

fn whole(home: &Home) -> Whole {
    Whole { data: home.data(), database: home.database.clone(), blobs: None }
}

/// A folder that is not there yet.
fn nowhere(database: Option<Location>) -> Home {
    let dir = tempfile::tempdir().unwrap();
    Home { images: dir.path().join("images"), dir, database, running: None, settings: |_| {} }
}

async fn moves(from: Option<Location>, to: Option<Location>) {
    let home = Home::on(from).await;
    home.operator().apply(&device("edge-1", "one"), false).await.unwrap();
    let mut node = home.node("one");
    let id = node.onboard().await;
    home.operator().restart_device("edge-1").await.unwrap();
    let (_, told) = node.config(id, "", b"").await.unwrap().unwrap();
    assert_eq!(told.power.reboot, Some(1));
    // 3 MB in two parts of the object store.
    let token = std::fs::read_to_string(home.data().join("admin.token")).unwrap();
    let auth = format!("Bearer {}", token.trim());
    let image = vec![9; 3_000_000];
    let hex = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&image));
    let path = format!("/api/operator/v1/images/disk.raw?sha256={hex}");
    let (first, second) = image.split_at(1_000_000);
    for (range, body, status) in [
        ("bytes 0-999999/3000000", first, StatusCode::ACCEPTED),
        ("bytes 1000000-2999999/3000000", second, StatusCode::CREATED),
    ] {
        let headers = [("authorization", auth.as_str()), ("content-range", range)];
        let put = node.http(hyper::Method::PUT, &path, &headers, body.to_vec().into()).await;
        assert_eq!(put.0, status);
    }

    let mut file = Vec::new();
    let saved = backup(&whole(&home), &mut file, true, now()).await.unwrap();
    assert_eq!((saved.rows["devices"], saved.blobs), (1, 1));

    // The old controller goes on for a while, and is lost then.
    wait_ms(60_000);
    for _ in 0..2 {
        home.operator().restart_device("edge-1").await.unwrap();
    }
    let (hash, told) = node.config(id, "", b"").await.unwrap().unwrap();
    assert_eq!(told.power.reboot, Some(3));
    let last = told.timestamp.unwrap();
    drop(home);

    let mut second = nowhere(to);
    let restored = restore(file.as_slice(), &whole(&second), now()).await.unwrap();
    assert_eq!(restored, saved);
    let again = restore(file.as_slice(), &whole(&second), now()).await.unwrap_err().to_string();
    assert!(again.contains("into nothing only"), "{again}");
    second.again().await;
    node.port = second.port();
    // The node is known, the signature is the one it trusts, and time goes on.
    let story = Story { home: second, node, id, told: *told };
    let (Story { home: second, node, .. }, last) = (&story, last);
    let (_, told) = node.config(id, &hash, b"").await.unwrap().unwrap();
    assert!(told.timestamp.unwrap() > last, "config_timestamp never goes back");
    assert_eq!(told.power.reboot, None, "1, or 2, would reboot a node that has seen 3");
    story.say_device(3).await;
    let (_, told) = node.config(id, "", b"").await.unwrap().unwrap();
    assert_eq!(told.power.reboot, Some(3), "what the node has seen");
    second.operator().restart_device("edge-1").await.unwrap();
    let (_, told) = node.config(id, "", b"").await.unwrap().unwrap();
    assert_eq!(told.power.reboot, Some(4));
    let (status, body) = node.get("/images/disk.raw").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body == image);
}

#[tokio::test]
async fn a_backup_becomes_a_controller_again() {
    moves(None, None).await;
}

#[tokio::test]
async fn what_is_no_whole_backup_is_refused() {
    let home = Home::start().await;
    home.operator().apply(&device("edge-1", "one"), false).await.unwrap();
    let mut file = Vec::new();
    backup(&whole(&home), &mut file, true, now()).await.unwrap();
    for cut in [0, 10, file.len() / 2, file.len() - 10] {
        let to = nowhere(None);
        restore(&file[..cut], &whole(&to), now()).await.unwrap_err();
        assert!(!to.data().join("pki").exists(), "no keys of half a backup ({cut})");
    }
    let mut other = file.clone();
    let middle = other.len() / 2;
    other[middle] ^= 0x40;
    restore(other.as_slice(), &whole(&nowhere(None)), now()).await.unwrap_err();
    let e = restore(file.as_slice(), &whole(&home), now()).await.unwrap_err().to_string();
    assert!(e.contains("is not empty"), "{e}");
}

#[tokio::test]
async fn who_balances_load_can_ask_whether_we_are_well() {
    let home = Home::start().await;
    let node = home.node("x");
    assert_eq!(node.get("/healthz").await, (StatusCode::OK, "ok\n".into()));
    assert_eq!(node.get("/readyz").await, (StatusCode::OK, "ready\n".into()));
    // The object store is gone, and back.
    let blobs = home.data().join("blobs");
    std::fs::rename(&blobs, home.data().join("away")).unwrap();
    std::fs::write(&blobs, "no folder").unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let (status, body) = node.get("/readyz").await;
    assert_eq!((status, body), (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".into()));
    assert_eq!(node.get("/healthz").await.0, StatusCode::OK);
    std::fs::remove_file(&blobs).unwrap();
    std::fs::rename(home.data().join("away"), &blobs).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(node.get("/readyz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_controller_moves_between_the_engines() {
    let server = Postgres::start();
    moves(None, Some(server.location())).await;
    let other = Postgres::start();
    moves(Some(other.location()), None).await;
}
