//! Who asks, and what they may.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::db::StoredObject;
use crate::fleet::Known;
use crate::objects::{Key, Kind, Spec};

/// What a user, a session or a token may do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Changes objects and drives nodes and apps.
    Operator,
    /// Everything: users, tokens of others, the audit log, the controller itself.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Role, String> {
        Role::ALL
            .into_iter()
            .find(|r| r.name() == text)
            .ok_or_else(|| format!("{text:?} is no role; there are viewer, operator and admin"))
    }
}

/// The projects that a user or a token is for; empty: all, and what belongs to none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Projects(pub BTreeSet<String>);

impl Projects {
    /// Whether everything is meant.
    pub fn all(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object of this project (`None`: of none) is meant.
    pub fn contain(&self, project: Option<&str>) -> bool {
        self.all() || project.is_some_and(|p| self.0.contains(p))
    }

    /// What both mean. `None`: nothing.
    pub(crate) fn both(&self, other: &Projects) -> Option<Projects> {
        match (self.all(), other.all()) {
            (true, _) => Some(other.clone()),
            (_, true) => Some(self.clone()),
            _ => {
                let both: BTreeSet<String> = self.0.intersection(&other.0).cloned().collect();
                (!both.is_empty()).then_some(Projects(both))
            }
        }
    }

    /// As the database keeps them: one a line.
    pub(crate) fn lines(&self) -> String {
        self.0.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn from_lines(text: &str) -> Projects {
        Projects(text.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect())
    }
}

/// The project that an object says it belongs to: `labels.project` or `project` of its spec, as
/// written; a project belongs to itself.
pub(crate) fn project_of<'a>(key: &'a Key, written: &'a Value) -> Option<&'a str> {
    if key.kind.name() == "Project" {
        return Some(&key.name);
    }
    let said = written.pointer("/labels/project").or_else(|| written.get("project"));
    said.and_then(Value::as_str)
}

/// The same of an object as it is kept.
pub(crate) fn kept_in(stored: &StoredObject) -> Option<Cow<'_, str>> {
    match &stored.object.spec {
        // There may be a hundred thousand of them to look at.
        Spec::Device(device) => {
            let said = device.labels.get("project").or(device.project.as_ref());
            said.map(|project| Cow::Borrowed(project.as_str()))
        }
        _ => {
            let written = stored.written.value();
            project_of(&stored.object.key, &written).map(|project| Cow::Owned(project.to_owned()))
        }
    }
}

/// Who makes a request, as its token or session says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The user's name; the author of what is changed.
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) projects: Projects,
    /// The token's name; `None`: a session of a browser.
    pub(crate) token: Option<String>,
    /// Which token or session it is: the hash of its secret.
    pub(crate) credential: Vec<u8>,
    pub(crate) address: Option<IpAddr>,
}

impl Caller {
    /// Whether the caller may see and, with a fitting role, change this object.
    pub(crate) fn covers(&self, stored: &StoredObject) -> bool {
        self.projects.contain(kept_in(stored).as_deref())
    }

    /// The same for an object by its kind and name; one that is not there is covered, so that the
    /// answer says that it is missing.
    pub(crate) fn covers_named(&self, known: &Known, kind: Kind, name: &str) -> bool {
        if self.projects.all() {
            return true;
        }
        let stored = match kind {
            Kind::Device => known.device_object(name),
            _ => known.stored.get(&Key::new(kind, name)).map(|s| &**s),
        };
        stored.is_none_or(|s| self.covers(s))
    }
}

/// For handlers. A route that was forgotten by the check before it must fail, not pass.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Caller, StatusCode> {
        parts.extensions.get::<Caller>().cloned().ok_or(StatusCode::UNAUTHORIZED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn projects(names: &[&str]) -> Projects {
        Projects(names.iter().map(|n| (*n).to_owned()).collect())
    }

    #[test]
    fn a_token_narrows_what_its_user_may() {
        let (all, a, ab, c) =
            (projects(&[]), projects(&["a"]), projects(&["a", "b"]), projects(&["c"]));
        assert_eq!(all.both(&a), Some(a.clone()));
        assert_eq!(ab.both(&all), Some(ab.clone()));
        assert_eq!(ab.both(&a), Some(a.clone()));
        assert_eq!(ab.both(&c), None, "nothing in common is nothing, not everything");
        assert!(all.contain(None) && !a.contain(None) && ab.contain(Some("b")));
        assert_eq!(Projects::from_lines(&ab.lines()), ab);
        assert!(Projects::from_lines("").all());
    }

    #[test]
    fn objects_say_their_project() {
        let key = Key::new(Kind::App, "web");
        for (written, project) in [
            (serde_json::json!({"labels": {"project": "a"}}), Some("a")),
            (serde_json::json!({"project": "b"}), Some("b")),
            (serde_json::json!({"project": 1}), None),
            (serde_json::json!({}), None),
        ] {
            assert_eq!(project_of(&key, &written), project, "{written}");
        }
    }

    #[test]
    fn roles_are_ordered_and_read_back() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }
}
