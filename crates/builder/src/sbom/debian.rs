//! Packages of distributions: dpkg's stanzas and apk's database to parts of a bill.

use formats::deb822::Stanza;
use model::Digest;

use super::purl::purl;
use super::{Kind, Part};

/// A binary package, and the source packages that it was built from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Installed {
    pub(super) part: Part,
    pub(super) sources: Vec<Part>,
    /// The .deb's file name, where the stanza knows it.
    pub(super) file: String,
}

/// The package of one of dpkg's stanzas. `None` if it is none, or not installed.
pub(super) fn of_dpkg(stanza: &Stanza) -> Option<Installed> {
    let word = |name| stanza.line(name).map(str::trim).filter(|w| !w.is_empty());
    let (name, version) = (word("Package")?, word("Version")?);
    if word("Status").is_some_and(|s| !s.ends_with(" installed")) {
        return None;
    }
    let arch = word("Architecture").unwrap_or_default();
    let suite = word("Distribution").unwrap_or_default();
    let (source, source_version) = match word("Source").map(named) {
        Some((source, Some(own))) => (source, own),
        Some((source, None)) => (source, version),
        // A version of a rebuild is none of the source's.
        None => (name, version),
    };
    let source_version = without_rebuild(source_version);
    let upstream = match (source == name, source_version == version) {
        (true, true) => String::new(),
        (_, true) => source.to_owned(),
        (_, false) => format!("{source}@{source_version}"),
    };
    let qualifiers = [("arch", arch), ("distro", suite), ("upstream", &upstream)];
    let mut part = Part::new(Kind::Package, name, version);
    part.purl = purl("deb", Some("debian"), name, version, &qualifiers);
    part.supplier = word("Maintainer").unwrap_or_default().to_owned();
    part.homepage = word("Homepage").unwrap_or_default().to_owned();
    part.summary = word("Description").unwrap_or_default().to_owned();
    part.sha256 = word("SHA256").and_then(|h| Digest::from_hex(h).ok());
    let mut sources = vec![source_part(source, source_version, suite)];
    for field in ["Built-Using", "Static-Built-Using"] {
        let all = stanza.get(field).unwrap_or_default().split(',');
        for (name, version) in all.map(str::trim).map(named) {
            if let Some(version) = version {
                sources.push(source_part(name, version, suite));
            }
        }
    }
    let file = word("Filename").and_then(|f| f.rsplit('/').next()).unwrap_or_default().to_owned();
    Some(Installed { part, sources, file })
}

fn source_part(name: &str, version: &str, suite: &str) -> Part {
    let mut part = Part::new(Kind::Source, name, version);
    part.purl =
        purl("deb", Some("debian"), name, version, &[("arch", "source"), ("distro", suite)]);
    part
}

/// `glibc (2.41-1)`, `linux (= 6.12-1)`: a name and maybe a version.
fn named(text: &str) -> (&str, Option<&str>) {
    match text.split_once('(') {
        None => (text.trim(), None),
        Some((name, rest)) => {
            let version = rest.trim_end_matches([')', ' ']).trim_start_matches(['=', ' ']);
            (name.trim(), Some(version).filter(|v| !v.is_empty()))
        }
    }
}

/// `1.2-3+b1` as `1.2-3`: rebuilds of a binary package have no source of their own.
fn without_rebuild(version: &str) -> &str {
    match version.rsplit_once("+b") {
        Some((plain, number))
            if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) =>
        {
            plain
        }
        _ => version,
    }
}

/// The packages of apk's database (a letter, a colon, a value a line; an empty line ends a package).
pub(super) fn of_apk(database: &str) -> Vec<Part> {
    let packages = database.split("\n\n").filter_map(|text| {
        let word = |key: char| {
            text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')).unwrap_or_default()
        };
        let (name, version) = (word('P'), word('V'));
        if name.is_empty() || version.is_empty() {
            return None;
        }
        let origin = if word('o') == name { "" } else { word('o') };
        let mut part = Part::new(Kind::Package, name, version);
        let qualifiers = [("arch", word('A')), ("upstream", origin)];
        part.purl = purl("apk", Some("alpine"), name, version, &qualifiers);
        part.supplier = word('m').to_owned();
        part.homepage = word('U').to_owned();
        part.summary = word('T').to_owned();
        part.licence = super::licence::of_crate(word('L'));
        Some(part)
    });
    packages.collect()
}

#[cfg(test)]
mod tests {
    use formats::deb822::stanzas;

    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let found = of_dpkg(&stanzas(text).next().unwrap()).unwrap();
        let all: Vec<&str> =
            [&found.part].into_iter().chain(&found.sources).map(|p| p.purl.as_str()).collect();
        assert_eq!(all, want);
    }

    #[test]
    fn a_package_says_what_it_was_built_from() {
        check(
            "Package: crun\nVersion: 1.21-1\nArchitecture: amd64\nDistribution: trixie\n",
            &[
                "pkg:deb/debian/crun@1.21-1?arch=amd64&distro=trixie",
                "pkg:deb/debian/crun@1.21-1?arch=source&distro=trixie",
            ],
        );
        check(
            "Package: libyajl2\nSource: yajl\nVersion: 2.1.0-5+b2\nArchitecture: amd64\n",
            &[
                "pkg:deb/debian/libyajl2@2.1.0-5%2Bb2?arch=amd64&upstream=yajl%402.1.0-5",
                "pkg:deb/debian/yajl@2.1.0-5?arch=source",
            ],
        );
        check(
            "Package: linux-image\nSource: linux-signed-amd64 (6.12+1)\nVersion: 6.12-1\n\
             Built-Using: linux (= 6.12-1), x (= 2)\n",
            &[
                "pkg:deb/debian/linux-image@6.12-1?upstream=linux-signed-amd64%406.12%2B1",
                "pkg:deb/debian/linux-signed-amd64@6.12%2B1?arch=source",
                "pkg:deb/debian/linux@6.12-1?arch=source",
                "pkg:deb/debian/x@2?arch=source",
            ],
        );
    }

    #[test]
    fn what_is_not_installed_or_no_package_is_none() {
        for text in [
            "Package: a\n",
            "Version: 1\n",
            "Package: a\nVersion: 1\nStatus: deinstall ok config-files\n",
        ] {
            assert_eq!(of_dpkg(&stanzas(text).next().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn apk_says_the_same_in_letters() {
        let parts = of_apk("P:musl\nV:1.2.5-r9\nA:x86_64\nL:MIT\no:musl\n\nP:x\n\n");
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].purl, "pkg:apk/alpine/musl@1.2.5-r9?arch=x86_64");
        assert_eq!(parts[0].licence.as_ref().unwrap().expression, "MIT");
    }
}
