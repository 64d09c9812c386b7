//! The mind of the node: for each service a pure `step` (what has a life) or `plan` (what has a
//! shape). Values in, values out; no input or output, no clock, no async.

pub mod able;
pub mod app;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod content;
pub mod health;
pub mod install;
pub mod local;
pub mod log;
pub mod netinst;
pub mod network;
pub mod onboard;
pub mod settings;
pub mod storage;
pub mod volume;
