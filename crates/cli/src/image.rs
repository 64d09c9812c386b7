//! The image that `eve up` boots, and the sample app's image: built if need be.

use std::path::{Path, PathBuf};

use anyhow::Context;
use builder::image::{Format, live};
use builder::pkg;
use model::{Arch, Bytes};

use crate::build;
use crate::out::OrAdvise;
use crate::places;
use crate::steps::Steps;

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

/// Takes the disk image that was asked for, or builds one: what has not changed since the last time
/// is not done again. Builds the sample app.
pub(crate) fn get(asked: Option<&Path>, debug: bool, arch: Arch) -> anyhow::Result<Images> {
    let (disk, slot) = match asked {
        Some(path) => (places::live_image(Some(path), arch)?, slot_beside(path)),
        None => build_disk(debug, arch)?,
    };
    let options = pkg::Options { arch, ..pkg::Options::from_env(&places::repository()?) };
    let steps = Steps::default();
    let built = pkg::build(&["apps/hello".to_owned()], &options, &steps).or_advise()?;
    steps.done();
    let hello = built.get("apps/hello").context("apps/hello was not built")?.image.clone();
    Ok(Images { disk, slot, registry: options.layout(), hello })
}

fn build_disk(debug: bool, arch: Arch) -> anyhow::Result<(PathBuf, Option<Bytes>)> {
    let mut request = build::default_request()?;
    request.arch = arch;
    request.formats = vec![Format::RAW];
    if debug {
        // Beside the others: an image with a shell is not taken for one without.
        request.debug = true;
        request.out = request.out.join("debug");
    }
    let steps = Steps::default();
    let facts = live(&request, &steps).or_advise()?;
    steps.done();
    Ok((facts.folder.join("live.raw"), facts.slot.map(|slot| slot.size)))
}

/// The size of the slot image that was built with a disk.
fn slot_beside(disk: &Path) -> Option<Bytes> {
    let slot = disk.parent()?.join("slot.img");
    slot.metadata().ok().map(|meta| Bytes(meta.len()))
}
