//! The image that `eve up` boots, and the sample app's image: built if need be.

use std::path::{Path, PathBuf};

use anyhow::Context;
use builder::pkg;
use model::Bytes;

use crate::out::{self, OrAdvise, Steps};
use crate::places;

/// What a node boots and runs.
#[derive(Debug)]
pub(crate) struct Images {
    /// The raw disk image.
    pub disk: PathBuf,
    /// The size of its slot image, if known.
    pub slot: Option<Bytes>,
    /// The OCI layout with the sample app.
    pub registry: PathBuf,
    /// The sample app's name in it.
    pub hello: String,
}

/// Takes the disk image that was asked for, or builds one; builds the sample app.
pub(crate) fn get(asked: Option<&Path>) -> anyhow::Result<Images> {
    let repository = repository()?;
    let options = pkg::Options::from_env(&repository);
    let disk = places::live_image(asked)?;
    let slot = disk.parent().map(|dir| dir.join("slot.img"));
    let slot = slot.and_then(|s| s.metadata().ok()).map(|m| Bytes(m.len()));
    let steps = Steps::default();
    let built = pkg::build(&["apps/hello".to_owned()], &options, &steps).or_advise()?;
    steps.finish();
    let hello = built.get("apps/hello").context("apps/hello was not built")?.image.clone();
    Ok(Images { disk, slot, registry: options.layout(), hello })
}

/// The repository that this is run in: here or in a folder above.
pub(crate) fn repository() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().context("cannot find the current folder")?;
    let is_ours = |dir: &&Path| dir.join("services.toml").exists() && dir.join("pkg").exists();
    here.ancestors().find(is_ours).map(Path::to_owned).ok_or_else(|| {
        out::advised(
            format!("{} is not in a clone of the repository", here.display()),
            "change to the folder that holds services.toml and pkg/",
        )
    })
}
