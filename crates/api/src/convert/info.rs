//! Info messages: what a node reports of itself and its objects, one object a message.
//!
//! Sizes on the wire are MiB unless a field's name says bytes. Everything a message says comes from
//! its arguments; what we do not know stays empty.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use model::desired::{
    Addressing, NetworkInstance, NetworkKind, ObjectKind, Origin, Port, Power, Properties, Refused,
    Volume,
};
use model::reported::{
    AppNetworkStatus, AppState, AppStatus, Attestation, Boot, BootReason as Reason, ContentState,
    ContentStatus, ControllerStatus, Maintenance, NetworkInstanceStatus, PortStatus, PortsFrom,
    VolumeState, VolumeStatus,
};
use model::{
    AppId, Bytes, ContentId, DeviceId, NetworkInstanceId, Problem, UnixMillis, VolumeId, Who,
};

use super::metrics::PERSIST;
use super::{mac_text, to_timestamp};
use crate::pb::common::{DhcpType, NetworkConfigOrigin, PortConfigSource};
use crate::pb::config::ZNetworkInstType;
use crate::pb::info::z_info_msg::InfoContent;
use crate::pb::info::{
    ApiCapability, AttestationInfo, AttestationState, BaseOsStatus, BootReason, Capabilities,
    ContentResources, DataSecAtRest, DataSecAtRestStatus, DeviceEntity, DevicePort,
    DevicePortStatus, Entity, ErrorInfo, HwSecurityModuleStatus, MaintenanceModeReason,
    OptionalCapabilities, Severity, SystemAdapterInfo, VolumeResources, ZDeviceState, ZInfoApp,
    ZInfoConfigItem, ZInfoConfigItemStatus, ZInfoContentTree, ZInfoDevSw, ZInfoDevice, ZInfoDns,
    ZInfoManufacturer, ZInfoMsg, ZInfoNetwork, ZInfoNetworkInstance, ZInfoStorage, ZInfoTypes,
    ZInfoVolume, ZNetworkInstanceState, ZSwState, ZmetIpAssignmentEntry, ZmetVifInfo,
};
use crate::wire;

/// The hardware, as far as a controller asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// `x86_64`, `aarch64`, `riscv64`.
    pub arch: String,
    /// Processors.
    pub cpus: u32,
    /// All memory.
    pub memory: Bytes,
    /// The disk the node runs from.
    pub storage: Bytes,
    /// Its maker (SMBIOS).
    pub manufacturer: String,
    /// Its product name (SMBIOS).
    pub product: String,
    /// Its serial number (SMBIOS).
    pub serial: String,
    /// Maker of its firmware.
    pub firmware_vendor: String,
    /// Version of its firmware.
    pub firmware_version: String,
    /// What its maker calls the processor.
    pub processor: String,
    /// There is a hardware watchdog.
    pub watchdog: bool,
    /// The processor can run virtual machines.
    pub virtualization: bool,
    /// Hardware can be given to virtual machines.
    pub io_virtualization: bool,
}

/// The newest feature of the API that this node has, in the order of [`ApiCapability`]: apps that
/// wait before they start. Of those before it, trying an update again has no meaning here yet.
const API_CAPABILITY: ApiCapability = ApiCapability::StartDelayInSeconds;

/// What a device info is made of.
#[derive(Debug, Clone, Copy)]
pub struct DeviceFacts<'a> {
    /// The hardware.
    pub machine: &'a Machine,
    /// This boot.
    pub boot: &'a Boot,
    /// All ports.
    pub ports: &'a [PortStatus],
    /// The controller and the config in force.
    pub controller: &'a ControllerStatus,
    /// The settings in force.
    pub properties: &'a Properties,
    /// The settings as they came.
    pub items: &'a BTreeMap<String, String>,
    /// The reboot and power-off counters that were last seen.
    pub power: Power,
}

/// The payload of a device info, as of `at`.
pub fn device(own: DeviceId, at: UnixMillis, facts: &DeviceFacts<'_>) -> Vec<u8> {
    let DeviceFacts { machine, boot, controller, .. } = facts;
    let software = ZInfoDevSw {
        activated: true,
        partition_label: boot.slot.clone(),
        partition_state: "active".to_owned(),
        status: ZSwState::Installed.into(),
        short_version: boot.version.clone(),
        user_status: BaseOsStatus::Updated.into(),
        ..ZInfoDevSw::default()
    };
    let info = ZInfoDevice {
        machine_arch: machine.arch.clone(),
        ncpu: machine.cpus,
        memory: machine.memory.0 >> 20,
        storage: machine.storage.0 >> 20,
        minfo: Some(ZInfoManufacturer {
            manufacturer: machine.manufacturer.clone(),
            product_name: machine.product.clone(),
            serial_number: machine.serial.clone(),
            bios_vendor: machine.firmware_vendor.clone(),
            bios_version: machine.firmware_version.clone(),
            ..ZInfoManufacturer::default()
        }),
        cpu_arch: machine.processor.clone(),
        storage_list: vec![ZInfoStorage {
            mount_path: PERSIST.to_owned(),
            total: machine.storage.0 >> 20,
            storage_location: true,
            ..ZInfoStorage::default()
        }],
        dns: facts.ports.iter().find(|p| p.port.management && p.link).map(port_dns),

        network: facts.ports.iter().map(port_network).collect(),
        boot_time: Some(to_timestamp(boot.started)),
        sw_list: vec![software],
        host_name: own.to_string(),
        last_reboot_reason: boot.detail.clone(),
        last_reboot_time: Some(to_timestamp(boot.started)),
        system_adapter: Some(system_adapter(facts.ports, controller)),
        restart_counter: boot.count,
        // No TPM is used and nothing is encrypted yet; both say so.
        hsm_status: HwSecurityModuleStatus::Disabled.into(),
        data_sec_at_rest_info: Some(DataSecAtRest {
            status: DataSecAtRestStatus::DatasecAtRestDisabled.into(),
            ..DataSecAtRest::default()
        }),
        config_item_status: Some(config_items(facts)),
        reboot_config_counter: facts.power.reboot.unwrap_or_default(),
        last_boot_reason: boot_reason(boot.reason).into(),
        state: ZDeviceState::ZdeviceStateOnline.into(),
        shutdown_config_counter: facts.power.shutdown.unwrap_or_default(),
        device_name: controller.node_name.clone(),
        maintenance_mode: !controller.standing.maintenance.is_empty(),
        maintenance_mode_reasons: controller
            .standing
            .maintenance
            .iter()
            .map(|reason| maintenance(*reason).into())
            .collect(),
        attestation_info: Some(AttestationInfo {
            state: attestation(controller.standing.attestation).into(),
            error: controller.standing.attestation_problem.as_ref().map(|p| error(at, p, &[])),
        }),
        api_capability: API_CAPABILITY.into(),
        capabilities: Some(Capabilities {
            hw_assisted_virtualization: machine.virtualization,
            io_virtualization: machine.io_virtualization,
        }),
        optional_capabilities: Some(OptionalCapabilities {
            hw_inventory_support: true,
            ..OptionalCapabilities::default()
        }),
        hardware_watchdog_present: machine.watchdog,
        local_profile: controller.standing.local_profile.clone(),
        ..ZInfoDevice::default()
    };
    message(own, at, ZInfoTypes::ZiDevice, InfoContent::Dinfo(info))
}

/// What an app info is made of: the app, its network, and the tables its volumes are found in.
#[derive(Debug, Clone, Copy)]
pub struct AppFacts<'a> {
    /// The app.
    pub status: &'a AppStatus,
    /// Its network, if it is being made.
    pub network: Option<&'a AppNetworkStatus>,
    /// All volumes as wanted.
    pub wanted_volumes: &'a BTreeMap<VolumeId, Volume>,
    /// All volumes as they are.
    pub volumes: &'a BTreeMap<VolumeId, VolumeStatus>,
    /// All downloads.
    pub contents: &'a BTreeMap<ContentId, ContentStatus>,
}

/// The payload of an app info, as of `at`.
pub fn app(own: DeviceId, at: UnixMillis, facts: &AppFacts<'_>) -> Vec<u8> {
    let AppFacts { status, network, .. } = facts;
    let info = ZInfoApp {
        app_id: status.id.to_string(),
        app_version: status.version.clone(),
        app_name: status.name.clone(),
        boot_time: status.running_since.map(to_timestamp),
        app_err: app_errors(at, facts),
        state: app_state(facts).into(),
        network: network
            .map(|n| n.vifs.iter().map(|vif| (n.ready, vif)))
            .into_iter()
            .flatten()
            .map(|(ready, vif)| ZInfoNetwork {
                mac_addr: mac_text(vif.mac),
                dev_name: vif.name.clone(),
                local_name: vif.host_interface.clone(),
                ip_addrs: vif.address.iter().map(Ipv4Addr::to_string).collect(),
                ipv4_up: ready && vif.address.is_some(),
                ..ZInfoNetwork::default()
            })
            .collect(),
        volume_refs: status.volumes.iter().map(ToString::to_string).collect(),
        ..ZInfoApp::default()
    };
    message(own, at, ZInfoTypes::ZiApp, InfoContent::Ainfo(info))
}

/// The payload of a network instance info. `wanted` says which kind it is; `apps` are the networks
/// of all apps, for the interfaces in it.
pub fn network_instance<'a>(
    own: DeviceId,
    at: UnixMillis,
    status: &NetworkInstanceStatus,
    wanted: Option<&NetworkInstance>,
    apps: impl IntoIterator<Item = &'a AppNetworkStatus>,
) -> Vec<u8> {
    let kind = wanted.map_or(ZNetworkInstType::ZNetInstFirst, |w| match w.kind {
        NetworkKind::Local(_) => ZNetworkInstType::ZnetInstLocal,
        NetworkKind::Switch => ZNetworkInstType::ZnetInstSwitch,
    });
    let vifs = apps.into_iter().flat_map(|app| app.vifs.iter().map(|vif| (app.id, vif)));
    let error = status.problem.as_ref().map(|problem| {
        error(at, problem, &[(Entity::NetworkInstance, status.id.to_string(), &status.name)])
    });
    let info = ZInfoNetworkInstance {
        network_id: status.id.to_string(),
        inst_type: u32::try_from(i32::from(kind)).unwrap_or_default(),
        displayname: status.name.clone(),
        activated: status.active,
        ports: status.port.iter().map(ToString::to_string).collect(),
        bridge_num: status.bridge.trim_start_matches("bn").parse().unwrap_or_default(),
        bridge_name: status.bridge.clone(),
        bridge_ip_addr: status.gateway.map(|g| g.to_string()).unwrap_or_default(),
        ip_assignments: status
            .leases
            .iter()
            .map(|lease| ZmetIpAssignmentEntry {
                mac_address: mac_text(lease.mac),
                ip_address: vec![lease.address.to_string()],
            })
            .collect(),
        vifs: vifs
            .filter(|(_, vif)| vif.network == status.id)
            .map(|(app, vif)| ZmetVifInfo {
                vif_name: vif.host_interface.clone(),
                mac_address: mac_text(vif.mac),
                app_id: app.to_string(),
            })
            .collect(),
        state: match (&error, status.active) {
            (Some(_), _) => ZNetworkInstanceState::ZnetinstStateError,
            (None, true) => ZNetworkInstanceState::ZnetinstStateOnline,
            (None, false) => ZNetworkInstanceState::ZnetinstStateInit,
        }
        .into(),
        network_err: error.into_iter().collect(),
        mtu: wanted.and_then(|w| w.mtu).unwrap_or_default().into(),
        ..ZInfoNetworkInstance::default()
    };
    message(own, at, ZInfoTypes::ZiNetworkInstance, InfoContent::Niinfo(info))
}

/// The payload of a volume info. `content` is the download it starts as, if any; `used` what it takes
/// of the disk, if that was measured.
pub fn volume(
    own: DeviceId,
    at: UnixMillis,
    status: &VolumeStatus,
    wanted: Option<&Volume>,
    content: Option<&ContentStatus>,
    used: Option<Bytes>,
) -> Vec<u8> {
    let max_size = wanted.and_then(|w| w.max_size);
    let info = ZInfoVolume {
        uuid: status.id.to_string(),
        display_name: status.name.clone(),
        resources: (max_size.is_some() || used.is_some()).then(|| VolumeResources {
            max_size_bytes: max_size.unwrap_or_default().0,
            // To the MiB, so that it is not told again for every byte.
            cur_size_bytes: used.unwrap_or_default().0 >> 20 << 20,
        }),
        state: volume_state(status, content).into(),
        progress_percentage: match status.state {
            VolumeState::AwaitingContent => content.map_or(0, progress),
            VolumeState::Creating | VolumeState::Ready(_) => 100,
        },
        volume_err: status.problem.as_ref().map(|problem| {
            error(at, problem, &[(Entity::Volume, status.id.to_string(), &status.name)])
        }),
        generation_count: i64::try_from(status.generation).unwrap_or(i64::MAX),
        ..ZInfoVolume::default()
    };
    message(own, at, ZInfoTypes::ZiVolume, InfoContent::Vinfo(info))
}

/// The payload of a content tree info.
pub fn content(own: DeviceId, at: UnixMillis, status: &ContentStatus) -> Vec<u8> {
    let (sha256, size) = match &status.state {
        ContentState::Loaded { digest, size } => (digest.hex(), *size),
        ContentState::Downloading { done, .. } => (String::new(), *done),
        _ => (String::new(), Bytes(0)),
    };
    let info = ZInfoContentTree {
        uuid: status.id.to_string(),
        display_name: status.name.clone(),
        sha256,
        resources: Some(ContentResources { cur_size_bytes: size.0 }),
        state: content_state(status).into(),
        progress_percentage: progress(status),
        err: status.problem.as_ref().map(|problem| {
            error(at, problem, &[(Entity::ContentTree, status.id.to_string(), &status.name)])
        }),
        ..ZInfoContentTree::default()
    };
    message(own, at, ZInfoTypes::ZiContentTree, InfoContent::Cinfo(info))
}

/// An object whose end is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// An app.
    App(AppId),
    /// A network instance.
    NetworkInstance(NetworkInstanceId),
    /// A volume.
    Volume(VolumeId),
    /// A content tree.
    Content(ContentId),
}

/// The payload that says an object is gone: its id and nothing else.
pub fn gone(own: DeviceId, at: UnixMillis, object: Gone) -> Vec<u8> {
    let (kind, content) = match object {
        Gone::App(id) => {
            let info = ZInfoApp { app_id: id.to_string(), ..ZInfoApp::default() };
            (ZInfoTypes::ZiApp, InfoContent::Ainfo(info))
        }
        Gone::NetworkInstance(id) => {
            let network_id = id.to_string();
            let info = ZInfoNetworkInstance { network_id, ..ZInfoNetworkInstance::default() };
            (ZInfoTypes::ZiNetworkInstance, InfoContent::Niinfo(info))
        }
        Gone::Volume(id) => {
            let info = ZInfoVolume { uuid: id.to_string(), ..ZInfoVolume::default() };
            (ZInfoTypes::ZiVolume, InfoContent::Vinfo(info))
        }
        Gone::Content(id) => {
            let info = ZInfoContentTree { uuid: id.to_string(), ..ZInfoContentTree::default() };
            (ZInfoTypes::ZiContentTree, InfoContent::Cinfo(info))
        }
    };
    message(own, at, kind, content)
}

/// The payload that reports an object of the config which was refused. `None` for ports and
/// settings, which the device info reports, and for what the API has no info of, as datastores:
/// the content that needs one says that it is missing.
pub fn refused(own: DeviceId, at: UnixMillis, refused: &Refused) -> Option<Vec<u8>> {
    let error = |entity| refusal(at, refused, entity);
    let (id, name) = (refused.id.clone(), refused.name.clone());
    let state = ZSwState::Error.into();
    let (kind, content) = match refused.kind {
        ObjectKind::App => {
            let app_err = vec![error(Entity::AppInstance)];
            let info =
                ZInfoApp { app_id: id, app_name: name, app_err, state, ..ZInfoApp::default() };
            (ZInfoTypes::ZiApp, InfoContent::Ainfo(info))
        }
        ObjectKind::NetworkInstance => {
            let info = ZInfoNetworkInstance {
                network_id: id,
                displayname: name,
                network_err: vec![error(Entity::NetworkInstance)],
                state: ZNetworkInstanceState::ZnetinstStateError.into(),
                ..ZInfoNetworkInstance::default()
            };
            (ZInfoTypes::ZiNetworkInstance, InfoContent::Niinfo(info))
        }
        ObjectKind::Volume => {
            let volume_err = Some(error(Entity::Volume));
            let info = ZInfoVolume {
                uuid: id,
                display_name: name,
                state,
                volume_err,
                ..ZInfoVolume::default()
            };
            (ZInfoTypes::ZiVolume, InfoContent::Vinfo(info))
        }
        ObjectKind::Content => {
            let err = Some(error(Entity::ContentTree));
            let info = ZInfoContentTree {
                uuid: id,
                display_name: name,
                state,
                err,
                ..ZInfoContentTree::default()
            };
            (ZInfoTypes::ZiContentTree, InfoContent::Cinfo(info))
        }
        _ => return None,
    };
    Some(message(own, at, kind, content))
}

/// The wire's state of an app: until all is on the disk that of its slowest volume, then its own.
pub fn app_state(facts: &AppFacts<'_>) -> ZSwState {
    match &facts.status.state {
        AppState::AwaitingVolumes => {
            let states = facts.status.volumes.iter().map(|id| match facts.volumes.get(id) {
                Some(volume) => volume_state(volume, content_of(facts, *id)),
                None => ZSwState::Initial,
            });
            states.min_by_key(|s| rank(*s)).unwrap_or(ZSwState::Initial)
        }
        AppState::Installed => ZSwState::Installed,
        AppState::AwaitingNetwork => ZSwState::Awaitnetworkinstance,
        AppState::StartDelayed => ZSwState::StartDelayed,
        AppState::Booting => ZSwState::Booting,
        AppState::Running => ZSwState::Running,
        AppState::Halting => ZSwState::Halting,
        AppState::Halted | AppState::Ended { .. } => ZSwState::Halted,
        AppState::Restarting => ZSwState::Restarting,
        AppState::Purging => ZSwState::Purging,
        AppState::Broken => ZSwState::Error,
    }
}

fn content_of<'a>(facts: &AppFacts<'a>, volume: VolumeId) -> Option<&'a ContentStatus> {
    match facts.wanted_volumes.get(&volume)?.origin {
        Origin::Content(content) => facts.contents.get(&content),
        Origin::Blank => None,
    }
}

fn volume_state(status: &VolumeStatus, content: Option<&ContentStatus>) -> ZSwState {
    match &status.state {
        VolumeState::AwaitingContent => content.map_or(ZSwState::Initial, content_state),
        VolumeState::Creating => ZSwState::CreatingVolume,
        VolumeState::Ready(_) => ZSwState::CreatedVolume,
    }
}

fn content_state(status: &ContentStatus) -> ZSwState {
    match status.state {
        ContentState::Initial => ZSwState::Initial,
        ContentState::Resolving => ZSwState::ResolvingTag,
        ContentState::Downloading { .. } => ZSwState::DownloadStarted,
        ContentState::Verifying => ZSwState::Verifying,
        ContentState::Loaded { .. } => ZSwState::Loaded,
    }
}

/// How far a volume is: the wire's numbers are not in this order.
fn rank(state: ZSwState) -> u8 {
    match state {
        ZSwState::Initial => 0,
        ZSwState::ResolvingTag => 1,
        ZSwState::DownloadStarted => 2,
        ZSwState::Verifying => 3,
        ZSwState::Loaded => 4,
        ZSwState::CreatingVolume => 5,
        _ => 6,
    }
}

/// In percent.
fn progress(status: &ContentStatus) -> u32 {
    match status.state {
        ContentState::Initial | ContentState::Resolving => 0,
        ContentState::Downloading { total: Bytes(0), .. } => 0,
        ContentState::Downloading { done, total } => {
            let percent = u128::from(done.0) * 100 / u128::from(total.0);
            u32::try_from(percent).unwrap_or(100).min(100)
        }
        ContentState::Verifying | ContentState::Loaded { .. } => 100,
    }
}

pub(super) fn app_errors(at: UnixMillis, facts: &AppFacts<'_>) -> Vec<ErrorInfo> {
    let status = facts.status;
    let app = || (Entity::AppInstance, status.id.to_string(), status.name.as_str());
    let mut errors = Vec::new();
    if let Some(problem) = &status.problem {
        errors.push(error(at, problem, &[app()]));
    } else if let AppState::Ended { status, again } = status.state {
        errors.push(ErrorInfo {
            description: format!("the app ended with status {status}"),
            timestamp: Some(to_timestamp(at)),
            severity: if status == 0 { Severity::Notice } else { Severity::Warning }.into(),
            entities: vec![entity(&app())],
            retry_condition: format!("started again in {}", span(again.since(at))),
        });
    }
    if let Some(problem) = facts.network.and_then(|n| n.problem.as_ref()) {
        errors.push(error(at, problem, &[app()]));
    }
    for id in &status.volumes {
        let content = content_of(facts, *id);
        if let Some(problem) = content.and_then(|c| c.problem.as_ref()) {
            let name = content.map(|c| (c.id.to_string(), c.name.as_str())).unwrap_or_default();
            errors.push(error(at, problem, &[(Entity::ContentTree, name.0, name.1)]));
        }
        if let Some(volume) = facts.volumes.get(id)
            && let Some(problem) = &volume.problem
        {
            let named = (Entity::Volume, id.to_string(), volume.name.as_str());
            errors.push(error(at, problem, &[named]));
        }
    }
    errors
}

/// A problem as the wire has it. How grave it is: for what heals by itself a notice, which becomes
/// a warning after an hour and an error after ten (EVE's times); everything else is an error.
fn error(at: UnixMillis, problem: &Problem, entities: &[(Entity, String, &str)]) -> ErrorInfo {
    const HOUR: Duration = Duration::from_secs(3600);
    let diagnosis = &problem.diagnosis;
    let heals = diagnosis.retry_in.is_some() || diagnosis.who == Who::Nobody;
    let severity = match at.since(problem.since) {
        _ if !heals => Severity::Error,
        age if age < HOUR => Severity::Notice,
        age if age < HOUR * 10 => Severity::Warning,
        _ => Severity::Error,
    };
    let retry = diagnosis.retry_in.map(|wait| format!("tried again in {}", span(wait)));
    ErrorInfo {
        description: format!("{} ({}: {})", problem.text, who(diagnosis.who), diagnosis.advice),
        timestamp: Some(to_timestamp(problem.since)),
        severity: severity.into(),
        entities: entities.iter().map(entity).collect(),
        retry_condition: retry.unwrap_or_default(),
    }
}

fn refusal(at: UnixMillis, refused: &Refused, kind: Entity) -> ErrorInfo {
    ErrorInfo {
        description: refused.text.clone(),
        timestamp: Some(to_timestamp(at)),
        severity: Severity::Error.into(),
        entities: vec![entity(&(kind, refused.id.clone(), &refused.name))],
        retry_condition: "when the config changes".to_owned(),
    }
}

fn entity((kind, id, name): &(Entity, String, &str)) -> DeviceEntity {
    let (entity_id, entity_name) = (id.clone(), (*name).to_owned());
    DeviceEntity { entity: (*kind).into(), entity_id, entity_name }
}

fn who(who: Who) -> &'static str {
    match who {
        Who::Operator => "operator",
        Who::Network => "network",
        Who::Hardware => "hardware",
        Who::Developer => "developer",
        Who::Nobody => "nobody",
    }
}

/// `90 s`, `15 min`, `3 h`.
fn span(wait: Duration) -> String {
    match wait.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

fn port_network(status: &PortStatus) -> ZInfoNetwork {
    let port = &status.port;
    ZInfoNetwork {
        mac_addr: status.mac.map(mac_text).unwrap_or_default(),
        dev_name: port.interface.clone(),
        local_name: port.interface.clone(),
        alias: port.name.to_string(),
        ip_addrs: status.addresses.iter().map(|a| a.addr().to_string()).collect(),
        default_routers: status.gateway.iter().map(ToString::to_string).collect(),
        dns: Some(port_dns(status)),
        ipv4_up: !status.addresses.is_empty(),
        uplink: port.management,
        ntp_servers: status.ntp.iter().map(ToString::to_string).collect(),
        ..ZInfoNetwork::default()
    }
}

fn port_dns(status: &PortStatus) -> ZInfoDns {
    ZInfoDns {
        dn_sservers: status.dns.iter().map(ToString::to_string).collect(),
        dn_sdomain: status.domain.clone().unwrap_or_default(),
        dn_ssearch: Vec::new(),
    }
}

/// The port config in force, and before it that of the controller if it is set aside. Ports that were
/// refused are in the one in force, with their errors.
fn system_adapter(ports: &[PortStatus], controller: &ControllerStatus) -> SystemAdapterInfo {
    let aside = controller.standing.ports_aside.as_ref();
    let tests = || ports.iter().filter_map(|p| p.test.as_ref());
    let failed = tests().filter(|t| t.failure.is_some()).map(|t| t.at).max();
    let worked = tests().filter(|t| t.failure.is_none()).map(|t| t.at).max();
    let refused = || controller.refused.iter().filter(|r| r.kind == ObjectKind::Port);
    let failures = tests().filter_map(|t| t.failure.clone());
    let refusals = refused().map(|r| format!("{}: {}", r.id, r.text));
    // One port that reaches the controller is enough; what others fail at is in their own errors.
    let failures = failures.filter(|_| worked.is_none());
    let errors: Vec<String> = refusals.chain(failures).collect();
    let status = DevicePortStatus {
        version: 1,
        key: match aside.map(|aside| aside.used) {
            Some(PortsFrom::LastResort) => "lastresort".to_owned(),
            _ => "zedagent".to_owned(),
        },
        time_priority: controller.config_timestamp.filter(|_| aside.is_none()).map(to_timestamp),
        last_failed: failed.map(to_timestamp),
        last_succeeded: worked.map(to_timestamp),
        ports: ports
            .iter()
            .map(|port| {
                let local = controller.standing.local_ports.contains(&port.port.name);
                device_port(port, local, controller)
            })
            .chain(refused().map(|r| DevicePort {
                name: r.id.clone(),
                err: Some(ErrorInfo {
                    description: r.text.clone(),
                    severity: Severity::Error.into(),
                    ..ErrorInfo::default()
                }),
                ..DevicePort::default()
            }))
            .collect(),
        last_error: errors.join("; "),
    };
    match aside {
        None => SystemAdapterInfo { current_index: 0, status: vec![status] },
        Some(aside) => {
            let aside = DevicePortStatus {
                version: 1,
                key: "zedagent".to_owned(),
                time_priority: controller.config_timestamp.map(to_timestamp),
                last_failed: Some(to_timestamp(aside.at)),
                ports: aside.ports.iter().map(wished_port).collect(),
                last_error: aside.why.clone(),
                ..DevicePortStatus::default()
            };
            SystemAdapterInfo { current_index: 1, status: vec![aside, status] }
        }
    }
}

fn wished_port(port: &Port) -> DevicePort {
    DevicePort {
        ifname: port.interface.clone(),
        name: port.name.to_string(),
        is_mgmt: port.management,
        free: port.cost == 0,
        dhcp_type: dhcp_type(&port.addressing),
        cost: port.cost.into(),
        mtu: port.mtu.unwrap_or_default().into(),
        ..DevicePort::default()
    }
}

fn dhcp_type(addressing: &Addressing) -> u32 {
    let kind = match addressing {
        Addressing::Dhcp => DhcpType::Client,
        Addressing::Static(_) => DhcpType::Static,
        Addressing::None => DhcpType::DhcpNone,
    };
    u32::try_from(i32::from(kind)).unwrap_or_default()
}

fn device_port(status: &PortStatus, local: bool, controller: &ControllerStatus) -> DevicePort {
    let told = controller.config_timestamp;
    let (origin, told) = match (local, controller.standing.ports_from) {
        // When a server nearby set it up is not known: its messages have no time.
        (true, _) => (NetworkConfigOrigin::Lps, None),
        (false, PortsFrom::Controller) => (NetworkConfigOrigin::Controller, told),
        (false, PortsFrom::Bootstrap) => (NetworkConfigOrigin::Bootstrap, told),
        (false, PortsFrom::Override) => (NetworkConfigOrigin::Override, told),
        // When the earlier config was made is not kept.
        (false, PortsFrom::LastWorked) => (NetworkConfigOrigin::Controller, None),
        (false, PortsFrom::LastResort) => (NetworkConfigOrigin::Lastresort, None),
    };
    let known = told.is_some() || origin != NetworkConfigOrigin::Controller;
    let port = &status.port;
    let failure = status.test.as_ref().and_then(|t| Some((t.at, t.failure.as_ref()?)));
    let problem = status.problem.as_ref();
    DevicePort {
        ifname: port.interface.clone(),
        name: port.name.to_string(),
        is_mgmt: port.management,
        free: port.cost == 0,
        dhcp_type: dhcp_type(&port.addressing),
        subnet: status.addresses.first().map(|a| a.trunc().to_string()).unwrap_or_default(),
        gateway: status.gateway.map(|g| g.to_string()).unwrap_or_default(),
        domainname: status.domain.clone().unwrap_or_default(),
        dns_servers: status.dns.iter().map(ToString::to_string).collect(),
        ntp_server: status.ntp.first().map(ToString::to_string).unwrap_or_default(),
        more_ntp_servers: status.ntp.iter().skip(1).map(ToString::to_string).collect(),
        mac_addr: status.mac.map(mac_text).unwrap_or_default(),
        ip_addrs: status.addresses.iter().map(|a| a.addr().to_string()).collect(),
        default_routers: status.gateway.iter().map(ToString::to_string).collect(),
        dns: Some(port_dns(status)),
        up: status.link,
        err: problem
            .map(|p| error(p.since, p, &[(Entity::Port, port.name.to_string(), "")]))
            .or_else(|| {
                failure.map(|(at, text)| ErrorInfo {
                    description: text.clone(),
                    timestamp: Some(to_timestamp(at)),
                    severity: Severity::Warning.into(),
                    ..ErrorInfo::default()
                })
            }),
        cost: port.cost.into(),
        mtu: port.mtu.unwrap_or_default().into(),
        config_source: known.then(|| PortConfigSource {
            origin: origin.into(),
            submitted_at: told.map(to_timestamp),
        }),
        ..DevicePort::default()
    }
}

fn config_items(facts: &DeviceFacts<'_>) -> ZInfoConfigItemStatus {
    let items = facts.items.iter().map(|(key, value)| {
        let error = facts.properties.problems.get(key).map(|p| p.text.clone());
        let value = value.clone();
        (key.clone(), ZInfoConfigItem { value, error: error.unwrap_or_default() })
    });
    // EVE reports unknown keys among the others too, with an error.
    ZInfoConfigItemStatus { config_items: items.collect(), ..ZInfoConfigItemStatus::default() }
}

pub(super) fn maintenance(reason: Maintenance) -> MaintenanceModeReason {
    match reason {
        Maintenance::Requested => MaintenanceModeReason::UserRequested,
    }
}

fn attestation(state: Attestation) -> AttestationState {
    match state {
        Attestation::NotAsked => AttestationState::Unspecified,
        Attestation::NonceWait => AttestationState::NonceWait,
        Attestation::VerdictWait => AttestationState::AttestWait,
        Attestation::RestartWait => AttestationState::RestartWait,
        Attestation::Complete => AttestationState::Complete,
    }
}

pub(super) fn boot_reason(reason: Reason) -> BootReason {
    match reason {
        Reason::First => BootReason::First,
        Reason::RebootCommand => BootReason::RebootCmd,
        Reason::PoweroffCommand => BootReason::PoweroffCmd,
        Reason::Disconnect => BootReason::Disconnect,
        Reason::Fatal => BootReason::Fatal,
        Reason::OutOfMemory => BootReason::Oom,
        Reason::WatchdogHung => BootReason::WatchdogHung,
        Reason::Kernel => BootReason::Kernel,
        Reason::PowerFail => BootReason::PowerFail,
        // The wire's enum has no hardware watchdog; the reason in words has.
        Reason::HardwareWatchdog | Reason::Unknown => BootReason::Unknown,
    }
}

fn message(own: DeviceId, at: UnixMillis, kind: ZInfoTypes, content: InfoContent) -> Vec<u8> {
    wire::encode(&ZInfoMsg {
        ztype: kind.into(),
        dev_id: own.to_string(),
        info_content: Some(content),
        at_time_stamp: Some(to_timestamp(at)),
    })
}
