//! Whom to believe at the other end of a TLS connection: who shows a certificate that leads to a root,
//! or the very certificate that somebody named; or, for a person who compares fingerprints, anybody.
//!
//! In each case who shows a certificate has to have its key.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Whom to believe.
#[derive(Debug)]
enum Whom {
    /// Who is led to one of `roots`, or shows itself one of `named`; under the name it was asked by.
    Led { roots: RootCertStore, named: Vec<CertificateDer<'static>> },
    /// Anybody; what it shows is remembered.
    Anybody(Mutex<Vec<CertificateDer<'static>>>),
}

/// Looks at what the other end shows.
#[derive(Debug)]
pub(crate) struct Verifier {
    whom: Whom,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(whom: Whom) -> Arc<Verifier> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Arc::new(Verifier { whom, algorithms: provider.signature_verification_algorithms })
    }

    /// What was shown last to [`anybody`]: the server's own certificate first.
    pub(crate) fn shown(&self) -> Vec<CertificateDer<'static>> {
        match &self.whom {
            Whom::Led { .. } => Vec::new(),
            Whom::Anybody(shown) => shown.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// TLS with who is led to one of `roots`, or shows one of `named` itself: self-signed as a CA's, or
/// signed by somebody who is not known here.
pub(crate) fn led(
    roots: RootCertStore,
    named: Vec<CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    config(Verifier::new(Whom::Led { roots, named }))
}

/// TLS with anybody, and what was shown.
pub(crate) fn anybody() -> Result<(Arc<ClientConfig>, Arc<Verifier>), rustls::Error> {
    let verifier = Verifier::new(Whom::Anybody(Mutex::default()));
    Ok((config(verifier.clone())?, verifier))
}

fn config(verifier: Arc<Verifier>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(tls))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (roots, named) = match &self.whom {
            Whom::Led { roots, named } => (roots, named),
            Whom::Anybody(last) => {
                let chain = std::iter::once(own).chain(between).cloned();
                let chain = chain.map(CertificateDer::into_owned).collect();
                *last.lock().unwrap_or_else(PoisonError::into_inner) = chain;
                return Ok(ServerCertVerified::assertion());
            }
        };
        let shown = ParsedCertificate::try_from(own)?;
        let led = verify_server_cert_signed_by_trust_anchor(
            &shown,
            roots,
            between,
            now,
            self.algorithms.all,
        );
        match led {
            // That it is a CA's own is an `Other`; a bad signature is that of a root of the same name as
            // its issuer. All are found after the dates were looked at.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Other(_)
                | CertificateError::UnknownIssuer
                | CertificateError::BadSignature,
            )) if named.iter().any(|one| one == own) => {}
            led => led?,
        }
        verify_server_name(&shown, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A certificate as PEM.
pub(crate) fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
