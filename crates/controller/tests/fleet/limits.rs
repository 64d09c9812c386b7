//! What one address may take: connections, time, requests.

use std::time::Duration;

use controller::access::Limits;
use hyper::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::access::Site;

/// A connection that the other end has given up says so within this.
const SOON: Duration = Duration::from_secs(20);

async fn ends(stream: &mut (impl AsyncReadExt + Unpin)) -> bool {
    let mut rest = Vec::new();
    // An error of TLS is an end, too.
    tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn who_says_nothing_or_little_by_little_is_let_go() {
    let short = Duration::from_millis(500);
    let limits = Limits { handshake: short, headers: short, ..Limits::default() };
    let site = Site::with(|s| s.limits = limits).await;
    let mut silent = tokio::net::TcpStream::connect(("127.0.0.1", site.node.port)).await.unwrap();
    assert!(ends(&mut silent).await, "no handshake");
    let mut idle = site.node.dial().await.unwrap();
    assert!(ends(&mut idle).await, "no request");
    let dribbling = site.node.dial().await.unwrap();
    let (mut read, mut write) = tokio::io::split(dribbling);
    let writer = tokio::spawn(async move {
        write.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n").await?;
        for n in 0..400 {
            write.write_all(format!("x-{n}: y\r\n").as_bytes()).await?;
            write.flush().await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        std::io::Result::Ok(())
    });
    assert!(ends(&mut read).await, "headers without an end");
    assert!(!writer.is_finished(), "it was let go while it was still writing");
    writer.abort();
    assert_eq!(site.get(&site.root, "/me").await.0, 200, "others are served");
}

#[tokio::test]
async fn who_sends_much_in_vain_sees_why() {
    let site = Site::with(|_| {}).await;
    let mut connection = site.node.dial().await.unwrap();
    let path = "/api/operator/v1/images/disk.raw";
    let head =
        format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", 8 << 20);
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&vec![0; 8 << 20]).await.unwrap();
    let mut status = [0; 12];
    connection.read_exact(&mut status).await.unwrap();
    assert_eq!(status, *b"HTTP/1.1 401");
}

#[tokio::test]
async fn one_address_has_so_many_connections() {
    let limits = Limits { connections_of_one: 2, spare_loopback: false, ..Limits::default() };
    let site = Site::with(|s| s.limits = limits).await;
    let first = site.node.dial().await.unwrap();
    let _second = site.node.dial().await.unwrap();
    assert!(site.node.dial().await.is_err());
    drop(first);
    let until = tokio::time::Instant::now() + SOON;
    while site.node.dial().await.is_err() {
        assert!(tokio::time::Instant::now() < until, "there is room again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_to_come_again() {
    let limits = Limits { requests: 0, ..Limits::default() };
    let site = Site::with(|s| s.limits = limits).await;
    let (status, headers, _) =
        site.node.http(Method::GET, "/api/v2/edgedevice/ping", &[], Default::default()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers["retry-after"], "1");
}

/// What a connection is answered with, up to its headers' end.
async fn ping(connection: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> String {
    let ping = b"GET /api/v2/edgedevice/ping HTTP/1.1\r\nhost: localhost\r\n\r\n";
    connection.write_all(ping).await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n") {
        said.push(connection.read_u8().await.unwrap());
    }
    String::from_utf8(said).unwrap().to_lowercase()
}

#[tokio::test]
async fn connections_are_kept_while_there_is_room() {
    let limits = Limits { connections_of_one: 4, spare_loopback: false, ..Limits::default() };
    let site = Site::with(|s| s.limits = limits).await;
    let mut first = site.node.dial().await.unwrap();
    for _ in 0..2 {
        let said = ping(&mut first).await;
        assert!(!said.contains("connection: close"), "{said}");
    }
    let _second = site.node.dial().await.unwrap();
    let mut third = site.node.dial().await.unwrap();
    let said = ping(&mut third).await;
    assert!(said.contains("connection: close"), "{said}");
    assert!(ends(&mut third).await);
    let _another = site.node.dial().await.expect("room for another");
}
