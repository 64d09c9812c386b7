//! Attestation: what a node asks and what a controller answers, one message each way for all of it.
//!
//! Nothing is judged here: [`crate::quote`] verifies a quote, [`crate::eventlog`] reads its log. The
//! node's place is not read.

use std::fmt;

use model::{Diagnose, Diagnosis, Who};

use crate::limits;
use crate::pb::attest::{
    AttestPolicyPcrList, AttestStorageKeys, AttestStorageKeysResp, AttestStorageKeysResponseCode,
    AttestVersionInfo, AttestVersionType, AttestVolumeKey, TpmPcrValue, ZAttestNonceResp,
    ZAttestQuote, ZAttestQuoteResp, ZAttestReq, ZAttestReqType, ZAttestRespType, ZAttestResponse,
    ZAttestResponseCode,
};
use crate::pb::certs::{ZCert, ZCertAttr, ZCertType};
use crate::pb::common::HashAlgorithm;
use crate::wire::{self, WireError};

/// What a node asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Keep these certificates of mine.
    Certificates(Vec<NodeCertificate>),
    /// Give me a nonce to quote with.
    Nonce,
    /// Believe this.
    Quote(Quote),
    /// Keep keys that my TPM sealed.
    StoreKeys(StoredKeys),
}

/// A certificate of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCertificate {
    /// What for.
    pub purpose: Purpose,
    /// The first 16 bytes of the SHA-256 of `pem`, as the node says.
    pub hash: Vec<u8>,
    /// PEM, as the node says.
    pub pem: Vec<u8>,
    /// It may change: its key is in a file and not in a TPM.
    pub mutable: bool,
}

/// What a node's certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Registering.
    Onboarding,
    /// Signing quotes.
    RestrictedSigning,
    /// Proving which TPM it is.
    EndorsementRsa,
    /// Agreeing on keys for secrets.
    KeyExchange,
}

/// What a node says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quote {
    /// A `TPMS_ATTEST` structure. Without a TPM: the nonce, or nothing.
    pub data: Vec<u8>,
    /// Over `data`; ASN.1 DER. Empty without a TPM.
    pub signature: Vec<u8>,
    /// Values of platform registers; none without a TPM.
    pub registers: Vec<Register>,
    /// The version of EVE that runs; empty if it is not said.
    pub version: String,
    /// Maker, version and date of the firmware, as EVE joins them; empty if it is not said.
    pub firmware: String,
    /// Where this EVE comes from; empty if it is not said.
    pub origin: String,
    /// The TCG event log of this boot, gzip, as it came; empty if the node has none or it is too
    /// long. [`crate::eventlog`] reads it.
    pub event_log: Vec<u8>,
}

/// Keys to be kept for a node, and the proof that it may ask so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredKeys {
    /// The integrity token of a quote that was believed.
    pub token: Vec<u8>,
    /// The keys.
    pub keys: Vec<VolumeKey>,
}

/// A key of a node's encrypted volume, sealed so that only its TPM can use it. It goes back to the
/// node after a quote that is believed, and never otherwise.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct VolumeKey {
    /// The number that the API has for its kind: 1, a volume storage key.
    pub kind: i32,
    /// A serialized `AttestVolumeKeyData`; only the node looks into it.
    pub key: Vec<u8>,
    /// The registers that the node seals its volume to. `None`: not said.
    pub policy: Option<SealPolicy>,
}

impl fmt::Debug for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, bytes, policy) = (self.kind, self.key.len(), &self.policy);
        write!(f, "VolumeKey {{ kind: {kind}, key: {bytes} bytes, policy: {policy:?} }}")
    }
}

/// Registers that a node seals its volume to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SealPolicy {
    /// Which, 0 to 23.
    pub registers: Vec<u32>,
    /// The number of the policy.
    pub id: u32,
}

/// What a node gets whose quote is believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// It shows this with each request for its config.
    pub token: Vec<u8>,
    /// Keys that were kept for it.
    pub keys: Vec<VolumeKey>,
}

impl From<Vec<u8>> for Admission {
    /// A token, and no keys.
    fn from(token: Vec<u8>) -> Admission {
        Admission { token, keys: Vec::new() }
    }
}

/// A platform register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// Which.
    pub index: u32,
    /// The number that the API has for its hash algorithm.
    pub algorithm: i32,
    /// What it holds.
    pub value: Vec<u8>,
}

/// What a controller answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The certificates are kept.
    Certificates,
    /// The nonce, for one use.
    Nonce(Vec<u8>),
    /// The quote is believed, or not.
    Quote(Result<Admission, Refusal>),
    /// The keys are kept.
    KeysKept,
    /// The keys are not kept: they come with a token that is none of ours.
    KeysRefused,
}

/// Why a quote is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was made with another nonce, or there was none.
    #[error("its nonce is not the one that was given")]
    NonceMismatch,
    /// There is no certificate to check it with.
    #[error("the certificate that it was signed with is not known")]
    NoCertificate,
    /// It could not be checked, or is wrong.
    #[error("it does not prove what runs")]
    QuoteFailed,
    /// A number that we have no name for.
    #[error("code {0}")]
    Other(i32),
}

/// A message of attestation that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// Not the message it should be.
    #[error("cannot read the message")]
    Wire(#[from] WireError),
    /// It says neither what is asked nor what is answered, or nothing that we know.
    #[error("{field} is missing or unknown: {value}")]
    Kind {
        /// Which field.
        field: &'static str,
        /// As on the wire.
        value: i32,
    },
}

impl Diagnose for AttestError {
    fn diagnose(&self) -> Diagnosis {
        match self {
            Self::Wire(e) => e.diagnose(),
            Self::Kind { .. } => {
                Diagnosis::of(Who::Developer, "node and controller differ in what they speak")
            }
        }
    }
}

impl Purpose {
    /// The number that the API has for it.
    pub fn number(self) -> i32 {
        ZCertType::from(self).into()
    }
}

impl From<Purpose> for ZCertType {
    fn from(purpose: Purpose) -> ZCertType {
        match purpose {
            Purpose::Onboarding => ZCertType::CertTypeDeviceOnboarding,
            Purpose::RestrictedSigning => ZCertType::CertTypeDeviceRestrictedSigning,
            Purpose::EndorsementRsa => ZCertType::CertTypeDeviceEndorsementRsa,
            Purpose::KeyExchange => ZCertType::CertTypeDeviceEcdhExchange,
        }
    }
}

impl Request {
    /// The payload of `attest`.
    pub fn to_payload(&self) -> Vec<u8> {
        let mut message = ZAttestReq::default();
        let kind = match self {
            Request::Certificates(certificates) => {
                message.certs = certificates.iter().map(NodeCertificate::to_wire).collect();
                ZAttestReqType::AttestReqCert
            }
            Request::Nonce => ZAttestReqType::AttestReqNonce,
            Request::Quote(quote) => {
                message.quote = Some(quote.to_wire());
                ZAttestReqType::AttestReqQuote
            }
            Request::StoreKeys(stored) => {
                message.storage_keys = Some(AttestStorageKeys {
                    integrity_token: stored.token.clone(),
                    keys: stored.keys.iter().map(VolumeKey::to_wire).collect(),
                });
                ZAttestReqType::StoreKeys
            }
        };
        message.set_req_type(kind);
        wire::encode(&message)
    }

    /// Reads the payload of `attest`.
    pub fn from_payload(payload: &[u8]) -> Result<Request, AttestError> {
        let message: ZAttestReq = wire::decode(payload, limits::ATTEST)?;
        Ok(match message.req_type() {
            ZAttestReqType::AttestReqCert => {
                let read = message.certs.into_iter().map(NodeCertificate::from_wire);
                let read = read.filter_map(Result::transpose);
                Request::Certificates(read.collect::<Result<_, _>>()?)
            }
            ZAttestReqType::AttestReqNonce => Request::Nonce,
            ZAttestReqType::AttestReqQuote => {
                Request::Quote(Quote::from_wire(message.quote.unwrap_or_default()))
            }
            ZAttestReqType::StoreKeys => {
                let stored = message.storage_keys.unwrap_or_default();
                let keys = stored.keys.into_iter().map(VolumeKey::from_wire).collect();
                Request::StoreKeys(StoredKeys { token: stored.integrity_token, keys })
            }
            ZAttestReqType::AttestReqNone => {
                let value = message.req_type;
                return Err(AttestError::Kind { field: "ZAttestReq.reqType", value });
            }
        })
    }
}

impl VolumeKey {
    fn to_wire(&self) -> AttestVolumeKey {
        let list = |p: &SealPolicy| AttestPolicyPcrList {
            pcr_indices: p.registers.clone(),
            policy_id: p.id,
        };
        AttestVolumeKey {
            key_type: self.kind,
            key: self.key.clone(),
            has_policy_pcr_list: self.policy.is_some(),
            policy_pcr_list: self.policy.as_ref().map(list),
        }
    }

    fn from_wire(key: AttestVolumeKey) -> VolumeKey {
        let list = key.policy_pcr_list.unwrap_or_default();
        let policy = SealPolicy { registers: list.pcr_indices, id: list.policy_id };
        VolumeKey {
            kind: key.key_type,
            key: key.key,
            policy: key.has_policy_pcr_list.then_some(policy),
        }
    }
}

impl NodeCertificate {
    fn to_wire(&self) -> ZCert {
        let attributes = ZCertAttr { is_mutable: self.mutable, is_tpm: !self.mutable };
        ZCert {
            hash_algo: HashAlgorithm::Sha25616bytes.into(),
            cert_hash: self.hash.clone(),
            r#type: self.purpose.number(),
            cert: self.pem.clone(),
            attributes: Some(attributes),
            ..ZCert::default()
        }
    }

    /// `None`: of a kind that came after us. A node would get none of its secrets if that made its
    /// other certificates unusable.
    fn from_wire(cert: ZCert) -> Result<Option<NodeCertificate>, AttestError> {
        let Ok(kind) = ZCertType::try_from(cert.r#type) else { return Ok(None) };
        let purpose = match kind {
            ZCertType::CertTypeDeviceOnboarding => Purpose::Onboarding,
            ZCertType::CertTypeDeviceRestrictedSigning => Purpose::RestrictedSigning,
            ZCertType::CertTypeDeviceEndorsementRsa => Purpose::EndorsementRsa,
            ZCertType::CertTypeDeviceEcdhExchange => Purpose::KeyExchange,
            ZCertType::CertTypeControllerNone
            | ZCertType::CertTypeControllerSigning
            | ZCertType::CertTypeControllerIntermediate
            | ZCertType::CertTypeControllerEcdhExchange => {
                return Err(AttestError::Kind { field: "ZCert.type", value: cert.r#type });
            }
        };
        // EVE says `is_tpm`, and leaves `is_mutable` out also for a key in a file.
        let mutable = cert.attributes.is_none_or(|a| a.is_mutable || !a.is_tpm);
        Ok(Some(NodeCertificate { purpose, hash: cert.cert_hash, pem: cert.cert, mutable }))
    }
}

impl Quote {
    fn to_wire(&self) -> ZAttestQuote {
        let register = |r: &Register| TpmPcrValue {
            index: r.index,
            hash_algo: r.algorithm,
            value: r.value.clone(),
        };
        let versions = [
            (AttestVersionType::Eve, &self.version),
            (AttestVersionType::Firmware, &self.firmware),
            (AttestVersionType::EveOrigin, &self.origin),
        ];
        let version = |(kind, version): (AttestVersionType, &String)| AttestVersionInfo {
            version_type: kind.into(),
            version: version.clone(),
        };
        let said = versions.into_iter().filter(|(_, version)| !version.is_empty());
        ZAttestQuote {
            attest_data: self.data.clone(),
            signature: self.signature.clone(),
            pcr_values: self.registers.iter().map(register).collect(),
            versions: said.map(version).collect(),
            tpm_binary_event_log: self.event_log.clone(),
            ..ZAttestQuote::default()
        }
    }

    fn from_wire(quote: ZAttestQuote) -> Quote {
        let register =
            |r: TpmPcrValue| Register { index: r.index, algorithm: r.hash_algo, value: r.value };
        let version = |kind| {
            let mut all = quote.versions.iter().filter(|v| v.version_type() == kind);
            all.next().map(|v| v.version.clone()).unwrap_or_default()
        };
        Quote {
            version: version(AttestVersionType::Eve),
            firmware: version(AttestVersionType::Firmware),
            origin: version(AttestVersionType::EveOrigin),
            data: quote.attest_data,
            signature: quote.signature,
            registers: quote.pcr_values.into_iter().map(register).collect(),
            event_log: quote.tpm_binary_event_log,
        }
    }
}

impl Answer {
    /// The payload of the answer.
    pub fn to_payload(&self) -> Vec<u8> {
        let mut message = ZAttestResponse::default();
        let kind = match self {
            Answer::Certificates => ZAttestRespType::AttestRespCert,
            Answer::Nonce(nonce) => {
                message.nonce = Some(ZAttestNonceResp { nonce: nonce.clone() });
                ZAttestRespType::AttestRespNonce
            }
            Answer::Quote(verdict) => {
                let (response, integrity_token, keys) = match verdict {
                    Ok(admission) => (
                        ZAttestResponseCode::Success.into(),
                        admission.token.clone(),
                        admission.keys.iter().map(VolumeKey::to_wire).collect(),
                    ),
                    Err(refusal) => (refusal.number(), Vec::new(), Vec::new()),
                };
                message.quote_resp = Some(ZAttestQuoteResp { response, integrity_token, keys });
                ZAttestRespType::AttestRespQuoteResp
            }
            Answer::KeysKept | Answer::KeysRefused => {
                let mut answer = AttestStorageKeysResp::default();
                answer.set_response(match self {
                    Answer::KeysKept => AttestStorageKeysResponseCode::Success,
                    _ => AttestStorageKeysResponseCode::ItokenMismatch,
                });
                message.storage_keys_resp = Some(answer);
                ZAttestRespType::StoreKeys
            }
        };
        message.set_resp_type(kind);
        wire::encode(&message)
    }

    /// Reads the payload of an answer.
    pub fn from_payload(payload: &[u8]) -> Result<Answer, AttestError> {
        let message: ZAttestResponse = wire::decode(payload, limits::ATTEST)?;
        Ok(match message.resp_type() {
            ZAttestRespType::AttestRespCert => Answer::Certificates,
            ZAttestRespType::AttestRespNonce => {
                Answer::Nonce(message.nonce.unwrap_or_default().nonce)
            }
            ZAttestRespType::AttestRespQuoteResp => {
                let verdict = message.quote_resp.unwrap_or_default();
                Answer::Quote(match Refusal::of(verdict.response) {
                    None => Ok(Admission {
                        token: verdict.integrity_token,
                        keys: verdict.keys.into_iter().map(VolumeKey::from_wire).collect(),
                    }),
                    Some(refusal) => Err(refusal),
                })
            }
            ZAttestRespType::StoreKeys => {
                let value = message.storage_keys_resp.unwrap_or_default().response;
                match AttestStorageKeysResponseCode::try_from(value) {
                    Ok(AttestStorageKeysResponseCode::Success) => Answer::KeysKept,
                    Ok(AttestStorageKeysResponseCode::ItokenMismatch) => Answer::KeysRefused,
                    _ => {
                        let field = "AttestStorageKeysResp.response";
                        return Err(AttestError::Kind { field, value });
                    }
                }
            }
            ZAttestRespType::AttestRespNone => {
                let value = message.resp_type;
                return Err(AttestError::Kind { field: "ZAttestResponse.respType", value });
            }
        })
    }
}

impl Refusal {
    /// `None`: the quote is believed.
    fn of(code: i32) -> Option<Refusal> {
        Some(match ZAttestResponseCode::try_from(code) {
            Ok(ZAttestResponseCode::Success) => return None,
            Ok(ZAttestResponseCode::NonceMismatch) => Refusal::NonceMismatch,
            Ok(ZAttestResponseCode::NoCertFound) => Refusal::NoCertificate,
            Ok(ZAttestResponseCode::QuoteFailed) => Refusal::QuoteFailed,
            Ok(ZAttestResponseCode::Invalid) | Err(_) => Refusal::Other(code),
        })
    }

    fn number(self) -> i32 {
        match self {
            Refusal::NonceMismatch => ZAttestResponseCode::NonceMismatch.into(),
            Refusal::NoCertificate => ZAttestResponseCode::NoCertFound.into(),
            Refusal::QuoteFailed => ZAttestResponseCode::QuoteFailed.into(),
            Refusal::Other(code) => code,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read_as_it_was_meant() {
        let certificate = |purpose, mutable| NodeCertificate {
            purpose,
            hash: vec![1; 16],
            pem: b"pem".to_vec(),
            mutable,
        };
        let quote = Quote {
            data: b"nonce".to_vec(),
            signature: vec![3],
            registers: vec![Register { index: 7, algorithm: 2, value: vec![4; 32] }],
            version: "1.2".to_owned(),
            firmware: "maker-3-2026".to_owned(),
            origin: "here".to_owned(),
            event_log: vec![5; 9],
        };
        let policy = SealPolicy { registers: vec![0, 7], id: 3 };
        let keys = vec![
            VolumeKey { kind: 1, key: vec![6; 9], policy: Some(policy) },
            VolumeKey::default(),
        ];
        for request in [
            Request::Certificates(Vec::new()),
            Request::Certificates(vec![
                certificate(Purpose::Onboarding, true),
                certificate(Purpose::RestrictedSigning, false),
                certificate(Purpose::EndorsementRsa, false),
                certificate(Purpose::KeyExchange, true),
            ]),
            Request::Nonce,
            Request::Quote(quote),
            Request::Quote(Quote::default()),
            Request::StoreKeys(StoredKeys { token: b"token".to_vec(), keys }),
            Request::StoreKeys(StoredKeys::default()),
        ] {
            assert_eq!(Request::from_payload(&request.to_payload()).unwrap(), request);
        }
    }

    #[test]
    fn what_is_answered_is_read_as_it_was_meant() {
        for answer in [
            Answer::Certificates,
            Answer::Nonce(vec![9; 16]),
            Answer::Quote(Ok(b"token".to_vec().into())),
            Answer::Quote(Ok(Admission { token: vec![1], keys: vec![VolumeKey::default()] })),
            Answer::Quote(Err(Refusal::NonceMismatch)),
            Answer::Quote(Err(Refusal::NoCertificate)),
            Answer::Quote(Err(Refusal::QuoteFailed)),
            Answer::Quote(Err(Refusal::Other(77))),
            Answer::KeysKept,
            Answer::KeysRefused,
        ] {
            assert_eq!(Answer::from_payload(&answer.to_payload()).unwrap(), answer);
        }
    }

    #[test]
    fn a_message_that_asks_nothing_and_a_certificate_of_no_node_are_refused() {
        let said = |payload: &[u8]| Request::from_payload(payload).unwrap_err().to_string();
        assert_eq!(said(&[]), "ZAttestReq.reqType is missing or unknown: 0");
        assert_eq!(said(&[8, 99]), "ZAttestReq.reqType is missing or unknown: 99");
        let mut message = ZAttestReq::default();
        message.set_req_type(ZAttestReqType::AttestReqCert);
        let signing = ZCertType::CertTypeControllerSigning.into();
        message.certs = vec![ZCert { r#type: signing, ..ZCert::default() }];
        assert_eq!(said(&wire::encode(&message)), "ZCert.type is missing or unknown: 1");
        // One of a kind that came later is left out, and the others count.
        let pem = b"pem".to_vec();
        let exchange = ZCertType::CertTypeDeviceEcdhExchange.into();
        let known = ZCert { r#type: exchange, cert: pem.clone(), ..ZCert::default() };
        message.certs = vec![ZCert { r#type: 99, ..ZCert::default() }, known];
        let read = Request::from_payload(&wire::encode(&message)).unwrap();
        let (purpose, hash) = (Purpose::KeyExchange, Vec::new());
        let kept = NodeCertificate { purpose, hash, pem, mutable: true };
        assert_eq!(read, Request::Certificates(vec![kept]));
        assert!(Answer::from_payload(&[]).is_err());
    }

    #[test]
    fn a_quote_without_a_verdict_is_not_believed() {
        let mut message = ZAttestResponse::default();
        message.set_resp_type(ZAttestRespType::AttestRespQuoteResp);
        let read = Answer::from_payload(&wire::encode(&message)).unwrap();
        assert_eq!(read, Answer::Quote(Err(Refusal::Other(0))));
    }
}
