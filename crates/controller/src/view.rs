//! What the operator API says, as types: the server writes them, [`crate::client`] reads them, the
//! web pages show them. Times are milliseconds since 1970.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use model::{AppId, Bytes, DeviceId, UnixMillis};
use serde::{Deserialize, Serialize};

pub use crate::db::{Alert, Event, LogRow, Untold, Version};
use crate::objects::{Flaw, Key};
pub use crate::operator::{Compared, DeviceDiff, DeviceDrift, Group, NamedRule, NamedWindow};
pub use crate::rollout::{Rollout, Scheduled};

/// The controller itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// Its version.
    pub version: String,
    /// How many nodes it knows.
    pub devices: usize,
    /// How many of them are online.
    pub online: usize,
    /// How many are in each state ([`DeviceState::name`]) in which any is.
    pub states: std::collections::BTreeMap<String, usize>,
    /// How many apps it knows.
    pub apps: usize,
    /// Serial numbers that may register without an object of theirs; `*` is any.
    pub serials: Vec<String>,
    /// Images its registry has.
    pub images: Vec<String>,
}

/// A node that is to be expected: by serial numbers, or by its certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewDevice {
    /// Its name; empty: one is made of what it is expected by.
    pub name: String,
    /// The serial number of its hardware.
    pub serial: String,
    /// Its soft serial number.
    pub soft_serial: String,
    /// The onboarding certificate it will come with, PEM. `None`: this controller's own.
    pub onboard_cert: Option<String>,
    /// Its own certificate, PEM, if that is known: it need not register then.
    pub certificate: Option<String>,
}

/// A node that is expected now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: DeviceId,
}

/// What the last proof of a node said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// When it came. `None`: there was none.
    pub at: Option<UnixMillis>,
    /// Whether it was believed.
    pub good: bool,
    /// A summary, and every register with what was measured into it.
    pub details: serde_json::Value,
}

/// Why a node is kept from its config.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quarantine {
    /// For people; also told to the node.
    pub reason: String,
}

/// The EdgeView session that is wanted of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSession {
    /// Where node and person meet: `host:port`, and a path if there is one.
    pub dispatcher: String,
    /// Minutes until it ends, 1 to 1440.
    pub minutes: u32,
    /// How many people may look at the same time, 1 to 5.
    #[serde(default = "one")]
    pub instances: u8,
}

fn one() -> u8 {
    1
}

/// An EdgeView session that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// For the person's side of EdgeView. Whoever has it can look into the node.
    pub token: model::Secret,
    /// When it ends.
    pub until: UnixMillis,
    /// How many sessions there were of this node, with this one.
    pub generation: u32,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// It has not registered yet.
    Expected,
    /// It has registered and not been heard of since.
    Registered,
    /// It was heard of within three of its intervals.
    Online,
    /// It was not.
    Silent,
}

impl DeviceState {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            DeviceState::Expected => "expected",
            DeviceState::Registered => "registered",
            DeviceState::Online => "online",
            DeviceState::Silent => "silent",
        }
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub state: DeviceState,
    /// When it was last heard of.
    pub seen: Option<UnixMillis>,
    /// When it registered.
    pub registered: Option<UnixMillis>,
    /// Hardware serial number.
    pub serial: String,
    /// Soft serial number.
    pub soft_serial: String,
    /// SHA-256 of its certificate, 64 hexadecimal digits. `None`: it has none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// SHA-256 of the onboarding certificate it has to come with. `None`: this controller's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onboard_certificate: Option<String>,
    /// Its labels, with those of its template: what queries look at.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The version it runs, as it says.
    pub version: String,
    /// The partition it runs from.
    pub slot: String,
    /// When the config in force there was made.
    pub config_in_force: Option<UnixMillis>,
    /// The config it was given whole, if it was: its objects do not reach it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_given: Option<ConfigGiven>,
    /// What it says of its hardware: `amd64, 2 processors`.
    pub hardware: String,
    /// Its boot.
    pub boot: Option<Boot>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// What it uses.
    pub usage: Option<Usage>,
    /// Its apps.
    pub apps: Vec<AppOnDevice>,
    /// Its networks.
    pub networks: Vec<NetworkOnDevice>,
    /// Downloads and volumes that are not ready.
    pub pending: Vec<Pending>,
    /// What it says is wrong, and what is wrong with its object.
    pub problems: Vec<String>,
    /// What it was asked to do and has not said that it did: a reboot, a shutdown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<String>,
}

/// A config that a node was given whole, instead of what its objects say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigGiven {
    /// Its `id.version`.
    pub version: String,
    /// Who gave it.
    pub author: String,
    /// When.
    pub at: UnixMillis,
}

/// A boot of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// When it was.
    pub at: Option<UnixMillis>,
    /// Why, in words.
    pub reason: String,
    /// How often the node has booted.
    pub count: u32,
    /// What came when, in milliseconds since the kernel started.
    pub timeline: Vec<(String, u64)>,
}

/// A port of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its label.
    pub name: String,
    /// Hardware address.
    pub mac: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Whether its link is up.
    pub up: bool,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// What a node uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// When it said so.
    pub at: UnixMillis,
    /// All its memory.
    pub memory_total: Bytes,
    /// … and what is used of it.
    pub memory_used: Bytes,
    /// Memory of its services by name.
    pub services: BTreeMap<String, Bytes>,
    /// Memory of its apps by name.
    pub apps: BTreeMap<String, Bytes>,
}

impl Usage {
    /// Memory of all services together.
    pub fn services_total(&self) -> Bytes {
        Bytes(self.services.values().map(|b| b.0).sum())
    }
}

/// An app on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppOnDevice {
    /// Its id there.
    pub id: AppId,
    /// The app.
    pub app: String,
    /// The node.
    pub device: String,
    /// Its state in words: `running`, `downloading 40 %`; `waiting for the node` until that says.
    pub state: String,
    /// Whether it runs.
    pub running: bool,
    /// When it last came to run.
    pub since: Option<UnixMillis>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Ports of the node that lead to it.
    pub ports: Vec<String>,
    /// What the node says is wrong with it.
    pub problems: Vec<String>,
}

/// An app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// Its name.
    pub name: String,
    /// What it runs.
    pub image: String,
    /// Counts changes.
    pub generation: u64,
    /// Its restart counter.
    pub restart: u32,
    /// Its purge counter.
    pub purge: u32,
    /// Where it is and how it is there.
    pub on: Vec<AppOnDevice>,
    /// What is wrong with the object.
    pub flaws: Vec<Flaw>,
}

/// A network on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOnDevice {
    /// The network.
    pub network: String,
    /// The node.
    pub device: String,
    /// Its state in words.
    pub state: String,
    /// Its address there.
    pub gateway: Option<Ipv4Addr>,
    /// Who has which address: hardware address and address.
    pub leases: Vec<(String, String)>,
    /// What the node says is wrong with it.
    pub problems: Vec<String>,
}

/// A download or volume that is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Which.
    pub name: String,
    /// `image` or `volume`.
    pub kind: String,
    /// Its state in words.
    pub state: String,
    /// Of a hundred.
    pub progress: u32,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// `local` or `switch`.
    pub kind: String,
    /// Its addresses.
    pub subnet: Option<String>,
    /// How it is on the nodes that have it.
    pub on: Vec<NetworkOnDevice>,
    /// What is wrong with the object.
    pub flaws: Vec<Flaw>,
}

/// An object as it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Which.
    #[serde(flatten)]
    pub key: Key,
    /// Counts changes.
    pub generation: u64,
    /// When it last changed.
    pub changed: UnixMillis,
    /// As it was written.
    pub spec: serde_json::Value,
    /// What is wrong with it.
    pub flaws: Vec<Flaw>,
}

/// What became of an object that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is new.
    Created,
    /// It says something else now.
    Changed,
    /// It said so already.
    Unchanged,
    /// It is gone.
    Removed,
}

impl Action {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Action::Created => "created",
            Action::Changed => "changed",
            Action::Unchanged => "unchanged",
            Action::Removed => "removed",
        }
    }
}

/// What became of one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which object.
    #[serde(flatten)]
    pub key: Key,
    /// What became of it.
    pub action: Action,
    /// How many nodes wait for what before they are told: a rollout, a window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<String>,
    /// What an earlier version replaced: which version by whom, and how that differed. `None`: nothing,
    /// or it was no earlier version that was put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overwrites: Option<String>,
    /// What else is to be known of it: what a device that was deleted lost, and how to get that back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What became of documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Object by object, in the order of the documents.
    pub changes: Vec<Change>,
    /// References that point nowhere, which were allowed.
    pub missing: Vec<Flaw>,
    /// What is allowed and still may not be meant.
    #[serde(default)]
    pub warnings: Vec<Flaw>,
}

/// An error of the operator API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What failed and why.
    pub error: String,
    /// What is wrong with which object, if that is why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flaws: Vec<Flaw>,
}

/// A single file that nodes may fetch: a disk image, an ISO.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// Its name, and its path below `/images/`.
    pub name: String,
    /// Bytes in all; 0 while it comes in.
    pub size: u64,
    /// Bytes that are there.
    pub have: u64,
    /// 64 hexadecimal digits.
    pub sha256: String,
    /// Who uploaded it.
    pub author: String,
    /// When. `None`: it is not whole yet.
    pub at: Option<UnixMillis>,
}
