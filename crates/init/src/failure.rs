//! Errors of PID 1: what was tried, on what, and the kernel's answer. They end on the console, so
//! they are text.

use std::fmt;
use std::io;

/// What was tried and why it failed.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    source: io::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.what, self.source)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// `what` completes "cannot …", `why` says what stands in the way, where no system call failed.
    pub(crate) fn new(what: impl Into<String>, why: impl Into<String>) -> Failure {
        Failure { what: what.into(), source: io::Error::other(why.into()) }
    }

    /// The kernel's answer.
    pub(crate) fn io(&self) -> &io::Error {
        &self.source
    }
}

/// Says what was being done.
pub(crate) trait Doing<T> {
    /// `what` completes "cannot …".
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|source| Failure { what: what(), source: source.into() })
    }
}
