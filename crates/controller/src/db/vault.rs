//! Secrets at rest: what a `Secret` says is stored encrypted, in the table of objects and in their
//! history; so is what may hold one in between: configs that were given whole, tokens of EdgeView,
//! documents of rollouts and scheduled changes, keys of webhooks.
//!
//! AES-256-GCM with a random nonce; where it belongs (the kind and name of an object, the id of a
//! node) is authenticated with it, so that a row cannot be passed off as another. In its place stands
//! `{"sealed": {"key": ID, "nonce": BASE64, "text": BASE64}}`. The key is a file next to the other
//! keys of the controller, never in the database.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::fleet::uid;
use super::{Db, DbError, Doing, Tx, signed, text, unsigned};
use crate::objects::{Key, Kind};

const SEALING: &str = "seal the secrets that are stored in clear";
/// What is sealed begins so, and nothing else that stands in its place does.
const MARK: &[u8] = b"{\"sealed\":";
/// In the table `meta`: what the key is called that secrets are sealed with.
const KEY: &str = "secrets-key";
/// The same: the key that everything is sealed with, and which columns that is.
const SEALED: &str = "secrets-sealed";
/// Another number when a column is sealed that was not: then all are looked at once more.
const SEALED_COLUMNS: u32 = 1;
/// Columns beside the specs of objects that are sealed: of which table, and which column says where.
const OTHERS: [(&str, &str, &str); 5] = [
    ("devices", "id", "given"),
    ("devices", "id", "view_token"),
    ("scheduled", "name", "documents"),
    ("rollouts", "name", "plan"),
    ("alert_rules", "name", "secret"),
];

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

    /// What is stored in the place of these bytes.
    fn seal(&self, at: &At<'_>, plain: &[u8]) -> Result<String, DbError> {
        let mut bytes = plain.to_vec();
        let sealed = self.key.seal_in_place_append_tag(Aad::from(at.bytes()), &mut bytes);
        let nonce = sealed.map_err(|_| refused("seal with", &self.id))?;
        let (nonce, text) = (STANDARD.encode(nonce.as_ref()), STANDARD.encode(&bytes));
        let stored = Stored { sealed: Sealed { key: self.id.clone(), nonce, text } };
        serde_json::to_string(&stored).map_err(|e| at.damaged(e.to_string()))
    }

    fn open(&self, at: &At<'_>, sealed: &Sealed) -> Result<Vec<u8>, DbError> {
        if sealed.key != self.id {
            let why = format!("it is sealed with key {}, this is {}", sealed.key, self.id);
            return Err(at.damaged(why));
        }
        let bytes = |text: &str| STANDARD.decode(text).map_err(|e| at.damaged(e.to_string()));
        let foreign = |_| at.damaged("it was changed since it was sealed".to_owned());
        let nonce = Nonce::try_assume_unique_for_key(&bytes(&sealed.nonce)?).map_err(foreign)?;
        let mut text = bytes(&sealed.text)?;
        let opened = self.key.open_in_place(nonce, Aad::from(at.bytes()), &mut text);
        Ok(opened.map_err(foreign)?.to_vec())
    }
}

/// Where a secret stands in the database.
#[derive(Debug, Clone, Copy)]
pub(super) enum At<'a> {
    /// What an object says.
    Object(&'a Key),
    /// The config that a node was given whole.
    Given(Uuid),
    /// The token of a node's session of EdgeView.
    View(Uuid),
    /// The documents of a scheduled change.
    Scheduled(&'a str),
    /// What a rollout is about.
    Rollout(&'a str),
    /// What the calls of an alert rule's webhook are signed with.
    Webhook(&'a str),
}

impl At<'_> {
    /// What is authenticated with a secret. No kind of object has a small letter first.
    fn bytes(&self) -> Vec<u8> {
        match self {
            At::Object(key) => format!("{}\0{}", key.kind.name(), key.name),
            At::Given(id) => format!("given\0{id}"),
            At::View(id) => format!("edgeview\0{id}"),
            At::Scheduled(name) => format!("scheduled\0{name}"),
            At::Rollout(name) => format!("rollout\0{name}"),
            At::Webhook(name) => format!("webhook\0{name}"),
        }
        .into_bytes()
    }

    fn damaged(&self, why: String) -> DbError {
        let what = match self {
            At::Object(key) => format!("object {key}"),
            At::Given(id) => format!("config given to device {id}"),
            At::View(id) => format!("EdgeView session of device {id}"),
            At::Scheduled(name) => format!("scheduled change {name}"),
            At::Rollout(name) => format!("rollout {name}"),
            At::Webhook(name) => format!("secret of the alert rule {name}"),
        };
        DbError::Damaged { what, why }
    }
}

fn text_of(at: &At<'_>, bytes: Vec<u8>) -> Result<String, DbError> {
    String::from_utf8(bytes).map_err(|e| at.damaged(e.to_string()))
}

fn refused(doing: &str, id: &str) -> DbError {
    DbError::Damaged { what: format!("key {id}"), why: format!("cannot {doing} it") }
}

impl Db {
    /// From now on secrets are sealed with this key; those that are stored in clear are sealed now,
    /// unless it is noted that none is.
    pub(crate) async fn keep_secrets(&mut self, vault: Vault) -> Result<(), DbError> {
        let first = self.meta(KEY, || vault.id().as_bytes().to_vec()).await?;
        if first != vault.id().as_bytes() {
            let named = String::from_utf8_lossy(&first).into_owned();
            return Err(DbError::OtherSecretsKey { stored: named, ours: vault.id().to_owned() });
        }
        let mark = format!("{} {SEALED_COLUMNS}", vault.id());
        self.vault = Some(std::sync::Arc::new(vault));
        if self.noted(SEALED).await?.as_deref() == Some(mark.as_bytes()) {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        self.seal_objects(&mut tx).await?;
        for (table, name, column) in OTHERS {
            self.seal_column(&mut tx, table, name, column).await?;
        }
        sqlx::query("INSERT INTO meta VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = $2")
            .bind(SEALED)
            .bind(mark.into_bytes())
            .execute(&mut *tx)
            .await
            .doing(SEALING)?;
        tx.commit().await.doing(SEALING)
    }

    /// Refuses a database whose secrets are sealed: for who has no key at all.
    pub(crate) async fn has_no_secrets(&self) -> Result<(), DbError> {
        let Some(first) = self.noted(KEY).await? else { return Ok(()) };
        let stored = String::from_utf8_lossy(&first).into_owned();
        Err(DbError::OtherSecretsKey { stored, ours: "not there".to_owned() })
    }

    /// Seals what secrets say in clear; what another process wrote meanwhile stays, as below.
    async fn seal_objects(&self, tx: &mut Tx) -> Result<(), DbError> {
        let sealed = "spec IS NOT NULL AND spec NOT LIKE '{\"sealed\":%'";
        for (table, revision) in [("objects", "0"), ("object_history", "revision")] {
            let sql = format!(
                "SELECT name, spec, CAST({revision} AS BIGINT) FROM {table}
                 WHERE kind = $1 AND {sealed}"
            );
            let rows = sqlx::query(AssertSqlSafe(sql))
                .bind(Kind::Secret.name())
                .fetch_all(&mut **tx)
                .await
                .doing(SEALING)?;
            for row in &rows {
                let name: String = row.try_get(0).doing(SEALING)?;
                let spec: String = row.try_get(1).doing(SEALING)?;
                let at = unsigned(row.try_get(2).doing(SEALING)?);
                let key = Key::new(Kind::Secret, name);
                let written = serde_json::from_str(&spec)
                    .map_err(|e| At::Object(&key).damaged(e.to_string()))?;
                let sql = format!(
                    "UPDATE {table} SET spec = $3 WHERE kind = $1 AND name = $2
                     AND CAST({revision} AS BIGINT) = $4 AND spec = $5"
                );
                sqlx::query(AssertSqlSafe(sql))
                    .bind(Kind::Secret.name())
                    .bind(&key.name)
                    .bind(self.spec_text(&key, &written)?)
                    .bind(signed(at))
                    .bind(&spec)
                    .execute(&mut **tx)
                    .await
                    .doing(SEALING)?;
            }
        }
        Ok(())
    }

    /// Seals what a column of bytes or text holds in clear, unless another process wrote something
    /// else there since it was read: that one seals by itself.
    async fn seal_column(
        &self,
        tx: &mut Tx,
        table: &str,
        name: &str,
        column: &str,
    ) -> Result<(), DbError> {
        let (bytes, id) = (matches!(column, "given" | "secret"), name == "id");
        let sql = format!("SELECT {name}, {column} FROM {table} WHERE {column} IS NOT NULL");
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut **tx).await.doing(SEALING)?;
        for row in &rows {
            let plain = if bytes {
                row.try_get::<Vec<u8>, _>(1).doing(SEALING)?
            } else {
                row.try_get::<String, _>(1).doing(SEALING)?.into_bytes()
            };
            if plain.starts_with(MARK) {
                continue;
            }
            let device = if id { uid(row, 0, "device")? } else { Uuid::nil() };
            let named =
                if id { String::new() } else { row.try_get::<String, _>(0).doing(SEALING)? };
            let at = match column {
                "given" => At::Given(device),
                "view_token" => At::View(device),
                "documents" => At::Scheduled(&named),
                "plan" => At::Rollout(&named),
                _ => At::Webhook(&named),
            };
            let sealed = self.sealed(&at, &plain)?;
            let sql =
                format!("UPDATE {table} SET {column} = $2 WHERE {name} = $1 AND {column} = $3");
            let query = sqlx::query(AssertSqlSafe(sql));
            let query = match id {
                true => query.bind(device.as_bytes().to_vec()),
                false => query.bind(named.clone()),
            };
            let query = match bytes {
                true => query.bind(sealed.into_bytes()).bind(plain),
                false => query.bind(sealed).bind(text_of(&at, plain)?),
            };
            query.execute(&mut **tx).await.doing(SEALING)?;
        }
        Ok(())
    }

    /// What is stored in the place of this text.
    pub(super) fn sealed(&self, at: &At<'_>, plain: &[u8]) -> Result<String, DbError> {
        text_of(at, self.sealed_bytes(at, plain)?)
    }

    /// What is stored in the place of these bytes.
    pub(super) fn sealed_bytes(&self, at: &At<'_>, plain: &[u8]) -> Result<Vec<u8>, DbError> {
        match &self.vault {
            Some(vault) => vault.seal(at, plain).map(String::into_bytes),
            None => Ok(plain.to_vec()),
        }
    }

    /// What [`Db::sealed_bytes`] was given; also what is stored in clear, as older controllers wrote.
    pub(super) fn opened(&self, at: &At<'_>, stored: Vec<u8>) -> Result<Vec<u8>, DbError> {
        if !stored.starts_with(MARK) {
            return Ok(stored);
        }
        match (serde_json::from_slice::<Stored>(&stored), &self.vault) {
            (Ok(found), Some(vault)) => vault.open(at, &found.sealed),
            (Ok(found), None) => {
                Err(at.damaged(format!("it is sealed with key {}", found.sealed.key)))
            }
            (Err(e), _) => Err(at.damaged(e.to_string())),
        }
    }

    /// The same of text.
    pub(super) fn opened_text(&self, at: &At<'_>, stored: String) -> Result<String, DbError> {
        text_of(at, self.opened(at, stored.into_bytes())?)
    }

    /// The text that is stored for what an object says.
    pub(super) fn spec_text(&self, key: &Key, written: &Value) -> Result<String, DbError> {
        match key.kind {
            Kind::Secret => self.sealed(&At::Object(key), written.to_string().as_bytes()),
            _ => Ok(text(&written.to_string())),
        }
    }

    /// What an object says, of the text that is stored.
    pub(super) fn spec_written(&self, key: &Key, stored: &str) -> Result<Value, DbError> {
        let at = At::Object(key);
        let read =
            |text: &[u8]| serde_json::from_slice(text).map_err(|e| at.damaged(e.to_string()));
        match key.kind {
            Kind::Secret => read(&self.opened(&at, stored.as_bytes().to_vec())?),
            _ => read(stored.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_shows_nothing_and_opens_in_its_place_only() {
        let vault = Vault::new(&[7; 32]).unwrap();
        let key = Key::new(Kind::Secret, "wifi");
        let (at, written) = (At::Object(&key), b"hunter2");
        let stored = vault.seal(&at, written).unwrap();
        assert!(stored.as_bytes().starts_with(MARK));
        assert!(!stored.contains("hunter2"));
        assert_ne!(stored, vault.seal(&at, written).unwrap(), "another nonce each time");
        let sealed = |text: &str| serde_json::from_str::<Stored>(text).unwrap().sealed;
        assert_eq!(vault.open(&at, &sealed(&stored)).unwrap(), written);
        let other = Key::new(Kind::Secret, "other");
        vault.open(&At::Object(&other), &sealed(&stored)).unwrap_err();
        vault.open(&At::Scheduled("wifi"), &sealed(&stored)).unwrap_err();
        let e = Vault::new(&[8; 32]).unwrap().open(&at, &sealed(&stored)).unwrap_err();
        assert!(e.to_string().contains(vault.id()), "{e}");
        let mut changed = sealed(&stored);
        let mut bytes = STANDARD.decode(&changed.text).unwrap();
        bytes[3] ^= 1;
        changed.text = STANDARD.encode(bytes);
        vault.open(&at, &changed).unwrap_err();
    }
}
