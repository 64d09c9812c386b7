//! Attests this node to the controller (EVE API, attestation).

use api::pb::attest::{
    AttestVersionInfo, AttestVersionType, ZAttestQuote, ZAttestReq, ZAttestReqType,
    ZAttestResponse, ZAttestResponseCode,
};
use model::{DeviceId, Diagnosis, Problem, Who};

use super::checkpoint::Signers;
use crate::link::{CallError, Link, well};

/// Asks for the nonce of the next quote.
pub(super) async fn nonce(
    link: &Link,
    id: DeviceId,
    signers: &Signers,
) -> Result<Vec<u8>, CallError> {
    let kind = ZAttestReqType::AttestReqNonce.into();
    let request = ZAttestReq { req_type: kind, ..ZAttestReq::default() };
    let answer = call(link, id, signers, request).await?;
    Ok(answer.nonce.map(|n| n.nonce).unwrap_or_default())
}

/// Sends the quote and returns the integrity token that it earns. A node without a TPM has nothing to
/// sign with: its quote says what version it runs.
pub(super) async fn quote(
    link: &Link,
    id: DeviceId,
    signers: &Signers,
    version: String,
) -> Result<Vec<u8>, Problem> {
    let version = AttestVersionInfo { version_type: AttestVersionType::Eve.into(), version };
    let quote = ZAttestQuote { versions: vec![version], ..ZAttestQuote::default() };
    let kind = ZAttestReqType::AttestReqQuote.into();
    let request = ZAttestReq { req_type: kind, quote: Some(quote), ..ZAttestReq::default() };
    let answer = call(link, id, signers, request).await.map_err(super::problem)?;
    let verdict = answer.quote_resp.unwrap_or_default();
    if verdict.response == i32::from(ZAttestResponseCode::Success) {
        return Ok(verdict.integrity_token);
    }
    let named = ZAttestResponseCode::try_from(verdict.response);
    let text = match named {
        Ok(code) => format!("the controller refuses our quote: {}", code.as_str_name()),
        Err(_) => format!("the controller refuses our quote with code {}", verdict.response),
    };
    let why = Diagnosis::of(Who::Operator, "allow nodes without a TPM, or give this one a TPM");
    Err(Problem::new(text, why, host::clock::now()))
}

async fn call(
    link: &Link,
    id: DeviceId,
    signers: &Signers,
    request: ZAttestReq,
) -> Result<ZAttestResponse, CallError> {
    let limit = api::limits::ATTEST;
    let payload = api::wire::encode(&request);
    let answer = well("attest", link.post(id, "attest", &payload, limit).await?)?;
    let payload = crate::link::verify("attest", &answer.body, signers.signer(), limit)?;
    api::wire::decode(&payload, limit)
        .map_err(|e| CallError::Answer { call: "attest", source: Box::new(e) })
}
