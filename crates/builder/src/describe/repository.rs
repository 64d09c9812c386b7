//! The descriptions of a clone of the repository: its templates, modifiers, tags and matrix.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use model::{Bytes, Diagnose, Diagnosis, Who};

use super::{
    DescribeError, Described, Matrix, MatrixError, Request, Row, Text, Unknown, Variant, Words,
    describe,
};

/// Which combinations there are.
const MATRIX: &str = "images/matrix.toml";
/// Folder of a package to the word that stands for it.
const TAGS: &str = "images/tags.toml";
const MODIFIERS: &str = "images/modifiers";
/// No file here is nearly as large.
const FILE_MAX: Bytes = Bytes::mib(1);

/// A clone of the repository, as far as descriptions need it.
#[derive(Debug, Clone)]
pub struct Repository {
    root: PathBuf,
    matrix: Matrix,
    tags: BTreeMap<String, String>,
}

/// Which image is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// What a node runs.
    Rootfs,
    /// What installs it.
    Installer,
}

/// For what machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// As ZARCH says it.
    pub arch: String,
    /// As HV says it.
    pub hv: String,
    /// As PLATFORM says it.
    pub platform: String,
    /// For developers.
    pub dev: bool,
    /// The version, with HV and ZARCH. `None`: files that say `EVE_VERSION` stay so.
    pub version: Option<String>,
    /// Another kernel image than that of the platform.
    pub kernel: Option<String>,
}

/// Why a clone has no description for a machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The table of tags is broken.
    #[error("{file}: {why}")]
    Tags {
        /// The file.
        file: &'static str,
        /// What is wrong.
        why: String,
    },
    /// There is no such machine, or none that we can build for.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// The template or a modifier is wrong.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// A word stands for nothing.
    #[error("{}: {} stands for nothing ({})", .0.origin, .0.word, .0.path)]
    Unknown(Unknown),
}

impl Diagnose for RepositoryError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Matrix(error) => error.diagnose(),
            Self::Describe(error) => error.diagnose(),
            Self::Read { .. } => Diagnosis::of(Who::Operator, "check the clone of the repository"),
            Self::Tags { .. } => Diagnosis::of(Who::Operator, "correct the table"),
            Self::Unknown(_) => {
                Diagnosis::of(Who::Operator, format!("add it to {TAGS}, or correct the template"))
            }
        }
    }
}

impl Image {
    /// Its template, below the repository.
    pub const fn template(self) -> &'static str {
        match self {
            Image::Rootfs => "images/rootfs.yml.in",
            Image::Installer => "images/installer.yml.in",
        }
    }
}

impl Repository {
    /// Reads the tables of the clone at `root`.
    pub fn open(root: &Path) -> Result<Repository, RepositoryError> {
        let matrix = Matrix::parse(MATRIX, &read(&root.join(MATRIX))?)?;
        let tags = toml::from_str(&read(&root.join(TAGS))?);
        let tags = tags.map_err(|e| RepositoryError::Tags { file: TAGS, why: e.to_string() })?;
        Ok(Repository { root: root.to_owned(), matrix, tags })
    }

    /// Where the clone lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What goes together.
    pub fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// Describes an image. Fails before it reads anything if the machine is none that we can build
    /// for, and if a word stands for nothing.
    pub fn describe(
        &self,
        image: Image,
        selection: &Selection,
    ) -> Result<Described, RepositoryError> {
        let Selection { arch, hv, platform, kernel, .. } = selection;
        let row = self.matrix.buildable(arch, hv, platform, kernel.as_deref())?;
        let template = self.text(image.template())?;
        let modifiers = self.modifiers(image, selection).into_iter().map(|name| self.text(&name));
        let described = describe(&Request {
            template,
            modifiers: modifiers.collect::<Result<_, _>>()?,
            hv: Some(hv.clone()),
            platform: Some(platform.clone()),
            version: selection.version.clone(),
            variant: Variant { dev: selection.dev, k: hv == "k" },
            words: self.words(row, kernel.as_deref()),
        })?;
        match described.unknown.first() {
            Some(unknown) => Err(RepositoryError::Unknown(unknown.clone())),
            None => Ok(described),
        }
    }

    /// The modifiers that there are for a machine, in the order in which they are applied, below
    /// the repository: that of the hypervisor, those of the platform, that for developers.
    pub fn modifiers(&self, image: Image, selection: &Selection) -> Vec<String> {
        let Selection { hv, platform, dev, .. } = selection;
        let mut all = vec![format!("{MODIFIERS}/hv/{hv}.yq")];
        if image == Image::Installer {
            all.push(format!("{MODIFIERS}/platform/{platform}/installer.yq"));
        }
        all.push(format!("{MODIFIERS}/platform/{platform}/{platform}.yq"));
        if *dev {
            all.push(format!("{MODIFIERS}/dev.yq"));
        }
        all.retain(|name| self.root.join(name).is_file());
        all
    }

    /// What words stand for on the machines of a row.
    pub fn words(&self, row: &Row, kernel: Option<&str>) -> Words {
        let mut words = Words::default();
        for (package, word) in &self.tags {
            words.say(word, format!("@pkg:{package}"), TAGS);
        }
        match kernel {
            Some(image) => words.say("KERNEL_TAG", image, "KERNEL_TAG"),
            None => words.say("KERNEL_TAG", row.kernel_tag(), MATRIX),
        }
        words.say("CONSOLES", row.console.clone(), MATRIX);
        words.say("CURDIR", self.root.display().to_string(), "the clone");
        words
    }

    fn text(&self, name: &str) -> Result<Text, RepositoryError> {
        Ok(Text { name: name.to_owned(), text: read(&self.root.join(name))? })
    }
}

fn read(path: &Path) -> Result<String, RepositoryError> {
    let failed = |source| RepositoryError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let mut file = fs::File::open(path).map_err(failed)?.take(FILE_MAX.0 + 1);
    let count = file.read_to_string(&mut text).map_err(failed)?;
    if Bytes(count as u64) > FILE_MAX {
        let why = format!("it is larger than {FILE_MAX}");
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, why)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clone() -> Repository {
        Repository::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
    }

    fn selection(arch: &str, hv: &str, platform: &str) -> Selection {
        Selection {
            arch: arch.to_owned(),
            hv: hv.to_owned(),
            platform: platform.to_owned(),
            dev: false,
            version: Some(format!("1.2.3-{hv}-{arch}")),
            kernel: None,
        }
    }

    #[test]
    fn every_tag_stands_for_a_package_that_is_there() {
        let clone = clone();
        for package in clone.tags.keys() {
            assert!(clone.root.join(package).join("pkg.toml").is_file(), "{package}");
        }
        let packages = clone.matrix.rows().iter().filter_map(|row| row.package.as_ref());
        for package in packages {
            assert!(clone.root.join(package).join("pkg.toml").is_file(), "{package}");
        }
    }

    #[test]
    fn every_machine_that_can_be_built_for_has_a_description() {
        let clone = clone();
        let mut described = 0;
        for row in clone.matrix().rows() {
            for (hv, _) in clone.matrix().hypervisors() {
                let selection = selection(&row.arch, hv, &row.platform);
                match clone.describe(Image::Rootfs, &selection) {
                    Ok(_) => described += 1,
                    Err(RepositoryError::Matrix(MatrixError::NotYet { .. })) => {}
                    Err(error) => panic!("{selection:?}: {error}"),
                }
            }
        }
        assert!(described >= 6, "{described}");
    }

    #[test]
    fn the_description_of_a_node_says_what_and_for_what_it_is() {
        let described = clone().describe(Image::Rootfs, &selection("amd64", "kvm", "generic"));
        expect_test::expect![[r#"
            kernel:
              image: "@pkg:pkg/kernel"
              cmdline: "console=tty0 console=ttyS0,115200 panic=30 loglevel=5"
            init:
              - "@pkg:pkg/base"
              - "@pkg:pkg/firmware"
              - "@pkg:pkg/init"
              - "@pkg:pkg/eved"
              - "@pkg:pkg/crun"
              - "@pkg:pkg/nftables"
              - "@pkg:pkg/storage-tools"
            files:
              - path: etc/resolv.conf
                symlink: /run/resolv.conf
                mode: "0644"
              - path: etc/eve-release
                contents: "1.2.3-kvm-amd64"
                mode: "0644"
              - path: etc/eve-hv-type
                contents: "kvm"
                mode: "0644"
              - path: etc/eve-platform
                contents: "generic"
                mode: "0644"
        "#]]
        .assert_eq(&described.unwrap().yml());
    }

    #[test]
    fn developers_get_the_debug_package() {
        let plain = selection("amd64", "kvm", "generic");
        let dev = Selection { dev: true, ..plain.clone() };
        let yml = |selection| clone().describe(Image::Rootfs, selection).unwrap().yml();
        assert!(!yml(&plain).contains("debug"));
        assert!(yml(&dev).contains("- \"@pkg:pkg/debug\"\n"));
    }

    #[test]
    fn another_kernel_takes_the_place_of_the_platforms() {
        let mut selection = selection("arm64", "kvm", "nvidia-jp5");
        assert!(clone().describe(Image::Rootfs, &selection).is_err());
        selection.kernel = Some("me/kernel:custom".into());
        let yml = clone().describe(Image::Rootfs, &selection).unwrap().yml();
        assert!(yml.contains("  image: me/kernel:custom\n"), "{yml}");
        assert!(yml.contains("console=ttyTCU0"), "{yml}");
    }
}
