//! Content by digest: the OCI layout, references, layers; and the one way to replace a file.

mod save;

pub use save::{SaveError, remove, save};
