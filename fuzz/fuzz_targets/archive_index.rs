//! Never panics; what an archive holds is read back as it was, and what counts of it in an image
//! stands there once and does not climb out.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use model::Digest;
use sha2::{Digest as _, Sha256};
use store::{ArchiveIndex, Flattener};

fuzz_target!(|bytes: &[u8]| {
    // As an index, whatever its sum is.
    let sum = Sha256::digest(bytes);
    let foreign = ArchiveIndex::decode(&[bytes, &sum[..]].concat());
    for index in foreign.into_iter().chain(ArchiveIndex::of(bytes).ok()) {
        assert_eq!(ArchiveIndex::decode(&index.encode()).as_ref(), Some(&index));
        let (mut flat, mut seen) = (Flattener::default(), HashSet::new());
        for mut header in index.members.into_iter().map(|m| m.header) {
            if flat.admit(Digest([0; 32]), &mut header).unwrap_or(false) {
                assert!(!header.path.split(|b| *b == b'/').any(|part| part == b".."));
                assert!(seen.insert(header.path), "a path stands there twice");
            }
        }
    }
});
