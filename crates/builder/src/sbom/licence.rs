//! Licences as one language: SPDX expressions, from what Debian's copyright files and crates say.
//!
//! What the SPDX list does not know becomes a reference of the document's own (`LicenseRef-…`) with
//! the text that was found. Nothing is guessed from prose.
//!
//! Formats: Debian's "Machine-readable debian/copyright file" 1.0; SPDX 2.3, annex D.

use std::collections::{BTreeMap, BTreeSet};

use formats::deb822::stanzas;

/// A licence expression, and the texts of the licences that the SPDX list does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Licence {
    /// The expression.
    pub expression: String,
    /// Text by reference.
    pub texts: BTreeMap<String, String>,
}

/// What Debian calls otherwise than SPDX, in small letters. Names with versions follow rules.
const DEBIAN: [(&str, &str); 14] = [
    ("expat", "MIT"),
    ("apache-2", "Apache-2.0"),
    ("boost-1.0", "BSL-1.0"),
    ("bsd-2-clauses", "BSD-2-Clause"),
    ("bsd-3-clauses", "BSD-3-Clause"),
    ("cc0", "CC0-1.0"),
    ("cc-0", "CC0-1.0"),
    ("isc", "ISC"),
    ("mpl-2", "MPL-2.0"),
    ("openldap-2.8", "OLDAP-2.8"),
    ("psf-2", "PSF-2.0"),
    ("python-2.0", "Python-2.0"),
    ("zlib/libpng", "Zlib"),
    ("x11", "X11"),
];

/// The licence of a crate: the expression of its manifest, also in the old form with slashes.
/// `None` if it is none.
pub(super) fn of_crate(text: &str) -> Option<Licence> {
    let text = spdx::Expression::canonicalize(text).ok()?.unwrap_or_else(|| text.to_owned());
    spdx::Expression::parse(&text).ok()?;
    Some(Licence { expression: text, texts: BTreeMap::new() })
}

/// The licence of a Debian package: all that its copyright file names for any file. `None` if the file
/// is not written for machines.
pub(super) fn of_debian(copyright: &str) -> Option<Licence> {
    let all: Vec<_> = stanzas(copyright).collect();
    let format = all.first()?.line("Format").or(all.first()?.line("Format-Specification"))?;
    if !format.contains("copyright-format") && !format.contains("dep5") && !format.contains("dep/5")
    {
        return None;
    }
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut named = BTreeSet::new();
    for (n, stanza) in all.iter().enumerate() {
        let Some(licence) = stanza.get("License") else { continue };
        let (name, text) = licence.split_once('\n').unwrap_or((licence, ""));
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        if !text.is_empty() {
            texts.entry(name.to_lowercase()).or_insert_with(|| text.to_owned());
        }
        // Stanzas of a text alone say nothing of files.
        if (n == 0 || stanza.get("Files").is_some()) && !name.is_empty() {
            named.insert(name);
        }
    }
    let mut licence = Licence::default();
    let mut parts = BTreeSet::new();
    for name in &named {
        parts.insert(licence.any_of_all(name, &texts));
    }
    let several = parts.len() > 1;
    let parts: Vec<String> =
        parts.into_iter().map(|p| if several { bracketed(p, " OR ") } else { p }).collect();
    licence.expression = parts.join(" AND ");
    (!licence.expression.is_empty()).then_some(licence)
}

impl Licence {
    /// `A or B, and C`: a comma binds least, then `or`, then `and`.
    fn any_of_all(&mut self, text: &str, texts: &BTreeMap<String, String>) -> String {
        if let Some((left, right)) = text.rsplit_once(", and ") {
            let left = bracketed(self.any_of_all(left, texts), " OR ");
            let right = bracketed(self.any_of_all(right, texts), " OR ");
            return format!("{left} AND {right}");
        }
        if let Some((left, right)) = text.rsplit_once(", or ") {
            return format!(
                "{} OR {}",
                self.any_of_all(left, texts),
                self.any_of_all(right, texts)
            );
        }
        let text = text.replace(" and/or ", " or ");
        let any = text.split(" or ").map(|all| {
            let all: Vec<String> = all.split(" and ").map(|one| self.one(one, texts)).collect();
            all.join(" AND ")
        });
        any.collect::<Vec<_>>().join(" OR ")
    }

    /// One licence, maybe with an exception.
    fn one(&mut self, name: &str, texts: &BTreeMap<String, String>) -> String {
        let name = name.trim().trim_end_matches(',');
        let known = match name.split_once(" with ") {
            None => known(name),
            Some((base, exception)) => {
                known(base).zip(exception_id(exception)).map(|(base, e)| format!("{base} WITH {e}"))
            }
        };
        if let Some(known) = known {
            return known;
        }
        let id = format!("LicenseRef-Debian-{}", plain(name));
        let text = texts.get(&name.to_lowercase()).map_or(name, String::as_str);
        self.texts.entry(id.clone()).or_insert_with(|| text.to_owned());
        id
    }
}

/// The expression in brackets if it holds this operator.
fn bracketed(expression: String, operator: &str) -> String {
    if expression.contains(operator) { format!("({expression})") } else { expression }
}

/// SPDX's name of what Debian calls so.
fn known(name: &str) -> Option<String> {
    let small = name.to_lowercase();
    if let Some((_, spdx)) = DEBIAN.iter().find(|(debian, _)| *debian == small) {
        return Some((*spdx).to_owned());
    }
    if let Some(gnu) = gnu(&small) {
        return Some(gnu);
    }
    // The list knows capitals; copyright files are free with them.
    let listed = spdx::identifiers::LICENSES.iter().find(|l| l.name.eq_ignore_ascii_case(name));
    listed.map(|l| l.name.to_owned())
}

/// `gpl-2+` as `GPL-2.0-or-later`, and its kin.
fn gnu(small: &str) -> Option<String> {
    let (family, rest) = small.split_once('-')?;
    let (rest, later) = match rest.strip_suffix('+') {
        Some(rest) => (rest, "or-later"),
        None => (rest, "only"),
    };
    let (rest, invariants) = match rest.strip_prefix("niv-") {
        Some(rest) => (rest, "no-invariants-"),
        None => (rest, ""),
    };
    let version = if rest.contains('.') { rest.to_owned() } else { format!("{rest}.0") };
    let id = format!("{}-{version}-{invariants}{later}", family.to_uppercase());
    ["GPL", "LGPL", "AGPL", "GFDL"].iter().find(|f| f.eq_ignore_ascii_case(family))?;
    spdx::license_id(&id).map(|l| l.name.to_owned())
}

/// SPDX's name of an exception, where it is beyond doubt.
fn exception_id(text: &str) -> Option<&'static str> {
    let small = text.to_lowercase();
    let word = small.strip_suffix(" exception").unwrap_or(&small);
    let id = match word {
        "gcc" | "gcc-runtime-library" => "GCC-exception-3.1",
        "linking" | "libgcc" => "GCC-exception-2.0",
        "autoconf" => "Autoconf-exception-3.0",
        "bison" | "bison-2.2" => "Bison-exception-2.2",
        "classpath" => "Classpath-exception-2.0",
        "font" => "Font-exception-2.0",
        "libtool" => "Libtool-exception",
        "linux-syscall-note" => "Linux-syscall-note",
        "llvm" => "LLVM-exception",
        _ => return None,
    };
    Some(id)
}

/// Letters, digits, dots and dashes only.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let good = c.is_ascii_alphanumeric() || c == '.';
        match (good, out.ends_with('-')) {
            (true, _) => out.push(c),
            (false, false) => out.push('-'),
            (false, true) => {}
        }
    }
    out.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn debian(licences: &[&str], want: &str) {
        let mut text =
            "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
                .to_owned();
        for licence in licences {
            text += &format!("Files: *\nCopyright: x\nLicense: {licence}\n\n");
        }
        let licence = of_debian(&text).unwrap();
        assert_eq!(licence.expression, want);
        spdx::Expression::parse(want).unwrap();
    }

    #[test]
    fn debians_names_become_those_of_spdx() {
        debian(&["GPL-2+"], "GPL-2.0-or-later");
        debian(&["LGPL-2.1", "Expat"], "LGPL-2.1-only AND MIT");
        debian(&["gpl-3 or apache-2.0", "ISC"], "(GPL-3.0-only OR Apache-2.0) AND ISC");
        debian(
            &["GPL-2+ or Artistic-2.0, and BSD-3-clause"],
            "(GPL-2.0-or-later OR Artistic-2.0) AND BSD-3-Clause",
        );
        debian(&["GPL-3+ with GCC exception"], "GPL-3.0-or-later WITH GCC-exception-3.1");
        debian(&["GFDL-NIV-1.3+"], "GFDL-1.3-no-invariants-or-later");
        debian(&["GPL-2+ with odd exception"], "LicenseRef-Debian-GPL-2-with-odd-exception");
    }

    #[test]
    fn an_unknown_licence_keeps_its_text() {
        let text = "Format: copyright-format/1.0\n\nFiles: *\nLicense: Own-1\n\nFiles: b\n\
            License: Expat\n\nLicense: Own-1\n Do what\n you like\n";
        let licence = of_debian(text).unwrap();
        assert_eq!(licence.expression, "LicenseRef-Debian-Own-1 AND MIT");
        assert_eq!(licence.texts["LicenseRef-Debian-Own-1"], "Do what\nyou like");
    }

    #[test]
    fn prose_is_not_guessed_from() {
        assert_eq!(of_debian("This package is under the GPL.\n"), None);
        assert_eq!(of_debian(""), None);
    }

    #[test]
    fn crates_speak_almost_spdx() {
        let expression = |text| of_crate(text).map(|l| l.expression);
        assert_eq!(expression("MIT/Apache-2.0").as_deref(), Some("MIT OR Apache-2.0"));
        assert_eq!(expression("ISC AND (MIT OR ISC)").as_deref(), Some("ISC AND (MIT OR ISC)"));
        assert_eq!(expression("free"), None);
    }
}
