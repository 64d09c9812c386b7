//! Never panics; every member's bytes stand where it says.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(members) = formats::cpio::read(bytes) else { return };
    for member in members {
        assert_eq!(&bytes[member.at..][..member.content.len()], member.content);
    }
});
