//! What operators write: objects with a kind, a name and a spec, referring to each other by name.
//!
//! [`read`] takes YAML or JSON documents; [`check`] finds what is wrong in a set of objects;
//! [`compile`] makes of them what one node is told. All three are values in, values out: storing and
//! sending is done elsewhere.

mod check;
#[cfg(test)]
mod check_tests;
mod compile;
#[cfg(test)]
mod compile_tests;
mod diff;
mod hints;
mod places;
mod query;
mod read;
#[cfg(test)]
mod round_trip_tests;
mod spec;
mod template;
#[cfg(test)]
mod template_tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use model::Digest;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use check::{Flaw, check};
pub(crate) use compile::content_of;
pub use compile::{Added, Bumps, Session, Target, bumps, compile, targets};
pub use diff::{Consequence, Difference, diff};
pub(crate) use hints::{hints, unlabelled};
pub use places::{Place, Places};
pub(crate) use query::{LOCATION, Labels, NAME, coordinates};
pub use query::{Query, QueryError};
pub use read::{Document, ReadError, WrittenSpec, read, read_spec, shown};
pub(crate) use read::{NOT_SHOWN, is_name};
pub use spec::{
    AccessPointSpec, AccessSpec, AddressSpec, AlertRuleSpec, AppSpec, ArpSpec, AssignedSpec,
    BaseOsSpec, BearerSpec, BondSpec, CellularSpec, DatastoreSpec, Day, DeviceSpec, Devices, Dhcp,
    EdgeViewSpec, EnrolmentSpec, FileSpec, GroupSpec, HardwareSpec, ImageSpec, IoSpec, LimitSpec,
    LocalConsoleSpec, LocalServerSpec, Mac, MachineSpec, Many, MiiSpec, NetworkSpec, NetworkType,
    NetworkUse, Outbound, PatchSpec, Per, PlacementSpec, PortMap, PortSpec, ProjectSpec, RouteSpec,
    RuleSpec, SecretRef, SecretSpec, Size, SnapshotSpec, SnapshotsSpec, Spec, StaticSpec,
    TemplateSpec, TextOrSecret, VlanSpec, VncSpec, VolumeSpec, VolumeUse, When, WifiSpec,
    WindowSpec,
};
pub(crate) use template::labels;
pub use template::{Node, node};

/// The datastore that always exists: this controller's own registry.
pub const LOCAL: &str = "local";
/// The network that always exists, one on each node that needs it.
pub const DEFAULT: &str = "default";

/// The kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A node.
    Device,
    /// Where images come from.
    Datastore,
    /// Something to download.
    Image,
    /// A disk or folder for apps.
    Volume,
    /// A virtual network for apps.
    Network,
    /// An app.
    App,
    /// The model of a box.
    Hardware,
    /// An image that nodes themselves run.
    BaseOs,
    /// A value that is shown to nobody.
    Secret,
    /// A way to get certificates.
    Enrolment,
    /// Files for apps.
    Patch,
    /// What people and their rights are grouped by.
    Project,
    /// What devices have in common.
    Template,
    /// Devices that are named together.
    Group,
    /// When devices may be disturbed.
    Window,
    /// What is looked at, and who is told.
    AlertRule,
}

impl Kind {
    /// Every kind; its order is that of keys.
    pub const ALL: [Kind; 16] = [
        Kind::Device,
        Kind::Datastore,
        Kind::Image,
        Kind::Volume,
        Kind::Network,
        Kind::App,
        Kind::Hardware,
        Kind::BaseOs,
        Kind::Secret,
        Kind::Enrolment,
        Kind::Patch,
        Kind::Project,
        Kind::Template,
        Kind::Group,
        Kind::Window,
        Kind::AlertRule,
    ];

    /// As it is written in a document.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Device => "Device",
            Kind::Datastore => "Datastore",
            Kind::Image => "Image",
            Kind::Volume => "Volume",
            Kind::Network => "Network",
            Kind::App => "App",
            Kind::Hardware => "Hardware",
            Kind::BaseOs => "BaseOs",
            Kind::Secret => "Secret",
            Kind::Enrolment => "Enrolment",
            Kind::Patch => "Patch",
            Kind::Project => "Project",
            Kind::Template => "Template",
            Kind::Group => "Group",
            Kind::Window => "Window",
            Kind::AlertRule => "AlertRule",
        }
    }

    /// Whether it says how the fleet is run: no node is told of it, and no generations, versions or
    /// history are kept.
    pub fn is_policy(self) -> bool {
        matches!(self, Kind::Group | Kind::Window | Kind::AlertRule)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads a kind in any case, and under the names the EVE API has for them.
impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let known = Kind::ALL.into_iter().find(|k| k.name().eq_ignore_ascii_case(text));
        known
            .or_else(|| match text.to_ascii_lowercase().as_str() {
                "edgenode" | "node" => Some(Kind::Device),
                "contenttree" | "content" => Some(Kind::Image),
                "networkinstance" => Some(Kind::Network),
                "devicemodel" | "model" => Some(Kind::Hardware),
                "patchenvelope" => Some(Kind::Patch),
                "scepprofile" => Some(Kind::Enrolment),
                "alert-rule" => Some(Kind::AlertRule),
                _ => None,
            })
            .ok_or_else(|| {
                let all = Kind::ALL.map(Kind::name).join(", ");
                format!("{text:?} is no kind of object; there are {all}")
            })
    }
}

/// What an object is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its name; unique within the kind.
    pub name: String,
}

impl Key {
    /// The key of the object of this kind and name.
    pub fn new(kind: Kind, name: impl Into<String>) -> Key {
        Key { kind, name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// An object as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its key.
    pub key: Key,
    /// Ids of what it becomes on nodes derive from this; an object that was deleted and made again
    /// has another.
    pub uid: Uuid,
    /// Counts changes of the spec, from 1.
    pub generation: u64,
    /// An app is restarted when it grows.
    pub restart: u32,
    /// An app gets fresh volumes when it grows.
    pub purge: u32,
    /// What an app's image tag meant when the app was last applied. `None`: the node finds out.
    pub pinned: Option<Digest>,
    /// What it says.
    pub spec: Spec,
}

/// All objects of a fleet.
pub type Objects = BTreeMap<Key, Arc<Object>>;

/// The apps of a set.
pub(crate) fn apps(objects: &Objects) -> impl Iterator<Item = (&Object, &AppSpec)> {
    // Not all objects: there may be a hundred thousand devices among them.
    let from = objects.range(Key::new(Kind::App, "")..);
    from.take_while(|(key, _)| key.kind == Kind::App).filter_map(|(_, o)| match &o.spec {
        Spec::App(app) => Some((&**o, app)),
        _ => None,
    })
}
