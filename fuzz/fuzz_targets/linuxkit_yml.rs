//! Never panics, and every mistake has a place; what is understood can be shown.
#![no_main]

use builder::compose::{Description, show};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let package = |path: &str| if path.len() > 9 { Err("long".into()) } else { Ok(path.into()) };
    match Description::parse(&[("f", text)], &package) {
        Ok(description) => assert!(show(&description).starts_with("kernel:\n")),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
