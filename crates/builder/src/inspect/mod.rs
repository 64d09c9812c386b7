//! Looking into images: the root file system of whatever a build has made, with who put what where.
//!
//! Nothing is mounted and no privilege is needed. Compressed archives are taken for what they hold.

mod error;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

pub use error::InspectError;

use crate::contents::{Contents, Member, Origin};
use crate::sizes::Sizes;

/// What is looked for in a folder of builds, in this order: an archive says most.
const IN_FOLDER: [&str; 1] = ["rootfs.tar"];

/// Sees a member: what it is, who brought it, its time in seconds since 1970, its bytes.
pub type Visit<'a> = dyn FnMut(&Member, &Origin, i64, &mut dyn Read) -> io::Result<()> + 'a;

/// The file that is meant by `path`: itself, or what a folder of builds holds.
pub fn find(path: &Path) -> Result<PathBuf, InspectError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let found = IN_FOLDER.iter().map(|n| path.join(n)).find(|p| p.is_file());
    found.ok_or_else(|| InspectError::Empty { folder: path.to_owned(), names: IN_FOLDER.to_vec() })
}

/// Goes through the root file system of an image; says who put what where.
pub fn visit(path: &Path, visit: &mut Visit<'_>) -> Result<Contents, InspectError> {
    let path = &find(path)?;
    let read = InspectError::read(path);
    let mut file = File::open(path).map_err(&read)?;
    let mut head = Vec::new();
    (&mut file).take(512).read_to_end(&mut head).map_err(&read)?;
    file.rewind().map_err(&read)?;
    let archive = plain(&head, file).map_err(&read)?;
    Contents::of_tar(archive, |member, origin, header, body| {
        visit(member, origin, header.mtime.seconds, body)
    })
    .map_err(|e| match e.kind() {
        io::ErrorKind::InvalidData => InspectError::Unknown { path: path.clone() },
        _ => read(e),
    })
}

/// A file behind whatever compression its first bytes tell of.
fn plain(head: &[u8], file: File) -> io::Result<Box<dyn Read>> {
    let file = BufReader::with_capacity(1 << 18, file);
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(file)?),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Box::new(liblzma::bufread::XzDecoder::new(file)),
        _ => Box::new(file),
    })
}

/// Who put what where in an image.
pub fn contents(path: &Path) -> Result<Contents, InspectError> {
    visit(path, &mut |_, _, _, _| Ok(()))
}

/// What the packages of an image take.
pub fn sizes(path: &Path) -> Result<Sizes, InspectError> {
    Ok(Sizes::of(&contents(path)?, None))
}
