//! Backup and restore, and what nodes notice of it: nothing.

use controller::{Location, Whole, backup, restore};
use hyper::StatusCode;

use crate::common::{Home, back_ms, device, now, wait_ms};
use crate::postgres::Postgres;
use crate::reports::{APP, Story};
use crate::stores::log_file;

fn whole(home: &Home) -> Whole {
    Whole { data: home.data(), database: home.database.clone(), blobs: home.blobs.clone() }
}

/// A folder that is not there yet.
fn nowhere(database: Option<Location>) -> Home {
    Home { database, ..Home::stopped() }
}

async fn moves(from: Option<Location>, to: Option<Location>) {
    let home = Home::on(from).await;
    home.operator().apply(&(device("edge-1", "one") + APP), false).await.unwrap();
    let mut node = home.node("one");
    let id = node.onboard().await;
    home.operator().restart_device("edge-1").await.unwrap();
    home.operator().restart_app("hello").await.unwrap();
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

    // A log file in a row, and one in the object store.
    for lines in [2, 300] {
        let sent = node.post(&format!("id/{id}/newlogs"), &log_file(lines, lines)).await;
        assert_eq!(sent.0, StatusCode::CREATED);
    }
    let logged = home.operator().logs("edge-1", None, 0, 1000).await.unwrap();
    assert_eq!(logged.len(), 302);

    let mut file = Vec::new();
    let saved = backup(&whole(&home), &mut file, true, now()).await.unwrap();
    assert_eq!((saved.rows["devices"], saved.blobs), (1, 2));

    // The old controller goes on for a while, and is lost then.
    wait_ms(60_000);
    for _ in 0..2 {
        home.operator().restart_device("edge-1").await.unwrap();
        home.operator().restart_app("hello").await.unwrap();
    }
    home.operator().purge_app("hello").await.unwrap();
    let (hash, told) = node.config(id, "", b"").await.unwrap().unwrap();
    assert_eq!(told.power.reboot, Some(3));
    let app = told.apps.values().next().unwrap().clone();
    assert_eq!((app.restart, app.purge, app.volumes[0].generation), (3, 1, 1));
    let last = told.timestamp.unwrap();
    drop(home);
    // The machine it comes back on has a clock that goes wrong.
    back_ms(50_000);

    let mut second = nowhere(to);
    let restored = restore(file.as_slice(), &whole(&second), now()).await.unwrap();
    assert_eq!(restored, saved);
    let again = restore(file.as_slice(), &whole(&second), now()).await.unwrap_err().to_string();
    assert!(again.contains("into nothing only"), "{again}");
    second.again().await;
    node.port = second.port();
    // The node is known, the signature is the one it trusts, and time goes on.
    let story = Story { home: second, node, id, told: *told };
    let Story { home: second, node, .. } = &story;
    for have in [&hash, ""] {
        let told = node.config(id, have, b"").await.unwrap();
        assert!(told.is_none(), "it keeps what it has until it has said what that is");
    }
    story.say_device(3).await;
    assert!(node.config(id, "", b"").await.unwrap().is_none(), "it has not said what its apps are");
    story.say_versions().await;
    let (_, told) = node.config(id, &hash, b"").await.unwrap().unwrap();
    assert!(told.timestamp.unwrap() > last, "config_timestamp never goes back");
    assert_eq!(told.power.reboot, Some(3), "what the node has seen");
    assert_eq!(*told.apps.values().next().unwrap(), app, "nothing restarts, no volume is new");
    second.operator().restart_device("edge-1").await.unwrap();
    second.operator().restart_app("hello").await.unwrap();
    second.operator().purge_app("hello").await.unwrap();
    let (_, told) = node.config(id, "", b"").await.unwrap().unwrap();
    assert_eq!(told.power.reboot, Some(4));
    let app = told.apps.values().next().unwrap();
    assert_eq!((app.restart, app.purge, app.volumes[0].generation), (4, 2, 2));
    assert_eq!(second.operator().logs("edge-1", None, 0, 1000).await.unwrap(), logged);
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
