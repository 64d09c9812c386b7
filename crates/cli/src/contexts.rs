//! The controllers that a person has logged in to: `eve/contexts.json` in `$XDG_CONFIG_HOME` or
//! `~/.config`, for its owner only.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::{out, places};

const FILE: &str = "contexts.json";

/// All of them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Contexts {
    /// The one that is meant if none is named; empty: none.
    #[serde(default)]
    pub(crate) current: String,
    /// By name.
    #[serde(default)]
    pub(crate) known: BTreeMap<String, Context>,
}

/// A controller, and who one is there.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Context {
    pub(crate) url: String,
    pub(crate) user: String,
    pub(crate) token: String,
    /// What vouches for the controller: PEM, pinned when logging in.
    pub(crate) ca: String,
    /// SHA-256 of that; empty if it was given as a file.
    #[serde(default)]
    pub(crate) fingerprint: String,
}

/// Without the token.
impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("url", &self.url)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Contexts {
    /// Those that are kept; none if there is no file.
    pub(crate) fn load() -> anyhow::Result<Contexts> {
        Contexts::load_from(&places::config())
    }

    fn load_from(dir: &std::path::Path) -> anyhow::Result<Contexts> {
        let path = dir.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                let text = format!("{} is damaged: {e}", path.display());
                out::advised(text, "remove it and log in again with `eve login`")
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Contexts::default()),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Keeps them, and nobody else may read them.
    pub(crate) fn save(&self) -> anyhow::Result<PathBuf> {
        self.save_to(places::config())
    }

    fn save_to(&self, dir: PathBuf) -> anyhow::Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt;

        let mut folder = std::fs::DirBuilder::new();
        folder.recursive(true).mode(0o700);
        folder.create(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        store::save_with_mode(&dir, FILE, &serde_json::to_vec_pretty(self)?, 0o600)?;
        let path = dir.join(FILE);
        Ok(path)
    }

    /// The one of this name, or the current one.
    pub(crate) fn pick(&self, name: Option<&str>) -> anyhow::Result<Option<&Context>> {
        let Some(name) = name else { return Ok(self.known.get(&self.current)) };
        let names: Vec<&str> = self.known.keys().map(String::as_str).collect();
        let missing = || {
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            out::advised(
                format!("there is no context {name} (there are: {names})"),
                "log in with `eve login URL --as-context NAME`",
            )
        };
        self.known.get(name).map(Some).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn contexts_are_kept_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("eve");
        assert!(Contexts::load_from(&folder).unwrap().known.is_empty());
        let context = Context {
            url: "https://edge.example".into(),
            user: "ann".into(),
            token: "secret".into(),
            ca: "PEM".into(),
            fingerprint: String::new(),
        };
        assert!(!format!("{context:?}").contains("secret"));
        let known = BTreeMap::from([("edge".to_owned(), context)]);
        let path = Contexts { current: "edge".into(), known }.save_to(folder.clone()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let back = Contexts::load_from(&folder).unwrap();
        assert_eq!(back.pick(None).unwrap().unwrap().token, "secret");
        assert!(back.pick(Some("other")).unwrap_err().to_string().contains("there are: edge"));
        store::save(&folder, FILE, b"{").unwrap();
        assert!(Contexts::load_from(&folder).unwrap_err().to_string().contains("is damaged"));
    }
}
