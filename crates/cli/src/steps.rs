//! The steps of a build on the terminal: one line or bar each.

use std::cell::RefCell;

use builder::pkg::Progress;
use model::Bytes;

use crate::out::Step;

/// Shows the steps of a build one after the other.
#[derive(Debug, Default)]
pub(crate) struct Steps(RefCell<Option<Step>>);

impl Steps {
    /// The last step ended well.
    pub(crate) fn done(&self) {
        if let Some(step) = self.0.take() {
            step.done("");
        }
    }
}

impl Progress for Steps {
    fn step(&self, what: &str) {
        self.done();
        self.0.replace(Some(Step::start(what)));
    }

    fn note(&self, what: &str) {
        if let Some(step) = &*self.0.borrow() {
            step.note(what);
        }
    }

    fn bytes(&self, done: Bytes, total: Bytes) {
        if let Some(step) = &*self.0.borrow() {
            step.bytes(done, total);
        }
    }

    fn line(&self, text: &str) {
        match &*self.0.borrow() {
            Some(step) => step.line(text),
            None => crate::out::say_text(text),
        }
    }
}
