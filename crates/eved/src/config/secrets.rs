//! Opens what is sealed in a config, and counts.
//!
//! A block that does not open is an error of its object; nothing falls back to a clear twin
//! (`api::convert`). Why it does not open is told in words that show nothing of what was inside.

use std::collections::BTreeSet;

use api::Certificate;
use api::cipher::{CertHash, CipherError, Context, Opener};
use api::pb::common::{CipherBlock, CipherContext};
use model::reported::{SecretFailure, SecretsOpened};
use model::{UnixMillis, chain};

use crate::exchange::{Exchange, ExchangeTrouble};

/// The secrets of one config.
#[derive(Debug)]
pub(super) struct Secrets {
    opener: Result<Opener, String>,
    now: UnixMillis,
    /// What became of them.
    pub(super) counted: SecretsOpened,
    /// The controller's certificates that blocks refer to.
    pub(super) referred: BTreeSet<CertHash>,
    /// One of them is not known: new certificates may help.
    pub(super) wants_certs: bool,
}

impl Secrets {
    /// `exchange` is our key; `controller` are the certificates for key exchange that we know, old
    /// ones too.
    pub(super) fn new(
        exchange: Result<Exchange, ExchangeTrouble>,
        controller: &[Certificate],
        now: UnixMillis,
    ) -> Secrets {
        let opener = exchange
            .map(|ours| Opener::new(&ours.key, &ours.certificate, controller))
            .map_err(|e| chain(&e));
        Secrets {
            opener,
            now,
            counted: SecretsOpened::default(),
            referred: BTreeSet::new(),
            wants_certs: false,
        }
    }

    /// What opens, or why nothing does.
    pub(super) fn opener(&self) -> Result<&Opener, String> {
        self.opener.as_ref().map_err(Clone::clone)
    }

    /// Opens a block with the contexts of its config: the plain bytes, or why not.
    pub(super) fn open(
        &mut self,
        contexts: &[CipherContext],
        block: &CipherBlock,
    ) -> Result<Vec<u8>, String> {
        let id = &block.cipher_context_id;
        let named = contexts.iter().filter(|c| c.context_id == *id);
        self.referred
            .extend(named.filter_map(|c| Context::from_wire(c).ok()).map(|c| c.controller));
        let opened = match &self.opener {
            Ok(opener) => opener.clone().with_contexts(contexts).open(block),
            Err(why) => {
                let why = why.clone();
                self.failed(SecretFailure::NotReady);
                return Err(why);
            }
        };
        match opened {
            Ok(plain) => {
                self.counted.opened += 1;
                self.counted.last_opened = Some(self.now);
                Ok(plain.expose().clone())
            }
            Err(why) => {
                let unknown =
                    matches!(why, CipherError::UnknownCertificate { side: "controller", .. });
                self.wants_certs |= unknown;
                self.failed(kind(&why));
                Err(why.to_string())
            }
        }
    }

    fn failed(&mut self, kind: SecretFailure) {
        let count = self.counted.failed.entry(kind).or_default();
        *count += 1;
        self.counted.last_failed = Some(self.now);
    }
}

/// As the metrics of the API name it.
fn kind(error: &CipherError) -> SecretFailure {
    match error {
        CipherError::UnknownContext { .. } | CipherError::UnknownCertificate { .. } => {
            SecretFailure::NotReady
        }
        CipherError::Incomplete { .. } | CipherError::InitialValue { .. } => SecretFailure::NoData,
        CipherError::NotSecrets => SecretFailure::Unreadable,
        _ => SecretFailure::Decrypt,
    }
}

/// All counts together.
pub(super) fn add(all: &mut SecretsOpened, more: &SecretsOpened) {
    all.opened += more.opened;
    all.last_opened = more.last_opened.or(all.last_opened);
    all.last_failed = more.last_failed.or(all.last_failed);
    for (kind, count) in &more.failed {
        *all.failed.entry(*kind).or_default() += count;
    }
}
