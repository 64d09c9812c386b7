//! Never panics; a certificate or a key that is read, written again, is read the same.
#![no_main]

use api::cipher::ExchangeKey;
use api::{Certificate, Signer, SigningKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(certificate) = Certificate::from_pem(bytes) {
        let again = Certificate::from_pem(certificate.pem()).expect("it was read once");
        assert_eq!(again.digest(), certificate.digest());
        let _ = certificate.is_signed_by(&certificate);
        let _ = Signer::device(&certificate);
    }
    if let Ok(key) = SigningKey::from_pem(bytes) {
        let pem = key.to_pem().expect("as PEM");
        let again = SigningKey::from_pem(pem.as_bytes()).expect("we wrote it");
        assert_eq!(again.public_point(), key.public_point());
        assert!(ExchangeKey::from_pem(bytes).is_ok());
    }
});
