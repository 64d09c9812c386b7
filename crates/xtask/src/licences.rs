//! `deny.toml`, as far as it needs no network: every outside crate has a licence that is allowed
//! and comes from the registry, and none of the banned ones is there. `cargo deny check` reads the
//! same file and also knows advisories.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use serde::Deserialize;
use spdx::{Expression, Licensee};

use crate::tool::{cargo, output, root};

/// `deny.toml`.
#[derive(Debug, Deserialize)]
struct Rules {
    licenses: Licences,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Debug, Deserialize)]
struct Banned {
    name: String,
    reason: String,
}

/// An outside crate that is really built, with the features that are really on.
#[derive(Debug, PartialEq, Eq)]
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    /// `None`: the registry.
    source: Option<&'a str>,
    licence: &'a str,
}

/// Fails with every breach.
pub(crate) fn run() -> anyhow::Result<()> {
    let text = std::fs::read_to_string(root().join("deny.toml")).context("deny.toml")?;
    let rules: Rules = toml::from_str(&text).context("deny.toml")?;
    // Not `cargo metadata`: that also lists what only a feature that is off would bring.
    let args = "tree --workspace --target all --edges normal,build,dev --prefix none --locked \
                --format {p}|{l}";
    let args: Vec<&str> = args.split_whitespace().collect();
    let tree = output(&cargo(), &args).context("`cargo tree` failed")?;
    let broken = broken(&rules, &tree)?;
    if broken.is_empty() { Ok(()) } else { bail!("\n{}", broken.join("\n")) }
}

/// Every breach, one a line.
fn broken(rules: &Rules, tree: &str) -> anyhow::Result<Vec<String>> {
    let parse = |text: &String| {
        Licensee::parse(text).with_context(|| format!("deny.toml: the licence {text:?}"))
    };
    let allowed = rules.licenses.allow.iter().map(parse).collect::<anyhow::Result<Vec<_>>>()?;
    let mut broken = BTreeSet::new();
    for Package { name, version, source, licence } in tree.lines().filter_map(package) {
        if let Some(source) = source {
            broken.insert(format!("{name} {version} comes from {source}"));
        }
        if let Some(ban) = rules.bans.deny.iter().find(|ban| ban.name == name) {
            broken.insert(format!("{name} {version} is banned: {}", ban.reason));
        }
        // Some crates still write `MIT/Apache-2.0`.
        let fits = Expression::parse(&licence.replace('/', " OR ")).is_ok_and(|expression| {
            expression.evaluate(|wanted| allowed.iter().any(|licence| licence.satisfies(wanted)))
        });
        if !fits {
            broken.insert(format!("{name} {version} has the licence {licence:?}"));
        }
    }
    Ok(broken.into_iter().collect())
}

/// A line of `cargo tree`: `NAME vVERSION (SOURCE)|LICENCE (*)`, with `(proc-macro)` before the
/// source of such, no source if it is the registry, and `(*)` if it was printed before. `None`: one
/// of ours, or no crate.
fn package(line: &str) -> Option<Package<'_>> {
    let (what, licence) = line.split_once('|')?;
    let mut words = what.split(' ').filter(|word| *word != "(proc-macro)");
    let (name, version) = (words.next()?, words.next()?);
    let source = words.next().map(|word| word.trim_matches(['(', ')']));
    if source.is_some_and(|source| source.starts_with('/')) {
        return None;
    }
    Some(Package { name, version, source, licence: licence.trim_end_matches(" (*)") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_a_source_and_a_crate_that_may_not_be_are_found() {
        let rules: Rules = toml::from_str(
            "[licenses]\nallow = ['MIT', 'Apache-2.0']\n\
             [bans]\ndeny = [{ name = 'ring', reason = 'one TLS provider' }]\n",
        )
        .unwrap();
        let tree = "ours v0.1.0 (/src/ours)|Apache-2.0\n\
                    ours-macros v0.1.0 (proc-macro) (/src/macros)|Apache-2.0\n\
                    either v1.0.0|MIT/GPL-3.0-only\n\
                    either v1.0.0|MIT/GPL-3.0-only (*)\n\
                    copyleft v1.0.0 (proc-macro)|GPL-3.0-only\n\
                    nothing v1.0.0|\n\n\
                    ring v1.0.0|Apache-2.0\n\
                    elsewhere v1.0.0 (https://git.example#1)|MIT\n";
        assert_eq!(
            broken(&rules, tree).unwrap(),
            [
                "copyleft v1.0.0 has the licence \"GPL-3.0-only\"",
                "elsewhere v1.0.0 comes from https://git.example#1",
                "nothing v1.0.0 has the licence \"\"",
                "ring v1.0.0 is banned: one TLS provider",
            ]
        );
    }
}
