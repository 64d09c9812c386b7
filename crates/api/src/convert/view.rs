//! Info and metrics as a controller keeps and shows them: plain values, states in words.
//!
//! The wire's enums are open; a value that we do not know is shown by its number.

mod device;
mod health;
mod metrics;
mod more;
mod objects;
mod traffic;

use model::{DeviceId, Diagnose, Diagnosis, UnixMillis, Who};
use prost_types::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::device::{AdapterView, DeviceView, PoolView, PortConfigView, PortView, SoftwareView};
pub use self::health::{DiskHealth, Health, MemoryHealth, hardware_health};
pub use self::metrics::{AppUseView, DiskUse, Metrics, ServiceView, Traffic, metrics};
pub use self::more::{
    BlobView, ClusterUpdateView, ClusterView, EdgeViewView, HardwareView, LocationView,
    MetadataView, More, NtpSourceView, PatchView,
};
pub use self::objects::{
    AppView, ContentView, InterfaceView, NetworkInstanceView, SnapshotView, VolumeView,
};
pub use self::traffic::{DnsView, FlowView, Flows, flowlog};

use self::device::device;
use self::objects::{app, content, network_instance, volume};
use super::from_timestamp;
use crate::limits;
use crate::pb::info::z_info_msg::InfoContent;
use crate::pb::info::{Entity, ErrorInfo, Severity, ZInfoMsg, ZInfoTypes, ZSwState};
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
