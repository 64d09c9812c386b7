//! What comes from packages: the boot stub.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use model::Bytes;
use store::{Image, Layout, Platform, StoreError, flatten};

use super::{Arch, ImageError};
use crate::pkg::{self, Package};

/// The package that holds systemd's EFI stub.
pub(super) const STUB_PACKAGE: &str = "pkg/uefi";

/// A boot stub has 100 KiB.
const STUB_MAX: Bytes = Bytes::mib(16);
const PACKAGE_MAX: Bytes = Bytes::gib(1);

/// The stub: that of the path, else that of the package.
pub(super) fn stub(
    path: Option<&Path>,
    options: &pkg::Options,
    packages: &BTreeMap<String, Package>,
) -> Result<Vec<u8>, ImageError> {
    if let Some(path) = path {
        return std::fs::read(path).map_err(ImageError::file("read", path));
    }
    let image = packages.get(STUB_PACKAGE).map_or(STUB_PACKAGE, |p| p.image.as_str());
    let unusable = |source: StoreError| ImageError::Package { package: image.to_owned(), source };
    let layout = Layout::open(options.layout()).map_err(unusable)?;
    let missing = || ImageError::NoStub { package: image.to_owned(), file: options.arch.stub() };
    read_file(&layout, image, options.arch).map_err(unusable)?.ok_or_else(missing)
}

fn read_file(layout: &Layout, image: &str, arch: Arch) -> Result<Option<Vec<u8>>, StoreError> {
    let found = layout.resolve(image, &Platform::linux(arch.name()))?;
    let image = Image::read(layout, &found)?;
    let mut stub = None;
    flatten(layout, &image.manifest, PACKAGE_MAX, |header, body| {
        if header.path.ends_with(arch.stub().as_bytes()) {
            let mut bytes = Vec::new();
            // An error of the body is told by the layer itself.
            let whole = body.take(STUB_MAX.0).read_to_end(&mut bytes).is_ok();
            stub = whole.then_some(bytes);
        }
        Ok::<_, StoreError>(())
    })?;
    Ok(stub)
}
