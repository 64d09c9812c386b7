//! Packages, composition, images.

pub mod audit;
pub mod compare;
pub mod compose;
pub mod contents;
pub mod describe;
pub mod explain;
pub mod image;
pub mod inspect;
pub mod mkfs;
mod near;
pub mod pkg;
pub mod sbom;
pub mod sizes;
pub mod sources;
