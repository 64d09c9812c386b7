//! What objects said before.

use std::sync::Arc;

use model::UnixMillis;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::{Db, DbError, Doing, StoredObject, signed, unsigned};
use crate::objects::{Key, Object, WrittenSpec, read_spec};

/// A version of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// The revision of the fleet that made it.
    pub revision: u64,
    /// Counts changes of the spec; 0 if it was deleted.
    pub generation: u64,
    /// Who made it.
    pub author: String,
    /// When.
    pub at: UnixMillis,
    /// Its restart counter.
    pub restart: u32,
    /// Its purge counter.
    pub purge: u32,
    /// As it was written. `None`: it was deleted.
    pub spec: Option<serde_json::Value>,
}

const COLUMNS: &str =
    "revision, generation, author, at_ms, restart, purge, spec, uid, pinned FROM object_history";

impl Db {
    /// The newest versions of an object up to a revision, newest first.
    pub(crate) async fn versions(
        &self,
        key: &Key,
        upto: u64,
        limit: u32,
    ) -> Result<Vec<Version>, DbError> {
        let sql = format!(
            "SELECT {COLUMNS} WHERE kind = $1 AND name = $2 AND revision <= $3
             ORDER BY revision DESC LIMIT $4"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(key.kind.name())
            .bind(&key.name)
            .bind(signed(upto))
            .bind(i64::from(limit))
            .fetch_all(self.read())
            .await
            .doing("read the history of an object")?;
        rows.iter().map(|r| version(self, key, r)).collect()
    }

    /// The id an object had in a version. `None`: there is no such version, or it is older than this
    /// table knows ids.
    pub(crate) async fn uid_of_version(
        &self,
        key: &Key,
        revision: u64,
    ) -> Result<Option<Uuid>, DbError> {
        let doing = "read whose version it is";
        let row = sqlx::query(
            "SELECT uid FROM object_history WHERE kind = $1 AND name = $2 AND revision = $3",
        )
        .bind(key.kind.name())
        .bind(&key.name)
        .bind(signed(revision))
        .fetch_optional(self.read())
        .await
        .doing(doing)?;
        let Some(row) = row else { return Ok(None) };
        let raw: Option<Vec<u8>> = row.try_get(0).doing(doing)?;
        let damaged = |e: uuid::Error| DbError::Damaged {
            what: format!("version of {key}"),
            why: e.to_string(),
        };
        raw.map(|raw| Uuid::from_slice(&raw)).transpose().map_err(damaged)
    }

    /// An object as it was at a revision. `None`: it was not there. Versions older than this table
    /// know no id; they get `uid`.
    pub(crate) async fn object_as_of(
        &self,
        key: &Key,
        revision: u64,
        uid: Uuid,
    ) -> Result<Option<StoredObject>, DbError> {
        let doing = "read a version of an object";
        let sql = format!(
            "SELECT {COLUMNS} WHERE kind = $1 AND name = $2 AND revision <= $3
             ORDER BY revision DESC LIMIT 1"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(key.kind.name())
            .bind(&key.name)
            .bind(signed(revision))
            .fetch_optional(self.read())
            .await
            .doing(doing)?;
        let Some(row) = row else { return Ok(None) };
        let said = version(self, key, &row)?;
        let Some(written) = said.spec else { return Ok(None) };
        let damaged = |why: String| DbError::Damaged { what: format!("version of {key}"), why };
        let spec = read_spec(key, &written).map_err(|e| damaged(e.to_string()))?;
        let own: Option<Vec<u8>> = row.try_get(7).doing(doing)?;
        let own = own.map(|raw| Uuid::from_slice(&raw)).transpose();
        let pinned: Option<String> = row.try_get(8).doing(doing)?;
        let pinned = pinned.map(|p| p.parse()).transpose();
        let object = Object {
            key: key.clone(),
            uid: own.map_err(|e| damaged(e.to_string()))?.unwrap_or(uid),
            generation: said.generation,
            restart: said.restart,
            purge: said.purge,
            pinned: pinned.map_err(|e: model::DigestError| damaged(e.to_string()))?,
            spec,
        };
        Ok(Some(StoredObject {
            object: Arc::new(object),
            written: WrittenSpec::from(&written),
            changed: said.at,
        }))
    }
}

fn version(db: &Db, key: &Key, row: &AnyRow) -> Result<Version, DbError> {
    let doing = "read the history of an object";
    let count = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
    let spec: Option<String> = row.try_get(6).doing(doing)?;
    Ok(Version {
        revision: unsigned(row.try_get(0).doing(doing)?),
        generation: unsigned(row.try_get(1).doing(doing)?),
        author: row.try_get(2).doing(doing)?,
        at: UnixMillis(unsigned(row.try_get(3).doing(doing)?)),
        restart: count(row.try_get(4).doing(doing)?),
        purge: count(row.try_get(5).doing(doing)?),
        spec: spec.map(|s| db.spec_written(key, &s)).transpose()?,
    })
}
