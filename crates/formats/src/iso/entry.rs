//! What Rock Ridge adds to a directory record: rights, times, names, links, devices.

use super::{Date, SECTOR_LENGTH, both32};
use crate::tree::{Kind, Meta};

/// No entry is longer.
const ENTRY_MAX: usize = 255;
/// The entry that says where more of them stand.
const CONTINUATION: usize = 28;
const CONTINUES: u8 = 1;
/// Components of a link: this folder, the one above, the root.
const CURRENT: u8 = 2;
const PARENT: u8 = 4;
const ROOT: u8 = 8;
/// What the standard wants said of itself.
const EXTENSION: [&[u8]; 3] = [
    b"IEEE_1282",
    b"THE IEEE 1282 PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS.",
    b"PLEASE CONTACT THE IEEE STANDARDS DEPARTMENT, PISCATAWAY, NJ, USA FOR THE 1282 SPECIFICATION.",
];

/// Room for entries that do not fit into their records: whole sectors somewhere.
#[derive(Default)]
pub(super) struct Overflow {
    /// Its first sector.
    pub(super) at: u32,
    pub(super) bytes: Vec<u8>,
}

/// A node's entries but for its name: mode, links, owner, number, times; a link's text; a device.
pub(super) fn of_node<C>(kind: &Kind<C>, meta: &Meta, links: u32, number: u32) -> Vec<Vec<u8>> {
    let kind_bits: u32 = match kind {
        Kind::Folder => 0o040_000,
        Kind::File(_) | Kind::Same(_) => 0o100_000,
        Kind::Symlink(_) => 0o120_000,
        Kind::Char { .. } => 0o020_000,
        Kind::Block { .. } => 0o060_000,
        Kind::Fifo => 0o010_000,
        Kind::Socket => 0o140_000,
    };
    let mode = kind_bits | u32::from(meta.mode & 0o7777);
    let numbers = [mode, links, meta.uid, meta.gid, number].map(both32);
    let date = Date::of(meta.mtime).short();
    // Changed, read, and its attributes changed: all at the one time that is known.
    let times = [&[0x0E][..], &date, &date, &date].concat();
    let mut entries = vec![entry(b"PX", numbers.as_flattened()), entry(b"TF", &times)];
    match kind {
        Kind::Symlink(text) => entries.extend(link(text)),
        Kind::Char { major, minor } | Kind::Block { major, minor } => {
            entries.push(entry(b"PN", [*major, *minor].map(both32).as_flattened()));
        }
        _ => {}
    }
    entries
}

/// A node's name.
pub(super) fn name(name: &[u8]) -> Vec<Vec<u8>> {
    let pieces: Vec<&[u8]> = name.chunks(ENTRY_MAX - 5).collect();
    let count = pieces.len();
    let pieces = pieces.into_iter().enumerate();
    pieces
        .map(|(n, piece)| {
            let flags = if n + 1 < count { CONTINUES } else { 0 };
            entry(b"NM", &[&[flags], piece].concat())
        })
        .collect()
}

/// What the root says first: that there are such entries, and whose they are.
pub(super) fn of_root() -> [Vec<u8>; 2] {
    let [id, about, source] = EXTENSION;
    let lengths = [id, about, source].map(|text| u8::try_from(text.len()).unwrap_or(0));
    let extension = [&lengths[..], &[1], id, about, source].concat();
    [entry(b"SP", &[0xBE, 0xEF, 0]), entry(b"ER", &extension)]
}

/// The entries that fit into `room` bytes of a record; the others go to `overflow`.
pub(super) fn fit(entries: &[Vec<u8>], room: usize, overflow: &mut Overflow) -> Vec<u8> {
    let all: usize = entries.iter().map(Vec::len).sum();
    if all <= room {
        return entries.concat();
    }
    let mut kept = Vec::new();
    let mut count = 0;
    while kept.len() + entries[count].len() + CONTINUATION <= room {
        kept.extend(&entries[count]);
        count += 1;
    }
    let more = fit(&entries[count..], SECTOR_LENGTH, overflow);
    let start = overflow.bytes.len();
    // It may not cross into another sector.
    let start = if start % SECTOR_LENGTH + more.len() > SECTOR_LENGTH {
        start.next_multiple_of(SECTOR_LENGTH)
    } else {
        start
    };
    overflow.bytes.resize(start, 0);
    overflow.bytes.extend(&more);
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let at = overflow.at.saturating_add(small(start / SECTOR_LENGTH));
    let place = [at, small(start % SECTOR_LENGTH), small(more.len())].map(both32);
    kept.extend(entry(b"CE", place.as_flattened()));
    kept
}

fn entry(signature: &[u8; 2], body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(4 + body.len()).unwrap_or(u8::MAX);
    [&signature[..], &[length, 1], body].concat()
}

/// The text of a symbolic link, in components.
fn link(text: &[u8]) -> Vec<Vec<u8>> {
    let mut components: Vec<Vec<u8>> = Vec::new();
    if text.starts_with(b"/") {
        components.push(vec![ROOT, 0]);
    }
    for part in text.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
        match part {
            b"." => components.push(vec![CURRENT, 0]),
            b".." => components.push(vec![PARENT, 0]),
            _ => {
                let pieces: Vec<&[u8]> = part.chunks(ENTRY_MAX - 7).collect();
                let last = pieces.len() - 1;
                components.extend(pieces.iter().enumerate().map(|(n, piece)| {
                    let flags = if n < last { CONTINUES } else { 0 };
                    [&[flags, u8::try_from(piece.len()).unwrap_or(0)], *piece].concat()
                }));
            }
        }
    }
    let mut bodies: Vec<Vec<u8>> = vec![Vec::new()];
    for component in components {
        let full = bodies.last().is_some_and(|b| b.len() + component.len() > ENTRY_MAX - 5);
        if full {
            bodies.push(Vec::new());
        }
        if let Some(body) = bodies.last_mut() {
            body.extend(component);
        }
    }
    let last = bodies.len() - 1;
    let flags = |n| if n < last { CONTINUES } else { 0 };
    let bodies = bodies.iter().enumerate();
    bodies.map(|(n, body)| entry(b"SL", &[&[flags(n)], &body[..]].concat())).collect()
}
