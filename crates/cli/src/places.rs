//! Where things are on the machine of whoever types: the cache, the state, the built images.

use std::path::{Path, PathBuf};

use anyhow::Context;
use model::Arch;

use crate::out;

/// The folder of everything that can be made again: `$EVE_CACHE`, else `eve` in
/// `$XDG_CACHE_HOME` or `~/.cache`.
pub(crate) fn cache() -> PathBuf {
    env_path("EVE_CACHE").unwrap_or_else(|| xdg("XDG_CACHE_HOME", ".cache").join("eve"))
}

/// The folder in which `eve up` keeps its node and its controller: `eve/up` in `$XDG_STATE_HOME` or
/// `~/.local/state`.
pub(crate) fn up_state() -> PathBuf {
    xdg("XDG_STATE_HOME", ".local/state").join("eve/up")
}

/// The folder of what a person has set up: `eve` in `$XDG_CONFIG_HOME` or `~/.config`.
pub(crate) fn config() -> PathBuf {
    xdg("XDG_CONFIG_HOME", ".config").join("eve")
}

/// The repository that this is run in: here or in a folder above.
pub(crate) fn repository() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().context("cannot find the current folder")?;
    let is_ours = |dir: &&Path| dir.join("services.toml").is_file() && dir.join("pkg").is_dir();
    here.ancestors().find(is_ours).map(Path::to_owned).ok_or_else(|| {
        out::advised(
            format!("{} is not in a clone of the repository", here.display()),
            "change to the folder that holds services.toml and pkg/",
        )
    })
}

/// The image that was named, else the folder of the newest images for the machines that `ZARCH`
/// names, else amd64.
pub(crate) fn image_or_newest(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        return Ok(named);
    }
    let asked = std::env::var("ZARCH").ok().and_then(|name| Arch::from_name(&name));
    let newest = newest_images_for(asked.unwrap_or(Arch::Amd64));
    if newest.exists() {
        return Ok(newest);
    }
    let here = std::env::current_dir().context("cannot find the current folder")?;
    Err(out::advised(
        format!(
            "no image is named, and none was built: there is no {} in {} or above",
            newest.display(),
            here.display()
        ),
        "name one: a disk, a slot.img, a rootfs.tar, a folder of dist; or build one with \
         `eve build live` in a clone of the repository",
    ))
}

/// The folder of the newest images for a kind of machine: `dist/amd64/current`, here or in a
/// folder above.
pub(crate) fn newest_images_for(arch: Arch) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let newest = Path::new("dist").join(arch.name()).join("current");
    here.ancestors().map(|d| d.join(&newest)).find(|d| d.exists()).unwrap_or(newest)
}

/// What a machine's processor is to be: as asked for, else as the image says that was asked for,
/// else amd64. An error if the two do not agree.
pub(crate) fn arch(asked: Option<Arch>, image: Option<&Path>) -> anyhow::Result<Arch> {
    match (asked, image.and_then(builder::image::arch_of)) {
        (Some(asked), Some(made)) if asked != made => Err(out::advised(
            format!("that image is for {made}, not for {asked}"),
            format!("name another image, or leave out --arch {asked} (or ZARCH)"),
        )),
        (asked, made) => Ok(asked.or(made).unwrap_or(Arch::Amd64)),
    }
}

/// The image that was asked for, or the newest that was built: `live.qcow2` or `live.raw`.
pub(crate) fn live_image(asked: Option<&Path>, arch: Arch) -> anyhow::Result<PathBuf> {
    let newest = newest_images_for(arch);
    let candidates = match asked {
        Some(path) => vec![path.to_owned()],
        None => vec![newest.join("live.raw"), newest.join("live.qcow2")],
    };
    candidates.iter().find(|p| p.is_file()).cloned().ok_or_else(|| match asked {
        Some(path) => out::advised(
            format!("there is no image {}", path.display()),
            "give the path of a disk image, raw or qcow2, with --image",
        ),
        None => out::advised(
            format!("no image has been built: {} is not there", candidates[0].display()),
            "build one with `eve build live`, or name one with --image",
        ),
    })
}

/// The folder of a file that is to be written, and its name.
pub(crate) fn parent_and_name(path: &Path) -> anyhow::Result<(PathBuf, String)> {
    let name = path.file_name().and_then(|n| n.to_str());
    let name = name.with_context(|| format!("{} names no file", path.display()))?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    Ok((parent.unwrap_or(Path::new(".")).to_owned(), name.to_owned()))
}

fn env_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

fn xdg(name: &str, below_home: &str) -> PathBuf {
    let home = || env_path("HOME").unwrap_or_else(|| "/root".into());
    // The XDG base directory specification: a relative path counts as none.
    env_path(name).filter(|p| p.is_absolute()).unwrap_or_else(|| home().join(below_home))
}
