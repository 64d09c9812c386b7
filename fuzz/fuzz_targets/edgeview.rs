//! Never panics; noise is no token, and claims that the controller signed are taken only if it could
//! have issued them.
#![no_main]

use std::sync::LazyLock;

use api::edgeview::{self, Claims};
use api::{Signer, SigningKey, device_certificate};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use model::{DeviceId, UnixMillis};
use uuid::Uuid;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

static CONTROLLER: LazyLock<(SigningKey, Signer)> = LazyLock::new(|| {
    let key = SigningKey::generate().expect("a key");
    let certificate = device_certificate(&key, NOW).expect("a certificate");
    (key, Signer::device(&certificate).expect("a signer"))
});

fuzz_target!(|bytes: &[u8]| {
    let (key, signer) = &*CONTROLLER;
    let device = DeviceId::new(Uuid::from_u128(7));
    if let Ok(token) = std::str::from_utf8(bytes) {
        assert!(edgeview::verify(token, signer, device, NOW).is_err());
    }
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(bytes));
    let signature = key.sign(signed.as_bytes()).expect("signs");
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    if let Ok(claims) = edgeview::verify(&token, signer, device, NOW) {
        assert_eq!(claims.device.parse(), Ok(device));
        assert!(claims.expires > NOW.0 / 1000);
        let token = edgeview::issue(&claims, key).expect("it could");
        assert_eq!(edgeview::verify(&token, signer, device, NOW).expect("we issued it"), claims);
    }
    // Whatever claims there are: what is issued is believed until it runs out, or refused by both.
    if let Ok(claims) = serde_json::from_slice::<Claims>(bytes)
        && let Ok(token) = edgeview::issue(&claims, key)
    {
        let meant = claims.device.parse() == Ok(device) && claims.expires > NOW.0 / 1000;
        assert_eq!(edgeview::verify(&token, signer, device, NOW).is_ok(), meant);
    }
});
