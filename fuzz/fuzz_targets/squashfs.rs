//! Never panics; what is taken is within its bounds, and only the superblock decides.
#![no_main]

use formats::squashfs::{SIZE_MAX, SUPERBLOCK, Superblock};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(superblock) = Superblock::parse(bytes) {
        assert!(superblock.used <= SIZE_MAX && superblock.used.0 >= SUPERBLOCK as u64);
        assert!(superblock.block.0.is_power_of_two());
        assert_eq!(Superblock::parse(&bytes[..SUPERBLOCK]), Ok(superblock));
    }
});
