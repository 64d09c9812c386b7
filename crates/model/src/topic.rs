//! Topics: tables that one service writes and any service may watch.
//!
//! On a node a topic is a folder of JSON files, one a key (`decisions/0001-topics-are-files.md`):
//! `/run/eve/<topic>/<key>.json`, or `/persist/status/<topic>/` for a topic that outlives a reboot.
//! The owner replaces files whole; a reader that wakes up reads the whole table. An empty file
//! `.complete` says that the owner has published its first full table since it started.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::desired::{
    App, Content, Datastore, LocalPower, NetworkInstance, Port, Power, Properties, Volume,
};
use crate::reported::{
    AppNetworkStatus, AppStatus, Boot, ContentStatus, ControllerStatus, DiskSmart, Identity,
    LogStatus, NetworkInstanceStatus, Onboarding, PortStatus, PortsAside, Resources, Storage,
    TimeState, VolumeStatus,
};
use crate::services::Service;
use crate::{AppId, Bytes, ContentId, DatastoreId, NetworkInstanceId, VolumeId};

/// A key as a file name: no `/`, no leading dot, at most 255 bytes.
pub trait Key: Ord + Clone + Debug {
    /// The name of the file, without `.json`.
    fn file_name(&self) -> String;
    /// `None` if the name is no key of this kind.
    fn from_file_name(name: &str) -> Option<Self>;
}

/// A table with one writer.
pub trait Topic {
    /// What a row is found by.
    type Key: Key;
    /// A row.
    type Value: PartialEq + Clone + Debug + Serialize + DeserializeOwned;
    /// The folder's name.
    const NAME: &'static str;
    /// The only service that writes it. `services.toml` says the same; a test compares them.
    const OWNER: Service;
    /// Whether it outlives a reboot.
    const PERSISTENT: bool = false;
}

/// A topic without its types: what its folder is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declared {
    /// The folder's name.
    pub name: &'static str,
    /// Who writes it.
    pub owner: Service,
    /// The only other service that may read it, because rows may hold opened secrets. `None`:
    /// every service may.
    pub only_for: Option<Service>,
    /// Whether it outlives a reboot.
    pub persistent: bool,
}

/// The key of a table with one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Only;

impl Key for Only {
    fn file_name(&self) -> String {
        "only".to_owned()
    }
    fn from_file_name(name: &str) -> Option<Self> {
        (name == "only").then_some(Only)
    }
}

impl<K> Key for crate::Id<K> {
    fn file_name(&self) -> String {
        self.to_string()
    }
    fn from_file_name(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}

impl Key for crate::desired::PortName {
    fn file_name(&self) -> String {
        self.0.clone()
    }
    fn from_file_name(name: &str) -> Option<Self> {
        crate::desired::PortName::new(name)
    }
}

/// Declares a topic as a type without values.
macro_rules! topics {
    ($($(#[$doc:meta])* $topic:ident = $name:literal: $key:ty => $value:ty, $owner:ident $(for $reader:ident)? $(, $persistent:ident)?;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub enum $topic {}
            impl Topic for $topic {
                type Key = $key;
                type Value = $value;
                const NAME: &'static str = $name;
                const OWNER: Service = Service::$owner;
                $(const PERSISTENT: bool = topics!(@$persistent);)?
            }
        )*
        /// Every topic.
        pub const ALL: &[Declared] = &[$(Declared {
            name: $topic::NAME,
            owner: $topic::OWNER,
            only_for: topics!(@only $($reader)?),
            persistent: $topic::PERSISTENT,
        }),*];
    };
    (@only) => { None };
    (@only $reader:ident) => { Some(Service::$reader) };
    (@persistent) => { true };
}

topics! {
    /// What `eved storage` found or made of /persist.
    StorageState = "storage": Only => Storage, Storage;
    /// Who this node is, once onboarded.
    Identities = "identity": Only => Identity, Onboard, persistent;
    /// How far onboarding is.
    OnboardingState = "onboarding": Only => Onboarding, Onboard;
    /// Whether and how the controller is reached, and which config is in force.
    Controller = "controller": Only => ControllerStatus, Config;
    /// Settings, complete.
    DesiredProperties = "properties": Only => Properties, Config;
    /// Reboot and power-off wishes.
    DesiredPower = "desired-power": Only => Power, Config;
    /// A command of someone near the node to start anew or to switch off; this boot's only.
    LocalPowers = "local-power": Only => LocalPower, Config;
    /// Ports and their addressing.
    DesiredPorts = "desired-ports": crate::desired::PortName => Port, Config for Network;
    /// Where content comes from.
    DesiredDatastores = "desired-datastores": DatastoreId => Datastore, Config for Content;
    /// What to download.
    DesiredContents = "desired-contents": ContentId => Content, Config;
    /// What disks and roots apps need.
    DesiredVolumes = "desired-volumes": VolumeId => Volume, Config;
    /// Virtual networks.
    DesiredNetworkInstances = "desired-network-instances": NetworkInstanceId => NetworkInstance, Config;
    /// Apps. `app` itself is root.
    DesiredApps = "desired-apps": AppId => App, Config for Netinst;
    /// Ports as they are.
    Ports = "ports": crate::desired::PortName => PortStatus, Network;
    /// Ports of the config that are not used for a while; no row: they are.
    PortsSetAside = "ports-set-aside": Only => PortsAside, Network;
    /// Virtual networks as they are.
    NetworkInstances = "network-instances": NetworkInstanceId => NetworkInstanceStatus, Netinst;
    /// The network of each app: its namespace and interfaces.
    AppNetworks = "app-networks": AppId => AppNetworkStatus, Netinst;
    /// Downloads.
    Contents = "contents": ContentId => ContentStatus, Content;
    /// Volumes as they are.
    Volumes = "volumes": VolumeId => VolumeStatus, Volume;
    /// What volumes take of the disk, in bytes.
    VolumeUse = "volume-use": VolumeId => Bytes, Volume;
    /// What disks say of their own health.
    DiskSmarts = "disk-smart": Only => Vec<DiskSmart>, Volume;
    /// Apps as they are.
    Apps = "apps": AppId => AppStatus, App;
    /// This boot: why, how often, and its timeline.
    Boots = "boot": Only => Boot, Health;
    /// What the node's services use.
    ResourceUse = "resources": Only => Resources, Health;
    /// Time servers, and whether the clock goes by them.
    Clock = "clock": Only => TimeState, Clock;
    /// Queued, sent and dropped logs.
    LogState = "log-status": Only => LogStatus, Log;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn services_toml_and_the_types_agree_who_writes_what() {
        let declared: BTreeMap<&str, Service> = crate::services::ALL
            .iter()
            .flat_map(|s| s.writes.iter().map(|t| (*t, s.service)))
            .collect();
        let typed: BTreeMap<&str, Service> =
            ALL.iter().map(|topic| (topic.name, topic.owner)).collect();
        assert_eq!(declared, typed);
    }

    #[test]
    fn what_may_hold_an_opened_secret_is_for_one_reader() {
        let private: Vec<_> = ALL.iter().filter(|t| t.only_for.is_some()).map(|t| t.name).collect();
        assert_eq!(private, ["desired-ports", "desired-datastores", "desired-apps"]);
    }
}
