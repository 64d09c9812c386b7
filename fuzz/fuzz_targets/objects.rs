//! Never panics; documents that are understood are checked, and written again they say the same.
#![no_main]

use controller::objects::{Object, Objects, check, read, read_spec};
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

fuzz_target!(|text: &str| {
    let Ok(documents) = read(text) else { return };
    let mut objects = Objects::new();
    for (n, document) in (1..).zip(documents) {
        let again = read_spec(&document.key, &document.written).expect("it was read once");
        assert_eq!(again, document.spec);
        let key = document.key.clone();
        let object = Object {
            key: document.key,
            uid: Uuid::from_u128(n),
            generation: 1,
            restart: 0,
            purge: 0,
            pinned: None,
            spec: document.spec,
        };
        objects.insert(key, object.into());
    }
    for flaw in check(&objects) {
        assert!(!flaw.field.is_empty() && !flaw.text.is_empty());
    }
});
