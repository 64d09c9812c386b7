//! What counts on a node that never had a config: the bootstrap file, or EVE's old files.
//!
//! A config that was saved once ends it for good, whatever the times in the files.

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

/// Puts what is on CONFIG in force; and whether that is all done with. What is not is in the log and
/// the status, and worth another look.
pub(super) fn begin(paths: &Paths, writers: &mut Writers) -> (Option<First>, bool) {
    let now = host::clock::now();
    let mut troubles = Vec::new();
    let mut found = None;
    match bootstrap::read(paths, now) {
        Ok(Some(device)) => found = Some((device, true, PortsFrom::Bootstrap)),
        Ok(None) => {}
        Err(why) => trouble(&mut troubles, &why, now),
    }
    if let Some(said) = legacy::read(paths) {
        for why in &said.troubles {
            trouble(&mut troubles, why, now);
        }
        found = Some((said.device, said.has_ports, PortsFrom::Override));
    }
    let first = found.map(|(device, has_ports, from)| {
        let properties = super::settings(&device.items, &Properties::default(), now);
        for refused in &device.refused {
            tracing::warn!(kind = ?refused.kind, id = refused.id, "refused: {}", refused.text);
        }
        for (key, problem) in &properties.problems {
            tracing::warn!(key, "refused: {}", problem.text);
        }
        let ports_from = if has_ports { from } else { PortsFrom::Controller };
        let ports = has_ports.then_some(&device.ports);
        match writers.desired.publish_first(&properties, ports) {
            Ok(()) => {
                let (ports, items) = (device.ports.len(), device.items.len());
                tracing::info!(?from, ports, items, "in force until there is a config");
            }
            Err(why) => trouble(&mut troubles, &why, now),
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

fn trouble(troubles: &mut Vec<Problem>, why: &(impl Diagnose + 'static), now: UnixMillis) {
    tracing::error!("{}", chain(why));
    troubles.push(why.problem(now));
}
