//! When to ask a server near the node what.

use std::collections::BTreeMap;
use std::time::Duration;

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// An answer, or none at all: it is asked again as usual.
    Something,
    /// The server has no such call: it is asked more seldom.
    NotThere,
}

/// The calls of a server and when each is due, counted from any moment of the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rounds<C> {
    due: BTreeMap<C, Duration>,
}

impl<C: Ord + Copy> Rounds<C> {
    /// All are due at once.
    pub fn new(calls: impl IntoIterator<Item = C>, now: Duration) -> Rounds<C> {
        Rounds { due: calls.into_iter().map(|call| (call, now)).collect() }
    }

    /// The call that is due longest, if one is.
    pub fn next(&self, now: Duration) -> Option<C> {
        let first = self.due.iter().min_by_key(|(_, due)| **due);
        first.filter(|(_, due)| **due <= now).map(|(call, _)| *call)
    }

    /// When the next one is due. `None`: there are no calls.
    pub fn wake(&self) -> Option<Duration> {
        self.due.values().min().copied()
    }

    /// A call was made; it is due again after `period`, or after `slow`.
    pub fn done(&mut self, call: C, heard: Heard, now: Duration, [period, slow]: [Duration; 2]) {
        let wait = match heard {
            Heard::Something => period,
            Heard::NotThere => slow.max(period),
        };
        if let Some(due) = self.due.get_mut(&call) {
            *due = now.saturating_add(wait);
        }
    }

    /// The server says that these have news.
    pub fn hurry(&mut self, calls: &[C], now: Duration) {
        for call in calls {
            if let Some(due) = self.due.get_mut(call) {
                *due = (*due).min(now);
            }
        }
    }
}
