//! Who put what where: each member of a root file system's archive, with the entry of the
//! description that asks for it, the image that brought it, and the part of that image.
//!
//! A file system image does not carry this, so a build keeps it beside the image
//! ([`CONTENTS`]), and everything that is told of an image later stands on it. Members that say one
//! path twice are all here, in their order: the last one counts.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use model::Bytes;
use serde::{Deserialize, Serialize};
use store::tarball::{self, Header, Reader};

use crate::pkg::FROM;

/// The name of the record beside the images of a build.
pub const CONTENTS: &str = "contents.json";

/// A root file system with a million members has a record of 150 MB.
const RECORD_MAX: Bytes = Bytes::mib(256);
/// More members than any root file system of ours will have.
const MEMBERS_MAX: usize = 1_000_000;

/// Who put what where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Always 1.
    version: u32,
    /// What members have in common.
    origins: Vec<Origin>,
    /// The members, in the archive's order.
    members: Vec<Member>,
}

/// Where a member comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The entry of the description: `kernel`, `init[3]`, `files[0]`. Empty: nobody said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// The image, as the description names it in full; or what the composer calls its own. Empty:
    /// nobody said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// The part of the image: a .deb (`libc6_2.41-12_amd64.deb`; several with commas), a file of a
    /// recipe (`pkg/base/passwd`), a program of ours (`cargo eved`). Empty: nobody said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
}

impl Origin {
    /// The .debs that brought it.
    pub fn debs(&self) -> impl Iterator<Item = &str> {
        self.from.split(", ").filter(|f| f.ends_with(".deb"))
    }
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its path, without a slash at the start; bytes that are no UTF-8 as `\xff`.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Bytes of a file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: Bytes,
    /// Target of a link.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub link: String,
    /// The place of its origin in the list.
    origin: usize,
}

impl Member {
    /// A member of nobody.
    pub fn new(path: String, kind: Kind, size: Bytes, link: String) -> Member {
        Member { path, kind, size, link, origin: 0 }
    }
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file.
    File,
    /// A symbolic link.
    Symlink,
    /// Another name of a file.
    Same,
    /// A device, a pipe or a socket.
    Special,
}

impl Kind {
    /// The word for people.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Folder => "folder",
            Kind::File => "file",
            Kind::Symlink => "symbolic link",
            Kind::Same => "hard link",
            Kind::Special => "special file",
        }
    }
}

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// The record cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is none.
    #[error("{path} is no record of an image's contents")]
    Parse {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It is of another time, or says what cannot be.
    #[error("{path} is a record that this version cannot use")]
    Odd {
        /// Where.
        path: std::path::PathBuf,
    },
}

fn is_zero(size: &Bytes) -> bool {
    size.0 == 0
}

impl Contents {
    /// Goes through an archive. `visit` sees every member with its bytes.
    pub fn of_tar(
        archive: impl Read,
        mut visit: impl FnMut(&Member, &Origin, &Header, &mut dyn Read) -> io::Result<()>,
    ) -> io::Result<Contents> {
        let mut record = Recorder::default();
        let mut archive = Reader::new(archive);
        while let Some(header) = archive.next()? {
            let Some((member, origin)) = read(&header) else { continue };
            visit(&member, &origin, &header, &mut archive)?;
            record.add(member, origin)?;
        }
        Ok(record.contents)
    }

    /// The record of an archive with these headers.
    pub fn of_headers(headers: impl Iterator<Item = Header>) -> io::Result<Contents> {
        let mut record = Recorder::default();
        for (member, origin) in headers.filter_map(|header| read(&header)) {
            record.add(member, origin)?;
        }
        Ok(record.contents)
    }

    /// Reads the record beside an image; `None` if there is none.
    pub fn beside(folder: &Path) -> Result<Option<Contents>, ContentsError> {
        let path = folder.join(CONTENTS);
        let bytes = match store::read_bounded(&path, RECORD_MAX) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(|source| ContentsError::Read { path: path.clone(), source })?,
        };
        let contents: Contents = serde_json::from_slice(&bytes)
            .map_err(|source| ContentsError::Parse { path: path.clone(), source })?;
        let known = contents.origins.len();
        if contents.version != 1 || contents.members.iter().any(|m| m.origin >= known) {
            return Err(ContentsError::Odd { path });
        }
        Ok(Some(contents))
    }

    /// A record of members of which nobody says where they come from.
    pub fn unknown(members: impl Iterator<Item = Member>) -> Contents {
        Contents { version: 1, origins: vec![Origin::default()], members: members.collect() }
    }

    /// The bytes of the record.
    pub fn to_bytes(&self) -> Vec<u8> {
        // These types have string keys and no floats: nothing in them can fail to serialize.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Every member and where it comes from, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Member, &Origin)> {
        self.members.iter().map(|m| (m, &self.origins[m.origin]))
    }

    /// What counts: of members with one path the last, by path.
    pub fn standing(&self) -> BTreeMap<&str, (&Member, &Origin)> {
        self.iter().map(|(m, o)| (m.path.as_str(), (m, o))).collect()
    }
}

/// A record in the making.
struct Recorder {
    contents: Contents,
    known: BTreeMap<Origin, usize>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        let contents = Contents { version: 1, ..Contents::default() };
        Recorder { contents, known: BTreeMap::new() }
    }
}

impl Recorder {
    fn add(&mut self, member: Member, origin: Origin) -> io::Result<()> {
        if self.contents.members.len() >= MEMBERS_MAX {
            return Err(io::Error::other(format!("it has more than {MEMBERS_MAX} members")));
        }
        let next = self.known.len();
        let place = *self.known.entry(origin.clone()).or_insert(next);
        if place == next {
            self.contents.origins.push(origin);
        }
        self.contents.members.push(Member { origin: place, ..member });
        Ok(())
    }
}

/// A member and its origin; `None` for the root itself.
fn read(header: &Header) -> Option<(Member, Origin)> {
    let path = text(&tarball::clean_path(&header.path));
    let path = path.trim_matches('/').to_owned();
    if path.is_empty() || path == "." {
        return None;
    }
    let record = |key: &str| header.records.get(key.as_bytes()).map(|v| text(v));
    let mut origin = Origin {
        location: record("LINUXKIT.location").unwrap_or_default(),
        source: record("LINUXKIT.source").unwrap_or_default(),
        from: record(FROM).unwrap_or_default(),
    };
    if path == "boot/cmdline" {
        // Made of the description; the composer gives it the kernel's records.
        origin.from = String::new();
    }
    let kind = match header.kind {
        tarball::Kind::Dir => Kind::Folder,
        tarball::Kind::File | tarball::Kind::Other(_) => Kind::File,
        tarball::Kind::Symlink => Kind::Symlink,
        tarball::Kind::HardLink => Kind::Same,
        _ => Kind::Special,
    };
    let size = Bytes(if header.kind.has_body() { header.size } else { 0 });
    Some((Member { path, kind, size, link: text(&header.link), origin: 0 }, origin))
}

/// Bytes as text that says all of them.
pub fn text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text += chunk.valid();
        text.extend(chunk.invalid().iter().map(|b| format!("\\x{b:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::tarball::{Time, Writer};

    fn archive() -> Vec<u8> {
        let mut tar = Writer::new(Vec::new());
        for (path, location, from, body) in [
            ("etc/hosts", "init[0]", "pkg/base/hosts", "1"),
            ("./usr/bin/crun", "init[1]", "crun_1.21-1_amd64.deb", "ELF"),
            ("etc/hosts", "files[0]", "", "22"),
        ] {
            let mut header = Header::new(path, tarball::Kind::File, 0o644, Time::seconds(1));
            for (key, value) in [("LINUXKIT.location", location), (FROM, from)] {
                if !value.is_empty() {
                    header.records.insert(key.into(), value.into());
                }
            }
            tar.member(&header, body.as_bytes()).unwrap();
        }
        tar.finish().unwrap()
    }

    #[test]
    fn every_member_says_who_brought_it_and_the_last_counts() {
        let contents = Contents::of_tar(&archive()[..], |_, _, _, _| Ok(())).unwrap();
        let show = |(m, o): (&Member, &Origin)| format!("{} {} {}", m.path, o.location, o.from);
        assert_eq!(
            contents.iter().map(show).collect::<Vec<_>>(),
            [
                "etc/hosts init[0] pkg/base/hosts",
                "usr/bin/crun init[1] crun_1.21-1_amd64.deb",
                "etc/hosts files[0] "
            ]
        );
        assert_eq!(contents.standing()["etc/hosts"].0.size, Bytes(2));
    }

    #[test]
    fn the_record_reads_back_the_same_and_lies_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let contents = Contents::of_tar(&archive()[..], |_, _, _, _| Ok(())).unwrap();
        assert!(Contents::beside(folder.path()).unwrap().is_none());
        store::save(folder.path(), CONTENTS, &contents.to_bytes()).unwrap();
        assert_eq!(Contents::beside(folder.path()).unwrap(), Some(contents));
        let lie = r#"{"version":1,"origins":[],"members":[{"path":"a","kind":"file","origin":0}]}"#;
        store::save(folder.path(), CONTENTS, lie.as_bytes()).unwrap();
        assert!(matches!(Contents::beside(folder.path()), Err(ContentsError::Odd { .. })));
        store::save(folder.path(), CONTENTS, b"[]").unwrap();
        assert!(matches!(Contents::beside(folder.path()), Err(ContentsError::Parse { .. })));
    }

    #[test]
    fn odd_bytes_in_names_are_shown_as_such() {
        assert_eq!(text(b"a\xff\xfeb\xc3\xa9"), "a\\xff\\xfebé");
    }
}
