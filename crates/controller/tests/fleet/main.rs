//! The controller from outside: nodes, operators and browsers on real connections.

mod access;
mod backup;
mod alerts;
mod common;
mod device_api;
mod images;
mod limits;
mod oidc;
mod operator_api;
mod postgres;
mod reports;
mod routes;
mod rollouts;
