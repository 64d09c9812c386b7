//! Compiled programs that are kept by what they were compiled of, so that a build that changes none
//! of it does not ask cargo, and clones of one state compile once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host::process::Tool;
use model::{Bytes, Digest};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::binaries::{self, CargoError};
use super::recipe::{Arch, CargoRule};
use super::{Progress, cross};

/// Raised whenever the same sources make other programs.
const FORMAT: &str = "2";
/// The list of a kept set, written last.
const LIST: &str = "programs.json";
/// So many sets are kept.
const SETS: usize = 8;
const LIST_MAX: Bytes = Bytes::kib(64);
const PROGRAM_MAX: Bytes = Bytes::mib(512);
/// What decides about a compilation besides the members of the workspace.
const FILES: [&str; 6] = [
    "Cargo.toml",
    "Cargo.lock",
    // A build script makes a table of it.
    "services.toml",
    ".cargo/config.toml",
    "rust-toolchain.toml",
    "rust-toolchain",
];
/// Where the members lie.
const MEMBERS: &str = "crates";

/// A program of a set: what it hashes to.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    package: String,
    bin: String,
    digest: Digest,
}

/// The programs of all rules: those kept in `cache`, or what cargo makes in `target`.
pub(super) fn of(
    repository: &Path,
    target: &Path,
    cache: &Path,
    arch: Arch,
    rules: &BTreeSet<CargoRule>,
    progress: &dyn Progress,
) -> Result<BTreeMap<CargoRule, Arc<[u8]>>, CargoError> {
    if rules.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sets = cache.join("programs");
    let folder = sets.join(key(repository, arch, rules)?);
    if let Some(programs) = find(&folder, rules) {
        return Ok(programs);
    }
    let programs = binaries::build(repository, target, arch, rules, progress)?;
    // Somebody who writes while cargo reads gets what cargo read, once.
    if sets.join(key(repository, arch, rules)?) == folder {
        keep(&folder, &programs)?;
        make_room(&sets);
    }
    Ok(programs)
}

/// A kept set, if it is whole.
fn find(folder: &Path, rules: &BTreeSet<CargoRule>) -> Option<BTreeMap<CargoRule, Arc<[u8]>>> {
    let list = store::read_bounded(&folder.join(LIST), LIST_MAX).ok()?;
    let list: Vec<Kept> = serde_json::from_slice(&list).ok()?;
    let program = |rule: &CargoRule| {
        let kept = list.iter().find(|k| k.package == rule.package && k.bin == rule.bin)?;
        let bytes = store::read_bounded(&folder.join(kept.digest.hex()), PROGRAM_MAX).ok()?;
        let whole = Digest(Sha256::digest(&bytes).into()) == kept.digest;
        whole.then(|| (rule.clone(), Arc::from(bytes)))
    };
    rules.iter().map(program).collect()
}

fn keep(folder: &Path, programs: &BTreeMap<CargoRule, Arc<[u8]>>) -> Result<(), CargoError> {
    fs::create_dir_all(folder)
        .map_err(|source| CargoError::Read { path: folder.to_owned(), source })?;
    let mut list = Vec::new();
    for (rule, bytes) in programs {
        let digest = Digest(Sha256::digest(bytes).into());
        store::save(folder, &digest.hex(), bytes)?;
        list.push(Kept { package: rule.package.clone(), bin: rule.bin.clone(), digest });
    }
    // These types have string keys and no floats: nothing in them can fail to serialize.
    Ok(store::save(folder, LIST, &serde_json::to_vec(&list).unwrap_or_default())?)
}

/// Removes the sets that were made first. What cannot be removed now is left for later.
fn make_room(sets: &Path) {
    let entries = fs::read_dir(sets).into_iter().flatten().flatten();
    let mut all: Vec<_> =
        entries.filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path()))).collect();
    all.sort();
    let surplus = all.len().saturating_sub(SETS);
    for (_, folder) in all.into_iter().take(surplus) {
        let _ = fs::remove_dir_all(folder);
    }
}

/// What stands for everything that the programs are compiled of.
fn key(repository: &Path, arch: Arch, rules: &BTreeSet<CargoRule>) -> Result<String, CargoError> {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(FORMAT.as_bytes());
    part(cross::triple(arch).as_bytes());
    for rule in rules {
        part(rule.package.as_bytes());
        part(rule.bin.as_bytes());
    }
    part(cross::rustc(repository, &["-vV"])?.as_bytes());
    let gcc = Tool::Gcc(arch);
    // Where it has another name, cargo finds it, or says that there is none.
    part(cross::text(gcc, &["--version"], gcc.command()).unwrap_or_default().as_bytes());
    let mut files: Vec<PathBuf> =
        FILES.iter().map(|name| repository.join(name)).filter(|path| path.is_file()).collect();
    collect(&repository.join(MEMBERS), &mut files)?;
    for path in files {
        let read = |source| CargoError::Read { path: path.clone(), source };
        let bytes = fs::read(&path).map_err(read)?;
        let below = path.strip_prefix(repository).unwrap_or(&path);
        part(below.as_os_str().as_encoded_bytes());
        part(&bytes);
    }
    Ok(hex::encode(hash.finalize())[..32].to_owned())
}

/// The files below a folder, each folder's in the order of their names.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), CargoError> {
    let read = |source| CargoError::Read { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        paths.push(entry.map_err(read)?.path());
    }
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(bin: &str) -> CargoRule {
        CargoRule { package: "p".into(), bin: bin.into(), to: format!("/{bin}") }
    }

    #[test]
    fn a_set_is_found_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("set");
        let programs =
            BTreeMap::from([(rule("a"), Arc::from(*b"first")), (rule("b"), Arc::from(*b"second"))]);
        let rules: BTreeSet<_> = programs.keys().cloned().collect();
        assert!(find(&folder, &rules).is_none());
        keep(&folder, &programs).unwrap();
        assert_eq!(find(&folder, &rules).as_ref(), Some(&programs));
        assert!(find(&folder, &[rule("c")].into()).is_none());
        let first = Digest(Sha256::digest("first").into()).hex();
        store::save(&folder, &first, b"fir").unwrap();
        assert!(find(&folder, &rules).is_none());
    }

    #[test]
    fn another_source_another_key() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("crates/x/src");
        fs::create_dir_all(&source).unwrap();
        store::save(&source, "lib.rs", b"1").unwrap();
        let rules = [rule("a")].into();
        let of = || key(dir.path(), Arch::Amd64, &rules).unwrap();
        let first = of();
        assert_eq!(first, of());
        store::save(&source, "lib.rs", b"2").unwrap();
        let second = of();
        store::save(&source, "more.rs", b"").unwrap();
        let third = of();
        store::save(dir.path(), "services.toml", b"").unwrap();
        assert!(first != second && second != third && third != of());
    }
}
