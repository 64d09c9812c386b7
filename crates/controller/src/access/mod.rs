//! Who may use the operator API: one token for the administrator, sessions for browsers.
//!
//! A token is 32 random bytes; the database keeps its SHA-256 only. Sessions live in memory: after a
//! restart of the controller people log in again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::UnixMillis;
use sha2::{Digest as _, Sha256};

use crate::db::{Db, DbError};
use crate::pki::{PkiError, save_secret};

/// The file in the data folder that holds the administrator's token.
pub const TOKEN_FILE: &str = "admin.token";
const ADMIN: &str = "admin";
const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);
/// More browsers than this are not logged in at once; the oldest has to log in again.
const SESSIONS_MAX: usize = 256;

/// The machine gives no random numbers: nothing secret can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this machine gives no random numbers")]
pub struct NoRandomness;

/// Random bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut raw = [0; N];
    aws_lc_rs::rand::fill(&mut raw).map_err(|_| NoRandomness)?;
    Ok(raw)
}

/// 32 random bytes in hexadecimal digits.
pub(crate) fn random_hex() -> Result<String, NoRandomness> {
    random::<32>().map(hex::encode)
}

fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.trim().as_bytes()).to_vec()
}

/// Makes the administrator's token at the first start; returns it then.
pub(crate) async fn first_token(
    db: &Db,
    data: &Path,
    now: UnixMillis,
) -> Result<Option<String>, AccessError> {
    let made = db.meta("token-made", Vec::new).await?;
    if !made.is_empty() {
        return Ok(None);
    }
    // The file comes first: a cut before the database knows the token makes another one.
    let token = random_hex()?;
    save_secret(data, TOKEN_FILE, format!("{token}\n").as_bytes())?;
    db.set_token(ADMIN, &hash(&token), now).await?;
    db.set_meta("token-made", b"1").await?;
    Ok(Some(token))
}

/// Replaces the administrator's token; the old one is refused from now on.
pub(crate) async fn new_token(
    db: &Db,
    data: &Path,
    now: UnixMillis,
) -> Result<String, AccessError> {
    let token = random_hex()?;
    db.set_token(ADMIN, &hash(&token), now).await?;
    save_secret(data, TOKEN_FILE, format!("{token}\n").as_bytes())?;
    Ok(token)
}

/// Why a token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The database failed.
    #[error("cannot keep the administrator's token")]
    Db(#[from] DbError),
    /// The file could not be written.
    #[error("cannot write the administrator's token")]
    File(#[from] PkiError),
    /// There is nothing to make it of.
    #[error("cannot make the administrator's token")]
    Random(#[from] NoRandomness),
}

/// Whose token this is; `None` for nobody's.
pub(crate) async fn owner(db: &Db, token: &str) -> Result<Option<String>, DbError> {
    // Looked up by its hash: how long that takes says nothing about the token.
    db.token_name(&hash(token)).await
}

/// Browsers that have logged in.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<Vec<u8>, UnixMillis>>);

impl Sessions {
    /// A new session; the caller has checked the token.
    pub(crate) fn begin(&self, now: UnixMillis) -> Result<String, NoRandomness> {
        let session = random_hex()?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, end| *end > now);
        while all.len() >= SESSIONS_MAX {
            let Some(oldest) = all.iter().min_by_key(|(_, end)| **end).map(|(k, _)| k.clone())
            else {
                break;
            };
            all.remove(&oldest);
        }
        all.insert(hash(&session), now.after(SESSION_LIFE));
        Ok(session)
    }

    /// Whether the session holds.
    pub(crate) fn holds(&self, session: &str, now: UnixMillis) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&hash(session)).is_some_and(|end| *end > now)
    }

    /// Ends the session.
    pub(crate) fn end(&self, session: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash(session));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_holds_until_it_ends() {
        let sessions = Sessions::default();
        let start = UnixMillis(1_000);
        let session = sessions.begin(start).unwrap();
        assert!(sessions.holds(&session, start));
        assert!(!sessions.holds(&session, start.after(SESSION_LIFE)));
        assert!(!sessions.holds("guess", start));
        sessions.end(&session);
        assert!(!sessions.holds(&session, start));
    }

    #[test]
    fn there_is_room_for_so_many_sessions_only() {
        let sessions = Sessions::default();
        let first = sessions.begin(UnixMillis(0)).unwrap();
        for n in 1..=SESSIONS_MAX as u64 {
            sessions.begin(UnixMillis(n)).unwrap();
        }
        assert!(!sessions.holds(&first, UnixMillis(1)));
    }
}
