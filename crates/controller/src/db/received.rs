//! What nodes said, in the order in which it came.

use model::Digest;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::settled::Settled;
use super::{Db, DbError, Doing, signed, unsigned};

/// Bytes that a node sent, as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Grows with everything that is kept in the same table.
    pub(crate) id: u64,
    /// They themselves, if they are few.
    pub(crate) raw: Option<Vec<u8>>,
    /// Under what they lie in the object store, if they are many.
    pub(crate) blob: Option<Digest>,
}

/// What is kept of a node, one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Series<'a> {
    /// Its info messages.
    Info,
    /// Messages of a kind that have no table of their own.
    Messages(&'a str),
    /// Log files that can be read: of an app, or (empty) its own.
    Logs(&'a str),
}

impl<'a> Series<'a> {
    /// The table, its column of bytes, and the column in which its rows say this text.
    fn rows(self) -> (&'static str, &'static str, Option<(&'static str, &'a str)>) {
        match self {
            Series::Info => ("info_history", "payload", None),
            Series::Messages(kind) => ("messages", "payload", Some(("kind", kind))),
            Series::Logs(app) => ("log_bundles", "raw", Some(("refused IS NULL AND app", app))),
        }
    }
}

/// A certificate that a node showed: its kind (EVE API), the hash it gave, PEM.
pub(crate) type ShownCert = (i32, Vec<u8>, Vec<u8>);

impl Db {
    /// What a node sent after a number, the oldest `limit` of it: whoever goes on behind the last of
    /// it misses nothing.
    pub(crate) async fn said_after(
        &self,
        device: Uuid,
        series: Series<'_>,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Kept>, DbError> {
        let (table, ..) = series.rows();
        let found = self.said_between(device, series, (after, u64::MAX), limit).await?;
        match self.settled(table, after, found.last().map(|kept| kept.id)).await? {
            Settled::AsRead => Ok(found),
            Settled::UpTo(last) => self.said_between(device, series, (after, last), limit).await,
            Settled::NotYet => Ok(Vec::new()),
        }
    }

    /// With numbers above the first and up to the second.
    async fn said_between(
        &self,
        device: Uuid,
        series: Series<'_>,
        (after, upto): (u64, u64),
        limit: u32,
    ) -> Result<Vec<Kept>, DbError> {
        let doing = "read what a device said";
        let (table, bytes, such) = series.rows();
        let such_rows = such.map(|(column, _)| format!("AND {column} = $5")).unwrap_or_default();
        let sql = format!(
            "SELECT id, {bytes}, blob FROM {table}
             WHERE device = $1 AND id > $2 AND id <= $3 {such_rows} ORDER BY id LIMIT $4"
        );
        let query = sqlx::query(AssertSqlSafe(sql))
            .bind(device.as_bytes().as_slice())
            .bind(signed(after))
            .bind(signed(upto))
            .bind(i64::from(limit));
        let query = such.into_iter().fold(query, |query, (_, text)| query.bind(text));
        let rows = query.fetch_all(self.read()).await.doing(doing)?;
        rows.iter().map(|r| kept(r, doing)).collect()
    }

    /// The number of the newest that a node sent; 0: it sent nothing.
    pub(crate) async fn said_last(&self, device: Uuid, series: Series<'_>) -> Result<u64, DbError> {
        let doing = "read what a device said last";
        let (table, _, such) = series.rows();
        let such_rows = such.map(|(column, _)| format!("AND {column} = $2")).unwrap_or_default();
        let sql = format!("SELECT MAX(id) FROM {table} WHERE device = $1 {such_rows}");
        let query = sqlx::query(AssertSqlSafe(sql)).bind(device.as_bytes().as_slice());
        let query = such.into_iter().fold(query, |query, (_, text)| query.bind(text));
        let row = query.fetch_one(self.read()).await.doing(doing)?;
        let last: Option<i64> = row.try_get(0).doing(doing)?;
        Ok(last.map_or(0, unsigned))
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

/// Of the columns id, bytes, blob.
pub(super) fn kept(row: &AnyRow, doing: &'static str) -> Result<Kept, DbError> {
    let blob: Option<Vec<u8>> = row.try_get(2).doing(doing)?;
    let blob = blob.map(super::blobs::digest).transpose()?;
    // Columns that cannot be empty hold no bytes then.
    let raw = if blob.is_some() { None } else { row.try_get(1).doing(doing)? };
    Ok(Kept { id: unsigned(row.try_get(0).doing(doing)?), raw, blob })
}
