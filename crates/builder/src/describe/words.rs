//! Words of a template that stand for something else: `KERNEL_TAG`, `CURDIR`.
//!
//! A word is a run of letters, digits and underscores and is replaced as a whole: `MONITOR_TAG` is
//! not found in `MEMORY_MONITOR_TAG`, and the order of a table changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{self, Node, Path, Scalar, Step, Value};
use crate::compose::yaml::Meaning;

/// What words stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words(BTreeMap<String, Word>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    value: String,
    /// Who says so, for explanations.
    said_by: String,
}

/// A word that looks as if it stood for something, and that nobody told of.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Unknown {
    /// The word: `PILLAR_TAG`.
    pub word: String,
    /// Where it stands in the description: `.services[7].image`.
    pub path: String,
    /// Who wrote it there: a file with line and column, or an option.
    pub origin: String,
}

impl Words {
    /// Says what a word stands for. The last to say it counts.
    pub fn say(&mut self, word: impl Into<String>, value: impl Into<String>, said_by: &str) {
        let word_value = Word { value: value.into(), said_by: said_by.to_owned() };
        self.0.insert(word.into(), word_value);
    }

    /// What a word stands for.
    pub fn get(&self, word: &str) -> Option<&str> {
        self.0.get(word).map(|w| w.value.as_str())
    }

    /// All words.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(word, w)| (word.as_str(), w.value.as_str()))
    }

    /// Replaces the words in every text and key of a tree. Returns the tags that nobody told of.
    pub(super) fn replace(&self, root: &mut Node) -> Vec<Unknown> {
        let mut unknown = Vec::new();
        self.in_node(root, &mut Path::new(), &mut unknown);
        unknown
    }

    fn in_node(&self, node: &mut Node, path: &mut Path, unknown: &mut Vec<Unknown>) {
        let Node { value, origin } = node;
        match value {
            Value::Scalar(scalar) => {
                let replaced = self.in_text(&scalar.text);
                for word in replaced.unknown {
                    let (path, origin) = (tree::show(path), origin.to_string());
                    unknown.push(Unknown { word, path, origin });
                }
                if replaced.used.is_empty() {
                    return;
                }
                let notes = replaced.used.iter().filter_map(|word| {
                    let Word { value, said_by } = self.0.get(word)?;
                    Some(format!("{word} is {value:?} ({said_by})"))
                });
                origin.notes.extend(notes);
                let was = scalar.meaning();
                let mut new = Scalar { text: replaced.text, plain: scalar.plain };
                // A tag like 1.5 is text all the same.
                new.plain &= was != Meaning::Text || new.meaning() == Meaning::Text;
                *scalar = new;
            }
            Value::List(items) => {
                for (n, item) in items.iter_mut().enumerate() {
                    path.push(Step::Index(n));
                    self.in_node(item, path, unknown);
                    path.pop();
                }
            }
            Value::Map(entries) => {
                for (key, item) in entries {
                    *key = self.in_text(key).text;
                    path.push(Step::Key(key.clone()));
                    self.in_node(item, path, unknown);
                    path.pop();
                }
            }
        }
    }

    fn in_text(&self, text: &str) -> Replaced {
        let mut replaced = Replaced::default();
        let mut rest = text;
        while let Some(start) = rest.find(is_in_word) {
            let (before, from) = rest.split_at(start);
            let end = from.find(|c| !is_in_word(c)).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            replaced.text.push_str(before);
            match self.0.get(word) {
                Some(known) => {
                    replaced.text.push_str(&known.value);
                    replaced.used.insert(word.to_owned());
                }
                None => {
                    replaced.text.push_str(word);
                    if is_tag(word) {
                        replaced.unknown.insert(word.to_owned());
                    }
                }
            }
            rest = after;
        }
        replaced.text.push_str(rest);
        replaced
    }
}

#[derive(Default)]
struct Replaced {
    text: String,
    used: BTreeSet<String>,
    unknown: BTreeSet<String>,
}

fn is_in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// `PILLAR_TAG`, `PILLAR_K_DEV_TAG`: what a template calls an image.
fn is_tag(word: &str) -> bool {
    let name = word.strip_suffix("_TAG").unwrap_or_default();
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::describe::emit;

    #[track_caller]
    fn check(template: &str, want: &str, unknown: &[&str]) {
        let mut words = Words::default();
        for (word, value) in [
            ("MONITOR_TAG", "m:1"),
            ("MEMORY_MONITOR_TAG", "mm:2"),
            ("PILLAR_TAG", "p:3"),
            ("PILLAR_DEV_TAG", "pd:4"),
            ("NUMBER_TAG", "1.5"),
            ("OWN_TAG", "@pkg:pkg/own"),
            ("CURDIR", "/home/me/eve"),
            ("EMPTY_TAG", ""),
        ] {
            words.say(word, value, "test");
        }
        let mut tree = tree::parse("f", template).unwrap();
        let got: Vec<String> = words.replace(&mut tree).into_iter().map(|u| u.word).collect();
        assert_eq!(emit::yml(&tree), want);
        assert_eq!(got, unknown);
    }

    #[test]
    fn a_word_is_replaced_whole_whatever_else_it_ends_like() {
        check(
            "a: MEMORY_MONITOR_TAG\nb: MONITOR_TAG\nc: PILLAR_DEV_TAG PILLAR_TAG-x\n",
            "a: mm:2\nb: m:1\nc: pd:4 p:3-x\n",
            &[],
        );
        check("a: XMONITOR_TAG\n", "a: XMONITOR_TAG\n", &["XMONITOR_TAG"]);
        check("a: MONITOR_TAGS\n", "a: MONITOR_TAGS\n", &[]);
    }

    #[test]
    fn words_are_replaced_in_texts_of_every_kind_and_in_keys() {
        check(
            "a: \"CURDIR/x\"\nb:\n  - |\n    see CURDIR\n    and PILLAR_TAG\nPILLAR_TAG: EMPTY_TAG.\n",
            "a: \"/home/me/eve/x\"\nb:\n  - |\n    see /home/me/eve\n    and p:3\np:3: .\n",
            &[],
        );
    }

    #[test]
    fn what_a_word_stands_for_is_text_even_if_it_looks_like_more() {
        check("a: NUMBER_TAG\nb: OWN_TAG\n", "a: \"1.5\"\nb: \"@pkg:pkg/own\"\n", &[]);
    }
}
