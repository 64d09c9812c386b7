//! Never panics; what parses, prints and parses to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use store::{ImageConfig, Index, Manifest};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::parse(bytes, "m") {
        assert_eq!(Manifest::parse(&manifest.to_bytes(), "m").expect("we wrote it"), manifest);
    }
    if let Ok(index) = Index::parse(bytes, "i") {
        assert_eq!(Index::parse(&index.to_bytes(), "i").expect("we wrote it"), index);
    }
    if let Ok(config) = ImageConfig::parse(bytes, "c") {
        let _ = config.platform();
    }
});
