//! Never panics, never unpacks more than it may; every event is told in harmless words, and the
//! registers that the log leads to are those that it agrees with.
#![no_main]

use std::collections::BTreeMap;

use api::eventlog::{Bank, EventLog};
use libfuzzer_sys::fuzz_target;
use model::Digest;

fuzz_target!(|bytes: &[u8]| {
    let _ = EventLog::unpack(bytes);
    let Ok(log) = EventLog::parse(bytes) else { return };
    for event in &log.events {
        let words = event.describe();
        assert!(!words.chars().any(char::is_control), "{words:?}");
        let _ = event.data_is_measured();
    }
    let Some(values) = log.replay(Bank::Sha256) else { return };
    let quoted: BTreeMap<u32, Digest> = values
        .into_iter()
        .map(|(register, value)| (register, Digest(value.try_into().expect("32 bytes"))))
        .collect();
    for account in log.compare(&quoted).expect("it has the bank") {
        assert!(account.agrees(), "{}", account.describe());
    }
});
