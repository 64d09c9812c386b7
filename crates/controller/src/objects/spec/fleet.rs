//! Objects that belong to no single node: base images, enrolments, patches, projects, templates.

use std::collections::BTreeMap;

use model::desired::CertificateRequest;
use serde::{Deserialize, Serialize};

use super::secret::{SecretRef, TextOrSecret};

/// An image that nodes themselves run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseOsSpec {
    /// What holds it: the name of an image, or `repository:tag` in the datastore.
    pub image: String,
    /// Where `repository:tag` is looked for.
    #[serde(default = "super::local_name")]
    pub datastore: String,
    /// Must be what the image says of itself: devices refuse it otherwise.
    pub version: String,
    /// Whether to boot it, not only to fetch it.
    #[serde(default = "super::yes")]
    pub active: bool,
}

/// A way to get certificates (SCEP).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentSpec {
    /// The server.
    pub url: String,
    /// Whether this controller stands between.
    #[serde(default)]
    pub via_controller: bool,
    /// What the server asks for.
    #[serde(default)]
    pub challenge: Option<SecretRef>,
    /// Certificates of its authority, PEM.
    #[serde(default)]
    pub ca: Vec<String>,
    /// What the certificates say.
    #[serde(default)]
    pub request: CertificateRequest,
}

/// Files handed to apps through the metadata server of their node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchSpec {
    /// The apps that may have them; their nodes get them.
    pub apps: Vec<String>,
    /// Their version.
    #[serde(default)]
    pub version: String,
    /// Whether apps may have them now, not only the node.
    #[serde(default = "super::yes")]
    pub active: bool,
    /// The files.
    pub files: Vec<FileSpec>,
}

/// A file of a patch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// Its name.
    pub name: String,
    /// Its text, or the secret that holds it.
    #[serde(default)]
    pub text: Option<TextOrSecret>,
    /// Its bytes, base64.
    #[serde(default)]
    pub base64: Option<String>,
    /// Or the volume that holds it.
    #[serde(default)]
    pub volume: Option<String>,
    /// Free text that goes with it.
    #[serde(default)]
    pub metadata: Option<String>,
}

/// What people and their rights are grouped by.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProjectSpec {
    /// For people.
    pub description: String,
    /// The enterprise it belongs to; passed on to apps.
    pub enterprise: String,
    /// The id of that, free text.
    pub enterprise_id: String,
}

/// What devices have in common. A device that names it has these fields where it says nothing
/// itself; settings, labels and variables are joined, the device's own win.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateSpec {
    /// Variables that every device has, unless it says otherwise.
    #[serde(default, deserialize_with = "super::scalars")]
    pub variables: BTreeMap<String, String>,
    /// The spec of a device; `{{ name }}` in any text stands for a variable of the device.
    pub device: serde_json::Value,
}
