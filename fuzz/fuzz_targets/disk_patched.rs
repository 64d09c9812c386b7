//! Never panics on an image of ours that was damaged anywhere: tables that random bytes never reach
//! are right but for the damage, and so are the checksums over it.
#![no_main]

use std::io::Cursor;
use std::num::NonZero;
use std::sync::OnceLock;

use formats::disk::{self, Disk, Format, Raw};
use formats::qcow2::{self, Editor, Packing};
use formats::{parallels, vdi, vhdx, vmdk};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input {
    /// Which of [`images`], modulo their number.
    image: u8,
    /// Where something else stands, and what. Counted in what is not zero, for an image has more holes
    /// than tables.
    patches: Vec<(u16, u8, Patch)>,
    /// The image ends earlier, by as much.
    cut: u16,
}

#[derive(Debug, Arbitrary)]
enum Patch {
    Byte(u8),
    Word(u32),
    Long(u64),
}

/// An image and its pieces of [`PIECE`] bytes that are not zero.
struct Image {
    bytes: Vec<u8>,
    pieces: Vec<usize>,
}

const PIECE: usize = 32;

/// An image of each format that has tables.
fn images() -> &'static [Image] {
    static IMAGES: OnceLock<Vec<Image>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let one = NonZero::<usize>::MIN;
        let mut bytes = vec![0; (1 << 20) + 4096];
        bytes[5000..5008].copy_from_slice(b"contents");
        bytes[1 << 20] = 1;
        let image = |write: &dyn Fn(&mut dyn Disk, &mut Cursor<Vec<u8>>)| {
            let mut disk = Raw::new(Cursor::new(&bytes), None).expect("memory is read");
            let mut out = Cursor::new(Vec::new());
            write(&mut disk, &mut out);
            let bytes = out.into_inner();
            let pieces = bytes.chunks(PIECE).enumerate();
            let pieces = pieces.filter(|(_, piece)| piece.iter().any(|b| *b != 0));
            let pieces = pieces.map(|(n, _)| n * PIECE).collect();
            Image { bytes, pieces }
        };
        vec![
            image(&|disk, out| {
                qcow2::write(disk, out, Packing::Zlib, one).expect("memory takes it");
            }),
            image(&|disk, out| {
                qcow2::write(disk, out, Packing::Zstd, one).expect("memory takes it");
            }),
            image(&|disk, out| vdi::write(disk, out).expect("memory takes it")),
            image(&|disk, out| vmdk::write(disk, out, "a").expect("memory takes it")),
            image(&|disk, out| vmdk::write_stream(disk, out, "a", one).expect("memory takes it")),
            image(&|disk, out| vhdx::write(disk, out).expect("memory takes it")),
            image(&|disk, out| {
                parallels::write(disk, out).expect("memory takes it");
            }),
        ]
    })
}

/// CRC-32C, a bit at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg())
        })
    })
}

/// Makes the checksums of a VHDX right: two headers and two tables of regions.
fn seal(image: &mut [u8]) {
    for (at, length) in [(64, 4), (128, 4), (192, 64), (256, 64)] {
        let Some(part) = image.get_mut(at << 10..(at + length) << 10) else { return };
        part[4..8].fill(0);
        let sum = crc32c(part);
        part[4..8].copy_from_slice(&sum.to_le_bytes());
    }
}

fuzz_target!(|input: Input| {
    let images = images();
    let base = &images[usize::from(input.image) % images.len()];
    let mut image = base.bytes.clone();
    let mut sealed = true;
    for (piece, byte, patch) in &input.patches {
        // A little behind it, too: where a table could go on.
        let at = base.pieces[usize::from(*piece) % base.pieces.len()] + usize::from(*byte) % 64;
        let bytes = match patch {
            Patch::Byte(byte) => vec![*byte],
            Patch::Word(word) => word.to_le_bytes().to_vec(),
            Patch::Long(long) => long.to_le_bytes().to_vec(),
        };
        image.iter_mut().skip(at).zip(bytes).for_each(|(old, new)| *old = new);
        sealed &= at >= vhdx::HEAD;
    }
    if image.starts_with(b"vhdxfile") && !sealed {
        seal(&mut image);
    }
    image.truncate(image.len() - usize::from(input.cut).min(image.len()));
    let Ok(format) = Format::of(&image) else { return };
    if format == Format::Qcow2
        && let Ok(mut editor) = Editor::open(Cursor::new(image.clone()))
    {
        let _ = editor.write_at(70_000, b"edited");
    }
    let Ok(mut disk) = disk::open(format, Cursor::new(&image), None) else { return };
    let (mut at, mut buf) = (0, [0; 4096]);
    for _ in 0..20 {
        let Ok(Some(data)) = disk.next_data(at) else { return };
        assert!(data.start >= at && data.start < data.end && data.end <= disk.size().0);
        let _ = disk.read_at(data.start, &mut buf);
        at = data.end;
    }
});
