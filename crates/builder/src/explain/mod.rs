//! Why a path is in an image: the entry of the description, the package image and its layer, the .deb,
//! recipe or program that put it there, and what else wanted the same path.

use std::collections::BTreeMap;

use model::{Bytes, Digest};
use serde::Serialize;
use store::{Image, Layout, Platform, flatten};

use crate::contents::{Contents, Kind, Member, Origin, text};
use crate::describe::Described;
use crate::near::distance;

/// So many guesses are offered for a path that is not there.
const GUESSES: usize = 5;
/// Links that lead to links that lead to links.
const HOPS_MAX: usize = 16;
/// The most that a package image may unpack to while its layers are looked through.
const IMAGE_MAX: Bytes = Bytes::gib(16);

/// Why a path is in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The path that was asked for, without a slash at the start.
    pub path: String,
    /// Symbolic links on the way, if there are any: link and target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<(String, String)>,
    /// What stands there.
    pub put: Put,
    /// What was put there before and does not count, the latest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<Put>,
}

/// A member of the root file system and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Put {
    /// Its path.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Bytes of a file.
    pub size: Bytes,
    /// Target of a link.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub link: String,
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// Where the description says the entry: file, line and column, and what was done to it since.
    /// Filled by [`said`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// The layer of the image that brought it, where the image is at hand. Filled by [`layer`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<Layer>,
}

/// A layer of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// Its digest.
    pub digest: Digest,
    /// Its number, from 1 for the lowest.
    pub number: usize,
    /// How many the image has.
    pub of: usize,
}

/// There is no such path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no /{path} in the image")]
pub struct NoSuchPath {
    /// What was asked for.
    pub path: String,
    /// What is there and looks like it.
    pub near: Vec<String>,
}

/// Explains a path. Links on the way are followed, but not the last name: a link is explained as what
/// it is.
pub fn explain(contents: &Contents, path: &str) -> Result<Explanation, NoSuchPath> {
    let standing = contents.standing();
    let asked = path.trim_matches('/').to_owned();
    let mut links = Vec::new();
    let real = follow(&standing, &asked, &mut links);
    let Some((member, origin)) = standing.get(real.as_str()) else {
        return Err(NoSuchPath { near: near(&standing, &asked), path: asked });
    };
    let all = contents.iter().rev().filter(|(m, _)| m.path == real).skip(1);
    let shadows = all.map(|(m, o)| put(m, o)).collect();
    Ok(Explanation { path: asked, links, put: put(member, origin), shadows })
}

fn put(member: &Member, origin: &Origin) -> Put {
    Put {
        path: member.path.clone(),
        kind: member.kind,
        size: member.size,
        link: member.link.clone(),
        origin: origin.clone(),
        said: None,
        layer: None,
    }
}

type Standing<'a> = BTreeMap<&'a str, (&'a Member, &'a Origin)>;

/// The path with the links in its folders followed.
fn follow(standing: &Standing<'_>, path: &str, links: &mut Vec<(String, String)>) -> String {
    let mut path = path.to_owned();
    for _ in 0..HOPS_MAX {
        let mut ends = path.match_indices('/').map(|(at, _)| at);
        let Some((at, link)) = ends.find_map(|at| {
            let (member, _) = standing.get(&path[..at])?;
            (member.kind == Kind::Symlink).then(|| (at, member.link.clone()))
        }) else {
            break;
        };
        links.push((path[..at].to_owned(), link.clone()));
        let folder = path[..at].rsplit_once('/').map_or("", |(folder, _)| folder);
        let base = if link.starts_with('/') { "" } else { folder };
        path = joined(base, &format!("{link}{}", &path[at..]));
    }
    path
}

/// A path relative to a folder, without `.` and `..`.
fn joined(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = base.split('/').filter(|p| !p.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// What is there and looks like a path that is not: the same name elsewhere first, then names that
/// differ by few letters.
fn near(standing: &Standing<'_>, asked: &str) -> Vec<String> {
    let name = asked.rsplit('/').next().unwrap_or(asked);
    let close = |path: &&str| {
        let other = path.rsplit('/').next().unwrap_or(path);
        let letters = name.chars().count();
        let apart = distance(name, other);
        let starts = letters > 2 && other.starts_with(name);
        (apart * 3 <= letters || starts).then(|| (apart, distance(asked, path), (*path).to_owned()))
    };
    let mut found: Vec<_> = standing.keys().filter_map(close).collect();
    found.sort();
    found.into_iter().take(GUESSES).map(|(_, _, path)| format!("/{path}")).collect()
}

/// Where a description says the entry that brought a member. `None`: nowhere, or its entry of this
/// number is another, so that the image was made of another description.
pub fn said(put: &Put, described: &Described) -> Option<String> {
    let location = put.origin.location.as_str();
    let (list, number) = location.split_once('[').unwrap_or((location, ""));
    let (entry, of_image) = match list {
        "kernel" => (".kernel.image".to_owned(), true),
        "init" => (format!(".init[{number}"), true),
        // Its records say one thing and its description another.
        "volume" => (format!(".volumes[{number}.image"), true),
        "files" => (format!(".files[{number}.path"), false),
        _ => (format!(".{list}[{number}.image"), true),
    };
    let said = described.explain().into_iter().find(|said| said.path == entry)?;
    let fits = match of_image {
        true => names(&said.value, &put.origin.source),
        false => said.value.trim_matches('/') == put.path,
    };
    fits.then_some(said.origin)
}

/// Whether an entry names this image: itself, or one of our packages.
fn names(entry: &str, image: &str) -> bool {
    match entry.strip_prefix("@pkg:") {
        Some(package) => {
            let name = package.trim_end_matches('/').rsplit('/').next().unwrap_or(package);
            let image = image.rsplit('/').next().unwrap_or(image);
            image.split([':', '@']).next() == Some(name)
        }
        None => image == entry || image.ends_with(&format!("/{entry}")),
    }
}

/// Finds the layer that brought a member, among the images of a layout. `None` if its image is not
/// there, or has no such file.
pub fn layer(put: &Put, layout: &Layout, arch: &str) -> Option<Layer> {
    let found = layout.resolve(&put.origin.source, &Platform::linux(arch)).ok()?;
    let image = Image::read(layout, &found).ok()?;
    let layers = &image.manifest.layers;
    if let [only] = layers.as_slice() {
        return Some(Layer { digest: only.digest, number: 1, of: 1 });
    }
    // The topmost that has it counts; each layer is looked at alone.
    for (n, one) in layers.iter().enumerate().rev() {
        let mut manifest = image.manifest.clone();
        manifest.layers = vec![one.clone()];
        let mut has = false;
        let looked = flatten(layout, &manifest, IMAGE_MAX, |header, _| {
            let path = text(&header.path);
            // Containers have the image's files below a folder of their own.
            has |= put.path == path || put.path.ends_with(&format!("/{path}"));
            Ok::<_, store::StoreError>(())
        });
        if looked.is_ok() && has {
            return Some(Layer { digest: one.digest, number: n + 1, of: layers.len() });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use store::tarball::{Header, Kind as MemberKind, Time, Writer};

    use super::*;
    use crate::describe::{self, Text, Words, describe};
    use crate::pkg::FROM;

    fn contents() -> Contents {
        let mut tar = Writer::new(Vec::new());
        for (path, link, location, from) in [
            ("usr/bin/crun", "", "init[4]", "crun_1.21-1_amd64.deb"),
            ("usr/bin/nft", "", "init[5]", "nftables_1.1_amd64.deb"),
            ("bin", "usr/bin", "init[0]", "pkg/base/pkg.toml"),
            ("etc/hosts", "", "init[0]", "pkg/base/hosts"),
            ("etc/hosts", "", "init[0]", ""),
            ("etc/hosts", "", "files[0]", ""),
            ("sbin", "/bin", "init[0]", "pkg/base/pkg.toml"),
        ] {
            let kind = if link.is_empty() { MemberKind::File } else { MemberKind::Symlink };
            let mut header = Header::new(path, kind, 0o755, Time::seconds(1));
            header.link = link.into();
            header.records.insert("LINUXKIT.location".into(), location.into());
            header.records.insert("LINUXKIT.source".into(), "docker.io/eve/x:1".into());
            if !from.is_empty() {
                header.records.insert(FROM.into(), from.into());
            }
            tar.header(&header).unwrap();
        }
        Contents::of_tar(&tar.finish().unwrap()[..], |_, _, _, _| Ok(())).unwrap()
    }

    #[test]
    fn a_path_is_explained_by_who_put_it_there() {
        let found = explain(&contents(), "/usr/bin/crun").unwrap();
        assert_eq!(found.put.origin.location, "init[4]");
        assert_eq!(found.put.origin.from, "crun_1.21-1_amd64.deb");
        assert!(found.shadows.is_empty() && found.links.is_empty());
    }

    #[test]
    fn an_entry_is_found_where_its_description_says_it() {
        let text = "kernel:\n  image: KERNEL_TAG\ninit:\n  - '@pkg:pkg/base'\n  - \"x:1\"\n\
                    files:\n  - path: etc/hosts\n    contents: a\n";
        let template = Text { name: "a.yml.in".to_owned(), text: text.to_owned() };
        let mut words = Words::default();
        words.say("KERNEL_TAG", "@pkg:pkg/kernel", "tags.toml");
        let described = describe(&describe::Request {
            template,
            modifiers: Vec::new(),
            hv: None,
            platform: None,
            version: None,
            variant: describe::Variant::default(),
            words,
        })
        .unwrap();
        let check = |location: &str, source: &str, path: &str, want: Option<&str>| {
            let contents = contents();
            let mut put = explain(&contents, "etc/hosts").unwrap().put;
            put.origin = Origin {
                location: location.to_owned(),
                source: source.to_owned(),
                from: String::new(),
            };
            put.path = path.to_owned();
            assert_eq!(said(&put, &described).as_deref(), want, "{location}");
        };
        check("init[0]", "docker.io/eve/base:0123", "etc/x", Some("a.yml.in:4:5"));
        check("init[1]", "docker.io/library/x:1", "etc/x", Some("a.yml.in:5:5"));
        check("init[1]", "docker.io/eve/base:0123", "etc/x", None);
        check("init[9]", "docker.io/eve/base:0123", "etc/x", None);
        check("files[0]", "linuxkit.files", "etc/hosts", Some("a.yml.in:7:11"));
        check("files[0]", "linuxkit.files", "etc/other", None);
        let kernel = "a.yml.in:2:10; KERNEL_TAG is \"@pkg:pkg/kernel\" (tags.toml)";
        check("kernel", "eve/kernel@sha256:00", "boot/kernel", Some(kernel));
        check("", "", "bits/slot.img", None);
    }

    #[test]
    fn what_lies_below_tells_that_it_does_not_count() {
        let found = explain(&contents(), "etc/hosts").unwrap();
        assert_eq!(found.put.origin.location, "files[0]");
        let shadows: Vec<&str> = found.shadows.iter().map(|p| p.origin.from.as_str()).collect();
        assert_eq!(shadows, ["", "pkg/base/hosts"]);
    }

    #[test]
    fn links_are_followed_on_the_way_but_not_at_the_end() {
        let found = explain(&contents(), "/sbin/nft").unwrap();
        assert_eq!(found.put.path, "usr/bin/nft");
        assert_eq!(found.links.len(), 2);
        let link = explain(&contents(), "/bin").unwrap();
        assert_eq!((link.put.kind, link.put.link.as_str()), (Kind::Symlink, "usr/bin"));
    }

    #[test]
    fn a_path_that_is_not_there_is_answered_with_its_neighbours() {
        let near = |path| explain(&contents(), path).unwrap_err().near;
        assert_eq!(near("/usr/sbin/nft"), ["/usr/bin/nft"]);
        assert_eq!(near("/usr/bin/crum"), ["/usr/bin/crun"]);
        assert_eq!(near("/etc/host"), ["/etc/hosts"]);
        assert_eq!(near("/nothing/like/it"), Vec::<String>::new());
    }
}
