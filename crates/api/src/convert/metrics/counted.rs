//! Parts of a metrics message that only count: traffic, disks, calls, log files.

use std::collections::BTreeMap;

use model::desired::{Device, NetworkKind};
use model::reported::{
    AppStatus, CallCounts, DiskTraffic, LogFiles, LogStatus, Traffic, UrlCounts, VolumeKind,
    VolumeState, Way,
};
use model::{AppId, Bytes, UnixMillis};

use super::{Measured, mib};
use crate::convert::to_timestamp;
use crate::pb::config::ZNetworkInstType;
use crate::pb::metrics::{
    AclMetric, AppDiskMetric, DiskMetric, LogfileMetrics, NetworkMetric, NetworkStats,
    NewlogMetric, UrlcloudMetric, ZMetricNetworkInstance, ZMetricNetworkStats, ZMetricVolume,
    ZedcloudMetric,
};

/// The node's ports.
pub(super) fn ports(more: &Measured) -> Vec<NetworkMetric> {
    let known = more.ports.iter().filter_map(|status| {
        let interface = &status.port.interface;
        Some((status, interface, more.traffic.get(interface)?))
    });
    known
        .map(|(status, interface, traffic)| NetworkMetric {
            i_name: status.port.name.to_string(),
            alias: status.port.options.alias.clone(),
            local_name: interface.clone(),
            ..network(*traffic)
        })
        .collect()
}

/// The interfaces of an app.
pub(super) fn interfaces(app: AppId, more: &Measured) -> Vec<NetworkMetric> {
    let vifs = more.app_networks.get(&app).map(|n| n.vifs.as_slice()).unwrap_or_default();
    let known = vifs.iter().filter_map(|vif| Some((vif, more.traffic.get(&vif.host_interface)?)));
    known
        .map(|(vif, traffic)| NetworkMetric {
            i_name: vif.name.clone(),
            local_name: vif.host_interface.clone(),
            ..network(traffic.from_the_other_end())
        })
        .collect()
}

fn network(traffic: Traffic) -> NetworkMetric {
    let Traffic { received, sent } = traffic;
    NetworkMetric {
        rx_bytes: received.bytes.0,
        rx_pkts: received.packets,
        rx_errors: received.errors,
        rx_drops: received.drops,
        tx_bytes: sent.bytes.0,
        tx_pkts: sent.packets,
        tx_errors: sent.errors,
        tx_drops: sent.drops,
        ..NetworkMetric::default()
    }
}

/// Virtual networks.
pub(super) fn instances(more: &Measured) -> Vec<ZMetricNetworkInstance> {
    let stats = |way: Way| NetworkStats {
        total_packets: way.packets,
        errors: way.errors,
        drops: way.drops,
        total_bytes: way.bytes.0,
    };
    let one = |status: &model::reported::NetworkInstanceStatus| {
        let wanted = more.told.as_deref().and_then(|d| d.network_instances.get(&status.id));
        let kind = wanted.map_or(ZNetworkInstType::ZNetInstFirst, |w| match w.kind {
            NetworkKind::Local(_) => ZNetworkInstType::ZnetInstLocal,
            NetworkKind::Switch => ZNetworkInstType::ZnetInstSwitch,
        });
        let vifs = more.app_networks.values().flat_map(|app| &app.vifs);
        let own = vifs.filter(|vif| vif.network == status.id);
        let traffic = own.filter_map(|vif| more.traffic.get(&vif.host_interface)).copied();
        let all = traffic.fold(Traffic::default(), |all, one| all + one);
        ZMetricNetworkInstance {
            network_id: status.id.to_string(),
            inst_type: u32::try_from(i32::from(kind)).unwrap_or_default(),
            displayname: status.name.clone(),
            activated: status.active,
            network_stats: Some(ZMetricNetworkStats {
                rx: Some(stats(all.received)),
                tx: Some(stats(all.sent)),
            }),
            ..ZMetricNetworkInstance::default()
        }
    };
    more.instances.values().map(one).collect()
}

/// Volumes that were measured. What is read from and written to one is not counted.
pub(super) fn volumes(more: &Measured) -> Vec<ZMetricVolume> {
    let one = |status: &model::reported::VolumeStatus| {
        let used = *more.volume_use.get(&status.id)?;
        let total = max_size(status.id, more);
        Some(ZMetricVolume {
            uuid: status.id.to_string(),
            display_name: status.name.clone(),
            total_bytes: total.unwrap_or_default().0,
            used_bytes: used.0,
            free_bytes: total.unwrap_or_default().0.saturating_sub(used.0),
            ..ZMetricVolume::default()
        })
    };
    more.volumes.values().filter_map(one).collect()
}

fn max_size(volume: model::VolumeId, more: &Measured) -> Option<Bytes> {
    more.told.as_deref()?.volumes.get(&volume)?.max_size
}

/// The volumes of an app.
pub(super) fn app_disks(app: &AppStatus, more: &Measured) -> Vec<AppDiskMetric> {
    let one = |id: &model::VolumeId| {
        let used = *more.volume_use.get(id)?;
        let status = more.volumes.get(id)?;
        let kind = match &status.state {
            VolumeState::Ready(VolumeKind::Root { .. }) => "CONTAINER",
            VolumeState::Ready(VolumeKind::Folder { .. }) => "FOLDER",
            VolumeState::AwaitingContent | VolumeState::Creating => "",
        };
        Some(AppDiskMetric {
            disk: status.name.clone(),
            provisioned: max_size(*id, more).map_or(0, |size| u64::from(mib(size))),
            used: u64::from(mib(used)),
            disk_type: kind.to_owned(),
            ..AppDiskMetric::default()
        })
    };
    app.volumes.iter().filter_map(one).collect()
}

/// A disk: sizes, and what was read and written, in MiB.
pub(super) fn disk(disk: &DiskTraffic) -> DiskMetric {
    DiskMetric {
        disk: disk.device.clone(),
        read_bytes: disk.read.0 >> 20,
        write_bytes: disk.written.0 >> 20,
        read_count: disk.reads,
        write_count: disk.writes,
        total: disk.size.0 >> 20,
        ..DiskMetric::default()
    }
}

/// All rules of all apps.
pub(super) fn rules(told: &Device) -> AclMetric {
    let interfaces = told.apps.values().flat_map(|app| &app.interfaces);
    let rules: usize = interfaces.map(|interface| interface.rules.len()).sum();
    AclMetric { total_rule_count: u64::try_from(rules).unwrap_or(u64::MAX) }
}

/// Calls of all services, by port.
pub(super) fn calls<'a>(
    of: impl IntoIterator<Item = &'a BTreeMap<String, CallCounts>>,
) -> Vec<ZedcloudMetric> {
    let mut all: BTreeMap<&str, ZedcloudMetric> = BTreeMap::new();
    for (port, counts) in of.into_iter().flatten() {
        let told = all.entry(port).or_insert_with(|| ZedcloudMetric {
            if_name: port.clone(),
            ..ZedcloudMetric::default()
        });
        told.success = told.success.saturating_add(counts.succeeded);
        told.failures = told.failures.saturating_add(counts.failed);
        told.auth_verify_failure = told.auth_verify_failure.saturating_add(counts.unverified);
        latest(&mut told.last_success, counts.last_success);
        latest(&mut told.last_failure, counts.last_failure);
        told.url_metrics.extend(counts.by_url.iter().map(|(url, counts)| address(url, *counts)));
    }
    all.into_values().collect()
}

fn latest(told: &mut Option<prost_types::Timestamp>, new: Option<UnixMillis>) {
    let at = |t: &prost_types::Timestamp| (t.seconds, t.nanos);
    *told = told.take().into_iter().chain(new.map(to_timestamp)).max_by_key(at);
}

fn address(url: &str, counts: UrlCounts) -> UrlcloudMetric {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    UrlcloudMetric {
        url: url.to_owned(),
        try_msg_count: count(counts.tried),
        try_byte_count: count(counts.tried_bytes),
        sent_msg_count: count(counts.sent),
        sent_byte_count: count(counts.sent_bytes),
        recv_msg_count: count(counts.sent),
        recv_byte_count: count(counts.received_bytes),
        total_time_spent: count(counts.spent_ms),
        ..UrlcloudMetric::default()
    }
}

/// Lines and files of the log.
pub(super) fn newlog(logs: &LogStatus) -> NewlogMetric {
    let counts = &logs.counts;
    let made = counts.device.made.saturating_add(counts.apps.made);
    let made_bytes = counts.device.made_bytes.0.saturating_add(counts.apps.made_bytes.0);
    let sent = counts.device.sent.saturating_add(counts.apps.sent);
    let top = counts.by_source.iter().map(|(name, lines)| (name.clone(), short(*lines)));
    NewlogMetric {
        failed_to_send: logs.problem.is_some(),
        fail_sent_start_time: counts.failing_since.map(to_timestamp),
        total_bytes_upload: counts.sent_bytes.0,
        num4xx_responses: short(counts.refused),
        current_upload_intv: short(counts.pause_s),
        max_gzip_file_size: short(counts.largest.0),
        avg_gzip_file_size: short(made_bytes.checked_div(made).unwrap_or_default()),
        mim_upload_msec: short(counts.least_ms),
        max_upload_msec: short(counts.most_ms),
        avg_upload_msec: short(counts.all_ms.checked_div(sent).unwrap_or_default()),
        last_upload_msec: short(counts.last_ms),
        device_metrics: Some(LogfileMetrics {
            num_gzip_file_sent: logs.sent.saturating_sub(counts.apps.sent),
            num_gzip_file_in_dir: short(logs.queued.saturating_sub(counts.apps.waiting)),
            ..files(&counts.device)
        }),
        app_metrics: Some(files(&counts.apps)),
        top10_input_sources: top.collect(),
        gzip_files_removed: short(counts.removed),
        too_many_request: short(counts.too_many),
        skip_upload_app_file: short(counts.apps.kept),
        total_size_logs: counts.kept_bytes.0,
        oldest_saved_device_log: counts.oldest.map(to_timestamp),
        ..NewlogMetric::default()
    }
}

fn files(files: &LogFiles) -> LogfileMetrics {
    LogfileMetrics {
        num_gzip_file_sent: files.sent,
        num_gzip_bytes_write: files.made_bytes.0,
        num_bytes_write: files.line_bytes.0,
        num_gzip_file_in_dir: short(files.waiting),
        num_input_event: files.lines,
        num_gzip_file_retry: files.retried,
        num_gzip_file_kept_local: short(files.kept),
        recent_gzip_file_time: files.last_made.map(to_timestamp),
        last_gzip_file_send_time: files.last_sent.map(to_timestamp),
    }
}

fn short(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
