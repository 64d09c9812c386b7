//! Secrets on the wire: cipher blocks (EVE API, object encryption) and their clear twins.
//!
//! A block wins over its twin, and one that cannot be opened is an error of its object: to take the
//! twin instead would invite whoever strips blocks.

use model::Secret;
use prost::Message as _;

use super::refuse::{Rejected, wrong};
use crate::pb::common::{CipherBlock, CipherContext, EncryptionBlock};

/// Opens a block with the contexts of its config: the plain bytes, or why not in words.
pub type Open<'a> = dyn FnMut(&[CipherContext], &CipherBlock) -> Result<Vec<u8>, String> + 'a;

/// Seals bytes into a block.
pub type Seal<'a> = dyn FnMut(&[u8]) -> CipherBlock + 'a;

/// How the secrets of one config are read.
pub(super) struct Opener<'a, 'b> {
    pub(super) contexts: &'a [CipherContext],
    pub(super) open: &'a mut Open<'b>,
}

impl Opener<'_, '_> {
    /// The bytes of a block that stands in `field`.
    pub(super) fn bytes(
        &mut self,
        field: &str,
        block: Option<&CipherBlock>,
    ) -> Result<Option<Vec<u8>>, Rejected> {
        let Some(block) = block else { return Ok(None) };
        if block.cipher_context_id.is_empty() || block.cipher_data.is_empty() {
            return Err(wrong(field, "the sealed block names no context or holds no data"));
        }
        (self.open)(self.contexts, block).map(Some).map_err(|why| wrong(field, why))
    }

    /// The secrets of a block that stands in `field`.
    pub(super) fn block(
        &mut self,
        field: &str,
        block: Option<&CipherBlock>,
    ) -> Result<Option<EncryptionBlock>, Rejected> {
        let Some(bytes) = self.bytes(field, block)? else { return Ok(None) };
        // Never the decoder's words: they may quote what they saw.
        EncryptionBlock::decode(bytes.as_slice())
            .map(Some)
            .map_err(|_| wrong(field, "the sealed block opens to no EncryptionBlock"))
    }
}

/// How the secrets of one config are written.
pub(super) struct Sealer<'a, 'b> {
    /// `None`: in clear, where the wire has a place for that.
    pub(super) seal: Option<&'a mut Seal<'b>>,
}

impl Sealer<'_, '_> {
    /// `None` if nothing can be sealed.
    pub(super) fn bytes(&mut self, plain: &[u8]) -> Option<CipherBlock> {
        self.seal.as_mut().map(|seal| seal(plain))
    }

    /// `None` if nothing can be sealed, or the block would be empty.
    pub(super) fn block(&mut self, block: &EncryptionBlock) -> Option<CipherBlock> {
        let plain = block.encode_to_vec();
        if plain.is_empty() { None } else { self.bytes(&plain) }
    }
}

/// The text of a secret that may be left out.
pub(super) fn text(secret: Option<&Secret>) -> String {
    secret.map(|s| s.reveal().to_owned()).unwrap_or_default()
}
