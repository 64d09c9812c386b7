//! Whether a device that got a change is well, by what it says.

use std::collections::BTreeSet;

use model::UnixMillis;

use super::machine::Health;
use super::plan::Gate;
use crate::drift::{self, Facts};
use crate::words::time;

/// What the change is about on a device.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    /// The apps it changes, by name.
    pub(crate) apps: BTreeSet<String>,
    /// When the device got it.
    pub(crate) since: UnixMillis,
}

/// How a device is that got a change.
pub(crate) fn health(facts: &Facts<'_>, about: &About, gate: &Gate) -> Health {
    let Some(seen) = facts.seen else {
        return Health::NotYet("it has never been heard of".into());
    };
    if facts.silent {
        return Health::NotYet(format!("silent, last heard of at {}", time(seen)));
    }
    if !facts.taken {
        return Health::NotYet("it has not taken its config yet".into());
    }
    if gate.running {
        let apps = facts.told.apps.values().filter(|a| about.apps.contains(&a.name));
        let mut waits = None;
        for drift in apps.filter_map(|app| drift::of_app(app, facts)) {
            let failed = drift.reported == "error" || has_errors(facts, &drift.subject);
            let since = drift.since.map(|at| format!(" since {}", time(at))).unwrap_or_default();
            let words = format!("{}: {}: {}{since}", drift.subject, drift.reported, drift.reason);
            if failed {
                return Health::Bad(words);
            }
            waits.get_or_insert(words);
        }
        if let Some(words) = waits {
            return Health::NotYet(words);
        }
    }
    if gate.no_new_errors {
        // The clock of a device need not be ours: what it says of its own apps counts whenever.
        let mine = |subject: &str| {
            let name = subject.split_once(' ').map_or("", |(_, name)| name);
            about.apps.iter().any(|app| name == app || name.strip_suffix("-root") == Some(app))
        };
        let troubles = facts.said.troubles();
        let new = troubles.iter().find(|t| t.since >= about.since || mine(&t.subject));
        if let Some(new) = new {
            return Health::Bad(format!("{}: {} since {}", new.subject, new.text, time(new.since)));
        }
    }
    if let Some(wanted) = &gate.version {
        let runs = facts.said.device.as_ref().map_or("", |d| d.what.version.as_str());
        if runs != wanted {
            let runs = if runs.is_empty() { "an unknown version" } else { runs };
            return Health::NotYet(format!("it runs {runs}, not {wanted}"));
        }
    }
    Health::Good
}

fn has_errors(facts: &Facts<'_>, subject: &str) -> bool {
    facts.said.troubles().iter().any(|t| t.subject == subject)
}
