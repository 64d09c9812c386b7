//! How large an image is, package by package, how it grew, and whether it may be so large.

mod limit;

use std::collections::BTreeMap;

use model::Bytes;
use serde::Serialize;

use crate::contents::{Contents, Kind, Origin};

pub use limit::{LimitError, Limits, NoRoom, TooLarge, check_room};

/// What the build itself adds has no package.
const BUILD: &str = "the build itself";
/// Of what nobody said where it comes from.
const UNKNOWN: &str = "unknown";

/// What the packages of an image take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// By size, the largest first.
    pub packages: Vec<Size>,
    /// All together.
    pub plain: Bytes,
    /// All together, packed. `None`: not known.
    pub packed: Option<Bytes>,
}

/// What one package takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Size {
    /// The package image without its tag; or what the build adds.
    pub name: String,
    /// How many files.
    pub files: usize,
    /// Bytes of its files.
    pub plain: Bytes,
    /// Its share of the packed file system. `None`: not known.
    pub packed: Option<Bytes>,
    /// What it is made of: .debs, programs, files of the recipe. By size, the largest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Size>,
}

/// How one package's size changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Growth {
    /// The package.
    pub name: String,
    /// What it took; zero: it was not there.
    pub before: Bytes,
    /// What it takes; zero: it is gone.
    pub now: Bytes,
}

impl Growth {
    /// Bytes more; negative: less.
    pub fn by(&self) -> i128 {
        i128::from(self.now.0) - i128::from(self.before.0)
    }
}

/// Sums of sizes under a name.
#[derive(Debug, Default)]
struct Sum {
    files: usize,
    plain: u64,
    packed: u64,
    parts: BTreeMap<String, Sum>,
}

impl Sizes {
    /// The sizes of what counts in an image; `packed` knows what a file takes in the packed file
    /// system.
    pub fn of(contents: &Contents, packed: Option<&dyn Fn(&str) -> Bytes>) -> Sizes {
        let mut packages: BTreeMap<String, Sum> = BTreeMap::new();
        for (path, (member, origin)) in contents.standing() {
            if member.kind != Kind::File || path.starts_with("boot/") {
                continue; // the kernel travels beside the root file system
            }
            let share = packed.map_or(0, |p| p(path).0);
            let package = packages.entry(package(origin)).or_default();
            let part = match origin.from.as_str() {
                "" => "",
                from if from.contains(".deb") => from,
                from if from.starts_with("cargo ") => from,
                _ => "recipe",
            };
            package.add(member.size.0, share);
            if !part.is_empty() {
                package.parts.entry(part.to_owned()).or_default().add(member.size.0, share);
            }
        }
        let known = packed.is_some();
        let packages = rows(packages, known);
        let plain = Bytes(packages.iter().map(|p| p.plain.0).sum());
        let all = packages.iter().filter_map(|p| p.packed).map(|p| p.0).sum();
        Sizes { plain, packed: known.then_some(Bytes(all)), packages }
    }

    /// How each package changed since `before`: what grew most comes first, what is the same is left
    /// out. Packed sizes count where both are known.
    pub fn growth(&self, before: &Sizes) -> Vec<Growth> {
        let packed = self.packed.is_some() && before.packed.is_some();
        let sizes = |all: &Sizes| -> BTreeMap<String, Bytes> {
            let size = |s: &Size| s.packed.filter(|_| packed).unwrap_or(s.plain);
            all.packages.iter().map(|s| (s.name.clone(), size(s))).collect()
        };
        let (old, new) = (sizes(before), sizes(self));
        let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let mut all: Vec<Growth> = names
            .into_iter()
            .map(|name| Growth {
                name: name.clone(),
                before: old.get(name).copied().unwrap_or_default(),
                now: new.get(name).copied().unwrap_or_default(),
            })
            .filter(|g| g.before != g.now)
            .collect();
        all.sort_by_key(|g| std::cmp::Reverse(g.by()));
        all
    }
}

impl Sum {
    fn add(&mut self, plain: u64, packed: u64) {
        self.files += 1;
        self.plain = self.plain.saturating_add(plain);
        self.packed = self.packed.saturating_add(packed);
    }
}

fn rows(sums: BTreeMap<String, Sum>, known: bool) -> Vec<Size> {
    let mut rows: Vec<Size> = sums
        .into_iter()
        .map(|(name, sum)| Size {
            name,
            files: sum.files,
            plain: Bytes(sum.plain),
            packed: known.then_some(Bytes(sum.packed)),
            parts: rows(sum.parts, known),
        })
        .collect();
    rows.sort_by_key(|r| std::cmp::Reverse((r.packed, r.plain)));
    rows
}

/// The package of an origin: its image without registry and tag.
fn package(origin: &Origin) -> String {
    let source = origin.source.as_str();
    if source.is_empty() && origin.location.is_empty() {
        return UNKNOWN.to_owned();
    }
    if source.is_empty() || !source.contains('/') {
        return BUILD.to_owned();
    }
    let name = source.split('@').next().unwrap_or(source);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    name.strip_prefix("docker.io/").unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use store::tarball::{Header, Kind as MemberKind, Time, Writer};

    use super::*;
    use crate::pkg::FROM;

    fn contents(eved: usize) -> Contents {
        let mut tar = Writer::new(Vec::new());
        for (path, source, from, size) in [
            ("usr/lib/libc.so.6", "docker.io/eve/base:1", "libc6_2.41_amd64.deb", 300),
            ("etc/hosts", "docker.io/eve/base:1", "pkg/base/hosts", 7),
            ("usr/bin/eved", "localhost:5000/eve/eved@sha256:00", "cargo eved", eved),
            ("etc/hosts", "linuxkit.files", "", 9),
            ("boot/kernel", "docker.io/eve/kernel:1", "", 4000),
        ] {
            let mut header = Header::new(path, MemberKind::File, 0o755, Time::seconds(1));
            header.records.insert("LINUXKIT.source".into(), source.into());
            if !from.is_empty() {
                header.records.insert(FROM.into(), from.into());
            }
            tar.member(&header, &vec![0; size]).unwrap();
        }
        Contents::of_tar(&tar.finish().unwrap()[..], |_, _, _, _| Ok(())).unwrap()
    }

    #[test]
    fn packages_are_as_large_as_what_counts_of_them() {
        let sizes = Sizes::of(&contents(500), None);
        let show = |s: &Size| format!("{} {} {}", s.name, s.files, s.plain.0);
        assert_eq!(
            sizes.packages.iter().map(show).collect::<Vec<_>>(),
            ["localhost:5000/eve/eved 1 500", "eve/base 1 300", "the build itself 1 9"]
        );
        assert_eq!(sizes.packages[1].parts[0].name, "libc6_2.41_amd64.deb");
        assert_eq!((sizes.plain, sizes.packed), (Bytes(809), None));
        let packed = Sizes::of(&contents(500), Some(&|path| Bytes(path.len() as u64)));
        assert_eq!(packed.packed, Some(Bytes(17 + 12 + 9)));
    }

    #[test]
    fn growth_names_what_grew_most_first() {
        let (before, now) = (Sizes::of(&contents(500), None), Sizes::of(&contents(800), None));
        let grown = now.growth(&before);
        assert_eq!(grown.len(), 1);
        assert_eq!((grown[0].name.as_str(), grown[0].by()), ("localhost:5000/eve/eved", 300));
        assert_eq!(before.growth(&now)[0].by(), -300);
        assert_eq!(now.growth(&Sizes::default())[0].name, "localhost:5000/eve/eved");
    }
}
