//! YAML as go-yaml version 2 prints it, since the reference puts a dump of the description into the
//! image and archives are compared byte for byte.
//!
//! Block style only, two spaces, lists not indented below their key, lines folded after 80 columns.

use std::cmp::Ordering;

/// What can be printed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Int(i128),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

/// Where a plain or quoted text may be folded.
const WIDTH: usize = 80;

/// Prints a mapping as a document.
pub(super) fn print(entries: &[(String, Tree)]) -> String {
    let mut printer = Printer { out: String::new(), column: 0, blank: true, fresh: true };
    printer.map(entries, 0);
    printer.line(0);
    printer.out
}

/// The order of keys of a map: letters by code point, after everything else; digits as numbers.
pub(super) fn compare_keys(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = a.iter().zip(&b).position(|(x, y)| x != y) else {
        return a.len().cmp(&b.len());
    };
    match (a[at].is_alphabetic(), b[at].is_alphabetic()) {
        (true, true) => return a[at].cmp(&b[at]),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    let digits = |text: &[char]| text.iter().take_while(|c| c.is_ascii_digit()).count();
    let number = |text: &[char], lead: u64| {
        let digit = |c: &char| u64::from(c.to_digit(10).unwrap_or_default());
        text.iter().fold(lead, |n, c| n.wrapping_mul(10).wrapping_add(digit(c)))
    };
    // Behind digits that are not all zero, a zero is a digit of that number, not a leading one.
    let before = a[..at].iter().rev().take_while(|c| c.is_ascii_digit());
    let inside = (a[at] == '0' || b[at] == '0') && before.clone().any(|c| *c != '0');
    let lead = u64::from(inside);
    let (end_a, end_b) = (digits(&a[at..]), digits(&b[at..]));
    number(&a[at..at + end_a], lead)
        .cmp(&number(&b[at..at + end_b], lead))
        .then(end_a.cmp(&end_b))
        .then(a[at].cmp(&b[at]))
}

struct Printer {
    out: String,
    /// Characters since the start of the line.
    column: usize,
    /// The last thing written separates: no space is needed before the next.
    blank: bool,
    /// Nothing but indentation and `-` stands on the line.
    fresh: bool,
}

impl Printer {
    fn map(&mut self, entries: &[(String, Tree)], indent: usize) {
        for (key, value) in entries {
            self.line(indent);
            self.text(key, indent + 2, true);
            self.sign(":", false, false);
            self.value(value, indent, true);
        }
    }

    /// `indent` is that of the mapping or list the value stands in.
    fn value(&mut self, value: &Tree, indent: usize, in_map: bool) {
        match value {
            Tree::Null => self.plain("null", indent + 2, true),
            Tree::Bool(b) => self.plain(if *b { "true" } else { "false" }, indent + 2, true),
            Tree::Int(n) => self.plain(&n.to_string(), indent + 2, true),
            Tree::Text(text) => self.text(text, indent + 2, false),
            Tree::List(items) if items.is_empty() => self.sign("[]", true, false),
            Tree::Map(entries) if entries.is_empty() => self.sign("{}", true, false),
            Tree::List(items) => {
                let indent = if in_map && !self.fresh { indent } else { indent + 2 };
                for item in items {
                    self.line(indent);
                    self.sign("-", true, true);
                    self.value(item, indent, false);
                }
            }
            Tree::Map(entries) => self.map(entries, indent + 2),
        }
    }

    fn put(&mut self, c: char) {
        self.out.push(c);
        self.column += 1;
    }

    fn newline(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }

    /// Starts a line, unless one is started already.
    fn line(&mut self, indent: usize) {
        if !self.fresh || self.column > indent || (self.column == indent && !self.blank) {
            self.newline();
        }
        while self.column < indent {
            self.put(' ');
        }
        self.blank = true;
        self.fresh = true;
    }

    fn sign(&mut self, sign: &str, space: bool, keeps_fresh: bool) {
        if space && !self.blank {
            self.put(' ');
        }
        sign.chars().for_each(|c| self.put(c));
        self.blank = false;
        self.fresh &= keeps_fresh;
    }

    fn text(&mut self, text: &str, indent: usize, key: bool) {
        match style(text, key) {
            Style::Plain => self.plain(text, indent, !key),
            Style::Single => self.single(text, indent, !key),
            Style::Double => self.double(text, indent, !key),
            Style::Literal => self.literal(text, indent),
        }
    }

    fn plain(&mut self, text: &str, indent: usize, fold: bool) {
        if !self.blank {
            self.put(' ');
        }
        let mut spaces = false;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c != ' ' {
                self.put(c);
                self.fresh = false;
                spaces = false;
                continue;
            }
            if fold && !spaces && self.column > WIDTH && chars.peek() != Some(&' ') {
                self.line(indent);
            } else {
                self.put(c);
            }
            spaces = true;
        }
        self.blank = false;
        self.fresh = false;
    }

    /// Of text with line breaks nothing comes here: it is literal, or double quoted.
    fn single(&mut self, text: &str, indent: usize, fold: bool) {
        self.sign("'", true, false);
        let mut spaces = false;
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if c != ' ' {
                if c == '\'' {
                    self.put('\'');
                }
                self.put(c);
                self.fresh = false;
                spaces = false;
                continue;
            }
            let inside = at > 0 && at + 1 < text.len();
            let next_is_space = chars.peek().is_some_and(|(_, c)| *c == ' ');
            if fold && !spaces && self.column > WIDTH && inside && !next_is_space {
                self.line(indent);
            } else {
                self.put(c);
            }
            spaces = true;
        }
        self.sign("'", false, false);
        self.blank = false;
        self.fresh = false;
    }

    fn double(&mut self, text: &str, indent: usize, fold: bool) {
        self.sign("\"", true, false);
        let mut spaces = false;
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if c == ' ' {
                let inside = at > 0 && at + 1 < text.len();
                if fold && !spaces && self.column > WIDTH && inside {
                    self.line(indent);
                    if chars.peek().is_some_and(|(_, c)| *c == ' ') {
                        self.put('\\');
                    }
                } else {
                    self.put(c);
                }
                spaces = true;
                continue;
            }
            spaces = false;
            if printable(c) && !is_break(c) && c != '"' && c != '\\' {
                self.put(c);
            } else {
                escape(c).chars().for_each(|c| self.put(c));
            }
        }
        self.sign("\"", false, false);
        self.blank = false;
        self.fresh = false;
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.sign("|", true, false);
        if text.starts_with(|c| c == ' ' || is_break(c)) {
            self.sign("2", false, false);
        }
        let mut ends = text.chars().rev().map(is_break);
        match (ends.next(), ends.next()) {
            (Some(true), None | Some(true)) => self.sign("+", false, false),
            (Some(true), Some(false)) => {}
            _ => self.sign("-", false, false),
        }
        self.newline();
        self.fresh = true;
        self.blank = true;
        let mut after_break = true;
        for c in text.chars() {
            if is_break(c) {
                if c == '\n' {
                    self.newline();
                } else {
                    self.out.push(c);
                    self.column = 0;
                }
                self.fresh = true;
                after_break = true;
            } else {
                if after_break {
                    self.line(indent);
                }
                self.put(c);
                self.fresh = false;
                after_break = false;
            }
        }
    }
}

enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

fn style(text: &str, key: bool) -> Style {
    let shape = shape(text);
    let wanted = if text.contains('\n') {
        Style::Literal
    } else if is_text(text) {
        Style::Plain
    } else {
        Style::Double
    };
    match wanted {
        _ if key && text.chars().any(is_break) => Style::Double,
        Style::Plain if shape.plain && !(key && text.is_empty()) => Style::Plain,
        Style::Plain if shape.single => Style::Single,
        Style::Literal if shape.block && !key => Style::Literal,
        _ => Style::Double,
    }
}

/// How a text can be written.
struct Shape {
    plain: bool,
    single: bool,
    block: bool,
}

fn shape(text: &str) -> Shape {
    let chars: Vec<char> = text.chars().collect();
    let (Some(&first), Some(&last)) = (chars.first(), chars.last()) else {
        return Shape { plain: true, single: true, block: false };
    };
    let blank = |c: Option<&char>| c.is_none_or(|c| matches!(c, ' ' | '\t'));
    let indicator = |(at, &c): (usize, &char)| {
        let followed = blank(chars.get(at + 1));
        // What ends a word: blanks, breaks and NUL.
        let preceded =
            at == 0 || matches!(chars[at - 1], ' ' | '\t' | '\0') || is_break(chars[at - 1]);
        match (at, c) {
            (0, '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"')
            | (0, '%' | '@' | '`') => true,
            (0, '?' | ':' | '-') => followed,
            (_, ':') => followed,
            (_, '#') => preceded,
            _ => false,
        }
    };
    let marker = text.starts_with("---") || text.starts_with("...");
    let indicators = marker || chars.iter().enumerate().any(indicator);
    let special = chars.iter().any(|c| !printable(*c));
    let pair = |f: fn(char, char) -> bool| chars.windows(2).any(|w| f(w[0], w[1]));
    let break_space = pair(|a, b| is_break(a) && b == ' ');
    let space_break = pair(|a, b| a == ' ' && is_break(b));
    let edge = |c: char| c == ' ' || is_break(c);
    let breaks = chars.iter().any(|c| is_break(*c));
    let quotable = !break_space && !space_break && !special;
    Shape {
        plain: quotable && !indicators && !breaks && !edge(first) && !edge(last),
        single: quotable,
        block: last != ' ' && !space_break && !special,
    }
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{fffd}') && c != '\u{feff}'
}

fn escape(c: char) -> String {
    let short = match c {
        '\0' => '0',
        '\x07' => 'a',
        '\x08' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\x0b' => 'v',
        '\x0c' => 'f',
        '\r' => 'r',
        '\x1b' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ => {
            return match u32::from(c) {
                n @ 0..=0xff => format!("\\x{n:02X}"),
                n @ 0x100..=0xffff => format!("\\u{n:04X}"),
                n => format!("\\U{n:08X}"),
            };
        }
    };
    format!("\\{short}")
}

/// Whether a reader of YAML 1.1 takes the unquoted text for text.
fn is_text(text: &str) -> bool {
    const WORDS: [&str; 39] = [
        "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON", "n", "N", "no",
        "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF", "", "~", "null", "Null",
        "NULL", ".nan", ".NaN", ".NAN", ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf",
        "-.Inf", "-.INF",
    ];
    let word = WORDS.contains(&text);
    let number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && (super::yaml::is_number(text) || is_timestamp(text) || is_base60(text));
    !word && !number
}

/// `2001-1-2`, perhaps with a time (three forms of time.Parse).
fn is_timestamp(text: &str) -> bool {
    let digits = |s: &str, len: std::ops::RangeInclusive<usize>| {
        len.contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit())
    };
    let below = |s: &str, least: u32, most: u32| {
        digits(s, 1..=2) && s.parse::<u32>().is_ok_and(|n| (least..=most).contains(&n))
    };
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some((text.as_bytes()[at], &text[at + 1..]))),
        None => (text, None),
    };
    let parts: Vec<&str> = date.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    if !digits(year, 4..=4) || !below(month, 1, 12) || !below(day, 1, 31) {
        return false;
    }
    let days = match (month.parse().unwrap_or(0), year.parse::<u32>().unwrap_or(0)) {
        (2, y) if y % 4 == 0 && (y % 100 != 0 || y % 400 == 0) => 29,
        (2, _) => 28,
        (4 | 6 | 9 | 11, _) => 30,
        _ => 31,
    };
    if !below(day, 1, days) {
        return false;
    }
    let Some((separator, time)) = time else { return true };
    let clock = if separator == b' ' {
        time
    } else if let Some(clock) = time.strip_suffix('Z') {
        clock
    } else {
        let Some(at) = time.rfind(['+', '-']) else { return false };
        let zone: Vec<&str> = time[at + 1..].split(':').collect();
        let [hours, minutes] = zone[..] else { return false };
        if !(digits(hours, 2..=2) && digits(minutes, 2..=2)) {
            return false;
        }
        &time[..at]
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let [hours, minutes, seconds] = parts[..] else { return false };
    let (seconds, fraction) = seconds.split_once(['.', ',']).unwrap_or((seconds, "0"));
    below(hours, 0, 23)
        && below(minutes, 0, 59)
        && below(seconds, 0, 59)
        && digits(fraction, 1..=usize::MAX)
}

/// `190:20:30`: a number in YAML 1.1. Nobody reads it so, and go-yaml quotes it still.
fn is_base60(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let mut parts = whole.split(':');
    let first = parts.next().unwrap_or_default();
    let numeric = |s: &str| s.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let sixtieth = |s: &str| match s.as_bytes() {
        [a] => a.is_ascii_digit(),
        [a, b] => (b'0'..=b'5').contains(a) && b.is_ascii_digit(),
        _ => false,
    };
    first.starts_with(|c: char| c.is_ascii_digit())
        && numeric(first)
        && numeric(fraction)
        && whole.contains(':')
        && parts.all(sixtieth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let entries = [("k".to_owned(), Tree::Text(text.to_owned()))];
        assert_eq!(print(&entries), format!("k: {want}\n"));
    }

    #[test]
    fn texts_are_quoted_when_they_would_be_read_as_something_else() {
        for text in ["abc", "/a b", "a:b", "a#b", "-x", "1.2.3", "0x", "=", "<<", "2001-2-30"] {
            check(text, text);
        }
        for text in ["", "yes", "0644", "1_0", "1e3", "~", ".5", "2001-1-2", "1:30", "0b11", "-0b1"]
        {
            check(text, &format!("{text:?}"));
        }
        for text in ["a: b", "a #b", "#a", "- a", "a:", " a", "a ", "@a", "{a", "---"] {
            check(text, &format!("'{text}'"));
        }
        check("it's: so", "'it''s: so'");
        check("tab\t\"\u{1}\\", r#""tab\t\"\x01\\""#);
        check("bell\u{feff}", "\"bell\\uFEFF\"");
        check("ü€😀", "\"ü€\\U0001F600\"");
    }

    #[test]
    fn lines_are_kept_and_long_ones_folded() {
        check("a\nb\n", "|\n  a\n  b");
        check("a\nb", "|-\n  a\n  b");
        check("a\n\n", "|+\n  a\n");
        check("  a\nb", "|2-\n    a\n  b");
        check("a \nb", "\"a \\nb\"");
        let long = format!("{} end", ["word"; 17].join(" "));
        check(&long, &format!("{}\n  word end", ["word"; 16].join(" ")));
    }

    #[test]
    fn lists_stand_below_their_key() {
        let text = |t: &str| Tree::Text(t.to_owned());
        let map = |entries: Vec<(&str, Tree)>| {
            entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Vec<_>>()
        };
        let inner = Tree::Map(map(vec![
            ("p", Tree::List(vec![text("x"), text("z")])),
            ("q", Tree::Map(map(vec![("r", Tree::Null)]))),
        ]));
        let all = map(vec![
            ("a", Tree::List(vec![inner, Tree::List(vec![Tree::Int(1), Tree::Bool(true)])])),
            ("b", Tree::List(vec![])),
            ("c", Tree::Map(vec![])),
        ]);
        let want = "a:\n- p:\n  - x\n  - z\n  q:\n    r: null\n- - 1\n  - true\nb: []\nc: {}\n";
        assert_eq!(print(&all), want);
    }
}
