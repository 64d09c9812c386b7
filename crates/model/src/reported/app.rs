//! Apps as they are.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::desired::VolumeRef;
use crate::{AppId, Bytes, NetworkInstanceId, Problem, UnixMillis, VolumeId};

/// An app, as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppStatus {
    /// Which.
    pub id: AppId,
    /// The version of the description that is in force.
    pub version: String,
    /// For people.
    pub name: String,
    /// Its log stays on the node.
    #[serde(default)]
    pub disable_logs: bool,
    /// Where it is in its life.
    pub state: AppState,
    /// When it last came to run.
    pub running_since: Option<UnixMillis>,
    /// How often it was started in this boot.
    pub starts: u32,
    /// The restart counter that is done.
    pub restart: u32,
    /// The purge counter that is done.
    pub purge: u32,
    /// The volumes it uses.
    pub volumes: Vec<VolumeId>,
    /// The volumes whose files are mounted for it now; they must not be removed.
    #[serde(default)]
    pub mounted: Vec<VolumeRef>,
    /// What it uses.
    pub used: AppUse,
    /// What stands in the way.
    pub problem: Option<Problem>,
}

/// What an app uses, from its cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppUse {
    /// Processor time since it started, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory now.
    pub memory: Bytes,
}

/// Where an app is in its life. `api::convert` derives the wire's state from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum AppState {
    /// Its volumes are not ready; their states say how far they are.
    AwaitingVolumes,
    /// All it needs to start is on the disk.
    Installed,
    /// Its network is not ready.
    AwaitingNetwork,
    /// It waits for its time after the boot.
    StartDelayed,
    /// It is being started.
    Booting,
    /// It runs.
    Running,
    /// It ended by itself; it is started again at `again`.
    Ended {
        /// Its exit status; 128 and more for a signal.
        status: i32,
        /// When it is started again.
        again: UnixMillis,
    },
    /// It is being stopped.
    Halting,
    /// It is stopped, as told.
    Halted,
    /// Stopped on the way to a new start, as told by a counter.
    Restarting,
    /// Like `Restarting`, and its volumes are made anew.
    Purging,
    /// It cannot run; `problem` says why.
    Broken,
}

/// The network of an app, made before it starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppNetworkStatus {
    /// Which app.
    pub id: AppId,
    /// The network namespace it runs in: `/run/netns/<app id>`. Interfaces in it are up and have
    /// their addresses and routes.
    pub namespace: String,
    /// Servers for its resolv.conf.
    pub dns: Vec<Ipv4Addr>,
    /// All interfaces are as wanted.
    pub ready: bool,
    /// Its interfaces, in order.
    pub vifs: Vec<Vif>,
    /// What stands in the way.
    pub problem: Option<Problem>,
}

/// An interface of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vif {
    /// Its name in the config.
    pub name: String,
    /// Its network.
    pub network: NetworkInstanceId,
    /// The end in the node: `nbu` numbers as EVE has.
    pub host_interface: String,
    /// The end in the app: `eth0`, …
    pub app_interface: String,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Address. `None` in a switch network.
    pub address: Option<Ipv4Addr>,
}
