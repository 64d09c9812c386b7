//! Who may pull and who may push.
//!
//! Whoever pushes shows a token of the operator API: as the password of `docker login`, or as a
//! bearer token. Each node has a password of its own for pulling, an HMAC of its id with a key that
//! only controllers have; it opens images and nothing else. Clients of other make first ask `/v2/`,
//! are sent to `/v2/token` (docs of the distribution project, token authentication) and come back with
//! a short-lived token, which is signed and kept nowhere.

use std::time::Duration;

use aws_lc_rs::hmac;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::UnixMillis;
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

use super::refuse;
use crate::access::Role;
use crate::db::DbError;
use crate::fleet::Fleet;

/// So long a token of `/v2/token` counts; one layer may take that long.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// What somebody may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Nothing is known of him.
    Nobody,
    /// Read all images.
    Pull,
    /// And change them, under this name.
    Push(String),
}

/// Makes and checks what opens images.
#[derive(Clone)]
pub(crate) struct Keeper {
    key: hmac::Key,
    /// Anyone may pull.
    pub(crate) open: bool,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("open", &self.open).finish_non_exhaustive()
    }
}

impl Keeper {
    pub(crate) fn new(key: &[u8], open: bool) -> Keeper {
        Keeper { key: hmac::Key::new(hmac::HMAC_SHA256, key), open }
    }

    /// The password with which a node pulls; its name is its id.
    pub(crate) fn device_token(&self, id: Uuid) -> String {
        self.mac(&format!("device {id}"))
    }

    fn mac(&self, of: &str) -> String {
        hex::encode(hmac::sign(&self.key, of.as_bytes()))
    }

    fn is_mac(&self, mac: &str, of: &str) -> bool {
        // Compared in constant time.
        hex::decode(mac).is_ok_and(|mac| hmac::verify(&self.key, of.as_bytes(), &mac).is_ok())
    }

    /// A token that carries these rights until then.
    fn token(&self, rights: &Rights, until: UnixMillis) -> String {
        let (what, who) = match rights {
            Rights::Nobody => ("none", ""),
            Rights::Pull => ("pull", ""),
            Rights::Push(who) => ("push", who.as_str()),
        };
        let says = format!("{what}.{}.{}", until.0, hex::encode(who));
        format!("{says}.{}", self.mac(&format!("token {says}")))
    }

    /// What a token carries. `None`: it is none of ours, or too old.
    fn carried(&self, token: &str, now: UnixMillis) -> Option<Rights> {
        let (says, mac) = token.rsplit_once('.')?;
        if !self.is_mac(mac, &format!("token {says}")) {
            return None;
        }
        let mut parts = says.split('.');
        let (what, until, who) = (parts.next()?, parts.next()?, parts.next()?);
        if until.parse::<u64>().ok()? < now.0 {
            return None;
        }
        let who = String::from_utf8(hex::decode(who).ok()?).ok()?;
        match what {
            "none" => Some(Rights::Nobody),
            "pull" => Some(Rights::Pull),
            "push" => Some(Rights::Push(who)),
            _ => None,
        }
    }

    fn is_device(&self, known: bool, id: &str, password: &str) -> bool {
        let id = Uuid::parse_str(id);
        known && id.is_ok_and(|id| self.is_mac(password, &format!("device {id}")))
    }
}

/// What the sender of a request may do.
pub(crate) async fn rights(fleet: &Fleet, headers: &HeaderMap) -> Result<Rights, DbError> {
    let keeper = fleet.registry().keeper();
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let Some((scheme, given)) = given.and_then(|v| v.split_once(' ')) else {
        return Ok(Rights::Nobody);
    };
    let given = given.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        if let Some(rights) = keeper.carried(given, fleet.now()) {
            return Ok(rights);
        }
        return operator(fleet, given).await;
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Ok(Rights::Nobody);
    }
    let decoded = STANDARD.decode(given).ok().and_then(|raw| String::from_utf8(raw).ok());
    let Some((user, password)) = decoded.as_deref().and_then(|both| both.split_once(':')) else {
        return Ok(Rights::Nobody);
    };
    let known = Uuid::parse_str(user).is_ok_and(|id| {
        fleet.look(|known| {
            known.device(id).is_some_and(|d| d.gone.is_none() && d.quarantine.is_none())
        })
    });
    if keeper.is_device(known, user, password) {
        return Ok(Rights::Pull);
    }
    operator(fleet, password).await
}

async fn operator(fleet: &Fleet, token: &str) -> Result<Rights, DbError> {
    Ok(match fleet.access.by_token(token, fleet.now()).await? {
        // Images belong to no project.
        Some(caller) if caller.projects.all() && caller.role >= Role::Operator => {
            Rights::Push(caller.name)
        }
        Some(caller) if caller.projects.all() => Rights::Pull,
        _ => Rights::Nobody,
    })
}

/// Sends a client for a token.
pub(crate) fn challenge(headers: &HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("localhost");
    let fits = |c: char| c.is_ascii_alphanumeric() || ".:-[]_".contains(c);
    let host = if host.chars().all(fits) { host } else { "localhost" };
    let realm = format!("Bearer realm=\"https://{host}/v2/token\",service=\"eve\"");
    let why = refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "log in with a token to do this");
    ([(header::WWW_AUTHENTICATE, realm)], why).into_response()
}

/// `/v2/token`: a token for whoever says who he is; one for pulling for everybody, if all may.
pub(crate) async fn token(State(fleet): State<Arc<Fleet>>, headers: HeaderMap) -> Response {
    let rights = match rights(&fleet, &headers).await {
        Ok(rights) => rights,
        Err(e) => {
            tracing::error!("registry: {}", model::chain(&e));
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "UNKNOWN", "try again later");
        }
    };
    let keeper = fleet.registry().keeper();
    let rights = match rights {
        // Who shows something wrong is not let in as nobody: he would wonder later.
        Rights::Nobody if keeper.open && !headers.contains_key(header::AUTHORIZATION) => {
            Rights::Pull
        }
        Rights::Nobody => {
            let why = "the name or the password is wrong";
            let why = refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", why);
            let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"eve\"")];
            return (ask, why).into_response();
        }
        some => some,
    };
    let token = keeper.token(&rights, fleet.now().after(TOKEN_LIFE));
    axum::Json(json!({
        "token": token, "access_token": token, "expires_in": TOKEN_LIFE.as_secs(),
    }))
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_carries_what_was_given_until_it_ends() {
        let keeper = Keeper::new(b"key", false);
        let end = UnixMillis(1000);
        for rights in [Rights::Nobody, Rights::Pull, Rights::Push("ann.b".into())] {
            let token = keeper.token(&rights, end);
            assert_eq!(keeper.carried(&token, end), Some(rights.clone()));
            assert_eq!(keeper.carried(&token, UnixMillis(1001)), None, "too old");
            assert_eq!(Keeper::new(b"other", false).carried(&token, end), None);
            let forged = token.replacen("pull", "push", 1).replacen("1000", "9000", 1);
            assert_eq!(keeper.carried(&forged, end), None);
        }
        for bad in ["", ".", "...", "push.9999..", "x.y.z.w"] {
            assert_eq!(keeper.carried(bad, end), None, "{bad}");
        }
    }

    #[test]
    fn a_device_opens_with_its_own_password_only() {
        let keeper = Keeper::new(b"key", false);
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let password = keeper.device_token(one);
        assert!(keeper.is_device(true, &one.to_string(), &password));
        assert!(!keeper.is_device(false, &one.to_string(), &password), "it is gone");
        assert!(!keeper.is_device(true, &two.to_string(), &password));
        assert!(!keeper.is_device(true, "x", &password));
        assert_eq!(keeper.carried(&password, UnixMillis(0)), None, "it is no token");
    }
}
