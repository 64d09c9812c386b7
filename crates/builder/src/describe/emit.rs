//! A tree as YAML that every reader of YAML 1.1 and 1.2 takes for the same.
//!
//! What stood without quotes stands without quotes again, so that a reader finds the numbers and
//! booleans of the template and no others; all other text is quoted or, if it has lines, a block.

use super::tree::{Node, Scalar, Value};
use crate::compose::yaml::{Meaning, meaning};

/// The whole document, ending with a newline.
pub(super) fn yml(root: &Node) -> String {
    let mut out = String::new();
    match &root.value {
        Value::Scalar(scalar) => {
            out.push_str(&inline(scalar));
            out.push('\n');
        }
        Value::List(items) if items.is_empty() => out.push_str("[]\n"),
        Value::Map(entries) if entries.is_empty() => out.push_str("{}\n"),
        Value::List(items) => list(items, 0, &mut out),
        Value::Map(entries) => map(entries, 0, false, &mut out),
    }
    out
}

fn map(entries: &[(String, Node)], indent: usize, mut in_line: bool, out: &mut String) {
    for (key, node) in entries {
        if !std::mem::take(&mut in_line) {
            pad(indent, out);
        }
        let fits = is_plain(key) && meaning(key) == Meaning::Text && !is_old_bool(key);
        out.push_str(&if fits { key.clone() } else { quoted(key) });
        out.push(':');
        below(node, indent, out);
    }
}

fn list(items: &[Node], indent: usize, out: &mut String) {
    for item in items {
        pad(indent, out);
        out.push('-');
        match &item.value {
            Value::Map(entries) if !entries.is_empty() => {
                out.push(' ');
                map(entries, indent + 2, true, out);
            }
            _ => below(item, indent, out),
        }
    }
}

/// What stands behind a key's colon or an item's dash.
fn below(node: &Node, indent: usize, out: &mut String) {
    match &node.value {
        Value::List(items) if items.is_empty() => out.push_str(" []\n"),
        Value::Map(entries) if entries.is_empty() => out.push_str(" {}\n"),
        Value::List(items) => {
            out.push('\n');
            list(items, indent + 2, out);
        }
        Value::Map(entries) => {
            out.push('\n');
            map(entries, indent + 2, false, out);
        }
        Value::Scalar(scalar) => match block(scalar, indent + 2) {
            Some(block) => out.push_str(&block),
            None => {
                out.push(' ');
                out.push_str(&inline(scalar));
                out.push('\n');
            }
        },
    }
}

fn inline(scalar: &Scalar) -> String {
    match scalar.text.as_str() {
        "" if scalar.plain => "null".to_owned(),
        text if scalar.plain && is_plain(text) => text.to_owned(),
        text => quoted(text),
    }
}

/// Text of several lines as a literal block, if a block can hold it.
fn block(scalar: &Scalar, indent: usize) -> Option<String> {
    let text = scalar.text.as_str();
    let lines = text.strip_suffix('\n').unwrap_or(text);
    // A block's first line says how deep it stands, and its end is easily miscounted.
    let fits = text.contains('\n')
        && !text.starts_with([' ', '\t', '\n'])
        && !lines.ends_with(['\n', ' '])
        && text.chars().all(|c| c == '\n' || c == '\t' || is_printable(c));
    if !fits {
        return None;
    }
    let mut block = if text.ends_with('\n') { " |\n" } else { " |-\n" }.to_owned();
    for line in lines.split('\n') {
        if !line.is_empty() {
            pad(indent, &mut block);
        }
        block.push_str(line);
        block.push('\n');
    }
    Some(block)
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Whether text may stand without quotes, whatever it then means.
fn is_plain(text: &str) -> bool {
    let first_is_fine = match text.as_bytes() {
        [] => false,
        // These begin something else unless a word follows at once.
        [b'-' | b'?' | b':', second, ..] => *second != b' ',
        [first, ..] => !b"-?:,[]{}#&*!|>'\"%@` ".contains(first),
    };
    first_is_fine
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !matches!(text, "---" | "..." | "=" | "<<")
        && text.chars().all(is_printable)
}

/// Words that YAML 1.1 takes for booleans and 1.2 does not.
fn is_old_bool(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    matches!(lower.as_str(), "y" | "n" | "yes" | "no" | "on" | "off")
}

/// A character that YAML lets stand as it is, on a line.
fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c => out.push_str(&escaped(c)),
        }
    }
    out.push('"');
    out
}

fn escaped(c: char) -> String {
    match u32::from(c) {
        code @ 0..=0xff => format!("\\x{code:02x}"),
        code @ 0..=0xffff => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::describe::tree::{self, Origin};

    fn text(scalar: Scalar) -> Node {
        Node { value: Value::Scalar(scalar), origin: Origin::new(&"f".into(), 0, 0) }
    }

    /// What is read of what was written must be what was written.
    #[track_caller]
    fn check(scalar: Scalar) {
        let items = Value::List(vec![text(scalar.clone()), text(scalar.clone())]);
        let origin = Origin::new(&"f".into(), 0, 0);
        let entries = vec![("k".to_owned(), Node { value: items, origin: origin.clone() })];
        let yml = yml(&Node { value: Value::Map(entries), origin });
        let read = tree::parse("f", &yml).unwrap();
        let Some(Value::List(items)) =
            read.get(&tree::Step::Key("k".into())).map(|n| n.value.clone())
        else {
            panic!("{yml}")
        };
        for item in items {
            let Value::Scalar(got) = item.value else { panic!("{yml}") };
            assert_eq!(got.text, scalar.text, "{yml}");
            assert_eq!(got.meaning(), scalar.meaning(), "{yml}");
        }
    }

    #[test]
    fn text_comes_back_as_it_was() {
        for text in [
            "",
            " ",
            "a b",
            "a: b",
            "a #b",
            "#a",
            "@pkg:pkg/base",
            "- a",
            "-a",
            "yes",
            "0644",
            "1.5",
            "null",
            "~",
            "a\nb",
            "a\nb\n",
            "a\n\nb\n\n",
            " a\nb",
            "a \nb",
            "a\n b\n",
            "\n",
            "tab\tx",
            "\"",
            "\\",
            "'",
            "é",
            "\u{2028}",
            "\u{1}",
            "\u{7f}",
            "\u{85}",
            "\u{1F600}",
            "%a",
            "...",
            "a:",
            "a,b",
            "[a]",
            "{a}",
            "|",
            ">",
            "trailing ",
            "a\r\nb",
            "\ta\nb",
            "<<",
            "=",
            "a\n\n",
        ] {
            check(Scalar::quoted(text));
        }
    }

    #[test]
    fn what_stood_without_quotes_stands_so_again() {
        for text in ["0644", "-999", "yes", "true", "a b", "docker.io/x:y", "null", "1e3", "~"] {
            check(Scalar::plain(text));
            assert_eq!(inline(&Scalar::plain(text)), text);
        }
        assert_eq!(inline(&Scalar::quoted("0644")), "\"0644\"");
    }

    #[test]
    fn keys_that_look_like_something_else_are_quoted() {
        let yml = "yes: 1\n\"012\": 2\n\"a: b\": 3\ncapabilities.add: [x]\n";
        let tree = tree::parse("f", yml).unwrap();
        let want = "\"yes\": 1\n\"012\": 2\n\"a: b\": 3\ncapabilities.add:\n  - x\n";
        assert_eq!(super::yml(&tree), want);
    }
}
