//! Which message about which object goes to the controller next.
//!
//! The wish is a table: for every object what should be known of it. What was delivered is another.
//! Where they differ there is something to send; the latest state wins and states in between may be
//! skipped. An object that vanished is told once, as deleted. All of it lives in memory: after a
//! reboot everything is told again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::UnixMillis;

use crate::backoff::{Backoff, Jitter};

/// Between tries of one message (EVE API, deferred queue).
pub const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(60), longest: Duration::from_secs(900) };

/// What can be done with one object.
#[derive(Debug, Clone, PartialEq)]
pub enum Message<V> {
    /// This is how it is.
    Is(V),
    /// It is no more.
    Gone,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The controller has it.
    Delivered,
    /// The controller does not want it, and never will (4xx other than those of `Later`).
    Refused,
    /// 401, 403, 407, 408, 429, 5xx: this one again later.
    Later,
    /// No answer: everything waits.
    Unreachable,
}

impl Outcome {
    /// What an HTTP status means to the queue.
    pub fn of_status(status: u16) -> Outcome {
        match status {
            200 | 201 | 204 | 304 => Outcome::Delivered,
            401 | 403 | 407 | 408 | 429 => Outcome::Later,
            400..500 => Outcome::Refused,
            _ => Outcome::Later,
        }
    }
}

/// Objects in the order of their keys: the caller's `Ord` says what is told first.
#[derive(Debug, Clone)]
pub struct Queue<K, V> {
    wanted: BTreeMap<K, V>,
    delivered: BTreeMap<K, V>,
    /// Told again although nothing changed.
    again: BTreeSet<K>,
    held: BTreeMap<K, Held>,
    all_held: Option<Held>,
}

/// Not before `until`.
#[derive(Debug, Clone, Copy)]
struct Held {
    failures: u32,
    until: UnixMillis,
}

impl Held {
    /// Whether it still counts. No wait is longer than the longest: a clock that was set back must
    /// not hold a message for years.
    fn holds(self, now: UnixMillis) -> bool {
        now < self.until && self.until.since(now) <= BACKOFF.longest
    }
}

impl<K: Ord + Clone, V: PartialEq + Clone> Default for Queue<K, V> {
    fn default() -> Self {
        Queue {
            wanted: BTreeMap::new(),
            delivered: BTreeMap::new(),
            again: BTreeSet::new(),
            held: BTreeMap::new(),
            all_held: None,
        }
    }
}

impl<K: Ord + Clone, V: PartialEq + Clone> Queue<K, V> {
    /// Says how everything is now. What is not in the table is gone.
    pub fn want(&mut self, table: BTreeMap<K, V>) {
        self.wanted = table;
        let (wanted, delivered) = (&self.wanted, &self.delivered);
        self.held.retain(|k, _| wanted.contains_key(k) || delivered.contains_key(k));
        self.again.retain(|k| wanted.contains_key(k));
    }

    /// Tells this object again although it may not have changed.
    pub fn tell_again(&mut self, key: &K) {
        if self.wanted.contains_key(key) {
            self.again.insert(key.clone());
        }
    }

    /// Tells everything again: the controller asked for it, or the way to it was found again.
    pub fn tell_all_again(&mut self) {
        self.again.extend(self.wanted.keys().cloned());
        self.held.clear();
        self.all_held = None;
    }

    /// Forgets the waits: there is reason to believe that the controller is reached now.
    pub fn hurry(&mut self) {
        self.all_held = None;
    }

    /// The next message, if one may go out now.
    pub fn next(&self, now: UnixMillis) -> Option<(K, Message<V>)> {
        if self.all_held.is_some_and(|h| h.holds(now)) {
            return None;
        }
        let free = |key: &K| self.held.get(key).is_none_or(|h| !h.holds(now));
        let key = self.due().find(|k| free(k))?.clone();
        let message = self.wanted.get(&key).cloned().map_or(Message::Gone, Message::Is);
        Some((key, message))
    }

    /// When there is something to send again. `None`: not before something changes.
    pub fn wake(&self) -> Option<UnixMillis> {
        let until = |key: &K| self.held.get(key).map_or(UnixMillis(0), |h| h.until);
        let first = self.due().map(until).min()?;
        Some(first.max(self.all_held.map_or(UnixMillis(0), |h| h.until)))
    }

    /// Takes note of what became of a message that [`Queue::next`] gave.
    pub fn done(
        &mut self,
        key: &K,
        sent: Message<V>,
        outcome: Outcome,
        now: UnixMillis,
        jitter: Jitter,
    ) {
        let held = |before: Option<Held>| {
            let failures = before.map_or(0, |h| h.failures).saturating_add(1);
            Held { failures, until: now.after(BACKOFF.after(failures, jitter)) }
        };
        match outcome {
            // A refused message counts as delivered: sending it again cannot help.
            Outcome::Delivered | Outcome::Refused => {
                self.held.remove(key);
                self.all_held = None;
                self.again.remove(key);
                match sent {
                    Message::Is(value) => drop(self.delivered.insert(key.clone(), value)),
                    Message::Gone => drop(self.delivered.remove(key)),
                }
            }
            Outcome::Later => {
                self.all_held = None;
                let new = held(self.held.get(key).copied());
                self.held.insert(key.clone(), new);
            }
            Outcome::Unreachable => self.all_held = Some(held(self.all_held)),
        }
    }

    fn due(&self) -> impl Iterator<Item = &K> {
        let changed = self
            .wanted
            .iter()
            .filter(|(k, v)| self.delivered.get(k) != Some(v) || self.again.contains(*k))
            .map(|(k, _)| k);
        changed.chain(self.delivered.keys().filter(|k| !self.wanted.contains_key(k)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Words = Queue<u8, &'static str>;

    fn table(rows: &[(u8, &'static str)]) -> BTreeMap<u8, &'static str> {
        rows.iter().copied().collect()
    }

    /// Sends the next message with this outcome and tells which it was.
    fn send(queue: &mut Words, outcome: Outcome, now: u64) -> Option<(u8, Message<&'static str>)> {
        let (key, message) = queue.next(UnixMillis(now))?;
        queue.done(&key, message.clone(), outcome, UnixMillis(now), Jitter(1.0));
        Some((key, message))
    }

    #[test]
    fn tells_each_change_once_in_order_and_the_end_too() {
        let mut queue = Words::default();
        queue.want(table(&[(2, "b"), (1, "a")]));
        assert_eq!(send(&mut queue, Outcome::Delivered, 0), Some((1, Message::Is("a"))));
        assert_eq!(send(&mut queue, Outcome::Delivered, 0), Some((2, Message::Is("b"))));
        assert_eq!(send(&mut queue, Outcome::Delivered, 0), None);
        queue.want(table(&[(2, "c")]));
        assert_eq!(send(&mut queue, Outcome::Delivered, 0), Some((2, Message::Is("c"))));
        assert_eq!(send(&mut queue, Outcome::Delivered, 0), Some((1, Message::Gone)));
        assert_eq!((queue.next(UnixMillis(0)), queue.wake()), (None, None));
    }

    #[test]
    fn a_change_while_sending_is_not_lost() {
        let mut queue = Words::default();
        queue.want(table(&[(1, "old")]));
        let (key, sent) = queue.next(UnixMillis(0)).unwrap();
        queue.want(table(&[(1, "new")]));
        queue.done(&key, sent, Outcome::Delivered, UnixMillis(0), Jitter(1.0));
        assert_eq!(queue.next(UnixMillis(0)), Some((1, Message::Is("new"))));
    }

    #[test]
    fn one_that_must_wait_does_not_hold_up_others() {
        let mut queue = Words::default();
        queue.want(table(&[(1, "a"), (2, "b")]));
        send(&mut queue, Outcome::Later, 0);
        assert_eq!(send(&mut queue, Outcome::Delivered, 1), Some((2, Message::Is("b"))));
        assert_eq!(queue.next(UnixMillis(59_999)), None);
        assert_eq!(queue.wake(), Some(UnixMillis(60_000)));
        send(&mut queue, Outcome::Later, 60_000);
        assert_eq!(queue.wake(), Some(UnixMillis(180_000)));
    }

    #[test]
    fn a_clock_that_is_set_back_holds_nothing() {
        let mut queue = Words::default();
        queue.want(table(&[(1, "a"), (2, "b")]));
        let year = 365 * 24 * 3_600_000;
        send(&mut queue, Outcome::Later, year);
        assert_eq!(send(&mut queue, Outcome::Unreachable, year), Some((2, Message::Is("b"))));
        assert_eq!(queue.next(UnixMillis(year)), None);
        assert_eq!(queue.next(UnixMillis(1)), Some((1, Message::Is("a"))));
    }

    #[test]
    fn without_an_answer_all_wait() {
        let mut queue = Words::default();
        queue.want(table(&[(1, "a"), (2, "b")]));
        send(&mut queue, Outcome::Unreachable, 0);
        assert_eq!((queue.next(UnixMillis(1)), queue.wake()), (None, Some(UnixMillis(60_000))));
        queue.hurry();
        assert!(queue.next(UnixMillis(1)).is_some());
    }

    #[test]
    fn a_refused_message_is_dropped_until_it_changes() {
        let mut queue = Words::default();
        queue.want(table(&[(1, "a")]));
        send(&mut queue, Outcome::Refused, 0);
        assert_eq!(queue.next(UnixMillis(0)), None);
        queue.want(table(&[(1, "b")]));
        assert!(queue.next(UnixMillis(0)).is_some());
    }

    #[test]
    fn everything_is_told_again_when_asked_for() {
        let mut queue = Words::default();
        queue.want(table(&[(1, "a")]));
        send(&mut queue, Outcome::Delivered, 0);
        queue.tell_all_again();
        assert_eq!(send(&mut queue, Outcome::Delivered, 0), Some((1, Message::Is("a"))));
        assert_eq!(queue.next(UnixMillis(0)), None);
    }

    /// A controller that is overloaded for an hour, then restarts: each object waits by itself, longer
    /// and longer, the latest state wins, and all is delivered in the end.
    #[test]
    fn an_hour_of_503_loses_nothing_and_floods_nobody() {
        let mut queue = Words::default();
        let (hour, mut now, mut sent) = (3_600_000, 0, 0);
        queue.want(table(&[(1, "old"), (2, "b")]));
        while now < hour {
            if queue.next(UnixMillis(now)).is_none() {
                now = queue.wake().unwrap().0;
                continue;
            }
            send(&mut queue, Outcome::of_status(503), now);
            sent += 1;
            if sent == 3 {
                queue.want(table(&[(1, "new"), (2, "b")]));
            }
        }
        // After 0, 1, 3, 7, 15, 30 and 45 minutes, each of the two.
        assert_eq!(sent, 2 * 7, "in an hour");
        for _ in 0..2 {
            now = now.max(queue.wake().unwrap().0);
            let (key, message) = send(&mut queue, Outcome::Delivered, now).unwrap();
            let want = if key == 1 { "new" } else { "b" };
            assert_eq!(message, Message::Is(want));
        }
        assert_eq!(queue.wake(), None);
    }

    #[test]
    fn statuses_mean_what_the_api_says() {
        for (status, want) in [
            (201, Outcome::Delivered),
            (304, Outcome::Delivered),
            (404, Outcome::Refused),
            (422, Outcome::Refused),
            (403, Outcome::Later),
            (429, Outcome::Later),
            (503, Outcome::Later),
        ] {
            assert_eq!(Outcome::of_status(status), want, "{status}");
        }
    }
}
