//! Unpacking single blocks into what they may hold at most.

use liblzma::stream::{Action, Status, Stream};

use super::ReadError;
use crate::squashfs::Codec;

/// What an xz block may make us allocate: dictionaries are at most a block.
const XZ_MEMORY: u64 = 64 << 20;

/// Unpacks `packed`, which must give at most `limit` bytes. `None`: the block is damaged.
pub(super) fn unpack(codec: Codec, packed: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut out = vec![0; limit];
    let length = match codec {
        Codec::Gzip => {
            let mut decompressor = libdeflater::Decompressor::new();
            decompressor.zlib_decompress(packed, &mut out).ok()?
        }
        Codec::Zstd => zstd::bulk::decompress_to_buffer(packed, &mut out[..]).ok()?,
        Codec::Xz => xz(packed, &mut out)?,
        Codec::Lzma | Codec::Lzo | Codec::Lz4 => return None,
    };
    out.truncate(length);
    Some(out)
}

/// Whether blocks of this codec can be unpacked.
pub(super) fn check(codec: Codec) -> Result<(), ReadError> {
    match codec {
        Codec::Gzip | Codec::Zstd | Codec::Xz => Ok(()),
        Codec::Lzma | Codec::Lzo | Codec::Lz4 => Err(ReadError::Codec(codec)),
    }
}

fn xz(packed: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut stream = Stream::new_stream_decoder(XZ_MEMORY, 0).ok()?;
    loop {
        let taken = usize::try_from(stream.total_in()).ok()?;
        let given = usize::try_from(stream.total_out()).ok()?;
        let status = stream.process(packed.get(taken..)?, out.get_mut(given..)?, Action::Finish);
        let now = usize::try_from(stream.total_out()).ok()?;
        match status.ok()? {
            Status::StreamEnd => return Some(now),
            _ if now == given && stream.total_in() == taken as u64 => return None,
            _ => {}
        }
    }
}
