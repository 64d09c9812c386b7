//! Simulated devices against a real controller: the scenarios of the reference test suites that need
//! no node (class P), by their names.
//!
//! Not here:
//! - `nim_*`, `global_config_file_ingest`, `bootstrap_config_item_ingest`: a node reads these from its
//!   disk; the lab's.
//! - `pciback errors`: a node's plan; `device`'s unit tests.

mod faults;
mod onboarding;
mod recorded;
mod rotation;
mod secrets;
mod telemetry;
