//! The only place that asks what time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::UnixMillis;

/// The wall clock. A clock before 1970 reads as 1970.
#[expect(clippy::disallowed_methods, reason = "this is the door that the lint points to")]
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How long the kernel runs already (`/proc/uptime`, to 10 ms). Zero if it does not say.
pub fn since_boot() -> Duration {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split_whitespace().next().and_then(|s| s.parse::<f64>().ok());
    Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_long_it_runs() {
        let before = since_boot();
        std::thread::sleep(Duration::from_millis(30));
        assert!(before > Duration::ZERO && since_boot() > before);
    }
}
