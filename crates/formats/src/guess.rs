//! Whether packing is worth the time.

/// Bytes that are looked at, in [`PLACES`] pieces spread over all.
const LOOK: usize = 4096;
const PLACES: usize = 16;
/// Sum of the squares of how often each value comes among 4096 bytes. Noise has about 69,600, give or
/// take 400; English text 250,000, a program 400,000.
const NOISE_MAX: u32 = 72_000;

/// Whether bytes look like what a compressor or a cipher wrote. Packing those again gains nothing,
/// and costs as much as packing something that shrinks. Short pieces are always worth a try.
pub(crate) fn is_noise(bytes: &[u8]) -> bool {
    if bytes.len() < 2 * LOOK {
        return false;
    }
    let mut counts = [0u32; 256];
    for place in 0..PLACES {
        let at = (bytes.len() - LOOK / PLACES) / (PLACES - 1) * place;
        for byte in &bytes[at..at + LOOK / PLACES] {
            counts[usize::from(*byte)] += 1;
        }
    }
    counts.iter().map(|n| n * n).sum::<u32>() < NOISE_MAX
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn noise_is_told_from_what_packs() {
        let noise: Vec<u8> = (0..2048u32).flat_map(|n| Sha256::digest(n.to_le_bytes())).collect();
        assert!(is_noise(&noise));
        assert!(!is_noise(&noise[..4096]), "too little to tell");
        let text: Vec<u8> = b"fn main() { println!(\"hello\"); }\n".repeat(2000);
        assert!(!is_noise(&text));
        // A tenth of zeroes is worth packing.
        let mut mixed = noise;
        mixed[30_000..36_600].fill(0);
        assert!(!is_noise(&mixed));
    }
}
