//! The schema of objects. Every field is optional that can have a sensible default; unknown fields
//! are refused by [`super::read`].

mod fleet;
mod hardware;
mod machine;
mod port;
mod secret;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use model::desired::{
    AccessPort, Disks, ImageFormat, Metadata, Protocol, RouteProbe, Virtualization, VolumeTarget,
};
use model::{Bytes, Digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Kind;
use super::query::Query;
pub use fleet::{BaseOsSpec, EnrolmentSpec, FileSpec, PatchSpec, ProjectSpec, TemplateSpec};
pub use hardware::{ArpSpec, BondSpec, HardwareSpec, IoSpec, MiiSpec, VlanSpec};
pub use machine::{
    AssignedSpec, LimitSpec, MachineSpec, Per, PlacementSpec, RuleSpec, SnapshotSpec,
    SnapshotsSpec, VncSpec,
};
pub use port::{
    AccessPointSpec, AccessSpec, AddressSpec, BearerSpec, CellularSpec, PortSpec, StaticSpec,
    WifiSpec,
};
pub use secret::{SecretRef, SecretSpec, TextOrSecret};

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

/// An app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppSpec {
    /// The nodes it runs on; `"*"` is every node; `{match: QUERY}` those whose labels fit.
    #[serde(alias = "devices", default)]
    pub device: Devices,
    /// What it runs: the name of an image, or `repository:tag` in the datastore.
    pub image: String,
    /// Where `repository:tag` is looked for.
    #[serde(default = "local_name")]
    pub datastore: String,
    /// Ports of the node that lead to it: `8080:80`, `5353:53/udp`.
    #[serde(default)]
    pub ports: Vec<PortMap>,
    /// Memory it may use.
    #[serde(default = "default_memory")]
    pub memory: Size,
    /// Processors.
    #[serde(default = "one")]
    pub cpus: u8,
    /// What its root may grow to.
    #[serde(default = "default_disk")]
    pub disk: Size,
    /// The networks it is in, by name, first first. Port maps belong to the first.
    #[serde(alias = "networks", default = "default_network")]
    pub network: Networks,
    /// What it may reach by itself.
    #[serde(default)]
    pub outbound: Outbound,
    /// Volumes beyond its root.
    #[serde(default)]
    pub volumes: Vec<VolumeUse>,
    /// Its environment.
    #[serde(default, deserialize_with = "scalars")]
    pub environment: BTreeMap<String, String>,
    /// Whether it should run.
    #[serde(default = "yes")]
    pub active: bool,
    /// Whether its output is sent to the controller.
    #[serde(default = "yes")]
    pub logs: bool,
    /// So many seconds after a boot it starts.
    #[serde(default)]
    pub start_delay_seconds: u32,
    /// `container` or `vm`.
    #[serde(default = "as_container")]
    pub virtualization: Virtualization,
    /// What only a virtual machine has.
    #[serde(default)]
    pub vm: Option<MachineSpec>,
    /// Where it runs on the node.
    #[serde(default)]
    pub placement: PlacementSpec,
    /// Hardware it gets for itself.
    #[serde(default)]
    pub hardware: Vec<AssignedSpec>,
    /// Access rules beside `outbound` and `ports`, for all its networks.
    #[serde(default)]
    pub rules: Vec<RuleSpec>,
    /// User data: cloud-init, or what the app understands. Not together with `environment`.
    #[serde(default)]
    pub user_data: Option<TextOrSecret>,
    /// How user data reaches it: `drive`, `none`, `open_stack` or `multipart`.
    #[serde(default)]
    pub metadata: Metadata,
    /// User data is obeyed again when this number changes.
    #[serde(default)]
    pub cloud_init_version: u32,
    /// Profiles in which it is active; none: in all.
    #[serde(default)]
    pub profiles: Vec<String>,
    /// Its snapshots.
    #[serde(default)]
    pub snapshots: Option<SnapshotsSpec>,
    /// Whether an operator may see its console from afar.
    #[serde(default)]
    pub remote_console: bool,
    /// Statistics are asked for at this address of its.
    #[serde(default)]
    pub stats_address: Option<IpAddr>,
    /// Whether it serves the node itself.
    #[serde(default)]
    pub service: bool,
    /// Whether it runs docker, whose containers are reported one by one.
    #[serde(default)]
    pub docker: bool,
}

/// The nodes something is for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Devices {
    /// By name; `*` is every node.
    pub names: Vec<String>,
    /// By their labels.
    pub matching: Option<Query>,
}

impl Devices {
    /// Whether the node of this name and these labels is one of them.
    pub fn has(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.names.iter().any(|n| n == name || n == "*")
            || self.matching.as_ref().is_some_and(|q| q.fits(labels))
    }
}

impl Serialize for Devices {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match &self.matching {
            None => Many(self.names.clone()).serialize(s),
            Some(query) => {
                let mut map = BTreeMap::from([("match", serde_json::json!(query.to_string()))]);
                if !self.names.is_empty() {
                    map.insert("names", serde_json::json!(self.names));
                }
                map.serialize(s)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a name, a list of names or {match: QUERY}")]
        enum Either {
            One(String),
            All(Vec<String>),
            Matching(Matching),
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Matching {
            #[serde(rename = "match")]
            query: String,
            #[serde(default)]
            names: Vec<String>,
        }
        Ok(match Either::deserialize(d)? {
            Either::One(one) => Devices { names: vec![one], matching: None },
            Either::All(names) => Devices { names, matching: None },
            Either::Matching(m) => Devices {
                names: m.names,
                matching: Some(m.query.parse().map_err(serde::de::Error::custom)?),
            },
        })
    }
}

/// What an app may reach by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outbound {
    /// Everything.
    #[default]
    Allow,
    /// Nothing.
    Deny,
}

/// A volume an app uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeUse {
    /// Its name.
    pub volume: String,
    /// Where it appears.
    pub mount: String,
}

/// One network or several, each a name or an object with more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected the name of a network, or a list of names or of {name, address}"
)]
pub enum Networks {
    /// One.
    One(NetworkUse),
    /// Several, in order.
    Several(Vec<NetworkUse>),
}

impl Networks {
    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, NetworkUse> {
        match self {
            Networks::One(one) => std::slice::from_ref(one).iter(),
            Networks::Several(all) => all.iter(),
        }
    }
}

/// A network an app is in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "expected the name of a network or {name, address}"
)]
pub enum NetworkUse {
    /// By name.
    Name(String),
    /// With a fixed address.
    Fixed {
        /// Its name.
        name: String,
        /// The app's address in it.
        #[serde(default)]
        address: Option<Ipv4Addr>,
        /// The hardware address of its card; made of its id if not said.
        #[serde(default)]
        mac: Option<Mac>,
        /// Its VLAN in a switch network.
        #[serde(default)]
        vlan: Option<u16>,
        /// Whether its neighbours may learn of it.
        #[serde(default)]
        discover: bool,
        /// Its place among interfaces and adapters.
        #[serde(default)]
        order: u32,
        /// Access rules in this network only.
        #[serde(default)]
        rules: Vec<RuleSpec>,
    },
}

impl NetworkUse {
    /// The network's name.
    pub fn name(&self) -> &str {
        match self {
            NetworkUse::Name(name) | NetworkUse::Fixed { name, .. } => name,
        }
    }

    /// The app's fixed address in it.
    pub fn address(&self) -> Option<Ipv4Addr> {
        match self {
            NetworkUse::Name(_) => None,
            NetworkUse::Fixed { address, .. } => *address,
        }
    }

    /// The hardware address of its card.
    pub fn mac(&self) -> Option<[u8; 6]> {
        match self {
            NetworkUse::Name(_) => None,
            NetworkUse::Fixed { mac, .. } => mac.map(|m| m.0),
        }
    }

    /// Its VLAN, whether it may be discovered, its place.
    pub fn link(&self) -> (Option<u16>, bool, u32) {
        match self {
            NetworkUse::Name(_) => (None, false, 0),
            NetworkUse::Fixed { vlan, discover, order, .. } => (*vlan, *discover, *order),
        }
    }

    /// Access rules in this network only.
    pub fn rules(&self) -> &[RuleSpec] {
        match self {
            NetworkUse::Name(_) => &[],
            NetworkUse::Fixed { rules, .. } => rules,
        }
    }
}

/// The hardware address of one card: `02:16:3e:00:00:01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Mac, String> {
        let byte = |b: &str| if b.len() == 2 { u8::from_str_radix(b, 16).ok() } else { None };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let bytes: Option<[u8; 6]> = bytes.and_then(|b| b.try_into().ok());
        // The lowest bit of the first byte marks a group of cards.
        bytes.filter(|b| b[0] & 1 == 0).map(Mac).ok_or_else(|| {
            format!("{text:?} is no hardware address of one card, as 02:16:3e:00:00:01")
        })
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0.map(|b| format!("{b:02x}")).join(":"))
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A name or several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Many(pub Vec<String>);

impl Serialize for Many {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(s),
            all => all.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for Many {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a name or a list of names")]
        enum Either {
            One(String),
            All(Vec<String>),
        }
        Ok(Many(match Either::deserialize(d)? {
            Either::One(one) => vec![one],
            Either::All(all) => all,
        }))
    }
}

/// A size: a number of bytes, or with a unit: `512KiB`, `128MiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub Bytes);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let bad =
            || format!("{text:?} is no size; write 512KiB, 128MiB, 1GiB or a number of bytes");
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..digits].parse().map_err(|_| bad())?;
        let shift = match text[digits..].trim() {
            "" | "B" => 0,
            "KiB" | "Ki" | "K" => 10,
            "MiB" | "Mi" | "M" => 20,
            "GiB" | "Gi" | "G" => 30,
            "TiB" | "Ti" | "T" => 40,
            _ => return Err(bad()),
        };
        number.checked_mul(1 << shift).map(|n| Size(Bytes(n))).ok_or_else(bad)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.0;
        for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if bytes != 0 && bytes.is_multiple_of(1 << shift) {
                return s.collect_str(&format_args!("{}{unit}", bytes >> shift));
            }
        }
        s.serialize_u64(bytes)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        text_or_number(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A port of the node that leads to a port of an app: `8080:80`, `5353:53/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMap {
    /// At the node's edge.
    pub edge: u16,
    /// In the app.
    pub app: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl FromStr for PortMap {
    type Err = String;

    fn from_str(text: &str) -> Result<PortMap, String> {
        let bad = || {
            format!(
                "{text:?} is no port map; write EDGE:APP or EDGE:APP/udp, ports from 1 to 65535"
            )
        };
        let (ports, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(bad()),
        };
        let (edge, app) = ports.split_once(':').ok_or_else(bad)?;
        let port = |p: &str| p.trim().parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(bad);
        Ok(PortMap { edge: port(edge)?, app: port(app)?, protocol })
    }
}

impl fmt::Display for PortMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.edge, self.app)?;
        if self.protocol == Protocol::Udp { f.write_str("/udp") } else { Ok(()) }
    }
}

impl Serialize for PortMap {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortMap {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        text_or_number(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A digest with or without `sha256:` in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HexDigest(pub Digest);

impl Serialize for HexDigest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl<'de> Deserialize<'de> for HexDigest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let digest = Digest::from_hex(text.strip_prefix("sha256:").unwrap_or(&text));
        digest.map(HexDigest).map_err(serde::de::Error::custom)
    }
}

/// A text, or a number that YAML made of it.
fn text_or_number<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text or a number")]
    enum Either {
        Text(String),
        Number(u64),
    }
    Ok(match Either::deserialize(d)? {
        Either::Text(text) => text,
        Either::Number(number) => number.to_string(),
    })
}

/// Texts by key, where a number or a truth value counts as its text.
fn scalars<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text, a number, true or false")]
    enum Scalar {
        Text(String),
        Truth(bool),
        Number(serde_json::Number),
    }
    let map = BTreeMap::<String, Scalar>::deserialize(d)?;
    let text = |s| match s {
        Scalar::Text(text) => text,
        Scalar::Truth(truth) => truth.to_string(),
        Scalar::Number(number) => number.to_string(),
    };
    Ok(map.into_iter().map(|(k, v)| (k, text(v))).collect())
}

fn yes() -> bool {
    true
}

fn one() -> u8 {
    1
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

fn as_container() -> Virtualization {
    Virtualization::Container
}

fn uplink() -> String {
    "uplink".to_owned()
}

fn default_memory() -> Size {
    Size(Bytes::mib(256))
}

fn default_disk() -> Size {
    Size(Bytes::gib(1))
}

fn default_network() -> Networks {
    Networks::One(NetworkUse::Name(super::DEFAULT.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("512KiB", Some(512 << 10)),
            ("1 GiB", Some(1 << 30)),
            ("64M", Some(64 << 20)),
        ] {
            assert_eq!(text.parse::<Size>().ok().map(|s| s.0.0), bytes, "{text}");
        }
        for text in ["", "MiB", "1.5GiB", "-1", "99999999999TiB", "1GB/s"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn port_maps_are_read_and_written_alike() {
        for text in ["8080:80", "53:5353/udp"] {
            assert_eq!(text.parse::<PortMap>().unwrap().to_string(), text);
        }
        assert_eq!("1:2/tcp".parse::<PortMap>().unwrap().to_string(), "1:2");
        for text in ["80", "0:80", "80:0", "80:65536", "80:80/sctp", "a:b", "1:2:3"] {
            assert!(text.parse::<PortMap>().is_err(), "{text}");
        }
    }
}
