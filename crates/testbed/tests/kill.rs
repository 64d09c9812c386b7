//! A controller that is killed under load: what it acknowledged is there afterwards, and devices
//! carry on.
//!
//! Five kills, or as many as `EVE_KILLS` says. `EVE_SEED` makes them come at other moments.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use controller::client::{Client, ClientError};
use model::UnixMillis;
use testbed::Postgres;
use testbed::sim::home::{conf_of, eventually};
use testbed::sim::http::Session;
use testbed::sim::line::is_good;
use testbed::sim::{Conf, Device, Line, Polled, Way};

const DEVICES: u32 = 6;
const START: Duration = Duration::from_secs(30);

/// A controller in a process of its own; killed when dropped.
struct Killable(Child);

impl Killable {
    #[expect(clippy::disallowed_methods, reason = "the program under test")]
    fn start(data: &Path, listen: &str, database: Option<&str>) -> Killable {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_controller-alone"));
        Killable(program.arg(data).arg(listen).args(database).spawn().unwrap())
    }

    /// SIGKILL: no handler, no farewell.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the controller has acknowledged to one device.
#[derive(Debug, Default)]
struct Acknowledged {
    /// The number of boots in the last info that was taken.
    boots: u32,
    /// The time of the last metrics that were taken.
    metrics: Option<UnixMillis>,
    /// Log lines.
    lines: Vec<String>,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// The next of a sequence of moments (Knuth's MMIX generator).
fn next(random: &mut u64) -> u64 {
    *random =
        random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *random >> 33
}

/// A call whose controller may be gone: `None` then. Anything else that is wrong is wrong.
fn answered<T>(outcome: anyhow::Result<T>) -> Option<T> {
    match outcome {
        Ok(answer) => Some(answer),
        Err(e) if e.chain().any(|cause| cause.is::<io::Error>()) => None,
        Err(e) => panic!("{e:#}"),
    }
}

/// Onboards, polls, reports, sends metrics and logs until it is told to stop.
async fn live(index: u32, conf: Arc<Conf>, stop: Arc<AtomicBool>) -> (Device, Acknowledged) {
    let mut device = Device::new(1, index);
    let mut line = Line::new(conf, if index.is_multiple_of(2) { Way::Close } else { Way::Kept });
    let mut known = Acknowledged::default();
    for turn in 0u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let now = host::clock::now();
        let had_id = device.id();
        match answered(device.round(&mut line, now).await) {
            Some(Polled::Unchanged | Polled::Applied) => {}
            Some(Polled::Refused(503)) | None => {}
            Some(other) => panic!("device {index}, registered as {had_id:?}: {other:?}"),
        }
        if device.id().is_none() {
            continue;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        // The next info tells of one more boot than the one before; this one is sent at once.
        device.node.reboot();
        let boots = device.node.boots;
        let news = testbed::sim::Subject::Device;
        let info = device.say(now, |s, node| testbed::sim::report::info(s, node, &news));
        let path = device.path("info").unwrap();
        let sent = device.post(&mut line, &path, &info, testbed::sim::Mode::FirstAnswer, now).await;
        if answered(sent).is_some_and(|a| is_good(a.status)) {
            known.boots = boots;
        }
        if answered(device.send_metrics(&mut line, now).await).is_some_and(is_good) {
            known.metrics = Some(now);
        }
        let text = format!("device {index} turn {turn}");
        if answered(device.send_logs(&mut line, &[&text], now).await).is_some_and(is_good) {
            known.lines.push(text);
        }
    }
    (device, known)
}

/// An operator who declares one object after the other; those that were accepted.
async fn operate(operator: Client, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut accepted = Vec::new();
    for n in 0u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("declared-{n}");
        let text = format!("{{kind: Device, name: {name}, spec: {{soft_serial: {name}}}}}");
        match operator.apply(&text, false).await {
            Ok(_) => accepted.push(name),
            Err(ClientError::Refused { status, failure }) if status != 503 => {
                panic!("{status}: {failure:?}")
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    accepted
}

async fn listens(conf: &Conf) {
    let ping = testbed::sim::line::call("GET", "/ping", "ping", None, Vec::new());
    eventually("the controller", START, async || conf.endpoint().once(&ping).await.ok())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_a_kill() {
    under_load(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_a_kill_with_postgresql() {
    match Postgres::start().unwrap() {
        Some(server) => under_load(Some(&server.url())).await,
        None => println!("skipped: PostgreSQL is not installed"),
    }
}

async fn under_load(database: Option<&str>) {
    let kills = number("EVE_KILLS", 5);
    let mut random = number("EVE_SEED", 1);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut program = Killable::start(&data, "127.0.0.1:0", database);
    let endpoint = data.join("endpoint");
    eventually("the controller", START, async || endpoint.exists().then_some(())).await.unwrap();
    let conf = Arc::new(conf_of(&data, Session::Resumed).await.unwrap());
    listens(&conf).await;
    let listen = SocketAddr::from(([127, 0, 0, 1], conf.endpoint().address().port())).to_string();
    let operator = Client::from_data(&data).unwrap();
    operator.allow_serial("*").await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let living: Vec<_> =
        (0..DEVICES).map(|index| tokio::spawn(live(index, conf.clone(), stop.clone()))).collect();
    let operating = tokio::spawn(operate(operator.clone(), stop.clone()));
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(200 + next(&mut random) % 800)).await;
        program.kill();
        program = Killable::start(&data, &listen, database);
        listens(&conf).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);

    let devices: BTreeMap<_, _> = operator
        .devices()
        .await
        .unwrap()
        .into_iter()
        .map(|shown| (shown.soft_serial.clone(), shown))
        .collect();
    let mut lines = 0;
    for living in living {
        let (mut device, known) = living.await.unwrap();
        let shown = &devices.get(device.soft_serial()).expect("a registration was lost");
        assert_eq!(Some(shown.id.raw()), device.id());
        let shown = operator.device(&shown.name).await.unwrap();
        assert!(shown.boot.as_ref().unwrap().count >= known.boots, "info was lost: {shown:?}");
        let at = shown.usage.as_ref().map(|u| u.at);
        assert!(at >= known.metrics, "metrics were lost: {at:?}, not {:?}", known.metrics);
        let logs = operator.logs(&shown.name, None, 0, 10_000).await.unwrap();
        let mut kept: BTreeMap<&str, u32> = BTreeMap::new();
        for row in &logs {
            *kept.entry(&row.content).or_default() += 1;
        }
        for line in &known.lines {
            assert_eq!(kept.get(line.as_str()), Some(&1), "{line}");
        }
        lines += known.lines.len();
        // And it carries on, over the same line or a new one.
        let mut line = Line::new(conf.clone(), Way::Close);
        let polled = device.poll(&mut line, host::clock::now()).await.unwrap();
        assert!(matches!(polled, Polled::Unchanged | Polled::Applied), "{polled:?}");
    }
    let accepted = operating.await.unwrap();
    for name in &accepted {
        assert!(
            devices.contains_key(name) || operator.device(name).await.is_ok(),
            "{name} was lost"
        );
    }
    assert!(lines > 0 && !accepted.is_empty(), "there was no load: {lines} lines, {accepted:?}");
    println!("{kills} kills: {lines} log lines and {} objects are all there", accepted.len());
}
