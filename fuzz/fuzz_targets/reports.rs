//! Never panics, whatever a node reports: what is understood is kept as JSON and read again.
#![no_main]

use api::convert::view::{self, Flows, Health, Info, Metrics};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn kept<T: Serialize + DeserializeOwned>(value: &T) {
    let json = serde_json::to_vec(value).expect("as JSON");
    // Not compared: the last digit of a fraction may become another.
    serde_json::from_slice::<T>(&json).expect("we wrote it");
}

fuzz_target!(|bytes: &[u8]| {
    let _ = view::info(bytes).map(|info: Info| kept(&info));
    let _ = view::metrics(bytes).map(|metrics: Metrics| kept(&metrics));
    let _ = view::hardware_health(bytes).map(|health: Health| kept(&health));
    let _ = view::flowlog(bytes).map(|flows: Flows| kept(&flows));
});
