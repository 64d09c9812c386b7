//! The fleet: device API, operator API, registry, database, web pages.
mod db;
pub mod objects;
pub mod pki;
