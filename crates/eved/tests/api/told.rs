//! What the node tells of itself, its settings, its ports and its clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use host::topics::{Table, Writer};
use model::services::Service;
use model::topic::{Boots, Controller, DesiredApps, DesiredPorts, DesiredProperties, Only};

use crate::FAST;
use crate::common::eventually;
use crate::common::scripted::{Answer, SIGNING, Scripted, config, empty, golden, told};

/// The newest word about the node that fits.
pub(crate) async fn device_info<T>(
    scripted: &Scripted,
    fits: impl Fn(api::pb::info::ZInfoDevice) -> Option<T>,
) -> T {
    use api::pb::info::{ZInfoMsg, z_info_msg::InfoContent};
    eventually("the node's info", || {
        scripted.asked("{id}/info").into_iter().rev().find_map(|asked| {
            let info: ZInfoMsg = api::wire::decode(&asked.payload, model::Bytes::mib(4)).unwrap();
            let Some(InfoContent::Dinfo(device)) = info.info_content else { return None };
            fits(device)
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn device_info_completeness() {
    use api::pb::info::DataSecAtRestStatus;
    if golden().is_none() {
        return;
    }
    let changed = Arc::new(AtomicUsize::new(60));
    let seconds = changed.clone();
    let scripted = Scripted::start(move |asked| {
        let seconds = seconds.load(Ordering::SeqCst).to_string();
        let items = [FAST, &[("timer.metric.interval", seconds.as_str())]].concat();
        let answer = config(&seconds, empty(1000, &items));
        (asked.path == "{id}/config").then_some(Answer::Signed(answer, SIGNING))
    })
    .await;
    let node = scripted.node();
    // As `eved health` would say.
    let boot = model::reported::Boot {
        reason: model::reported::BootReason::First,
        detail: String::new(),
        count: 3,
        started: model::UnixMillis(1),
        timeline: Vec::new(),
        version: "0.0.0-test".to_owned(),
        slot: "IMGA".to_owned(),
    };
    let mut boots = Writer::<Boots>::open(&node.roots()).unwrap();
    boots.publish(Table::<Boots>::from([(Only, boot)])).unwrap();
    let _services = node.start(&[Service::Onboard, Service::Config]);
    let value = |device: &api::pb::info::ZInfoDevice| {
        let items = &device.config_item_status.as_ref()?.config_items;
        Some(items.get("timer.metric.interval")?.value.clone())
    };
    let told = device_info(&scripted, |device| value(&device).map(|_| device)).await;
    let adapters = told.system_adapter.as_ref().unwrap();
    let port = adapters.status[0].ports.first().unwrap();
    assert_eq!((port.ifname.as_str(), port.is_mgmt), ("eth0", true));
    assert_eq!(port.ip_addrs, ["10.0.2.15"]);
    assert_eq!(told.machine_arch, std::env::consts::ARCH);
    let software = &told.sw_list[0];
    assert_eq!((software.short_version.as_str(), software.activated), ("0.0.0-test", true));
    assert_eq!(software.partition_label, "IMGA");
    let at_rest = told.data_sec_at_rest_info.as_ref().unwrap();
    assert_eq!(at_rest.status, i32::from(DataSecAtRestStatus::DatasecAtRestDisabled));
    assert!(told.ncpu > 0 && told.restart_counter == 3);
    assert_eq!(value(&told).as_deref(), Some("60"));
    changed.store(45, Ordering::SeqCst);
    device_info(&scripted, |device| value(&device).filter(|v| v == "45")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn config_items_and_status() {
    if golden().is_none() {
        return;
    }
    let scripted = Scripted::start(|_| None).await;
    let gives = |hash: &'static str, app: bool, seconds: &'static str| {
        let mut told = told(if app { "container-app" } else { "minimal-device" });
        let items = [FAST, &[("timer.metric.interval", seconds)]].concat();
        told.config_items = empty(0, &items).config_items;
        // Each is newer than the last.
        let stamp = if app { 1_900_000_000 } else { 1_900_000_001 };
        told.config_timestamp = empty(stamp, &[]).config_timestamp;
        let answer = config(hash, told);
        scripted.rule(move |asked| {
            (asked.path == "{id}/config").then(|| Answer::Signed(answer.clone(), SIGNING))
        });
    };
    let interval_told = |seconds: &'static str| {
        device_info(&scripted, move |device| {
            let items = device.config_item_status?.config_items;
            let item = items.get("timer.metric.interval").filter(|item| item.value == seconds)?;
            Some(item.error.clone())
        })
    };
    let node = scripted.node();
    gives("h1", true, "600");
    let _services = node.start(&[Service::Onboard, Service::Config]);
    eventually("the app", || node.table::<DesiredApps>().into_values().next()).await;
    let settings = eventually("settings", || node.get::<DesiredProperties>(&Only)).await;
    assert_eq!(settings.metric_interval.as_secs(), 600);
    assert_eq!(interval_told("600").await, "");

    gives("h2", false, "0");
    let why = interval_told("0").await;
    assert_eq!(why, "\"0\" is not 5 to 3600");
    let settings = node.get::<DesiredProperties>(&Only).unwrap();
    assert_eq!(settings.metric_interval.as_secs(), 600, "a bad value leaves the one before");
    eventually("the app gone", || node.table::<DesiredApps>().is_empty().then_some(())).await;
}

/// A setting that steers nothing here says so in its own status; log levels count at once.
#[tokio::test(flavor = "multi_thread")]
async fn each_setting_is_obeyed_or_says_why_it_is_not() {
    if golden().is_none() {
        return;
    }
    let items = [
        FAST,
        &[
            ("newlog.allow.fastupload", "true"),
            ("debug.enable.usb", "false"),
            ("timer.send.timeout", "7"),
            ("agent.config.debug.loglevel", "loud"),
            ("debug.default.remote.loglevel", "none"),
        ],
    ]
    .concat();
    // Each answer is another config, so that there is always something to say.
    let times = AtomicUsize::new(0);
    let scripted = Scripted::start(move |asked| {
        let hash = times.fetch_add(1, Ordering::SeqCst).to_string();
        let answer = config(&hash, empty(1000, &items));
        (asked.path == "{id}/config").then_some(Answer::Signed(answer, SIGNING))
    })
    .await;
    let node = scripted.node();
    let _services = node.start(&[Service::Onboard, Service::Config, Service::Log]);
    let errors = device_info(&scripted, |device| {
        let items = device.config_item_status?.config_items;
        items.contains_key("debug.enable.usb").then_some(items)
    })
    .await;
    let error = |key: &str| errors[key].error.as_str();
    assert_eq!(
        error("debug.enable.usb"),
        "has no effect on this node: USB devices are not locked out yet"
    );
    assert_eq!(error("agent.config.debug.loglevel"), "\"loud\" is no level of a log");
    assert_eq!((error("timer.send.timeout"), error("debug.default.remote.loglevel")), ("", ""));
    // What nobody wants to be sent stays on the node.
    let folder = node.persist().join("newlog");
    eventually("lines that stay", || {
        let names = std::fs::read_dir(&folder).ok()?.flatten().map(|e| e.file_name());
        names.into_iter().find(|n| n.to_string_lossy().starts_with("dev.skipTx.log."))
    })
    .await;
}

/// Counters are those of the kernel, and of the calls that were made.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_went_through_ports_and_to_the_controller() {
    use api::pb::metrics::{ZMetricMsg, z_metric_msg::MetricContent};
    use model::reported::{PortStatus, Resources};
    use model::topic::{Ports, ResourceUse};
    if golden().is_none() {
        return;
    }
    let scripted = Scripted::start(move |asked| {
        let items = [FAST, &[("timer.metric.interval", "5")]].concat();
        let answer = config("h1", empty(1000, &items));
        (asked.path == "{id}/config").then_some(Answer::Signed(answer, SIGNING))
    })
    .await;
    let node = scripted.node();
    // The one interface that there is everywhere.
    let row = node.table::<Ports>().into_iter().next().unwrap();
    let mut port = row.1.port.clone();
    "lo".clone_into(&mut port.interface);
    let mut ports = Writer::<Ports>::open(&node.roots()).unwrap();
    ports.publish([(row.0, PortStatus { port, ..row.1 })].into()).unwrap();
    // As `eved health` would say.
    let boot = model::reported::Boot {
        reason: model::reported::BootReason::First,
        detail: String::new(),
        count: 1,
        started: model::UnixMillis(1),
        timeline: Vec::new(),
        version: String::new(),
        slot: String::new(),
    };
    let mut boots = Writer::<Boots>::open(&node.roots()).unwrap();
    boots.publish(Table::<Boots>::from([(Only, boot)])).unwrap();
    let mib = model::Bytes::mib;
    let used = Resources {
        services: Vec::new(),
        memory_total: mib(1000),
        memory_available: mib(600),
        cpu_ns: 1,
        persist_total: mib(100),
        persist_used: mib(1),
    };
    let mut resources = Writer::<ResourceUse>::open(&node.roots()).unwrap();
    resources.publish(Table::<ResourceUse>::from([(Only, used)])).unwrap();
    let _services = node.start(&[Service::Onboard, Service::Config]);
    let device = || {
        let all = scripted.asked("{id}/metrics").into_iter().rev();
        all.into_iter().find_map(|asked| {
            let message: ZMetricMsg =
                api::wire::decode(&asked.payload, model::Bytes::mib(4)).unwrap();
            let Some(MetricContent::Dm(device)) = message.metric_content else { return None };
            Some(device)
        })
    };
    let first = eventually("metrics", device).await;
    let network = &first.network[0];
    assert_eq!((network.i_name.as_str(), network.local_name.as_str()), ("eth0", "lo"));
    assert!(network.rx_bytes > 0 && network.rx_bytes == network.tx_bytes, "{network:?}");
    let later = eventually("metrics after calls for metrics", || {
        device().filter(|device| {
            let calls = device.zedcloud.iter().flat_map(|cloud| &cloud.url_metrics);
            calls.into_iter().any(|call| call.url.ends_with("/metrics") && call.sent_msg_count > 0)
        })
    })
    .await;
    let cloud = &later.zedcloud[0];
    assert!(cloud.success > 0 && cloud.last_success.is_some(), "{cloud:?}");
    let asked = cloud.url_metrics.iter().find(|call| call.url.ends_with("/metrics")).unwrap();
    assert!(asked.sent_byte_count > 0 && asked.try_msg_count >= asked.sent_msg_count, "{asked:?}");
}

/// A time server of ours, which a port names, is asked; the controller learns of it. Our own clock is
/// right, and stays as it is.
#[tokio::test(flavor = "multi_thread")]
async fn time_servers_are_asked_and_told_of() {
    use api::pb::info::{NtpSourceState, ZInfoMsg, z_info_msg::InfoContent};
    use model::reported::PortStatus;
    use model::topic::{Clock, Ports};
    if golden().is_none() {
        return;
    }
    let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = server.local_addr().unwrap();
    tokio::spawn(async move {
        let mut asked = [0; 64];
        while let Ok((48, from)) = server.recv_from(&mut asked).await {
            let seconds = host::clock::now().0 / 1000 + 2_208_988_800;
            let parts = (host::clock::now().0 % 1000) * ((1 << 32) / 1000);
            let now = ((seconds << 32) + parts).to_be_bytes();
            let mut answer = [0; 48];
            (answer[0], answer[1]) = (0x24, 2);
            answer[24..32].copy_from_slice(&asked[40..48]);
            answer[32..40].copy_from_slice(&now);
            answer[40..48].copy_from_slice(&now);
            let _ = server.send_to(&answer, from).await;
        }
    });
    let scripted = Scripted::start(move |asked| {
        let answer = config("h1", empty(1000, FAST));
        (asked.path == "{id}/config").then_some(Answer::Signed(answer, SIGNING))
    })
    .await;
    let node = scripted.node();
    let row = node.table::<Ports>().into_iter().next().unwrap();
    let mut port = row.1.port.clone();
    port.options.ntp = vec![at.to_string()];
    let mut ports = Writer::<Ports>::open(&node.roots()).unwrap();
    ports.publish([(row.0, PortStatus { port, ..row.1 })].into()).unwrap();
    let _services = node.start(&[Service::Onboard, Service::Config, Service::Clock]);
    let state =
        eventually("the time", || node.get::<Clock>(&Only).filter(|c| c.in_step.is_some())).await;
    assert_eq!(state.sources[0].name, at.to_string());
    assert!(state.sources[0].offset_ns.abs() < 100_000_000, "{state:?}");
    let told = eventually("the info of time servers", || {
        scripted.asked("{id}/info").into_iter().find_map(|asked| {
            let info: ZInfoMsg = api::wire::decode(&asked.payload, model::Bytes::mib(4)).unwrap();
            let Some(InfoContent::NtpSources(list)) = info.info_content else { return None };
            Some(list)
        })
    })
    .await;
    let [source] = &told.sources[..] else { panic!("{told:?}") };
    assert_eq!((source.state(), source.stratum), (NtpSourceState::Sync, 2));
    assert_eq!(source.dst_addr, "127.0.0.1");
}

/// New ports are tried soon, however seldom the node asks for its config.
#[tokio::test(flavor = "multi_thread")]
async fn who_gets_new_ports_asks_soon_whether_they_lead_anywhere() {
    if golden().is_none() {
        return;
    }
    let scripted = Scripted::start(|_| None).await;
    let gives = |hash: &'static str, seconds: &'static str, cost: u32| {
        let mut told = told("minimal-device");
        told.config_items = empty(0, &[("timer.config.interval", seconds)]).config_items;
        told.config_timestamp = empty(1_900_000_000, &[]).config_timestamp;
        told.system_adapter_list[0].cost = cost;
        let answer = config(hash, told);
        scripted.rule(move |asked| {
            (asked.path == "{id}/config").then(|| Answer::Signed(answer.clone(), SIGNING))
        });
    };
    let node = scripted.node();
    gives("h1", "5", 0);
    let _services = node.start(&[Service::Onboard, Service::Config]);
    let cost = || node.table::<DesiredPorts>().into_values().next().map(|port| port.cost);
    eventually("ports", cost).await;
    // What the boot asks for by itself is over by then.
    let asked = || scripted.asked("{id}/config").len();
    eventually("more questions", || (asked() > 5).then_some(())).await;
    gives("h2", "86400", 7);
    eventually("other ports", || cost().filter(|cost| *cost == 7)).await;
    let (before, answered) = (asked(), || node.get::<Controller>(&Only)?.standing.answered);
    let last = answered().unwrap();
    eventually("a question through them", || (asked() > before).then_some(())).await;
    eventually("another answer", || answered().filter(|at| *at > last)).await;
}
