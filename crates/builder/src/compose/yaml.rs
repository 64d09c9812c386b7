//! YAML as a tree whose every node knows where it stands.
//!
//! Scalars keep their text: whether `0666` is a number or a mode is for the reader of the key to say.
//! Anchors, aliases and merge keys are followed; depth and size are bounded, so that a few lines of
//! aliases cannot grow into gigabytes.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError};

use super::ComposeError;

/// The largest description we read. The largest we know has 20 KiB.
const TEXT_MAX: usize = 1 << 20;
/// The most nodes of one file, aliases followed.
const NODES_MAX: usize = 100_000;

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// From 1.
    pub(crate) line: usize,
    /// From 1.
    pub(crate) column: usize,
}

/// A node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) at: Place,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Text, and whether it stands without quotes (and may so be a number, a boolean, nothing).
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) at: Place,
    pub(crate) text: String,
}

/// What a plain scalar means: YAML 1.2's core schema and 1.1's octal numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Meaning {
    Nothing,
    Bool(bool),
    Int(i128),
    Float,
    Text,
}

impl Node {
    /// What the node is, for a message.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Scalar { .. } => match self.meaning() {
                Meaning::Nothing => "nothing",
                Meaning::Bool(_) => "a boolean",
                Meaning::Int(_) => "a number",
                Meaning::Float => "a fraction",
                Meaning::Text => "text",
            },
        }
    }

    /// What a scalar means; lists and mappings are no scalar's business and mean text.
    pub(crate) fn meaning(&self) -> Meaning {
        match &self.value {
            Value::Scalar { text, plain: true } => meaning(text),
            _ => Meaning::Text,
        }
    }
}

/// What unquoted text means.
pub(crate) fn meaning(text: &str) -> Meaning {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Meaning::Nothing,
        "true" | "True" | "TRUE" => return Meaning::Bool(true),
        "false" | "False" | "FALSE" => return Meaning::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Meaning::Float,
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Meaning::Float;
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Meaning::Text;
    }
    if let Some(n) = int(text) {
        return Meaning::Int(n);
    }
    let digits: String = unsigned.chars().filter(|c| *c != '_').collect();
    if is_float(&digits) { Meaning::Float } else { Meaning::Text }
}

/// Whether unquoted text is a number.
pub(crate) fn is_number(text: &str) -> bool {
    matches!(meaning(text), Meaning::Int(_) | Meaning::Float)
}

/// Reads the first document of a text. `file` names it in errors.
pub(crate) fn parse(file: &str, text: &str) -> Result<Node, ComposeError> {
    if text.len() > TEXT_MAX {
        let why = format!("it has {} bytes, more than {TEXT_MAX}", text.len());
        return Err(ComposeError::File { file: file.to_owned(), why });
    }
    let mut tree =
        Tree { file, events: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    loop {
        let (event, at) = tree.next()?;
        match event {
            Event::StreamStart | Event::DocumentStart(..) => {}
            Event::StreamEnd | Event::DocumentEnd => {
                let why = "it describes nothing".to_owned();
                return Err(ComposeError::File { file: file.to_owned(), why });
            }
            other => return tree.node(other, at, 0),
        }
    }
}

struct Tree<'a> {
    file: &'a str,
    events: Parser<'a, granit_parser::StrInput<'a>>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl<'a> Tree<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Place), ComposeError> {
        loop {
            let (event, span) = match self.events.next() {
                Some(Ok(next)) => next,
                Some(Err(error)) => return Err(self.syntax(&error)),
                None => {
                    return Err(self.fail(Place { line: 1, column: 1 }, "it ends too early"));
                }
            };
            if !matches!(event, Event::Comment(..)) {
                let column = span.start.col() + 1;
                return Ok((event, Place { line: span.start.line(), column }));
            }
        }
    }

    fn node(&mut self, event: Event<'a>, at: Place, depth: usize) -> Result<Node, ComposeError> {
        if depth > 64 {
            return Err(self.fail(at, "lists and mappings stand too deep in each other"));
        }
        self.count(at, 1)?;
        let before = self.nodes;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is = |name| tag.as_ref().is_some_and(|t| t.is_yaml_core_schema_tag(name));
                if is("binary") {
                    return Err(self.fail(at, "!!binary is not understood: write the text itself"));
                }
                // A tag says what a scalar is, whether it stands in quotes or not.
                let said = ["int", "bool", "float", "null"].into_iter().any(is);
                let plain = said || (style == ScalarStyle::Plain && !is("str"));
                (anchor, Value::Scalar { text: text.into_owned(), plain })
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, at) => items.push(self.node(event, at, depth + 1)?),
                    }
                }
                (anchor, Value::List(items))
            }
            Event::MappingStart(_, anchor, _) => (anchor, Value::Map(self.map(depth)?)),
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id).cloned() else {
                    return Err(self.fail(at, "this alias stands inside what it names"));
                };
                self.count(at, size)?;
                return Ok(Node { at, ..node });
            }
            _ => return Err(self.fail(at, "a value belongs here")),
        };
        let node = Node { at, value };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before + 1));
        }
        Ok(node)
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, ComposeError> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, at) = self.next()?;
            let text = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, _, _) => {
                    if text == "<<" && style == ScalarStyle::Plain {
                        let (event, at) = self.next()?;
                        merged.push(self.node(event, at, depth + 1)?);
                        continue;
                    }
                    text.into_owned()
                }
                _ => return Err(self.fail(at, "a key must be text")),
            };
            if entries.iter().any(|(key, _)| key.text == text) {
                return Err(self.fail(at, &format!("key {text:?} stands here a second time")));
            }
            let (event, value_at) = self.next()?;
            entries.push((Key { at, text }, self.node(event, value_at, depth + 1)?));
        }
        // What is said here counts more than what is merged in, the first merged more than the next.
        for node in merged {
            let sources = match node.value {
                Value::List(items) => items,
                _ => vec![node],
            };
            for source in sources {
                let Value::Map(more) = source.value else {
                    return Err(self.fail(source.at, "only a mapping can be merged in with <<"));
                };
                for (key, value) in more {
                    if entries.iter().all(|(have, _)| have.text != key.text) {
                        entries.push((key, value));
                    }
                }
            }
        }
        Ok(entries)
    }

    fn count(&mut self, at: Place, more: usize) -> Result<(), ComposeError> {
        self.nodes += more;
        if self.nodes > NODES_MAX {
            return Err(self.fail(at, &format!("the file has more than {NODES_MAX} values")));
        }
        Ok(())
    }

    fn syntax(&self, error: &ScanError) -> ComposeError {
        let at = Place { line: error.marker().line(), column: error.marker().col() + 1 };
        self.fail(at, &error.info())
    }

    fn fail(&self, at: Place, why: &str) -> ComposeError {
        ComposeError::at(self.file, at, why)
    }
}

/// A whole number as Go reads it: `0x`, `0o`, `0b`, a leading zero for octal, underscores anywhere.
fn int(text: &str) -> Option<i128> {
    let text: String = text.chars().filter(|c| *c != '_').collect();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let n = i128::from_str_radix(digits, base).ok()?;
    let n = if negative { -n } else { n };
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&n).then_some(n)
}

/// `[0-9]+(\.[0-9]*)?` or `\.[0-9]+`, then perhaps an exponent.
fn is_float(text: &str) -> bool {
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e.strip_prefix(['+', '-']).unwrap_or(e))),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(node: &Node) -> String {
        match &node.value {
            Value::Scalar { text, plain: true } => text.clone(),
            Value::Scalar { text, .. } => format!("{text:?}"),
            Value::List(items) => {
                format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "))
            }
            Value::Map(entries) => {
                let show = |(k, v): &(Key, Node)| format!("{}={}", k.text, show(v));
                format!("{{{}}}", entries.iter().map(show).collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[track_caller]
    fn check(text: &str, want: &str) {
        let got = match parse("f", text) {
            Ok(node) => show(&node),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn anchors_and_merges_are_followed() {
        check("a: &x [1, '2']\nb: *x\n", r#"{a=[1 "2"] b=[1 "2"]}"#);
        check("a: &x {p: 1, q: 2}\nb:\n  <<: *x\n  q: 3\n", "{a={p=1 q=2} b={q=3 p=1}}");
        check("a: !!str 5", r#"{a="5"}"#);
        check("a: [!!int '5', !!bool \"true\"]", "{a=[5 true]}");
    }

    #[test]
    fn mistakes_have_a_place() {
        check("a: 1\nb: 2\na: 3\n", "f:3:1: key \"a\" stands here a second time");
        check("", "f: it describes nothing");
        check("a:\n  [1]: 2\n", "f:2:3: a key must be text");
        assert!(parse("f", "a: [1\nb: 2\n").unwrap_err().to_string().starts_with("f:"));
    }

    #[test]
    fn a_bomb_of_aliases_ends_early() {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x]\n".to_owned();
        for n in 1..12 {
            let aliases = vec![format!("*a{}", n - 1); 8].join(",");
            text += &format!("a{n}: &a{n} [{aliases}]\n");
        }
        let error = parse("f", &text).unwrap_err().to_string();
        assert!(error.contains("more than 100000 values"), "{error}");
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert!(parse("f", &deep).unwrap_err().to_string().contains("too deep"));
    }

    #[test]
    fn plain_scalars_mean_what_go_says() {
        for (text, want) in [
            ("0666", Meaning::Int(0o666)),
            ("0o17", Meaning::Int(15)),
            ("0x1F", Meaning::Int(31)),
            ("1_000", Meaning::Int(1000)),
            ("-999", Meaning::Int(-999)),
            ("08", Meaning::Float),
            ("1.", Meaning::Float),
            ("1e3", Meaning::Float),
            ("1.2.3", Meaning::Text),
            ("yes", Meaning::Text),
            ("True", Meaning::Bool(true)),
            ("~", Meaning::Nothing),
            ("2001-01-01", Meaning::Text),
        ] {
            assert_eq!(meaning(text), want, "{text}");
        }
    }
}
