//! Passwords: Argon2id (RFC 9106), kept as PHC strings that carry their own parameters.

use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use super::{NoRandomness, random};

/// What a guess costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Cost {
    /// 19 MiB and two passes: tens of milliseconds.
    pub const USUAL: Cost = Cost { memory_kib: 19 << 10, passes: 2 };
}

/// Letters, at least.
pub const LENGTH_MIN: usize = 10;
/// Letters, at most: a longer one costs us time for nothing.
pub const LENGTH_MAX: usize = 256;
/// So many guesses are computed at once; more wait, and take no memory meanwhile.
const AT_ONCE: usize = 2;

/// Why a password is refused or cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too short.
    #[error("password: it has {0} letters; {LENGTH_MIN} are the least")]
    Short(usize),
    /// Too long.
    #[error("password: it has {0} letters; {LENGTH_MAX} are the most")]
    Long(usize),
    /// Who knows the name knows it.
    #[error("password: it must not be or contain the name")]
    Name,
    /// One letter over and over.
    #[error("password: it needs at least five different letters")]
    Plain,
    /// No random numbers.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// The hash could not be computed.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// Checks a new password of `name` against the rules: its length, not the name, some variety.
pub fn check(name: &str, password: &str) -> Result<(), PasswordError> {
    let length = password.chars().count();
    if length < LENGTH_MIN {
        return Err(PasswordError::Short(length));
    }
    if length > LENGTH_MAX {
        return Err(PasswordError::Long(length));
    }
    let (lower, name) = (password.to_lowercase(), name.to_lowercase());
    if name.chars().count() >= 3 && lower.contains(&name) {
        return Err(PasswordError::Name);
    }
    let different: std::collections::BTreeSet<char> = lower.chars().collect();
    if different.len() < 5 { Err(PasswordError::Plain) } else { Ok(()) }
}

/// What became of a guess.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Guess {
    Wrong,
    Right,
    /// Right, and kept at another cost than today's: this is to be kept instead.
    Rehashed(String),
}

/// Computes hashes, a few at a time, away from the threads that serve.
#[derive(Debug, Clone)]
pub(crate) struct Passwords {
    cost: Cost,
    room: Arc<Semaphore>,
}

impl Passwords {
    pub(crate) fn new(cost: Cost) -> Passwords {
        Passwords { cost, room: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The PHC string of a password.
    pub(crate) async fn hash(&self, password: &str) -> Result<String, PasswordError> {
        let (cost, password) = (self.cost, password.to_owned());
        self.away(move || hash(cost, &password)).await
    }

    /// Whether the password is the one that was kept. Without one (`None`) it is wrong, and finding
    /// that out takes as long.
    pub(crate) async fn try_one(
        &self,
        kept: Option<String>,
        password: &str,
    ) -> Result<Guess, PasswordError> {
        if password.len() > LENGTH_MAX * 4 {
            return Ok(Guess::Wrong);
        }
        let (cost, password) = (self.cost, password.to_owned());
        self.away(move || match kept {
            Some(kept) => guess(cost, &kept, &password),
            None => hash(cost, &password).map(|_| Guess::Wrong),
        })
        .await
    }

    async fn away<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let failed = |e: &dyn std::fmt::Display| PasswordError::Hash(e.to_string());
        // Held by the work itself: one whose asker is gone still takes its memory.
        let permit = self.room.clone().acquire_owned().await.map_err(|e| failed(&e))?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        done.await.map_err(|e| failed(&e))?
    }
}

fn argon(cost: Cost) -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(cost.memory_kib, cost.passes, 1, None)
        .map_err(|e| PasswordError::Hash(e.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(cost: Cost, password: &str) -> Result<String, PasswordError> {
    let failed = |e: argon2::password_hash::Error| PasswordError::Hash(e.to_string());
    let salt = SaltString::encode_b64(&random::<16>()?).map_err(failed)?;
    Ok(argon(cost)?.hash_password(password.as_bytes(), &salt).map_err(failed)?.to_string())
}

fn guess(cost: Cost, kept: &str, password: &str) -> Result<Guess, PasswordError> {
    let failed = |e: argon2::password_hash::Error| PasswordError::Hash(e.to_string());
    let parsed = PasswordHash::new(kept).map_err(failed)?;
    match Argon2::default().verify_password(password.as_bytes(), &parsed) {
        Ok(()) => {}
        Err(argon2::password_hash::Error::Password) => return Ok(Guess::Wrong),
        Err(e) => return Err(failed(e)),
    }
    let params = Params::try_from(&parsed).map_err(failed)?;
    let same = params.m_cost() >= cost.memory_kib && params.t_cost() >= cost.passes;
    if same { Ok(Guess::Right) } else { Ok(Guess::Rehashed(hash(cost, password)?)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1 };

    #[test]
    fn rules_are_few_and_clear() {
        assert_eq!(check("ann", "short"), Err(PasswordError::Short(5)));
        assert_eq!(check("ann", &"x".repeat(300)), Err(PasswordError::Long(300)));
        assert_eq!(check("johanna", "Johanna-2026!"), Err(PasswordError::Name));
        assert_eq!(check("ann", "ababababababab"), Err(PasswordError::Plain));
        assert_eq!(check("ann", "correct horse battery"), Ok(()));
        assert_eq!(check("ann", "ÄÖÜßéèêëñõ"), Ok(()), "letters count, not bytes");
    }

    #[test]
    fn a_kept_password_is_found_again_and_grows_with_the_cost() {
        let kept = hash(CHEAP, "correct horse").unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{kept}");
        assert_ne!(kept, hash(CHEAP, "correct horse").unwrap(), "salted");
        assert_eq!(guess(CHEAP, &kept, "correct horse"), Ok(Guess::Right));
        assert_eq!(guess(CHEAP, &kept, "wrong horse"), Ok(Guess::Wrong));
        let dear = Cost { memory_kib: 128, passes: 2 };
        let Ok(Guess::Rehashed(new)) = guess(dear, &kept, "correct horse") else { panic!() };
        assert!(new.contains("m=128,t=2"), "{new}");
        assert_eq!(guess(dear, &new, "correct horse"), Ok(Guess::Right));
        assert_eq!(guess(dear, &kept, "wrong horse"), Ok(Guess::Wrong), "no way in by a rehash");
        assert!(guess(CHEAP, "no PHC string", "x").is_err());
    }
}
