//! Which machines a finished image is for.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use formats::slot::{self, Descriptor};
use formats::{gpt, layout};
use model::Bytes;

use super::Arch;

/// The facts that a build leaves beside its disks.
const FACTS: &str = "image.json";

/// Which machines the live image at `path` is for: as the slot of a raw disk says, else as the facts
/// beside it do. `None`: neither does.
pub fn arch_of(path: &Path) -> Option<Arch> {
    of_slot(path).or_else(|| of_facts(&path.with_file_name(FACTS)))
}

fn of_slot(path: &Path) -> Option<Arch> {
    let file = File::open(path).ok()?;
    let size = Bytes(file.metadata().ok()?.len());
    let table = gpt::Gpt::parse(&read(&file, 0, usize::try_from(gpt::HEAD.0).ok()?).ok()?, size);
    let table = table.ok()?;
    let (_, slot) = table.by_name(layout::Role::ImgA.name())?;
    let at =
        |offset: Bytes, length| read(&file, slot.offset().0.checked_add(offset.0)?, length).ok();
    let verity = slot::verity_at(&at(Bytes(0), slot::HEAD)?).ok()?;
    let descriptor = slot::descriptor_at(verity, &at(verity, 512)?).ok()?;
    let descriptor =
        Descriptor::parse(&at(descriptor, usize::try_from(slot::BLOCK).ok()?)?).ok()?;
    Arch::from_name(&descriptor.arch)
}

fn of_facts(path: &Path) -> Option<Arch> {
    let facts: serde_json::Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Arch::from_name(facts["arch"].as_str()?)
}

fn read(file: &File, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}
