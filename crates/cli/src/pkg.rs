//! `eve pkg`.

use std::path::PathBuf;

use builder::pkg::{self, Arch, Options, Package};
use clap::Subcommand;

use crate::out::{self, OrAdvise, WrongUse};
use crate::steps::Steps;

/// Build and inspect packages, and their lock file
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build packages into the OCI layout of the cache
    ///
    /// A package is named by a tag that follows from its recipe, its files, the Debian packages that
    /// pkg/debian.lock pins, and our own programs in it. What is there under its tag is not built
    /// again. Debian packages are kept by digest: a second build needs no network.
    Build {
        /// Packages, as `crun` or `pkg/crun`; none: all
        names: Vec<String>,
        /// Fail when the mirror no longer has what the lock pins, instead of taking its successor
        #[arg(long)]
        locked: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Print the image names that packages have, without building images
    ///
    /// Our own programs are compiled, because the tags follow from their bytes.
    Tag {
        /// Packages; none: all
        names: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// List packages
    Ls {
        #[command(flatten)]
        common: Common,
    },
    /// Show what a package is made of
    Show {
        /// The package
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Make pkg/debian.lock fit the recipes
    ///
    /// Without --update only recipes whose wishes have changed are resolved anew. The mirror's index
    /// must be signed by a key in pkg/debian-archive.gpg (checked with gpgv or sqv).
    Lock {
        /// With --update: only these packages; none: all
        names: Vec<String>,
        /// Take what Debian has now
        #[arg(long)]
        update: bool,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Debian mirror, the folder that holds `dists` [default: the one of this machine's apt]
    #[arg(long, value_name = "URL", env = "EVE_DEBIAN_MIRROR")]
    mirror: Option<String>,
    /// Archive of old versions, laid out like a mirror, for what the mirror no longer has
    #[arg(long, value_name = "URL", env = "EVE_DEBIAN_SNAPSHOT")]
    snapshot: Option<String>,
    /// Architecture
    #[arg(long, default_value = "amd64", value_parser = ["amd64", "arm64", "riscv64"])]
    arch: String,
    /// Print facts as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Build { names, locked, common } => {
            let options = Options { locked, ..options(&common)? };
            let steps = Steps::default();
            let built = pkg::build(&names, &options, &steps).or_advise()?;
            steps.done();
            packages(built.into_values().collect(), &common)
        }
        Command::Tag { names, common } => {
            let steps = Steps::default();
            let planned = pkg::plan(&names, &options(&common)?, &steps).or_advise()?;
            steps.done();
            if common.json {
                return out::json(&planned.values().collect::<Vec<_>>());
            }
            planned.values().for_each(|p| out::line(&p.image));
            Ok(())
        }
        Command::Ls { common } => ls(&common),
        Command::Show { name, common } => show(&name, &common),
        Command::Lock { names, update, common } => {
            if !names.is_empty() && !update {
                return Err(WrongUse("names of packages need --update".to_owned()).into());
            }
            let steps = Steps::default();
            let changes = pkg::relock(&names, update, &options(&common)?, &steps).or_advise()?;
            steps.done();
            if common.json {
                return out::json(&changes);
            }
            let or = |version: Option<String>| version.unwrap_or_else(|| "-".to_owned());
            let rows = changes
                .into_iter()
                .map(|c| vec![c.recipe, c.arch.to_string(), c.package, or(c.from), or(c.to)]);
            let rows: Vec<Vec<String>> = rows.collect();
            if rows.is_empty() {
                out::line(format!("{} fits", pkg::LOCK));
            } else {
                out::table(&["recipe", "arch", "package", "before", "now"], &rows);
            }
            Ok(())
        }
    }
}

/// The options of every subcommand; the repository is the folder we are in, or one above.
fn options(common: &Common) -> anyhow::Result<Options> {
    let here = std::env::current_dir()?;
    let repository = here.ancestors().find(|d| d.join("services.toml").is_file());
    let repository: PathBuf = repository.map(Into::into).ok_or_else(|| {
        out::advised(
            format!("{} is not in a clone of the repository", here.display()),
            "run eve in the repository: packages are built from its pkg and apps folders",
        )
    })?;
    let arch = Arch::from_name(&common.arch).unwrap_or(Arch::Amd64); // clap has checked it
    Ok(Options {
        arch,
        mirror: common.mirror.clone(),
        snapshot: common.snapshot.clone(),
        ..Options::from_env(&repository)
    })
}

fn packages(built: Vec<Package>, common: &Common) -> anyhow::Result<()> {
    if common.json {
        return out::json(&built);
    }
    let rows = built.into_iter().map(|p| {
        let size = p.size.map_or_else(|| "-".to_owned(), |s| s.to_string());
        vec![p.name, size, if p.fresh { "built" } else { "there" }.to_owned(), p.image]
    });
    out::table(&["package", "size", "", "image"], &rows.collect::<Vec<_>>());
    Ok(())
}

fn ls(common: &Common) -> anyhow::Result<()> {
    let catalog = pkg::catalog(&options(common)?).or_advise()?;
    let facts: Vec<_> = catalog
        .names()
        .filter_map(|name| Some((name.to_owned(), catalog.get(name)?.recipe.description.clone())))
        .collect();
    if common.json {
        let object = |(name, description): &(String, String)| serde_json::json!({ "name": name, "description": description });
        return out::json(&facts.iter().map(object).collect::<Vec<_>>());
    }
    let rows: Vec<Vec<String>> = facts.into_iter().map(|(n, d)| vec![n, d]).collect();
    out::table(&["package", "description"], &rows);
    Ok(())
}

fn show(name: &str, common: &Common) -> anyhow::Result<()> {
    let options = options(common)?;
    let shown = pkg::show(name, &options).or_advise()?;
    if common.json {
        return out::json(&shown);
    }
    out::line(format!("{}: {}", shown.name, shown.recipe.description));
    let list = |what: &str, items: Vec<String>| {
        if !items.is_empty() {
            out::line(format!("{what}: {}", items.join(", ")));
        }
    };
    list("depends on", shown.depends);
    list("programs", shown.recipe.cargo.iter().map(|c| c.bin.clone()).collect());
    list("files", shown.recipe.files.iter().map(|f| f.to.clone()).collect());
    if !shown.debs.is_empty() {
        let rows = shown.debs.into_iter().map(|d| vec![d.name, d.version, d.size.to_string()]);
        out::table(&["debian package", "version", "size"], &rows.collect::<Vec<_>>());
    }
    Ok(())
}
