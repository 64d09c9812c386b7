//! Never panics; what parses, prints and parses to the same.
#![no_main]

use std::ops::Range;

use formats::gpt::{self, Gpt};
use libfuzzer_sys::fuzz_target;
use model::Bytes;

const SECTOR: usize = 512;
const ENTRIES: usize = 128 * 128;

/// Makes the checksums of a table right: what a fuzzer changes would otherwise end there.
fn seal(bytes: &[u8], header: usize, entries: Range<usize>) -> Option<Vec<u8>> {
    let mut sealed = bytes.to_vec();
    let sum = crc32fast::hash(sealed.get(entries)?);
    let header = sealed.get_mut(header..header + SECTOR)?;
    header[88..92].copy_from_slice(&sum.to_le_bytes());
    header[16..20].fill(0);
    let length = u32::from_le_bytes(*header[12..].first_chunk()?) as usize;
    let sum = crc32fast::hash(header.get(..length)?);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    Some(sealed)
}

fn check(head: &[u8], tail: &[u8], size: Bytes) {
    let _ = Gpt::parse_backup(tail, size);
    if let Ok(table) = Gpt::parse(head, size) {
        let extents = table.to_extents();
        let head = [&extents[2].bytes[..], &extents[1].bytes[..]].concat();
        assert_eq!(head.len() as u64, gpt::HEAD.0);
        assert_eq!(Gpt::parse(&head, size).as_ref(), Ok(&table));
        // The backup does not know what stands in sector 0.
        let backup = Gpt::parse_backup(&extents[0].bytes, size).expect("our own table parses");
        assert_eq!(backup.guarded_by(Some(table.mbr().clone())), table);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let size = Bytes::mib(600);
    check(bytes, bytes, size);
    let head = seal(bytes, SECTOR, 2 * SECTOR..2 * SECTOR + ENTRIES);
    let tail = seal(bytes, ENTRIES, 0..ENTRIES);
    check(&head.unwrap_or_default(), &tail.unwrap_or_default(), size);
});
