//! The controller's certificates: `certs.ZControllerCert`.
//!
//! A controller publishes a signing certificate, one or more for key exchange, and what lies
//! between them and the root. A device believes them if they chain to its own root certificate,
//! and from then on believes what the signing certificate signs.

use std::time::Duration;

use model::{Diagnose, Diagnosis, UnixMillis, Who};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::envelope::{OpenError, Refusal, Signer, open};
use crate::identity::{Certificate, CertificateError, PublicKey, sha256};
use crate::limits;
use crate::pb::certs::{ZCert, ZCertType, ZControllerCert};
use crate::pb::common::HashAlgorithm;
use crate::wire::{self, WireError};

/// The controller, as a device knows it: checked against the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerCerts {
    signer: Signer,
    since: UnixMillis,
    exchange: Vec<Certificate>,
}

impl ControllerCerts {
    /// Whose signature messages of this controller bear.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// From when on the signing certificate is valid. A local operator console may not bring one
    /// that is older than the one known.
    pub fn since(&self) -> UnixMillis {
        self.since
    }

    /// Certificates for key exchange, P-256.
    pub fn exchange(&self) -> &[Certificate] {
        &self.exchange
    }
}

/// What a set of certificates is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Talking to a controller: a certificate for key exchange must be there.
    Everything,
    /// Verifying a bootstrap file: the signing certificate is enough.
    SigningOnly,
}

/// Reads the answer of `/certs`: checks the certificates in it against the root, then its signature
/// against them.
///
/// `root_pem` holds one or more certificates; `now` is for their validity.
pub fn learn(body: &[u8], root_pem: &[u8], now: UnixMillis) -> Result<ControllerCerts, CertsError> {
    let answer = open(body, limits::CERTS)?;
    let certs = check(answer.unverified_payload(), root_pem, now, Need::Everything)?;
    answer.verify(&certs.signer)?;
    Ok(certs)
}

/// Checks the payload of `/certs` (`ZControllerCert`): exactly one signing certificate, one for key
/// exchange or more if needed, no unknown type, and that they chain to a root at the time `now` as
/// TLS server certificates would.
pub fn check(
    payload: &[u8],
    root_pem: &[u8],
    now: UnixMillis,
    need: Need,
) -> Result<ControllerCerts, CertsError> {
    let set: ZControllerCert = wire::decode(payload, limits::CERTS)?;
    if set.certs.is_empty() {
        return Err(CertsError::Empty);
    }
    let mut signing = Vec::new();
    let mut exchange = Vec::new();
    let mut between = Vec::new();
    for (at, zcert) in set.certs.iter().enumerate() {
        let certificate = Certificate::from_pem(&zcert.cert)
            .map_err(|source| CertsError::Certificate { at, source })?;
        match ZCertType::try_from(zcert.r#type) {
            Ok(ZCertType::CertTypeControllerSigning) => signing.push((at, certificate)),
            Ok(ZCertType::CertTypeControllerIntermediate) => {
                between.push(certificate.der().clone())
            }
            Ok(ZCertType::CertTypeControllerEcdhExchange) => exchange.push((at, certificate)),
            _ => return Err(CertsError::UnknownType { at, kind: zcert.r#type }),
        }
    }
    let [(at, leaf)] = signing.as_slice() else {
        return Err(CertsError::Signing { got: signing.len() });
    };
    if need == Need::Everything && exchange.is_empty() {
        return Err(CertsError::NoExchange);
    }

    let roots = roots(root_pem)?;
    for (at, certificate) in signing.iter().chain(&exchange) {
        chains(certificate, &between, &roots, now)
            .map_err(|source| CertsError::Chain { at: *at, source })?;
    }
    for (at, certificate) in &exchange {
        let key =
            certificate.key().map_err(|source| CertsError::Certificate { at: *at, source })?;
        if !matches!(key, PublicKey::P256(_)) {
            return Err(CertsError::ExchangeKey { at: *at });
        }
    }
    let signer = Signer::controller(leaf.pem())
        .map_err(|source| CertsError::Certificate { at: *at, source })?;
    let since = leaf.begins().map_err(|source| CertsError::Certificate { at: *at, source })?;
    Ok(ControllerCerts { signer, since, exchange: exchange.into_iter().map(|(_, c)| c).collect() })
}

/// The payload of `/certs`. Each argument is PEM; its bytes are published as they are, so keep them:
/// devices find the signer by their hash.
pub fn publish(signing: &[u8], exchange: &[&[u8]], intermediates: &[&[u8]]) -> Vec<u8> {
    let of = |kind: ZCertType, pem: &[u8]| ZCert {
        hash_algo: HashAlgorithm::Sha25616bytes.into(),
        cert_hash: sha256(pem).0[..16].to_vec(),
        r#type: kind.into(),
        cert: pem.to_vec(),
        ..ZCert::default()
    };
    let mut certs = vec![of(ZCertType::CertTypeControllerSigning, signing)];
    certs.extend(intermediates.iter().map(|p| of(ZCertType::CertTypeControllerIntermediate, p)));
    certs.extend(exchange.iter().map(|p| of(ZCertType::CertTypeControllerEcdhExchange, p)));
    wire::encode(&ZControllerCert { certs })
}

/// Why a controller's certificates are not believed. `at` counts from 0 in the order of the answer.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// Not an envelope.
    #[error("cannot open the answer with the controller's certificates")]
    Open(#[from] OpenError),
    /// Not a `ZControllerCert`.
    #[error("cannot read the controller's certificates")]
    Wire(#[from] WireError),
    /// There are none.
    #[error("the controller published no certificate")]
    Empty,
    /// One is none, or has a key of an unknown kind.
    #[error("certs[{at}] is no usable certificate")]
    Certificate {
        /// Which.
        at: usize,
        /// Why not.
        source: CertificateError,
    },
    /// A type that no controller certificate has.
    #[error("certs[{at}].type is {kind}, which no controller certificate has")]
    UnknownType {
        /// Which.
        at: usize,
        /// As on the wire.
        kind: i32,
    },
    /// Not exactly one signing certificate.
    #[error("the controller published {got} signing certificates, not one")]
    Signing {
        /// So many.
        got: usize,
    },
    /// No certificate for key exchange.
    #[error("the controller published no certificate for key exchange")]
    NoExchange,
    /// A key exchange certificate whose key is not P-256.
    #[error("the key exchange certificate certs[{at}] has no P-256 key")]
    ExchangeKey {
        /// Which.
        at: usize,
    },
    /// It does not chain to the root.
    #[error("certs[{at}] does not chain to the root certificate")]
    Chain {
        /// Which.
        at: usize,
        /// Why not.
        source: webpki::Error,
    },
    /// The root certificate itself is not usable.
    #[error("cannot read the root certificate")]
    RootPem(#[from] rustls_pki_types::pem::Error),
    /// The root certificate itself is not usable.
    #[error("cannot use the root certificate")]
    Root {
        /// Why not.
        source: webpki::Error,
    },
    /// There is no root certificate in the file.
    #[error("there is no certificate in the root certificate file")]
    NoRoot,
    /// The answer is not signed by the certificate it publishes.
    #[error("the answer is not signed with the published certificate")]
    Signature(#[from] Refusal),
}

impl CertsError {
    /// Whether a wrong clock may be the cause: try again when the time is set.
    pub fn is_about_time(&self) -> bool {
        use webpki::Error::{CertExpired, CertNotValidYet};
        matches!(self, Self::Chain { source: CertExpired { .. } | CertNotValidYet { .. }, .. })
    }
}

impl Diagnose for CertsError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Open(open) => open.diagnose(),
            Self::Wire(wire) => wire.diagnose(),
            Self::RootPem(_) | Self::Root { .. } | Self::NoRoot => {
                Diagnosis::of(Who::Operator, "put the root certificate into the CONFIG partition")
            }
            _ if self.is_about_time() => {
                Diagnosis::of(Who::Operator, "set the clock or renew the certificate")
            }
            Self::Chain { .. } => Diagnosis::of(
                Who::Operator,
                "check that the node's root certificate is that of this controller",
            ),
            Self::Signature(refusal) => refusal.diagnose(),
            _ => Diagnosis::of(Who::Operator, "repair the certificates of the controller"),
        }
    }
}

fn roots(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertsError> {
    let roots = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    if roots.is_empty() { Err(CertsError::NoRoot) } else { Ok(roots) }
}

/// Normal X.509 rules at `now`; without an extended key usage, or with that of a TLS server.
fn chains(
    leaf: &Certificate,
    between: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    now: UnixMillis,
) -> Result<(), webpki::Error> {
    let anchors = roots.iter().map(anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>()?;
    let time = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
    EndEntityCert::try_from(leaf.der())?.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        between,
        time,
        KeyUsage::server_auth(),
        None,
        None,
    )?;
    Ok(())
}
