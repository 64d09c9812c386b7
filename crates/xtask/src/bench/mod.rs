//! Measuring: `cargo xtask bench <what>`.

mod chain;
pub(crate) mod controller;
mod cost;
pub(crate) mod image;
mod served;
