//! What counts on a node that never had a config: the bootstrap file, or EVE's old files.
//!
//! A config that was saved once ends it for good, whatever the times in the files.

use std::collections::BTreeSet;
use std::sync::Arc;

use host::topics::Table;
use model::desired::{Device, Properties};
use model::reported::PortsFrom;
use model::topic::{Controller, Only};
use model::{Diagnose, Problem, UnixMillis, chain};

use super::{Writers, bootstrap, legacy};
use crate::service::Paths;

/// Settings and ports, as if the controller had told them.
pub(super) struct First {
    pub(super) device: Arc<Device>,
    pub(super) properties: Properties,
    pub(super) ports_from: PortsFrom,
}

/// What was said of the files: what is still so at the next look is not said again.
#[derive(Debug, Default)]
pub(super) struct Said {
    before: BTreeSet<String>,
    now: BTreeSet<String>,
}

impl Said {
    /// Whether this was not said of the files as they are.
    pub(super) fn is_news(&mut self, text: &str) -> bool {
        self.now.insert(text.to_owned());
        !self.before.contains(text)
    }

    /// Another look begins. What was not found in the last one would be news again.
    fn look(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}

/// Puts what is on CONFIG in force; and whether that is all done with. What is not is in the log and
/// the status, and worth another look.
pub(super) fn begin(
    paths: &Paths,
    writers: &mut Writers,
    said: &mut Said,
) -> (Option<First>, bool) {
    said.look();
    let now = host::clock::now();
    let mut troubles = Vec::new();
    let mut found = None;
    match bootstrap::read(paths, now) {
        Ok(Some(device)) => found = Some((device, true, PortsFrom::Bootstrap)),
        Ok(None) => {}
        Err(why) => trouble(&mut troubles, said, &why, now),
    }
    if let Some(found_old) = legacy::read(paths, said) {
        for why in &found_old.troubles {
            trouble(&mut troubles, said, why, now);
        }
        found = Some((found_old.device, found_old.has_ports, PortsFrom::Override));
    }
    let first = found.map(|(device, has_ports, from)| {
        let properties = super::settings(&device.items, &Properties::default(), now);
        for refused in &device.refused {
            if said.is_news(&format!("{:?} {}: {}", refused.kind, refused.id, refused.text)) {
                tracing::warn!(kind = ?refused.kind, id = refused.id, "refused: {}", refused.text);
            }
        }
        for (key, problem) in &properties.problems {
            if said.is_news(&format!("{key}: {}", problem.text)) {
                tracing::warn!(key, "refused: {}", problem.text);
            }
        }
        let ports_from = if has_ports { from } else { PortsFrom::Controller };
        let ports = has_ports.then_some(&device.ports);
        match writers.desired.publish_first(&properties, ports) {
            Ok(()) => {
                let (ports, items) = (device.ports.len(), device.items.len());
                if said.is_news(&format!("{from:?} {ports} {items}")) {
                    tracing::info!(?from, ports, items, "in force until there is a config");
                }
            }
            Err(why) => trouble(&mut troubles, said, &why, now),
        }
        First { device: Arc::new(device), properties, ports_from }
    });
    let done = troubles.is_empty();
    if let Some(why) = troubles.into_iter().next() {
        let mut status = super::status(&device::config::State::default(), "", None);
        status.problem = Some(why);
        if let Err(e) = writers.controller.publish(Table::<Controller>::from([(Only, status)])) {
            tracing::error!("{}", chain(&e));
        }
    }
    (first, done)
}

fn trouble(
    troubles: &mut Vec<Problem>,
    said: &mut Said,
    why: &(impl Diagnose + 'static),
    now: UnixMillis,
) {
    if said.is_news(&chain(why)) {
        tracing::error!("{}", chain(why));
    }
    troubles.push(why.problem(now));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_as_it_is_is_said_once_and_anew_after_a_change() {
        let mut said = Said::default();
        let mut look = |found: &[&str]| {
            said.look();
            found.iter().filter(|text| said.is_news(text)).count()
        };
        assert_eq!([look(&["bad"]), look(&["bad"]), look(&["bad", "worse"])], [1, 0, 1]);
        assert_eq!([look(&[]), look(&["bad"])], [0, 1], "it was mended and broken again");
    }
}
