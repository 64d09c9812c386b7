//! `eve sbom`: what an image is made of.

use std::path::PathBuf;

use builder::inspect;
use builder::sbom::{About, Bill, Format, Kind, Scan};
use model::Bytes;
use serde::Serialize;
use std::io::Write;
use store::Draft;

use crate::out::{self, OrAdvise, Step, WrongUse, foreign};
use crate::places;

/// List what an image is made of, as SPDX or CycloneDX
///
/// Lists the Debian packages, the Rust crates and the files of ours that are in an image, with
/// licences, sources, and which package image brought them. The same image gives the same document.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A root file system (rootfs.tar, squashfs, slot.img), a disk, or a folder of dist; by default
    /// the newest build
    image: Option<PathBuf>,
    /// spdx (2.3) or cyclonedx (1.6), both as JSON
    #[arg(long, default_value = "spdx", value_parser = ["spdx", "cyclonedx"])]
    format: String,
    /// Where the document goes; by default standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What the image is called in the document
    #[arg(long, default_value = "eve")]
    name: String,
    /// The version; by default what /etc/eve-release of the image says
    #[arg(long)]
    version: Option<String>,
    /// When the image was made, in seconds since 1970; by default the time of its latest file
    #[arg(long, env = "SOURCE_DATE_EPOCH", value_name = "SECONDS")]
    time: Option<u64>,
    /// Print what was found as JSON
    #[arg(long, requires = "output")]
    json: bool,
}

/// How much was found.
#[derive(Debug, Serialize)]
struct Facts<'a> {
    output: &'a PathBuf,
    size: Bytes,
    images: usize,
    packages: usize,
    crates: usize,
    files: usize,
    sources: usize,
    warnings: &'a [String],
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let format = Format::by_name(&args.format)
        .ok_or_else(|| WrongUse("there are the formats spdx and cyclonedx".to_owned()))?;
    let about = About {
        name: args.name.clone(),
        version: args.version.clone().unwrap_or_default(),
        created: args.time,
    };
    let step = Step::start("looking into the image");
    let bill = bill(args.image, about)?;
    let (packages, crates) = (bill.count(Kind::Package), bill.count(Kind::Crate));
    step.done(format!("{packages} packages, {crates} crates"));
    bill.warnings.iter().for_each(|w| crate::out::say!("warning: {w}"));
    let bytes = bill.to_bytes(format);
    let Some(output) = &args.output else {
        out::raw(foreign::json(String::from_utf8_lossy(&bytes).trim_end()));
        return Ok(());
    };
    let mut draft = Draft::of(output)?;
    draft.write_all(&bytes)?;
    draft.commit()?;
    if !args.json {
        return Ok(());
    }
    out::json(&Facts {
        output,
        size: Bytes(bytes.len() as u64),
        images: bill.count(Kind::Image),
        packages,
        crates,
        files: bill.count(Kind::File),
        sources: bill.count(Kind::Source),
        warnings: &bill.warnings,
    })
}

/// The bill of an image, or of the newest build.
pub(crate) fn bill(image: Option<PathBuf>, about: About) -> anyhow::Result<Bill> {
    let image = places::image_or_newest(image)?;
    let mut scan = Scan::new();
    inspect::visit(&image, &mut |member, origin, time, body| scan.see(member, origin, time, body))
        .or_advise()?;
    Ok(scan.finish(about))
}
