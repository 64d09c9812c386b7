//! `eve build config --in`: the CONFIG partition of a finished image.

use std::io::Write;
use std::path::PathBuf;

use builder::image;
use formats::fat::Files;
use model::Bytes;

use crate::out::{self, OrAdvise, WrongUse};
use crate::steps::Steps;

/// What is to be done with a finished image.
#[derive(Debug, clap::Args)]
#[group(id = "edit")]
pub(crate) struct Args {
    /// `config` only: change the CONFIG partition of this finished disk, live or installer, instead
    /// of building one; with nothing to change, list it
    #[arg(long = "in", value_name = "IMAGE")]
    image: Option<PathBuf>,
    /// With --in: remove this file from the CONFIG partition; can be given again
    #[arg(long, value_name = "NAME", requires = "image")]
    remove: Vec<String>,
    /// With --in: write this file of the CONFIG partition to standard output
    #[arg(long, value_name = "NAME", requires = "image", conflicts_with_all = ["remove", "set", "file"])]
    get: Option<String>,
    /// With --in: list the files of the CONFIG partition
    #[arg(long, requires = "image", conflicts_with_all = ["get", "remove", "set", "file"])]
    list: bool,
}

/// A file in the CONFIG partition.
#[derive(Debug, serde::Serialize)]
struct Row<'a> {
    name: &'a str,
    size: Bytes,
}

impl Args {
    /// Whether a finished image was named.
    pub(crate) fn is_wanted(&self) -> bool {
        self.image.is_some()
    }
}

/// Changes, lists or reads; `set` is what is to be added or replaced.
pub(crate) fn run(args: &Args, set: &Files, json: bool) -> anyhow::Result<()> {
    let Some(path) = &args.image else { return Ok(()) };
    if let Some(name) = &args.get {
        let files = image::get_config(path).or_advise()?;
        let body = files.get(name).ok_or_else(|| {
            let text = format!("the CONFIG partition of {} has no file {name}", path.display());
            out::advised(text, "see what is there with --list")
        })?;
        std::io::stdout().write_all(body)?;
        return Ok(());
    }
    let changes = !set.is_empty() || !args.remove.is_empty();
    if args.list && changes {
        return Err(WrongUse("--list changes nothing: leave out --conf".to_owned()).into());
    }
    if changes {
        let steps = Steps::default();
        image::edit_config(path, set, &args.remove, &steps).or_advise()?;
        steps.done();
    }
    let files = image::get_config(path).or_advise()?;
    let rows = files.iter().map(|(name, body)| Row { name, size: Bytes(body.len() as u64) });
    let rows: Vec<Row<'_>> = rows.collect();
    if json {
        return out::json(&rows);
    }
    let rows: Vec<_> = rows.iter().map(|r| vec![r.name.to_owned(), r.size.to_string()]).collect();
    out::table(&["file", "size"], &rows);
    Ok(())
}
