//! Apps: what runs on nodes, and where.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use model::Bytes;
use model::desired::{Metadata, Virtualization};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::secret::TextOrSecret;
use super::value::{Mac, Many, PortMap, Size};
use super::{AssignedSpec, MachineSpec, PlacementSpec, RuleSpec, SnapshotsSpec};
use crate::objects::query::Query;

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
    #[serde(default = "super::local_name")]
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
    #[serde(default, deserialize_with = "super::scalars")]
    pub environment: BTreeMap<String, String>,
    /// Whether it should run.
    #[serde(default = "super::yes")]
    pub active: bool,
    /// Whether its output is sent to the controller.
    #[serde(default = "super::yes")]
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

fn one() -> u8 {
    1
}

fn as_container() -> Virtualization {
    Virtualization::Container
}

fn default_memory() -> Size {
    Size(Bytes::mib(256))
}

fn default_disk() -> Size {
    Size(Bytes::gib(1))
}

fn default_network() -> Networks {
    Networks::One(NetworkUse::Name(crate::objects::DEFAULT.to_owned()))
}
