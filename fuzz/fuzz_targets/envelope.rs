//! Never panics; what opens names a sender or says why not, and no noise is believed.
#![no_main]

use api::{Signer, certs, envelope, limits};
use libfuzzer_sys::fuzz_target;
use model::UnixMillis;

fuzz_target!(|bytes: &[u8]| {
    assert!(certs::learn(bytes, bytes, UnixMillis(0)).is_err());
    let Ok(received) = envelope::open(bytes, limits::CERTS) else { return };
    let _ = received.sender();
    if let Ok(certificate) = received.sender_certificate()
        && let Ok(signer) = Signer::device(&certificate)
    {
        let _ = received.verify(&signer);
    }
});
