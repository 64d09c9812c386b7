//! Package URLs: one line that names a package of any kind.
//!
//! Format: package-url/purl-spec, PURL-SPECIFICATION and PURL-TYPES.

use std::fmt::Write;

/// `pkg:deb/debian/libc6@2.41-12?arch=amd64`. Qualifiers without a value are left out; the others
/// stand in the order of their names, as the specification asks.
pub(super) fn purl(
    kind: &str,
    namespace: Option<&str>,
    name: &str,
    version: &str,
    qualifiers: &[(&str, &str)],
) -> String {
    let mut out = format!("pkg:{kind}");
    for part in namespace.into_iter().chain([name]) {
        out.push('/');
        out += &encoded(part);
    }
    if !version.is_empty() {
        out.push('@');
        out += &encoded(version);
    }
    let mut qualifiers: Vec<_> = qualifiers.iter().filter(|(_, v)| !v.is_empty()).collect();
    qualifiers.sort();
    for (n, (key, value)) in qualifiers.into_iter().enumerate() {
        out.push(if n == 0 { '?' } else { '&' });
        out += key;
        out.push('=');
        out += &encoded(value);
    }
    out
}

/// Type, name, version and qualifiers of a package URL; `None` if it is none.
pub(crate) fn parse(text: &str) -> Option<Parsed> {
    let rest = text.strip_prefix("pkg:")?;
    let rest = rest.split('#').next().unwrap_or_default();
    let (rest, qualifiers) = rest.split_once('?').unwrap_or((rest, ""));
    let (kind, rest) = rest.trim_start_matches('/').split_once('/')?;
    let (path, version) = rest.rsplit_once('@').unwrap_or((rest, ""));
    let name = path.rsplit('/').next().filter(|n| !n.is_empty())?;
    let qualifiers = qualifiers.split('&').filter_map(|q| q.split_once('='));
    Some(Parsed {
        kind: kind.to_ascii_lowercase(),
        name: decoded(name),
        version: decoded(version),
        qualifiers: qualifiers.map(|(k, v)| (k.to_owned(), decoded(v))).collect(),
    })
}

/// A package URL in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// `deb`, `cargo`, …
    pub(crate) kind: String,
    pub(crate) name: String,
    /// Empty: none.
    pub(crate) version: String,
    qualifiers: Vec<(String, String)>,
}

impl Parsed {
    /// The value of a qualifier.
    pub(crate) fn qualifier(&self, name: &str) -> Option<&str> {
        self.qualifiers.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) if *first == b'%' => {
                out.push(byte);
                rest = &after[2..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        let text = purl(
            "deb",
            Some("debian"),
            "libstdc++6",
            "1:14.2.0-19~x",
            &[("distro", "trixie"), ("arch", "amd64"), ("upstream", "")],
        );
        assert_eq!(text, "pkg:deb/debian/libstdc%2B%2B6@1:14.2.0-19~x?arch=amd64&distro=trixie");
        let read = parse(&text).unwrap();
        assert_eq!((read.kind.as_str(), read.name.as_str()), ("deb", "libstdc++6"));
        assert_eq!(
            (read.version.as_str(), read.qualifier("arch")),
            ("1:14.2.0-19~x", Some("amd64"))
        );
        assert_eq!(read.qualifier("upstream"), None);
    }

    #[test]
    fn odd_texts_are_none_or_harmless() {
        for text in ["", "pkg:", "pkg:deb", "http://x", "pkg:deb/"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("pkg:cargo/a%2@1%zz").unwrap().version, "1%zz");
    }
}
