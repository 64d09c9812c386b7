//! The controller from outside: nodes, operators and browsers on real connections.

mod common;
mod device_api;
mod operator_api;
mod postgres;
mod reports;
