//! What the operator API says of users and tokens, as types. No secrets, but for a token's once.

use model::UnixMillis;
use serde::{Deserialize, Serialize};

use super::{Projects, Role};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Me {
    /// The user's name.
    pub name: String,
    /// What this token or session may do: at most what its user may.
    pub role: Role,
    /// For which projects; empty: all.
    #[serde(default)]
    pub projects: Projects,
    /// The token's name; `None`: a browser's session.
    pub token: Option<String>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name.
    pub name: String,
    /// What this user may do.
    pub role: Role,
    /// For which projects; empty: all.
    pub projects: Projects,
    /// Whether there is a password to log in with.
    pub password: bool,
    /// The OpenID provider that says who this is.
    pub provider: Option<String>,
    /// When the user was made; 1970: with the controller.
    pub created: UnixMillis,
}

/// A user to be, or to be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserSpec {
    /// What this user may do.
    pub role: Role,
    /// For which projects; empty: all.
    #[serde(default)]
    pub projects: Projects,
}

/// A password to be.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    /// The one of today; needed to change one's own.
    #[serde(default)]
    pub old: String,
    /// The one from now on.
    pub new: String,
}

impl std::fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewPassword")
    }
}

/// A token of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its name.
    pub name: String,
    /// What it may do: at most what its user may.
    pub role: Role,
    /// For which projects; empty: all of its user's.
    pub projects: Projects,
    /// When it was made.
    pub created: UnixMillis,
    /// When it ends; `None`: never.
    pub ends: Option<UnixMillis>,
    /// When it was last used, to a minute.
    pub used: Option<UnixMillis>,
}

/// A token to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSpec {
    /// Its name: 1 to 64 letters; another one of the user's must not have it.
    pub name: String,
    /// What it may do; `None`: what its maker may.
    #[serde(default)]
    pub role: Option<Role>,
    /// For which projects; empty: all of its maker's.
    #[serde(default)]
    pub projects: Projects,
    /// For how many hours; `None`: for ever.
    #[serde(default)]
    pub hours: Option<u32>,
}

/// A token that was made, or that a log-in gave: the only time its secret is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeToken {
    /// The secret: 64 hexadecimal digits.
    pub secret: String,
    /// What it is good for.
    pub token: Token,
    /// Whose it is.
    pub owner: String,
}

impl std::fmt::Debug for MadeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MadeToken").field("token", &self.token).finish_non_exhaustive()
    }
}

/// A log-in by name and password, for a token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The user's name.
    pub name: String,
    /// The password.
    pub password: String,
    /// What the token is to be; one of the same name is replaced.
    pub token: TokenSpec,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A link that logs in once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The path, below the controller's URL.
    pub path: String,
    /// For how many minutes it is good.
    pub minutes: u32,
}
