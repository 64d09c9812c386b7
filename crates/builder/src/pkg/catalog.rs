//! The recipes of a repository: found below `pkg/` and `apps/`, ordered by what they depend on, and
//! the tag that follows from everything that goes into one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::recipe::{Arch, Recipe, RecipeError};

/// The folders that hold recipes.
const FOLDERS: [&str; 2] = ["pkg", "apps"];

/// Raised whenever the same inputs make other images: every package is then built anew.
const FORMAT: u32 = 2;

/// Every recipe, by its folder relative to the repository: `pkg/crun`.
#[derive(Debug, Default)]
pub struct Catalog {
    recipes: BTreeMap<String, Entry>,
}

/// A recipe and where it stands.
#[derive(Debug)]
pub struct Entry {
    /// What it says.
    pub recipe: Recipe,
    /// Its folder.
    pub dir: PathBuf,
}

/// Why the recipes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// One is broken.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A file of a recipe cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no such package.
    #[error("there is no package {name:?}; there are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// It cannot be built for this architecture.
    #[error("{name} is not made for {arch}")]
    Arch {
        /// Which.
        name: String,
        /// For what.
        arch: Arch,
    },
    /// Packages need each other.
    #[error("{name} depends on itself")]
    Circle {
        /// Which.
        name: String,
    },
}

impl Catalog {
    /// Reads every recipe of a repository.
    pub fn read(repository: &Path) -> Result<Catalog, CatalogError> {
        let mut catalog = Catalog::default();
        for folder in FOLDERS {
            let dir = repository.join(folder);
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries.filter_map(Result::ok) {
                let path = entry.path().join("pkg.toml");
                let Some(name) = entry.file_name().to_str().map(|n| format!("{folder}/{n}")) else {
                    continue;
                };
                if path.is_file() {
                    let text = fs::read_to_string(&path)
                        .map_err(|source| CatalogError::Read { path: path.clone(), source })?;
                    let shown = path.strip_prefix(repository).unwrap_or(&path);
                    let recipe = Recipe::parse(shown, &text)?;
                    catalog.recipes.insert(name, Entry { recipe, dir: entry.path() });
                }
            }
        }
        Ok(catalog)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.recipes.keys().map(String::as_str)
    }

    /// A recipe by its full name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.recipes.get(name)
    }

    /// The full name of `crun`, `pkg/crun` or `pkg/crun/`.
    pub fn find(&self, name: &str) -> Result<String, CatalogError> {
        let plain = name.trim_end_matches('/');
        let guesses = FOLDERS.iter().map(|f| format!("{f}/{plain}")).chain([plain.to_owned()]);
        let known = || self.names().collect::<Vec<_>>().join(", ");
        guesses
            .into_iter()
            .find(|g| self.recipes.contains_key(g))
            .ok_or_else(|| CatalogError::Unknown { name: name.to_owned(), known: known() })
    }

    /// `names` and what they depend on, each after what it depends on.
    pub fn order(&self, names: &[String], arch: Arch) -> Result<Vec<String>, CatalogError> {
        let mut done = Vec::new();
        for name in names {
            self.visit(&self.find(name)?, arch, &mut Vec::new(), &mut done)?;
        }
        Ok(done)
    }

    fn visit(
        &self,
        name: &str,
        arch: Arch,
        above: &mut Vec<String>,
        done: &mut Vec<String>,
    ) -> Result<(), CatalogError> {
        if done.iter().any(|d| d == name) {
            return Ok(());
        }
        if above.iter().any(|a| a == name) {
            return Err(CatalogError::Circle { name: name.to_owned() });
        }
        let recipe = &self.recipes[name].recipe;
        if !recipe.arches.contains(&arch) {
            return Err(CatalogError::Arch { name: name.to_owned(), arch });
        }
        above.push(name.to_owned());
        for need in &recipe.depends {
            self.visit(&self.find(need)?, arch, above, done)?;
        }
        above.pop();
        done.push(name.to_owned());
        Ok(())
    }

    /// Everything a package depends on, without itself.
    pub fn below(&self, name: &str, arch: Arch) -> Result<Vec<String>, CatalogError> {
        let mut order = self.order(&[name.to_owned()], arch)?;
        order.pop();
        Ok(order)
    }

    /// A digest of what a package asks of Debian: as long as it is the same, its pins hold.
    pub fn request(&self, name: &str, arch: Arch) -> Result<String, CatalogError> {
        let recipe = &self.recipes[name].recipe;
        let mut hash = Fields::new("request");
        hash.field("debs", recipe.debs_for(arch));
        hash.field("omit", recipe.debs.omit.iter().cloned());
        let below = self.below(name, arch)?;
        for needed in &below {
            let recipe = &self.recipes[needed].recipe;
            hash.field("have", recipe.debs_for(arch));
            hash.field("have omit", recipe.debs.omit.iter().cloned());
        }
        Ok(hash.finish()[..16].to_owned())
    }

    /// The files of a recipe's folder that it uses, with their bytes.
    pub fn files(&self, name: &str) -> Result<BTreeMap<String, Vec<u8>>, CatalogError> {
        let Entry { recipe, dir } = &self.recipes[name];
        let mut used: BTreeSet<&str> = recipe.files.iter().map(|f| f.from.as_str()).collect();
        used.extend(recipe.kernel.iter().flat_map(|k| [k.modules.as_str(), k.initrd.as_str()]));
        let read = |file: &str| {
            let path = dir.join(file);
            match fs::read(&path) {
                Ok(bytes) => Ok((file.to_owned(), bytes)),
                Err(source) => Err(CatalogError::Read { path, source }),
            }
        };
        used.into_iter().map(read).collect()
    }
}

/// Everything that goes into a package.
#[derive(Debug, Clone)]
pub(super) struct Inputs<'a> {
    /// What the recipe says.
    pub recipe: &'a Recipe,
    /// For what it is built.
    pub arch: Arch,
    /// Times are no later than this.
    pub epoch: u64,
    /// Its files.
    pub files: &'a BTreeMap<String, Vec<u8>>,
    /// SHA-256 of its .debs.
    pub debs: Vec<String>,
    /// SHA-256 of our programs in it.
    pub programs: Vec<String>,
    /// Tags of what it depends on.
    pub depends: Vec<String>,
}

/// The tag of a package: 40 hexadecimal digits that change when, and only when, an input does.
pub(super) fn tag(inputs: &Inputs<'_>) -> String {
    let mut hash = Fields::new("package");
    hash.field("format", [FORMAT.to_string()]);
    // Serialized, so that comments and blank lines do not count.
    hash.field("recipe", [serde_json::to_string(inputs.recipe).unwrap_or_default()]);
    hash.field("arch", [inputs.arch.to_string()]);
    hash.field("epoch", [inputs.epoch.to_string()]);
    for (name, bytes) in inputs.files {
        hash.field("file", [name.clone(), hex::encode(Sha256::digest(bytes))]);
    }
    hash.field("debs", inputs.debs.iter().cloned());
    hash.field("programs", inputs.programs.iter().cloned());
    hash.field("depends", inputs.depends.iter().cloned());
    hash.finish()[..40].to_owned()
}

/// A digest over named lists of texts, each with its length: no two inputs look the same.
struct Fields(Sha256);

impl Fields {
    fn new(kind: &str) -> Fields {
        let mut fields = Fields(Sha256::new());
        fields.text(kind);
        fields
    }

    fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text);
    }

    fn field(&mut self, name: &str, values: impl IntoIterator<Item = String>) {
        let values: Vec<String> = values.into_iter().collect();
        self.text(name);
        self.0.update((values.len() as u64).to_be_bytes());
        values.iter().for_each(|v| self.text(v));
    }

    fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(text: &str) -> Recipe {
        Recipe::parse(Path::new("t"), text).unwrap()
    }

    fn catalog(recipes: &[(&str, &str)]) -> Catalog {
        let entry = |text: &str| Entry { recipe: recipe(text), dir: PathBuf::new() };
        let recipes = recipes.iter().map(|(name, text)| ((*name).to_owned(), entry(text)));
        Catalog { recipes: recipes.collect() }
    }

    #[test]
    fn the_tag_changes_when_and_only_when_an_input_does() {
        let text = "description = 'x'\n[debs]\nnames = ['crun']\n";
        let plain = recipe(text);
        let files = BTreeMap::from([("a".to_owned(), b"1".to_vec())]);
        let one = |s: &str| vec![s.to_owned()];
        let inputs = Inputs {
            recipe: &plain,
            arch: Arch::Amd64,
            epoch: 1,
            files: &files,
            debs: one("d"),
            programs: one("p"),
            depends: one("t"),
        };
        let first = tag(&inputs);
        assert_eq!(first.len(), 40);
        // A comment is no input.
        let commented = recipe(&format!("# hello\n\n{text}"));
        assert_eq!(tag(&Inputs { recipe: &commented, ..inputs.clone() }), first);

        let other_recipe = recipe("description = 'y'\n[debs]\nnames = ['crun']\n");
        let other_file = BTreeMap::from([("a".to_owned(), b"2".to_vec())]);
        let renamed = BTreeMap::from([("b".to_owned(), b"1".to_vec())]);
        for (what, changed) in [
            ("recipe", Inputs { recipe: &other_recipe, ..inputs.clone() }),
            ("arch", Inputs { arch: Arch::Arm64, ..inputs.clone() }),
            ("epoch", Inputs { epoch: 2, ..inputs.clone() }),
            ("a file", Inputs { files: &other_file, ..inputs.clone() }),
            ("a file's name", Inputs { files: &renamed, ..inputs.clone() }),
            ("debs", Inputs { debs: one("e"), ..inputs.clone() }),
            ("programs", Inputs { programs: one("q"), ..inputs.clone() }),
            ("depends", Inputs { depends: one("u"), ..inputs.clone() }),
            (
                "where a value stands",
                Inputs { debs: vec![], depends: vec!["d".into(), "t".into()], ..inputs.clone() },
            ),
        ] {
            assert_ne!(tag(&changed), first, "{what}");
        }
    }

    #[test]
    fn packages_come_after_what_they_depend_on() {
        let catalog = catalog(&[
            ("apps/hello", "description = ''"),
            ("pkg/base", "description = ''"),
            ("pkg/crun", "description = ''\ndepends = ['base']"),
            ("pkg/debug", "description = ''\ndepends = ['crun', 'pkg/base']"),
        ]);
        let order = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            catalog.order(&names, Arch::Amd64)
        };
        assert_eq!(
            order(&["debug", "hello"]).unwrap(),
            ["pkg/base", "pkg/crun", "pkg/debug", "apps/hello"]
        );
        assert!(matches!(order(&["nothing"]), Err(CatalogError::Unknown { .. })));
        assert!(matches!(
            catalog.order(&["crun".to_owned()], Arch::Arm64),
            Err(CatalogError::Arch { .. })
        ));
    }

    #[test]
    fn a_circle_is_refused() {
        let catalog = catalog(&[
            ("pkg/a", "description = ''\ndepends = ['b']"),
            ("pkg/b", "description = ''\ndepends = ['a']"),
        ]);
        let outcome = catalog.order(&["a".to_owned()], Arch::Amd64);
        assert!(matches!(outcome, Err(CatalogError::Circle { .. })));
    }

    #[test]
    fn pins_hold_until_the_wish_changes() {
        let request = |base: &str, crun: &str| {
            let base = format!("description = ''\n[debs]\nnames = ['{base}']");
            let crun = format!("description = ''\ndepends = ['base']\n{crun}");
            catalog(&[("pkg/base", &base), ("pkg/crun", &crun)]).request("pkg/crun", Arch::Amd64)
        };
        let first = request("libc6", "[debs]\nnames = ['crun']").unwrap();
        assert_eq!(request("libc6", "[debs]\nnames = ['crun']\nexclude = ['/x']").unwrap(), first);
        assert_ne!(request("libc7", "[debs]\nnames = ['crun']").unwrap(), first);
        assert_ne!(request("libc6", "[debs]\nnames = ['runc']").unwrap(), first);
        assert_ne!(request("libc6", "[debs]\nnames = ['crun']\nomit = ['x']").unwrap(), first);
    }
}
