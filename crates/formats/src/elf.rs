//! Programs and modules (ELF): the sections of one, and one section more.
//!
//! Little-endian files of 32 and 64 bits: every machine that we build for. It loads, links and strips
//! nothing.
//!
//! Format: System V ABI, "Object Files", chapters "ELF Header" and "Sections".

use crate::field::{le16, le32, le64, put, text};

/// What every such file begins with.
pub const MAGIC: &[u8; 4] = b"\x7fELF";

/// Numbers above this have another meaning (`SHN_LORESERVE`).
const SECTIONS_MAX: usize = 0xff00;

/// A section with bytes in the file whose meaning is its owner's (`SHT_PROGBITS`).
const PROGBITS: u32 = 1;
/// A section that takes no bytes in the file (`SHT_NOBITS`).
const NOBITS: u32 = 8;

/// Why bytes are not such a file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ElfError {
    /// It begins otherwise.
    #[error("it is no ELF file")]
    NotElf,
    /// Big-endian, or a class that is neither 32 nor 64 bits.
    #[error("it is an ELF file of a kind that none of our machines has")]
    Foreign,
    /// A table or section lies outside the file.
    #[error("its {what} lies outside the file")]
    Outside {
        /// Which part.
        what: &'static str,
    },
    /// It has no table of sections: a program may go without.
    #[error("it has no table of sections")]
    NoTable,
    /// There is no room for another section.
    #[error("it has {0} sections, and there may be no more")]
    Full(usize),
}

/// A file whose table of sections was read.
#[derive(Debug)]
pub struct Elf<'a> {
    bytes: &'a [u8],
    wide: bool,
    table: usize,
    count: usize,
    /// The number of the section that holds the names.
    names: usize,
}

/// A row of the table of sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    name: usize,
    kind: u32,
    at: usize,
    size: usize,
}

/// Where things stand in a header or row: for 64 bits, for 32 bits.
struct Place(usize, usize);

const TABLE: Place = Place(0x28, 0x20);
const ROW_SIZE: Place = Place(0x3a, 0x2e);
const COUNT: Place = Place(0x3c, 0x30);
const NAMES: Place = Place(0x3e, 0x32);
const ROW: Place = Place(64, 40);
const ROW_AT: Place = Place(24, 16);
const ROW_LENGTH: Place = Place(32, 20);
const ROW_ALIGN: Place = Place(48, 32);

impl<'a> Elf<'a> {
    /// Reads the header and finds the table of sections.
    pub fn parse(bytes: &'a [u8]) -> Result<Elf<'a>, ElfError> {
        if !bytes.starts_with(MAGIC) {
            return Err(ElfError::NotElf);
        }
        let wide = match bytes.get(4..6) {
            Some([2, 1]) => true,
            Some([1, 1]) => false,
            _ => return Err(ElfError::Foreign),
        };
        let elf = Elf { bytes, wide, table: 0, count: 0, names: 0 };
        let head = || ElfError::Outside { what: "header" };
        let short = |p: Place| le16(bytes, elf.place(&p)).map(usize::from).ok_or_else(head);
        let table = elf.word(elf.place(&TABLE)).ok_or_else(head)?;
        let (size, count, names) = (short(ROW_SIZE)?, short(COUNT)?, short(NAMES)?);
        if table == 0 || count == 0 {
            return Err(ElfError::NoTable);
        }
        if size != elf.place(&ROW) || count > SECTIONS_MAX || names >= count {
            return Err(ElfError::Foreign);
        }
        let end = table.checked_add(size * count);
        if end.is_none_or(|end| end > bytes.len()) {
            return Err(ElfError::Outside { what: "table of sections" });
        }
        Ok(Elf { table, count, names, ..elf })
    }

    /// The bytes of the first section of this name; `None` if there is none.
    pub fn section(&self, name: &str) -> Result<Option<&'a [u8]>, ElfError> {
        let names = self.content(self.row(self.names))?;
        for row in (0..self.count).map(|n| self.row(n)) {
            if names.get(row.name..).and_then(text) == Some(name) {
                return self.content(row).map(Some);
            }
        }
        Ok(None)
    }

    /// The same file with one section more at its end, which is not loaded when the program runs.
    /// What was there keeps its place.
    pub fn with_section(&self, name: &str, content: &[u8]) -> Result<Vec<u8>, ElfError> {
        if self.count + 1 > SECTIONS_MAX {
            return Err(ElfError::Full(self.count));
        }
        let old_names = self.content(self.row(self.names))?;
        // A section that is called what stands behind the names would be called as the new one.
        if (0..self.count).any(|n| self.row(n).name >= old_names.len()) {
            return Err(ElfError::Outside { what: "name of a section" });
        }
        let mut out = self.bytes.to_vec();
        let at = append(&mut out, content);
        let mut names = old_names.to_vec();
        if names.last().is_some_and(|last| *last != 0) {
            names.push(0); // else the last name would go on with the new one
        }
        let name_at = names.len();
        names.extend_from_slice(name.as_bytes());
        names.push(0);
        let names_at = append(&mut out, &names);
        let mut table = self.bytes[self.table..self.table + self.count * self.place(&ROW)].to_vec();
        let row = self.names * self.place(&ROW);
        self.put_word(&mut table, row + self.place(&ROW_AT), names_at);
        self.put_word(&mut table, row + self.place(&ROW_LENGTH), names.len());
        let new = table.len();
        table.resize(new + self.place(&ROW), 0);
        put(&mut table, new, &low32(name_at));
        put(&mut table, new + 4, &PROGBITS.to_le_bytes());
        self.put_word(&mut table, new + self.place(&ROW_AT), at);
        self.put_word(&mut table, new + self.place(&ROW_LENGTH), content.len());
        self.put_word(&mut table, new + self.place(&ROW_ALIGN), 1);
        let table_at = append(&mut out, &table);
        self.put_word(&mut out, self.place(&TABLE), table_at);
        let count = u16::try_from(self.count + 1).map_err(|_| ElfError::Full(self.count))?;
        put(&mut out, self.place(&COUNT), &count.to_le_bytes());
        Ok(out)
    }

    fn place(&self, place: &Place) -> usize {
        if self.wide { place.0 } else { place.1 }
    }

    /// A number that is as wide as an address.
    fn word(&self, at: usize) -> Option<usize> {
        if self.wide {
            le64(self.bytes, at).and_then(|n| usize::try_from(n).ok())
        } else {
            le32(self.bytes, at).and_then(|n| usize::try_from(n).ok())
        }
    }

    fn put_word(&self, out: &mut [u8], at: usize, value: usize) {
        if self.wide {
            put(out, at, &(value as u64).to_le_bytes());
        } else {
            put(out, at, &low32(value));
        }
    }

    /// A row of the table. Numbers that are too large for this machine lie outside the file.
    fn row(&self, number: usize) -> Row {
        let at = self.table + number * self.place(&ROW);
        let word = |place: Place| self.word(at + self.place(&place)).unwrap_or(usize::MAX);
        let name = le32(self.bytes, at).and_then(|n| usize::try_from(n).ok());
        Row {
            name: name.unwrap_or(usize::MAX),
            kind: le32(self.bytes, at + 4).unwrap_or(NOBITS),
            at: word(ROW_AT),
            size: word(ROW_LENGTH),
        }
    }

    fn content(&self, row: Row) -> Result<&'a [u8], ElfError> {
        if row.kind == NOBITS {
            return Ok(&[]);
        }
        let end = row.at.checked_add(row.size);
        let content = end.and_then(|end| self.bytes.get(row.at..end));
        content.ok_or(ElfError::Outside { what: "section" })
    }
}

/// Appends to a multiple of eight bytes; says where.
fn append(out: &mut Vec<u8>, bytes: &[u8]) -> usize {
    out.resize(out.len().next_multiple_of(8), 0);
    let at = out.len();
    out.extend_from_slice(bytes);
    at
}

/// A number of a file with 32 bits. One that is larger belongs to no such file.
fn low32(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with a section of names and one that is called `.old`.
    fn small(wide: bool) -> Vec<u8> {
        let names = b"\0.names\0.old\0";
        let head = if wide { 64 } else { 52 };
        let mut out = vec![0; head];
        put(&mut out, 0, MAGIC);
        put(&mut out, 4, &[if wide { 2 } else { 1 }, 1]);
        let elf = Elf { bytes: &[], wide, table: 0, count: 0, names: 0 };
        let names_at = append(&mut out, names);
        let old_at = append(&mut out, b"old content");
        let mut table = Vec::new();
        for (name, at, len) in [(0, 0, 0), (1, names_at, names.len()), (8, old_at, 11)] {
            let mut row = vec![0; elf.place(&ROW)];
            put(&mut row, 0, &low32(name));
            put(&mut row, 4, &PROGBITS.to_le_bytes());
            elf.put_word(&mut row, elf.place(&ROW_AT), at);
            elf.put_word(&mut row, elf.place(&ROW_LENGTH), len);
            table.extend(row);
        }
        let table_at = append(&mut out, &table);
        elf.put_word(&mut out, elf.place(&TABLE), table_at);
        for (place, value) in [(ROW_SIZE, elf.place(&ROW)), (COUNT, 3), (NAMES, 1)] {
            put(&mut out, elf.place(&place), &low32(value)[..2]);
        }
        out
    }

    #[test]
    fn a_section_that_was_added_is_found_and_the_others_stay() {
        for wide in [true, false] {
            let bytes = small(wide);
            let elf = Elf::parse(&bytes).unwrap();
            assert_eq!(elf.section(".new"), Ok(None));
            let more = elf.with_section(".new", b"content").unwrap();
            let read = Elf::parse(&more).unwrap();
            assert_eq!(read.section(".new"), Ok(Some(&b"content"[..])));
            assert_eq!(read.section(".old"), Ok(Some(&b"old content"[..])));
            assert!(more.starts_with(&bytes[..0x20]), "the program itself is untouched");
            let again = read.with_section(".third", b"3").unwrap();
            assert_eq!(Elf::parse(&again).unwrap().section(".third"), Ok(Some(&b"3"[..])));
        }
    }

    #[test]
    fn names_keep_to_themselves() {
        for wide in [true, false] {
            let whole = small(wide);
            let names_at = if wide { 64 } else { 56 };
            let end = b"\0.names\0.old\0".len();
            // The last name has no end of its own.
            let mut open = whole.clone();
            open[names_at + end - 1] = b'x';
            let more = Elf::parse(&open).unwrap().with_section(".new", b"content").unwrap();
            let read = Elf::parse(&more).unwrap();
            assert_eq!(read.section(".oldx"), Ok(Some(&b"old content"[..])));
            assert_eq!(read.section(".new"), Ok(Some(&b"content"[..])));
            // A section is called what stands behind the names.
            let mut behind = whole.clone();
            let table = Elf::parse(&whole).unwrap().table;
            put(&mut behind, table, &low32(end));
            let refused = Elf::parse(&behind).unwrap().with_section(".new", b"content");
            assert_eq!(refused, Err(ElfError::Outside { what: "name of a section" }));
        }
    }

    #[test]
    fn what_is_cut_or_foreign_is_refused() {
        let whole = small(true);
        assert_eq!(Elf::parse(b"#!/bin/sh").unwrap_err(), ElfError::NotElf);
        assert_eq!(Elf::parse(&whole[..5]).unwrap_err(), ElfError::Foreign);
        for cut in [6, 40, 63, whole.len() - 1] {
            assert!(Elf::parse(&whole[..cut]).is_err(), "cut at {cut}");
        }
        let mut odd = whole.clone();
        odd[0x3e] = 9; // names in a section that is not there
        assert_eq!(Elf::parse(&odd).unwrap_err(), ElfError::Foreign);
        let mut far = whole.clone();
        far[0x2f] = 0x7f; // the table is somewhere else
        assert!(matches!(Elf::parse(&far), Err(ElfError::Outside { .. })));
    }
}
