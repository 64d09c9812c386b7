//! Enrolment requests (SCEP, RFC 8894) of nodes that cannot reach the server themselves: carried to
//! it and back, bytes unchanged (EVE API, SCEP proxy).
//!
//! Only to the servers that the node's own config names, and only where it says that the way is
//! through the controller. Messages are signed and sealed between node and server; here they are
//! bytes.

use std::time::Duration;

use api::pb::proxy::{
    HttpHeaderField, HttpMethod, ScepOperation, ScepProxyRequest, ScepProxyResponse,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request, header};
use model::desired::{Device, Enrolment};

use crate::client::escaped;
use crate::outbound::{self, Address};

/// For all of it: a node waits two minutes at most.
const PATIENCE: Duration = Duration::from_secs(60);
/// A CA's chain, or a certificate: tens of KiB.
const ANSWER_MAX: usize = 2 << 20;

/// Why a request was not carried to a server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScepError {
    /// The node may not ask this.
    #[error("{0}")]
    Refused(String),
    /// The request says nothing that could be asked.
    #[error("{0}")]
    Unusable(String),
    /// The server does not do its part.
    #[error("the SCEP server {url} {why}")]
    Upstream {
        /// Its address.
        url: String,
        /// What it does.
        why: String,
    },
}

/// The server that a node means.
pub(crate) fn enrolment<'a>(told: &'a Device, name: &str) -> Result<&'a Enrolment, ScepError> {
    let short: String = name.chars().take(80).collect();
    let found = told.enrolments.get(name);
    let found = found
        .ok_or_else(|| ScepError::Refused(format!("its config has no SCEP profile {short:?}")))?;
    if !found.via_controller {
        let why = format!("its config says that {short:?} is asked directly, not through here");
        return Err(ScepError::Refused(why));
    }
    Ok(found)
}

/// Asks the server what the node asks.
pub(crate) async fn carry(
    enrolment: &Enrolment,
    asked: ScepProxyRequest,
) -> Result<ScepProxyResponse, ScepError> {
    let url = enrolment.url.clone();
    let fault = |why: String| ScepError::Upstream { url: url.clone(), why };
    let address = Address::parse(&url).ok_or_else(|| fault("is no address".to_owned()))?;
    let request = request(&address, &asked)?;
    // Whom the node trusts with its certificates is trusted with carrying them.
    let tls = outbound::trusting(enrolment.ca_pem.join("\n").as_bytes(), true);
    let tls = tls.map_err(|e| fault(format!("cannot be asked: {e}")))?;
    let answer = outbound::ask(&address, tls, request, PATIENCE, ANSWER_MAX).await;
    let answer = answer.map_err(|e| fault(format!("does not answer: {}", model::chain(&e))))?;
    let (head, message) = answer.into_parts();
    let fields = head.headers.iter().map(|(name, value)| HttpHeaderField {
        name: name.as_str().to_owned(),
        value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
    });
    let bad = head.status.is_client_error() || head.status.is_server_error();
    Ok(ScepProxyResponse {
        scep_profile_name: asked.scep_profile_name,
        operation: asked.operation,
        error_body: if bad { message.to_vec() } else { Vec::new() },
        message: message.into(),
        http_status_code: head.status.as_u16().into(),
        http_header_fields: fields.collect(),
    })
}

/// The request to the server: the operation always in the query, the message there in base64 (GET)
/// or as the body (RFC 8894, section 4.1).
fn request(address: &Address, asked: &ScepProxyRequest) -> Result<Request<Full<Bytes>>, ScepError> {
    let unusable = |text: String| ScepError::Unusable(text);
    let operation = match asked.operation() {
        ScepOperation::GetCaCaps => "GetCACaps",
        ScepOperation::GetCaCert => "GetCACert",
        ScepOperation::GetNextCaCert => "GetNextCACert",
        ScepOperation::PkiMessage => "PKIOperation",
        ScepOperation::Unspecified => {
            return Err(unusable(format!("operation {} is none of SCEP", asked.operation)));
        }
    };
    let method = match asked.http_method() {
        HttpMethod::Post => Method::POST,
        HttpMethod::Get | HttpMethod::Unspecified => Method::GET,
    };
    let join = if address.path.contains('?') { '&' } else { '?' };
    let mut path = format!("{}{join}operation={operation}", address.path);
    let mut body = Bytes::new();
    if method == Method::POST {
        body = asked.message.clone().into();
    } else if !asked.message.is_empty() {
        path.push_str(&format!("&message={}", escaped(&STANDARD.encode(&asked.message))));
    }
    let mut request = Request::new(Full::new(body));
    *request.uri_mut() = path.parse().map_err(|e| unusable(format!("the address: {e}")))?;
    let headers = request.headers_mut();
    for field in &asked.http_header_fields {
        let wrong = || unusable(format!("{:?} is no header", field.name));
        let name: HeaderName = field.name.parse().map_err(|_| wrong())?;
        let value = HeaderValue::from_str(&field.value).map_err(|_| wrong())?;
        // What belongs to the connection is between us and the server.
        let ours = [
            header::HOST,
            header::CONNECTION,
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::TE,
            header::TRAILER,
            header::UPGRADE,
            header::EXPECT,
        ];
        if !ours.contains(&name) {
            headers.insert(name, value);
        }
    }
    if method == Method::POST {
        let kind = HeaderValue::from_static("application/x-pki-message");
        headers.insert(header::CONTENT_TYPE, kind);
    }
    let host = HeaderValue::from_str(&address.authority);
    headers.insert(header::HOST, host.map_err(|e| unusable(e.to_string()))?);
    *request.method_mut() = method;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(operation: ScepOperation, method: HttpMethod, message: &[u8]) -> ScepProxyRequest {
        ScepProxyRequest {
            operation: operation.into(),
            http_method: method.into(),
            message: message.to_vec(),
            ..ScepProxyRequest::default()
        }
    }

    #[test]
    fn a_message_goes_as_scep_says() {
        let address = Address::parse("http://ca.example/scep").unwrap();
        let get =
            request(&address, &asked(ScepOperation::PkiMessage, HttpMethod::Get, &[0xfb, 0xff]));
        let get = get.unwrap();
        assert_eq!(get.uri(), "/scep?operation=PKIOperation&message=%2B%2F8%3D");
        let query = Address::parse("http://ca.example/scep?a=b").unwrap();
        let caps = request(&query, &asked(ScepOperation::GetCaCaps, HttpMethod::Unspecified, b""));
        assert_eq!(caps.unwrap().uri(), "/scep?a=b&operation=GetCACaps");
        let mut post = asked(ScepOperation::PkiMessage, HttpMethod::Post, b"bytes");
        for (name, value) in [("Host", "evil"), ("X-A", "b"), ("content-length", "9")] {
            let (name, value) = (name.to_owned(), value.to_owned());
            post.http_header_fields.push(HttpHeaderField { name, value });
        }
        let post = request(&address, &post).unwrap();
        let headers = post.headers();
        assert_eq!(
            (&headers["host"], &headers["x-a"]),
            (&"ca.example".parse().unwrap(), &"b".parse().unwrap())
        );
        assert!(!headers.contains_key("content-length"));
        assert_eq!(headers["content-type"], "application/x-pki-message");
        let none = asked(ScepOperation::Unspecified, HttpMethod::Get, b"");
        assert!(matches!(request(&address, &none), Err(ScepError::Unusable(_))));
    }

    #[test]
    fn only_what_the_config_names_is_asked_here() {
        let mut told = Device::new("f0e1d2c3-0000-4000-8000-000000000001".parse().unwrap());
        assert!(matches!(enrolment(&told, "lan"), Err(ScepError::Refused(_))));
        let lan = Enrolment {
            name: "lan".to_owned(),
            url: "http://ca.example/scep".to_owned(),
            via_controller: false,
            challenge: None,
            ca_pem: Vec::new(),
            request: model::desired::CertificateRequest::default(),
        };
        told.enrolments.insert("lan".to_owned(), lan.clone());
        assert!(matches!(enrolment(&told, "lan"), Err(ScepError::Refused(_))), "asked directly");
        told.enrolments.insert("lan".to_owned(), Enrolment { via_controller: true, ..lan });
        assert!(enrolment(&told, "lan").is_ok());
    }
}
