//! What a node is told of itself: its base image, its disks, whom else it listens to.

use serde::{Deserialize, Serialize};

use crate::{AppId, ContentId, DatastoreId, Secret, UnixMillis, VolumeId};

/// The image the node itself should run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseOs {
    /// What holds it.
    pub content: ContentId,
    /// Must be what the image says of itself.
    pub version: String,
    /// Whether to boot it, not only to fetch it.
    pub activate: bool,
    /// A version that failed is tried again when this changes.
    pub retry: u32,
}

/// A server beside an app that may choose the profile (EVE API, local profile server).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalServer {
    /// Host and optional port.
    pub address: String,
    /// What it must send along.
    pub token: Secret,
}

/// A console beside the node that stands in when the controller cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalConsole {
    /// Its base.
    pub url: String,
    /// Where support bundles go, tried in this order.
    pub bundles: Vec<DatastoreId>,
}

/// An EdgeView session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeView {
    /// The signed token.
    pub token: Secret,
    /// Certificates of the dispatcher, PEM.
    pub dispatcher_pem: Vec<String>,
    /// Whether the node may be looked at.
    pub device: bool,
    /// Whether apps may be looked at.
    pub apps: bool,
    /// Whether what is beyond the node may be reached.
    pub external: bool,
    /// Another one is another session.
    pub generation: u32,
}

/// Files handed to apps through the metadata server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchEnvelope {
    /// Its id.
    pub id: crate::PatchId,
    /// For people.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether apps may have it, not only the node.
    pub activate: bool,
    /// What is in it.
    pub artifacts: Vec<Artifact>,
    /// The apps that may have it.
    pub apps: Vec<AppId>,
    /// When it was made. `None`: not said.
    pub created: Option<UnixMillis>,
}

/// A file of a patch envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its name.
    pub file: String,
    /// What is in it.
    pub body: ArtifactBody,
    /// Of the file, free text.
    pub file_metadata: Option<String>,
    /// Of the artifact, free text.
    pub metadata: Option<String>,
    /// Whether file and metadata travel sealed.
    pub sealed: bool,
}

/// What is in a file of a patch envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactBody {
    /// Its bytes, at most [`INLINE_MAX`] in base64.
    Inline(Vec<u8>),
    /// The content of a volume.
    Volume {
        /// Which.
        volume: VolumeId,
        /// Name of its image, for people.
        image: String,
    },
}

/// So many bytes of base64 a file may have that travels in the config (EVE API, patch envelopes).
pub const INLINE_MAX: usize = 10 * 1024;

/// A way to get certificates (SCEP).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Ports refer to it by this.
    pub name: String,
    /// The server.
    pub url: String,
    /// Whether the controller stands between.
    pub via_controller: bool,
    /// What the server asks for. `None`: nothing.
    pub challenge: Option<Secret>,
    /// Certificates of its authority, PEM.
    pub ca_pem: Vec<String>,
    /// What the certificate says.
    pub request: CertificateRequest,
}

/// What a certificate is to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CertificateRequest {
    /// Common name.
    pub common_name: String,
    /// Organization.
    pub organization: String,
    /// Unit of it.
    pub unit: String,
    /// Country, two letters.
    pub country: String,
    /// State or province.
    pub state: String,
    /// City.
    pub locality: String,
    /// Host names.
    pub dns: Vec<String>,
    /// Addresses.
    pub ip: Vec<String>,
    /// URIs.
    pub uri: Vec<String>,
    /// Mail addresses.
    pub email: Vec<String>,
    /// Renewed after so many hundredths of its life; 0: the node's choice.
    pub renew_percent: u8,
    /// Its key.
    pub key: CertificateKey,
    /// Its hash.
    pub hash: CertificateHash,
}

/// Keys of certificates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateKey {
    /// The node's choice.
    #[default]
    Unspecified,
    /// RSA, 2048 bits.
    Rsa2048,
    /// RSA, 3072 bits.
    Rsa3072,
    /// RSA, 4096 bits.
    Rsa4096,
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
}

/// Hashes of certificates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateHash {
    /// The node's choice.
    #[default]
    Unspecified,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// How a port proves who it is to a switch (802.1X, EAP-TLS).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortAccess {
    /// Label of the port.
    pub port: String,
    /// The identity it shows.
    pub identity: String,
    /// The [`Enrolment`] whose certificate it shows.
    pub enrolment: String,
}

/// How disks are put together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Disks {
    /// Disks.
    pub disks: Vec<DiskUse>,
    /// How they are joined.
    pub array: DiskArray,
    /// Arrays of arrays.
    pub children: Vec<Disks>,
}

/// What a disk is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskUse {
    /// Which disk.
    pub disk: DiskName,
    /// The one it replaces.
    #[serde(default)]
    pub replaces: Option<DiskName>,
    /// What for.
    #[serde(default, rename = "use")]
    pub role: DiskRole,
}

/// How a disk is found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskName {
    /// Device name, as `/dev/sda`.
    pub name: String,
    /// Name in the node's model.
    pub label: String,
    /// Serial number.
    pub serial: String,
}

/// What a disk is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskRole {
    /// Nobody said.
    #[default]
    Unspecified,
    /// The node's system.
    System,
    /// The node's data.
    Persist,
    /// In an array and working.
    Online,
    /// In an array and resting.
    Offline,
    /// For apps as a whole.
    App,
    /// For nothing.
    Unused,
}

/// How disks are joined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskArray {
    /// Not at all.
    #[default]
    Unspecified,
    /// Striped.
    Raid0,
    /// Mirrored.
    Raid1,
    /// One may fail.
    Raid5,
    /// Two may fail.
    Raid6,
}

/// Whom a node belongs to; passed on to apps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Name of its project.
    pub project: String,
    /// Id of its project, a UUID; empty: none.
    pub project_id: String,
    /// Name of its enterprise.
    pub enterprise: String,
    /// Id of its enterprise, free text.
    pub enterprise_id: String,
}

/// What the hardware is called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Who made it.
    pub manufacturer: String,
    /// What they call it.
    pub name: String,
}
