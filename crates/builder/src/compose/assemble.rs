//! All parts in their order: kernel, root file system, volumes, containers, files.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use model::{Bytes, Digest};
use serde::Serialize;
use store::tarball::{Header, Kind, Time};
use store::{
    Descriptor, Flattener, Image, Index, Layers, Layout, MANIFEST_MAX, Manifest, PlainLayer,
    Platform, StoreError,
};

use super::container::{Ids, Volumes, settle, volume_dir, with_volumes};
use super::oci::Mount;
use super::plan::{Content, Contents, Member, Origin, Place, Plan};
use super::read::label;
use super::sbom::{self, Sbom};
use super::tree::{ImageFiles, KernelFiles, Part, RESOLV_LINK, apk_database, inner};
use super::{ComposeError, Container, Description, Volume, files, gojson, kernel};

/// The most that one image may unpack to.
const IMAGE_MAX: Bytes = Bytes::gib(16);

/// The label that says how a container of an image runs.
const LABEL: &str = "org.mobyproject.config";

/// What a composition depends on besides description and images.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The processor the image is for, in Go's words: `amd64`.
    pub arch: String,
    /// What `~/` in a file's source stands for.
    pub home: Option<PathBuf>,
    /// Where indexes and plain copies of layers are kept for the next time. Without it every layer
    /// is read each time.
    pub kept: Option<PathBuf>,
    /// Take the kernel out of its compression (gzip, or an x86 bzImage of gzip).
    pub decompress_kernel: bool,
    /// Whether to add a `Dockerfile` that starts the image's init.
    pub dockerfile: bool,
    /// Whether to add `sbom.spdx.json`, which joins what the images' attestations say.
    pub sbom: bool,
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
    let plan = plan(description, images, options)?;
    let written = plan.write(out)?;
    Ok(plan.facts(written))
}

/// Finds out what the archive holds that `description` describes, with images from `images`.
pub fn plan(
    description: &Description,
    images: &Layout,
    options: &Options,
) -> Result<Plan, ComposeError> {
    let mut assembly = Assembly {
        platform: Platform::linux(&options.arch),
        decompress_kernel: options.decompress_kernel,
        images: HashMap::new(),
        ready: HashMap::new(),
        opened: HashMap::new(),
        contents: Contents {
            layout: images.clone(),
            keeper: Layers::new(images.clone(), options.kept.clone(), IMAGE_MAX),
            layers: Vec::new(),
        },
        out: Vec::new(),
        unpacked: HashMap::new(),
        sbom: options.sbom.then(Sbom::default),
        warnings: description.warnings.clone(),
    };
    let ids = ids(description);
    assembly.prepare(description);
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
    let Assembly { images, mut contents, mut out, sbom, warnings, .. } = assembly;
    out.extend(files::members(description, &ids, options.home.as_deref())?);
    if options.dockerfile {
        out.push(files::dockerfile());
    }
    out.extend(sbom.map(|sbom| files::own(sbom::PATH, &sbom.print())));
    contents.layers.iter_mut().for_each(PlainLayer::drop_index);
    Ok(Plan {
        members: out,
        contents,
        images: images.into_iter().map(|(name, image)| (name, image.digest)).collect(),
        warnings,
    })
}

/// Each container has a number, from 100. Of several with one name the last counts.
fn ids(d: &Description) -> Ids {
    let containers = d.onboot.iter().chain(&d.onshutdown).chain(&d.services);
    (100..).zip(containers).map(|(id, container)| (container.name.clone(), id)).collect()
}

struct Assembly {
    platform: Platform,
    decompress_kernel: bool,
    /// By full name.
    images: HashMap<String, Image>,
    /// Layers that were opened before their turn, and what came of it.
    ready: HashMap<Digest, Result<PlainLayer, StoreError>>,
    /// Places of layers in `contents`.
    opened: HashMap<Digest, usize>,
    contents: Contents,
    out: Vec<Member>,
    /// Where containers' images stand in the archive already, by full name.
    unpacked: HashMap<String, String>,
    sbom: Option<Sbom>,
    warnings: Vec<String>,
}

impl Assembly {
    /// Opens the layers of all images, on all processors. What cannot be used is told when its turn
    /// comes, so that it is always the same error that is told.
    fn prepare(&mut self, d: &Description) {
        let containers = d.onboot.iter().chain(&d.onshutdown).chain(&d.services);
        let names = std::iter::once(&d.kernel.image)
            .chain(&d.init)
            .chain(d.volumes.iter().filter(|v| v.format != "oci").map(|v| &v.image))
            .chain(containers.map(|c| &c.image));
        let mut layers: Vec<Descriptor> = Vec::new();
        for name in names.filter(|name| !name.is_empty()) {
            let Ok(origin) = self.origin(String::new(), name) else { continue };
            let Ok(image) = self.image(&origin) else { continue };
            for layer in &image.manifest.layers {
                if layers.iter().all(|have| have.digest != layer.digest) {
                    layers.push(layer.clone());
                }
            }
        }
        let (queue, done) = (Mutex::new(layers.iter()), Mutex::new(HashMap::new()));
        let work = || {
            while let Some(layer) = next(&queue) {
                let opened = self.contents.keeper.open(layer);
                if let Ok(mut done) = done.lock() {
                    done.insert(layer.digest, opened);
                }
            }
        };
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 1..workers.min(layers.len()) {
                scope.spawn(work);
            }
            work();
        });
        self.ready = done.into_inner().unwrap_or_default();
    }

    fn kernel(&mut self, d: &Description) -> Result<(), ComposeError> {
        if d.kernel.image.is_empty() {
            return Ok(());
        }
        let origin = self.origin("kernel".to_owned(), &d.kernel.image)?;
        let image = self.files(&origin, "", None)?;
        let nonsense = |why| ComposeError::Nonsense { location: origin.location.clone(), why };
        for part in KernelFiles::of(&d.kernel).take(image).map_err(nonsense)? {
            match part {
                Part::Member(member) => self.out.push(member),
                Part::Kernel(member) if self.decompress_kernel => {
                    let content = kernel::unpacked(&self.contents, &member.content);
                    let content = content.map_err(nonsense)?;
                    let header = Header { size: content.size, ..member.header };
                    self.out.push(Member { header, content, ..member });
                }
                Part::Kernel(member) => self.out.push(member),
                Part::Archive(member) => self.archive(&origin, &member)?,
            }
        }
        Ok(())
    }

    /// The members of an archive in an image.
    fn archive(&mut self, origin: &Origin, member: &Member) -> Result<(), ComposeError> {
        let Place::Layer { layer, at } = member.content.place else { return Ok(()) };
        let place =
            store::Place { header: member.header.clone(), at, digest: member.content.digest };
        let index = self.contents.keeper.inner(&self.contents.layers[layer], &place);
        let index = index.map_err(|source| self.image_error(origin, source))?;
        let members = inner(member, index).map_err(|why| {
            let location = origin.location.clone();
            ComposeError::Nonsense { location, why: format!("{}: {why}", member.header.display()) }
        })?;
        self.out.extend(members);
        Ok(())
    }

    fn init(&mut self, d: &Description) -> Result<(), ComposeError> {
        let start = self.out.len();
        for (n, name) in d.init.iter().enumerate() {
            let origin = self.origin(format!("init[{n}]"), name)?;
            let files = self.files(&origin, "", Some(RESOLV_LINK))?;
            self.out.extend(files);
        }
        let all = apk_database(&self.out[start..]);
        self.out.extend(all);
        Ok(())
    }

    fn volume(&mut self, n: usize, volume: &Volume) -> Result<(), ComposeError> {
        let location = format!("volume[{n}]");
        let lower = volume_dir(&volume.name, "lower/");
        if volume.image.is_empty() {
            let origin = Origin { location: location.clone(), source: "empty".to_owned() };
            self.out.extend(Member::dirs(&lower, &Arc::new(origin)));
        } else {
            let origin = self.origin(location.clone(), &volume.image)?;
            if volume.format == "oci" {
                self.layout_of(&origin, &lower, &volume.platforms)?;
            } else {
                let files = self.files(&origin, &lower, Some(RESOLV_LINK))?;
                self.out.extend(files);
            }
        }
        let origin = Arc::new(Origin { location, source: "linuxkit.volumes".to_owned() });
        for part in ["tmp/", "merged/"] {
            self.out.push(Member::dir(&volume_dir(&volume.name, part), &origin));
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
        let own = self.image(&origin)?.config.config.clone();
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
            let files = self.files(&origin, &format!("{own_root}/"), None)?;
            self.out.extend(files);
            self.unpacked.insert(origin.source.clone(), own_root);
        } else {
            self.out.extend(Member::dirs(&format!("{dir}/"), &origin));
        }
        let mut mounts = root_mounts(&dir, &root, readonly);
        mounts.extend(runtime.mounts.take().unwrap_or_default());
        runtime.mounts = Some(mounts);
        let out = &mut self.out;
        let file = |name: &str, text: &str| Member::file(&format!("{dir}/{name}"), &origin, text);
        out.push(file("config.json", &gojson::print(&spec, "    ")));
        if !readonly {
            out.push(Member::dir(&format!("{dir}/tmp"), &origin));
        }
        if !readonly || elsewhere.is_some() {
            out.push(Member::dir(&format!("{dir}/rootfs"), &origin));
        }
        out.push(file("runtime.json", &gojson::print(&runtime, "    ")));
        Ok(())
    }

    /// The image as an OCI layout below `prefix`: all platforms, or those asked for.
    fn layout_of(
        &mut self,
        origin: &Arc<Origin>,
        prefix: &str,
        platforms: &[String],
    ) -> Result<(), ComposeError> {
        let image = |source| self.image_error(origin, source);
        let layout = &self.contents.layout;
        let target = self.target(&origin.source).map_err(image)?;
        if !store::media_type::is_index(&target.media_type) {
            let why = format!("{} has no index: format oci needs one", origin.source);
            return Err(ComposeError::Nonsense { location: origin.location.clone(), why });
        }
        let read = |d: &Descriptor| layout.read(&d.digest, MANIFEST_MAX);
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
        let mut members: Vec<Member> = Member::dirs(prefix, origin).collect();
        let mut put = |path: &str, kind, mode, content| {
            let header = Header::new(format!("{prefix}{path}"), kind, mode, Time::default());
            members.push(Member::new(header, origin, content));
        };
        const VERSION: &str = "{\n\t\t\"imageLayoutVersion\": \"1.0.0\"\n\t}";
        put("oci-layout", Kind::File, 0o644, Content::text(VERSION));
        put("blobs/", Kind::Dir, 0o755, Content::none());
        put("blobs/sha256/", Kind::Dir, 0o755, Content::none());
        for digest in blobs {
            let size = layout.check(&digest).map_err(image)?.0;
            let path = format!("blobs/sha256/{}", digest.hex());
            let content = Content { size, digest: Some(digest), place: Place::Blob(digest) };
            put(&path, Kind::File, 0o644, content);
        }
        let json = gojson::print(&layout_index(&target, &origin.source), "   ");
        put("index.json", Kind::File, 0o644, Content::text(json));
        self.out.extend(members);
        Ok(())
    }

    fn origin(&self, location: String, name: &str) -> Result<Arc<Origin>, ComposeError> {
        let source = store::name::expand(name);
        if source.split('/').any(str::is_empty) || source.contains(char::is_whitespace) {
            let why = format!("{name:?} is no name of an image");
            return Err(ComposeError::Nonsense { location, why });
        }
        Ok(Arc::new(Origin { location, source }))
    }

    fn image(&mut self, origin: &Origin) -> Result<&Image, ComposeError> {
        let name = &origin.source;
        if !self.images.contains_key(name) {
            let layout = &self.contents.layout;
            let read = || {
                let target = self.target(name)?;
                let manifest = layout.for_platform(name, &target, &self.platform)?;
                Image::read(layout, &manifest)
            };
            let image = read().map_err(|e| self.image_error(origin, e))?;
            self.images.insert(name.clone(), image);
        }
        Ok(&self.images[name])
    }

    /// What a full name stands for. The layout may know it by its short name, and as `latest` when
    /// no tag is said.
    fn target(&self, name: &str) -> Result<Descriptor, StoreError> {
        let refs = self.contents.layout.refs()?;
        let tagged = store::name::expand_with_tag(name);
        let found = refs.iter().find(|r| r.name == name).or_else(|| {
            refs.iter().find(|r| [name, &tagged].contains(&store::name::expand(&r.name).as_str()))
        });
        let root = || self.contents.layout.root().to_owned();
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

    /// An image's files below `prefix`, and what each file system must have.
    fn files(
        &mut self,
        origin: &Arc<Origin>,
        prefix: &str,
        resolv: Option<&str>,
    ) -> Result<Vec<Member>, ComposeError> {
        let layers = self.image(origin)?.manifest.layers.clone();
        self.attestations(origin, prefix)?;
        let mut files = ImageFiles::new(origin, prefix, resolv);
        let mut flat = Flattener::default();
        let mut left = IMAGE_MAX;
        for layer in layers.iter().rev() {
            let n = self.layer(layer).map_err(|source| self.image_error(origin, source))?;
            let index = self.contents.layers[n].index();
            left = Bytes(left.0.checked_sub(index.size.0).ok_or_else(|| {
                let why = format!("{} unpacks to more than {IMAGE_MAX}", origin.source);
                ComposeError::Nonsense { location: origin.location.clone(), why }
            })?);
            for place in &index.members {
                let mut header = place.header.clone();
                let counts = flat.admit(layer.digest, &mut header);
                if counts.map_err(|source| self.image_error(origin, source))? {
                    let size = if header.kind.has_body() { header.size } else { 0 };
                    let at = Place::Layer { layer: n, at: place.at };
                    files.member(header, Content { size, digest: place.digest, place: at });
                }
            }
        }
        Ok(files.finish())
    }

    /// Takes up what the image says it is made of.
    fn attestations(&mut self, origin: &Arc<Origin>, prefix: &str) -> Result<(), ComposeError> {
        if self.sbom.is_none() {
            return Ok(());
        }
        let manifest = self.image(origin)?.digest;
        let read = |target| sbom::statements(&self.contents.layout, &target, &manifest);
        let documents = self.target(&origin.source).and_then(read);
        let documents = documents.map_err(|source| self.image_error(origin, source))?;
        if documents.is_empty() {
            let warning = format!("{} does not say what it is made of", origin.source);
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        if let Some(sbom) = &mut self.sbom {
            documents.iter().for_each(|document| sbom.add(prefix, document));
        }
        Ok(())
    }

    /// The place of a layer in `contents`.
    fn layer(&mut self, layer: &Descriptor) -> Result<usize, StoreError> {
        if let Some(n) = self.opened.get(&layer.digest) {
            return Ok(*n);
        }
        let ready = self.ready.remove(&layer.digest);
        let opened = ready.unwrap_or_else(|| self.contents.keeper.open(layer))?;
        let n = self.contents.layers.len();
        self.contents.layers.push(opened);
        self.opened.insert(layer.digest, n);
        Ok(n)
    }
}

fn next<'a>(queue: &Mutex<std::slice::Iter<'a, Descriptor>>) -> Option<&'a Descriptor> {
    queue.lock().ok()?.next()
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
