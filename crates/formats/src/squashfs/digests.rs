//! Digests of contents that nobody knows yet, on all processors.

use std::io::Read;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::Digest;
use sha2::{Digest as _, Sha256};

use super::write::{Source, WriteError};
use crate::tree::Contents;

const CHUNK: usize = 256 << 10;

/// For each of `wanted`, places in `files`, the digest of the content.
pub(super) fn find<C: Sync>(
    files: &[Source<'_, C>],
    wanted: &[usize],
    contents: &dyn Contents<C>,
    threads: NonZeroUsize,
) -> Result<Vec<(usize, Digest)>, WriteError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        let mut buffer = vec![0; CHUNK];
        while let Some(at) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let digest = digest(&files[*at], contents, &mut buffer);
            let failed = digest.is_err();
            found.push((*at, digest));
            if failed {
                break;
            }
        }
        found
    };
    let threads = threads.get().min(wanted.len());
    let mut found = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Vec<_>>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().flat_map(join).collect::<Vec<_>>()
    });
    // Of several errors the first in the tree is told, whoever met it first.
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(at, digest)| Ok((at, digest?))).collect()
}

fn digest<C>(
    file: &Source<'_, C>,
    contents: &dyn Contents<C>,
    buffer: &mut [u8],
) -> Result<Digest, WriteError> {
    let mut hash = Sha256::new();
    let mut left = file.content.size.0;
    let mut reader = contents.open(&file.content.at).map_err(|e| file.cannot_read(e))?;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        reader.read_exact(&mut buffer[..wanted]).map_err(|e| file.cannot_read(e))?;
        hash.update(&buffer[..wanted]);
        left -= wanted as u64;
    }
    Ok(Digest(hash.finalize().into()))
}
