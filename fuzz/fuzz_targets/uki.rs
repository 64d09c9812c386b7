//! Never panics; a section that could be added is found again.
#![no_main]

use formats::uki::Pe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(pe) = Pe::parse(bytes) else { return };
    pe.sections().iter().for_each(|s| {
        pe.section(&s.name);
    });
    if let Ok(more) = pe.with_sections(&[(".fuzz", b"body")]) {
        let again = Pe::parse(&more).expect("our own executable parses");
        assert_eq!(again.section(".fuzz"), Some(&b"body"[..]));
    }
});
