//! What nodes said, in the order in which it came.

use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::{Db, DbError, Doing, signed, unsigned};

/// A message as it came, and its number; numbers grow.
pub(crate) type Numbered = (u64, Vec<u8>);

/// A certificate that a node showed: its kind (EVE API), the hash it gave, PEM.
pub(crate) type ShownCert = (i32, Vec<u8>, Vec<u8>);

impl Db {
    /// Info messages of a node after a number, the oldest `limit` of them.
    pub(crate) async fn infos_after(
        &self,
        device: Uuid,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Numbered>, DbError> {
        let doing = "read the info messages of a device";
        let rows = sqlx::query(
            "SELECT id, payload FROM info_history WHERE device = $1 AND id > $2
             ORDER BY id LIMIT $3",
        )
        .bind(device.as_bytes().as_slice())
        .bind(signed(after))
        .bind(i64::from(limit))
        .fetch_all(self.read())
        .await
        .doing(doing)?;
        rows.iter().map(numbered).collect::<Result<_, _>>().doing(doing)
    }

    /// Messages of a kind that are kept as they came, after a number, the oldest `limit` of them.
    /// Those that were moved away because they are large are left out.
    pub(crate) async fn messages_after(
        &self,
        device: Uuid,
        kind: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Numbered>, DbError> {
        let doing = "read messages of a device";
        let rows = sqlx::query(
            "SELECT id, payload FROM messages WHERE device = $1 AND kind = $2 AND id > $3
                 AND blob IS NULL
             ORDER BY id LIMIT $4",
        )
        .bind(device.as_bytes().as_slice())
        .bind(kind)
        .bind(signed(after))
        .bind(i64::from(limit))
        .fetch_all(self.read())
        .await
        .doing(doing)?;
        rows.iter().map(numbered).collect::<Result<_, _>>().doing(doing)
    }

    /// Log lines of a node (`app` empty) or of an app there, after a number, the oldest `limit`.
    pub(crate) async fn logs_after(
        &self,
        device: Uuid,
        app: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<super::LogRow>, DbError> {
        let doing = "read logs";
        let rows = sqlx::query(
            "SELECT id, at_ms, severity, source, content FROM logs
             WHERE device = $1 AND app = $2 AND id > $3 ORDER BY id LIMIT $4",
        )
        .bind(device.as_bytes().as_slice())
        .bind(app)
        .bind(signed(after))
        .bind(i64::from(limit))
        .fetch_all(self.read())
        .await
        .doing(doing)?;
        let line = |r: &AnyRow| {
            Ok(super::LogRow {
                id: unsigned(r.try_get(0)?),
                at: model::UnixMillis(unsigned(r.try_get(1)?)),
                severity: r.try_get(2)?,
                source: r.try_get(3)?,
                content: r.try_get(4)?,
            })
        };
        rows.iter().map(line).collect::<Result<_, _>>().doing(doing)
    }

    /// The certificates that a node has shown.
    pub(crate) async fn shown_certs(&self, device: Uuid) -> Result<Vec<ShownCert>, DbError> {
        let doing = "read the certificates of a device";
        let sql = "SELECT kind, hash, cert FROM device_certs WHERE device = $1 ORDER BY kind";
        let rows = sqlx::query(sql)
            .bind(device.as_bytes().as_slice())
            .fetch_all(self.read())
            .await
            .doing(doing)?;
        let cert = |r: &AnyRow| {
            let kind: i64 = r.try_get(0)?;
            Ok((i32::try_from(kind).unwrap_or(0), r.try_get(1)?, r.try_get(2)?))
        };
        rows.iter().map(cert).collect::<Result<_, _>>().doing(doing)
    }

    /// The nonce that waits for a quote of a node.
    pub(crate) async fn open_nonce(&self, device: Uuid) -> Result<Option<Vec<u8>>, DbError> {
        let doing = "read a nonce";
        let row = sqlx::query("SELECT nonce FROM nonces WHERE device = $1")
            .bind(device.as_bytes().as_slice())
            .fetch_optional(self.read())
            .await
            .doing(doing)?;
        row.map(|r| r.try_get(0)).transpose().doing(doing)
    }
}

fn numbered(row: &AnyRow) -> Result<Numbered, sqlx::Error> {
    Ok((unsigned(row.try_get(0)?), row.try_get(1)?))
}
