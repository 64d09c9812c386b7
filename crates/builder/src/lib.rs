//! Packages, composition, images.

pub mod compose;
pub mod image;
pub mod pkg;
