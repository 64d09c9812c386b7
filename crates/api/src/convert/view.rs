//! Info and metrics as a controller keeps and shows them: plain values, states in words.
//!
//! The wire's enums are open; a value that we do not know is shown by its number.

use std::collections::BTreeMap;

use model::{Bytes, DeviceId, Diagnose, Diagnosis, UnixMillis, Who};
use prost_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::{from_timestamp, metrics};
use crate::limits;
use crate::pb::info::z_info_msg::InfoContent;
use crate::pb::info::{
    BootReason, DevicePort, Entity, ErrorInfo, Severity, ZDeviceState, ZInfoApp, ZInfoContentTree,
    ZInfoDevice, ZInfoMsg, ZInfoNetwork, ZInfoNetworkInstance, ZInfoTypes, ZInfoVolume, ZSwState,
};
use crate::pb::metrics::metric_item::MetricItemValue;
use crate::pb::metrics::z_metric_msg::MetricContent;
use crate::pb::metrics::{DeviceMetric, ZMetricMsg};
use crate::wire::{self, WireError};

/// An info message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// Whose it says it is: compare it with who signed.
    pub device: DeviceId,
    /// As of when. `None`: not said.
    pub at: Option<UnixMillis>,
    /// What it says.
    pub report: Report,
}

/// What an info message is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The node.
    Device(Box<DeviceView>),
    /// An app.
    App(AppView),
    /// A network instance.
    NetworkInstance(NetworkInstanceView),
    /// A volume.
    Volume(VolumeView),
    /// A content tree.
    Content(ContentView),
    /// An object is gone.
    Gone {
        /// `app`, `network_instance`, `volume` or `content`.
        kind: String,
        /// Its id.
        id: String,
    },
    /// Something we do not look into.
    Other {
        /// The name of its type, or its number.
        kind: String,
    },
}

/// An error of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// What failed, why, and who can act.
    pub text: String,
    /// `notice`, `warning`, `error` or empty.
    pub severity: String,
    /// Since when.
    pub since: Option<UnixMillis>,
    /// When the node tries again by itself, in words.
    pub retry: String,
    /// What it concerns: kind, id and name.
    pub entities: Vec<(String, String, String)>,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceView {
    /// `online`, `booting`, …
    pub state: String,
    /// Architecture.
    pub arch: String,
    /// Processors.
    pub cpus: u32,
    /// All memory.
    pub memory: Bytes,
    /// All storage.
    pub storage: Bytes,
    /// Maker.
    pub manufacturer: String,
    /// Product name.
    pub product: String,
    /// Serial number.
    pub serial: String,
    /// The version it runs.
    pub version: String,
    /// The slot it runs from.
    pub slot: String,
    /// Since when it runs.
    pub booted: Option<UnixMillis>,
    /// Why it booted: `first`, `power fail`, …
    pub boot_reason: String,
    /// More about why.
    pub boot_detail: String,
    /// How often it has booted.
    pub boots: u32,
    /// When the config in force was made.
    pub config_timestamp: Option<UnixMillis>,
    /// The last reboot counter it saw.
    pub reboot_counter: u32,
    /// The last power-off counter it saw.
    pub shutdown_counter: u32,
    /// Ports of the config in force.
    pub ports: Vec<PortView>,
    /// What is wrong with the ports.
    pub port_error: String,
    /// Settings: the value, and the error or nothing.
    pub items: BTreeMap<String, (String, String)>,
}

/// A port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortView {
    /// Its label.
    pub name: String,
    /// The kernel's name.
    pub interface: String,
    /// Whether the controller is reached through it.
    pub management: bool,
    /// Whether its link is up.
    pub up: bool,
    /// Hardware address.
    pub mac: String,
    /// Addresses.
    pub addresses: Vec<String>,
    /// What is wrong with it.
    pub error: Option<ErrorView>,
}

/// An app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The version of its description.
    pub version: String,
    /// `running`, `downloading`, …
    pub state: String,
    /// Since when it runs.
    pub running_since: Option<UnixMillis>,
    /// Its interfaces.
    pub interfaces: Vec<InterfaceView>,
    /// Its volumes.
    pub volumes: Vec<String>,
    /// What is wrong.
    pub errors: Vec<ErrorView>,
}

/// An interface of an app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceView {
    /// Its name in the config.
    pub name: String,
    /// Hardware address.
    pub mac: String,
    /// Addresses.
    pub addresses: Vec<String>,
    /// Whether it can be used.
    pub up: bool,
}

/// A network instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInstanceView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it is up.
    pub active: bool,
    /// Its bridge.
    pub bridge: String,
    /// The bridge's address.
    pub gateway: String,
    /// The ports it goes out by.
    pub ports: Vec<String>,
    /// Hardware address and addresses given out.
    pub leases: Vec<(String, Vec<String>)>,
    /// What is wrong.
    pub errors: Vec<ErrorView>,
}

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its generation.
    pub generation: i64,
    /// `created volume`, `downloading`, …
    pub state: String,
    /// In percent.
    pub progress: u32,
    /// What is wrong.
    pub error: Option<ErrorView>,
}

/// A content tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it hashes to, in hexadecimal; empty while unknown.
    pub sha256: String,
    /// What is on the disk of it.
    pub size: Bytes,
    /// `loaded`, `downloading`, …
    pub state: String,
    /// In percent.
    pub progress: u32,
    /// What is wrong.
    pub error: Option<ErrorView>,
}

/// A metrics message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Whose it says it is: compare it with who signed.
    pub device: DeviceId,
    /// As of when. `None`: not said.
    pub at: Option<UnixMillis>,
    /// Memory in use, to the MiB.
    pub memory_used: Bytes,
    /// Memory to be had, to the MiB.
    pub memory_available: Bytes,
    /// Processor time since boot, in nanoseconds.
    pub cpu_ns: u64,
    /// The node's services.
    pub services: Vec<ServiceView>,
    /// The apps.
    pub apps: Vec<AppUseView>,
    /// What came when in this boot: name and milliseconds since the kernel started.
    pub timeline: Vec<(String, u64)>,
    /// Log lines lost in this boot.
    pub dropped_lines: u64,
}

/// What a service uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: i32,
    /// Memory: of our nodes the proportional set size.
    pub memory: Bytes,
    /// The most it used; zero if not said.
    pub memory_peak: Bytes,
    /// How often it was started; zero if not said.
    pub starts: u64,
}

/// What an app uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppUseView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Memory, to the MiB.
    pub memory: Bytes,
    /// Processor time since it started, in nanoseconds.
    pub cpu_ns: u64,
}

/// A message that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// Not the message it should be.
    #[error("cannot read the message")]
    Wire(#[from] WireError),
    /// It does not say whose it is.
    #[error("the message is of no device: {id:?} is no UUID")]
    Device {
        /// As on the wire, cut.
        id: String,
    },
}

impl Diagnose for ViewError {
    fn diagnose(&self) -> Diagnosis {
        Diagnosis::of(Who::Developer, "find out what the node put into the message")
    }
}

/// Reads the payload of an info message.
pub fn info(payload: &[u8]) -> Result<Info, ViewError> {
    let message: ZInfoMsg = wire::decode(payload, limits::INFO)?;
    let kind = message.ztype;
    let report = match message.info_content {
        Some(InfoContent::Dinfo(info)) => Report::Device(Box::new(device(info))),
        Some(InfoContent::Ainfo(info)) => app(info),
        Some(InfoContent::Niinfo(info)) => network_instance(info),
        Some(InfoContent::Vinfo(info)) => volume(info),
        Some(InfoContent::Cinfo(info)) => content(info),
        _ => Report::Other {
            kind: ZInfoTypes::try_from(kind)
                .map_or_else(|_| kind.to_string(), |k| k.as_str_name().to_owned()),
        },
    };
    let at = at(message.at_time_stamp);
    Ok(Info { device: whose(&message.dev_id)?, at, report })
}

/// Reads the payload of a metrics message.
pub fn metrics(payload: &[u8]) -> Result<Metrics, ViewError> {
    let message: ZMetricMsg = wire::decode(payload, limits::METRICS)?;
    let device = match message.metric_content {
        Some(MetricContent::Dm(device)) => device,
        None => DeviceMetric::default(),
    };
    let items: Vec<(&str, u64)> = device
        .metric_items
        .iter()
        .filter_map(|item| match item.metric_item_value {
            Some(MetricItemValue::Uint64Value(value)) => Some((item.key.as_str(), value)),
            _ => None,
        })
        .collect();
    // A map: a message may name thousands of processes and items.
    let by_key: BTreeMap<&str, u64> = items.iter().copied().collect();
    let item = |start: &str, name: &str| by_key.get(&*format!("{start}{name}")).copied();
    let memory = device.memory.unwrap_or_default();
    Ok(Metrics {
        device: whose(&message.dev_id)?,
        at: at(message.at_time_stamp),
        memory_used: Bytes::mib(memory.used_mem.into()),
        memory_available: Bytes::mib(memory.avail_mem.into()),
        cpu_ns: device.cpu_metric.as_ref().map_or(0, cpu_ns),
        services: message
            .pr
            .iter()
            .map(|p| ServiceView {
                name: p.name.clone(),
                pid: p.pid,
                memory: Bytes(p.rss_bytes),
                memory_peak: Bytes(item(metrics::PSS_PEAK, &p.name).unwrap_or_default()),
                starts: item(metrics::STARTS, &p.name).unwrap_or_default(),
            })
            .collect(),
        apps: message
            .am
            .iter()
            .map(|app| AppUseView {
                id: app.app_id.clone(),
                name: app.app_name.clone(),
                memory: Bytes::mib(app.memory.as_ref().map_or(0, |m| m.used_mem).into()),
                cpu_ns: app.cpu.as_ref().map_or(0, cpu_ns),
            })
            .collect(),
        timeline: items
            .iter()
            .filter_map(|(key, at)| Some((key.strip_prefix(metrics::BOOT)?.to_owned(), *at)))
            .collect(),
        dropped_lines: item(metrics::DROPPED, "").unwrap_or_default(),
    })
}

/// Older nodes count seconds only.
fn cpu_ns(cpu: &crate::pb::metrics::AppCpuMetric) -> u64 {
    if cpu.total_ns > 0 { cpu.total_ns } else { cpu.total.saturating_mul(1_000_000_000) }
}

fn device(info: ZInfoDevice) -> DeviceView {
    let maker = info.minfo.unwrap_or_default();
    let software = info.sw_list.into_iter().find(|s| s.activated).unwrap_or_default();
    let adapters = info.system_adapter.unwrap_or_default();
    let current = usize::try_from(adapters.current_index).unwrap_or(usize::MAX);
    let ports = adapters.status.into_iter().nth(current).unwrap_or_default();
    let items = info.config_item_status.unwrap_or_default();
    DeviceView {
        state: device_state(info.state),
        arch: info.machine_arch,
        cpus: info.ncpu,
        memory: Bytes(info.memory.saturating_mul(1 << 20)),
        storage: Bytes(info.storage.saturating_mul(1 << 20)),
        manufacturer: maker.manufacturer,
        product: maker.product_name,
        serial: maker.serial_number,
        version: software.short_version,
        slot: software.partition_label,
        booted: at(info.boot_time),
        boot_reason: match BootReason::try_from(info.last_boot_reason) {
            Ok(BootReason::Unspecified) => String::new(),
            Ok(reason) => words(reason.as_str_name(), "BOOT_REASON_"),
            Err(_) => format!("reason {}", info.last_boot_reason),
        },
        boot_detail: info.last_reboot_reason,
        boots: info.restart_counter,
        config_timestamp: at(ports.time_priority),
        reboot_counter: info.reboot_config_counter,
        shutdown_counter: info.shutdown_config_counter,
        ports: ports.ports.into_iter().map(port).collect(),
        port_error: ports.last_error,
        items: items
            .config_items
            .into_iter()
            .chain(items.unknown_config_items)
            .map(|(key, item)| (key, (item.value, item.error)))
            .collect(),
    }
}

fn port(port: DevicePort) -> PortView {
    PortView {
        name: port.name,
        interface: port.ifname,
        management: port.is_mgmt,
        up: port.up,
        mac: port.mac_addr,
        addresses: port.ip_addrs,
        error: present(port.err),
    }
}

fn app(info: ZInfoApp) -> Report {
    // Only the id: it is gone. A live app always has a state.
    let only_id = ZInfoApp { app_id: info.app_id.clone(), ..ZInfoApp::default() };
    if info == only_id {
        return Report::Gone { kind: "app".to_owned(), id: info.app_id };
    }
    let interface = |network: ZInfoNetwork| InterfaceView {
        name: network.dev_name,
        mac: network.mac_addr,
        addresses: network.ip_addrs,
        up: network.ipv4_up,
    };
    Report::App(AppView {
        id: info.app_id,
        name: info.app_name,
        version: info.app_version,
        state: state(info.state),
        running_since: at(info.boot_time),
        interfaces: info.network.into_iter().map(interface).collect(),
        volumes: info.volume_refs,
        errors: info.app_err.into_iter().map(error).collect(),
    })
}

fn network_instance(info: ZInfoNetworkInstance) -> Report {
    let network_id = info.network_id.clone();
    if info == (ZInfoNetworkInstance { network_id, ..ZInfoNetworkInstance::default() }) {
        return Report::Gone { kind: "network_instance".to_owned(), id: info.network_id };
    }
    let leases = info.ip_assignments.into_iter().map(|a| (a.mac_address, a.ip_address));
    Report::NetworkInstance(NetworkInstanceView {
        id: info.network_id,
        name: info.displayname,
        active: info.activated,
        bridge: info.bridge_name,
        gateway: info.bridge_ip_addr,
        ports: info.ports,
        leases: leases.collect(),
        errors: info.network_err.into_iter().map(error).collect(),
    })
}

fn volume(info: ZInfoVolume) -> Report {
    if info == (ZInfoVolume { uuid: info.uuid.clone(), ..ZInfoVolume::default() }) {
        return Report::Gone { kind: "volume".to_owned(), id: info.uuid };
    }
    Report::Volume(VolumeView {
        id: info.uuid,
        name: info.display_name,
        generation: info.generation_count,
        state: state(info.state),
        progress: info.progress_percentage,
        error: present(info.volume_err),
    })
}

fn content(info: ZInfoContentTree) -> Report {
    if info == (ZInfoContentTree { uuid: info.uuid.clone(), ..ZInfoContentTree::default() }) {
        return Report::Gone { kind: "content".to_owned(), id: info.uuid };
    }
    Report::Content(ContentView {
        id: info.uuid,
        name: info.display_name,
        sha256: info.sha256,
        size: Bytes(info.resources.map_or(0, |r| r.cur_size_bytes)),
        state: state(info.state),
        progress: info.progress_percentage,
        error: present(info.err),
    })
}

fn error(info: ErrorInfo) -> ErrorView {
    let entity = |n: i32| match Entity::try_from(n) {
        Ok(entity) => words(entity.as_str_name(), "ENTITY_"),
        Err(_) => format!("entity {n}"),
    };
    ErrorView {
        text: info.description,
        severity: match Severity::try_from(info.severity) {
            Ok(Severity::Unspecified) => String::new(),
            Ok(severity) => words(severity.as_str_name(), "SEVERITY_"),
            Err(_) => format!("severity {}", info.severity),
        },
        since: at(info.timestamp),
        retry: info.retry_condition,
        entities: info
            .entities
            .into_iter()
            .map(|e| (entity(e.entity), e.entity_id, e.entity_name))
            .collect(),
    }
}

/// EVE sends empty errors for objects that have none.
fn present(info: Option<ErrorInfo>) -> Option<ErrorView> {
    info.filter(|e| !e.description.is_empty()).map(error)
}

/// A state in words.
fn state(number: i32) -> String {
    match ZSwState::try_from(number) {
        Ok(ZSwState::Invalid) => String::new(),
        Ok(ZSwState::DownloadStarted) => "downloading".to_owned(),
        Ok(ZSwState::Awaitnetworkinstance) => "waiting for network".to_owned(),
        Ok(state) => words(state.as_str_name(), ""),
        Err(_) => format!("state {number}"),
    }
}

fn device_state(number: i32) -> String {
    match ZDeviceState::try_from(number) {
        Ok(ZDeviceState::ZdeviceStateUnspecified) => String::new(),
        Ok(state) => words(state.as_str_name(), "ZDEVICE_STATE_"),
        Err(_) => format!("state {number}"),
    }
}

/// `power fail` of `BOOT_REASON_POWER_FAIL`.
fn words(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase().replace('_', " ")
}

fn at(timestamp: Option<Timestamp>) -> Option<UnixMillis> {
    timestamp.as_ref().map(from_timestamp)
}

fn whose(id: &str) -> Result<DeviceId, ViewError> {
    id.parse().map_err(|_| ViewError::Device { id: id.chars().take(80).collect() })
}
