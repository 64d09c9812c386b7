//! What is in an ISO 9660 image: its partitions, where it has a table of them, and its files.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use formats::iso;
use formats::tree::Kind;
use model::Bytes;

use super::open::{Inside, Opened, partitions};
use super::piece::Piece;
use crate::contents::text;

/// Where the first volume descriptor starts, and what stands in it.
const STANDARD: (u64, &[u8]) = (32769, b"CD001");

/// An ISO, taken apart. `None`: it is none, or it cannot be read.
pub(super) fn open(piece: &Piece) -> io::Result<Option<Opened>> {
    let (at, mark) = STANDARD;
    if piece.part(at, mark.len() as u64).head(mark.len() as u64)? != mark {
        return Ok(None);
    }
    let Ok(image) = iso::read(&mut piece.open()) else { return Ok(None) };
    let mut opened = Inside::new("ISO", BTreeMap::new());
    // What is a partition and a file as well is told once, as a partition.
    let mut told = BTreeSet::new();
    if let Some(disk) = partitions(piece)? {
        opened.facts = disk.facts;
        told.extend(disk.inside.values().map(Piece::start));
        opened.inside = disk.inside;
    }
    opened.facts.insert("volume", image.id);
    opened.facts.insert("size", image.size.0.to_string());
    if let Some((at, length)) = image.boot
        && told.insert(piece.start() + at)
    {
        // An image may leave its length open.
        let rest = Bytes(piece.size().saturating_sub(at));
        let boot = piece.part(at, length.unwrap_or(rest).0);
        opened.inside.insert("what firmware boots".to_owned(), boot);
    }
    let mut rows = Vec::new();
    for (path, node) in image.tree.iter() {
        let path = format!("/{}", text(path));
        rows.push(format!("{path} {:04o} {}:{}", node.meta.mode, node.meta.uid, node.meta.gid));
        match &node.kind {
            Kind::File(content) => match whole(&content.at) {
                Some(place) if told.contains(&(piece.start() + place.start)) => {}
                Some(place) => {
                    let body = piece.part(place.start, place.end - place.start);
                    opened.inside.insert(path, body);
                }
                None => return Ok(None),
            },
            Kind::Symlink(to) | Kind::Same(to) => rows.push(format!("{path} -> {}", text(to))),
            _ => {}
        }
    }
    opened.facts.insert("names", rows.join("; "));
    opened.made = Some(image.tree.latest().to_string());
    Ok(Some(Opened::Parts(opened)))
}

/// The stretch that the parts of a file are together. `None`: they lie apart, which nobody writes.
fn whole(place: &[Range<u64>]) -> Option<Range<u64>> {
    let (first, last) = (place.first()?, place.last()?);
    let joined = place.windows(2).all(|pair| pair[0].end.next_multiple_of(2048) == pair[1].start);
    let length: u64 = place.iter().map(|p| p.end - p.start).sum();
    (joined && first.start + length == last.end).then_some(first.start..last.end)
}
