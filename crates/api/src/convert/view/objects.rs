//! What a node says of the objects of its config: apps, networks, volumes, contents.

use model::{Bytes, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{ErrorView, Report, at, error, named, present, state};
use crate::pb::info::{
    SnapshotType, ZInfoApp, ZInfoContentTree, ZInfoNetwork, ZInfoNetworkInstance, ZInfoSnapshot,
    ZInfoVolume, ZNetworkInstanceState,
};

/// An app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The version of its description.
    pub version: String,
    /// `running`, `downloading`, …
    pub state: String,
    /// Since when it runs.
    pub running_since: Option<UnixMillis>,
    /// Its interfaces.
    pub interfaces: Vec<InterfaceView>,
    /// Its volumes.
    pub volumes: Vec<String>,
    /// What is wrong.
    pub errors: Vec<ErrorView>,
    /// Snapshots of its volumes.
    pub snapshots: Vec<SnapshotView>,
    /// Adapters that it has for itself.
    pub adapters: Vec<String>,
}

/// A snapshot of an app's volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotView {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub made: Option<UnixMillis>,
    /// Why: `app update`, `immediate`.
    pub kind: String,
    /// What is wrong.
    pub error: Option<ErrorView>,
}

/// An interface of an app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceView {
    /// Its name in the config.
    pub name: String,
    /// Hardware address.
    pub mac: String,
    /// Addresses.
    pub addresses: Vec<String>,
    /// Whether it can be used.
    pub up: bool,
}

/// A network instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInstanceView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it is up.
    pub active: bool,
    /// Its bridge.
    pub bridge: String,
    /// The bridge's address.
    pub gateway: String,
    /// The ports it goes out by.
    pub ports: Vec<String>,
    /// Hardware address and addresses given out.
    pub leases: Vec<(String, Vec<String>)>,
    /// `online`, `init`, `error`; empty if it is not said.
    pub state: String,
    /// Routes: destination, gateway, port.
    pub routes: Vec<(String, String, String)>,
    /// The largest packet; zero if it is not said.
    pub mtu: u32,
    /// What is wrong.
    pub errors: Vec<ErrorView>,
}

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its generation.
    pub generation: i64,
    /// `created volume`, `downloading`, …
    pub state: String,
    /// In percent.
    pub progress: u32,
    /// What is wrong.
    pub error: Option<ErrorView>,
    /// How large it may become.
    pub max_size: Bytes,
    /// What it takes.
    pub size: Bytes,
    /// How many apps use it.
    pub users: u32,
}

/// A content tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it hashes to, in hexadecimal; empty while unknown.
    pub sha256: String,
    /// What is on the disk of it.
    pub size: Bytes,
    /// `loaded`, `downloading`, …
    pub state: String,
    /// In percent.
    pub progress: u32,
    /// What is wrong.
    pub error: Option<ErrorView>,
}

pub(super) fn app(info: ZInfoApp) -> Report {
    // Only the id: it is gone. A live app always has a state.
    let only_id = ZInfoApp { app_id: info.app_id.clone(), ..ZInfoApp::default() };
    if info == only_id {
        return Report::Gone { kind: "app".to_owned(), id: info.app_id };
    }
    let interface = |network: ZInfoNetwork| InterfaceView {
        name: network.dev_name,
        mac: network.mac_addr,
        addresses: network.ip_addrs,
        up: network.ipv4_up,
    };
    Report::App(AppView {
        id: info.app_id,
        name: info.app_name,
        version: info.app_version,
        state: state(info.state),
        running_since: at(info.boot_time),
        interfaces: info.network.into_iter().map(interface).collect(),
        volumes: info.volume_refs,
        errors: info.app_err.into_iter().map(error).collect(),
        snapshots: info.snapshots.into_iter().map(snapshot).collect(),
        adapters: info.assigned_adapters.into_iter().map(|a| a.name).collect(),
    })
}

fn snapshot(info: ZInfoSnapshot) -> SnapshotView {
    SnapshotView {
        id: info.id,
        made: at(info.create_time),
        kind: named::<SnapshotType>(info.r#type, SnapshotType::as_str_name, "SNAPSHOT_TYPE_"),
        error: present(info.snap_err),
    }
}

pub(super) fn network_instance(info: ZInfoNetworkInstance) -> Report {
    let network_id = info.network_id.clone();
    if info == (ZInfoNetworkInstance { network_id, ..ZInfoNetworkInstance::default() }) {
        return Report::Gone { kind: "network_instance".to_owned(), id: info.network_id };
    }
    let leases = info.ip_assignments.into_iter().map(|a| (a.mac_address, a.ip_address));
    Report::NetworkInstance(NetworkInstanceView {
        id: info.network_id,
        name: info.displayname,
        active: info.activated,
        bridge: info.bridge_name,
        gateway: info.bridge_ip_addr,
        ports: info.ports,
        leases: leases.collect(),
        state: named::<ZNetworkInstanceState>(
            info.state,
            ZNetworkInstanceState::as_str_name,
            "ZNETINST_STATE_",
        ),
        routes: info
            .ip_routes
            .into_iter()
            .map(|r| (r.destination_network, r.gateway, r.port))
            .collect(),
        mtu: info.mtu,
        errors: info.network_err.into_iter().map(error).collect(),
    })
}

pub(super) fn volume(info: ZInfoVolume) -> Report {
    if info == (ZInfoVolume { uuid: info.uuid.clone(), ..ZInfoVolume::default() }) {
        return Report::Gone { kind: "volume".to_owned(), id: info.uuid };
    }
    Report::Volume(VolumeView {
        id: info.uuid,
        name: info.display_name,
        generation: info.generation_count,
        state: state(info.state),
        progress: info.progress_percentage,
        error: present(info.volume_err),
        max_size: Bytes(info.resources.map_or(0, |r| r.max_size_bytes)),
        size: Bytes(info.resources.map_or(0, |r| r.cur_size_bytes)),
        users: info.usage.map_or(0, |u| u.ref_count),
    })
}

pub(super) fn content(info: ZInfoContentTree) -> Report {
    if info == (ZInfoContentTree { uuid: info.uuid.clone(), ..ZInfoContentTree::default() }) {
        return Report::Gone { kind: "content".to_owned(), id: info.uuid };
    }
    Report::Content(ContentView {
        id: info.uuid,
        name: info.display_name,
        sha256: info.sha256,
        size: Bytes(info.resources.map_or(0, |r| r.cur_size_bytes)),
        state: state(info.state),
        progress: info.progress_percentage,
        error: present(info.err),
    })
}
