//! Text that others wrote, as a terminal may be given it: what would steer the terminal or turn the
//! direction of text is spelled out, as `\u{1b}`. Others are nodes and their apps, images, files.
//!
//! What programs read is not for here but for [`json`]: it stays the same document.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Control characters (C0, DEL, C1: ECMA-48), the separators that break lines, and what orders text
/// in both directions (Unicode Standard Annex 9, section 2).
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn spelled<'a>(text: &'a str, stays: &[char]) -> Cow<'a, str> {
    let odd = |c: char| steers(c) && !stays.contains(&c);
    if !text.contains(odd) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if odd(c) {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

/// Several lines: line breaks and tabs stay.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    spelled(text, &['\n', '\t'])
}

/// One line, whatever it was: a line break becomes `\n`; tabs stay.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    spelled(text, &['\t'])
}

/// A cell of a table: nothing in it moves what stands beside it.
pub(crate) fn cell(text: &str) -> Cow<'_, str> {
    spelled(text, &[])
}

/// JSON with the same meaning: serde_json escapes C0 only. What steers stands in strings, but for
/// the line breaks between values.
pub(crate) fn json(document: &str) -> Cow<'_, str> {
    let odd = |c: char| steers(c) && c != '\n';
    if !document.contains(odd) {
        return Cow::Borrowed(document);
    }
    let mut plain = String::with_capacity(document.len() + 16);
    for c in document.chars() {
        if odd(c) {
            // All of them are in the first plane: four digits say them (RFC 8259, section 7).
            let _ = write!(plain, "\\u{:04x}", u32::from(c));
        } else {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_spelled_out() {
        for (wrote, seen) in [
            ("\x1b[31mred\x1b[0m", r"\u{1b}[31mred\u{1b}[0m"),
            ("\x1b]0;pwn\x07", r"\u{1b}]0;pwn\u{7}"),
            ("\u{9b}2J", r"\u{9b}2J"),
            ("\u{85}\u{90}\x7f\0\x08", r"\u{85}\u{90}\u{7f}\u{0}\u{8}"),
            ("over\rwritten", r"over\rwritten"),
            ("a\u{202e}b\u{202a}c\u{2066}d\u{2069}", r"a\u{202e}b\u{202a}c\u{2066}d\u{2069}"),
            ("\u{200e}\u{200f}\u{61c}\u{2028}\u{2029}", r"\u{200e}\u{200f}\u{61c}\u{2028}\u{2029}"),
        ] {
            for function in [text, one_line, cell] {
                assert_eq!(function(wrote), seen);
            }
        }
        assert_eq!(text("a\n\tb\r\n"), "a\n\tb\\r\n");
        assert_eq!(one_line("a\n\tb"), "a\\n\tb");
        assert_eq!(cell("a\n\tb"), r"a\n\tb");
    }

    #[test]
    fn every_other_character_stays() {
        for text in ["edge-1", "Grüße", "日本", "مرحبا", "👩\u{200d}🔧", r"C:\new\u{1b}", "\u{a0}"]
        {
            for function in [super::text, one_line, cell, json] {
                assert!(matches!(function(text), Cow::Borrowed(same) if same == text), "{text}");
            }
        }
    }

    #[test]
    fn json_means_the_same() {
        let value = serde_json::json!({ "a": "\x1b[1m\u{9b}\x7f\u{202e}\t\n", "b": ["\u{2029}"] });
        let written = serde_json::to_string_pretty(&value).unwrap();
        let plain = json(&written);
        assert!(!plain.contains(['\u{1b}', '\u{9b}', '\x7f', '\u{202e}', '\u{2029}']), "{plain}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&plain).unwrap(), value);
    }
}
