//! The only place that asks what time it is.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::UnixMillis;

/// The wall clock. A clock before 1970 reads as 1970.
#[expect(clippy::disallowed_methods, reason = "this is the door that the lint points to")]
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The wall clock in nanoseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "this is the door that the lint points to")]
pub fn nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Moves the wall clock forward by so many nanoseconds, or back. Needs CAP_SYS_TIME.
pub fn move_by(nanoseconds: i64) -> io::Result<()> {
    let at = nanos().saturating_add(nanoseconds);
    let (seconds, rest) = (at.div_euclid(1_000_000_000), at.rem_euclid(1_000_000_000));
    let at = rustix::time::Timespec { tv_sec: seconds, tv_nsec: rest };
    Ok(rustix::time::clock_settime(rustix::time::ClockId::Realtime, at)?)
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
        assert!(u64::try_from(nanos() / 1_000_000).unwrap().abs_diff(now().0) < 1000);
    }
}
