//! What a node is told: the config of the controller, checked and in our own words.
//!
//! References between objects are ids that may point nowhere: a service that misses what it needs
//! says so in its status and goes on by itself when the missing object comes.

mod app;
mod content;
mod network;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use app::{
    Action, App, AppInterface, Direction, Match, Protocol, Rule, Virtualization, VolumeRef,
};
pub use content::{Content, Datastore, DatastoreKind, ImageFormat, Origin, Volume};
pub use network::{
    Addressing, DhcpRange, DnsEntry, LocalNetwork, NetworkInstance, NetworkKind, Port, PortName,
    PortSelector, StaticAddress,
};

use crate::{
    AppId, ContentId, DatastoreId, DeviceId, NetworkInstanceId, Problem, UnixMillis, VolumeId,
};

/// Everything one node is told, as one value.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Whom it is for.
    pub id: DeviceId,
    /// When the controller made it; a node refuses to go back. `None`: not said.
    pub timestamp: Option<UnixMillis>,
    /// The operator's name for the node; may be empty.
    pub name: String,
    /// Changes when the controller wants every status again.
    pub epoch: i64,
    /// Changes when the controller's certificates did.
    pub controller_certs_hash: String,
    /// Ports by name.
    pub ports: BTreeMap<PortName, Port>,
    /// Datastores by id.
    pub datastores: BTreeMap<DatastoreId, Datastore>,
    /// Content trees by id.
    pub contents: BTreeMap<ContentId, Content>,
    /// Volumes by id.
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// Network instances by id.
    pub network_instances: BTreeMap<NetworkInstanceId, NetworkInstance>,
    /// Apps by id.
    pub apps: BTreeMap<AppId, App>,
    /// Settings as they came: key and value.
    pub items: BTreeMap<String, String>,
    /// Reboot and power-off wishes.
    pub power: Power,
    /// Objects that could not be understood; they are reported and left out above.
    pub refused: Vec<Refused>,
}

/// An object of the config that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What kind of object.
    pub kind: ObjectKind,
    /// Its id or name, as the wire wrote it.
    pub id: String,
    /// Its name for people, if it has one.
    pub name: String,
    /// Which field, and why.
    pub text: String,
}

/// The kinds of objects an error can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A port of the node.
    Port,
    /// A datastore.
    Datastore,
    /// A content tree.
    Content,
    /// A volume.
    Volume,
    /// A network instance.
    NetworkInstance,
    /// An app.
    App,
    /// A setting.
    Item,
}

/// Counters: a node acts when one differs from what it saw last (never on the first sight).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    /// Reboot when it changes. `None`: never asked.
    pub reboot: Option<u32>,
    /// Power off when it changes. `None`: never asked.
    pub shutdown: Option<u32>,
}

/// Settings, complete and in range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// `timer.config.interval`: how often the config is asked for.
    pub config_interval: Duration,
    /// `timer.metric.interval`: how often metrics are sent.
    pub metric_interval: Duration,
    /// `timer.deviceinfo.interval`: device info at least this often.
    pub device_info_interval: Duration,
    /// `timer.cert.interval`: how often the controller's certificates are asked for.
    pub cert_interval: Duration,
    /// `timer.reboot.no.network`: reboot after so long without a controller.
    pub reboot_no_network: Duration,
    /// `newlog.allow.fastupload`.
    pub log_fast_upload: bool,
    /// `newlog.gzipfiles.ondisk.maxmegabytes`.
    pub log_quota: crate::Bytes,
    /// Keys that were refused, and why.
    pub problems: BTreeMap<String, Problem>,
}

impl Default for Properties {
    /// The defaults of EVE (config properties table).
    fn default() -> Self {
        Properties {
            config_interval: Duration::from_secs(60),
            metric_interval: Duration::from_secs(60),
            device_info_interval: Duration::from_secs(600),
            cert_interval: Duration::from_secs(24 * 3600),
            reboot_no_network: Duration::from_secs(7 * 24 * 3600),
            log_fast_upload: false,
            log_quota: crate::Bytes::mib(2048),
            problems: BTreeMap::new(),
        }
    }
}
