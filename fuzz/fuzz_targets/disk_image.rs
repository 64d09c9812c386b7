//! Never panics, whatever an image of any format says of itself; stretches of data ascend and lie in
//! the disk.
#![no_main]

use std::io::Cursor;

use formats::disk::{self, Disk, Format, HEAD};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(format) = Format::of(&bytes[..bytes.len().min(HEAD)]) else { return };
    let Ok(mut disk) = disk::open(format, Cursor::new(bytes), None) else { return };
    let (mut at, mut buf) = (0, [0; 4096]);
    for _ in 0..20 {
        let Ok(Some(data)) = disk.next_data(at) else { return };
        assert!(data.start >= at && data.start < data.end && data.end <= disk.size().0);
        let _ = disk.read_at(data.start, &mut buf);
        at = data.end;
    }
});
