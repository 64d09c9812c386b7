//! Whole builds against an archive made here, and the repository's own recipes.

use std::fs;
use std::sync::Mutex;

use super::*;
use crate::contents::Contents;

/// A repository with one package, an archive, and a cache.
struct Site {
    dir: tempfile::TempDir,
}

/// Keeps what a person would read.
#[derive(Default)]
struct Lines(Mutex<String>);

impl Progress for Lines {
    fn line(&self, text: &str) {
        let mut lines = self.0.lock().unwrap();
        lines.push_str(text);
        lines.push('\n');
    }
}

const RECIPE: &str = "description = 'x'\n[debs]\nnames = ['tool']\n\
    [[files]]\nfrom = 'conf'\nto = '/etc/conf'\n[oci]\nentrypoint = ['/usr/bin/tool']\n";

impl Site {
    /// With version 1 of the package in the archive and in the lock.
    fn new() -> Site {
        let site = Site { dir: tempfile::tempdir().unwrap() };
        site.write("repository/pkg/tool", "pkg.toml", RECIPE.as_bytes());
        site.write("repository/pkg/tool", "conf", b"1");
        site.offer("mirror", "1");
        relock(&[], false, &site.options(), &()).unwrap();
        site
    }

    fn write(&self, folder: &str, name: &str, bytes: &[u8]) {
        let folder = self.dir.path().join(folder);
        fs::create_dir_all(&folder).unwrap();
        store::save(&folder, name, bytes).unwrap();
    }

    /// Makes `version` the only one in this archive.
    fn offer(&self, archive: &str, version: &str) {
        let root = self.dir.path().join(archive);
        let _ = fs::remove_dir_all(&root); // the first time it is not there
        let deb = deb::tests::deb(&[("usr/bin/tool", version)]);
        let name = format!("tool_{version}.deb");
        self.write(&format!("{archive}/pool"), &name, &deb);
        let (size, sha) = (deb.len(), hex::encode(Sha256::digest(&deb)));
        release::tests::archive(
            &root,
            &format!(
                "Package: tool\nVersion: {version}\nArchitecture: amd64\nSize: {size}\n\
                 SHA256: {sha}\nFilename: pool/{name}\n\n"
            ),
        );
    }

    fn url(&self, archive: &str) -> String {
        format!("file:{}", self.dir.path().join(archive).display())
    }

    fn options(&self) -> Options {
        Options {
            repository: self.dir.path().join("repository"),
            cache: self.dir.path().join("cache"),
            arch: Arch::Amd64,
            mirror: Some(self.url("mirror")),
            snapshot: None,
            locked: false,
            trust: Trust::Unsigned,
            epoch: 1_800_000_000,
            target: self.dir.path().join("target"),
        }
    }

    fn lock(&self) -> String {
        fs::read_to_string(self.dir.path().join("repository").join(LOCK)).unwrap()
    }
}

fn one(options: &Options) -> Result<Package, PkgError> {
    Ok(build(&[], options, &())?.remove("pkg/tool").unwrap())
}

#[test]
fn the_same_inputs_make_the_same_image_in_any_folder() {
    let (a, b) = (one(&Site::new().options()).unwrap(), one(&Site::new().options()).unwrap());
    assert!(a.fresh && a.digest.is_some());
    assert_eq!(a, b);
}

#[test]
fn an_image_holds_what_the_recipe_says_and_starts_as_it_says() {
    let site = Site::new();
    let package = one(&site.options()).unwrap();
    let layout = Layout::open(site.options().layout()).unwrap();
    for name in [package.image.clone(), store::name::expand(&package.image)] {
        let manifest = layout.resolve(&name, &Platform::linux("amd64")).unwrap();
        let image = store::Image::read(&layout, &manifest).unwrap();
        assert_eq!(image.config.config.entrypoint, ["/usr/bin/tool"]);
        let layer = fs::read(layout.blob_path(&image.manifest.layers[0].digest)).unwrap();
        let contents = Contents::of_tar(&layer[..], |_, _, _, _| Ok(())).unwrap();
        let files = contents.iter().filter(|(m, _)| m.kind != crate::contents::Kind::Folder);
        let files: Vec<(&str, &str)> =
            files.map(|(m, o)| (m.path.as_str(), o.from.as_str())).collect();
        let want = [
            ("etc/conf", "pkg/tool/conf"),
            ("usr/bin/tool", "tool_1.deb"),
            ("var/lib/dpkg/status.d/tool", "tool_1.deb"),
        ];
        assert_eq!(files, want);
    }
}

#[test]
fn what_is_unchanged_is_not_built_and_needs_no_network() {
    let site = Site::new();
    let first = one(&site.options()).unwrap();
    let alone = Options { mirror: Some("http://127.0.0.1:1".to_owned()), ..site.options() };
    assert_eq!(one(&alone).unwrap(), Package { fresh: false, ..first.clone() });
    // Another file makes another image, of packages that are here.
    site.write("repository/pkg/tool", "conf", b"2");
    let second = one(&alone).unwrap();
    assert!(second.fresh && second.image != first.image && second.digest != first.digest);
}

#[test]
fn a_vanished_version_is_replaced_for_now_and_said_loudly() {
    let site = Site::new();
    let lock = site.lock();
    site.offer("mirror", "2");
    let lines = Lines::default();
    build(&[], &site.options(), &lines).unwrap();
    let said = lines.0.into_inner().unwrap();
    for part in ["WARNING", "tool 1", "pkg/tool: tool 1 -> 2", "eve pkg lock --update"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(site.lock(), lock, "the lock is a person's to change");

    // Again: still said, and without a network.
    let alone = Options { mirror: Some("http://127.0.0.1:1".to_owned()), ..site.options() };
    let lines = Lines::default();
    assert!(!build(&[], &alone, &lines).unwrap()["pkg/tool"].fresh);
    assert!(lines.0.into_inner().unwrap().contains("eve pkg lock --update"));

    // Made permanent: nothing to say any more, and the same image.
    let changes = relock(&[], true, &site.options(), &()).unwrap();
    assert_eq!((changes[0].from.as_deref(), changes[0].to.as_deref()), (Some("1"), Some("2")));
    let lines = Lines::default();
    assert!(!build(&[], &alone, &lines).unwrap()["pkg/tool"].fresh);
    assert_eq!(lines.0.into_inner().unwrap(), "");
}

#[test]
fn a_vanished_version_is_an_error_when_locked() {
    let site = Site::new();
    site.offer("mirror", "2");
    let error = one(&Options { locked: true, ..site.options() }).unwrap_err();
    assert_eq!(error.to_string(), "the mirror no longer has tool 1");
    // Also after somebody else has built with a refreshed lock.
    one(&site.options()).unwrap();
    assert!(one(&Options { locked: true, ..site.options() }).is_err());
}

#[test]
fn a_vanished_version_comes_from_the_snapshot_archive() {
    let site = Site::new();
    site.offer("mirror", "2");
    site.offer("snapshot", "1");
    let snapshot = Some(site.url("snapshot"));
    let lines = Lines::default();
    let options = Options { locked: true, snapshot, ..site.options() };
    assert!(build(&[], &options, &lines).unwrap()["pkg/tool"].fresh);
    assert_eq!(lines.0.into_inner().unwrap(), "");
    // One that cannot be reached is told, and counts as none.
    let site = Site::new();
    site.offer("mirror", "2");
    let snapshot = Some("http://127.0.0.1:1".to_owned());
    let lines = Lines::default();
    build(&[], &Options { snapshot, ..site.options() }, &lines).unwrap();
    assert!(lines.0.into_inner().unwrap().contains("note: cannot get http://127.0.0.1:1"));
}

#[test]
fn a_package_with_another_digest_is_refused_with_both() {
    let site = Site::new();
    let other = deb::tests::deb(&[("usr/bin/tool", "X")]);
    site.write("mirror/pool", "tool_1.deb", &other);
    let error = one(&site.options()).unwrap_err();
    let said = model::chain(&error);
    assert!(said.starts_with("cannot get the Debian package tool 1: file:"), "{said}");
    assert!(said.contains(&hex::encode(Sha256::digest(&other))), "{said}");
    assert!(model::Diagnose::diagnose(&error).advice.contains("--mirror"));
    assert!(
        !site.options().layout().join("index.json").exists() || {
            Layout::open(site.options().layout()).unwrap().refs().unwrap().is_empty()
        }
    );
}

#[test]
fn a_mirror_that_is_away_is_told_with_what_to_do() {
    let site = Site::new();
    let away = Options { mirror: Some("http://127.0.0.1:1".to_owned()), ..site.options() };
    let error = one(&away).unwrap_err();
    assert!(model::chain(&error).contains("cannot get http://127.0.0.1:1/pool/tool_1.deb"));
    assert!(model::Diagnose::diagnose(&error).advice.contains("EVE_DEBIAN_MIRROR"));
}

#[test]
fn a_lock_that_does_not_fit_the_recipe_is_refused_until_it_does() {
    let site = Site::new();
    let recipe = RECIPE.replace("names = ['tool']", "names = ['tool']\nomit = ['y']");
    site.write("repository/pkg/tool", "pkg.toml", recipe.as_bytes());
    assert!(matches!(one(&site.options()), Err(PkgError::Stale { .. })));
    relock(&[], false, &site.options(), &()).unwrap();
    one(&site.options()).unwrap();
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

#[test]
fn the_recipes_of_this_repository_are_whole_and_the_lock_fits_them() {
    let options = Options::from_env(&repository());
    let catalog = catalog(&options).unwrap();
    let lock = read_lock(&repository().join(LOCK)).unwrap().1;
    let names: Vec<String> = catalog.names().map(str::to_owned).collect();
    for name in catalog.order(&names, Arch::Amd64).unwrap() {
        catalog.files(&name).unwrap();
        assert!(!is_stale(&catalog, &name, Arch::Amd64, &lock).unwrap(), "{name}");
    }
}

#[test]
fn every_service_has_its_user_on_the_node() {
    let passwd = fs::read_to_string(repository().join("pkg/base/passwd")).unwrap();
    let group = fs::read_to_string(repository().join("pkg/base/group")).unwrap();
    for spec in model::services::ALL.iter().filter(|s| s.uid != 0) {
        let (name, uid) = (spec.service.name(), spec.uid);
        assert!(passwd.lines().any(|l| l.starts_with(&format!("{name}:x:{uid}:{uid}:"))), "{name}");
        assert!(group.lines().any(|l| l == format!("{name}:x:{uid}:")), "{name}");
        let keys = group.lines().find(|l| l.starts_with("device-key:x:950:")).unwrap();
        let member = keys.rsplit(':').next().unwrap().split(',').any(|m| m == name);
        assert_eq!(member, spec.groups.contains(&model::services::KEY_GROUP), "{name}");
    }
}
