//! Never panics; a tree that is taken is not larger than a hundredth of its data, and a bit.
#![no_main]

use formats::verity::{DATA_BLOCKS_MAX, Superblock};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(superblock) = Superblock::parse(bytes) {
        assert!((1..=DATA_BLOCKS_MAX).contains(&superblock.data_blocks));
        assert!(superblock.salt.len() <= 256);
        assert!(superblock.total_blocks() <= superblock.data_blocks / 100 + 10);
    }
});
