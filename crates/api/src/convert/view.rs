//! Info and metrics as a controller keeps and shows them: plain values, states in words.
//!
//! The wire's enums are open; a value that we do not know is shown by its number.

mod health;
mod more;
mod traffic;

use std::collections::BTreeMap;

use model::{Bytes, DeviceId, Diagnose, Diagnosis, UnixMillis, Who};
use prost_types::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::health::{DiskHealth, Health, MemoryHealth, hardware_health};
pub use self::more::{
    BlobView, ClusterUpdateView, ClusterView, EdgeViewView, HardwareView, LocationView,
    MetadataView, More, NtpSourceView, PatchView,
};
pub use self::traffic::{DnsView, FlowView, Flows, flowlog};

use super::{from_timestamp, metrics};
use crate::limits;
use crate::pb::info::z_info_msg::InfoContent;
use crate::pb::info::{
    AttestationState, BaseOsStatus, BaseOsSubStatus, BootReason, DataSecAtRestStatus, DevicePort,
    DevicePortStatus, Entity, ErrorInfo, HwSecurityModuleStatus, MaintenanceModeReason, Severity,
    SnapshotType, StorageInfo, StorageStatus, StorageTypeInfo, ZDeviceState, ZInfoApp,
    ZInfoContentTree, ZInfoDevSw, ZInfoDevice, ZInfoMsg, ZInfoNetwork, ZInfoNetworkInstance,
    ZInfoSnapshot, ZInfoTypes, ZInfoVolume, ZNetworkInstanceState, ZSwState, ZioBundle,
};
use crate::pb::metrics::metric_item::MetricItemValue;
use crate::pb::metrics::z_metric_msg::MetricContent;
use crate::pb::metrics::{DeviceMetric, NetworkMetric, ZMetricMsg};
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
        /// `app`, `network_instance`, `volume`, `content` or `patch_envelope`.
        kind: String,
        /// Its id.
        id: String,
    },
    /// One of the rarer kinds.
    More(Box<More>),
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
    /// The two slots and what is in them, with the stages of an update.
    pub software: Vec<SoftwareView>,
    /// The last counter of asking to try an update again that it saw.
    pub update_counter: u32,
    /// Why it takes no new config, in words. Empty: it does, or it does not say.
    pub maintenance: Vec<String>,
    /// How far its attestation is: `complete`, `nonce wait`, …; empty if it is not said.
    pub attestation: String,
    /// What is wrong with its attestation.
    pub attestation_error: Option<ErrorView>,
    /// Whether what is at rest is encrypted: `enabled`, `disabled`, `error`, …
    pub encryption: String,
    /// Vaults whose state is not what it should be.
    pub vault_errors: Vec<ErrorView>,
    /// The TPM: `enabled`, `notfound`, …
    pub tpm: String,
    /// The profile in force that a local profile server set.
    pub local_profile: String,
    /// The highest number of the API's features that it knows.
    pub api_capability: i32,
    /// All port configs that it has tried, the newest first.
    pub port_configs: Vec<PortConfigView>,
    /// Which of them is in use.
    pub port_config: usize,
    /// Adapters that apps may have, and who has them.
    pub adapters: Vec<AdapterView>,
    /// Pools and disks.
    pub pools: Vec<PoolView>,
}

/// A slot of the base system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoftwareView {
    /// `IMGA` or `IMGB`.
    pub slot: String,
    /// Whether it runs, or will after the next boot.
    pub active: bool,
    /// `active`, `inprogress`, `unused`, `updating`.
    pub state: String,
    /// What is in it.
    pub version: String,
    /// The stage of an update: `downloading`, `updated`, `failed`, …; empty if there is none.
    pub stage: String,
    /// The step within it: `update testing`, …; empty if there is none.
    pub step: String,
    /// More about the step, as the node says.
    pub detail: String,
    /// How far it is, in percent.
    pub progress: u32,
    /// What is wrong.
    pub error: Option<ErrorView>,
}

/// A config of the ports that was tried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortConfigView {
    /// Where it is from: `zedagent`, `lps`, `override`, …
    pub key: String,
    /// When it was made.
    pub made: Option<UnixMillis>,
    /// When it last worked.
    pub succeeded: Option<UnixMillis>,
    /// When it last failed.
    pub failed: Option<UnixMillis>,
    /// Why.
    pub error: String,
}

/// An adapter that an app may have for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterView {
    /// Its group.
    pub name: String,
    /// What goes with it.
    pub members: Vec<String>,
    /// The app that has it; empty if none has.
    pub used_by: String,
    /// Whether the node itself uses it.
    pub used_by_node: bool,
    /// What is wrong.
    pub error: Option<ErrorView>,
}

/// A storage pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// `ext4`, `zfs`.
    pub kind: String,
    /// `online`, `degraded`, …
    pub state: String,
    /// Its size.
    pub size: Bytes,
    /// What is wrong, as the node says.
    pub message: String,
    /// Its disks: name and state.
    pub disks: Vec<(String, String)>,
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
    /// Snapshots of its volumes.
    pub snapshots: Vec<SnapshotView>,
    /// Adapters that it has for itself.
    pub adapters: Vec<String>,
}

/// A snapshot of an app's volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotView {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub made: Option<UnixMillis>,
    /// Why: `app update`, `immediate`.
    pub kind: String,
    /// What is wrong.
    pub error: Option<ErrorView>,
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
    /// `online`, `init`, `error`; empty if it is not said.
    pub state: String,
    /// Routes: destination, gateway, port.
    pub routes: Vec<(String, String, String)>,
    /// The largest packet; zero if it is not said.
    pub mtu: u32,
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
    /// How large it may become.
    pub max_size: Bytes,
    /// What it takes.
    pub size: Bytes,
    /// How many apps use it.
    pub users: u32,
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
    /// `/persist`: in use, and in all, to the MiB. Zero: not said.
    pub disk_used: Bytes,
    /// In all.
    pub disk_total: Bytes,
    /// Received through all ports since boot.
    pub received: Bytes,
    /// Sent through all ports since boot.
    pub sent: Bytes,
    /// The node's services.
    pub services: Vec<ServiceView>,
    /// The apps.
    pub apps: Vec<AppUseView>,
    /// What came when in this boot: name and milliseconds since the kernel started.
    pub timeline: Vec<(String, u64)>,
    /// Log lines lost in this boot.
    pub dropped_lines: u64,
    /// File systems and disks.
    pub disks: Vec<DiskUse>,
    /// Ports.
    pub networks: Vec<Traffic>,
    /// Volumes.
    pub volumes: Vec<DiskUse>,
    /// Network instances.
    pub instances: Vec<Traffic>,
    /// When it last got a config.
    pub config_received: Option<UnixMillis>,
    /// When it last took a config over.
    pub config_processed: Option<UnixMillis>,
    /// Secrets that could not be opened since boot.
    pub cipher_failures: u64,
}

/// What a disk, a file system or a volume holds and has moved since boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUse {
    /// The id of a volume; otherwise empty.
    pub id: String,
    /// A device, a path, or a volume's name.
    pub name: String,
    /// What fits.
    pub total: Bytes,
    /// What is in it.
    pub used: Bytes,
    /// What was read.
    pub read: Bytes,
    /// What was written.
    pub written: Bytes,
}

/// What went through a port or a network since boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// The id of a network instance; otherwise empty.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What came in.
    pub received: Bytes,
    /// What went out.
    pub sent: Bytes,
    /// Packets that did not get through, both ways.
    pub dropped: u64,
    /// Packets that were broken, both ways.
    pub errors: u64,
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
    /// The version of its description that it has, as its config says it. Empty: not said.
    pub version: String,
    /// Memory, to the MiB.
    pub memory: Bytes,
    /// Processor time since it started, in nanoseconds.
    pub cpu_ns: u64,
    /// Its interfaces.
    pub networks: Vec<Traffic>,
    /// Its disks.
    pub disks: Vec<DiskUse>,
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
        Some(rarer) => more::read(rarer),
        None => Report::Other {
            kind: ZInfoTypes::try_from(kind)
                .map_or_else(|_| kind.to_string(), |k| k.as_str_name().to_owned()),
        },
    };
    let at = at(message.at_time_stamp);
    Ok(Info { device: whose(&message.dev_id)?, at, report })
}

/// A disk is no larger; a message may claim anything.
const MIB_MAX: u64 = 1 << 40;

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
    let disk = device.disk.iter().find(|d| d.mount_path == metrics::PERSIST);
    let through = |count: fn(&NetworkMetric) -> u64| {
        Bytes(device.network.iter().map(count).fold(0, u64::saturating_add))
    };
    Ok(Metrics {
        device: whose(&message.dev_id)?,
        at: at(message.at_time_stamp),
        memory_used: Bytes::mib(memory.used_mem.into()),
        memory_available: Bytes::mib(memory.avail_mem.into()),
        cpu_ns: device.cpu_metric.as_ref().map_or(0, cpu_ns),
        disk_used: Bytes::mib(disk.map_or(0, |d| d.used.min(MIB_MAX))),
        disk_total: Bytes::mib(disk.map_or(0, |d| d.total.min(MIB_MAX))),
        received: through(|n| n.rx_bytes),
        sent: through(|n| n.tx_bytes),
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
                version: app.app_version.clone(),
                memory: Bytes::mib(app.memory.as_ref().map_or(0, |m| m.used_mem).into()),
                cpu_ns: app.cpu.as_ref().map_or(0, cpu_ns),
                networks: app.network.iter().map(traffic).collect(),
                disks: app
                    .disk
                    .iter()
                    .map(|d| DiskUse {
                        name: d.disk.clone(),
                        total: Bytes(d.provisioned.saturating_mul(1 << 20)),
                        used: Bytes(d.used.saturating_mul(1 << 20)),
                        ..DiskUse::default()
                    })
                    .collect(),
            })
            .collect(),
        disks: device.disk.iter().map(self::disk).collect(),
        networks: device.network.iter().map(traffic).collect(),
        volumes: message
            .vm
            .iter()
            .map(|v| DiskUse {
                id: v.uuid.clone(),
                name: v.display_name.clone(),
                total: Bytes(v.total_bytes),
                used: Bytes(v.used_bytes),
                read: Bytes(v.read_bytes),
                written: Bytes(v.write_bytes),
            })
            .collect(),
        instances: message.nm.iter().map(instance).collect(),
        config_received: at(device.last_received_config),
        config_processed: at(device.last_processed_config),
        cipher_failures: device.cipher.iter().map(|c| c.failure_count).sum(),
        timeline: items
            .iter()
            .filter_map(|(key, at)| Some((key.strip_prefix(metrics::BOOT)?.to_owned(), *at)))
            .collect(),
        dropped_lines: item(metrics::DROPPED, "").unwrap_or_default(),
    })
}

fn disk(disk: &crate::pb::metrics::DiskMetric) -> DiskUse {
    let name = if disk.mount_path.is_empty() { &disk.disk } else { &disk.mount_path };
    // Of disks and file systems the API counts in MiB, unlike of volumes.
    let mib = |n: u64| Bytes(n.saturating_mul(1 << 20));
    DiskUse {
        id: String::new(),
        name: name.clone(),
        total: mib(disk.total),
        used: mib(disk.used),
        read: mib(disk.read_bytes),
        written: mib(disk.write_bytes),
    }
}

fn traffic(network: &crate::pb::metrics::NetworkMetric) -> Traffic {
    Traffic {
        id: String::new(),
        name: network.i_name.clone(),
        received: Bytes(network.rx_bytes),
        sent: Bytes(network.tx_bytes),
        dropped: network.rx_drops.saturating_add(network.tx_drops),
        errors: network.rx_errors.saturating_add(network.tx_errors),
    }
}

fn instance(metric: &crate::pb::metrics::ZMetricNetworkInstance) -> Traffic {
    let stats = metric.network_stats.unwrap_or_default();
    let (rx, tx) = (stats.rx.unwrap_or_default(), stats.tx.unwrap_or_default());
    Traffic {
        id: metric.network_id.clone(),
        name: metric.displayname.clone(),
        received: Bytes(rx.total_bytes),
        sent: Bytes(tx.total_bytes),
        dropped: rx.drops.saturating_add(tx.drops),
        errors: rx.errors.saturating_add(tx.errors),
    }
}

/// Older nodes count seconds only.
fn cpu_ns(cpu: &crate::pb::metrics::AppCpuMetric) -> u64 {
    if cpu.total_ns > 0 { cpu.total_ns } else { cpu.total.saturating_mul(1_000_000_000) }
}

#[expect(deprecated, reason = "older nodes say nothing but the one reason of maintenance")]
fn device(info: ZInfoDevice) -> DeviceView {
    let maker = info.minfo.unwrap_or_default();
    let slots: Vec<SoftwareView> = info.sw_list.iter().map(slot).collect();
    let software = info.sw_list.into_iter().find(|s| s.activated).unwrap_or_default();
    let (attestation, at_rest) =
        (info.attestation_info.unwrap_or_default(), info.data_sec_at_rest_info.unwrap_or_default());
    let adapters = info.system_adapter.unwrap_or_default();
    let current = usize::try_from(adapters.current_index).unwrap_or(usize::MAX);
    let port_configs = adapters.status.iter().map(port_config).collect();
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
        software: slots,
        update_counter: info.baseos_update_counter,
        maintenance: maintenance(
            info.maintenance_mode,
            &info.maintenance_mode_reasons,
            info.maintenance_mode_reason,
        ),
        attestation: named::<AttestationState>(
            attestation.state,
            AttestationState::as_str_name,
            "ATTESTATION_STATE_",
        ),
        attestation_error: present(attestation.error),
        encryption: named::<DataSecAtRestStatus>(
            at_rest.status,
            DataSecAtRestStatus::as_str_name,
            "DATASEC_AT_REST_",
        ),
        vault_errors: at_rest
            .vault_list
            .into_iter()
            .filter_map(|vault| present(vault.vault_err))
            .collect(),
        tpm: named::<HwSecurityModuleStatus>(
            info.hsm_status,
            HwSecurityModuleStatus::as_str_name,
            "",
        ),
        local_profile: info.local_profile,
        api_capability: info.api_capability,
        port_configs,
        port_config: current,
        adapters: info.assignable_adapters.into_iter().map(adapter).collect(),
        pools: info.storage_info.into_iter().map(pool).collect(),
    }
}

fn slot(info: &ZInfoDevSw) -> SoftwareView {
    SoftwareView {
        slot: info.partition_label.clone(),
        active: info.activated,
        state: info.partition_state.clone(),
        version: info.short_version.clone(),
        stage: named::<BaseOsStatus>(info.user_status, BaseOsStatus::as_str_name, ""),
        step: named::<BaseOsSubStatus>(info.sub_status, BaseOsSubStatus::as_str_name, ""),
        detail: info.sub_status_str.clone(),
        progress: info.sub_status_progress.max(info.download_progress),
        error: present(info.sw_err.clone()),
    }
}

/// A node in maintenance that gives no reason has one all the same.
fn maintenance(on: bool, reasons: &[i32], older: i32) -> Vec<String> {
    let name = |reason: &i32| {
        let prefix = "MAINTENANCE_MODE_REASON_";
        named::<MaintenanceModeReason>(*reason, MaintenanceModeReason::as_str_name, prefix)
    };
    let mut all: Vec<String> =
        reasons.iter().map(name).filter(|reason| !reason.is_empty()).collect();
    if all.is_empty() {
        all.extend(Some(name(&older)).filter(|reason| !reason.is_empty()));
    }
    if on && all.is_empty() {
        all.push("no reason given".to_owned());
    }
    all
}

fn port_config(status: &DevicePortStatus) -> PortConfigView {
    PortConfigView {
        key: status.key.clone(),
        made: at(status.time_priority),
        succeeded: at(status.last_succeeded),
        failed: at(status.last_failed),
        error: status.last_error.clone(),
    }
}

fn adapter(bundle: ZioBundle) -> AdapterView {
    AdapterView {
        name: bundle.name,
        members: bundle.members,
        used_by: bundle.used_by_app_uuid,
        used_by_node: bundle.used_by_base_os,
        error: present(bundle.err),
    }
}

fn pool(info: StorageInfo) -> PoolView {
    let status = |n| named::<StorageStatus>(n, StorageStatus::as_str_name, "STORAGE_STATUS_");
    let kind = "STORAGE_TYPE_INFO_";
    PoolView {
        name: info.pool_name,
        kind: named::<StorageTypeInfo>(info.storage_type, StorageTypeInfo::as_str_name, kind),
        state: status(info.storage_state),
        size: Bytes(info.zpool_size),
        message: if info.pool_status_msg.is_empty() {
            info.collector_errors
        } else {
            info.pool_status_msg
        },
        disks: info
            .disks
            .into_iter()
            .map(|d| (d.disk_name.unwrap_or_default().name, status(d.status)))
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
        snapshots: info.snapshots.into_iter().map(snapshot).collect(),
        adapters: info.assigned_adapters.into_iter().map(|a| a.name).collect(),
    })
}

fn snapshot(info: ZInfoSnapshot) -> SnapshotView {
    SnapshotView {
        id: info.id,
        made: at(info.create_time),
        kind: named::<SnapshotType>(info.r#type, SnapshotType::as_str_name, "SNAPSHOT_TYPE_"),
        error: present(info.snap_err),
    }
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
        state: named::<ZNetworkInstanceState>(
            info.state,
            ZNetworkInstanceState::as_str_name,
            "ZNETINST_STATE_",
        ),
        routes: info
            .ip_routes
            .into_iter()
            .map(|r| (r.destination_network, r.gateway, r.port))
            .collect(),
        mtu: info.mtu,
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
        max_size: Bytes(info.resources.map_or(0, |r| r.max_size_bytes)),
        size: Bytes(info.resources.map_or(0, |r| r.cur_size_bytes)),
        users: info.usage.map_or(0, |u| u.ref_count),
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

/// A value of an open enum in words; none for the zero that says nothing, its number if it is new.
fn named<E: TryFrom<i32>>(number: i32, name: fn(&E) -> &'static str, prefix: &str) -> String {
    match E::try_from(number) {
        Ok(_) if number == 0 => String::new(),
        Ok(value) => words(name(&value), prefix),
        Err(_) => number.to_string(),
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
