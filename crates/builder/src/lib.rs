//! Packages, composition, images.

pub mod audit;
pub mod compose;
pub mod contents;
pub mod image;
pub mod pkg;
