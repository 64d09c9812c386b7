//! Never panics; a quote that is read, written again, is read the same.
#![no_main]

use api::quote::Attest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(attest) = Attest::parse(bytes) else { return };
    let written = attest.to_bytes().expect("what was read can be written");
    assert_eq!(Attest::parse(&written).expect("we wrote it"), attest);
});
