//! The controller's voice: certificates first, then the config by hash, attestation when asked for.
//!
//! ```text
//!            ┌────────────── alarm, port up ───────────────┐
//!            ▼                                             │
//! Certs ─▶ Config ──200 or 304───────────────────────▶ Waiting ─┐
//!   ▲        │ 403 ─▶ Nonce ─▶ Quote ─▶ Config             ▲    │ once a boot
//!   └────────┘ unknown signer, once  any failure ──────────┘    ▼
//!                     Config ◀─ whatever comes of it ─ Nonce, Quote
//! ```
//!
//! Where the controller is not reached, a local operator console stands in if the config in force names
//! one: it is asked after each poll that failed, and what it hands out is the controller's word all the
//! same. The controller stays what is waited for, so the conversation counts as failed.
//!
//! Each boot attests once, whether or not the controller asks for it; one that does not take the quote
//! still has configs for us, so a failure of that is told beside the state of the conversation.
//!
//! Invariants: one question is open at a time; nothing is asked before a chain of certificates was
//! verified; a config for another node, or one older than the last applied, is never applied, also
//! not after a reboot; a node that does not reach its controller runs the saved config within
//! [`PATIENCE`]. [`queue`] decides which message about which object goes out next.

pub mod exchange;
pub mod floor;
pub mod pace;
pub mod queue;

use std::time::Duration;

use model::desired::Properties;
use model::reported::{Attestation, ConfigSource};
use model::{DeviceId, Diagnosis, Problem, UnixMillis, Who};

use crate::backoff::{Backoff, Jitter};

/// So long after its start a node waits for the controller before it runs the saved config.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Between tries of a refused attestation (EVE API, attestation).
pub const ATTEST_AGAIN: Duration = Duration::from_secs(15);
/// Between tries to attest that nobody asked for.
pub const ATTEST_UNASKED: Backoff =
    Backoff { first: ATTEST_AGAIN, longest: Duration::from_secs(3600) };
/// Between tries to hand over our certificates (EVE API, attestation: 10 s at first).
pub const CERTS_UPLOAD: Backoff =
    Backoff { first: Duration::from_secs(10), longest: Duration::from_secs(600) };
/// Between tries to get certificates while there are none.
pub const CERTS_AGAIN: Backoff =
    Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(120) };

/// Where the conversation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doing {
    /// Nothing is open; an alarm is set.
    Waiting,
    /// Certificates are being fetched.
    Certs,
    /// The config was asked for.
    Config,
    /// The console was asked for the config.
    Console,
    /// A nonce was asked for.
    Nonce,
    /// A quote was sent.
    Quote,
    /// A config is being saved and put in force.
    Applying {
        /// Its hash; remembered when that worked.
        hash: String,
        /// What it says of itself.
        new: Summary,
    },
}

/// What is known about the controller and the config in force.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Where the conversation is.
    pub doing: Doing,
    /// Whether a verified chain is in use.
    pub certs: bool,
    /// Certificates are to be fetched before the next question.
    pub certs_wanted: bool,
    /// What the config said about certificates last.
    pub certs_hash: String,
    /// The hash of the config in force, as received in this boot. What was refused, or could not be
    /// put in force, is not remembered: the controller sends it again, and it is judged again.
    pub hash: String,
    /// When the newest config ever applied was made, in this boot or an earlier one ([`floor`]).
    pub floor: Option<UnixMillis>,
    /// Where the config in force came from.
    pub source: ConfigSource,
    /// There is a saved config that was not used yet.
    pub saved: bool,
    /// Proof of attestation, as the controller gave it; never saved.
    pub token: Option<Vec<u8>>,
    /// How far attestation is.
    pub attestation: Attestation,
    /// Why the last attestation failed. `None`: it did not.
    pub attestation_problem: Option<Problem>,
    /// The attestation under way is the boot's own; nobody asked for it.
    unasked: bool,
    /// Failures in a row of attestations that nobody asked for.
    unasked_failures: u32,
    /// The controller does not know our id.
    pub forgotten: bool,
    /// Failures in a row.
    pub failures: u32,
    /// When the controller last answered well.
    pub last_contact: Option<UnixMillis>,
    /// What stands in the way now.
    pub problem: Option<Problem>,
    /// The console answered last, in place of the controller, of which this was wrong.
    pub stands_in: Option<Problem>,
    /// Certificates were fetched for the secrets of the config with this hash.
    fetched_for: String,
    /// The signer was unknown although the certificates were just fetched.
    signer_missed: bool,
}

/// What a received config says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Whom it is for.
    pub id: DeviceId,
    /// When it was made.
    pub timestamp: Option<UnixMillis>,
    /// Changes with the controller's certificates.
    pub certs_hash: String,
    /// How often it wants to be asked for: valid from its coming on, not from the one after it.
    pub interval: Duration,
    /// It has secrets sealed with a certificate of the controller that we do not know.
    pub wants_certs: bool,
}

/// What the controller answered to the question for the config.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// 304.
    Unchanged,
    /// A verified reply.
    Config {
        /// Its hash; may be empty.
        hash: String,
        /// What is in it. `None`: only a hash came.
        config: Option<Summary>,
    },
    /// A verified reply that says nothing we could use.
    Unusable(Problem),
    /// 403: attest first.
    Forbidden,
    /// 400 or 404: the controller does not know our id.
    Unknown,
    /// The signer, or its time, is not what we know: fetch the certificates again.
    UnknownSigner(Problem),
    /// Anything else.
    Failed(Problem),
}

/// What can happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The service started.
    Started {
        /// Whether a saved chain was verified and is in use.
        certs: bool,
        /// The saved config, if there is one that verifies and is ours.
        saved: Option<Summary>,
        /// Configs made before this are refused ([`floor::at_boot`]).
        floor: Option<UnixMillis>,
    },
    /// A port came up.
    NetworkUp,
    /// The way to the controller is another one: whether it leads there is to be found out.
    NetworkChanged,
    /// Somebody else met an unknown signer.
    CertsStale,
    /// New certificates are verified, saved and in use; or not.
    Certs(Result<(), Problem>),
    /// The answer to the question for the config.
    Config(Answer),
    /// What the console said to the same question.
    Console(Answer),
    /// The config is in force, and saved or not.
    Applied(Result<(), Problem>),
    /// A nonce.
    Nonce(Result<Vec<u8>, Problem>),
    /// The verdict on a quote: the token.
    Quote(Result<Vec<u8>, Problem>),
    /// An alarm rang.
    Alarm(Alarm),
}

/// The alarms there are; each can be set once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// Ask for the config.
    Poll,
    /// Ask for the certificates.
    Certs,
    /// Run the saved config if there is no other.
    Saved,
    /// Attest, unless that was done in this boot.
    Attest,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Fetch, verify, save and use the certificates.
    FetchCerts,
    /// Ask for the config.
    AskConfig {
        /// What we have.
        hash: String,
        /// Proof of attestation.
        token: Option<Vec<u8>>,
    },
    /// Ask the console for the config.
    AskConsole {
        /// What we have.
        hash: String,
        /// Proof of attestation.
        token: Option<Vec<u8>>,
    },
    /// Ask for a nonce.
    AskNonce,
    /// Send a quote over it.
    SendQuote {
        /// As given.
        nonce: Vec<u8>,
    },
    /// Save the config that was just received, then publish it; [`Event::Applied`] tells what came
    /// of it.
    Apply,
    /// Publish the saved config.
    ApplySaved,
    /// Set an alarm; replaces an earlier one of its kind.
    Alarm(Alarm, Duration),
}

/// Who asks and when.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// Our id.
    pub me: DeviceId,
    /// Settings in force.
    pub properties: &'a Properties,
    /// The config in force names a console.
    pub console: bool,
    /// The wall clock.
    pub now: UnixMillis,
    /// Drawn by the caller.
    pub jitter: Jitter,
}

impl Default for State {
    fn default() -> Self {
        State {
            doing: Doing::Waiting,
            certs: false,
            certs_wanted: true,
            certs_hash: String::new(),
            hash: String::new(),
            floor: None,
            source: ConfigSource::None,
            saved: false,
            token: None,
            attestation: Attestation::NotAsked,
            attestation_problem: None,
            unasked: false,
            unasked_failures: 0,
            forgotten: false,
            failures: 0,
            last_contact: None,
            problem: None,
            stands_in: None,
            fetched_for: String::new(),
            signer_missed: false,
        }
    }
}

/// One step of the conversation.
pub fn step(state: State, event: Event, at: Moment<'_>) -> (State, Vec<Effect>) {
    match (state.doing.clone(), event) {
        (_, Event::Started { certs, saved, floor }) => started(state, certs, saved, floor),
        (_, Event::Alarm(Alarm::Saved)) if state.saved && state.source == ConfigSource::None => {
            let next = State { source: ConfigSource::Saved, saved: false, ..state };
            (next, vec![Effect::ApplySaved])
        }
        (Doing::Waiting, Event::Alarm(Alarm::Poll) | Event::NetworkChanged) => ask(state),
        // Only who waits because something failed has a reason to hurry.
        (Doing::Waiting, Event::NetworkUp) if state.problem.is_some() => ask(state),
        (Doing::Waiting, Event::Alarm(Alarm::Certs) | Event::CertsStale) => {
            ask(State { certs_wanted: true, ..state })
        }
        (_, Event::Alarm(Alarm::Certs) | Event::CertsStale) => {
            (State { certs_wanted: true, ..state }, Vec::new())
        }
        (Doing::Waiting, Event::Alarm(Alarm::Attest))
            if state.token.is_none() && state.last_contact.is_some() && state.failures == 0 =>
        {
            attest(State { unasked: true, ..state })
        }
        (_, Event::Alarm(Alarm::Attest)) if state.token.is_none() => {
            (state, vec![Effect::Alarm(Alarm::Attest, ATTEST_AGAIN)])
        }
        (Doing::Certs, Event::Certs(Ok(()))) => {
            let next = State { certs: true, certs_wanted: false, ..state };
            let (next, mut effects) = ask(next);
            effects.insert(0, Effect::Alarm(Alarm::Certs, at.properties.cert_interval));
            (next, effects)
        }
        // Who has a chain goes on with it; the controller may still sign with it.
        (Doing::Certs, Event::Certs(Err(why))) if state.certs && !state.signer_missed => {
            let next = State { certs_wanted: false, problem: Some(why), ..state };
            let (next, mut effects) = ask(next);
            effects.insert(0, Effect::Alarm(Alarm::Certs, CERTS_AGAIN.longest));
            (next, effects)
        }
        (Doing::Certs, Event::Certs(Err(why))) => {
            let wait = CERTS_AGAIN.after(state.failures.saturating_add(1), at.jitter);
            failed(State { certs_wanted: true, ..state }, why, wait)
        }
        (Doing::Config, Event::Config(answer)) => answered(state, answer, at),
        (Doing::Console, Event::Console(answer)) => console(state, answer, at),
        (Doing::Applying { hash, new }, Event::Applied(done)) => {
            applied(state, hash, new, done, at)
        }
        (Doing::Nonce, Event::Nonce(Ok(nonce))) => {
            let attestation = Attestation::VerdictWait;
            let next = State { doing: Doing::Quote, attestation, ..state };
            (next, vec![Effect::SendQuote { nonce }])
        }
        (Doing::Quote, Event::Quote(Ok(token))) => ask(State {
            token: Some(token),
            attestation: Attestation::Complete,
            attestation_problem: None,
            unasked: false,
            unasked_failures: 0,
            ..state
        }),
        (Doing::Nonce, Event::Nonce(Err(why))) | (Doing::Quote, Event::Quote(Err(why))) => {
            not_attested(state, why, at)
        }
        // Answers to questions that are no longer open.
        (_, _) => (state, Vec::new()),
    }
}

fn started(
    state: State,
    certs: bool,
    saved: Option<Summary>,
    floor: Option<UnixMillis>,
) -> (State, Vec<Effect>) {
    let mut effects = vec![Effect::Alarm(Alarm::Attest, ATTEST_AGAIN)];
    if saved.is_some() {
        effects.push(Effect::Alarm(Alarm::Saved, PATIENCE));
    }
    let state = State {
        certs,
        certs_wanted: true,
        saved: saved.is_some(),
        floor,
        certs_hash: saved.map(|s| s.certs_hash).unwrap_or_default(),
        ..state
    };
    let (state, first) = ask(state);
    effects.extend(first);
    (state, effects)
}

/// The next question: certificates if they are wanted, else the config.
fn ask(state: State) -> (State, Vec<Effect>) {
    if state.certs_wanted || !state.certs {
        return (State { doing: Doing::Certs, ..state }, vec![Effect::FetchCerts]);
    }
    let asked = Effect::AskConfig { hash: state.hash.clone(), token: state.token.clone() };
    (State { doing: Doing::Config, ..state }, vec![asked])
}

/// A nonce first.
fn attest(state: State) -> (State, Vec<Effect>) {
    let attestation = Attestation::NonceWait;
    (State { doing: Doing::Nonce, attestation, ..state }, vec![Effect::AskNonce])
}

/// An attestation failed, or what came of it is not believed. The config waits for it only if the
/// controller said so.
fn not_attested(state: State, why: Problem, at: Moment<'_>) -> (State, Vec<Effect>) {
    let unasked = state.unasked;
    let failures = state.unasked_failures.saturating_add(1);
    let wait = if unasked { ATTEST_UNASKED.after(failures, at.jitter) } else { ATTEST_AGAIN };
    let told = Problem { diagnosis: why.diagnosis.clone().retry_in(wait), ..why.clone() };
    let state = State {
        token: None,
        attestation: Attestation::RestartWait,
        attestation_problem: Some(told),
        unasked: false,
        ..state
    };
    if !unasked {
        return failed(state, why, wait);
    }
    // An alarm for the next poll may have rung meanwhile, so that is asked now.
    let (state, mut effects) = ask(State { unasked_failures: failures, ..state });
    effects.push(Effect::Alarm(Alarm::Attest, wait));
    (state, effects)
}

fn answered(state: State, answer: Answer, at: Moment<'_>) -> (State, Vec<Effect>) {
    match answer {
        Answer::Unchanged => well(state, at, Vec::new()),
        Answer::Config { hash, .. } if !hash.is_empty() && hash == state.hash => {
            well(state, at, Vec::new())
        }
        Answer::Config { hash, config } => match admit(&state, &hash, config, at) {
            Ok(new) => {
                let doing = Doing::Applying { hash, new };
                (State { doing, stands_in: None, ..state }, vec![Effect::Apply])
            }
            Err(why) => refused(state, why, at),
        },
        Answer::Unusable(why) => refused(state, why, at),
        Answer::Forbidden if state.token.is_some() => {
            // A token that was just given, refused: do not turn in circles.
            let why = Diagnosis::of(Who::Operator, "look at the attestation of this node");
            let why = Problem::new("the controller refuses our integrity token", why, at.now);
            not_attested(state, why, at)
        }
        Answer::Forbidden => attest(State { unasked: false, ..state }),
        Answer::Unknown => {
            let advice = "add the node to the controller again, or wipe it";
            let why = Diagnosis::of(Who::Operator, advice);
            let why = Problem::new("the controller does not know this node", why, at.now);
            let wait = poll_wait(at);
            failed(State { forgotten: true, ..state }, why, wait)
        }
        Answer::UnknownSigner(_) if !state.signer_missed => {
            ask(State { certs_wanted: true, signer_missed: true, ..state })
        }
        Answer::UnknownSigner(why) => {
            // The next poll asks with what we have, and looks once again if that fails.
            let wait = poll_wait(at);
            failed(State { certs_wanted: false, ..state }, why, wait)
        }
        Answer::Failed(why) if at.console => {
            let asked = Effect::AskConsole { hash: state.hash.clone(), token: state.token.clone() };
            let next = State { doing: Doing::Console, problem: Some(why), ..state };
            (next, vec![asked])
        }
        Answer::Failed(why) => {
            let wait = poll_wait(at).min(CERTS_AGAIN.after(state.failures + 1, at.jitter));
            failed(state, why, wait)
        }
    }
}

/// What the console said. Whatever it was, the controller was not reached.
fn console(state: State, answer: Answer, at: Moment<'_>) -> (State, Vec<Effect>) {
    let Some(why) = state.problem.clone() else { return (state, Vec::new()) };
    match answer {
        Answer::Unchanged => stood_in(state, why, at),
        Answer::Config { hash, .. } if !hash.is_empty() && hash == state.hash => {
            stood_in(state, why, at)
        }
        Answer::Config { hash, config } => match admit(&state, &hash, config, at) {
            Ok(new) => {
                let doing = Doing::Applying { hash, new };
                (State { doing, stands_in: Some(why), ..state }, vec![Effect::Apply])
            }
            Err(refused) => stood_in(state, refused, at),
        },
        Answer::Unusable(refused) => stood_in(state, refused, at),
        Answer::Forbidden | Answer::Unknown | Answer::UnknownSigner(_) | Answer::Failed(_) => {
            let wait = poll_wait(at).min(CERTS_AGAIN.after(state.failures + 1, at.jitter));
            failed(State { stands_in: None, ..state }, why, wait)
        }
    }
}

/// The console answered: the controller is asked again at its usual time.
fn stood_in(state: State, why: Problem, at: Moment<'_>) -> (State, Vec<Effect>) {
    failed(State { stands_in: Some(why.clone()), ..state }, why, poll_wait(at))
}

/// The controller answered, with something that we refuse: what is in force stays.
fn refused(state: State, why: Problem, at: Moment<'_>) -> (State, Vec<Effect>) {
    // The same answer comes with each poll; the trouble is as old as its first one.
    let before = state.problem.as_ref().filter(|p| p.text == why.text);
    let since = before.map_or(why.since, |p| p.since);
    let (state, effects) = well(state, at, Vec::new());
    (State { problem: Some(Problem { since, ..why }), ..state }, effects)
}

/// A config is in force. One that is not saved is asked for again, so that it is saved in the end.
fn applied(
    state: State,
    hash: String,
    new: Summary,
    done: Result<(), Problem>,
    at: Moment<'_>,
) -> (State, Vec<Effect>) {
    let certs_changed = !new.certs_hash.is_empty()
        && !state.certs_hash.is_empty()
        && new.certs_hash != state.certs_hash;
    // Secrets that were sealed with a certificate newer than we have: fetch, and take the same config
    // once again.
    let once_more = new.wants_certs && state.fetched_for != hash;
    let fetched_for = if once_more { hash.clone() } else { state.fetched_for.clone() };
    let state = State {
        hash: if done.is_ok() && !once_more { hash } else { state.hash.clone() },
        fetched_for,
        source: ConfigSource::Controller,
        saved: false,
        floor: new.timestamp.max(state.floor),
        certs_hash: new.certs_hash,
        certs_wanted: state.certs_wanted || certs_changed || once_more,
        ..state
    };
    let mut told = at.properties.clone();
    told.config_interval = new.interval;
    let at = Moment { properties: &told, ..at };
    match (done, state.stands_in.clone()) {
        (Ok(()), None) => well(state, at, Vec::new()),
        (Err(why), None) => refused(state, why, at),
        (Ok(()), Some(why)) | (Err(why), Some(_)) => stood_in(state, why, at),
    }
}

/// Whether a node is to stay as it is: what runs goes on, and of a new config only settings and
/// counters count. `field` is `maintenance_mode` of the config, which the setting `maintenance.mode`
/// overrides unless it is absent or `none`.
pub fn maintenance(field: bool, setting: Option<&str>) -> bool {
    match setting.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "enabled" | "enable" | "on" => true,
        "disabled" | "disable" | "off" => false,
        _ => field,
    }
}

/// Whether a received config may be applied.
fn admit(
    state: &State,
    hash: &str,
    config: Option<Summary>,
    at: Moment<'_>,
) -> Result<Summary, Problem> {
    let refuse = |text: String, advice: &str| {
        Err(Problem::new(text, Diagnosis::of(Who::Operator, advice), at.now))
    };
    if hash.is_empty() {
        return refuse(
            "the controller sent a config without a hash".to_owned(),
            "report this to whoever maintains the controller",
        );
    }
    let Some(config) = config else {
        return refuse(
            "the controller announced a config and sent none".to_owned(),
            "report this to whoever maintains the controller",
        );
    };
    if config.id != at.me {
        return refuse(
            format!("the config is for node {}, we are {}", config.id, at.me),
            "look for a mix-up of nodes at the controller",
        );
    }
    match (config.timestamp, state.floor) {
        (Some(made), Some(floor)) if made < floor => refuse(
            format!(
                "the config was made at {} ms, before the one in force ({} ms)",
                made.0, floor.0
            ),
            "look at the controller's clock; a newer config is taken at once. If that clock was wrong \
             before, write a new word into accept-older-config on the node's CONFIG partition and \
             reboot it",
        ),
        _ => Ok(config),
    }
}

/// The controller answered well: wait for the next poll, unless certificates are wanted.
fn well(state: State, at: Moment<'_>, mut effects: Vec<Effect>) -> (State, Vec<Effect>) {
    let state = State {
        doing: Doing::Waiting,
        failures: 0,
        problem: None,
        forgotten: false,
        signer_missed: false,
        stands_in: None,
        last_contact: Some(at.now),
        ..state
    };
    if state.certs_wanted {
        let (state, more) = ask(state);
        effects.extend(more);
        return (state, effects);
    }
    effects.push(Effect::Alarm(Alarm::Poll, poll_wait(at)));
    (state, effects)
}

fn failed(state: State, why: Problem, wait: Duration) -> (State, Vec<Effect>) {
    let retry = why.diagnosis.clone().retry_in(wait);
    let next = State {
        doing: Doing::Waiting,
        failures: state.failures.saturating_add(1),
        problem: Some(Problem { diagnosis: retry, ..why }),
        signer_missed: false,
        ..state
    };
    (next, vec![Effect::Alarm(Alarm::Poll, wait)])
}

/// 0.3 to 1 times the interval, so that a fleet that started at once does not ask at once.
fn poll_wait(at: Moment<'_>) -> Duration {
    let most = at.properties.config_interval;
    at.jitter.between(most.mul_f64(0.3), most)
}

#[cfg(test)]
mod tests;
