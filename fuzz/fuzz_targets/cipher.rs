//! Never panics; noise opens nothing but by its own hash, and what is sealed opens to the same.
#![no_main]

use std::collections::BTreeMap;

use api::cipher::{CertHash, Context, Opener, Secrets, SharedKey};
use api::pb::common::{CipherBlock, CipherContext};
use api::{limits, wire};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let key = SharedKey::from_point(&[1; 32], &[2; 32]);
    if let Ok(block) = wire::decode::<CipherBlock>(bytes, limits::CONFIG)
        && let Ok(plain) = key.open(&block)
    {
        let iv = block.initial_value.as_slice().try_into().expect("it opened");
        assert_eq!(key.seal(&block.cipher_context_id, plain.expose(), iv).expect("seals"), block);
    }
    if let Ok(context) = wire::decode::<CipherContext>(bytes, limits::CONFIG) {
        if let Ok(read) = Context::from_wire(&context) {
            assert_eq!(Context::from_wire(&read.to_wire()).expect("we wrote it"), read);
        }
        // The same, with a key for whatever certificate the context may name.
        let known = BTreeMap::from([(CertHash([0; 16]), key.clone())]);
        let opener = Opener::with_keys(CertHash([0; 16]), known).with_contexts(&[context]);
        if let Ok(block) = wire::decode::<CipherBlock>(bytes, limits::CONFIG) {
            let _ = opener.open_secrets(&block);
        }
    }
    if let Ok(secrets) = Secrets::from_payload(bytes) {
        let again = Secrets::from_payload(secrets.to_payload().expose()).expect("we wrote it");
        assert_eq!(again, secrets);
    }
    if !bytes.is_empty() {
        let block = key.seal("fuzz", bytes, [3; 16]).expect("seals");
        assert_eq!(key.open(&block).expect("we sealed it").expose().as_slice(), bytes);
    }
});
