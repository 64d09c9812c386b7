//! `eve describe`, `eve matrix` and `eve version`: what would be built, without building it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use builder::describe::{
    self, Described, Image, Matrix, Repository, Request, Selection, Text, Unknown, Variant, Words,
};
use builder::image::{self, Flavor};

use crate::out::{self, OrAdvise, WrongUse};
use crate::places;

/// No template or modifier is nearly as large.
const FILE_MAX: u64 = 1 << 20;

/// Show what a template becomes for a machine: linuxkit yml
///
/// TEMPLATE is `rootfs` or `installer`, this repository's own with its modifiers, or a file of your
/// own (`-`: standard input) with the modifiers you name, applied in that order: expressions in the
/// language of yq. Then files whose contents are EVE_HV, EVE_PLATFORM and EVE_VERSION get what
/// these options say, EVE's pillar its variant, and words like KERNEL_TAG what they stand for: in a
/// clone its packages (images/tags.toml, images/matrix.toml), and what --tag says. Words that stand
/// for nothing stay, with a warning.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        eve describe rootfs --explain\n  \
        eve describe installer --arch arm64 --dev -o installer.yml\n  \
        eve describe rootfs.yml.in modifiers/hv/k.yq --hv k --tag KUBE_TAG=me/kube:1")]
pub(crate) struct Args {
    /// `rootfs`, `installer`, or a template
    template: PathBuf,
    /// Modifiers for a template of your own
    #[arg(value_name = "MODIFIER.yq")]
    modifiers: Vec<PathBuf>,
    #[command(flatten)]
    machine: Machine,
    /// The version that the image will tell: 0.0.0-main-0123abcd-kvm-amd64
    ///
    /// Its flags `dev` and `k` choose the variant, too. [default for rootfs and installer: that of
    /// the repository]
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// What a word stands for (repeatable)
    #[arg(long, value_name = "WORD=VALUE", value_parser = word)]
    tag: Vec<(String, String)>,
    /// A file of such lines
    #[arg(long, value_name = "FILE")]
    tags: Option<PathBuf>,
    /// Leave all words as they stand
    #[arg(long, conflicts_with_all = ["tag", "tags", "strict"])]
    keep_tags: bool,
    /// Fail if a word stands for nothing
    #[arg(long)]
    strict: bool,
    /// Print where each value came from instead of the yml
    #[arg(long)]
    explain: bool,
    /// Print values and where they came from as JSON
    #[arg(long)]
    json: bool,
    /// Where the yml goes; by default to standard output
    #[arg(short, long, value_name = "FILE.yml")]
    output: Option<PathBuf>,
}

/// For what machine.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Machine {
    /// The processor: amd64, arm64, riscv64
    #[arg(long, env = "ZARCH", default_value = "amd64")]
    pub arch: String,
    /// The hypervisor
    #[arg(long, env = "HV", default_value = "kvm")]
    pub hv: String,
    /// The platform
    #[arg(long, env = "PLATFORM", default_value = "generic")]
    pub platform: String,
    /// For developers: with the debug package
    #[arg(long)]
    pub dev: bool,
    /// Another kernel image than the platform's
    #[arg(long, env = "KERNEL_TAG", value_name = "IMAGE")]
    pub kernel_tag: Option<String>,
}

/// Show which ZARCH, HV and PLATFORM go together and can be built
///
/// Without options the whole table. With a combination only that; it fails if there is none.
#[derive(Debug, clap::Args)]
pub(crate) struct MatrixArgs {
    /// The processor
    #[arg(long)]
    arch: Option<String>,
    /// The hypervisor
    #[arg(long)]
    hv: Option<String>,
    /// The platform
    #[arg(long)]
    platform: Option<String>,
    /// Print what KERNEL_TAG stands for and nothing else
    #[arg(long)]
    kernel_tag: bool,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

/// Print the version that a build would have
///
/// That of the tag, or 0.0.0-<branch>-<commit>. What is not committed shows as -dirty- and a digest
/// of its content: the same state has the same version, however often it is built.
#[derive(Debug, clap::Args)]
pub(crate) struct VersionArgs {
    #[command(flatten)]
    machine: Machine,
    /// This version instead of that of the repository
    #[arg(long, env = "ROOTFS_VERSION", value_name = "VERSION", value_parser = crate::build::version)]
    version: Option<String>,
    /// With hypervisor and architecture, as a node tells it
    #[arg(long)]
    full: bool,
    /// The version that was built last: what dist/<arch>/current points to
    #[arg(long, conflicts_with = "full")]
    current: bool,
    /// Print the folder of its files instead
    #[arg(long)]
    folder: bool,
}

/// How files that end with `.in` become descriptions, for commands that take descriptions.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Templates {
    /// For templates (*.yml.in), as `eve describe` has it: the hypervisor
    #[arg(long, env = "HV", default_value = "kvm")]
    hv: String,
    /// For templates: the platform
    #[arg(long, env = "PLATFORM", default_value = "generic")]
    platform: String,
    /// For templates: for developers
    #[arg(long)]
    dev: bool,
    /// For templates: another kernel image than the platform's
    #[arg(long, env = "KERNEL_TAG", value_name = "IMAGE")]
    kernel_tag: Option<String>,
    /// For templates: a modifier (repeatable) [default: for the repository's own, its own]
    #[arg(long = "modifier", value_name = "MODIFIER.yq")]
    modifiers: Vec<PathBuf>,
    /// For templates: what a word stands for (repeatable)
    #[arg(long, value_name = "WORD=VALUE", value_parser = word)]
    tag: Vec<(String, String)>,
    /// For templates: the version that the image will tell
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// With --dry-run: print where each value of the templates came from
    #[arg(long, requires = "dry_run")]
    pub explain: bool,
}

impl Templates {
    /// Whether a file is a template.
    pub(crate) fn is_one(path: &Path) -> bool {
        path.extension().is_some_and(|e| e == "in")
    }

    /// What a template becomes on machines of `arch`.
    pub(crate) fn describe(
        &self,
        arch: &str,
        path: &Path,
        text: &str,
    ) -> anyhow::Result<Described> {
        let machine = Machine {
            arch: arch.to_owned(),
            hv: self.hv.clone(),
            platform: self.platform.clone(),
            dev: self.dev,
            kernel_tag: self.kernel_tag.clone(),
        };
        let version = self.version.as_deref();
        let described = match own_template(path) {
            Some(image) if self.modifiers.is_empty() && self.tag.is_empty() => {
                of_repository(&machine, version, image)?
            }
            _ => {
                let template = Text { name: path.display().to_string(), text: text.to_owned() };
                let said = |(key, value): &(String, String)| (key.clone(), value.clone(), "--tag");
                let words: Vec<_> = self.tag.iter().map(said).collect();
                of_files(&machine, version, template, &self.modifiers, Some(&words))?
            }
        };
        tell(&described.unknown, false)?;
        Ok(described)
    }
}

/// Which of the repository's own templates a file is.
fn own_template(path: &Path) -> Option<Image> {
    let (path, root) = (path.canonicalize().ok()?, places::repository().ok()?);
    let is_it = |image: &Image| root.join(image.template()).canonicalize().is_ok_and(|p| p == path);
    [Image::Rootfs, Image::Installer].into_iter().find(is_it)
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let described = describe(&args)?;
    if !args.keep_tags {
        tell(&described.unknown, args.strict)?;
    }
    if args.json {
        return out::json(&described.explain());
    }
    if args.explain {
        explain(&described);
        return Ok(());
    }
    let yml = described.yml();
    match &args.output {
        None => out::raw(yml.trim_end()),
        Some(path) => {
            let (folder, name) = places::parent_and_name(path)?;
            store::save(&folder, &name, yml.as_bytes())?;
        }
    }
    Ok(())
}

/// Prints where each value came from.
pub(crate) fn explain(described: &Described) {
    let rows = described.explain().into_iter();
    let rows = rows.map(|said| vec![said.path, out::short(&said.value, 60), said.origin]);
    out::table(&["value", "is", "says"], &rows.collect::<Vec<_>>());
}

fn describe(args: &Args) -> anyhow::Result<Described> {
    let version = args.version.as_deref();
    let image = match args.template.to_str() {
        Some("rootfs") => Some(Image::Rootfs),
        Some("installer") => Some(Image::Installer),
        _ => None,
    };
    if let Some(image) = image {
        if !args.modifiers.is_empty()
            || args.keep_tags
            || !args.tag.is_empty()
            || args.tags.is_some()
        {
            let why = "rootfs and installer have their own modifiers and words; name the template's \
                       file to say others";
            return Err(WrongUse(why.to_owned()).into());
        }
        return of_repository(&args.machine, version, image);
    }
    let mut words = Vec::new();
    let lines = args.tags.as_ref().map(|path| read(path)).transpose()?;
    if let Some(Text { name, text }) = &lines {
        for line in text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')) {
            let (key, value) = word(line).map_err(|e| WrongUse(format!("{name}: {line}: {e}")))?;
            words.push((key, value, name.as_str()));
        }
    }
    words.extend(args.tag.iter().map(|(key, value)| (key.clone(), value.clone(), "--tag")));
    let words = (!args.keep_tags).then_some(&words[..]);
    of_files(&args.machine, version, read(&args.template)?, &args.modifiers, words)
}

fn of_repository(
    machine: &Machine,
    version: Option<&str>,
    image: Image,
) -> anyhow::Result<Described> {
    let root = places::repository()?;
    let clone = Repository::open(&root).or_advise()?;
    let Machine { arch, hv, platform, dev, kernel_tag } = machine;
    check(&root, (arch, hv, platform), None)?;
    let full = match version {
        Some(version) => version.to_owned(),
        None => image::full_version(&version_of(machine, &root)?, hv, arch),
    };
    let selection = Selection {
        arch: arch.clone(),
        hv: hv.clone(),
        platform: platform.clone(),
        dev: *dev,
        version: Some(full),
        kernel: kernel_tag.clone(),
    };
    clone.describe(image, &selection).or_advise()
}

/// `words` are said beyond what the repository's stand for; without, all stay as they are.
fn of_files(
    machine: &Machine,
    version: Option<&str>,
    template: Text,
    modifiers: &[PathBuf],
    words: Option<&[(String, String, &str)]>,
) -> anyhow::Result<Described> {
    let Machine { arch, hv, platform, dev, kernel_tag } = machine;
    let mut known = Words::default();
    if let Some(words) = words {
        // Outside of a clone there are no packages and no matrix.
        if let Ok(root) = places::repository() {
            check(&root, (arch, hv, platform), None)?;
            let clone = Repository::open(&root).or_advise()?;
            let row = clone.matrix().find(arch, hv, platform).or_advise()?;
            known = clone.words(row, kernel_tag.as_deref());
        } else if let Some(kernel) = kernel_tag {
            known.say("KERNEL_TAG", kernel.clone(), "KERNEL_TAG");
        }
        for (word, value, said_by) in words {
            known.say(word.clone(), value.clone(), said_by);
        }
    }
    let of_version = version.map(Variant::of).unwrap_or_default();
    let request = Request {
        template,
        modifiers: modifiers.iter().map(|m| read(m)).collect::<anyhow::Result<_>>()?,
        hv: Some(hv.clone()),
        platform: Some(platform.clone()),
        version: version.map(str::to_owned),
        variant: Variant { dev: *dev || of_version.dev, k: hv == "k" || of_version.k },
        words: known,
    };
    describe::describe(&request).or_advise()
}

/// Fails if there is no such machine: that is wrong use. With `kernel`, also if nothing can be built
/// for it with that kernel.
pub(crate) fn check(
    repository: &Path,
    (arch, hv, platform): (&str, &str, &str),
    kernel: Option<Option<&str>>,
) -> anyhow::Result<()> {
    let clone = Repository::open(repository).or_advise()?;
    let matrix = clone.matrix();
    if let Err(error) = matrix.find(arch, hv, platform) {
        return Err(WrongUse(format!("{error} (`eve matrix` shows what goes together)")).into());
    }
    if let Some(kernel) = kernel {
        matrix.buildable(arch, hv, platform, kernel).or_advise()?;
    }
    Ok(())
}

/// Warns of words that stand for nothing, or fails.
fn tell(unknown: &[Unknown], strict: bool) -> anyhow::Result<()> {
    let says = |u: &Unknown| format!("{}: {} stands for nothing ({})", u.origin, u.word, u.path);
    match unknown.first() {
        Some(first) if strict => {
            let advice = "say what it stands for: --tag WORD=VALUE";
            Err(out::advised(says(first), advice))
        }
        _ => {
            unknown.iter().for_each(|u| crate::out::say!("warning: {}", says(u)));
            Ok(())
        }
    }
}

pub(crate) fn matrix(args: MatrixArgs) -> anyhow::Result<()> {
    let clone = Repository::open(&places::repository()?).or_advise()?;
    let matrix = clone.matrix();
    let MatrixArgs { arch, hv, platform, .. } = &args;
    let asked = arch.is_some() || hv.is_some() || platform.is_some() || args.kernel_tag;
    if !asked {
        return if args.json { out::json(&rows(matrix)) } else { table(matrix) };
    }
    let (arch, hv) = (arch.as_deref().unwrap_or("amd64"), hv.as_deref().unwrap_or("kvm"));
    let platform = platform.as_deref().unwrap_or("generic");
    check(clone.root(), (arch, hv, platform), None)?;
    let row = matrix.find(arch, hv, platform).or_advise()?;
    if args.kernel_tag {
        out::line(kernel(&row.kernel_tag())?);
        return Ok(());
    }
    if args.json {
        let is_it = |r: &serde_json::Value| {
            (&r["arch"], &r["hv"], &r["platform"]) == (&arch.into(), &hv.into(), &platform.into())
        };
        return out::json(&rows(matrix).into_iter().find(is_it));
    }
    matrix.buildable(arch, hv, platform, None).or_advise()?;
    out::line(format!("ZARCH={arch} HV={hv} PLATFORM={platform} can be built"));
    Ok(())
}

/// The name of a kernel's image; that of our package is asked of the packages.
fn kernel(tag: &str) -> anyhow::Result<String> {
    let Some(package) = tag.strip_prefix("@pkg:") else { return Ok(tag.to_owned()) };
    let options = builder::pkg::Options::from_env(&places::repository()?);
    let planned = builder::pkg::plan(&[package.to_owned()], &options, &()).or_advise()?;
    let kernel = planned.get(package).context("the kernel's package was not found")?;
    Ok(kernel.image.clone())
}

fn rows(matrix: &Matrix) -> Vec<serde_json::Value> {
    let mut rows = Vec::new();
    for row in matrix.rows() {
        for (hv, _) in matrix.hypervisors() {
            let why = matrix.buildable(&row.arch, hv, &row.platform, None).err();
            rows.push(serde_json::json!({
                "arch": row.arch,
                "hv": hv,
                "platform": row.platform,
                "kernel": row.kernel_tag(),
                "builds": why.is_none(),
                "missing": why.map(|w| w.to_string()),
            }));
        }
    }
    rows
}

fn table(matrix: &Matrix) -> anyhow::Result<()> {
    let names: Vec<&str> = matrix.hypervisors().map(|(name, _)| name).collect();
    let head: Vec<&str> =
        ["zarch", "platform", "kernel"].into_iter().chain(names.clone()).collect();
    let table = matrix.rows().iter().map(|row| {
        let can = |hv: &&str| match matrix.buildable(&row.arch, hv, &row.platform, None) {
            Ok(_) => "yes".to_owned(),
            Err(_) => "not yet".to_owned(),
        };
        let mut cells = vec![row.arch.clone(), row.platform.clone(), row.kernel_tag()];
        cells.extend(names.iter().map(can));
        cells
    });
    out::table(&head, &table.collect::<Vec<_>>());
    for (hv, missing) in matrix.hypervisors() {
        if let Some(why) = missing {
            out::line(format!("{hv}: {why}"));
        }
    }
    Ok(())
}

pub(crate) fn version(args: VersionArgs) -> anyhow::Result<()> {
    let root = places::repository()
        .context("a build's version is that of a clone (`eve --version`: ours)")?;
    let Machine { arch, hv, platform, .. } = &args.machine;
    let of_arch = root.join("dist").join(arch);
    if args.current {
        let link = of_arch.join("current");
        let version = fs::read_link(&link).ok().and_then(|to| Some(to.file_name()?.to_owned()));
        let version = version.ok_or_else(|| {
            let text = format!("nothing has been built: {} is not there", link.display());
            out::advised(text, "build something with `eve build live`")
        })?;
        let folder = of_arch.join(&version);
        out::line(if args.folder {
            folder.display().to_string()
        } else {
            // With hypervisor and architecture, as the build has noted it.
            let noted = fs::read_to_string(folder.join("installer/eve_version"));
            noted.map_or_else(|_| version.to_string_lossy().into_owned(), |v| v.trim().to_owned())
        });
        return Ok(());
    }
    let clone = Repository::open(&root).or_advise()?;
    check(clone.root(), (arch, hv, platform), None)?;
    let version = match args.version {
        Some(version) => version,
        None => version_of(&args.machine, &root)?,
    };
    out::line(match (args.folder, args.full) {
        (true, _) => of_arch.join(version).display().to_string(),
        (false, true) => image::full_version(&version, hv, arch),
        (false, false) => version,
    });
    Ok(())
}

/// The version that the repository has for a machine.
pub(crate) fn version_of(machine: &Machine, repository: &Path) -> anyhow::Result<String> {
    let state = image::ask(repository).or_advise().context("cannot tell the version")?;
    let Machine { platform, dev, kernel_tag, .. } = machine;
    Ok(image::version(&state, &Flavor { dev: *dev, kernel: kernel_tag.as_deref(), platform }))
}

fn read(path: &Path) -> anyhow::Result<Text> {
    let mut text = String::new();
    let (name, read) = match path.to_str() {
        Some("-") => {
            let input = std::io::stdin().lock().take(FILE_MAX + 1).read_to_string(&mut text);
            ("standard input".to_owned(), input)
        }
        _ => {
            let file = fs::File::open(path);
            let file = file.and_then(|f| f.take(FILE_MAX + 1).read_to_string(&mut text));
            (path.display().to_string(), file)
        }
    };
    let count = read.with_context(|| format!("cannot read {name}"))?;
    anyhow::ensure!(count as u64 <= FILE_MAX, "{name} is larger than {FILE_MAX} bytes");
    Ok(Text { name, text })
}

/// `KERNEL_TAG=me/kernel:1`; the value may be empty.
fn word(text: &str) -> Result<(String, String), WrongUse> {
    let good = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    match text.split_once('=') {
        Some((word, value)) if good(word) => Ok((word.to_owned(), value.to_owned())),
        _ => {
            Err(WrongUse("it is not WORD=VALUE, with letters, digits and _ in the word".to_owned()))
        }
    }
}
