//! The only place that asks what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

use model::UnixMillis;

/// The wall clock. A clock before 1970 reads as 1970.
#[expect(clippy::disallowed_methods, reason = "this is the door that the lint points to")]
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
