//! Debian's archive as the builder uses it: fetch what the lock pins, and make a lock of what the
//! archive has now.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use formats::deb822;
use model::Bytes;

use super::catalog::Catalog;
use super::error::PkgError;
use super::fetch::{Client, FetchError};
use super::index::Index;
use super::lock::{Deb, Lock, Section};
use super::recipe::Arch;
use super::{Options, Progress, mirror, release};

/// Debian's release that we build from.
pub const SUITE: &str = "trixie";

/// The archive, seen through one mirror.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    options: &'a Options,
    client: OnceCell<Client>,
    indexes: BTreeMap<Arch, Index>,
}

/// A file of a source package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceFile {
    /// Path below the mirror's root.
    pub path: String,
    /// Digest of the file.
    pub sha256: model::Digest,
    /// Its size.
    pub size: Bytes,
}

/// One package of a lock replaced by another.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// Of which recipe.
    pub recipe: String,
    /// For what.
    pub arch: Arch,
    /// Which package.
    pub package: String,
    /// Its version before; `None`: it is new.
    pub from: Option<String>,
    /// Its version now; `None`: it is gone.
    pub to: Option<String>,
}

impl<'a> Archive<'a> {
    /// The archive as `options` say. Nothing is asked yet.
    pub(super) fn new(options: &'a Options) -> Archive<'a> {
        Archive { options, client: OnceCell::new(), indexes: BTreeMap::new() }
    }

    fn client(&self) -> &Client {
        self.client.get_or_init(Client::of_host)
    }

    fn mirror(&self) -> Result<String, PkgError> {
        let told = self.options.mirror.clone();
        let mirror = told.or_else(|| mirror::of_host(Path::new("/etc/apt")));
        Ok(mirror.ok_or(PkgError::NoMirror)?.trim_end_matches('/').to_owned())
    }

    /// Where a .deb is kept, whether it is there or not.
    pub(super) fn place(&self, deb: &Deb) -> PathBuf {
        self.folder().join(deb.sha256.hex())
    }

    fn folder(&self) -> PathBuf {
        self.options.cache.join("debs/sha256")
    }

    /// Gets every package that is not here yet, from the mirror or else from the snapshot archive.
    /// Returns those that neither has. When all are here, no network is used.
    pub(super) fn fetch(
        &self,
        debs: &[&Deb],
        progress: &dyn Progress,
    ) -> Result<Vec<Deb>, PkgError> {
        let missing: BTreeSet<&Deb> =
            debs.iter().copied().filter(|d| !self.place(d).exists()).collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let total = Bytes(missing.iter().map(|d| d.size.0).sum());
        let s = if missing.len() == 1 { "" } else { "s" };
        progress.step(&format!("fetching {} Debian package{s} ({total})", missing.len()));
        let mirror = self.mirror()?;
        let mut done = Bytes(0);
        let mut vanished = Vec::new();
        for deb in missing {
            progress.note(&deb.name);
            let want = (deb.sha256, deb.size);
            let mut seen = |n: Bytes| {
                done.0 += n.0;
                progress.bytes(done, total);
            };
            let url = format!("{mirror}/{}", deb.filename);
            let mut outcome = self.client().keep(&url, want, &self.folder(), &mut seen);
            if let (Err(FetchError::Missing { .. }), Some(snapshot)) =
                (&outcome, &self.options.snapshot)
            {
                let url = format!("{}/{}", snapshot.trim_end_matches('/'), deb.filename);
                outcome = self.client().keep(&url, want, &self.folder(), &mut seen);
                if let Err(error @ FetchError::Unreachable { .. }) = &outcome {
                    progress.line(&format!("note: {}", model::chain(error)));
                    outcome = Err(FetchError::Missing { url });
                }
            }
            match outcome {
                Ok(_) => {}
                Err(FetchError::Missing { .. }) => vanished.push(deb.clone()),
                Err(source) => {
                    let package = format!("{} {}", deb.name, deb.version);
                    return Err(PkgError::Fetch { package, source });
                }
            }
        }
        Ok(vanished)
    }

    /// The files of these source packages (name and version), by the archive's index of sources. What
    /// is not there is left out.
    pub(super) fn sources(
        &self,
        wanted: &BTreeSet<(String, String)>,
        progress: &dyn Progress,
    ) -> Result<BTreeMap<(String, String), Vec<SourceFile>>, PkgError> {
        progress.step(&format!("reading the index of Debian {SUITE}'s sources"));
        let cache = self.options.cache.join("debian-index");
        std::fs::create_dir_all(&cache)
            .map_err(|source| PkgError::Cache { path: cache.clone(), source })?;
        let paths = release::COMPONENTS.map(|c| format!("{c}/source/Sources.xz"));
        let (client, mirror, trust) = (self.client(), self.mirror()?, &self.options.trust);
        let texts = release::texts(client, &mirror, SUITE, &paths, trust, &cache)?;
        let mut found = BTreeMap::new();
        for stanza in texts.iter().flat_map(|t| deb822::stanzas(t)) {
            let word = |name| stanza.line(name).unwrap_or_default().to_owned();
            let key = (word("Package"), word("Version"));
            if wanted.contains(&key) {
                found.insert(key, source_files(&stanza));
            }
        }
        Ok(found)
    }

    /// Gets a file of a source package; where it is kept.
    pub(super) fn source(
        &self,
        file: &SourceFile,
        seen: &mut dyn FnMut(Bytes),
    ) -> Result<PathBuf, FetchError> {
        let folder = self.options.cache.join("sources/sha256");
        let want = (file.sha256, file.size);
        let mirror = self.mirror().unwrap_or_default();
        let kept = self.client().keep(&format!("{mirror}/{}", file.path), want, &folder, seen);
        match (kept, &self.options.snapshot) {
            (Err(FetchError::Missing { .. }), Some(snapshot)) => {
                let url = format!("{}/{}", snapshot.trim_end_matches('/'), file.path);
                self.client().keep(&url, want, &folder, seen)
            }
            (kept, _) => kept,
        }
    }

    /// Resolves these recipes anew, for all their architectures, with what the archive has now.
    pub(super) fn resolve(
        &mut self,
        catalog: &Catalog,
        names: &[String],
        lock: &mut Lock,
        progress: &dyn Progress,
    ) -> Result<Vec<Change>, PkgError> {
        let mut changes = Vec::new();
        for arch in Arch::ALL {
            let made =
                |n: &&String| catalog.get(n).is_some_and(|e| e.recipe.arches.contains(&arch));
            let names: Vec<String> = names.iter().filter(made).cloned().collect();
            for name in catalog.order(&names, arch)? {
                if names.contains(&name) {
                    changes.extend(self.resolve_one(catalog, &name, arch, lock, progress)?);
                }
            }
        }
        Ok(changes)
    }

    fn resolve_one(
        &mut self,
        catalog: &Catalog,
        name: &str,
        arch: Arch,
        lock: &mut Lock,
        progress: &dyn Progress,
    ) -> Result<Vec<Change>, PkgError> {
        let key = (name.to_owned(), arch);
        let Some(entry) = catalog.get(name) else { return Ok(Vec::new()) };
        let wanted = entry.recipe.debs_for(arch);
        let mut have = BTreeSet::new();
        for below in catalog.below(name, arch)? {
            let section = lock.recipes.get(&(below, arch));
            have.extend(section.iter().flat_map(|s| &s.debs).map(|d| d.name.clone()));
        }
        let debs = if wanted.is_empty() {
            Vec::new()
        } else {
            let suite = lock.suite.clone();
            let index = self.index(&suite, arch, progress)?;
            let found =
                index.closure(&wanted, &have, &entry.recipe.debs.omit, (&suite, arch.name()));
            found.map_err(|source| PkgError::Resolve { recipe: name.to_owned(), source })?
        };
        let old = match debs.is_empty() {
            true => lock.recipes.remove(&key),
            false => {
                let request = catalog.request(name, arch)?;
                lock.recipes.insert(key, Section { request, debs: debs.clone() })
            }
        };
        Ok(changes(name, arch, &old.map(|s| s.debs).unwrap_or_default(), &debs))
    }

    fn index(
        &mut self,
        suite: &str,
        arch: Arch,
        progress: &dyn Progress,
    ) -> Result<&Index, PkgError> {
        if !self.indexes.contains_key(&arch) {
            progress.step(&format!("reading the index of Debian {suite} for {arch}"));
            let mirror = self.mirror()?;
            let cache = self.options.cache.join("debian-index");
            std::fs::create_dir_all(&cache)
                .map_err(|source| PkgError::Cache { path: cache.clone(), source })?;
            let trust = &self.options.trust;
            let index = release::index(self.client(), &mirror, (suite, arch), trust, &cache)?;
            self.indexes.insert(arch, index);
        }
        Ok(&self.indexes[&arch])
    }
}

/// The files that a stanza of the index of sources lists: digest, size and name a line. Names that
/// lead elsewhere are left out.
fn source_files(stanza: &deb822::Stanza) -> Vec<SourceFile> {
    let folder = stanza.line("Directory").unwrap_or_default();
    let lines = stanza.get("Checksums-Sha256").unwrap_or_default().lines();
    let files = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let sha256 = model::Digest::from_hex(words.next()?).ok()?;
        let size = Bytes(words.next()?.parse().ok()?);
        let name = words.next().filter(|n| !n.contains('/') && !n.starts_with('.'))?;
        let inside = !folder.starts_with('/') && !folder.split('/').any(|p| p == "..");
        inside.then(|| SourceFile { path: format!("{folder}/{name}"), sha256, size })
    });
    files.collect()
}

fn changes(recipe: &str, arch: Arch, old: &[Deb], new: &[Deb]) -> Vec<Change> {
    let versions = |debs: &[Deb]| -> BTreeMap<String, (String, model::Digest)> {
        debs.iter().map(|d| (d.name.clone(), (d.version.clone(), d.sha256))).collect()
    };
    let (old, new) = (versions(old), versions(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    changed
        .map(|name| Change {
            recipe: recipe.to_owned(),
            arch,
            package: name.clone(),
            from: old.get(name).map(|(version, _)| version.clone()),
            to: new.get(name).map(|(version, _)| version.clone()),
        })
        .collect()
}
