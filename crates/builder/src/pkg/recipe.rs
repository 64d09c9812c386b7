//! Recipes: `pkg.toml`, what a package is made of.
//!
//! A recipe is data. What it can say is small on purpose: Debian packages, which of their files,
//! our own files and programs, and how the image starts. Nothing in it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub use model::Arch;
use serde::{Deserialize, Serialize};

/// A recipe as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// One line for `eve pkg ls`.
    pub description: String,
    /// What it can be built for.
    #[serde(default = "amd64")]
    pub arches: Vec<Arch>,
    /// Packages that are always installed with it: what they bring is not brought again.
    #[serde(default)]
    pub depends: Vec<String>,
    /// What it takes from Debian.
    #[serde(default)]
    pub debs: Debs,
    /// Files renamed within the package, before anything of ours is added.
    #[serde(default)]
    pub moves: Vec<Move>,
    /// Files joined into one; the sources go.
    #[serde(default)]
    pub concat: Vec<Concat>,
    /// Makes a kernel package of it.
    pub kernel: Option<Kernel>,
    /// Folders.
    #[serde(default)]
    pub dirs: Vec<DirRule>,
    /// Files from the recipe's folder.
    #[serde(default)]
    pub files: Vec<FileRule>,
    /// Programs of this repository.
    #[serde(default)]
    pub cargo: Vec<CargoRule>,
    /// Symbolic links.
    #[serde(default)]
    pub links: Vec<LinkRule>,
    /// How the image starts, if it does.
    #[serde(default)]
    pub oci: Oci,
}

/// What a recipe takes from Debian.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debs {
    /// Packages, for every architecture. Their dependencies come along.
    #[serde(default)]
    pub names: Vec<String>,
    /// More, for one architecture.
    #[serde(default)]
    pub arch: BTreeMap<Arch, Vec<String>>,
    /// Dependencies that do not come along, nor what only they need.
    #[serde(default)]
    pub omit: BTreeSet<String>,
    /// Globs of the files to take; none: all.
    #[serde(default)]
    pub include: Vec<String>,
    /// Globs of the files to leave. Copyright files stay whatever this says.
    #[serde(default)]
    pub exclude: Vec<String>,
}

/// A file renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// Where a .deb puts it.
    pub from: String,
    /// Where it belongs.
    pub to: String,
}

/// Files joined, in the order of their paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concat {
    /// A glob; it must match something.
    pub from: String,
    /// The file they become, mode 0644.
    pub to: String,
}

/// What makes a package a kernel: `kernel` and `kernel.tar`, as linuxkit expects them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// The list of modules to keep, a file of the recipe.
    pub modules: String,
    /// The list of modules the initrd needs, a file of the recipe.
    pub initrd: String,
}

/// A folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirRule {
    /// Where.
    pub path: String,
    /// Octal text.
    #[serde(default = "mode_0755")]
    pub mode: String,
    /// Owner.
    #[serde(default)]
    pub uid: u32,
    /// Group.
    #[serde(default)]
    pub gid: u32,
}

/// A file from the recipe's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRule {
    /// Its name below the recipe's folder.
    pub from: String,
    /// Where it goes.
    pub to: String,
    /// Octal text.
    #[serde(default = "mode_0644")]
    pub mode: String,
    /// Owner.
    #[serde(default)]
    pub uid: u32,
    /// Group.
    #[serde(default)]
    pub gid: u32,
}

/// A program of this repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CargoRule {
    /// The crate.
    pub package: String,
    /// Its binary.
    pub bin: String,
    /// Where it goes, mode 0755.
    pub to: String,
}

/// One or more symbolic links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkRule {
    /// For which architectures; none: for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arches: Vec<Arch>,
    /// What they point to.
    pub target: String,
    /// Where they are.
    pub paths: Vec<String>,
}

/// The run part of an OCI image's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oci {
    /// The program and its fixed arguments.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// Further arguments, which a user may replace.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Where it starts.
    pub workdir: Option<String>,
    /// `uid` or `uid:gid`.
    pub user: Option<String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn amd64() -> Vec<Arch> {
    vec![Arch::Amd64]
}

fn mode_0755() -> String {
    "0755".to_owned()
}

fn mode_0644() -> String {
    "0644".to_owned()
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// Not as this file must be; `what` names the allowed keys.
    #[error("{path}:{line}:{column}: {what}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong.
        what: String,
    },
    /// Right in form, wrong in meaning.
    #[error("{path}: {what}")]
    Meaning {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl Recipe {
    /// Reads the text of a recipe; `path` is for errors only.
    pub fn parse(path: &Path, text: &str) -> Result<Recipe, RecipeError> {
        let recipe: Recipe = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start).min(text.len());
            let before = text.get(..at).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            let what = e.message().to_owned();
            RecipeError::Syntax { path: path.to_owned(), line, column, what }
        })?;
        recipe.check().map_err(|what| RecipeError::Meaning { path: path.to_owned(), what })?;
        Ok(recipe)
    }

    /// The Debian packages asked for on one architecture.
    pub fn debs_for(&self, arch: Arch) -> BTreeSet<String> {
        let more = self.debs.arch.get(&arch).into_iter().flatten();
        self.debs.names.iter().chain(more).cloned().collect()
    }

    fn check(&self) -> Result<(), String> {
        for mode in self.files.iter().map(|f| &f.mode).chain(self.dirs.iter().map(|d| &d.mode)) {
            octal(mode).ok_or_else(|| format!("mode {mode:?} is not octal up to 7777"))?;
        }
        for glob in self.debs.include.iter().chain(&self.debs.exclude) {
            check_glob(glob)?;
        }
        for concat in &self.concat {
            check_glob(&concat.from)?;
        }
        for file in &self.files {
            let name = Path::new(&file.from);
            if name.components().any(|c| !matches!(c, std::path::Component::Normal(_))) {
                return Err(format!("{:?} is not a file below the recipe's folder", file.from));
            }
        }
        Ok(())
    }
}

/// The number of an octal text up to 7777.
pub(super) fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777 && !text.starts_with('+'))
}

/// Which files of the .debs a package takes.
#[derive(Debug)]
pub(super) struct Wanted {
    include: Vec<glob::Pattern>,
    exclude: Vec<glob::Pattern>,
}

/// What no image needs. Each package may exclude more.
const NEVER: [&str; 11] = [
    "/usr/share/doc/**",
    "/usr/share/man/**",
    "/usr/share/info/**",
    "/usr/share/locale/**",
    "/usr/share/lintian/**",
    "/usr/share/bug/**",
    "/usr/share/bash-completion/**",
    "/usr/share/doc-base/**",
    "/usr/share/initramfs-tools/**",
    "/usr/lib/systemd/system/**",
    "/etc/init.d/**",
];

/// Whoever passes on Debian's programs passes on their licences.
pub(super) const ALWAYS: &str = "/usr/share/doc/*/copyright";

impl Wanted {
    /// The rules of a recipe.
    pub(super) fn of(debs: &Debs) -> Wanted {
        // `Recipe::check` has parsed every glob once.
        let parse = |globs: &mut dyn Iterator<Item = &str>| {
            globs.filter_map(|g| glob::Pattern::new(g).ok()).collect()
        };
        Wanted {
            include: parse(&mut debs.include.iter().map(String::as_str)),
            exclude: parse(&mut NEVER.into_iter().chain(debs.exclude.iter().map(String::as_str))),
        }
    }

    /// Whether the file at `path` (without a leading slash) is taken.
    pub(super) fn takes(&self, path: &str) -> bool {
        let path = format!("/{path}");
        let any = |globs: &[glob::Pattern]| globs.iter().any(|g| g.matches_with(&path, HOW));
        matches(ALWAYS, &path)
            || (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// Whether a glob takes an absolute path: `*` within one part, `**` over several.
pub(super) fn matches(glob: &str, path: &str) -> bool {
    glob::Pattern::new(glob).is_ok_and(|g| g.matches_with(path, HOW))
}

const HOW: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

fn check_glob(glob: &str) -> Result<(), String> {
    if !glob.starts_with('/') {
        return Err(format!("glob {glob:?} does not begin with /"));
    }
    glob::Pattern::new(glob).map(drop).map_err(|e| format!("glob {glob:?}: {}", e.msg))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn error(text: &str) -> String {
        Recipe::parse(Path::new("pkg/x/pkg.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place_and_the_allowed_ones() {
        let said = error("description = \"x\"\n[debs]\nname = [\"crun\"]\n");
        assert!(said.starts_with("pkg/x/pkg.toml:3:1: unknown field `name`"), "{said}");
        for key in ["names", "arch", "omit", "include", "exclude"] {
            assert!(said.contains(&format!("`{key}`")), "{said}");
        }
    }

    #[test]
    fn a_wrong_type_is_refused_with_its_place() {
        let said = error("description = \"x\"\narches = \"amd64\"\n");
        assert!(said.starts_with("pkg/x/pkg.toml:2:10: "), "{said}");
    }

    #[test]
    fn modes_globs_and_file_names_are_checked() {
        for (rule, what) in [
            ("[[files]]\nfrom = 'a'\nto = '/a'\nmode = '0999'", "not octal"),
            ("[[files]]\nfrom = '../a'\nto = '/a'", "below the recipe's folder"),
            ("[debs]\nexclude = ['usr/**']", "does not begin with /"),
            ("[debs]\ninclude = ['/usr/**x']", "glob"),
        ] {
            let said = error(&format!("description = 'x'\n{rule}\n"));
            assert!(said.contains(what), "{rule}: {said}");
        }
    }

    #[test]
    fn globs_take_what_they_say_and_licences_stay() {
        let debs = Debs {
            include: vec!["/usr/bin/*".into(), "/usr/share/**".into()],
            exclude: vec!["/usr/bin/x*".into()],
            ..Debs::default()
        };
        let wanted = Wanted::of(&debs);
        for (path, want) in [
            ("usr/bin/a", true),
            ("usr/bin/a/b", false),
            ("usr/bin/xa", false),
            ("usr/share/a/b/c", true),
            ("usr/share/man/man1/a.1.gz", false),
            ("usr/share/doc/a/changelog.gz", false),
            ("usr/share/doc/a/copyright", true),
            ("etc/a", false),
        ] {
            assert_eq!(wanted.takes(path), want, "{path}");
        }
        assert!(Wanted::of(&Debs::default()).takes("etc/a"));
    }
}
