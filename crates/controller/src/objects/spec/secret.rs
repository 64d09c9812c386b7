//! Secrets and references to them. No other object holds a secret itself.

use serde::{Deserialize, Serialize};

/// A named value that is shown to nobody.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretSpec {
    /// The value. It is kept, sent to the nodes that need it, and never shown again.
    pub value: model::Secret,
}

/// The name of a `Secret`: `{secret: NAME}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// Its name.
    pub secret: String,
}

/// A text, or the name of a secret that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a text or {secret: NAME}")]
pub enum TextOrSecret {
    /// The text itself.
    Text(String),
    /// A secret.
    Secret(SecretRef),
}

impl TextOrSecret {
    /// The secret, if it is one.
    pub fn secret(&self) -> Option<&SecretRef> {
        match self {
            TextOrSecret::Text(_) => None,
            TextOrSecret::Secret(secret) => Some(secret),
        }
    }
}
