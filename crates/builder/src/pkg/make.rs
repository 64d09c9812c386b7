//! A recipe and its inputs to the package's files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use formats::deb822::Stanza;

use super::deb::{self, DebError};
use super::kernel::{self, KernelError, List};
use super::lock::Deb;
use super::recipe::{Arch, CargoRule, Concat, LinkRule, Recipe, Wanted, matches, octal};
use super::record;
use super::tree::{Kind, Node, Tree, TreeError};

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
    /// The recipe's folder: `pkg/base`.
    pub name: &'a str,
    /// What the recipe says.
    pub recipe: &'a Recipe,
    /// For what it is made.
    pub arch: Arch,
    /// Files of the recipe's folder, by name.
    pub files: &'a BTreeMap<String, Vec<u8>>,
    /// Debian's release that the .debs are of.
    pub suite: &'a str,
    /// The .debs, and where they lie.
    pub debs: Vec<(&'a Deb, PathBuf)>,
    /// Our programs.
    pub programs: &'a BTreeMap<CargoRule, Arc<[u8]>>,
    /// Times are no later than this.
    pub epoch: u64,
}

/// The files of the package.
pub(super) fn make(parts: &Parts<'_>) -> Result<Tree, MakeError> {
    let recipe = parts.recipe;
    let ours = format!("{}/pkg.toml", parts.name);
    let mut tree = Tree::default();
    let mut records = Vec::new();
    for (deb, path) in &parts.debs {
        let control = deb::unpack(path, deb.file(), &mut tree)?;
        let stanza = record::stanza(&control, deb, parts.suite);
        let stanza = stanza.ok_or_else(|| DebError::NoControl { path: path.clone() })?;
        records.push(Record { deb, stanza });
    }
    if let Some(rule) = &recipe.kernel {
        let text = |name: &str| {
            let bytes = parts.files.get(name).map(Vec::as_slice).unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        let (modules, initrd) = (text(&rule.modules), text(&rule.initrd));
        let modules = List { name: &rule.modules, text: &modules, arch: parts.arch };
        let initrd = List { name: &rule.initrd, text: &initrd, arch: parts.arch };
        // They belong into the archive that is made there.
        records.drain(..).try_for_each(|r| r.put_into(&mut tree))?;
        tree = kernel::package(&tree, modules, initrd, &ours, parts.epoch)?;
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
    let used = brought(&tree);
    for record in records.iter().filter(|r| used.contains(r.deb.file())) {
        record.put_into(&mut tree)?;
    }
    for rule in &recipe.dirs {
        let node = Node::dir(octal(&rule.mode).unwrap_or(0o755), &*ours);
        tree.put(&rule.path, Node { uid: rule.uid, gid: rule.gid, ..node })?;
    }
    for rule in &recipe.files {
        let bytes = parts
            .files
            .get(&rule.from)
            .ok_or_else(|| MakeError::Nothing { rule: "file", path: rule.from.clone() })?;
        let mode = octal(&rule.mode).unwrap_or(0o644);
        let node = Node::file(bytes.as_slice(), mode, format!("{}/{}", parts.name, rule.from));
        tree.put(&rule.to, Node { uid: rule.uid, gid: rule.gid, ..node })?;
    }
    for rule in &recipe.cargo {
        let bytes = parts
            .programs
            .get(rule)
            .ok_or_else(|| MakeError::Nothing { rule: "cargo", path: rule.bin.clone() })?;
        tree.put(&rule.to, Node::file(Arc::clone(bytes), 0o755, format!("cargo {}", rule.bin)))?;
    }
    let here = |rule: &&LinkRule| rule.arches.is_empty() || rule.arches.contains(&parts.arch);
    for rule in recipe.links.iter().filter(here) {
        for path in &rule.paths {
            tree.put(path, Node::link(&rule.target, &*ours))?;
        }
    }
    Ok(tree)
}

/// A .deb's stanza on its way into the package.
struct Record<'a> {
    deb: &'a Deb,
    stanza: Stanza,
}

impl Record<'_> {
    fn put_into(&self, tree: &mut Tree) -> Result<(), TreeError> {
        let node = Node::file(self.stanza.print().into_bytes(), 0o644, self.deb.file());
        tree.put(&format!("{}/{}", record::FOLDER, self.deb.name), node)
    }
}

/// Who brought anything but the text of a licence.
fn brought(tree: &Tree) -> BTreeSet<String> {
    let nodes = tree.iter().filter(|(path, node)| {
        node.kind != Kind::Dir && !matches(super::recipe::ALWAYS, &format!("/{path}"))
    });
    nodes.flat_map(|(_, node)| node.from.split(", ")).map(str::to_owned).collect()
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
    let mut from = BTreeSet::new();
    for path in sources {
        let node = tree.remove(&path);
        from.extend(node.iter().map(|n| n.from.clone()));
        let bytes = node.iter().filter_map(Node::bytes).flat_map(|b| b.iter());
        joined.extend(bytes);
        if joined.last() != Some(&b'\n') {
            joined.push(b'\n');
        }
    }
    let from = from.into_iter().collect::<Vec<_>>().join(", ");
    tree.put(&rule.to, Node::file(joined, 0o644, from))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use model::{Bytes, Digest};

    use super::*;

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
        let source = Deb {
            name: "tool".to_owned(),
            version: "1".to_owned(),
            arch: "amd64".to_owned(),
            size: Bytes(deb.len() as u64),
            sha256: Digest([0xab; 32]),
            filename: "pool/tool_1_amd64.deb".to_owned(),
        };
        let parts = Parts {
            name: "pkg/x",
            suite: "trixie",
            recipe: &recipe,
            arch: Arch::Amd64,
            files: &BTreeMap::from([("passwd".to_owned(), b"root".to_vec())]),
            debs: vec![(&source, dir.path().join("tool.deb"))],
            programs: &BTreeMap::from([(rule, b"ELF"[..].into())]),
            epoch: 0,
        };
        let tree = make(&parts).unwrap();
        let show = |(path, node): (&str, &Node)| match &node.kind {
            Kind::Dir => format!("{path}/ {:o} {}:{}", node.mode, node.uid, node.gid),
            Kind::Link(target) => format!("{path} -> {target}"),
            Kind::File(_) if path == "var/lib/dpkg/status.d/tool" => {
                format!("{path} {}", node.from)
            }
            Kind::File(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                format!("{path} {:o} {text:?} {}", node.mode, node.from)
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
             links = [{ target = 'usr/bin', paths = ['/bin'] },\n\
                      { arches = ['arm64'], target = 'x', paths = ['/y'] }]\n",
            &[
                "bin -> usr/bin",
                "etc/ca.crt 644 \"A\\nB\\n\" tool_1_amd64.deb",
                "etc/passwd 600 \"root\" pkg/x/passwd",
                "persist/ 750 0:950",
                "usr/bin/eved 755 \"ELF\" cargo eved",
                "usr/bin/tool 755 \"TOOL\" tool_1_amd64.deb",
                "usr/share/doc/tool/copyright 755 \"free\" tool_1_amd64.deb",
                "var/lib/dpkg/status.d/tool tool_1_amd64.deb",
            ],
        );
    }

    #[test]
    fn a_file_can_be_taken_out_alone() {
        check(
            "debs = { include = ['/nothing'] }\n\
             moves = [{ from = '/usr/bin/tool', to = '/tool' }]\n",
            &[
                "tool 755 \"TOOL\" tool_1_amd64.deb",
                "usr/share/doc/tool/copyright 755 \"free\" tool_1_amd64.deb",
                "var/lib/dpkg/status.d/tool tool_1_amd64.deb",
            ],
        );
    }

    #[test]
    fn a_deb_of_which_only_the_licence_stays_is_not_said_to_be_there() {
        check(
            "debs = { include = ['/nothing'] }\n",
            &["usr/share/doc/tool/copyright 755 \"free\" tool_1_amd64.deb"],
        );
    }
}
