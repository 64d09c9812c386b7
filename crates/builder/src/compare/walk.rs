//! From the outside in, both sides at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use formats::ext4;
use formats::tree::{Kind, Node, Tree};

use super::{CompareError, Comparison, Difference, What, normal};
use crate::contents::text;
use crate::inspect::{DIGESTS, Inside, Opened, Piece, open};

/// Boxes in boxes in boxes.
const DEPTH_MAX: usize = 12;
/// Two files of this size at most are held side by side to look for signatures.
const SIGNED_MAX: u64 = 256 << 20;
/// Texts of this length at most are shown.
const SHOWN_MAX: usize = 200;
/// The word on a kernel's command line that says the digest of the root file system.
const VERITY: &str = "eve.verity=";

/// A comparison on its way.
#[derive(Debug, Default)]
pub(super) struct Walk {
    done: Comparison,
    depth: usize,
    /// Digests that differ, until it is known whether something explains that.
    digests: Vec<Difference>,
    /// Whether bytes of a file system differ.
    explained: bool,
}

impl Walk {
    /// What was found, in order.
    pub(super) fn finish(mut self) -> Comparison {
        let into = if self.explained { &mut self.done.excused } else { &mut self.done.differences };
        into.append(&mut self.digests);
        self.done.differences.sort();
        self.done.excused.sort();
        self.done
    }

    /// Two things that were taken apart.
    pub(super) fn opened(
        &mut self,
        at: &str,
        (one, a): (Option<Piece>, Opened),
        (two, b): (Option<Piece>, Opened),
    ) -> Result<(), CompareError> {
        match (a, b) {
            (Opened::Tree(a), Opened::Tree(b)) => {
                self.explained |= a.what == "squashfs" && b.what == "squashfs";
                self.about(at, &a, &b);
                self.tree(at, &a.inside, &b.inside)
            }
            (Opened::Parts(a), Opened::Parts(b)) if a.what == b.what => {
                self.about(at, &a, &b);
                self.parts(at, &a.inside, &b.inside)
            }
            // Both have partitions.
            (Opened::Parts(a), Opened::Parts(b))
                if [a.what, b.what].iter().all(|what| ["disk", "ISO"].contains(what)) =>
            {
                self.differ(at, What::Fact, "format", a.what, b.what);
                self.parts(at, &a.inside, &b.inside)
            }
            // A disk in a format of its own is compared by what is in it.
            (Opened::Parts(mut a), b) if a.inside.contains_key("disk") => {
                let disk = a.inside.remove("disk");
                self.differ(at, What::Fact, "format", a.what, "another");
                self.unlike(at, disk, (two, b), false)
            }
            (a, Opened::Parts(mut b)) if b.inside.contains_key("disk") => {
                let disk = b.inside.remove("disk");
                self.differ(at, What::Fact, "format", "another", b.what);
                self.unlike(at, disk, (one, a), true)
            }
            (a, b) => match (one, two) {
                (Some(one), Some(two)) => self.plain(at, &one, &two),
                _ => {
                    self.differ(at, What::Kind, "", kind_of(&a), kind_of(&b));
                    Ok(())
                }
            },
        }
    }

    fn unlike(
        &mut self,
        at: &str,
        disk: Option<Piece>,
        other: (Option<Piece>, Opened),
        swapped: bool,
    ) -> Result<(), CompareError> {
        let Some(disk) = disk else { return Ok(()) };
        let opened = open(&disk).map_err(inside(at))?;
        let disk = (Some(disk), opened);
        if swapped { self.opened(at, other, disk) } else { self.opened(at, disk, other) }
    }

    /// What two containers of one kind say of themselves.
    fn about<T>(&mut self, at: &str, one: &Inside<T>, two: &Inside<T>) {
        if one.what != two.what {
            return; // an archive of a folder is asked about what is in it
        }
        let names: BTreeSet<&&str> = one.facts.keys().chain(two.facts.keys()).collect();
        for name in names {
            let say =
                |facts: &BTreeMap<&str, String>| facts.get(*name).cloned().unwrap_or_default();
            let (a, b) = (say(&one.facts), say(&two.facts));
            if DIGESTS.contains(name) && a != b {
                self.digests.push(difference(&join(at, name), What::Digest, &a, &b));
            } else {
                self.text(at, What::Fact, name, &a, &b);
            }
        }
        if one.made != two.made {
            let say = |made: &Option<String>| made.clone().unwrap_or_default();
            self.excuse(at, What::Time, &say(&one.made), &say(&two.made));
        }
    }

    fn parts(
        &mut self,
        at: &str,
        one: &BTreeMap<String, Piece>,
        two: &BTreeMap<String, Piece>,
    ) -> Result<(), CompareError> {
        let names: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
        for name in names {
            let place = join(at, name);
            match (one.get(name), two.get(name)) {
                (Some(a), Some(b)) => self.pieces(&place, a, b)?,
                (a, _) => self.alone(&place, a.is_some(), ""),
            }
        }
        Ok(())
    }

    /// Two pieces whose bytes may be the same.
    fn pieces(&mut self, at: &str, one: &Piece, two: &Piece) -> Result<(), CompareError> {
        let same = one.size() == two.size() && one.differs(two).map_err(inside(at))?.is_none();
        if same {
            return Ok(());
        }
        if self.depth >= DEPTH_MAX {
            return self.plain(at, one, two);
        }
        let (a, b) = (open(one).map_err(inside(at))?, open(two).map_err(inside(at))?);
        self.depth += 1;
        let before = (self.done.differences.len(), self.done.excused.len(), self.digests.len());
        let outcome = self.opened(at, (Some(one.clone()), a), (Some(two.clone()), b));
        self.depth -= 1;
        let after = (self.done.differences.len(), self.done.excused.len(), self.digests.len());
        if before == after {
            // Everything that we can see in them is the same, and yet their bytes differ.
            self.content(at, one, two)?;
        }
        outcome
    }

    fn tree(&mut self, at: &str, one: &Tree<Piece>, two: &Tree<Piece>) -> Result<(), CompareError> {
        let paths: BTreeSet<&[u8]> = one.iter().chain(two.iter()).map(|(p, _)| p).collect();
        for path in paths {
            self.done.files += 1;
            let place = join(at, &text(path));
            match (one.get(path), two.get(path)) {
                (Some(a), Some(b)) => self.node(&place, (path, a, one), (path, b, two))?,
                (Some(node), None) => self.alone(&place, true, word(node)),
                (None, Some(node)) => self.alone(&place, false, word(node)),
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn node(
        &mut self,
        at: &str,
        (path, a, one): (&[u8], &Node<Piece>, &Tree<Piece>),
        (_, b, two): (&[u8], &Node<Piece>, &Tree<Piece>),
    ) -> Result<(), CompareError> {
        let hard = |node: &Node<Piece>| matches!(node.kind, Kind::Same(_));
        if !hard(a) && !hard(b) {
            self.meta(at, a, b);
        }
        match (&a.kind, &b.kind) {
            (Kind::File(a), Kind::File(b)) => self.pieces(at, &a.at, &b.at),
            (Kind::Symlink(a), Kind::Symlink(b)) | (Kind::Same(a), Kind::Same(b)) => {
                self.text(at, What::Target, "", &text(a), &text(b));
                Ok(())
            }
            (Kind::Char { major: m, minor: n }, Kind::Char { major: o, minor: p })
            | (Kind::Block { major: m, minor: n }, Kind::Block { major: o, minor: p }) => {
                self.text(at, What::Device, "", &format!("{m}:{n}"), &format!("{o}:{p}"));
                Ok(())
            }
            _ if word(a) == word(b) => Ok(()),
            // A hard link on one side is a file of its own on the other.
            _ => {
                self.differ(at, What::Kind, "", word(a), word(b));
                match (one.file(path), two.file(path)) {
                    (Some(a), Some(b)) => self.pieces(at, &a.at, &b.at),
                    _ => Ok(()),
                }
            }
        }
    }

    fn meta(&mut self, at: &str, a: &Node<Piece>, b: &Node<Piece>) {
        let (a, b) = (&a.meta, &b.meta);
        self.text(at, What::Mode, "", &format!("{:04o}", a.mode), &format!("{:04o}", b.mode));
        let owner = |uid, gid| format!("{uid}:{gid}");
        self.text(at, What::Owner, "", &owner(a.uid, a.gid), &owner(b.uid, b.gid));
        let names: BTreeSet<&Vec<u8>> = a.xattrs.keys().chain(b.xattrs.keys()).collect();
        for name in names {
            let say = |all: &BTreeMap<Vec<u8>, Vec<u8>>| {
                all.get(name).map(|v| text(v)).unwrap_or_default()
            };
            self.text(at, What::Attribute, &text(name), &say(&a.xattrs), &say(&b.xattrs));
        }
        if a.mtime != b.mtime {
            self.excuse(at, What::Time, &a.mtime.to_string(), &b.mtime.to_string());
        }
    }

    /// Two pieces that cannot be taken apart.
    fn plain(&mut self, at: &str, one: &Piece, two: &Piece) -> Result<(), CompareError> {
        if one.size() == two.size() && one.differs(two).map_err(inside(at))?.is_none() {
            return Ok(());
        }
        let head = |piece: &Piece| piece.head(ext4::HEAD as u64).map_err(inside(at));
        if ext4::is_marked(&head(one)?) && ext4::is_marked(&head(two)?) {
            return self.content(&format!("{at} (an ext4, which is not read)"), one, two);
        }
        if one.size() <= SIGNED_MAX && two.size() <= SIGNED_MAX {
            let read = |piece: &Piece| piece.head(SIGNED_MAX).map_err(inside(at));
            let (a, b) = (read(one)?, read(two)?);
            match normal::same(&a, &b) {
                Some(normal::Reason::Signature) => {
                    self.excuse(at, What::Signature, "", "");
                    return Ok(());
                }
                Some(normal::Reason::Key) => {
                    self.excuse(at, What::Key, "", "");
                    return Ok(());
                }
                None => {}
            }
            if let Some((a, b)) = digests_of(&a, &b) {
                self.digests.push(difference(at, What::Digest, &a, &b));
                return Ok(());
            }
        }
        self.content(at, one, two)
    }

    fn content(&mut self, at: &str, one: &Piece, two: &Piece) -> Result<(), CompareError> {
        let first = one.differs(two).map_err(inside(at))?;
        let first = first.map_or_else(String::new, |n| format!(" (from byte {n})"));
        let (a, b) = (one.size().to_string(), two.size().to_string());
        if a == b {
            self.done.differences.push(difference(at, What::Content, &first, &first));
        } else {
            self.done.differences.push(difference(at, What::Size, &(a + &first), &(b + &first)));
        }
        Ok(())
    }

    fn alone(&mut self, at: &str, first: bool, kind: &str) {
        let what = if first { What::Removed } else { What::Added };
        let (one, two) = if first { (kind, "") } else { ("", kind) };
        self.done.differences.push(difference(at, what, one, two));
    }

    /// Two texts, which may be the same.
    fn text(&mut self, at: &str, what: What, name: &str, one: &str, two: &str) {
        if one != two {
            self.differ(at, what, name, one, two);
        }
    }

    fn differ(&mut self, at: &str, what: What, name: &str, one: &str, two: &str) {
        let at = match (at.is_empty(), name.is_empty()) {
            (_, true) => at.to_owned(),
            (true, _) => name.to_owned(),
            _ => format!("{at}: {name}"),
        };
        self.done.differences.push(difference(&at, what, one, two));
    }

    fn excuse(&mut self, at: &str, what: What, one: &str, two: &str) {
        self.done.excused.push(difference(at, what, one, two));
    }
}

/// The digests in two command lines that differ in nothing else.
fn digests_of(one: &[u8], two: &[u8]) -> Option<(String, String)> {
    fn split(bytes: &[u8]) -> Option<(Vec<&str>, &str)> {
        let text = std::str::from_utf8(bytes).ok()?;
        let words: Vec<&str> = text.split([' ', '\0', '\n']).collect();
        let digest = words.iter().find_map(|w| w.strip_prefix(VERITY))?;
        Some((words.into_iter().filter(|w| !w.starts_with(VERITY)).collect(), digest))
    }
    let ((a, x), (b, y)) = (split(one)?, split(two)?);
    (a == b).then(|| (x.to_owned(), y.to_owned()))
}

fn difference(at: &str, what: What, one: &str, two: &str) -> Difference {
    let short = |text: &str| match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    Difference { at: at.to_owned(), what, one: short(one), two: short(two) }
}

fn join(at: &str, name: &str) -> String {
    match (at.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (_, true) => at.to_owned(),
        _ => format!("{at} / {name}"),
    }
}

fn inside(at: &str) -> impl Fn(io::Error) -> CompareError {
    move |source| CompareError::Inside { at: at.to_owned(), source }
}

fn kind_of(opened: &Opened) -> &'static str {
    match opened {
        Opened::Tree(inside) => inside.what,
        Opened::Parts(inside) => inside.what,
        Opened::Plain => "plain bytes",
    }
}

fn word(node: &Node<Piece>) -> &'static str {
    match node.kind {
        Kind::Folder => "folder",
        Kind::File(_) => "file",
        Kind::Symlink(_) => "symbolic link",
        Kind::Same(_) => "hard link",
        Kind::Char { .. } => "character device",
        Kind::Block { .. } => "block device",
        Kind::Fifo => "pipe",
        Kind::Socket => "socket",
    }
}
