//! Never panics; what is understood, printed, is understood the same.
#![no_main]

use formats::deb822::stanzas;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for stanza in stanzas(text) {
        let again: Vec<_> = stanzas(&stanza.print()).collect();
        assert_eq!(again, [stanza]);
    }
});
