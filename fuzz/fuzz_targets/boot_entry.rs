//! Never panics; what parses, prints and parses to the same.
#![no_main]

use formats::efi::LoadOption;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = LoadOption::parse(bytes)
        && entry.name.encode_utf16().count() <= 256
        && entry.path.encode_utf16().count() <= 256
        && !entry.name.is_empty()
    {
        assert_eq!(LoadOption::parse(&entry.to_bytes()), Ok(entry));
    }
});
