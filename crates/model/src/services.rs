//! The node's services, from `services.toml` at the root of the repository.

use std::time::Duration;

use crate::Bytes;

/// What becomes of the node if a service keeps dying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The node reboots: without it nobody could repair it from afar.
    Lifeline,
    /// It is restarted for ever, ever slower.
    Workload,
}

/// Whether it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Runs once; what comes after it waits.
    Oneshot,
    /// Runs as long as the node.
    Daemon,
}

/// Which system a root file system holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// The node's own.
    Node,
    /// The one that puts the other onto a disk.
    Installer,
}

/// One service, as declared.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Which.
    pub service: Service,
    /// What its death means.
    pub class: Class,
    /// Whether it ends.
    pub kind: Kind,
    /// Where it runs. `None`: everywhere.
    pub image: Option<Image>,
    /// A path that must exist, else it is not started.
    pub only_if: Option<&'static str>,
    /// What must be ready before.
    pub after: &'static [Service],
    /// User and group; 0 is root.
    pub uid: u32,
    /// Capabilities it keeps; `ALL` for every one.
    pub rights: &'static [&'static str],
    /// Supplementary groups.
    pub groups: &'static [u32],
    /// Topics it owns.
    pub writes: &'static [&'static str],
    /// Folders under /persist that are its own.
    pub state: &'static [&'static str],
    /// cgroup v2 `memory.max`.
    pub memory: Bytes,
    /// Silent for longer: killed and restarted. Zero: no promise.
    pub watchdog: Duration,
}

include!(concat!(env!("OUT_DIR"), "/services.rs"));

/// The services of a system, in an order in which they may start.
pub fn of(image: Image) -> impl Iterator<Item = &'static Spec> {
    ALL.iter().filter(move |spec| spec.image.is_none_or(|own| own == image))
}

impl Service {
    /// The service of this name.
    pub fn from_name(name: &str) -> Option<Service> {
        ALL.iter().map(|s| s.service).find(|s| s.name() == name)
    }

    /// Its declaration.
    pub fn spec(self) -> &'static Spec {
        // Every variant stands in the table: both are made from one file.
        &ALL[ALL.iter().position(|s| s.service == self).unwrap_or_default()]
    }
}

/// The group that may use the device key.
pub const KEY_GROUP: u32 = 950;
