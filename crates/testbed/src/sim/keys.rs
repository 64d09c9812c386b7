//! Keys and certificates of simulated devices: keys follow from a seed, so that a fleet of a hundred
//! thousand needs no key in memory.
//!
//! None of it is secret: whoever knows the seed has the keys. Certificates are as EVE makes them
//! (EVE API, "TLS, keys and files"); their signatures are random, so a certificate must be kept once
//! it was shown to a controller.

use anyhow::Context;
use api::{Certificate, SigningKey, device_certificate};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::UnixMillis;
use sha2::{Digest as _, Sha256};

/// What a key is for; each has a key of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Signs envelopes: the device's identity.
    Device,
    /// Agrees on keys for secrets.
    Ecdh,
    /// Signs quotes, as the restricted key of a TPM does.
    Attest,
    /// Registers: the onboarding key, shared by devices.
    Onboard,
}

impl Use {
    fn label(self) -> &'static str {
        match self {
            Use::Device => "device",
            Use::Ecdh => "ecdh",
            Use::Attest => "attest",
            Use::Onboard => "onboard",
        }
    }

    /// The common name of certificates that the device key signs.
    fn common_name(self) -> &'static str {
        match self {
            Use::Ecdh => "Device ECDH certificate",
            Use::Attest => "Device Attestation certificate",
            Use::Device | Use::Onboard => "EVE",
        }
    }
}

/// The P-256 key of a device for a use: the same for the same seed, index and use.
pub fn key(seed: u64, index: u32, what: Use) -> anyhow::Result<SigningKey> {
    let mut tried = 0u32;
    loop {
        let mut hash = Sha256::new();
        hash.update(seed.to_be_bytes());
        hash.update(index.to_be_bytes());
        hash.update(tried.to_be_bytes());
        hash.update(what.label());
        // All but one of 2^32 hashes are below the order of the curve and hence a key.
        match SigningKey::from_pem(sec1_pem(&hash.finalize()).as_bytes()) {
            Ok(key) => return Ok(key),
            Err(_) if tried < 4 => tried += 1,
            Err(e) => return Err(e).context("cannot derive a key from a seed"),
        }
    }
}

/// RFC 5915: version 1, the number, P-256; the point may be left out.
fn sec1_pem(scalar: &[u8]) -> String {
    let mut der = vec![0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20];
    der.extend_from_slice(scalar);
    der.extend_from_slice(&[
        0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
    ]);
    format!(
        "-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n",
        STANDARD.encode(der)
    )
}

/// The self-signed certificate of a device key, valid from the day before `now` for 20 years.
pub fn own_certificate(key: &SigningKey, now: UnixMillis) -> anyhow::Result<Certificate> {
    device_certificate(key, now).context("cannot make a device certificate")
}

/// A certificate for `subject`, signed by the device key; 20 years like the device's own.
pub fn certificate_by_device(
    device: &SigningKey,
    subject: &SigningKey,
    what: Use,
    now: UnixMillis,
) -> anyhow::Result<Certificate> {
    use rcgen::{
        CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    };

    let organization = "The Linux Foundation";
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = rcgen::DistinguishedName::new();
    issuer.distinguished_name.push(DnType::OrganizationName, organization);
    issuer.distinguished_name.push(DnType::CommonName, "EVE");
    issuer.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    let issuer = Issuer::new(issuer, KeyPair::from_pem(&device.to_pem()?)?);

    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, what.common_name());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let seconds = i64::try_from(now.0 / 1000).unwrap_or(i64::MAX);
    let start = time::OffsetDateTime::from_unix_timestamp(seconds)? - time::Duration::DAY;
    params.not_before = start;
    params.not_after = start + time::Duration::days(20 * 365 + 5);
    let made = params.signed_by(&KeyPair::from_pem(&subject.to_pem()?)?, &issuer)?;
    Ok(Certificate::from_pem(made.pem().as_bytes())?)
}

/// The signature r‖s as ASN.1 DER: what TPM quotes carry, unlike envelopes.
pub fn der_signature(raw: &[u8; 64]) -> Vec<u8> {
    let (r, s) = raw.split_at(32);
    let integers = [integer(r), integer(s)].concat();
    // Two integers of at most 35 bytes: the short form of a length does.
    let mut der = vec![0x30, u8::try_from(integers.len()).unwrap_or(u8::MAX)];
    der.extend_from_slice(&integers);
    der
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    let digits = bytes.get(zeros..).unwrap_or_default();
    let positive = digits.first().is_none_or(|b| b & 0x80 != 0);
    let length = digits.len() + usize::from(positive);
    let mut der = vec![0x02, u8::try_from(length).unwrap_or(u8::MAX)];
    der.extend(positive.then_some(0));
    der.extend_from_slice(digits);
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_key_and_another_use_another() {
        let point = |seed, index, what| key(seed, index, what).unwrap().public_point().to_vec();
        assert_eq!(point(1, 2, Use::Device), point(1, 2, Use::Device));
        for other in [(2, 2, Use::Device), (1, 3, Use::Device), (1, 2, Use::Attest)] {
            assert_ne!(point(1, 2, Use::Device), point(other.0, other.1, other.2));
        }
    }

    #[test]
    fn integers_of_a_signature_are_positive_and_short() {
        let mut raw = [0u8; 64];
        raw[31] = 0x80;
        raw[63] = 0x7f;
        assert_eq!(der_signature(&raw), [0x30, 7, 2, 2, 0, 0x80, 2, 1, 0x7f]);
        assert_eq!(der_signature(&[0xff; 64]).len(), 2 + 2 * 35);
    }
}
