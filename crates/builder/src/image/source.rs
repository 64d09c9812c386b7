//! What comes from packages: the composed root file system and the boot stub.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};
use store::{Image, Layout, Platform, StoreError, flatten};

use super::pipeline::System;
use super::{Arch, ImageError, Progress, Request};
use crate::compose::{self, Description};
use crate::pkg::{self, Package};

/// The package that holds systemd's EFI stub.
pub(super) const STUB_PACKAGE: &str = "pkg/uefi";

/// A boot stub has 100 KiB.
const STUB_MAX: Bytes = Bytes::mib(16);
const PACKAGE_MAX: Bytes = Bytes::gib(1);

/// The description of a node's image, of an installer's, and what debug images add; below the
/// repository.
const NODE: &str = "images/rootfs.yml";
const INSTALLER: &str = "images/installer.yml";
const DEBUG: &str = "images/debug.yml";

/// The kernel's consoles by architecture; below the repository.
const CONSOLES: &str = "images/consoles.toml";

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
    let base = match system {
        System::Node => NODE,
        System::Installer => INSTALLER,
    };
    let named = [Some(base), request.debug.then_some(DEBUG)].into_iter().flatten();
    let mut texts = Vec::new();
    for name in named {
        let path = request.repository.join(name);
        let text = fs::read_to_string(&path).map_err(ImageError::file("read", &path))?;
        texts.push((path.display().to_string(), text));
    }
    texts.push(("what the build adds".to_owned(), about(request)));
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
    let names: Vec<String> = names.into_iter().collect();
    let packages = pkg::build(&names, options, progress)?;
    let mut description = {
        let find = pkg::resolver(&packages);
        let unknown = || "no package of this repository has that path".to_owned();
        Description::parse(&texts, &|name: &str| find(name).ok_or_else(unknown))?
    };
    let consoles = consoles(&request.repository.join(CONSOLES), request.arch)?;
    let cmdline = format!("{consoles} {}", description.kernel.cmdline);
    description.kernel.cmdline = cmdline.trim_end().to_owned();
    let unusable = |source| ImageError::Package { package: "every package".to_owned(), source };
    let layout = Layout::open(options.layout()).map_err(unusable)?;
    let key = key(&description, &layout, request.arch)?;
    Ok(Composition { description, layout, arch: request.arch, key, packages })
}

impl Composition {
    /// Composes the archive into a new file; its digest.
    pub(super) fn write(&self, path: &Path, progress: &dyn Progress) -> Result<Digest, ImageError> {
        let write = ImageError::file("write", path);
        let options = compose::Options {
            arch: self.arch.name().to_owned(),
            home: home(),
            kept: Some(self.layout.root().with_file_name("layers")),
            ..compose::Options::default()
        };
        let mut file = File::create(path).map_err(&write)?;
        let facts = compose::compose(&self.description, &self.layout, &options, &mut file)?;
        facts.warnings.iter().for_each(|w| progress.line(&format!("warning: {w}")));
        Ok(facts.digest)
    }
}

/// The words that make the kernel use an architecture's consoles.
fn consoles(path: &Path, arch: Arch) -> Result<String, ImageError> {
    let read = ImageError::file("read", path);
    let text = fs::read_to_string(path).map_err(&read)?;
    let mut rows: BTreeMap<Arch, String> = toml::from_str(&text)
        .map_err(|e| read(io::Error::new(io::ErrorKind::InvalidData, e.message().to_owned())))?;
    let missing = || read(io::Error::new(io::ErrorKind::NotFound, format!("no row {arch}")));
    rows.remove(&arch).ok_or_else(missing)
}

/// Says in the image what it is.
fn about(request: &Request) -> String {
    let files = [
        ("etc/eve-release", &request.version),
        ("etc/eve-hv-type", &request.hv),
        ("etc/eve-platform", &request.platform),
    ];
    let mut yml = "files:\n".to_owned();
    for (path, text) in files {
        // A JSON string is a YAML string.
        let text = serde_json::Value::from(format!("{text}\n"));
        yml += &format!("  - path: {path}\n    contents: {text}\n    mode: \"0644\"\n");
    }
    yml
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
    let image = packages.get(STUB_PACKAGE).map_or(STUB_PACKAGE, |p| p.image.as_str());
    let unusable = |source: StoreError| ImageError::Package { package: image.to_owned(), source };
    let layout = Layout::open(options.layout()).map_err(unusable)?;
    let missing =
        || ImageError::NoStub { package: image.to_owned(), file: stub_name(options.arch) };
    read_file(&layout, image, options.arch).map_err(unusable)?.ok_or_else(missing)
}

/// What systemd calls its stub for an architecture.
fn stub_name(arch: Arch) -> String {
    format!("linux{}.efi.stub", arch.efi())
}

fn read_file(layout: &Layout, image: &str, arch: Arch) -> Result<Option<Vec<u8>>, StoreError> {
    let found = layout.resolve(image, &Platform::linux(arch.name()))?;
    let image = Image::read(layout, &found)?;
    let (mut stub, name) = (None, stub_name(arch));
    flatten(layout, &image.manifest, PACKAGE_MAX, |header, body| {
        if header.path.ends_with(name.as_bytes()) {
            let mut bytes = Vec::new();
            // An error of the body is told by the layer itself.
            let whole = body.take(STUB_MAX.0).read_to_end(&mut bytes).is_ok();
            stub = whole.then_some(bytes);
        }
        Ok::<_, StoreError>(())
    })?;
    Ok(stub)
}
