//! Config down, reports up.

use std::collections::BTreeSet;

use api::convert::view::{self, Report};
use api::pb::info::ZSwState;
use model::UnixMillis;
use testbed::sim::load::Fleet;
use testbed::sim::{Device, Home, Line, Mode, Polled, Subject, Way, report};

fn now() -> UnixMillis {
    host::clock::now()
}

/// A controller and a device that has onboarded.
async fn one(objects: &str) -> (Home, Line, Device) {
    let home = Home::start().await.unwrap();
    home.operator().unwrap().apply(objects, true).await.unwrap();
    let mut line = Line::new(home.conf().unwrap(), Way::Close);
    let mut device = Device::new(1, 1).with_serials("HW-1", "soft-1");
    device.round(&mut line, now()).await.unwrap();
    (home, line, device)
}

const EDGE: &str = "{kind: Device, name: edge-1, spec: {soft_serial: soft-1}}";
const REMOTE: &str = "{kind: Datastore, name: remote, spec: {type: https, host: images.example}}\n---\n\
     {kind: Image, name: web, spec: {datastore: remote, path: web.qcow2, format: qcow2, \
      sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}}";

fn with_app(app: &str) -> String {
    format!("{EDGE}\n---\n{REMOTE}\n---\n{app}")
}

#[tokio::test]
async fn info_test() {
    let (home, _line, _device) = one(EDGE).await;
    let shown = home.operator().unwrap().device("edge-1").await.unwrap();
    let port = &shown.ports[0];
    assert_eq!((port.name.as_str(), port.up), ("eth0", true));
    assert_eq!(port.addresses, ["192.0.2.10"]);
}

#[tokio::test]
async fn metric_test() {
    let (home, mut line, mut device) = one(EDGE).await;
    assert_eq!(device.send_metrics(&mut line, now()).await.unwrap(), 201);
    let shown = home.operator().unwrap().device("edge-1").await.unwrap();
    assert_eq!(shown.usage.unwrap().memory_total, model::Bytes::mib(8192));
}

#[tokio::test]
async fn device_info_completeness() {
    let (home, _line, device) = one(EDGE).await;
    let shown = home.operator().unwrap().device("edge-1").await.unwrap();
    assert_eq!(shown.version, device.node.version);
    assert_eq!(shown.slot, "IMGA");
    assert!(shown.hardware.contains("4 processors"), "{}", shown.hardware);
    assert_eq!(shown.boot.unwrap().count, 1);
    assert!(shown.config_in_force.is_some());
}

#[tokio::test]
async fn config_items_and_status() {
    let (home, mut line, mut device) = one(EDGE).await;
    let document = "{kind: Device, name: edge-1, spec: {soft_serial: soft-1, \
                    settings: {timer.metric.interval: 30}}}";
    home.operator().unwrap().apply(document, false).await.unwrap();
    assert_eq!(device.round(&mut line, now()).await.unwrap(), Polled::Applied);
    let items = &device.node.told().unwrap().config_items;
    let item = items.iter().find(|i| i.key == "timer.metric.interval").unwrap();
    assert_eq!(item.value, "30");
    // Removed: back to the default, which is said by saying nothing.
    home.operator().unwrap().apply(EDGE, false).await.unwrap();
    assert_eq!(device.round(&mut line, now()).await.unwrap(), Polled::Applied);
    let items = &device.node.told().unwrap().config_items;
    assert!(!items.iter().any(|i| i.key == "timer.metric.interval"));
}

#[tokio::test]
async fn maintenance_mode() {
    let (home, mut line, mut device) = one(EDGE).await;
    let told = |device: &Device| device.node.told().unwrap().maintenance_mode;
    assert!(!told(&device));
    for (document, want) in
        [(EDGE.replace("spec: {", "spec: {maintenance: true, "), true), (EDGE.to_owned(), false)]
    {
        home.operator().unwrap().apply(&document, false).await.unwrap();
        assert_eq!(device.round(&mut line, now()).await.unwrap(), Polled::Applied);
        assert_eq!(told(&device), want);
        let info = device.say(now(), |who, node| report::info(who, node, &Subject::Device));
        let Report::Device(info) = view::info(&info).unwrap().report else { panic!() };
        assert_eq!(info.state == "maintenance mode", want, "{}", info.state);
    }
}

#[tokio::test]
async fn an_idle_poll_is_answered_304_and_a_change_once() {
    let (home, mut line, mut device) = one(EDGE).await;
    for _ in 0..3 {
        assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Unchanged);
    }
    home.operator().unwrap().restart_device("edge-1").await.unwrap();
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Applied);
    assert_eq!(device.node.boots, 2);
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Unchanged);
}

#[tokio::test]
async fn an_app_comes_runs_and_goes() {
    let app = "{kind: App, name: web, spec: {device: edge-1, image: web}}";
    let (home, mut line, mut device) = one(&with_app(app)).await;
    let operator = home.operator().unwrap();
    let mut states = Vec::new();
    for _ in 0..8 {
        device.round(&mut line, now()).await.unwrap();
        let shown = operator.device("edge-1").await.unwrap();
        states.push(shown.apps[0].state.clone());
    }
    assert!(device.node.settled(), "{:?}", device.node.app("web"));
    let last = format!("{:?}", states.last().unwrap()).to_lowercase();
    assert!(last.contains("running"), "{states:?}");

    operator.delete("App", "web", false).await.unwrap();
    device.round(&mut line, now()).await.unwrap();
    assert!(device.node.told().unwrap().apps.is_empty());
    assert!(operator.device("edge-1").await.unwrap().apps.is_empty());
}

#[tokio::test]
async fn a_restart_reaches_the_device_once() {
    let app = "{kind: App, name: web, spec: {device: edge-1, image: web}}";
    let (home, mut line, mut device) = one(&with_app(app)).await;
    for _ in 0..8 {
        device.round(&mut line, now()).await.unwrap();
    }
    home.operator().unwrap().restart_app("web").await.unwrap();
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Applied);
    assert_eq!(device.node.app("web").unwrap().state, ZSwState::Initial);
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Unchanged);
}

#[tokio::test]
async fn what_an_app_says_of_its_failure_is_shown() {
    let app = "{kind: App, name: web, spec: {device: edge-1, image: web}}";
    let (home, mut line, mut device) = one(&with_app(app)).await;
    device.node.fail_app("web");
    for _ in 0..8 {
        device.round(&mut line, now()).await.unwrap();
    }
    let shown = home.operator().unwrap().device("edge-1").await.unwrap();
    let said = serde_json::to_string(&shown).unwrap();
    assert!(said.contains("web ended with status 1"), "{said}");
}

#[tokio::test]
async fn logs_are_kept_once_however_often_they_come() {
    let (home, mut line, mut device) = one(EDGE).await;
    let at = now();
    for _ in 0..2 {
        let status = device.send_logs(&mut line, &["line one", "line two"], at).await.unwrap();
        assert_eq!(status, 201);
    }
    let lines = home.operator().unwrap().logs("edge-1", None, 0, 100).await.unwrap();
    let lines: Vec<&str> = lines.iter().map(|l| l.content.as_str()).collect();
    assert_eq!(lines, ["line one", "line two"]);
}

#[tokio::test]
async fn a_log_file_that_nobody_can_read_does_not_block_the_queue() {
    let (_home, mut line, mut device) = one(EDGE).await;
    let path = device.path("newlogs").unwrap();
    let answer = device.post(&mut line, &path, b"no gzip", Mode::EveryPort, now()).await.unwrap();
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn flow_logs_and_hardware_health_are_taken() {
    let (_home, mut line, mut device) = one(EDGE).await;
    let ids = ("00000000-0000-4000-8000-000000000060", "00000000-0000-4000-8000-000000000050");
    assert_eq!(device.send_flow_log(&mut line, ids, now()).await.unwrap(), 201);
    assert_eq!(device.send_hardware_health(&mut line, now()).await.unwrap(), 201);
    let app = (ids.0, "web");
    assert_eq!(device.send_app_logs(&mut line, app, &["hello"], now()).await.unwrap(), 201);
}

#[tokio::test]
async fn a_body_that_is_none_is_refused_and_never_a_fault_of_ours() {
    let (_home, mut line, mut device) = one(EDGE).await;
    for rest in ["info", "metrics", "config", "attest"] {
        let path = device.path(rest).unwrap();
        let answer = device.post(&mut line, &path, b"\xff\xff", Mode::FirstAnswer, now()).await;
        let status = answer.unwrap().status;
        assert!(matches!(status, 400 | 422), "{rest}: {status}");
        let raw = device.post_body(&mut line, &path, vec![0xff; 9], Mode::FirstAnswer).await;
        let status = raw.unwrap().status;
        assert!(matches!(status, 400 | 401 | 422), "{rest}, no envelope: {status}");
    }
}

#[tokio::test]
async fn what_is_no_more_is_told_by_its_id_alone() {
    let (_home, mut line, mut device) = one(EDGE).await;
    let gone = Subject::App("00000000-0000-4000-8000-000000000060".to_owned());
    let payload =
        device.say(now(), |speaker, node| testbed::sim::report::info(speaker, node, &gone));
    device.queue_info(gone, payload);
    let flushed = device.flush(&mut line, now()).await.unwrap();
    assert_eq!((flushed.delivered, device.waiting()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_devices_the_three_that_fail_stand_out() {
    let home = Home::start().await.unwrap();
    let operator = home.operator().unwrap();
    operator.allow_serial("*").await.unwrap();
    let app =
        format!("{REMOTE}\n---\n{{kind: App, name: web, spec: {{device: \"*\", image: web}}}}");
    operator.apply(&app, false).await.unwrap();
    let mut fleet = Fleet::new(vec![home.conf().unwrap()], host::clock::now);
    let enrolled = fleet.enrol(5, 50, 8).await;
    assert_eq!((enrolled.good(), enrolled.first_failure), (50, None));
    for device in &mut fleet.devices_mut()[..3] {
        device.node.fail_app("web");
    }
    for _ in 0..8 {
        let round = fleet.round(8).await;
        assert_eq!((round.good(), round.first_failure), (50, None));
    }
    let failed: BTreeSet<_> = fleet
        .devices()
        .iter()
        .filter(|d| d.node.app("web").unwrap().state == ZSwState::Error)
        .map(|d| d.id().unwrap())
        .collect();
    assert_eq!(failed.len(), 3);
    let shown = operator.devices().await.unwrap();
    let says_so = |d: &controller::view::Device| {
        serde_json::to_string(d).unwrap().contains("web ended with status 1")
    };
    let seen: BTreeSet<_> = shown.iter().filter(|d| says_so(d)).map(|d| d.id.raw()).collect();
    assert_eq!(seen, failed);
}
