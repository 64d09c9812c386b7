//! PE32+ executables as far as a unified kernel image needs them (Microsoft's PE format; UAPI
//! group's UKI specification): reading the sections, and adding some to systemd's stub.
//!
//! Nothing is moved: the stub must have room for the new section headers. No signing.

use crate::field::{le16, le32, le64, put, take};

/// The largest executable taken.
pub const SIZE_MAX: usize = 1 << 30;

const SECTIONS_MAX: u16 = 96;
const SECTION: usize = 40;
/// PE signature and COFF header, in front of the optional header.
const COFF: usize = 24;
const PE32_PLUS: u16 = 0x20B;
/// Initialised data, readable.
const DATA: u32 = 0x4000_0040;
/// New sections start at pages, so that each can be mapped by itself.
const PAGE: u64 = 4096;

/// An executable's sections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pe<'a> {
    bytes: &'a [u8],
    /// Where the PE signature stands.
    start: usize,
    /// Where the section headers start.
    table: usize,
    file_alignment: u32,
    section_alignment: u32,
    headers: u32,
    sections: Vec<Section>,
}

/// A section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// At most 8 bytes.
    pub name: String,
    /// Where it lies in memory, from the image's start.
    pub address: u32,
    /// How much of it counts; may exceed `raw` by zeroes.
    pub length: u32,
    /// Where it lies in the file.
    pub at: u32,
    /// How much the file has of it.
    pub raw: u32,
}

/// Why an executable is not taken, or cannot be extended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeError {
    /// Over 1 GiB.
    #[error("an executable of {0} bytes is not taken")]
    Large(usize),
    /// It ends inside a header.
    #[error("the executable ends inside its headers")]
    Short,
    /// No PE32+ executable.
    #[error("this is no 64-bit PE executable")]
    Magic,
    /// A value that cannot be.
    #[error("the executable's {field} is {value}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        value: u64,
    },
    /// A section outside the file, or over another.
    #[error("section {0:?} of the executable lies outside")]
    Section(String),
    /// No room for another section header.
    #[error("the stub has room for {have} more sections, {need} are needed")]
    Full {
        /// To be added.
        need: usize,
        /// Room for so many.
        have: usize,
    },
    /// A new section's name is taken, empty or longer than 8 bytes.
    #[error("a section cannot be called {0:?}")]
    Name(String),
    /// A signed stub would lose its signature.
    #[error("the stub is signed; take one that is not")]
    Signed,
}

impl<'a> Pe<'a> {
    /// Reads the headers.
    pub fn parse(bytes: &'a [u8]) -> Result<Pe<'a>, PeError> {
        if bytes.len() > SIZE_MAX {
            return Err(PeError::Large(bytes.len()));
        }
        if !bytes.starts_with(b"MZ") {
            return Err(PeError::Magic);
        }
        let half = |at| le16(bytes, at).ok_or(PeError::Short);
        let word = |at| le32(bytes, at).ok_or(PeError::Short);
        let start = word(0x3C)? as usize;
        if take::<4>(bytes, start).ok_or(PeError::Short)? != *b"PE\0\0" {
            return Err(PeError::Magic);
        }
        let count = half(start + 6)?;
        if count > SECTIONS_MAX {
            return Err(PeError::Field { field: "number of sections", value: count.into() });
        }
        let optional = start + COFF;
        if half(optional)? != PE32_PLUS {
            return Err(PeError::Magic);
        }
        let optional_length = usize::from(half(start + 20)?);
        // Up to and with the directory entry of signatures.
        if optional_length < 112 + 5 * 8 {
            return Err(PeError::Short);
        }
        let alignment = |field, at| match word(at)? {
            n if n.is_power_of_two() && (512..=65536).contains(&n) => Ok(n),
            n => Err(PeError::Field { field, value: n.into() }),
        };
        let table = optional + optional_length;
        let sections = (0..usize::from(count))
            .map(|n| section(bytes, table + n * SECTION))
            .collect::<Result<_, _>>()?;
        let headers = word(optional + 60)?;
        if headers as usize > bytes.len() {
            return Err(PeError::Field { field: "length of headers", value: headers.into() });
        }
        Ok(Pe {
            bytes,
            start,
            table,
            file_alignment: alignment("file alignment", optional + 36)?,
            section_alignment: alignment("section alignment", optional + 32)?,
            headers,
            sections,
        })
    }

    /// The sections in the order of their headers.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// What a section holds, without padding. `None` if there is no such section.
    pub fn section(&self, name: &str) -> Option<&'a [u8]> {
        let range = self.range(name)?;
        let place = |n| usize::try_from(n).ok();
        self.bytes.get(place(range.start)?..place(range.end)?)
    }

    /// Where that lies in the file.
    pub fn range(&self, name: &str) -> Option<std::ops::Range<u64>> {
        let section = self.sections.iter().find(|s| s.name == name)?;
        let at = u64::from(section.at);
        Some(at..at + u64::from(section.raw.min(section.length)))
    }

    /// Adds sections behind all others, in this order.
    pub fn with_sections(&self, new: &[(&str, &[u8])]) -> Result<Vec<u8>, PeError> {
        let optional = self.start + COFF;
        let number = |at| le32(self.bytes, at).ok_or(PeError::Short);
        if le64(self.bytes, optional + 112 + 4 * 8).ok_or(PeError::Short)? != 0 {
            return Err(PeError::Signed);
        }
        let table_end = self.table + self.sections.len() * SECTION;
        let first = self.sections.iter().filter(|s| s.raw > 0).map(|s| s.at).min();
        let limit = first.unwrap_or(self.headers).min(self.headers) as usize;
        let have = limit.saturating_sub(table_end) / SECTION;
        if new.len() > have {
            return Err(PeError::Full { need: new.len(), have });
        }
        let end_in_memory =
            self.sections.iter().map(|s| u64::from(s.address) + u64::from(s.length)).max();
        let mut address = end_in_memory.unwrap_or(0).max(self.headers.into());
        let mut data = number(optional + 8)?;
        let mut out = self.bytes.to_vec();
        for (index, (name, body)) in new.iter().enumerate() {
            let taken = self.sections.iter().any(|s| s.name == *name)
                || new[..index].iter().any(|(other, _)| other == name);
            if taken || name.is_empty() || name.len() > 8 {
                return Err(PeError::Name((*name).to_owned()));
            }
            let large = || PeError::Large(out.len() + body.len());
            let narrow = |n: u64| u32::try_from(n).map_err(|_| large());
            address = address.next_multiple_of(PAGE.max(self.section_alignment.into()));
            let at = out.len().next_multiple_of(self.file_alignment as usize);
            let end = (at + body.len()).next_multiple_of(self.file_alignment as usize);
            if end > SIZE_MAX {
                return Err(large());
            }
            let (length, raw) = (narrow(body.len() as u64)?, narrow((end - at) as u64)?);
            let mut header = [0; SECTION];
            put(&mut header, 0, name.as_bytes());
            put(&mut header, 8, &length.to_le_bytes());
            put(&mut header, 12, &narrow(address)?.to_le_bytes());
            put(&mut header, 16, &raw.to_le_bytes());
            put(&mut header, 20, &narrow(at as u64)?.to_le_bytes());
            put(&mut header, 36, &DATA.to_le_bytes());
            address += u64::from(length);
            data = data.saturating_add(raw);
            out.resize(at, 0);
            out.extend_from_slice(body);
            out.resize(end, 0);
            put(&mut out, table_end + index * SECTION, &header);
        }
        let count = self.sections.len() + new.len();
        let count = u16::try_from(count).map_err(|_| PeError::Full { need: count, have })?;
        let image = address.next_multiple_of(self.section_alignment.into());
        let image = u32::try_from(image).map_err(|_| PeError::Large(out.len()))?;
        put(&mut out, self.start + 6, &count.to_le_bytes());
        put(&mut out, optional + 8, &data.to_le_bytes());
        put(&mut out, optional + 56, &image.to_le_bytes());
        put(&mut out, optional + 64, &[0; 4]);
        let sum = checksum(&out);
        put(&mut out, optional + 64, &sum.to_le_bytes());
        Ok(out)
    }
}

fn section(bytes: &[u8], at: usize) -> Result<Section, PeError> {
    let header: [u8; SECTION] = take(bytes, at).ok_or(PeError::Short)?;
    let word = |at| le32(&header, at).ok_or(PeError::Short);
    let end = header[..8].iter().position(|b| *b == 0).unwrap_or(8);
    let section = Section {
        name: String::from_utf8_lossy(&header[..end]).into_owned(),
        length: word(8)?,
        address: word(12)?,
        raw: word(16)?,
        at: word(20)?,
    };
    let file_end = u64::from(section.at) + u64::from(section.raw);
    if file_end > bytes.len() as u64 {
        return Err(PeError::Section(section.name));
    }
    Ok(section)
}

/// The PE checksum: a folded sum of 16-bit words, plus the length. Its own field must be zero.
fn checksum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|w| u16::from_le_bytes([w[0], w.get(1).copied().unwrap_or(0)]));
    let sum = words.fold(0u32, |sum, word| {
        let sum = sum + u32::from(word);
        (sum & 0xFFFF) + (sum >> 16)
    });
    sum.wrapping_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
}
