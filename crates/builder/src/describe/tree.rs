//! A description as a tree whose every value knows who said it.
//!
//! Scalars keep their text and whether it stood in quotes: `mode: "0644"` stays text, `network: yes`
//! stays what YAML 1.1 reads in it. Comments are not kept.

use std::fmt;
use std::rc::Rc;

use crate::compose::ComposeError;
use crate::compose::yaml::{self, Meaning};

/// Where a value was written, and what became of it on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file, or the option that said it.
    pub file: Rc<str>,
    /// From 1; 0 where there is no line.
    pub line: usize,
    /// From 1; 0 where there is no column.
    pub column: usize,
    /// What was done to it since, in order: `PILLAR_TAG is …`.
    pub notes: Vec<String>,
}

impl Origin {
    pub(super) fn new(file: &Rc<str>, line: usize, column: usize) -> Origin {
        Origin { file: Rc::clone(file), line, column, notes: Vec::new() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}

/// A value and who said it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    /// In the order of the file; each key once.
    Map(Vec<(String, Node)>),
}

/// Text, and whether it stands without quotes (and may so be a number, a boolean, nothing).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scalar {
    pub(super) text: String,
    pub(super) plain: bool,
}

/// One step down into a tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Index(usize),
    Key(String),
}

/// The way from the root of a tree to a value in it.
pub(super) type Path = Vec<Step>;

impl Scalar {
    pub(super) fn quoted(text: impl Into<String>) -> Scalar {
        Scalar { text: text.into(), plain: false }
    }

    pub(super) fn plain(text: impl Into<String>) -> Scalar {
        Scalar { text: text.into(), plain: true }
    }

    pub(super) fn meaning(&self) -> Meaning {
        if self.plain { yaml::meaning(&self.text) } else { Meaning::Text }
    }
}

impl Node {
    pub(super) fn null(origin: Origin) -> Node {
        Node { value: Value::Scalar(Scalar::plain("null")), origin }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(s) if s.meaning() == Meaning::Nothing)
    }

    /// Everything but null and false.
    pub(super) fn is_true(&self) -> bool {
        match &self.value {
            Value::Scalar(s) => !matches!(s.meaning(), Meaning::Nothing | Meaning::Bool(false)),
            _ => true,
        }
    }

    /// What it is, for a message.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Scalar(s) => match s.meaning() {
                Meaning::Nothing => "nothing",
                Meaning::Bool(_) => "a boolean",
                Meaning::Int(_) | Meaning::Float => "a number",
                Meaning::Text => "text",
            },
        }
    }

    pub(super) fn get(&self, step: &Step) -> Option<&Node> {
        match (&self.value, step) {
            (Value::List(items), Step::Index(n)) => items.get(*n),
            (Value::Map(entries), Step::Key(key)) => {
                entries.iter().find(|(have, _)| have == key).map(|(_, node)| node)
            }
            _ => None,
        }
    }

    /// The value at `path`, made on the way if need be: null becomes a mapping or a list. `None`
    /// if something else stands in the way.
    pub(super) fn make(&mut self, path: &[Step]) -> Option<&mut Node> {
        let Some((step, rest)) = path.split_first() else { return Some(self) };
        if self.is_null() {
            self.value = match step {
                Step::Key(_) => Value::Map(Vec::new()),
                Step::Index(_) => Value::List(Vec::new()),
            };
        }
        let origin = &self.origin;
        let below = match (&mut self.value, step) {
            (Value::Map(entries), Step::Key(key)) => {
                let at = entries.iter().position(|(have, _)| have == key).unwrap_or_else(|| {
                    entries.push((key.clone(), Node::null(origin.clone())));
                    entries.len() - 1
                });
                entries.get_mut(at).map(|(_, node)| node)
            }
            (Value::List(items), Step::Index(n)) => {
                if *n == items.len() {
                    items.push(Node::null(origin.clone()));
                }
                items.get_mut(*n)
            }
            _ => None,
        };
        below?.make(rest)
    }

    /// Takes out what is at `path`, if anything is.
    pub(super) fn remove(&mut self, path: &[Step]) {
        match path {
            [] => {}
            [step] => match (&mut self.value, step) {
                (Value::List(items), Step::Index(n)) if *n < items.len() => drop(items.remove(*n)),
                (Value::Map(entries), Step::Key(key)) => entries.retain(|(have, _)| have != key),
                _ => {}
            },
            [step, rest @ ..] => {
                let below = match (&mut self.value, step) {
                    (Value::List(items), Step::Index(n)) => items.get_mut(*n),
                    (Value::Map(entries), Step::Key(key)) => {
                        entries.iter_mut().find(|(have, _)| have == key).map(|(_, node)| node)
                    }
                    _ => None,
                };
                if let Some(below) = below {
                    below.remove(rest);
                }
            }
        }
    }

    /// So many values, itself and all below.
    pub(super) fn count(&self) -> usize {
        match &self.value {
            Value::Scalar(_) => 1,
            Value::List(items) => 1 + items.iter().map(Node::count).sum::<usize>(),
            Value::Map(entries) => 1 + entries.iter().map(|(_, n)| n.count()).sum::<usize>(),
        }
    }
}

/// Reads a template. `file` names it in errors and origins.
pub(super) fn parse(file: &str, text: &str) -> Result<Node, ComposeError> {
    let root = yaml::parse(file, text)?;
    Ok(convert(root, &Rc::from(file)))
}

fn convert(node: yaml::Node, file: &Rc<str>) -> Node {
    let value = match node.value {
        yaml::Value::Scalar { text, plain } => Value::Scalar(Scalar { text, plain }),
        yaml::Value::List(items) => {
            Value::List(items.into_iter().map(|item| convert(item, file)).collect())
        }
        yaml::Value::Map(entries) => Value::Map(
            entries.into_iter().map(|(key, node)| (key.text, convert(node, file))).collect(),
        ),
    };
    Node { value, origin: Origin::new(file, node.at.line, node.at.column) }
}

/// A path as an expression would write it: `.services[3].image`.
pub(super) fn show(path: &[Step]) -> String {
    let plain = |key: &str| {
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(n) => text.push_str(&format!("[{n}]")),
            Step::Key(key) if plain(key) => text.push_str(&format!(".{key}")),
            Step::Key(key) => text.push_str(&format!("[{key:?}]")),
        }
    }
    if text.starts_with('.') { text } else { format!(".{text}") }
}
