//! The root file system as a squashfs image, with blocks kept between builds.

use std::fs::File;
use std::io::{self, BufWriter};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use formats::squashfs::{Blocks, Facts, Method, Options, WriteError};
use formats::tree::{Contents, Tree};
use model::{Bytes, Diagnose, Diagnosis, Who};

use super::blocks::KeptBlocks;

/// How an image is to be written: what shows in its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    /// Compression.
    pub method: Method,
    /// Size of data blocks: a power of two from 4 KiB to 1 MiB.
    pub block: Bytes,
    /// The image's time, in seconds since 1970.
    pub time: u64,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum SquashfsError {
    /// The tree cannot be a squashfs, or it cannot be read.
    #[error("cannot write the squashfs {path}")]
    Write {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: WriteError,
    },
    /// The file cannot be written.
    #[error("cannot create {path}")]
    Create {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Diagnose for SquashfsError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            SquashfsError::Write { source, .. } => source.diagnose(),
            SquashfsError::Create { .. } => {
                Diagnosis::of(Who::Operator, "check that the path is right and may be used")
            }
        }
    }
}

/// Writes the image to `path` with all processors.
fn write<C: Sync>(
    tree: &Tree<C>,
    contents: &dyn Contents<C>,
    recipe: &Recipe,
    kept: Option<&mut dyn Blocks>,
    path: &Path,
) -> Result<Facts, SquashfsError> {
    let create = |source| SquashfsError::Create { path: path.to_owned(), source };
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(create)?);
    let options = Options {
        method: recipe.method,
        block: recipe.block,
        // What came after the year 2106 is told as that.
        time: u32::try_from(recipe.time).unwrap_or(u32::MAX),
        threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    let written = formats::squashfs::write(tree, contents, &options, kept, &mut out);
    let written = written.and_then(|facts| {
        out.into_inner().map_err(|e| WriteError::Write(e.into_error()))?;
        Ok(facts)
    });
    written.map_err(|source| SquashfsError::Write { path: path.to_owned(), source })
}

/// Writes the image to `path`; packed blocks are kept in the cache at `keep`, those of images of one
/// name together.
pub(crate) fn write_keeping<C: Sync>(
    tree: &Tree<C>,
    contents: &dyn Contents<C>,
    recipe: &Recipe,
    keep: Option<&Path>,
    name: &str,
    path: &Path,
) -> Result<Facts, SquashfsError> {
    let name = format!("{name}-{:?}-{}", recipe.method, recipe.block.0);
    // Without kept blocks the same image comes about, only later.
    let mut kept = keep.and_then(|cache| KeptBlocks::open(cache, &name).ok());
    let blocks = kept.as_mut().map(|kept| kept as &mut dyn Blocks);
    let facts = write(tree, contents, recipe, blocks, path)?;
    if let Some(Err(error)) = kept.map(KeptBlocks::keep) {
        tracing::warn!("packed blocks are not kept: {error}");
    }
    Ok(facts)
}
