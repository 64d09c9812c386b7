//! What the image of an installer would install: `/bits` in its root file system, which stays packed.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::gpt::Gpt;
use formats::layout::Role;
use formats::squashfs::{Image, Place};
use formats::tree::{Contents, Tree};
use model::Bytes;
use model::installer::BITS;

use crate::payload::{
    Bits, Blob, Inside, Payload, PayloadError, VOLUME_MAX, describe, read_at, volume,
};

impl Payload {
    /// From the image of an installer: what it would install. Its own CONFIG counts more than the one
    /// it was made with, as it does when the installer runs; wishes in it are not read.
    pub(crate) fn from_installer(
        path: &Path,
        file: File,
        table: &Gpt,
    ) -> Result<Payload, PayloadError> {
        let read = PayloadError::read(path);
        let place = |role: Role| role.find(table).map(|(_, p)| (p.offset(), p.length()));
        let Some((at, room)) = place(Role::Installer) else {
            return Err(PayloadError::unfit(path, "has no system of an installer"));
        };
        // The list inside vouches for the files beside it, this for the list.
        let descriptor = describe(&file, path, at, room)?;
        let system = Blob::within(path, &file, at, descriptor.verity_at)?;
        if system.digest != descriptor.rootfs_digest {
            let (have, want) = (system.digest.to_string(), descriptor.rootfs_digest.to_string());
            return Err(PayloadError::Damaged { path: path.to_owned(), have, want });
        }
        let own = match place(Role::InstallerConfig) {
            Some((at, length)) if length.0 <= VOLUME_MAX => {
                Some(volume(path, &read_at(&file, at, length).map_err(&read)?)?)
            }
            Some((_, length)) => {
                let what = format!("has a CONFIG of {length}, more than {}", Bytes(VOLUME_MAX));
                return Err(PayloadError::unfit(path, what));
            }
            None => None,
        };
        let payload = Payload::listed(&System::open(path, file, at)?)?;
        Ok(Payload { config: own.unwrap_or(payload.config), ..payload })
    }
}

/// The root file system of an installer.
struct System {
    path: PathBuf,
    image: Arc<Image<File>>,
    tree: Tree<Place>,
}

impl System {
    /// The one that starts `at` bytes from the start of a file.
    fn open(path: &Path, mut file: File, at: Bytes) -> Result<System, PayloadError> {
        let read = PayloadError::read(path);
        file.seek(SeekFrom::Start(at.0)).map_err(&read)?;
        let image = Image::open(file).map_err(|e| read(io::Error::other(e)))?;
        let tree = image.tree().map_err(|e| read(io::Error::other(e)))?;
        Ok(System { path: path.to_owned(), image: Arc::new(image), tree })
    }

    fn place(&self, name: &str) -> Result<Place, PayloadError> {
        let inside = format!("{}/{name}", BITS.trim_start_matches('/'));
        let missing = || PayloadError::read(&self.path(name))(io::ErrorKind::NotFound.into());
        self.tree.file(inside.as_bytes()).map(|file| file.at.clone()).ok_or_else(missing)
    }
}

impl Bits for System {
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{}:{BITS}/{name}", self.path.display()))
    }

    fn read(&self, name: &str, most: u64) -> Result<Vec<u8>, PayloadError> {
        let (place, path) = (self.place(name)?, self.path(name));
        if place.size().0 > most {
            return Err(PayloadError::unfit(&path, format!("is longer than {}", Bytes(most))));
        }
        let mut bytes = Vec::new();
        let read = self.image.open(&place).and_then(|mut from| from.read_to_end(&mut bytes));
        read.map_err(PayloadError::read(&path))?;
        Ok(bytes)
    }

    fn blob(&self, name: &str) -> Result<Blob, PayloadError> {
        let place = self.place(name)?;
        let length = place.size();
        let packed = Packed { image: Arc::clone(&self.image), place };
        Blob::inside(self.path(name), length, Arc::new(packed))
    }
}

/// A file of a root file system.
struct Packed {
    image: Arc<Image<File>>,
    place: Place,
}

/// Without all that the reader holds.
impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed({} from {})", self.place.size(), self.place.start())
    }
}

impl Inside for Packed {
    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        self.image.open(&self.place)
    }
}
