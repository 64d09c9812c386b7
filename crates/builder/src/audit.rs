//! What a Rust program is made of, kept in the program itself: the section `.dep-v0`, as
//! `cargo auditable` writes it, so that scanners of others read ours and we read theirs.
//!
//! The section is JSON behind zlib: a list of crates, each with the numbers of those it needs. To what
//! the format asks for we add the licence and the checksum of each crate; readers skip what they do
//! not know.

use std::io::{Read, Write};

use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use formats::elf::{Elf, ElfError};
use serde::{Deserialize, Serialize};

/// The section's name.
pub const SECTION: &str = ".dep-v0";

/// A list of a thousand crates has 200 KB.
const PLAIN_MAX: u64 = 8 << 20;

/// More crates than any program has.
const CRATES_MAX: usize = 100_000;

/// The crates of a program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crates {
    /// By name and version; the others' numbers are places in this list.
    pub packages: Vec<Crate>,
    /// How the list was made. 1: what cargo resolved, procedural macros counted as build tools.
    #[serde(default, skip_serializing_if = "is_default")]
    pub format: u32,
}

/// One crate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `crates.io`, `git`, `local`, `registry` or something else.
    pub source: String,
    /// Whether its code is in the program.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: Kind,
    /// What it needs: places in the list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<usize>,
    /// Whether the program itself is of this crate.
    #[serde(default, skip_serializing_if = "is_default")]
    pub root: bool,
    /// Its licence, as its author wrote it. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// SHA-256 of what was downloaded. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<model::Digest>,
}

/// What a crate is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Its code is in the program.
    #[default]
    Runtime,
    /// It ran while the program was compiled.
    Build,
}

/// Why a program does not say what it is made of.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The program is broken.
    #[error("cannot read the program's sections")]
    Elf(#[from] ElfError),
    /// The section does not unpack.
    #[error("cannot unpack the section {SECTION}")]
    Unpack(#[source] std::io::Error),
    /// It unpacks to more than such a list can be.
    #[error("the section {SECTION} unpacks to more than {PLAIN_MAX} bytes")]
    TooLong,
    /// It is no list of crates.
    #[error("the section {SECTION} is no list of crates")]
    Parse(#[from] serde_json::Error),
    /// A crate needs one that is not in the list.
    #[error("the section {SECTION} names the crate number {0}, which is not there")]
    Number(usize),
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Crates {
    /// Reads the list that a program carries; `None` if it carries none.
    pub fn of(program: &[u8]) -> Result<Option<Crates>, AuditError> {
        let section = match Elf::parse(program) {
            Err(ElfError::NoTable) => None,
            elf => elf?.section(SECTION)?,
        };
        section.map(Crates::parse).transpose()
    }

    /// Reads the content of the section.
    pub fn parse(section: &[u8]) -> Result<Crates, AuditError> {
        let mut plain = Vec::new();
        let mut unpacked = ZlibDecoder::new(section).take(PLAIN_MAX + 1);
        unpacked.read_to_end(&mut plain).map_err(AuditError::Unpack)?;
        if plain.len() as u64 > PLAIN_MAX {
            return Err(AuditError::TooLong);
        }
        let crates: Crates = serde_json::from_slice(&plain)?;
        let count = crates.packages.len();
        if count > CRATES_MAX {
            return Err(AuditError::TooLong);
        }
        let needs = crates.packages.iter().flat_map(|p| &p.dependencies);
        match needs.copied().find(|n| *n >= count) {
            Some(number) => Err(AuditError::Number(number)),
            None => Ok(crates),
        }
    }

    /// The program with this list in it: the same bytes for the same program and list.
    pub fn put_into(&self, program: &[u8]) -> Result<Vec<u8>, AuditError> {
        let mut packed = ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&serde_json::to_vec(self)?).map_err(AuditError::Unpack)?;
        let packed = packed.finish().map_err(AuditError::Unpack)?;
        Ok(Elf::parse(program)?.with_section(SECTION, &packed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(json: &str) -> Vec<u8> {
        let mut out = ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(json.as_bytes()).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn what_cargo_auditable_writes_is_read() {
        let text = r#"{"packages":[{"name":"a","version":"1.0.0","source":"crates.io","kind":"build"},
            {"name":"b","version":"0.1.0","source":"local","dependencies":[0],"root":true,"new":1}]}"#;
        let crates = Crates::parse(&packed(text)).unwrap();
        assert_eq!(crates.packages[0].kind, Kind::Build);
        assert!(crates.packages[1].root && crates.packages[1].dependencies == [0]);
    }

    #[test]
    fn lists_that_lie_or_explode_are_refused() {
        let number =
            r#"{"packages":[{"name":"a","version":"1","source":"local","dependencies":[1]}]}"#;
        assert!(matches!(Crates::parse(&packed(number)), Err(AuditError::Number(1))));
        let long = " ".repeat(usize::try_from(PLAIN_MAX).unwrap() + 2);
        assert!(matches!(Crates::parse(&packed(&long)), Err(AuditError::TooLong)));
        assert!(matches!(Crates::parse(b"plain"), Err(AuditError::Unpack(_))));
        assert!(matches!(Crates::parse(&packed("[]")), Err(AuditError::Parse(_))));
        assert!(matches!(Crates::of(b"#!/bin/sh"), Err(AuditError::Elf(ElfError::NotElf))));
    }

    #[test]
    fn this_very_program_takes_a_list_and_gives_it_back() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let one = Crate {
            name: "a".to_owned(),
            version: "1.0.0".to_owned(),
            source: "local".to_owned(),
            kind: Kind::Runtime,
            dependencies: Vec::new(),
            root: true,
            license: Some("MIT".to_owned()),
            checksum: None,
        };
        let crates = Crates { packages: vec![one], format: 1 };
        let more = crates.put_into(&program).unwrap();
        assert_eq!(Crates::of(&more).unwrap(), Some(crates.clone()));
        assert_eq!(crates.put_into(&program).unwrap(), more);
        assert_eq!(Crates::of(&program).unwrap(), None);
    }
}
