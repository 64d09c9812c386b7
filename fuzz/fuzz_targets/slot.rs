//! Never panics; what parses, prints and parses to the same.
#![no_main]

use formats::slot::{self, Descriptor};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(at) = slot::verity_at(bytes) {
        let rest = usize::try_from(at.0).ok().and_then(|n| bytes.get(n..));
        let _ = slot::descriptor_at(at, rest.unwrap_or_default());
    }
    if let Ok(descriptor) = Descriptor::parse(bytes) {
        let printed = descriptor.to_bytes().expect("what parses can be printed");
        assert_eq!(Descriptor::parse(&printed), Ok(descriptor));
    }
});
