//! `layers.toml` is the architecture. This keeps it true.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::tool::{cargo, output, root};

/// `layers.toml`.
#[derive(Debug, Deserialize)]
struct Rules {
    /// Which crates may use an outside crate.
    only_in: BTreeMap<String, Vec<String>>,
    #[serde(flatten)]
    layers: BTreeMap<String, Layer>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    uses: Vec<String>,
    /// What its tests may use beyond that.
    #[serde(default)]
    tests_use: Vec<String>,
    why: String,
}

/// The part of `cargo metadata` that matters here.
#[derive(Debug, Deserialize)]
struct Workspace {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// `dev`: for tests only. Tests may use what they like from outside, but layers hold, save for
    /// what `tests_use` names.
    kind: Option<String>,
}

/// `cargo xtask layers`.
pub(crate) fn run() -> anyhow::Result<()> {
    let broken = broken(&load_rules()?, &load_workspace()?);
    if broken.is_empty() { Ok(()) } else { bail!("\n{}", broken.join("\n")) }
}

fn load_rules() -> anyhow::Result<Rules> {
    let text = std::fs::read_to_string(root().join("layers.toml")).context("layers.toml")?;
    toml::from_str(&text).context("layers.toml")
}

fn load_workspace() -> anyhow::Result<Workspace> {
    let args = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    let text = output(&cargo(), &args).context("`cargo metadata` failed")?;
    serde_json::from_str(&text).context("what `cargo metadata` printed")
}

/// Every breach, one a line, with the reason for the rule.
fn broken(rules: &Rules, workspace: &Workspace) -> Vec<String> {
    let mut broken = Vec::new();
    for package in &workspace.packages {
        let from = &package.name;
        let Some(layer) = rules.layers.get(from) else {
            broken.push(format!("`{from}` has no entry in layers.toml"));
            continue;
        };
        for Dependency { name: to, kind } in &package.dependencies {
            let dev = kind.as_deref() == Some("dev");
            let may = layer.uses.contains(to) || (dev && layer.tests_use.contains(to));
            if rules.layers.contains_key(to) && !may {
                broken.push(format!("`{from}` uses `{to}`: {}", layer.why));
            }
            let allowed = rules.only_in.get(to);
            if !dev && allowed.is_some_and(|a| !a.contains(from)) {
                let places = allowed.map(|a| a.join(", ")).unwrap_or_default();
                broken.push(format!("`{from}` uses {to}, which belongs in: {places}"));
            }
        }
    }
    let names: Vec<&str> = workspace.packages.iter().map(|p| p.name.as_str()).collect();
    let gone = rules.layers.keys().filter(|l| !names.contains(&l.as_str()));
    broken.extend(gone.map(|l| format!("layers.toml speaks of `{l}`, which is no crate")));
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dependency_points_down() {
        let broken = broken(&load_rules().unwrap(), &load_workspace().unwrap());
        assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    }

    #[test]
    fn a_breach_is_found_and_told_with_its_reason() {
        let rules: Rules = toml::from_str(
            "[model]\nuses = []\nwhy = 'words have no machinery'\n\
             [host]\nuses = ['model']\ntests_use = ['gone']\nwhy = 'hands'\n\
             [gone]\nuses = []\nwhy = ''\n\
             [only_in]\ntokio = ['host']\n",
        )
        .unwrap();
        let workspace: Workspace = serde_json::from_str(
            r#"{"packages":[
                {"name":"model","dependencies":[
                    {"name":"host","kind":"dev"}, {"name":"tokio","kind":null},
                    {"name":"serde","kind":null}]},
                {"name":"host","dependencies":[
                    {"name":"model","kind":null}, {"name":"tokio","kind":null},
                    {"name":"gone","kind":"dev"}]},
                {"name":"new","dependencies":[]}]}"#,
        )
        .unwrap();
        assert_eq!(
            broken(&rules, &workspace),
            [
                "`model` uses `host`: words have no machinery",
                "`model` uses tokio, which belongs in: host",
                "`new` has no entry in layers.toml",
                "layers.toml speaks of `gone`, which is no crate",
            ]
        );
    }
}
