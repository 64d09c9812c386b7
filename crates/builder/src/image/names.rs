//! Names under which EVE's tools look for what was built: `installer/` in a version's folder, and
//! the root file system's archive with the platform in its name.
//!
//! ```text
//! dist/<arch>/<version>/rootfs-<platform>.tar     a link to rootfs.tar
//!                       installer/rootfs.img      a link to slot.img: what a controller hands out
//!                       installer/config.img      a link to config.img
//!                       installer/eve_version     <version>-<hv>-<arch>
//!                       installer/eve_platform    <platform>; imx8 for all of i.MX 8
//! ```

use std::fs;
use std::io;
use std::path::Path;

use super::{ImageError, Request};

/// Writes them into a version's folder; links only to what is there.
pub(super) fn write(folder: &Path, request: &Request) -> Result<(), ImageError> {
    let installer = folder.join("installer");
    fs::create_dir_all(&installer).map_err(ImageError::file("create", &installer))?;
    let selection = request.selection();
    let version = selection.version.unwrap_or_default();
    let platform = if request.platform.contains("imx8") { "imx8" } else { &request.platform };
    store::save(&installer, "eve_version", format!("{version}\n").as_bytes())?;
    store::save(&installer, "eve_platform", format!("{platform}\n").as_bytes())?;
    link(folder, "rootfs.tar", &format!("rootfs-{}.tar", request.platform))?;
    link(folder, "slot.img", "installer/rootfs.img")?;
    link(folder, "config.img", "installer/config.img")
}

fn link(folder: &Path, to: &str, name: &str) -> Result<(), ImageError> {
    let link = folder.join(name);
    if !folder.join(to).exists() {
        return Ok(());
    }
    let up = "../".repeat(name.matches('/').count());
    let target = format!("{up}{to}");
    if fs::read_link(&link).is_ok_and(|have| have == Path::new(&target)) {
        return Ok(());
    }
    let failed = ImageError::file("link", &link);
    match fs::remove_file(&link) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &link).map_err(failed)
}
