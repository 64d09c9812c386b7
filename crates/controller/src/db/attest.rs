//! What attestation keeps: certificates of nodes, nonces, verdicts, keys given into our care.

use std::time::Duration;

use api::convert::attest::{SealPolicy, VolumeKey};
use model::UnixMillis;
use sqlx::Row;
use uuid::Uuid;

use super::{Db, DbError, Doing, signed, text, unsigned};
use crate::attest::Policy;

/// The outcome of a node's last quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) at: UnixMillis,
    pub(crate) good: bool,
    /// JSON of a [`crate::attest::Judgement`].
    pub(crate) verdict: String,
}

/// What a certificate that a node shows is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// It is kept from now on.
    New,
    /// It was known.
    Before,
    /// Another one of its kind is there and stays: hardware does not change its keys (EVE API,
    /// attestation).
    Foreign,
}

impl Db {
    /// Keeps a further certificate of a node.
    pub(crate) async fn keep_device_cert(
        &self,
        id: Uuid,
        kind: i32,
        hash: &[u8],
        cert: &[u8],
        mutable: bool,
    ) -> Result<Shown, DbError> {
        let doing = "store a certificate of a device";
        let mut tx = self.begin().await?;
        let row = sqlx::query("SELECT hash FROM device_certs WHERE device = $1 AND kind = $2")
            .bind(id.as_bytes().as_slice())
            .bind(i64::from(kind))
            .fetch_optional(&mut *tx)
            .await
            .doing(doing)?;
        let before: Option<Vec<u8>> = row.map(|r| r.try_get(0)).transpose().doing(doing)?;
        if before.as_deref() == Some(hash) {
            return Ok(Shown::Before);
        }
        if before.is_some() && !mutable {
            return Ok(Shown::Foreign);
        }
        sqlx::query(
            "INSERT INTO device_certs VALUES ($1, $2, $3, $4)
             ON CONFLICT (device, kind) DO UPDATE SET hash = $3, cert = $4",
        )
        .bind(id.as_bytes().as_slice())
        .bind(i64::from(kind))
        .bind(hash)
        .bind(cert)
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        tx.commit().await.doing(doing)?;
        Ok(Shown::New)
    }

    /// A certificate of a node, PEM as it came.
    pub(crate) async fn device_cert(
        &self,
        id: Uuid,
        kind: i32,
    ) -> Result<Option<Vec<u8>>, DbError> {
        let doing = "read a certificate of a device";
        let row = sqlx::query("SELECT cert FROM device_certs WHERE device = $1 AND kind = $2")
            .bind(id.as_bytes().as_slice())
            .bind(i64::from(kind))
            .fetch_optional(self.read())
            .await
            .doing(doing)?;
        row.map(|r| r.try_get(0)).transpose().doing(doing)
    }

    /// Gives a node a nonce; an earlier one no longer counts.
    pub(crate) async fn put_nonce(
        &self,
        id: Uuid,
        nonce: &[u8],
        now: UnixMillis,
    ) -> Result<(), DbError> {
        sqlx::query(
            "INSERT INTO nonces VALUES ($1, $2, $3)
             ON CONFLICT (device) DO UPDATE SET nonce = $2, made_ms = $3",
        )
        .bind(id.as_bytes().as_slice())
        .bind(nonce)
        .bind(signed(now.0))
        .execute(self.write())
        .await
        .doing("store a nonce")
        .map(drop)
    }

    /// The nonce of a node if it is younger than `life`; asking uses it up.
    pub(crate) async fn take_nonce(
        &self,
        id: Uuid,
        now: UnixMillis,
        life: Duration,
    ) -> Result<Option<Vec<u8>>, DbError> {
        let doing = "take a nonce";
        let row = sqlx::query("DELETE FROM nonces WHERE device = $1 RETURNING nonce, made_ms")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.write())
            .await
            .doing(doing)?;
        let Some(row) = row else { return Ok(None) };
        let made = UnixMillis(unsigned(row.try_get(1).doing(doing)?));
        let nonce: Vec<u8> = row.try_get(0).doing(doing)?;
        // One from the future was made before our clock was set back.
        Ok((made <= now && now.since(made) < life).then_some(nonce))
    }

    /// Keeps the outcome of a quote.
    pub(crate) async fn put_verdict(&self, id: Uuid, verdict: &Verdict) -> Result<(), DbError> {
        sqlx::query(
            "INSERT INTO verdicts (device, at_ms, good, verdict) VALUES ($1, $2, $3, $4)
             ON CONFLICT (device) DO UPDATE SET at_ms = $2, good = $3, verdict = $4",
        )
        .bind(id.as_bytes().as_slice())
        .bind(signed(verdict.at.0))
        .bind(i64::from(verdict.good))
        .bind(text(&verdict.verdict))
        .execute(self.write())
        .await
        .doing("store a verdict")
        .map(drop)
    }

    /// The outcome of a node's last quote.
    pub(crate) async fn verdict(&self, id: Uuid) -> Result<Option<Verdict>, DbError> {
        let doing = "read a verdict";
        let row = sqlx::query("SELECT at_ms, good, verdict FROM verdicts WHERE device = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.read())
            .await
            .doing(doing)?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Verdict {
            at: UnixMillis(unsigned(row.try_get(0).doing(doing)?)),
            good: row.try_get::<i64, _>(1).doing(doing)? != 0,
            verdict: row.try_get(2).doing(doing)?,
        }))
    }

    /// What a node must prove, if somebody has said so.
    pub(crate) async fn baseline(&self, id: Uuid) -> Result<Option<Policy>, DbError> {
        let doing = "read what a device must prove";
        let row = sqlx::query("SELECT policy FROM baselines WHERE device = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.read())
            .await
            .doing(doing)?;
        let Some(row) = row else { return Ok(None) };
        let policy: String = row.try_get(0).doing(doing)?;
        let damaged = |e: serde_json::Error| DbError::Damaged {
            what: format!("baseline of device {id}"),
            why: e.to_string(),
        };
        serde_json::from_str(&policy).map(Some).map_err(damaged)
    }

    /// Says what a node must prove from now on.
    pub(crate) async fn set_baseline(
        &self,
        id: Uuid,
        policy: &Policy,
        author: &str,
        now: UnixMillis,
    ) -> Result<(), DbError> {
        sqlx::query(
            "INSERT INTO baselines VALUES ($1, $2, $3, $4)
             ON CONFLICT (device) DO UPDATE SET policy = $2, author = $3, at_ms = $4",
        )
        .bind(id.as_bytes().as_slice())
        // Digests and numbers: there is nothing in it that JSON could refuse.
        .bind(serde_json::to_string(policy).unwrap_or_default())
        .bind(text(author))
        .bind(signed(now.0))
        .execute(self.write())
        .await
        .doing("store what a device must prove")
        .map(drop)
    }

    /// Keeps sealed keys for a node, as the wire has them.
    pub(crate) async fn put_escrow(
        &self,
        id: Uuid,
        keys: &[VolumeKey],
        now: UnixMillis,
    ) -> Result<(), DbError> {
        let doing = "store a key for a device";
        let mut tx = self.begin().await?;
        for key in keys {
            let policy = key.policy.as_ref().map(|p| (&p.registers, p.id));
            // Numbers only: there is nothing in it that JSON could refuse.
            let policy = policy.map(|p| serde_json::to_string(&p).unwrap_or_default());
            sqlx::query(
                "INSERT INTO escrow VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (device, kind) DO UPDATE SET key = $3, policy = $4, at_ms = $5",
            )
            .bind(id.as_bytes().as_slice())
            .bind(i64::from(key.kind))
            .bind(key.key.as_slice())
            .bind(policy)
            .bind(signed(now.0))
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        }
        tx.commit().await.doing(doing)
    }

    /// The sealed keys kept for a node. Only for one whose quote was good a moment ago.
    pub(crate) async fn escrow(&self, id: Uuid) -> Result<Vec<VolumeKey>, DbError> {
        let doing = "read the keys of a device";
        let rows =
            sqlx::query("SELECT kind, key, policy FROM escrow WHERE device = $1 ORDER BY kind")
                .bind(id.as_bytes().as_slice())
                .fetch_all(self.read())
                .await
                .doing(doing)?;
        rows.iter()
            .map(|r| {
                let kind: i64 = r.try_get(0).doing(doing)?;
                let policy: Option<String> = r.try_get(2).doing(doing)?;
                let policy = policy.map(|p| serde_json::from_str(&p)).transpose();
                let policy = policy.map_err(|e| DbError::Damaged {
                    what: format!("key of device {id}"),
                    why: e.to_string(),
                })?;
                Ok(VolumeKey {
                    kind: i32::try_from(kind).unwrap_or(0),
                    key: r.try_get(1).doing(doing)?,
                    policy: policy.map(|(registers, id)| SealPolicy { registers, id }),
                })
            })
            .collect()
    }
}
