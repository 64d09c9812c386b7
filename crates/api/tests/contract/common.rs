//! Where the golden inputs are.

use std::fs;
use std::path::PathBuf;

use model::UnixMillis;

/// The time the vectors were made for: 2026-01-02T03:04:05Z.
pub(crate) const T0: UnixMillis = UnixMillis(1_767_323_045_000);

/// A file among the golden vectors (`EVE_API_VECTORS`).
#[track_caller]
pub(crate) fn vector(name: &str) -> Vec<u8> {
    read(folder("EVE_API_VECTORS", "../shared/vectors/eve-api").join(name))
}

/// The folder an environment variable names; relative defaults start at the repository's root.
pub(crate) fn folder(variable: &str, default: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from))
}

#[track_caller]
pub(crate) fn read(path: PathBuf) -> Vec<u8> {
    match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) => panic!("cannot read {}: {e}", path.display()),
    }
}
