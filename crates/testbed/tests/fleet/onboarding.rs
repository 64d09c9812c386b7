//! Who gets in, as whom, and when it gets its config.

use api::cipher::CertHash;
use api::pb::certs::{ZCert, ZCertAttr, ZCertType};
use api::pb::common::HashAlgorithm;
use controller::view::NewDevice;
use model::UnixMillis;
use testbed::sim::quote::Tpm;
use testbed::sim::{
    Attested, Conf, Device, Home, Line, Mode, Onboarded, Polled, Way, http::Session, keys,
};

fn now() -> UnixMillis {
    host::clock::now()
}

async fn fleet(objects: &str) -> (Home, Line) {
    let home = Home::start().await.unwrap();
    if !objects.is_empty() {
        home.operator().unwrap().apply(objects, true).await.unwrap();
    }
    let line = Line::new(home.conf().unwrap(), Way::Close);
    (home, line)
}

const EDGE: &str = "{kind: Device, name: edge-1, spec: {soft_serial: soft-1}}";

fn edge(index: u32) -> Device {
    Device::new(1, index).with_serials("", "soft-1")
}

#[tokio::test]
async fn eden_onboard() {
    let (home, mut line) = fleet(EDGE).await;
    let mut device = edge(1);
    let went = device.onboard(&mut line, now()).await.unwrap();
    assert_eq!(went, Onboarded { register: Some(201), uuid: 200 });
    // EVE registers again at each boot.
    let again = device.onboard(&mut line, now()).await.unwrap();
    assert_eq!(again, Onboarded { register: Some(200), uuid: 200 });
    let shown = home.operator().unwrap().device("edge-1").await.unwrap();
    assert_eq!(Some(shown.id.raw()), device.id());
    assert!(shown.registered.is_some());
}

#[tokio::test]
async fn a_second_device_with_the_same_serial_is_a_conflict() {
    let (_home, mut line) = fleet(EDGE).await;
    edge(1).onboard(&mut line, now()).await.unwrap();
    let went = edge(2).onboard(&mut line, now()).await.unwrap();
    assert_eq!(went, Onboarded { register: Some(409), uuid: 401 });
}

#[tokio::test]
async fn server_returns_403() {
    let (home, line) = fleet("").await;
    // Two ports: a 403 must not be repeated through the second.
    let mut line = line.with_ports(2);
    let mut device = edge(1);
    device.fetch_certs(&mut line, now()).await.unwrap();
    let before = line.sent();
    assert_eq!(device.register(&mut line, now()).await.unwrap(), 403);
    assert_eq!(line.sent() - before, 1);
    assert_eq!(device.ask_uuid(&mut line, now()).await.unwrap(), 401);
    // Late approval: no reboot, the next attempt works.
    home.operator().unwrap().apply(EDGE, false).await.unwrap();
    let went = device.onboard(&mut line, now()).await.unwrap();
    assert_eq!(went, Onboarded { register: Some(201), uuid: 200 });
}

#[tokio::test]
async fn a_serial_number_comes_before_a_soft_serial_number() {
    let objects = "{kind: Device, name: by-serial, spec: {serial: HW-1}}\n---\n\
                   {kind: Device, name: by-soft, spec: {soft_serial: soft-1}}";
    let (home, mut line) = fleet(objects).await;
    let mut device = Device::new(1, 1).with_serials("HW-1", "soft-1");
    device.onboard(&mut line, now()).await.unwrap();
    let shown = home.operator().unwrap().device("by-serial").await.unwrap();
    assert_eq!(Some(shown.id.raw()), device.id());
}

#[tokio::test]
async fn an_open_serial_lets_any_device_in() {
    let (home, mut line) = fleet("").await;
    home.operator().unwrap().allow_serial("*").await.unwrap();
    for index in 0..3 {
        let mut device = Device::new(7, index);
        let went = device.onboard(&mut line, now()).await.unwrap();
        assert_eq!(went, Onboarded { register: Some(201), uuid: 200 });
    }
    assert_eq!(home.operator().unwrap().devices().await.unwrap().len(), 3);
}

#[tokio::test]
async fn pre_provisioned_uuid() {
    // Registered before, the onboarding certificate is gone from CONFIG, the controller away and back.
    let (mut home, mut line) = fleet(EDGE).await;
    let mut device = edge(1);
    device.onboard(&mut line, now()).await.unwrap();
    let id = device.id();
    home.stop().await;
    device.poll(&mut line, now()).await.unwrap_err();
    home.again().await.unwrap();
    let files = home.files().unwrap();
    let conf = Conf::from_files(&files, home.address(), Session::Full).unwrap();
    let mut line = Line::new(conf.without_onboarding().into(), Way::Close);
    let went = device.onboard(&mut line, now()).await.unwrap();
    assert_eq!((went, device.id()), (Onboarded { register: None, uuid: 200 }, id));
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Applied);
}

#[tokio::test]
async fn onboarding_and_device_certificates_are_good_for_their_own_calls_only() {
    use api::envelope::{Sender, sign};
    use testbed::sim::keys::{Use, key};

    let (_home, mut line) = fleet(EDGE).await;
    let mut device = edge(1);
    device.onboard(&mut line, now()).await.unwrap();
    let conf = line.conf().clone();
    let (onboard_key, onboard) = conf.onboard().unwrap();

    // The onboarding certificate on another call.
    let body = sign(&[], &Sender::device(onboard_key, onboard)).unwrap();
    let path = device.path("config").unwrap();
    for path in ["/uuid", path.as_str()] {
        let answer =
            device.post_body(&mut line, path, body.clone(), Mode::FirstAnswer).await.unwrap();
        assert_eq!(answer.status, 401, "{path}");
    }
    // A device certificate on register.
    let stranger = key(99, 1, Use::Device).unwrap();
    let certificate = api::device_certificate(&stranger, now()).unwrap();
    let body = sign(&[], &Sender::onboarding(&stranger, &certificate)).unwrap();
    let answer = device.post_body(&mut line, "/register", body, Mode::FirstAnswer).await.unwrap();
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn the_path_must_name_the_signer() {
    let (home, mut line) = fleet("").await;
    home.operator().unwrap().allow_serial("*").await.unwrap();
    let (mut one, mut two) = (Device::new(7, 1), Device::new(7, 2));
    one.onboard(&mut line, now()).await.unwrap();
    two.onboard(&mut line, now()).await.unwrap();
    for rest in ["config", "info", "metrics", "attest", "newlogs", "flowlog", "hardwarehealth"] {
        let path = one.path(rest).unwrap();
        let answer = two.post(&mut line, &path, &[], Mode::FirstAnswer, now()).await.unwrap();
        assert_eq!(answer.status, 403, "{rest}");
    }
}

#[tokio::test]
async fn attest_flow_without_a_tpm() {
    let objects = "{kind: Device, name: edge-1, spec: {soft_serial: soft-1, attestation: true}}";
    let (_home, mut line) = fleet(objects).await;
    let mut device = edge(1);
    device.onboard(&mut line, now()).await.unwrap();
    assert_eq!(device.show_certificates(&mut line, now()).await.unwrap(), 201);
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Refused(403));
    assert_eq!(device.attest(&mut line, now()).await.unwrap(), Attested::Yes);
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Applied);
    device.set_token(b"another");
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Refused(403));
}

#[tokio::test]
async fn attest_flow() {
    let objects = "{kind: Device, name: edge-1, spec: {soft_serial: soft-1, attestation: true}}";
    let (home, mut line) = fleet(objects).await;
    let operator = home.operator().unwrap();
    let mut device = edge(1).with_tpm();
    device.onboard(&mut line, now()).await.unwrap();
    // Nobody can check the quote of a TPM whose certificate was never shown.
    assert_eq!(device.attest(&mut line, now()).await.unwrap(), Attested::Refused(3));
    // Nothing is proven that could be accepted.
    operator.ask_device("edge-1", "accept").await.unwrap_err();
    assert_eq!(device.show_certificates(&mut line, now()).await.unwrap(), 201);
    // What runs is proven now, but nobody has looked at it.
    assert_eq!(device.attest(&mut line, now()).await.unwrap(), Attested::Refused(4));
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Refused(403));
    operator.ask_device("edge-1", "accept").await.unwrap();
    assert_eq!(device.attest(&mut line, now()).await.unwrap(), Attested::Yes);
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Applied);
    // The sealed key of its volumes is kept, and comes back after the next good quote only.
    assert!(device.returned_keys().is_empty());
    assert!(device.store_key(&mut line, b"sealed", now()).await.unwrap());
    device.reboot();
    let nonce = device.nonce(&mut line, now()).await.unwrap().unwrap();
    let mut quote = device.quote(&nonce).unwrap();
    quote.pcr_values[4].value[0] ^= 1;
    // A refused quote that brings keys is an error of its own there.
    let went = device.send_quote(&mut line, quote, now()).await.unwrap();
    assert_eq!(went, Attested::Refused(4));
    assert!(device.returned_keys().is_empty());
    assert_eq!(device.attest(&mut line, now()).await.unwrap(), Attested::Yes);
    assert_eq!(device.returned_keys(), [b"sealed".to_vec()]);
}

#[tokio::test]
async fn template_check() {
    // A TPM whose quote is not believed gets no token, and without a token there is no config.
    let objects = "{kind: Device, name: edge-1, spec: {soft_serial: soft-1, attestation: true}}";
    let (home, mut line) = fleet(objects).await;
    let mut device = edge(1).with_tpm();
    device.onboard(&mut line, now()).await.unwrap();
    device.show_certificates(&mut line, now()).await.unwrap();
    let nonce = device.nonce(&mut line, now()).await.unwrap().unwrap();
    let mut quote = device.quote(&nonce).unwrap();
    quote.signature[10] ^= 1;
    let went = device.send_quote(&mut line, quote, now()).await.unwrap();
    assert_eq!(went, Attested::Refused(4));
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Refused(403));

    // What its registers hold is what a person accepts, once; another boot loader is none of it.
    let operator = home.operator().unwrap();
    assert_eq!(device.attest(&mut line, now()).await.unwrap(), Attested::Refused(4));
    operator.ask_device("edge-1", "accept").await.unwrap();
    assert_eq!(device.attest(&mut line, now()).await.unwrap(), Attested::Yes);
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Applied);
    device.reboot();
    device.tpm = Some(Box::new(Tpm::booted("another version, measured")));
    assert_eq!(device.attest(&mut line, now()).await.unwrap(), Attested::Refused(4));
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Refused(403));
}

#[tokio::test]
async fn who_took_a_node_over_cannot_bring_a_tpm_of_its_own() {
    let objects = "{kind: Device, name: edge-1, spec: {soft_serial: soft-1, attestation: true}}";
    let (home, mut line) = fleet(objects).await;
    let mut device = edge(1).with_tpm();
    device.onboard(&mut line, now()).await.unwrap();
    device.show_certificates(&mut line, now()).await.unwrap();
    assert_eq!(device.attest(&mut line, now()).await.unwrap(), Attested::Refused(4));
    home.operator().unwrap().ask_device("edge-1", "accept").await.unwrap();
    assert_eq!(device.attest(&mut line, now()).await.unwrap(), Attested::Yes);
    assert!(device.store_key(&mut line, b"sealed", now()).await.unwrap());

    // The device key signs whatever runs asks it to: a certificate of a key that quotes at will.
    let forged = keys::key(7, 7, keys::Use::Attest).unwrap();
    let signer = device.key().unwrap();
    let made = keys::certificate_by_device(signer, &forged, keys::Use::Attest, now()).unwrap();
    let shown = ZCert {
        hash_algo: HashAlgorithm::Sha25616bytes.into(),
        cert_hash: CertHash::of(made.pem()).0.to_vec(),
        r#type: ZCertType::CertTypeDeviceRestrictedSigning.into(),
        cert: made.pem().to_vec(),
        attributes: Some(ZCertAttr { is_mutable: true, is_tpm: false }),
        ..ZCert::default()
    };
    device.reboot();
    device.show_these(&mut line, vec![shown], now()).await.unwrap();
    let nonce = device.nonce(&mut line, now()).await.unwrap().unwrap();
    let tpm = device.tpm.clone().unwrap();
    let quote = tpm.quote(&nonce, &forged).unwrap();
    let went = device.send_quote(&mut line, quote, now()).await.unwrap();
    assert_eq!(went, Attested::Refused(4));
    assert!(device.returned_keys().is_empty());
    assert_eq!(device.attest(&mut line, now()).await.unwrap(), Attested::Yes);
}

#[tokio::test]
async fn a_nonce_is_good_for_one_quote() {
    let (_home, mut line) = fleet(EDGE).await;
    let mut device = edge(1);
    device.onboard(&mut line, now()).await.unwrap();
    let nonce = device.nonce(&mut line, now()).await.unwrap().unwrap();
    let quote = device.quote(&nonce).unwrap();
    let first = device.send_quote(&mut line, quote.clone(), now()).await.unwrap();
    let second = device.send_quote(&mut line, quote, now()).await.unwrap();
    assert_eq!((first, second), (Attested::Yes, Attested::Refused(2)));
}

#[tokio::test]
async fn a_deleted_device_is_told_so_and_may_come_back_under_another_name() {
    let (home, mut line) = fleet(EDGE).await;
    let operator = home.operator().unwrap();
    let mut device = edge(1);
    device.round(&mut line, now()).await.unwrap();
    let first = device.id();
    operator.delete("Device", "edge-1", false).await.unwrap();
    let polled = device.poll(&mut line, now()).await.unwrap();
    assert!(matches!(polled, Polled::Refused(400 | 404)), "{polled:?}");
    assert_eq!(device.ask_uuid(&mut line, now()).await.unwrap(), 401);
    operator.apply(EDGE, false).await.unwrap();
    device.onboard(&mut line, now()).await.unwrap();
    assert_ne!(device.id(), first);
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Applied);
}

#[tokio::test]
async fn a_device_that_is_known_by_its_certificate_need_not_register() {
    let home = Home::start().await.unwrap();
    let conf = Conf::from_files(&home.files().unwrap(), home.address(), Session::Full).unwrap();
    let mut line = Line::new(conf.without_onboarding().into(), Way::Close);
    let mut device = edge(1);
    device.fetch_certs(&mut line, now()).await.unwrap();
    assert_eq!(device.ask_uuid(&mut line, now()).await.unwrap(), 401);
    let pem = String::from_utf8(device.certificate(now()).unwrap().pem().to_vec()).unwrap();
    let expected = NewDevice { certificate: Some(pem), ..NewDevice::default() };
    let added = home.operator().unwrap().add_device(&expected).await.unwrap();
    let went = device.onboard(&mut line, now()).await.unwrap();
    assert_eq!(went, Onboarded { register: None, uuid: 200 });
    assert_eq!(device.id(), Some(added.id.raw()));
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Applied);
}

#[tokio::test]
async fn a_device_in_quarantine_gets_no_config_and_is_still_heard() {
    let (home, mut line) = fleet(EDGE).await;
    let operator = home.operator().unwrap();
    let mut device = edge(1);
    device.round(&mut line, now()).await.unwrap();
    operator.quarantine("edge-1", Some("it behaves oddly")).await.unwrap();
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Refused(403));
    // It attests, as EVE does on 403, and that does not let it out.
    device.attest(&mut line, now()).await.unwrap();
    assert_eq!(device.poll(&mut line, now()).await.unwrap(), Polled::Refused(403));
    assert_eq!(device.send_metrics(&mut line, now()).await.unwrap(), 201);
    operator.quarantine("edge-1", None).await.unwrap();
    let polled = device.poll(&mut line, now()).await.unwrap();
    assert!(matches!(polled, Polled::Unchanged | Polled::Applied), "{polled:?}");
}
