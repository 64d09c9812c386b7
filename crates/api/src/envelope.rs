//! The signed envelope around every body: `auth.AuthContainer`.
//!
//! The signature covers the payload alone: no time, no address, no purpose. Freshness is for the
//! payload's owner to check (config timestamps, nonces).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{Bytes, Diagnose, Diagnosis, Digest, Who};

use crate::identity::{Certificate, CertificateError, KeyError, PublicKey, SigningKey, sha256};
use crate::pb::auth::{AuthBody, AuthContainer};
use crate::pb::common::HashAlgorithm;
use crate::wire::{self, WireError};

/// How a message names the certificate it is signed for: all of its hash, or the first half.
/// Which bytes were hashed depends on the direction; [`Signer`] and [`Sender`] know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SenderHash {
    /// SHA-256 in full. Devices always send this.
    Full(Digest),
    /// The first 16 bytes of SHA-256.
    Half([u8; 16]),
    /// The length of the hash does not go with the algorithm: no certificate is meant.
    Nobody,
}

impl SenderHash {
    /// Whether it names what hashes to `digest`.
    pub fn names(&self, digest: &Digest) -> bool {
        match self {
            SenderHash::Full(full) => full == digest,
            SenderHash::Half(half) => *half == digest.0[..16],
            SenderHash::Nobody => false,
        }
    }
}

/// Whose signature is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    hash: Digest,
    key: PublicKey,
}

impl Signer {
    /// A device: it names itself by SHA-256 over the DER of its certificate. Its key is P-256.
    pub fn device(certificate: &Certificate) -> Result<Signer, CertificateError> {
        match certificate.key()? {
            key @ PublicKey::P256(_) => Ok(Signer { hash: certificate.digest(), key }),
            PublicKey::Rsa(_) => Err(CertificateError::DeviceKey),
        }
    }

    /// A controller: it names itself by SHA-256 over the bytes of `ZCert.cert`, which is PEM with
    /// or without a final newline, exactly as it published them.
    pub fn controller(zcert: &[u8]) -> Result<Signer, CertificateError> {
        let key = Certificate::from_pem(zcert)?.key()?;
        Ok(Signer { hash: sha256(zcert), key })
    }

    /// The hash a message must name.
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// The key, for what is signed without an envelope.
    pub(crate) fn key(&self) -> &PublicKey {
        &self.key
    }
}

/// Who signs, and how it names itself.
#[derive(Debug)]
pub struct Sender<'a> {
    key: &'a SigningKey,
    hash: Digest,
    certificate: Option<&'a Certificate>,
}

impl<'a> Sender<'a> {
    /// A device with its own certificate: everything but register.
    pub fn device(key: &'a SigningKey, certificate: &Certificate) -> Sender<'a> {
        Sender { key, hash: certificate.digest(), certificate: None }
    }

    /// A device that registers, with its onboarding certificate, which travels along.
    pub fn onboarding(key: &'a SigningKey, certificate: &'a Certificate) -> Sender<'a> {
        Sender { key, hash: certificate.digest(), certificate: Some(certificate) }
    }

    /// A controller. `zcert` are the bytes it publishes in `ZCert.cert`, byte for byte.
    pub fn controller(key: &'a SigningKey, zcert: &[u8]) -> Sender<'a> {
        Sender { key, hash: sha256(zcert), certificate: None }
    }
}

/// The body of a message: the payload, signed. An empty payload is signed like any other.
pub fn sign(payload: &[u8], sender: &Sender<'_>) -> Result<Vec<u8>, KeyError> {
    let signed = signature(payload, sender)?;
    let protected_payload = Some(AuthBody { payload: payload.to_vec() });
    Ok(wire::encode(&AuthContainer { protected_payload, ..signed }))
}

/// The envelope of a payload without the payload itself.
pub(crate) fn signature(payload: &[u8], sender: &Sender<'_>) -> Result<AuthContainer, KeyError> {
    let certificate = sender.certificate.map(|c| STANDARD.encode(c.pem()).into_bytes());
    Ok(AuthContainer {
        algo: HashAlgorithm::Sha25632bytes.into(),
        sender_cert_hash: sender.hash.0.to_vec(),
        signature_hash: sender.key.sign(payload)?.to_vec(),
        sender_cert: certificate.unwrap_or_default(),
        ..AuthContainer::default()
    })
}

/// Reads an envelope of at most `limit`. Nothing is verified yet.
pub fn open(body: &[u8], limit: Bytes) -> Result<Received, OpenError> {
    let container: AuthContainer = wire::decode(body, limit)?;
    if container.cipher_data.is_some() {
        return Err(OpenError::Encrypted);
    }
    Ok(Received(container))
}

/// An envelope that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Too long, or not protobuf.
    #[error("the body is no envelope")]
    Wire(#[from] WireError),
    /// The payload is encrypted, which only that of a local operator console is: [`crate::loc`]
    /// opens those.
    #[error("the payload of the envelope is encrypted")]
    Encrypted,
}

impl Diagnose for OpenError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Wire(wire) => wire.diagnose(),
            Self::Encrypted => {
                Diagnosis::of(Who::Operator, "encrypt configs for local operator consoles only")
            }
        }
    }
}

/// An opened envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct Received(AuthContainer);

/// Why an envelope is not believed. The order is that of the checks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `algo` is none we know (EVE calls it AlgoFail).
    #[error("AuthContainer.algo {algo} is no supported hash algorithm")]
    Algorithm {
        /// As on the wire.
        algo: i32,
    },
    /// `senderCertHash` has another length than `algo` says (HashSizeError), in a way that no
    /// algorithm has.
    #[error("AuthContainer.senderCertHash has {got} bytes, not 16 or 32")]
    HashSize {
        /// In bytes.
        got: usize,
    },
    /// It names another certificate than the one we know (CertMiss): the controller may have new
    /// certificates, or the device is not the one we took it for.
    #[error("the envelope names the certificate {named}, not {known}")]
    UnknownSigner {
        /// What it names, in hexadecimal.
        named: String,
        /// Whom we know.
        known: Digest,
    },
    /// The signature does not fit the payload and the key (SignVerifyFail).
    #[error("the signature of the envelope is not that of {signer} over the payload")]
    Signature {
        /// Whose it should be.
        signer: Digest,
    },
}

impl Diagnose for Refusal {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Algorithm { .. } | Self::HashSize { .. } => {
                Diagnosis::of(Who::Developer, "find out what the sender put into the envelope")
            }
            Self::UnknownSigner { .. } => {
                Diagnosis::of(Who::Nobody, "the certificates are being fetched again")
            }
            Self::Signature { .. } => {
                Diagnosis::of(Who::Network, "find out who changes messages on their way")
            }
        }
    }
}

impl Received {
    /// How the sender names itself.
    pub fn sender(&self) -> Result<SenderHash, Refusal> {
        let (half, full) =
            (i32::from(HashAlgorithm::Sha25616bytes), i32::from(HashAlgorithm::Sha25632bytes));
        if self.0.algo != half && self.0.algo != full {
            return Err(Refusal::Algorithm { algo: self.0.algo });
        }
        let raw = self.0.sender_cert_hash.as_slice();
        match (self.0.algo == full, raw.len()) {
            (_, got) if got != 16 && got != 32 => Err(Refusal::HashSize { got }),
            (true, 32) => {
                Ok(raw.try_into().map_or(SenderHash::Nobody, |h| SenderHash::Full(Digest(h))))
            }
            (false, 16) => Ok(raw.try_into().map_or(SenderHash::Nobody, SenderHash::Half)),
            // EVE takes it for the hash of a certificate it does not have, and so do we.
            _ => Ok(SenderHash::Nobody),
        }
    }

    /// The payload, if it is signed by `signer`. Checks in EVE's order: algorithm, length of the
    /// hash, the hash, the signature.
    pub fn verify(&self, signer: &Signer) -> Result<&[u8], Refusal> {
        self.names(signer)?;
        let payload = self.unverified_payload();
        self.signs(payload, signer).map(|()| payload)
    }

    /// The first three checks: whether `signer` is meant.
    pub(crate) fn names(&self, signer: &Signer) -> Result<(), Refusal> {
        if self.sender()?.names(&signer.hash) {
            return Ok(());
        }
        let named = self.0.sender_cert_hash.iter().map(|b| format!("{b:02x}")).collect();
        Err(Refusal::UnknownSigner { named, known: signer.hash })
    }

    /// The last check: whether the signature is that of `signer` over `payload`.
    pub(crate) fn signs(&self, payload: &[u8], signer: &Signer) -> Result<(), Refusal> {
        if signer.key.verifies(payload, &self.0.signature_hash) {
            Ok(())
        } else {
            Err(Refusal::Signature { signer: signer.hash })
        }
    }

    /// An envelope that came within another message. It may be encrypted.
    pub(crate) fn within(container: AuthContainer) -> Received {
        Received(container)
    }

    /// The message itself.
    pub(crate) fn container(&self) -> &AuthContainer {
        &self.0
    }

    /// The payload, whoever may have written it. Only `/certs` needs it: its payload says whose
    /// signature to expect.
    pub fn unverified_payload(&self) -> &[u8] {
        self.0.protected_payload.as_ref().map(|b| b.payload.as_slice()).unwrap_or_default()
    }

    /// The certificate that came along, on register only. That its owner signed is for
    /// [`Received::verify`] to find out.
    pub fn sender_certificate(&self) -> Result<Certificate, SenderCertificateError> {
        if self.0.sender_cert.is_empty() {
            return Err(SenderCertificateError::Missing);
        }
        from_base64_pem(&self.0.sender_cert)
    }
}

/// `senderCert` or `pemCert` is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum SenderCertificateError {
    /// The field is empty.
    #[error("AuthContainer.senderCert is empty")]
    Missing,
    /// Not base64.
    #[error("the certificate is not base64 of PEM")]
    Base64(#[from] base64::DecodeError),
    /// Not a certificate in PEM.
    #[error("the certificate cannot be used")]
    Certificate(#[from] CertificateError),
}

impl Diagnose for SenderCertificateError {
    fn diagnose(&self) -> Diagnosis {
        Diagnosis::of(Who::Operator, "check the node's onboarding certificate")
    }
}

/// A certificate as devices send it: base64 of the PEM text.
pub(crate) fn from_base64_pem(text: &[u8]) -> Result<Certificate, SenderCertificateError> {
    let pem = STANDARD.decode(text.trim_ascii())?;
    Ok(Certificate::from_pem(&pem)?)
}
