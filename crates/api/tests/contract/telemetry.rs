//! What a controller shows of what nodes say, against recorded messages and all kinds of info.

use api::convert::view::{self, Metrics, More, Report};
use api::pb::info::z_info_msg::InfoContent;
use api::pb::info::{self, ErrorInfo, ZInfoMsg};
use api::pb::metrics::{
    AppDiskMetric, AppMetric, CipherMetric, DeviceMetric, DiskMetric, NetworkMetric, NetworkStats,
    ZMetricMsg, ZMetricNetworkInstance, ZMetricNetworkStats, ZMetricVolume,
    z_metric_msg::MetricContent,
};
use api::{Certificate, Signer, envelope, limits, wire};
use model::{Bytes, UnixMillis};
use proptest::prelude::*;
use prost_types::Timestamp;

use crate::common::{device_id, golden, vector};

const ID: &str = "00000000-0000-4000-8000-000000000001";

fn recorded(name: &str) -> Vec<u8> {
    let device = Certificate::from_pem(&vector("pki/device.cert.pem")).unwrap();
    let body = vector(&format!("telemetry/{name}.AuthContainer.pb"));
    let body = envelope::open(&body, limits::INFO).unwrap();
    body.verify(&Signer::device(&device).unwrap()).unwrap().to_vec()
}

fn read(content: InfoContent) -> Report {
    let at_time_stamp = Some(Timestamp { seconds: 7, nanos: 0 });
    let info_content = Some(content);
    let message = ZInfoMsg { dev_id: ID.to_owned(), info_content, at_time_stamp, ztype: 0 };
    let read = view::info(&wire::encode(&message)).unwrap();
    assert_eq!((read.device.to_string().as_str(), read.at), (ID, Some(UnixMillis(7000))));
    // As a controller keeps it.
    let kept = serde_json::to_string(&read.report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&kept).unwrap(), read.report);
    read.report
}

fn more(content: InfoContent) -> More {
    let Report::More(more) = read(content) else { panic!() };
    *more
}

fn failed(description: &str) -> Option<ErrorInfo> {
    Some(ErrorInfo { description: description.to_owned(), ..ErrorInfo::default() })
}

#[test]
fn recorded_messages_are_shown() {
    if !golden() {
        return;
    }
    let node = view::info(&recorded("req-info-device")).unwrap();
    assert_eq!(node.device, device_id());
    assert_eq!(node, view::info(&vector("telemetry/info-device.ZInfoMsg.pb")).unwrap());
    let Report::Device(node) = node.report else { panic!() };
    assert_eq!((node.state.as_str(), node.tpm.as_str()), ("online", "enabled"));
    let [slot] = &node.software[..] else { panic!() };
    assert!(slot.active && slot.version == node.version && slot.slot == node.slot);
    assert_eq!((slot.state.as_str(), slot.stage.as_str()), ("active", "updated"));
    assert_eq!((node.port_configs.len(), node.port_config), (1, 0));
    assert!(node.maintenance.is_empty() && node.api_capability > 0);

    let app = view::info(&recorded("req-info-app")).unwrap();
    let Report::App(app) = app.report else { panic!() };
    assert_eq!((app.state.as_str(), app.interfaces.len(), app.volumes.len()), ("running", 1, 1));

    let metrics = view::metrics(&recorded("req-metrics")).unwrap();
    assert_eq!(metrics.device, device_id());
    assert!(metrics.memory_used > Bytes(0) && metrics.cpu_ns >= 1_000_000_000);

    let flows = view::flowlog(&recorded("req-flowlog")).unwrap();
    assert_eq!(flows.device, device_id());
    let [flow] = &flows.flows[..] else { panic!() };
    assert_eq!((flow.protocol.as_str(), flow.action.as_str()), ("tcp", "accept"));
    assert!(flow.sent > Bytes(0) && flow.ended > flow.started && !flow.inbound);

    let health = view::hardware_health(&recorded("req-hardwarehealth")).unwrap();
    assert_eq!(health.device, device_id());
    assert_eq!((health.memory.len(), health.memory[0].corrected), (1, 1));
}

#[test]
fn a_node_in_trouble_says_what_and_why() {
    let slot = |label: &str, stage, step| info::ZInfoDevSw {
        partition_label: label.to_owned(),
        activated: label == "IMGA",
        user_status: stage,
        sub_status: step,
        sub_status_progress: 40,
        sw_err: failed("no space"),
        ..info::ZInfoDevSw::default()
    };
    let port_config = |error: &str| info::DevicePortStatus {
        key: "zedagent".to_owned(),
        last_error: error.to_owned(),
        ..info::DevicePortStatus::default()
    };
    let vault = info::VaultInfo { vault_err: failed("PCR 7 changed"), ..Default::default() };
    let said = info::ZInfoDevice {
        sw_list: vec![slot("IMGA", 4, 0), slot("IMGB", 6, 5), slot("IMGC", 99, 99)],
        maintenance_mode: true,
        maintenance_mode_reasons: vec![2, 77],
        attestation_info: Some(info::AttestationInfo { state: 6, error: failed("code 4") }),
        data_sec_at_rest_info: Some(info::DataSecAtRest {
            status: 4,
            vault_list: vec![vault, info::VaultInfo::default()],
            ..Default::default()
        }),
        system_adapter: Some(info::SystemAdapterInfo {
            current_index: 1,
            status: vec![port_config("no answer"), port_config("")],
        }),
        last_boot_reason: 11,
        assignable_adapters: vec![info::ZioBundle {
            name: "USB".to_owned(),
            used_by_app_uuid: "app".to_owned(),
            ..Default::default()
        }],
        storage_info: vec![info::StorageInfo {
            pool_name: "persist".to_owned(),
            storage_type: 2,
            storage_state: 2,
            disks: vec![info::StorageDiskState { status: 6, ..Default::default() }],
            ..Default::default()
        }],
        ..info::ZInfoDevice::default()
    };
    let Report::Device(node) = read(InfoContent::Dinfo(said)) else { panic!() };
    assert_eq!(node.maintenance, ["vault locked up", "77"]);
    assert_eq!((node.attestation.as_str(), node.encryption.as_str()), ("restart wait", "error"));
    assert_eq!(node.attestation_error.unwrap().text, "code 4");
    assert_eq!(node.vault_errors.len(), 1);
    let stages: Vec<(&str, &str)> =
        node.software.iter().map(|s| (s.stage.as_str(), s.step.as_str())).collect();
    assert_eq!(stages, [("updated", ""), ("failed", "update testing"), ("99", "99")]);
    assert_eq!(node.software[1].error.as_ref().unwrap().text, "no space");
    assert_eq!((node.port_config, node.port_configs[0].error.as_str()), (1, "no answer"));
    assert_eq!(node.boot_reason, "power fail");
    assert_eq!((node.adapters[0].name.as_str(), node.adapters[0].used_by.as_str()), ("USB", "app"));
    let pool = &node.pools[0];
    assert_eq!((pool.kind.as_str(), pool.state.as_str()), ("zfs", "degraded"));
    assert_eq!(pool.disks, [(String::new(), "removed".to_owned())]);

    let bare = info::ZInfoDevice { maintenance_mode: true, ..Default::default() };
    let Report::Device(node) = read(InfoContent::Dinfo(bare)) else { panic!() };
    assert_eq!(node.maintenance, ["no reason given"]);
}

#[test]
fn the_rarer_kinds_are_shown_and_have_subjects() {
    let blob = info::ZInfoBlob {
        sha256: "ab".to_owned(),
        state: 19,
        resources: Some(info::ContentResources { cur_size_bytes: 5 }),
        ..Default::default()
    };
    let list = more(InfoContent::Binfo(info::ZInfoBlobList { blob: vec![blob] }));
    assert_eq!(list.subject(), ("blobs", ""));
    let More::Blobs(blobs) = list else { panic!() };
    assert_eq!((blobs[0].state.as_str(), blobs[0].size), ("loaded", Bytes(5)));

    let metadata =
        info::ZInfoAppInstMetaData { uuid: "app".to_owned(), r#type: 2, data: vec![1, 2] };
    let metadata = more(InfoContent::Amdinfo(metadata));
    assert_eq!(metadata.subject(), ("app_metadata", "app"));
    let More::Metadata(metadata) = metadata else { panic!() };
    assert_eq!((metadata.kind.as_str(), metadata.data.as_slice()), ("custom status", &[1, 2][..]));

    let session = info::ZInfoEdgeview { count_dev: 1, count_ext: 3, ..Default::default() };
    let More::EdgeView(session) = more(InfoContent::Evinfo(session)) else { panic!() };
    assert_eq!((session.commands, session.started), ((1, 0, 3), None));

    let cpu = |model: &str| info::Cpu { model: model.to_owned(), ..Default::default() };
    let address = Some(info::PciAddress { domain: 0, bus: 3, device: 0x1f, function: 6 });
    let inventory = info::HardwareInventory {
        cpu_info: Some(info::CpuInfo { cpus: vec![cpu("a"), cpu("b"), cpu("a")] }),
        pci_devices: vec![info::PciDevice {
            address,
            vendor_id: 0x8086,
            device_id: 0x15b8,
            driver: "e1000e".to_owned(),
            ..Default::default()
        }],
        network_devices: vec![info::NetworkDevice {
            ifname: "eth0".to_owned(),
            parent: Some(info::BusParent { pci_parent: address, usb_parent: None }),
            ..Default::default()
        }],
        tpm: Some(info::Tpm {
            present: true,
            spec_version: "2.0".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let hardware = info::ZInfoHardware { inventory: Some(inventory), ..Default::default() };
    let More::Hardware(hardware) = more(InfoContent::Hwinfo(hardware)) else { panic!() };
    assert_eq!(hardware.cpus, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
    let pci = ("0000:03:1f.6".to_owned(), "8086:15b8".to_owned(), "e1000e".to_owned());
    assert_eq!(hardware.networks, [("eth0".to_owned(), String::new(), pci.0.clone())]);
    assert_eq!((hardware.pci, hardware.tpm.as_str()), (vec![pci], "2.0"));

    let place = |altitude| info::ZInfoLocation {
        latitude: 52.5,
        altitude,
        horizontal_reliability: 4,
        ..Default::default()
    };
    let More::Location(location) = more(InfoContent::Locinfo(place(34.0))) else { panic!() };
    assert_eq!((location.altitude, location.reliability.as_str()), (Some(34.0), "high"));
    let More::Location(location) = more(InfoContent::Locinfo(place(-32_768.0))) else { panic!() };
    assert_eq!(location.altitude, None);

    // `read` keeps it as JSON, which has no such numbers.
    let nowhere = info::ZInfoLocation {
        latitude: f64::NAN,
        longitude: f64::INFINITY,
        horizontal_uncertainty: f32::NEG_INFINITY,
        ..place(f64::INFINITY)
    };
    let More::Location(nowhere) = more(InfoContent::Locinfo(nowhere)) else { panic!() };
    assert_eq!((nowhere.latitude, nowhere.longitude), (None, None));
    assert_eq!((nowhere.uncertainty, nowhere.altitude), (None, None));
    let lost = info::NtpSource { offset: f64::NAN, delay: f64::INFINITY, ..Default::default() };
    let lost = info::ZInfoNtpSources { sources: vec![lost] };
    let More::NtpSources(lost) = more(InfoContent::NtpSources(lost)) else { panic!() };
    assert_eq!((lost[0].offset, lost[0].delay), (None, None));

    let patch = info::ZInfoPatchEnvelope { id: "p".to_owned(), state: 5, ..Default::default() };
    let patch = more(InfoContent::PatchInfo(patch));
    assert_eq!(patch.subject(), ("patch_envelope", "p"));
    let More::Patch(patch) = patch else { panic!() };
    assert_eq!(patch.state, "ready");
    let gone = info::ZInfoPatchEnvelope { id: "p".to_owned(), ..Default::default() };
    let gone = read(InfoContent::PatchInfo(gone));
    assert_eq!(gone, Report::Gone { kind: "patch_envelope".to_owned(), id: "p".to_owned() });

    let source = info::NtpSource {
        src_addr: "192.0.2.1".to_owned(),
        state: 3,
        offset: -0.25,
        ..Default::default()
    };
    let sources = info::ZInfoNtpSources { sources: vec![source] };
    let More::NtpSources(sources) = more(InfoContent::NtpSources(sources)) else { panic!() };
    assert_eq!((sources[0].name.as_str(), sources[0].state.as_str()), ("192.0.2.1", "falseticker"));

    let condition =
        |kind| info::KubeNodeCondition { r#type: kind, set: true, ..Default::default() };
    let node = |name: &str, kind| info::KubeNodeInfo {
        name: name.to_owned(),
        conditions: vec![condition(kind)],
        ..Default::default()
    };
    let cluster = info::ZInfoKubeCluster {
        nodes: vec![node("a", 1), node("b", 3)],
        storage: Some(info::KubeStorageInfo { health: 2, ..Default::default() }),
        ..Default::default()
    };
    let More::Cluster(cluster) = more(InfoContent::ClusterInfo(cluster)) else { panic!() };
    assert_eq!(cluster.storage, "degraded");
    assert_eq!(cluster.nodes.iter().map(|n| n.1).collect::<Vec<_>>(), [true, false]);

    let update = info::ZInfoKubeClusterUpdateStatus {
        component: 2,
        status: 4,
        error: failed("no image"),
        ..Default::default()
    };
    let More::ClusterUpdate(update) = more(InfoContent::ClusterUpdateInfo(update)) else {
        panic!()
    };
    assert_eq!((update.component.as_str(), update.state.as_str()), ("k3s", "failed"));
    let node = info::ZInfoClusterNode { node_status: 3 };
    assert_eq!(more(InfoContent::ClusterNode(node)), More::ClusterNode("down".to_owned()));
}

#[test]
fn metrics_of_disks_ports_volumes_and_networks_are_in_bytes() {
    let port = NetworkMetric {
        i_name: "eth0".to_owned(),
        rx_bytes: 10,
        tx_bytes: 20,
        rx_drops: 1,
        tx_drops: 2,
        ..Default::default()
    };
    let stats = |bytes| Some(NetworkStats { total_bytes: bytes, errors: 1, ..Default::default() });
    let device = DeviceMetric {
        // EVE counts these in MiB.
        disk: vec![DiskMetric {
            mount_path: "/persist".to_owned(),
            total: 9,
            ..Default::default()
        }],
        network: vec![port.clone()],
        cipher: vec![CipherMetric { failure_count: 3, ..Default::default() }],
        last_received_config: Some(Timestamp { seconds: 5, nanos: 0 }),
        ..Default::default()
    };
    let app = AppMetric {
        network: vec![port],
        disk: vec![AppDiskMetric { used: 4, ..Default::default() }],
        ..Default::default()
    };
    let network = ZMetricNetworkInstance {
        network_id: "n".to_owned(),
        network_stats: Some(ZMetricNetworkStats { rx: stats(7), tx: stats(8) }),
        ..Default::default()
    };
    let volume = ZMetricVolume { uuid: "v".to_owned(), used_bytes: 6, ..Default::default() };
    let message = ZMetricMsg {
        dev_id: ID.to_owned(),
        metric_content: Some(MetricContent::Dm(device)),
        am: vec![app],
        nm: vec![network],
        vm: vec![volume],
        ..Default::default()
    };
    let got: Metrics = view::metrics(&wire::encode(&message)).unwrap();
    assert_eq!((got.disks[0].name.as_str(), got.disks[0].total), ("/persist", Bytes::mib(9)));
    let eth0 = &got.networks[0];
    assert_eq!((eth0.received, eth0.sent, eth0.dropped), (Bytes(10), Bytes(20), 3));
    assert_eq!(got.apps[0].networks[0], *eth0);
    assert_eq!(got.apps[0].disks[0].used, Bytes::mib(4));
    assert_eq!((got.volumes[0].id.as_str(), got.volumes[0].used), ("v", Bytes(6)));
    let network = &got.instances[0];
    assert_eq!((network.received, network.sent, network.errors), (Bytes(7), Bytes(8), 2));
    assert_eq!((got.cipher_failures, got.config_received), (3, Some(UnixMillis(5000))));
}

#[test]
fn a_disk_below_its_makers_threshold_is_failing() {
    let attribute = |name: &str, value, thresh| info::SmartAttr {
        attribute_name: name.to_owned(),
        value,
        thresh,
        ..Default::default()
    };
    let disk = info::StorageDiskInfo {
        smart_attr: vec![
            attribute("Reallocated_Sector_Ct", 10, 36),
            attribute("Temperature_Celsius", 60, 0),
            attribute("Spin_Up_Time", 97, 21),
        ],
        ..Default::default()
    };
    let message = api::pb::hardwarehealth::ZHardwareHealth {
        dev_id: ID.to_owned(),
        disks: vec![disk],
        ..Default::default()
    };
    let health = view::hardware_health(&wire::encode(&message)).unwrap();
    assert_eq!(health.disks[0].failing, [("Reallocated_Sector_Ct".to_owned(), 10, 36)]);
    assert_eq!(health.disks[0].attributes.len(), 3);
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_fall(bytes: Vec<u8>) {
        let _ = view::info(&bytes);
        let _ = view::metrics(&bytes);
        let _ = view::flowlog(&bytes);
        let _ = view::hardware_health(&bytes);
    }
}

#[test]
fn counters_that_are_too_large_to_add_are_no_end_of_the_controller() {
    use api::pb::metrics::{CipherMetric, DeviceMetric, ZMetricMsg, z_metric_msg::MetricContent};
    let cipher = || CipherMetric { failure_count: u64::MAX, ..CipherMetric::default() };
    let device = DeviceMetric { cipher: vec![cipher(), cipher()], ..DeviceMetric::default() };
    let message = ZMetricMsg {
        dev_id: ID.to_owned(),
        metric_content: Some(MetricContent::Dm(device)),
        ..ZMetricMsg::default()
    };
    let metrics = view::metrics(&wire::encode(&message)).unwrap();
    assert_eq!(metrics.cipher_failures, u64::MAX);
}
