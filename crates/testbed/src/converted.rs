//! A live disk in the formats that hypervisors and clouds take.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use builder::image::convert::{Conversion, convert, file_name};
use formats::disk::Format;
use model::Bytes;

use crate::image::Image;

/// A node has room on it for what it keeps.
const SIZE: Bytes = Bytes::gib(4);

/// Converts `image` into a file of `dir`, and unpacks that if no machine could boot it as it is.
pub(crate) fn convert_in(image: &Image, format: Format, dir: &Path) -> anyhow::Result<Image> {
    let path = dir.join(file_name("live", format));
    let conversion = Conversion {
        from: image.path().to_owned(),
        from_format: Some(Format::Raw),
        to: format,
        size: Some(SIZE),
        time: 0,
    };
    convert(&conversion, &path, &())?;
    match format {
        Format::Parallels => Image::at(disk_in(&path)?),
        Format::Gcp => {
            unpack(&path, dir)?;
            Image::at(dir.join("disk.raw"))
        }
        _ => Image::at(path),
    }
}

/// The one disk in a folder for Parallels.
fn disk_in(folder: &Path) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    let mut disks: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    disks.retain(|path| path.extension().is_some_and(|extension| extension == "hds"));
    match (disks.pop(), disks.is_empty()) {
        (Some(disk), true) => Ok(disk),
        _ => bail!("{} has not one disk", folder.display()),
    }
}

/// Unpacks an archive into a folder as its receivers do.
pub(crate) fn unpack(archive: &Path, dir: &Path) -> anyhow::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "a second opinion, not a tool of the product")]
    let mut tar = std::process::Command::new("tar");
    let out = tar.arg("-xf").arg(archive).arg("-C").arg(dir).output();
    let out = out.context("cannot start tar: install it")?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        bail!("tar cannot unpack {}: {}", archive.display(), said.trim());
    }
    Ok(())
}
