//! The manifest: a line a source, `type,name@version,commit,path`.

use std::collections::BTreeSet;

use super::SourcesError;
use crate::sbom::{Bill, Kind, purl};

/// A manifest has as many lines as an image has packages.
const ROWS_MAX: usize = 1_000_000;
/// Debian's name for the kernel's source.
const KERNEL: &str = "linux";

/// All sources of an image, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The lines.
    pub rows: BTreeSet<Row>,
}

/// One source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Row {
    /// `debian`, `kernel`, `rust`, or what others wrote.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What says exactly which: a crate's checksum, or the digest of a Debian source package's
    /// description. Empty: not known.
    pub commit: String,
    /// Where it is in the archive of sources.
    pub path: String,
}

impl Row {
    /// `debian glibc@2.41-12`.
    pub fn display(&self) -> String {
        format!("{} {}@{}", self.kind, self.name, self.version)
    }
}

impl Manifest {
    /// The sources of an image by its bill: Debian's source packages and the crates that registries
    /// have.
    pub fn of_bill(bill: &Bill) -> Manifest {
        let rows = bill.parts.values().filter_map(|part| {
            let (name, version) = (part.name.clone(), part.version.clone());
            let (kind, path) = match part.kind {
                Kind::Source if name == KERNEL => ("kernel", format!("kernel/{name}_{version}")),
                Kind::Source => ("debian", format!("debian/{name}_{version}")),
                Kind::Crate | Kind::BuildCrate => {
                    purl::parse(&part.purl)?;
                    ("rust", format!("rust/{name}-{version}.crate"))
                }
                _ => return None,
            };
            let commit = part.sha256.map(|s| s.hex()).unwrap_or_default();
            Some(Row { kind: kind.to_owned(), name, version, commit, path })
        });
        Manifest { rows: rows.collect() }
    }

    /// Reads the text of a manifest. Empty lines and one of titles are skipped.
    pub fn parse(text: &str) -> Result<Manifest, SourcesError> {
        let mut rows = BTreeSet::new();
        for (at, line) in text.lines().enumerate().take(ROWS_MAX) {
            let line = line.trim();
            if line.is_empty() || line.starts_with("type,") {
                continue;
            }
            let bad = || SourcesError::Row { line: at + 1 };
            let mut words = line.splitn(4, ',').map(|w| w.trim_matches('"'));
            let mut word = || words.next().ok_or_else(bad);
            let (kind, source, commit, path) = (word()?, word()?, word()?, word()?);
            // Names may begin with an at sign; versions hold none.
            let (name, version) = source.rsplit_once('@').ok_or_else(bad)?;
            if kind.is_empty() || name.is_empty() {
                return Err(bad());
            }
            let own = str::to_owned;
            let (kind, name, version) = (own(kind), own(name), own(version));
            rows.insert(Row { kind, name, version, commit: own(commit), path: own(path) });
        }
        Ok(Manifest { rows })
    }

    /// The text of it; [`Manifest::parse`] reads the same.
    pub fn print(&self) -> String {
        let line =
            |r: &Row| format!("{},{}@{},{},{}\n", r.kind, r.name, r.version, r.commit, r.path);
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let text = "debian,glibc@2.41-12+deb13u4,,debian/glibc_2.41-12+deb13u4\n\
                    kernel,linux@6.12-1,ab,kernel/linux_6.12-1\n\
                    rust,serde@1.0.0,cd,rust/serde-1.0.0.crate\n";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.rows.len(), 3);
        assert_eq!(manifest.print(), text);
        let titled = format!("type,name@version,commit,path\n{text}\n");
        assert_eq!(Manifest::parse(&titled).unwrap(), manifest);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for text in ["debian,glibc@1\n", "debian,glibc,,x\n", ",a@1,,x\n"] {
            let error = Manifest::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("line 1 of the manifest"), "{error}");
        }
    }
}
