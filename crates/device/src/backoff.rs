//! How long to wait before the next try.

use std::time::Duration;

/// Waits that double from `first` to `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// Never longer than this.
    pub longest: Duration,
}

/// A number from 0 to 1 that the caller drew, so that many nodes do not knock at once and a test
/// can say what was drawn. Whatever is no such number counts as 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter(pub f64);

impl Backoff {
    /// The wait after so many failures in a row; the last quarter of it is left to chance.
    pub fn after(self, failures: u32, jitter: Jitter) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let wait = self.first.saturating_mul(1 << doublings).min(self.longest);
        jitter.between(wait.mul_f64(0.75), wait)
    }
}

impl Jitter {
    /// The point between two durations that this chance stands for.
    pub fn between(self, least: Duration, most: Duration) -> Duration {
        let part = if (0.0..=1.0).contains(&self.0) { self.0 } else { 1.0 };
        least + most.saturating_sub(least).mul_f64(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: Backoff =
        Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(600) };

    #[test]
    fn doubles_up_to_the_longest() {
        let waits = [1, 2, 3, 10, 11, 1000].map(|n| SECONDS.after(n, Jitter(1.0)).as_secs());
        assert_eq!(waits, [1, 2, 4, 512, 600, 600]);
    }

    #[test]
    fn chance_shortens_by_a_quarter_at_most() {
        assert_eq!(SECONDS.after(3, Jitter(0.0)), Duration::from_secs(3));
        assert_eq!(SECONDS.after(3, Jitter(f64::NAN)), Duration::from_secs(4));
    }
}
