//! `eve sources`: what an image was made of, as sources.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use builder::pkg::Options;
use builder::sbom::About;
use builder::sources::{Manifest, check, collect};
use store::Draft;

use crate::out::{self, OrAdvise};
use crate::places;
use crate::sbom::bill;
use crate::steps::Steps;

/// List or collect the sources that an image was made of
///
/// Prints the manifest of an image's sources: a line each, type,name@version,commit,path. With --tar
/// it fetches them all (gigabytes) and writes one archive; with --check it compares the manifest with
/// a bill of materials and ends with 1 if one knows what the other does not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A root file system (rootfs.tar, squashfs, slot.img), a disk, or a folder of dist; by default
    /// the newest build
    image: Option<PathBuf>,
    /// Where the manifest goes; by default standard output
    #[arg(short, long, value_name = "FILE.csv")]
    output: Option<PathBuf>,
    /// Collect the sources into this archive; packed with gzip if it ends in .gz
    #[arg(long, value_name = "FILE.tar")]
    tar: Option<PathBuf>,
    /// Compare with this bill of materials (SPDX or CycloneDX as JSON)
    #[arg(long, value_name = "SBOM")]
    check: Option<PathBuf>,
    /// Take the manifest from this file, not from the image
    #[arg(long, value_name = "FILE.csv", conflicts_with = "image")]
    manifest: Option<PathBuf>,
    /// With --tar: fail when a source cannot be had, instead of leaving it out
    #[arg(long)]
    locked: bool,
    /// Debian mirror, the folder that holds `dists` [default: the one of this machine's apt]
    #[arg(long, value_name = "URL", env = "EVE_DEBIAN_MIRROR")]
    mirror: Option<String>,
    /// Archive of old versions, laid out like a mirror, for what the mirror no longer has
    #[arg(long, value_name = "URL", env = "EVE_DEBIAN_SNAPSHOT")]
    snapshot: Option<String>,
    /// Print facts as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let (manifest, time) = match &args.manifest {
        Some(path) => (Manifest::parse(&read(path)?).or_advise()?, 0),
        None => {
            let bill = bill(args.image.clone(), About::default())?;
            bill.warnings.iter().for_each(|w| crate::out::say!("warning: {w}"));
            (Manifest::of_bill(&bill), bill.created)
        }
    };
    if let Some(path) = &args.check {
        return compare(path, &manifest, args.json);
    }
    let mut collected = None;
    if let Some(path) = &args.tar {
        let repository = places::repository()?;
        let options = Options {
            mirror: args.mirror,
            snapshot: args.snapshot,
            locked: args.locked,
            cache: places::cache(),
            ..Options::from_env(&repository)
        };
        let steps = Steps::default();
        // `make collected_sources` names a folder that nothing else makes.
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let mut draft = Draft::of(path)?;
        let packed = path.extension().is_some_and(|e| e == "gz" || e == "tgz");
        let how = (time, packed);
        let found = collect(&manifest, how, &options, &steps, &mut draft).or_advise()?;
        draft.commit()?;
        steps.done();
        found.missing.iter().for_each(|m| crate::out::say!("warning: {m} cannot be had"));
        collected = Some(found);
    }
    let manifest = collected.as_ref().map_or(&manifest, |c| &c.manifest);
    if let Some(path) = &args.output {
        let mut draft = Draft::of(path)?;
        draft.write_all(manifest.print().as_bytes())?;
        draft.commit()?;
    }
    match (args.json, &collected) {
        (true, Some(collected)) => out::json(collected),
        (true, None) => out::json(&manifest.rows),
        (false, Some(c)) => {
            out::line(format!("{} files, {}", c.files, c.size));
            Ok(())
        }
        (false, None) if args.output.is_none() => {
            out::text(manifest.print().trim_end());
            Ok(())
        }
        (false, None) => Ok(()),
    }
}

fn compare(path: &Path, manifest: &Manifest, json: bool) -> anyhow::Result<()> {
    let found = check(read(path)?.as_bytes(), manifest).or_advise()?;
    if json {
        out::json(&found)?;
    } else {
        found.only_in_bill.iter().for_each(|s| out::line(format!("only in the bill: {s}")));
        found.only_in_manifest.iter().for_each(|s| out::line(format!("only in the manifest: {s}")));
    }
    match found.only_in_bill.len() + found.only_in_manifest.len() {
        0 => {
            crate::out::say!("{} sources match", found.matched);
            Ok(())
        }
        n => anyhow::bail!("{n} sources are only in one of {} and the manifest", path.display()),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
