//! Measuring: `cargo xtask bench <what>`.

pub(crate) mod image;
