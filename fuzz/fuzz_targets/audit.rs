//! Never panics; what is taken points inside itself.
#![no_main]

use builder::audit::Crates;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Crates::of(bytes);
    if let Ok(crates) = Crates::parse(bytes) {
        let count = crates.packages.len();
        assert!(crates.packages.iter().flat_map(|p| &p.dependencies).all(|n| *n < count));
    }
});
