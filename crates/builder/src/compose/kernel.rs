//! Kernels without their compression: a gzip file, or the gzip payload of an x86 bzImage (kernel
//! documentation, arch/x86/boot, "The Linux/x86 Boot Protocol").

use std::io::{self, Read};

use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};

use super::plan::{Content, Contents, Place};

/// The most that a kernel may unpack to. Those we know have 30 to 80 MB.
const KERNEL_MAX: Bytes = Bytes::gib(1);

const GZIP: [u8; 2] = [0x1f, 0x8b];
/// As much of a bzImage as has the fields we need.
const HEAD: usize = 0x250;
/// The protocol that brought the place and length of the payload.
const PROTOCOL_MIN: u16 = 0x0208;

/// The kernel that `packed` holds. The error says why it cannot be had.
pub(super) fn unpacked(contents: &Contents, packed: &Content) -> Result<Content, String> {
    let fail = |e: io::Error| format!("cannot decompress the kernel: {e}");
    let mut head = Vec::new();
    let opened = contents.open(packed).map_err(fail)?;
    opened.take(HEAD as u64).read_to_end(&mut head).map_err(fail)?;
    let (from, length) = match head.starts_with(&GZIP) {
        true => (0, packed.size),
        false => payload(&head, packed.size)?,
    };
    let mut stream = contents.unpack(packed, from, length).map_err(fail)?;
    let (mut size, mut hash) = (0_u64, Sha256::new());
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = stream.read(&mut buffer).map_err(fail)?;
        if n == 0 {
            break;
        }
        size += n as u64;
        hash.update(&buffer[..n]);
        if size > KERNEL_MAX.0 {
            return Err(format!("the kernel unpacks to more than {KERNEL_MAX}"));
        }
    }
    let digest = Some(Digest(hash.finalize().into()));
    let place = Place::Unpacked { of: Box::new(packed.clone()), from, length };
    Ok(Content { size, digest, place })
}

/// Where in a bzImage the payload lies: its begin and length.
fn payload(head: &[u8], size: u64) -> Result<(u64, u64), String> {
    if head.len() < HEAD || head[0x1fe..0x200] != [0x55, 0xaa] || &head[0x202..0x206] != b"HdrS" {
        return Err("the kernel is neither gzip nor a bzImage: nothing to decompress".to_owned());
    }
    if u16::from_le_bytes([head[0x206], head[0x207]]) < PROTOCOL_MIN {
        return Err("this bzImage is too old to say where its payload is".to_owned());
    }
    let word = |at: usize| {
        u64::from(u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]))
    };
    let (begin, length) = (word(0x248) + (u64::from(head[0x1f1]) + 1) * 512, word(0x24c));
    if begin + length > size {
        return Err("the bzImage is shorter than it says".to_owned());
    }
    Ok((begin, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    use store::{Layers, Layout};

    fn unpack(packed: &[u8]) -> Result<Vec<u8>, String> {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        let keeper = Layers::new(layout.clone(), None, Bytes::mib(1));
        let contents = Contents { layout, keeper, layers: Vec::new() };
        let content = unpacked(&contents, &Content::text(packed))?;
        let mut out = Vec::new();
        contents.open(&content).unwrap().read_to_end(&mut out).unwrap();
        assert_eq!(content.digest, Some(Digest(Sha256::digest(&out).into())));
        Ok(out)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    }

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 3 * 512];
        image[0x1f1] = 1;
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x208].copy_from_slice(b"HdrS\x0f\x02");
        image[0x248] = 16;
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.resize(2 * 512 + 16, 0);
        image.extend_from_slice(payload);
        image.extend_from_slice(b"what follows the payload");
        image
    }

    #[test]
    fn gzip_is_unpacked_alone_and_inside_a_bzimage() {
        assert_eq!(unpack(&gzip(b"vmlinux")).unwrap(), b"vmlinux");
        assert_eq!(unpack(&bzimage(&gzip(b"vmlinux"))).unwrap(), b"vmlinux");
    }

    #[test]
    fn what_cannot_be_unpacked_is_told() {
        let mut short = bzimage(&gzip(b"vmlinux"));
        short.truncate(1050);
        let mut old = bzimage(b"");
        old[0x206] = 7;
        for (kernel, want) in [
            (b"\x7fELF".to_vec(), "neither gzip nor a bzImage"),
            (short, "shorter than it says"),
            (old, "too old"),
            (bzimage(b"\x28\xb5\x2f\xfd zstd"), "cannot decompress the kernel"),
        ] {
            let got = unpack(&kernel).unwrap_err();
            assert!(got.contains(want), "{got}");
        }
    }
}
