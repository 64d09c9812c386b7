//! `eve sizes`: what takes how much in an image.

use std::path::PathBuf;

use builder::inspect;
use builder::sizes::{Growth, Size, Sizes};
use model::Bytes;
use serde::Serialize;

use crate::out::{self, OrAdvise};
use crate::places;

/// Say what takes how much in an image
///
/// Says what each package takes in an image, plain and, in a packed file system, its share of it; and
/// how that grew since another image.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A root file system (rootfs.tar, squashfs, slot.img), a disk, or a folder of dist; by default
    /// the newest build
    image: Option<PathBuf>,
    /// Compare with this image
    #[arg(long, value_name = "IMAGE")]
    since: Option<PathBuf>,
    /// Show the parts of each package too: .debs, programs, files of the recipe
    #[arg(long)]
    parts: bool,
    /// Print the sizes as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Facts {
    #[serde(flatten)]
    sizes: Sizes,
    #[serde(skip_serializing_if = "Option::is_none")]
    growth: Option<Vec<Growth>>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let image = places::image_or_newest(args.image)?;
    let sizes = inspect::sizes(&image).or_advise()?;
    let before = args.since.map(|i| inspect::sizes(&i).or_advise()).transpose()?;
    let growth = before.map(|before| sizes.growth(&before));
    if args.json {
        return out::json(&Facts { sizes, growth });
    }
    show(&sizes, args.parts);
    if let Some(growth) = growth {
        out::line("");
        let rows = growth.iter().map(|g| {
            let sign = if g.by() < 0 { "-" } else { "+" };
            let by = Bytes(g.now.0.abs_diff(g.before.0));
            vec![g.name.clone(), g.before.to_string(), g.now.to_string(), format!("{sign}{by}")]
        });
        out::table(&["package", "before", "now", "growth"], &rows.collect::<Vec<_>>());
    }
    Ok(())
}

/// Prints what each package takes, with its parts if they are wanted.
pub(crate) fn show(sizes: &Sizes, parts: bool) {
    let packed = |size: Option<Bytes>| size.map_or_else(|| "-".to_owned(), |s| s.to_string());
    let row = |indent: &str, s: &Size| {
        vec![
            format!("{indent}{}", s.name),
            s.plain.to_string(),
            packed(s.packed),
            s.files.to_string(),
        ]
    };
    let mut rows = Vec::new();
    for package in &sizes.packages {
        rows.push(row("", package));
        if parts {
            rows.extend(package.parts.iter().map(|p| row("  ", p)));
        }
    }
    rows.push(vec!["all".to_owned(), sizes.plain.to_string(), packed(sizes.packed)]);
    out::table(&["package", "plain", "packed", "files"], &rows);
}
