//! What an installer brings along: the folder `/bits` in its root file system (decisions/0006).
//!
//! It lies inside the squashfs, so dm-verity guards it as it guards the rest, and a raw disk, an ISO
//! and a net boot all have it in one place.

use std::collections::BTreeMap;
use std::path::Path;

use formats::fat::Files;
use formats::tree::{Content, Kind, Meta, Node};
use model::installer::{About, BITS, CONFIG, ESP, MANIFEST, Manifest, SLOT};
use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};

use super::rootfs::{Place, Rootfs};
use super::{Request, RootfsError};

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

    /// A digest of everything that [`Bits::insert`] puts there.
    pub(super) fn key(&self, request: &Request) -> Digest {
        // The list has the digest of every file.
        let (_, manifest) = self.small(request);
        let hash = Sha256::new_with_prefix(self.time.to_le_bytes()).chain_update(manifest);
        Digest(hash.finalize().into())
    }

    /// Puts the folder into a root file system.
    pub(super) fn insert(&self, request: &Request, rootfs: &mut Rootfs) -> Result<(), RootfsError> {
        let (mut files, manifest) = self.small(request);
        files.insert(MANIFEST.to_owned(), manifest);
        let mtime = i64::try_from(self.time).unwrap_or(i64::MAX);
        let meta = |mode| Meta { mode, mtime, ..Meta::default() };
        // The folders in between come with the files, and with their time.
        rootfs.insert(&inside(""), Node::folder(meta(0o755)))?;
        for (path, body) in files {
            let digest = Some(Digest(Sha256::digest(&body).into()));
            let size = Bytes(body.len() as u64);
            let content = Content { size, digest, at: Place::Here(body.into()) };
            rootfs.insert(&inside(&path), Node { meta: meta(0o644), kind: Kind::File(content) })?;
        }
        let About { size, digest } = self.slot_about;
        let at = Place::File(self.slot.to_owned());
        let kind = Kind::File(Content { size, digest: Some(digest), at });
        rootfs.insert(&inside(SLOT), Node { meta: meta(0o644), kind })
    }
}

/// The path of a file in the root file system.
fn inside(path: &str) -> String {
    format!("{}/{path}", BITS.trim_start_matches('/')).trim_end_matches('/').to_owned()
}
