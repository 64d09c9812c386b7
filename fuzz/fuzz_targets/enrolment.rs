//! Never panics; what a node says when it comes, and what it is answered, written again, is read the
//! same.
#![no_main]

use api::convert::config;
use api::newlogs::ServerMetrics;
use api::onboarding::{Named, Registration};
use libfuzzer_sys::fuzz_target;
use model::DeviceId;
use uuid::Uuid;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(registration) = Registration::from_payload(bytes) {
        let again = Registration::from_payload(&registration.to_payload()).expect("we wrote it");
        assert_eq!(again, registration);
    }
    if let Ok(named) = Named::from_payload(bytes) {
        assert_eq!(Named::from_payload(&named.to_payload()).expect("we wrote it"), named);
    }
    if let Ok(request) = config::Request::from_payload(bytes) {
        let again = config::Request::from_payload(&request.to_payload()).expect("we wrote it");
        assert_eq!(again, request);
    }
    let _ = config::read_answer(bytes, DeviceId::new(Uuid::from_u128(7)), "have");
    let _ = ServerMetrics::from_body(bytes);
});
