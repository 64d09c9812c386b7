//! Datastores, content trees and volumes.

use serde::{Deserialize, Serialize};

use crate::{Bytes, ContentId, DatastoreId, Digest, Secret, VolumeId};

/// Where content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datastore {
    /// Its id.
    pub id: DatastoreId,
    /// Its protocol.
    pub kind: DatastoreKind,
    /// Host and optional port, without a scheme: `registry.example:5000`. For object stores (S3,
    /// Azure, Google) the endpoint as it came, scheme included; empty means the provider's own.
    pub host: String,
    /// In front of every path; without slashes at its ends.
    pub prefix: String,
    /// Certificates it may present beyond the system's, as PEM.
    pub trust_pem: Vec<String>,
    /// Region of an S3 store; empty means `us-west-2`.
    #[serde(default)]
    pub region: String,
    /// User and password, or key and secret key. `None`: anyone may read.
    #[serde(default)]
    pub credentials: Option<Credentials>,
}

/// Who we are to a datastore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// User, account or access key.
    pub user: Secret,
    /// Password or secret key.
    pub password: Secret,
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
    /// Amazon S3 or what speaks like it.
    S3,
    /// SSH file transfer.
    Sftp,
    /// Azure blob storage.
    Azure,
    /// Google cloud storage.
    Gcs,
}

impl DatastoreKind {
    /// Whether it is a cloud's object store: the prefix is a bucket, the host may be empty.
    pub fn is_object_store(self) -> bool {
        matches!(self, Self::S3 | Self::Azure | Self::Gcs)
    }
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
    /// Another generation is another content tree.
    #[serde(default)]
    pub generation: u64,
    /// Free text that travels with it.
    #[serde(default)]
    pub custom_metadata: String,
}

/// Formats of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageFormat {
    /// Raw disk.
    Raw,
    /// QCOW disk.
    Qcow,
    /// QCOW2 disk.
    Qcow2,
    /// VHD disk.
    Vhd,
    /// VMDK disk.
    Vmdk,
    /// OVA appliance.
    Ova,
    /// VHDX disk.
    Vhdx,
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
    /// Whether it may lie outside the encrypted vault.
    #[serde(default)]
    pub clear_text: bool,
    /// What a virtual machine takes it for.
    #[serde(default)]
    pub target: VolumeTarget,
}

/// What a virtual machine takes a volume for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeTarget {
    /// A disk or a root.
    #[default]
    Disk,
    /// Its kernel.
    Kernel,
    /// Its initial ramdisk.
    Initrd,
    /// A disk in memory.
    RamDisk,
    /// What the app makes of it.
    Custom,
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
