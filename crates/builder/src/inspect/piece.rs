//! Pieces of images: stretches of files, of virtual disks, of memory, read where they lie.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use formats::disk::{self, Disk};
use formats::squashfs;
use formats::tree::Contents as _;

/// Where bytes lie.
trait Place: Send + Sync {
    /// Reads at most `buf` from `at`; 0 at the end.
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize>;
}

impl Place for File {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, buf, at)
    }
}

impl Place for Vec<u8> {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}

/// A file that is opened when it is read: a folder has more of them than a process may open.
struct Closed(PathBuf);

impl Place for Closed {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(&File::open(&self.0)?, buf, at)
    }
}

/// A disk in a format of its own.
struct Virtual(Mutex<Box<dyn Disk + Send>>);

impl Place for Virtual {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.0.lock().map_err(|_| broken())?;
        let left = disk.size().0.saturating_sub(at);
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        disk.read_at(at, &mut buf[..n]).map_err(io::Error::other)?;
        Ok(n)
    }
}

/// A file system whose files are packed. The one that was read last is kept: who looks at a file
/// reads all of it, bit by bit.
pub(super) struct Packed {
    image: squashfs::Image<PieceReader>,
    last: Mutex<Option<(squashfs::Place, Arc<Vec<u8>>)>>,
}

impl Packed {
    /// The file system in a piece.
    pub(super) fn open(piece: &Piece) -> Result<Packed, squashfs::ReadError> {
        let image = squashfs::Image::open(piece.open())?;
        Ok(Packed { image, last: Mutex::new(None) })
    }

    pub(super) fn image(&self) -> &squashfs::Image<PieceReader> {
        &self.image
    }

    fn whole(&self, at: &squashfs::Place, size: u64) -> io::Result<Arc<Vec<u8>>> {
        let mut last = self.last.lock().map_err(|_| broken())?;
        if let Some((place, bytes)) = &*last
            && place == at
        {
            return Ok(Arc::clone(bytes));
        }
        if size > FILE_MAX {
            return Err(io::Error::other(format!("a file has more than {FILE_MAX} bytes")));
        }
        *last = None; // two large ones at once are one too many
        let mut bytes = Vec::new();
        self.image.open(at)?.take(size).read_to_end(&mut bytes)?;
        let bytes = Arc::new(bytes);
        *last = Some((at.clone(), Arc::clone(&bytes)));
        Ok(bytes)
    }
}

/// A file in it.
struct InPacked {
    packed: Arc<Packed>,
    at: squashfs::Place,
    size: u64,
}

impl Place for InPacked {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.packed.whole(&self.at, self.size)?.read_at(at, buf)
    }
}

/// The largest file of a packed file system that is read: it is held in memory.
const FILE_MAX: u64 = 2 << 30;

fn broken() -> io::Error {
    io::Error::other("a reader before us failed")
}

/// A stretch of bytes. Cheap to clone.
#[derive(Clone)]
pub struct Piece {
    place: Arc<dyn Place>,
    at: u64,
    size: u64,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Piece({}..{})", self.at, self.at + self.size)
    }
}

impl Piece {
    /// All of a file.
    pub fn of_file(path: &Path) -> io::Result<Piece> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Piece { place: Arc::new(file), at: 0, size })
    }

    /// A file of this size, opened when it is read.
    pub(super) fn of_path(path: &Path, size: u64) -> Piece {
        Piece { place: Arc::new(Closed(path.to_owned())), at: 0, size }
    }

    /// A file of a packed file system.
    pub(super) fn of_packed(packed: &Arc<Packed>, at: squashfs::Place, size: u64) -> Piece {
        let place = InPacked { packed: Arc::clone(packed), at, size };
        Piece { place: Arc::new(place), at: 0, size }
    }

    /// Bytes in memory.
    pub fn of_bytes(bytes: Vec<u8>) -> Piece {
        let size = bytes.len() as u64;
        Piece { place: Arc::new(bytes), at: 0, size }
    }

    /// The disk in an image of this format.
    pub(super) fn of_disk(&self, format: disk::Format) -> Result<Piece, disk::Error> {
        let disk = disk::open(format, self.open(), None)?;
        let size = disk.size().0;
        Ok(Piece { place: Arc::new(Virtual(Mutex::new(disk))), at: 0, size })
    }

    /// A part of it; what lies behind its end is left out.
    #[must_use]
    pub fn part(&self, at: u64, size: u64) -> Piece {
        let at = at.min(self.size);
        Piece { place: Arc::clone(&self.place), at: self.at + at, size: size.min(self.size - at) }
    }

    /// Where it starts in the file, disk or memory that it is a part of, in bytes.
    pub(super) fn start(&self) -> u64 {
        self.at
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads it from the start.
    pub fn open(&self) -> PieceReader {
        PieceReader { piece: self.clone(), at: 0 }
    }

    /// At most `limit` bytes of its start.
    pub fn head(&self, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open().take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// All of it, unless it is larger than `limit`.
    pub fn bytes(&self, limit: u64) -> io::Result<Option<Vec<u8>>> {
        if self.size > limit { Ok(None) } else { self.head(limit).map(Some) }
    }

    /// Where two pieces begin to differ; `None`: nowhere.
    pub fn differs(&self, other: &Piece) -> io::Result<Option<u64>> {
        let (mut one, mut two) = (self.open(), other.open());
        let (mut a, mut b) = (vec![0; 1 << 17], vec![0; 1 << 17]);
        let mut at = 0;
        loop {
            let (n, m) = (fill(&mut one, &mut a)?, fill(&mut two, &mut b)?);
            if a[..n] != b[..m] {
                let same = a[..n].iter().zip(&b[..m]).take_while(|(x, y)| x == y).count();
                return Ok(Some(at + same as u64));
            }
            if n == 0 {
                return Ok(None);
            }
            at += n as u64;
        }
    }
}

fn fill(input: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buf.len() {
        match input.read(&mut buf[got..])? {
            0 => break,
            n => got += n,
        }
    }
    Ok(got)
}

/// Reads a piece.
#[derive(Debug)]
pub struct PieceReader {
    piece: Piece,
    at: u64,
}

impl Read for PieceReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.piece.size.saturating_sub(self.at);
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let n = self.piece.place.read_at(self.piece.at + self.at, &mut buf[..n])?;
        if n == 0 && left > 0 && !buf.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for PieceReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.piece.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
