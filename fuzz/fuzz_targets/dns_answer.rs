//! Never panics; what answers another question is no answer.
#![no_main]

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use host::http::resolve::read_answer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The question that the bytes would answer, if they are an answer, and one that nobody asked.
    let Ok(name) = Name::from_ascii("a.example.") else { return };
    let ours = |id, queries: Vec<Query>| {
        let mut question = Message::new(id, MessageType::Query, OpCode::Query);
        question.queries = queries;
        question
    };
    if let Ok(answer) = Message::from_vec(bytes) {
        let (id, queries) = (answer.metadata.id, answer.queries);
        let _ = read_answer(bytes, &ours(id, queries.clone()));
        assert!(read_answer(bytes, &ours(id.wrapping_add(1), queries)).is_none());
    }
    let _ = read_answer(bytes, &ours(7, vec![Query::query(name, RecordType::A)]));
});
