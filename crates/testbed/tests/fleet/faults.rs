//! Trouble between a device and its controller, made by a proxy.

use std::time::Duration;

use model::UnixMillis;
use testbed::sim::http::Call;
use testbed::sim::proxy::{Fault, FaultProxy};
use testbed::sim::{Device, Flushed, Home, Line, Polled, Way};

const EDGE: &str = "{kind: Device, name: edge-1, spec: {soft_serial: soft-1}}";

/// A controller behind a proxy, and a device that has onboarded through it and reported nothing.
async fn behind() -> (Home, FaultProxy, Line, Device) {
    let home = Home::start().await.unwrap();
    home.operator().unwrap().apply(EDGE, false).await.unwrap();
    let (proxy, conf) = home.behind_proxy().await.unwrap();
    let mut line = Line::new(conf, Way::Close);
    let mut device = Device::new(1, 1).with_serials("", "soft-1");
    device.onboard(&mut line, host::clock::now()).await.unwrap();
    (home, proxy, line, device)
}

fn info(call: &Call) -> bool {
    call.path.ends_with("/info")
}

/// Minutes after now: the device's clock, so that nobody waits.
fn later(minutes: u64) -> UnixMillis {
    host::clock::now().after(Duration::from_secs(60 * minutes))
}

#[tokio::test]
async fn info_retried_after_server_error() {
    let (home, proxy, mut line, mut device) = behind().await;
    proxy.rule(|call| if info(call) { Fault::status(503) } else { Fault::Pass });
    let flushed = device.report(&mut line, later(0)).await.unwrap();
    assert_eq!((flushed.kept, device.waiting()), (1, 1));
    proxy.pass();
    // Put off by a minute.
    assert_eq!(device.report(&mut line, later(0)).await.unwrap(), Flushed::default());
    let flushed = device.report(&mut line, later(2)).await.unwrap();
    assert_eq!((flushed.delivered, device.waiting()), (1, 0));
    let shown = home.operator().unwrap().device("edge-1").await.unwrap();
    assert_eq!(shown.ports.len(), 1);
}

#[tokio::test]
async fn info_retried_after_lost_controller() {
    let (home, proxy, mut line, mut device) = behind().await;
    proxy.rule(|_| Fault::Drop);
    let flushed = device.report(&mut line, later(0)).await.unwrap();
    assert!(flushed.unanswered && device.waiting() == 1, "{flushed:?}");
    proxy.pass();
    assert_eq!(device.report(&mut line, later(0)).await.unwrap(), Flushed::default());
    assert_eq!(device.report(&mut line, later(2)).await.unwrap().delivered, 1);
    let shown = home.operator().unwrap().device("edge-1").await.unwrap();
    assert_eq!(shown.ports.len(), 1);
}

#[tokio::test]
async fn info_dropped_on_rejection_keeps_device_reporting() {
    let (home, proxy, mut line, mut device) = behind().await;
    proxy.rule(|call| if info(call) { Fault::status(422) } else { Fault::Pass });
    let flushed = device.report(&mut line, later(0)).await.unwrap();
    assert_eq!((flushed.dropped, device.waiting()), (1, 0));
    assert_eq!(device.send_metrics(&mut line, later(0)).await.unwrap(), 201);
    assert_eq!(device.poll(&mut line, later(0)).await.unwrap(), Polled::Applied);
    proxy.pass();
    assert_eq!(device.report(&mut line, later(0)).await.unwrap().delivered, 1);
    let shown = home.operator().unwrap().device("edge-1").await.unwrap();
    assert_eq!(shown.ports.len(), 1);
}

#[tokio::test]
async fn an_answer_that_gets_lost_makes_a_message_come_twice_and_count_once() {
    let (home, proxy, mut line, mut device) = behind().await;
    let at = later(0);
    proxy.rule(|call| match call.path.ends_with("/newlogs") {
        true => Fault::DropAnswer,
        false => Fault::Pass,
    });
    device.send_logs(&mut line, &["only once"], at).await.unwrap_err();
    proxy.pass();
    assert_eq!(device.send_logs(&mut line, &["only once"], at).await.unwrap(), 201);
    assert_eq!(proxy.count("/newlogs"), 2);
    let lines = home.operator().unwrap().logs("edge-1", None, 0, 100).await.unwrap();
    assert_eq!(lines.len(), 1);
}

#[tokio::test]
async fn an_answer_to_register_that_gets_lost_does_not_lock_the_device_out() {
    let home = Home::start().await.unwrap();
    home.operator().unwrap().apply(EDGE, false).await.unwrap();
    let (proxy, conf) = home.behind_proxy().await.unwrap();
    let mut line = Line::new(conf, Way::Close);
    let mut device = Device::new(1, 1).with_serials("", "soft-1");
    proxy.rule(|call| match call.path.ends_with("/register") {
        true => Fault::DropAnswer,
        false => Fault::Pass,
    });
    device.onboard(&mut line, later(0)).await.unwrap_err();
    proxy.pass();
    let went = device.onboard(&mut line, later(1)).await.unwrap();
    assert_eq!((went.register, went.uuid), (Some(200), 200));
}

#[tokio::test]
async fn eve_repeats_what_fails_through_each_port_and_the_controller_bears_it() {
    let (home, proxy, line, mut device) = behind().await;
    let mut line = line.with_ports(3);
    proxy.rule(|call| match call.path.ends_with("/metrics") {
        true => Fault::status(500),
        false => Fault::Pass,
    });
    proxy.forget();
    assert_eq!(device.send_metrics(&mut line, later(0)).await.unwrap(), 500);
    assert_eq!(proxy.count("/metrics"), 3);
    let ids: Vec<_> = proxy.seen().into_iter().map(|s| s.call.headers).collect();
    assert!(ids.iter().all(|h| h.iter().any(|(n, v)| n == "connection" && v == "close")));
    // Refused by the controller itself: the same three times, and the same answer.
    proxy.pass();
    home.operator().unwrap().delete("Device", "edge-1", false).await.unwrap();
    proxy.forget();
    let polled = device.poll(&mut line, later(0)).await.unwrap();
    assert!(matches!(polled, Polled::Refused(400 | 404)), "{polled:?}");
    assert_eq!(proxy.count("/config"), 3);
}

#[tokio::test]
async fn a_controller_that_goes_away_and_comes_back_is_the_same() {
    let (mut home, proxy, mut line, mut device) = behind().await;
    device.round(&mut line, later(0)).await.unwrap();
    let hash = device.config_hash().to_owned();
    home.stop().await;
    device.poll(&mut line, later(1)).await.unwrap_err();
    home.again().await.unwrap();
    assert_eq!(device.poll(&mut line, later(2)).await.unwrap(), Polled::Unchanged);
    assert_eq!(device.config_hash(), hash);
    assert!(proxy.count("/config") >= 2);
    // After a reboot of the device it is sent the same config again.
    device.reboot();
    assert_eq!(device.poll(&mut line, later(3)).await.unwrap(), Polled::Applied);
    assert_eq!(device.config_hash(), hash);
}
