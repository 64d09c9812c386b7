//! Identifiers that say what they identify.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A UUID that knows its kind: an app's id is no volume's id.
pub struct Id<Kind> {
    raw: Uuid,
    kind: PhantomData<fn() -> Kind>,
}

/// Marks the id of a node.
#[derive(Debug)]
pub enum Device {}
/// Marks the id of an app instance.
#[derive(Debug)]
pub enum App {}
/// Marks the id of a volume.
#[derive(Debug)]
pub enum Volume {}
/// Marks the id of a content tree: what is downloaded.
#[derive(Debug)]
pub enum Content {}
/// Marks the id of a datastore: where content comes from.
#[derive(Debug)]
pub enum Datastore {}
/// Marks the id of a network: the addressing of a port.
#[derive(Debug)]
pub enum Network {}
/// Marks the id of a network instance: a virtual network for apps.
#[derive(Debug)]
pub enum NetworkInstance {}
/// Marks the id of a patch envelope: files handed to apps.
#[derive(Debug)]
pub enum Patch {}

/// The id of a node, given by the controller.
pub type DeviceId = Id<Device>;
/// The id of an app instance.
pub type AppId = Id<App>;
/// The id of a volume.
pub type VolumeId = Id<Volume>;
/// The id of a content tree.
pub type ContentId = Id<Content>;
/// The id of a datastore.
pub type DatastoreId = Id<Datastore>;
/// The id of a network (addressing of a port).
pub type NetworkId = Id<Network>;
/// The id of a network instance.
pub type NetworkInstanceId = Id<NetworkInstance>;
/// The id of a patch envelope.
pub type PatchId = Id<Patch>;

impl<K> Id<K> {
    /// The id with these bits.
    pub const fn new(raw: Uuid) -> Self {
        Id { raw, kind: PhantomData }
    }

    /// The bare UUID, for a wire that knows no kinds.
    pub const fn raw(&self) -> Uuid {
        self.raw
    }

    /// The first eight hexadecimal digits, for names with little room.
    pub fn short(&self) -> String {
        self.raw.simple().to_string()[..8].to_owned()
    }
}

impl<K> FromStr for Id<K> {
    type Err = uuid::Error;

    fn from_str(s: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(s.trim()).map(Id::new)
    }
}

impl<K> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.fmt(f)
    }
}

impl<K> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.fmt(f)
    }
}

// By hand, because a derive would ask the same of `Kind`.
impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.raw.cmp(&other.raw)
    }
}
impl<K> Hash for Id<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.raw.hash(state);
    }
}
impl<K> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.raw)
    }
}
impl<'de, K> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
