//! What is acknowledged is there when the disk is full, and when the database goes away: nodes are told
//! 503, keep what they have, and are heard when there is room again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::StatusCode;

use crate::common::{Home, Node, device};
use crate::postgres::Postgres;
use crate::stores::log_file;

/// A small file system at a folder. Goes with its value.
struct Small(PathBuf);

impl Small {
    /// Needs root, as tests of this workspace do.
    fn at(folder: &Path) -> Small {
        std::fs::create_dir_all(folder).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=24m,mode=0700", "none"];
        let done = Command::new("mount").args(mount).arg(folder).status();
        assert!(done.unwrap().success(), "tests mount file systems: run them as root");
        Small(folder.to_owned())
    }

    /// Takes all room there is.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The files of which lines are shown.
async fn kept(home: &Home) -> Vec<usize> {
    let lines = home.operator().logs("edge-1", None, 0, 10_000).await.unwrap();
    let number = |text: &str| text.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap();
    let mut files: Vec<usize> = lines.iter().map(|l| number(&l.content)).collect();
    files.dedup();
    files
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_passes() {
    let mut home = Home::stopped();
    let disk = Small::at(&home.data());
    home.again().await;
    home.operator().apply(&device("edge-1", "one"), false).await.unwrap();
    let node = home.node("one");
    let id = node.onboard().await;
    let path = format!("id/{id}/newlogs");
    disk.fill();
    // Some room may be left within the database's own files.
    let mut acknowledged = Vec::new();
    let mut refused = Vec::new();
    for number in 0..300 {
        // Those that go into a row, and those that become a file.
        let lines = if number % 2 == 0 { 5 } else { 200 };
        match node.post(&path, &log_file(number, lines)).await.0 {
            StatusCode::CREATED => acknowledged.push(number),
            status => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "file {number}");
                refused.push((number, lines));
            }
        }
        if refused.iter().any(|(_, lines)| *lines == 5) && refused.len() > 5 {
            break;
        }
    }
    assert!(refused.len() > 5, "the disk was full, and nobody noticed");
    assert_eq!(kept(&home).await, acknowledged, "what is there can be read");
    assert!(
        node.config(id, "", b"").await.is_ok_and(|c| c.is_some()) || {
            // A config that was never told is noted before it is.
            node.config(id, "", b"").await == Err(StatusCode::SERVICE_UNAVAILABLE)
        }
    );
    assert_eq!(node.get("/healthz").await.0, StatusCode::OK);
    assert_eq!(node.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);

    disk.make_room();
    for (number, lines) in &refused {
        let status = node.post(&path, &log_file(*number, *lines)).await.0;
        assert_eq!(status, StatusCode::CREATED, "file {number}");
        acknowledged.push(*number);
    }
    assert_eq!(kept(&home).await, acknowledged);
    assert!(node.config(id, "", b"").await.unwrap().is_some());
    home.again().await;
    assert_eq!(kept(&home).await, acknowledged, "and after a restart");
    home.running.take().unwrap().stop().await;
}

/// Sends one file after the other until told to stop; the numbers of those that were acknowledged.
async fn talk(
    node: Arc<Node>,
    path: String,
    first: usize,
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
) -> Vec<usize> {
    let mut acknowledged = Vec::new();
    let mut number = first;
    while !stop.load(Ordering::SeqCst) {
        let begun = Instant::now();
        match node.post(&path, &log_file(number, 5)).await.0 {
            StatusCode::CREATED => {
                acknowledged.push(number);
                number += 1;
            }
            status => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
                assert!(begun.elapsed() < Duration::from_secs(60), "a node gives up after 120 s");
                refused.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_comes_back_under_traffic() {
    let server = Postgres::start();
    let home = Home::on(Some(server.location())).await;
    home.operator().apply(&device("edge-1", "one"), false).await.unwrap();
    let node = Arc::new(home.node("one"));
    let id = node.onboard().await;
    let path = format!("id/{id}/newlogs");
    let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let talkers: Vec<_> = (0..4)
        .map(|n| {
            let talk = talk(node.clone(), path.clone(), n * 1000, stop.clone(), refused.clone());
            tokio::spawn(talk)
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    for round in 1..=2 {
        server.kill();
        let before = refused.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(2)).await;
        for _ in 0..300 {
            if refused.load(Ordering::SeqCst) > before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(refused.load(Ordering::SeqCst) > before, "round {round}: nodes are told");
        assert_eq!(node.get("/healthz").await.0, StatusCode::OK);
        server.again();
        let (_, told) = loop {
            match node.config(id, "", b"").await {
                Ok(Some(config)) => break config,
                other => assert_eq!(other, Err(StatusCode::SERVICE_UNAVAILABLE)),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(told.id, id);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for talker in talkers {
        acknowledged.extend(talker.await.unwrap());
    }
    acknowledged.sort_unstable();
    let mut found = kept(&home).await;
    found.sort_unstable();
    found.dedup();
    for number in &acknowledged {
        assert!(found.contains(number), "file {number} was acknowledged and is lost");
    }
    assert!(acknowledged.len() > 20, "{} files only", acknowledged.len());
    assert_eq!(node.post(&path, &log_file(9999, 5)).await.0, StatusCode::CREATED);
}
