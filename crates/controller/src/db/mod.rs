//! The database: SQLite in one file by default, PostgreSQL by URL when there are many nodes or
//! several controllers.
//!
//! Whatever this module has returned from is on the disk (`synchronous=FULL`, PostgreSQL's default):
//! a message is acknowledged to a node only after that. Decisions are made elsewhere.
//!
//! Statements are written once, in what both engines understand: numbered parameters (`$1`), integers
//! of 64 bits, text, bytes; truth is 0 or 1. Tables are declared in SQLite's words, see [`migrations`].

mod access;
mod alerts;
mod attest;
mod audit;
pub(crate) mod backup;
mod blobs;
mod fleet;
mod forget;
mod history;
mod journal;
mod leases;
mod migrations;
mod overlay;
mod pages;
mod policies;
#[cfg(test)]
mod postgres_server;
mod received;
mod retention;
mod rollout;
mod settled;
mod telemetry;
mod vault;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{Diagnose, Diagnosis, Who};
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyPool, Connection as _};

pub(crate) use access::{OidcStateRow, SessionRow, TokenRow, UserChange, UserRow};
pub(crate) use alerts::RuleRow;
pub use alerts::{Alert, Untold};
pub(crate) use attest::{Shown, Verdict};
pub(crate) use audit::Audited;
pub use audit::{AuditFilter, AuditRow};
pub(crate) use backup::Table;
pub(crate) use blobs::{Blob, ImageFile, Part, Tag, Upload};
pub(crate) use fleet::{CLOCKS_DIFFER, DeviceRow, Given, Standing, StoredObject};
pub use history::Version;
pub(crate) use journal::{Change, Entry, Written};
pub(crate) use overlay::Overlaid;
pub(crate) use pages::Told;
pub(crate) use policies::{Policies, Policy};
pub(crate) use received::{Kept, Series};
pub(crate) use retention::{Aging, Dropped};
pub(crate) use rollout::{Also, RolloutRow, RolloutWrite, ScheduledRow};
pub(crate) use telemetry::Point;
pub use telemetry::{Event, LogRow};
pub(crate) use telemetry::{Incoming, InfoRow, Laid, LogFile, LogFilter, Message, NewLog, Subject};
pub(crate) use vault::Vault;

/// Where the database is.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// A SQLite file; made if it is not there.
    File(PathBuf),
    /// A PostgreSQL server: `postgres://user:password@host/database`.
    Postgres(String),
}

/// Without the password.
impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Without the password.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::File(path) => write!(f, "{}", path.display()),
            Location::Postgres(url) => {
                let rest = url.split_once("://").map_or("", |(_, rest)| rest);
                let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                // Parameters may hold a password, too.
                let host = host.split('?').next().unwrap_or_default();
                write!(f, "postgres://{host}")
            }
        }
    }
}

/// Which program keeps the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// A transaction that may write.
pub(crate) type Tx = sqlx::Transaction<'static, sqlx::Any>;

/// The database of a controller.
#[derive(Debug, Clone)]
pub(crate) struct Db {
    engine: Engine,
    writer: AnyPool,
    readers: AnyPool,
    /// `None`: no secret is read or written.
    vault: Option<Arc<Vault>>,
}

/// Why the database could not do as told.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// It cannot be opened.
    #[error("cannot open the database {location}")]
    Open {
        /// Where.
        location: Location,
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
    /// Its secrets are sealed with another key.
    #[error("the secrets in the database are sealed with key {stored}; pki/secrets.key is {ours}")]
    OtherSecretsKey {
        /// The id of the key that was first.
        stored: String,
        /// The id of this controller's.
        ours: String,
    },
    /// The controller is stopping.
    #[error("the database is closed")]
    Closed,
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
            DbError::Open { location: Location::File(_), .. } => {
                Diagnosis::of(Who::Operator, "make the controller's data folder writable")
            }
            DbError::Open { location: Location::Postgres(_), .. } => Diagnosis::of(
                Who::Operator,
                "check that the PostgreSQL server runs and that --database names it, a user who \
                 may make tables, and the password",
            ),
            DbError::Newer { .. } => Diagnosis::of(Who::Operator, "start a newer controller"),
            DbError::Query { .. } => Diagnosis::of(
                Who::Operator,
                "check the free space where the data folder is, or the PostgreSQL server",
            ),
            DbError::OtherSecretsKey { .. } => Diagnosis::of(
                Who::Operator,
                "copy pki/secrets.key from the data folder, or a backup, of the controller that was \
                 first",
            ),
            DbError::Closed => Diagnosis::of(Who::Operator, "start the controller again"),
            DbError::Damaged { .. } => {
                Diagnosis::of(Who::Operator, "restore the controller's data folder from a backup")
            }
        }
    }
}

/// Says what was being done when a query failed.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, DbError>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T, DbError> {
        self.map_err(|source| DbError::Query { doing, source })
    }
}

impl Db {
    /// Opens or makes the database and brings its tables up to date.
    pub(crate) async fn open(location: &Location) -> Result<Db, DbError> {
        let db = Db::connect(location).await?;
        migrations::run(&db).await?;
        Ok(db)
    }

    /// Opens or makes the database, its tables as they are.
    pub(crate) async fn connect(location: &Location) -> Result<Db, DbError> {
        // Again does nothing.
        sqlx::any::install_default_drivers();
        let db = match location {
            Location::File(path) => Db::sqlite(path).await,
            Location::Postgres(url) => Db::postgres(url).await,
        };
        db.map_err(|source| DbError::Open { location: location.clone(), source })
    }

    async fn sqlite(path: &Path) -> Result<Db, sqlx::Error> {
        let path = std::path::absolute(path)?;
        let url = format!("sqlite://{}?mode=rwc", percent_encoded(&path.to_string_lossy()));
        let pool = |size| {
            let options = AnyPoolOptions::new().max_connections(size);
            options.acquire_timeout(Duration::from_secs(10)).after_connect(|connection, _| {
                Box::pin(async move {
                    let set = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                               PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000";
                    sqlx::raw_sql(set).execute(connection).await.map(drop)
                })
            })
        };
        // One connection writes: writers wait in our queue, not in SQLite's.
        let writer = pool(1).connect(&url).await?;
        let readers = pool(4).connect(&url).await?;
        Ok(Db { engine: Engine::Sqlite, writer, readers, vault: None })
    }

    async fn postgres(url: &str) -> Result<Db, sqlx::Error> {
        // A pool tries until its time is up, and then says only that.
        sqlx::AnyConnection::connect(url).await?.close().await?;
        let options = AnyPoolOptions::new().max_connections(16);
        let pool = options.acquire_timeout(Duration::from_secs(10)).connect(url).await?;
        Ok(Db { engine: Engine::Postgres, writer: pool.clone(), readers: pool, vault: None })
    }

    pub(crate) fn engine(&self) -> Engine {
        self.engine
    }

    /// For reading what is committed.
    pub(crate) fn read(&self) -> &AnyPool {
        &self.readers
    }

    /// For one statement that writes; several belong into [`Db::begin`].
    pub(crate) fn write(&self) -> &AnyPool {
        &self.writer
    }

    /// Begins a transaction that writes.
    pub(crate) async fn begin(&self) -> Result<Tx, DbError> {
        let begun = match self.begin_once().await {
            // SQLite rolls back by itself when the disk is full; the connection then believes for ever
            // that its transaction is open. Another connection does not.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                if let Ok(confused) = self.writer.acquire().await {
                    // It is given up, however it ends.
                    let _ = confused.close().await;
                }
                self.begin_once().await
            }
            other => other,
        };
        begun.doing("begin a change")
    }

    async fn begin_once(&self) -> Result<Tx, sqlx::Error> {
        match self.engine {
            // It would begin as a reader, and could not write after another process did.
            Engine::Sqlite => self.writer.begin_with("BEGIN IMMEDIATE").await,
            // Whatever the server's default is: a stricter one would refuse who comes second to the
            // same row, where ours waits for the first and then looks again.
            Engine::Postgres => {
                self.writer.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await
            }
        }
    }

    /// Ends all work and closes the file.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

fn percent_encoded(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-_.".contains(&b);
    path.bytes().fold(String::new(), |mut text, b| {
        if plain(b) {
            text.push(char::from(b));
        } else {
            text.push_str(&format!("%{b:02X}"));
        }
        text
    })
}

/// Text as PostgreSQL takes it: it knows no NUL in a text, and one from outside must not make a
/// message impossible to store.
pub(crate) fn text(from_outside: &str) -> String {
    from_outside.replace('\0', "\u{fffd}")
}

/// The engines' integers have a sign; ours never need the top bit.
pub(crate) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Back from [`signed`]; what is negative was never ours.
pub(crate) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or_default()
}
