//! A recipe and its inputs to the package's files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::deb::{self, DebError};
use super::kernel::{self, KernelError, List};
use super::recipe::{CargoRule, Concat, Recipe, Wanted, matches, octal};
use super::tree::{Node, Tree, TreeError};

/// Why a package could not be made of its parts.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// A .deb is broken.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// A file cannot be where it should.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The kernel is not as it should be.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A rule of the recipe finds nothing to work on.
    #[error("the recipe's {rule} finds no file {path}")]
    Nothing {
        /// `move`, `concat`, …
        rule: &'static str,
        /// What it looks for.
        path: String,
    },
}

/// What goes into a package, at hand.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// What the recipe says.
    pub recipe: &'a Recipe,
    /// Files of the recipe's folder, by name.
    pub files: &'a BTreeMap<String, Vec<u8>>,
    /// The .debs: name and file.
    pub debs: Vec<(String, PathBuf)>,
    /// Our programs.
    pub programs: &'a BTreeMap<CargoRule, Arc<[u8]>>,
    /// Times are no later than this.
    pub epoch: u64,
}

/// The files of the package.
pub(super) fn make(parts: &Parts<'_>) -> Result<Tree, MakeError> {
    let recipe = parts.recipe;
    let mut tree = Tree::default();
    for (name, path) in &parts.debs {
        deb::unpack(path, name, &mut tree)?;
    }
    if let Some(rule) = &recipe.kernel {
        let text = |name: &str| {
            let bytes = parts.files.get(name).map(Vec::as_slice).unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        let (modules, initrd) = (text(&rule.modules), text(&rule.initrd));
        let modules = List { name: &rule.modules, text: &modules };
        let initrd = List { name: &rule.initrd, text: &initrd };
        tree = kernel::package(&tree, modules, initrd, parts.epoch)?;
    } else {
        let wanted = Wanted::of(&recipe.debs);
        // What a rule below works on is there for it, and goes with it.
        let kept = |path: &str| {
            let path = format!("/{path}");
            recipe.concat.iter().any(|c| matches(&c.from, &path))
                || recipe.moves.iter().any(|m| m.from == path)
        };
        tree.retain(|path| wanted.takes(path) || kept(path));
    }
    for rule in &recipe.moves {
        let node = tree
            .remove(&rule.from)
            .ok_or_else(|| MakeError::Nothing { rule: "move", path: rule.from.clone() })?;
        tree.add(&rule.to, node)?;
    }
    for rule in &recipe.concat {
        concat(rule, &mut tree)?;
    }
    for rule in &recipe.dirs {
        let node = Node::dir(octal(&rule.mode).unwrap_or(0o755), "the recipe");
        tree.put(&rule.path, Node { uid: rule.uid, gid: rule.gid, ..node })?;
    }
    for rule in &recipe.files {
        let bytes = parts
            .files
            .get(&rule.from)
            .ok_or_else(|| MakeError::Nothing { rule: "file", path: rule.from.clone() })?;
        let mode = octal(&rule.mode).unwrap_or(0o644);
        let node = Node::file(bytes.as_slice(), mode, "the recipe");
        tree.put(&rule.to, Node { uid: rule.uid, gid: rule.gid, ..node })?;
    }
    for rule in &recipe.cargo {
        let bytes = parts
            .programs
            .get(rule)
            .ok_or_else(|| MakeError::Nothing { rule: "cargo", path: rule.bin.clone() })?;
        tree.put(&rule.to, Node::file(Arc::clone(bytes), 0o755, "our programs"))?;
    }
    for rule in &recipe.links {
        for path in &rule.paths {
            tree.put(path, Node::link(&rule.target, "the recipe"))?;
        }
    }
    Ok(tree)
}

fn concat(rule: &Concat, tree: &mut Tree) -> Result<(), MakeError> {
    let sources: Vec<String> = tree
        .iter()
        .filter(|(path, node)| node.bytes().is_some() && matches(&rule.from, &format!("/{path}")))
        .map(|(path, _)| path.to_owned())
        .collect();
    if sources.is_empty() {
        return Err(MakeError::Nothing { rule: "concat", path: rule.from.clone() });
    }
    let mut joined = Vec::new();
    for path in sources {
        let node = tree.remove(&path);
        let bytes = node.iter().filter_map(Node::bytes).flat_map(|b| b.iter());
        joined.extend(bytes);
        if joined.last() != Some(&b'\n') {
            joined.push(b'\n');
        }
    }
    tree.put(&rule.to, Node::file(joined, 0o644, "the recipe"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::pkg::tree::Kind;

    /// One line a file: path, mode in octal, content or target.
    #[track_caller]
    fn check(recipe: &str, want: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        let deb = deb::tests::deb(&[
            ("usr/bin/tool", "TOOL"),
            ("usr/share/certs/b.crt", "B"),
            ("usr/share/certs/a.crt", "A\n"),
            ("usr/share/doc/tool/copyright", "free"),
            ("usr/share/man/tool.1", "man"),
        ]);
        store::save(dir.path(), "tool.deb", &deb).unwrap();
        let recipe = format!("description = 'x'\n{recipe}");
        let recipe = Recipe::parse(Path::new("pkg.toml"), &recipe).unwrap();
        let rule = CargoRule {
            package: "eved".to_owned(),
            bin: "eved".to_owned(),
            to: "/usr/bin/eved".to_owned(),
        };
        let parts = Parts {
            recipe: &recipe,
            files: &BTreeMap::from([("passwd".to_owned(), b"root".to_vec())]),
            debs: vec![("tool".to_owned(), dir.path().join("tool.deb"))],
            programs: &BTreeMap::from([(rule, b"ELF"[..].into())]),
            epoch: 0,
        };
        let tree = make(&parts).unwrap();
        let show = |(path, node): (&str, &Node)| match &node.kind {
            Kind::Dir => format!("{path}/ {:o} {}:{}", node.mode, node.uid, node.gid),
            Kind::Link(target) => format!("{path} -> {target}"),
            Kind::File(bytes) => {
                format!("{path} {:o} {:?}", node.mode, String::from_utf8_lossy(bytes))
            }
        };
        assert_eq!(tree.iter().map(show).collect::<Vec<_>>(), want);
    }

    #[test]
    fn a_package_is_what_its_recipe_says() {
        check(
            "debs = { include = ['/usr/bin/*'] }\n\
             concat = [{ from = '/usr/share/certs/*.crt', to = '/etc/ca.crt' }]\n\
             dirs = [{ path = '/persist', mode = '0750', gid = 950 }]\n\
             files = [{ from = 'passwd', to = '/etc/passwd', mode = '0600' }]\n\
             cargo = [{ package = 'eved', bin = 'eved', to = '/usr/bin/eved' }]\n\
             links = [{ target = 'usr/bin', paths = ['/bin'] }]\n",
            &[
                "bin -> usr/bin",
                "etc/ca.crt 644 \"A\\nB\\n\"",
                "etc/passwd 600 \"root\"",
                "persist/ 750 0:950",
                "usr/bin/eved 755 \"ELF\"",
                "usr/bin/tool 755 \"TOOL\"",
                "usr/share/doc/tool/copyright 755 \"free\"",
            ],
        );
    }

    #[test]
    fn a_file_can_be_taken_out_alone() {
        check(
            "debs = { include = ['/nothing'] }\n\
             moves = [{ from = '/usr/bin/tool', to = '/tool' }]\n",
            &["tool 755 \"TOOL\"", "usr/share/doc/tool/copyright 755 \"free\""],
        );
    }
}
