//! Never panics; what is taken from a local profile server, written again, is read the same, and what
//! comes in pieces says what it says in one.
#![no_main]

use api::lps::signal::Lines;
use api::lps::{Answer, Call, read_request};
use libfuzzer_sys::fuzz_target;

const CALLS: [Call; 7] = [
    Call::LocalProfile,
    Call::Radio,
    Call::AppInfo,
    Call::AppBootInfo,
    Call::DevInfo,
    Call::Network,
    Call::Location,
];

fuzz_target!(|bytes: &[u8]| {
    for call in CALLS {
        if let Ok(answer) = Answer::read(call, 200, bytes, "") {
            let (status, body) = answer.to_body("");
            let again = Answer::read(call, status, &body, "").expect("we wrote it");
            assert_eq!(again, answer);
            // A token that is not the configured one makes every answer worthless.
            assert!(call == Call::Location || Answer::read(call, 200, &body, "token").is_err());
        }
        if let Ok(told) = read_request(call, bytes) {
            assert_eq!(read_request(call, &told.to_body()).expect("we wrote it"), told);
        }
    }
    let (mut whole, mut pieces) = (Lines::default(), Lines::default());
    let shown = |said: &Result<Vec<Call>, _>| said.as_ref().ok().cloned();
    let at_once: Vec<_> = whole.push(bytes).iter().map(shown).collect();
    let by_piece: Vec<_> =
        bytes.chunks(7).flat_map(|piece| pieces.push(piece)).map(|said| shown(&said)).collect();
    assert_eq!(at_once, by_piece);
    assert_eq!(whole, pieces);
});
