//! `eve cache`: the images that packages became.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use store::{Draft, Layout, Platform, export_image, import_tar};

use crate::out::{self, OrAdvise};
use crate::places;

/// The images that packages became: list, import, export
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// The OCI layout with the images: that of `eve pkg`, or linuxkit's ~/.linuxkit/cache
    #[arg(long, env = "LINUXKIT_CACHE", value_name = "DIR", global = true)]
    cache: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the images
    Ls {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Bring images into the cache: OCI layouts in tar files
    Import {
        /// The files; `-` is standard input
        #[arg(required = true, value_name = "FILE.tar")]
        files: Vec<PathBuf>,
    },
    /// Write an image to a file, for `docker load` and for what reads OCI layouts
    Export {
        /// The image, as `eve cache ls` names it
        image: String,
        /// The processor
        #[arg(long, env = "ZARCH", value_parser = crate::build::arch, default_value = "amd64")]
        arch: model::Arch,
        /// The name it has in the file [default: its own]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Where it goes; `-` is standard output
        #[arg(short, long, value_name = "FILE.tar")]
        output: PathBuf,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let usual = args.cache.is_none();
    let dir = args.cache.unwrap_or_else(|| places::cache().join("oci"));
    if usual && !dir.exists() && !matches!(args.command, Command::Import { .. }) {
        let text =
            format!("the cache {} is not there: nothing was built or imported", dir.display());
        let advice = "`eve pkg build` and `eve cache import` fill it; --cache names another";
        return Err(out::advised(text, advice));
    }
    match args.command {
        Command::Ls { json } => ls(&Layout::open(dir).or_advise()?, json),
        Command::Import { files } => {
            let layout = Layout::create(dir).or_advise()?;
            files.iter().try_for_each(|path| import(&layout, path))
        }
        Command::Export { image, arch, name, output } => {
            let layout = Layout::open(dir).or_advise()?;
            // As written, or as linuxkit and docker write it in full.
            let full = store::name::expand(&image);
            let known = layout.target(&image).is_ok();
            let (image, shown) = (if known { image.clone() } else { full }, name.unwrap_or(image));
            let platform = Platform::linux(arch.name());
            if output == Path::new("-") {
                let mut stdout = io::stdout().lock();
                export_image(&layout, &image, &platform, &shown, &mut stdout).or_advise()?;
                return stdout.flush().context("cannot write to standard output");
            }
            let mut draft = Draft::of(&output)?;
            export_image(&layout, &image, &platform, &shown, &mut draft).or_advise()?;
            draft.commit()?;
            Ok(())
        }
    }
}

fn ls(layout: &Layout, json: bool) -> anyhow::Result<()> {
    let refs = layout.refs().or_advise()?;
    let rows = refs.into_iter().map(|image| vec![image.name, image.target.digest.to_string()]);
    let rows: Vec<Vec<String>> = rows.collect();
    if json {
        let object = |row: &Vec<String>| serde_json::json!({ "image": row[0], "digest": row[1] });
        return out::json(&rows.iter().map(object).collect::<Vec<_>>());
    }
    out::table(&["image", "digest"], &rows);
    Ok(())
}

fn import(layout: &Layout, path: &Path) -> anyhow::Result<()> {
    let brought = if path == Path::new("-") {
        import_tar(layout, io::stdin().lock(), path).or_advise()?
    } else {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        import_tar(layout, io::BufReader::new(file), path).or_advise()?
    };
    brought.names.iter().for_each(out::line);
    Ok(())
}
