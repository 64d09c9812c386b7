//! Composition: linuxkit yml to a root file system tar, byte for byte as linuxkit makes it.
//!
//! A description is read ([`Description::parse`]), images are taken from a local OCI layout, and what
//! the archive holds is found out ([`plan`]): names and places of bytes, so that nothing large is kept
//! in memory and no file is read again that did not change. [`Plan::write`] writes the archive. Nothing
//! is fetched, no clock is asked: same description, same images, same bytes.
//!
//! What is odd in the archive is the reference's: entries that stand there twice, layers read from the
//! top, folders with mode 0700 above files. The one thing that is not the reference's to the byte is
//! the name that `sbom.spdx.json` gives itself: a random number there, made of the inputs here.

mod assemble;
mod container;
mod description;
mod error;
mod files;
mod gojson;
mod goyaml;
mod initrd;
mod kernel;
mod metadata;
mod oci;
mod plan;
mod read;
mod sbom;
mod tree;
pub(crate) mod yaml;

pub use assemble::{Facts, Options, compose, plan};
pub use description::{
    BindNamespaces, Container, Description, Device, FileEntry, Interface, Kernel, Owner, Run,
    Runtime, Volume,
};
pub use error::ComposeError;
pub use initrd::{Boot, boot_archive};
pub use oci::{
    BlockIo, Cpu, DeviceRule, IdMapping, InterfacePriority, Memory, Mount, NetworkRule, Pids,
    Resources,
};
pub use plan::{Handle, Plan, Written};
pub use read::PackageTag;

/// The merged description as yml, image names as they stand: what `--dry-run` shows.
pub fn show(description: &Description) -> String {
    metadata::plain_yaml(description)
}
