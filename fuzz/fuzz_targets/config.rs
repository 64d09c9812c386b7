//! Never panics; what a node understands, written again, is understood the same.
#![no_main]

use api::convert::config;
use api::pb::config::EdgeDevConfig;
use api::{limits, wire};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = wire::decode::<EdgeDevConfig>(bytes, limits::CONFIG) else { return };
    let Some(id) = message.id.as_ref().and_then(|id| id.uuid.parse().ok()) else { return };
    let mut device = config::read(&message, id).expect("it is ours");
    device.refused.clear();
    assert_eq!(config::read(&config::write(&device), id).expect("we wrote it"), device);
});
