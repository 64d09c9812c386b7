//! Never panics, never unpacks more than it may; what is read can be packed and read again.
#![no_main]

use api::newlogs::{self, Entry, FILE_TARGET};
use libfuzzer_sys::fuzz_target;
use model::Bytes;

fuzz_target!(|bytes: &[u8]| {
    let limit = Bytes::kib(64);
    let Ok(file) = newlogs::unpack(bytes, limit) else { return };
    assert!(file.text().len() as u64 <= limit.0);
    let entries: Vec<Entry> = file.entries().filter_map(Result::ok).collect();
    let packed = newlogs::pack(&entries, &file.about, file.created, FILE_TARGET).expect("packs");
    for packed in packed {
        let again = newlogs::unpack(&packed, Bytes::mib(16)).expect("unpacks");
        assert!(again.entries().all(|e| e.is_ok()));
    }
});
