//! Making images: layers and configuration in, a manifest out; the same bytes for the same inputs.

use std::io::{self, BufWriter, Write};

use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};

use crate::image::{RootFs, media_type, to_json};
use crate::layout::{BlobWriter, HashWriter};
use crate::{Descriptor, ImageConfig, Layout, Manifest, Platform, RunConfig, StoreError};

/// How a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// gzip at its default level: everyone reads it.
    Gzip,
    /// zstd at this level, 1 to 19.
    Zstd(i32),
}

/// An image in the making. What it writes is garbage until something refers to the manifest.
#[derive(Debug)]
pub struct ImageBuilder<'a> {
    layout: &'a Layout,
    platform: Platform,
    created: Option<String>,
    config: RunConfig,
    layers: Vec<Descriptor>,
    diff_ids: Vec<Digest>,
}

impl<'a> ImageBuilder<'a> {
    /// Starts an image without layers.
    pub fn new(layout: &'a Layout, platform: Platform) -> ImageBuilder<'a> {
        ImageBuilder {
            layout,
            platform,
            created: None,
            config: RunConfig::default(),
            layers: Vec::new(),
            diff_ids: Vec::new(),
        }
    }

    /// When it was made, RFC 3339. Time is an input: leave it out, or derive it from the sources.
    pub fn created(&mut self, time: &str) -> &mut Self {
        self.created = Some(time.to_owned());
        self
    }

    /// How to run it.
    pub fn config(&mut self) -> &mut RunConfig {
        &mut self.config
    }

    /// Adds a label.
    pub fn label(&mut self, key: &str, value: &str) -> &mut Self {
        self.config.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds a layer above those before it. `archive` writes the plain tar archive.
    pub fn layer(
        &mut self,
        compression: Compression,
        archive: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Descriptor, StoreError> {
        let blob = self.layout.blob_writer()?;
        let mut hash = Sha256::new();
        let written = write_layer(blob, compression, &mut hash, archive);
        let blob = written.map_err(StoreError::io("write a layer in", self.layout.root()))?;
        let (digest, size) = blob.commit(None, Bytes(u64::MAX))?;
        let kind = match compression {
            Compression::None => media_type::LAYER,
            Compression::Gzip => media_type::LAYER_GZIP,
            Compression::Zstd(_) => media_type::LAYER_ZSTD,
        };
        let layer = Descriptor::new(kind, digest, size);
        self.diff_ids.push(Digest(hash.finalize().into()));
        self.layers.push(layer.clone());
        Ok(layer)
    }

    /// Writes configuration and manifest; the manifest's descriptor, with its platform.
    pub fn finish(self) -> Result<Descriptor, StoreError> {
        let config = ImageConfig {
            created: self.created,
            architecture: self.platform.architecture.clone(),
            os: self.platform.os.clone(),
            variant: self.platform.variant.clone(),
            config: self.config,
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: self.diff_ids },
        };
        let (digest, size) = self.layout.put(&to_json(&config))?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            config: Descriptor::new(media_type::CONFIG, digest, size),
            layers: self.layers,
            annotations: Default::default(),
        };
        let (digest, size) = self.layout.put(&manifest.to_bytes())?;
        let platform = Some(self.platform);
        Ok(Descriptor { platform, ..Descriptor::new(media_type::MANIFEST, digest, size) })
    }
}

fn write_layer(
    mut blob: BlobWriter,
    compression: Compression,
    hash: &mut Sha256,
    archive: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<BlobWriter> {
    /// Writes to both.
    struct Tee<'h, W>(W, HashWriter<'h>);
    impl<W: Write> Write for Tee<'_, W> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = self.0.write(bytes)?;
            self.1.write_all(&bytes[..n])?;
            Ok(n)
        }
        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }
    /// Small writes of a tar writer become few.
    fn fill<W: Write>(
        packer: W,
        hash: &mut Sha256,
        archive: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<W> {
        let mut out = BufWriter::with_capacity(1 << 16, Tee(packer, HashWriter(hash)));
        archive(&mut out)?;
        Ok(out.into_inner().map_err(io::IntoInnerError::into_error)?.0)
    }
    match compression {
        Compression::None => fill(&mut blob, hash, archive).map(drop)?,
        Compression::Gzip => {
            // The header carries neither name nor time.
            let packer = flate2::write::GzEncoder::new(&mut blob, flate2::Compression::default());
            fill(packer, hash, archive)?.finish().map(drop)?;
        }
        Compression::Zstd(level) => {
            let mut packer = zstd::stream::write::Encoder::new(&mut blob, level)?;
            packer.include_checksum(true)?;
            fill(packer, hash, archive)?.finish().map(drop)?;
        }
    }
    Ok(blob)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Image;

    #[test]
    fn same_inputs_make_the_same_image() {
        let make = |compression| {
            let dir = tempfile::tempdir().unwrap();
            let layout = Layout::create(dir.path()).unwrap();
            let mut image = ImageBuilder::new(&layout, Platform::linux("amd64"));
            image.label("b", "2").label("a", "1").created("2023-11-14T22:13:20Z");
            image.config().cmd = vec!["/bin/x".to_owned()];
            image.layer(compression, |out| out.write_all(&[0; 1024])).unwrap();
            let made = image.finish().unwrap();
            let read = Image::read(&layout, &made).unwrap();
            assert_eq!(read.config.rootfs.diff_ids, [crate::layout::digest_of(&[0; 1024])]);
            made.digest
        };
        for c in [Compression::None, Compression::Gzip, Compression::Zstd(3)] {
            assert_eq!(make(c), make(c), "{c:?}");
        }
    }

    #[test]
    fn a_layer_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        let mut image = ImageBuilder::new(&layout, Platform::linux("amd64"));
        let failed = image.layer(Compression::Gzip, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("broken"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read_dir(dir.path().join(".partial")).unwrap().count(), 0);
    }
}
