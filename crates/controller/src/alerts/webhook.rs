//! Telling a webhook: one POST of JSON over TLS, signed with HMAC-SHA256 in `X-Eve-Signature`.

use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, header};

use crate::outbound::{self, Address, OutboundError};

/// For all of it.
const PATIENCE: Duration = Duration::from_secs(10);
const SIGNATURE: &str = "x-eve-signature";

/// Why a webhook was not told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebhookError {
    #[error("{0:?} is no address of a webhook; write https://HOST[:PORT]/PATH")]
    Url(String),
    #[error("{}", model::chain(.0))]
    Outbound(OutboundError),
    #[error("the secret {0} that signs it is not there")]
    Secret(String),
    #[error("it answers {0}")]
    Status(u16),
}

impl WebhookError {
    /// Whether it is the other side that did not do its part.
    pub(crate) fn is_theirs(&self) -> bool {
        match self {
            WebhookError::Outbound(OutboundError::Trust(_)) => false,
            WebhookError::Outbound(_) | WebhookError::Status(_) => true,
            WebhookError::Url(_) | WebhookError::Secret(_) => false,
        }
    }
}

/// The address of a webhook: with TLS.
pub(crate) fn parse(url: &str) -> Result<Address, WebhookError> {
    let wrong = || WebhookError::Url(url.chars().take(200).collect());
    Address::parse(url).filter(|a| a.tls).ok_or_else(wrong)
}

/// Tells a webhook; it must answer with 2xx. `trust`: certificates to believe beside the system's.
pub(crate) async fn post(
    url: &str,
    trust: Option<&str>,
    secret: Option<&[u8]>,
    body: &str,
) -> Result<(), WebhookError> {
    let address = parse(url)?;
    let trust = trust.unwrap_or_default().as_bytes();
    let tls = outbound::trusting(trust, true).map_err(WebhookError::Outbound)?;
    let mut request = Request::post(&address.path)
        .header(header::HOST, &address.authority)
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(secret) = secret {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), body.as_bytes());
        request = request.header(SIGNATURE, format!("sha256={}", hex::encode(tag)));
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned())));
    let request = request.map_err(|_| WebhookError::Url(url.chars().take(200).collect()))?;
    let answer = outbound::ask(&address, tls, request, PATIENCE, 0).await;
    let status = answer.map_err(WebhookError::Outbound)?.status();
    if status.is_success() { Ok(()) } else { Err(WebhookError::Status(status.as_u16())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_with_tls_are_webhooks() {
        let good = parse("https://hooks.example/a?b=c").unwrap();
        assert_eq!((good.authority.as_str(), good.path.as_str()), ("hooks.example", "/a?b=c"));
        for wrong in
            ["http://hooks.example/", "https://", "hooks.example", "https://a@b/", "", "x y"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
