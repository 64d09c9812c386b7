//! Short names (8.3) and the long names around them.

use std::collections::BTreeSet;

use super::{ATTR_LONG, ENTRY};

/// A name as a directory entry holds it: 8 characters and 3, padded with spaces.
pub(super) type Short = [u8; 11];

/// UTF-16 units in one piece of a long name.
const PIECE: usize = 13;
/// Where the units of a piece stand in its entry.
const UNITS_AT: [usize; PIECE] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
/// Marks the piece that comes first on disk and last in the name.
const LAST_PIECE: u8 = 0x40;
const NAME_UNITS_MAX: usize = 255;

/// Whether a file may be called so.
pub(super) fn is_valid(name: &str) -> bool {
    let bad = |c: char| c.is_control() || "\\/:*?\"<>|".contains(c);
    !name.is_empty()
        && !name.chars().any(bad)
        && !name.ends_with(['.', ' '])
        && name.encode_utf16().count() <= NAME_UNITS_MAX
}

/// The name as a short one, if it is one already.
pub(super) fn as_short(name: &str) -> Option<Short> {
    let (base, ext) = name.split_once('.').unwrap_or((name, ""));
    let fits = |part: &str, max: usize| part.len() <= max && part.bytes().all(is_short_byte);
    let dotted = name.contains('.');
    (!base.is_empty() && fits(base, 8) && fits(ext, 3) && dotted != ext.is_empty())
        .then(|| short_of(base.as_bytes(), ext.as_bytes()))
}

/// A short name for a long one, unlike all in `taken`: the first six characters, `~` and a number.
/// `None` after 999999 tries.
pub(super) fn make_short(name: &str, taken: &BTreeSet<Short>) -> Option<Short> {
    let clean = |part: &str, max| -> Vec<u8> {
        let upper = part.chars().map(|c| c.to_ascii_uppercase());
        let kept = upper.filter_map(|c| u8::try_from(c).ok()).filter(|b| is_short_byte(*b));
        kept.take(max).collect()
    };
    let (base, ext) = name.rsplit_once('.').unwrap_or((name, ""));
    let (base, ext) = (clean(base, 6), clean(ext, 3));
    (1..=999_999).find_map(|n: u32| {
        let tail = format!("~{n}");
        let kept = &base[..base.len().min(8 - tail.len())];
        let short = short_of(&[kept, tail.as_bytes()].concat(), &ext);
        (!taken.contains(&short)).then_some(short)
    })
}

/// The entries of a long name, in the order in which they precede the short one.
pub(super) fn long_entries(name: &str, short: &Short) -> Vec<[u8; ENTRY]> {
    let mut units: Vec<u16> = name.encode_utf16().collect();
    let count = units.len().div_ceil(PIECE);
    if !units.len().is_multiple_of(PIECE) {
        units.push(0);
    }
    units.resize(count * PIECE, 0xFFFF);
    let sum = checksum(short);
    let pieces = (1u8..).zip(units.chunks_exact(PIECE)).map(|(number, piece)| {
        let last = if usize::from(number) == count { LAST_PIECE } else { 0 };
        let mut entry = [0; ENTRY];
        entry[0] = number | last;
        entry[11] = ATTR_LONG;
        entry[13] = sum;
        for (at, unit) in UNITS_AT.into_iter().zip(piece) {
            entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        entry
    });
    let mut entries: Vec<_> = pieces.collect();
    entries.reverse();
    entries
}

/// Puts the pieces of a long name together as they are met. A broken sequence is dropped, as the
/// specification wants: the short name then counts.
#[derive(Debug, Default)]
pub(super) struct LongName {
    units: Vec<u16>,
    /// The number the next piece must have; 0 when the name is whole.
    next: u8,
    sum: u8,
}

impl LongName {
    pub(super) fn piece(&mut self, entry: &[u8; ENTRY]) {
        let number = entry[0] & !LAST_PIECE;
        if entry[0] & LAST_PIECE != 0 {
            *self = LongName { units: Vec::new(), next: number, sum: entry[13] };
        }
        if number == 0 || number > 20 || number != self.next || entry[13] != self.sum {
            *self = LongName::default();
            return;
        }
        let piece = UNITS_AT.map(|at| u16::from_le_bytes([entry[at], entry[at + 1]]));
        self.units.splice(0..0, piece);
        self.next = number - 1;
    }

    /// The name, if it is whole and belongs to `short`. Starts anew in any case.
    pub(super) fn finish(&mut self, short: &Short) -> Option<String> {
        let whole = std::mem::take(self);
        let end = whole.units.iter().position(|u| *u == 0).unwrap_or(whole.units.len());
        let fits = whole.next == 0 && end > 0 && whole.sum == checksum(short);
        fits.then(|| String::from_utf16(&whole.units[..end]).ok()).flatten()
    }
}

/// A short name as people write it. `case` is byte 12 of its entry: bit 3 says that the name is in
/// lower case, bit 4 that its extension is (Windows NT and all since write this).
pub(super) fn show_short(short: &Short, case: u8) -> String {
    let part = |bytes: &[u8], lower: bool| {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        if lower { text.to_ascii_lowercase() } else { text }
    };
    let (base, ext) = (part(&short[..8], case & 0x08 != 0), part(&short[8..], case & 0x10 != 0));
    if ext.is_empty() { base } else { format!("{base}.{ext}") }
}

fn short_of(base: &[u8], ext: &[u8]) -> Short {
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base);
    short[8..8 + ext.len()].copy_from_slice(ext);
    short
}

fn is_short_byte(b: u8) -> bool {
    b.is_ascii_uppercase() || b.is_ascii_digit() || b"$%'-_@~`!(){}^#&".contains(&b)
}

fn checksum(short: &Short) -> u8 {
    short.iter().fold(0u8, |sum, b| sum.rotate_right(1).wrapping_add(*b))
}
