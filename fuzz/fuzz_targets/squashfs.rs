#![no_main]
//! Foreign squashfs images give a tree and contents or an error, never a panic or endless work; a
//! superblock that parses is written as it was read.

use std::io::{Cursor, Read};

use formats::squashfs::{Image, Superblock};
use formats::tree::{Contents, Kind};
use libfuzzer_sys::fuzz_target;

/// More than a test image has: what holes and shared blocks pretend to be can be anything.
const READ_MAX: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(superblock) = Superblock::parse(bytes) else { return };
    assert_eq!(Superblock::parse(&superblock.to_bytes()), Ok(superblock));
    let Ok(image) = Image::open(Cursor::new(bytes)) else { return };
    let Ok(tree) = image.tree() else { return };
    for (_, node) in tree.iter().take(100) {
        if let Kind::File(content) = &node.kind
            && let Ok(reader) = image.open(&content.at)
        {
            let _ = std::io::copy(&mut reader.take(READ_MAX), &mut std::io::sink());
        }
    }
});
