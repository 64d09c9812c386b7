//! Which image a test boots.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use host::qemu::DiskFormat;
use model::Arch;

/// A disk image of the debug profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    path: PathBuf,
}

impl Image {
    /// The image at `path`: raw or qcow2 by its name. It is never written to.
    pub fn at(path: impl Into<PathBuf>) -> anyhow::Result<Image> {
        let path = path.into();
        let path = path.canonicalize().with_context(|| format!("no image {}", path.display()))?;
        Ok(Image { path })
    }

    /// What is under test: `$EVE_LAB_IMAGE`, else `target/lab/image/amd64/current/live.raw`, which
    /// `cargo xtask lab-image` builds.
    pub fn current() -> anyhow::Result<Image> {
        if let Some(path) = std::env::var_os("EVE_LAB_IMAGE").filter(|v| !v.is_empty()) {
            return Image::at(path);
        }
        Image::of(Arch::Amd64)
    }

    /// The installer of it: `$EVE_LAB_INSTALLER`, else `installer.raw` beside it.
    pub fn installer() -> anyhow::Result<Image> {
        if let Some(path) = std::env::var_os("EVE_LAB_INSTALLER").filter(|v| !v.is_empty()) {
            return Image::at(path);
        }
        Image::built(Arch::Amd64, "installer.raw")
    }

    /// The installer as an ISO.
    pub fn installer_iso() -> anyhow::Result<Image> {
        Image::built(Arch::Amd64, "installer.iso")
    }

    /// The installer as an archive of what a boot server hands out.
    pub fn installer_net() -> anyhow::Result<Image> {
        Image::built(Arch::Amd64, "installer.net")
    }

    /// A live disk of another layout: `target/lab/image/<profile>/amd64/current/live.raw`.
    pub fn of_profile(profile: &str) -> anyhow::Result<Image> {
        Image::built(Arch::Amd64, &format!("../../{profile}/amd64/current/live.raw"))
    }

    /// `target/lab/image/<arch>/current/live.raw`, which `cargo xtask lab-image --arch` builds.
    pub fn of(arch: Arch) -> anyhow::Result<Image> {
        Image::built(arch, "live.raw")
    }

    fn built(arch: Arch, name: &str) -> anyhow::Result<Image> {
        let path = lab_dir().join(format!("image/{arch}/current/{name}"));
        if !path.exists() {
            bail!(
                "no image for the lab: run `cargo xtask lab-image --arch {arch}`, which makes {}",
                path.display()
            );
        }
        Image::at(path)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its format.
    pub fn format(&self) -> DiskFormat {
        DiskFormat::of(&self.path)
    }

    /// Tells this image from any other, by what the file system says of it: images are replaced
    /// whole, so a new one has a new inode. A digest would take longer than all that depends on it.
    pub(crate) fn stamp(&self) -> anyhow::Result<u64> {
        let meta = fs::metadata(&self.path)
            .with_context(|| format!("cannot look at {}", self.path.display()))?;
        let mut hasher = DefaultHasher::new();
        self.path.hash(&mut hasher);
        (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()).hash(&mut hasher);
        Ok(hasher.finish())
    }
}

/// The lab's folder: `$EVE_LAB_DIR`, else `target/lab` of this workspace.
pub(crate) fn lab_dir() -> PathBuf {
    let given = std::env::var_os("EVE_LAB_DIR").filter(|v| !v.is_empty());
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    given.map_or_else(|| here.join("../../target/lab"), PathBuf::from)
}
