//! Saying no to an object: which field, what it holds, what it should.

use std::fmt::Display;

use model::Id;
use model::desired::{ObjectKind, Refused};

/// Foreign text in a refusal is cut here: it travels back to the controller.
const SHOWN: usize = 80;

/// Why one object was left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rejected(String);

impl Rejected {
    /// As it is reported.
    pub(super) fn of(self, kind: ObjectKind, id: &str, name: &str) -> Refused {
        Refused { kind, id: shown(id), name: shown(name), text: self.0 }
    }

    /// Field and cause, for people.
    pub(super) fn text(self) -> String {
        self.0
    }

    /// The same, seen from the message around it.
    pub(super) fn within(self, outer: impl Display) -> Rejected {
        Rejected(format!("{outer}.{}", self.0))
    }
}

/// `field` holds `got`, which is not `want`.
pub(super) fn no(field: impl Display, got: impl Display, want: &str) -> Rejected {
    let got = shown(&got.to_string());
    Rejected(format!("{field}: {got:?} is not {want}"))
}

/// `field` has something wrong with it.
pub(super) fn wrong(field: impl Display, why: impl Display) -> Rejected {
    Rejected(format!("{field}: {why}"))
}

/// An id in the wire's text form. All zeros is none: EVE reads nonsense as that.
pub(super) fn id<K>(field: impl Display, text: &str) -> Result<Id<K>, Rejected> {
    match text.parse::<Id<K>>() {
        Ok(id) if !id.raw().is_nil() => Ok(id),
        _ => Err(no(field, text, "a UUID")),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}
