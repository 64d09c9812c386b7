//! Never panics; a disk of any content becomes an image with a header that parses.
#![no_main]

use std::io::Cursor;

use formats::qcow2::{self, Header};
use libfuzzer_sys::fuzz_target;
use model::Bytes;

fuzz_target!(|bytes: &[u8]| {
    let _ = Header::parse(bytes);
    let size = Bytes(bytes.len() as u64 + 512);
    let mut image = Cursor::new(Vec::new());
    qcow2::write(&mut &bytes[..], size, &mut image).expect("memory takes it");
    assert_eq!(Header::parse(image.get_ref()).expect("our own image").size, size);
});
