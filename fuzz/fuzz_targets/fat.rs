//! Never panics; what reads and can be written again reads to the same.
#![no_main]

use formats::fat;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok((volume, files)) = fat::read(bytes) else { return };
    if let Ok(again) = fat::render(&volume, &files) {
        let (_, back) = fat::read(&again).expect("our own volume reads");
        assert!(back == files);
    }
});
