//! Stanzas of fields, as Debian writes them: what is installed, what is offered, who owns the rights.
//!
//! It knows no field's meaning, and keeps the order in which fields stand. Whoever has the text has
//! bounded it.
//!
//! Format: deb822(5), deb-control(5).

/// Fields by name. Names are compared without regard to case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stanza {
    fields: Vec<(String, String)>,
}

impl Stanza {
    /// The value of a field: its lines joined by newlines, each without the blank that marks it as a
    /// continuation. A continuation of one dot is an empty line.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.fields.iter();
        all.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The first line of a field.
    pub fn line(&self, name: &str) -> Option<&str> {
        self.get(name).map(|v| v.lines().next().unwrap_or_default())
    }

    /// Puts a field at the end, or in the place of the one with its name.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.fields.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some(field) => field.1 = value,
            None => self.fields.push((name.to_owned(), value)),
        }
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// Its text, with a newline at the end; [`stanzas`] reads the same.
    pub fn print(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.fields {
            let mut lines = value.split('\n');
            let first = lines.next().unwrap_or_default();
            text += name;
            text += if first.is_empty() { ":" } else { ": " };
            text += first;
            text.push('\n');
            for line in lines {
                text += if line.is_empty() { " ." } else { " " };
                text += line;
                text.push('\n');
            }
        }
        text
    }
}

/// The stanzas of a text. Comments are left out, and so are lines that are neither a field nor the
/// continuation of one: the texts of packages are foreign, and one odd line must not hide the rest.
pub fn stanzas(text: &str) -> impl Iterator<Item = Stanza> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let mut stanza = Stanza::default();
        for line in lines.by_ref() {
            let line = line.trim_end_matches(['\r', ' ', '\t']);
            match line.as_bytes().first() {
                None if stanza.fields.is_empty() => {}
                None => return Some(stanza),
                Some(b'#') => {}
                Some(b' ' | b'\t') => {
                    if let Some((_, value)) = stanza.fields.last_mut() {
                        let more = &line[1..];
                        value.push('\n');
                        value.push_str(if more == "." { "" } else { more });
                    }
                }
                Some(_) => {
                    if let Some((name, value)) = line.split_once(':').filter(|(n, _)| named(n)) {
                        stanza.fields.push((name.to_owned(), value.trim().to_owned()));
                    }
                }
            }
        }
        (!stanza.fields.is_empty()).then_some(stanza)
    })
}

/// Whether this can be a field's name.
fn named(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\n\nPackage: crun\nVersion: 1.21-1\nDescription: runs\n long\n .\n  more\n\
        # a remark\nEmpty:\n\n\nPackage: two\nnonsense\n";

    #[test]
    fn fields_are_read_with_their_continuations() {
        let all: Vec<Stanza> = stanzas(TEXT).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].get("package"), Some("crun"));
        assert_eq!(all[0].get("Description"), Some("runs\nlong\n\n more"));
        assert_eq!(all[0].line("Description"), Some("runs"));
        assert_eq!(all[0].get("Empty"), Some(""));
        assert_eq!(all[1].iter().collect::<Vec<_>>(), [("Package", "two")]);
    }

    #[test]
    fn what_is_printed_reads_back_the_same() {
        for stanza in stanzas(TEXT) {
            assert_eq!(stanzas(&stanza.print()).collect::<Vec<_>>(), [stanza]);
        }
    }

    #[test]
    fn a_field_is_replaced_where_it_stands() {
        let mut stanza = stanzas("A: 1\nB: 2\n").next().unwrap();
        stanza.set("a", "3");
        stanza.set("C", "4");
        assert_eq!(stanza.print(), "A: 3\nB: 2\nC: 4\n");
    }
}
