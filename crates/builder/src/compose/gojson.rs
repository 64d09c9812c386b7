//! JSON as Go's encoding/json prints it: indented, and `<`, `>`, `&` escaped in text.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// Prints `value`, each level indented by `indent`, without a newline at the end.
pub(super) fn print<T: Serialize>(value: &T, indent: &str) -> String {
    with(value, PrettyFormatter::with_indent(indent.as_bytes()))
}

/// Prints `value` on one line, without a newline at the end.
pub(super) fn compact<T: Serialize>(value: &T) -> String {
    with(value, CompactFormatter)
}

fn with<T: Serialize, F: Formatter>(value: &T, formatter: F) -> String {
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, GoFormatter(formatter));
    let printed = value.serialize(&mut serializer);
    // Our values have string keys and no floats, and memory does not refuse bytes.
    debug_assert!(printed.is_ok());
    String::from_utf8(out).unwrap_or_default()
}

struct GoFormatter<F>(F);

impl<F: Formatter> Formatter for GoFormatter<F> {
    fn begin_array<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_array(w)
    }
    fn end_array<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_array(w)
    }
    fn begin_array_value<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(w, first)
    }
    fn end_array_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_array_value(w)
    }
    fn begin_object<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_object(w)
    }
    fn end_object<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_object(w)
    }
    fn begin_object_key<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(w, first)
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_object_value(w)
    }
    fn end_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_object_value(w)
    }
    fn write_string_fragment<W: ?Sized + Write>(&mut self, w: &mut W, s: &str) -> io::Result<()> {
        let special = |c| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        let mut rest = s;
        while let Some(at) = rest.find(special) {
            let (plain, tail) = rest.split_at(at);
            w.write_all(plain.as_bytes())?;
            let c = tail.chars().next().unwrap_or_default();
            write!(w, "\\u{:04x}", u32::from(c))?;
            rest = &tail[c.len_utf8()..];
        }
        w.write_all(rest.as_bytes())
    }
    fn write_char_escape<W: ?Sized + Write>(&mut self, w: &mut W, c: CharEscape) -> io::Result<()> {
        self.0.write_char_escape(w, c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_go_does() {
        let value = serde_json::json!({"a": [], "b": {}, "c": ["<x&y>\u{2028}\u{1}\n"]});
        let want = "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    \
                    \"\\u003cx\\u0026y\\u003e\\u2028\\u0001\\n\"\n  ]\n}";
        assert_eq!(print(&value, "  "), want);
    }
}
