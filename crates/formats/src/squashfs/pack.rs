//! Packing single blocks. What would not shrink is left as it is.

use std::io;

use libdeflater::{CompressionError, CompressionLvl};
use liblzma::stream::{Action, Check, Filters, LzmaOptions, Status, Stream};
use zstd::zstd_safe::{self, CParameter, Strategy};

use super::Codec;
use super::number::META_SIZE;

/// Names the bytes that our packers make: changes with their parameters and with the libraries'
/// versions, and with that the keys of kept blocks. A test notices when it has to.
const GENERATION: &str = "1";

/// How blocks are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// zlib with this effort: 1 to 12. 9 is smaller than zlib's own 9.
    Gzip(u8),
    /// xz, each block with the best of no filter, that for x86 and that for 32-bit ARM programs.
    Xz,
    /// Zstandard with this level: 1 to 22.
    Zstd(u8),
}

/// Why a block cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A level that the codec does not have.
    #[error("{codec} has no level {level}")]
    Level {
        /// The codec.
        codec: &'static str,
        /// The level.
        level: u8,
    },
    /// The codec failed.
    #[error("{codec} cannot pack a block")]
    Codec {
        /// The codec.
        codec: &'static str,
        /// What it says.
        source: io::Error,
    },
    /// More than squashfs can address.
    #[error("there is more metadata than a squashfs can hold")]
    Metadata,
}

impl Method {
    /// The codec whose blocks it makes.
    pub fn codec(self) -> Codec {
        match self {
            Method::Gzip(_) => Codec::Gzip,
            Method::Xz => Codec::Xz,
            Method::Zstd(_) => Codec::Zstd,
        }
    }

    /// Everything that the packed bytes depend on besides the block: for keys of kept results.
    pub fn key(self) -> String {
        format!("{self:?} {GENERATION}")
    }

    /// What the image says about the codec: nothing if that is what every reader expects.
    pub(super) fn options(self, block: u32) -> Vec<u8> {
        const X86_AND_ARM: u32 = 0x01 | 0x08;
        match self {
            Method::Gzip(_) | Method::Zstd(15) => Vec::new(),
            Method::Xz => {
                // Enough for metadata, too: the kernel refuses larger dictionaries than told.
                let dictionary = block.max(META_SIZE);
                [dictionary.to_le_bytes(), X86_AND_ARM.to_le_bytes()].concat()
            }
            Method::Zstd(level) => u32::from(level).to_le_bytes().to_vec(),
        }
    }
}

/// Packs one block after the other and keeps its tables between them.
pub(super) enum Packer {
    Gzip(libdeflater::Compressor),
    Xz(XzFilters),
    Zstd(zstd::bulk::Compressor<'static>),
}

pub(super) struct XzFilters {
    plain: Filters,
    /// `None` for metadata, which holds no programs.
    programs: Option<(Filters, Filters)>,
}

impl Packer {
    /// For data blocks of at most `block` bytes.
    pub(super) fn for_data(method: Method, block: u32) -> Result<Packer, PackError> {
        match method {
            Method::Gzip(level) => gzip(level),
            Method::Xz => {
                let lzma = lzma(block)?;
                let programs =
                    Some((filters(|f| f.x86().lzma2(&lzma)), filters(|f| f.arm().lzma2(&lzma))));
                Ok(Packer::Xz(XzFilters { plain: filters(|f| f.lzma2(&lzma)), programs }))
            }
            Method::Zstd(level) => zstd(level, block),
        }
    }

    /// For metadata: there is little of it, in small blocks, and they come one after the other.
    pub(super) fn for_metadata(method: Method) -> Result<Packer, PackError> {
        match method {
            Method::Xz => {
                let lzma = lzma(META_SIZE)?;
                Ok(Packer::Xz(XzFilters { plain: filters(|f| f.lzma2(&lzma)), programs: None }))
            }
            Method::Gzip(level) => gzip(level),
            Method::Zstd(level) => zstd(level.min(METADATA_LEVEL), META_SIZE),
        }
    }

    /// Packs `raw` into `into`, which loses what it held. Says whether the result is shorter than
    /// `raw`; if not, `into` means nothing.
    pub(super) fn pack(&mut self, raw: &[u8], into: &mut Vec<u8>) -> Result<bool, PackError> {
        if raw.len() < 2 {
            return Ok(false);
        }
        match self {
            Packer::Gzip(compressor) => {
                into.resize(raw.len() - 1, 0);
                match compressor.zlib_compress(raw, into) {
                    Ok(length) => into.truncate(length),
                    Err(CompressionError::InsufficientSpace) => return Ok(false),
                }
                Ok(true)
            }
            Packer::Xz(filters) => filters.pack(raw, into),
            Packer::Zstd(compressor) => {
                into.clear();
                into.reserve(zstd_safe::compress_bound(raw.len()));
                let packed = compressor.compress_to_buffer(raw, into);
                packed.map_err(|source| PackError::Codec { codec: "zstd", source })?;
                Ok(into.len() < raw.len())
            }
        }
    }
}

/// At this level blocks come out 0.6 % larger than the library's choice makes them, in two thirds of
/// the time: its tables are made for longer inputs and do not stay in a processor's cache.
const TUNED_LEVEL: u8 = 15;

/// Levels above spend much on blocks of 8 KiB and gain nothing.
const METADATA_LEVEL: u8 = 12;

fn gzip(level: u8) -> Result<Packer, PackError> {
    let known = CompressionLvl::new(level.into());
    let known = known.ok().filter(|_| level > 0);
    let known = known.ok_or(PackError::Level { codec: "gzip", level })?;
    Ok(Packer::Gzip(libdeflater::Compressor::new(known)))
}

fn zstd(level: u8, block: u32) -> Result<Packer, PackError> {
    if !(1..=22).contains(&level) {
        return Err(PackError::Level { codec: "zstd", level });
    }
    let broken = |source| PackError::Codec { codec: "zstd", source };
    let mut compressor = zstd::bulk::Compressor::new(level.into()).map_err(broken)?;
    if level == TUNED_LEVEL {
        let log = block.ilog2();
        for parameter in [
            CParameter::Strategy(Strategy::ZSTD_btopt),
            CParameter::MinMatch(3),
            CParameter::SearchLog(4),
            CParameter::TargetLength(48),
            CParameter::HashLog(log - 2),
            CParameter::ChainLog(log - 1),
        ] {
            compressor.set_parameter(parameter).map_err(broken)?;
        }
    }
    Ok(Packer::Zstd(compressor))
}

fn lzma(dictionary: u32) -> Result<LzmaOptions, PackError> {
    /// The preset that xz and mksquashfs take unless told otherwise.
    const PRESET: u32 = 6;
    let mut lzma = LzmaOptions::new_preset(PRESET).map_err(xz_error)?;
    lzma.dict_size(dictionary);
    Ok(lzma)
}

fn filters(add: impl FnOnce(&mut Filters) -> &mut Filters) -> Filters {
    let mut filters = Filters::new();
    add(&mut filters);
    filters
}

fn xz_error(error: liblzma::stream::Error) -> PackError {
    PackError::Codec { codec: "xz", source: error.into() }
}

impl XzFilters {
    fn pack(&self, raw: &[u8], into: &mut Vec<u8>) -> Result<bool, PackError> {
        // Each try must be shorter than the best before it.
        let mut best = raw.len();
        let mut shrunk = false;
        let mut attempt = Vec::new();
        for filters in self.useful(raw) {
            if xz(filters, raw, &mut attempt, best)? {
                best = attempt.len();
                shrunk = true;
                std::mem::swap(into, &mut attempt);
            }
        }
        Ok(shrunk)
    }

    /// No filter, and those filters that would change this block.
    fn useful(&self, raw: &[u8]) -> impl Iterator<Item = &Filters> {
        let (x86, arm) = self.programs.as_ref().map_or((None, None), |(x86, arm)| {
            (calls_as_x86(raw).then_some(x86), calls_as_arm(raw).then_some(arm))
        });
        [Some(&self.plain), x86, arm].into_iter().flatten()
    }
}

/// Whether the filter for x86 would look at a byte of this block twice: CALL or JMP and four bytes.
fn calls_as_x86(raw: &[u8]) -> bool {
    raw.len() >= 5 && raw[..raw.len() - 4].iter().any(|byte| matches!(byte, 0xe8 | 0xe9))
}

/// Whether the filter for ARM would change this block: a BL instruction.
fn calls_as_arm(raw: &[u8]) -> bool {
    raw.chunks_exact(4).any(|word| word[3] == 0xeb)
}

/// One try. Gives up, saying false, when the result is not shorter than `limit`.
fn xz(filters: &Filters, raw: &[u8], into: &mut Vec<u8>, limit: usize) -> Result<bool, PackError> {
    // The kernel knows no check but this one.
    let mut stream = Stream::new_stream_encoder(filters, Check::Crc32).map_err(xz_error)?;
    into.resize(limit - 1, 0);
    loop {
        let (taken, given) = (count(stream.total_in()), count(stream.total_out()));
        let status = stream.process(&raw[taken..], &mut into[given..], Action::Finish);
        let status = status.map_err(xz_error)?;
        let given = count(stream.total_out());
        if status == Status::StreamEnd {
            into.truncate(given);
            return Ok(true);
        }
        if given == into.len() {
            return Ok(false);
        }
    }
}

fn count(total: u64) -> usize {
    usize::try_from(total).unwrap_or(usize::MAX)
}
