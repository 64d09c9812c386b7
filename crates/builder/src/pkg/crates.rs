//! What our own programs are made of: cargo's tree of each, as a list that the program carries.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use host::process::Tool;
use model::Digest;
use sha2::{Digest as _, Sha256};

use super::binaries::CargoError;
use crate::audit::{Crate, Crates, Kind};

/// Raised whenever the same tree makes another list.
const FORMAT: &str = "1";

/// A crate as cargo's tree names it: `serde v1.0.229`, with where it lies if that is no registry.
type Name = String;

/// What cargo's tree says.
#[derive(Debug, Default)]
struct Graph {
    licences: BTreeMap<Name, String>,
    needs: BTreeMap<Name, BTreeSet<Name>>,
}

/// The crates of each of `packages`, compiled together for `target`. Kept in `cache` until a
/// manifest or Cargo.lock changes.
pub(super) fn of(
    repository: &Path,
    cache: &Path,
    target: &str,
    packages: &BTreeSet<&str>,
) -> Result<BTreeMap<String, Crates>, CargoError> {
    let lock = read(&repository.join("Cargo.lock"))?;
    let key = key(repository, &lock, target, packages)?;
    let name = format!("crates-{key}.json");
    if let Ok(bytes) = fs::read(cache.join(&name))
        && let Ok(kept) = serde_json::from_slice(&bytes)
    {
        return Ok(kept);
    }
    let tree = |edges| tree(repository, target, packages, edges);
    let all = Graph::parse(&tree("normal,build")?);
    let linked = Graph::parse(&tree("normal,no-proc-macro")?);
    let checksums = checksums(&lock);
    let made: BTreeMap<String, Crates> = packages
        .iter()
        .filter_map(|package| {
            let root = all.licences.keys().find(|n| split(n).0 == *package)?;
            Some(((*package).to_owned(), list(root, &all, &linked, &checksums)))
        })
        .collect();
    // These types have string keys and no floats: nothing in them can fail to serialize.
    let bytes = serde_json::to_vec(&made).unwrap_or_default();
    store::save(cache, &name, &bytes)?;
    Ok(made)
}

/// A digest of everything that cargo resolves from.
fn key(
    repository: &Path,
    lock: &str,
    target: &str,
    packages: &BTreeSet<&str>,
) -> Result<String, CargoError> {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    [FORMAT, target, lock].into_iter().for_each(&mut part);
    packages.iter().for_each(|p| part(p));
    part(&read(&repository.join("Cargo.toml"))?);
    let mut members: Vec<_> = fs::read_dir(repository.join("crates"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|e| e.path().join("Cargo.toml"))
        .filter(|p| p.is_file())
        .collect();
    members.sort();
    for member in &members {
        part(&read(member)?);
    }
    Ok(hex::encode(hash.finalize())[..32].to_owned())
}

fn read(path: &Path) -> Result<String, CargoError> {
    fs::read_to_string(path).map_err(|source| CargoError::Read { path: path.to_owned(), source })
}

/// cargo's tree: a line a crate, with its depth, its licence after a bar, and ` (*)` where its needs
/// stand above.
fn tree(
    repository: &Path,
    target: &str,
    packages: &BTreeSet<&str>,
    edges: &str,
) -> Result<String, CargoError> {
    let mut args = vec!["tree", "--locked", "--target", target, "--edges", edges];
    args.extend(["--prefix", "depth", "--format", "{p}|{l}", "--color", "never"]);
    args.extend(packages.iter().flat_map(|p| ["--package", p]));
    let mut command = Tool::Cargo.command();
    super::binaries::clean(&mut command);
    let out = command.current_dir(repository).args(&args).output().map_err(|source| {
        CargoError::Tool(host::process::ToolError::Spawn { tool: Tool::Cargo, source })
    })?;
    let out = host::process::finish(Tool::Cargo, &args, out)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

impl Graph {
    fn parse(text: &str) -> Graph {
        let mut graph = Graph::default();
        let mut above: Vec<Name> = Vec::new();
        for line in text.lines() {
            let digits = line.bytes().take_while(u8::is_ascii_digit).count();
            let Ok(depth) = line[..digits].parse::<usize>() else { continue };
            let Some((name, licence)) = line[digits..].rsplit_once('|') else { continue };
            let licence = licence.strip_suffix(" (*)").unwrap_or(licence);
            let name = name.strip_suffix(" (proc-macro)").unwrap_or(name).to_owned();
            above.truncate(depth);
            if let Some(parent) = above.last() {
                graph.needs.entry(parent.clone()).or_default().insert(name.clone());
            }
            graph.licences.insert(name.clone(), licence.to_owned());
            above.push(name);
        }
        graph
    }

    /// Everything that can be reached from `root`, itself included.
    fn below(&self, root: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut open: Vec<&str> =
            self.licences.get_key_value(root).map(|(n, _)| n.as_str()).into_iter().collect();
        while let Some(name) = open.pop() {
            if found.insert(name) {
                open.extend(self.needs.get(name).into_iter().flatten().map(String::as_str));
            }
        }
        found
    }
}

fn list(
    root: &str,
    all: &Graph,
    linked: &Graph,
    checksums: &BTreeMap<(String, String), Digest>,
) -> Crates {
    let names: Vec<&str> = all.below(root).into_iter().collect();
    let linked = linked.below(root);
    let packages = names.iter().map(|name| {
        let (short, version, source) = split(name);
        let needs = all.needs.get(*name).into_iter().flatten();
        let licence = all.licences.get(*name).filter(|l| !l.is_empty());
        Crate {
            name: short.to_owned(),
            version: version.to_owned(),
            source: source.to_owned(),
            kind: if linked.contains(name) { Kind::Runtime } else { Kind::Build },
            dependencies: needs.filter_map(|n| names.binary_search(&n.as_str()).ok()).collect(),
            root: *name == root,
            license: licence.cloned(),
            checksum: checksums.get(&(short.to_owned(), version.to_owned())).copied(),
        }
    });
    Crates { packages: packages.collect(), format: 1 }
}

/// Name, version, and where from.
fn split(name: &str) -> (&str, &str, &'static str) {
    let mut words = name.splitn(3, ' ');
    let short = words.next().unwrap_or_default();
    let version = words.next().unwrap_or_default();
    let source = match words.next() {
        None => "crates.io",
        Some(place) if place.contains("://") => "git",
        Some(_) => "local",
    };
    (short, version.strip_prefix('v').unwrap_or(version), source)
}

/// The checksums of a Cargo.lock, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), Digest> {
    #[derive(serde::Deserialize)]
    struct Lock {
        #[serde(default)]
        package: Vec<Locked>,
    }
    #[derive(serde::Deserialize)]
    struct Locked {
        name: String,
        version: String,
        checksum: Option<String>,
    }
    let lock: Lock = toml::from_str(lock).unwrap_or(Lock { package: Vec::new() });
    let packages = lock.package.into_iter().filter_map(|p| {
        let checksum = Digest::from_hex(&p.checksum?).ok()?;
        Some(((p.name, p.version), checksum))
    });
    packages.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "0tool v0.1.0 (/eve/crates/tool)|Apache-2.0\n\
        1derive v1.0.0 (proc-macro)|MIT OR Apache-2.0\n2quote v1.0.0|MIT\n\
        1lib v2.0.0|MIT\n2deep v3.0.0|ISC\n\
        1cc v1.0.0|MIT\n\
        \n0other v0.1.0 (/eve/crates/other)|Apache-2.0\n1lib v2.0.0|MIT (*)\n";
    const LINKED: &str = "0tool v0.1.0 (/eve/crates/tool)|Apache-2.0\n1lib v2.0.0|MIT\n\
        2deep v3.0.0|ISC\n0other v0.1.0 (/eve/crates/other)|Apache-2.0\n1lib v2.0.0|MIT (*)\n";

    #[track_caller]
    fn check(root: &str, want: &[&str]) {
        let (all, linked) = (Graph::parse(ALL), Graph::parse(LINKED));
        let sum = Digest([7; 32]);
        let checksums = BTreeMap::from([(("lib".to_owned(), "2.0.0".to_owned()), sum)]);
        let list = list(root, &all, &linked, &checksums);
        let show = |c: &Crate| {
            let needs: Vec<&str> =
                c.dependencies.iter().map(|n| list.packages[*n].name.as_str()).collect();
            let sum = if c.checksum.is_some() { " sum" } else { "" };
            let root = if c.root { " root" } else { "" };
            format!("{} {} {:?}{sum}{root} [{}]", c.name, c.source, c.kind, needs.join(" "))
        };
        assert_eq!(list.packages.iter().map(show).collect::<Vec<_>>(), want);
    }

    #[test]
    fn each_program_lists_what_it_reaches_and_what_only_built_it() {
        check(
            "tool v0.1.0 (/eve/crates/tool)",
            &[
                "cc crates.io Build []",
                "deep crates.io Runtime []",
                "derive crates.io Build [quote]",
                "lib crates.io Runtime sum [deep]",
                "quote crates.io Build []",
                "tool local Runtime root [cc derive lib]",
            ],
        );
        check(
            "other v0.1.0 (/eve/crates/other)",
            &[
                "deep crates.io Runtime []",
                "lib crates.io Runtime sum [deep]",
                "other local Runtime root [lib]",
            ],
        );
    }

    #[test]
    fn checksums_come_from_the_lock() {
        let lock = format!(
            "version = 4\n[[package]]\nname = 'a'\nversion = '1.0.0'\n\
            checksum = '{}'\n[[package]]\nname = 'own'\nversion = '0.1.0'\n",
            "ab".repeat(32)
        );
        let sums = checksums(&lock);
        assert_eq!(sums.len(), 1);
        assert_eq!(sums[&("a".to_owned(), "1.0.0".to_owned())], Digest([0xab; 32]));
    }
}
