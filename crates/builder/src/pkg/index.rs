//! Debian's index of packages, and what a package needs.
//!
//! Only names count: within one stable release every version that is asked for is there. Recommended
//! packages are not followed.

use std::collections::{BTreeMap, BTreeSet};

use model::{Bytes, Digest};

use super::lock::Deb;

/// The packages of one architecture.
#[derive(Debug, Default)]
pub(super) struct Index {
    packages: BTreeMap<String, Package>,
    /// Who provides a name that no package has.
    provides: BTreeMap<String, BTreeSet<String>>,
}

/// One package of the index.
#[derive(Debug)]
struct Package {
    deb: Deb,
    /// Groups of alternatives: each group needs one of its names.
    needs: Vec<Vec<String>>,
}

/// What the index does not have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ResolveError {
    /// A recipe asks for it.
    #[error("Debian {suite} has no package {name:?} for {arch}")]
    Unknown {
        /// What.
        name: String,
        /// Where.
        suite: String,
        /// For which architecture.
        arch: String,
    },
    /// Another package asks for it.
    #[error("{needed_by} needs {group}, and the index has none of it")]
    Broken {
        /// Who.
        needed_by: String,
        /// The alternatives.
        group: String,
    },
}

impl Index {
    /// Adds the stanzas of a `Packages` file (deb822). Stanzas without the fields we need are
    /// skipped: nothing can be fetched of them.
    pub(super) fn add(&mut self, text: &str) {
        for stanza in text.split("\n\n") {
            if let Some((package, provides)) = parse(stanza) {
                for name in provides {
                    self.provides.entry(name).or_default().insert(package.deb.name.clone());
                }
                self.packages.insert(package.deb.name.clone(), package);
            }
        }
    }

    /// `wanted` and all they need, without `have` and `omit`, sorted by name. `suite` and `arch` are
    /// for errors.
    ///
    /// Of alternatives the first one counts that is chosen already, in `have`, or omitted; else the
    /// first that exists; else the first by name that provides one of them.
    pub(super) fn closure(
        &self,
        wanted: &BTreeSet<String>,
        have: &BTreeSet<String>,
        omit: &BTreeSet<String>,
        (suite, arch): (&str, &str),
    ) -> Result<Vec<Deb>, ResolveError> {
        let mut chosen: BTreeMap<&str, &Package> = BTreeMap::new();
        let mut open: Vec<&Package> = Vec::new();
        for name in wanted.iter().filter(|n| !have.contains(*n)) {
            let package = self.packages.get(name).ok_or_else(|| ResolveError::Unknown {
                name: name.clone(),
                suite: suite.to_owned(),
                arch: arch.to_owned(),
            })?;
            chosen.insert(name, package);
            open.push(package);
        }
        while let Some(package) = open.pop() {
            for group in &package.needs {
                let settled = |name: &String| {
                    let known = |n: &String| {
                        chosen.contains_key(n.as_str()) || have.contains(n) || omit.contains(n)
                    };
                    known(name) || self.provides.get(name).is_some_and(|by| by.iter().any(known))
                };
                if group.iter().any(settled) {
                    continue;
                }
                let real = group.iter().find_map(|name| self.packages.get(name));
                let virtual_ = || {
                    let by = group.iter().find_map(|name| self.provides.get(name));
                    by.and_then(|by| by.first()).and_then(|name| self.packages.get(name))
                };
                let next = real.or_else(virtual_).ok_or_else(|| ResolveError::Broken {
                    needed_by: package.deb.name.clone(),
                    group: group.join(" or "),
                })?;
                chosen.insert(&next.deb.name, next);
                open.push(next);
            }
        }
        Ok(chosen.into_values().map(|p| p.deb.clone()).collect())
    }
}

/// A stanza as a package and the further names it provides.
fn parse(stanza: &str) -> Option<(Package, Vec<String>)> {
    let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
    for line in stanza.lines().filter(|l| !l.starts_with([' ', '\t'])) {
        let (key, value) = line.split_once(':')?;
        fields.insert(key, value.trim());
    }
    let deb = Deb {
        name: (*fields.get("Package")?).to_owned(),
        version: (*fields.get("Version")?).to_owned(),
        arch: (*fields.get("Architecture")?).to_owned(),
        size: Bytes(fields.get("Size")?.parse().ok()?),
        sha256: Digest::from_hex(fields.get("SHA256")?).ok()?,
        filename: (*fields.get("Filename")?).to_owned(),
    };
    // The lock is words on a line.
    let odd = |s: &String| s.is_empty() || s.contains(char::is_whitespace);
    if [&deb.name, &deb.version, &deb.arch, &deb.filename].into_iter().any(odd) {
        return None;
    }
    let needs = ["Pre-Depends", "Depends"].iter().filter_map(|key| fields.get(key));
    let needs = needs
        .flat_map(|list| list.split(','))
        .map(|group| group.split('|').filter_map(name).collect::<Vec<_>>())
        .filter(|group| !group.is_empty())
        .collect();
    let provides = fields.get("Provides").into_iter().flat_map(|list| list.split(','));
    Some((Package { deb, needs }, provides.filter_map(name).collect()))
}

/// The bare name in `name:any (>= 1) [amd64]`.
fn name(text: &str) -> Option<String> {
    let word = text.split([' ', '(', '[', ':']).find(|w| !w.is_empty())?;
    Some(word.trim().to_owned()).filter(|w| !w.is_empty())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A stanza with this much in it.
    pub(crate) fn stanza(name: &str, more: &str) -> String {
        let sha = "ab".repeat(32);
        format!(
            "Package: {name}\nVersion: 1\nArchitecture: amd64\nSize: 1\nSHA256: {sha}\n\
             Filename: pool/{name}.deb\nDescription: x\n more: of it\n{more}\n\n"
        )
    }

    fn index() -> Index {
        let mut index = Index::default();
        for (name, more) in [
            ("libc6", "Depends: libgcc-s1"),
            ("libgcc-s1", "Depends: libc6 (>= 2.35)"), // a circle, as in Debian
            ("crun", "Pre-Depends: libc6\nDepends: libcap2 (>= 1:2.10), libyajl2:any"),
            ("libcap2", ""),
            ("libyajl2", "Depends: gone | libcap2"),
            ("tool", "Depends: mail-transport-agent, debconf (>= 0.5) | debconf-2.0"),
            ("zmail", "Provides: mail-transport-agent (= 1), other"),
            ("amail", "Provides: mail-transport-agent"),
            ("debconf", "Depends: perl"),
            ("perl", ""),
            ("broken", "Depends: gone | lost"),
        ] {
            index.add(&stanza(name, more));
        }
        index
    }

    #[track_caller]
    fn check(wanted: &str, have: &str, omit: &str, want: &str) {
        let set = |text: &str| text.split_whitespace().map(String::from).collect();
        let got = index().closure(&set(wanted), &set(have), &set(omit), ("trixie", "amd64"));
        let got = match got {
            Ok(debs) => debs.into_iter().map(|d| d.name).collect::<Vec<_>>().join(" "),
            Err(e) => e.to_string(),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn what_is_needed_comes_along_once() {
        check("crun", "", "", "crun libc6 libcap2 libgcc-s1 libyajl2");
    }

    #[test]
    fn what_is_there_or_omitted_does_not() {
        check("crun", "libc6 libgcc-s1", "", "crun libcap2 libyajl2");
        check("crun", "", "libgcc-s1 libyajl2", "crun libc6 libcap2");
        check("crun libc6", "libc6 libgcc-s1 libcap2 crun", "", "");
    }

    #[test]
    fn a_virtual_package_is_who_provides_it() {
        check("tool", "", "debconf", "amail tool");
        check("tool zmail", "", "debconf", "tool zmail");
        check("tool", "zmail", "debconf", "tool");
        check("tool", "amail", "", "debconf perl tool");
    }

    #[test]
    fn what_is_nowhere_is_named_with_who_needs_it() {
        check("nothing", "", "", "Debian trixie has no package \"nothing\" for amd64");
        check("broken", "", "", "broken needs gone or lost, and the index has none of it");
    }

    #[test]
    fn half_a_stanza_is_no_package() {
        let mut index = Index::default();
        index.add("Package: x\nVersion: 1\n\nnonsense\n\n");
        index.add(&stanza("ok", ""));
        assert_eq!(index.packages.keys().collect::<Vec<_>>(), ["ok"]);
    }
}
