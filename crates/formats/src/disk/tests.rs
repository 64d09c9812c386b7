use std::io::Cursor;
use std::num::NonZero;

use super::blocks::is_zero;
use super::*;
use crate::qcow2::{self, Packing};

const DISK: usize = (1 << 20) + 4096;
const TWO: NonZero<usize> = NonZero::new(2).unwrap();

/// A small image of each format that we read.
fn images() -> Vec<(Format, Vec<u8>)> {
    let mut bytes = vec![0; DISK];
    bytes[5000..5008].copy_from_slice(b"contents");
    bytes[DISK - 9] = 1;
    let image = |format| {
        let mut disk = Raw::new(Cursor::new(&bytes), None).unwrap();
        let mut out = Cursor::new(Vec::new());
        match format {
            Format::Raw => out.get_mut().extend(&bytes),
            Format::Qcow2 => qcow2::write(&mut disk, &mut out, Packing::Zlib, TWO).unwrap(),
            Format::Vdi => vdi::write(&mut disk, &mut out).unwrap(),
            Format::Vmdk => vmdk::write(&mut disk, &mut out, "a").unwrap(),
            Format::VmdkStream => vmdk::write_stream(&mut disk, &mut out, "a", TWO).unwrap(),
            Format::Vhdx => vhdx::write(&mut disk, &mut out).unwrap(),
            Format::Parallels => drop(parallels::write(&mut disk, &mut out).unwrap()),
            Format::Gcp => return None,
        }
        Some((format, out.into_inner()))
    };
    Format::ALL.into_iter().filter_map(image).collect()
}

/// Goes through a disk as a writer does; how many bytes are not zero.
fn walk(disk: &mut dyn Disk) -> Result<usize, Error> {
    let (mut at, mut count, mut buf) = (0, 0, vec![0; 1 << 20]);
    while let Some(data) = disk.next_data(at)? {
        assert!(data.start >= at && data.end > data.start && data.end <= disk.size().0);
        let here = usize::try_from(data.end - data.start).unwrap().min(buf.len());
        disk.read_at(data.start, &mut buf[..here])?;
        let pieces = buf[..here].chunks(4096).filter(|piece| !is_zero(piece));
        count += pieces.flatten().filter(|b| **b != 0).count();
        at = data.start + here as u64;
    }
    Ok(count)
}

/// Reads a little of the first stretches.
fn peek(disk: &mut dyn Disk) {
    let (mut at, mut buf) = (0, [0; 600]);
    for _ in 0..5 {
        let Ok(Some(data)) = disk.next_data(at) else { return };
        let _ = disk.read_at(data.start, &mut buf);
        at = data.end;
    }
}

#[test]
fn a_format_is_known_by_its_first_bytes() {
    for (format, image) in images() {
        let expected = if format == Format::VmdkStream { Format::Vmdk } else { format };
        assert_eq!(Format::of(&image[..HEAD]), Ok(expected));
        assert_eq!(Format::by_name(format.name()), Some(format));
    }
    for foreign in [&b"\x1F\x8B\x08\0"[..], b"COWD\x01", b"conectix\0"] {
        assert!(matches!(Format::of(foreign), Err(HeaderError::Foreign(_))), "{foreign:?}");
    }
    assert_eq!(Format::of(b""), Ok(Format::Raw));
}

#[test]
fn every_image_reads_back_and_behind_its_end_there_are_zeroes() {
    for (format, image) in images() {
        let mut disk = open(format, Cursor::new(image), None).unwrap();
        assert_eq!(disk.size(), Bytes(DISK as u64), "{format}");
        assert_eq!(walk(&mut disk).unwrap(), 9, "{format}");
        let mut buf = [7; 20];
        disk.read_at(4998, &mut buf).unwrap();
        assert_eq!(&buf, b"\0\0contents\0\0\0\0\0\0\0\0\0\0", "{format}");
        disk.read_at(DISK as u64 - 8, &mut buf).unwrap();
        assert_eq!(buf, [0; 20], "{format}");
    }
}

#[test]
fn a_cut_image_is_refused_or_ends_in_an_error() {
    for (format, image) in images().into_iter().filter(|(f, _)| *f != Format::Raw) {
        for length in [0, 3, 63, 100, 511, 4096, 70_000, 400_000, image.len() / 2] {
            if length < image.len() {
                let cut = open(format, Cursor::new(&image[..length]), None);
                let outcome = cut.and_then(|mut disk| walk(&mut disk));
                assert!(outcome.is_err(), "{format} cut to {length}: {outcome:?}");
            }
        }
    }
}

#[test]
fn flipped_bits_in_the_head_never_panic_and_never_cost_much() {
    for (format, image) in images().into_iter().filter(|(f, _)| *f != Format::Raw) {
        let mut image = image;
        for at in (0..600).step_by(7) {
            for bits in [0xFF, 0x80, 1] {
                image[at] ^= bits;
                if let Ok(mut disk) = open(format, Cursor::new(&image), None) {
                    peek(&mut disk);
                }
                image[at] ^= bits;
            }
        }
    }
}

#[test]
fn a_disk_grows_and_never_shrinks() {
    let raw = || Raw::new(Cursor::new(vec![1; 100]), None).unwrap();
    let mut grown = Grown::new(raw(), Bytes(200)).unwrap();
    assert_eq!((grown.size(), walk(&mut grown).unwrap()), (Bytes(200), 100));
    assert!(matches!(Grown::new(raw(), Bytes(99)), Err(Error::Shrink { .. })));
}

#[test]
fn what_is_too_large_for_a_format_is_refused() {
    let huge = || {
        let nothing = Raw::new(Cursor::new(Vec::new()), None).unwrap();
        Grown::new(nothing, Bytes(1 << 60)).unwrap()
    };
    let out = || Cursor::new(Vec::new());
    for outcome in [
        qcow2::write(&mut huge(), out(), Packing::Zlib, TWO),
        vdi::write(&mut huge(), out()),
        vmdk::write(&mut huge(), out(), "a"),
        vmdk::write_stream(&mut huge(), out(), "a", TWO),
        vhdx::write(&mut huge(), out()),
        parallels::write(&mut huge(), out()).map(|_| ()),
    ] {
        assert!(matches!(outcome, Err(Error::TooLarge { .. })), "{outcome:?}");
    }
}

#[test]
fn a_description_names_its_file() {
    let text = parallels::description("live", Bytes::gib(1), uuid::Uuid::nil());
    let file = parallels::described_file(&text).unwrap();
    assert_eq!(file, "live.0.{5fbaabe3-6958-40ff-92a7-860e329aab41}.hds");
    for bad in ["", "<File>../x</File>", "<File></File>", "<File>a</File><File>b</File>"] {
        assert_eq!(parallels::described_file(bad), None, "{bad}");
    }
}
