//! `eve compose`: linuxkit yml to a root file system.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use builder::compose::{Description, Facts, Options, Plan, boot_archive, plan, show};
use builder::pkg;
use model::Bytes;
use store::{Draft, Layout, import_tar};

use crate::describe::Templates;
use crate::out::{self, OrAdvise, Step, WrongUse};
use crate::places;

/// The longest description we take. The largest we know has 20 KiB.
const TEXT_MAX: Bytes = Bytes::mib(1);

/// Compose a root file system tar from linuxkit yml files
///
/// Several files are one description: lists append, of the kernel's fields the last counts.
/// `@pkg:pkg/NAME` stands for the image of a package of this repository. A file that ends with `.in`
/// is a template: `eve describe` tells what becomes of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The description, in one or several files; `-` is standard input, an http(s) URL is fetched
    #[arg(required = true, value_name = "FILE.yml")]
    files: Vec<PathBuf>,
    /// Where the archive goes; `-` is standard output. Of the formats with a kernel: what the names
    /// of their files start with
    #[arg(short, long, value_name = "FILE.tar", required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// What to make of it
    #[arg(long, value_enum, default_value = "tar")]
    format: Format,
    /// How the archive is laid out; linuxkit: byte for byte as linuxkit does it
    #[arg(long, value_enum, default_value = "linuxkit")]
    layout: Arrangement,
    /// The OCI layout with the images: that of `eve pkg`, or linuxkit's ~/.linuxkit/cache
    #[arg(long, env = "LINUXKIT_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
    /// First bring these images into the cache: OCI layouts in tar files, or folders of *.oci.tar
    #[arg(long = "image", visible_alias = "image-tar", value_name = "FILE.oci.tar")]
    images: Vec<PathBuf>,
    /// The processor
    #[arg(long, env = "ZARCH", value_parser = ["amd64", "arm64", "riscv64"], default_value = host_arch())]
    arch: String,
    /// Take the kernel out of its compression (gzip, or an x86 bzImage of gzip)
    #[arg(long)]
    decompress_kernel: bool,
    /// Leave out sbom.spdx.json, which joins what the images say they are made of
    #[arg(long)]
    no_sbom: bool,
    #[command(flatten)]
    templates: Templates,
    /// Compose nothing; print the description with all files merged and packages resolved
    #[arg(long)]
    dry_run: bool,
    /// Print what was composed as JSON
    #[arg(long)]
    json: bool,
}

/// What can be made of a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The root file system as a tar
    Tar,
    /// The same with a Dockerfile that starts its init
    Docker,
    /// NAME-kernel, NAME-initrd.img and NAME-cmdline
    #[value(name = "kernel+initrd")]
    KernelInitrd,
    /// The same files in NAME-initrd.tar
    #[value(name = "tar-kernel-initrd")]
    TarKernelInitrd,
}

/// Layouts of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Arrangement {
    /// That of linuxkit
    Linuxkit,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let Arrangement::Linuxkit = args.layout;
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    if to_stdout && args.json {
        let why = "-o - and --json both want standard output: give -o a file";
        return Err(WrongUse(why.to_owned()).into());
    }
    if to_stdout && !matches!(args.format, Format::Tar | Format::Docker) {
        let why = "this format makes several files: give -o what their names start with";
        return Err(WrongUse(why.to_owned()).into());
    }
    let mut texts = args.files.iter().map(|f| read(f)).collect::<anyhow::Result<Vec<_>>>()?;
    for (path, (name, text)) in args.files.iter().zip(&mut texts) {
        if Templates::is_one(path) {
            let described = args.templates.describe(&args.arch, path, text)?;
            if args.templates.explain {
                crate::describe::explain(&described);
            }
            *text = described.yml();
            *name = format!("what {name} became");
        }
    }
    if args.templates.explain {
        return Ok(());
    }
    let texts: Vec<(&str, &str)> = texts.iter().map(|(f, t)| (f.as_str(), t.as_str())).collect();
    let packages = packages(&texts)?;
    let find = pkg::resolver(&packages);
    let package = |path: &str| {
        find(path).ok_or_else(|| "no package of this repository has that path".to_owned())
    };
    let description = Description::parse(&texts, &package).or_advise()?;
    if args.dry_run {
        out::text(show(&description).trim_end());
        return Ok(());
    }
    let layout = open_cache(&args)?;
    let options = Options {
        arch: args.arch.clone(),
        home: std::env::var_os("HOME").filter(|h| !h.is_empty()).map(PathBuf::from),
        kept: Some(places::cache().join("layers")),
        decompress_kernel: args.decompress_kernel,
        dockerfile: args.format == Format::Docker,
        sbom: !args.no_sbom,
    };
    let step = Step::start("composing the root file system");
    let plan = plan(&description, &layout, &options).or_advise()?;
    let output = args.output.clone().unwrap_or_default();
    let facts = match args.format {
        Format::Tar | Format::Docker if to_stdout => {
            let mut stdout = io::stdout().lock();
            let facts = plan.facts(plan.write(&mut stdout).or_advise()?);
            stdout.flush().context("cannot write to standard output")?;
            Some(facts)
        }
        Format::Tar | Format::Docker => {
            let mut draft = Draft::of(&output)?;
            let facts = plan.facts(plan.write(&mut draft).or_advise()?);
            draft.commit()?;
            Some(facts)
        }
        Format::KernelInitrd => {
            kernel_and_initrd(&plan, &output)?;
            None
        }
        Format::TarKernelInitrd => {
            archive_of_both(&plan, &output)?;
            None
        }
    };
    match &facts {
        Some(Facts { size, digest, images, .. }) => {
            step.done(format!("{size} of {} images, {digest}", images.len()));
        }
        None => step.done(format!("of {} images", plan.images().len())),
    }
    plan.warnings().iter().for_each(|w| crate::out::say!("warning: {w}"));
    match facts {
        Some(facts) if args.json => out::json(&facts),
        None if args.json => out::json(plan.images()),
        _ => Ok(()),
    }
}

/// The parts of a composition as files of their own; those that there is nothing for are left out.
fn kernel_and_initrd(plan: &Plan, base: &Path) -> anyhow::Result<()> {
    let boot = plan.boot().or_advise()?;
    let mut draft = Draft::of(&beside(base, "-initrd.img"))?;
    plan.write_initrd(&boot.ucode, &mut draft).or_advise()?;
    draft.commit()?;
    for (end, body) in [("-kernel", &boot.kernel), ("-cmdline", &boot.cmdline)] {
        if !body.is_empty() {
            let path = beside(base, end);
            let mut draft = Draft::of(&path)?;
            draft.write_all(body).with_context(|| format!("cannot write {}", path.display()))?;
            draft.commit()?;
        }
    }
    Ok(())
}

/// The same as one archive.
fn archive_of_both(plan: &Plan, base: &Path) -> anyhow::Result<()> {
    let path = beside(base, "-initrd.tar");
    let boot = plan.boot().or_advise()?;
    let mut initrd = Vec::new();
    plan.write_initrd(&[], &mut initrd).or_advise()?;
    let mut draft = Draft::of(&path)?;
    let written = boot_archive(&boot, &initrd, &mut draft);
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(draft.commit()?)
}

/// `dist/x` and `-kernel` are `dist/x-kernel`.
fn beside(base: &Path, end: &str) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// A file's name for messages, and its text.
fn read(file: &Path) -> anyhow::Result<(String, String)> {
    let name = file.display().to_string();
    if name.starts_with("http://") || name.starts_with("https://") {
        let text = pkg::fetch_text(&name, TEXT_MAX);
        return text.map(|text| (name.clone(), text)).map_err(|error| {
            let error = anyhow::Error::new(error);
            error.context(format!("cannot use {name}"))
        });
    }
    let (name, opened): (String, anyhow::Result<Box<dyn Read>>) = match name.as_str() {
        "-" => ("standard input".to_owned(), Ok(Box::new(io::stdin()))),
        _ => {
            let opened = File::open(file).with_context(|| format!("cannot read {name}"));
            (name, opened.map(|f| Box::new(f) as Box<dyn Read>))
        }
    };
    let mut text = String::new();
    let bounded = opened?.take(TEXT_MAX.0 + 1).read_to_string(&mut text);
    bounded.with_context(|| format!("cannot read {name}"))?;
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
        for path in archives(path)? {
            let file =
                File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
            import_tar(&layout, io::BufReader::new(file), &path).or_advise()?;
        }
    }
    Ok(layout)
}

/// The file, or the archives in the folder.
fn archives(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = || format!("cannot read {}", path.display());
    let entries = fs::read_dir(path).with_context(unreadable)?;
    let paths = entries.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = paths.with_context(unreadable)?;
    paths.retain(|p| p.to_string_lossy().ends_with(".oci.tar"));
    paths.sort();
    if paths.is_empty() {
        let why = format!("{} has no file *.oci.tar", path.display());
        return Err(out::advised(why, "name the files themselves, or another folder"));
    }
    Ok(paths)
}

/// This machine's processor, in Go's words.
fn host_arch() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        "riscv64" => "riscv64",
        _ => "amd64",
    }
}
