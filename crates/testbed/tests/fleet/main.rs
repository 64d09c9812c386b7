//! Simulated devices against a real controller: the scenarios of the reference test suites that need
//! no node (class P), by their names.
//!
//! Not here:
//! - `nim_*`, `global_config_file_ingest`, `bootstrap_config_item_ingest`: a node reads these from its
//!   disk; `crates/eved/tests/ingest.rs`, by the same names.
//! - What a node does with a controller that follows a script (`onboarding_status`,
//!   `server_returns_403`, `device_info_completeness` and others): `crates/eved/tests/api.rs`.
//! - `pciback errors`: a node gives no hardware to apps yet and refuses an app that asks for some; there
//!   are no bundles to go wrong.

mod faults;
mod onboarding;
mod recorded;
mod rotation;
mod secrets;
mod telemetry;
