//! Never panics; a disk of any content becomes an image that reads back the same, and any image
//! that opens can be edited.
#![no_main]

use std::io::Cursor;
use std::num::NonZero;

use formats::disk::{Disk, Raw};
use formats::qcow2::{self, Editor, Packing, Reader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(mut editor) = Editor::open(Cursor::new(bytes.to_vec())) {
        let _ = editor.write_at(70_000, b"edited");
    }
    let mut raw = Raw::new(Cursor::new(bytes), None).expect("memory is read");
    let mut image = Cursor::new(Vec::new());
    qcow2::write(&mut raw, &mut image, Packing::Zlib, NonZero::<usize>::MIN)
        .expect("memory takes it");
    let mut back = Reader::open(image).expect("our own image");
    let mut read = vec![0; bytes.len()];
    back.read_at(0, &mut read).expect("our own image");
    assert_eq!((back.size(), &read[..]), (raw.size(), bytes));
});
