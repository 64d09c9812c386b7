//! What comes from packages: the composed root file system and the boot stub.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};
use store::{Image, Layout, Platform, StoreError, flatten};

use super::grub::Parts;
use super::pipeline::System;
use super::{Arch, ImageError, Progress, Request};
use crate::compose::{self, Description};
use crate::describe;
use crate::pkg::{self, Package};

/// The package that holds systemd's EFI stub.
pub(super) const STUB_PACKAGE: &str = "pkg/uefi";
/// The package that holds iPXE.
pub(super) const IPXE_PACKAGE: &str = "pkg/ipxe";
/// The package that holds the parts of GRUB for BIOS machines.
pub(super) const GRUB_PACKAGE: &str = "pkg/grub";

/// A boot stub has 100 KiB, iPXE 1 MiB.
const FILE_MAX: Bytes = Bytes::mib(16);
const PACKAGE_MAX: Bytes = Bytes::gib(1);

/// A description with its packages built.
pub(super) struct Composition {
    description: Description,
    layout: Layout,
    arch: Arch,
    /// Everything that the archive depends on, as one text.
    pub(super) key: String,
    /// The packages that were built for it.
    pub(super) packages: BTreeMap<String, Package>,
}

/// Reads the descriptions and builds the packages that they name, and that of the boot stub unless
/// a stub was given.
pub(super) fn prepare(
    request: &Request,
    system: System,
    options: &pkg::Options,
    progress: &dyn Progress,
) -> Result<Composition, ImageError> {
    let image = match system {
        System::Node => describe::Image::Rootfs,
        System::Installer => describe::Image::Installer,
    };
    let yml = describe(request, image)?;
    let mut texts = vec![(format!("what {} became", image.template()), yml)];
    texts.extend(request.kernel_image.as_deref().map(other_kernel).transpose()?);
    let texts: Vec<(&str, &str)> = texts.iter().map(|(f, t)| (f.as_str(), t.as_str())).collect();

    let asked = RefCell::new(BTreeSet::new());
    Description::parse(&texts, &|name: &str| {
        asked.borrow_mut().insert(name.trim_end_matches('/').to_owned());
        Ok("not/built:yet".to_owned())
    })?;
    let mut names = asked.into_inner();
    if request.stub.is_none() {
        names.insert(STUB_PACKAGE.to_owned());
    }
    names.extend(grub_package(request));
    let names: Vec<String> = names.into_iter().collect();
    let packages = pkg::build(&names, options, progress)?;
    let description = {
        let find = pkg::resolver(&packages);
        let unknown = || "no package of this repository has that path".to_owned();
        Description::parse(&texts, &|name: &str| find(name).ok_or_else(unknown))?
    };
    let unusable = |source| ImageError::Package { package: "every package".to_owned(), source };
    let layout = Layout::open(options.layout()).map_err(unusable)?;
    let key = key(&description, &layout, request.arch)?;
    Ok(Composition { description, layout, arch: request.arch, key, packages })
}

/// The package of GRUB, where the disk takes it from there.
pub(super) fn grub_package(request: &Request) -> Option<String> {
    let is_there = request.repository.join(GRUB_PACKAGE).is_dir();
    let wanted = request.grub.is_none() && request.arch == Arch::Amd64 && is_there;
    wanted.then(|| GRUB_PACKAGE.to_owned())
}

impl Composition {
    /// What the description comes to. Contents are not read.
    pub(super) fn plan(&self, progress: &dyn Progress) -> Result<compose::Plan, ImageError> {
        let options = compose::Options {
            arch: self.arch.name().to_owned(),
            home: home(),
            kept: Some(self.layout.root().with_file_name("layers")),
            ..compose::Options::default()
        };
        let plan = compose::plan(&self.description, &self.layout, &options)?;
        plan.warnings().iter().for_each(|w| progress.line(&format!("warning: {w}")));
        Ok(plan)
    }
}

/// The description of the image that is asked for.
fn describe(request: &Request, image: describe::Image) -> Result<String, ImageError> {
    let clone = describe::Repository::open(&request.repository)?;
    Ok(clone.describe(image, &request.selection())?.yml())
}

/// Puts a kernel of this machine over that of the kernel's image: of two members with one path the
/// last counts.
fn other_kernel(path: &Path) -> Result<(String, String), ImageError> {
    let path = path.canonicalize().map_err(ImageError::file("find", path))?;
    // A JSON string is a YAML string.
    let source = serde_json::Value::from(path.to_string_lossy());
    let yml = format!("files:\n  - path: boot/kernel\n    source: {source}\n    mode: \"0644\"\n");
    Ok(("the other kernel".to_owned(), yml))
}

fn key(description: &Description, layout: &Layout, arch: Arch) -> Result<String, ImageError> {
    // These types have string keys and no floats: nothing in them can fail to serialize.
    let mut key = serde_json::to_string(description).unwrap_or_default();
    let containers = [&description.onboot, &description.onshutdown, &description.services];
    let images = std::iter::once(&description.kernel.image)
        .chain(&description.init)
        .chain(containers.into_iter().flatten().map(|c| &c.image))
        .chain(description.volumes.iter().map(|v| &v.image));
    for image in images.filter(|i| !i.is_empty()) {
        let found = layout.resolve(&store::name::expand(image), &Platform::linux(arch.name()));
        // One that is missing is told by whoever composes.
        let digest = found.map_or_else(|_| "missing".to_owned(), |d| d.digest.to_string());
        key += &format!("\n{image} {digest}");
    }
    for file in description.files.iter().filter(|f| !f.source.is_empty()) {
        let path = match (file.source.strip_prefix("~/"), home()) {
            (Some(below), Some(home)) => home.join(below),
            _ => PathBuf::from(&file.source),
        };
        let body = if path.is_file() {
            fs::read(&path).map_err(ImageError::file("read", &path))?
        } else {
            Vec::new()
        };
        key += &format!("\n{} {}", file.path, Digest(Sha256::digest(&body).into()));
    }
    Ok(key)
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").filter(|h| !h.is_empty()).map(PathBuf::from)
}

/// The stub: that of the path, else that of the package.
pub(super) fn stub(
    path: Option<&Path>,
    options: &pkg::Options,
    packages: &BTreeMap<String, Package>,
) -> Result<Vec<u8>, ImageError> {
    if let Some(path) = path {
        return std::fs::read(path).map_err(ImageError::file("read", path));
    }
    file(STUB_PACKAGE, &stub_name(options.arch), options, packages)
}

/// The file of a package whose path ends with `name`.
pub(super) fn file(
    package: &str,
    name: &str,
    options: &pkg::Options,
    packages: &BTreeMap<String, Package>,
) -> Result<Vec<u8>, ImageError> {
    let image = packages.get(package).map_or(package, |p| p.image.as_str());
    let unusable = |source: StoreError| ImageError::Package { package: image.to_owned(), source };
    let layout = Layout::open(options.layout()).map_err(unusable)?;
    let missing = || ImageError::NoFile { package: image.to_owned(), file: name.to_owned() };
    let found = read_files(&layout, image, options.arch, &|path| path.ends_with(name));
    found.map_err(unusable)?.into_values().next().ok_or_else(missing)
}

/// The parts of GRUB for BIOS machines: those of the folder, else of the package.
pub(super) fn grub(
    folder: Option<&Path>,
    options: &pkg::Options,
    package: Option<&Package>,
) -> Result<Parts, ImageError> {
    if let (None, Some(package)) = (folder, package) {
        let image = package.image.as_str();
        let unusable = |source| ImageError::Package { package: image.to_owned(), source };
        let layout = Layout::open(options.layout()).map_err(unusable)?;
        let is_part = |path: &str| path.contains("/i386-pc/");
        let files = read_files(&layout, image, options.arch, &is_part).map_err(unusable)?;
        let own = |path: String| path.rsplit('/').next().unwrap_or_default().to_owned();
        return Ok(files.into_iter().map(|(path, body)| (own(path), body)).collect());
    }
    let mut parts = Parts::new();
    let Some(folder) = folder else { return Ok(parts) };
    let read = ImageError::file("read", folder);
    for entry in fs::read_dir(folder).map_err(&read)? {
        let entry = entry.map_err(&read)?;
        let path = entry.path();
        if let (Ok(name), true) = (entry.file_name().into_string(), path.is_file()) {
            parts.insert(name, fs::read(&path).map_err(ImageError::file("read", &path))?);
        }
    }
    Ok(parts)
}

/// What systemd calls its stub for an architecture.
fn stub_name(arch: Arch) -> String {
    format!("linux{}.efi.stub", arch.efi())
}

/// The regular files of an image whose paths are wanted. One that is larger than any of ours is left
/// out.
fn read_files(
    layout: &Layout,
    image: &str,
    arch: Arch,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
    let found = layout.resolve(image, &Platform::linux(arch.name()))?;
    let image = Image::read(layout, &found)?;
    let mut files = BTreeMap::new();
    flatten(layout, &image.manifest, PACKAGE_MAX, |header, body| {
        let path = String::from_utf8_lossy(&header.path).into_owned();
        if wanted(&path) {
            let mut bytes = Vec::new();
            // An error of the body is told by the layer itself.
            if body.take(FILE_MAX.0).read_to_end(&mut bytes).is_ok() && !bytes.is_empty() {
                files.insert(path, bytes);
            }
        }
        Ok::<_, StoreError>(())
    })?;
    Ok(files)
}
