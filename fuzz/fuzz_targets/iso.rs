//! Never panics; files lie in the image.
#![no_main]

use std::io::{Cursor, Read};

use formats::iso::{self, Opened};
use formats::tree::{Contents, Kind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = iso::read(&mut Cursor::new(bytes)) else { return };
    let opened = Opened::new(Cursor::new(bytes));
    for (_, node) in image.tree.iter() {
        if let Kind::File(content) = &node.kind {
            let mut some = Vec::new();
            let file = opened.open(&content.at).expect("memory opens");
            file.take(100).read_to_end(&mut some).expect("it lies in the image");
            assert_eq!(some.len() as u64, content.size.0.min(100));
        }
    }
});
