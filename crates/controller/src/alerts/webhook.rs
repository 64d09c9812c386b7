//! Telling a webhook: one POST of JSON over TLS, signed with HMAC-SHA256 in `X-Eve-Signature`.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The certificates that Debian trusts.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// For all of it.
const PATIENCE: Duration = Duration::from_secs(10);
const SIGNATURE: &str = "x-eve-signature";

/// Why a webhook was not told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebhookError {
    #[error("{0:?} is no address of a webhook; write https://HOST[:PORT]/PATH")]
    Url(String),
    #[error("the certificate to trust cannot be read: {0}")]
    Trust(String),
    #[error("cannot reach it: {0}")]
    Reach(String),
    #[error("it does not answer in time")]
    Slow,
    #[error("it answers {0}")]
    Status(u16),
}

/// Host, port and path of an address.
pub(crate) fn parse(url: &str) -> Result<(String, u16, String), WebhookError> {
    let wrong = || WebhookError::Url(url.chars().take(200).collect());
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https"));
    let authority = authority.filter(|a| !a.as_str().contains('@')).ok_or_else(wrong)?;
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    Ok((host, authority.port_u16().unwrap_or(443), path))
}

/// Tells a webhook; it must answer with 2xx.
pub(crate) async fn post(
    url: &str,
    trust: Option<&str>,
    secret: Option<&[u8]>,
    body: &str,
) -> Result<(), WebhookError> {
    let told = tokio::time::timeout(PATIENCE, post_once(url, trust, secret, body)).await;
    told.unwrap_or(Err(WebhookError::Slow))
}

async fn post_once(
    url: &str,
    trust: Option<&str>,
    secret: Option<&[u8]>,
    body: &str,
) -> Result<(), WebhookError> {
    let (host, port, path) = parse(url)?;
    let reach = |e: &dyn std::fmt::Display| WebhookError::Reach(e.to_string());
    let mut roots = rustls::RootCertStore::empty();
    if let Ok(system) = CertificateDer::pem_file_iter(SYSTEM_ROOTS) {
        roots.add_parsable_certificates(system.flatten());
    }
    if let Some(pem) = trust {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| WebhookError::Trust(e.to_string()))?;
        roots.add(certificate).map_err(|e| WebhookError::Trust(e.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| reach(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| reach(&e))?;
    let name = ServerName::try_from(host.clone()).map_err(|e| reach(&e))?;
    let tls = TlsConnector::from(Arc::new(tls)).connect(name, stream).await;
    let io = TokioIo::new(tls.map_err(|e| reach(&e))?);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(|e| reach(&e))?;
    let connection = tokio::spawn(connection);
    let mut request = Request::post(path)
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(secret) = secret {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), body.as_bytes());
        request = request.header(SIGNATURE, format!("sha256={}", hex::encode(tag)));
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).map_err(|e| reach(&e))?;
    let answer = sender.send_request(request).await;
    connection.abort();
    let status = answer.map_err(|e| reach(&e))?.status();
    if status.is_success() { Ok(()) } else { Err(WebhookError::Status(status.as_u16())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_with_tls_are_webhooks() {
        let good = parse("https://hooks.example/a?b=c").unwrap();
        assert_eq!(good, ("hooks.example".into(), 443, "/a?b=c".into()));
        assert_eq!(parse("https://[::1]:8443/").unwrap().0, "::1");
        for wrong in
            ["http://hooks.example/", "https://", "hooks.example", "https://a@b/", "", "x y"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
