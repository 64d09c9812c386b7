//! The schema of objects. Every field is optional that can have a sensible default; unknown fields
//! are refused by [`super::read`].

mod app;
mod fleet;
mod hardware;
mod machine;
mod policy;
mod port;
mod secret;
mod value;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use model::desired::{AccessPort, Disks, ImageFormat, RouteProbe, VolumeTarget};
use serde::{Deserialize, Serialize};

use super::Kind;
pub use app::{AppSpec, Devices, NetworkUse, Outbound, VolumeUse};
pub use fleet::{BaseOsSpec, EnrolmentSpec, FileSpec, PatchSpec, ProjectSpec, TemplateSpec};
pub use hardware::{ArpSpec, BondSpec, HardwareSpec, IoSpec, MiiSpec, VlanSpec};
pub use machine::{
    AssignedSpec, LimitSpec, MachineSpec, Per, PlacementSpec, RuleSpec, SnapshotSpec,
    SnapshotsSpec, VncSpec,
};
pub use policy::{AlertRuleSpec, Day, GroupSpec, When, WindowSpec};
pub use port::{
    AccessPointSpec, AccessSpec, AddressSpec, BearerSpec, CellularSpec, PortSpec, StaticSpec,
    WifiSpec,
};
pub use secret::{SecretRef, SecretSpec, TextOrSecret};
use value::{HexDigest, scalars};
pub use value::{Mac, Many, PortMap, Size};

/// What an object says, by kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    /// A node.
    Device(DeviceSpec),
    /// Where images come from.
    Datastore(DatastoreSpec),
    /// Something to download.
    Image(ImageSpec),
    /// A disk or folder for apps.
    Volume(VolumeSpec),
    /// A virtual network for apps.
    Network(NetworkSpec),
    /// An app.
    App(AppSpec),
    /// The model of a box.
    Hardware(HardwareSpec),
    /// An image that nodes themselves run.
    BaseOs(BaseOsSpec),
    /// A value that is shown to nobody.
    Secret(SecretSpec),
    /// A way to get certificates.
    Enrolment(EnrolmentSpec),
    /// Files for apps.
    Patch(PatchSpec),
    /// What people and their rights are grouped by.
    Project(ProjectSpec),
    /// What devices have in common.
    Template(TemplateSpec),
    /// Devices that are named together.
    Group(GroupSpec),
    /// When devices may be disturbed.
    Window(WindowSpec),
    /// What is looked at, and who is told.
    AlertRule(AlertRuleSpec),
}

impl Spec {
    /// The kind it belongs to.
    pub fn kind(&self) -> Kind {
        match self {
            Spec::Device(_) => Kind::Device,
            Spec::Datastore(_) => Kind::Datastore,
            Spec::Image(_) => Kind::Image,
            Spec::Volume(_) => Kind::Volume,
            Spec::Network(_) => Kind::Network,
            Spec::App(_) => Kind::App,
            Spec::Hardware(_) => Kind::Hardware,
            Spec::BaseOs(_) => Kind::BaseOs,
            Spec::Secret(_) => Kind::Secret,
            Spec::Enrolment(_) => Kind::Enrolment,
            Spec::Patch(_) => Kind::Patch,
            Spec::Project(_) => Kind::Project,
            Spec::Template(_) => Kind::Template,
            Spec::Group(_) => Kind::Group,
            Spec::Window(_) => Kind::Window,
            Spec::AlertRule(_) => Kind::AlertRule,
        }
    }
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceSpec {
    /// Hardware serial number it will register with.
    pub serial: String,
    /// Soft serial number it will register with (`/config/soft_serial`).
    pub soft_serial: String,
    /// Its ports. Empty: the node tries DHCP on every Ethernet port.
    pub ports: Vec<PortSpec>,
    /// Settings (EVE's config properties): key and value.
    #[serde(deserialize_with = "scalars")]
    pub settings: BTreeMap<String, String>,
    /// Whether it gets its config only after attestation.
    pub attestation: bool,
    /// The template whose fields it has where it says nothing itself.
    pub template: Option<String>,
    /// What `{{ name }}` stands for in its template and in the apps it runs.
    #[serde(deserialize_with = "scalars")]
    pub variables: BTreeMap<String, String>,
    /// What queries look at, as in `site=berlin`.
    #[serde(deserialize_with = "scalars")]
    pub labels: BTreeMap<String, String>,
    /// The project it belongs to.
    pub project: Option<String>,
    /// The model of its box. Not said: an Ethernet card for each port.
    pub hardware: Option<String>,
    /// Its VLANs.
    pub vlans: Vec<VlanSpec>,
    /// Its bonds.
    pub bonds: Vec<BondSpec>,
    /// The image it runs itself. Not said: the one it has.
    pub base_os: Option<String>,
    /// Whether it only keeps running what runs.
    pub maintenance: bool,
    /// The profile in force: apps of others rest.
    pub profile: String,
    /// Who else may choose the profile.
    pub local_profile_server: Option<LocalServerSpec>,
    /// Who stands in for the controller.
    pub local_console: Option<LocalConsoleSpec>,
    /// What may be looked at through EdgeView, while a session is open.
    pub edge_view: EdgeViewSpec,
    /// How its disks are put together. Not said: as they are.
    pub disks: Option<Disks>,
}

/// A server beside an app that may choose the profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalServerSpec {
    /// Host and optional port.
    pub address: String,
    /// What it must send along.
    pub token: SecretRef,
}

/// A console beside the node that stands in when the controller cannot be reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalConsoleSpec {
    /// Its base.
    pub url: String,
    /// Datastores for support bundles, tried in this order.
    #[serde(default)]
    pub bundles: Vec<String>,
}

/// What may be looked at through EdgeView.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeViewSpec {
    /// The node.
    pub device: bool,
    /// Its apps.
    pub apps: bool,
    /// What is beyond it.
    pub external: bool,
    /// Certificates of the dispatcher, PEM.
    pub dispatcher: Vec<String>,
}

/// Where images come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatastoreSpec {
    /// `registry`, `https`, `http`, `s3`, `sftp`, `azure` or `gcs`.
    #[serde(rename = "type")]
    pub kind: model::desired::DatastoreKind,
    /// Host and optional port, without a scheme. For object stores the endpoint, a URL; empty: the
    /// provider's own.
    #[serde(default)]
    pub host: String,
    /// In front of every path.
    #[serde(default)]
    pub path: String,
    /// Certificates it may present beyond the node's own, PEM.
    #[serde(default)]
    pub trust: Vec<String>,
    /// Region of an S3 store.
    #[serde(default)]
    pub region: String,
    /// User, account or access key.
    #[serde(default)]
    pub user: Option<TextOrSecret>,
    /// Password or secret key.
    #[serde(default)]
    pub password: Option<SecretRef>,
}

/// Something to download.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// Which datastores have it, tried in this order.
    #[serde(default = "local")]
    pub datastore: Many,
    /// Its path; for a registry `repository:tag` or `repository@sha256:…`.
    pub path: String,
    /// What is in it.
    #[serde(default = "container")]
    pub format: ImageFormat,
    /// What it must hash to.
    #[serde(default)]
    pub sha256: Option<HexDigest>,
    /// Refused if larger.
    #[serde(default)]
    pub max_size: Option<Size>,
    /// Free text that travels with it.
    #[serde(default)]
    pub metadata: String,
}

/// A disk or folder for apps; each node where an app uses it has its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    /// Its size or quota.
    #[serde(default)]
    pub size: Option<Size>,
    /// What it starts as: the name of an image. Not said: empty.
    #[serde(default)]
    pub image: Option<String>,
    /// Whether apps may not write to it.
    #[serde(default)]
    pub readonly: bool,
    /// Whether it may lie outside the encrypted vault.
    #[serde(default)]
    pub clear_text: bool,
    /// What a virtual machine takes it for: `disk`, `kernel`, `initrd`, `ram_disk` or `custom`.
    #[serde(default)]
    pub target: VolumeTarget,
}

/// A virtual network for apps; each node where an app uses it has its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// `local` (routed, with NAT, DHCP and DNS) or `switch` (bridged to its port).
    #[serde(rename = "type", default)]
    pub kind: NetworkType,
    /// Its addresses. Needed when it is local.
    #[serde(default)]
    pub subnet: Option<Ipv4Net>,
    /// Its own address. Not said: the first of the subnet.
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// Addresses given to apps. Not said: all behind the gateway.
    #[serde(default)]
    pub dhcp: Option<Dhcp>,
    /// Servers its DNS asks. Empty: those of the port.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Names with fixed addresses.
    #[serde(default)]
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
    /// The way out: `uplink`, `freeuplink`, `all`, `none`, or the label of a port or of several.
    #[serde(default = "uplink")]
    pub port: String,
    /// Maximum size of its packets.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Whether it should exist now.
    #[serde(default = "yes")]
    pub active: bool,
    /// Whether flows are logged and sent; it costs the node's time.
    #[serde(default)]
    pub flow_log: bool,
    /// Whether apps learn the routes of its ports.
    #[serde(default)]
    pub propagate_routes: bool,
    /// Routes beyond the default one.
    #[serde(default)]
    pub routes: Vec<RouteSpec>,
    /// Ports of a switch that carry one VLAN untagged.
    #[serde(default)]
    pub access_ports: Vec<AccessPort>,
    /// Whether a switch lets LLDP pass.
    #[serde(default)]
    pub forward_lldp: bool,
    /// Label of the ports of a switch that shut when a bridge talks to them.
    #[serde(default)]
    pub bpdu_guard: String,
}

/// A route of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// Where to.
    pub to: IpNet,
    /// Through this router.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Through the ports of this label.
    #[serde(default)]
    pub port: String,
    /// How to find out which of several ports works.
    #[serde(default)]
    pub probe: Option<RouteProbe>,
    /// Of several ports that work, the cheaper one.
    #[serde(default)]
    pub prefer_cheap: bool,
    /// Of several ports that work, the one with the stronger cellular signal.
    #[serde(default)]
    pub prefer_signal: bool,
}

/// Kinds of networks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkType {
    /// Routed, with NAT, DHCP and DNS.
    #[default]
    Local,
    /// Bridged to its port.
    Switch,
}

/// Addresses given to apps; both ends are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dhcp {
    /// First address.
    pub start: Ipv4Addr,
    /// Last address.
    pub end: Ipv4Addr,
}

fn yes() -> bool {
    true
}

fn local() -> Many {
    Many(vec![super::LOCAL.to_owned()])
}

fn local_name() -> String {
    super::LOCAL.to_owned()
}

fn container() -> ImageFormat {
    ImageFormat::Container
}

fn uplink() -> String {
    "uplink".to_owned()
}
