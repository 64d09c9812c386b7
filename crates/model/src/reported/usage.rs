//! What is counted: traffic, disks, processes, calls to the controller, log files. Counters begin
//! with 0 when the kernel, or the service that counts, starts.

use std::collections::BTreeMap;
use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Bytes, UnixMillis};

/// What went through an interface, seen from the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// What came in.
    pub received: Way,
    /// What went out.
    pub sent: Way,
}

/// One direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// So much.
    pub bytes: Bytes,
    /// In so many packets.
    pub packets: u64,
    /// So many were broken.
    pub errors: u64,
    /// So many were thrown away.
    pub drops: u64,
}

impl Traffic {
    /// The same, seen from the other end of the wire.
    pub fn from_the_other_end(self) -> Traffic {
        Traffic { received: self.sent, sent: self.received }
    }
}

impl Add for Traffic {
    type Output = Traffic;

    fn add(self, more: Traffic) -> Traffic {
        let way = |a: Way, b: Way| Way {
            bytes: Bytes(a.bytes.0.saturating_add(b.bytes.0)),
            packets: a.packets.saturating_add(b.packets),
            errors: a.errors.saturating_add(b.errors),
            drops: a.drops.saturating_add(b.drops),
        };
        Traffic { received: way(self.received, more.received), sent: way(self.sent, more.sent) }
    }
}

/// A disk or a file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskTraffic {
    /// The kernel's name of the device: `sda`, `nvme0n1p9`.
    pub device: String,
    /// Its size.
    pub size: Bytes,
    /// What was read.
    pub read: Bytes,
    /// In so many requests.
    pub reads: u64,
    /// What was written.
    pub written: Bytes,
    /// In so many requests.
    pub writes: u64,
}

/// What a process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUse {
    /// Its threads.
    pub threads: u32,
    /// Processor time in its own code, in milliseconds.
    pub user_ms: u64,
    /// Processor time in the kernel, in milliseconds.
    pub system_ms: u64,
    /// When it started, in milliseconds since the kernel did.
    pub started_ms: u64,
    /// The addresses it may use, of which few are memory.
    pub virtual_size: Bytes,
}

/// Calls to the controller through one port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCounts {
    /// Those that were answered well.
    pub succeeded: u64,
    /// When the last one was.
    pub last_success: Option<UnixMillis>,
    /// Those that were answered otherwise, or not.
    pub failed: u64,
    /// When the last one was.
    pub last_failure: Option<UnixMillis>,
    /// Answers that were not the controller's.
    pub unverified: u64,
    /// By address, without a query.
    pub by_url: BTreeMap<String, UrlCounts>,
}

/// A node asks a few addresses, and one for each app's log; more of them are not told apart.
const URLS_MAX: usize = 128;

impl CallCounts {
    /// Takes note of a call with a body of `size` bytes. `got`: status and size of its answer.
    pub fn note(
        &mut self,
        url: &str,
        size: usize,
        got: Option<(u16, usize)>,
        spent: Duration,
        now: UnixMillis,
    ) {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        match got {
            Some((200 | 201 | 204 | 304, _)) => {
                self.succeeded = self.succeeded.saturating_add(1);
                self.last_success = Some(now);
            }
            _ => {
                self.failed = self.failed.saturating_add(1);
                self.last_failure = Some(now);
            }
        }
        let url = url.split('?').next().unwrap_or_default();
        if self.by_url.len() >= URLS_MAX && !self.by_url.contains_key(url) {
            return;
        }
        let one = self.by_url.entry(url.to_owned()).or_default();
        one.tried = one.tried.saturating_add(1);
        one.tried_bytes = one.tried_bytes.saturating_add(count(size));
        if let Some((_, length)) = got {
            one.sent = one.sent.saturating_add(1);
            one.sent_bytes = one.sent_bytes.saturating_add(count(size));
            one.received_bytes = one.received_bytes.saturating_add(count(length));
        }
        let spent = u64::try_from(spent.as_millis()).unwrap_or(u64::MAX);
        one.spent_ms = one.spent_ms.saturating_add(spent);
    }
}

/// Calls to one address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrlCounts {
    /// Calls that were begun.
    pub tried: u64,
    /// Their bodies.
    pub tried_bytes: u64,
    /// Calls that were answered, well or not.
    pub sent: u64,
    /// Their bodies.
    pub sent_bytes: u64,
    /// The bodies of the answers.
    pub received_bytes: u64,
    /// So long the calls took together, in milliseconds.
    pub spent_ms: u64,
}

/// What became of lines and files of the log in this boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogCounts {
    /// Of the node.
    pub device: LogFiles,
    /// Of all apps.
    pub apps: LogFiles,
    /// Lines by who said them, the ten who said most.
    pub by_source: BTreeMap<String, u64>,
    /// What all sent files took.
    pub sent_bytes: Bytes,
    /// What all files that are here take.
    pub kept_bytes: Bytes,
    /// When the oldest of them was made.
    pub oldest: Option<UnixMillis>,
    /// The largest file that was made.
    pub largest: Bytes,
    /// Files that had to go because there was too much.
    pub removed: u64,
    /// Answers from 400 to 499, 429 among them.
    pub refused: u64,
    /// Answers 429.
    pub too_many: u64,
    /// Since when none is taken. `None`: the last one was.
    pub failing_since: Option<UnixMillis>,
    /// How long sending took, in milliseconds: the least.
    pub least_ms: u64,
    /// The most.
    pub most_ms: u64,
    /// All together.
    pub all_ms: u64,
    /// The last.
    pub last_ms: u64,
    /// So long the pause before the next file is, in seconds.
    pub pause_s: u64,
    /// Calls by port.
    pub calls: BTreeMap<String, CallCounts>,
}

/// Lines and files of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogFiles {
    /// Lines that came.
    pub lines: u64,
    /// What they took.
    pub line_bytes: Bytes,
    /// Files that were made.
    pub made: u64,
    /// What they took.
    pub made_bytes: Bytes,
    /// When the last one was.
    pub last_made: Option<UnixMillis>,
    /// Files that were sent.
    pub sent: u64,
    /// When the last one was.
    pub last_sent: Option<UnixMillis>,
    /// Tries that came to nothing.
    pub retried: u64,
    /// Files that wait to be sent.
    pub waiting: u64,
    /// Files that stay on the node.
    pub kept: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_by_what_came_of_it() {
        let mut counts = CallCounts::default();
        let spent = Duration::from_millis(7);
        for (got, at) in [(Some((201, 5)), 1), (Some((503, 2)), 2), (None, 3)] {
            counts.note("https://c/info?q=secret", 10, got, spent, UnixMillis(at));
        }
        assert_eq!((counts.succeeded, counts.last_success), (1, Some(UnixMillis(1))));
        assert_eq!((counts.failed, counts.last_failure), (2, Some(UnixMillis(3))));
        let one = UrlCounts {
            tried: 3,
            tried_bytes: 30,
            sent: 2,
            sent_bytes: 20,
            received_bytes: 7,
            spent_ms: 21,
        };
        assert_eq!(counts.by_url, BTreeMap::from([("https://c/info".to_owned(), one)]));
        for n in 0..2 * URLS_MAX {
            counts.note(&format!("https://c/{n}"), 0, None, spent, UnixMillis(4));
        }
        assert_eq!(counts.by_url.len(), URLS_MAX);
    }
}
