//! What a node says of itself: machine, software, ports, storage, trust.

use std::collections::BTreeMap;

use model::{Bytes, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{ErrorView, at, named, present, words};
use crate::pb::info::{
    AttestationState, BaseOsStatus, BaseOsSubStatus, BootReason, DataSecAtRestStatus, DevicePort,
    DevicePortStatus, HwSecurityModuleStatus, MaintenanceModeReason, StorageInfo, StorageStatus,
    StorageTypeInfo, ZDeviceState, ZInfoDevSw, ZInfoDevice, ZioBundle,
};

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

#[expect(deprecated, reason = "older nodes say nothing but the one reason of maintenance")]
pub(super) fn device(info: ZInfoDevice) -> DeviceView {
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

fn device_state(number: i32) -> String {
    match ZDeviceState::try_from(number) {
        Ok(ZDeviceState::ZdeviceStateUnspecified) => String::new(),
        Ok(state) => words(state.as_str_name(), "ZDEVICE_STATE_"),
        Err(_) => format!("state {number}"),
    }
}
