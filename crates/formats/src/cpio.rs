//! The `newc` archive that the kernel unpacks as an initrd (kernel documentation,
//! driver-api/early-userspace/buffer-format). Only written, never read.

use std::io::{self, Write};

/// A member of an archive. Owner is root, the time is the archive's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Without a slash in front; folders come before what is in them.
    pub path: &'a str,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub kind: Kind<'a>,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A folder.
    Folder,
    /// A regular file with these bytes, fewer than 4 GiB.
    File(&'a [u8]),
    /// A symbolic link to this path.
    Link(&'a str),
    /// A character device.
    Character {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// Writes the archive. `time` is in seconds since 1970. Inode numbers count from 1 in the order of
/// the entries, so the same entries give the same bytes. Fails if the output does, or with
/// `InvalidInput` for a file of 4 GiB or more.
pub fn write<W: Write>(out: &mut W, entries: &[Entry<'_>], time: u32) -> io::Result<()> {
    for (inode, entry) in (1u32..).zip(entries) {
        member(out, entry, inode, time)?;
    }
    member(out, &Entry { path: "TRAILER!!!", mode: 0, kind: Kind::File(&[]) }, 0, 0)
}

fn member<W: Write>(out: &mut W, entry: &Entry<'_>, inode: u32, time: u32) -> io::Result<()> {
    let (kind, links, body, device): (u32, u32, &[u8], (u32, u32)) = match entry.kind {
        // The trailer is the only member with inode 0, and has no kind.
        Kind::File(body) if inode == 0 => (0, 1, body, (0, 0)),
        Kind::File(body) => (0o100_000, 1, body, (0, 0)),
        Kind::Folder => (0o040_000, 2, &[], (0, 0)),
        Kind::Link(to) => (0o120_000, 1, to.as_bytes(), (0, 0)),
        Kind::Character { major, minor } => (0o020_000, 1, &[], (major, minor)),
    };
    let long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a member of 4 GiB or more");
    let length = u32::try_from(body.len()).map_err(long)?;
    let name_length = u32::try_from(entry.path.len() + 1).map_err(long)?;
    write!(out, "070701")?;
    let (owner, group, disk) = (0, 0, (0, 0));
    for field in [
        inode,
        kind | entry.mode,
        owner,
        group,
        links,
        time,
        length,
        disk.0,
        disk.1,
        device.0,
        device.1,
        name_length,
        0, // the checksum is for another variant
    ] {
        write!(out, "{field:08X}")?;
    }
    out.write_all(entry.path.as_bytes())?;
    out.write_all(&[0])?;
    pad(out, 110 + entry.path.len() + 1)?;
    out.write_all(body)?;
    pad(out, body.len())
}

/// Header with name, and body, each end at a multiple of 4.
fn pad<W: Write>(out: &mut W, length: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..length.next_multiple_of(4) - length])
}
