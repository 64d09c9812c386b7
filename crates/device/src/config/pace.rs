//! When something that is told from time to time is due: metrics, hardware health.
//!
//! A shorter interval counts at once. A longer one is announced by a message of its own, sent at
//! once, and counts only when that was delivered: a controller that waits for us to fall silent must
//! not do so because we agreed on a longer silence that it has not heard of (EVE API, metrics).

use std::time::Duration;

/// Times are since some start that does not change, as a clock has them that never jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    last: Option<Duration>,
    interval: Duration,
}

impl Pace {
    /// Nothing was told yet.
    pub fn new(interval: Duration) -> Pace {
        Pace { last: None, interval }
    }

    /// When the next message is due, with an interval wanted of `wanted`.
    pub fn due(&self, wanted: Duration) -> Duration {
        match self.last {
            None => Duration::ZERO,
            Some(last) if wanted > self.interval => last,
            Some(last) => last.saturating_add(wanted),
        }
    }

    /// One was sent at `now`, and delivered or not. It is not sent again either way.
    #[must_use]
    pub fn sent(self, now: Duration, wanted: Duration, delivered: bool) -> Pace {
        let interval = match wanted > self.interval && !delivered {
            true => self.interval,
            false => wanted,
        };
        // A failed announcement is tried again after the interval that still counts, not at once.
        let last = if interval == wanted { now } else { now.saturating_add(self.interval) };
        Pace { last: Some(last), interval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_interval_one_without_a_backlog() {
        let pace = Pace::new(s(60));
        assert_eq!(pace.due(s(60)), s(0));
        let pace = pace.sent(s(10), s(60), true);
        assert_eq!(pace.due(s(60)), s(70));
        // An hour of silence: one message, not sixty.
        let pace = pace.sent(s(3700), s(60), false);
        assert_eq!(pace.due(s(60)), s(3760));
    }

    #[test]
    fn a_shorter_interval_counts_at_once() {
        let pace = Pace::new(s(60)).sent(s(10), s(60), true);
        assert_eq!(pace.due(s(5)), s(15));
        assert_eq!(pace.sent(s(15), s(5), false).due(s(5)), s(20));
    }

    #[test]
    fn a_longer_one_is_announced_and_counts_when_that_was_heard() {
        let pace = Pace::new(s(60)).sent(s(10), s(60), true);
        assert_eq!(pace.due(s(600)), s(10), "at once");
        let unheard = pace.sent(s(12), s(600), false);
        assert_eq!(unheard.due(s(600)), s(72), "by the old interval");
        let heard = unheard.sent(s(72), s(600), true);
        assert_eq!(heard.due(s(600)), s(672));
        assert_eq!(pace.sent(s(12), s(600), true).due(s(600)), s(612));
    }
}
