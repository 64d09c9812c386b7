//! The messages of attestation, against recorded ones of both directions.

use crate::common::{golden, now, vector};
use api::cipher::CertHash;
use api::convert::attest::{Admission, Answer, Purpose, Refusal, Request};
use api::pb::attest::{ZAttestReq, ZAttestResponse};
use api::{Certificate, Signer, certs, envelope, limits, wire};

fn payload(name: &str, signer: &Signer) -> Vec<u8> {
    let body = vector(&format!("attest/{name}.AuthContainer.pb"));
    let body = envelope::open(&body, limits::ATTEST).unwrap();
    body.verify(signer).unwrap().to_vec()
}

fn asked(name: &str) -> Request {
    let device = Certificate::from_pem(&vector("pki/device.cert.pem")).unwrap();
    let payload = payload(name, &Signer::device(&device).unwrap());
    let request = Request::from_payload(&payload).unwrap();
    // What we write is the same message.
    let message = |bytes: &[u8]| wire::decode::<ZAttestReq>(bytes, limits::ATTEST).unwrap();
    let mut want = message(&payload);
    want.certs.iter_mut().for_each(|c| c.meta_data_items.clear());
    let mut written = message(&request.to_payload());
    // What a recorded one leaves out is said by ours.
    for (ours, recorded) in written.certs.iter_mut().zip(&want.certs) {
        if recorded.attributes.is_none() {
            ours.attributes = None;
        }
    }
    assert_eq!(written, want, "{name}");
    request
}

fn answered(name: &str) -> Answer {
    let (body, root) =
        (vector("envelope/resp-certs.AuthContainer.pb"), vector("pki/root-certificate.pem"));
    let controller = certs::learn(&body, &root, now()).unwrap();
    let payload = payload(name, controller.signer());
    let answer = Answer::from_payload(&payload).unwrap();
    let message = |bytes: &[u8]| wire::decode::<ZAttestResponse>(bytes, limits::ATTEST).unwrap();
    assert_eq!(message(&answer.to_payload()), message(&payload), "{name}");
    answer
}

#[test]
fn a_node_hands_its_certificates_over() {
    if !golden() {
        return;
    }
    let Request::Certificates(certificates) = asked("1-req-certs") else { panic!() };
    let device = Certificate::from_pem(&vector("pki/device.cert.pem")).unwrap();
    let purposes: Vec<Purpose> = certificates.iter().map(|c| c.purpose).collect();
    assert!(purposes.contains(&Purpose::KeyExchange));
    assert!(purposes.contains(&Purpose::RestrictedSigning));
    for certificate in &certificates {
        assert_eq!(certificate.hash, CertHash::of(&certificate.pem).0);
        let read = Certificate::from_pem(&certificate.pem).unwrap();
        assert!(read.is_signed_by(&device).unwrap());
    }
    let bare = Request::from_payload(&vector("attest/1-req-certs.ZAttestReq.pb")).unwrap();
    assert_eq!(bare, Request::Certificates(certificates));
}

#[test]
fn a_nonce_is_asked_for_and_quoted() {
    if !golden() {
        return;
    }
    assert_eq!(asked("2-req-nonce"), Request::Nonce);
    let Answer::Nonce(nonce) = answered("2-resp-nonce") else { panic!() };
    assert!((12..=32).contains(&nonce.len()));
    let Request::Quote(quote) = asked("3-req-quote") else { panic!() };
    assert_eq!(quote.data, vector("attest/3-tpms_attest.bin"));
    assert_eq!(quote.signature, vector("attest/3-tpms_attest.sig.der"));
    assert!(!quote.version.is_empty() && !quote.firmware.is_empty());
    assert!(!quote.event_log.is_empty());
    let bare = Request::from_payload(&vector("attest/3-req-quote.ZAttestReq.pb")).unwrap();
    assert_eq!(bare, Request::Quote(quote.clone()));
    let Request::Quote(wrong) = asked("neg-3-req-quote-wrong-nonce") else { panic!() };
    assert_ne!(wrong.data, quote.data);
    let Request::Quote(none) = asked("3-req-quote-no-tpm") else { panic!() };
    assert!(none.registers.is_empty());
}

#[test]
fn a_quote_is_answered_with_a_token_and_keys_or_a_code() {
    if !golden() {
        return;
    }
    let Answer::Quote(Ok(Admission { token, keys })) = answered("3-resp-quote-success") else {
        panic!()
    };
    assert!(!token.is_empty());
    let refused = |name: &str| match answered(&format!("3-resp-quote-{name}")) {
        Answer::Quote(Err(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused("nonce-mismatch"), Refusal::NonceMismatch);
    assert_eq!(refused("no-cert"), Refusal::NoCertificate);
    assert_eq!(refused("quote-failed"), Refusal::QuoteFailed);

    let Request::StoreKeys(stored) = asked("4-req-store-keys") else { panic!() };
    assert_eq!(stored.token, token);
    assert_eq!((stored.keys.len(), keys.len()), (1, 1));
    assert_eq!(answered("4-resp-store-keys"), Answer::KeysKept);
}
