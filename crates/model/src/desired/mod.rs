//! What a node is told: the config of the controller, checked and in our own words.
//!
//! References between objects are ids that may point nowhere: a service that misses what it needs
//! says so in its status and goes on by itself when the missing object comes.

mod app;
mod content;
mod link;
mod local;
mod machine;
mod network;
mod node;
mod settings;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use app::{
    Action, App, AppInterface, AppOptions, Direction, Match, Protocol, Rule, Virtualization,
    VolumeRef, environment, is_cloud_init,
};
pub use content::{
    Content, Credentials, Datastore, DatastoreKind, ImageFormat, Origin, Volume, VolumeTarget,
};
pub use link::{
    AccessPoint, Bearer, Bond, BondMode, BondMonitor, Cellular, CellularAuth, CellularIp,
    CellularProbe, Hardware, HardwareKind, LacpRate, Link, Proxy, ProxyProtocol, ProxyServer,
    RadioTechnology, Usage, VirtualFunction, VirtualFunctions, Vlan, WifiNetwork, WifiScheme,
};
pub use local::{LocalPower, PortChange};
pub use machine::{
    Assigned, BootMode, BootOrder, Machine, MachineMode, Metadata, Snapshot, SnapshotWhen,
    Snapshots, UserData, Vnc,
};
pub use network::{
    AccessPort, Addressing, DhcpIgnore, DhcpRange, DnsEntry, Family, LocalNetwork, NetworkInstance,
    NetworkKind, NetworkOptions, Port, PortName, PortOptions, PortSelector, Probe, ProbeMethod,
    RESERVED_LABELS, RouteProbe, StaticAddress, StaticRoute,
};
pub use node::{
    Artifact, ArtifactBody, BaseOs, CertificateHash, CertificateKey, CertificateRequest, DiskArray,
    DiskName, DiskRole, DiskUse, Disks, EdgeView, Enrolment, INLINE_MAX, LocalConsole, LocalServer,
    Owner, PatchEnvelope, PortAccess, Product,
};
pub use settings::{LocalPeriods, LogLevel, LogLevels, OneLevel, Properties};

use crate::{
    AppId, ContentId, DatastoreId, DeviceId, NetworkInstanceId, PatchId, UnixMillis, VolumeId,
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
    /// What it is called by those who made it.
    pub product: Product,
    /// Whom it belongs to.
    pub owner: Owner,
    /// Whether it only keeps running what runs (maintenance).
    pub maintenance: bool,
    /// The profile in force; empty: none. Apps of other profiles rest.
    pub profile: String,
    /// Who else may choose the profile.
    pub local_server: Option<LocalServer>,
    /// Who stands in for the controller.
    pub local_console: Option<LocalConsole>,
    /// The image it should run itself.
    pub base_os: Option<BaseOs>,
    /// An EdgeView session.
    pub edge_view: Option<EdgeView>,
    /// How its disks are put together. `None`: as they are.
    pub disks: Option<Disks>,
    /// Its hardware, in the order of its model.
    pub hardware: Vec<Hardware>,
    /// VLANs by label.
    pub vlans: BTreeMap<PortName, Vlan>,
    /// Bonds by label.
    pub bonds: BTreeMap<PortName, Bond>,
    /// Ports by name.
    pub ports: BTreeMap<PortName, Port>,
    /// How ports prove who they are, by the port's label.
    pub port_access: BTreeMap<String, PortAccess>,
    /// Ways to get certificates, by name.
    pub enrolments: BTreeMap<String, Enrolment>,
    /// Files for apps, by id.
    pub patches: BTreeMap<PatchId, PatchEnvelope>,
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

impl Device {
    /// A node that is told nothing yet.
    pub fn new(id: DeviceId) -> Device {
        Device {
            id,
            timestamp: None,
            name: String::new(),
            epoch: 0,
            controller_certs_hash: String::new(),
            product: Product::default(),
            owner: Owner::default(),
            maintenance: false,
            profile: String::new(),
            local_server: None,
            local_console: None,
            base_os: None,
            edge_view: None,
            disks: None,
            hardware: Vec::new(),
            vlans: BTreeMap::new(),
            bonds: BTreeMap::new(),
            ports: BTreeMap::new(),
            port_access: BTreeMap::new(),
            enrolments: BTreeMap::new(),
            patches: BTreeMap::new(),
            datastores: BTreeMap::new(),
            contents: BTreeMap::new(),
            volumes: BTreeMap::new(),
            network_instances: BTreeMap::new(),
            apps: BTreeMap::new(),
            items: BTreeMap::new(),
            power: Power::default(),
            refused: Vec::new(),
        }
    }
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
    /// A piece of hardware.
    Hardware,
    /// A VLAN.
    Vlan,
    /// A bond.
    Bond,
    /// The image of the node itself.
    BaseOs,
    /// Files for apps.
    Patch,
    /// A way to get certificates.
    Enrolment,
    /// How a port proves who it is.
    PortAccess,
    /// Disks, local servers and what else is the node's own.
    Node,
}

/// Counters: a node acts when one differs from what it saw last (never on the first sight).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    /// Reboot when it changes. `None`: never asked.
    pub reboot: Option<u32>,
    /// Power off when it changes. `None`: never asked.
    pub shutdown: Option<u32>,
}
