//! The stream by which a local profile server says at once that something changed:
//! `GET /api/v1/signal`, `application/x-ndjson`, one [`Signal`] a line in the JSON of proto3.
//!
//! [`Signal`]: crate::pb::profile::Signal

use std::time::Duration;

use model::{Diagnose, Diagnosis, UnixMillis, Who};
use serde::Deserialize;
use serde_json::Value;

use super::Call;
use crate::pb::profile::ConfigEndpoint;

/// The path, from the root of the server.
pub const PATH: &str = "/api/v1/signal";
/// The type of the body.
pub const CONTENT_TYPE: &str = "application/x-ndjson";
/// The longest line, in bytes, without its end.
pub const LINE_MAX: usize = 64 << 10;
/// The most calls that one line may name.
pub const ENDPOINTS_MAX: usize = 32;
/// How often the connection shows that it lives.
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// How long to wait before connecting again, after so many failures in a row: 1 s, doubled, up to
/// 30 s. After a 404 it is an hour.
pub fn reconnect(failures: u32, not_there: bool) -> Duration {
    if not_there {
        return super::HOUR;
    }
    let doubled = 1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX);
    Duration::from_secs(doubled.clamp(1, 30))
}

/// A line of the stream, with its end.
pub fn line(changes: &[Call]) -> String {
    let names: Vec<&str> =
        changes.iter().filter_map(|call| Some(endpoint(*call)?.as_str_name())).collect();
    format!("{}\n", serde_json::json!({ "pendingChanges": names }))
}

/// `None`: nobody signals that call.
fn endpoint(call: Call) -> Option<ConfigEndpoint> {
    Some(match call {
        Call::LocalProfile => ConfigEndpoint::LocalProfile,
        Call::Radio => ConfigEndpoint::Radio,
        Call::AppInfo => ConfigEndpoint::AppInfo,
        Call::AppBootInfo => ConfigEndpoint::AppBootInfo,
        Call::DevInfo => ConfigEndpoint::DevInfo,
        Call::Network => ConfigEndpoint::Network,
        Call::Location => return None,
    })
}

fn call(endpoint: ConfigEndpoint) -> Option<Call> {
    Call::ALL.into_iter().find(|call| self::endpoint(*call) == Some(endpoint))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Line {
    #[serde(rename = "pendingChanges", alias = "pending_changes")]
    changes: Vec<Value>,
}

/// Reads one line without its end: which calls to make now. Unknown names and members are ignored.
pub fn parse(line: &[u8]) -> Result<Vec<Call>, SignalError> {
    let got = line.len();
    if got > LINE_MAX {
        return Err(SignalError::Line);
    }
    let line: Line = serde_json::from_slice(line).map_err(|source| SignalError::Json { source })?;
    let got = line.changes.len();
    if got > ENDPOINTS_MAX {
        return Err(SignalError::Endpoints { got });
    }
    // By name, or by number, as proto3 JSON has it.
    let known = |value: &Value| match value {
        Value::String(name) => ConfigEndpoint::from_str_name(name),
        Value::Number(n) => {
            i32::try_from(n.as_i64()?).ok().and_then(|n| ConfigEndpoint::try_from(n).ok())
        }
        _ => None,
    };
    let mut calls: Vec<Call> = line.changes.iter().filter_map(known).filter_map(call).collect();
    calls.sort();
    calls.dedup();
    Ok(calls)
}

/// Cuts the stream into lines, whatever pieces it comes in, and keeps at most [`LINE_MAX`] of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    begun: Vec<u8>,
    /// The line that comes is too long, and its rest is passed over.
    lost: bool,
}

impl Lines {
    /// The next piece: what its whole lines say, in order. A bad line is an error of its own; empty
    /// ones, which keep the connection alive, are nothing.
    pub fn push(&mut self, piece: &[u8]) -> Vec<Result<Vec<Call>, SignalError>> {
        let mut said = Vec::new();
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let (line, after) = rest.split_at(end);
            self.keep(line);
            rest = after.get(1..).unwrap_or_default();
            let whole = std::mem::take(&mut self.begun);
            if std::mem::take(&mut self.lost) {
                said.push(Err(SignalError::Line));
            } else if !whole.trim_ascii().is_empty() {
                said.push(parse(&whole));
            }
        }
        self.keep(rest);
        said
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.lost || self.begun.len().saturating_add(piece.len()) > LINE_MAX {
            self.lost = self.lost || !piece.is_empty();
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(piece);
        }
    }
}

/// Lets a signal through each 3 s, and three at once after a pause: a server cannot drive the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// When the next one would be let through if there were no burst.
    due: UnixMillis,
}

const EVERY: Duration = Duration::from_secs(3);
const BURST: u32 = 3;

impl Pace {
    /// From the start of a connection on.
    pub fn new(now: UnixMillis) -> Pace {
        Pace { due: now }
    }

    /// Whether a signal at `now` may have its calls made. What is held back is not lost: the calls
    /// are made again by their period.
    pub fn lets(&mut self, now: UnixMillis) -> bool {
        // Further ahead than that only a clock can be that was set back.
        let set_back = self.due.since(now) > EVERY * BURST;
        let due = if set_back { now } else { self.due.max(now) };
        let ahead = due.since(now);
        if ahead > EVERY * (BURST - 1) {
            return false;
        }
        self.due = due.after(EVERY);
        true
    }
}

/// A line that says nothing.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// Longer than any.
    #[error("a line of the signal stream is longer than {LINE_MAX} bytes")]
    Line,
    /// Not JSON of a `Signal`.
    #[error("a line of the signal stream is no Signal")]
    Json {
        /// Why not.
        source: serde_json::Error,
    },
    /// More than there can be.
    #[error("Signal.pendingChanges names {got} calls, more than {ENDPOINTS_MAX}")]
    Endpoints {
        /// So many.
        got: usize,
    },
}

impl Diagnose for SignalError {
    fn diagnose(&self) -> Diagnosis {
        Diagnosis::of(Who::Operator, "look at what the local profile server sends as signal")
    }
}
