//! Never panics; what parses, prints and parses to the same.
#![no_main]

use formats::slot::{self, BLOCK, Descriptor};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

/// Makes the seal of a descriptor right: what a fuzzer changes would otherwise end there.
fn seal(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = bytes.to_vec();
    sealed.resize(usize::try_from(BLOCK).expect("a block is small"), 0);
    if let Some((body, seal)) = sealed.split_last_chunk_mut::<32>() {
        seal.copy_from_slice(&Sha256::digest(body));
    }
    sealed
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(at) = slot::verity_at(bytes) {
        let rest = usize::try_from(at.0).ok().and_then(|n| bytes.get(n..));
        let _ = slot::descriptor_at(at, rest.unwrap_or_default());
    }
    for bytes in [bytes, &seal(bytes)] {
        if let Ok(descriptor) = Descriptor::parse(bytes) {
            let printed = descriptor.to_bytes().expect("what parses can be printed");
            assert_eq!(Descriptor::parse(&printed), Ok(descriptor));
        }
    }
});
