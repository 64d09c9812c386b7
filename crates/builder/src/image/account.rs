//! What a build says of its image: who put what where, and whether it may be so large.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use model::{Bytes, Digest};

use super::cache::Steps;
use super::{ImageError, Request};
use crate::contents::{CONTENTS, Contents};
use crate::sizes::{Limits, Sizes};

/// Changes whenever the same archive makes another record.
const VERSION: &str = "1";
/// The rules for sizes, below the repository.
const LIMITS: &str = "images/limits.toml";

/// The record of a root file system's archive, beside the images of the build.
pub(super) fn write(
    steps: &Steps,
    tar: &Path,
    digest: Digest,
    folder: &Path,
) -> Result<Bytes, ImageError> {
    let made = steps.step("contents", &[VERSION, &digest.hex()], |folder| {
        let read = ImageError::file("read", tar);
        let file = BufReader::with_capacity(1 << 18, File::open(tar).map_err(&read)?);
        let contents = Contents::of_tar(file, |_, _, _, _| Ok(())).map_err(read)?;
        Ok::<_, ImageError>(store::save(folder, CONTENTS, &contents.to_bytes())?)
    })?;
    let path = made.folder.join(CONTENTS);
    let bytes = fs::read(&path).map_err(ImageError::file("read", &path))?;
    store::save(folder, CONTENTS, &bytes)?;
    Ok(Bytes(bytes.len() as u64))
}

/// Refuses a packed root file system that is larger than the rules of the repository say, and names
/// what grew since the newest build before.
pub(super) fn check_size(
    request: &Request,
    folder: &Path,
    before: Option<&Contents>,
    size: Bytes,
) -> Result<(), ImageError> {
    let path = request.repository.join(LIMITS);
    if !path.is_file() {
        return Ok(());
    }
    let text = fs::read_to_string(&path).map_err(ImageError::file("read", &path))?;
    let limits = Limits::parse(&text).map_err(|source| ImageError::Limits { path, source })?;
    limits.check((&request.hv, &request.platform), size, || {
        let now = Contents::beside(folder).ok().flatten().unwrap_or_default();
        let before = before.cloned().unwrap_or_default();
        Sizes::of(&now, None).growth(&Sizes::of(&before, None))
    })?;
    Ok(())
}

/// The record of the newest build, from before this one replaces it.
pub(super) fn before(request: &Request) -> Option<Contents> {
    let newest = request.out.join(request.arch.name()).join("current");
    Contents::beside(&newest).ok().flatten() // without one there is no growth to tell
}
