//! Never panics; what parses, prints and parses to the same.
#![no_main]

use formats::gpt::{self, Gpt};
use libfuzzer_sys::fuzz_target;
use model::Bytes;

fuzz_target!(|bytes: &[u8]| {
    let size = Bytes::mib(600);
    let _ = Gpt::parse_backup(bytes, size);
    if let Ok(table) = Gpt::parse(bytes, size) {
        let extents = table.to_extents();
        let head = [&extents[2].bytes[..], &extents[1].bytes[..]].concat();
        assert_eq!(head.len() as u64, gpt::HEAD.0);
        assert_eq!(Gpt::parse(&head, size).as_ref(), Ok(&table));
        // The backup does not know what stands in sector 0.
        let backup = Gpt::parse_backup(&extents[0].bytes, size).expect("our own table parses");
        assert_eq!(backup.guarded_by(Some(table.mbr().clone())), table);
    }
});
