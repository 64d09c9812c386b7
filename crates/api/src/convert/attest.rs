//! Attestation: what a node asks and what a controller answers, one message each way for all of it.
//!
//! Nothing is judged here. Event logs and the node's place are not read.

use model::{Diagnose, Diagnosis, Who};

use crate::limits;
use crate::pb::attest::{
    AttestStorageKeysResp, AttestStorageKeysResponseCode, AttestVersionInfo, AttestVersionType,
    TpmPcrValue, ZAttestNonceResp, ZAttestQuote, ZAttestQuoteResp, ZAttestReq, ZAttestReqType,
    ZAttestRespType, ZAttestResponse, ZAttestResponseCode,
};
use crate::pb::certs::{ZCert, ZCertAttr, ZCertType};
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
    /// Keep keys that my TPM sealed. Which they are is not read: nobody keeps them yet.
    StoreKeys,
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
    /// The quote is believed and this token proves it, or not.
    Quote(Result<Vec<u8>, Refusal>),
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
            Request::StoreKeys => ZAttestReqType::StoreKeys,
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
                Request::Certificates(read.collect::<Result<_, _>>()?)
            }
            ZAttestReqType::AttestReqNonce => Request::Nonce,
            ZAttestReqType::AttestReqQuote => {
                Request::Quote(Quote::from_wire(message.quote.unwrap_or_default()))
            }
            ZAttestReqType::StoreKeys => Request::StoreKeys,
            ZAttestReqType::AttestReqNone => {
                let value = message.req_type;
                return Err(AttestError::Kind { field: "ZAttestReq.reqType", value });
            }
        })
    }
}

impl NodeCertificate {
    fn to_wire(&self) -> ZCert {
        let attributes = ZCertAttr { is_mutable: self.mutable, is_tpm: !self.mutable };
        ZCert {
            cert_hash: self.hash.clone(),
            r#type: self.purpose.number(),
            cert: self.pem.clone(),
            attributes: Some(attributes),
            ..ZCert::default()
        }
    }

    fn from_wire(cert: ZCert) -> Result<NodeCertificate, AttestError> {
        let purpose = match cert.r#type() {
            ZCertType::CertTypeDeviceOnboarding => Purpose::Onboarding,
            ZCertType::CertTypeDeviceRestrictedSigning => Purpose::RestrictedSigning,
            ZCertType::CertTypeDeviceEndorsementRsa => Purpose::EndorsementRsa,
            ZCertType::CertTypeDeviceEcdhExchange => Purpose::KeyExchange,
            _ => return Err(AttestError::Kind { field: "ZCert.type", value: cert.r#type }),
        };
        let mutable = cert.attributes.is_some_and(|a| a.is_mutable);
        Ok(NodeCertificate { purpose, hash: cert.cert_hash, pem: cert.cert, mutable })
    }
}

impl Quote {
    fn to_wire(&self) -> ZAttestQuote {
        let register = |r: &Register| TpmPcrValue {
            index: r.index,
            hash_algo: r.algorithm,
            value: r.value.clone(),
        };
        let version = |version: &String| AttestVersionInfo {
            version_type: AttestVersionType::Eve.into(),
            version: version.clone(),
        };
        let said = Some(&self.version).filter(|v| !v.is_empty());
        ZAttestQuote {
            attest_data: self.data.clone(),
            signature: self.signature.clone(),
            pcr_values: self.registers.iter().map(register).collect(),
            versions: said.map(version).into_iter().collect(),
            ..ZAttestQuote::default()
        }
    }

    fn from_wire(quote: ZAttestQuote) -> Quote {
        let register =
            |r: TpmPcrValue| Register { index: r.index, algorithm: r.hash_algo, value: r.value };
        let version =
            quote.versions.into_iter().find(|v| v.version_type() == AttestVersionType::Eve);
        Quote {
            data: quote.attest_data,
            signature: quote.signature,
            registers: quote.pcr_values.into_iter().map(register).collect(),
            version: version.map(|v| v.version).unwrap_or_default(),
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
                let (response, integrity_token) = match verdict {
                    Ok(token) => (ZAttestResponseCode::Success.into(), token.clone()),
                    Err(refusal) => (refusal.number(), Vec::new()),
                };
                let keys = Vec::new();
                message.quote_resp = Some(ZAttestQuoteResp { response, integrity_token, keys });
                ZAttestRespType::AttestRespQuoteResp
            }
            Answer::KeysRefused => {
                let mut refused = AttestStorageKeysResp::default();
                refused.set_response(AttestStorageKeysResponseCode::ItokenMismatch);
                message.storage_keys_resp = Some(refused);
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
                    None => Ok(verdict.integrity_token),
                    Some(refusal) => Err(refusal),
                })
            }
            ZAttestRespType::StoreKeys => {
                let value = message.storage_keys_resp.unwrap_or_default().response;
                if value != i32::from(AttestStorageKeysResponseCode::ItokenMismatch) {
                    let field = "AttestStorageKeysResp.response";
                    return Err(AttestError::Kind { field, value });
                }
                Answer::KeysRefused
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
        };
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
            Request::StoreKeys,
        ] {
            assert_eq!(Request::from_payload(&request.to_payload()).unwrap(), request);
        }
    }

    #[test]
    fn what_is_answered_is_read_as_it_was_meant() {
        for answer in [
            Answer::Certificates,
            Answer::Nonce(vec![9; 16]),
            Answer::Quote(Ok(b"token".to_vec())),
            Answer::Quote(Err(Refusal::NonceMismatch)),
            Answer::Quote(Err(Refusal::NoCertificate)),
            Answer::Quote(Err(Refusal::QuoteFailed)),
            Answer::Quote(Err(Refusal::Other(77))),
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
