//! What a node counts. Counters only grow, until it boots anew.

use std::collections::BTreeMap;

use model::{Bytes, DeviceId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{ViewError, at, whose};
use crate::convert::metrics as told;
use crate::limits;
use crate::pb::metrics::metric_item::MetricItemValue;
use crate::pb::metrics::z_metric_msg::MetricContent;
use crate::pb::metrics::{
    AppCpuMetric, DeviceMetric, DiskMetric, NetworkMetric, ZMetricMsg, ZMetricNetworkInstance,
};
use crate::wire;

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
    let disk = device.disk.iter().find(|d| d.mount_path == told::PERSIST);
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
                memory_peak: Bytes(item(told::PSS_PEAK, &p.name).unwrap_or_default()),
                starts: item(told::STARTS, &p.name).unwrap_or_default(),
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
        cipher_failures: device.cipher.iter().fold(0, |all, c| all.saturating_add(c.failure_count)),
        timeline: items
            .iter()
            .filter_map(|(key, at)| Some((key.strip_prefix(told::BOOT)?.to_owned(), *at)))
            .collect(),
        dropped_lines: item(told::DROPPED, "").unwrap_or_default(),
    })
}

fn disk(disk: &DiskMetric) -> DiskUse {
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

fn traffic(network: &NetworkMetric) -> Traffic {
    Traffic {
        id: String::new(),
        name: network.i_name.clone(),
        received: Bytes(network.rx_bytes),
        sent: Bytes(network.tx_bytes),
        dropped: network.rx_drops.saturating_add(network.tx_drops),
        errors: network.rx_errors.saturating_add(network.tx_errors),
    }
}

fn instance(metric: &ZMetricNetworkInstance) -> Traffic {
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
fn cpu_ns(cpu: &AppCpuMetric) -> u64 {
    if cpu.total_ns > 0 { cpu.total_ns } else { cpu.total.saturating_mul(1_000_000_000) }
}
