//! What a BIOS machine boots: GRUB in front of the first partition, and a configuration on the EFI
//! system partition that leads it into the first slot.
//!
//! GRUB reads kernel and initrd where they are, inside the unified kernel image of the slot: it takes
//! a list of sectors for a file. So nothing is there twice, and the slot rules can come later without
//! another layout. Nothing is checked on this way before dm-verity is.

use formats::fat::Files;
use formats::layout::Role;
use formats::mbr::Mbr;
use formats::uki::{Pe, PeError};
use model::installer::{BIOS_GAP, BIOS_SECTOR};
use model::{Bytes, Diagnose, Diagnosis, Who};

use super::grub::{self, GrubError, Parts};

/// GRUB's own folder, on the partition that it calls `gpt1`.
const PREFIX: &str = "(,gpt1)/boot/grub";
/// The configuration, on the EFI system partition.
const CONFIG: &str = "boot/grub/grub.cfg";
/// All that the configuration uses: no module is loaded from the disk.
const MODULES: [&str; 13] = [
    "biosdisk",
    "part_gpt",
    "fat",
    "normal",
    "configfile",
    "linux",
    "boot",
    "serial",
    "terminal",
    "regexp",
    "echo",
    "sleep",
    "reboot",
];
const SECTOR: u64 = 512;

/// A boot loader for BIOS machines.
#[derive(Debug)]
pub(super) struct Loader {
    code: [u8; grub::CODE],
    core: Vec<u8>,
}

/// Why BIOS machines cannot boot an image.
#[derive(Debug, thiserror::Error)]
pub enum BiosError {
    /// GRUB cannot be made.
    #[error("cannot make the boot loader for BIOS machines")]
    Grub(#[from] GrubError),
    /// There is no way into the slot.
    #[error("cannot understand the unified kernel image")]
    Image(#[from] PeError),
    /// A part of the kernel image that sectors cannot name.
    #[error("the unified kernel image has no {0} that starts at a sector")]
    Section(&'static str),
}

impl Diagnose for BiosError {
    fn diagnose(&self) -> Diagnosis {
        let advice = match self {
            BiosError::Grub(_) => "take GRUB 2.06 or later for i386-pc, or build without --grub",
            BiosError::Image(_) | BiosError::Section(_) => "take the stub of systemd 252 or later",
        };
        Diagnosis::of(Who::Operator, advice)
    }
}

impl Loader {
    /// Made of the files of GRUB's folder i386-pc.
    pub(super) fn new(parts: &Parts) -> Result<Loader, GrubError> {
        Ok(Loader {
            code: grub::boot_code(parts)?,
            core: grub::core_image(parts, &MODULES, PREFIX)?,
        })
    }

    /// What [`Loader::code`] and [`Loader::core`] of one gave.
    pub(super) fn of(code: &[u8], core: Vec<u8>) -> Option<Loader> {
        Some(Loader { code: *code.first_chunk()?, core })
    }

    /// The first bytes of the boot sector.
    pub(super) fn code(&self) -> &[u8] {
        &self.code
    }

    /// The record with the code that loads the rest.
    pub(super) fn record(&self, mbr: &Mbr) -> Mbr {
        mbr.clone().with_code(&self.code)
    }

    /// What stands behind the partition table, and where.
    pub(super) fn core(&self) -> (Bytes, &[u8]) {
        (Bytes(grub::GAP * SECTOR), &self.core)
    }

    /// What an installer takes along to make another disk boot.
    pub(super) fn bits(&self) -> Files {
        Files::from([
            (BIOS_SECTOR.to_owned(), self.code[..440].to_vec()),
            (BIOS_GAP.to_owned(), self.core.clone()),
        ])
    }
}

/// The configuration that boots the slot image in the partition of `role`: its path on the EFI system
/// partition, and its text. `at` is where the unified kernel image lies in the slot image.
pub(super) fn config(
    role: Role,
    uki: &[u8],
    at: Bytes,
    cmdline: &str,
) -> Result<(String, Vec<u8>), BiosError> {
    let pe = Pe::parse(uki)?;
    let list = |name: &'static str| -> Result<String, BiosError> {
        let range = pe.range(name).ok_or(BiosError::Section(name))?;
        let start = at.0 + range.start;
        if !start.is_multiple_of(SECTOR) {
            return Err(BiosError::Section(name));
        }
        let sectors = (range.end - range.start).div_ceil(SECTOR);
        Ok(format!("($disk,gpt{}){}+{sectors}", role.number(), start / SECTOR))
    };
    // What GRUB's language would take for its own is quoted.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,.:/@+%".contains(c);
    let word = |w: &str| match w.chars().all(plain) {
        true => w.to_owned(),
        false => format!("'{}'", w.replace('\'', r"'\''")),
    };
    let cmdline = cmdline.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    let text = format!(
        "# Boots the first slot: kernel and initrd are sectors of {name}.\n\
         serial --unit=0 --speed=115200\n\
         terminal_input console serial\n\
         terminal_output console serial\n\
         regexp --set=1:disk '^([^,]+),' \"$root\"\n\
         echo 'GRUB: starting {name}'\n\
         linux {} {cmdline}\n\
         initrd {}\n\
         boot\n\
         echo 'GRUB: {name} does not start'\n\
         sleep 30\n\
         reboot\n",
        list(".linux")?,
        list(".initrd")?,
        name = role.name(),
    );
    Ok((CONFIG.to_owned(), text.into_bytes()))
}
