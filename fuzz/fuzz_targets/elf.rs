//! Never panics; a section that was added is found, and what was there stays.
#![no_main]

use formats::elf::Elf;
use libfuzzer_sys::fuzz_target;

/// The longer header: what leads to the table stands in it.
const HEADER: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let Ok(elf) = Elf::parse(bytes) else { return };
    let before = elf.section(".dep-v0");
    let Ok(more) = elf.with_section(".new", b"content") else { return };
    let read = Elf::parse(&more).expect("we wrote it");
    // The file may have had one of this name before ours.
    let had = matches!(elf.section(".new"), Ok(Some(_)) | Err(_));
    assert!(had || read.section(".new") == Ok(Some(b"content")));
    // A section may lie over the header or be that of names, both of which change.
    if let Ok(before) = before {
        assert_eq!(read.section(".dep-v0").map(|s| s.is_some()), Ok(before.is_some()));
    }
    let head = HEADER.min(bytes.len());
    assert_eq!(more.get(head..bytes.len()), bytes.get(head..));
});
