//! Images: descriptor, index, manifest, configuration (OCI image spec 1.1).
//!
//! Fields that nobody here needs are dropped when read. What is stored is never rewritten, so that
//! loses nothing.

use std::collections::BTreeMap;
use std::fmt;

use model::{Bytes, Digest};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Layout, StoreError};

/// The size that the OCI distribution spec asks everyone to support. We read no more.
pub const MANIFEST_MAX: Bytes = Bytes::mib(4);

/// Media types (OCI image spec, media-types.md; Docker image manifest V2 schema 2).
pub mod media_type {
    /// An index: one manifest a platform.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// A manifest: configuration and layers.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An image configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// A plain layer.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// A gzip layer.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// A zstd layer.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker's index.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

    /// Whether this is an index, of OCI or Docker.
    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, INDEX | DOCKER_INDEX)
    }

    /// Whether this is a manifest, of OCI or Docker.
    pub fn is_manifest(media_type: &str) -> bool {
        matches!(media_type, MANIFEST | DOCKER_MANIFEST)
    }
}

/// What names a blob: type, digest, size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What kind of document the blob is ([`media_type`]).
    pub media_type: String,
    /// The blob.
    pub digest: Digest,
    /// Its size.
    pub size: Bytes,
    /// For whom it is; only in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free text, by key.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor without platform and annotations.
    pub fn new(media_type: &str, digest: Digest, size: Bytes) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// An operating system and a processor, in Go's words (`linux`, `amd64`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, `riscv64`, …
    pub architecture: String,
    /// `linux`; `unknown` marks an attestation, which nothing runs.
    pub os: String,
    /// `v8` and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on `architecture`.
    pub fn linux(architecture: &str) -> Platform {
        Platform { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None }
    }

    /// Whether content for `other` runs here: same system and processor, whatever the variant.
    pub fn runs(&self, other: &Platform) -> bool {
        self.os == other.os && self.architecture == other.architecture
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// A list of manifests, one a platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// [`media_type::INDEX`], where it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests.
    #[serde(default, deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    /// Free text, by key.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`media_type::MANIFEST`], where it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
    /// Free text, by key.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// How an image wants to be run, and what its layers hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When it was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// `amd64`, …; empty when unknown.
    #[serde(default)]
    pub architecture: String,
    /// `linux`; empty when unknown.
    #[serde(default)]
    pub os: String,
    /// `v8` and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How to run it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: RunConfig,
    /// The uncompressed layers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
}

/// How an image wants to be run (OCI image spec, config.md).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// `uid`, `uid:gid`, or names from the image's passwd; empty: root.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub user: String,
    /// Ports it listens on: `80/tcp`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub exposed_ports: BTreeMap<String, BTreeMap<String, String>>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// First words of the command line.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// Last words of the command line.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// Where it wants volumes: `/data`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, BTreeMap<String, String>>,
    /// Where it starts; empty: `/`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// Free text, by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to end: `SIGTERM`, `15`; empty: `SIGTERM`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub stop_signal: String,
}

/// The uncompressed layers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the plain archives, lowest first.
    #[serde(deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

impl Index {
    /// Reads an index, bounded by [`MANIFEST_MAX`]. `what` names it in errors.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Index, StoreError> {
        let index: Index = parse(bytes, what)?;
        check_version(index.schema_version, what)?;
        Ok(index)
    }

    /// The index's bytes: the same for the same value.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_json(self)
    }
}

impl Manifest {
    /// Reads a manifest, bounded by [`MANIFEST_MAX`]. `what` names it in errors.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Manifest, StoreError> {
        let manifest: Manifest = parse(bytes, what)?;
        check_version(manifest.schema_version, what)?;
        Ok(manifest)
    }

    /// The manifest's bytes: the same for the same value.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_json(self)
    }

    /// What all blobs of the image take together, compressed.
    pub fn stored_size(&self) -> Bytes {
        let sizes = self.layers.iter().map(|l| l.size.0);
        Bytes(sizes.fold(self.config.size.0, u64::saturating_add))
    }
}

impl ImageConfig {
    /// Reads a configuration, bounded by [`MANIFEST_MAX`]. `what` names it in errors.
    pub fn parse(bytes: &[u8], what: &str) -> Result<ImageConfig, StoreError> {
        parse(bytes, what)
    }

    /// For whom the image is; `None` if it does not say.
    pub fn platform(&self) -> Option<Platform> {
        (!self.architecture.is_empty()).then(|| Platform {
            architecture: self.architecture.clone(),
            os: if self.os.is_empty() { "linux".to_owned() } else { self.os.clone() },
            variant: self.variant.clone(),
        })
    }
}

/// An image of one platform, as it stands in a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The manifest's digest: what the image is known by.
    pub digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// The configuration.
    pub config: ImageConfig,
}

impl Image {
    /// Reads manifest and configuration, checks their digests and sizes, and that every layer is
    /// there with its size. Layer bytes are checked when they are read.
    pub fn read(layout: &Layout, descriptor: &Descriptor) -> Result<Image, StoreError> {
        let what = format!("manifest {}", descriptor.digest);
        if media_type::is_index(&descriptor.media_type) {
            let why = "it is an index of several platforms, not a manifest".to_owned();
            return Err(StoreError::Nonsense { what, why });
        }
        let manifest = Manifest::parse(&read_document(layout, descriptor)?, &what)?;
        let what = format!("image configuration {}", manifest.config.digest);
        let config = ImageConfig::parse(&read_document(layout, &manifest.config)?, &what)?;
        for layer in &manifest.layers {
            let (_, got) = layout.open_blob(&layer.digest)?;
            check_size(layer, got)?;
        }
        Ok(Image { digest: descriptor.digest, manifest, config })
    }
}

/// A manifest, index or configuration, whole and checked.
pub(crate) fn read_document(layout: &Layout, of: &Descriptor) -> Result<Vec<u8>, StoreError> {
    let bytes = layout.read(&of.digest, MANIFEST_MAX)?;
    check_size(of, Bytes(bytes.len() as u64))?;
    Ok(bytes)
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    // These types have string keys and no floats: nothing in them can fail to serialize.
    serde_json::to_vec(value).unwrap_or_default()
}

fn check_size(of: &Descriptor, got: Bytes) -> Result<(), StoreError> {
    if got == of.size {
        return Ok(());
    }
    Err(StoreError::WrongSize { digest: of.digest, got, want: of.size })
}

fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8], what: &str) -> Result<T, StoreError> {
    if bytes.len() as u64 > MANIFEST_MAX.0 {
        return Err(StoreError::TooLong { what: what.to_owned(), limit: MANIFEST_MAX });
    }
    serde_json::from_slice(bytes)
        .map_err(|source| StoreError::Parse { what: what.to_owned(), source })
}

fn check_version(version: u32, what: &str) -> Result<(), StoreError> {
    if version == 2 {
        return Ok(());
    }
    let why = format!("schema version {version} is none we know (2)");
    Err(StoreError::Nonsense { what: what.to_owned(), why })
}

/// Go writes empty lists and maps as `null`.
fn null_is_default<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_parses_prints_and_parses_to_the_same() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{digest}","size":7}},
                "layers":null,"annotations":{{"b":"2","a":"1"}},"unknown":{{}}}}"#
        );
        let manifest = Manifest::parse(text.as_bytes(), "m").unwrap();
        assert_eq!(manifest.stored_size(), Bytes(7));
        assert_eq!(Manifest::parse(&manifest.to_bytes(), "m").unwrap(), manifest);
    }

    #[test]
    fn foreign_bytes_are_refused_by_name() {
        let config = r#"{"mediaType":"c","digest":"sha256:00","size":7}"#;
        for bad in [
            String::new(),
            "[]".to_owned(),
            format!(r#"{{"schemaVersion":2,"config":{config}}}"#),
            r#"{"schemaVersion":1,"manifests":[]}"#.to_owned(),
            " ".repeat(5 << 20),
        ] {
            for error in [
                Manifest::parse(bad.as_bytes(), "image x").unwrap_err(),
                Index::parse(bad.as_bytes(), "image x").unwrap_err(),
            ] {
                assert!(error.to_string().contains("image x"), "{error}");
            }
            if bad.is_empty() {
                break;
            }
        }
        assert!(Index::parse(br#"{"schemaVersion":1,"manifests":[]}"#, "x").is_err());
        let long = " ".repeat(5 << 20);
        assert!(matches!(Index::parse(long.as_bytes(), "x"), Err(StoreError::TooLong { .. })));
    }

    #[test]
    fn a_configuration_by_go_has_null_for_nothing() {
        let text = br#"{"architecture":"arm64","os":"linux","config":{"Env":null,"Cmd":["a"]},"rootfs":null}"#;
        let config = ImageConfig::parse(text, "c").unwrap();
        assert_eq!(config.config.cmd, ["a"]);
        assert_eq!(config.platform(), Some(Platform::linux("arm64")));
    }
}
