//! `pkg/debian.lock`: every Debian package of every recipe, pinned by version and SHA-256.
//!
//! One line a package, so that a difference reads well:
//! ```text
//! lock 1
//! suite trixie
//!
//! recipe pkg/crun amd64 3f0c…          what was asked for, as a digest
//! crun 1.21-1 amd64 368640 <sha256> pool/main/c/crun/crun_1.21-1_amd64.deb
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;

use model::{Bytes, Digest};

use super::recipe::Arch;

/// The lock as a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Debian's release.
    pub suite: String,
    /// What each recipe got, by recipe and architecture.
    pub recipes: BTreeMap<(String, Arch), Section>,
}

/// What one recipe got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Digest of what the recipe asked for: another wish makes the section stale.
    pub request: String,
    /// Its packages, by name.
    pub debs: Vec<Deb>,
}

/// One pinned package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Deb {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// `amd64`, … or `all`.
    pub arch: String,
    /// Size of the .deb.
    pub size: Bytes,
    /// Digest of the .deb.
    pub sha256: Digest,
    /// Path below the mirror's root.
    pub filename: String,
}

impl Deb {
    /// The name of the .deb: `libc6_2.41-12_amd64.deb`.
    pub fn file(&self) -> &str {
        self.filename.rsplit('/').next().unwrap_or(&self.filename)
    }
}

/// Why a lock cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {what}")]
pub struct LockError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl Lock {
    /// A lock without packages.
    pub fn new(suite: &str) -> Lock {
        Lock { suite: suite.to_owned(), recipes: BTreeMap::new() }
    }

    /// Reads the text of a lock.
    pub fn parse(text: &str) -> Result<Lock, LockError> {
        let mut lock: Option<Lock> = None;
        let mut section = None;
        let mut seen: BTreeMap<(String, String, String), Digest> = BTreeMap::new();
        let mut version = false;
        for (at, line) in text.lines().enumerate() {
            let bad = |what: &str| LockError { line: at + 1, what: what.to_owned() };
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["lock", "1"] if !version => version = true,
                ["lock", ..] => return Err(bad("this version of the lock is unknown here")),
                _ if !version => return Err(bad("the first line must be `lock 1`")),
                ["suite", suite] if lock.is_none() => lock = Some(Lock::new(suite)),
                ["recipe", name, arch, request] => {
                    let lock = lock.as_mut().ok_or_else(|| bad("`suite` must come first"))?;
                    let arch = Arch::from_name(arch).ok_or_else(|| bad("unknown architecture"))?;
                    let key = (name.to_owned(), arch);
                    let new = Section { request: request.to_owned(), debs: Vec::new() };
                    if lock.recipes.insert(key.clone(), new).is_some() {
                        return Err(bad("this recipe stands above already"));
                    }
                    section = Some(key);
                }
                [name, version, arch, size, sha256, filename] => {
                    let section = lock.as_mut().zip(section.as_ref());
                    let section = section.and_then(|(lock, key)| lock.recipes.get_mut(key));
                    let section = section.ok_or_else(|| bad("`recipe` must come first"))?;
                    let deb = Deb {
                        name: name.to_owned(),
                        version: version.to_owned(),
                        arch: arch.to_owned(),
                        size: Bytes(size.parse().map_err(|_| bad("the size is no number"))?),
                        sha256: Digest::from_hex(sha256).map_err(|e| bad(&e.to_string()))?,
                        filename: filename.to_owned(),
                    };
                    if deb.filename.starts_with('/') || deb.filename.split('/').any(|p| p == "..") {
                        return Err(bad("the file lies outside the mirror"));
                    }
                    let id = (deb.name.clone(), deb.version.clone(), deb.arch.clone());
                    if *seen.entry(id).or_insert(deb.sha256) != deb.sha256 {
                        return Err(bad("the same version stands above with another digest"));
                    }
                    section.debs.push(deb);
                }
                _ => {
                    return Err(bad(
                        "expected `recipe NAME ARCH DIGEST`, or a package: NAME VERSION ARCH SIZE SHA256 FILE",
                    ));
                }
            }
        }
        lock.ok_or(LockError { line: 1, what: "it names no suite".to_owned() })
    }

    /// The text of it; [`Lock::parse`] reads the same.
    pub fn print(&self) -> String {
        let mut text = String::from(
            "# Debian packages of every recipe, pinned. Written by `eve pkg lock`; \
             `eve pkg lock --update` takes what Debian has now.\nlock 1\n",
        );
        let mut line = |args: std::fmt::Arguments<'_>| {
            // Writing into a String cannot fail.
            let _ = text.write_fmt(args);
        };
        line(format_args!("suite {}\n", self.suite));
        for ((name, arch), section) in &self.recipes {
            line(format_args!("\nrecipe {name} {arch} {}\n", section.request));
            let mut debs: Vec<&Deb> = section.debs.iter().collect();
            debs.sort();
            for d in debs {
                let (Deb { name, version, arch, filename, .. }, size) = (d, d.size.0);
                let hex = d.sha256.hex();
                line(format_args!("{name} {version} {arch} {size} {hex} {filename}\n"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

    fn sample() -> Lock {
        let deb = |name: &str| Deb {
            name: name.to_owned(),
            version: "1:1.2-3+b1".to_owned(),
            arch: "amd64".to_owned(),
            size: Bytes(7),
            sha256: Digest([9; 32]),
            filename: format!("pool/main/{name}.deb"),
        };
        let mut lock = Lock::new("trixie");
        let one = Section { request: "abc".to_owned(), debs: vec![deb("crun"), deb("libcap2")] };
        let none = Section { request: "def".to_owned(), debs: vec![] };
        lock.recipes.insert(("pkg/crun".to_owned(), Arch::Amd64), one);
        lock.recipes.insert(("pkg/init".to_owned(), Arch::Arm64), none);
        lock
    }

    #[test]
    fn what_is_printed_reads_back_the_same() {
        assert_eq!(Lock::parse(&sample().print()).unwrap(), sample());
    }

    #[test]
    fn broken_locks_are_refused_with_their_line() {
        let deb = |sha: &str| format!("a 1 amd64 1 {sha} pool/a.deb");
        let head = "lock 1\nsuite trixie\nrecipe pkg/a amd64 x\n";
        for (text, line, what) in [
            (String::new(), 1, "no suite"),
            ("lock 2\n".to_owned(), 1, "unknown here"),
            ("suite trixie\n".to_owned(), 1, "must be `lock 1`"),
            (format!("lock 1\nsuite trixie\n{}\n", deb(ZEROS)), 3, "`recipe` must come first"),
            (format!("{head}{}\n", deb("00")), 4, "64 hexadecimal digits"),
            (format!("{head}a 1 amd64 many {ZEROS} p\n"), 4, "no number"),
            (format!("{head}a 1 amd64 1 {ZEROS} ../x\n"), 4, "outside the mirror"),
            (format!("{head}recipe pkg/a amd64 y\n"), 4, "above already"),
            (format!("{head}{}\n{}\n", deb(ZEROS), deb(&"1".repeat(64))), 5, "another digest"),
            (format!("{head}one two\n"), 4, "expected"),
        ] {
            let error = Lock::parse(&text).unwrap_err();
            assert!(error.line == line && error.what.contains(what), "{text}: {error}");
        }
    }
}
