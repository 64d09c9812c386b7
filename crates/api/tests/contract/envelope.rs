//! The envelope and the certificates, against recorded bytes of both directions.

use crate::common::{T0, device_id, golden, now, vector};
use api::certs::{self, CertsError, Need};
use api::envelope::{self, Refusal};
use api::onboarding::{Named, Registration};
use api::{Certificate, Sender, Signer, SigningKey, limits};
use model::{Bytes, UnixMillis};

fn pki(name: &str) -> Vec<u8> {
    vector(&format!("pki/{name}"))
}

fn certificate(name: &str) -> Certificate {
    Certificate::from_pem(&pki(name)).unwrap()
}

fn key(name: &str) -> SigningKey {
    SigningKey::from_pem(&pki(name)).unwrap()
}

fn controller() -> certs::ControllerCerts {
    let body = vector("envelope/resp-certs.AuthContainer.pb");
    certs::learn(&body, &pki("root-certificate.pem"), now()).unwrap()
}

/// What a device makes of an answer of the controller.
fn as_device(name: &str) -> Result<Vec<u8>, Refusal> {
    let body = vector(&format!("envelope/{name}.AuthContainer.pb"));
    let answer = envelope::open(&body, limits::ONBOARDING).unwrap();
    answer.verify(controller().signer()).map(<[u8]>::to_vec)
}

/// What a controller makes of a request of the device it knows by `device.cert.pem`.
fn as_controller(name: &str) -> Result<Vec<u8>, Refusal> {
    let body = vector(&format!("envelope/{name}.AuthContainer.pb"));
    let request = envelope::open(&body, limits::CONFIG).unwrap();
    request.verify(&Signer::device(&certificate("device.cert.pem")).unwrap()).map(<[u8]>::to_vec)
}

fn chain(name: &str, need: Need) -> Result<certs::ControllerCerts, CertsError> {
    certs::check(&vector(&format!("envelope/{name}.pb")), &pki("root-certificate.pem"), now(), need)
}

#[test]
fn answers_of_the_controller_are_believed() {
    if !golden() {
        return;
    }
    let payload = vector("envelope/uuidresponse.pb");
    assert_eq!(as_device("resp-uuid").unwrap(), payload);
    assert_eq!(as_device("ok-resp-uuid-hash16").unwrap(), payload);
    let named = Named::from_payload(&payload).unwrap();
    assert_eq!(named.id, device_id());
    assert_eq!(Named::from_payload(&named.to_payload()).unwrap(), named);
}

#[test]
fn an_unknown_algorithm_is_refused_first() {
    if !golden() {
        return;
    }
    let got = as_device("neg-resp-uuid-algo-invalid");
    assert!(matches!(got, Err(Refusal::Algorithm { algo: 0 })), "{got:?}");
}

#[test]
fn a_hash_of_a_strange_length_is_refused_second() {
    if !golden() {
        return;
    }
    assert_eq!(as_device("neg-resp-uuid-hash-truncated-20"), Err(Refusal::HashSize { got: 20 }));
}

#[test]
fn a_hash_that_names_someone_else_asks_for_certificates() {
    if !golden() {
        return;
    }
    for name in [
        "neg-resp-uuid-hash16-but-algo32",
        "neg-resp-uuid-hash32-but-algo16",
        "neg-resp-uuid-hash-of-der",
    ] {
        let got = as_device(name);
        assert!(matches!(got, Err(Refusal::UnknownSigner { .. })), "{name}: {got:?}");
    }
}

#[test]
fn a_wrong_signature_is_refused_last() {
    if !golden() {
        return;
    }
    for name in [
        "neg-resp-uuid-tampered-payload",
        "neg-resp-uuid-der-signature",
        "neg-resp-uuid-double-hashed",
        "neg-resp-uuid-signed-authbody-not-payload",
        "neg-resp-uuid-wrong-key",
    ] {
        let got = as_device(name);
        assert!(matches!(got, Err(Refusal::Signature { .. })), "{name}: {got:?}");
    }
}

#[test]
fn certificates_that_chain_are_believed_and_so_is_who_comes_after_them() {
    if !golden() {
        return;
    }
    let before = controller();
    assert_eq!(before, chain("zcontrollercert", Need::Everything).unwrap());
    assert_eq!(before.exchange().len(), 1);
    let body = vector("envelope/resp-certs-rotated.AuthContainer.pb");
    let after = certs::learn(&body, &pki("root-certificate.pem"), now()).unwrap();
    assert_eq!(after, chain("zcontrollercert-rotated", Need::Everything).unwrap());
    assert_ne!(before.signer(), after.signer());
}

#[test]
fn certificates_are_refused_for_the_right_reason() {
    if !golden() {
        return;
    }
    use webpki::Error::{RequiredEkuNotFoundContext, UnknownIssuer};
    let why = |name| chain(name, Need::Everything).unwrap_err();
    let is = |name, good: fn(&CertsError) -> bool| {
        let error = why(name);
        assert!(good(&error), "{name}: {error:?}");
    };
    is("neg-zcontrollercert-empty", |e| matches!(e, CertsError::Empty));
    is("neg-zcontrollercert-no-signing", |e| matches!(e, CertsError::Signing { got: 0 }));
    is("neg-zcontrollercert-two-signing", |e| matches!(e, CertsError::Signing { got: 2 }));
    is("neg-zcontrollercert-no-ecdh", |e| matches!(e, CertsError::NoExchange));
    is("neg-zcontrollercert-unknown-type", |e| matches!(e, CertsError::UnknownType { .. }));
    is("neg-zcontrollercert-missing-intermediate", |e| {
        matches!(e, CertsError::Chain { source: UnknownIssuer, .. })
    });
    is("neg-zcontrollercert-foreign-root", |e| {
        matches!(e, CertsError::Chain { source: UnknownIssuer, .. })
    });
    is("neg-zcontrollercert-eku-clientauth-only", |e| {
        matches!(e, CertsError::Chain { source: RequiredEkuNotFoundContext(_), .. })
    });
    chain("neg-zcontrollercert-no-ecdh", Need::SigningOnly).unwrap();
}

#[test]
fn certificates_out_of_their_time_are_refused_as_that() {
    if !golden() {
        return;
    }
    let body = vector("envelope/resp-certs.AuthContainer.pb");
    for now in [UnixMillis(0), UnixMillis(4_000_000_000_000)] {
        let error = certs::learn(&body, &pki("root-certificate.pem"), now).unwrap_err();
        assert!(error.is_about_time(), "{error:?}");
    }
}

#[test]
fn published_certificates_are_believed_by_a_device() {
    if !golden() {
        return;
    }
    let payload = certs::publish(
        pki("controller-signing.cert.pem").trim_ascii_end(),
        &[pki("controller-ecdh.cert.pem").trim_ascii_end()],
        &[pki("controller-intermediate.cert.pem").trim_ascii_end()],
    );
    let zcert = pki("controller-signing.cert.pem");
    let key = key("controller-signing.key.pem");
    let body = envelope::sign(&payload, &Sender::controller(&key, zcert.trim_ascii_end())).unwrap();
    let learnt = certs::learn(&body, &pki("root-certificate.pem"), now()).unwrap();
    assert_eq!(&learnt, &controller());
}

#[test]
fn requests_of_a_device_are_believed() {
    if !golden() {
        return;
    }
    assert_eq!(as_controller("req-config").unwrap(), vector("envelope/configrequest.pb"));
    assert_eq!(as_controller("req-uuid-empty-payload").unwrap(), b"");
    for name in ["req-leading-zero-r", "req-leading-zero-s"] {
        assert!(as_controller(name).is_ok(), "{name}");
    }
}

#[test]
fn signatures_are_two_numbers_and_not_der() {
    if !golden() {
        return;
    }
    use api::pb::auth::{AuthBody, AuthContainer};
    let table = vector("envelope/signature-vectors.json");
    let table: serde_json::Value = serde_json::from_slice(&table).unwrap();
    let device = certificate("device.cert.pem");
    let signer = Signer::device(&device).unwrap();
    for row in table["vectors"].as_array().unwrap() {
        let from_hex = |field: &str| -> Option<Vec<u8>> {
            let hex = row[field].as_str()?;
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            Some((0..hex.len()).step_by(2).map(byte).collect())
        };
        let text = || row["payload_utf8"].as_str().unwrap().as_bytes().to_vec();
        let signed_with = |field: &str| {
            let payload = from_hex("payload_hex").unwrap_or_else(text);
            let body = api::wire::encode(&AuthContainer {
                protected_payload: Some(AuthBody { payload }),
                algo: 2,
                sender_cert_hash: device.digest().0.to_vec(),
                signature_hash: from_hex(field).unwrap(),
                ..AuthContainer::default()
            });
            let received = envelope::open(&body, limits::INFO).unwrap();
            received.verify(&signer).map(<[u8]>::to_vec)
        };
        assert!(signed_with("signature_rs").is_ok(), "{row}");
        assert!(matches!(signed_with("signature_der"), Err(Refusal::Signature { .. })), "{row}");
    }
}

#[test]
fn requests_of_others_are_refused() {
    if !golden() {
        return;
    }
    let why = |name| as_controller(name).unwrap_err();
    assert!(matches!(why("neg-req-config-unknown-device"), Refusal::UnknownSigner { .. }));
    assert_eq!(why("neg-req-config-no-hash"), Refusal::HashSize { got: 0 });
    assert!(matches!(why("neg-req-config-bad-signature"), Refusal::Signature { .. }));
}

#[test]
fn a_registration_brings_its_certificate() {
    if !golden() {
        return;
    }
    let body = vector("envelope/req-register.AuthContainer.pb");
    let request = envelope::open(&body, limits::ONBOARDING).unwrap();
    let onboarding = request.sender_certificate().unwrap();
    assert_eq!(onboarding, certificate("onboard.cert.pem"));
    let payload = request.verify(&Signer::device(&onboarding).unwrap()).unwrap();
    assert_eq!(payload, vector("envelope/zregistermsg.pb"));
    let registration = Registration::from_payload(payload).unwrap();
    assert_eq!(registration.certificate, certificate("device.cert.pem"));
    assert!(!registration.serial.is_empty() && !registration.soft_serial.is_empty());
    assert_eq!(registration.to_payload(), payload);
}

#[test]
fn what_we_sign_is_what_the_other_side_expects() {
    if !golden() {
        return;
    }
    let (device, onboard) = (certificate("device.cert.pem"), certificate("onboard.cert.pem"));
    let (device_key, onboard_key) = (key("device.key.pem"), key("onboard.key.pem"));
    for (sender, recorded) in [
        (Sender::device(&device_key, &device), "req-config"),
        (Sender::device(&device_key, &device), "req-uuid-empty-payload"),
        (Sender::onboarding(&onboard_key, &onboard), "req-register"),
    ] {
        let recorded = vector(&format!("envelope/{recorded}.AuthContainer.pb"));
        let theirs = envelope::open(&recorded, limits::CONFIG).unwrap();
        let ours = envelope::sign(theirs.unverified_payload(), &sender).unwrap();
        let ours = envelope::open(&ours, limits::CONFIG).unwrap();
        assert_eq!(ours.sender(), theirs.sender());
        assert_eq!(ours.sender_certificate().ok(), theirs.sender_certificate().ok());
        let signer = Signer::device(ours.sender_certificate().as_ref().unwrap_or(&device)).unwrap();
        ours.verify(&signer).unwrap();
    }
}

#[test]
fn hashes_are_those_of_the_table() {
    if !golden() {
        return;
    }
    let table: serde_json::Value = serde_json::from_slice(&pki("hashes.json")).unwrap();
    let of = |start: &str| {
        let (_, hash) =
            table.as_object().unwrap().iter().find(|(k, _)| k.starts_with(start)).unwrap();
        hash.as_str().unwrap().to_owned()
    };
    assert_eq!(certificate("device.cert.pem").digest().hex(), of("device_cert_sha256_der"));
    assert_eq!(certificate("onboard.cert.pem").digest().hex(), of("onboard_cert_sha256_der"));
    assert_eq!(
        controller().signer().hash().hex(),
        of("controller_signing_sha256_of_ZCert.cert_bytes")
    );
}

#[test]
fn a_generated_identity_outlives_its_file() {
    let key = SigningKey::generate().unwrap();
    let loaded = SigningKey::from_pem(key.to_pem().unwrap().as_bytes()).unwrap();
    assert_eq!(key.public_point(), loaded.public_point());
    let made = api::device_certificate(&key, T0).unwrap();
    let read = Certificate::from_pem(made.pem()).unwrap();
    assert_eq!(made, read);
    let body = envelope::sign(b"hello", &Sender::device(&loaded, &read)).unwrap();
    let opened = envelope::open(&body, limits::INFO).unwrap();
    assert_eq!(opened.verify(&Signer::device(&made).unwrap()).unwrap(), b"hello");
}

#[test]
fn a_body_above_the_limit_is_not_read() {
    if !golden() {
        return;
    }
    let body = vector("envelope/resp-uuid.AuthContainer.pb");
    let error = envelope::open(&body, Bytes(100)).unwrap_err();
    assert!(model::chain(&error).contains("more than 100 B"), "{}", model::chain(&error));
}

#[test]
fn what_is_no_key_or_certificate_is_refused() {
    for bad in
        [&b""[..], b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", &[0xff; 99]]
    {
        assert!(SigningKey::from_pem(bad).is_err());
        assert!(Certificate::from_pem(bad).is_err());
    }
    assert!(Certificate::from_pem(&[b'A'; 10_241]).is_err());
}
