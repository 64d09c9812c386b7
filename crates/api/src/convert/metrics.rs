//! Metrics: counters and gauges of the node, its services and its apps, in one message.
//!
//! Two choices, since the API has no field for what we measure:
//! - `ZMetricProcess.rss_bytes` of a service is its proportional set size. It counts shared pages in
//!   part, so that the sum over the services is what they take together; the plain resident size
//!   would count them over and over.
//! - What has no field at all is in `deviceMetric.metricItems`: `boot.<what>` (milliseconds since
//!   the kernel started, in order), `pss_peak.<service>` (bytes), `starts.<service>`,
//!   `log.dropped_lines`.
//!
//! Memory and disk sizes in EVE's older fields are MiB, rounded up. Traffic of an app's interface is
//! what the app received and sent; that of a network instance is what it received from its apps and
//! sent to them.

mod counted;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::desired::{App, Device};
use model::reported::{
    AppNetworkStatus, AppStatus, Boot, CallCounts, DiskTraffic, LogStatus, NetworkInstanceStatus,
    PortStatus, ProcessUse, Resources, SecretFailure, SecretsOpened, ServiceUse, Traffic,
    VolumeStatus,
};
use model::services::Service;
use model::{AppId, Bytes, DeviceId, NetworkInstanceId, UnixMillis, VolumeId};

use super::to_timestamp;
use crate::pb::metrics::metric_item::MetricItemValue;
use crate::pb::metrics::z_metric_msg::MetricContent;
use crate::pb::metrics::{
    AppCpuMetric, AppMemoryMetric, AppMetric, CipherError, CipherMetric, DeviceMemoryMetric,
    DeviceMetric, DiskMetric, MemoryMetric, MetricItem, MetricItemType, TypeCounter, ZMetricMsg,
    ZMetricProcess,
};
use crate::wire;

/// Keys in `metricItems`, without what follows.
pub(super) const BOOT: &str = "boot.";
pub(super) const PSS_PEAK: &str = "pss_peak.";
pub(super) const STARTS: &str = "starts.";
pub(super) const DROPPED: &str = "log.dropped_lines";

/// Where everything is that a node keeps.
pub(super) const PERSIST: &str = "/persist";

/// What a metrics message is made of.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What the node's services use.
    pub resources: &'a Resources,
    /// This boot.
    pub boot: &'a Boot,
    /// All apps.
    pub apps: &'a [AppStatus],
    /// Logs on their way.
    pub logs: &'a LogStatus,
    /// What became of configs.
    pub config: &'a Taken,
}

/// What became of configs in this boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// When the last one came.
    pub received: Option<UnixMillis>,
    /// When one was last put in force.
    pub applied: Option<UnixMillis>,
    /// What became of the secrets in them.
    pub secrets: SecretsOpened,
}

/// What else is counted. What is empty is not told.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// The config in force.
    pub told: Option<Arc<Device>>,
    /// All ports.
    pub ports: Vec<PortStatus>,
    /// What went through interfaces, by the kernel's name.
    pub traffic: BTreeMap<String, Traffic>,
    /// The networks of apps.
    pub app_networks: BTreeMap<AppId, AppNetworkStatus>,
    /// Virtual networks.
    pub instances: BTreeMap<NetworkInstanceId, NetworkInstanceStatus>,
    /// Volumes.
    pub volumes: BTreeMap<VolumeId, VolumeStatus>,
    /// What they take of the disk.
    pub volume_use: BTreeMap<VolumeId, Bytes>,
    /// Disks of the machine.
    pub disks: Vec<DiskTraffic>,
    /// The one with `/persist`, or its partition.
    pub persist: Option<DiskTraffic>,
    /// Processes of services, by number.
    pub processes: BTreeMap<u32, ProcessUse>,
    /// Calls to the controller, by port.
    pub calls: BTreeMap<String, CallCounts>,
}

/// The payload of a metrics message, as of `at`, without what is [`Measured`].
pub fn message(own: DeviceId, at: UnixMillis, facts: &Facts<'_>) -> Vec<u8> {
    whole(own, at, facts, &Measured::default())
}

/// The payload of a metrics message, as of `at`.
pub fn whole(own: DeviceId, at: UnixMillis, facts: &Facts<'_>, more: &Measured) -> Vec<u8> {
    let Facts { resources, boot, .. } = facts;
    let persist = more.persist.clone().unwrap_or_default();
    let services = Bytes(resources.services.iter().map(|s| s.pss.0).sum());
    let device = DeviceMetric {
        memory: Some(memory(resources.memory_total, resources.memory_available)),
        network: counted::ports(more),
        zedcloud: counted::calls([&more.calls, &facts.logs.counts.calls]),
        disk: [DiskMetric {
            mount_path: PERSIST.to_owned(),
            total: u64::from(mib(resources.persist_total)),
            used: u64::from(mib(resources.persist_used)),
            free: resources.persist_total.0.saturating_sub(resources.persist_used.0) >> 20,
            ..counted::disk(&persist)
        }]
        .into_iter()
        .chain(more.disks.iter().map(counted::disk))
        .collect(),
        cpu_metric: Some(cpu(Some(boot.started), resources.cpu_ns)),
        metric_items: items(facts),
        system_services_memory_mb: Some(MemoryMetric {
            used_mem: mib(services),
            ..MemoryMetric::default()
        }),
        newlog: Some(counted::newlog(facts.logs)),
        acl: more.told.as_deref().map(counted::rules),
        app_run_time_storage_mb: more.volume_use.values().map(|b| u64::from(mib(*b))).sum(),
        device_memory: Some(DeviceMemoryMetric {
            memory_mb: mib(resources.memory_total),
            allocated_apps_mb: facts
                .apps
                .iter()
                .filter_map(|status| more.wanted(status.id))
                .fold(0, |all, app| all.saturating_add(mib(app.memory))),
            used_eve_mb: mib(services),
            ..DeviceMemoryMetric::default()
        }),
        last_received_config: facts.config.received.map(to_timestamp),
        last_processed_config: facts.config.applied.map(to_timestamp),
        cipher: cipher(&facts.config.secrets).into_iter().collect(),
        ..DeviceMetric::default()
    };
    wire::encode(&ZMetricMsg {
        dev_id: own.to_string(),
        at_time_stamp: Some(to_timestamp(at)),
        am: facts.apps.iter().map(|status| app(status, more)).collect(),
        nm: counted::instances(more),
        vm: counted::volumes(more),
        pr: resources.services.iter().map(|used| process(used, at, facts, more)).collect(),
        metric_content: Some(MetricContent::Dm(device)),
        ..ZMetricMsg::default()
    })
}

/// `None`: nothing was sealed.
fn cipher(secrets: &SecretsOpened) -> Option<CipherMetric> {
    let failed: u64 = secrets.failed.values().fold(0, |all, n| all.saturating_add(*n));
    if secrets.opened == 0 && failed == 0 {
        return None;
    }
    let counter = |(kind, count): (&SecretFailure, &u64)| TypeCounter {
        error_code: match kind {
            SecretFailure::NotReady => CipherError::NotReady,
            SecretFailure::Decrypt => CipherError::DecryptFailed,
            SecretFailure::Unreadable => CipherError::UnmarshalFailed,
            SecretFailure::NoData => CipherError::NoData,
        }
        .into(),
        count: *count,
    };
    Some(CipherMetric {
        agent_name: Service::Config.name().to_owned(),
        failure_count: failed,
        success_count: secrets.opened,
        last_failure: secrets.last_failed.map(to_timestamp),
        last_success: secrets.last_opened.map(to_timestamp),
        tc: secrets.failed.iter().map(counter).collect(),
    })
}

impl Measured {
    /// The app as it is wanted.
    fn wanted(&self, id: AppId) -> Option<&App> {
        self.told.as_deref()?.apps.get(&id)
    }
}

fn process(
    used: &ServiceUse,
    at: UnixMillis,
    facts: &Facts<'_>,
    more: &Measured,
) -> ZMetricProcess {
    let told = ZMetricProcess {
        pid: i32::try_from(used.pid).unwrap_or_default(),
        name: used.service.name().to_owned(),
        watched: !used.service.spec().watchdog.is_zero(),
        rss_bytes: used.pss.0,
        ..ZMetricProcess::default()
    };
    let Some(process) = more.processes.get(&used.pid) else { return told };
    let started = facts.boot.started.after(Duration::from_millis(process.started_ms));
    let lived = at.since(started).as_secs_f64();
    let (user, system) = (seconds(process.user_ms), seconds(process.system_ms));
    let all = f64::from(mib(facts.resources.memory_total).max(1));
    #[expect(clippy::cast_possible_truncation, reason = "a percentage, and the wire's type")]
    let memory_percent = (f64::from(mib(used.pss)) * 100.0 / all) as f32;
    ZMetricProcess {
        num_threads: i32::try_from(process.threads).unwrap_or(i32::MAX),
        user_time: user,
        system_time: system,
        cpu_percent: if lived > 0.0 { (user + system) * 100.0 / lived } else { 0.0 },
        create_time: Some(to_timestamp(started)),
        vm_bytes: process.virtual_size.0,
        memory_percent,
        ..told
    }
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

fn app(status: &AppStatus, more: &Measured) -> AppMetric {
    let allocated = more.wanted(status.id).map_or(Bytes(0), |app| app.memory);
    AppMetric {
        app_id: status.id.to_string(),
        app_version: status.version.clone(),
        app_name: status.name.clone(),
        cpu: Some(cpu(status.running_since, status.used.cpu_ns)),
        memory: Some(MemoryMetric { used_mem: mib(status.used.memory), ..MemoryMetric::default() }),
        network: counted::interfaces(status.id, more),
        disk: counted::app_disks(status, more),
        app_memory: Some(AppMemoryMetric {
            allocated_mb: mib(allocated),
            used_mb: mib(status.used.memory),
        }),
        ..AppMetric::default()
    }
}

fn items(facts: &Facts<'_>) -> Vec<MetricItem> {
    let item = |key: String, kind: MetricItemType, value: u64| MetricItem {
        key,
        r#type: kind.into(),
        metric_item_value: Some(MetricItemValue::Uint64Value(value)),
    };
    let timeline = facts.boot.timeline.iter();
    let mut items: Vec<MetricItem> = timeline
        .map(|m| item(format!("{BOOT}{}", m.what), MetricItemType::MetricItemState, m.at_ms))
        .collect();
    for used in &facts.resources.services {
        let named = |start: &str, service: Service| format!("{start}{}", service.name());
        let peak = named(PSS_PEAK, used.service);
        items.push(item(peak, MetricItemType::MetricItemGauge, used.pss_peak.0));
        let starts = named(STARTS, used.service);
        items.push(item(starts, MetricItemType::MetricItemCounter, used.starts.into()));
    }
    let dropped = facts.logs.dropped_lines;
    items.push(item(DROPPED.to_owned(), MetricItemType::MetricItemCounter, dropped));
    items
}

fn memory(total: Bytes, available: Bytes) -> MemoryMetric {
    let used = Bytes(total.0.saturating_sub(available.0));
    let percent = |part: Bytes| f64::from(mib(part)) * 100.0 / f64::from(mib(total).max(1));
    MemoryMetric {
        used_mem: mib(used),
        avail_mem: mib(available),
        used_percentage: percent(used),
        avail_percentage: percent(available),
    }
}

/// `upTime` is the moment since when, in spite of its name.
fn cpu(since: Option<UnixMillis>, ns: u64) -> AppCpuMetric {
    AppCpuMetric {
        up_time: since.map(to_timestamp),
        total: ns / 1_000_000_000,
        total_ns: ns,
        ..AppCpuMetric::default()
    }
}

/// Rounded up: what uses little does not use nothing.
fn mib(bytes: Bytes) -> u32 {
    u32::try_from(bytes.0.div_ceil(1 << 20)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn secrets_are_counted_by_what_went_wrong() {
        assert_eq!(cipher(&SecretsOpened::default()), None);
        let secrets = SecretsOpened {
            opened: 3,
            last_opened: Some(UnixMillis(5_000)),
            failed: BTreeMap::from([(SecretFailure::NotReady, 2), (SecretFailure::Decrypt, 1)]),
            last_failed: Some(UnixMillis(6_000)),
        };
        let told = cipher(&secrets).unwrap();
        assert_eq!((told.success_count, told.failure_count), (3, 3));
        assert_eq!(
            (told.last_success.unwrap().seconds, told.last_failure.unwrap().seconds),
            (5, 6)
        );
        let kinds: Vec<(i32, u64)> = told.tc.iter().map(|t| (t.error_code, t.count)).collect();
        assert_eq!(
            kinds,
            [(CipherError::NotReady.into(), 2), (CipherError::DecryptFailed.into(), 1)]
        );
    }
}
