//! All parts in their order: kernel, root file system, volumes, containers, files.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use model::{Bytes, Digest};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use store::tarball::{Header, Kind, Time, Writer};
use store::{Descriptor, Image, Index, Layout, MANIFEST_MAX, Manifest, Platform, StoreError};

use super::container::{Ids, Volumes, settle, volume_dir, with_volumes};
use super::oci::Mount;
use super::read::label;
use super::tree::{ApkDatabases, ImageFiles, KernelFiles, Members, Origin, RESOLV_LINK};
use super::{ComposeError, Container, Description, Volume, files, gojson};

/// The most that one image may unpack to.
const IMAGE_MAX: Bytes = Bytes::gib(64);

/// The label that says how a container of an image runs.
const LABEL: &str = "org.mobyproject.config";

/// What a composition depends on besides description and images.
#[derive(Debug, Clone)]
pub struct Options {
    /// The processor the image is for, in Go's words: `amd64`.
    pub arch: String,
    /// What `~/` in a file's source stands for.
    pub home: Option<PathBuf>,
}

/// What was composed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// SHA-256 of the archive.
    pub digest: Digest,
    /// Size of the archive.
    pub size: Bytes,
    /// The images it was made of: full name and manifest.
    pub images: BTreeMap<String, Digest>,
    /// What was read and has no effect, a sentence each.
    pub warnings: Vec<String>,
}

/// Writes the archive that `description` describes, with images from `images`, to `out`. After an
/// error, what was written is of no use.
pub fn compose(
    description: &Description,
    images: &Layout,
    options: &Options,
    out: &mut dyn Write,
) -> Result<Facts, ComposeError> {
    let out = io::BufWriter::with_capacity(1 << 16, out);
    let counted = Counted { out, hash: Sha256::new(), size: 0 };
    let mut assembly = Assembly {
        layout: images,
        platform: Platform::linux(&options.arch),
        images: HashMap::new(),
        out: Writer::new(counted),
        unpacked: HashMap::new(),
    };
    let ids = ids(description);
    assembly.kernel(description)?;
    assembly.init(description)?;
    for (n, volume) in description.volumes.iter().enumerate() {
        assembly.volume(n, volume)?;
    }
    let volumes: Volumes<'_> = description.volumes.iter().map(|v| (v.name.as_str(), v)).collect();
    for (section, containers) in [
        ("onboot", &description.onboot),
        ("onshutdown", &description.onshutdown),
        ("services", &description.services),
    ] {
        for (n, container) in containers.iter().enumerate() {
            assembly.container(section, n, container, &volumes, &ids)?;
        }
    }
    files::write(description, &ids, options.home.as_deref(), &mut assembly.out)?;
    let whole = |source| write_error("the archive", "its end", source);
    let mut counted = assembly.out.finish().map_err(whole)?;
    counted.flush().map_err(whole)?;
    Ok(Facts {
        digest: Digest(counted.hash.finalize().into()),
        size: Bytes(counted.size),
        images: assembly.images.into_iter().map(|(name, image)| (name, image.digest)).collect(),
        warnings: description.warnings.clone(),
    })
}

/// Each container has a number, from 100. Of several with one name the last counts.
fn ids(d: &Description) -> Ids {
    let containers = d.onboot.iter().chain(&d.onshutdown).chain(&d.services);
    (100..).zip(containers).map(|(id, container)| (container.name.clone(), id)).collect()
}

fn write_error(location: &str, member: &str, source: io::Error) -> ComposeError {
    ComposeError::Write { location: location.to_owned(), member: member.to_owned(), source }
}

/// Where an error came from while an image was passed through.
enum Passing {
    Image(StoreError),
    Member(String, io::Error),
}

impl From<StoreError> for Passing {
    fn from(error: StoreError) -> Passing {
        Passing::Image(error)
    }
}

struct Assembly<'a, 'o> {
    layout: &'a Layout,
    platform: Platform,
    /// By full name.
    images: HashMap<String, Image>,
    out: Writer<Counted<'o>>,
    /// Where containers' images stand in the archive already, by full name.
    unpacked: HashMap<String, String>,
}

impl Assembly<'_, '_> {
    fn kernel(&mut self, d: &Description) -> Result<(), ComposeError> {
        if d.kernel.image.is_empty() {
            return Ok(());
        }
        let origin = self.origin("kernel".to_owned(), &d.kernel.image)?;
        let manifest = self.image(&origin)?.manifest.clone();
        let mut files = KernelFiles::new(&mut self.out, &origin, &d.kernel);
        pass(self.layout, &manifest, &origin, "", None, &mut files)?;
        let location = origin.location.clone();
        files.finish().map_err(|why| ComposeError::Nonsense { location, why })
    }

    fn init(&mut self, d: &Description) -> Result<(), ComposeError> {
        let mut origins = Vec::new();
        for (n, name) in d.init.iter().enumerate() {
            let origin = self.origin(format!("init[{n}]"), name)?;
            let manifest = self.image(&origin)?.manifest.clone();
            origins.push((origin, manifest));
        }
        let mut out = ApkDatabases::new(&mut self.out);
        for (origin, manifest) in &origins {
            pass(self.layout, manifest, origin, "", Some(RESOLV_LINK), &mut out)?;
        }
        out.finish().map_err(|e| write_error("init", "the package database", e))
    }

    fn volume(&mut self, n: usize, volume: &Volume) -> Result<(), ComposeError> {
        let location = format!("volume[{n}]");
        let lower = volume_dir(&volume.name, "lower/");
        if volume.image.is_empty() {
            let origin = Origin { location: location.clone(), source: "empty".to_owned() };
            origin.dirs(&mut self.out, &lower).map_err(|e| write_error(&location, &lower, e))?;
        } else {
            let origin = self.origin(location.clone(), &volume.image)?;
            if volume.format == "oci" {
                self.layout_of(&origin, &lower, &volume.platforms)?;
            } else {
                let manifest = self.image(&origin)?.manifest.clone();
                pass(self.layout, &manifest, &origin, &lower, Some(RESOLV_LINK), &mut self.out)?;
            }
        }
        let origin = Origin { location: location.clone(), source: "linuxkit.volumes".to_owned() };
        for part in ["tmp/", "merged/"] {
            let path = volume_dir(&volume.name, part);
            origin.dir(&mut self.out, &path).map_err(|e| write_error(&location, &path, e))?;
        }
        Ok(())
    }

    fn container(
        &mut self,
        section: &str,
        n: usize,
        container: &Container,
        volumes: &Volumes<'_>,
        ids: &Ids,
    ) -> Result<(), ComposeError> {
        let location = format!("{section}[{n}]");
        let nonsense = |why| {
            let location = format!("{location} ({})", container.name);
            ComposeError::Nonsense { location, why }
        };
        let climbs = container.name.split('/').any(|part| matches!(part, "" | "." | ".."));
        if climbs {
            return Err(nonsense(format!("{:?} is no name for a folder", container.name)));
        }
        let origin = self.origin(location.clone(), &container.image)?;
        let image = self.image(&origin)?;
        let manifest = image.manifest.clone();
        let own = image.config.config.clone();
        let label = match own.labels.get(LABEL).filter(|text| !text.is_empty()) {
            Some(text) => label(&origin.source, text)?,
            None => Default::default(),
        };
        let yml = with_volumes(&container.run, volumes).map_err(nonsense)?;
        let (spec, mut runtime) = settle(&yml, &label, &own, ids).map_err(nonsense)?;
        let dir = match section {
            "services" => format!("containers/services/{}", container.name),
            _ => format!("containers/{section}/{n:03}-{}", container.name),
        };

        let readonly = spec.root.readonly;
        let own_root = format!("{dir}/{}", if readonly { "rootfs" } else { "lower" });
        let elsewhere = self.unpacked.get(&origin.source).cloned();
        let root = elsewhere.clone().unwrap_or_else(|| own_root.clone());
        if elsewhere.is_none() {
            let prefix = format!("{own_root}/");
            pass(self.layout, &manifest, &origin, &prefix, None, &mut self.out)?;
            self.unpacked.insert(origin.source.clone(), own_root);
        }
        let mut mounts = root_mounts(&dir, &root, readonly);
        mounts.extend(runtime.mounts.take().unwrap_or_default());
        runtime.mounts = Some(mounts);
        let out = &mut self.out;
        let mut bundle = || {
            if elsewhere.is_some() {
                origin.dirs(out, &format!("{dir}/"))?;
            }
            origin.file(out, &format!("{dir}/config.json"), &gojson::print(&spec, "    "))?;
            if !readonly {
                origin.dir(out, &format!("{dir}/tmp"))?;
            }
            if !readonly || elsewhere.is_some() {
                origin.dir(out, &format!("{dir}/rootfs"))?;
            }
            origin.file(out, &format!("{dir}/runtime.json"), &gojson::print(&runtime, "    "))
        };
        bundle().map_err(|e| write_error(&location, &dir, e))
    }

    /// The image as an OCI layout below `prefix`: all platforms, or those asked for.
    fn layout_of(
        &mut self,
        origin: &Origin,
        prefix: &str,
        platforms: &[String],
    ) -> Result<(), ComposeError> {
        let image = |source| self.image_error(origin, source);
        let target = self.target(&origin.source).map_err(image)?;
        if !store::media_type::is_index(&target.media_type) {
            let why = format!("{} has no index: format oci needs one", origin.source);
            return Err(ComposeError::Nonsense { location: origin.location.clone(), why });
        }
        let read = |d: &Descriptor| self.layout.read(&d.digest, MANIFEST_MAX);
        let bytes = read(&target).map_err(image)?;
        let index = Index::parse(&bytes, &target.digest.to_string()).map_err(image)?;
        let mut blobs = Vec::new();
        for entry in index.manifests.iter().filter(|d| wanted(d, platforms)) {
            if !store::media_type::is_manifest(&entry.media_type) {
                continue;
            }
            let what = entry.digest.to_string();
            let manifest = read(entry).and_then(|b| Manifest::parse(&b, &what)).map_err(image)?;
            blobs.push(manifest.config.digest);
            blobs.extend(manifest.layers.iter().map(|l| l.digest));
            blobs.push(entry.digest);
        }
        blobs.push(target.digest);
        for digest in &blobs {
            self.layout.check(digest).map_err(image)?;
        }
        let layout = self.layout;
        let out = &mut self.out;
        let mut put = |path: &str, kind, mode, size: u64, body: &mut dyn Read| {
            let mut header = origin.header(&format!("{prefix}{path}"), kind, mode);
            header.mtime = Time::default();
            header.size = size;
            let failed = |e| write_error(&origin.location, path, e);
            out.add(&header, body).map_err(failed)
        };
        const VERSION: &str = "{\n\t\t\"imageLayoutVersion\": \"1.0.0\"\n\t}";
        let text = |text: &str| text.len() as u64;
        put("oci-layout", Kind::File, 0o644, text(VERSION), &mut VERSION.as_bytes())?;
        put("blobs/", Kind::Dir, 0o755, 0, &mut io::empty())?;
        put("blobs/sha256/", Kind::Dir, 0o755, 0, &mut io::empty())?;
        for digest in blobs {
            let (mut blob, size) =
                layout.open_blob(&digest).map_err(|source| ComposeError::Image {
                    location: origin.location.clone(),
                    image: origin.source.clone(),
                    source: source.into(),
                })?;
            let path = format!("blobs/sha256/{}", digest.hex());
            put(&path, Kind::File, 0o644, size.0, &mut blob)?;
        }
        let json = gojson::print(&layout_index(&target, &origin.source), "   ");
        put("index.json", Kind::File, 0o644, text(&json), &mut json.as_bytes())
    }

    fn origin(&self, location: String, name: &str) -> Result<Origin, ComposeError> {
        let source = store::name::expand(name);
        if source.split('/').any(str::is_empty) || source.contains(char::is_whitespace) {
            let why = format!("{name:?} is no name of an image");
            return Err(ComposeError::Nonsense { location, why });
        }
        Ok(Origin { location, source })
    }

    fn image(&mut self, origin: &Origin) -> Result<&Image, ComposeError> {
        let name = &origin.source;
        if !self.images.contains_key(name) {
            let read = || {
                let target = self.target(name)?;
                let manifest = self.layout.for_platform(name, &target, &self.platform)?;
                Image::read(self.layout, &manifest)
            };
            let image = read().map_err(|e| self.image_error(origin, e))?;
            self.images.insert(name.clone(), image);
        }
        Ok(&self.images[name])
    }

    /// What a full name stands for. The layout may know it by its short name, and as `latest` when
    /// no tag is said.
    fn target(&self, name: &str) -> Result<Descriptor, StoreError> {
        let refs = self.layout.refs()?;
        let tagged = store::name::expand_with_tag(name);
        let found = refs.iter().find(|r| r.name == name).or_else(|| {
            refs.iter().find(|r| [name, &tagged].contains(&store::name::expand(&r.name).as_str()))
        });
        let root = || self.layout.root().to_owned();
        let none = || StoreError::NoImage { name: name.to_owned(), root: root() };
        found.map(|r| r.target.clone()).ok_or_else(none)
    }

    fn image_error(&self, origin: &Origin, source: StoreError) -> ComposeError {
        let (location, image) = (origin.location.clone(), origin.source.clone());
        match source {
            StoreError::NoImage { root, .. } => ComposeError::NoImage { location, image, root },
            source => ComposeError::Image { location, image, source: source.into() },
        }
    }
}

/// Passes an image's files on to `out`, below `prefix`, and adds what each file system must have.
fn pass(
    layout: &Layout,
    manifest: &Manifest,
    origin: &Origin,
    prefix: &str,
    resolv: Option<&str>,
    out: &mut dyn Members,
) -> Result<(), ComposeError> {
    let Origin { location, source: image } = origin;
    origin.dirs(out, prefix).map_err(|e| write_error(location, prefix, e))?;
    let mut files = ImageFiles::new(origin, prefix, resolv);
    let passed = store::flatten(layout, manifest, IMAGE_MAX, |header: Header, body| {
        let name = header.display();
        files.member(out, header, body).map_err(|e| Passing::Member(name, e))
    });
    match passed {
        Ok(()) => {}
        Err(Passing::Member(member, source)) => {
            return Err(write_error(location, &member, source));
        }
        Err(Passing::Image(source)) => {
            let (location, image) = (location.clone(), image.clone());
            return Err(ComposeError::Image { location, image, source: source.into() });
        }
    }
    files.finish(out).map_err(|e| write_error(location, "its standard files", e))
}

/// What must be mounted before a container's root file system is there.
fn root_mounts(dir: &str, root: &str, readonly: bool) -> Vec<Mount> {
    let destination = format!("/{dir}/rootfs");
    if readonly {
        let (source, options) = (format!("/{root}"), vec!["bind".to_owned()]);
        return vec![Mount { destination, source, options, ..Mount::default() }];
    }
    let of_kind = |kind: &str, destination: String, options: Vec<String>| Mount {
        destination,
        kind: kind.to_owned(),
        source: kind.to_owned(),
        options,
        ..Mount::default()
    };
    let tmp = format!("/{dir}/tmp");
    let overlay = [
        format!("lowerdir=/{root}"),
        format!("upperdir={tmp}/upper"),
        format!("workdir={tmp}/work"),
    ];
    let private = vec!["remount".to_owned(), "private".to_owned()];
    vec![
        of_kind("tmpfs", tmp.clone(), Vec::new()),
        Mount { destination: tmp, options: private, ..Mount::default() },
        of_kind("overlay", destination, overlay.to_vec()),
    ]
}

/// Whether an index entry is for one of `platforms` (`os/arch[/variant]`); none asked for: it is.
fn wanted(entry: &Descriptor, platforms: &[String]) -> bool {
    let fits = |platform: &String| {
        let parts: Vec<&str> = platform.split('/').collect();
        entry.platform.as_ref().is_some_and(|have| {
            let variant = parts.get(2).is_none_or(|v| have.variant.as_deref() == Some(v));
            parts.first() == Some(&have.os.as_str())
                && parts.get(1) == Some(&have.architecture.as_str())
                && variant
        })
    };
    platforms.is_empty() || platforms.iter().any(fits)
}

/// index.json of a layout with one image, in the field order of the reference.
fn layout_index(target: &Descriptor, name: &str) -> impl Serialize + use<> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Entry {
        media_type: &'static str,
        size: Bytes,
        digest: Digest,
        annotations: BTreeMap<&'static str, String>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct LayoutIndex {
        schema_version: u32,
        media_type: &'static str,
        manifests: [Entry; 1],
    }
    let media_type = store::media_type::INDEX;
    let annotations = BTreeMap::from([("org.opencontainers.image.ref.name", name.to_owned())]);
    let entry = Entry { media_type, size: target.size, digest: target.digest, annotations };
    LayoutIndex { schema_version: 2, media_type, manifests: [entry] }
}

/// Counts and hashes what goes through.
struct Counted<'a> {
    out: io::BufWriter<&'a mut dyn Write>,
    hash: Sha256,
    size: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
