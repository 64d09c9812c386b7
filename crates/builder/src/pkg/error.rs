//! What can go wrong with packages, and who can act.

use std::io;
use std::path::PathBuf;

use host::process::{Tool, ToolError};
use model::{Arch, Diagnose, Diagnosis, Who};

use super::binaries::CargoError;
use super::catalog::CatalogError;
use super::fetch::FetchError;
use super::index::ResolveError;
use super::lock::LockError;
use super::make::MakeError;
use super::release::ReleaseError;

/// Why packages cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum PkgError {
    /// A recipe cannot be used.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The lock cannot be read.
    #[error("cannot read {path}")]
    ReadLock {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The lock is broken.
    #[error("{path} is not a lock of Debian packages")]
    Lock {
        /// Where.
        path: PathBuf,
        /// Why.
        source: LockError,
    },
    /// The lock does not know what a recipe asks for.
    #[error("the lock does not fit {recipe} on {arch}: what the recipe asks of Debian has changed")]
    Stale {
        /// Which recipe.
        recipe: String,
        /// For which architecture.
        arch: super::recipe::Arch,
    },
    /// No mirror is known.
    #[error("no Debian mirror is known: apt on this machine has none")]
    NoMirror,
    /// A package could not be had.
    #[error("cannot get the Debian package {package}")]
    Fetch {
        /// Name and version.
        package: String,
        /// Why.
        source: FetchError,
    },
    /// Pinned packages are gone, and the lock must not be changed.
    #[error("the mirror no longer has {}", .packages.join(", "))]
    Vanished {
        /// Names and versions.
        packages: Vec<String>,
    },
    /// The archive's index cannot be used.
    #[error("cannot use the Debian archive")]
    Release(#[from] ReleaseError),
    /// The archive does not have what a recipe needs.
    #[error("cannot resolve {recipe}")]
    Resolve {
        /// Which recipe.
        recipe: String,
        /// Why.
        source: ResolveError,
    },
    /// Our programs could not be built.
    #[error(transparent)]
    Cargo(#[from] CargoError),
    /// A package could not be put together.
    #[error("cannot make {package}")]
    Make {
        /// Which.
        package: String,
        /// Why.
        source: MakeError,
    },
    /// The image could not be kept.
    #[error("cannot keep the image of {package}")]
    Store {
        /// Which.
        package: String,
        /// Why.
        source: store::StoreError,
    },
    /// A file of ours could not be replaced.
    #[error(transparent)]
    Save(#[from] store::SaveError),
    /// The cache folder cannot be used.
    #[error("cannot use the cache folder {path}")]
    Cache {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Diagnose for PkgError {
    fn diagnose(&self) -> Diagnosis {
        use Who::{Developer, Operator};
        match self {
            Self::Catalog(CatalogError::Unknown { .. }) => {
                Diagnosis::of(Operator, "choose one of them, or leave the name out to build all")
            }
            Self::Catalog(CatalogError::Arch { .. }) => {
                Diagnosis::of(Operator, "choose an architecture that its recipe names")
            }
            Self::Catalog(_) => Diagnosis::of(Operator, "correct the recipe"),
            Self::ReadLock { .. } => {
                Diagnosis::of(Operator, "take pkg/debian.lock from git, or run `eve pkg lock`")
            }
            Self::Lock { .. } => Diagnosis::of(
                Operator,
                "take pkg/debian.lock from git, or remove it and run `eve pkg lock`",
            ),
            Self::Stale { .. } => Diagnosis::of(Operator, "run `eve pkg lock` and commit the lock"),
            Self::NoMirror => Diagnosis::of(
                Operator,
                "give a Debian mirror with --mirror or EVE_DEBIAN_MIRROR \
                 (https://www.debian.org/mirror/list has them)",
            ),
            Self::Fetch { source, .. } | Self::Release(ReleaseError::Fetch { source, .. }) => {
                fetch(source)
            }
            Self::Vanished { .. } => Diagnosis::of(
                Operator,
                "run `eve pkg lock --update`, build without --locked, or name a snapshot archive \
                 that still has them with EVE_DEBIAN_SNAPSHOT",
            ),
            Self::Release(ReleaseError::NoTool { .. }) => {
                Diagnosis::of(Operator, "install gpgv (apt install gpgv)")
            }
            Self::Release(_) => Diagnosis::of(
                Operator,
                "try another mirror (--mirror); what this one sends cannot be trusted",
            ),
            Self::Resolve { .. } => {
                Diagnosis::of(Operator, "correct the recipe's list of packages")
            }
            Self::Cargo(CargoError::Tool(ToolError::Spawn { tool: Tool::Gcc(arch), .. })) => {
                Diagnosis::of(Operator, cross_tools(*arch))
            }
            Self::Cargo(CargoError::NoStd { arch, .. } | CargoError::NoLibc { arch }) => {
                Diagnosis::of(Operator, cross_tools(*arch))
            }
            Self::Cargo(CargoError::Tool(_)) => {
                Diagnosis::of(Operator, "install Rust (https://rustup.rs) and see that cargo runs")
            }
            Self::Cargo(_) => Diagnosis::of(Developer, "repair the build of the node's programs"),
            Self::Make { source: MakeError::Deb(_), .. } => Diagnosis::of(
                Operator,
                "remove the file named above and build again: it is fetched anew",
            ),
            Self::Make { .. } => Diagnosis::of(Operator, "correct the recipe"),
            Self::Store { .. } | Self::Save(_) | Self::Cache { .. } => Diagnosis::of(
                Operator,
                "see that the cache folder can be written and has room, or choose another with \
                 EVE_CACHE",
            ),
        }
    }
}

/// How a machine comes to compile for another processor.
fn cross_tools(arch: Arch) -> String {
    format!("run `cargo xtask setup --arch {arch}`, which installs all that {arch} takes")
}

fn fetch(error: &FetchError) -> Diagnosis {
    match error {
        FetchError::Unreachable { .. } => Diagnosis::of(
            Who::Network,
            "check the network and the proxy, or choose another mirror with --mirror or \
             EVE_DEBIAN_MIRROR",
        ),
        FetchError::Wrong { .. } | FetchError::TooLong { .. } => Diagnosis::of(
            Who::Operator,
            "choose another mirror with --mirror: this one, or something on the way, sends other \
             bytes than the lock pins. If the lock is wrong, run `eve pkg lock --update`",
        ),
        FetchError::Missing { .. } => {
            Diagnosis::of(Who::Operator, "see that --mirror names the folder that holds `dists`")
        }
        FetchError::Write { .. } => Diagnosis::of(
            Who::Operator,
            "see that the cache folder has room, or choose another with EVE_CACHE",
        ),
    }
}
