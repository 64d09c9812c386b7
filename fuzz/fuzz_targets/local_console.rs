//! Never panics; what is taken from a local operator console, written again, is read the same, and no
//! noise is a controller's config.
#![no_main]

use std::collections::BTreeMap;

use api::cipher::{CertHash, Opener, SharedKey};
use api::loc::{Compound, Request};
use api::{Signer, SigningKey, device_certificate};
use libfuzzer_sys::fuzz_target;
use model::UnixMillis;
use std::sync::LazyLock;

static CONTROLLER: LazyLock<Signer> = LazyLock::new(|| {
    let key = SigningKey::generate().expect("a key");
    let certificate = device_certificate(&key, UnixMillis(1 << 40)).expect("a certificate");
    Signer::device(&certificate).expect("a signer")
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = Request::from_payload(bytes) {
        assert_eq!(Request::from_payload(&request.to_payload()).expect("we wrote it"), request);
    }
    let Ok(compound) = Compound::open(bytes) else { return };
    assert_eq!(Compound::open(&compound.to_body()).expect("we wrote it"), compound);
    let zero = CertHash([0; 16]);
    let known = BTreeMap::from([(zero, SharedKey::from_point(&[1; 32], &[2; 32]))]);
    let believed = compound.verify(&CONTROLLER, &Opener::with_keys(zero, known));
    assert!(!matches!(believed, Ok(Some(_))));
});
