//! Measuring: `cargo xtask bench <what>`.

mod chain;
mod cost;
pub(crate) mod image;
