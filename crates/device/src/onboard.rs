//! How a node comes to its identity: the steps of the EVE API (register and uuid calls).
//!
//! ```text
//! Network ──port up──▶ Certs ──verified──▶ Register ──told──▶ Uuid ──id──▶ Done
//!    ▲                   │                    (skipped without an onboarding certificate)
//!    └── wait, doubling ─┴── any failure of Certs or Uuid ──┘
//! ```
//!
//! Only the answer to `uuid` decides: whatever `register` was answered, `uuid` is asked next, since a
//! node that is known already gets its id all the same. A node with an identity is `Done` at once,
//! also without a network, and asks again only when the controller says that it does not know it.
//! The device key is made before the first step and never again; that is the driver's duty.

use std::time::Duration;

use model::reported::{Identity, Onboarding, OnboardingStep};
use model::{DeviceId, Problem, UnixMillis};

use crate::backoff::{Backoff, Jitter};

/// Between attempts: 1 s, doubling up to 10 min.
pub const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(600) };
/// A node that the controller forgot asks for its id this often at most.
pub const ASK_AGAIN: Duration = Duration::from_secs(600);

/// Where a node is on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The step being tried.
    pub step: OnboardingStep,
    /// Failed attempts in a row.
    pub failures: u32,
    /// Attempts in this boot.
    pub tries: u32,
    /// Who we are, once known. Kept while we ask again.
    pub identity: Option<Identity>,
    /// When we last asked although we have an identity.
    pub asked_again: Option<UnixMillis>,
    /// What stands in the way.
    pub problem: Option<Problem>,
}

/// What a node is given once, before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Host and port of the controller (`/config/server`).
    pub server: String,
    /// Whether there is an onboarding certificate.
    pub onboarding_certificate: bool,
    /// Hardware serial number.
    pub serial: String,
    /// Soft serial number.
    pub soft_serial: String,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A port has an address, or none has any more.
    Network {
        /// Whether one has.
        up: bool,
    },
    /// The controller's certificates were fetched and checked, or not.
    Certs(Result<(), Problem>),
    /// The controller took note of us, or not.
    Registered(Result<(), Problem>),
    /// The controller gave us an id, or not.
    Uuid(Result<DeviceId, Problem>),
    /// The alarm rang.
    Alarm,
    /// The controller says that it does not know our id.
    Forgotten,
}

/// What is to be done. Answers come back as events.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Fetch and check the controller's certificates.
    FetchCerts,
    /// Register with the onboarding certificate.
    Register,
    /// Ask for our id with the device certificate.
    AskUuid,
    /// Ring after so long; replaces an earlier alarm.
    Alarm(Duration),
    /// Write down who we are, durably.
    Remember(Identity),
}

impl State {
    /// The state after a boot. An identity that another controller gave is none.
    pub fn new(facts: &Facts, saved: Option<Identity>) -> State {
        let identity = saved.filter(|i| i.server == facts.server);
        let step = if identity.is_some() { OnboardingStep::Done } else { OnboardingStep::Network };
        State { step, failures: 0, tries: 0, identity, asked_again: None, problem: None }
    }

    /// What the node says of it.
    pub fn report(&self, facts: &Facts) -> Onboarding {
        Onboarding {
            step: self.step,
            tries: self.tries,
            serial: facts.serial.clone(),
            soft_serial: facts.soft_serial.clone(),
            problem: self.problem.clone(),
        }
    }
}

/// One step. `now` is the wall clock; `jitter` is drawn by the caller.
pub fn step(
    state: State,
    event: Event,
    facts: &Facts,
    now: UnixMillis,
    jitter: Jitter,
) -> (State, Vec<Effect>) {
    use OnboardingStep::{Certs, Done, Network, Register, Uuid};
    let begin = |state: State| {
        let next = State { step: Certs, tries: state.tries + 1, ..state };
        (next, vec![Effect::FetchCerts])
    };
    match (state.step, event) {
        (Network, Event::Network { up: true } | Event::Alarm) => begin(state),
        // While no port has an address an attempt is no use; the alarm tries nevertheless, because
        // a network may work in ways that we do not see.
        (Network, Event::Network { up: false }) => (state, vec![Effect::Alarm(ASK_AGAIN)]),
        // A failed attempt waits for its alarm. A port that comes up shortens the wait.
        (Certs, Event::Network { up: true } | Event::Alarm) if state.problem.is_some() => {
            begin(State { problem: None, ..state })
        }
        (Certs, Event::Certs(Ok(()))) if facts.onboarding_certificate => {
            (State { step: Register, ..state }, vec![Effect::Register])
        }
        (Certs, Event::Certs(Ok(()))) => {
            (State { step: Uuid, problem: None, ..state }, vec![Effect::AskUuid])
        }
        (Certs, Event::Certs(Err(why))) => failed(state, why, jitter),
        // The reason is kept: if `uuid` fails too, it is the better explanation.
        (Register, Event::Registered(told)) => {
            (State { step: Uuid, problem: told.err(), ..state }, vec![Effect::AskUuid])
        }
        (Uuid, Event::Uuid(Ok(id))) => {
            let identity = Identity { id, server: facts.server.clone(), onboarded: now };
            // The same id again keeps the day it was given.
            let identity = state.identity.clone().filter(|i| i.id == id).unwrap_or(identity);
            let next = State {
                step: Done,
                failures: 0,
                identity: Some(identity.clone()),
                problem: None,
                ..state
            };
            (next, vec![Effect::Remember(identity)])
        }
        (Uuid, Event::Uuid(Err(why))) => {
            let told = state.problem.clone().unwrap_or(why);
            failed(state, told, jitter)
        }
        (Done, Event::Forgotten) => {
            let soon = state.asked_again.is_some_and(|at| now.since(at) < ASK_AGAIN);
            if soon {
                return (state, Vec::new());
            }
            begin(State { asked_again: Some(now), ..state })
        }
        // What belongs to an attempt that is over.
        (_, _) => (state, Vec::new()),
    }
}

/// The attempt is over. Who has an identity lives on with it; all others wait and try again.
fn failed(state: State, why: Problem, jitter: Jitter) -> (State, Vec<Effect>) {
    let failures = state.failures.saturating_add(1);
    let wait = BACKOFF.after(failures, jitter);
    let retry = why.diagnosis.clone().retry_in(wait);
    let problem = Some(Problem { diagnosis: retry, ..why });
    if state.identity.is_some() {
        return (State { step: OnboardingStep::Done, failures, problem, ..state }, Vec::new());
    }
    let next = State { step: OnboardingStep::Certs, failures, problem, ..state };
    (next, vec![Effect::Alarm(wait)])
}

#[cfg(test)]
mod tests {
    use model::{Diagnosis, Who};

    use super::*;

    const ID: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";

    fn facts() -> Facts {
        Facts {
            server: "controller:443".into(),
            onboarding_certificate: true,
            serial: "SN".into(),
            soft_serial: String::new(),
        }
    }

    fn id() -> DeviceId {
        ID.parse().unwrap()
    }

    fn why(text: &str) -> Problem {
        Problem::new(text, Diagnosis::of(Who::Network, "look"), UnixMillis(1))
    }

    /// Plays events and returns the last state and all that was asked for, as text.
    fn play(mut state: State, events: Vec<Event>) -> (State, String) {
        let mut asked = Vec::new();
        for event in events {
            let (next, effects) = step(state, event, &facts(), UnixMillis(5), Jitter(1.0));
            asked.extend(effects.iter().map(|e| match e {
                Effect::Alarm(wait) => format!("alarm {}", wait.as_secs()),
                Effect::Remember(_) => "remember".to_owned(),
                other => format!("{other:?}"),
            }));
            state = next;
        }
        (state, asked.join(", "))
    }

    fn fresh() -> State {
        State::new(&facts(), None)
    }

    fn known() -> State {
        let identity =
            Identity { id: id(), server: "controller:443".into(), onboarded: UnixMillis(1) };
        State::new(&facts(), Some(identity))
    }

    #[test]
    fn the_straight_way() {
        let events = vec![
            Event::Network { up: true },
            Event::Certs(Ok(())),
            Event::Registered(Ok(())),
            Event::Uuid(Ok(id())),
        ];
        let (state, asked) = play(fresh(), events);
        assert_eq!(asked, "FetchCerts, Register, AskUuid, remember");
        assert_eq!(state.step, OnboardingStep::Done);
        assert_eq!(state.identity.unwrap().onboarded, UnixMillis(5));
    }

    #[test]
    fn only_the_id_decides() {
        let events = vec![
            Event::Network { up: true },
            Event::Certs(Ok(())),
            Event::Registered(Err(why("409"))),
            Event::Uuid(Ok(id())),
        ];
        let (state, _) = play(fresh(), events);
        assert_eq!((state.step, state.problem), (OnboardingStep::Done, None));
    }

    #[test]
    fn a_refused_registration_explains_a_refused_id() {
        let events = vec![
            Event::Network { up: true },
            Event::Certs(Ok(())),
            Event::Registered(Err(why("serial unknown"))),
            Event::Uuid(Err(why("403"))),
        ];
        let (state, asked) = play(fresh(), events);
        assert_eq!(asked, "FetchCerts, Register, AskUuid, alarm 1");
        let problem = state.problem.unwrap();
        assert_eq!(problem.text, "serial unknown");
        assert_eq!(problem.diagnosis.retry_in, Some(Duration::from_secs(1)));
    }

    #[test]
    fn waits_double_and_start_over_from_the_certificates() {
        let mut events = vec![Event::Network { up: true }];
        for _ in 0..4 {
            events.extend([Event::Certs(Err(why("unreachable"))), Event::Alarm]);
        }
        let (state, asked) = play(fresh(), events);
        let want = "FetchCerts, alarm 1, FetchCerts, alarm 2, FetchCerts, alarm 4, FetchCerts, \
                    alarm 8, FetchCerts";
        assert_eq!(asked, want);
        assert_eq!((state.tries, state.problem), (5, None));
    }

    #[test]
    fn a_port_that_comes_up_shortens_the_wait() {
        let events = vec![
            Event::Network { up: true },
            Event::Certs(Err(why("no route"))),
            Event::Network { up: true },
        ];
        assert_eq!(play(fresh(), events).1, "FetchCerts, alarm 1, FetchCerts");
    }

    #[test]
    fn a_port_that_comes_up_does_not_start_a_second_attempt() {
        let events = vec![Event::Network { up: true }, Event::Network { up: true }, Event::Alarm];
        assert_eq!(play(fresh(), events).1, "FetchCerts");
    }

    #[test]
    fn without_an_onboarding_certificate_the_id_is_asked_for_at_once() {
        let facts = Facts { onboarding_certificate: false, ..facts() };
        let at = State { step: OnboardingStep::Certs, ..fresh() };
        let (_, asked) = step(at, Event::Certs(Ok(())), &facts, UnixMillis(0), Jitter(1.0));
        assert_eq!(asked, [Effect::AskUuid]);
    }

    #[test]
    fn who_has_an_identity_needs_no_network() {
        assert_eq!(known().step, OnboardingStep::Done);
        assert_eq!(play(known(), vec![Event::Network { up: true }, Event::Alarm]).1, "");
    }

    #[test]
    fn an_identity_of_another_controller_is_none() {
        let other = Identity { server: "elsewhere".into(), ..known().identity.unwrap() };
        assert_eq!(State::new(&facts(), Some(other)).step, OnboardingStep::Network);
    }

    #[test]
    fn a_forgotten_node_asks_once_in_ten_minutes_and_keeps_its_id_meanwhile() {
        let events = vec![Event::Forgotten, Event::Certs(Err(why("down"))), Event::Forgotten];
        let (state, asked) = play(known(), events);
        assert_eq!(asked, "FetchCerts");
        assert_eq!(state.step, OnboardingStep::Done);
        assert_eq!(state.identity.clone().unwrap().id, id());
        let later = UnixMillis(5).after(ASK_AGAIN);
        let (_, asked) = step(state, Event::Forgotten, &facts(), later, Jitter(1.0));
        assert_eq!(asked, [Effect::FetchCerts]);
    }

    /// Every order of answers, up to a depth, with the power cut after each step: what was once
    /// remembered is never lost, and the node is never stuck without an alarm or a question open.
    #[test]
    fn no_order_of_events_and_power_cuts_loses_an_identity_or_gets_stuck() {
        let answers = [
            Event::Network { up: true },
            Event::Network { up: false },
            Event::Certs(Ok(())),
            Event::Certs(Err(why("x"))),
            Event::Registered(Ok(())),
            Event::Registered(Err(why("x"))),
            Event::Uuid(Ok(id())),
            Event::Uuid(Err(why("x"))),
            Event::Alarm,
            Event::Forgotten,
        ];
        // State, what is on the disk, and whether something will come back by itself.
        let mut seen = vec![(fresh(), None::<Identity>, true)];
        for _ in 0..5 {
            let mut next = Vec::new();
            for (state, disk, _) in &seen {
                for event in &answers {
                    let before = state.clone();
                    let (after, effects) =
                        step(before, event.clone(), &facts(), UnixMillis(5), Jitter(0.5));
                    let mut disk = disk.clone();
                    let pending = !effects.is_empty() || after == *state;
                    for effect in effects {
                        if let Effect::Remember(identity) = effect {
                            disk = Some(identity);
                        }
                    }
                    let alive = pending || after.step == OnboardingStep::Done;
                    assert!(alive, "{state:?} and {event:?} lead to a dead end: {after:?}");
                    assert_eq!(after.identity, disk, "after {event:?}");
                    let rebooted = State::new(&facts(), disk.clone());
                    assert_eq!(rebooted.identity, disk);
                    next.push((after, disk, alive));
                }
            }
            next.sort_by_key(|(s, _, _)| format!("{s:?}"));
            next.dedup();
            seen = next;
        }
        assert!(seen.iter().any(|(s, _, _)| s.step == OnboardingStep::Done));
    }
}
