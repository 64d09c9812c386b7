//! What a simulated node says: info, metrics, logs, flow logs, hardware health.

use api::newlogs::{About, DeviceLog, Entry, FILE_TARGET, pack};
use api::pb::flowlog::{FlowMessage, FlowRecord, IpFlow, ScopeInfo};
use api::pb::hardwarehealth::{EccMemoryControllerInfo, EccMemoryReport, ZHardwareHealth};
use api::pb::info::z_info_msg::InfoContent;
use api::pb::info::{
    ApiCapability, AttestationInfo, AttestationState, BaseOsStatus, BaseOsSubStatus, BootReason,
    DataSecAtRest, DataSecAtRestStatus, DevicePort, DevicePortStatus, ErrorInfo,
    HwSecurityModuleStatus, Severity, SystemAdapterInfo, ZDeviceState, ZInfoApp, ZInfoConfigItem,
    ZInfoConfigItemStatus, ZInfoContentTree, ZInfoDevSw, ZInfoDevice, ZInfoManufacturer, ZInfoMsg,
    ZInfoNetwork, ZInfoNetworkInstance, ZInfoTypes, ZInfoVolume, ZNetworkInstanceState, ZSwState,
};
use api::pb::metrics::z_metric_msg::MetricContent;
use api::pb::metrics::{
    AppCpuMetric, AppMetric, DeviceMemoryMetric, DeviceMetric, MemoryMetric, NetworkMetric,
    ZMetricMsg,
};
use api::wire;
use model::UnixMillis;

use super::node::{Node, Standing, Subject, Update};

/// Who speaks, and when.
#[derive(Debug, Clone, Copy)]
pub struct Speaker<'a> {
    /// The device's id as text.
    pub id: &'a str,
    /// Its serial number.
    pub serial: &'a str,
    /// Whether it has a TPM.
    pub tpm: bool,
    /// Whether it has attested.
    pub attested: bool,
    /// The time.
    pub at: UnixMillis,
}

/// Sets a time of the wire; its type belongs to a library that only `api` knows.
macro_rules! stamp {
    ($field:expr, $at:expr) => {{
        let field = $field.get_or_insert_default();
        field.seconds = i64::try_from($at.0 / 1000).unwrap_or(i64::MAX);
        field.nanos = i32::try_from($at.0 % 1000 * 1_000_000).unwrap_or(0);
    }};
}

/// The payload of an info message about a subject. A subject that is no more is told by its id
/// alone.
pub fn info(speaker: Speaker<'_>, node: &Node, subject: &Subject) -> Vec<u8> {
    let standing = node.standing(subject);
    let (kind, content) = match subject {
        Subject::Device => (ZInfoTypes::ZiDevice, InfoContent::Dinfo(device(speaker, node))),
        Subject::Content(id) => {
            let content = content(speaker, node, id, standing);
            (ZInfoTypes::ZiContentTree, InfoContent::Cinfo(content))
        }
        Subject::Volume(id, generation) => {
            let volume = volume(speaker, node, (id, *generation), standing);
            (ZInfoTypes::ZiVolume, InfoContent::Vinfo(volume))
        }
        Subject::Instance(id) => {
            let instance = instance(speaker, node, id, standing);
            (ZInfoTypes::ZiNetworkInstance, InfoContent::Niinfo(instance))
        }
        Subject::App(id) => {
            (ZInfoTypes::ZiApp, InfoContent::Ainfo(app(speaker, node, id, standing)))
        }
    };
    let mut message = ZInfoMsg {
        ztype: kind.into(),
        dev_id: speaker.id.to_owned(),
        info_content: Some(content),
        ..ZInfoMsg::default()
    };
    stamp!(message.at_time_stamp, speaker.at);
    wire::encode(&message)
}

fn error(speaker: Speaker<'_>, text: &str) -> ErrorInfo {
    let mut error = ErrorInfo {
        description: text.to_owned(),
        severity: Severity::Error.into(),
        ..ErrorInfo::default()
    };
    stamp!(error.timestamp, speaker.at);
    error
}

fn trouble(speaker: Speaker<'_>, standing: &Standing) -> Option<ErrorInfo> {
    (!standing.error.is_empty()).then(|| error(speaker, &standing.error))
}

fn device(speaker: Speaker<'_>, node: &Node) -> ZInfoDevice {
    let told = node.told();
    let label = |second| if second { "IMGB" } else { "IMGA" }.to_owned();
    let (user, sub) = match node.update {
        Update::None | Update::Failed => (BaseOsStatus::Updated, BaseOsSubStatus::NoneSubstatus),
        Update::Downloading => (BaseOsStatus::Updated, BaseOsSubStatus::NoneSubstatus),
        Update::Updating => (BaseOsStatus::Updated, BaseOsSubStatus::NoneSubstatus),
        Update::Testing => (BaseOsStatus::Updating, BaseOsSubStatus::UpdateTesting),
    };
    let this = ZInfoDevSw {
        activated: true,
        partition_label: label(node.second_slot),
        partition_state: if node.update == Update::Testing { "inprogress" } else { "active" }
            .into(),
        status: ZSwState::Installed.into(),
        short_version: node.version.clone(),
        user_status: user.into(),
        sub_status: sub.into(),
        ..ZInfoDevSw::default()
    };
    let (user, sub) = match node.update {
        Update::Downloading => (BaseOsStatus::Downloading, BaseOsSubStatus::DownloadInprogress),
        Update::Updating => (BaseOsStatus::Updating, BaseOsSubStatus::UpdateInitializing),
        Update::Failed => (BaseOsStatus::Failed, BaseOsSubStatus::NoneSubstatus),
        Update::None | Update::Testing => (BaseOsStatus::None, BaseOsSubStatus::NoneSubstatus),
    };
    let other = ZInfoDevSw {
        partition_label: label(!node.second_slot),
        partition_state: "unused".to_owned(),
        short_version: node.other_version.clone(),
        user_status: user.into(),
        sub_status: sub.into(),
        sw_err: (node.update == Update::Failed)
            .then(|| error(speaker, "the new base OS did not reach the controller in time")),
        ..ZInfoDevSw::default()
    };
    let mut items = ZInfoConfigItemStatus::default();
    for item in told.into_iter().flat_map(|t| &t.config_items) {
        let value = ZInfoConfigItem { value: item.value.clone(), error: String::new() };
        items.config_items.insert(item.key.clone(), value);
    }
    let mut ports = DevicePortStatus {
        version: 1,
        key: "zedagent".to_owned(),
        ports: vec![port()],
        ..DevicePortStatus::default()
    };
    if let Some(at) = told.and_then(|t| t.config_timestamp.as_ref()) {
        ports.time_priority = Some(*at);
    }
    stamp!(ports.last_succeeded, speaker.at);
    let mut info = ZInfoDevice {
        machine_arch: "x86_64".to_owned(),
        cpu_arch: "x86_64".to_owned(),
        ncpu: 4,
        memory: 8192,
        storage: 65_536,
        minfo: Some(ZInfoManufacturer {
            manufacturer: "Simulated".to_owned(),
            product_name: "sim".to_owned(),
            serial_number: speaker.serial.to_owned(),
            ..ZInfoManufacturer::default()
        }),
        network: vec![network()],
        sw_list: vec![this, other],
        host_name: speaker.id.to_owned(),
        last_reboot_reason: "a simulated boot".to_owned(),
        system_adapter: Some(SystemAdapterInfo { current_index: 0, status: vec![ports] }),
        restart_counter: node.boots,
        hsm_status: if speaker.tpm {
            HwSecurityModuleStatus::Enabled
        } else {
            HwSecurityModuleStatus::Notfound
        }
        .into(),
        data_sec_at_rest_info: Some(DataSecAtRest {
            status: if speaker.tpm {
                DataSecAtRestStatus::DatasecAtRestEnabled
            } else {
                DataSecAtRestStatus::DatasecAtRestDisabled
            }
            .into(),
            info: "simulated".to_owned(),
            ..DataSecAtRest::default()
        }),
        config_item_status: Some(items),
        reboot_config_counter: node.reboot_counter.unwrap_or_default(),
        last_boot_reason: match node.update {
            Update::Testing => BootReason::Update,
            Update::Failed => BootReason::Fallback,
            _ if node.boots > 1 => BootReason::RebootCmd,
            _ => BootReason::First,
        }
        .into(),
        state: ZDeviceState::ZdeviceStateOnline.into(),
        maintenance_mode: told.is_some_and(|t| t.maintenance_mode),
        attestation_info: Some(AttestationInfo {
            state: if speaker.attested {
                AttestationState::Complete
            } else {
                AttestationState::NonceWait
            }
            .into(),
            error: None,
        }),
        api_capability: ApiCapability::ReportTpmEventlog.into(),
        device_name: told.map(|t| t.device_name.clone()).unwrap_or_default(),
        ..ZInfoDevice::default()
    };
    if info.maintenance_mode {
        info.state = ZDeviceState::ZdeviceStateMaintenanceMode.into();
    }
    stamp!(info.boot_time, speaker.at);
    info
}

fn network() -> ZInfoNetwork {
    ZInfoNetwork {
        mac_addr: "02:00:00:00:00:01".to_owned(),
        dev_name: "eth0".to_owned(),
        ip_addrs: vec!["192.0.2.10".to_owned()],
        default_routers: vec!["192.0.2.1".to_owned()],
        ipv4_up: true,
        uplink: true,
        local_name: "eth0".to_owned(),
        ..ZInfoNetwork::default()
    }
}

fn port() -> DevicePort {
    DevicePort {
        ifname: "eth0".to_owned(),
        name: "eth0".to_owned(),
        is_mgmt: true,
        free: true,
        dhcp_type: 4,
        subnet: "192.0.2.0/24".to_owned(),
        mac_addr: "02:00:00:00:00:01".to_owned(),
        ip_addrs: vec!["192.0.2.10".to_owned()],
        default_routers: vec!["192.0.2.1".to_owned()],
        up: true,
        mtu: 1500,
        ..DevicePort::default()
    }
}

fn content(
    speaker: Speaker<'_>,
    node: &Node,
    id: &str,
    standing: Option<&Standing>,
) -> ZInfoContentTree {
    let own = ZInfoContentTree { uuid: id.to_owned(), ..ZInfoContentTree::default() };
    let told = node.told().and_then(|t| t.content_info.iter().find(|c| c.uuid == id));
    let (Some(standing), Some(told)) = (standing, told) else { return own };
    ZInfoContentTree {
        display_name: told.display_name.clone(),
        sha256: told.sha256.clone(),
        state: standing.state.into(),
        progress_percentage: if standing.state == ZSwState::Loaded { 100 } else { 0 },
        err: trouble(speaker, standing),
        generation_count: told.generation_count,
        ..own
    }
}

fn volume(
    speaker: Speaker<'_>,
    node: &Node,
    (id, generation): (&str, i64),
    standing: Option<&Standing>,
) -> ZInfoVolume {
    let own =
        ZInfoVolume { uuid: id.to_owned(), generation_count: generation, ..ZInfoVolume::default() };
    let told = node.told().and_then(|t| t.volumes.iter().find(|v| v.uuid == id));
    let (Some(standing), Some(told)) = (standing, told) else { return own };
    ZInfoVolume {
        display_name: told.display_name.clone(),
        state: standing.state.into(),
        progress_percentage: if standing.state == ZSwState::CreatedVolume { 100 } else { 0 },
        volume_err: trouble(speaker, standing),
        ..own
    }
}

fn instance(
    speaker: Speaker<'_>,
    node: &Node,
    id: &str,
    standing: Option<&Standing>,
) -> ZInfoNetworkInstance {
    let own = ZInfoNetworkInstance { network_id: id.to_owned(), ..ZInfoNetworkInstance::default() };
    let told = node.told().and_then(|t| {
        let own = |u: &api::pb::config::UuiDandVersion| u.uuid == id;
        t.network_instances.iter().find(|n| n.uuidandversion.as_ref().is_some_and(own))
    });
    let (Some(standing), Some(told)) = (standing, told) else { return own };
    let state = match standing.state {
        ZSwState::Installed => ZNetworkInstanceState::ZnetinstStateOnline,
        ZSwState::Error => ZNetworkInstanceState::ZnetinstStateError,
        _ => ZNetworkInstanceState::ZnetinstStateInit,
    };
    ZInfoNetworkInstance {
        network_version: told
            .uuidandversion
            .as_ref()
            .map(|u| u.version.clone())
            .unwrap_or_default(),
        inst_type: u32::try_from(told.inst_type).unwrap_or_default(),
        displayname: told.displayname.clone(),
        activated: standing.state == ZSwState::Installed,
        bridge_num: 1,
        bridge_name: "bn1".to_owned(),
        network_err: trouble(speaker, standing).into_iter().collect(),
        state: state.into(),
        ..own
    }
}

fn app(speaker: Speaker<'_>, node: &Node, id: &str, standing: Option<&Standing>) -> ZInfoApp {
    let own = ZInfoApp { app_id: id.to_owned(), ..ZInfoApp::default() };
    let told = node.told().and_then(|t| {
        let own = |u: &api::pb::config::UuiDandVersion| u.uuid == id;
        t.apps.iter().find(|a| a.uuidandversion.as_ref().is_some_and(own))
    });
    let (Some(standing), Some(told)) = (standing, told) else { return own };
    let network = told.interfaces.iter().zip(1..).map(|(interface, n): (_, u8)| ZInfoNetwork {
        mac_addr: format!("02:16:3e:00:00:{n:02x}"),
        dev_name: interface.name.clone(),
        ip_addrs: vec![format!("10.1.0.{}", u16::from(n) + 1)],
        ipv4_up: true,
        ..ZInfoNetwork::default()
    });
    let mut info = ZInfoApp {
        app_version: told.uuidandversion.as_ref().map(|u| u.version.clone()).unwrap_or_default(),
        app_name: told.displayname.clone(),
        state: standing.state.into(),
        app_err: trouble(speaker, standing).into_iter().collect(),
        network: network.collect(),
        volume_refs: told.volume_ref_list.iter().map(|v| v.uuid.clone()).collect(),
        ..own
    };
    if standing.state == ZSwState::Running {
        stamp!(info.boot_time, speaker.at);
    }
    info
}

/// The payload of a metrics message; counters grow with `turn`.
pub fn metrics(speaker: Speaker<'_>, node: &Node, turn: u32) -> Vec<u8> {
    let turn = u64::from(turn);
    let mut cpu =
        AppCpuMetric { total: turn, total_ns: turn * 700_000_000, ..AppCpuMetric::default() };
    stamp!(cpu.up_time, speaker.at);
    let network = NetworkMetric {
        i_name: "eth0".to_owned(),
        local_name: "eth0".to_owned(),
        tx_bytes: turn * 4_000,
        rx_bytes: turn * 3_000,
        tx_pkts: turn * 40,
        rx_pkts: turn * 30,
        ..NetworkMetric::default()
    };
    let mut device = DeviceMetric {
        memory: Some(MemoryMetric {
            used_mem: 1200,
            avail_mem: 6992,
            used_percentage: 14.6,
            avail_percentage: 85.4,
        }),
        network: vec![network],
        cpu_metric: Some(cpu),
        device_memory: Some(DeviceMemoryMetric {
            memory_mb: 8192,
            allocated_apps_mb: 512,
            allocated_eve_mb: 800,
            used_eve_mb: 600,
        }),
        ..DeviceMetric::default()
    };
    if node.told().is_some() {
        stamp!(device.last_received_config, speaker.at);
        stamp!(device.last_processed_config, speaker.at);
    }
    let apps = node.told().into_iter().flat_map(|t| &t.apps).filter_map(|app| {
        let id = app.uuidandversion.as_ref()?;
        Some(AppMetric {
            app_id: id.uuid.clone(),
            app_version: id.version.clone(),
            app_name: app.displayname.clone(),
            memory: Some(MemoryMetric { used_mem: 64, avail_mem: 448, ..MemoryMetric::default() }),
            ..AppMetric::default()
        })
    });
    let mut message = ZMetricMsg {
        dev_id: speaker.id.to_owned(),
        am: apps.collect(),
        metric_content: Some(MetricContent::Dm(device)),
        ..ZMetricMsg::default()
    };
    stamp!(message.at_time_stamp, speaker.at);
    wire::encode(&message)
}

/// One log file of the node that says `lines`.
pub fn log_file(speaker: Speaker<'_>, node: &Node, lines: &[&str]) -> anyhow::Result<Vec<u8>> {
    let about = About::Device(DeviceLog {
        device: speaker.id.to_owned(),
        image: if node.second_slot { "IMGB" } else { "IMGA" }.to_owned(),
        version: node.version.clone(),
    });
    one_file(speaker, &about, "zedagent", lines)
}

/// One log file of an app.
pub fn app_log_file(speaker: Speaker<'_>, name: &str, lines: &[&str]) -> anyhow::Result<Vec<u8>> {
    one_file(speaker, &About::App(name.to_owned()), name, lines)
}

fn one_file(
    speaker: Speaker<'_>,
    about: &About,
    source: &str,
    lines: &[&str],
) -> anyhow::Result<Vec<u8>> {
    let entries: Vec<Entry> = lines
        .iter()
        .zip(1..)
        .map(|(line, msgid)| Entry {
            severity: "info".to_owned(),
            source: source.to_owned(),
            iid: "1".to_owned(),
            content: (*line).to_owned(),
            msgid,
            timestamp: speaker.at.into(),
            ..Entry::default()
        })
        .collect();
    let mut files = pack(&entries, about, speaker.at, FILE_TARGET)?.into_iter();
    files.next().ok_or_else(|| anyhow::anyhow!("a log file needs lines"))
}

/// The payload of a flow log: one flow of an app.
pub fn flow_log(speaker: Speaker<'_>, app: &str, instance: &str) -> Vec<u8> {
    let mut flow = FlowRecord {
        flow: Some(IpFlow {
            src: "10.1.0.2".to_owned(),
            src_port: 40_000,
            dest: "198.51.100.7".to_owned(),
            dest_port: 443,
            protocol: 6,
        }),
        tx_bytes: 1200,
        tx_pkts: 9,
        rx_bytes: 5100,
        rx_pkts: 8,
        ..FlowRecord::default()
    };
    stamp!(flow.start_time, speaker.at);
    stamp!(flow.end_time, speaker.at);
    wire::encode(&FlowMessage {
        dev_id: speaker.id.to_owned(),
        scope: Some(ScopeInfo {
            uuid: app.to_owned(),
            intf: "nbu1x1".to_owned(),
            local_intf: "bn1".to_owned(),
            net_inst_uuid: instance.to_owned(),
        }),
        flows: vec![flow],
        ..FlowMessage::default()
    })
}

/// The payload of a hardware health report: memory without errors.
pub fn hardware_health(speaker: Speaker<'_>) -> Vec<u8> {
    let controller = EccMemoryControllerInfo {
        controller_name: "mc0".to_owned(),
        ..EccMemoryControllerInfo::default()
    };
    let mut message = ZHardwareHealth {
        dev_id: speaker.id.to_owned(),
        mr: Some(EccMemoryReport { memory_controllers: vec![controller] }),
        ..ZHardwareHealth::default()
    };
    stamp!(message.at_time_stamp, speaker.at);
    wire::encode(&message)
}
