//! Packages: a recipe, pinned Debian packages and our own programs to an OCI image, named by a tag
//! that follows from all of them.
//!
//! An image is one layer, and the same bytes for the same inputs; when the tag is in the layout
//! already, nothing is done. No package's script ever runs here, and nothing comes from a mirror that
//! the lock does not pin.

mod archive;
mod binaries;
mod catalog;
mod crates;
mod cross;
mod deb;
mod error;
mod fetch;
mod index;
mod kernel;
mod lock;
mod make;
mod mirror;
mod programs;
mod recipe;
pub mod record;
mod release;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Bytes, Digest};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use store::{Compression, ImageBuilder, Layout, Platform};

pub use archive::{Change, SUITE, SourceFile};
pub use binaries::CargoError;
pub use catalog::{Catalog, CatalogError, Entry};
pub use deb::DebError;
pub use error::PkgError;
pub use fetch::{FetchError, fetch_text};
pub use index::ResolveError;
pub use kernel::KernelError;
pub use lock::{Deb, Lock, LockError, Section};
pub use make::MakeError;
pub use recipe::{Arch, CargoRule, Recipe, RecipeError};
pub use release::{ReleaseError, Trust};
pub use tree::{FROM, TreeError};

use archive::Archive;

/// The lock, below the repository.
pub const LOCK: &str = "pkg/debian.lock";

/// The keys that Debian signs trixie with, below the repository.
const KEYRING: &str = "pkg/debian-archive.gpg";

/// Times in images are no later than 2026-01-01T00:00:00Z, unless `SOURCE_DATE_EPOCH` says so.
const EPOCH: u64 = 1_767_225_600;

/// Hears how far a build is. Every method does nothing unless it is given.
pub trait Progress {
    /// A new step begins: `compiling eved for the node`.
    fn step(&self, _what: &str) {}
    /// What it is doing just now.
    fn note(&self, _what: &str) {}
    /// How far it is.
    fn bytes(&self, _done: Bytes, _total: Bytes) {}
    /// Something a person should read, also afterwards.
    fn line(&self, _text: &str) {}
}

/// Nobody listens.
impl Progress for () {}

/// Where packages are made, and from what.
#[derive(Debug, Clone)]
pub struct Options {
    /// The repository: `pkg/`, `apps/`, `crates/`.
    pub repository: PathBuf,
    /// What is kept between builds.
    pub cache: PathBuf,
    /// For what is built.
    pub arch: Arch,
    /// A Debian mirror; `None`: the one of the host's apt.
    pub mirror: Option<String>,
    /// An archive that keeps old versions, laid out like a mirror.
    pub snapshot: Option<String>,
    /// Whether a pinned package that has vanished is an error.
    pub locked: bool,
    /// What makes the mirror's index trustworthy.
    pub trust: Trust,
    /// Times in images are no later than this, in seconds since 1970.
    pub epoch: u64,
    /// Where our own programs are compiled.
    pub target: PathBuf,
}

impl Options {
    /// Options for amd64, which a caller may change, as the environment says: `EVE_CACHE`, `EVE_DEBIAN_MIRROR`,
    /// `EVE_DEBIAN_SNAPSHOT`, `SOURCE_DATE_EPOCH`, `EVE_DEVICE_TARGET_DIR`, `CARGO_TARGET_DIR`.
    pub fn from_env(repository: &Path) -> Options {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let text = |name: &str| var(name).and_then(|v| v.into_string().ok());
        let path = |name: &str| var(name).map(PathBuf::from);
        let cache = path("EVE_CACHE")
            .or_else(|| path("XDG_CACHE_HOME").map(|d| d.join("eve")))
            .or_else(|| path("HOME").map(|d| d.join(".cache/eve")))
            .unwrap_or_else(|| repository.join(".eve/cache"));
        let target = path("EVE_DEVICE_TARGET_DIR")
            .or_else(|| path("CARGO_TARGET_DIR").map(|d| d.join("device")))
            .unwrap_or_else(|| repository.join("target/device"));
        Options {
            cache,
            arch: Arch::Amd64,
            mirror: text("EVE_DEBIAN_MIRROR"),
            snapshot: text("EVE_DEBIAN_SNAPSHOT"),
            locked: false,
            trust: Trust::Keyring(repository.join(KEYRING)),
            epoch: text("SOURCE_DATE_EPOCH").and_then(|v| v.parse().ok()).unwrap_or(EPOCH),
            target,
            repository: repository.to_owned(),
        }
    }

    /// The OCI layout that images are kept in.
    pub fn layout(&self) -> PathBuf {
        self.cache.join("oci")
    }
}

/// A package as it is, or would be, built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// The recipe: `pkg/crun`.
    pub name: String,
    /// The image's name in the layout: `eve/crun:<tag>`.
    pub image: String,
    /// Its manifest; `None`: it is not built.
    pub digest: Option<Digest>,
    /// Size of its packed layer; `None`: it is not built.
    pub size: Option<Bytes>,
    /// Whether this call built it.
    pub fresh: bool,
}

/// What a package is made of.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The recipe's folder.
    pub name: String,
    /// What it says.
    pub recipe: Recipe,
    /// All it depends on.
    pub depends: Vec<String>,
    /// The Debian packages that the lock pins for it.
    pub debs: Vec<Deb>,
}

/// What a package is made of, by recipe and lock.
pub fn show(name: &str, options: &Options) -> Result<Shown, PkgError> {
    let catalog = catalog(options)?;
    let name = catalog.find(name)?;
    let depends = catalog.below(&name, options.arch)?;
    let lock = read_lock(&options.repository.join(LOCK))?.1;
    let section = lock.recipes.get(&(name.clone(), options.arch));
    let debs = section.map(|s| s.debs.clone()).unwrap_or_default();
    let recipe = catalog.get(&name).map(|e| e.recipe.clone());
    let recipe = recipe.ok_or_else(|| CatalogError::Unknown {
        name: name.clone(),
        known: catalog.names().collect::<Vec<_>>().join(", "),
    })?;
    Ok(Shown { name, recipe, depends, debs })
}

/// Every recipe of the repository.
pub fn catalog(options: &Options) -> Result<Catalog, PkgError> {
    Ok(Catalog::read(&options.repository)?)
}

/// Builds packages and what they depend on, by name (`crun`, `pkg/crun`, `apps/hello`); no names:
/// all that can be built for the architecture. Returns them by recipe.
pub fn build(
    names: &[String],
    options: &Options,
    progress: &dyn Progress,
) -> Result<BTreeMap<String, Package>, PkgError> {
    Build::start(names, options, progress)?.run(true)
}

/// The same without building images: what they are called, and which are there. Our own programs are
/// compiled, because the tags follow from their bytes.
pub fn plan(
    names: &[String],
    options: &Options,
    progress: &dyn Progress,
) -> Result<BTreeMap<String, Package>, PkgError> {
    Build::start(names, options, progress)?.run(false)
}

/// Turns `@pkg:` references into image names: `pkg/crun` to `eve/crun:<tag>`.
pub fn resolver(built: &BTreeMap<String, Package>) -> impl Fn(&str) -> Option<String> + '_ {
    |name| built.get(name.trim_end_matches('/')).map(|p| p.image.clone())
}

/// The files of Debian's source packages (name and version), as the archive's index lists them; what
/// it does not list is left out.
pub fn source_files(
    wanted: &BTreeSet<(String, String)>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<BTreeMap<(String, String), Vec<SourceFile>>, PkgError> {
    Archive::new(options).sources(wanted, progress)
}

/// Gets files of source packages into the cache; where each is kept, `None` for one that neither the
/// mirror nor the archive of old versions has. What is there is not asked for again, and what broke
/// off goes on.
pub fn fetch_sources(
    files: &[SourceFile],
    options: &Options,
    progress: &dyn Progress,
) -> Result<Vec<Option<PathBuf>>, PkgError> {
    let archive = Archive::new(options);
    let total = Bytes(files.iter().map(|f| f.size.0).sum());
    progress.step(&format!("fetching {} files of sources ({total})", files.len()));
    let mut done = Bytes(0);
    let mut kept = Vec::new();
    for file in files {
        progress.note(&file.path);
        let mut seen = |n: Bytes| {
            done.0 += n.0;
            progress.bytes(done, total);
        };
        kept.push(match archive.source(file, &mut seen) {
            Ok(path) => Some(path),
            Err(FetchError::Missing { .. }) => None,
            Err(source) => return Err(PkgError::Fetch { package: file.path.clone(), source }),
        });
    }
    Ok(kept)
}

/// Makes the lock fit the recipes: those whose wishes have changed are resolved anew, with `update`
/// all that are named (no names: all). Tells what changed.
pub fn relock(
    names: &[String],
    update: bool,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Vec<Change>, PkgError> {
    let catalog = catalog(options)?;
    let path = options.repository.join(LOCK);
    let mut lock = if path.exists() { read_lock(&path)?.1 } else { Lock::new(SUITE) };
    let known = |name: &String| catalog.get(name).is_some();
    lock.recipes.retain(|(name, _), _| known(name));
    let named = names.iter().map(|n| catalog.find(n)).collect::<Result<BTreeSet<_>, _>>()?;
    let mut todo = Vec::new();
    for name in catalog.names().map(str::to_owned) {
        let chosen = update && (named.is_empty() || named.contains(&name));
        let arches = catalog.get(&name).map(|e| e.recipe.arches.clone()).unwrap_or_default();
        let stale = arches.iter().map(|arch| is_stale(&catalog, &name, *arch, &lock));
        let stale = stale.collect::<Result<Vec<_>, _>>()?.contains(&true);
        if chosen || stale {
            todo.push(name);
        }
    }
    let changes = Archive::new(options).resolve(&catalog, &todo, &mut lock, progress)?;
    let folder = options.repository.join("pkg");
    store::save(&folder, "debian.lock", lock.print().as_bytes())?;
    Ok(changes)
}

fn is_stale(catalog: &Catalog, name: &str, arch: Arch, lock: &Lock) -> Result<bool, PkgError> {
    let section = lock.recipes.get(&(name.to_owned(), arch));
    let asks = catalog.get(name).is_some_and(|e| !e.recipe.debs_for(arch).is_empty());
    Ok(match section {
        Some(section) => !asks || section.request != catalog.request(name, arch)?,
        None => asks,
    })
}

/// The text of a lock, and what it says.
fn read_lock(path: &Path) -> Result<(String, Lock), PkgError> {
    let text = fs::read_to_string(path)
        .map_err(|source| PkgError::ReadLock { path: path.to_owned(), source })?;
    let lock =
        Lock::parse(&text).map_err(|source| PkgError::Lock { path: path.to_owned(), source })?;
    Ok((text, lock))
}

/// One run over some packages.
struct Build<'a> {
    options: &'a Options,
    progress: &'a dyn Progress,
    catalog: Catalog,
    order: Vec<String>,
    lock: Lock,
    /// Where a lock that had to be refreshed is kept: it belongs to this text of the real one.
    refreshed: PathBuf,
    archive: Archive<'a>,
    programs: BTreeMap<CargoRule, Arc<[u8]>>,
    layout: Layout,
}

impl<'a> Build<'a> {
    fn start(
        names: &[String],
        options: &'a Options,
        progress: &'a dyn Progress,
    ) -> Result<Build<'a>, PkgError> {
        let catalog = catalog(options)?;
        let arch = options.arch;
        let all = || {
            let made = |n: &&str| catalog.get(n).is_some_and(|e| e.recipe.arches.contains(&arch));
            catalog.names().filter(made).map(str::to_owned).collect()
        };
        let names = if names.is_empty() { all() } else { names.to_vec() };
        let order = catalog.order(&names, arch)?;
        let (text, mut lock) = read_lock(&options.repository.join(LOCK))?;
        let refreshed = hex::encode(Sha256::digest(&text));
        let refreshed = options.cache.join("locks").join(format!("{refreshed}.lock"));
        if !options.locked && refreshed.exists() {
            lock = read_lock(&refreshed)?.1;
            progress.line(&format!(
                "warning: {LOCK} pins packages that Debian has replaced; using what was found \
                 instead. `eve pkg lock --update` makes it permanent"
            ));
        }
        for name in &order {
            if is_stale(&catalog, name, arch, &lock)? {
                return Err(PkgError::Stale { recipe: name.clone(), arch });
            }
        }
        let rules = order.iter().filter_map(|n| catalog.get(n)).flat_map(|e| &e.recipe.cargo);
        let rules: BTreeSet<CargoRule> = rules.cloned().collect();
        let (repository, target) = (&options.repository, &options.target);
        let programs = programs::of(repository, target, &options.cache, arch, &rules, progress)?;
        let layout = Layout::create(options.layout())
            .map_err(|source| PkgError::Store { package: "every package".to_owned(), source })?;
        let archive = Archive::new(options);
        Ok(Build { options, progress, catalog, order, lock, refreshed, archive, programs, layout })
    }

    fn run(mut self, make: bool) -> Result<BTreeMap<String, Package>, PkgError> {
        let mut packages = self.tags()?;
        if !make {
            return Ok(packages);
        }
        let todo = |packages: &BTreeMap<String, Package>| -> Vec<String> {
            packages.values().filter(|p| p.digest.is_none()).map(|p| p.name.clone()).collect()
        };
        if self.have_debs(&todo(&packages))? {
            packages = self.tags()?; // other packages, other tags
        }
        for name in self.order.clone() {
            let Some(package) = packages.get_mut(&name) else { continue };
            if package.digest.is_none() {
                self.progress.step(&format!("making {name}"));
                self.make(package)?;
            }
        }
        Ok(packages)
    }

    /// Every package with its tag, and what the layout has of it.
    fn tags(&self) -> Result<BTreeMap<String, Package>, PkgError> {
        let mut packages: BTreeMap<String, Package> = BTreeMap::new();
        let platform = Platform::linux(self.options.arch.name());
        for name in &self.order {
            let Some(entry) = self.catalog.get(name) else { continue };
            let below = self.catalog.below(name, self.options.arch)?;
            let program = |rule| self.programs.get(rule).map(|b| hex::encode(Sha256::digest(b)));
            let inputs = catalog::Inputs {
                recipe: &entry.recipe,
                arch: self.options.arch,
                epoch: self.options.epoch,
                files: &self.catalog.files(name)?,
                debs: self.debs(name).map(|d| d.sha256.hex()).collect(),
                programs: entry.recipe.cargo.iter().filter_map(program).collect(),
                depends: below
                    .iter()
                    .filter_map(|b| packages.get(b))
                    .map(|p| p.image.clone())
                    .collect(),
            };
            let short = name.rsplit('/').next().unwrap_or(name);
            let image = format!("eve/{short}:{}", catalog::tag(&inputs));
            let found = self.layout.resolve(&image, &platform).ok();
            let size = found.as_ref().and_then(|d| {
                let image = store::Image::read(&self.layout, d).ok()?;
                let here =
                    image.manifest.layers.iter().all(|l| self.layout.has(&l.digest, Some(l.size)));
                here.then(|| image.manifest.layers.iter().map(|l| l.size.0).sum()).map(Bytes)
            });
            let digest = found.filter(|_| size.is_some()).map(|d| d.digest);
            let package = Package { name: name.clone(), image, digest, size, fresh: false };
            packages.insert(name.clone(), package);
        }
        Ok(packages)
    }

    fn debs(&self, name: &str) -> impl Iterator<Item = &Deb> {
        let section = self.lock.recipes.get(&(name.to_owned(), self.options.arch));
        section.into_iter().flat_map(|s| &s.debs)
    }

    /// Gets the .debs of these packages. Where pinned ones have vanished, the lock is refreshed for
    /// this build: `true`, and all tags may be others.
    fn have_debs(&mut self, names: &[String]) -> Result<bool, PkgError> {
        let debs: Vec<&Deb> = names.iter().flat_map(|n| self.debs(n)).collect();
        let vanished = self.archive.fetch(&debs, self.progress)?;
        if vanished.is_empty() {
            return Ok(false);
        }
        let shown = vanished.iter().map(|d| format!("{} {}", d.name, d.version));
        let packages: Vec<String> = shown.collect();
        if self.options.locked {
            return Err(PkgError::Vanished { packages });
        }
        self.progress.line(&format!(
            "WARNING: the mirror no longer has what {LOCK} pins: {}",
            packages.join(", ")
        ));
        let hit = |section: &Section| section.debs.iter().any(|d| vanished.contains(d));
        let stale: BTreeSet<String> =
            self.lock.recipes.iter().filter(|(_, s)| hit(s)).map(|((n, _), _)| n.clone()).collect();
        let stale: Vec<String> = stale.into_iter().collect();
        let changes = self.archive.resolve(&self.catalog, &stale, &mut self.lock, self.progress)?;
        for c in &changes {
            let or = |v: &Option<String>| v.clone().unwrap_or_else(|| "nothing".to_owned());
            let (from, to) = (or(&c.from), or(&c.to));
            self.progress.line(&format!("WARNING:   {}: {} {from} -> {to}", c.recipe, c.package));
        }
        self.progress.line(
            "WARNING: this build uses these instead; `eve pkg lock --update` makes it permanent, \
             --locked makes it an error",
        );
        let folder = self.options.cache.join("locks");
        fs::create_dir_all(&folder)
            .map_err(|source| PkgError::Cache { path: folder.clone(), source })?;
        let name = self.refreshed.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        store::save(&folder, name, self.lock.print().as_bytes())?;
        // Other packages of the new sections may be wanted now, and those must be there.
        let debs: Vec<&Deb> = names.iter().flat_map(|n| self.debs(n)).collect();
        let still = self.archive.fetch(&debs, self.progress)?;
        if still.is_empty() {
            return Ok(true);
        }
        let packages = still.iter().map(|d| format!("{} {}", d.name, d.version)).collect();
        Err(PkgError::Vanished { packages })
    }

    /// Makes one image and names it.
    fn make(&self, package: &mut Package) -> Result<(), PkgError> {
        let name = package.name.clone();
        let failed = |source| PkgError::Make { package: name.clone(), source };
        let kept = |source| PkgError::Store { package: name.clone(), source };
        let Some(entry) = self.catalog.get(&name) else { return Ok(()) };
        let parts = make::Parts {
            recipe: &entry.recipe,
            arch: self.options.arch,
            files: &self.catalog.files(&name)?,
            name: &name,
            suite: &self.lock.suite,
            debs: self.debs(&name).map(|d| (d, self.archive.place(d))).collect(),
            programs: &self.programs,
            epoch: self.options.epoch,
        };
        let tree = make::make(&parts).map_err(failed)?;
        let mut image = ImageBuilder::new(&self.layout, Platform::linux(self.options.arch.name()));
        let oci = entry.recipe.oci.clone();
        let run = image.config();
        run.entrypoint = oci.entrypoint;
        run.cmd = oci.cmd;
        run.env = oci.env;
        run.working_dir = oci.workdir.unwrap_or_default();
        run.user = oci.user.unwrap_or_default();
        image.label("org.opencontainers.image.title", &name);
        image.label("org.opencontainers.image.description", &entry.recipe.description);
        for (key, value) in &oci.labels {
            image.label(key, value);
        }
        let epoch = self.options.epoch;
        let write = |out: &mut dyn Write| -> io::Result<()> { out.write_all(&tree.to_tar(epoch)?) };
        // Plain, so that whoever composes reads single files of it where they lie.
        let layer = image.layer(Compression::None, write).map_err(kept)?;
        let manifest = image.finish().map_err(kept)?;
        self.layout.tag(&package.image, &manifest).map_err(kept)?;
        // Compositions look names up in their full form.
        let full = store::name::expand(&package.image);
        self.layout.tag(&full, &manifest).map_err(kept)?;
        package.digest = Some(manifest.digest);
        package.size = Some(layer.size);
        package.fresh = true;
        Ok(())
    }
}
