//! The controller from outside: nodes, operators and browsers on real connections.

#![expect(clippy::disallowed_methods, reason = "tests start servers of others and damage files")]

mod access;
mod acme;
mod adam;
mod alerts;
mod backup;
mod common;
mod device_api;
mod edges;
mod edgeview;
#[path = "../../src/blobs/emulators.rs"]
mod emulators;
mod forms;
mod full;
mod images;
mod large;
mod limits;
mod listener;
mod oidc;
mod openapi;
mod operator_api;
mod pages;
mod policies;
mod postgres;
#[path = "../../src/db/postgres_server.rs"]
mod postgres_server;
mod queries;
mod reports;
mod revival;
mod rollouts;
mod routes;
mod scep;
mod secrets;
mod silence;
mod stores;
mod windows;
