//! The firmware's boot menu, through the kernel's efivarfs.
//!
//! A variable is a file: four bytes of attributes, then its value (Linux,
//! Documentation/filesystems/efivarfs.rst).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use formats::efi::{LoadOption, order, to_order};

/// Where the kernel shows the variables.
pub const VARIABLES: &str = "/sys/firmware/efi/efivars";

/// The vendor of the variables that the UEFI specification defines.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Kept over a reset, seen by the loader and by us.
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];
/// No entry is longer.
const VALUE_MAX: u64 = 64 << 10;

/// Why the menu was not changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}")]
pub struct EfiError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Puts an entry first into the menu at `variables`. One of the same name is replaced, so that the
/// menu does not grow with every installation. Returns its number.
pub fn put_first(variables: &Path, entry: &LoadOption) -> Result<u16, EfiError> {
    let name_of = |number: u16| variables.join(format!("Boot{number:04X}-{GLOBAL}"));
    let mut taken = Vec::new();
    let mut same = None;
    let listed = fs::read_dir(variables).map_err(failed("read", variables))?;
    for file in listed.flatten() {
        let Some(number) = number_of(&file.file_name().to_string_lossy()) else { continue };
        taken.push(number);
        let there = read(&file.path()).ok().and_then(|value| LoadOption::parse(&value).ok());
        if there.is_some_and(|there| there.name == entry.name) {
            same = same.min(Some(number)).or(Some(number));
        }
    }
    let free = (0..=u16::MAX).find(|n| !taken.contains(n));
    let full = || failed("add to", variables)(io::ErrorKind::StorageFull.into());
    let number = same.or(free).ok_or_else(full)?;
    let path = name_of(number);
    write(&path, &entry.to_bytes()).map_err(failed("write", &path))?;

    let path = variables.join(format!("BootOrder-{GLOBAL}"));
    // Firmware that has started nothing yet has no order.
    let mut all = read(&path).map(|value| order(&value)).unwrap_or_default();
    all.retain(|n| *n != number);
    all.insert(0, number);
    write(&path, &to_order(&all)).map_err(failed("write", &path))?;
    Ok(number)
}

/// `Boot0001-…` is 1.
fn number_of(name: &str) -> Option<u16> {
    let (number, vendor) = name.strip_prefix("Boot")?.split_once('-')?;
    let hex = number.len() == 4 && vendor.eq_ignore_ascii_case(GLOBAL);
    hex.then(|| u16::from_str_radix(number, 16).ok()).flatten()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(VALUE_MAX).read_to_end(&mut bytes)?;
    if bytes.len() < ATTRIBUTES.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes.split_off(ATTRIBUTES.len()))
}

/// A variable is written in one piece: the kernel takes each write for a whole value.
fn write(path: &Path, value: &[u8]) -> io::Result<()> {
    let whole = [&ATTRIBUTES[..], value].concat();
    let mut file = File::options().write(true).create(true).truncate(false).open(path)?;
    match file.write(&whole)? {
        n if n == whole.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> EfiError {
    move |source| EfiError { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use model::Sector512;
    use uuid::Uuid;

    use super::*;

    fn entry(name: &str) -> LoadOption {
        LoadOption {
            name: name.to_owned(),
            partition: 1,
            first: Sector512(2048),
            sectors: Sector512(131_072),
            id: Uuid::from_u128(1),
            path: r"\EFI\BOOT\BOOTX64.EFI".to_owned(),
        }
    }

    #[test]
    fn an_entry_is_added_once_and_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let menu = dir.path();
        let order_now = || order(&read(&menu.join(format!("BootOrder-{GLOBAL}"))).unwrap());
        assert_eq!(put_first(menu, &entry("Windows")).unwrap(), 0);
        assert_eq!(put_first(menu, &entry("EVE-OS")).unwrap(), 1);
        assert_eq!(order_now(), [1, 0]);
        assert_eq!(put_first(menu, &entry("Windows")).unwrap(), 0);
        assert_eq!(put_first(menu, &entry("EVE-OS")).unwrap(), 1);
        assert_eq!(order_now(), [1, 0]);
        let value = read(&menu.join(format!("Boot0001-{GLOBAL}"))).unwrap();
        assert_eq!(LoadOption::parse(&value).unwrap(), entry("EVE-OS"));
    }
}
