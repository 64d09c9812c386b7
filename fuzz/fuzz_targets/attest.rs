//! Never panics; what is understood, written again, is understood the same.
#![no_main]

use api::convert::attest::{Answer, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = Request::from_payload(bytes) {
        assert_eq!(Request::from_payload(&request.to_payload()).expect("we wrote it"), request);
    }
    if let Ok(answer) = Answer::from_payload(bytes) {
        assert_eq!(Answer::from_payload(&answer.to_payload()).expect("we wrote it"), answer);
    }
});
