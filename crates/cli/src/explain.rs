//! `eve explain`: who put a path into an image.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use builder::contents::Contents;
use builder::describe::{Described, Image, Repository, Selection};
use builder::explain::{Put, explain, layer, said};
use builder::inspect;
use store::Layout;

use crate::out::foreign::one_line;
use crate::out::{self, OrAdvise};
use crate::places;

/// Say who put a path into an image
///
/// Says which entry of the description (and, in a clone that has it, its file and line), which package
/// image and layer, and which .deb, recipe or program put a path there, and what else wanted the same
/// path and does not count.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image (rootfs.tar, squashfs, slot.img, a disk, a folder of dist; by default the newest
    /// build), then the path in it
    #[arg(required = true, num_args = 1..=2, value_names = ["IMAGE", "PATH"])]
    words: Vec<PathBuf>,
    /// The OCI layout with the package images, which know their layers
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// The processor of the image: amd64, arm64, riscv64
    #[arg(long, env = "ZARCH", default_value = "amd64")]
    arch: String,
    /// Print the explanation as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(mut args: Args) -> anyhow::Result<()> {
    let path = args.words.pop().unwrap_or_default();
    let image = places::image_or_newest(args.words.pop())?;
    let mut about = BTreeMap::new();
    let contents = inspect::visit(&image, &mut |member, _, _, body| {
        if OF_ITSELF.contains(&member.path.as_str()) {
            let mut text = String::new();
            body.take(SHORT).read_to_string(&mut text)?;
            about.insert(member.path.clone(), text.trim().to_owned());
        }
        Ok(())
    });
    // Of what cannot be read, the record beside it may be known.
    let contents = match contents {
        Err(inspect::InspectError::Ext4 { .. }) => inspect::contents(&image),
        other => other,
    };
    let contents = contents.or_advise()?;
    let described = describe(&args.arch, &contents, &about);
    let mut found = explain(&contents, &path.to_string_lossy()).map_err(|e| {
        let near = e.near.join(", ");
        let advice = if near.is_empty() {
            "nothing there has a name like it".to_owned()
        } else {
            format!("did you mean {near}?")
        };
        out::advised(e.to_string(), advice)
    })?;
    for put in std::iter::once(&mut found.put).chain(&mut found.shadows) {
        put.said = described.as_ref().and_then(|described| said(put, described));
    }
    let layout = args.cache.unwrap_or_else(|| places::cache().join("oci"));
    if let Ok(layout) = Layout::open(layout) {
        for put in std::iter::once(&mut found.put).chain(&mut found.shadows) {
            put.layer = layer(put, &layout, &args.arch);
        }
    }
    if args.json {
        return out::json(&found);
    }
    for (link, target) in &found.links {
        out::line(format!("/{link} is a link to {target}"));
    }
    out::text(in_words(&found.put));
    for put in &found.shadows {
        out::line("");
        out::text(format!("in the place of: {}", in_words(put)));
    }
    Ok(())
}

/// Files in which an image says for what machine it is.
const OF_ITSELF: [&str; 2] = [HV, PLATFORM];
const HV: &str = "etc/eve-hv-type";
const PLATFORM: &str = "etc/eve-platform";
/// They hold a word.
const SHORT: u64 = 256;
/// What only images for developers have.
const DEV: &str = "etc/eve-debug";
/// What only installers have.
const BITS: &str = "bits/install.json";

/// What the clone that this is run in says of such an image. `None`: it is no clone, or none of such
/// images.
fn describe(
    arch: &str,
    contents: &Contents,
    about: &BTreeMap<String, String>,
) -> Option<Described> {
    let has = |path: &str| contents.iter().any(|(member, _)| member.path == path);
    let word = |path: &str, otherwise: &str| {
        about.get(path).filter(|w| !w.is_empty()).map_or(otherwise, |w| w).to_owned()
    };
    let image = if has(BITS) { Image::Installer } else { Image::Rootfs };
    let selection = Selection {
        arch: arch.to_owned(),
        hv: word(HV, "kvm"),
        platform: word(PLATFORM, "generic"),
        dev: has(DEV),
        version: None,
        kernel: None,
    };
    let repository = Repository::open(&places::repository().ok()?).ok()?;
    repository.describe(image, &selection).ok()
}

fn in_words(put: &Put) -> String {
    let mut text = format!("/{} is a {}", one_line(&put.path), put.kind.name());
    if !put.link.is_empty() {
        text += &format!(" to {}", one_line(&put.link));
    } else if put.size.0 > 0 {
        text += &format!(" of {}", put.size);
    }
    let mut row = |what: &str, value: &str| {
        if !value.is_empty() {
            text += &format!("\n  {what:7} {}", one_line(value));
        }
    };
    row("entry", &put.origin.location);
    row("said in", put.said.as_deref().unwrap_or_default());
    row("package", &put.origin.source);
    if let Some(layer) = &put.layer {
        row("layer", &format!("{} of {}, {}", layer.number, layer.of, layer.digest));
    }
    row("from", &put.origin.from);
    text
}
