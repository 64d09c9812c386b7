//! Entries of a UEFI firmware's boot menu (UEFI specification 2.10, sections 3.1.3 and 10.3): a file
//! on a partition of a GPT disk, and the order of entries. Entries that lead elsewhere are not read.

use model::Sector512;
use uuid::Uuid;

use crate::field::{le16, le32, le64, take};

/// `LOAD_OPTION_ACTIVE`: the firmware tries it.
const ACTIVE: u32 = 1;
/// No entry is longer: names and paths are short.
const LENGTH_MAX: usize = 64 << 10;
/// A node of type "media", subtypes "hard drive" and "file path".
const DRIVE: [u8; 2] = [4, 1];
const FILE: [u8; 2] = [4, 4];
const END: [u8; 4] = [0x7F, 0xFF, 4, 0];
const DRIVE_LENGTH: u16 = 42;

/// An entry that starts a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOption {
    /// As the menu shows it. Not empty; longer than 256 UTF-16 units is cut.
    pub name: String,
    /// The number of the partition that holds the file.
    pub partition: u32,
    /// Its first sector.
    pub first: Sector512,
    /// How many it has.
    pub sectors: Sector512,
    /// Its GUID.
    pub id: Uuid,
    /// The file, with backslashes: `\EFI\BOOT\BOOTX64.EFI`.
    pub path: String,
}

/// Why bytes are no such entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// They end too early, or there are too many.
    #[error("a boot entry of {0} bytes is cut off or too long")]
    Length(usize),
    /// It leads to something else than a file on a GPT disk.
    #[error("the boot entry does not lead to a file on a disk")]
    Elsewhere,
}

impl LoadOption {
    /// The value of the variable.
    pub fn to_bytes(&self) -> Vec<u8> {
        let file = units(&self.path);
        // The node's length counts its own header.
        let file_length = u16::try_from(4 + file.len()).unwrap_or(u16::MAX);
        let paths = DRIVE_LENGTH + file_length + 4;
        let mut bytes = ACTIVE.to_le_bytes().to_vec();
        bytes.extend(paths.to_le_bytes());
        bytes.extend(units(&self.name));
        bytes.extend(DRIVE);
        bytes.extend(DRIVE_LENGTH.to_le_bytes());
        bytes.extend(self.partition.to_le_bytes());
        bytes.extend(self.first.0.to_le_bytes());
        bytes.extend(self.sectors.0.to_le_bytes());
        bytes.extend(self.id.to_bytes_le());
        // The table is a GPT, and the signature a GUID.
        bytes.extend([2, 2]);
        bytes.extend(FILE);
        bytes.extend(file_length.to_le_bytes());
        bytes.extend(file);
        bytes.extend(END);
        bytes
    }

    /// Reads the value of a variable.
    pub fn parse(bytes: &[u8]) -> Result<LoadOption, ParseError> {
        let cut = || ParseError::Length(bytes.len());
        if bytes.len() > LENGTH_MAX {
            return Err(cut());
        }
        let paths = usize::from(le16(bytes, 4).ok_or_else(cut)?);
        let (name, used) = text(bytes.get(6..).ok_or_else(cut)?).ok_or_else(cut)?;
        let mut rest = bytes.get(6 + used..).and_then(|b| b.get(..paths)).ok_or_else(cut)?;
        let drive = node(&mut rest).ok_or(ParseError::Elsewhere)?;
        let file = node(&mut rest).ok_or(ParseError::Elsewhere)?;
        let is_gpt = drive.0 == DRIVE && drive.1.get(36..38) == Some(&[2, 2]);
        if !is_gpt || drive.1.len() != usize::from(DRIVE_LENGTH) - 4 || file.0 != FILE {
            return Err(ParseError::Elsewhere);
        }
        let (path, _) = text(file.1).ok_or(ParseError::Elsewhere)?;
        Ok(LoadOption {
            name,
            partition: le32(drive.1, 0).ok_or_else(cut)?,
            first: Sector512(le64(drive.1, 4).ok_or_else(cut)?),
            sectors: Sector512(le64(drive.1, 12).ok_or_else(cut)?),
            id: Uuid::from_bytes_le(take(drive.1, 20).ok_or_else(cut)?),
            path,
        })
    }
}

/// The numbers of the entries in the variable `BootOrder`.
pub fn order(value: &[u8]) -> Vec<u16> {
    value.chunks_exact(2).map(|n| u16::from_le_bytes([n[0], n[1]])).collect()
}

/// The value of `BootOrder`.
pub fn to_order(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// UTF-16 with a zero behind, cut where it would be too long.
fn units(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().filter(|u| *u != 0).take(256);
    units.chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// A text up to its zero, and how many bytes that were with it.
fn text(bytes: &[u8]) -> Option<(String, usize)> {
    let all: Vec<u16> = order(bytes);
    let end = all.iter().position(|u| *u == 0)?;
    Some((String::from_utf16_lossy(&all[..end]), 2 * (end + 1)))
}

/// Type and content of a node; what is behind it stays in `rest`.
fn node<'a>(rest: &mut &'a [u8]) -> Option<([u8; 2], &'a [u8])> {
    let kind = take(rest, 0)?;
    let length = usize::from(le16(rest, 2)?);
    let body = rest.get(4..length)?;
    *rest = &rest[length..];
    Some((kind, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> LoadOption {
        LoadOption {
            name: "EVE-OS".to_owned(),
            partition: 1,
            first: Sector512(2048),
            sectors: Sector512(131_072),
            id: Uuid::from_u128(0xad68_71ee_31f9_4cf3_9e09_6f7a_25c3_0051),
            path: r"\EFI\BOOT\BOOTX64.EFI".to_owned(),
        }
    }

    #[test]
    fn an_entry_reads_as_it_is_written_and_has_the_bytes_of_the_specification() {
        let bytes = entry().to_bytes();
        assert_eq!(LoadOption::parse(&bytes), Ok(entry()));
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let want = concat!(
            "01000000",
            "5e00",                         // active; 94 bytes of paths
            "4500560045002d004f0053000000", // EVE-OS
            "04012a00",
            "01000000",
            "0008000000000000",
            "0000020000000000",
            "ee7168adf931f34c9e096f7a25c30051",
            "0202",
            "04043000",
            "5c004500460049005c0042004f004f0054005c0042004f004f0054005800360034002e00450046004900",
            "0000",
            "7fff0400",
        );
        assert_eq!(hex, want);
    }

    #[test]
    fn a_cut_entry_is_refused() {
        let bytes = entry().to_bytes();
        for length in 0..bytes.len() - 4 {
            assert!(LoadOption::parse(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn the_order_is_a_row_of_numbers() {
        assert_eq!(order(&to_order(&[1, 0x2001])), [1, 0x2001]);
        assert_eq!(order(&[1, 0, 2]), [1]);
    }
}
