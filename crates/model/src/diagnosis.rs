//! Errors that say who can act.

use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::UnixMillis;

/// Who can do something about a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Whoever writes the configuration.
    Operator,
    /// Whoever runs the network or the datastore.
    Network,
    /// Whoever can touch the box.
    Hardware,
    /// Whoever maintains this software: it is a bug.
    Developer,
    /// No one needs to: it heals by itself.
    Nobody,
}

/// Who can act, what to do, and when we try again by ourselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Who can act.
    pub who: Who,
    /// What they can do, as an imperative without a full stop.
    pub advice: String,
    /// `None`: we do not try again until something changes.
    pub retry_in: Option<Duration>,
}

impl Diagnosis {
    /// A diagnosis without a retry of our own.
    pub fn of(who: Who, advice: impl Into<String>) -> Diagnosis {
        Diagnosis { who, advice: advice.into(), retry_in: None }
    }

    /// The same, tried again after `wait`.
    #[must_use]
    pub fn retry_in(self, wait: Duration) -> Diagnosis {
        Diagnosis { retry_in: Some(wait), ..self }
    }
}

/// An error that knows who can act on it.
pub trait Diagnose: Error {
    /// Who can act, and how.
    fn diagnose(&self) -> Diagnosis;

    /// The error as it travels in a status.
    fn problem(&self, now: UnixMillis) -> Problem
    where
        Self: Sized + 'static,
    {
        Problem::new(chain(self), self.diagnose(), now)
    }
}

/// An error inside a status: it crosses process and network borders, so it is text and data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What failed and why, causes joined by `: `.
    pub text: String,
    /// Who can act, and how.
    pub diagnosis: Diagnosis,
    /// Since when.
    pub since: UnixMillis,
}

impl Problem {
    /// A problem seen at `now`.
    pub fn new(text: impl Into<String>, diagnosis: Diagnosis, now: UnixMillis) -> Problem {
        Problem { text: text.into(), diagnosis, since: now }
    }
}

/// An error and its causes on one line: `cannot write slot B: No space left on device`.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |e| (*e).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
