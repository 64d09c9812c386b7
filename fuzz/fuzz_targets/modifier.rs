//! Template and modifier, with a line `---` between them. Never panics, never works without end; a
//! mistake has a place, and what is made is yml that reads as what it is.
#![no_main]

use builder::describe::{DescribeError, Request, Text, Variant, Words, describe};
use libfuzzer_sys::fuzz_target;

fn request(template: &str, modifier: Option<&str>) -> Request {
    let text = |name: &str, text: &str| Text { name: name.to_owned(), text: text.to_owned() };
    Request {
        template: text("t", template),
        modifiers: modifier.map(|m| text("m", m)).into_iter().collect(),
        hv: Some("kvm".into()),
        platform: None,
        version: None,
        variant: Variant { dev: true, k: false },
        words: Words::default(),
    }
}

fuzz_target!(|text: &str| {
    let Some((template, modifier)) = text.split_once("\n---\n") else { return };
    match describe(&request(template, Some(modifier))) {
        Ok(described) => {
            let _ = described.explain();
            let yml = described.yml();
            let again = describe(&request(&yml, None)).expect("we wrote it");
            assert_eq!(again.yml(), yml);
        }
        Err(DescribeError::Modifier(error)) => {
            // An option has no lines.
            let placed = error.file != "m" || error.line > 0 && error.column > 0;
            assert!(placed && !error.why.is_empty(), "{error}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
