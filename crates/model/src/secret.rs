//! Texts that no log may show.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A secret in clear: a password, a token, a sealed app's user data. It prints as `Secret(…)`;
/// whoever wants the text asks for it by name.
///
/// Serializing writes the text: values that hold secrets stay in files of their owner.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// `None` for the empty text: the wire writes nothing so.
    pub fn some(text: &str) -> Option<Secret> {
        (!text.is_empty()).then(|| Secret(text.to_owned()))
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(…) Some(Secret(…))");
        assert_eq!(secret.reveal(), "hunter2");
        assert_eq!(Secret::some(""), None);
    }
}
