//! `eve compose`: linuxkit yml to a root file system tar.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use builder::compose::{Description, Facts, Options, compose, show};
use builder::pkg;
use store::{Draft, Layout, import_tar};

use crate::out::{self, OrAdvise, Step, WrongUse};
use crate::places;

/// Arguments of `eve compose`.
///
/// Several files are one description: lists append, of the kernel's fields the last counts.
/// `@pkg:pkg/NAME` stands for the image of a package of this repository.
///
/// Example: eve compose -o rootfs.tar images/rootfs.yml
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The description, in one or several files; `-` is standard input
    #[arg(required = true, value_name = "FILE.yml")]
    files: Vec<PathBuf>,
    /// Where the archive goes; `-` is standard output
    #[arg(short, long, value_name = "FILE.tar", required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// The OCI layout with the images: that of `eve pkg`, or linuxkit's ~/.linuxkit/cache
    #[arg(long, env = "LINUXKIT_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
    /// First bring these images (OCI layouts in tar files) into the cache
    #[arg(long = "image", value_name = "FILE.oci.tar")]
    images: Vec<PathBuf>,
    /// The processor: amd64, arm64, riscv64
    #[arg(long, default_value = host_arch())]
    arch: String,
    /// Compose nothing; print the description with all files merged and packages resolved
    #[arg(long)]
    dry_run: bool,
    /// Print what was composed as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    if to_stdout && args.json {
        let why = "-o - and --json both want standard output: give -o a file";
        return Err(WrongUse(why.to_owned()).into());
    }
    let texts = args.files.iter().map(|f| read(f)).collect::<anyhow::Result<Vec<_>>>()?;
    let texts: Vec<(&str, &str)> = texts.iter().map(|(f, t)| (f.as_str(), t.as_str())).collect();
    let packages = packages(&texts)?;
    let find = pkg::resolver(&packages);
    let package = |path: &str| {
        find(path).ok_or_else(|| "no package of this repository has that path".to_owned())
    };
    let description = Description::parse(&texts, &package).or_advise()?;
    if args.dry_run {
        out::line(show(&description).trim_end());
        return Ok(());
    }
    let layout = open_cache(&args)?;
    let options = Options {
        arch: args.arch.clone(),
        home: std::env::var_os("HOME").filter(|h| !h.is_empty()).map(PathBuf::from),
        kept: Some(places::cache().join("layers")),
        ..Options::default()
    };
    let step = Step::start("composing the root file system");
    let facts = if to_stdout {
        let mut stdout = io::stdout().lock();
        let facts = compose(&description, &layout, &options, &mut stdout).or_advise()?;
        stdout.flush().context("cannot write to standard output")?;
        facts
    } else {
        let path = args.output.unwrap_or_default();
        let mut draft = Draft::of(&path)?;
        let facts = compose(&description, &layout, &options, &mut draft).or_advise()?;
        draft.commit()?;
        facts
    };
    let Facts { size, digest, images, .. } = &facts;
    step.done(format!("{size} of {} images, {digest}", images.len()));
    facts.warnings.iter().for_each(|w| say!("warning: {w}"));
    if args.json { out::json(&facts) } else { Ok(()) }
}

/// A file's name for messages, and its text.
fn read(file: &Path) -> anyhow::Result<(String, String)> {
    let name = file.display().to_string();
    if name == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(("standard input".to_owned(), text));
    }
    if name.starts_with("http://") || name.starts_with("https://") {
        return Err(out::advised(
            format!("{name} is not on this machine"),
            "a build fetches nothing: download the file and name it here",
        ));
    }
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    Ok((name, text))
}

/// The packages that the texts name with `@pkg:`, if any does.
fn packages(texts: &[(&str, &str)]) -> anyhow::Result<BTreeMap<String, pkg::Package>> {
    if !texts.iter().any(|(_, text)| text.contains("@pkg:")) {
        return Ok(BTreeMap::new());
    }
    let repository =
        places::repository().context("@pkg: stands for a package of the repository")?;
    pkg::plan(&[], &pkg::Options::from_env(&repository), &()).or_advise()
}

fn open_cache(args: &Args) -> anyhow::Result<Layout> {
    let dir = args.cache.clone().unwrap_or_else(|| places::cache().join("oci"));
    if args.images.is_empty() {
        return Layout::open(dir).or_advise();
    }
    let layout = Layout::create(dir).or_advise()?;
    for path in &args.images {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        import_tar(&layout, io::BufReader::new(file), path).or_advise()?;
    }
    Ok(layout)
}

/// This machine's processor, in Go's words.
fn host_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
