//! What the crate promises, against the specification's tables and recorded bytes.

mod attest;
mod cipher;
mod common;
mod config;
mod envelope;
mod fields;
mod info;
mod local;
mod messages;
mod newlogs;
mod robust;
mod telemetry;
mod tpm;
mod vectors;
