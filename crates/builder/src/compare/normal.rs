//! What two builds of one source may differ in: signatures and the keys that they are checked with.
//!
//! Nothing else is touched. Whoever compares says what was left out.
//!
//! Formats: Linux, `include/linux/module_signature.h` and `Documentation/arch/x86/boot.rst`;
//! Microsoft's PE format; X.509 (RFC 5280).

use std::io::Read;

/// What the kernel looks for at the end of a signed module.
const SIGNED: &[u8] = b"~Module signature appended~\n";
/// The largest kernel, unpacked.
const KERNEL_MAX: u64 = 1 << 30;
/// No certificate in a kernel is larger.
const CERTIFICATE_MAX: usize = 16 << 10;

/// Why two files count as the same though their bytes differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Only signatures differ.
    Signature,
    /// Only keys, and the signatures made with them.
    Key,
}

/// Whether two files are the same but for signatures and keys.
pub(super) fn same(one: &[u8], two: &[u8]) -> Option<Reason> {
    let (a, b) = (module(one), module(two));
    if (a.is_some() || b.is_some()) && a.unwrap_or(one) == b.unwrap_or(two) {
        return Some(Reason::Signature);
    }
    if let (Some(a), Some(b)) = (without_pe_signature(one), without_pe_signature(two))
        && a == b
    {
        return Some(Reason::Signature);
    }
    let (a, b) = (Kernel::read(one)?, Kernel::read(two)?);
    (a.shell == b.shell && without_certificates(&a.plain) == without_certificates(&b.plain))
        .then_some(Reason::Key)
}

/// A module without its signature; `None` if it has none. In front of the magic stand twelve bytes,
/// the last four of them the signature's length.
fn module(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_suffix(SIGNED)?;
    let (rest, about) = rest.split_at_checked(rest.len().checked_sub(12)?)?;
    let length = u32::from_be_bytes(*about.last_chunk()?);
    rest.get(..rest.len().checked_sub(usize::try_from(length).ok()?)?)
}

/// A PE program without its checksum and its table of certificates.
fn without_pe_signature(bytes: &[u8]) -> Option<Vec<u8>> {
    let word = |at: usize| {
        let raw = bytes.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(*raw)).ok()
    };
    if !bytes.starts_with(b"MZ") {
        return None;
    }
    let start = word(0x3c)?;
    let optional = start.checked_add(24)?;
    if bytes.get(start..start + 4)? != b"PE\0\0" || bytes.get(optional..optional + 2)? != [0x0b, 2]
    {
        return None;
    }
    let (checksum, security) = (optional + 64, optional + 112 + 4 * 8);
    let (table, length) = (word(security)?, word(security + 4)?);
    let mut out = bytes.to_vec();
    out.get_mut(checksum..checksum + 4)?.fill(0);
    out.get_mut(security..security + 8)?.fill(0);
    if table > 0 && table.checked_add(length)? == bytes.len() {
        out.truncate(table);
    }
    Some(out)
}

/// An x86 kernel: what is packed, and what unpacks it.
struct Kernel {
    /// All but the packed part, and what follows from that.
    shell: Vec<u8>,
    plain: Vec<u8>,
}

impl Kernel {
    fn read(bytes: &[u8]) -> Option<Kernel> {
        let word = |at: usize| {
            let raw = bytes.get(at..)?.first_chunk()?;
            usize::try_from(u32::from_le_bytes(*raw)).ok()
        };
        if bytes.get(0x202..0x206)? != b"HdrS" {
            return None;
        }
        let setup = match bytes.get(0x1f1)? {
            0 => 4,
            n => usize::from(*n),
        };
        let start = ((setup + 1) * 512).checked_add(word(0x248)?)?;
        let packed = bytes.get(start..start.checked_add(word(0x24c)?)?)?;
        let plain = unpack(packed)?;
        let mut shell = without_pe_signature(bytes).unwrap_or_else(|| bytes.to_vec());
        let end = (start + packed.len()).min(shell.len());
        shell.drain(start..end);
        // The packed part's length, the room that it needs, and a checksum over all.
        for (at, length) in [(0x1f4, 4), (0x24c, 4), (0x260, 4)] {
            shell.get_mut(at..at + length)?.fill(0);
        }
        shell.truncate(shell.len().saturating_sub(4));
        Some(Kernel { shell, plain })
    }
}

/// Unpacks a kernel; behind it stands its length, which no format knows.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let read: Box<dyn Read> = match packed {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::GzDecoder::new(packed)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Box::new(zstd::Decoder::with_buffer(packed).ok()?.single_frame())
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Box::new(liblzma::bufread::XzDecoder::new(packed)),
        _ => return None,
    };
    read.take(KERNEL_MAX).read_to_end(&mut plain).ok()?;
    Some(plain)
}

/// Bytes without the X.509 certificates in them: a sequence whose first part is a sequence that begins
/// with the version 3.
fn without_certificates(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match certificate(&bytes[at..]) {
            Some(length) => at += length,
            None => {
                // To the next byte that can begin one.
                let next = bytes[at + 1..].iter().position(|b| *b == 0x30);
                let next = next.map_or(bytes.len(), |n| at + 1 + n);
                out.extend_from_slice(&bytes[at..next]);
                at = next;
            }
        }
    }
    out
}

fn certificate(bytes: &[u8]) -> Option<usize> {
    let long = |at: usize| {
        let [0x30, 0x82, high, low] = *bytes.get(at..at + 4)? else { return None };
        Some(usize::from(u16::from_be_bytes([high, low])) + 4)
    };
    let (outer, inner) = (long(0)?, long(4)?);
    let fits = outer <= CERTIFICATE_MAX && inner < outer && outer <= bytes.len();
    (fits && bytes.get(8..12)? == [0xa0, 0x03, 0x02, 0x01]).then_some(outer)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn signed(body: &[u8], signature: &[u8]) -> Vec<u8> {
        let length = u32::try_from(signature.len()).unwrap().to_be_bytes();
        [body, signature, &[0; 8], &length, SIGNED].concat()
    }

    fn key(seed: u8) -> Vec<u8> {
        let inner = [&[0x30, 0x82, 1, 0, 0xa0, 3, 2, 1, 2][..], &[seed; 251]].concat();
        let outer = u16::try_from(inner.len()).unwrap().to_be_bytes();
        [&[0x30, 0x82, outer[0], outer[1]][..], &inner].concat()
    }

    fn kernel(code: &[u8], key: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&[code, key, b"the end"].concat()).unwrap();
        let packed = packed.finish().unwrap();
        let mut out = vec![0; 5 * 512 + 16];
        out[0x202..0x206].copy_from_slice(b"HdrS");
        out[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        let length = u32::try_from(packed.len()).unwrap();
        out[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&packed);
        out.extend_from_slice(b"behind it");
        out
    }

    #[test]
    fn only_signatures_of_modules_are_left_out() {
        assert_eq!(
            same(&signed(b"code", b"one"), &signed(b"code", b"other")),
            Some(Reason::Signature)
        );
        assert_eq!(same(&signed(b"code", b"one"), b"code"), Some(Reason::Signature));
        assert_eq!(same(&signed(b"code", b"one"), &signed(b"Code", b"one")), None);
        assert_eq!(same(b"one", b"two"), None);
        assert_eq!(module(&[&[0xff; 12][..], SIGNED].concat()), None);
        assert_eq!(module(SIGNED), None);
    }

    #[test]
    fn only_keys_in_kernels_are_left_out() {
        let one = kernel(b"code", &key(1));
        assert_eq!(same(&one, &kernel(b"code", &key(2))), Some(Reason::Key));
        assert_eq!(same(&one, &kernel(b"Code", &key(1))), None);
        let mut shell = kernel(b"code", &key(2));
        shell[0x100] = 1;
        assert_eq!(same(&one, &shell), None);
        for cut in 0..one.len() {
            let _ = same(&one[..cut], &one);
        }
    }
}
