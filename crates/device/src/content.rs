//! One download: from a name in a datastore to blobs in the content store.
//!
//! ```text
//! Resolving ──digest──▶ Fetching ──all blobs whole──▶ Loaded
//!     │                    │
//!     └──── Waiting ◀──────┘   failure: the next datastore, after the last one a pause
//! ```
//!
//! What a tag meant at first sight is kept (the driver writes the reference durably before it says
//! `Done`), so a loaded content stays loaded without a network and across reboots. A blob is checked
//! while it is written; a wrong digest is never visible and is told by both digests.

use std::time::Duration;

use model::desired::{Content, Datastore};
use model::reported::{ContentState, ContentStatus};
use model::{Bytes, Diagnosis, Digest, Problem, UnixMillis, Who};

use crate::backoff::{Backoff, Jitter};

/// Between rounds through all datastores.
pub const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(600) };
/// Blobs that no content needs are removed after so long: a config may come back.
pub const GARBAGE_AFTER: Duration = Duration::from_secs(600);

/// Where a download is.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// What is going on.
    pub doing: Doing,
    /// Which datastore is tried: an index into the content's list.
    pub datastore: usize,
    /// Rounds through all datastores that failed.
    pub rounds: u32,
    /// What stands in the way, or stood when it was last tried.
    pub problem: Option<Problem>,
}

/// What is going on.
#[derive(Debug, Clone, PartialEq)]
pub enum Doing {
    /// Nothing yet.
    Idle,
    /// The datastore was asked which digest the name means.
    Resolving,
    /// Bytes come in.
    Fetching {
        /// Already here.
        done: Bytes,
        /// In all; zero while unknown.
        total: Bytes,
    },
    /// A pause after a failure; an alarm is set.
    Waiting,
    /// It waits for a datastore that the config does not have.
    NoDatastore,
    /// Everything is here.
    Loaded {
        /// The manifest, or the file.
        digest: Digest,
        /// In all.
        size: Bytes,
    },
}

/// What can happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It is wanted; also told again when a datastore came or changed.
    Wanted,
    /// It is in the store already.
    Found {
        /// The manifest, or the file.
        digest: Digest,
        /// In all.
        size: Bytes,
    },
    /// The name means this.
    Resolved {
        /// Bytes to come, as far as known.
        total: Bytes,
    },
    /// So much is here.
    Progress(Bytes),
    /// All blobs are in the store and the reference is written.
    Done {
        /// The manifest, or the file.
        digest: Digest,
        /// In all.
        size: Bytes,
    },
    /// It did not work.
    Failed(Problem),
    /// The pause is over.
    Alarm,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Resolve and fetch from this datastore.
    Fetch(Box<Datastore>),
    /// Ring after so long.
    Alarm(Duration),
}

impl Default for State {
    fn default() -> Self {
        State { doing: Doing::Idle, datastore: 0, rounds: 0, problem: None }
    }
}

impl State {
    /// What the node says of it.
    pub fn report(&self, content: &Content) -> ContentStatus {
        let state = match &self.doing {
            Doing::Idle | Doing::Waiting | Doing::NoDatastore => ContentState::Initial,
            Doing::Resolving => ContentState::Resolving,
            Doing::Fetching { done, total } if done == total && total.0 > 0 => {
                ContentState::Verifying
            }
            Doing::Fetching { done, total } => {
                ContentState::Downloading { done: *done, total: *total }
            }
            Doing::Loaded { digest, size } => ContentState::Loaded { digest: *digest, size: *size },
        };
        ContentStatus {
            id: content.id,
            name: content.name.clone(),
            state,
            problem: self.problem.clone(),
        }
    }
}

/// One step. `find` looks a datastore up by its place in the content's list. `pauses`: the longest
/// between rounds, and what chance makes of it.
pub fn step(
    state: State,
    event: Event,
    content: &Content,
    find: impl Fn(usize) -> Option<Datastore>,
    now: UnixMillis,
    pauses: (Duration, Jitter),
) -> (State, Vec<Effect>) {
    use Doing::{Fetching, Idle, Loaded, NoDatastore, Resolving, Waiting};
    match (state.doing.clone(), event) {
        (Idle | NoDatastore, Event::Found { digest, size }) => {
            (State { doing: Loaded { digest, size }, problem: None, ..state }, Vec::new())
        }
        (Idle | NoDatastore, Event::Wanted) | (Waiting, Event::Alarm) => {
            begin(state, content, find, now)
        }
        (Resolving, Event::Resolved { total }) => {
            (State { doing: Fetching { done: Bytes(0), total }, ..state }, Vec::new())
        }
        (Fetching { total, .. }, Event::Progress(done)) => {
            (State { doing: Fetching { done, total: total.max(done) }, ..state }, Vec::new())
        }
        (Resolving | Fetching { .. }, Event::Done { digest, size }) => {
            let doing = Loaded { digest, size };
            (State { doing, datastore: 0, rounds: 0, problem: None }, Vec::new())
        }
        (Resolving | Fetching { .. }, Event::Failed(why)) => {
            let next = state.datastore + 1;
            if next < content.datastores.len() {
                let state = State { datastore: next, problem: Some(why), ..state };
                return begin(state, content, find, now);
            }
            let rounds = state.rounds.saturating_add(1);
            let (longest, jitter) = pauses;
            let first = BACKOFF.first.min(longest);
            let wait = Backoff { first, longest }.after(rounds, jitter);
            let retry = why.diagnosis.clone().retry_in(wait);
            let problem = Some(Problem { diagnosis: retry, ..why });
            let next = State { doing: Waiting, datastore: 0, rounds, problem };
            (next, vec![Effect::Alarm(wait)])
        }
        // Answers of a try that is over.
        (_, _) => (state, Vec::new()),
    }
}

/// Whether the progress is worth telling: topics are for states, not for streams.
pub fn worth_telling(told: Bytes, now: Bytes, total: Bytes) -> bool {
    let step = (total.0 / 20).max(1 << 20);
    now.0.saturating_sub(told.0) >= step || now == total
}

fn begin(
    state: State,
    content: &Content,
    find: impl Fn(usize) -> Option<Datastore>,
    now: UnixMillis,
) -> (State, Vec<Effect>) {
    let present = (state.datastore..content.datastores.len())
        .find_map(|at| find(at).map(|store| (at, store)));
    if let Some((at, store)) = present {
        let next = State { doing: Doing::Resolving, datastore: at, ..state };
        return (next, vec![Effect::Fetch(Box::new(store))]);
    }
    let missing: Vec<String> = content.datastores.iter().map(ToString::to_string).collect();
    let text = format!("datastore {} is not in the config", missing.join(" or "));
    let why = Diagnosis::of(Who::Operator, "add the datastore, or name another");
    let problem = Some(state.problem.unwrap_or_else(|| Problem::new(text, why, now)));
    (State { doing: Doing::NoDatastore, datastore: 0, rounds: state.rounds, problem }, Vec::new())
}

#[cfg(test)]
mod tests {
    use model::desired::{DatastoreKind, ImageFormat};

    use super::*;

    const PAUSES: (Duration, Jitter) = (BACKOFF.longest, Jitter(1.0));

    #[test]
    fn the_longest_pause_is_a_setting() {
        for (longest, pauses) in
            [(600, [5, 10, 20, 40, 80]), (20, [5, 10, 20, 20, 20]), (3, [3; 5])]
        {
            let longest = Duration::from_secs(longest);
            let content = content(1);
            let mut state = State { doing: Doing::Resolving, ..State::default() };
            for pause in pauses {
                let found = |_| Some(datastore(0));
                let failed = Event::Failed(why("no"));
                let at = (longest, Jitter(1.0));
                let (next, effects) = step(state, failed, &content, found, UnixMillis(0), at);
                assert_eq!(effects, [Effect::Alarm(Duration::from_secs(pause))]);
                state = State { doing: Doing::Resolving, ..next };
            }
        }
    }

    fn content(stores: usize) -> Content {
        Content {
            id: "00000000-0000-4000-8000-000000000030".parse().unwrap(),
            name: "hello".into(),
            datastores: (0..stores).map(|n| id(n).parse().unwrap()).collect(),
            url: "hello:latest".into(),
            format: ImageFormat::Container,
            sha256: None,
            max_size: None,
            generation: 0,
            custom_metadata: String::new(),
        }
    }

    fn id(n: usize) -> String {
        format!("00000000-0000-4000-8000-0000000000{:02}", 20 + n)
    }

    fn datastore(n: usize) -> Datastore {
        Datastore {
            id: id(n).parse().unwrap(),
            kind: DatastoreKind::Registry,
            host: format!("store{n}"),
            prefix: String::new(),
            trust_pem: Vec::new(),
            region: String::new(),
            credentials: None,
        }
    }

    fn why(text: &str) -> Problem {
        Problem::new(text, Diagnosis::of(Who::Network, "look"), UnixMillis(0))
    }

    fn play(stores: usize, have: &[usize], events: Vec<Event>) -> (State, String) {
        let content = content(stores);
        let mut state = State::default();
        let mut told = Vec::new();
        for event in events {
            let find = |at: usize| have.contains(&at).then(|| datastore(at));
            let (next, effects) = step(state, event, &content, find, UnixMillis(0), PAUSES);
            told.extend(effects.iter().map(|e| match e {
                Effect::Fetch(store) => format!("fetch from {}", store.host),
                Effect::Alarm(wait) => format!("alarm {}", wait.as_secs()),
            }));
            state = next;
        }
        (state, told.join(", "))
    }

    fn loaded() -> (Digest, Bytes) {
        (Digest([7; 32]), Bytes(10))
    }

    #[test]
    fn the_straight_way() {
        let (digest, size) = loaded();
        let events = vec![
            Event::Wanted,
            Event::Resolved { total: size },
            Event::Progress(Bytes(4)),
            Event::Done { digest, size },
        ];
        let (state, told) = play(1, &[0], events);
        assert_eq!(told, "fetch from store0");
        assert_eq!(state.report(&content(1)).state, ContentState::Loaded { digest, size });
    }

    #[test]
    fn what_is_in_the_store_needs_no_network() {
        let (digest, size) = loaded();
        let (state, told) = play(1, &[], vec![Event::Found { digest, size }, Event::Wanted]);
        assert_eq!(told, "");
        assert!(matches!(state.doing, Doing::Loaded { .. }));
    }

    #[test]
    fn datastores_are_tried_in_order_and_then_there_is_a_pause() {
        let fail = || Event::Failed(why("503"));
        let events = vec![Event::Wanted, fail(), fail(), Event::Alarm, fail(), fail()];
        let told = play(2, &[0, 1], events).1;
        let want = "fetch from store0, fetch from store1, alarm 5, fetch from store0, \
                    fetch from store1, alarm 10";
        assert_eq!(told, want);
    }

    #[test]
    fn a_missing_datastore_is_told_and_its_coming_heals() {
        let (state, told) = play(1, &[], vec![Event::Wanted]);
        assert_eq!(told, "");
        assert!(state.problem.as_ref().unwrap().text.contains(&id(0)));
        let find = |_| Some(datastore(0));
        let (state, effects) = step(state, Event::Wanted, &content(1), find, UnixMillis(0), PAUSES);
        assert_eq!(effects.len(), 1);
        assert_eq!(state.doing, Doing::Resolving);
    }

    #[test]
    fn progress_is_told_in_steps() {
        let mib = |n: u64| Bytes::mib(n);
        assert!(!worth_telling(mib(0), mib(1), mib(100)));
        assert!(worth_telling(mib(0), mib(5), mib(100)));
        assert!(worth_telling(mib(99), mib(100), mib(100)));
        assert!(!worth_telling(Bytes(0), Bytes(500), Bytes(0)));
    }

    #[test]
    fn no_order_of_events_leaves_it_waiting_for_nothing() {
        let (digest, size) = loaded();
        let events = [
            Event::Wanted,
            Event::Found { digest, size },
            Event::Resolved { total: size },
            Event::Progress(Bytes(3)),
            Event::Done { digest, size },
            Event::Failed(why("x")),
            Event::Alarm,
        ];
        let mut seen = vec![State::default()];
        for _ in 0..6 {
            let mut next = Vec::new();
            for state in &seen {
                for event in &events {
                    let (after, effects) = step(
                        state.clone(),
                        event.clone(),
                        &content(2),
                        |at| Some(datastore(at)),
                        UnixMillis(0),
                        PAUSES,
                    );
                    if after.doing == Doing::Waiting && state.doing != Doing::Waiting {
                        assert!(matches!(effects[..], [Effect::Alarm(_)]), "{state:?} {event:?}");
                    }
                    if after.doing == Doing::Resolving {
                        let open = state.doing == Doing::Resolving && effects.is_empty();
                        assert!(open || matches!(effects[..], [Effect::Fetch(_)]));
                    }
                    next.push(after);
                }
            }
            next.sort_by_key(|s| format!("{s:?}"));
            next.dedup();
            seen = next;
        }
    }
}
