//! GRUB for a BIOS: the boot sector and the core image, made of the parts in Debian's `grub-pc-bin`.
//!
//! ```text
//! sector 0    boot.img         loads sector 34
//! sector 34   diskboot.img     loads the rest, from sector 35
//! sector 35   lzma_decompress  then, packed: kernel, "mimg", modules, prefix
//! ```
//!
//! The layout is that of `grub-mkimage` for i386-pc of GRUB 2.06 to 2.12, and a test compares them.
//! The modules are taken as they are: the kernel links them when it starts.

use std::collections::BTreeMap;

use liblzma::stream::{Action, LzmaOptions, Status, Stream};

/// The first sector behind a partition table.
pub(super) const GAP: u64 = 34;
/// Bytes of the boot sector that are code; behind them come the disk's signature and the entries.
pub(super) const CODE: usize = 446;

const SECTOR: usize = 512;
/// In boot.img: where the core image starts, a sector number of 8 bytes.
const BOOT_CORE_AT: usize = 0x5C;
/// In diskboot.img: where the rest starts (8 bytes), and how many sectors it has (2 bytes).
const DISKBOOT_REST_AT: usize = SECTOR - 12;
const DISKBOOT_LENGTH_AT: usize = SECTOR - 4;
/// In lzma_decompress.img: lengths packed and unpacked.
const PACKED_AT: usize = 0x08;
const UNPACKED_AT: usize = 0x0C;
/// Where the kernel is linked to run.
const KERNEL_ADDRESS: u32 = 0x9000;
/// What follows the kernel starts with this.
const MODULES_MAGIC: u32 = 0x676d_696d;
const MODULE: u32 = 0;
const PREFIX: u32 = 3;
/// The core image is loaded below this address, from 0x8200 on.
const CORE_MAX: usize = 0x78000 - 0x8200;
/// LZMA as the decompressor has it built in: lc 3, lp 0, pb 2, and a window of 64 KiB.
const WINDOW: u32 = 1 << 16;
const LZMA_HEADER: usize = 13;

/// The files of GRUB's folder i386-pc, by name.
pub(super) type Parts = BTreeMap<String, Vec<u8>>;

/// Why there is no core image.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrubError {
    /// A file that GRUB is made of is missing.
    #[error("GRUB has no {0}")]
    Missing(String),
    /// A file that is not what it must be.
    #[error("GRUB's {name} {what}")]
    Part {
        /// The file.
        name: String,
        /// What is wrong, as a verb.
        what: &'static str,
    },
    /// It does not fit where a BIOS loads it.
    #[error("GRUB's core image has {have} bytes, at most {most} fit")]
    Large {
        /// Its length.
        have: usize,
        /// So many would do.
        most: usize,
    },
    /// Packing failed.
    #[error("GRUB's core image cannot be packed")]
    Pack,
}

/// The code of the boot sector, which loads the core image from sector [`GAP`].
pub(super) fn boot_code(parts: &Parts) -> Result<[u8; CODE], GrubError> {
    let mut sector = sector(parts, "boot.img")?;
    put(&mut sector, BOOT_CORE_AT, &GAP.to_le_bytes());
    // It has at least so many bytes.
    Ok(sector.first_chunk::<CODE>().copied().unwrap_or([0; CODE]))
}

/// The core image for sector [`GAP`]: with these modules and what they need, and this prefix, where
/// `(,gpt1)/boot/grub` means that partition of the disk that it was loaded from.
pub(super) fn core_image(
    parts: &Parts,
    modules: &[&str],
    prefix: &str,
) -> Result<Vec<u8>, GrubError> {
    let payload = payload(parts, modules, prefix)?;
    let packed = pack(&payload)?;
    let mut rest = part(parts, "lzma_decompress.img")?.to_vec();
    if rest.len() < UNPACKED_AT + 4 {
        return Err(broken("lzma_decompress.img", "is too short"));
    }
    put(&mut rest, PACKED_AT, &length(packed.len())?.to_le_bytes());
    put(&mut rest, UNPACKED_AT, &length(payload.len())?.to_le_bytes());
    rest.extend(packed);
    if rest.len() > CORE_MAX {
        return Err(GrubError::Large { have: rest.len(), most: CORE_MAX });
    }
    let mut core = sector(parts, "diskboot.img")?;
    let sectors = rest.len().div_ceil(SECTOR);
    put(&mut core, DISKBOOT_REST_AT, &(GAP + 1).to_le_bytes());
    put(&mut core, DISKBOOT_LENGTH_AT, &length(sectors)?.to_le_bytes()[..2]);
    core.extend(rest);
    core.resize((sectors + 1) * SECTOR, 0);
    Ok(core)
}

/// What is packed: the kernel as it lies in memory, and what it finds behind itself.
fn payload(parts: &Parts, modules: &[&str], prefix: &str) -> Result<Vec<u8>, GrubError> {
    let mut image = kernel(part(parts, "kernel.img")?)?;
    let mut behind = Vec::new();
    for name in with_needed(parts, modules)? {
        object(&mut behind, MODULE, part(parts, &format!("{name}.mod"))?)?;
    }
    let prefix = [prefix.as_bytes(), &[0]].concat();
    object(&mut behind, PREFIX, &prefix)?;
    let head = 12;
    let total = length(behind.len() + head)?;
    for word in [MODULES_MAGIC, 12, total] {
        image.extend(word.to_le_bytes());
    }
    image.extend(behind);
    Ok(image)
}

/// An object behind the kernel: kind, length with this head, and bytes up to a multiple of 4.
fn object(to: &mut Vec<u8>, kind: u32, body: &[u8]) -> Result<(), GrubError> {
    let padded = body.len().next_multiple_of(4);
    to.extend(kind.to_le_bytes());
    to.extend(length(padded + 8)?.to_le_bytes());
    to.extend(body);
    to.resize(to.len() + padded - body.len(), 0);
    Ok(())
}

/// The sections of the kernel that have content, as they lie in memory. It is an ELF file of 32 bits,
/// linked where it runs.
fn kernel(elf: &[u8]) -> Result<Vec<u8>, GrubError> {
    let bad = |what| broken("kernel.img", what);
    let word = |at: usize| -> Result<u32, GrubError> {
        let bytes = elf.get(at..).and_then(|b| b.first_chunk::<4>());
        bytes.map(|b| u32::from_le_bytes(*b)).ok_or(bad("is cut off"))
    };
    if !elf.starts_with(b"\x7fELF\x01\x01") || word(24)? != KERNEL_ADDRESS {
        return Err(bad("is no program for 0x9000"));
    }
    let (table, count) = (word(28)? as usize, word(44)? & 0xFFFF);
    let mut image = Vec::new();
    for n in 0..count as usize {
        let row = table.saturating_add(n * 32);
        let (kind, from, address, size) =
            (word(row)?, word(row + 4)?, word(row + 8)?, word(row + 16)?);
        if kind != 1 || size == 0 {
            continue; // nothing to load
        }
        let at = address.checked_sub(KERNEL_ADDRESS).ok_or(bad("lies below 0x9000"))? as usize;
        let body = elf.get(from as usize..).and_then(|b| b.get(..size as usize));
        let body = body.ok_or(bad("is cut off"))?;
        if at + body.len() > CORE_MAX {
            return Err(bad("is too large"));
        }
        image.resize(image.len().max(at + body.len()), 0);
        put(&mut image, at, body);
    }
    Ok(image)
}

/// These modules with all that they need, each behind what it needs itself.
fn with_needed(parts: &Parts, modules: &[&str]) -> Result<Vec<String>, GrubError> {
    let list = String::from_utf8_lossy(part(parts, "moddep.lst")?).into_owned();
    let needs: BTreeMap<&str, Vec<&str>> = list
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, needed)| (name.trim(), needed.split_whitespace().collect()))
        .collect();
    let mut order = Vec::new();
    let mut open: Vec<(&str, bool)> = modules.iter().rev().map(|m| (*m, false)).collect();
    let mut met = std::collections::BTreeSet::new();
    while let Some((name, is_last)) = open.pop() {
        if is_last {
            order.push(name.to_owned());
        } else if met.insert(name) {
            let needed =
                needs.get(name).ok_or_else(|| GrubError::Missing(format!("{name}.mod")))?;
            open.push((name, true));
            open.extend(needed.iter().rev().map(|n| (*n, false)));
        }
    }
    Ok(order)
}

fn pack(bytes: &[u8]) -> Result<Vec<u8>, GrubError> {
    let failed = |_| GrubError::Pack;
    let mut options = LzmaOptions::new_preset(9).map_err(failed)?;
    options.dict_size(WINDOW).literal_context_bits(3).literal_position_bits(0).position_bits(2);
    let mut stream = Stream::new_lzma_encoder(&options).map_err(failed)?;
    let mut packed = Vec::with_capacity(bytes.len() + 4096);
    let mut done = 0;
    loop {
        packed.reserve(4096);
        let before = stream.total_in();
        let status =
            stream.process_vec(&bytes[done..], &mut packed, Action::Finish).map_err(failed)?;
        done += usize::try_from(stream.total_in() - before).unwrap_or(0);
        if status == Status::StreamEnd {
            break;
        }
    }
    // The decompressor knows what the header says.
    packed.drain(..LZMA_HEADER.min(packed.len()));
    Ok(packed)
}

fn part<'a>(parts: &'a Parts, name: &str) -> Result<&'a [u8], GrubError> {
    parts.get(name).map(Vec::as_slice).ok_or_else(|| GrubError::Missing(name.to_owned()))
}

fn sector(parts: &Parts, name: &str) -> Result<Vec<u8>, GrubError> {
    let bytes = part(parts, name)?;
    if bytes.len() == SECTOR { Ok(bytes.to_vec()) } else { Err(broken(name, "is not one sector")) }
}

fn broken(name: &str, what: &'static str) -> GrubError {
    GrubError::Part { name: name.to_owned(), what }
}

fn length(n: usize) -> Result<u32, GrubError> {
    u32::try_from(n).map_err(|_| GrubError::Large { have: n, most: CORE_MAX })
}

fn put(buf: &mut [u8], at: usize, bytes: &[u8]) {
    buf[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Where grub-pc-bin puts its files.
    const FOLDER: &str = "/usr/lib/grub/i386-pc";

    fn parts() -> Parts {
        let folder = std::env::var("EVE_GRUB").unwrap_or_else(|_| FOLDER.to_owned());
        let entries = std::fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("{folder}: {e}; install grub-pc-bin or set EVE_GRUB"));
        let read = |path: &Path| std::fs::read(path).unwrap();
        entries.flatten().map(|e| (e.file_name().into_string().unwrap(), read(&e.path()))).collect()
    }

    fn unpack(packed: &[u8], size: usize) -> Vec<u8> {
        let mut alone = vec![0x5D];
        alone.extend(WINDOW.to_le_bytes());
        alone.extend((size as u64).to_le_bytes());
        alone.extend(packed);
        let mut stream = Stream::new_lzma_decoder(u64::MAX).unwrap();
        let mut bytes = Vec::with_capacity(size);
        stream.process_vec(&alone, &mut bytes, Action::Run).unwrap();
        bytes
    }

    fn word(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(*bytes[at..].first_chunk::<4>().unwrap()) as usize
    }

    /// What a core image holds, unpacked as the decompressor in it would.
    fn held(core: &[u8]) -> Vec<u8> {
        let rest = &core[SECTOR..];
        let start = parts()["lzma_decompress.img"].len();
        let packed = word(rest, PACKED_AT);
        unpack(&rest[start..start + packed], word(rest, UNPACKED_AT))
    }

    /// The kernel with the head of what is behind it, and the objects there: kind and bytes.
    fn taken_apart(held: &[u8]) -> (&[u8], Vec<(usize, &[u8])>) {
        let magic = MODULES_MAGIC.to_le_bytes();
        // The kernel knows the word, too: the last one counts that says how much is left.
        let is_head =
            |at: &usize| held[*at..].starts_with(&magic) && word(held, at + 8) == held.len() - at;
        let at = (0..held.len() - 12).find(is_head).unwrap() + 12;
        let (kernel, mut rest) = held.split_at(at);
        let mut objects = Vec::new();
        while !rest.is_empty() {
            let (object, behind) = rest.split_at(word(rest, 4));
            objects.push((word(object, 0), &object[8..]));
            rest = behind;
        }
        (kernel, objects)
    }

    #[test]
    fn the_core_image_holds_what_grub_mkimage_puts_into_one() {
        let dir = tempfile::tempdir().unwrap();
        let theirs = dir.path().join("core.img");
        let prefix = "(,gpt1)/boot/grub";
        let modules = ["biosdisk", "part_gpt", "fat", "linux", "normal"];
        let folder = std::env::var("EVE_GRUB").unwrap_or_else(|_| FOLDER.to_owned());
        let mut args = vec!["-d", &folder, "-O", "i386-pc", "-p", prefix, "-o"];
        args.push(theirs.to_str().unwrap());
        args.extend(modules);
        #[expect(clippy::disallowed_methods, reason = "a second opinion, not a tool of the build")]
        let out = std::process::Command::new("grub-mkimage").args(&args).output();
        let out = out.expect("grub-mkimage is needed: install grub-common");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let theirs = std::fs::read(theirs).unwrap();
        let ours = core_image(&parts(), &modules, prefix).unwrap();
        let (ours_held, theirs_held) = (held(&ours), held(&theirs));
        assert_eq!(ours_held.len(), theirs_held.len());
        let ((kernel, mut have), (their_kernel, mut want)) =
            (taken_apart(&ours_held), taken_apart(&theirs_held));
        assert!(kernel == their_kernel, "the kernels differ");
        // Modules may lie in any order in which each comes behind what it needs.
        have.sort();
        want.sort();
        assert!(have == want, "the objects differ");
        // Beside the places that whoever writes it to a disk fills in, the loader is the same.
        assert!(ours[..DISKBOOT_REST_AT] == theirs[..DISKBOOT_REST_AT]);
        assert_eq!(ours[SECTOR - 2..SECTOR], theirs[SECTOR - 2..SECTOR], "the segment");
        assert_eq!(word(&ours, DISKBOOT_REST_AT), 35);
        assert_eq!(word(&ours, DISKBOOT_LENGTH_AT) & 0xFFFF, ours.len() / SECTOR - 1);
    }

    #[test]
    fn the_boot_sector_leads_to_the_gap_and_has_no_table() {
        let code = boot_code(&parts()).unwrap();
        assert_eq!(code[92..100], [34, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn parts_that_are_none_are_refused_by_name() {
        assert_eq!(boot_code(&Parts::new()), Err(GrubError::Missing("boot.img".into())));
        let mut broken = parts();
        broken.insert("kernel.img".into(), b"\x7fELF\x01\x01 and no more".to_vec());
        let refused = core_image(&broken, &["fat"], "x").unwrap_err().to_string();
        assert!(refused.starts_with("GRUB's kernel.img is"), "{refused}");
        let refused = core_image(&parts(), &["no_such"], "x");
        assert_eq!(refused, Err(GrubError::Missing("no_such.mod".into())));
    }
}
