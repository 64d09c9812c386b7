//! What an installer brings along: the folder `/bits` in its root file system (decisions/0006).
//!
//! It lies inside the squashfs, so dm-verity guards it as it guards the rest, and a raw disk, an ISO
//! and a net boot all have it in one place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use formats::fat::Files;
use model::installer::{About, BITS, CONFIG, ESP, MANIFEST, Manifest, SLOT};
use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::{ImageError, Request};

/// Archives end with two empty blocks, and are whole blocks.
const BLOCK: u64 = 512;

/// What is installed.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    /// The slot image.
    pub slot: &'a Path,
    /// Its length and digest.
    pub slot_about: About,
    /// A FAT volume with the files of CONFIG.
    pub config: Vec<u8>,
    /// The files of the EFI system partition.
    pub esp: &'a Files,
    /// Other files, by path below the folder.
    pub others: Files,
    /// Times of all of it, in seconds since 1970.
    pub time: u64,
}

impl Bits<'_> {
    /// Everything but the slot image, by path below the folder, and the list of all.
    fn small(&self, request: &Request) -> (Files, Vec<u8>) {
        let mut files = self.others.clone();
        files.insert(CONFIG.to_owned(), self.config.clone());
        files.extend(self.esp.iter().map(|(p, body)| (format!("{ESP}/{p}"), body.clone())));
        files.retain(|path, _| !path.ends_with('/')); // an empty folder is nothing to install
        let mut about: BTreeMap<String, About> = files
            .iter()
            .map(|(path, body)| {
                let digest = Digest(Sha256::digest(body).into());
                (path.clone(), About { size: Bytes(body.len() as u64), digest })
            })
            .collect();
        about.insert(SLOT.to_owned(), self.slot_about.clone());
        let manifest = Manifest {
            version: request.version.clone(),
            arch: request.arch.name().to_owned(),
            profile: request.profile.name.to_owned(),
            files: about,
        };
        (files, super::pipeline::to_json(&manifest))
    }

    /// A digest of everything that [`Bits::append`] depends on.
    pub(super) fn key(&self, request: &Request) -> Digest {
        // The list has the digest of every file.
        let (_, manifest) = self.small(request);
        let hash = Sha256::new_with_prefix(self.time.to_le_bytes()).chain_update(manifest);
        Digest(hash.finalize().into())
    }

    /// Writes the archive `base` with these files behind its members to `to`.
    pub(super) fn append(
        &self,
        request: &Request,
        base: &Path,
        to: &Path,
    ) -> Result<Digest, ImageError> {
        let (read, write) = (ImageError::file("read", base), ImageError::file("write", to));
        let end = members_end(base).map_err(&read)?;
        let mut from = File::open(base).map_err(&read)?.take(end);
        let mut out = Hashing { out: File::create(to).map_err(&write)?, hash: Sha256::new() };
        io::copy(&mut from, &mut out).map_err(&write)?;
        let mut archive = tar::Builder::new(out);
        let (files, manifest) = self.small(request);
        let mut folders = std::collections::BTreeSet::from([String::new()]);
        for (at, path) in
            files.keys().flat_map(|p| p.match_indices('/').map(move |(at, _)| (at, p)))
        {
            folders.insert(path[..at].to_owned());
        }
        for folder in folders {
            let mut header = self.header(EntryType::Directory, 0o755, 0);
            archive.append_data(&mut header, inside(&folder), io::empty()).map_err(&write)?;
        }
        let manifest = Files::from([(MANIFEST.to_owned(), manifest)]);
        for (path, body) in files.iter().chain(&manifest) {
            let mut header = self.header(EntryType::Regular, 0o644, body.len() as u64);
            archive.append_data(&mut header, inside(path), &body[..]).map_err(&write)?;
        }
        let read = ImageError::file("read", self.slot);
        let slot = File::open(self.slot).map_err(read)?;
        let mut header = self.header(EntryType::Regular, 0o644, self.slot_about.size.0);
        let body = slot.take(self.slot_about.size.0);
        archive.append_data(&mut header, inside(SLOT), body).map_err(&write)?;
        let mut out = archive.into_inner().map_err(&write)?;
        out.flush().map_err(&write)?;
        Ok(Digest(out.hash.finalize().into()))
    }

    fn header(&self, kind: EntryType, mode: u32, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.time);
        header.set_size(size);
        header
    }
}

/// The path of a file in the root file system.
fn inside(path: &str) -> String {
    format!("{}/{path}", BITS.trim_start_matches('/')).trim_end_matches('/').to_owned()
}

/// Where the last member of an archive ends.
fn members_end(path: &Path) -> io::Result<u64> {
    let mut file = io::BufReader::new(File::open(path)?);
    let mut end = 0;
    for entry in tar::Archive::new(&mut file).entries_with_seek()? {
        let entry = entry?;
        end = entry.raw_file_position() + entry.size().next_multiple_of(BLOCK);
    }
    let length = file.seek(io::SeekFrom::End(0))?;
    if end > length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(end)
}

struct Hashing {
    out: File,
    hash: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
