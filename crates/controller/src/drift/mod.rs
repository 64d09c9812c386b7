//! What a node should be and is not yet: what it is told beside what it says, with the reason.
//!
//! Values in, values out; [`said`] reads what was stored, [`liveness`] says how long a node may be
//! silent.

pub(crate) mod consequence;
pub(crate) mod liveness;
pub(crate) mod said;

use model::UnixMillis;
use model::desired::{App, Device};
use serde::{Deserialize, Serialize};

pub use consequence::Consequence;
use said::{Said, words};

use crate::words::time;

/// As `api::convert::view` calls the state of an app.
const RUNNING: &str = "running";
const ERROR: &str = "error";

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// As `App web`, `setting timer.config.interval`, `config`, `device`.
    pub subject: String,
    /// How it should be.
    pub desired: String,
    /// How it is.
    pub reported: String,
    /// Since when, as far as that is known.
    pub since: Option<UnixMillis>,
    /// Why, in words.
    pub reason: String,
}

/// What a node is held back from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldBack {
    /// As `App web`.
    pub(crate) subject: String,
    pub(crate) why: String,
    pub(crate) since: UnixMillis,
}

/// What is known of a node.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// What it is to be told.
    pub(crate) told: &'a Device,
    /// When that was first ready for it. `None`: it has not asked since.
    pub(crate) ready: Option<UnixMillis>,
    /// Whether it said that it has it.
    pub(crate) taken: bool,
    pub(crate) said: &'a Said,
    /// When it was last heard of.
    pub(crate) seen: Option<UnixMillis>,
    /// Whether that is longer ago than its patience.
    pub(crate) silent: bool,
    pub(crate) held: &'a [HeldBack],
}

/// Everything that is not as it should be; what keeps the rest from coming stands first.
pub(crate) fn drift(facts: &Facts<'_>) -> Vec<Drift> {
    let mut all = Vec::new();
    let Some(seen) = facts.seen else {
        all.push(Drift {
            subject: "device".into(),
            desired: "registered".into(),
            reported: "nothing".into(),
            since: None,
            reason: "it has never been heard of".into(),
        });
        return all;
    };
    if facts.silent {
        all.push(Drift {
            subject: "device".into(),
            desired: "online".into(),
            reported: "silent".into(),
            since: Some(seen),
            reason: format!("it was last heard of at {}", time(seen)),
        });
    }
    all.extend(facts.held.iter().map(|held| Drift {
        subject: held.subject.clone(),
        desired: "as the object says".into(),
        reported: "as it was before".into(),
        since: Some(held.since),
        reason: held.why.clone(),
    }));
    if !facts.taken {
        all.push(not_taken(facts));
    }
    of_device(facts, &mut all);
    for app in facts.told.apps.values() {
        all.extend(of_app(app, facts));
    }
    of_networks(facts, &mut all);
    of_content(facts, &mut all);
    of_what_is_too_much(facts, &mut all);
    all
}

fn not_taken(facts: &Facts<'_>) -> Drift {
    let reason = match facts.ready {
        None => "it has not asked for its config since that changed",
        Some(_) => "it was told and does not say that it has it: it may refuse it, see its log",
    };
    Drift {
        subject: "config".into(),
        desired: facts.ready.map_or_else(|| "a new one".into(), |at| format!("of {}", time(at))),
        reported: "another".into(),
        since: facts.ready,
        reason: reason.into(),
    }
}

fn of_device(facts: &Facts<'_>, all: &mut Vec<Drift>) {
    let Some(heard) = &facts.said.device else { return };
    let device = &heard.what;
    if let Some(wanted) = facts.told.power.reboot
        && wanted != device.reboot_counter
    {
        all.push(Drift {
            subject: "device".into(),
            desired: format!("reboot number {wanted} asked for"),
            reported: format!("number {} done", device.reboot_counter),
            since: facts.ready,
            reason: "it has not rebooted yet".into(),
        });
    }
    for (key, (value, error)) in device.items.iter().filter(|(_, (_, error))| !error.is_empty()) {
        all.push(Drift {
            subject: format!("setting {key}"),
            desired: facts.told.items.get(key).cloned().unwrap_or_default(),
            reported: value.clone(),
            since: Some(heard.at),
            reason: format!("it refuses it: {error}"),
        });
    }
    let mut ports: Vec<(String, String, Option<UnixMillis>)> = Vec::new();
    if !device.port_error.is_empty() {
        ports.push(("ports".into(), device.port_error.clone(), Some(heard.at)));
    }
    for port in &device.ports {
        if let Some(error) = &port.error {
            let name = if port.name.is_empty() { &port.interface } else { &port.name };
            ports.push((format!("port {name}"), words(error), error.since.or(Some(heard.at))));
        }
    }
    all.extend(ports.into_iter().map(|(subject, reason, since)| Drift {
        subject,
        desired: "working".into(),
        reported: ERROR.into(),
        since,
        reason,
    }));
}

/// How an app is, if it is not as it should be.
pub(crate) fn of_app(app: &App, facts: &Facts<'_>) -> Option<Drift> {
    let subject = format!("App {}", app.name);
    let desired = if app.activate { RUNNING } else { "halted" }.to_owned();
    let Some(heard) = facts.said.apps.get(&app.id.to_string()) else {
        return Some(Drift {
            subject,
            desired,
            reported: "nothing".into(),
            since: facts.ready,
            reason: "it says nothing of it yet".into(),
        });
    };
    let (said, at) = (&heard.what, heard.at);
    let drift = |reason: String, since: Option<UnixMillis>| {
        let reported = if said.state.is_empty() { "unknown".into() } else { said.state.clone() };
        Some(Drift {
            subject: subject.clone(),
            desired: desired.clone(),
            reported,
            since: since.or(Some(at)),
            reason,
        })
    };
    if let Some(error) = said.errors.first() {
        return drift(words(error), error.since);
    }
    if app.activate && said.state != RUNNING {
        return match facts.said.progress(said) {
            Some(percent) if percent < 100 => {
                drift(format!("its image is on the way, {percent} %"), facts.ready)
            }
            _ => drift("it is not running yet".into(), facts.ready),
        };
    }
    if !app.activate && said.state == RUNNING {
        return drift("it still runs".into(), facts.ready);
    }
    if !said.version.is_empty() && said.version != app.version {
        let reason = format!("it runs as version {} says, not {}", said.version, app.version);
        return drift(reason, facts.ready);
    }
    None
}

fn of_networks(facts: &Facts<'_>, all: &mut Vec<Drift>) {
    for network in facts.told.network_instances.values() {
        let heard = facts.said.networks.get(&network.id.to_string());
        let (reported, reason, since) = match heard {
            None => ("nothing", "it says nothing of it yet".to_owned(), facts.ready),
            Some(heard) => match heard.what.errors.first() {
                Some(error) => (ERROR, words(error), error.since.or(Some(heard.at))),
                None if !heard.what.active => {
                    ("inactive", "it is not up yet".to_owned(), facts.ready)
                }
                None => continue,
            },
        };
        all.push(Drift {
            subject: format!("Network {}", network.name),
            desired: "active".into(),
            reported: reported.into(),
            since,
            reason,
        });
    }
}

fn of_content(facts: &Facts<'_>, all: &mut Vec<Drift>) {
    let contents = facts.told.contents.values().filter_map(|c| {
        let heard = facts.said.contents.get(&c.id.to_string())?;
        Some(("Image", &c.name, heard.at, heard.what.state.as_str(), heard.what.error.as_ref()?))
    });
    let volumes = facts.told.volumes.values().filter_map(|v| {
        let heard = facts.said.volumes.get(&v.id.to_string())?;
        Some(("Volume", &v.name, heard.at, heard.what.state.as_str(), heard.what.error.as_ref()?))
    });
    for (kind, name, at, state, error) in contents.chain(volumes) {
        all.push(Drift {
            subject: format!("{kind} {name}"),
            desired: "ready".into(),
            reported: state.to_owned(),
            since: error.since.or(Some(at)),
            reason: words(error),
        });
    }
}

fn of_what_is_too_much(facts: &Facts<'_>, all: &mut Vec<Drift>) {
    for (id, heard) in &facts.said.apps {
        if facts.told.apps.keys().any(|told| told.to_string() == *id) {
            continue;
        }
        all.push(Drift {
            subject: format!("App {}", heard.what.name),
            desired: "not there".into(),
            reported: heard.what.state.clone(),
            since: facts.ready,
            reason: "it is not gone yet".into(),
        });
    }
}
