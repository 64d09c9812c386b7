//! Which file is sent next, and when.
//!
//! One file at a time, oldest first, those of the node before those of apps. The pause between two
//! gets shorter with the backlog. A server that is gone is asked rarely; a file that the server
//! refuses again and again is set aside, so that it does not hold up all others.

use std::time::Duration;

use model::Bytes;

use super::{File, Source};
use crate::backoff::Jitter;

/// With `newlog.allow.fastupload`.
const FAST: Duration = Duration::from_secs(3);
/// So many answers that say no, one after the other, and a file is set aside.
pub const REFUSALS_MAX: u32 = 10;
/// So many times without an answer, and the server counts as gone.
const SILENCES_MAX: u32 = 3;
/// A server that counts as gone is asked again after a time between these.
const GONE: (Duration, Duration) = (Duration::from_secs(180), Duration::from_secs(900));
/// The longest pause a busy server gets.
const BUSY_MAX: Duration = Duration::from_secs(300);

/// How sending goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    refusals: u32,
    silences: u32,
    /// 429 doubles the pause this often.
    busy: u32,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 200, 201, 204, 304.
    Delivered,
    /// 429: slower.
    Busy,
    /// Another 4xx.
    Refused,
    /// 5xx, or no answer.
    Unavailable,
}

/// What to do with the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is delivered: remove it.
    Remove,
    /// Send it again later.
    Keep,
    /// Nobody wants it: set it aside.
    SetAside,
}

impl Outcome {
    /// What an HTTP status means for a log file.
    pub fn of_status(status: u16) -> Outcome {
        match status {
            200 | 201 | 204 | 304 => Outcome::Delivered,
            429 => Outcome::Busy,
            400..500 => Outcome::Refused,
            _ => Outcome::Unavailable,
        }
    }
}

/// The file to send next.
pub fn next(files: &[File]) -> Option<&File> {
    let order = |f: &&File| (matches!(f.source, Source::App(_)), f.made, f.name.clone());
    files.iter().filter(|f| !f.stays).min_by_key(order)
}

/// Takes note of what became of a file.
pub fn step(state: State, outcome: Outcome) -> (State, Then) {
    match outcome {
        Outcome::Delivered => {
            // A server that takes files again is asked faster again, by and by.
            (State { busy: state.busy.saturating_sub(1), ..State::default() }, Then::Remove)
        }
        Outcome::Busy => (State { busy: (state.busy + 1).min(8), ..state }, Then::Keep),
        Outcome::Refused if state.refusals + 1 >= REFUSALS_MAX => {
            (State { refusals: 0, silences: 0, ..state }, Then::SetAside)
        }
        Outcome::Refused => {
            let refusals = state.refusals + 1;
            (State { refusals, silences: 0, ..state }, Then::Keep)
        }
        Outcome::Unavailable => {
            (State { silences: state.silences.saturating_add(1), ..state }, Then::Keep)
        }
    }
}

/// How long to wait before the next file. `waiting` counts the files to send.
pub fn pause(state: &State, waiting: usize, fast: bool, jitter: Jitter) -> Duration {
    if state.silences >= SILENCES_MAX {
        return jitter.between(GONE.0, GONE.1);
    }
    let seconds = match waiting {
        0..5 => 90,
        5..25 => 45,
        25..50 => 30,
        50..200 => 15,
        200..1000 => 8,
        _ => 3,
    };
    let usual = if fast { FAST } else { Duration::from_secs(seconds) };
    let slowed = usual.saturating_mul(1 << state.busy.min(8)).min(BUSY_MAX.max(usual));
    jitter.between(slowed.mul_f64(0.85), slowed.mul_f64(1.15))
}

/// What files set aside may take together: it is the newest that tell what went wrong.
pub const SET_ASIDE_MAX: Bytes = Bytes::mib(8);

#[cfg(test)]
mod tests {
    use model::UnixMillis;

    use super::*;

    fn file(source: Source, made: u64, stays: bool) -> File {
        let made = UnixMillis(made);
        let name = File::name_of(source, stays, made);
        File { name, source, made, size: Bytes(1), stays }
    }

    #[test]
    fn the_oldest_of_the_node_goes_first_and_what_stays_stays() {
        let app = Source::App("00000000-0000-4000-8000-000000000060".parse().unwrap());
        let files =
            [file(app, 1, false), file(Source::Device, 3, false), file(Source::Device, 2, false)];
        assert_eq!(next(&files).unwrap().made, UnixMillis(2));
        assert_eq!(next(&files[..1]).unwrap().source, app);
        assert_eq!(next(&[file(app, 1, true)]), None);
    }

    #[test]
    fn the_more_there_is_the_faster_it_goes() {
        let middle = Jitter(0.5);
        let pauses =
            [1, 5, 25, 50, 200, 1000].map(|n| pause(&State::default(), n, false, middle).as_secs());
        assert_eq!(pauses, [90, 45, 30, 15, 8, 3]);
        assert_eq!(pause(&State::default(), 1, true, middle), FAST);
    }

    #[test]
    fn a_server_that_is_gone_is_asked_rarely_and_at_once_again_when_it_is_back() {
        let mut state = State::default();
        for _ in 0..SILENCES_MAX {
            let (next, then) = step(state, Outcome::Unavailable);
            assert_eq!(then, Then::Keep);
            state = next;
        }
        assert!(pause(&state, 1000, true, Jitter(0.0)) >= GONE.0);
        let (state, then) = step(state, Outcome::Delivered);
        assert_eq!((then, pause(&state, 1000, false, Jitter(0.5)).as_secs()), (Then::Remove, 3));
    }

    #[test]
    fn a_busy_server_gets_longer_pauses() {
        let mut state = State::default();
        for _ in 0..10 {
            state = step(state, Outcome::Busy).0;
        }
        assert!(pause(&state, 1, false, Jitter(0.0)).as_secs() >= 255);
        assert!(pause(&state, 1, false, Jitter(1.0)) <= BUSY_MAX.mul_f64(1.15));
    }

    #[test]
    fn a_file_that_nobody_wants_is_set_aside_in_the_end() {
        let mut state = State::default();
        for n in 1..=REFUSALS_MAX {
            let (next, then) = step(state, Outcome::Refused);
            assert_eq!(then == Then::SetAside, n == REFUSALS_MAX);
            state = next;
        }
        assert_eq!(state, State::default());
    }
}
