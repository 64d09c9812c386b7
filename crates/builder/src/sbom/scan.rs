//! An image's members, one after the other, to its bill.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use formats::{deb822, elf};
use model::Digest;
use sha2::{Digest as _, Sha256};

use super::debian::{self, Installed};
use super::purl::purl;
use super::{Bill, Id, Kind, Part, Relation, crates, licence};
use crate::audit::Crates;
use crate::contents::{self, Member, Origin};
use crate::pkg::record;

/// The largest text that is read: apk's database of a thousand packages has 2 MiB.
const TEXT_MAX: u64 = 64 << 20;
/// The largest program that is looked into; Rust's own compiler has 150 MiB.
const PROGRAM_MAX: u64 = 512 << 20;
/// Words of the composer where others have the name of an image.
const NO_IMAGES: [&str; 4] = ["linuxkit.", "LINUXKIT.", "empty", "what the build adds"];

/// What a bill says of the image as a whole.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// What it is called; empty: `eve`.
    pub name: String,
    /// Its version; empty: what `/etc/eve-release` says.
    pub version: String,
    /// When it was made, in seconds since 1970. `None`: the time of its latest member.
    pub created: Option<u64>,
}

/// Looks at the members of an image.
#[derive(Debug, Default)]
pub struct Scan {
    latest: u64,
    release: String,
    installed: Vec<(Installed, Place)>,
    apk: Vec<(Vec<Part>, String)>,
    /// Texts by folder of documentation: image, prefix, package.
    copyrights: BTreeMap<(Place, String), String>,
    /// Folders of documentation that are links to another package's.
    links: BTreeMap<(Place, String), String>,
    /// By path: of several members the last counts.
    files: BTreeMap<String, Ours>,
    kernels: BTreeMap<String, (String, String)>,
    images: BTreeSet<String>,
    warnings: Vec<String>,
}

/// An image, and the folder of the root file system that it is laid out in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    image: String,
    prefix: String,
}

/// A file of ours, or a program that says what it is made of.
#[derive(Debug)]
struct Ours {
    part: Part,
    image: String,
    /// Whether it stands in the bill by itself.
    ours: bool,
    crates: Option<Crates>,
}

/// What a file means to a bill.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    Stanza(Place),
    Copyright(Place, String),
    Apk,
    Release,
    Kernel,
    Other,
}

impl Scan {
    /// Nothing seen yet.
    pub fn new() -> Scan {
        Scan::default()
    }

    /// Looks at a member; `mtime` in seconds since 1970. Reads of its bytes what it needs.
    pub fn see(
        &mut self,
        member: &Member,
        origin: &Origin,
        mtime: i64,
        body: &mut dyn Read,
    ) -> io::Result<()> {
        self.latest = self.latest.max(u64::try_from(mtime).unwrap_or(0));
        let image = image_of(origin);
        if !image.is_empty() {
            self.images.insert(image.clone());
        }
        self.files.remove(&member.path);
        let role = role(&member.path, &image);
        match (member.kind, role) {
            (contents::Kind::File, role) => self.file(member, origin, image, role, body),
            (contents::Kind::Symlink, _) => {
                if let Some((place, package)) = documentation(&member.path, &image) {
                    let to = member.link.trim_end_matches('/').rsplit('/').next();
                    self.links.insert((place, package), to.unwrap_or_default().to_owned());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn file(
        &mut self,
        member: &Member,
        origin: &Origin,
        image: String,
        role: Role,
        body: &mut dyn Read,
    ) -> io::Result<()> {
        let from_deb = origin.debs().next().is_some();
        let ours = is_ours(origin) && !member.path.contains(record::FOLDER);
        let text =
            matches!(role, Role::Stanza(_) | Role::Copyright(..) | Role::Apk | Role::Release);
        if from_deb && !text {
            return Ok(());
        }
        let limit = if text { TEXT_MAX } else { PROGRAM_MAX };
        let keep = text || role == Role::Kernel;
        let Some(read) = look(body, keep, ours, limit)? else { return Ok(()) };
        let lossy = || String::from_utf8_lossy(&read.bytes).into_owned();
        match role {
            Role::Stanza(place) => {
                let text = lossy();
                let found = deb822::stanzas(&text).filter_map(|s| debian::of_dpkg(&s));
                self.installed.extend(found.map(|i| (i, place.clone())));
            }
            Role::Copyright(place, package) => {
                self.copyrights.insert((place, package), lossy());
            }
            Role::Apk if origin.source.starts_with("LINUXKIT.") => {} // all others once more
            Role::Apk => self.apk.push((debian::of_apk(&lossy()), image.clone())),
            Role::Release => self.release = lossy().trim().to_owned(),
            Role::Kernel => {
                if let Some(version) = kernel_version(&read.bytes) {
                    self.kernels.insert(member.path.clone(), (version, image.clone()));
                }
            }
            Role::Other => {}
        }
        let crates = if read.bytes.starts_with(elf::MAGIC) {
            Crates::of(&read.bytes).unwrap_or_else(|e| {
                self.warnings.push(format!("{}: {}", member.path, model::chain(&e)));
                None
            })
        } else {
            None
        };
        if ours || crates.is_some() {
            let mut part = Part::new(Kind::File, &*member.path, "");
            part.sha256 = Some(read.sha256);
            part.size = Some(member.size);
            self.files.insert(member.path.clone(), Ours { part, image, ours, crates });
        }
        Ok(())
    }

    /// The bill of all that was seen.
    pub fn finish(self, about: About) -> Bill {
        let named =
            |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
        let mut bill = Bill {
            name: named(about.name, "eve"),
            version: named(about.version, &self.release),
            created: about.created.unwrap_or(self.latest),
            warnings: self.warnings,
            ..Bill::default()
        };
        let mut owners: BTreeMap<String, Id> = BTreeMap::from([(String::new(), Id::default())]);
        for image in &self.images {
            let (name, tag) = split_image(image);
            let id = bill.add(Part::new(Kind::Image, name, tag));
            bill.relate(&Id::default(), Relation::Contains, &id);
            owners.insert(image.clone(), id);
        }
        let owner = |image: &str| owners.get(image).cloned().unwrap_or_default();
        let mut silent: BTreeSet<&String> = self.images.iter().collect();
        for (Installed { mut part, sources, file: _ }, place) in self.installed {
            silent.remove(&place.image);
            let folder = (place.clone(), part.name.clone());
            let real = self.links.get(&folder).map(|to| (place.clone(), to.clone()));
            let text = self.copyrights.get(&folder).or_else(|| self.copyrights.get(&real?));
            part.licence = text.and_then(|t| licence::of_debian(t));
            let id = bill.add(part);
            bill.relate(&owner(&place.image), Relation::Contains, &id);
            for source in sources {
                let source = bill.add(source);
                bill.relate(&id, Relation::MadeFrom, &source);
            }
        }
        for (parts, image) in self.apk {
            silent.remove(&image);
            for part in parts {
                let id = bill.add(part);
                bill.relate(&owner(&image), Relation::Contains, &id);
            }
        }
        for (version, image) in self.kernels.into_values() {
            silent.remove(&image);
            let mut part = Part::new(Kind::Kernel, "linux", &*version);
            part.purl = purl("generic", None, "linux", &version, &[]);
            let id = bill.add(part);
            bill.relate(&owner(&image), Relation::Contains, &id);
        }
        for file in self.files.into_values() {
            silent.remove(&file.image);
            let owner = owner(&file.image);
            let root = file.crates.as_ref().and_then(|c| crates::add(c, &mut bill));
            if let Some(root) = &root {
                bill.relate(&owner, Relation::Contains, root);
            }
            if file.ours || file.crates.is_some() {
                let id = bill.add(file.part);
                bill.relate(&owner, Relation::Contains, &id);
                if let Some(root) = &root {
                    bill.relate(&id, Relation::MadeFrom, root);
                }
            }
        }
        let silent = silent.into_iter().map(|i| format!("{i} does not say what is in it"));
        bill.warnings.extend(silent);
        bill
    }
}

/// The image that brought a member; empty: the build itself.
fn image_of(origin: &Origin) -> String {
    let none = NO_IMAGES.iter().any(|w| origin.source.starts_with(w));
    if none { String::new() } else { origin.source.clone() }
}

/// Whether a member was made here, not taken from a distribution or an image of somebody else.
fn is_ours(origin: &Origin) -> bool {
    let made = !origin.from.is_empty() && origin.debs().next().is_none();
    made || origin.location.starts_with("files[")
}

fn role(path: &str, image: &str) -> Role {
    let place = |prefix: &str| Place { image: image.to_owned(), prefix: prefix.to_owned() };
    if let Some((prefix, name)) = below(path, record::FOLDER)
        && !name.contains('/')
        && !name.ends_with(".md5sums")
    {
        return Role::Stanza(place(prefix));
    }
    if let Some((prefix, "")) = below(path, "var/lib/dpkg/status") {
        return Role::Stanza(place(prefix));
    }
    if let Some((_, "")) = below(path, "lib/apk/db/installed") {
        return Role::Apk;
    }
    if let Some(folder) = path.strip_suffix("/copyright")
        && let Some((place, package)) = documentation(folder, image)
    {
        return Role::Copyright(place, package);
    }
    match path {
        "etc/eve-release" => Role::Release,
        "boot/kernel" => Role::Kernel,
        _ => Role::Other,
    }
}

/// The place and package of a folder `…/usr/share/doc/<package>`.
fn documentation(path: &str, image: &str) -> Option<(Place, String)> {
    let (prefix, package) = below(path, "usr/share/doc")?;
    let alone = !package.is_empty() && !package.contains('/');
    let place = Place { image: image.to_owned(), prefix: prefix.to_owned() };
    alone.then(|| (place, package.to_owned()))
}

/// What stands before `folder` in a path, and what after it.
fn below<'a>(path: &'a str, folder: &str) -> Option<(&'a str, &'a str)> {
    let at = path.find(folder)?;
    let (prefix, rest) = (&path[..at], &path[at + folder.len()..]);
    let starts = prefix.is_empty() || prefix.ends_with('/');
    let rest = if rest.is_empty() { Some("") } else { rest.strip_prefix('/') };
    starts.then(|| Some((prefix, rest?)))?
}

/// `docker.io/eve/base:tag` as name and tag; of a digest the digest.
fn split_image(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, ""),
    }
}

/// A file that was read.
struct Looked {
    bytes: Vec<u8>,
    sha256: Digest,
}

/// Reads a file if it is wanted: all of it if `keep` or if it is a program, else for its digests
/// only; nothing (`None`) of what is neither.
fn look(body: &mut dyn Read, keep: bool, hash: bool, limit: u64) -> io::Result<Option<Looked>> {
    let mut head = Vec::new();
    body.take(4).read_to_end(&mut head)?;
    let keep = keep || head == elf::MAGIC;
    if !keep && !hash {
        return Ok(None);
    }
    let mut sum = Sha256::new();
    sum.update(&head);
    let mut bytes = head;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        sum.update(&buffer[..n]);
        if keep && (bytes.len() + n) as u64 <= limit {
            bytes.extend_from_slice(&buffer[..n]);
        }
    }
    Ok(Some(Looked { bytes, sha256: Digest(sum.finalize().into()) }))
}

/// The version that an x86 kernel says (Linux, Documentation/arch/x86/boot.rst: `kernel_version`).
fn kernel_version(bytes: &[u8]) -> Option<String> {
    if bytes.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let at = usize::from(u16::from_le_bytes(*bytes.get(0x20e..)?.first_chunk()?)) + 0x200;
    let text = bytes.get(at..)?.split(|b| *b == 0).next()?;
    let word = std::str::from_utf8(text).ok()?.split(' ').next()?;
    let good = !word.is_empty() && word.len() < 100 && word.bytes().all(|b| b.is_ascii_graphic());
    good.then(|| word.to_owned())
}
