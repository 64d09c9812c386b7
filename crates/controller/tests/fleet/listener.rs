//! Certificates that are given to the listener, and who knows it by them.

use std::path::Path;

use controller::client::Client;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::common::Home;

fn params(ca: bool) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    if ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

/// Writes a certificate and its key.
fn write(dir: &Path, certificate: &rcgen::Certificate, key: &KeyPair) -> String {
    std::fs::write(dir.join("tls.cert.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("tls.key.pem"), key.serialize_pem()).unwrap();
    certificate.pem()
}

fn token(home: &Home) -> String {
    std::fs::read_to_string(home.data().join("admin.token")).unwrap()
}

#[tokio::test]
async fn a_certificate_that_was_given_is_known_on_this_machine() {
    let mut home = Home::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tls.cert.pem");
    // As `openssl req -x509` makes one; one of a company's, which nobody here knows.
    let (own, companys) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let self_signed = params(true).self_signed(&own).unwrap();
    let authority = Issuer::new(params(true), companys);
    let signed = params(false).signed_by(&own, &authority).unwrap();
    let mut others = String::new();
    for certificate in [&self_signed, &signed] {
        let pem = write(dir.path(), certificate, &own);
        let given = file.clone();
        home.again_with(|settings| settings.files.tls_cert = Some(given)).await;
        home.operator().controller().await.unwrap();
        let (url, token) = (home.operator().url().to_owned(), token(&home));
        Client::new(&url, &token, pem.as_bytes()).unwrap().controller().await.unwrap();
        if !others.is_empty() {
            let stranger = Client::new(&url, &token, others.as_bytes()).unwrap();
            stranger.controller().await.expect_err("that is another's certificate");
        }
        others = pem;
    }
    // Our own again: what was noted of theirs is gone.
    home.again().await;
    home.operator().controller().await.unwrap();
    assert!(!home.data().join("endpoint.cert.pem").exists());
}
