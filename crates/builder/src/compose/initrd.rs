//! A composition as kernel, command line and initrd, for who boots without a disk: what the
//! reference calls `kernel+initrd` and `tar-kernel-initrd`.
//!
//! The initrd is a gzip'd `newc` archive (kernel documentation,
//! driver-api/early-userspace/buffer-format) of all but `/boot`, behind the microcode if there is
//! any. The archive is the reference's to the byte; its compression is ours.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use store::tarball::{Header, Kind, Writer, clean_path};

use super::ComposeError;
use super::plan::{MTIME, Member, Plan};

/// The most that a kernel or its microcode may have: it is kept in memory.
const BOOT_MAX: u64 = 256 << 20;

/// The reference's first inode, and the device that all of them are on.
const INODE: u32 = 721;
const DEVICE: (u32, u32) = (3, 1);

/// What stands in `/boot` of a composition; empty: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Boot {
    /// The kernel.
    pub kernel: Vec<u8>,
    /// Its command line.
    pub cmdline: Vec<u8>,
    /// Microcode, an uncompressed cpio archive.
    pub ucode: Vec<u8>,
}

impl Plan {
    /// Kernel, command line and microcode.
    pub fn boot(&self) -> Result<Boot, ComposeError> {
        let mut boot = Boot::default();
        for member in &self.members {
            let into = match member.header.path.as_slice() {
                b"boot/kernel" => &mut boot.kernel,
                b"boot/cmdline" => &mut boot.cmdline,
                b"boot/ucode.cpio" => &mut boot.ucode,
                _ => continue,
            };
            if member.content.size > BOOT_MAX {
                let why = format!("{} has more than 256 MiB", member.header.display());
                return Err(ComposeError::Nonsense { location: member.place(), why });
            }
            let read = |source| self.contents.read_error(member, source);
            into.clear();
            let mut body = self.contents.open(&member.content).map_err(read)?;
            body.read_to_end(into).map_err(read)?;
        }
        Ok(boot)
    }

    /// Writes the initrd: `ucode`, then all that is not in `/boot`, compressed. After an error, what
    /// was written is of no use.
    pub fn write_initrd(&self, ucode: &[u8], mut out: impl Write) -> Result<(), ComposeError> {
        let fail = |member: &str| {
            let member = member.to_owned();
            |source| ComposeError::Write { location: "the initrd".to_owned(), member, source }
        };
        out.write_all(ucode).map_err(fail("the microcode"))?;
        let packer = GzEncoder::new(io::BufWriter::new(out), Compression::default());
        let mut cpio = Cpio { out: packer, inode: INODE, written: 0 };
        for member in &self.members {
            if member.header.path.starts_with(b"boot/") {
                continue;
            }
            self.add(member, &mut cpio)?;
        }
        let end = Header::new("TRAILER!!!", Kind::File, 0, store::tarball::Time::default());
        let ended = cpio.header(&end, 0, 0).and_then(|()| cpio.pad(512));
        let finished = ended.and_then(|()| cpio.out.finish()).and_then(|mut out| out.flush());
        finished.map_err(fail("its end"))
    }

    fn add<W: Write>(&self, member: &Member, cpio: &mut Cpio<W>) -> Result<(), ComposeError> {
        let header = &member.header;
        let write = |source| {
            let name = header.display();
            ComposeError::Write { location: member.place(), member: name, source }
        };
        let (kind, target) = match header.kind {
            Kind::File => (0o10, None),
            // A link to the file, as it is seen from where the link is.
            Kind::HardLink => (0o12, Some(relative(&header.path, &header.link))),
            Kind::Symlink => (0o12, Some(header.link.clone())),
            Kind::CharDevice => (0o2, None),
            Kind::BlockDevice => (0o6, None),
            Kind::Dir => (0o4, None),
            Kind::Fifo => (0o1, None),
            Kind::Other(_) => {
                let why = format!("{} is of a kind that no initrd knows", header.display());
                return Err(ComposeError::Nonsense { location: member.place(), why });
            }
        };
        if let Some(target) = target {
            cpio.header(header, kind, target.len() as u64).map_err(write)?;
            return cpio.write_all(&target).map_err(write);
        }
        cpio.header(header, kind, member.content.size).map_err(write)?;
        if !header.kind.has_body() {
            return Ok(());
        }
        let read = |source| self.contents.read_error(member, source);
        let mut body = self.contents.open(&member.content).map_err(read)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match body.read(&mut buffer).map_err(read)? {
                0 => return Ok(()),
                n => cpio.write_all(&buffer[..n]).map_err(write)?,
            }
        }
    }
}

/// Kernel, initrd and the rest as one archive.
pub fn boot_archive(boot: &Boot, initrd: &[u8], out: impl Write) -> io::Result<()> {
    let mut tar = Writer::new(out);
    for (name, body) in [
        ("kernel", boot.kernel.as_slice()),
        ("initrd.img", initrd),
        ("cmdline", &boot.cmdline),
        ("ucode.cpio", &boot.ucode),
    ] {
        if !body.is_empty() {
            tar.member(&Header::new(name, Kind::File, 0o644, MTIME), body)?;
        }
    }
    tar.finish().and_then(|mut out| out.flush())
}

/// The way from the folder of `path` to `target`, both from the same root.
fn relative(path: &[u8], target: &[u8]) -> Vec<u8> {
    let (path, target) = (clean_path(path), clean_path(target));
    let mut from: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
    from.pop();
    let to: Vec<&[u8]> = target.split(|b| *b == b'/').collect();
    let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let ups = std::iter::repeat_n(&b".."[..], from.len() - same);
    let parts: Vec<&[u8]> = ups.chain(to[same..].iter().copied()).collect();
    if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') }
}

struct Cpio<W: Write> {
    out: GzEncoder<W>,
    inode: u32,
    written: u64,
}

impl<W: Write> Cpio<W> {
    fn header(&mut self, of: &Header, kind: i64, size: u64) -> io::Result<()> {
        self.pad(4)?;
        let narrow = |n: i64| {
            let why = format!("{n} has no room in an initrd");
            u32::try_from(n).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, why))
        };
        let links = if kind == 0o4 { 2 } else { 1 };
        let size = narrow(i64::try_from(size).unwrap_or(i64::MAX))?;
        let name = u32::try_from(of.path.len() + 1).unwrap_or(u32::MAX);
        let fields = [
            self.inode,
            narrow((of.mode & 0xfff) | (kind << 12))?,
            narrow(of.uid)?,
            narrow(of.gid)?,
            links,
            narrow(of.mtime.seconds)?,
            size,
            DEVICE.0,
            DEVICE.1,
            narrow(of.device.0)?,
            narrow(of.device.1)?,
            name,
            0,
        ];
        self.inode += 1;
        self.write_all(b"070701")?;
        for field in fields {
            self.write_all(format!("{field:08x}").as_bytes())?;
        }
        self.write_all(&of.path)?;
        self.write_all(&[0])?;
        self.pad(4)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self, to: u64) -> io::Result<()> {
        let fill = self.written.wrapping_neg() % to;
        self.write_all(&[0; 512][..usize::try_from(fill).unwrap_or_default()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_become_links_from_where_they_are() {
        for (path, target, want) in [
            ("a/b/c", "a/x", "../x"),
            ("c", "a/x", "a/x"),
            ("a/b", "a/c", "c"),
            ("a/b/c", "x/y/z", "../../x/y/z"),
        ] {
            assert_eq!(relative(path.as_bytes(), target.as_bytes()), want.as_bytes());
        }
    }
}
