//! The fleet: device API, operator API, registry, database, web pages; one process, one port.
//!
//! [`serve`] starts it; [`client::Client`] is the other end for operators; [`objects`] is what they
//! write. A controller keeps all it knows in its data folder:
//!
//! | Path | What |
//! |---|---|
//! | `pki/` | root, intermediate, signing, key exchange and onboarding certificates and keys |
//! | `tls/` | the certificate of the listener, made anew when its names change or its end is near |
//! | `admin.token` | the administrator's token, for `eve` on the same machine |
//! | `endpoint` | where it listens, for the same |
//! | `controller.db` | SQLite: objects, nodes, what they report |
//! | `blobs/` | images that were pushed and other large contents, unless they lie elsewhere |
//! | `lock` | held while it runs |
//!
//! Time is asked of the clock given in [`Settings`]. It has no hands on nodes.

pub mod access;
mod adam;
mod admission;
pub mod alerts;
mod attest;
mod backup;
pub mod blobs;
mod body;
pub mod client;
mod conf;
mod db;
mod device_api;
pub mod drift;
mod fleet;
mod history;
mod images;
mod ingest;
mod linger;
pub mod listener;
mod logs;
pub mod objects;
mod operator;
mod outbound;
pub mod pki;
mod points;
mod registry;
mod reports;
mod restored;
mod retention;
pub mod rollout;
mod scep;
mod server;
mod start;
mod trust;
mod upkeep;
pub mod view;
mod web;
pub mod words;

pub use backup::{
    BackupError, BackupKey, Counted, SealError, Sealing, Whole, backup, opened, restore,
};
pub use blobs::BlobLocation;
pub use conf::{ConfError, conf};
pub use db::{AuditFilter, AuditRow, Location};
pub use retention::{Limit, Retention, Versions};
pub use start::{Clock, Running, ServeError, Settings, default_names, new_link, new_token, serve};
