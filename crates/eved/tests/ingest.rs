//! What a node reads from its CONFIG partition before it has a config, and how that ends: the
//! scenarios of the reference test suites (`global_config_…`, `bootstrap_config_…`, `nim_…`), by their
//! names, with the real services.
//!
//! `nim_usb_json_ingest` is about the file: that a stick is plugged in and its file copied is the
//! hardware's, and our node does not do it.

mod common;

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

use api::pb::common::NetworkConfigOrigin;
use api::pb::config::EdgeDevConfig;
use api::pb::info::{ZInfoDevice, ZInfoMsg, z_info_msg::InfoContent};
use api::{Sender, SigningKey, bootstrap, envelope};
use common::scripted::{Answer, SIGNING, Scripted, config, empty, golden, told, vector};
use common::{Node, eventually};
use host::topics::Reader;
use model::desired::{Addressing, Port};
use model::reported::{ConfigSource, PortsFrom};
use model::services::Service;
use model::topic::{Controller, DesiredPorts, DesiredProperties, Only};

/// So long nothing may happen where nothing should.
const A_WHILE: std::time::Duration = std::time::Duration::from_secs(2);

const GLOBAL: &str = "GlobalConfig/global.json";
const OVERRIDE: &str = "DevicePortConfig/override.json";
const USB: &str = "DevicePortConfig/usb.json";

/// Settings as EVE writes them: two good ones, one out of range, one that nobody knows.
const SETTINGS: &str = r#"{
    "GlobalSettings": {
        "timer.config.interval": {"Key": "timer.config.interval", "ItemType": 1, "IntValue": 5},
        "timer.metric.interval": {"Key": "timer.metric.interval", "ItemType": 1, "IntValue": 88},
        "timer.cert.interval": {"Key": "timer.cert.interval", "ItemType": 1, "IntValue": 7},
        "no.such.key": {"Key": "no.such.key", "ItemType": 3, "StrValue": "x"}
    }
}"#;
/// The good ones.
const GOOD: &[(&str, &str)] = &[("timer.config.interval", "5"), ("timer.metric.interval", "88")];

/// A port of this label, made at this time.
fn ports(label: &str, time: &str) -> String {
    format!(
        r#"{{"Version": 1, "TimePriority": "{time}", "Ports": [{{
            "IfName": "eth0", "Logicallabel": "{label}", "IsMgmt": true, "IsL3Port": true,
            "Dhcp": 1, "AddrSubnet": "172.22.12.10/24", "Gateway": "172.22.12.1"}}]}}"#
    )
}

fn put(node: &Node, name: &str, bytes: impl AsRef<[u8]>) {
    let path = node.path("config").join(name);
    let folder = path.parent().unwrap();
    std::fs::create_dir_all(folder).unwrap();
    store::save(folder, path.file_name().unwrap().to_str().unwrap(), bytes.as_ref()).unwrap();
}

/// A bootstrap file of the vectors' controller: one port of this label, and settings.
fn bootstrap_file(label: &str, items: &[(&str, &str)]) -> Vec<u8> {
    let mut config: EdgeDevConfig = told("minimal-device");
    config.config_items = empty(0, items).config_items;
    for io in &mut config.device_io_list {
        io.logicallabel = label.to_owned();
    }
    for adapter in &mut config.system_adapter_list {
        (adapter.name, adapter.lower_layer_name) = (label.to_owned(), String::new());
    }
    let key = SigningKey::from_pem(&vector(&format!("pki/{SIGNING}.key.pem"))).unwrap();
    let zcert = vector(&format!("pki/{SIGNING}.cert.pem"));
    let zcert = zcert.strip_suffix(b"\n").unwrap_or(&zcert);
    let certs = vector("envelope/resp-certs.AuthContainer.pb");
    let certs = envelope::open(&certs, model::Bytes::mib(1)).unwrap().unverified_payload().to_vec();
    bootstrap::write(&config, &Sender::controller(&key, zcert), &certs).unwrap()
}

/// The one port that is wished, once there is one of this label.
async fn port(node: &Node, label: &str) -> Port {
    eventually("the port", || {
        let ports = node.table::<DesiredPorts>();
        assert!(ports.len() <= 1, "{ports:?}");
        ports.into_values().find(|port| port.name.as_str() == label)
    })
    .await
}

async fn metric_interval(node: &Node, seconds: u64) {
    eventually("the setting", || {
        let settings = node.get::<DesiredProperties>(&Only)?;
        (settings.metric_interval.as_secs() == seconds).then_some(())
    })
    .await;
}

async fn source(node: &Node, source: ConfigSource) {
    eventually("the config", || node.get::<Controller>(&Only).filter(|c| c.config == source)).await;
}

async fn problem(node: &Node) -> String {
    eventually("the problem", || node.get::<Controller>(&Only)?.problem).await.text
}

/// What a service says, from the time on when this was made.
struct Said(Mutex<(std::fs::File, String)>);

impl Said {
    fn by(node: &Node, service: Service) -> Said {
        let pipe = node.path("run/eve/log").join(service.name());
        let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
        drop(host::crun::output_pipe(&pipe, rustix::process::getuid().as_raw()).unwrap());
        let pipe =
            std::fs::OpenOptions::new().read(true).custom_flags(nonblock).open(pipe).unwrap();
        Said(Mutex::new((pipe, String::new())))
    }

    async fn hears(&self, text: &str) {
        eventually(text, || {
            let (pipe, heard) = &mut *self.0.lock().unwrap();
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut bytes) {
                heard.push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
            heard.contains(text).then_some(())
        })
        .await;
    }
}

/// The newest word about the node that fits.
async fn device_info<T>(scripted: &Scripted, fits: impl Fn(ZInfoDevice) -> Option<T>) -> T {
    eventually("the node's info", || {
        scripted.asked("{id}/info").into_iter().rev().find_map(|asked| {
            let info: ZInfoMsg = api::wire::decode(&asked.payload, model::Bytes::mib(4)).unwrap();
            let Some(InfoContent::Dinfo(device)) = info.info_content else { return None };
            fits(device)
        })
    })
    .await
}

/// What the node says of a setting: its value, and what is wrong with it.
async fn setting_told(scripted: &Scripted, key: &str) -> (String, String) {
    device_info(scripted, |device| {
        let item = device.config_item_status?.config_items.remove(key)?;
        Some((item.value, item.error))
    })
    .await
}

/// Waits until the node says that its port is from there.
async fn origin_told(scripted: &Scripted, origin: NetworkConfigOrigin) {
    device_info(scripted, |device| {
        let adapters = device.system_adapter?;
        let port = adapters.status.first()?.ports.first()?;
        (port.config_source.as_ref()?.origin == i32::from(origin)).then_some(())
    })
    .await;
}

/// A controller that knows the node and has no config, until it is given one.
async fn without_config() -> Scripted {
    Scripted::start(|_| None).await
}

/// Lets it have a config with these settings and the ports of the vectors.
fn gives_config(scripted: &Scripted, items: &[(&str, &str)]) {
    let mut told = told("minimal-device");
    told.config_items = empty(0, items).config_items;
    let answer = config("h1", told);
    scripted.rule(move |asked| {
        (asked.path == "{id}/config").then(|| Answer::Signed(answer.clone(), SIGNING))
    });
}

/// A node with a saved config, after a reboot without a controller; nothing runs.
async fn with_saved_config() -> (Scripted, Node) {
    let scripted = without_config().await;
    gives_config(&scripted, &[("timer.metric.interval", "77")]);
    let node = scripted.node();
    {
        let _services = node.start(&[Service::Onboard, Service::Config]);
        source(&node, ConfigSource::Controller).await;
    }
    scripted.rule(|_| Some(Answer::Status(503)));
    node.reboot();
    (scripted, node)
}

/// Checks that the saved config is all that counts.
async fn saved_alone(node: &Node) {
    source(node, ConfigSource::Saved).await;
    metric_interval(node, 77).await;
    port(node, "eth0").await;
    let status = node.get::<Controller>(&Only).unwrap();
    assert_eq!(status.standing.ports_from, PortsFrom::Controller);
}

#[tokio::test(flavor = "multi_thread")]
async fn global_config_file_ingest() {
    if golden().is_none() {
        return;
    }
    let scripted = without_config().await;
    let node = scripted.node();
    put(&node, GLOBAL, SETTINGS);
    let services = node.start(&[Service::Onboard, Service::Config]);
    metric_interval(&node, 88).await;
    let told = [
        ("timer.metric.interval", "88", ""),
        ("timer.cert.interval", "7", "\"7\" is not 60 to 4294967295"),
        ("no.such.key", "x", "unknown key"),
    ];
    for (key, value, error) in told {
        assert_eq!(setting_told(&scripted, key).await, (value.to_owned(), error.to_owned()));
    }
    // It is asked for a config as often as the file says.
    let asked = scripted.asked("{id}/config").len();
    eventually("more polls", || (scripted.asked("{id}/config").len() >= asked + 2).then_some(()))
        .await;

    // The first config ends it: what that does not say has its default again.
    gives_config(&scripted, &[("timer.config.interval", "5")]);
    source(&node, ConfigSource::Controller).await;
    metric_interval(&node, 60).await;
    assert!(node.get::<DesiredProperties>(&Only).unwrap().problems.is_empty());
    drop(services);
    node.reboot();
    scripted.rule(|_| Some(Answer::Status(503)));
    let _services = node.start(&[Service::Onboard, Service::Config]);
    source(&node, ConfigSource::Saved).await;
    metric_interval(&node, 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn global_config_file_ingest_preonboard() {
    let node = Node::bare();
    put(&node, GLOBAL, "{\"GlobalSettings\": {\"timer.metric.interval\": {\"ItemType\": 9}}}");
    {
        let _services = node.start(&[Service::Config]);
        let why = problem(&node).await;
        assert!(why.contains(GLOBAL), "{why}");
        assert!(why.contains("GlobalSettings[\"timer.metric.interval\"].ItemType: \"9\""), "{why}");
    }
    put(&node, GLOBAL, vec![b' '; 300 << 10]);
    node.reboot();
    {
        let _services = node.start(&[Service::Config]);
        let why = problem(&node).await;
        assert!(why.contains(GLOBAL) && why.contains("too large"), "{why}");
    }
    put(&node, GLOBAL, SETTINGS);
    node.reboot();
    let _services = node.start(&[Service::Config]);
    metric_interval(&node, 88).await;
    let settings = node.get::<DesiredProperties>(&Only).unwrap();
    assert_eq!(settings.config_interval.as_secs(), 5);
    let problems: Vec<&str> = settings.problems.keys().map(String::as_str).collect();
    assert_eq!(problems, ["no.such.key", "timer.cert.interval"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_config_item_ingest() {
    if golden().is_none() {
        return;
    }
    let scripted = without_config().await;
    let node = scripted.node();
    let items = [GOOD, &[("no.such.key", "x")]].concat();
    put(&node, "bootstrap-config.pb", bootstrap_file("first", &items));
    let _services = node.start(&[Service::Onboard, Service::Config]);
    metric_interval(&node, 88).await;
    let told = setting_told(&scripted, "timer.metric.interval").await;
    assert_eq!(told, ("88".to_owned(), String::new()));
    let told = setting_told(&scripted, "no.such.key").await;
    assert_eq!(told, ("x".to_owned(), "unknown key".to_owned()));
    gives_config(&scripted, &[("timer.config.interval", "5")]);
    source(&node, ConfigSource::Controller).await;
    metric_interval(&node, 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_config_item_ingest_preonboard() {
    if golden().is_none() {
        return;
    }
    let node = Node::bare();
    put(&node, "root-certificate.pem", vector("pki/root-certificate.pem"));
    put(&node, "bootstrap-config.pb", bootstrap_file("first", GOOD));
    let _services = node.start(&[Service::Config]);
    metric_interval(&node, 88).await;
    assert_eq!(node.get::<DesiredProperties>(&Only).unwrap().config_interval.as_secs(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn nim_bootstrap_only() {
    if golden().is_none() {
        return;
    }
    let scripted = without_config().await;
    let node = scripted.node();
    put(&node, "bootstrap-config.pb", bootstrap_file("first", GOOD));
    let _services = node.start(&[Service::Onboard, Service::Config]);
    port(&node, "first").await;
    origin_told(&scripted, NetworkConfigOrigin::Bootstrap).await;
    gives_config(&scripted, GOOD);
    port(&node, "eth0").await;
    origin_told(&scripted, NetworkConfigOrigin::Controller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nim_bootstrap_only_preonboard() {
    if golden().is_none() {
        return;
    }
    let node = Node::bare();
    put(&node, "root-certificate.pem", vector("pki/root-certificate.pem"));
    let file = vector("config/bootstrap-config.pb");
    let mut broken = file.clone();
    *broken.last_mut().unwrap() ^= 1;
    put(&node, "bootstrap-config.pb", &broken);
    {
        let _services = node.start(&[Service::Config]);
        let why = problem(&node).await;
        assert!(why.contains("bootstrap-config.pb"), "{why}");
        assert!(node.table::<DesiredPorts>().is_empty());
    }
    // No identity, no answer, and yet there are ports.
    put(&node, "bootstrap-config.pb", &file);
    let _services = node.start(&[Service::Config]);
    eventually("the ports", || node.table::<DesiredPorts>().into_values().next()).await;
    eventually("the settings", || node.get::<DesiredProperties>(&Only)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nim_bootstrap_supersedes_override() {
    if golden().is_none() {
        return;
    }
    let scripted = without_config().await;
    let node = scripted.node();
    put(&node, "bootstrap-config.pb", bootstrap_file("first", GOOD));
    put(&node, OVERRIDE, ports("old", "2030-01-01T00:00:00Z"));
    let said = Said::by(&node, Service::Config);
    let _services = node.start(&[Service::Onboard, Service::Config]);
    said.hears("override.json is not read: there is a bootstrap-config.pb").await;
    port(&node, "first").await;
    origin_told(&scripted, NetworkConfigOrigin::Bootstrap).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nim_bootstrap_supersedes_override_preonboard() {
    if golden().is_none() {
        return;
    }
    let node = Node::bare();
    put(&node, "root-certificate.pem", vector("pki/root-certificate.pem"));
    put(&node, OVERRIDE, ports("old", "2030-01-01T00:00:00Z"));
    put(&node, GLOBAL, SETTINGS);
    // A bootstrap file that is not believed supersedes them too: someone meant it to count.
    put(&node, "bootstrap-config.pb", b"no such file");
    let said = Said::by(&node, Service::Config);
    {
        let _services = node.start(&[Service::Config]);
        said.hears("global.json is not read: there is a bootstrap-config.pb").await;
        said.hears("override.json is not read: there is a bootstrap-config.pb").await;
        assert!(problem(&node).await.contains("bootstrap-config.pb is refused"));
        assert!(node.table::<DesiredPorts>().is_empty());
        assert_eq!(node.get::<DesiredProperties>(&Only), None);
    }
    put(&node, "bootstrap-config.pb", bootstrap_file("first", &[("timer.metric.interval", "66")]));
    let _services = node.start(&[Service::Config]);
    port(&node, "first").await;
    metric_interval(&node, 66).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nim_override_json_ingest() {
    if golden().is_none() {
        return;
    }
    let scripted = without_config().await;
    let node = scripted.node();
    put(&node, OVERRIDE, ports("firstport-override", "2030-01-01T00:00:00Z"));
    put(&node, GLOBAL, SETTINGS);
    let _services = node.start(&[Service::Onboard, Service::Config]);
    let first = port(&node, "firstport-override").await;
    assert_eq!((first.interface.as_str(), first.management), ("eth0", true));
    let Addressing::Static(fixed) = &first.addressing else { panic!("{first:?}") };
    assert_eq!(fixed.address.to_string(), "172.22.12.10/24");
    origin_told(&scripted, NetworkConfigOrigin::Override).await;
    // Any config is newer, whatever the time in the file.
    gives_config(&scripted, GOOD);
    port(&node, "eth0").await;
    origin_told(&scripted, NetworkConfigOrigin::Controller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nim_override_only_preonboard() {
    let node = Node::bare();
    put(&node, OVERRIDE, ports("override-port", "").replace("172.22.12.10/24", "172.22.12.10"));
    put(&node, GLOBAL, SETTINGS);
    {
        let _services = node.start(&[Service::Config]);
        let why = problem(&node).await;
        assert!(why.contains("override.json is refused"), "{why}");
        assert!(why.contains("Ports[0].AddrSubnet: \"172.22.12.10\" is not"), "{why}");
        assert!(node.table::<DesiredPorts>().is_empty());
        // One file is not to blame for the other.
        metric_interval(&node, 88).await;
    }
    node.reboot();
    put(&node, OVERRIDE, ports("override-port", ""));
    let _services = node.start(&[Service::Config]);
    port(&node, "override-port").await;
    metric_interval(&node, 88).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nim_usb_json_ingest() {
    let node = Node::bare();
    put(&node, USB, ports("firstport-usb", "2030-01-01T00:00:00Z"));
    for (time, winner) in [
        ("2029-01-01T00:00:00Z", "firstport-usb"),
        ("2030-01-01T00:00:00Z", "firstport-usb"),
        ("2031-01-01T00:00:00Z", "firstport-override"),
        ("", "firstport-usb"),
    ] {
        put(&node, OVERRIDE, ports("firstport-override", time));
        let services = node.start(&[Service::Config]);
        port(&node, winner).await;
        drop(services);
        node.reboot();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nim_globalconfig_only_preonboard() {
    let node = Node::bare();
    put(
        &node,
        GLOBAL,
        r#"{"GlobalSettings": {
            "network.fallback.any.eth": {
                "Key": "network.fallback.any.eth", "ItemType": 4, "TriStateValue": 2
            },
            "timer.metric.interval": {"ItemType": 1, "IntValue": 88}
        }}"#,
    );
    let _services = node.start(&[Service::Config]);
    metric_interval(&node, 88).await;
    assert!(node.get::<DesiredProperties>(&Only).unwrap().problems.is_empty());
    // Nobody wishes ports: `eved network` goes on with its last resort.
    tokio::time::sleep(A_WHILE).await;
    assert!(!Reader::<DesiredPorts>::open(&node.roots()).is_complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn nim_lastconfig_blocks_bootstrap() {
    if golden().is_none() {
        return;
    }
    let (_scripted, node) = with_saved_config().await;
    put(&node, "bootstrap-config.pb", bootstrap_file("first", GOOD));
    {
        let _services = node.start(&[Service::Onboard, Service::Config]);
        saved_alone(&node).await;
    }
    // Also one that is of no use.
    node.reboot();
    store::save(&node.persist().join("checkpoint"), "lastconfig", b"anything").unwrap();
    let _services = node.start(&[Service::Onboard, Service::Config]);
    tokio::time::sleep(A_WHILE).await;
    assert!(node.table::<DesiredPorts>().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nim_lastconfig_blocks_ingest() {
    if golden().is_none() {
        return;
    }
    let (_scripted, node) = with_saved_config().await;
    put(&node, OVERRIDE, ports("old", "2100-01-01T00:00:00Z"));
    put(&node, GLOBAL, SETTINGS);
    let said = Said::by(&node, Service::Config);
    let _services = node.start(&[Service::Onboard, Service::Config]);
    said.hears("global.json is not read: a config was saved").await;
    said.hears("override.json is not read: a config was saved").await;
    saved_alone(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nim_diag_remote_endpoints() {
    if golden().is_none() {
        return;
    }
    const KEY: &str = "diag.probe.remote.http.endpoint";
    const URL: &str = "http://nim-test-diag.example.test/";
    let scripted = without_config().await;
    let node = scripted.node();
    gives_config(&scripted, &[(KEY, URL)]);
    let _services = node.start(&[Service::Onboard, Service::Config]);
    let (value, why) = setting_told(&scripted, KEY).await;
    assert_eq!(value, URL);
    assert_eq!(why, "has no effect on this node: nothing but the controller is probed");
}
