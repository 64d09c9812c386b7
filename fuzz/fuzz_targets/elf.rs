//! Never panics; a section that was added is found, and what was there stays.
#![no_main]

use formats::elf::Elf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(elf) = Elf::parse(bytes) else { return };
    let before = elf.section(".dep-v0");
    let Ok(more) = elf.with_section(".new", b"content") else { return };
    let read = Elf::parse(&more).expect("we wrote it");
    // The file may have had one of this name before ours.
    let had = matches!(elf.section(".new"), Ok(Some(_)) | Err(_));
    assert!(had || read.section(".new") == Ok(Some(b"content")));
    // The section of names, which may be called so, goes on with a name more.
    match (before, read.section(".dep-v0")) {
        (Ok(Some(old)), now) => {
            assert!(now.is_ok_and(|now| now.is_some_and(|n| n.starts_with(old))))
        }
        (Ok(None), now) => assert_eq!(now, Ok(None)),
        (Err(_), _) => {}
    }
});
