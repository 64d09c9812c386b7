//! Descriptions: a template and what changes it for one kind of machine, to linuxkit yml.
//!
//! ```text
//! images/rootfs.yml.in ─▶ modifiers ─▶ EVE_HV, EVE_PLATFORM ─▶ variant ─▶ *_TAG words ─▶ yml
//!                          hv/<HV>.yq, platform/<PLATFORM>/<PLATFORM>.yq, dev.yq
//! ```
//!
//! The steps and their order are EVE's, so that its templates and modifiers give the same yml here.
//! [`describe`] is a function of texts; [`Repository`] reads the texts of a clone, its table of tags
//! and its matrix ([`Matrix`]) of what goes together. Every value keeps where it came from.
//! Nothing is built here: a tag of ours becomes `@pkg:pkg/NAME`, which composition resolves.

mod emit;
mod expr;
mod matrix;
mod repository;
mod tree;
mod variant;
mod words;

use model::{Diagnose, Diagnosis, Who};

use crate::compose::ComposeError;
pub use expr::ExprError;
pub use matrix::{Kernel, Matrix, MatrixError, Row, kernel_suffix};
pub use repository::{Image, Repository, RepositoryError, Selection};
pub use tree::Origin;
use tree::{Node, Path, Step, Value};
pub use variant::Variant;
pub use words::{Unknown, Words};

/// A text and what it is called in errors and explanations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// A file, mostly.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// Everything that a description follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// linuxkit yml with words in it.
    pub template: Text,
    /// Expressions, applied in this order.
    pub modifiers: Vec<Text>,
    /// Becomes the contents of files that say `EVE_HV`. `None`: they stay so.
    pub hv: Option<String>,
    /// Becomes the contents of files that say `EVE_PLATFORM`.
    pub platform: Option<String>,
    /// Becomes the contents of files that say `EVE_VERSION`: the full version, with HV and ZARCH.
    pub version: Option<String>,
    /// Which variant of EVE's pillar is taken where the template says `PILLAR_TAG`.
    pub variant: Variant,
    /// What words stand for.
    pub words: Words,
}

/// A description, every value with where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    root: Node,
    /// Tags that nobody told of; they stand in the yml as they stood in the template.
    pub unknown: Vec<Unknown>,
}

/// A value of a description and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Said {
    /// As an expression would write it: `.services[3].image`.
    pub path: String,
    /// The text of a scalar; `[]` and `{}` for lists and mappings that are empty.
    pub value: String,
    /// File, line and column, and what was done to it since.
    pub origin: String,
}

/// Why there is no description.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescribeError {
    /// The template is no YAML.
    #[error(transparent)]
    Template(#[from] ComposeError),
    /// A modifier cannot be read or applied.
    #[error(transparent)]
    Modifier(#[from] ExprError),
    /// The template or what a modifier made of it describes nothing.
    #[error("{file}: a description is a mapping, not {what}")]
    NotADescription {
        /// Who made it so.
        file: String,
        /// What it is.
        what: &'static str,
    },
}

impl Diagnose for DescribeError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Template(error) => error.diagnose(),
            Self::Modifier(_) => Diagnosis::of(Who::Operator, "correct the modifier"),
            Self::NotADescription { .. } => {
                Diagnosis::of(Who::Operator, "correct the template or the modifier")
            }
        }
    }
}

/// Makes the description.
pub fn describe(request: &Request) -> Result<Described, DescribeError> {
    let mut root = tree::parse(&request.template.name, &request.template.text)?;
    check_mapping(&request.template.name, &root)?;
    for modifier in &request.modifiers {
        root = expr::apply(&expr::parse(&modifier.name, &modifier.text)?, &root)?;
        check_mapping(&modifier.name, &root)?;
    }
    for (option, word, value) in [
        ("the hypervisor", "EVE_HV", &request.hv),
        ("the platform", "EVE_PLATFORM", &request.platform),
        ("the version", "EVE_VERSION", &request.version),
    ] {
        if let Some(value) = value {
            let of = "(.files[] | select(.contents == \"";
            let text = format!("{of}{word}\")).contents |= {}", quoted(value));
            root = expr::apply(&expr::parse_option(option, &text)?, &root)?;
        }
    }
    let pillar = request.variant.pillar();
    if pillar != "PILLAR_TAG" {
        for list in [".onboot[]", ".services[]"] {
            let text = format!("({list} | select(.image == \"PILLAR_TAG\").image) |= \"{pillar}\"");
            root = expr::apply(&expr::parse_option("the variant of the version", &text)?, &root)?;
        }
    }
    let unknown = request.words.replace(&mut root);
    Ok(Described { root, unknown })
}

impl Described {
    /// The description as yml.
    pub fn yml(&self) -> String {
        emit::yml(&self.root)
    }

    /// Every value with where it came from, in the order of the yml.
    pub fn explain(&self) -> Vec<Said> {
        let mut all = Vec::new();
        explain(&self.root, &mut Path::new(), &mut all);
        all
    }
}

fn explain(node: &Node, path: &mut Path, all: &mut Vec<Said>) {
    let mut say = |value: &str| {
        let (path, value, origin) = (tree::show(path), value.to_owned(), node.origin.to_string());
        all.push(Said { path, value, origin });
    };
    match &node.value {
        Value::Scalar(scalar) => say(&scalar.text),
        Value::List(items) if items.is_empty() => say("[]"),
        Value::Map(entries) if entries.is_empty() => say("{}"),
        Value::List(items) => {
            for (n, item) in items.iter().enumerate() {
                path.push(Step::Index(n));
                explain(item, path, all);
                path.pop();
            }
        }
        Value::Map(entries) => {
            for (key, item) in entries {
                path.push(Step::Key(key.clone()));
                explain(item, path, all);
                path.pop();
            }
        }
    }
}

fn check_mapping(file: &str, root: &Node) -> Result<(), DescribeError> {
    match &root.value {
        Value::Map(_) => Ok(()),
        _ => Err(DescribeError::NotADescription { file: file.to_owned(), what: root.kind() }),
    }
}

/// A text as an expression writes it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
