//! Apps and what they may do.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::desired::PortName;
use crate::desired::machine::{Assigned, Machine, Metadata, Snapshots, UserData};
use crate::{AppId, Bytes, NetworkInstanceId, VolumeId};

/// An app instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Its id.
    pub id: AppId,
    /// Version of this description, as the controller counts.
    pub version: String,
    /// For people; also its host name, cleaned.
    pub name: String,
    /// Whether it should run.
    pub activate: bool,
    /// Processors, 1 to 255.
    pub vcpus: u8,
    /// Memory it may use.
    pub memory: Bytes,
    /// How it runs.
    pub virtualization: Virtualization,
    /// Roots and disks; the first is its root.
    pub volumes: Vec<VolumeRef>,
    /// Its network interfaces, in order.
    pub interfaces: Vec<AppInterface>,
    /// Restarted when it changes.
    pub restart: u32,
    /// Restarted with fresh volumes when it changes.
    pub purge: u32,
    /// Environment from its user data, `KEY=VALUE`.
    pub environment: Vec<String>,
    /// User data that is no environment: cloud-init, or anything for a virtual machine.
    #[serde(default)]
    pub user_data: Option<UserData>,
    /// Wait so long after a boot before it starts.
    pub start_delay: Duration,
    /// Whether its output stays on the node.
    pub disable_logs: bool,
    /// What only virtual machines have.
    #[serde(default)]
    pub machine: Machine,
    /// Hardware it gets for itself.
    #[serde(default)]
    pub hardware: Vec<Assigned>,
    /// What is said more seldom.
    #[serde(default)]
    pub options: AppOptions,
}

/// What is seldom said of an app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppOptions {
    /// Profiles in which it is active; empty: in all (see [`super::Device::profile`]).
    pub profiles: Vec<String>,
    /// How its user data reaches it.
    pub metadata: Metadata,
    /// Its user data is obeyed again when this changes.
    pub cloud_init_version: u32,
    /// Whether an operator may see its console from afar.
    pub remote_console: bool,
    /// Statistics are asked for at this address of its; empty: nowhere.
    pub stats_address: String,
    /// Whether it serves the node itself; such an app is a container.
    pub service: bool,
    /// Whether it runs docker, whose containers are reported one by one.
    pub docker: bool,
    /// Its snapshots. `None`: it has none.
    pub snapshots: Option<Snapshots>,
}

impl App {
    /// Whether it belongs to the profile in force; an app that names none belongs to all.
    pub fn in_profile(&self, profile: &str) -> bool {
        let named = &self.options.profiles;
        profile.is_empty() || named.is_empty() || named.iter().any(|n| n == profile)
    }
}

/// The environment that user data of a container holds: `KEY=VALUE`, one a line; empty lines and
/// `#` comments are nothing. The error is the first line that is none.
pub fn environment(text: &str) -> Result<Vec<String>, String> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let pairs = lines.map(|line| match line.split_once('=') {
        Some((key, _)) if !key.is_empty() && !line.contains('\0') => Ok(line.to_owned()),
        _ => Err(line.to_owned()),
    });
    pairs.collect()
}

/// Whether user data is for cloud-init: a config, a script, a list of addresses, or several parts.
pub fn is_cloud_init(text: &str) -> bool {
    let heads = ["#cloud-config", "#!", "#include", "Content-Type:", "MIME-Version:"];
    heads.iter().any(|head| text.starts_with(head))
}

/// How an app runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Virtualization {
    /// As a container on the node's kernel.
    Container,
    /// In a virtual machine.
    Vm,
}

/// A volume an app uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRef {
    /// Which volume.
    pub volume: VolumeId,
    /// Which generation of it.
    pub generation: u64,
    /// Where it appears; `/` or empty for the root.
    pub mount: String,
}

/// An interface of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppInterface {
    /// Its name.
    pub name: String,
    /// The network instance it is in.
    pub network: NetworkInstanceId,
    /// `None`: derived from the app's id.
    pub mac: Option<[u8; 6]>,
    /// `None`: from the network's range.
    pub address: Option<Ipv4Addr>,
    /// What may pass; nothing else does.
    pub rules: Vec<Rule>,
    /// Its VLAN in a switch network, 1 to 4094. `None`: untagged.
    #[serde(default)]
    pub access_vlan: Option<u16>,
    /// Whether its neighbours may learn of it through the metadata server.
    #[serde(default)]
    pub discover: bool,
    /// Its place among the app's interfaces and adapters, see [`Machine::enforce_order`].
    #[serde(default)]
    pub order: u32,
}

/// An access rule. All matches must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// As the controller numbers it.
    pub id: i32,
    /// Which packets.
    pub matches: Vec<Match>,
    /// What becomes of them.
    pub action: Action,
    /// Seen from the app.
    pub direction: Direction,
}

/// Which way a rule looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Both ways.
    Both,
    /// To the app.
    Ingress,
    /// From the app.
    Egress,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// The far end's address.
    Ip(IpNet),
    /// The far end's name, resolved through the network's DNS.
    Host(String),
    /// Protocol.
    Protocol(Protocol),
    /// Port at our end: at the node's edge for a port map, else the app's.
    LocalPort(u16),
    /// Port at the far end.
    RemotePort(u16),
    /// Only through this port of the node.
    Adapter(PortName),
}

/// Protocols rules know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
}

/// What becomes of matching packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// They pass.
    Allow,
    /// They are dropped.
    Drop,
    /// They pass up to a rate.
    Limit {
        /// So many packets
        rate: u32,
        /// … in this long.
        per: Duration,
        /// So many at once.
        burst: u32,
    },
    /// From the matched edge port to this port of the app.
    PortMap {
        /// The app's port.
        app_port: u16,
    },
}
