//! The rarer kinds of info.

use model::{Bytes, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{ErrorView, Report, at, named, present, state};
use crate::pb::info::z_info_msg::InfoContent;
use crate::pb::info::{
    AppInstMetaDataType, EvePatchEnvelopeState, KubeComp, KubeCompUpdateStatus, LocReliability,
    NtpSourceState, PciAddress, ServiceStatus, ZInfoBlob, ZInfoClusterNodeStatus, ZInfoHardware,
    ZInfoKubeCluster, ZInfoLocation, ZInfoPatchEnvelope,
};

/// Heights that nodes send when they do not know theirs are below this.
const LOWEST: f64 = -32_767.0;

/// What a rarer message is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum More {
    /// All blobs on the node.
    Blobs(Vec<BlobView>),
    /// What an app wants its controller to know.
    Metadata(MetadataView),
    /// Sessions of EdgeView.
    EdgeView(EdgeViewView),
    /// What hardware is there.
    Hardware(Box<HardwareView>),
    /// Where the node is.
    Location(LocationView),
    /// A patch envelope.
    Patch(PatchView),
    /// Whom the clock follows.
    NtpSources(Vec<NtpSourceView>),
    /// The cluster that the node belongs to.
    Cluster(ClusterView),
    /// How the update of a cluster goes.
    ClusterUpdate(ClusterUpdateView),
    /// How the node is doing within its cluster: `ready`, `notready`, `down`.
    ClusterNode(String),
}

impl More {
    /// The kind, and of those that there are many of the id.
    pub fn subject(&self) -> (&'static str, &str) {
        match self {
            More::Blobs(_) => ("blobs", ""),
            More::Metadata(metadata) => ("app_metadata", &metadata.app),
            More::EdgeView(_) => ("edgeview", ""),
            More::Hardware(_) => ("hardware", ""),
            More::Location(_) => ("location", ""),
            More::Patch(patch) => ("patch_envelope", &patch.id),
            More::NtpSources(_) => ("ntp_sources", ""),
            More::Cluster(_) => ("cluster", ""),
            More::ClusterUpdate(_) => ("cluster_update", ""),
            More::ClusterNode(_) => ("cluster_node", ""),
        }
    }
}

/// A blob.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobView {
    /// What it hashes to, in hexadecimal.
    pub sha256: String,
    /// What is on the disk of it.
    pub size: Bytes,
    /// `loaded`, `downloading`, …
    pub state: String,
    /// In percent.
    pub progress: u32,
    /// How many content trees need it.
    pub users: u32,
    /// What is wrong.
    pub error: Option<ErrorView>,
}

/// What an app handed to its node for the controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataView {
    /// The app's id.
    pub app: String,
    /// `kube config`, `custom status`.
    pub kind: String,
    /// Its bytes, at most 32 KiB from an honest node. They are the app's: nothing vouches for them.
    pub data: Vec<u8>,
}

/// Sessions of EdgeView.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeViewView {
    /// Since when there is one.
    pub started: Option<UnixMillis>,
    /// Until when.
    pub expires: Option<UnixMillis>,
    /// Commands to the node, to apps, and to others behind it.
    pub commands: (u32, u32, u32),
}

/// The hardware, enough to make a device model of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardwareView {
    /// Maker and version of the firmware.
    pub bios: String,
    /// Processors by model, and how many of each.
    pub cpus: Vec<(String, usize)>,
    /// All memory.
    pub memory: Bytes,
    /// All storage.
    pub storage: Bytes,
    /// The TPM in words; empty if there is none.
    pub tpm: String,
    /// Whether there is a hardware watchdog.
    pub watchdog: bool,
    /// Network devices: the kernel's name, hardware address, place on the bus.
    pub networks: Vec<(String, String, String)>,
    /// PCI devices: place, vendor and device in hexadecimal, driver.
    pub pci: Vec<(String, String, String)>,
    /// USB devices: place, vendor and product in hexadecimal, driver.
    pub usb: Vec<(String, String, String)>,
    /// Serial ports: device file, ports, interrupt.
    pub serial: Vec<(String, String, u64)>,
    /// The version of the kernel.
    pub kernel: String,
    /// Its command line.
    pub command_line: String,
}

/// Where a node is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LocationView {
    /// Degrees north. `None`: what it says is no number.
    pub latitude: Option<f64>,
    /// Degrees east. `None`: what it says is no number.
    pub longitude: Option<f64>,
    /// Metres above the sea. `None`: unknown.
    pub altitude: Option<f64>,
    /// Metres that the place may be wrong by. `None`: what it says is no number.
    pub uncertainty: Option<f64>,
    /// `very low` to `high`; empty if it is not said.
    pub reliability: String,
    /// By the clock of the satellites.
    pub at: Option<UnixMillis>,
    /// The port whose modem knows it.
    pub port: String,
}

/// A patch envelope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `received`, `downloading`, `ready`, `active`, `error`, …
    pub state: String,
    /// What it takes.
    pub size: Bytes,
    /// What is wrong.
    pub errors: Vec<String>,
}

/// Whom a clock follows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NtpSourceView {
    /// Its name, or else its address.
    pub name: String,
    /// `sync`, `candidate`, `unreach`, …
    pub state: String,
    /// Whether it answers.
    pub reachable: bool,
    /// Its distance from a reference clock, in hops.
    pub stratum: u32,
    /// Seconds that our clock is off, as it says. `None`: it says what is no number.
    pub offset: Option<f64>,
    /// Seconds that an answer takes. `None`: it says what is no number.
    pub delay: Option<f64>,
}

/// A cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Its id.
    pub id: String,
    /// Its nodes: name, whether one is ready, address.
    pub nodes: Vec<(String, bool, String)>,
    /// Its storage: `healthy`, `degraded`, `failed`.
    pub storage: String,
    /// Apps on it: name and node.
    pub apps: Vec<(String, String)>,
}

/// An update of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterUpdateView {
    /// The cluster's id.
    pub id: String,
    /// The node that is being updated.
    pub node: String,
    /// What is being updated: `k3s`, `longhorn`, …
    pub component: String,
    /// `download`, `in progress`, `completed`, …
    pub state: String,
    /// What is wrong.
    pub error: Option<ErrorView>,
}

/// The kinds that are none of [`super::info`]'s own.
pub(super) fn read(content: InfoContent) -> Report {
    let more = match content {
        InfoContent::Binfo(list) => More::Blobs(list.blob.into_iter().map(blob).collect()),
        InfoContent::Amdinfo(metadata) => More::Metadata(MetadataView {
            app: metadata.uuid,
            kind: named::<AppInstMetaDataType>(
                metadata.r#type,
                AppInstMetaDataType::as_str_name,
                "APP_INST_META_DATA_TYPE_",
            ),
            data: metadata.data,
        }),
        InfoContent::Evinfo(session) => More::EdgeView(EdgeViewView {
            started: at(session.started_time),
            expires: at(session.expire_time),
            commands: (session.count_dev, session.count_app, session.count_ext),
        }),
        InfoContent::Hwinfo(hardware) => More::Hardware(Box::new(self::hardware(hardware))),
        InfoContent::Locinfo(location) => More::Location(self::location(location)),
        InfoContent::PatchInfo(patch) => return self::patch(patch),
        InfoContent::NtpSources(list) => {
            let source = |s: crate::pb::info::NtpSource| NtpSourceView {
                name: if s.hostname.is_empty() { s.src_addr } else { s.hostname },
                state: named::<NtpSourceState>(
                    s.state,
                    NtpSourceState::as_str_name,
                    "NTP_SOURCE_STATE_",
                ),
                reachable: s.reachable,
                stratum: s.stratum,
                offset: finite(s.offset),
                delay: finite(s.delay),
            };
            More::NtpSources(list.sources.into_iter().map(source).collect())
        }
        InfoContent::ClusterInfo(cluster) => More::Cluster(self::cluster(cluster)),
        InfoContent::ClusterUpdateInfo(update) => More::ClusterUpdate(ClusterUpdateView {
            id: update.cluster_id,
            node: update.current_node,
            component: named::<KubeComp>(update.component, KubeComp::as_str_name, "KUBE_COMP_"),
            state: named::<KubeCompUpdateStatus>(
                update.status,
                KubeCompUpdateStatus::as_str_name,
                "KUBE_COMP_UPDATE_STATUS_",
            ),
            error: present(update.error),
        }),
        InfoContent::ClusterNode(node) => More::ClusterNode(named::<ZInfoClusterNodeStatus>(
            node.node_status,
            ZInfoClusterNodeStatus::as_str_name,
            "Z_INFO_CLUSTER_NODE_STATUS_",
        )),
        // `info` reads these.
        InfoContent::Dinfo(_)
        | InfoContent::Ainfo(_)
        | InfoContent::Niinfo(_)
        | InfoContent::Vinfo(_)
        | InfoContent::Cinfo(_) => return Report::Other { kind: String::new() },
    };
    Report::More(Box::new(more))
}

fn blob(info: ZInfoBlob) -> BlobView {
    BlobView {
        sha256: info.sha256,
        size: Bytes(info.resources.map_or(0, |r| r.cur_size_bytes)),
        state: state(info.state),
        progress: info.progress_percentage,
        users: info.usage.map_or(0, |u| u.ref_count),
        error: present(info.err),
    }
}

fn place(address: Option<PciAddress>) -> String {
    address.map_or_else(String::new, |a| {
        format!("{:04x}:{:02x}:{:02x}.{:x}", a.domain, a.bus, a.device, a.function)
    })
}

fn hardware(info: ZInfoHardware) -> HardwareView {
    let inventory = info.inventory.unwrap_or_default();
    let bios = inventory.bios.unwrap_or_default();
    let mut cpus: Vec<(String, usize)> = Vec::new();
    for cpu in inventory.cpu_info.unwrap_or_default().cpus {
        match cpus.iter_mut().find(|(model, _)| *model == cpu.model) {
            Some((_, count)) => *count += 1,
            None => cpus.push((cpu.model, 1)),
        }
    }
    let tpm = inventory.tpm.filter(|tpm| tpm.present);
    let pair = |vendor: u32, device: u32| format!("{vendor:04x}:{device:04x}");
    HardwareView {
        bios: format!("{} {}", bios.vendor, bios.version).trim().to_owned(),
        cpus,
        memory: Bytes(inventory.total_memory_bytes),
        storage: Bytes(inventory.total_storage_bytes),
        tpm: tpm.map_or_else(String::new, |tpm| {
            let words =
                format!("{} {} {}", tpm.manufacturer, tpm.spec_version, tpm.firmware_version);
            words.trim().to_owned()
        }),
        watchdog: inventory.watchdog_present,
        networks: inventory
            .network_devices
            .into_iter()
            .map(|n| {
                let parent = n.parent.and_then(|p| p.pci_parent);
                (n.ifname, n.mac_address, place(parent))
            })
            .collect(),
        pci: inventory
            .pci_devices
            .into_iter()
            .map(|d| (place(d.address), pair(d.vendor_id, d.device_id), d.driver))
            .collect(),
        usb: inventory
            .usb_devices
            .into_iter()
            .map(|d| {
                let port = d.bus_port.map_or_else(String::new, |b| format!("{}:{}", b.bus, b.port));
                (port, pair(d.vendor_id, d.product_id), d.driver)
            })
            .collect(),
        serial: inventory
            .serial_devices
            .into_iter()
            .map(|s| (s.devpath, s.ioport_range, s.irq))
            .collect(),
        kernel: info.kernel_version,
        command_line: info.kernel_cmdline,
    }
}

/// JSON, as which views are kept, has no infinities and nothing that is no number.
fn finite(number: f64) -> Option<f64> {
    Some(number).filter(|n| n.is_finite())
}

fn location(info: ZInfoLocation) -> LocationView {
    LocationView {
        latitude: finite(info.latitude),
        longitude: finite(info.longitude),
        altitude: finite(info.altitude).filter(|a| *a > LOWEST),
        uncertainty: finite(info.horizontal_uncertainty.into()),
        reliability: named::<LocReliability>(
            info.horizontal_reliability,
            LocReliability::as_str_name,
            "LOC_RELIABILITY_",
        ),
        at: at(info.utc_timestamp),
        port: info.logicallabel,
    }
}

fn patch(info: ZInfoPatchEnvelope) -> Report {
    if info == (ZInfoPatchEnvelope { id: info.id.clone(), ..ZInfoPatchEnvelope::default() }) {
        return Report::Gone { kind: "patch_envelope".to_owned(), id: info.id };
    }
    Report::More(Box::new(More::Patch(PatchView {
        id: info.id,
        name: info.name,
        version: info.version,
        state: named::<EvePatchEnvelopeState>(
            info.state,
            EvePatchEnvelopeState::as_str_name,
            "PATCH_",
        ),
        size: Bytes(info.size),
        errors: info.errors,
    })))
}

fn cluster(info: ZInfoKubeCluster) -> ClusterView {
    // A node says of each condition whether it holds; 1 is that it is ready.
    let ready = |conditions: &[crate::pb::info::KubeNodeCondition]| {
        conditions.iter().any(|c| c.r#type == 1 && c.set)
    };
    let storage = info.storage.unwrap_or_default();
    let pods = info.eve_apps.into_iter().map(|a| (a.name, a.node_name));
    let machines = info.eve_vm_apps.into_iter().map(|a| (a.name, a.node_name));
    ClusterView {
        id: info.cluster_id,
        nodes: info
            .nodes
            .into_iter()
            .map(|n| (n.name, ready(&n.conditions), n.internal_ip))
            .collect(),
        storage: named::<ServiceStatus>(
            storage.health,
            ServiceStatus::as_str_name,
            "SERVICE_STATUS_",
        ),
        apps: pods.chain(machines).collect(),
    }
}
