//! Content by digest: the OCI layout and its references, images, layers; and the one way to replace
//! a file.
//!
//! Everything here is synchronous and works on one machine's files. It fetches nothing: whoever has
//! bytes from a network writes them through [`BlobWriter`], which shows a blob only when it is whole
//! and right.

mod builder;
mod error;
mod image;
mod index;
mod layer;
mod layout;
pub mod name;
mod plain;
mod read;
mod refs;
mod save;
mod secret;
pub mod tarball;
mod transfer;
mod unpack;

pub use builder::{Compression, ImageBuilder};
pub use error::StoreError;
pub use image::{
    Descriptor, Image, ImageConfig, Index, MANIFEST_MAX, Manifest, Platform, RootFs, RunConfig,
    media_type,
};
pub use index::{ArchiveIndex, Place};
pub use layer::{Flattener, LayerReader, flatten};
pub use layout::{BlobWriter, Layout};
pub use plain::{Body, Layers, PlainLayer};
pub use read::read_bounded;
pub use refs::{Ref, Resolved};
pub use save::{Draft, SaveError, remove, replaceable, save};
pub use secret::save_with_mode;
pub use transfer::{Imported, export_image, export_tar, import_tar};
pub use unpack::{Limits, Unpacked, remove_tree, unpack};
