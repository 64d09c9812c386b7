//! Object encryption: secrets inside a config that only the controller and one node can read.
//!
//! Both sides have a P-256 key with a published certificate. The key of the cipher is
//! SHA-256(X ‖ Y) of the point that both compute, 32 bytes each, zeros in front kept; the cipher is
//! AES-256 in CFB mode with segments of 128 bits and no padding. A [`pb::common::CipherContext`]
//! names the two certificates, a [`pb::common::CipherBlock`] holds one secret. Facts:
//! `spec/api.md` §10.
//!
//! The cipher does not tell who wrote a block, and [`CipherError::ClearText`] is no proof either:
//! the signed envelope around the config is. There is one key between a controller and a node for
//! as long as both certificates last, so an initial value must never be used twice: it is an
//! argument here, and 16 fresh random bytes in production.
//!
//! [`pb::common::CipherContext`]: crate::pb::common::CipherContext
//! [`pb::common::CipherBlock`]: crate::pb::common::CipherBlock

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::cipher::{
    AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use model::{Diagnose, Diagnosis, Who};
use p256::elliptic_curve::sec1::ToSec1Point as _;
use zeroize::{Zeroize, Zeroizing};

use crate::identity::{Certificate, CertificateError, KeyError, PublicKey, SigningKey, sha256};
use crate::limits;
use crate::pb::common::{
    CipherBlock, CipherContext, EncryptionBlock, EncryptionBlockUser, EncryptionScheme,
    HashAlgorithm, KeyExchangeScheme,
};
use crate::wire::{self, WireError};

/// The bytes of an initial value.
pub const INITIAL_VALUE_BYTES: usize = 16;

/// Text or bytes that are not shown, and overwritten when they are no longer needed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Hides `value`.
    pub fn new(value: T) -> Secret<T> {
        Secret(Zeroizing::new(value))
    }

    /// Shows it, to whoever uses it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> From<T> for Secret<T> {
    fn from(value: T) -> Secret<T> {
        Secret::new(value)
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl fmt::Debug for EncryptionBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionBlock(secret)")
    }
}

/// What `EncryptionBlock` can carry. A block serves one object, so most of it is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Secrets {
    /// Who asks a datastore: a user name or key id.
    pub datastore_key: Secret<String>,
    /// Its password or key.
    pub datastore_password: Secret<String>,
    /// Identity on a Wi-Fi network with accounts.
    pub wifi_user: Secret<String>,
    /// Password or pre-shared key of a Wi-Fi network.
    pub wifi_password: Secret<String>,
    /// An app's cloud-init text, in base64.
    pub user_data: Secret<String>,
    /// User of a cellular access point.
    pub cellular_user: Secret<String>,
    /// Its password.
    pub cellular_password: Secret<String>,
    /// User with which a modem attaches to the network.
    pub cellular_attach_user: Secret<String>,
    /// Its password.
    pub cellular_attach_password: Secret<String>,
    /// With which a node joins its cluster.
    pub cluster_token: Secret<String>,
    /// A gzip of YAML with which a cluster registers.
    pub cluster_manifest: Secret<Vec<u8>>,
    /// The challenge password of certificate enrolment.
    pub scep_challenge: Secret<String>,
    /// Metadata of a patch envelope's artifact. `None`: the block is of another kind.
    pub artifact_metadata: Option<Secret<String>>,
}

impl Secrets {
    /// The plaintext of a block.
    pub fn to_payload(&self) -> Secret<Vec<u8>> {
        let text = |secret: &Secret<String>| secret.expose().clone();
        let mut block = EncryptionBlock {
            ds_api_key: text(&self.datastore_key),
            ds_password: text(&self.datastore_password),
            wifi_user_name: text(&self.wifi_user),
            wifi_password: text(&self.wifi_password),
            protected_user_data: text(&self.user_data),
            cellular_net_username: text(&self.cellular_user),
            cellular_net_password: text(&self.cellular_password),
            cellular_net_attach_username: text(&self.cellular_attach_user),
            cellular_net_attach_password: text(&self.cellular_attach_password),
            cluster_token: text(&self.cluster_token),
            gzip_registration_manifest_yaml: self.cluster_manifest.expose().clone(),
            scep_challenge_password: text(&self.scep_challenge),
            ..EncryptionBlock::default()
        };
        if let Some(metadata) = &self.artifact_metadata {
            block.set_user(EncryptionBlockUser::BinaryArtifactMetadata);
            block.encrypted_data = text(metadata);
        }
        let payload = Secret::new(wire::encode(&block));
        drop(Secrets::from(block)); // overwrites the copies
        payload
    }

    /// Reads the plaintext of a block. What is newer than we are is ignored.
    pub fn from_payload(payload: &[u8]) -> Result<Secrets, WireError> {
        wire::decode::<EncryptionBlock>(payload, limits::CONFIG).map(Secrets::from)
    }
}

impl From<EncryptionBlock> for Secrets {
    fn from(block: EncryptionBlock) -> Secrets {
        let metadata = block.user() == EncryptionBlockUser::BinaryArtifactMetadata;
        let data = Secret::new(block.encrypted_data);
        Secrets {
            datastore_key: block.ds_api_key.into(),
            datastore_password: block.ds_password.into(),
            wifi_user: block.wifi_user_name.into(),
            wifi_password: block.wifi_password.into(),
            user_data: block.protected_user_data.into(),
            cellular_user: block.cellular_net_username.into(),
            cellular_password: block.cellular_net_password.into(),
            cellular_attach_user: block.cellular_net_attach_username.into(),
            cellular_attach_password: block.cellular_net_attach_password.into(),
            cluster_token: block.cluster_token.into(),
            cluster_manifest: block.gzip_registration_manifest_yaml.into(),
            scep_challenge: block.scep_challenge_password.into(),
            artifact_metadata: metadata.then_some(data),
        }
    }
}

/// How a context names a certificate: the first 16 bytes of SHA-256 over the bytes that its owner
/// published, which are PEM with or without a final newline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertHash(pub [u8; 16]);

impl CertHash {
    /// The name of what was published as `pem`, to the byte.
    pub fn of(pem: &[u8]) -> CertHash {
        let mut half = [0; 16];
        half.copy_from_slice(&sha256(pem).0[..16]);
        CertHash(half)
    }
}

impl fmt::Display for CertHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for CertHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertHash({self})")
    }
}

/// A P-256 key for agreeing on keys. It is another than the one that signs.
pub struct ExchangeKey {
    pair: SigningKey,
    secret: p256::SecretKey,
}

impl ExchangeKey {
    /// A fresh one, from the system's randomness.
    pub fn generate() -> Result<ExchangeKey, KeyError> {
        ExchangeKey::of(SigningKey::generate()?)
    }

    /// Reads PKCS#8 (`PRIVATE KEY`) or SEC 1 (`EC PRIVATE KEY`).
    pub fn from_pem(pem: &[u8]) -> Result<ExchangeKey, KeyError> {
        ExchangeKey::of(SigningKey::from_pem(pem)?)
    }

    /// As PKCS#8 PEM, for the file it lives in.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.pair.to_pem()
    }

    /// The public half, as an uncompressed point of 65 bytes.
    pub fn public_point(&self) -> &[u8] {
        self.pair.public_point()
    }

    /// Whether `certificate` is one of this key.
    pub fn is_of(&self, certificate: &Certificate) -> bool {
        matches!(certificate.key(), Ok(PublicKey::P256(point)) if point == self.public_point())
    }

    /// The same key, for whoever makes a certificate for it.
    pub(crate) fn pair(&self) -> &SigningKey {
        &self.pair
    }

    fn of(pair: SigningKey) -> Result<ExchangeKey, KeyError> {
        let scalar = pair.scalar()?;
        let failed =
            |_| KeyError::Crypto { what: "use a key for key exchange", source: Unspecified };
        let secret = p256::SecretKey::from_slice(scalar.as_slice()).map_err(failed)?;
        Ok(ExchangeKey { pair, secret })
    }

    /// The point that `self` and the owner of `peer` share.
    fn agree(&self, peer: &Certificate) -> Result<SharedKey, CipherError> {
        let PublicKey::P256(point) = peer.key()? else { return Err(CipherError::PeerKey) };
        let peer = p256::PublicKey::from_sec1_bytes(&point).map_err(|_| CipherError::PeerKey)?;
        let product = peer.to_projective() * *self.secret.to_nonzero_scalar();
        // 4, X, Y: never the point at infinity, as neither factor is zero.
        let shared = product.to_affine().to_sec1_point(false);
        let coordinates = shared.as_bytes().get(1..).ok_or(CipherError::PeerKey)?;
        Ok(SharedKey(Zeroizing::new(sha256(coordinates).0)))
    }
}

impl fmt::Debug for ExchangeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExchangeKey(secret)")
    }
}

/// What a controller and a node agreed on.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedKey(Zeroizing<[u8; 32]>);

impl SharedKey {
    /// From the coordinates of the shared point, big endian: what a TPM gives that keeps the private
    /// key to itself (`TPM2_ECDH_ZGen`).
    pub fn from_point(x: &[u8; 32], y: &[u8; 32]) -> SharedKey {
        let both = Zeroizing::new([*x, *y].concat());
        SharedKey(Zeroizing::new(sha256(&both).0))
    }

    fn cipher(&self) -> Result<UnboundCipherKey, Unspecified> {
        UnboundCipherKey::new(&AES_256, self.0.as_slice())
    }

    /// Encrypts in place.
    fn encrypt(&self, bytes: &mut [u8], iv: [u8; 16]) -> Result<(), CipherError> {
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        let done = self
            .cipher()
            .and_then(EncryptingKey::cfb128)
            .and_then(|key| key.less_safe_encrypt(bytes, context));
        done.map(|_| ()).map_err(|source| CipherError::Crypto { source })
    }

    /// Decrypts in place.
    fn decrypt(&self, bytes: &mut [u8], iv: [u8; 16]) -> Result<(), CipherError> {
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        let key = self.cipher().and_then(DecryptingKey::cfb128);
        let key = key.map_err(|source| CipherError::Crypto { source })?;
        let done = key.decrypt(bytes, context).map(|_| ());
        done.map_err(|source| CipherError::Crypto { source })
    }

    /// Encrypts `plain` into a block of the context `context_id`.
    pub fn seal(
        &self,
        context_id: &str,
        plain: &[u8],
        initial_value: [u8; INITIAL_VALUE_BYTES],
    ) -> Result<CipherBlock, CipherError> {
        // Devices take a block without data for half a block, not for a block of nothing.
        if plain.is_empty() {
            return Err(CipherError::Incomplete { field: "cipherData" });
        }
        let mut data = plain.to_vec();
        self.encrypt(&mut data, initial_value)?;
        Ok(CipherBlock {
            cipher_context_id: context_id.to_owned(),
            initial_value: initial_value.to_vec(),
            cipher_data: data,
            clear_text_sha256: sha256(plain).0.to_vec(),
        })
    }

    /// Decrypts a block, whatever context it names, and checks the hash of what came of it.
    pub fn open(&self, block: &CipherBlock) -> Result<Secret<Vec<u8>>, CipherError> {
        if block.cipher_data.is_empty() {
            return Err(CipherError::Incomplete { field: "cipherData" });
        }
        let iv = block.initial_value.as_slice();
        let got = iv.len();
        let iv = iv.try_into().map_err(|_| CipherError::InitialValue { got })?;
        let mut plain = Secret::new(block.cipher_data.clone());
        self.decrypt(&mut plain.0, iv)?;
        if block.clear_text_sha256 != sha256(plain.expose()).0 {
            return Err(CipherError::ClearText);
        }
        Ok(plain)
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey(secret)")
    }
}

/// A `CipherContext` in use: which two certificates a block is between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// What blocks call it; not empty.
    pub id: String,
    /// The node's certificate for key exchange.
    pub device: CertHash,
    /// The controller's.
    pub controller: CertHash,
}

impl Context {
    /// As in `EdgeDevConfig.cipherContexts`.
    pub fn to_wire(&self) -> CipherContext {
        CipherContext {
            context_id: self.id.clone(),
            hash_scheme: HashAlgorithm::Sha25616bytes.into(),
            key_exchange_scheme: KeyExchangeScheme::KeaEcdh.into(),
            encryption_scheme: EncryptionScheme::SaAes256Cfb.into(),
            device_cert_hash: self.device.0.to_vec(),
            controller_cert_hash: self.controller.0.to_vec(),
        }
    }

    /// Reads one. The schemes must be the only ones that there are.
    pub fn from_wire(context: &CipherContext) -> Result<Context, CipherError> {
        let id = context.context_id.as_str();
        let scheme = |field, value: i32, want: i32| {
            let id = id.to_owned();
            if value == want { Ok(()) } else { Err(CipherError::Scheme { id, field, value }) }
        };
        if id.is_empty() {
            return Err(CipherError::Incomplete { field: "contextId" });
        }
        scheme("hashScheme", context.hash_scheme, HashAlgorithm::Sha25616bytes.into())?;
        let exchange = KeyExchangeScheme::KeaEcdh.into();
        scheme("keyExchangeScheme", context.key_exchange_scheme, exchange)?;
        let cipher = EncryptionScheme::SaAes256Cfb.into();
        scheme("encryptionScheme", context.encryption_scheme, cipher)?;
        let hash = |field, bytes: &[u8]| {
            let id = id.to_owned();
            let got = bytes.len();
            bytes.try_into().map(CertHash).map_err(|_| CipherError::HashSize { id, field, got })
        };
        Ok(Context {
            id: id.to_owned(),
            device: hash("deviceCertHash", &context.device_cert_hash)?,
            controller: hash("controllerCertHash", &context.controller_cert_hash)?,
        })
    }
}

/// A controller's side towards one node: the key is computed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealer {
    context: Context,
    key: SharedKey,
}

impl Sealer {
    /// `controller` are the bytes published in `ZCert.cert` for `key`, `device` the certificate for
    /// key exchange (type 13) as the node sent it, both to the byte. `context_id` is any text that is
    /// not empty and names no other pair; EVE's tools use a UUID.
    ///
    /// That the node's certificate is signed by its device certificate is for whoever keeps it to
    /// check, with [`Certificate::is_signed_by`].
    pub fn new(
        key: &ExchangeKey,
        controller: &Certificate,
        device: &Certificate,
        context_id: impl Into<String>,
    ) -> Result<Sealer, CipherError> {
        let id = context_id.into();
        if id.is_empty() {
            return Err(CipherError::Incomplete { field: "contextId" });
        }
        if !matches!(controller.key()?, PublicKey::P256(point) if point == key.public_point()) {
            return Err(CipherError::OwnCertificate);
        }
        let context = Context {
            id,
            device: CertHash::of(device.pem()),
            controller: CertHash::of(controller.pem()),
        };
        Ok(Sealer { context, key: key.agree(device)? })
    }

    /// What the config has to say about the blocks.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// A block of `secrets`; `initial_value` is random and never used before.
    pub fn seal(
        &self,
        secrets: &Secrets,
        initial_value: [u8; INITIAL_VALUE_BYTES],
    ) -> Result<CipherBlock, CipherError> {
        self.seal_bytes(secrets.to_payload().expose(), initial_value)
    }

    /// A block of other bytes: a patch envelope's artifact, a config for a local operator console.
    pub fn seal_bytes(
        &self,
        plain: &[u8],
        initial_value: [u8; INITIAL_VALUE_BYTES],
    ) -> Result<CipherBlock, CipherError> {
        self.key.seal(&self.context.id, plain, initial_value)
    }
}

/// A node's side: what it can decrypt with its key and the certificates of its controller.
///
/// There is one agreement a known certificate, however many contexts a config names.
#[derive(Debug, Clone, PartialEq)]
pub struct Opener {
    device: CertHash,
    known: BTreeMap<CertHash, SharedKey>,
    contexts: BTreeMap<String, Result<Context, CipherError>>,
}

impl Opener {
    /// `device` is the node's certificate for `key`, as the controller has it. `controller` are all
    /// certificates for key exchange that the node knows, old ones too: a config may still name
    /// them. None of them being usable is no error here but with each block that needs it.
    pub fn new(key: &ExchangeKey, device: &Certificate, controller: &[Certificate]) -> Opener {
        let agreed = controller
            .iter()
            .filter_map(|c| Some((CertHash::of(c.pem()), key.agree(c).ok()?)))
            .collect();
        Opener::with_keys(CertHash::of(device.pem()), agreed)
    }

    /// The same for a node whose key is in its TPM: `known` are the keys it agreed on, by the
    /// controller's certificate.
    pub fn with_keys(device: CertHash, known: BTreeMap<CertHash, SharedKey>) -> Opener {
        Opener { device, known, contexts: BTreeMap::new() }
    }

    /// Takes the contexts of a config in place of those before. A bad one is an error of the blocks
    /// that name it.
    #[must_use]
    pub fn with_contexts(self, contexts: &[CipherContext]) -> Opener {
        let read = |c: &CipherContext| (c.context_id.clone(), Context::from_wire(c));
        Opener { contexts: contexts.iter().map(read).collect(), ..self }
    }

    /// Decrypts a block.
    pub fn open(&self, block: &CipherBlock) -> Result<Secret<Vec<u8>>, CipherError> {
        if block.cipher_context_id.is_empty() {
            return Err(CipherError::Incomplete { field: "cipherContextId" });
        }
        let id = &block.cipher_context_id;
        let context = match self.contexts.get(id) {
            Some(Ok(context)) => context,
            Some(Err(e)) => return Err(e.clone()),
            None => return Err(CipherError::UnknownContext { id: id.clone() }),
        };
        self.open_in(context, block)
    }

    /// Decrypts a block whose context came beside it.
    pub fn open_in(
        &self,
        context: &Context,
        block: &CipherBlock,
    ) -> Result<Secret<Vec<u8>>, CipherError> {
        let unknown = |side, hash| {
            let id = context.id.clone();
            CipherError::UnknownCertificate { id, side, hash }
        };
        if context.device != self.device {
            return Err(unknown("device", context.device));
        }
        let key = self.known.get(&context.controller);
        key.ok_or_else(|| unknown("controller", context.controller))?.open(block)
    }

    /// Decrypts a block of secrets.
    pub fn open_secrets(&self, block: &CipherBlock) -> Result<Secrets, CipherError> {
        let plain = self.open(block)?;
        Secrets::from_payload(plain.expose()).map_err(|_| CipherError::NotSecrets)
    }
}

/// Why something could not be sealed or opened. It never tells what was inside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    /// A certificate cannot be read.
    #[error("the certificate for key exchange is unusable: {text}")]
    Certificate {
        /// Why.
        text: String,
    },
    /// The other side's certificate has no P-256 key.
    #[error("the certificate for key exchange has no P-256 key")]
    PeerKey,
    /// The certificate of our side is one of another key.
    #[error("the certificate for key exchange is not one of the key that belongs to it")]
    OwnCertificate,
    /// A part is missing.
    #[error("{field} is empty")]
    Incomplete {
        /// Which.
        field: &'static str,
    },
    /// The context asks for something that does not exist.
    #[error("cipherContexts[{id}].{field} is {value}, which is not known")]
    Scheme {
        /// Of the context.
        id: String,
        /// Which.
        field: &'static str,
        /// As on the wire.
        value: i32,
    },
    /// A hash in the context has another length.
    #[error("cipherContexts[{id}].{field} has {got} bytes, not 16")]
    HashSize {
        /// Of the context.
        id: String,
        /// Which.
        field: &'static str,
        /// In bytes.
        got: usize,
    },
    /// The block names a context that the config does not have.
    #[error("cipherContextId {id:?} is none of the config's contexts")]
    UnknownContext {
        /// As on the wire.
        id: String,
    },
    /// The context names a certificate that is not known (any more, or yet).
    #[error("cipherContexts[{id}] names the {side}'s certificate {hash}, which is not known")]
    UnknownCertificate {
        /// Of the context.
        id: String,
        /// `device` or `controller`.
        side: &'static str,
        /// Which certificate.
        hash: CertHash,
    },
    /// The initial value has another length.
    #[error("initialValue has {got} bytes, not 16")]
    InitialValue {
        /// In bytes.
        got: usize,
    },
    /// What was decrypted does not have the hash that it should: sealed with another key, or changed.
    #[error("clearTextSha256 is not the hash of what the block decrypts to")]
    ClearText,
    /// What was decrypted is no `EncryptionBlock`.
    #[error("the block decrypts to something that is no EncryptionBlock")]
    NotSecrets,
    /// The crypto library failed, which it does for want of memory only.
    #[error("the cipher failed")]
    Crypto {
        /// It says no more.
        source: Unspecified,
    },
}

impl From<CertificateError> for CipherError {
    fn from(error: CertificateError) -> CipherError {
        CipherError::Certificate { text: model::chain(&error) }
    }
}

impl Diagnose for CipherError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Certificate { .. } | Self::PeerKey | Self::OwnCertificate => Diagnosis::of(
                Who::Operator,
                "give the controller a P-256 key for key exchange and its certificate",
            ),
            Self::UnknownCertificate { side: "controller", .. } => {
                Diagnosis::of(Who::Nobody, "the controller's certificates are being fetched")
            }
            Self::UnknownCertificate { .. } | Self::ClearText => {
                Diagnosis::of(Who::Operator, "let the controller seal the secret anew")
            }
            Self::Crypto { .. } => Diagnosis::of(Who::Developer, "report this with the log"),
            _ => Diagnosis::of(Who::Developer, "find out what the controller sealed"),
        }
    }
}
