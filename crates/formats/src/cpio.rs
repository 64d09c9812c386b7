//! The `newc` archive that the kernel unpacks as an initrd (kernel documentation,
//! driver-api/early-userspace/buffer-format): written, and read as the kernel reads it, one archive
//! after the other with zeroes between them.

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

/// A member that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its path, as stored.
    pub path: &'a [u8],
    /// Type and permission bits, as stat(2) has them.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change, in seconds since 1970.
    pub mtime: u32,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Its bytes: a file's, or a link's target.
    pub content: &'a [u8],
    /// Where they stand.
    pub at: usize,
}

/// Why bytes are no such archive.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no member of a cpio archive stands at byte {at}: {what}")]
pub struct ReadError {
    /// Where.
    pub at: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// The name that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";
/// A header: six bytes and thirteen numbers.
const HEADER: usize = 110;

/// Reads all members. Fails at what is neither a member nor zeroes between archives.
pub fn read(bytes: &[u8]) -> Result<Vec<Member<'_>>, ReadError> {
    let mut members = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == 0 {
            at += 1;
            continue;
        }
        let bad = |what| ReadError { at, what };
        let head = bytes.get(at..at + HEADER).ok_or_else(|| bad("it is cut"))?;
        if !head.starts_with(b"070701") {
            return Err(bad("it begins otherwise"));
        }
        let number = |n: usize| {
            let digits = &head[6 + 8 * n..14 + 8 * n];
            let text = std::str::from_utf8(digits).ok().filter(|t| !t.starts_with('+'));
            text.and_then(|t| u32::from_str_radix(t, 16).ok())
                .ok_or_else(|| bad("a number is none"))
        };
        let length = |n| Ok(usize::try_from(number(n)?).unwrap_or(usize::MAX));
        let (size, name) = (length(6)?, length(11)?);
        let cut = || bad("it is cut");
        let name_end = (at + HEADER).checked_add(name).ok_or_else(cut)?;
        let path = bytes.get(at + HEADER..name_end).ok_or_else(cut)?;
        let path = path.strip_suffix(b"\0").ok_or_else(|| bad("its name has no end"))?;
        let start = name_end.next_multiple_of(4);
        let end = start.checked_add(size).ok_or_else(cut)?;
        let content = bytes.get(start..end).ok_or_else(cut)?;
        if path != TRAILER {
            members.push(Member {
                path,
                mode: number(1)?,
                uid: number(2)?,
                gid: number(3)?,
                mtime: number(5)?,
                device: (number(9)?, number(10)?),
                content,
                at: start,
            });
        }
        at = end.next_multiple_of(4);
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let entry = |path, mode, kind| Entry { path, mode, kind };
        let mut out = Vec::new();
        let entries = [
            entry("bin", 0o755, Kind::Folder),
            entry("bin/sh", 0o755, Kind::File(b"ELF")),
            entry("init", 0o777, Kind::Link("bin/sh")),
            entry("dev/null", 0o666, Kind::Character { major: 1, minor: 3 }),
        ];
        write(&mut out, &entries, 7).unwrap();
        out
    }

    #[test]
    fn what_is_written_is_read_also_twice_in_a_row() {
        let one = archive();
        let two = [&one[..], &[0; 512], &one].concat();
        let members = read(&two).unwrap();
        assert_eq!(members.len(), 8);
        assert_eq!((members[1].path, members[1].content), (&b"bin/sh"[..], &b"ELF"[..]));
        assert_eq!(&two[members[1].at..][..3], b"ELF");
        assert_eq!((members[3].mode, members[3].device), (0o020_666, (1, 3)));
        assert_eq!((members[2].content, members[2].mtime), (&b"bin/sh"[..], 7));
    }

    #[test]
    fn what_is_cut_or_strange_is_refused() {
        let whole = archive();
        for cut in [1, 100, 115, whole.len() - 5] {
            assert!(read(&whole[..cut]).is_err(), "cut at {cut}");
        }
        let mut odd = whole.clone();
        odd[6 + 8 * 11..14 + 8 * 11].copy_from_slice(b"FFFFFFFF");
        assert_eq!(read(&odd).unwrap_err().at, 0);
        assert!(read(b"070701+0000000").is_err() && read(b"no").is_err());
        assert_eq!(read(&[0; 9]), Ok(Vec::new()));
    }
}
