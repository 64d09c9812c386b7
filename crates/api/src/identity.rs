//! Keys and certificates of the two sides.
//!
//! P-256 everywhere: that is what EVE devices have. No key is ever read from or written to a file
//! here; PEM goes in and out.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsBigEndian as _, EcPrivateKeyBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use model::{Bytes, Diagnose, Diagnosis, Digest, UnixMillis, Who};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::asn1_rs::Any;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ECDSA_WITH_SHA256,
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate, X509Name};
use zeroize::Zeroizing;

use crate::cipher::ExchangeKey;

/// What a PEM certificate may have: `pemCert` is limited to this in EVE.
const CERTIFICATE_MAX: Bytes = Bytes(10_240);
/// A P-256 key takes some 240 bytes of PEM.
const KEY_MAX: Bytes = Bytes::kib(16);
/// How long a device certificate is valid: 20 years, leap days included.
const DEVICE_CERTIFICATE_DAYS: i64 = 20 * 365 + 5;

/// A key could not be read, made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not PEM with a private key.
    #[error("cannot read a private key from PEM")]
    Pem {
        /// Why not.
        source: rustls_pki_types::pem::Error,
    },
    /// Longer than any P-256 key.
    #[error("a private key of {got} is no P-256 key")]
    TooLong {
        /// Its size.
        got: Bytes,
    },
    /// Not a P-256 key in PKCS#8 or SEC 1.
    #[error("the private key is not a P-256 key")]
    NotP256 {
        /// What the crypto library says.
        source: aws_lc_rs::error::KeyRejected,
    },
    /// The crypto library failed, which it does for want of memory or randomness only.
    #[error("cannot {what}")]
    Crypto {
        /// What it was to do.
        what: &'static str,
        /// It says no more.
        source: aws_lc_rs::error::Unspecified,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Certificate {
        /// Why not.
        source: rcgen::Error,
    },
    /// The time does not fit into a certificate.
    #[error("cannot make a certificate valid from {at:?} on")]
    Time {
        /// The time.
        at: UnixMillis,
    },
}

impl Diagnose for KeyError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Pem { .. } | Self::TooLong { .. } | Self::NotP256 { .. } => {
                Diagnosis::of(Who::Operator, "put a P-256 key in PEM where the key is expected")
            }
            Self::Time { .. } => Diagnosis::of(Who::Hardware, "set the clock"),
            Self::Crypto { .. } | Self::Certificate { .. } => {
                Diagnosis::of(Who::Developer, "report this with the log")
            }
        }
    }
}

/// A P-256 key that signs.
pub struct SigningKey(EcdsaKeyPair);

impl SigningKey {
    /// A fresh one, from the system's randomness.
    pub fn generate() -> Result<SigningKey, KeyError> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map(SigningKey)
            .map_err(|source| KeyError::Crypto { what: "generate a key", source })
    }

    /// Reads PKCS#8 (`PRIVATE KEY`) or SEC 1 (`EC PRIVATE KEY`).
    pub fn from_pem(pem: &[u8]) -> Result<SigningKey, KeyError> {
        let got = Bytes(pem.len() as u64);
        if got > KEY_MAX {
            return Err(KeyError::TooLong { got });
        }
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|source| KeyError::Pem { source })?;
        EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der())
            .map(SigningKey)
            .map_err(|source| KeyError::NotP256 { source })
    }

    /// As PKCS#8 PEM, for the file it lives in.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        Ok(pem("PRIVATE KEY", self.pkcs8()?.as_ref()))
    }

    /// r and s of the ECDSA signature over SHA-256 of `message`, 32 bytes each.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], KeyError> {
        let failed = |source| KeyError::Crypto { what: "sign", source };
        let signature = self.0.sign(&SystemRandom::new(), message).map_err(failed)?;
        signature.as_ref().try_into().map_err(|_| failed(aws_lc_rs::error::Unspecified))
    }

    /// The public half, as an uncompressed point.
    pub fn public_point(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// The private number, 32 bytes, big endian.
    pub(crate) fn scalar(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let number: EcPrivateKeyBin<'_> = self
            .0
            .private_key()
            .as_be_bytes()
            .map_err(|source| KeyError::Crypto { what: "export a key", source })?;
        Ok(Zeroizing::new(number.as_ref().to_vec()))
    }

    /// The key as the maker of certificates takes it.
    fn pair(&self) -> Result<rcgen::KeyPair, KeyError> {
        let pkcs8 = rustls_pki_types::PrivatePkcs8KeyDer::from(self.pkcs8()?.as_ref().to_vec());
        rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|source| KeyError::Certificate { source })
    }

    fn pkcs8(&self) -> Result<aws_lc_rs::pkcs8::Document, KeyError> {
        self.0.to_pkcs8v1().map_err(|source| KeyError::Crypto { what: "export a key", source })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(secret)")
    }
}

/// A device's certificate for its own key, as EVE makes it: self-signed, O "The Linux Foundation",
/// CN "EVE", a CA, for clients and servers, valid from the day before `now` for 20 years. The same
/// key and time give the same content (the signature is random).
pub fn device_certificate(key: &SigningKey, now: UnixMillis) -> Result<Certificate, KeyError> {
    use rcgen::{BasicConstraints, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

    let failed = |source| KeyError::Certificate { source };
    let mut params = rcgen::CertificateParams::default();
    // The default has a name of the library in it.
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "The Linux Foundation");
    params.distinguished_name.push(DnType::CommonName, "EVE");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = twenty_years(now)?;
    let made = params.self_signed(&key.pair()?).map_err(failed)?;
    Ok(Certificate { der: made.der().clone(), pem: pem("CERTIFICATE", made.der()).into_bytes() })
}

/// A device's certificate for key exchange, as EVE makes it: CN "Device ECDH certificate", signed by
/// the device, valid as long as a device certificate made at `now`. `device` is the certificate of
/// `device_key`.
pub fn exchange_certificate(
    device_key: &SigningKey,
    device: &Certificate,
    key: &ExchangeKey,
    now: UnixMillis,
) -> Result<Certificate, KeyError> {
    use rcgen::{DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

    let failed = |source| KeyError::Certificate { source };
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "The Linux Foundation");
    params.distinguished_name.push(DnType::CommonName, "Device ECDH certificate");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = twenty_years(now)?;
    let issuer =
        rcgen::Issuer::from_ca_cert_der(&device.der, device_key.pair()?).map_err(failed)?;
    let made = params.signed_by(&key.pair().pair()?, &issuer).map_err(failed)?;
    Ok(Certificate { der: made.der().clone(), pem: pem("CERTIFICATE", made.der()).into_bytes() })
}

/// From the day before `now` on.
fn twenty_years(now: UnixMillis) -> Result<(time::OffsetDateTime, time::OffsetDateTime), KeyError> {
    let failed = KeyError::Time { at: now };
    let start = i64::try_from(now.0 / 1000)
        .ok()
        .and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok())
        .and_then(|t| t.checked_sub(time::Duration::DAY));
    let end = start.and_then(|t| t.checked_add(time::Duration::days(DEVICE_CERTIFICATE_DAYS)));
    start.zip(end).ok_or(failed)
}

/// Bytes that are no certificate, or none for us.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Longer than EVE accepts.
    #[error("a certificate of {got} is longer than {CERTIFICATE_MAX}")]
    TooLong {
        /// Its size.
        got: Bytes,
    },
    /// Not PEM with a certificate.
    #[error("cannot read a certificate from PEM")]
    Pem {
        /// Why not.
        source: rustls_pki_types::pem::Error,
    },
    /// Not X.509.
    #[error("cannot parse the certificate")]
    Parse {
        /// Why not.
        source: x509_parser::nom::Err<x509_parser::error::X509Error>,
    },
    /// Neither P-256 nor RSA.
    #[error("the certificate has a key of type {oid}, not P-256 or RSA")]
    KeyType {
        /// The object identifier of its algorithm or curve.
        oid: String,
    },
    /// An RSA key, which only controllers may have.
    #[error("the certificate has an RSA key; devices sign with P-256")]
    DeviceKey,
}

impl Diagnose for CertificateError {
    fn diagnose(&self) -> Diagnosis {
        Diagnosis::of(Who::Operator, "replace the certificate with one of a P-256 key, as PEM")
    }
}

/// A certificate in PEM, as someone handed it over. That it says nothing false is for its user to
/// check.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    pem: Vec<u8>,
    der: CertificateDer<'static>,
}

/// When a certificate (DER) ends: `notAfter` of X.509. What ended before 1970 ends at 0.
pub fn end_of(der: &[u8]) -> Result<UnixMillis, CertificateError> {
    let parse = |source| CertificateError::Parse { source };
    let (_, x509) = X509Certificate::from_der(der).map_err(parse)?;
    let seconds = u64::try_from(x509.validity().not_after.timestamp()).unwrap_or_default();
    Ok(UnixMillis(seconds.saturating_mul(1000)))
}

/// When a certificate (DER) begins: `notBefore` of X.509. What began before 1970 began at 0.
pub fn begin_of(der: &[u8]) -> Result<UnixMillis, CertificateError> {
    let parse = |source| CertificateError::Parse { source };
    let (_, x509) = X509Certificate::from_der(der).map_err(parse)?;
    let seconds = u64::try_from(x509.validity().not_before.timestamp()).unwrap_or_default();
    Ok(UnixMillis(seconds.saturating_mul(1000)))
}

/// The names and addresses that a certificate (DER) is for: the DNS names and IP addresses of its
/// `subjectAltName`, in its order. An address that is none is left out.
pub fn names_of(der: &[u8]) -> Result<Vec<String>, CertificateError> {
    let parse = |source| CertificateError::Parse { source };
    let (_, x509) = X509Certificate::from_der(der).map_err(parse)?;
    let Ok(Some(names)) = x509.subject_alternative_name() else { return Ok(Vec::new()) };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
        },
        _ => None,
    };
    Ok(names.value.general_names.iter().filter_map(name).collect())
}

/// Who issued a certificate, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuance {
    /// Its subject: the content of the DER sequence, as trust anchors of TLS keep it.
    pub subject: Vec<u8>,
    /// Its issuer, alike.
    pub issuer: Vec<u8>,
    /// The issuer for people: `CN=Example Intermediate, O=Example`.
    pub issuer_said: String,
}

/// Who issued a certificate (DER), and to whom.
pub fn issuance_of(der: &[u8]) -> Result<Issuance, CertificateError> {
    let parse = |source| CertificateError::Parse { source };
    let (_, x509) = X509Certificate::from_der(der).map_err(parse)?;
    let content = |name: &X509Name<'_>| {
        let inner = Any::from_der(name.as_raw()).map(|(_, any)| any.data.to_vec());
        inner.unwrap_or_default()
    };
    Ok(Issuance {
        subject: content(x509.subject()),
        issuer: content(x509.issuer()),
        issuer_said: x509.issuer().to_string(),
    })
}

impl Certificate {
    /// Reads the first certificate in a PEM text of at most 10,240 bytes. The text is kept as it
    /// is.
    pub fn from_pem(pem: &[u8]) -> Result<Certificate, CertificateError> {
        let got = Bytes(pem.len() as u64);
        if got > CERTIFICATE_MAX {
            return Err(CertificateError::TooLong { got });
        }
        let der = CertificateDer::from_pem_slice(pem)
            .map_err(|source| CertificateError::Pem { source })?;
        // Whatever passes here parses for ever.
        X509Certificate::from_der(&der).map_err(|source| CertificateError::Parse { source })?;
        Ok(Certificate { pem: pem.to_vec(), der })
    }

    /// The text it was read from, to the byte.
    pub fn pem(&self) -> &[u8] {
        &self.pem
    }

    /// The certificate proper.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// SHA-256 over the DER: what a device is known by.
    pub fn digest(&self) -> Digest {
        sha256(&self.der)
    }

    /// The common name of its subject; empty without one.
    pub fn common_name(&self) -> String {
        let parsed = x509_parser::parse_x509_certificate(&self.der);
        let name = parsed.ok().and_then(|(_, c)| {
            let name = c.subject().iter_common_name().next()?;
            name.as_str().ok().map(str::to_owned)
        });
        name.unwrap_or_default()
    }

    /// When it begins.
    pub fn begins(&self) -> Result<UnixMillis, CertificateError> {
        begin_of(&self.der)
    }

    /// When it ends.
    pub fn ends(&self) -> Result<UnixMillis, CertificateError> {
        end_of(&self.der)
    }

    /// Whether it bears the signature (ECDSA with SHA-256) of the P-256 key in `issuer`, and names it
    /// as its issuer. Validity in time and usage are not looked at: nodes' further certificates are
    /// made by EVE with the device key and never renewed.
    pub fn is_signed_by(&self, issuer: &Certificate) -> Result<bool, CertificateError> {
        let parse = |source| CertificateError::Parse { source };
        let (_, own) = X509Certificate::from_der(&self.der).map_err(parse)?;
        let (_, other) = X509Certificate::from_der(&issuer.der).map_err(parse)?;
        Ok(own.issuer() == other.subject()
            && own.signature_algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA256
            && issuer.key()?.verifies_der(own.tbs_certificate.as_ref(), &own.signature_value.data))
    }

    pub(crate) fn key(&self) -> Result<PublicKey, CertificateError> {
        let (_, x509) = X509Certificate::from_der(&self.der)
            .map_err(|source| CertificateError::Parse { source })?;
        let spki = x509.public_key();
        let key = spki.subject_public_key.data.to_vec();
        let kind = &spki.algorithm.algorithm;
        if *kind == OID_PKCS1_RSAENCRYPTION {
            return Ok(PublicKey::Rsa(key));
        }
        let curve = spki.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
        match curve {
            Some(curve) if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == OID_EC_P256 => {
                Ok(PublicKey::P256(key))
            }
            other => {
                let oid = other.as_ref().unwrap_or(kind).to_id_string();
                Err(CertificateError::KeyType { oid })
            }
        }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.digest())
    }
}

/// A key that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// A point of P-256.
    P256(Vec<u8>),
    /// An `RSAPublicKey` in DER. Some controllers have one; devices never do.
    Rsa(Vec<u8>),
}

impl PublicKey {
    /// Whether `signature` is one over SHA-256 of `message`: r and s for P-256, PKCS#1 v1.5 for
    /// RSA. DER signatures are refused.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            PublicKey::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(message, signature)
                .is_ok(),
            PublicKey::Rsa(der) => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der)
                .verify(message, signature)
                .is_ok(),
        }
    }

    /// Whether `signature` is an ECDSA signature in ASN.1 DER over SHA-256 of `message`, as
    /// certificates and quotes have it. Never true of an RSA key.
    pub(crate) fn verifies_der(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            PublicKey::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
                .verify(message, signature)
                .is_ok(),
            PublicKey::Rsa(_) => false,
        }
    }
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let mut raw = [0; 32];
    raw.copy_from_slice(digest(&SHA256, bytes).as_ref());
    Digest(raw)
}

/// PEM as RFC 7468 has it: lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_key_are_read() {
        let key = SigningKey::generate().unwrap();
        let pkcs8 = key.pkcs8().unwrap();
        // RFC 5915: version 1, the number, P-256, the point.
        let number = pkcs8.as_ref().windows(2).position(|w| w == [0x04, 0x20]).unwrap() + 2;
        let number = &pkcs8.as_ref()[number..number + 32];
        let curve = [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        let sec1 = [
            &[0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20][..],
            number,
            &curve,
            &[0xa1, 0x44, 0x03, 0x42, 0x00],
            key.public_point(),
        ]
        .concat();
        let read = SigningKey::from_pem(pem("EC PRIVATE KEY", &sec1).as_bytes()).unwrap();
        assert_eq!(read.to_pem().unwrap(), key.to_pem().unwrap());
    }

    #[test]
    fn a_device_certificate_says_what_eve_devices_say() {
        let now = UnixMillis(1_767_323_045_000);
        let made = device_certificate(&SigningKey::generate().unwrap(), now).unwrap();
        let (_, x509) = X509Certificate::from_der(made.der()).unwrap();
        assert_eq!(x509.subject().to_string(), "O=The Linux Foundation, CN=EVE");
        assert_eq!(x509.subject(), x509.issuer());
        assert!(x509.is_ca());
        let validity = x509.validity();
        let end = u64::try_from(validity.not_after.timestamp()).unwrap() * 1000;
        assert_eq!(made.ends().unwrap(), UnixMillis(end));
        assert_eq!(validity.not_before.timestamp(), 1_767_323_045 - 86_400);
        let years =
            validity.not_after.to_datetime().year() - validity.not_before.to_datetime().year();
        assert_eq!(years, 20);
        let usage = x509.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && usage.key_cert_sign());
        let usage = x509.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && usage.server_auth);
    }
    #[test]
    fn a_certificate_for_key_exchange_is_signed_by_its_device() {
        let now = UnixMillis(1_767_323_045_000);
        let key = SigningKey::generate().unwrap();
        let device = device_certificate(&key, now).unwrap();
        let exchange = ExchangeKey::generate().unwrap();
        let made = exchange_certificate(&key, &device, &exchange, now).unwrap();
        assert_eq!(made.key().unwrap(), PublicKey::P256(exchange.public_point().to_vec()));
        assert!(made.is_signed_by(&device).unwrap());
        assert!(!made.is_signed_by(&made).unwrap());
        let other = device_certificate(&SigningKey::generate().unwrap(), now).unwrap();
        assert!(!made.is_signed_by(&other).unwrap());
        assert!(device.is_signed_by(&device).unwrap());
    }
}
