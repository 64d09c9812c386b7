//! Never panics; what is read as an archive, written again, reads the same.
#![no_main]

use std::io::{Read, Write};

use libfuzzer_sys::fuzz_target;
use store::tarball::{Header, Reader, Writer};

fn read(bytes: &[u8]) -> Option<Vec<(Header, Vec<u8>)>> {
    let mut reader = Reader::new(bytes);
    let mut members = Vec::new();
    while let Some(header) = reader.next().ok()? {
        let mut body = Vec::new();
        reader.read_to_end(&mut body).ok()?;
        members.push((header, body));
    }
    Some(members)
}

fn write(members: &[(Header, Vec<u8>)]) -> Option<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    for (header, body) in members {
        writer.header(header).ok()?;
        writer.write_all(body).ok()?;
    }
    writer.finish().ok()
}

/// Makes the checksum of every block right that looks like a header: what a fuzzer changes would
/// otherwise end there.
fn seal(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = bytes.to_vec();
    for block in sealed.as_chunks_mut::<512>().0 {
        if block[257..].starts_with(b"ustar") {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
    sealed
}

fuzz_target!(|bytes: &[u8]| {
    for bytes in [bytes, &seal(bytes)] {
        // Not everything that can be read can be written; what can, settles after one round.
        let Some(once) = read(bytes).and_then(|m| write(&m)) else { continue };
        let members = read(&once).expect("we wrote it");
        assert_eq!(write(&members).expect("we read it"), once);
    }
});
