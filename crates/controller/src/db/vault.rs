//! Secrets at rest: what a `Secret` says is stored encrypted, in the table of objects and in their
//! history.
//!
//! AES-256-GCM with a random nonce; the kind and name of the object are authenticated with it, so that
//! a row cannot be passed off as another. In place of the spec stands
//! `{"sealed": {"key": ID, "nonce": BASE64, "text": BASE64}}`. The key is a file next to the other
//! keys of the controller, never in the database.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::Row;

use super::{Db, DbError, Doing, signed, text, unsigned};
use crate::objects::{Key, Kind};

/// Seals and opens what secrets say.
pub(crate) struct Vault {
    key: RandomizedNonceKey,
    id: String,
}

/// Shows no key.
impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A spec as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    sealed: Sealed,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    /// Of the key that opens it.
    key: String,
    nonce: String,
    text: String,
}

impl Vault {
    /// One with this key of 256 bits.
    pub(crate) fn new(key: &[u8; 32]) -> Result<Vault, DbError> {
        let hash = Sha256::new_with_prefix(b"EVE controller: id of a secrets key\0");
        let id = hex::encode(&hash.chain_update(key).finalize()[..8]);
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| refused("use", &id))?;
        Ok(Vault { key, id })
    }

    /// What its key is called; says nothing of the key.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The text that is stored for what an object says.
    fn seal(&self, key: &Key, written: &Value) -> Result<String, DbError> {
        let mut bytes = written.to_string().into_bytes();
        let sealed = self.key.seal_in_place_append_tag(Aad::from(place(key)), &mut bytes);
        let nonce = sealed.map_err(|_| refused("seal with", &self.id))?;
        let (nonce, text) = (STANDARD.encode(nonce.as_ref()), STANDARD.encode(&bytes));
        let stored = Stored { sealed: Sealed { key: self.id.clone(), nonce, text } };
        serde_json::to_string(&stored).map_err(|e| damaged(key, e.to_string()))
    }

    fn open(&self, key: &Key, sealed: &Sealed) -> Result<Value, DbError> {
        if sealed.key != self.id {
            let why = format!("it is sealed with key {}, this is {}", sealed.key, self.id);
            return Err(damaged(key, why));
        }
        let bytes = |text: &str| STANDARD.decode(text).map_err(|e| damaged(key, e.to_string()));
        let foreign = |_| damaged(key, "it was changed since it was sealed".to_owned());
        let nonce = Nonce::try_assume_unique_for_key(&bytes(&sealed.nonce)?).map_err(foreign)?;
        let mut text = bytes(&sealed.text)?;
        let opened = self.key.open_in_place(nonce, Aad::from(place(key)), &mut text);
        serde_json::from_slice(opened.map_err(foreign)?).map_err(|e| damaged(key, e.to_string()))
    }
}

/// What is authenticated with a spec.
fn place(key: &Key) -> Vec<u8> {
    format!("{}\0{}", key.kind.name(), key.name).into_bytes()
}

fn damaged(key: &Key, why: String) -> DbError {
    DbError::Damaged { what: format!("object {key}"), why }
}

fn refused(doing: &str, id: &str) -> DbError {
    DbError::Damaged { what: format!("key {id}"), why: format!("cannot {doing} it") }
}

impl Db {
    /// From now on secrets are sealed with this key; those that are stored in clear are sealed now.
    pub(crate) async fn keep_secrets(&mut self, vault: Vault) -> Result<(), DbError> {
        let first = self.meta("secrets-key", || vault.id().as_bytes().to_vec()).await?;
        if first != vault.id().as_bytes() {
            let named = String::from_utf8_lossy(&first).into_owned();
            return Err(DbError::OtherSecretsKey { stored: named, ours: vault.id().to_owned() });
        }
        self.vault = Some(std::sync::Arc::new(vault));
        let doing = "seal the secrets that are stored in clear";
        let mut tx = self.begin().await?;
        let sealed = "spec IS NOT NULL AND spec NOT LIKE '{\"sealed\":%'";
        for (table, revision) in [("objects", "0"), ("object_history", "revision")] {
            let sql = format!(
                "SELECT name, spec, CAST({revision} AS BIGINT) FROM {table}
                 WHERE kind = $1 AND {sealed}"
            );
            let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(Kind::Secret.name())
                .fetch_all(&mut *tx)
                .await
                .doing(doing)?;
            for row in &rows {
                let name: String = row.try_get(0).doing(doing)?;
                let spec: String = row.try_get(1).doing(doing)?;
                let at = unsigned(row.try_get(2).doing(doing)?);
                let key = Key::new(Kind::Secret, name);
                let written =
                    serde_json::from_str(&spec).map_err(|e| damaged(&key, e.to_string()))?;
                let sql = format!(
                    "UPDATE {table} SET spec = $3 WHERE kind = $1 AND name = $2
                     AND CAST({revision} AS BIGINT) = $4"
                );
                sqlx::query(sqlx::AssertSqlSafe(sql))
                    .bind(Kind::Secret.name())
                    .bind(&key.name)
                    .bind(self.spec_text(&key, &written)?)
                    .bind(signed(at))
                    .execute(&mut *tx)
                    .await
                    .doing(doing)?;
            }
        }
        tx.commit().await.doing(doing)
    }

    /// The text that is stored for what an object says.
    pub(super) fn spec_text(&self, key: &Key, written: &Value) -> Result<String, DbError> {
        match &self.vault {
            Some(vault) if key.kind == Kind::Secret => vault.seal(key, written),
            _ => Ok(text(&written.to_string())),
        }
    }

    /// What an object says, of the text that is stored; also of one in clear, as older controllers
    /// wrote.
    pub(super) fn spec_written(&self, key: &Key, stored: &str) -> Result<Value, DbError> {
        let read = || serde_json::from_str(stored).map_err(|e| damaged(key, e.to_string()));
        if key.kind != Kind::Secret {
            return read();
        }
        match (serde_json::from_str::<Stored>(stored), &self.vault) {
            (Ok(found), Some(vault)) => vault.open(key, &found.sealed),
            (Ok(found), None) => {
                Err(damaged(key, format!("it is sealed with key {}", found.sealed.key)))
            }
            (Err(_), _) => read(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sealed_secret_shows_nothing_and_opens_in_its_place_only() {
        let vault = Vault::new(&[7; 32]).unwrap();
        let key = Key::new(Kind::Secret, "wifi");
        let written = json!({"value": "hunter2"});
        let stored = vault.seal(&key, &written).unwrap();
        assert!(!stored.contains("hunter2"));
        assert_ne!(stored, vault.seal(&key, &written).unwrap(), "another nonce each time");
        let sealed = |text: &str| serde_json::from_str::<Stored>(text).unwrap().sealed;
        assert_eq!(vault.open(&key, &sealed(&stored)).unwrap(), written);
        let other = Key::new(Kind::Secret, "other");
        vault.open(&other, &sealed(&stored)).unwrap_err();
        let e = Vault::new(&[8; 32]).unwrap().open(&key, &sealed(&stored)).unwrap_err();
        assert!(e.to_string().contains(vault.id()), "{e}");
        let mut changed = sealed(&stored);
        let mut bytes = STANDARD.decode(&changed.text).unwrap();
        bytes[3] ^= 1;
        changed.text = STANDARD.encode(bytes);
        vault.open(&key, &changed).unwrap_err();
    }
}
