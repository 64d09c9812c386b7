//! Simulated devices against a real controller: the scenarios of the reference test suites that need
//! no node (class P), by their names.
//!
//! Not here, because the controller lacks what they need:
//! - `template_check`: platform registers of an operator's choice are no object yet; what is tested
//!   is that a device gets no config before a quote is believed.
//! - `AppUserData` and whatever else needs secrets over a change of certificates: it has no secrets yet.
//! - `maintenance_mode`: it has no such switch; the setting `maintenance.mode` is the node's.
//! - `nim_*`, `global_config_file_ingest`, `bootstrap_config_item_ingest`: a node reads these from its
//!   disk; the lab's.
//! - `pciback errors`: a node's plan; `device`'s unit tests.

mod faults;
mod onboarding;
mod recorded;
mod rotation;
mod telemetry;
