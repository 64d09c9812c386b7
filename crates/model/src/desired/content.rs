//! Datastores, content trees and volumes.

use serde::{Deserialize, Serialize};

use crate::{Bytes, ContentId, DatastoreId, Digest, VolumeId};

/// Where content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datastore {
    /// Its id.
    pub id: DatastoreId,
    /// Its protocol.
    pub kind: DatastoreKind,
    /// Host and optional port, without a scheme: `registry.example:5000`.
    pub host: String,
    /// In front of every path; without slashes at its ends.
    pub prefix: String,
    /// Certificates it may present beyond the system's, as PEM.
    pub trust_pem: Vec<String>,
}

/// The protocols of datastores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatastoreKind {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// An OCI distribution registry, over TLS.
    Registry,
}

/// What to download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Its id.
    pub id: ContentId,
    /// For people.
    pub name: String,
    /// Tried in this order.
    pub datastores: Vec<DatastoreId>,
    /// Path in the datastore; for a registry `repository:tag` or `repository@sha256:…`.
    pub url: String,
    /// What is in it.
    pub format: ImageFormat,
    /// What it must hash to: the file, or for an OCI image its manifest. `None`: whatever the tag
    /// says at first sight.
    pub sha256: Option<Digest>,
    /// Refused if larger. `None`: no limit of its own.
    pub max_size: Option<Bytes>,
}

/// Formats of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageFormat {
    /// Raw disk.
    Raw,
    /// QCOW2 disk.
    Qcow2,
    /// OCI image.
    Container,
    /// ISO 9660.
    Iso,
}

/// A disk or a root file system of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// Another generation is another volume.
    pub generation: u64,
    /// For people.
    pub name: String,
    /// What it starts as.
    pub origin: Origin,
    /// Its size or quota. `None`: that of its content.
    pub max_size: Option<Bytes>,
    /// Whether apps may not write to it.
    pub readonly: bool,
}

/// What a volume starts as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Nothing.
    Blank,
    /// A copy of this content.
    Content(ContentId),
}
