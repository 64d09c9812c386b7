//! What Google Cloud imports as a disk: `disk.raw` in a tar archive, packed with gzip.
//!
//! The archive is in the old GNU variant, which says where a sparse file has data (GNU tar's manual,
//! "Old GNU Format"); a PAX one is not taken there. Nothing is read back: unpack it with tar.

use std::collections::VecDeque;
use std::io::{self, Cursor, Read, Write};
use std::num::NonZero;
use std::ops::Range;

use crate::disk::{Blocks, Disk, Error, Format};
use crate::field::put;
use crate::gzip;

const FORMAT: Format = Format::Gcp;
/// The name that the importer looks for.
const NAME: &[u8] = b"disk.raw";
const SECTOR: usize = 512;
/// Bytes that are looked at as one when holes are searched.
const BLOCK: usize = 1 << 16;
/// An archive is a whole number of these.
const RECORD: u64 = 20 * SECTOR as u64;
/// Stretches that the first header has room for, and each of those behind it.
const STRETCHES: usize = 4;
const MORE_STRETCHES: usize = 21;
const STRETCH: usize = 24;
const LEVEL: u32 = 6;

/// Writes the archive of `disk`, packed. `time` is the file's, in seconds since 1970. The same disk
/// and time give the same bytes, on any number of threads.
pub fn write<W: Write>(
    disk: &mut dyn Disk,
    mut out: W,
    time: u64,
    threads: NonZero<usize>,
) -> Result<(), Error> {
    let size = disk.size().0;
    let stretches = stretches(disk)?;
    let head = head(size, &stretches, time);
    let mut archive = Archive::new(disk, head, stretches);
    let outcome = gzip::write(&mut archive, &mut out, LEVEL, threads).and_then(|()| out.flush());
    match archive.failed {
        Some(error) => Err(error),
        None => outcome.map_err(Error::write(FORMAT)),
    }
}

/// Where the disk has data, neighbours joined.
fn stretches(disk: &mut dyn Disk) -> Result<Vec<Range<u64>>, Error> {
    let size = disk.size().0;
    let mut stretches: Vec<Range<u64>> = Vec::new();
    let mut buf = vec![0; BLOCK];
    let mut blocks = Blocks::new(disk, BLOCK);
    while let Some(number) = blocks.next(&mut buf)? {
        let start = number * BLOCK as u64;
        let end = (start + BLOCK as u64).min(size);
        match stretches.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => stretches.push(start..end),
        }
    }
    Ok(stretches)
}

/// The headers of the file.
fn head(size: u64, stretches: &[Range<u64>], time: u64) -> Vec<u8> {
    let stored: u64 = stretches.iter().map(|s| s.end - s.start).sum();
    let mut entries: Vec<[u8; STRETCH]> =
        stretches.iter().map(|s| entry(s.start, s.end - s.start)).collect();
    entries.push(entry(size, 0)); // says how long the file is when it ends with a hole
    let mut head = vec![0; SECTOR];
    put(&mut head, 0, NAME);
    put(&mut head, 100, b"0000644\0");
    put(&mut head, 108, b"0000000\0");
    put(&mut head, 116, b"0000000\0");
    put(&mut head, 124, &number(stored));
    put(&mut head, 136, &number(time));
    put(&mut head, 148, b"        ");
    put(&mut head, 156, b"S");
    put(&mut head, 257, b"ustar  \0");
    put(&mut head, 265, b"root");
    put(&mut head, 297, b"root");
    let (first, more) = entries.split_at(entries.len().min(STRETCHES));
    put(&mut head, 386, first.as_flattened());
    put(&mut head, 482, &[u8::from(!more.is_empty())]);
    put(&mut head, 483, &number(size));
    let sum: u32 = head.iter().map(|b| u32::from(*b)).sum();
    put(&mut head, 148, format!("{sum:06o}\0 ").as_bytes());
    let mut rest = more.chunks(MORE_STRETCHES).peekable();
    while let Some(some) = rest.next() {
        let mut sector = vec![0; SECTOR];
        put(&mut sector, 0, some.as_flattened());
        put(&mut sector, 504, &[u8::from(rest.peek().is_some())]);
        head.extend(sector);
    }
    head
}

fn entry(at: u64, length: u64) -> [u8; STRETCH] {
    let mut entry = [0; STRETCH];
    put(&mut entry, 0, &number(at));
    put(&mut entry, 12, &number(length));
    entry
}

/// A number in 12 bytes: eleven octal digits and a zero, or binary if it needs more.
fn number(n: u64) -> [u8; 12] {
    let mut field = [0; 12];
    if n < 1 << 33 {
        put(&mut field, 0, format!("{n:011o}").as_bytes());
    } else {
        field[0] = 0x80;
        put(&mut field, 4, &n.to_be_bytes());
    }
    field
}

/// The archive's bytes, from first to last.
struct Archive<'a> {
    disk: &'a mut dyn Disk,
    head: Cursor<Vec<u8>>,
    /// Stretches that are still to come.
    stretches: VecDeque<Range<u64>>,
    /// Zeroes that fill the last record.
    tail: io::Take<io::Repeat>,
    /// Why the disk could not be read.
    failed: Option<Error>,
}

impl<'a> Archive<'a> {
    fn new(disk: &'a mut dyn Disk, head: Vec<u8>, stretches: Vec<Range<u64>>) -> Archive<'a> {
        let stored: u64 = stretches.iter().map(|s| s.end - s.start).sum();
        let used = head.len() as u64 + stored;
        // Two empty sectors at least.
        let end =
            (used.next_multiple_of(SECTOR as u64) + 2 * SECTOR as u64).next_multiple_of(RECORD);
        let tail = io::repeat(0).take(end - used);
        let (head, stretches) = (Cursor::new(head), stretches.into());
        Archive { disk, head, stretches, tail, failed: None }
    }
}

impl Read for Archive<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let done = self.head.read(buf)?;
        if done > 0 {
            return Ok(done);
        }
        let Some(stretch) = self.stretches.front_mut() else { return self.tail.read(buf) };
        let rest = usize::try_from(stretch.end - stretch.start).unwrap_or(usize::MAX);
        let done = rest.min(buf.len());
        if let Err(error) = self.disk.read_at(stretch.start, &mut buf[..done]) {
            self.failed = Some(error);
            return Err(io::Error::other("the disk cannot be read"));
        }
        stretch.start += done as u64;
        if stretch.is_empty() {
            self.stretches.pop_front();
        }
        Ok(done)
    }
}
