//! Virtual disks: one way to read those of every format, and what their writers share.
//!
//! A [`Disk`] says how large it is and where it may hold something; all else is zero. Writers of
//! formats take any disk, so that each converts to each, and free space costs nothing. A block is
//! left out of an image because it is zero, never because the file that it came from had a hole
//! there: the same disk gives the same bytes.
//!
//! No snapshots, no differences to other images, no encryption: such images are refused by name.

mod blocks;
mod error;
mod head;
mod mapped;

use std::fmt;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use model::Bytes;

pub use blocks::SparseOut;
pub(crate) use blocks::{Blocks, Identity, behind_the_end, pack, whole_sectors};
pub use error::{Error, HeaderError};
pub(crate) use head::{Head, read_head};
pub(crate) use mapped::{MAP_MAX, Map, Mapped, read_exact_at, read_words};

use crate::{parallels, qcow2, vdi, vhdx, vmdk};

/// Formats of disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// The bytes as they are.
    Raw,
    /// QEMU's.
    Qcow2,
    /// VirtualBox's.
    Vdi,
    /// VMware's in one file that grows.
    Vmdk,
    /// VMware's for transport: compressed, to be imported.
    VmdkStream,
    /// Hyper-V's.
    Vhdx,
    /// Parallels'.
    Parallels,
    /// What Google Cloud imports: a raw disk in a compressed tar. It is written, not read.
    Gcp,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 8] = [
        Format::Raw,
        Format::Qcow2,
        Format::Vdi,
        Format::Vmdk,
        Format::VmdkStream,
        Format::Vhdx,
        Format::Parallels,
        Format::Gcp,
    ];

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Vdi => "vdi",
            Format::Vmdk => "vmdk",
            Format::VmdkStream => "vmdk-stream",
            Format::Vhdx => "vhdx",
            Format::Parallels => "parallels",
            Format::Gcp => "gcp",
        }
    }

    /// By its name.
    pub fn by_name(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|f| f.name() == name)
    }

    /// By what stands at the start of a file, of which [`HEAD`] bytes are enough. What nobody
    /// claims is a raw disk; what clearly is something else is refused.
    pub fn of(head: &[u8]) -> Result<Format, HeaderError> {
        let at = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|h| h.starts_with(magic));
        if let Some((.., what)) = FOREIGN.iter().find(|(place, magic, _)| at(*place, magic)) {
            return Err(HeaderError::Foreign(what));
        }
        let known = MAGIC.iter().find(|(place, magic, _)| at(*place, magic));
        Ok(known.map_or(Format::Raw, |(.., format)| *format))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many bytes [`Format::of`] looks at.
pub const HEAD: usize = 512;

const MAGIC: &[(usize, &[u8], Format)] = &[
    (0, b"QFI\xFB", Format::Qcow2),
    (0x40, b"\x7F\x10\xDA\xBE", Format::Vdi),
    (0, b"KDMV", Format::Vmdk),
    (0, b"vhdxfile", Format::Vhdx),
    (0, b"WithoutFreeSpace", Format::Parallels),
    (0, b"WithouFreSpacExt", Format::Parallels),
];

const FOREIGN: &[(usize, &[u8], &str)] = &[
    (0, b"\x1F\x8B\x08", "compressed with gzip"),
    (0, b"\xFD7zXZ\0", "compressed with xz"),
    (0, b"\x28\xB5\x2F\xFD", "compressed with zstd"),
    (0, b"PK\x03\x04", "a zip archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"# Disk DescriptorFile", "a VMDK descriptor without the disk"),
    (0, b"COWD", "an old VMDK of ESX"),
    (0, b"conectix", "a VHD of Virtual PC"),
    (0, b"QED\0", "a QED image"),
    (0, b"LUKS\xBA\xBE", "encrypted with LUKS"),
    (0, b"\x7FELF", "an ELF program"),
];

/// A disk that can be read anywhere.
pub trait Disk {
    /// Its size: what a guest sees.
    fn size(&self) -> Bytes;

    /// Fills `buf` with what stands from `at`. Behind the end of the disk there are zeroes.
    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> Result<(), Error>;

    /// The next stretch, at `at` or behind it, that may hold something other than zeroes. It starts
    /// no earlier than `at`, is not empty and ends no later than the disk. `None`: all is zero from
    /// there on.
    fn next_data(&mut self, at: u64) -> Result<Option<Range<u64>>, Error>;
}

impl<D: Disk + ?Sized> Disk for Box<D> {
    fn size(&self) -> Bytes {
        (**self).size()
    }

    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> Result<(), Error> {
        (**self).read_at(at, buf)
    }

    fn next_data(&mut self, at: u64) -> Result<Option<Range<u64>>, Error> {
        (**self).next_data(at)
    }
}

/// Opens the disk in an image of this format. `data` are the stretches of a raw image that may hold
/// something, ascending, if the caller knows them; the others bring tables that say so.
///
/// Fails for images that stand on others, and for [`Format::Gcp`], which is an archive.
pub fn open<'a, F: Read + Seek + Send + 'a>(
    format: Format,
    file: F,
    data: Option<Vec<Range<u64>>>,
) -> Result<Box<dyn Disk + Send + 'a>, Error> {
    Ok(match format {
        Format::Raw => Box::new(Raw::new(file, data)?),
        Format::Qcow2 => Box::new(qcow2::Reader::open(file)?),
        Format::Vdi => Box::new(vdi::open(file)?),
        Format::Vmdk | Format::VmdkStream => Box::new(vmdk::open(file)?),
        Format::Vhdx => Box::new(vhdx::open(file)?),
        Format::Parallels => Box::new(parallels::open(file)?),
        Format::Gcp => return Err(HeaderError::Foreign("an archive of a disk").into()),
    })
}

/// A raw disk.
#[derive(Debug)]
pub struct Raw<F> {
    file: F,
    size: u64,
    data: Vec<Range<u64>>,
}

impl<F: Read + Seek> Raw<F> {
    /// The disk in `file`. `data` are the stretches that may hold something, ascending; `None`: all
    /// of it may.
    pub fn new(mut file: F, data: Option<Vec<Range<u64>>>) -> Result<Raw<F>, Error> {
        let size = file.seek(SeekFrom::End(0)).map_err(Error::read(Format::Raw, 0))?;
        let whole = || (size > 0).then_some(0..size).into_iter().collect();
        Ok(Raw { file, size, data: data.unwrap_or_else(whole) })
    }
}

impl<F: Read + Seek> Disk for Raw<F> {
    fn size(&self) -> Bytes {
        Bytes(self.size)
    }

    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> Result<(), Error> {
        let here = usize::try_from(self.size.saturating_sub(at)).unwrap_or(usize::MAX);
        let (inside, behind) = buf.split_at_mut(here.min(buf.len()));
        behind.fill(0);
        if inside.is_empty() {
            return Ok(());
        }
        read_exact_at(&mut self.file, at, inside).map_err(Error::read(Format::Raw, at))
    }

    fn next_data(&mut self, at: u64) -> Result<Option<Range<u64>>, Error> {
        let first = self.data.partition_point(|stretch| stretch.end <= at);
        let stretch = self.data.get(first).map(|s| s.start.max(at)..s.end.min(self.size));
        Ok(stretch.filter(|s| !s.is_empty()))
    }
}

/// A disk with zeroes behind its end.
#[derive(Debug)]
pub struct Grown<D> {
    disk: D,
    size: Bytes,
}

impl<D: Disk> Grown<D> {
    /// `disk`, made `size` large. Fails if it is larger.
    pub fn new(disk: D, size: Bytes) -> Result<Grown<D>, Error> {
        if disk.size() > size {
            return Err(Error::Shrink { disk: disk.size(), size });
        }
        Ok(Grown { disk, size })
    }
}

impl<D: Disk> Disk for Grown<D> {
    fn size(&self) -> Bytes {
        self.size
    }

    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.disk.read_at(at, buf)
    }

    fn next_data(&mut self, at: u64) -> Result<Option<Range<u64>>, Error> {
        self.disk.next_data(at)
    }
}

#[cfg(test)]
mod tests;
