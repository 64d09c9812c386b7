//! Whether an image may be so large.

use std::fs;

use model::Bytes;

use super::{ImageError, Request};
use crate::contents::Contents;
use crate::sizes::{self, Growth, Limits, Sizes};

/// The rules for sizes, below the repository.
const LIMITS: &str = "images/limits.toml";

/// Refuses a packed root file system that is larger than the rules of the repository say, and names
/// what grew since the newest build before. `record` is the new one's.
pub(super) fn check_size(request: &Request, record: &[u8], size: Bytes) -> Result<(), ImageError> {
    let path = request.repository.join(LIMITS);
    if !path.is_file() {
        return Ok(());
    }
    let text = fs::read_to_string(&path).map_err(ImageError::file("read", &path))?;
    let limits = Limits::parse(&text).map_err(|source| ImageError::Limits { path, source })?;
    limits.check((&request.hv, &request.platform), size, || growth(request, record))?;
    Ok(())
}

/// Refuses a slot image that has no room in the slots of the profile, and names what grew.
pub(super) fn check_room(request: &Request, record: &[u8], size: Bytes) -> Result<(), ImageError> {
    sizes::check_room(&request.profile, size, || growth(request, record))?;
    Ok(())
}

/// What grew since the newest build before, the most first: from nothing, if there was none.
fn growth(request: &Request, record: &[u8]) -> Vec<Growth> {
    let now: Contents = serde_json::from_slice(record).unwrap_or_default();
    let newest = request.out.join(request.arch.name()).join("current");
    let before = Contents::beside(&newest).ok().flatten().unwrap_or_default();
    Sizes::of(&now, None).growth(&Sizes::of(&before, None))
}
