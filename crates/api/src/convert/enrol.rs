//! Certificates for ports: `SCEPProfile`, `PNAC`.

use std::collections::BTreeMap;

use model::Secret;
use model::desired::{
    CertificateHash, CertificateKey, CertificateRequest, Enrolment, ObjectKind, PortAccess, Refused,
};

use super::hardware::{number, word};
use super::refuse::{Rejected, no, wrong};
use super::secret::{Opener, Sealer, text};
use crate::pb::common::EncryptionBlock;
use crate::pb::config::{CsrProfile, EapMethod, HashAlgorithm, KeyType, Pnac, ScepProfile};

const KEYS: [(CertificateKey, KeyType); 7] = [
    (CertificateKey::Unspecified, KeyType::Unspecified),
    (CertificateKey::Rsa2048, KeyType::Rsa2048),
    (CertificateKey::Rsa3072, KeyType::Rsa3072),
    (CertificateKey::Rsa4096, KeyType::Rsa4096),
    (CertificateKey::EcdsaP256, KeyType::EcdsaP256),
    (CertificateKey::EcdsaP384, KeyType::EcdsaP384),
    (CertificateKey::EcdsaP521, KeyType::EcdsaP521),
];

const HASHES: [(CertificateHash, HashAlgorithm); 4] = [
    (CertificateHash::Unspecified, HashAlgorithm::Unspecified),
    (CertificateHash::Sha256, HashAlgorithm::Sha256),
    (CertificateHash::Sha384, HashAlgorithm::Sha384),
    (CertificateHash::Sha512, HashAlgorithm::Sha512),
];

/// Ways to get certificates, by name.
pub(super) fn read(
    all: &[ScepProfile],
    opener: &mut Opener<'_, '_>,
    refused: &mut Vec<Refused>,
) -> BTreeMap<String, Enrolment> {
    let mut table = BTreeMap::new();
    for p in all {
        match enrolment(p, opener) {
            Ok(e) if !table.contains_key(&e.name) => {
                table.insert(e.name.clone(), e);
            }
            Ok(_) => refused.push(wrong("profile_name", "another profile has it too").of(
                ObjectKind::Enrolment,
                &p.profile_name,
                "",
            )),
            Err(why) => refused.push(why.of(ObjectKind::Enrolment, &p.profile_name, "")),
        }
    }
    table
}

fn enrolment(p: &ScepProfile, opener: &mut Opener<'_, '_>) -> Result<Enrolment, Rejected> {
    if p.profile_name.is_empty() {
        return Err(wrong("profile_name", "it is missing"));
    }
    let http = ["http://", "https://"].iter().any(|s| p.scep_url.starts_with(s));
    if !http {
        return Err(no("scep_url", &p.scep_url, "an http or https URL"));
    }
    let block = opener.block("scep_challenge_password", p.scep_challenge_password.as_ref())?;
    let pem = p.ca_cert_pem.iter().map(|pem| {
        String::from_utf8(pem.clone()).map_err(|_| wrong("ca_cert_pem", "it is no PEM text"))
    });
    Ok(Enrolment {
        name: p.profile_name.clone(),
        url: p.scep_url.clone(),
        via_controller: p.use_controller_proxy,
        challenge: block.and_then(|b| Secret::some(&b.scep_challenge_password)),
        ca_pem: pem.collect::<Result<_, _>>()?,
        request: p.csr_profile.as_ref().map(request).transpose()?.unwrap_or_default(),
    })
}

fn request(p: &CsrProfile) -> Result<CertificateRequest, Rejected> {
    let renew_percent = match u8::try_from(p.renew_period_percent) {
        Ok(percent @ 0..=100) => percent,
        _ => {
            let got = p.renew_period_percent;
            return Err(no("csr_profile.renew_period_percent", got, "0 to 100"));
        }
    };
    Ok(CertificateRequest {
        common_name: p.common_name.clone(),
        organization: p.organization.clone(),
        unit: p.organizational_unit.clone(),
        country: p.country.clone(),
        state: p.state.clone(),
        locality: p.locality.clone(),
        dns: p.san_dns.clone(),
        ip: p.san_ip.clone(),
        uri: p.san_uri.clone(),
        email: p.san_email.clone(),
        renew_percent,
        key: word(&KEYS, p.key_type)
            .ok_or_else(|| no("csr_profile.key_type", p.key_type, "a known kind of key"))?,
        hash: word(&HASHES, p.hash_algorithm)
            .ok_or_else(|| no("csr_profile.hash_algorithm", p.hash_algorithm, "0 to 3"))?,
    })
}

/// A challenge has no clear form: without a seal it is left out.
pub(super) fn write(enrolment: &Enrolment, sealer: &mut Sealer<'_, '_>) -> ScepProfile {
    let request = &enrolment.request;
    ScepProfile {
        profile_name: enrolment.name.clone(),
        scep_url: enrolment.url.clone(),
        use_controller_proxy: enrolment.via_controller,
        scep_challenge_password: sealer.block(&EncryptionBlock {
            scep_challenge_password: text(enrolment.challenge.as_ref()),
            ..EncryptionBlock::default()
        }),
        ca_cert_pem: enrolment.ca_pem.iter().map(|pem| pem.clone().into_bytes()).collect(),
        csr_profile: Some(CsrProfile {
            common_name: request.common_name.clone(),
            organization: request.organization.clone(),
            organizational_unit: request.unit.clone(),
            country: request.country.clone(),
            state: request.state.clone(),
            locality: request.locality.clone(),
            san_dns: request.dns.clone(),
            san_ip: request.ip.clone(),
            san_uri: request.uri.clone(),
            san_email: request.email.clone(),
            renew_period_percent: request.renew_percent.into(),
            key_type: number(&KEYS, &request.key),
            hash_algorithm: number(&HASHES, &request.hash),
        }),
    }
}

/// How ports prove who they are, by the port's label.
pub(super) fn read_access(
    all: &[Pnac],
    refused: &mut Vec<Refused>,
) -> BTreeMap<String, PortAccess> {
    let mut table = BTreeMap::new();
    for p in all {
        let why = if p.logicallabel.is_empty() {
            Some(wrong("logicallabel", "it is missing"))
        } else if table.contains_key(&p.logicallabel) {
            Some(wrong("logicallabel", "another object has it too"))
        } else if p.eap_method != i32::from(EapMethod::Tls) {
            Some(no("eap_method", p.eap_method, "TLS (1); others are not supported yet"))
        } else {
            None
        };
        if let Some(why) = why {
            refused.push(why.of(ObjectKind::PortAccess, &p.logicallabel, ""));
            continue;
        }
        table.insert(
            p.logicallabel.clone(),
            PortAccess {
                port: p.logicallabel.clone(),
                identity: p.eap_identity.clone(),
                enrolment: p.cert_enrollment_profile_name.clone(),
            },
        );
    }
    table
}

pub(super) fn write_access(access: &PortAccess) -> Pnac {
    Pnac {
        logicallabel: access.port.clone(),
        eap_identity: access.identity.clone(),
        eap_method: EapMethod::Tls.into(),
        cert_enrollment_profile_name: access.enrolment.clone(),
    }
}
