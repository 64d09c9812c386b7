//! The whole database, table by table, in words of no engine; and back.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::TryStreamExt;
use model::{Digest, UnixMillis};
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use super::blobs::digest;
use super::{Db, DbError, Doing, Engine, Location, Tx, migrations, signed};
use crate::blobs::Place;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Integer,
    Text,
    Bytes,
}

/// A table as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<(String, Holds)>,
}

/// What belongs to a database, not to a controller: never taken along.
const OWN: &[&str] = &[
    "schema_version",
    "sqlite_sequence",
    "sqlite_stat1",
    "leases",
    "restored",
    "uploads",
    "upload_parts",
];

fn damaged(what: &str, why: impl ToString) -> DbError {
    DbError::Damaged { what: what.to_owned(), why: why.to_string() }
}

impl Db {
    /// Opens a database as it is, of whatever version.
    pub(crate) async fn open_as_is(location: &Location) -> Result<Db, DbError> {
        if let Location::File(path) = location
            && !path.exists()
        {
            let source = sqlx::Error::Io(std::io::ErrorKind::NotFound.into());
            return Err(DbError::Open { location: location.clone(), source });
        }
        Db::connect(location).await
    }

    /// Makes the tables of a version.
    pub(crate) async fn make_tables(&self, version: i64) -> Result<(), DbError> {
        migrations::run_to(self, version).await
    }

    /// Brings the tables up to date.
    pub(crate) async fn migrate(&self) -> Result<(), DbError> {
        migrations::run(self).await
    }

    /// One moment of everything, to be read in peace while others write.
    pub(crate) async fn snapshot(&self) -> Result<Tx, DbError> {
        let begin = match self.engine() {
            Engine::Sqlite => "BEGIN",
            Engine::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        self.read().begin_with(begin).await.doing("begin to read everything")
    }

    /// The version of the tables.
    pub(crate) async fn version(&self, tx: &mut Tx) -> Result<i64, DbError> {
        let (doing, sql) = match self.engine() {
            Engine::Sqlite => ("tell its version", "PRAGMA user_version"),
            Engine::Postgres => ("tell its version", "SELECT n FROM schema_version"),
        };
        let row = sqlx::query(sql).fetch_one(&mut **tx).await.doing(doing)?;
        let small = |_| row.try_get::<i32, _>(0).map(i64::from);
        row.try_get::<i64, _>(0).or_else(small).doing(doing)
    }

    /// All tables of a controller, by name.
    pub(crate) async fn tables(&self, tx: &mut Tx) -> Result<Vec<Table>, DbError> {
        let doing = "list its tables";
        let sql = match self.engine() {
            Engine::Sqlite => {
                "SELECT m.name, c.name, c.type FROM sqlite_master m, pragma_table_info(m.name) c
                 WHERE m.type = 'table' ORDER BY m.name, c.cid"
            }
            Engine::Postgres => {
                "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT), CAST(data_type AS TEXT)
                 FROM information_schema.columns WHERE table_schema = current_schema()
                 ORDER BY table_name, ordinal_position"
            }
        };
        let rows = sqlx::query(sql).fetch_all(&mut **tx).await.doing(doing)?;
        let mut tables: Vec<Table> = Vec::new();
        for row in &rows {
            let (name, column, kind): (String, String, String) = (
                row.try_get(0).doing(doing)?,
                row.try_get(1).doing(doing)?,
                row.try_get(2).doing(doing)?,
            );
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if OWN.contains(&name.as_str()) || !name.chars().chain(column.chars()).all(plain) {
                continue;
            }
            let holds = match kind.to_ascii_lowercase().as_str() {
                "integer" | "bigint" => Holds::Integer,
                "text" => Holds::Text,
                "blob" | "bytea" => Holds::Bytes,
                other => return Err(damaged("table", format!("{name}.{column} is a {other}"))),
            };
            match tables.last_mut().filter(|t| t.name == name) {
                Some(table) => table.columns.push((column, holds)),
                None => tables.push(Table { name, columns: vec![(column, holds)] }),
            }
        }
        Ok(tables)
    }
}

/// Reads a table, row by row: each as a list in the order of the columns.
pub(crate) async fn each_row<E: From<DbError>>(
    tx: &mut Tx,
    table: &Table,
    mut each: impl FnMut(Vec<Value>) -> Result<(), E>,
) -> Result<(), E> {
    let columns: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
    let sql = format!("SELECT {} FROM {}", columns.join(", "), table.name);
    let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut **tx);
    while let Some(row) = rows.try_next().await.doing("read a table")? {
        each(values(table, &row)?)?;
    }
    Ok(())
}

fn values(table: &Table, row: &AnyRow) -> Result<Vec<Value>, DbError> {
    let value = |(at, (_, holds)): (usize, &(String, Holds))| {
        Ok(match holds {
            Holds::Integer => row.try_get::<Option<i64>, _>(at)?.map(Value::from),
            Holds::Text => row.try_get::<Option<String>, _>(at)?.map(Value::from),
            Holds::Bytes => {
                row.try_get::<Option<Vec<u8>>, _>(at)?.map(|b| STANDARD.encode(b).into())
            }
        }
        .unwrap_or_default())
    };
    table.columns.iter().enumerate().map(value).collect::<Result<_, _>>().doing("read a row")
}

/// Writes a row as [`each_row`] gave it. `columns`: of the table it came from.
pub(crate) async fn put_row(
    tx: &mut Tx,
    table: &Table,
    columns: &[String],
    row: &[Value],
) -> Result<(), DbError> {
    let bad = |why: String| damaged("backup", format!("table {}: {why}", table.name));
    if row.len() != columns.len() {
        return Err(bad(format!("a row of {} values", row.len())));
    }
    let marks: Vec<String> = (1..=columns.len()).map(|n| format!("${n}")).collect();
    // The names were found among those of the tables we have made.
    let sql = format!(
        "INSERT INTO {} ({}) VALUES ({})",
        table.name,
        columns.join(", "),
        marks.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for (column, value) in columns.iter().zip(row) {
        let (_, holds) = table
            .columns
            .iter()
            .find(|(name, _)| name == column)
            .ok_or_else(|| bad(format!("there is no column {column}")))?;
        let text = || match value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            other => Err(bad(format!("{column} is {other}"))),
        };
        query = match holds {
            Holds::Integer => match value {
                Value::Null => query.bind(None::<i64>),
                other => query
                    .bind(Some(other.as_i64().ok_or_else(|| bad(format!("{column} is {other}")))?)),
            },
            Holds::Text => query.bind(text()?),
            Holds::Bytes => {
                let decode = |t: String| STANDARD.decode(t).map_err(|e| bad(e.to_string()));
                query.bind(text()?.map(decode).transpose()?)
            }
        };
    }
    query.execute(&mut **tx).await.doing("write a row").map(drop)
}

/// Says how often a table has rows.
pub(crate) async fn count(tx: &mut Tx, table: &str) -> Result<i64, DbError> {
    let sql = AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
    let row = sqlx::query(sql).fetch_one(&mut **tx).await.doing("count rows")?;
    row.try_get(0).doing("count rows")
}

/// Removes what making the tables left in one.
pub(crate) async fn clear(tx: &mut Tx, table: &str) -> Result<(), DbError> {
    let sql = AssertSqlSafe(format!("DELETE FROM {table}"));
    sqlx::query(sql).execute(&mut **tx).await.doing("clear a table").map(drop)
}

/// All contents of the object store.
pub(crate) async fn contents(tx: &mut Tx) -> Result<Vec<Digest>, DbError> {
    let doing = "list contents";
    let rows = sqlx::query("SELECT digest FROM blobs").fetch_all(&mut **tx).await.doing(doing)?;
    rows.iter().map(|r| digest(r.try_get(0).doing(doing)?)).collect()
}

/// Forgets contents that did not come: they were given up while the backup was written.
pub(crate) async fn forget_missing(tx: &mut Tx, came: &HashSet<Digest>) -> Result<(), DbError> {
    let doing = "forget contents";
    for missing in contents(tx).await?.iter().filter(|d| !came.contains(d)) {
        for sql in
            ["DELETE FROM blob_parts WHERE digest = $1", "DELETE FROM blobs WHERE digest = $1"]
        {
            let query = sqlx::query(sql).bind(missing.0.as_slice());
            query.execute(&mut **tx).await.doing(doing)?;
        }
    }
    Ok(())
}

/// Says where a part of a content lies now.
pub(crate) async fn put_part(
    tx: &mut Tx,
    digest: &[u8],
    size: u64,
    place: &Place,
) -> Result<(), DbError> {
    let doing = "note where a content lies";
    let sql = "DELETE FROM blob_parts WHERE digest = $1";
    sqlx::query(sql).bind(digest).execute(&mut **tx).await.doing(doing)?;
    sqlx::query("INSERT INTO blob_parts VALUES ($1, 0, $2, $3)")
        .bind(digest)
        .bind(signed(size))
        .bind(place.as_str())
        .execute(&mut **tx)
        .await
        .doing(doing)
        .map(drop)
}

impl Db {
    /// What is different after a restore: time has passed that this database knows nothing of.
    ///
    /// Nodes may have been told more than it remembers. So every config gets a new time stamp, and
    /// no node is told a counter until it has said which one it has seen (`crate::restored`): a
    /// counter that differs from that, to either side, would reboot it.
    pub(crate) async fn after_restore(
        &self,
        tx: &mut Tx,
        tables: &[Table],
        now: UnixMillis,
    ) -> Result<(), DbError> {
        let doing = "prepare what was restored";
        let empty: &[u8] = &[];
        sqlx::query(
            "UPDATE configs SET digest = $1,
             timestamp_ms = CASE WHEN timestamp_ms > $2 THEN timestamp_ms ELSE $2 END",
        )
        .bind(empty)
        .bind(signed(now.0))
        .execute(&mut **tx)
        .await
        .doing(doing)?;
        for sql in [
            "DELETE FROM nonces",
            // Also those that were deleted: they may be rolled back.
            "INSERT INTO restored (device) SELECT id FROM devices WHERE cert_pem IS NOT NULL",
            // Nothing says how many sessions there were since; an open one is not ours any more.
            "UPDATE devices SET views = views + 1000, view_token = NULL, view_until_ms = NULL
             WHERE views > 0",
        ] {
            sqlx::query(sql).execute(&mut **tx).await.doing(doing)?;
        }
        if self.engine() == Engine::Postgres {
            // Ids go on behind those that were restored.
            let counts =
                |t: &&Table| t.columns.iter().any(|(c, h)| c == "id" && *h == Holds::Integer);
            for Table { name, .. } in tables.iter().filter(counts) {
                let sql = format!(
                    "SELECT setval(pg_get_serial_sequence('{name}', 'id'),
                     (SELECT COALESCE(MAX(id), 0) + 1 FROM {name}), false)"
                );
                sqlx::query(AssertSqlSafe(sql)).execute(&mut **tx).await.doing(doing)?;
            }
        }
        Ok(())
    }

    /// Nodes that have not said everything since a restore, and what they have said, as bits.
    pub(crate) async fn restored(&self) -> Result<HashMap<uuid::Uuid, i64>, DbError> {
        let doing = "look up who has to be heard";
        let rows = sqlx::query("SELECT device, said FROM restored").fetch_all(self.read()).await;
        let row = |r: &AnyRow| Ok((r.try_get::<Vec<u8>, _>(0)?, r.try_get::<i64, _>(1)?));
        let rows = rows.doing(doing)?;
        let rows = rows.iter().map(row).collect::<Result<Vec<_>, _>>().doing(doing)?;
        let known = |(id, said): (Vec<u8>, i64)| Some((uuid::Uuid::from_slice(&id).ok()?, said));
        Ok(rows.into_iter().filter_map(known).collect())
    }

    /// A node has said something; who has said everything (3) is heard.
    pub(crate) async fn heard(&self, id: uuid::Uuid, said: i64) -> Result<(), DbError> {
        let doing = "note who was heard";
        let mut tx = self.begin().await?;
        for sql in [
            "UPDATE restored SET said = said | $2 WHERE device = $1",
            "DELETE FROM restored WHERE device = $1 AND said | $2 = 3",
        ] {
            let query = sqlx::query(sql).bind(id.as_bytes().as_slice()).bind(said);
            query.execute(&mut *tx).await.doing(doing)?;
        }
        tx.commit().await.doing(doing)
    }

    /// Makes sure that the next config of a node is younger than this.
    pub(crate) async fn raise_timestamp(
        &self,
        id: uuid::Uuid,
        seen: UnixMillis,
    ) -> Result<(), DbError> {
        let empty: &[u8] = &[];
        sqlx::query(
            "UPDATE configs SET timestamp_ms = $2, digest = $3
             WHERE device = $1 AND timestamp_ms < $2",
        )
        .bind(id.as_bytes().as_slice())
        .bind(signed(seen.0))
        .bind(empty)
        .execute(self.write())
        .await
        .doing("raise the time stamp of a config")
        .map(drop)
    }
}
