//! The queue of what must arrive: info and attestation messages (EVE API, "Timing and retry").
//!
//! One entry a key, the newer replaces the older. An answer that may be better later (401, 403, 407,
//! 408, 429, 5xx) puts an entry off, one minute doubling to fifteen; another refusal drops it; no
//! answer at all puts the whole queue off.

use std::collections::BTreeMap;

use model::UnixMillis;

const FIRST_WAIT: u64 = 60_000;
const LAST_WAIT: u64 = 900_000;

#[derive(Debug, Clone)]
struct Entry {
    payload: Vec<u8>,
    /// Not before this time.
    due: UnixMillis,
    /// What the next wait is, in milliseconds.
    wait: u64,
}

/// The queue. Keys order it: what is sent first comes first.
#[derive(Debug, Clone)]
pub struct Queue<K> {
    entries: BTreeMap<K, Entry>,
    due: UnixMillis,
    wait: u64,
}

impl<K: Ord + Clone> Default for Queue<K> {
    fn default() -> Queue<K> {
        Queue { entries: BTreeMap::new(), due: UnixMillis(0), wait: FIRST_WAIT }
    }
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrived.
    Delivered,
    /// It is tried again later.
    Kept,
    /// The controller does not want it.
    Dropped,
}

impl<K: Ord + Clone> Queue<K> {
    /// Puts in what is to be sent; what was waiting under the same key is outdated.
    pub fn put(&mut self, key: K, payload: Vec<u8>) {
        let entry = self.entries.entry(key);
        let entry =
            entry.or_insert(Entry { payload: Vec::new(), due: UnixMillis(0), wait: FIRST_WAIT });
        entry.payload = payload;
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first that may be sent now and comes after `after`.
    pub fn next(&self, now: UnixMillis, after: Option<&K>) -> Option<(K, Vec<u8>)> {
        if now < self.due {
            return None;
        }
        let mut all = self.entries.iter().filter(|(key, _)| after.is_none_or(|after| *key > after));
        all.find(|(_, e)| e.due <= now).map(|(key, e)| (key.clone(), e.payload.clone()))
    }

    /// The controller has answered with this status.
    pub fn answered(&mut self, key: &K, status: u16, now: UnixMillis) -> Fate {
        self.wait = FIRST_WAIT;
        match status {
            200 | 201 | 204 | 304 => {
                self.entries.remove(key);
                Fate::Delivered
            }
            401 | 403 | 407 | 408 | 429 | 500.. => {
                if let Some(entry) = self.entries.get_mut(key) {
                    entry.due = UnixMillis(now.0.saturating_add(entry.wait));
                    entry.wait = (entry.wait * 2).min(LAST_WAIT);
                }
                Fate::Kept
            }
            _ => {
                self.entries.remove(key);
                Fate::Dropped
            }
        }
    }

    /// The controller has not answered: nothing is sent for a while.
    pub fn unanswered(&mut self, now: UnixMillis) {
        self.due = UnixMillis(now.0.saturating_add(self.wait));
        self.wait = (self.wait * 2).min(LAST_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: UnixMillis = UnixMillis(1_000_000);

    #[test]
    fn the_newest_under_a_key_counts_and_goes_in_order() {
        let mut queue = Queue::default();
        queue.put("b", vec![1]);
        queue.put("a", vec![2]);
        queue.put("b", vec![3]);
        assert_eq!(queue.next(T, None), Some(("a", vec![2])));
        assert_eq!(queue.next(T, Some(&"a")), Some(("b", vec![3])));
        assert_eq!(queue.answered(&"b", 201, T), Fate::Delivered);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn what_may_be_better_later_waits_and_what_never_will_is_dropped() {
        for (status, fate) in
            [(503, Fate::Kept), (429, Fate::Kept), (422, Fate::Dropped), (404, Fate::Dropped)]
        {
            let mut queue = Queue::default();
            queue.put("a", vec![1]);
            assert_eq!(queue.answered(&"a", status, T), fate, "{status}");
            assert_eq!(queue.next(T, None), None);
            let later = UnixMillis(T.0 + FIRST_WAIT);
            assert_eq!(queue.next(later, None).is_some(), fate == Fate::Kept);
        }
    }

    #[test]
    fn waits_double_up_to_a_quarter_of_an_hour() {
        let mut queue = Queue::default();
        queue.put("a", vec![1]);
        let mut now = T;
        for minutes in [1, 2, 4, 8, 15, 15] {
            queue.unanswered(now);
            now = UnixMillis(now.0 + minutes * 60_000);
            assert!(queue.next(UnixMillis(now.0 - 1), None).is_none(), "{minutes}");
            assert!(queue.next(now, None).is_some(), "{minutes}");
        }
    }
}
