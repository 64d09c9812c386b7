//! Never panics; noise is no bootstrap file, and of what the controller signed only the sections
//! that count are taken, always the same.
#![no_main]

use std::sync::LazyLock;

use api::cipher::ExchangeKey;
use api::pb::auth::{AuthBody, AuthContainer};
use api::pb::certs::ZControllerCert;
use api::pb::config::BootstrapConfig;
use api::{Certificate, Sender, SigningKey, bootstrap, certs, envelope, limits, wire};
use libfuzzer_sys::fuzz_target;
use model::UnixMillis;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

struct Controller {
    root: Certificate,
    key: SigningKey,
    signing: Certificate,
    set: ZControllerCert,
}

static CONTROLLER: LazyLock<Controller> = LazyLock::new(|| {
    let root_key = SigningKey::generate().expect("a key");
    let root = api::device_certificate(&root_key, NOW).expect("a root");
    // The one kind of certificate that the library signs with another: any of P-256 can sign.
    let pair = ExchangeKey::generate().expect("a key");
    let signing = api::exchange_certificate(&root_key, &root, &pair, NOW).expect("a leaf");
    let key = SigningKey::from_pem(pair.to_pem().expect("as PEM").as_bytes()).expect("the key");
    let set = certs::publish(signing.pem(), &[], &[]);
    let set = wire::decode(&set, limits::CERTS).expect("we wrote it");
    Controller { root, key, signing, set }
});

fuzz_target!(|bytes: &[u8]| {
    let Controller { root, key, signing, set } = &*CONTROLLER;
    assert!(bootstrap::open(bytes, root.pem(), NOW).is_err());
    let sender = Sender::controller(key, signing.pem());
    let signed = envelope::sign(bytes, &sender).expect("signs");
    let container: AuthContainer = wire::decode(&signed, limits::CONFIG).expect("we wrote it");
    let file = wire::encode(&BootstrapConfig {
        signed_config: Some(AuthContainer {
            protected_payload: Some(AuthBody { payload: bytes.to_vec() }),
            ..container
        }),
        controller_certs: set.certs.clone(),
    });
    let Ok(taken) = bootstrap::open(&file, root.pem(), NOW) else { return };
    let controller = wire::encode(set);
    let again = bootstrap::write(&taken.config, &sender, &controller).expect("writes");
    let again = bootstrap::open(&again, root.pem(), NOW).expect("we wrote it");
    assert_eq!(again.config, taken.config);
    assert!(!again.had_more);
});
