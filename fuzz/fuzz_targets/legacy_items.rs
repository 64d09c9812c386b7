//! Never panics; settings of EVE's old file are told by the same rules as those of a config.
#![no_main]

use api::convert::{items, legacy};
use libfuzzer_sys::fuzz_target;
use model::UnixMillis;
use model::desired::Properties;

fuzz_target!(|bytes: &[u8]| {
    let Ok(told) = legacy::items(bytes) else { return };
    let now = UnixMillis(1);
    let settings = items::properties(&told, &Properties::default(), now);
    for (key, value) in &told {
        let refused = settings.problems.contains_key(key);
        assert_eq!(items::check_item(key, value).is_err(), refused, "{key}");
    }
    assert_eq!(items::properties(&told, &settings, UnixMillis(2)).problems, settings.problems);
});
