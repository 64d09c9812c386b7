//! The bill of materials of an image: what is in it, who brought it, under which licence, made of
//! which sources. As SPDX 2.3 and CycloneDX 1.6.
//!
//! Everything is read from the image itself: dpkg's stanzas of every package image
//! ([`crate::pkg::record`]), apk's databases, the lists of crates that programs carry
//! ([`crate::audit`]), copyright files, the kernel. Who brought what is in the archive's records
//! ([`crate::contents`]). The same image makes the same document.
//!
//! ```text
//! image ─▶ Scan ─▶ Bill ─┬▶ SPDX
//!                        └▶ CycloneDX
//! ```

mod crates;
mod cyclonedx;
mod debian;
mod licence;
pub(crate) mod purl;
mod scan;
mod spdx;
#[cfg(test)]
mod tests;
mod time;

use std::collections::{BTreeMap, BTreeSet};

use model::{Bytes, Digest};

pub use licence::Licence;
pub use scan::{About, Scan};
pub use time::rfc3339;

/// Formats of a bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// SPDX 2.3 as JSON.
    Spdx,
    /// CycloneDX 1.6 as JSON.
    CycloneDx,
}

impl Format {
    /// All, by name.
    pub const ALL: [(&'static str, Format); 2] =
        [("spdx", Format::Spdx), ("cyclonedx", Format::CycloneDx)];

    /// The format of this name.
    pub fn by_name(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|(n, _)| *n == name).map(|(_, f)| f)
    }
}

/// What an image is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bill {
    /// What the image is called.
    pub name: String,
    /// Its version; empty: unknown.
    pub version: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// All parts by id.
    pub parts: BTreeMap<Id, Part>,
    /// Which part has to do with which.
    pub relations: BTreeSet<(Id, Relation, Id)>,
    /// What could not be found out, a sentence each.
    pub warnings: Vec<String>,
}

/// The name of a part within its bill: letters, digits, dots and dashes. Empty: the image itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(pub String);

/// One part of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its version; empty: it has none.
    pub version: String,
    /// Its package URL; empty: it has none.
    pub purl: String,
    /// What its author says of its licence.
    pub licence: Option<Licence>,
    /// Who passes it on, as `Name <mail>`; empty: unknown.
    pub supplier: String,
    /// Where its makers are at home; empty: unknown.
    pub homepage: String,
    /// One line about it.
    pub summary: String,
    /// SHA-256 of what was taken: the .deb, the .crate, the file.
    pub sha256: Option<Digest>,
    /// Size of a file.
    pub size: Option<Bytes>,
}

impl Part {
    fn new(kind: Kind, name: impl Into<String>, version: impl Into<String>) -> Part {
        Part {
            kind,
            name: name.into(),
            version: version.into(),
            purl: String::new(),
            licence: None,
            supplier: String::new(),
            homepage: String::new(),
            summary: String::new(),
            sha256: None,
            size: None,
        }
    }
}

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An image that the root file system was composed of.
    Image,
    /// A binary package of a distribution.
    Package,
    /// The operating system's kernel, where no package says so.
    Kernel,
    /// A source package that a binary package was built from.
    Source,
    /// A Rust crate in a program.
    Crate,
    /// A Rust crate that ran while a program was compiled.
    BuildCrate,
    /// A file of ours. Its name is its path.
    File,
}

/// How one part has to do with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// The second is in the first.
    Contains,
    /// The first needs the second.
    DependsOn,
    /// The first was compiled with the help of the second.
    BuiltWith,
    /// The first was made of the second.
    MadeFrom,
}

impl Bill {
    /// The document in a format: the same bytes for the same bill.
    pub fn to_bytes(&self, format: Format) -> Vec<u8> {
        let document = match format {
            Format::Spdx => spdx::document(self),
            Format::CycloneDx => cyclonedx::document(self),
        };
        // JSON values have string keys and no floats here: nothing in them can fail to serialize.
        let mut bytes = serde_json::to_vec_pretty(&document).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// How many parts there are of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.parts.values().filter(|p| p.kind == kind).count()
    }

    /// Adds a part, unless the same is there, under a name of its own.
    fn add(&mut self, part: Part) -> Id {
        let word = match part.kind {
            Kind::Image => "image",
            Kind::Package => "package",
            Kind::Kernel => "kernel",
            Kind::Source => "source",
            Kind::Crate | Kind::BuildCrate => "crate",
            Kind::File => "file",
        };
        let name = licence::plain(&format!("{word}-{}-{}", part.name, part.version));
        for number in 1.. {
            let id = Id(if number == 1 { name.clone() } else { format!("{name}-{number}") });
            match self.parts.get_mut(&id) {
                None => {
                    self.parts.insert(id.clone(), part);
                    return id;
                }
                Some(there) if *there == part => return id,
                // Linked into one program, a tool of the build of another: in the image it counts.
                Some(there) if there.purl == part.purl && is_crate(there) && is_crate(&part) => {
                    there.kind = there.kind.min(part.kind);
                    return id;
                }
                Some(_) => {}
            }
        }
        Id::default() // there are fewer parts than numbers
    }

    fn relate(&mut self, one: &Id, how: Relation, other: &Id) {
        self.relations.insert((one.clone(), how, other.clone()));
    }

    /// A UUID that follows from the content of a document.
    fn uuid(document: &serde_json::Value) -> uuid::Uuid {
        uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, document.to_string().as_bytes())
    }
}

fn is_crate(part: &Part) -> bool {
    matches!(part.kind, Kind::Crate | Kind::BuildCrate)
}
