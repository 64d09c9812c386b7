//! A gzip stream (RFC 1952) of one member, packed by many threads.
//!
//! The content is cut into pieces of fixed length, each packed alone and ended at a whole byte, so
//! that they can stand one behind the other: the bytes are the same for any number of threads. No
//! name and no time in the header.

use std::io::{self, Read, Write};
use std::num::NonZero;

use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress};

use crate::guess::is_noise;
use crate::parallel::in_order;

/// Bytes of a piece: what is lost for not looking back across its start is a thousandth.
const PIECE: usize = 1 << 20;
/// Deflate, no flags, no time, no hint of the effort, made on Unix.
const HEADER: [u8; 10] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3];
/// An empty block that is the last one.
const END: [u8; 2] = [3, 0];

struct Piece {
    packed: Vec<u8>,
    sum: Hasher,
    length: usize,
}

/// Packs all that `from` gives. `level` is zlib's, 1 to 9.
pub fn write<R: Read, W: Write>(
    from: &mut R,
    out: &mut W,
    level: u32,
    threads: NonZero<usize>,
) -> io::Result<()> {
    out.write_all(&HEADER)?;
    let (mut sum, mut length) = (Hasher::new(), 0u32);
    let next = || {
        let mut piece = Vec::new();
        from.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
        Ok((!piece.is_empty()).then_some(piece))
    };
    let start = || {
        let mut deflate = Compress::new(Compression::new(level), false);
        let mut store = Compress::new(Compression::none(), false);
        move |bytes: Vec<u8>| {
            let packer = if is_noise(&bytes) { &mut store } else { &mut deflate };
            pack(packer, &bytes)
        }
    };
    in_order(threads, next, start, |piece: io::Result<Piece>| {
        let piece = piece?;
        sum.combine(&piece.sum);
        // The trailer has the length modulo 2^32.
        length = length.wrapping_add(u32::try_from(piece.length).unwrap_or(0));
        out.write_all(&piece.packed)
    })?;
    out.write_all(&END)?;
    out.write_all(&sum.finalize().to_le_bytes())?;
    out.write_all(&length.to_le_bytes())
}

fn pack(deflate: &mut Compress, bytes: &[u8]) -> io::Result<Piece> {
    deflate.reset();
    let mut packed = Vec::with_capacity(bytes.len() / 2 + 1024);
    loop {
        let done = usize::try_from(deflate.total_in()).unwrap_or(0);
        deflate.compress_vec(&bytes[done..], &mut packed, FlushCompress::Sync)?;
        // Room that is left says that nothing waits inside.
        if deflate.total_in() == bytes.len() as u64 && packed.len() < packed.capacity() {
            break;
        }
        packed.reserve(bytes.len() / 2 + 1024);
    }
    let mut sum = Hasher::new();
    sum.update(bytes);
    Ok(Piece { packed, sum, length: bytes.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(bytes: &[u8], threads: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let threads = NonZero::new(threads).unwrap();
        write(&mut &bytes[..], &mut out, 6, threads).unwrap();
        out
    }

    #[test]
    fn what_was_packed_by_any_number_of_threads_unpacks_to_the_same() {
        let mut text = b"the node keeps what it was told\n".repeat(90_000);
        text.extend((0..400_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()));
        for bytes in [&text[..], &text[..PIECE], b"x", b""] {
            let one = packed(bytes, 1);
            assert!(one == packed(bytes, 3));
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&one[..]).read_to_end(&mut back).unwrap();
            assert!(back == bytes);
        }
    }
}
