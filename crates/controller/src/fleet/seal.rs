//! Secrets, sealed to one node: a config is signed for everybody who carries it, and readable for
//! everybody but for these.
//!
//! Every block gets a random initial value, so two answers with the same meaning differ in their
//! bytes; whether a config says something else is told by a digest of what it means.

use std::sync::Arc;

use api::cipher::{CipherError, ExchangeKey, INITIAL_VALUE_BYTES, Sealer};
use api::convert::config;
use api::pb::common::CipherBlock;
use aws_lc_rs::hmac;
use model::UnixMillis;
use model::desired::Device;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::Fleet;
use crate::access::{NoRandomness, random};
use crate::db::DbError;

/// The number that the API has for the certificates that nodes exchange keys with.
const KEY_EXCHANGE: i32 = 13;

/// The controller's side of all agreements.
pub(super) struct Exchange {
    key: ExchangeKey,
    certificate: api::Certificate,
    /// For hashes of configs: they must tell nobody what is sealed.
    hash_key: hmac::Key,
}

impl Exchange {
    pub(super) fn new(
        key_pem: &str,
        cert_pem: &str,
        hash_key: &[u8],
    ) -> Result<Exchange, super::StartError> {
        Ok(Exchange {
            key: ExchangeKey::from_pem(key_pem.as_bytes())?,
            certificate: api::Certificate::from_pem(cert_pem.as_bytes())?,
            hash_key: hmac::Key::new(hmac::HMAC_SHA256, hash_key),
        })
    }

    /// The name that a config gets: the same from every controller of the fleet.
    pub(super) fn hash(&self, digest: &[u8; 32], timestamp: UnixMillis) -> String {
        let mut context = hmac::Context::with_key(&self.hash_key);
        context.update(digest);
        context.update(&timestamp.0.to_be_bytes());
        hex::encode(context.sign().as_ref())
    }
}

/// How secrets are sealed to one node.
#[derive(Clone)]
pub(super) struct Sealing(Option<Arc<Sealer>>);

impl Fleet {
    /// A node that has shown no certificate gets its secrets in no form: the objects that need them
    /// say so, and are told again when it has shown one.
    pub(super) async fn sealing(&self, id: Uuid) -> Result<Sealing, DbError> {
        let Some(pem) = self.db.device_cert(id, KEY_EXCHANGE).await? else {
            return Ok(Sealing(None));
        };
        let sealer =
            api::Certificate::from_pem(&pem).map_err(CipherError::from).and_then(|device| {
                let Exchange { key, certificate, .. } = &self.exchange;
                let pair = [device.pem(), certificate.pem()].concat();
                let context = Uuid::new_v5(&id, &pair).to_string();
                Sealer::new(key, certificate, &device, context)
            });
        Ok(Sealing(match sealer {
            Ok(sealer) => Some(Arc::new(sealer)),
            Err(e) => {
                tracing::warn!(device = %id, "nothing can be sealed to it: {}", model::chain(&e));
                None
            }
        }))
    }
}

impl Sealing {
    /// Names what a config means, secrets included.
    pub(super) fn digest(&self, device: &Device) -> [u8; 32] {
        let mut seal = |plain: &[u8]| CipherBlock {
            clear_text_sha256: Sha256::digest(plain).to_vec(),
            ..CipherBlock::default()
        };
        Sha256::digest(config::write_sealed_answer(device, "", self.contexts(), &mut seal)).into()
    }

    /// The answer to a node.
    pub(super) fn answer(&self, device: &Device, hash: &str) -> Result<Vec<u8>, NoRandomness> {
        let mut failed = None;
        let mut seal = |plain: &[u8]| {
            let sealer = self.0.as_ref()?;
            let initial_value: [u8; INITIAL_VALUE_BYTES] =
                random().inspect_err(|e| failed = Some(*e)).ok()?;
            sealer.seal_bytes(plain, initial_value).ok()
        };
        // A block without a context is an error of its object on the node, never a clear text.
        let mut or_empty = |plain: &[u8]| seal(plain).unwrap_or_default();
        let payload = config::write_sealed_answer(device, hash, self.contexts(), &mut or_empty);
        failed.map_or(Ok(payload), Err)
    }

    fn contexts(&self) -> Vec<api::pb::common::CipherContext> {
        self.0.iter().map(|s| s.context().to_wire()).collect()
    }
}
