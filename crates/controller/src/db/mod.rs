//! The database: one SQLite file, one connection that writes, a few that read.
//!
//! Whatever this module has returned from is on the disk (`synchronous=FULL`): a message is
//! acknowledged to a node only after that. Decisions are made elsewhere.

mod fleet;
mod migrations;
mod telemetry;

use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{Diagnose, Diagnosis, Who};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

pub(crate) use fleet::{DeviceRow, Standing, StoredObject, by_key};
pub use telemetry::{Event, LogRow};
pub(crate) use telemetry::{InfoRow, LogBundle, LogFilter, NewLog, Subject};

/// The database of a controller.
#[derive(Debug, Clone)]
pub(crate) struct Db {
    writer: SqlitePool,
    readers: SqlitePool,
}

/// Why the database could not do as told.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// It cannot be opened.
    #[error("cannot open the database {path}")]
    Open {
        /// Where.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// It was written by a newer controller.
    #[error("the database is of version {found}; this controller knows versions up to {known}")]
    Newer {
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// An operation failed.
    #[error("the database cannot {doing}")]
    Query {
        /// What was tried.
        doing: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// A row holds what no version of ours wrote.
    #[error("the database holds a damaged {what}: {why}")]
    Damaged {
        /// Which row.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Diagnose for DbError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            DbError::Open { .. } => {
                Diagnosis::of(Who::Operator, "make the controller's data folder writable")
            }
            DbError::Newer { .. } => Diagnosis::of(Who::Operator, "start a newer controller"),
            DbError::Query { .. } => {
                Diagnosis::of(Who::Operator, "check the free space where the data folder is")
            }
            DbError::Damaged { .. } => {
                Diagnosis::of(Who::Operator, "restore the controller's data folder from a backup")
            }
        }
    }
}

/// Says what was being done when a query failed.
trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, DbError>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T, DbError> {
        self.map_err(|source| DbError::Query { doing, source })
    }
}

impl Db {
    /// Opens or makes the database and brings its tables up to date.
    pub(crate) async fn open(path: &Path) -> Result<Db, DbError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let opened = |source| DbError::Open { path: path.to_owned(), source };
        let pool = |size| {
            SqlitePoolOptions::new().max_connections(size).acquire_timeout(Duration::from_secs(10))
        };
        // One connection writes: writers wait in our queue, not in SQLite's.
        let writer = pool(1).connect_with(options.clone()).await.map_err(opened)?;
        let readers = pool(4).connect_with(options).await.map_err(opened)?;
        let db = Db { writer, readers };
        migrations::run(&db.writer).await?;
        Ok(db)
    }

    /// Ends all work and closes the file.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// SQLite's integers have a sign; ours never need the top bit.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Back from [`signed`]; what is negative was never ours.
fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or_default()
}
